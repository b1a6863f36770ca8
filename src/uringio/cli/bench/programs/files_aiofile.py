"""
Blocks read by aiofile, which asks caio: Linux's io_submit, or threads.
"""

import asyncio
import os

import aiofile
from _reads import BLOCK, job
from _rounds_async import compare

the_job = job()
if the_job.direct:
    raise SystemExit("unavailable: aiofile gives no aligned memory, which O_DIRECT needs")


async def main() -> None:
    """
    Measure.
    """
    async with aiofile.AIOFile(the_job.path, "rb") as file:

        def read(offset: int) -> asyncio.Future[bytes]:
            return file.read_bytes(BLOCK, offset)

        await compare(the_job, read)


asyncio.run(main())
os._exit(0)  # caio's threads may outlive what they serve
