"""
Closing a handle on which operations may be in flight.

``close(2)`` alone would end nothing: the kernel holds the file for every operation that still uses
it, so the peer would see no end, and an operation that is handed out but not started would later
meet whatever has got the same number by then.
"""

from collections.abc import Callable, Iterable
from typing import NoReturn

from uringio._driver import current
from uringio._driver.contract import Driver
from uringio._driver.op import CANCELLING, CLOSE, DONE, NEW, READY, SUBMITTED, Op
from uringio._own.fd import OwnedFd
from uringio.errors import ClosedError, WrongThreadError

from ._polling import polls_on

__all__ = ["close_op", "in_flight"]


def in_flight(op: Op[object]) -> bool:
    """Whether a driver has the op."""
    return op.state in _IN_FLIGHT


_IN_FLIGHT = frozenset({SUBMITTED, CANCELLING, DONE})


def close_op(driver: Driver, owned: OwnedFd, ops: Iterable[Op[object]]) -> Op[None]:
    """
    End *ops*, every one that uses the handle, with `ClosedError`; return the op that closes it.

    Raises:
        WrongThreadError: The handle belongs to another loop.
        UsageError: No loop runs in this thread.
    """
    if owned.closed:
        return Op(READY)
    if current.driver() is not driver:
        raise WrongThreadError("a handle is closed in the loop that it belongs to")
    fd = owned.take()
    for op in [*ops, *polls_on(driver, fd)]:
        # One exception each: raised in two tasks, a shared one would mix their tracebacks.
        reason = ClosedError(f"this {owned.what} was closed by another task meanwhile")
        if op.state == NEW:
            _refuse_later(op, reason)
        else:
            driver.cancel(op, reason)
    driver.unregister(fd)
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
