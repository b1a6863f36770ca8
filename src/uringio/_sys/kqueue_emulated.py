"""
kqueue's descriptors, played on Linux's epoll: for tests of what runs on the BSDs and macOS.

Chosen by ``URINGIO_KQUEUE_LIBRARY=emulated``.  It keeps to what kqueue(2) promises and not to what
epoll does: an event each for reading and writing, the bytes that wait, EV_EOF with the last of
them, EV_CLEAR, EV_ONESHOT and EV_DISPATCH for each event by itself, receipts, and filters that go
with their descriptor.  Of the filters it has EVFILT_READ, EVFILT_WRITE and EVFILT_USER.
"""

import errno
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from uringio.errors import op_error

from .kqueue import (
    EV_ADD,
    EV_CLEAR,
    EV_DELETE,
    EV_DISABLE,
    EV_DISPATCH,
    EV_ENABLE,
    EV_EOF,
    EV_ERROR,
    EV_ONESHOT,
    EV_RECEIPT,
    EVFILT_READ,
    EVFILT_USER,
    EVFILT_WRITE,
    Kevent,
    check_counts,
)

if TYPE_CHECKING:
    import select

__all__ = ["EmulatedKqueue"]

NOTE_TRIGGER: Final = 0x01000000

_STATE_FLAGS: Final = EV_CLEAR | EV_ONESHOT | EV_DISPATCH
# epoll's, which `select` has on Linux alone.
_IN: Final = 0x001
_OUT: Final = 0x004
_ERR: Final = 0x008
_HUP: Final = 0x010
_RDHUP: Final = 0x2000
_ET: Final = 1 << 31
_ENDED: Final = _RDHUP | _HUP | _ERR
_READABLE: Final = _IN | _ENDED
_WRITABLE: Final = _OUT | _HUP | _ERR
_NS_PER_S: Final = 1_000_000_000


class _Note:
    """One registered event."""

    __slots__ = ("enabled", "event", "file")

    def __init__(self, event: Kevent, file: object) -> None:
        self.event = event
        self.file = file  # which its number named when it was added
        self.enabled = True


