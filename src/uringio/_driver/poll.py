"""
The poll driver: `uringio._driver.readiness` over poll(2), for where nothing better is to be had.

poll(2) keeps no state between calls: whoever calls says each time what to look for, and is told of
everything that holds, again and again.  So the poller looks at the driver's own table before each
wait, and asks for what ops wait for at that moment and nothing else.  Whatever it is told of then
lets one of them go on, which takes the place of an edge.  A wait costs time in proportion to the
descriptors that are waited for, as poll(2) itself does.
"""

import errno
import math
from collections.abc import Mapping
from typing import Final

from uringio._sys.numbers import MSG_OOB
from uringio._sys.system import System

from .bound import BoundDriver
from .contract import Deliver, MakeCancelled
from .descriptors import Descriptor
from .op import RECV, RECV_INTO, RECVMSG
from .poll_bits import POLLERR, POLLHUP, POLLIN, POLLNVAL, POLLOUT, POLLPRI
from .readiness import make_readiness_driver

__all__ = ["make_poll_driver"]

_ANY_POLL_MASK: Final = 0x7FFF  # without what only epoll(7) knows

_MAY_BE_URGENT: Final = frozenset({RECV, RECV_INTO, RECVMSG})

# A number that names no file any more: every op on it is to be tried, and told EBADF.
_NO_FILE: Final = POLLIN | POLLOUT | POLLERR | POLLHUP


class _PollPoller:
    """See `uringio._driver.descriptors.Poller`."""

    name = "poll"
    wait_until = None
    tells_ends = True  # it is looked at again before each wait

    def __init__(self, system: System) -> None:
        self._system = system
        self._poll = system.poll()
        self._table: Mapping[int, Descriptor] = {}
        # None while it is changed, and after an exception (a signal handler's) in the middle.
        self._asked: dict[int, int] | None = {}
        self._always: dict[int, int] = {}

    def begin(self, table: Mapping[int, Descriptor], /) -> None:
        self._table = table

    def wait(self, seconds: float, _count_max: int, /) -> list[tuple[int, int]]:
        self._ask()
        timeout_ms = None if seconds < 0 else math.ceil(seconds * 1000)
        return [
            (fd, _NO_FILE if bits & POLLNVAL else bits) for fd, bits in self._poll.poll(timeout_ms)
        ]

    def _ask(self) -> None:
        """Register what is waited for now, and that alone."""
        wanted = {
            fd: _mask(descriptor)
            for fd, descriptor in self._table.items()
            if descriptor.reader or descriptor.readers or descriptor.writers or descriptor.pollers
        }
        wanted |= self._always
        asked = self._asked
        if wanted == asked:
            return
        if asked is None:
            self._poll, asked = self._system.poll(), {}
        self._asked = None
        for fd in asked.keys() - wanted.keys():
            self._poll.unregister(fd)
        for fd, mask in wanted.items():
            if asked.get(fd) != mask:
                self._poll.register(fd, mask)
        self._asked = wanted

    def watch(self, fd: int, /) -> int:
        # As with epoll(7), which refuses what is always ready.
        return errno.EPERM if self._system.always_ready(fd) else 0

    def rearm(self, _fd: int, _room: bool, /) -> bool:
        return True  # each wait asks anew

    def watch_level(self, fd: int, /) -> None:
        self._always[fd] = POLLIN

    def unwatch(self, fd: int, /) -> None:
        """Nothing is kept."""

    def close(self) -> None:
        """There is no descriptor."""


def _mask(descriptor: Descriptor) -> int:
    # Not PRI and RDHUP for readers: while a reader is not let go on by them, the wait would not
    # wait.  Both come with IN once there is anything for it.
    mask = POLLIN if descriptor.reader is not None else 0
    for op in descriptor.readers:
        mask |= POLLPRI if op.flags & MSG_OOB and op.code in _MAY_BE_URGENT else POLLIN
    if descriptor.writers:
        mask |= POLLOUT
    for op in descriptor.pollers:
        mask |= op.flags & _ANY_POLL_MASK
    return mask


def make_poll_driver(
    system: System, deliver: Deliver, make_cancelled: MakeCancelled
) -> BoundDriver:
    """
    Build the poll driver of the calling thread.

    Raises:
        OSError: No descriptor was left.
    """
    return make_readiness_driver(system, deliver, make_cancelled, _PollPoller(system))
