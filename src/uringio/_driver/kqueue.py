"""
The kqueue driver: `uringio._driver.readiness` over kqueue(2).

Each descriptor is registered once for each direction and with EV_CLEAR, so that a change of its
state is told once, as the epoll driver has it.  Closing it takes both out again.
"""

import errno
import math
from collections.abc import Mapping
from typing import Final

from uringio._sys.kqueue import Kevent
from uringio._sys.kqueue_numbers import (
    EV_ADD,
    EV_CLEAR,
    EV_DELETE,
    EV_EOF,
    EV_ERROR,
    EV_RECEIPT,
    EVFILT_READ,
    EVFILT_WRITE,
)
from uringio._sys.system import System

from .bound import BoundDriver
from .contract import Deliver, MakeCancelled
from .descriptors import Descriptor
from .poll_bits import POLLRDHUP
from .readiness import make_readiness_driver

__all__ = ["make_kqueue_driver"]

_IN: Final = 0x001
_OUT: Final = 0x004
_ERR: Final = 0x008
_EDGES: Final = EV_ADD | EV_CLEAR | EV_RECEIPT
_DIRECTIONS: Final = (EVFILT_READ, EVFILT_WRITE)


class _KqueuePoller:
    """See `uringio._driver.descriptors.Poller`."""

    name = "kqueue"
    # libkqueue was seen not to (f966089); of the kernels that do, none was at hand to try.
    wait_until = None
    tells_ends = False

    def __init__(self, system: System) -> None:
        self._system = system
        self._kqueue = system.kqueue()
        self._control = self._kqueue.control
        self._early: list[Kevent] = []

    def begin(self, table: Mapping[int, Descriptor], /) -> None:
        """The kernel keeps what is watched."""

    def wait(self, seconds: float, count_max: int, /) -> list[tuple[int, int]]:
        early = self._early
        timeout_ns = None if seconds < 0 else math.ceil(seconds * 1e9)
        if early:
            timeout_ns = 0
        try:
            events = self._control((), count_max, timeout_ns)
        except OSError as error:
            if error.errno != errno.EINTR:
                raise
            return []  # back to Python, which runs the handler
        if early:
            events = [*early, *events]
            early.clear()
        return [(event.ident, _bits(event)) for event in events]

    def watch(self, fd: int, /) -> int:
        if self._system.always_ready(fd):
            return errno.EPERM  # as epoll(7) has it, for the same outcome everywhere
        # First the leftovers of an earlier descriptor of this number, of which some libraries know
        # still when it has been closed.
        self._change(fd, EV_DELETE | EV_RECEIPT)
        answers = self._change(fd, _EDGES)
        failed = [number for number in answers if number]
        # One end of a pipe can only be watched in its own direction.
        return failed[0] if len(failed) == len(_DIRECTIONS) else 0

    def rearm(self, _fd: int, _room: bool, /) -> bool:
        return False  # whether adding a filter again does that differs among kernels

    def watch_level(self, fd: int, /) -> None:
        self._control([Kevent(fd, EVFILT_READ, EV_ADD)])

    def unwatch(self, fd: int, /) -> None:
        self._change(fd, EV_DELETE | EV_RECEIPT)  # what was closed meanwhile is unwatched

    def _change(self, fd: int, flags: int) -> list[int]:
        changes = [Kevent(fd, filter_, flags) for filter_ in _DIRECTIONS]
        answers = self._control(changes, len(changes), 0)
        # Where a change is not answered, the room for its answer may be taken by an event.
        self._early += [event for event in answers if not event.flags & EV_ERROR]
        return [event.data for event in answers if event.flags & EV_ERROR]

    def close(self) -> None:
        self._kqueue.close()


def _bits(event: Kevent) -> int:
    ended = POLLRDHUP if event.flags & EV_EOF else 0
    if event.flags & EV_ERROR:
        return _ERR | _IN | _OUT
    if event.filter == EVFILT_READ:
        return _IN | ended
    return _OUT | ended


def make_kqueue_driver(
    system: System, deliver: Deliver, make_cancelled: MakeCancelled
) -> BoundDriver:
    """
    Build the kqueue driver of the calling thread.

    Raises:
        UnsupportedError: There is no kqueue here.
        OSError: No descriptor was left.
    """
    return make_readiness_driver(system, deliver, make_cancelled, _KqueuePoller(system))
