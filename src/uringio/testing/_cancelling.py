"""
Finding requests in order to withdraw them: ASYNC_CANCEL, POLL_REMOVE, and SYNC_CANCEL.

Source: io_uring/cancel.c and io_uring/poll.c of Linux 6.18.
"""

import errno
from typing import TYPE_CHECKING, Final

from uringio._driver.poll_bits import POLLERR, POLLHUP, POLLRDHUP
from uringio._sys import constants as k

from ._requests import Request, handles, refuses
from .errors import NotSimulatedError

if TYPE_CHECKING:
    from ._kernel import SimKernel
    from ._rings import SimRing

__all__ = ["cancel_matching"]

_ALL: Final = k.IORING_ASYNC_CANCEL_ALL
_ANY: Final = k.IORING_ASYNC_CANCEL_ANY
_FD: Final = k.IORING_ASYNC_CANCEL_FD
_FIXED: Final = k.IORING_ASYNC_CANCEL_FD_FIXED
_USERDATA: Final = k.IORING_ASYNC_CANCEL_USERDATA
_OP: Final = k.IORING_ASYNC_CANCEL_OP
_KNOWN: Final = _ALL | _ANY | _FD | _FIXED | _USERDATA | _OP
# Told whether or not they were asked for: IO_POLL_UNMASK.
_ALWAYS: Final = POLLERR | POLLHUP | POLLRDHUP
_POLL_UPDATES: Final = k.IORING_POLL_UPDATE_EVENTS | k.IORING_POLL_UPDATE_USER_DATA


def cancel_matching(
    ring: "SimRing", flags: int, user_data: int, fd: int, opcode: int, but: Request | None
) -> int:
    """Withdraw the requests that match: a result of ASYNC_CANCEL."""
    kernel = ring.kernel
    wanted = None
    if flags & _FD:
        wanted = ring.file_of(fd, bool(flags & _FIXED))
        if wanted is None:
            return -errno.EBADF
    by_user_data = flags & _USERDATA or not flags & (_FD | _ANY | _OP)
    count = 0
    found = False
    answer = -errno.ENOENT
    for one in list(ring.requests.values()):
        if one is but or one.state == "new" or one.opcode == k.IORING_OP_LINK_TIMEOUT:
            continue
        if not flags & _ANY and (
            (wanted is not None and one.file is not wanted)
            or (flags & _OP and one.opcode != opcode)
            or (by_user_data and one.user_data != user_data)
        ):
            continue
        kernel.sightings.is_asked_to_end(one)
        found = True
        # What is being tried just now is not found; with result, it is over.
        if one.result is not None or (
            one.state != "working" and kernel.faults.strikes("cancel_miss", one.name)
        ):
            kernel.note("cancel lost")
        elif one.state == "working":
            kernel.note("cancel too late")
            answer = -errno.EALREADY
        else:
            ring.withdraw(one)
            count += 1
            answer = 0
        if not flags & (_ALL | _ANY):
            return answer
    if not found:
        kernel.sightings.is_missed(user_data)
        if by_user_data:
            kernel.invariants.cancel_missed(user_data)
    return count if flags & (_ALL | _ANY) else answer


@handles(k.IORING_OP_ASYNC_CANCEL)
def _cancel(_kernel: "SimKernel", request: Request) -> int | None:
    flags = request.op_flags
    if flags & ~_KNOWN or (flags & _ANY and flags & (_FD | _OP)):
        return -errno.EINVAL
    return cancel_matching(
        request.ring, flags, request.addr, request.fd, request.len, request
    )  # fmt: skip


@handles(k.IORING_OP_POLL_REMOVE)
def _poll_remove(kernel: "SimKernel", request: Request) -> int | None:
    ring, updates = request.ring, request.len & _POLL_UPDATES
    if request.len & ~(_POLL_UPDATES | k.IORING_POLL_ADD_MULTI) or (
        not updates and (request.off or request.op_flags or request.len)
    ):
        return -errno.EINVAL
    wanted = k.IORING_OP_POLL_ADD, request.addr
    for one in ring.requests.values():
        if one.result is None and (one.opcode, one.user_data) == wanted:
            break
    else:
        return -errno.ENOENT
    if one.state != "parked" or kernel.faults.strikes("cancel_miss", one.name):
        kernel.note("cancel lost")
        return -errno.EALREADY
    if not updates:
        ring.withdraw(one)
        return 0
    one.unwatch()
    if updates & k.IORING_POLL_UPDATE_EVENTS:
        one.op_flags = request.op_flags & 0xFFFF
        if bool(one.shots) != bool(request.len & k.IORING_POLL_ADD_MULTI):
            raise NotSimulatedError("a poll cannot be made a multishot one, or none, here")
    if updates & k.IORING_POLL_UPDATE_USER_DATA:
        one.user_data = request.off
    ring.retry(one)
    return 0


@refuses(k.IORING_OP_POLL_ADD)
def _refuse_poll(request: Request) -> int:
    # What completes again and again must be told of.
    many = request.len & k.IORING_POLL_ADD_MULTI
    return errno.EINVAL if many and request.flags & k.IOSQE_CQE_SKIP_SUCCESS else 0


@handles(k.IORING_OP_POLL_ADD)
def _poll(_kernel: "SimKernel", request: Request) -> int | None:
    assert request.file is not None
    if request.len & ~k.IORING_POLL_ADD_MULTI:
        raise NotSimulatedError("level-triggered multishot polls are not simulated")
    request.wanted = request.op_flags & 0xFFFF | _ALWAYS
    if request.len and not request.shots:
        request.shots = 1
        return None  # also what is there already is told as task work
    mask, request.seen = request.seen, 0
    return mask & request.wanted or request.file.poll() & request.wanted or None
