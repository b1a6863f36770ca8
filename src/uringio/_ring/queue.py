"""
The two queues of a ring: hand slots over, wait, take completions.

Theory of operation.  The maker functions below close over the ring's words and return flat
functions: one call per *batch*, none per entry.  A driver fills slots itself, with one
``pack_into`` each, and passes its tail to `submit_and_wait`.

Signal handlers are Python code that runs, and may raise, right behind any call that we make.  So
how many slots the kernel consumed is read from the shared SQ head and from nothing else, since the
return value may never arrive.  `reap` moves completions into its caller's storage and then stores
the CQ head *with no call in between*: a handler that came between the two would have them taken
twice, and with them their provided buffers.  And an errno that would end the ring is believed only
when a second enter says it again: the handler that ran behind the first may have left its own.

`reap` hands over at most two spans, before and after the wrap.

Indexes are plain integers that never wrap, masked to 32 bits where they meet the shared words.

Memory order: with DEFER_TASKRUN the kernel touches both queues only inside our own enter, an opaque
call that neither compiler nor processor moves accesses across (`Ring.deferred`).

Twins: io_uring_submit_and_wait_timeout, io_uring_peek_batch_cqe, io_uring_cq_advance.
Sources: io_uring_enter(2); liburing queue.c for the order of events.
"""

import errno
from _thread import get_ident
from collections.abc import Callable, Iterable
from typing import Final, Protocol, TypeAlias

from uringio._sys import constants as k
from uringio._sys.errnos import EBADR, ENTER_REMEDIES, Fate, fate_of_enter
from uringio._sys.layouts import CQE, GETEVENTS_ARG, TIMESPEC
from uringio._sys.libc import pointer_argument, size_argument
from uringio.errors import RingError, WrongThreadError

from .setup import Ring

__all__ = [
    "Completion",
    "Reap",
    "SubmitAndWait",
    "enter_error",
    "make_reap",
    "make_submit_and_wait",
    "settle_failure",
]

U32_MASK: Final = 0xFFFFFFFF

Completion: TypeAlias = tuple[int, int, int]  # user_data, res, flags
Reap: TypeAlias = Callable[[], None]

_NS_PER_S: Final = 1_000_000_000


class SubmitAndWait(Protocol):
    """See `make_submit_and_wait`."""

    def __call__(self, tail: int, wait_count: int, timeout_ns: int | None, /) -> Fate: ...


def make_submit_and_wait(ring: Ring) -> SubmitAndWait:
    """
    Build the function that is the ring's only ``io_uring_enter``.

    ``submit_and_wait(tail, wait_count, timeout_ns)`` publishes every slot below *tail*, waits until
    *wait_count* completions stand in the queue or *timeout_ns* has passed (None: for ever), and
    runs deferred task work.  It returns the errno's fate: DONE, or REAP when completions must be
    taken before the rest can be submitted.  Whatever it returns, the SQ head tells what was
    consumed.

    The caller sees to it that only the thread that owns the ring comes here.  The kernel refuses
    other threads too, but not always: a registered index (`register_ring_fd`) means another ring in
    a thread that has registered one of its own.

    Raises:
        WrongThreadError: Another thread owns the ring.
        RingError: The ring is unusable.

    Cost: the system call, and about 300 ns beside it (CPython 3.11).
    """
    system = ring.system
    enter = system.bare_syscall
    get_errno = system.get_errno
    nr = system.nr_enter
    fd = ring.enter_fd
    flags = k.IORING_ENTER_GETEVENTS | ring.enter_flags
    flags_timed = flags | k.IORING_ENTER_EXT_ARG
    sq_head, sq_tail = ring.sq_head, ring.sq_tail
    # The kernel reads both structures during the call only; they live as long as this closure.
    argument = system.allocate(4096)
    timespec_offset = 64
    GETEVENTS_ARG.pack_into(argument.view, 0, 0, 0, 0, argument.addr + timespec_offset)
    pack_timespec = TIMESPEC.pack_into
    timespec_view = argument.view
    null, zero = pointer_argument(0), size_argument(0)
    argp, argsz = pointer_argument(argument.addr), size_argument(GETEVENTS_ARG.size)
    entries = ring.sq_entries
    done = Fate.DONE

    def submit_and_wait(tail: int, wait_count: int, timeout_ns: int | None, /) -> Fate:
        count = (tail - sq_head[0]) & U32_MASK
        if count <= entries:
            sq_tail[0] = tail & U32_MASK
        else:  # a signal handler has handed over more, after the caller looked at its tail
            count = 0
        if timeout_ns is None or not wait_count:
            result = enter(nr, fd, count, wait_count, flags, null, zero)
        else:
            pack_timespec(
                timespec_view, timespec_offset, timeout_ns // _NS_PER_S, timeout_ns % _NS_PER_S
            )
            result = enter(nr, fd, count, wait_count, flags_timed, argp, argsz)
        if result >= 0:
            return done
        return settle_failure(
            ring, get_errno(), lambda: enter(nr, fd, 0, 0, flags_timed, argp, argsz)
        )

    return submit_and_wait


