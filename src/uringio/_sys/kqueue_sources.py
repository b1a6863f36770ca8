"""
What the emulated kqueue plays timers, signals, processes, files and triggers by, on Linux.

Each is a descriptor that can be read when something has happened, so that one epoll waits for all:
timerfd, pidfd, inotify, and an eventfd for what a signal handler or a program itself has to tell.

Signals go by a handler rather than by signalfd.  A kqueue only looks on while a signal takes its
course; signalfd takes it away, and works only where every thread has blocked it.

Sources: timerfd_create(2), pidfd_open(2), inotify(7), eventfd(2).
"""

import errno
import os
import signal
import sys
from collections.abc import Callable
from struct import Struct
from types import FrameType
from typing import Final

from uringio.errors import UnsupportedError, op_error

from .kqueue_numbers import (
    NOTE_ATTRIB,
    NOTE_CLOSE,
    NOTE_CLOSE_WRITE,
    NOTE_DELETE,
    NOTE_EXIT,
    NOTE_EXITSTATUS,
    NOTE_EXTEND,
    NOTE_LINK,
    NOTE_OPEN,
    NOTE_READ,
    NOTE_RENAME,
    NOTE_REVOKE,
    NOTE_TRUNCATE,
    NOTE_WRITE,
)
from .libc import Libc
from .memory import pin

__all__ = ["LinuxSources"]

_ITIMERSPEC: Final = Struct("=qqqq")  # the period, then the first time
_NS_PER_S: Final = 1_000_000_000
_NONBLOCK_CLOEXEC: Final = 0o4000 | 0o2000000
_ABSTIME: Final = 1
_REALTIME: Final = 0
_MONOTONIC: Final = 1

_INOTIFY_EVENT: Final = Struct("=iIII")  # watch, mask, cookie, bytes of the name behind it
_ACCESS: Final = 0x0001
_MODIFY: Final = 0x0002
_ATTRIB: Final = 0x0004
_CLOSE_WRITE: Final = 0x0008
_CLOSE_NOWRITE: Final = 0x0010
_OPEN: Final = 0x0020
_ENTRIES: Final = 0x0040 | 0x0080 | 0x0100 | 0x0200  # moved from and to, created, deleted
_MOVE_SELF: Final = 0x0800
_UNMOUNT: Final = 0x2000

# What inotify is asked for, for a note's sake; sizes and counts of links are looked at then.
_ASKED: Final = {
    NOTE_DELETE: _ATTRIB,
    NOTE_WRITE: _MODIFY | _ENTRIES,
    NOTE_EXTEND: _MODIFY,
    NOTE_TRUNCATE: _MODIFY,
    NOTE_ATTRIB: _ATTRIB | _MODIFY,
    NOTE_LINK: _ATTRIB | _ENTRIES,
    NOTE_RENAME: _MOVE_SELF,
    NOTE_REVOKE: _UNMOUNT,
    NOTE_OPEN: _OPEN,
    NOTE_CLOSE: _CLOSE_NOWRITE,
    NOTE_CLOSE_WRITE: _CLOSE_WRITE,
    NOTE_READ: _ACCESS,
}
_TOLD: Final = {
    _OPEN: NOTE_OPEN, _CLOSE_NOWRITE: NOTE_CLOSE, _CLOSE_WRITE: NOTE_CLOSE_WRITE,
    _ACCESS: NOTE_READ, _MOVE_SELF: NOTE_RENAME, _UNMOUNT: NOTE_REVOKE,
}  # fmt: skip


class _Descriptor:
    """A source's descriptor, which it owns."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def close(self) -> None:
        """Let go of it; safe to call twice."""
        if self.fd >= 0:
            fd, self.fd = self.fd, -1
            os.close(fd)

    def _count(self) -> int:
        """Return how often it happened, and begin to count anew."""
        try:
            return int.from_bytes(os.read(self.fd, 8), sys.byteorder)
        except BlockingIOError:
            return 0


class _Timer(_Descriptor):
    def __init__(self, libc: Libc, first_ns: int, period_ns: int, wall: bool) -> None:
        clock = _REALTIME if wall else _MONOTONIC
        super().__init__(_checked(libc.timerfd_create(clock, _NONBLOCK_CLOEXEC), "timerfd_create"))
        first, period = divmod(max(first_ns, 1), _NS_PER_S), divmod(period_ns, _NS_PER_S)
        try:
            raw, _, _keep = pin(_ITIMERSPEC.pack(*period, *first))
            number = libc.timerfd_settime(self.fd, _ABSTIME if wall else 0, raw, 0)
            _checked(number, "timerfd_settime", self.fd)
        except BaseException:
            self.close()
            raise

    def take(self) -> tuple[int, int] | None:
        """See `Source`."""
        count = self._count()
        return (0, count) if count else None


class _Trigger(_Descriptor):
    def __init__(self) -> None:
        super().__init__(os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK))

    def pull(self) -> None:
        """Have it be readable."""
        if self.fd >= 0:
            os.eventfd_write(self.fd, 1)

    def take(self) -> tuple[int, int] | None:
        """See `Source`."""
        count = self._count()
        return (0, count) if count else None


class _Signal(_Trigger):
    """A signal, which somebody else may wait for as well."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self._number = number
        try:
            _watch_signal(number, self)
        except BaseException:
            super().close()
            raise

    def close(self) -> None:
        """See `Source`."""
        _unwatch_signal(self._number, self)
        super().close()