class EmulatedKqueue:
    """
    See `uringio._sys.kqueue.Kqueue`.

    Args:
        epoll: What plays it.
        file_of: Tells what a number names, by something that is equal for the same file alone;
            raises OSError where it names nothing.
        clock: The time. [ns]
    """

    def __init__(
        self, epoll: "select.epoll", file_of: Callable[[int], object], clock: Callable[[], int]
    ) -> None:
        self._epoll = epoll
        self._file_of = file_of
        self._clock = clock
        self._is_closed = False
        self._notes: dict[tuple[int, int], _Note] = {}

    def fileno(self) -> int:
        """Return the descriptor, -1 once it is closed."""
        return -1 if self._is_closed else self._epoll.fileno()

    def control(
        self, changes: Sequence[Kevent] = (), count_max: int = 0, timeout_ns: int | None = None
    ) -> list[Kevent]:
        """See `Kqueue.control`."""
        check_counts(len(changes), count_max)
        if self._is_closed:
            raise op_error(errno.EBADF, "kevent", -1)
        answers: list[Kevent] = []
        for change in changes:
            number = self._change(change)
            if not number and not change.flags & EV_RECEIPT:
                continue
            if len(answers) < count_max:
                answers.append(change._replace(flags=change.flags | EV_ERROR, data=number))
            elif number:
                raise op_error(number, "kevent", self.fileno())
        if answers or not count_max:
            return answers
        return self._wait(count_max, timeout_ns)

    def close(self) -> None:
        """Close it; safe to call twice."""
        if not self._is_closed:
            self._is_closed = True
            self._epoll.close()

    # --- changes ---------------------------------------------------------------------------------

    def _change(self, change: Kevent) -> int:
        if change.filter not in (EVFILT_READ, EVFILT_WRITE, EVFILT_USER):
            return errno.EINVAL
        key = change.ident, change.filter
        file: object = None
        if change.filter != EVFILT_USER:
            try:
                file = self._file_of(change.ident)
            except (OSError, OverflowError):
                return errno.EBADF
        note = self._notes.get(key)
        if note is not None and note.file != file:
            del self._notes[key]  # gone with the descriptor that had this number before
            note = None
        if change.flags & EV_DELETE:
            if note is None:
                return errno.ENOENT
            del self._notes[key]
            return self._ask(change.ident)
        if note is None:
            if not change.flags & EV_ADD:
                return errno.ENOENT
            note = self._notes[key] = _Note(change, file)
        elif change.flags & EV_ADD:
            note.event = change
        if change.filter == EVFILT_USER and change.fflags & NOTE_TRIGGER:
            note.event = note.event._replace(fflags=change.fflags)
        if change.flags & EV_DISABLE:
            note.enabled = False
        elif change.flags & (EV_ENABLE | EV_ADD):
            note.enabled = True
        number = self._ask(change.ident) if change.filter != EVFILT_USER else 0
        if number:
            del self._notes[key]
        return number

    def _ask(self, fd: int) -> int:
        """Have epoll report what the notes of *fd* are about."""
        mask = 0
        for filter_, bit in ((EVFILT_READ, _IN), (EVFILT_WRITE, _OUT)):
            note = self._notes.get((fd, filter_))
            if note is not None and note.enabled:
                mask |= bit | (_RDHUP if filter_ == EVFILT_READ else 0)
                if note.event.flags & EV_CLEAR:
                    mask |= _ET
        try:
            if not mask:
                self._epoll.unregister(fd)
            else:
                try:
                    self._epoll.register(fd, mask)
                except FileExistsError:
                    self._epoll.modify(fd, mask)
        except OSError as error:
            if mask:
                return errno.EINVAL if error.errno == errno.EPERM else error.errno or errno.EIO
        return 0

    # --- events ----------------------------------------------------------------------------------

    def _wait(self, count_max: int, timeout_ns: int | None) -> list[Kevent]:
        deadline_ns = None if timeout_ns is None else self._clock() + timeout_ns
        while True:
            events = self._triggered(count_max)
            seconds = -1.0
            if events:
                seconds = 0.0
            elif deadline_ns is not None:
                seconds = max(0, deadline_ns - self._clock()) / _NS_PER_S
            # At most half as many, since each may be two events.
            for fd, bits in self._epoll.poll(seconds, max(1, (count_max - len(events)) // 2)):
                events += self._events(fd, bits)
            if events or (deadline_ns is not None and self._clock() >= deadline_ns):
                return events[:count_max]

    def _triggered(self, count_max: int) -> list[Kevent]:
        events: list[Kevent] = []
        for note in list(self._notes.values()):
            event = note.event
            if event.filter == EVFILT_USER and note.enabled and event.fflags & NOTE_TRIGGER:
                if len(events) == count_max:
                    break
                events.append(event)
                if event.flags & EV_CLEAR:
                    note.event = event._replace(fflags=event.fflags & ~NOTE_TRIGGER)
                self._after(note)
        return events

    def _events(self, fd: int, bits: int) -> list[Kevent]:
        events: list[Kevent] = []
        for filter_, mask in ((EVFILT_READ, _READABLE), (EVFILT_WRITE, _WRITABLE)):
            note = self._notes.get((fd, filter_))
            if note is None or not note.enabled or not bits & mask:
                continue
            flags = note.event.flags & (_STATE_FLAGS | EV_ADD)
            ended = _ENDED if filter_ == EVFILT_READ else _ENDED & ~_RDHUP
            if bits & ended:
                flags |= EV_EOF
            events.append(note.event._replace(flags=flags, fflags=0, data=0))
            self._after(note)
        return events

    def _after(self, note: _Note) -> None:
        event = note.event
        if event.flags & EV_ONESHOT:
            self._notes.pop((event.ident, event.filter), None)
        elif event.flags & EV_DISPATCH:
            note.enabled = False
        else:
            return
        if event.filter != EVFILT_USER:
            self._ask(event.ident)
