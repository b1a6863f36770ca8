"""Closing what has a socket: its operations, its polls, and the path that it was bound to."""

import os
from collections.abc import Iterable

from uringio._driver import current
from uringio._driver.closing import closing_op
from uringio._driver.contract import Driver, System
from uringio._driver.op import CANCELLING, DONE, READY, SUBMITTED, Op
from uringio._own.fd import OwnedFd
from uringio.errors import WrongThreadError

from ._polling import polls_on

__all__ = ["BoundPath", "close_op", "in_flight"]


class BoundPath:
    """
    The path that a Unix socket of ours was just bound to, and the duty to remove it.

    By then another server may have taken the path over, so it is removed only if it is still the
    file that we made.  A process that ends otherwise leaves it behind, for the next to replace.
    """

    def __init__(self, system: System, path: str | bytes) -> None:
        self._system = system
        self._path = os.path.abspath(path)  # whoever changes the working directory meanwhile
        self._inode = system.socket_inode(self._path)

    def remove(self) -> None:
        """Remove the path if it is still ours; safe to call twice."""
        inode, self._inode = self._inode, 0
        if inode and self._system.socket_inode(self._path) == inode:
            self._system.remove_stale_socket(self._path)


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
    closing = closing_op(driver, fd, owned.what, [*ops, *polls_on(driver, fd)])
    driver.unregister(fd)
    return closing
