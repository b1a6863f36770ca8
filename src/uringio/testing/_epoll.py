"""A simulated epoll, for the driver that is used where io_uring is refused."""

import errno
import os
from typing import TYPE_CHECKING, Final

from uringio._driver.poll_bits import POLLERR, POLLHUP

from ._objects import SimFile

if TYPE_CHECKING:
    from ._kernel import SimKernel

__all__ = ["SimEpoll"]

_EPOLLET: Final = 1 << 31


class _Interest:
    """One registered descriptor."""

    def __init__(self, epoll: "SimEpoll", fd: int, file: SimFile, events: int) -> None:
        self.fd = fd
        self.file = file
        self.events = events
        self._epoll = epoll

    def on_ready(self, _file: SimFile, mask: int, /) -> None:
        """See `Watcher`."""
        if mask & (self.events | POLLERR | POLLHUP):
            self._epoll.becomes_ready(self)

    def mask(self) -> int:
        """What it is ready for, of what was asked."""
        return self.file.poll() & (self.events | POLLERR | POLLHUP)


class _EpollFile(SimFile):
    """What the number of an epoll names."""

    kind = "epoll"

    def __init__(self, epoll: "SimEpoll") -> None:
        super().__init__()
        self._epoll = epoll

    def released(self) -> None:
        """See `SimFile`."""
        self._epoll.forget_all()


class SimEpoll:
    """
    As much of `select.epoll` as the driver uses.

    A descriptor that is closed is forgotten with its file, as epoll(7) has it: not while another
    number, or a request, still refers to that.

    Attributes:
        file: What its number names.
        fd: That number.
        ready: What may be ready, in the order in which it became so.
    """

    def __init__(self, kernel: "SimKernel") -> None:
        self.file = _EpollFile(self)
        self.fd = -1
        self.ready: dict[_Interest, None] = {}
        self._kernel = kernel
        self._interests: dict[tuple[int, SimFile], _Interest] = {}

    def register(self, fd: int, events: int) -> None:
        """See `select.epoll`."""
        file = self._file(fd)
        self._forget_closed()
        if (fd, file) in self._interests:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
        interest = _Interest(self, fd, file, events)
        self._interests[fd, file] = interest
        file.watch(interest)
        interest.on_ready(file, file.poll())

    def modify(self, fd: int, events: int) -> None:
        """See `select.epoll`."""
        interest = self._interests[fd, self._file(fd)]
        interest.events = events
        interest.on_ready(interest.file, interest.file.poll())

    def unregister(self, fd: int) -> None:
        """See `select.epoll`."""
        interest = self._interests.pop((fd, self._file(fd)), None)
        if interest is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        self._drop(interest)

    def poll(self, timeout: float = -1.0, maxevents: int = -1) -> list[tuple[int, int]]:
        """See `select.epoll`."""
        kernel = self._kernel
        kernel.enter_call()
        deadline_ns = None if timeout < 0 else kernel.clock.now_ns + int(timeout * 1e9)
        while True:
            found = self._take(maxevents)
            if found or timeout == 0:
                break
            if kernel.faults.strikes("interrupt", "epoll_wait"):
                break  # the standard library goes on waiting, and so does the driver
            if not kernel.pass_time(deadline_ns, self._interests) and not self.ready:
                break
        kernel.trace.add(f"epoll_wait = {found}")
        return found

    def becomes_ready(self, interest: _Interest) -> None:
        """Tell of it with the next wait, or a little later."""
        faults = self._kernel.faults
        if not faults.strikes("delay", "epoll_wait"):
            self.ready[interest] = None
            return
        delay_ns = 1 + faults.below("delay", faults.plan.delay_ns_max)
        self._kernel.clock.call_later(delay_ns, lambda: self._late(interest))

    def _late(self, interest: _Interest) -> None:
        if self._interests.get((interest.fd, interest.file)) is interest:
            self.ready[interest] = None

    def _take(self, maxevents: int) -> list[tuple[int, int]]:
        self._forget_closed()
        found: list[tuple[int, int]] = []
        for interest in list(self.ready):
            if len(found) == maxevents:
                break
            del self.ready[interest]
            if mask := interest.mask():
                found.append((interest.fd, mask))
                if not interest.events & _EPOLLET:
                    self.ready[interest] = None
        faults = self._kernel.faults
        if len(found) > 1 and faults.strikes("reorder", "epoll_wait"):
            at = 1 + faults.below("reorder", len(found) - 1)
            found = found[at:] + found[:at]
        return found

    def _forget_closed(self) -> None:
        for key, interest in list(self._interests.items()):
            if not interest.file.refs:
                del self._interests[key]
                self._drop(interest)

    def _drop(self, interest: _Interest) -> None:
        interest.file.unwatch(interest)
        self.ready.pop(interest, None)

    def _file(self, fd: int) -> SimFile:
        file = self._kernel.file_of(fd)
        if file is None:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        return file

    def fileno(self) -> int:
        """See `select.epoll`."""
        return self.fd

    def close(self) -> None:
        """See `select.epoll`."""
        self._kernel.close_fd(self.fd)

    def forget_all(self) -> None:
        """Watch nothing any more."""
        for interest in self._interests.values():
            interest.file.unwatch(interest)
        self._interests.clear()
