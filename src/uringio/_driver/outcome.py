"""
How an op ends: the parts of settling that every driver shares.

The orphan rules.  A cancelled op may have done its work.  Its owner hears of it (`Owner.orphan`) and
keeps the bytes or closes the descriptor; where nobody owns the op, descriptors are closed here.
"""

from uringio._sys.system import System
from uringio.errors import op_error

from .contract import MakeCancelled
from .op import ACCEPT, DONE, OPEN, OPERATION_NAMES, Op

__all__ = ["settle_cancelled", "settle_failed"]


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


def settle_failed(op: Op[object], number: int) -> None:
    """End *op* with the typed error of a positive errno."""
    op.error = op_error(number, OPERATION_NAMES[op.code], op.fd, op.done_bytes)
    op.value = None
    op.memory = None
    op.hold = None
    op.state = DONE
