"""
Blocks read by `os.preadv`, one after another, into memory that is used again.
"""

import mmap
import os

from _reads import BLOCK, Until, check, job, measure

the_job = job()
fd = os.open(the_job.path, the_job.flags)
# Aligned, as O_DIRECT needs it.
memory = memoryview(mmap.mmap(-1, BLOCK * the_job.depth))
pieces = [[memory[at : at + BLOCK]] for at in range(0, len(memory), BLOCK)]
rounds = the_job.rounds()
for offset in rounds[0]:
    os.preadv(fd, pieces[0], offset)
    check(offset, memory[:BLOCK])
size = max(the_job.depth, 64)
rounds, pieces = the_job.rounds(size), pieces * (size // len(pieces))


def run(until: Until) -> None:
    """
    Read one after another.
    """
    preadv = os.preadv
    at = 0
    while until.more():
        for piece, offset in zip(pieces, rounds[at % len(rounds)], strict=True):
            preadv(fd, piece, offset)
        until.count += size
        at += 1


measure(the_job, run)
