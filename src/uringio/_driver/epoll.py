"""
The epoll driver: `uringio._driver.readiness` over epoll(7).

Descriptors are registered once, for both directions and edge-triggered, so that one costs a single
epoll_ctl(2) in its life; closing it is what takes it out again.
"""

import errno
from collections.abc import Callable, Mapping
from typing import Final

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


class _EpollPoller:
    """See `uringio._driver.descriptors.Poller`."""

    name = "epoll"
    tells_ends = True

    def __init__(self, system: System) -> None:
        self._epoll = system.epoll()
        self.wait: Callable[[float, int], list[tuple[int, int]]] = self._epoll.poll

    def begin(self, table: Mapping[int, Descriptor], /) -> None:
        """The kernel keeps what is watched."""

    def watch(self, fd: int, /) -> int:
        try:
            self._epoll.register(fd, _EDGES)
        except FileExistsError:
            # Left over from a duplicate of an earlier descriptor, or given up and taken again.
            self._epoll.modify(fd, _EDGES)
        except OSError as error:
            return error.errno or errno.EIO
        return 0

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
