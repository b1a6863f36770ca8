"""
kqueue, played on Linux's epoll: for tests of what runs on the BSDs and macOS.

Chosen by ``URINGIO_KQUEUE_LIBRARY=emulated``.  It keeps to what kqueue(2) promises and not to what
epoll does: an event each for reading and writing, EV_EOF with the last bytes, EV_CLEAR, EV_ONESHOT
and EV_DISPATCH for each event by itself, receipts, and filters that go with their descriptor.

EVFILT_READ and EVFILT_WRITE are epoll's own, without a count of bytes or a low water mark.  What
the other filters are about has a descriptor of its own here, a *source*, which epoll says can be
read, and which then tells what has happened; see `kqueue_sources`.  So the emulated kqueue's
descriptor can be waited for like a real one.  The simulated kernel has sources of its own.
"""

import errno
import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final, Protocol, Self

from uringio.errors import op_error

from .kqueue import Kevent, check_call, check_unit
from .kqueue_numbers import (
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
    EVFILT_PROC,
    EVFILT_READ,
    EVFILT_SIGNAL,
    EVFILT_TIMER,
    EVFILT_USER,
    EVFILT_VNODE,
    EVFILT_WRITE,
    NOTE_ABSTIME,
    NOTE_FFAND,
    NOTE_FFCOPY,
    NOTE_FFCTRLMASK,
    NOTE_FFLAGSMASK,
    NOTE_FFOR,
    NOTE_TRIGGER,
    TIMER_UNITS,
)

if TYPE_CHECKING:
    import select

__all__ = ["EmulatedKqueue", "Source", "Sources", "Trigger"]

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

_BY_DESCRIPTOR: Final = frozenset({EVFILT_READ, EVFILT_WRITE, EVFILT_VNODE})
_BY_SOURCE: Final = frozenset({
    EVFILT_VNODE, EVFILT_PROC, EVFILT_SIGNAL, EVFILT_TIMER, EVFILT_USER
})  # fmt: skip
# What is told of is told once, whether or not EV_CLEAR asks for it.
_ALWAYS_CLEAR: Final = frozenset({EVFILT_PROC, EVFILT_SIGNAL, EVFILT_TIMER})
_COUNTED: Final = frozenset({EVFILT_SIGNAL, EVFILT_TIMER})


class Source(Protocol):
    """What one note waits for, as a descriptor that can be read when something has happened."""

    fd: int

    def take(self) -> tuple[int, int] | None:
        """Return what has happened, as NOTE_* and data, and forget it; None: nothing."""
        ...

    def close(self) -> None:
        """Let go of the descriptor; safe to call twice."""
        ...


class Trigger(Source, Protocol):
    """A source that somebody pulls."""

    def pull(self) -> None:
        """Have it be readable, until it is taken from."""
        ...


class Sources(Protocol):
    """Makes sources; each raises OSError, with the errno that kevent(2) would have."""

    def trigger(self) -> Trigger:
        """Make what `Trigger.pull` wakes."""
        ...

    def timer(self, first_ns: int, period_ns: int, wall: bool) -> Source:
        """Wait for a time from now, or by the wall clock, and again and again with a period."""
        ...

    def signal(self, number: int) -> Source:
        """Watch a signal, which takes its course all the same."""
        ...

    def process(self, pid: int, notes: int) -> Source:
        """Wait for the end of a process, which stays to be waited for."""
        ...

    def vnode(self, fd: int, notes: int) -> Source:
        """Watch the file of a descriptor."""
        ...


class _Note:
    """
    One registered event.

    Attributes:
        event: As it was asked for.
        file: What its number named when it was added.
        enabled: It may be told of.
        source: What tells that it happened, if it is not about readiness.
        trigger: That, if it is for the program to pull.
        happened: There is something to tell.
        fflags, data: Which is that.
    """

    __slots__ = ("data", "enabled", "event", "fflags", "file", "happened", "source", "trigger")

    def __init__(self, event: Kevent, file: object) -> None:
        self.event = event
        self.file = file
        self.enabled = True
        self.source: Source | None = None
        self.trigger: Trigger | None = None
        self.happened = False
        self.fflags = 0
        self.data = 0


