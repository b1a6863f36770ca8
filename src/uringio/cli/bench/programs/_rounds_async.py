"""
How rivals on asyncio read: one after another, so many together, or so many tasks.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from _reads import Job, Until, check, measure_async

Read = Callable[[int], Awaitable[bytes]]


async def compare(the_job: Job, read: Read) -> None:
    """
    Measure *read*, which takes an offset and gives a block.
    """
    for offset in the_job.rounds()[0]:
        check(offset, await read(offset))
    await measure_async(the_job, _kind(the_job, read))


def _kind(the_job: Job, read: Read) -> Callable[[Until], Awaitable[None]]:
    rounds = the_job.rounds(16 if the_job.depth == 1 else 64 if the_job.direct else None)

    async def alone(until: Until) -> None:
        while until.more():
            for offset in rounds[until.count // 16 % len(rounds)]:
                await read(offset)
            until.count += 16

    async def together(until: Until) -> None:
        at = 0
        while until.more():
            await asyncio.gather(*map(read, rounds[at % len(rounds)]))
            until.count += the_job.depth
            at += 1

    async def task(until: Until, at: int) -> None:
        while until.more():
            for offset in rounds[at % len(rounds)][:8]:
                await read(offset)
            until.count += 8
            at += 1

    async def tasks(until: Until) -> None:
        await asyncio.gather(*(task(until, at * 7) for at in range(the_job.depth)))

    if the_job.depth == 1:
        return alone
    return tasks if the_job.direct else together
