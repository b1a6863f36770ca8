"""
epoll(7) as the kernel has it: events with 64 bits of the user's own, waits in nanoseconds.

The standard library's `select.epoll` is quicker for a loop (a wait of it is one C function, where
this is a ctypes call and the unpacking of an array), and the driver uses that, but for the last
part of a wait that has a deadline.  This one is for those who want what it leaves out.

Source: epoll_create1(2), epoll_ctl(2), epoll_pwait2(2).
"""

import errno
import operator
import os
import warnings
from collections.abc import Callable
from struct import Struct
from typing import Final, NamedTuple, Self

from uringio.errors import ClosedError, UnsupportedError, op_error

from .libc import Libc
from .memory import Memory, pin

__all__ = ["Epoll", "EpollEvent", "EventWait", "event_layout", "waiter"]

_EPOLL_CLOEXEC: Final = 0o2000000
_ADD: Final = 1
_DEL: Final = 2
_MOD: Final = 3
_TIMESPEC: Final = Struct("=qq")
_NR_EPOLL_PWAIT2: Final = 441  # on every architecture
_NS_PER_S: Final = 1_000_000_000
_NS_PER_MS: Final = 1_000_000
_COUNT_MAX: Final = 1024
_INT_MAX: Final = (1 << 31) - 1
_TIMEOUT_NS_MAX: Final = (1 << 63) - 1
_FD_MASK: Final = 0xFFFFFFFF
_NOT_TO_BE_HAD: Final = (-errno.ENOSYS, -errno.EPERM)


class EpollEvent(NamedTuple):
    """
    What happened.

    Attributes:
        events: EPOLL* bits.
        data: As it was given when the descriptor was added.
    """

    events: int
    data: int


def event_layout(machine: str) -> Struct:
    """Return the layout of ``struct epoll_event``, which x86-64 alone has packed."""
    return Struct("=IQ" if machine in {"x86_64", "AMD64", "amd64"} else "=I4xQ")


