"""
Queues that do not go round: every batch starts at the first slot (`SetupFlags.SQ_REWIND`).

Theory of operation.  The kernel looks at neither head nor tail of the submission queue, takes as
many requests as the call says, from the first slot on, and tells in the call's result alone how
many it took.  Counts of slots go on growing here all the same: head and tail are words of our own,
and behind each call the count jumps to the next multiple of the queue's size, whose slot is the
first.  So whoever fills slots needs to know nothing of it.

What is only told in a result must survive a signal handler that raises behind the call.  C code
puts the result into a list; from there to the counts there is no call behind which one could run.

Kernel: 7.0.  Source: io_uring_setup_flags(7), IORING_SETUP_SQ_REWIND.
"""

from typing import Final

from uringio._ring.queue import SubmitAndWait, settle_failure
from uringio._ring.setup import Ring as Core
from uringio._sys import constants as k
from uringio._sys.errnos import Fate
from uringio._sys.libc import pointer_argument, size_argument

__all__ = ["make_rewinding_submit"]

_U32: Final = (1 << 32) - 1


def make_rewinding_submit(
    core: Core, cells: list[int], submit_and_wait: SubmitAndWait
) -> SubmitAndWait:
    """
    Build what stands in for *submit_and_wait*, which still does the waiting.

    Args:
        cells: As in `make_fill`, and a fifth: how many counts were jumped over.
    """
    system = core.system
    enter, get_errno = system.bare_syscall, system.get_errno
    nr, fd = system.nr_enter, core.enter_fd
    flags = k.IORING_ENTER_GETEVENTS | core.enter_flags
    null, zero = pointer_argument(0), size_argument(0)
    sqes, sq_head, entries, size = core.sqes, core.sq_head, core.sq_entries, core.sqe_bytes
    base = cells[0] - ((cells[0] - sq_head[0]) & _U32)
    counts = [0]
    results: list[int] = []

    def rewinding_submit(tail: int, wait_count: int, timeout_ns: int | None, /) -> Fate:
        nonlocal base
        call = map(enter, (nr,), (fd,), counts, (0,), (flags,), (null,), (zero,))
        # No calls from here on until all counts are moved, but for the one that is made by C.
        counts[0] = (tail - base) & _U32
        if counts[0] > entries:  # a signal handler has handed all of it over meanwhile
            counts[0] = 0
        results[:] = call
        if results[0] > 0:
            if cells[0] != base + results[0]:
                end = (cells[0] - base) * size
                sqes[: end - results[0] * size] = sqes[results[0] * size : end]
            cells[0] += entries - results[0]
            cells[4] += entries - results[0]
            base += entries
            cells[2] = base + entries
            sq_head[0] = base & _U32
        if results[0] < 0:
            return settle_failure(core, get_errno(), lambda: enter(nr, fd, 0, 0, flags, null, zero))
        if wait_count:
            return submit_and_wait(sq_head[0], wait_count, timeout_ns)
        return Fate.DONE

    return rewinding_submit
