"""
Blocks read by `os.pread` (O_DIRECT: `os.preadv`) in the threads of `loop.run_in_executor`.
"""

import asyncio
import mmap
import os
import threading
from concurrent.futures import ThreadPoolExecutor

from _reads import BLOCK, job
from _rounds_async import compare

the_job = job()
fd = os.open(the_job.path, the_job.flags)
own = threading.local()


def read_direct(offset: int) -> bytes:
    """
    Read into memory of the thread's own.
    """
    if not hasattr(own, "memory"):
        own.memory = mmap.mmap(-1, BLOCK)  # aligned
    os.preadv(fd, [own.memory], offset)
    return own.memory[:]


async def main() -> None:
    """
    Measure.
    """
    loop = asyncio.get_running_loop()
    loop.set_default_executor(ThreadPoolExecutor(min(the_job.depth, 32)))
    if the_job.direct:
        await compare(the_job, lambda offset: loop.run_in_executor(None, read_direct, offset))
    else:
        await compare(
            the_job, lambda offset: loop.run_in_executor(None, os.pread, fd, BLOCK, offset)
        )


asyncio.run(main())