class EventWait:
    """
    Waits for events by epoll_pwait2(2), or in whole milliseconds where that is not to be had.

    Older kernels do not know it (ENOSYS), and filters neither, who may call that EPERM.  Threads
    may wait at the same time, each of them in room of its own.
    """

    def __init__(self, libc: Libc) -> None:
        self._libc = libc
        self._layout = event_layout(os.uname().machine)
        self._spare = [self._new_room()]
        self._rounds = False  # no nanoseconds here

    def _new_room(self) -> tuple[Memory, Memory]:
        return Memory(self._layout.size * _COUNT_MAX), Memory(_TIMESPEC.size)

    def __call__(self, fd: int, timeout_ns: int | None, count_max: int, /) -> list[tuple[int, int]]:
        """
        Return (events, data) of at most *count_max* events, up to 1024.

        Raises:
            OpError: EINTR, when a signal ended the wait.
        """
        try:
            both = room, timespec = self._spare.pop()
        except IndexError:  # others wait, or a signal handler does within a wait
            both = room, timespec = self._new_room()
        found = -errno.ENOSYS
        if not self._rounds:
            timeout = 0
            if timeout_ns is not None:
                _TIMESPEC.pack_into(timespec.view, 0, *divmod(timeout_ns, _NS_PER_S))
                timeout = timespec.addr
            found = self._libc.syscall(_NR_EPOLL_PWAIT2, fd, room.addr, count_max, timeout, 0, 0)
        if found in _NOT_TO_BE_HAD:
            self._rounds = True
            timeout_ms = -1 if timeout_ns is None else -(-timeout_ns // _NS_PER_MS)
            found = self._libc.epoll_wait(fd, room.addr, count_max, min(timeout_ms, _INT_MAX))
        events: list[tuple[int, int]] = []
        if found > 0:
            events += self._layout.iter_unpack(room.view[: found * self._layout.size])
        self._spare.append(both)
        if found < 0:
            raise op_error(-found, "epoll_wait", fd)
        return events


def waiter(libc: Libc, fd: int) -> Callable[[int, int], list[tuple[int, int]]]:
    """
    Return a wait of nanoseconds on the `select.epoll` of descriptor *fd*, which answers like its.

    It ends early, with nothing, when a signal comes.
    """
    wait = EventWait(libc)

    def poll(timeout_ns: int, count_max: int) -> list[tuple[int, int]]:
        try:
            found = wait(fd, timeout_ns, count_max)
        except InterruptedError:
            return []  # back to Python, which runs the handler
        # Of the 64 bits of their data `select.epoll` sets the lower ones.
        return [(data & _FD_MASK, bits) for bits, data in found]

    return poll


class Epoll:
    """
    One epoll instance; a context manager that closes it.

    Any thread may use it, several at once; closing it does not end a wait of another thread's.

    Raises:
        UnsupportedError: This system has no epoll.
        OpError: The kernel refused.
    """

    def __init__(self) -> None:
        self._libc = Libc()
        if self._libc.epoll_create1(-1) == -errno.ENOSYS:
            raise UnsupportedError("epoll", "Linux")
        self._layout = event_layout(os.uname().machine)
        self._wait = EventWait(self._libc)
        self._fd = self._libc.epoll_create1(_EPOLL_CLOEXEC)
        if self._fd < 0:
            raise op_error(-self._fd, "epoll_create1")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def fileno(self) -> int:
        """Return the descriptor; raises `ClosedError`."""
        if self._fd < 0:
            raise ClosedError("this epoll is closed")
        return self._fd

    def add(self, fd: int, events: int, data: int | None = None) -> None:
        """
        Watch *fd*.

        Args:
            fd: The descriptor.
            events: EPOLL* bits, such as EPOLLIN | EPOLLET.
            data: What its events carry, 64 bits; by default *fd*.

        Raises:
            OpError: The kernel refused: EEXIST, EBADF, EPERM for what is always ready.
            ValueError: *events* or *data* does not fit.
        """
        self._control(_ADD, "epoll_ctl(ADD)", fd, events, data)

    def modify(self, fd: int, events: int, data: int | None = None) -> None:
        """Watch *fd* for other events; arguments and errors as for `add`, ENOENT too."""
        self._control(_MOD, "epoll_ctl(MOD)", fd, events, data)

    def remove(self, fd: int) -> None:
        """Watch *fd* no more; raises `OpError`."""
        self._control(_DEL, "epoll_ctl(DEL)", fd, 0, 0)

    def _control(self, how: int, what: str, fd: int, events: int, data: int | None) -> None:
        epoll_fd = self.fileno()
        fd = operator.index(fd)
        if not -_INT_MAX <= fd <= _INT_MAX:  # else ctypes would take its lower half
            raise ValueError(f"a descriptor fits a C int, and {fd} does not")
        data = max(fd, 0) if data is None else data
        if not 0 <= events < 1 << 32 or not 0 <= data < 1 << 64:
            raise ValueError("events are 32 bits and data 64 bits, without a sign")
        addr, _, _keep = pin(self._layout.pack(events, data))
        result = self._libc.epoll_ctl(epoll_fd, how, fd, addr)
        if result < 0:
            raise op_error(-result, what, fd)

    def wait(self, timeout_ns: int | None = None, count_max: int = 256) -> list[EpollEvent]:
        """
        Take events, waiting for the first one.

        Args:
            timeout_ns: How long to wait at most; None: for ever. [ns]
            count_max: How many to take at most, up to 1024.

        Raises:
            OpError: EINTR, when a signal ended the wait.
            ValueError: An argument is out of range.

        Kernel: 5.11 waits in nanoseconds; before, timeouts are rounded up to milliseconds.
        """
        fd = self.fileno()
        if not 0 < operator.index(count_max) <= _COUNT_MAX:
            raise ValueError(f"a wait takes from 1 to {_COUNT_MAX} events, not {count_max}")
        if timeout_ns is not None and not 0 <= operator.index(timeout_ns) <= _TIMEOUT_NS_MAX:
            raise ValueError("a timeout is from 0 to 2**63 - 1 ns; None waits for ever")
        return [EpollEvent(*fields) for fields in self._wait(fd, timeout_ns, count_max)]

    def close(self) -> None:
        """Close it; safe to call twice."""
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            self._libc.close(fd)

    def __del__(self) -> None:
        if getattr(self, "_fd", -1) >= 0:
            warnings.warn(f"unclosed epoll, fd={self._fd}", ResourceWarning, 2, source=self)
            self.close()
