"""
Blocks read by uringio: FORM BACKEND.

``single`` awaits one read at a time, by as many tasks as reads are to go on together; ``batch``
awaits batches into memory of its own; ``fixed`` awaits them into registered buffers, of a
registered file. With O_DIRECT these two have several batches on their way.
"""

from __future__ import annotations

from _reads import BLOCK, Until, check, job, measure_async

import uringio

_BATCHES = 2
_BATCH_MAX = 32
the_job = job()
form, backend = the_job.options


async def main() -> None:
    """
    Measure.
    """
    async with await uringio.open_file(the_job.path, "rb", direct=the_job.direct) as file:
        memory = uringio.aligned_buffer(BLOCK * the_job.depth)
        pieces = [memory[at : at + BLOCK] for at in range(0, len(memory), BLOCK)]
        for offset in the_job.rounds()[0]:
            check(offset, await file.read_at(offset, BLOCK))

        rounds = the_job.rounds(64)

        async def alone(until: Until) -> None:
            piece = pieces[0]
            while until.more():
                for offset in rounds[until.count // 64 % len(rounds)]:
                    await file.read_into_at(offset, piece)
                until.count += 64

        async def task(until: Until, at: int, piece: memoryview) -> None:
            while until.more():
                for offset in rounds[at % len(rounds)][:8]:
                    await file.read_into_at(offset, piece)
                until.count += 8
                at += 1

        async def tasks(until: Until) -> None:
            async with uringio.TaskGroup() as group:
                for index, piece in enumerate(pieces):
                    group.start_soon(task, until, index * 7, piece)

        if form == "single":
            await measure_async(the_job, alone if the_job.depth == 1 else tasks)
        elif not the_job.direct:
            await in_batches(file, the_job.depth, 1)
        else:
            count = max(_BATCHES, the_job.depth // _BATCH_MAX)
            await in_batches(file, the_job.depth // count, count)


async def in_batches(file: uringio.ReadFile, size: int, count: int) -> None:
    """
    Measure *count* tasks that await batches of *size* reads.
    """
    rounds = the_job.rounds(size)

    async def moving(until: Until, at: int) -> None:
        buffer = await pool.acquire(size * BLOCK)
        while until.more():
            _, buffer = await file.read_many_into(buffer, rounds[at % len(rounds)], BLOCK)
            until.count += size
            at += 1
        buffer.release()

    async def filling(until: Until, at: int) -> None:
        memory = uringio.aligned_buffer(size * BLOCK)
        while until.more():
            await file.read_many_into_at(rounds[at % len(rounds)], memory, BLOCK)
            until.count += size
            at += 1

    async def run(until: Until) -> None:
        async with uringio.TaskGroup() as group:
            for index in range(count):
                group.start_soon(moving if form == "fixed" else filling, until, index * 7)

    for offset, data in zip(rounds[0], await file.read_many_at(rounds[0], BLOCK), strict=True):
        check(offset, data)
    if form == "fixed":
        pool = uringio.BufferPool(count << 20)
        async with pool.registered(), file.registered():
            await measure_async(the_job, run)
    else:
        await measure_async(the_job, run)


uringio.run(main, backend=None if backend == "default" else backend)