def settle_failure(ring: Ring, number: int, again: Callable[[], int]) -> Fate:
    """
    Decide what an enter means that returned -1.

    Args:
        number: Its errno, or what a signal handler has left there.
        again: The same without submitting or waiting, to hear the errno once more.

    Raises:
        RingError: The ring is unusable.
        WrongThreadError: Another thread owns the ring.
    """
    fate = fate_of_enter(number)
    if ring.cq_overflow[0]:
        # Completions that the kernel had no memory for.  It says EBADR only once; this stays.
        raise enter_error(EBADR, ring)
    if fate is Fate.DONE or fate is Fate.REAP:
        return fate
    if again() >= 0:
        return Fate.DONE
    raise enter_error(ring.system.get_errno(), ring)


def enter_error(number: int, ring: Ring) -> WrongThreadError | RingError:
    # A registered index is the thread's own: in another thread it is out of range or empty.
    if number == errno.EEXIST or (
        number in {errno.EINVAL, errno.EBADF} and ring.registered_by not in {None, get_ident()}
    ):
        return WrongThreadError(
            "this ring belongs to another thread: a ring may be entered only by the thread that "
            "first ran it"
        )
    what = f"io_uring_enter failed on ring fd {ring.fd}"
    if fate_of_enter(number) is Fate.BUG:
        return RingError(number, what, "This is a bug in uringio: please report it")
    remedy = ENTER_REMEDIES.get(number, "The ring is lost; close it and make a new one")
    return RingError(number, what, remedy)


def make_reap(ring: Ring, storage: list[Completion]) -> Reap:
    """
    Build the function that takes every completion now in the queue.

    ``reap()`` appends them to *storage* as (user_data, res, flags), oldest first; the slots are the
    kernel's again when it returns.

    Twin: io_uring_peek_batch_cqe with io_uring_cq_advance.  Cost: about 30 ns per completion.
    """
    cq_head, cq_tail, cqes = ring.cq_head, ring.cq_tail, ring.cqes
    entries = ring.cq_entries
    mask = entries - 1
    size = k.SIZEOF_CQE
    unpack, unpack_one = CQE.iter_unpack, CQE.unpack_from

    def reap() -> None:
        nonlocal storage
        head = cq_head[0]
        tail = cq_tail[0]
        if head == tail:
            return
        start = head & mask
        if tail - head == 1:  # a third of the calls for as many
            one = (unpack_one(cqes, start * size),)
            if cq_head[0] == head:
                storage += one
                cq_head[0] = tail
                return
        end = start + ((tail - head) & U32_MASK)
        wrapped: Iterable[Completion] = ()
        if end <= entries:
            span = unpack(cqes[start * size : end * size])
        else:
            span = unpack(cqes[start * size :])
            wrapped = unpack(cqes[: (end - entries) * size])
        if cq_head[0] != head:
            reap()  # a signal handler has taken some: see what is left
            return
        # `+=` where `extend` would do: the interpreter runs signal handlers behind calls, but not
        # behind an operator, and from the first completion moved to the head stored none may run.
        storage += span
        storage += wrapped
        cq_head[0] = tail

    return reap