class EmulatedKqueue:
    """
    See `uringio._sys.kqueue.Kqueue`.

    Args:
        epoll: What plays it.
        file_of: Tells what a number names, by something that is equal for the same file alone;
            raises OSError where it names nothing.
        clock: The time. [ns]
        sources: Make what is not readiness.
    """

    def __init__(
        self,
        epoll: "select.epoll",
        file_of: Callable[[int], object],
        clock: Callable[[], int],
        sources: Sources,
    ) -> None:
        self._epoll = epoll
        self._file_of = file_of
        self._clock = clock
        self._sources = sources
        self._is_closed = False
        self._notes: dict[tuple[int, int], _Note] = {}
        self._sourced: dict[int, _Note] = {}  # by the source's descriptor

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def fileno(self) -> int:
        """Return the descriptor, -1 once it is closed."""
        return -1 if self._is_closed else self._epoll.fileno()

    def control(
        self, changes: Sequence[Kevent] = (), count_max: int = 0, timeout_ns: int | None = None
    ) -> list[Kevent]:
        """See `Kqueue.control`."""
        check_call(len(changes), count_max, timeout_ns)
        for change in changes:
            check_unit(change)
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
            for note in self._sourced.values():
                if note.source is not None:
                    note.source.close()
            self._sourced.clear()
            self._notes.clear()
            self._epoll.close()

    def detach(self) -> int:
        """As `Kqueue.detach`; of one that waits for a single source, whose descriptor that is."""
        (note,) = self._sourced.values()
        assert note.source is not None
        try:
            return os.dup(note.source.fd)
        finally:
            self.close()

    # --- changes ---------------------------------------------------------------------------------

    def _change(self, change: Kevent) -> int:
        ident, filter_, flags = change.ident, change.filter, change.flags
        if filter_ not in _BY_DESCRIPTOR and filter_ not in _BY_SOURCE:
            return errno.EINVAL
        file: object = None
        if filter_ in _BY_DESCRIPTOR:
            try:
                file = self._file_of(ident)
            except (OSError, OverflowError):
                return errno.EBADF
        note = self._notes.get((ident, filter_))
        if note is not None and note.file != file:
            self._forget(note)  # gone with the descriptor that had this number before
            note = None
        if flags & EV_DELETE:
            return errno.ENOENT if note is None else self._drop(note)
        number = 0
        if note is None:
            if not flags & EV_ADD:
                return errno.ENOENT
            note = _Note(change, file)
            if filter_ in _BY_SOURCE:
                number = self._find_source(note)
        elif flags & EV_ADD:
            number = self._alter(note, change)
        if number:
            return number
        self._notes[ident, filter_] = note
        if filter_ == EVFILT_USER:
            _trigger(note, change)
        if flags & EV_DISABLE:
            note.enabled = False
        elif flags & (EV_ENABLE | EV_ADD):
            note.enabled = True
        if filter_ not in _BY_SOURCE:
            number = self._ask(ident)
            if number:
                del self._notes[ident, filter_]
        return number

    def _alter(self, note: _Note, change: Kevent) -> int:
        if change.filter == EVFILT_TIMER:
            note.happened, note.data = False, 0  # a timer that is set anew has not run out
        else:
            self._absorb(note)
        before, note.event = note.event, change
        if change.filter in {EVFILT_TIMER, EVFILT_VNODE}:
            source = note.source
            number = self._find_source(note)
            if number:
                note.event = before
                return number
            self._lose_source(source)
        return 0

    def _drop(self, note: _Note) -> int:
        self._forget(note)
        return self._ask(note.event.ident) if note.event.filter not in _BY_SOURCE else 0

    def _forget(self, note: _Note) -> None:
        self._notes.pop((note.event.ident, note.event.filter), None)
        self._lose_source(note.source)
        note.source = None

    def _find_source(self, note: _Note) -> int:
        """Give a note a source for its event; an errno if there is none."""
        try:
            source = self._source_of(note)
        except (OSError, OverflowError) as error:
            return getattr(error, "errno", None) or errno.EINVAL
        try:
            self._epoll.register(source.fd, _IN)
        except OSError as error:
            source.close()
            return error.errno or errno.EIO
        note.source = source
        self._sourced[source.fd] = note
        return 0

    def _lose_source(self, source: Source | None) -> None:
        if source is not None:
            self._sourced.pop(source.fd, None)
            self._epoll.unregister(source.fd)
            source.close()

    def _source_of(self, note: _Note) -> Source:
        sources, event = self._sources, note.event
        if event.filter == EVFILT_USER:
            note.fflags = event.fflags & NOTE_FFLAGSMASK
            note.trigger = sources.trigger()
            return note.trigger
        if event.filter == EVFILT_SIGNAL:
            return sources.signal(event.ident)
        if event.filter == EVFILT_PROC:
            return sources.process(event.ident, event.fflags)
        if event.filter == EVFILT_VNODE:
            return sources.vnode(event.ident, event.fflags)
        wall = bool(event.fflags & NOTE_ABSTIME)
        unit_ns = TIMER_UNITS[event.fflags & ~NOTE_ABSTIME]
        if event.data < 0:
            raise op_error(errno.EINVAL, "kevent")
        once = wall or bool(event.flags & EV_ONESHOT)
        time_ns = (event.data if once else max(event.data, 1)) * unit_ns
        return sources.timer(time_ns, 0 if once else time_ns, wall)

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
            events: list[Kevent] = []
            happened = any(note.happened and note.enabled for note in self._sourced.values())
            room = count_max - happened  # so that neither keeps the other from being told
            seconds = -1.0
            if happened:
                seconds = 0.0
            elif deadline_ns is not None:
                seconds = max(0, deadline_ns - self._clock()) / _NS_PER_S
            # At most half as many, since each may be two events.
            for fd, bits in self._epoll.poll(seconds, max(1, room // 2)) if room else ():
                note = self._sourced.get(fd)
                if note is None:
                    events += self._ready(fd, bits, room - len(events))
                else:
                    self._absorb(note)
            events += self._told(count_max - len(events))
            if events or (deadline_ns is not None and self._clock() >= deadline_ns):
                return events

    def _told(self, room: int) -> list[Kevent]:
        """Tell what sources have told."""
        events: list[Kevent] = []
        for note in list(self._sourced.values()):
            if len(events) == room:
                break
            if note.happened and note.enabled and self._holds(note):
                events.append(self._tell(note))
        return events

    def _absorb(self, note: _Note) -> None:
        """Take what its source tells."""
        event, source = note.event, note.source
        if source is None or not self._holds(note):
            return
        found = source.take()
        if found is None or event.filter == EVFILT_USER:
            return
        fflags, data = found
        if event.filter == EVFILT_VNODE:
            fflags &= event.fflags
            if not fflags:
                return
        note.fflags |= fflags
        note.data = note.data + data if event.filter in _COUNTED else data
        note.happened = True

    def _holds(self, note: _Note) -> bool:
        """Whether it is still about the same file; else it goes, as a descriptor's notes do."""
        if note.event.filter != EVFILT_VNODE:
            return True
        try:
            if self._file_of(note.event.ident) == note.file:
                return True
        except OSError:
            pass
        self._forget(note)
        return False

    def _tell(self, note: _Note) -> Kevent:
        event = note.event
        flags = event.flags & (_STATE_FLAGS | EV_ADD)
        if event.filter in _ALWAYS_CLEAR:
            flags |= EV_CLEAR
        if event.filter == EVFILT_PROC:
            flags |= EV_EOF | EV_ONESHOT
        data = event.data if event.filter == EVFILT_USER else note.data
        told = event._replace(flags=flags, fflags=note.fflags, data=data)
        if flags & EV_CLEAR:
            note.happened, note.data = False, 0
            if event.filter != EVFILT_USER:
                note.fflags = 0
        self._after(note, flags)
        return told

    def _ready(self, fd: int, bits: int, room: int) -> list[Kevent]:
        events: list[Kevent] = []
        for filter_, mask in ((EVFILT_READ, _READABLE), (EVFILT_WRITE, _WRITABLE)):
            note = self._notes.get((fd, filter_))
            if note is None or not note.enabled or not bits & mask:
                continue
            if len(events) == room:
                self._ask(fd)  # so that epoll tells an edge again
                break
            flags = note.event.flags & (_STATE_FLAGS | EV_ADD)
            ended = _ENDED if filter_ == EVFILT_READ else _ENDED & ~_RDHUP
            if bits & ended:
                flags |= EV_EOF
            events.append(note.event._replace(flags=flags, fflags=0, data=0))
            self._after(note, flags)
        return events

    def _after(self, note: _Note, flags: int) -> None:
        if flags & EV_ONESHOT:
            self._drop(note)
        elif flags & EV_DISPATCH:
            note.enabled = False
            if note.source is None:
                self._ask(note.event.ident)


def _trigger(note: _Note, change: Kevent) -> None:
    control, bits = change.fflags & NOTE_FFCTRLMASK, change.fflags & NOTE_FFLAGSMASK
    if control == NOTE_FFAND:
        note.fflags &= bits
    elif control == NOTE_FFOR:
        note.fflags |= bits
    elif control == NOTE_FFCOPY:
        note.fflags = bits
    if change.fflags & NOTE_TRIGGER and note.trigger is not None:
        note.happened = True
        note.event = note.event._replace(data=change.data, udata=change.udata)
        note.trigger.pull()
