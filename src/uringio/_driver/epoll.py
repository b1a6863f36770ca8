"""
The epoll driver: `uringio._driver.readiness` over epoll(7).

Descriptors are registered once, for both directions and edge-triggered, so that one costs a single
epoll_ctl(2) in its life; closing it is what takes it out again.

Waits have milliseconds in `select.epoll`, whose wait is one C function; by ctypes there is a wait
that has nanoseconds and costs twice as much.  So what has a deadline waits a little less than that
the first way, and only if nothing came for what is left the second.
"""

import errno
from collections.abc import Callable, Mapping
from typing import Final

# What `System.epoll_waiter` needs, before a timer could be late for it.
from uringio._sys import epoll  # noqa: F401  # pyright: ignore[reportUnusedImport]
from uringio._sys.system import System

from .bound import BoundDriver
from .contract import Deliver, MakeCancelled
from .descriptors import Descriptor
from .readiness import make_readiness_driver

__all__ = ["make_epoll_driver"]

EPOLLIN: Final = 0x001
EPOLLPRI: Final = 0x002
EPOLLOUT: Final = 0x004
EPOLLRDHUP: Final = 0x2000
EPOLLET: Final = 1 << 31

# PRI: urgent data ends a read early, so that a short one would prove nothing.
_EDGES: Final = EPOLLIN | EPOLLPRI | EPOLLOUT | EPOLLRDHUP | EPOLLET

# The kernel lets a wait of epoll's end late by a thousandth of its length, so the last 512th of one
# is left to the exact wait, as is what makes no whole millisecond.
_EXACT_SHIFT: Final = 9
_NS_PER_MS: Final = 1_000_000


class _EpollPoller:
    """See `uringio._driver.descriptors.Poller`."""

    name = "epoll"
    tells_ends = True

    def __init__(self, system: System) -> None:
        self._epoll = system.epoll()
        self.wait: Callable[[float, int], list[tuple[int, int]]] = self._epoll.poll
        self._clock = system.monotonic_ns
        # Now, since where descriptors have run out nothing can be imported.
        self._wait_exactly = system.epoll_waiter(self._epoll.fileno())

    def begin(self, table: Mapping[int, Descriptor], /) -> None:
        """The kernel keeps what is watched."""

    def wait_until(self, deadline_ns: int, count_max: int, /) -> list[tuple[int, int]]:
        left_ns = deadline_ns - self._clock()
        whole_ms = (left_ns - (left_ns >> _EXACT_SHIFT)) // _NS_PER_MS
        if whole_ms > 0:
            # Half less, since it is rounded up.
            found = self.wait((whole_ms - 0.5) / 1000, count_max)
            if found:
                return found
            left_ns = deadline_ns - self._clock()
        if self._wait_exactly is None:
            return self.wait(max(left_ns, 0) / 1e9, count_max)
        while True:
            found = self._wait_exactly(max(left_ns, 0), count_max)
            # What interrupts it may be no signal: a ring of this thread's that is being closed.
            if found or (left_ns := deadline_ns - self._clock()) <= 0:
                return found

    def watch(self, fd: int, /) -> int:
        try:
            self._epoll.register(fd, _EDGES)
        except FileExistsError:
            # Left over from a duplicate of an earlier descriptor, or given up and taken again.
            self._epoll.modify(fd, _EDGES)
        except OSError as error:
            return error.errno or errno.EIO
        return 0

    def rearm(self, fd: int, room: bool, /) -> bool:
        # There is room nearly always, and who waits would be woken by it for nothing.
        try:
            self._epoll.modify(fd, _EDGES if room else _EDGES & ~EPOLLOUT)
        except OSError:
            return False
        return True

    def watch_level(self, fd: int, /) -> None:
        self._epoll.register(fd, EPOLLIN)

    def unwatch(self, fd: int, /) -> None:
        try:
            self._epoll.unregister(fd)
        except OSError:
            pass  # closed meanwhile, and with that unwatched

    def close(self) -> None:
        self._epoll.close()


def make_epoll_driver(
    system: System, deliver: Deliver, make_cancelled: MakeCancelled
) -> BoundDriver:
    """
    Build the epoll driver of the calling thread.

    Raises:
        OSError: No descriptor was left.
    """
    return make_readiness_driver(system, deliver, make_cancelled, _EpollPoller(system))
