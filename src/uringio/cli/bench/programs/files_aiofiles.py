"""
Blocks read by aiofiles: a position and a read, from as many files as reads go on together.
"""

import asyncio

import aiofiles
from _reads import BLOCK, job
from _rounds_async import compare

the_job = job()
if the_job.direct:
    raise SystemExit("unavailable: aiofiles gives no aligned memory, which O_DIRECT needs")


async def main() -> None:
    """
    Measure.
    """
    files = [await aiofiles.open(the_job.path, "rb", buffering=0) for _ in range(the_job.depth)]
    free = files.copy()

    async def read(offset: int) -> bytes:
        file = free.pop()
        await file.seek(offset)
        data = await file.read(BLOCK)
        free.append(file)
        return data

    await compare(the_job, read)


asyncio.run(main())
