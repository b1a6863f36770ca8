"""
Requests that wait for time: TIMEOUT, its removal and change, and LINK_TIMEOUT.

Source: io_uring/timeout.c of Linux 6.18.
"""

import errno
from ctypes import string_at
from typing import TYPE_CHECKING, Final

from uringio._sys import constants as k
from uringio._sys.layouts import TIMESPEC

from ._requests import Request, handles
from .errors import NotSimulatedError

if TYPE_CHECKING:
    from ._kernel import SimKernel

__all__ = ["arm_link_timeout"]

_CLOCKS: Final = k.IORING_TIMEOUT_BOOTTIME | k.IORING_TIMEOUT_REALTIME
_KNOWN: Final = (
    k.IORING_TIMEOUT_ABS | _CLOCKS | k.IORING_TIMEOUT_ETIME_SUCCESS | k.IORING_TIMEOUT_MULTISHOT
)
_NS_PER_S: Final = 1_000_000_000
_S64_MAX: Final = (1 << 63) - 1


def _time_at(addr: int) -> int:
    """Read a timespec; ``-errno`` where it is none."""
    seconds, rest_ns = TIMESPEC.unpack(string_at(addr, TIMESPEC.size))
    if seconds < 0 or rest_ns < 0:
        return -errno.EINVAL
    return min(int(seconds) * _NS_PER_S + int(rest_ns), _S64_MAX)


def _due_ns(kernel: "SimKernel", time_ns: int, flags: int) -> int:
    now_ns = kernel.clock.now_ns
    if not flags & k.IORING_TIMEOUT_ABS:
        return now_ns + time_ns
    if flags & k.IORING_TIMEOUT_REALTIME:
        time_ns -= kernel.clock.real_offset_ns
    return max(now_ns, time_ns)


def _arm(kernel: "SimKernel", request: Request, time_ns: int, flags: int) -> None:
    request.done_bytes = time_ns  # what a repetition waits for again

    def expire() -> None:
        request.timer = 0
        if request.shots:
            request.ring.wake(request)
        else:
            request.ring.expire(request, -errno.ETIME)

    request.timer = kernel.clock.call_at(_due_ns(kernel, time_ns, flags), expire)


@handles(k.IORING_OP_TIMEOUT)
def _timeout(kernel: "SimKernel", request: Request) -> int | None:
    flags = request.op_flags
    if request.shots > 1 or request.state == "woken":
        if request.state == "woken":
            return -errno.ETIME
        _arm(kernel, request, request.done_bytes, flags)
        return None
    if flags & ~_KNOWN or request.len != 1 or flags & _CLOCKS == _CLOCKS:
        return -errno.EINVAL
    if flags & k.IORING_TIMEOUT_MULTISHOT:
        if flags & k.IORING_TIMEOUT_ABS:
            return -errno.EINVAL
        request.shots = 1
    time_ns = _time_at(request.addr)
    if time_ns < 0:
        return time_ns
    _arm(kernel, request, time_ns, flags)
    if request.off and not request.shots:
        request.ring.count_down(request)
    return None


@handles(k.IORING_OP_LINK_TIMEOUT)
def _link_timeout(_kernel: "SimKernel", request: Request) -> int | None:
    # It is armed when what it guards has begun; nothing else starts one.
    raise AssertionError(request)


def arm_link_timeout(kernel: "SimKernel", request: Request) -> None:
    """Begin to limit the time of the request that *request* guards."""
    time_ns = _time_at(request.addr)
    request.state = "parked"

    def expire() -> None:
        request.timer = 0
        request.ring.limit_reached(request)

    request.timer = kernel.clock.call_at(_due_ns(kernel, time_ns, request.op_flags), expire)


@handles(k.IORING_OP_TIMEOUT_REMOVE)
def _timeout_remove(kernel: "SimKernel", request: Request) -> int | None:
    flags = request.op_flags
    if flags & k.IORING_LINK_TIMEOUT_UPDATE:
        raise NotSimulatedError("changing a link timeout is not simulated")
    for one in request.ring.requests.values():
        if one.opcode == k.IORING_OP_TIMEOUT and one.user_data == request.addr:
            break
    else:
        return -errno.ENOENT
    if not one.timer:
        return -errno.EALREADY
    if flags & k.IORING_TIMEOUT_UPDATE:
        time_ns = _time_at(request.off)
        if time_ns < 0:
            return time_ns
        kernel.clock.cancel(one.timer)
        _arm(kernel, one, time_ns, flags)
        return 0
    request.ring.withdraw(one)
    return 0
