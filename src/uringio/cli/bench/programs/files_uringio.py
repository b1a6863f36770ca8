"""
Blocks read by uringio: FORM BACKEND, each form as many programs would write it.
"""

from __future__ import annotations

from _reads import BLOCK, Until, check, job, measure_async

import uringio

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

        await measure_async(the_job, alone if the_job.depth == 1 else tasks)


uringio.run(main, backend=None if backend == "default" else backend)
