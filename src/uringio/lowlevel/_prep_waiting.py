"""
Requests that wait: for readiness, time, processes, and words of memory.

Each function fills one request of *ring*, a `Ring` or a single `Request`, and takes beside its own
arguments ``user_data``, which its completions carry, and ``flags`` (`SqeFlags`).  "Lifetime" names
what the kernel still touches later: given as an object it is kept by the ring, given as an address
it is the caller's to keep.  Results are those of ``res``; a negative one is always an errno.
"""

from collections.abc import Sequence

from uringio._sys import constants as k
from uringio._sys.layouts import SIGINFO_CHILD

from ._filling import Requests
from ._memory import Target, target, timespec_of, waiters_of
from ._slots import poll_mask

__all__ = [
    "prep_futex_wait",
    "prep_futex_waitv",
    "prep_futex_wake",
    "prep_link_timeout",
    "prep_poll_add",
    "prep_poll_multishot",
    "prep_poll_remove",
    "prep_poll_update",
    "prep_timeout",
    "prep_timeout_remove",
    "prep_timeout_update",
    "prep_waitid",
]


def prep_poll_add(
    ring: Requests,
    fd: int,
    mask: int,
    poll_flags: int = 0,
    *,
    user_data: int = 0,
    flags: int = 0,
) -> None:
    """
    Wait until a descriptor is ready.

    Args:
        mask: POLL* bits, which are EPOLL*'s.
        poll_flags: `PollFlags`.

    Fields: fd, poll32_events, len (flags).
    Lifetime: nothing.
    Results: the POLL* bits that hold.
    Kernel: 5.1.  Fallback: poll(2).
    Twin and source: io_uring_prep_poll_add(3).
    """
    ring.fill(k.IORING_OP_POLL_ADD, fd, 0, 0, poll_flags, poll_mask(mask), user_data, flags)


def prep_poll_multishot(
    ring: Requests,
    fd: int,
    mask: int,
    *,
    user_data: int = 0,
    flags: int = 0,
) -> None:
    """
    Tell each time a descriptor becomes ready.

    Fields: as prep_poll_add.
    Lifetime: nothing.
    Results: the POLL* bits that hold; ends without CqeFlags.MORE.
    Kernel: 5.13.  Fallback: prep_poll_add, again and again.
    Twin and source: io_uring_prep_poll_multishot(3).
    """
    prep_poll_add(ring, fd, mask, k.IORING_POLL_ADD_MULTI, user_data=user_data, flags=flags)


def prep_poll_remove(
    ring: Requests,
    target_user_data: int,
    *,
    user_data: int = 0,
    flags: int = 0,
) -> None:
    """
    Withdraw a poll.

    Fields: addr.
    Lifetime: nothing.
    Results: 0; ENOENT: there is none; the poll itself completes with ECANCELED.
    Kernel: 5.1.  Fallback: prep_cancel64.
    Twin and source: io_uring_prep_poll_remove(3).
    """
    ring.fill(k.IORING_OP_POLL_REMOVE, -1, 0, target_user_data, 0, 0, user_data, flags)


def prep_poll_update(
    ring: Requests,
    target_user_data: int,
    new_user_data: int,
    mask: int,
    poll_flags: int,
    *,
    user_data: int = 0,
    flags: int = 0,
) -> None:
    """
    Change a poll that is waiting.

    Args:
        poll_flags: `PollFlags`: which of user_data and events to change.

    Fields: addr, off, poll32_events, len (flags).
    Lifetime: nothing.
    Results: 0; ENOENT: there is none.
    Kernel: 5.13.  Fallback: prep_poll_remove and prep_poll_add.
    Twin and source: io_uring_prep_poll_update(3).
    """
    if poll_flags & k.IORING_POLL_UPDATE_USER_DATA:
        ring.rename(target_user_data, new_user_data)
    ring.fill(
        k.IORING_OP_POLL_REMOVE, -1, new_user_data, target_user_data, poll_flags, poll_mask(mask),
        user_data, flags,
    )  # fmt: skip


def prep_timeout(
    ring: Requests,
    duration_ns: int,
    count: int = 0,
    timeout_flags: int = 0,
    *,
    user_data: int = 0,
    flags: int = 0,
) -> None:
    """
    Complete after a time, or when so many other requests have completed.

    Args:
        duration_ns: How long, or with ABS until when.
        count: 0 for none; with MULTISHOT how often.
        timeout_flags: `TimeoutFlags`.

    Fields: addr, len (1), off (the count), timeout_flags.
    Lifetime: the time, until it was submitted.
    Results: ETIME: the time is over; 0: the count was reached.
    Kernel: 5.4.  Fallback: the timeout of Ring.wait.
    Twin and source: io_uring_prep_timeout(3).
    """
    addr, keep = timespec_of(duration_ns)
    ring.fill(k.IORING_OP_TIMEOUT, -1, count, addr, 1, timeout_flags, user_data, flags, keep)


def prep_timeout_remove(
    ring: Requests,
    target_user_data: int,
    timeout_flags: int = 0,
    *,
    user_data: int = 0,
    flags: int = 0,
) -> None:
    """
    Withdraw a timeout, which then completes with ECANCELED.

    Fields: addr, timeout_flags.
    Lifetime: nothing.
    Results: 0; ENOENT: there is none; EBUSY: it is expiring.
    Kernel: 5.5.  Fallback: prep_cancel64.
    Twin and source: io_uring_prep_timeout_remove(3).
    """
    ring.fill(
        k.IORING_OP_TIMEOUT_REMOVE, -1, 0, target_user_data, 0, timeout_flags, user_data, flags
    )


