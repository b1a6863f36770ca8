"""
Closing a descriptor on which operations may be in flight.

``close(2)`` alone would end nothing: the kernel holds the file for every operation that still uses
it, so a peer would see no end, and an operation that is handed out but not started would later meet
whatever has got the same number by then.
"""

from collections.abc import Callable, Iterable
from typing import NoReturn

from uringio.errors import ClosedError

from .contract import Driver
from .op import CANCELLING, CLOSE, HERE, NEW, READY, SUBMITTED, Op

__all__ = ["closing_op"]


def closing_op(driver: Driver, fd: int, what: str, ops: Iterable[Op[object]]) -> Op[None]:
    """
    End *ops*, every one that uses *fd*, with `ClosedError`; return the op that closes it.

    Args:
        what: What is closed, for the error's text.
    """
    for op in ops:
        # One exception each: raised in two tasks, a shared one would mix their tracebacks.
        reason = ClosedError(f"this {what} was closed by another task meanwhile")
        if op.standing and op.state not in {SUBMITTED, CANCELLING}:
            driver.stand_down(op, False)
        if op.state in {NEW, HERE}:
            op.state = NEW
            _refuse_later(op, reason)
        else:
            driver.cancel(op, reason)
    closing: Op[None] = Op(CLOSE, fd)
    closing.home = driver
    return closing


def _refuse_later(op: Op[object], reason: ClosedError) -> None:
    """Make an op that was handed out and not started raise *reason* once it is."""
    op.code = READY
    op.fd = -1
    op.memory = None
    op.finish = _raiser(reason)


def _raiser(reason: ClosedError) -> Callable[[object], NoReturn]:
    def finish(_: object) -> NoReturn:
        raise reason

    return finish
