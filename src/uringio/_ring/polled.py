"""
Rings whose submissions a thread of the kernel's takes (IORING_SETUP_SQPOLL), from both ends.

Theory of operation.  The thread looks at the submission queue by itself, from another processor.
When it has found nothing for a while it sets NEED_WAKEUP, passes a full barrier, looks a last time,
and sleeps.  We store the tail, pass a full barrier, and look at NEED_WAKEUP.  Whichever store came
first, at least one of the two sees the other's; without our barrier both may miss, and what was
submitted lies there until something else wakes the thread.

The tail never goes back: what was published may be in the thread's hands already.

On a processor that reorders more than that (`System.total_store_order`) the requests are made
visible by a barrier before the tail, and completions are read behind one after the tail of theirs
and before the head that gives their slots back.

Twins: __io_uring_flush_sq, io_uring_submit, io_uring_sqring_wait (liburing queue.c).
Sources: io_uring_sqpoll(7), except that its example leaves the barrier out; io_uring/sqpoll.c.
"""

from collections.abc import Callable
from typing import Final

from uringio._sys import constants as k
from uringio._sys.errnos import Fate, fate_of_enter
from uringio._sys.fences import Fence
from uringio._sys.layouts import CQE
from uringio._sys.libc import pointer_argument, size_argument
from uringio.errors import op_error

from .queue import Completion, Reap, SubmitAndWait, enter_error
from .setup import Ring

__all__ = ["make_careful_reap", "make_poke", "make_polled_submit"]

_U32: Final = 0xFFFFFFFF


def make_poke(ring: Ring) -> Callable[[int], None]:
    """
    Build the function that enters a ring for its submitting thread's sake.

    ``poke(flags)`` takes IORING_ENTER_SQ_WAKEUP, to wake it, and IORING_ENTER_SQ_WAIT, to wait
    until it has made room; a signal ends the wait.

    Raises (the function):
        RingError: The thread has died (EOWNERDEAD), or the ring is disabled (EBADFD).
    """
    enter, get_errno, nr, fd = (
        ring.system.bare_syscall, ring.system.get_errno, ring.system.nr_enter, ring.enter_fd,
    )  # fmt: skip
    always = ring.enter_flags & k.IORING_ENTER_REGISTERED_RING
    null, zero = pointer_argument(0), size_argument(0)

    def poke(flags: int) -> None:
        if enter(nr, fd, 0, 0, flags | always, null, zero) < 0:
            number = get_errno()
            if fate_of_enter(number) is not Fate.DONE:
                raise enter_error(number, ring)

    return poke


def make_polled_submit(
    ring: Ring, submit_and_wait: SubmitAndWait, poke: Callable[[int], None], fence: Fence
) -> SubmitAndWait:
    """
    Build what stands in for `queue.make_submit_and_wait`, which still does the waiting.

    A submission alone makes no system call while the thread is awake.

    Raises (the function):
        OpError: The barrier, which worked when the ring was made, was refused.
    """
    sq_head, sq_tail, sq_flags = ring.sq_head, ring.sq_tail, ring.sq_flags
    entries = ring.sq_entries
    ordered = ring.system.total_store_order

    def polled_submit(tail: int, wait_count: int, timeout_ns: int | None, /) -> Fate:
        if not ordered:
            _pass(fence, ring)  # behind it a signal handler may publish more
        if 0 < (tail - sq_tail[0]) & _U32 <= entries:
            sq_tail[0] = tail & _U32
        # Where the barrier fails nobody knows whether the thread saw the tail: wake it anyway.
        if sq_tail[0] != sq_head[0] and (fence() or sq_flags[0] & k.IORING_SQ_NEED_WAKEUP):
            poke(k.IORING_ENTER_SQ_WAKEUP)
        if wait_count or sq_flags[0] & k.IORING_SQ_CQ_OVERFLOW:
            return submit_and_wait(sq_tail[0], wait_count, timeout_ns)
        return Fate.DONE

    return polled_submit


def make_careful_reap(
    ring: Ring, storage: list[Completion], fence: Fence | None, unwanted: int = -1
) -> Reap:
    """
    Build what stands in for `queue.make_reap` where completions cannot be taken by the span.

    Args:
        fence: What to pass where the processor reorders loads, None elsewhere.
        unwanted: The user_data of completions to be dropped.
    """
    cq_head, cq_tail, cqes = ring.cq_head, ring.cq_tail, ring.cqes
    mask = ring.cq_entries - 1
    size = ring.cqe_bytes

    def careful_reap() -> None:
        nonlocal storage
        head, tail = cq_head[0], cq_tail[0]
        if head == tail:
            return
        if fence is not None:
            _pass(fence, ring)  # the completions are read after the tail,
        found = [
            CQE.unpack_from(cqes, ((head + index) & mask) * size)
            for index in range((tail - head) & _U32)
        ]
        if fence is not None:
            _pass(fence, ring)  # and before their slots are given back
        found = [one for one in found if one[0] != unwanted]
        if cq_head[0] != head:
            careful_reap()  # a signal handler has taken some: see what is left
            return
        storage += found  # an operator: no handler runs between it and the head's store
        cq_head[0] = tail

    return careful_reap


def _pass(fence: Fence, ring: Ring) -> None:
    if result := fence():
        raise op_error(-result, "membarrier", ring.fd, detail="which a filter may forbid now")