def prep_timeout_update(
    ring: Requests,
    duration_ns: int,
    target_user_data: int,
    timeout_flags: int = 0,
    *,
    user_data: int = 0,
    flags: int = 0,
) -> None:
    """
    Move a timeout.

    Fields: addr, off (the time), timeout_flags.
    Lifetime: the time, until it was submitted.
    Results: 0; ENOENT: there is none.
    Kernel: 5.11.  Fallback: prep_timeout_remove and prep_timeout.
    Twin and source: io_uring_prep_timeout_update(3).
    """
    when, keep = timespec_of(duration_ns)
    ring.fill(
        k.IORING_OP_TIMEOUT_REMOVE, -1, when, target_user_data, 0,
        timeout_flags | k.IORING_TIMEOUT_UPDATE, user_data, flags, keep,
    )  # fmt: skip


def prep_link_timeout(
    ring: Requests,
    duration_ns: int,
    timeout_flags: int = 0,
    *,
    user_data: int = 0,
    flags: int = 0,
) -> None:
    """
    Bound the time of the request before, which must have SqeFlags.IO_LINK.

    Fields: addr, len (1), timeout_flags.
    Lifetime: the time, until it was submitted.
    Results: ETIME: that request was cancelled; ECANCELED: it had ended.
    Kernel: 5.5.  Fallback: none.
    Twin and source: io_uring_prep_link_timeout(3).
    """
    addr, keep = timespec_of(duration_ns)
    ring.fill(k.IORING_OP_LINK_TIMEOUT, -1, 0, addr, 1, timeout_flags, user_data, flags, keep)


def prep_waitid(
    ring: Requests,
    id_type: int,
    id_: int,
    info: Target | None,
    options: int,
    waitid_flags: int = 0,
    *,
    user_data: int = 0,
    flags: int = 0,
) -> None:
    """
    Wait for a child process.

    Args:
        id_type: P_PID, P_PIDFD, P_PGID, P_ALL.
        info: 128 bytes.
        options: WEXITED and the like.

    Fields: fd (the id), len (its type), addr2, file_index (options), waitid_flags.
    Lifetime: *info*.
    Results: 0; *info* holds a siginfo_t, read by `unpack_siginfo`.
    Kernel: 6.7.  Fallback: waitid(2).
    Twin and source: io_uring_prep_waitid(3).
    """
    addr, _, keep = target(info, SIGINFO_CHILD.size) if info is not None else (0, 0, None)
    ring.fill(
        k.IORING_OP_WAITID, id_, addr, 0, id_type, waitid_flags, user_data, flags, keep, 0, 0,
        options,
    )  # fmt: skip


def prep_futex_wait(
    ring: Requests,
    word: Target,
    expected: int,
    mask: int = k.FUTEX_BITSET_MATCH_ANY,
    futex2_flags: int = k.FUTEX2_SIZE_U32,
    futex_flags: int = 0,
    *,
    user_data: int = 0,
    flags: int = 0,
) -> None:
    """
    Wait while a word of memory has a value.

    Args:
        futex2_flags: `Futex2Flags`.

    Fields: fd (FUTEX2 flags), addr, off (the value), addr3 (the mask), futex_flags.
    Lifetime: the word.
    Results: 0: woken; EAGAIN: it had another value.
    Kernel: 6.7.  Fallback: futex(2).
    Twin and source: io_uring_prep_futex_wait(3).
    """
    addr, _, keep = target(word, 4)
    ring.fill(
        k.IORING_OP_FUTEX_WAIT, futex2_flags, expected, addr, 0, futex_flags, user_data, flags,
        keep, 0, 0, 0, mask,
    )  # fmt: skip


def prep_futex_wake(
    ring: Requests,
    word: Target,
    count: int,
    mask: int = k.FUTEX_BITSET_MATCH_ANY,
    futex2_flags: int = k.FUTEX2_SIZE_U32,
    futex_flags: int = 0,
    *,
    user_data: int = 0,
    flags: int = 0,
) -> None:
    """
    Wake who waits on a word of memory.

    Fields: fd (FUTEX2 flags), addr, off (the count), addr3 (the mask), futex_flags.
    Lifetime: the word.
    Results: how many were woken.
    Kernel: 6.7.  Fallback: futex(2).
    Twin and source: io_uring_prep_futex_wake(3).
    """
    addr, _, keep = target(word, 4)
    ring.fill(
        k.IORING_OP_FUTEX_WAKE, futex2_flags, count, addr, 0, futex_flags, user_data, flags,
        keep, 0, 0, 0, mask,
    )  # fmt: skip


def prep_futex_waitv(
    ring: Requests,
    words: Sequence[tuple[int, int, int]],
    futex_flags: int = 0,
    *,
    user_data: int = 0,
    flags: int = 0,
) -> None:
    """
    Wait on several words of memory.

    Args:
        words: Of each its address, the value expected, and `Futex2Flags`; up to 128.

    Fields: addr, len (how many), futex_flags.
    Lifetime: the words, which are the caller's to keep.
    Results: which one was woken, counted from 0.
    Kernel: 6.7.  Fallback: futex_waitv(2).
    Twin and source: io_uring_prep_futex_waitv(3).
    """
    addr, keep = waiters_of(words)
    ring.fill(k.IORING_OP_FUTEX_WAITV, 0, 0, addr, len(words), futex_flags, user_data, flags, keep)
