"""
How an op ends: the parts of settling that every driver shares.

The orphan rules.  A cancelled op may have done its work.  Its owner hears of it (`Owner.orphan`)
and keeps the bytes or closes the descriptor; where nobody owns the op, descriptors are closed here
(those of a message by the `Received` that holds them).
"""

from uringio._sys.system import System
from uringio.errors import op_error

from .contract import MakeCancelled
from .messages import Incoming, Received
from .op import ACCEPT, DONE, OPEN, OPERATION_NAMES, RECVMSG, SEND_ALL, SENDMSG, Op

__all__ = ["received", "settle_cancelled", "settle_done_as_cancelled", "settle_failed"]


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
        if op.owner is not None:
            op.owner.orphan(op, value)
        elif isinstance(value, int) and (op.code == ACCEPT or op.code == OPEN):
            system.close(value)
    if op.error is None:
        op.error = make_cancelled(op)
    op.value = None
    op.memory = None
    op.hold = None
    op.state = DONE


def settle_done_as_cancelled(
    op: Op[object], reason: BaseException | None, system: System, make_cancelled: MakeCancelled
) -> None:
    """Turn the outcome of *op*, which waits for delivery, into its cancellation."""
    succeeded = op.error is None
    if succeeded and op.code == SEND_ALL:
        op.done_bytes += op.len
    elif succeeded and op.code == SENDMSG and isinstance(op.value, int):
        op.done_bytes += op.value
    # A reason takes the place of whatever the kernel said and of an earlier reason, but never of
    # the scheduler's own exception: a task that was cancelled must hear that it was.
    if reason is None or succeeded or isinstance(op.error, Exception):
        op.error = reason
    settle_cancelled(op, op.value, succeeded, system, make_cancelled)


def settle_failed(op: Op[object], number: int) -> None:
    """End *op* with the typed error of a positive errno."""
    op.error = op_error(number, OPERATION_NAMES[op.code], op.fd, op.done_bytes)
    op.value = None
    op.memory = None
    op.hold = None
    op.state = DONE
