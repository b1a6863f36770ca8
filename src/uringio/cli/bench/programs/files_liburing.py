"""
Blocks read by the compiled binding `liburing` from the package index, with a registered file.
"""

import os

import liburing as lib
from _reads import BLOCK, Until, check, job, measure

the_job = job()
if the_job.direct:
    raise SystemExit("unavailable: its reads take a bytearray, which is not aligned for O_DIRECT")
depth = the_job.depth
fd = os.open(the_job.path, the_job.flags)
ring, cqes = lib.Ring(), lib.Cqe()
flags = lib.IORING_SETUP_SINGLE_ISSUER | lib.IORING_SETUP_DEFER_TASKRUN
try:
    lib.io_uring_queue_init(depth, ring, flags)
except OSError as refusal:
    raise SystemExit(f"unavailable: {refusal}") from None
pieces = [bytearray(BLOCK) for _ in range(depth)]
lib.io_uring_register_files(ring, lib.FileIndex([fd]))


def ask(index: int, offset: int) -> None:
    """
    Lay one read, of a block into the piece of memory with this index.
    """
    sqe = lib.io_uring_get_sqe(ring)
    lib.io_uring_prep_read(sqe, 0, pieces[index], offset)
    sqe.flags = lib.IOSQE_FIXED_FILE
    sqe.user_data = index


def take() -> list[int]:
    """
    Return the pieces that were read.
    """
    count = lib.io_uring_cq_ready(ring)
    lib.io_uring_wait_cqe_nr(ring, cqes, count)
    done = []
    for at in range(count):
        cqe = cqes[at]
        if cqe.res != BLOCK:
            raise SystemExit(f"a read ended with {cqe.res}")
        done.append(cqe.user_data)
    lib.io_uring_cq_advance(ring, count)
    return done


rounds = the_job.rounds()
for index, offset in enumerate(rounds[0]):
    ask(index, offset)
lib.io_uring_submit_and_wait(ring, depth)
take()
for index, offset in enumerate(rounds[0]):
    check(offset, pieces[index])


def together(until: Until) -> None:
    """
    Read a round, and wait for all of it.
    """
    at = 0
    while until.more():
        for index, offset in enumerate(rounds[at % len(rounds)]):
            ask(index, offset)
        lib.io_uring_submit_and_wait(ring, depth)
        until.count += len(take())
        at += 1


measure(the_job, together)