_Handler = Callable[[int, FrameType | None], object] | int | None
_signals: dict[int, list[_Signal]] = {}
_before: dict[int, _Handler] = {}


def _watch_signal(number: int, source: _Signal) -> None:
    if number not in _signals:
        try:
            before = signal.getsignal(number)
            if before is None:
                raise UnsupportedError(f"watching signal {number}", "a handler of Python's")
            signal.signal(number, _arrived)
        except ValueError as error:
            if number in signal.valid_signals():
                raise UnsupportedError("EVFILT_SIGNAL", "the main thread, played so") from error
            raise op_error(errno.EINVAL, "kevent") from None
        _before[number] = before
        _signals[number] = []
    _signals[number].append(source)


def _unwatch_signal(number: int, source: _Signal) -> None:
    watching = _signals.get(number, [])
    if source not in watching:
        return
    watching.remove(source)
    if watching:
        return
    if signal.getsignal(number) is _arrived:  # else the program has put its own there
        try:
            signal.signal(number, _before[number])
        except ValueError:
            return  # in another thread: it stays, and passes on what comes
    del _signals[number], _before[number]


def _arrived(number: int, frame: FrameType | None) -> None:
    for source in _signals.get(number, ()):
        source.pull()
    before = _before.get(number)
    if callable(before):
        before(number, frame)
    elif before == signal.SIG_DFL:
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
        signal.signal(number, _arrived)


class _Process(_Descriptor):
    def __init__(self, pid: int) -> None:
        super().__init__(os.pidfd_open(pid))
        self._pid = pid

    def take(self) -> tuple[int, int] | None:
        """See `Source`."""
        try:
            found = os.waitid(os.P_PID, self._pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return NOTE_EXIT, 0  # nobody's, or somebody else's, child
        if found is None:
            return None
        if found.si_code == os.CLD_EXITED:
            return NOTE_EXIT, found.si_status << 8
        return NOTE_EXIT, found.si_status | (0x80 if found.si_code == os.CLD_DUMPED else 0)


class _Vnode(_Descriptor):
    def __init__(self, libc: Libc, fd: int, notes: int) -> None:
        found = os.fstat(fd)
        super().__init__(_checked(libc.inotify_init1(_NONBLOCK_CLOEXEC), "inotify_init1"))
        self._of = fd
        self._size, self._links = found.st_size, found.st_nlink
        mask = 0
        for note, bits in _ASKED.items():
            if notes & note:
                mask |= bits
        try:
            # The file itself, whatever its name may be by now.
            path, _, _keep = pin(b"/proc/self/fd/%d\0" % fd)
            _checked(libc.inotify_add_watch(self.fd, path, mask or _UNMOUNT), "inotify_add_watch")
        except BaseException:
            self.close()
            raise

    def take(self) -> tuple[int, int] | None:
        """See `Source`."""
        mask = self._mask()
        try:
            found = os.fstat(self._of)
        except OSError:
            return None
        notes = 0
        for bit, note in _TOLD.items():
            if mask & bit:
                notes |= note
        if mask & _ENTRIES:
            notes |= NOTE_WRITE
        if mask & _ATTRIB:
            notes |= NOTE_ATTRIB
        if mask & _MODIFY:
            notes |= NOTE_WRITE  # or ftruncate, which inotify tells in the same way
            if found.st_size > self._size:
                notes |= NOTE_EXTEND
            elif found.st_size < self._size:
                notes |= NOTE_TRUNCATE | NOTE_ATTRIB
        if found.st_nlink != self._links:
            notes |= NOTE_LINK if found.st_nlink else NOTE_DELETE
        self._size, self._links = found.st_size, found.st_nlink
        return (notes, 0) if notes else None

    def _mask(self) -> int:
        """Take what has happened since."""
        mask = 0
        while True:
            try:
                raw = os.read(self.fd, 65536)
            except BlockingIOError:
                return mask
            at = 0
            while at < len(raw):
                _, bits, _, name_bytes = _INOTIFY_EVENT.unpack_from(raw, at)
                mask |= bits
                at += _INOTIFY_EVENT.size + name_bytes


class LinuxSources:
    """See `uringio._sys.kqueue_emulated.Sources`."""

    def __init__(self, libc: Libc) -> None:
        self._libc = libc

    def trigger(self) -> _Trigger:
        """See `Sources`."""
        return _Trigger()

    def timer(self, first_ns: int, period_ns: int, wall: bool) -> _Timer:
        """See `Sources`."""
        return _Timer(self._libc, first_ns, period_ns, wall)

    def signal(self, number: int) -> _Signal:
        """See `Sources`."""
        return _Signal(number)

    def process(self, pid: int, notes: int) -> _Process:
        """See `Sources`."""
        if notes & ~(NOTE_EXIT | NOTE_EXITSTATUS):
            raise UnsupportedError("EVFILT_PROC but for NOTE_EXIT", "a BSD, or macOS")
        return _Process(pid)

    def vnode(self, fd: int, notes: int) -> _Vnode:
        """See `Sources`."""
        return _Vnode(self._libc, fd, notes)


def _checked(result: int, call: str, fd: int = -1) -> int:
    if result < 0:
        raise op_error(-result, call, fd)
    return result
