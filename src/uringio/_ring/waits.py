"""
Waits with all that ``io_uring_enter`` takes.

Moments, a least duration, a mask of signals, and arguments that were registered beforehand.  For
callers that are not in a hurry: the argument is written anew for each call, so that a signal
handler may wait on the same ring in between.  An errno is judged by `queue.settle_failure`.

Twins: io_uring_submit_and_wait_min_timeout, io_uring_submit_and_wait_reg.
Source: io_uring_enter(2).
"""

import errno
from collections.abc import Collection
from typing import Final

from uringio._sys import constants as k
from uringio._sys.errnos import Fate
from uringio._sys.layouts import GETEVENTS_ARG, REG_WAIT, TIMESPEC
from uringio._sys.libc import pointer_argument, size_argument
from uringio._sys.memory import pin

from .queue import U32_MASK, settle_failure
from .setup import Ring

__all__ = ["SIGNAL_MAX", "enter", "knows_enter_flag", "signal_mask", "wait", "wait_registered"]

_NS_PER_S: Final = 1_000_000_000
# A set of signals is 64 bits, one each from SIGHUP up.
SIGNAL_MAX: Final = 64
_MASK_BYTES: Final = 8


def signal_mask(signals: Collection[int]) -> int:
    """
    Return the kernel's set of these signals.

    Raises:
        ValueError: There is no such signal.
    """
    mask = 0
    for one in signals:
        if not 1 <= one <= SIGNAL_MAX:
            raise ValueError(f"there is no signal {one}: they go from 1 to {SIGNAL_MAX}")
        mask |= 1 << (one - 1)
    return mask


def knows_enter_flag(ring: Ring, flag: int) -> bool:
    """Try whether the kernel takes a flag of ``io_uring_enter``; nothing is waited for."""
    raw = bytearray(GETEVENTS_ARG.size)
    addr, _, _keep = pin(raw, writable=True)
    flags = k.IORING_ENTER_GETEVENTS | k.IORING_ENTER_EXT_ARG | flag | ring.enter_flags
    system = ring.system
    result = system.bare_syscall(
        system.nr_enter, ring.enter_fd, 0, 0, flags, pointer_argument(addr),
        size_argument(len(raw)),
    )  # fmt: skip
    return result >= 0 or system.get_errno() != errno.EINVAL


def wait(
    ring: Ring,
    tail: int,
    wait_count: int,
    time_ns: int | None,
    *,
    absolute: bool = False,
    min_wait_us: int = 0,
    mask: int | None = None,
) -> Fate:
    """
    Submit, wait and run deferred work, as `queue.make_submit_and_wait` does.

    Args:
        tail: Slots filled, a count that never wraps.
        wait_count: How many completions to wait for.
        time_ns: How long at most, None: for ever. [nanoseconds]
        absolute: It is a moment of the ring's clock.  Kernel: 6.12.
        min_wait_us: From then on one completion is enough.  Kernel: 6.12. [microseconds]
        mask: Signals that are blocked meanwhile, instead of the thread's own.

    Raises:
        RingError: The ring is unusable.
        WrongThreadError: Another thread owns the ring.
    """
    raw = bytearray(GETEVENTS_ARG.size + TIMESPEC.size + _MASK_BYTES)
    addr, _, _keep = pin(raw, writable=True)
    time_at = GETEVENTS_ARG.size
    mask_at = time_at + TIMESPEC.size
    GETEVENTS_ARG.pack_into(
        raw,
        0,
        0 if mask is None else addr + mask_at,
        0 if mask is None else _MASK_BYTES,
        min_wait_us,
        0 if time_ns is None else addr + time_at,
    )
    if time_ns is not None:
        TIMESPEC.pack_into(raw, time_at, *divmod(time_ns, _NS_PER_S))
    if mask is not None:
        memoryview(raw)[mask_at:].cast("Q")[0] = mask
    flags = k.IORING_ENTER_EXT_ARG | (k.IORING_ENTER_ABS_TIMER if absolute else 0)
    return enter(ring, tail, wait_count, flags, addr, GETEVENTS_ARG.size)


def wait_registered(
    ring: Ring, tail: int, wait_count: int, index: int, *, absolute: bool = False
) -> Fate:
    """
    Submit and wait as the argument says that stands at *index* of the registered region.

    Kernel: 6.13.
    """
    flags = k.IORING_ENTER_EXT_ARG | k.IORING_ENTER_EXT_ARG_REG
    if absolute:
        flags |= k.IORING_ENTER_ABS_TIMER
    return enter(ring, tail, wait_count, flags, index * REG_WAIT.size, REG_WAIT.size)


def enter(
    ring: Ring, tail: int, wait_count: int, flags: int, argument: int, argument_bytes: int
) -> Fate:
    """Publish the slots below *tail* and enter once; see `wait`."""
    system = ring.system
    count = (tail - ring.sq_head[0]) & U32_MASK
    if count <= ring.sq_entries:
        ring.sq_tail[0] = tail & U32_MASK
    else:  # a signal handler has handed over more, after the caller looked at its tail
        count = 0
    flags |= k.IORING_ENTER_GETEVENTS | ring.enter_flags
    argp, argsz = pointer_argument(argument), size_argument(argument_bytes)

    def call(to_submit: int, min_complete: int) -> int:
        return system.bare_syscall(
            system.nr_enter, ring.enter_fd, to_submit, min_complete, flags, argp, argsz
        )

    if call(count, wait_count) >= 0:
        return Fate.DONE
    return settle_failure(ring, system.get_errno(), lambda: call(0, 0))
