"""
How an op ends: the parts of settling that every driver shares.

The orphan rules.  A cancelled op may have done its work.  Its owner hears of it (`Owner.orphan`)
and keeps the bytes or closes the descriptor; where nobody owns the op, descriptors are closed here
(those of a message by the `Received` that holds them).  An owner also hears of what the kernel
refused meanwhile: a reset is told once, and whoever comes next would take what follows for an
orderly end.
"""

import errno
import os
from typing import Final

from uringio._sys.system import System
from uringio.errors import OpError, op_error

from .attempts import VALUED
from .contract import MakeCancelled
from .many import settle_many
from .messages import Incoming, Received
from .op import (
    DONE,
    MAKES_DESCRIPTOR,
    OPERATION_NAMES,
    POLL,
    POLL_ON,
    READ_MANY,
    RECVMSG,
    SEND_ALL,
    SENDMSG,
    SUBMITTED,
    Op,
    names,
)

__all__ = [
    "finish_cancelled",
    "orphan_failure",
    "received",
    "settle_cancelled",
    "settle_done_as_cancelled",
    "settle_failed",
    "settle_succeeded",
    "take_later",
]

# What a request answers because it was cancelled, or because it had not begun: nobody's news.
_NO_NEWS: Final = frozenset({errno.ECANCELED, errno.EINTR, errno.EAGAIN, errno.ENOBUFS})


def received(op: Op[object], res: int) -> Received:
    """Take what a RECVMSG with the result *res* has left in its memory; it owns descriptors."""
    assert isinstance(op.hold, Incoming)
    return op.hold.received(res)


def settle_cancelled(
    op: Op[object], value: object, succeeded: bool, system: System, make_cancelled: MakeCancelled
) -> None:
    """
    End *op*, for which cancellation was asked.

    Args:
        value: What the awaiter would have got, if *succeeded*.
        succeeded: Whether the operation was carried out all the same.
    """
    if succeeded:
        if op.code == RECVMSG and isinstance(value, int):
            value = received(op, value)
        op.state = DONE  # already, so that an exception in here does not have it told twice
        try:
            if op.owner is not None:
                op.owner.orphan(op, value)
            elif isinstance(value, int) and op.code in MAKES_DESCRIPTOR:
                system.close(value)
        finally:  # an owner that raises has been given it, and the awaiter is not given it as well
            finish_cancelled(op, make_cancelled)
    else:
        finish_cancelled(op, make_cancelled)


def finish_cancelled(op: Op[object], make_cancelled: MakeCancelled) -> None:
    """End *op* with its cancellation, what it did all the same being taken care of."""
    if op.error is None:
        op.error = make_cancelled(op)
    if op.code == POLL_ON:  # what a ring had made of it, whose next use may be elsewhere
        op.code = POLL
        op.len = 0
    op.value = None
    op.memory = None
    op.hold = None
    op.state = DONE


def settle_done_as_cancelled(
    op: Op[object], reason: BaseException | None, system: System, make_cancelled: MakeCancelled
) -> None:
    """Turn the outcome of *op*, which waits for delivery, into its cancellation."""
    failure = op.error
    succeeded = failure is None
    if succeeded and op.code == SEND_ALL:
        op.done_bytes += op.len
    elif succeeded and op.code == SENDMSG and isinstance(op.value, int):
        op.done_bytes += op.value
    # A reason takes the place of whatever the kernel said and of an earlier reason, but never of
    # the scheduler's own exception: a task that was cancelled must hear that it was.
    if isinstance(failure, OpError) and op.owner is not None:
        op.owner.orphan(op, failure)
    if reason is None or succeeded or isinstance(failure, Exception):
        op.error = reason
    settle_cancelled(op, op.value, succeeded, system, make_cancelled)


def orphan_failure(op: Op[object], number: int) -> None:
    """Tell the owner of a cancelled op what the kernel refused, as a positive errno."""
    if op.owner is not None and number not in _NO_NEWS:
        op.owner.orphan(op, op_error(number, OPERATION_NAMES[op.code], op.fd, op.done_bytes))


def settle_succeeded(op: Op[object], res: int) -> None:
    """End *op*, whose memory is the kernel's no more, with a result from 0 up."""
    if op.code in VALUED:
        op.value = res
    elif op.code == READ_MANY:
        settle_many(op)
        return
    op.memory = None
    op.hold = None
    op.state = DONE


def settle_failed(op: Op[object], number: int) -> None:
    """End *op* with the typed error of a positive errno."""
    error = op_error(number, OPERATION_NAMES[op.code], op.fd, op.done_bytes)
    paths = names(op)
    if paths:  # as `os` tells them
        error.filename = os.fsdecode(paths[0])
        if len(paths) > 1:
            error.filename2 = os.fsdecode(paths[1])
    op.error = error
    op.value = None
    op.memory = None
    op.hold = None
    op.state = DONE


def take_later(op: Op[object]) -> None:
    """End the receive *op*, which is new, with the first of what came before it."""
    later = op.later
    assert later
    op.state = SUBMITTED
    first = later[0]
    if isinstance(first, OSError):
        op.error = first
    elif len(first) > op.len:
        op.value = first[: op.len]
        later[0] = first[op.len :]
        op.state = DONE
        return
    else:
        op.value = first
    op.state = DONE
    del later[0]
