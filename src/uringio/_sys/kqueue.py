"""
kqueue(2) of the BSDs and macOS, and of any library that offers it elsewhere.

The call is the same everywhere; structure and numbers are not.  `LAYOUTS` has one for each kind of
system, `layout_of` picks it, and `kqueue_numbers` says what the numbers are there.  A struct that
were one field wrong would be read as other events on other descriptors, so a system that is in none
of the rows is refused.

On Linux there is no kqueue of the kernel's own.  The environment variable
``URINGIO_KQUEUE_LIBRARY`` names a library that exports ``kqueue`` and ``kevent``, such as
libkqueue; its structure is that of the older BSDs.

Sources: kqueue(2) of FreeBSD 11 and 14, macOS, NetBSD 9 to 11, OpenBSD; libkqueue's sys/event.h.
"""

import ctypes
import operator
import os
import sys
import warnings
from collections.abc import Iterable, Sequence
from struct import Struct
from struct import error as struct_error
from typing import Final, NamedTuple, Protocol, Self

from uringio.errors import UnsupportedError, op_error

from .kqueue_numbers import (
    EV_ADD,
    EVFILT_PROC,
    EVFILT_TIMER,
    EVFILT_USER,
    FILTERS,
    NOTE_EXIT,
    NOTES,
    TIMER_UNITS,
    Notes,
    name_of_filter,
    names_of_notes,
)
from .memory import Memory

__all__ = [
    "EMULATED",
    "LAYOUTS",
    "VARIABLE",
    "Kevent",
    "Kqueue",
    "Layout",
    "Translation",
    "check_call",
    "check_unit",
    "layout_of",
    "process_end",
]

VARIABLE: Final = "URINGIO_KQUEUE_LIBRARY"
EMULATED: Final = "emulated"  # as a value of it: `_sys.kqueue_emulated`

_TIMESPEC: Final = Struct("=qq")  # of 64-bit systems
_NS_PER_S: Final = 1_000_000_000
_BATCH_COUNT_MAX: Final = 512
_TIMEOUT_NS_MAX: Final = (1 << 63) - 1
_UNITS_MASK: Final = sum(TIMER_UNITS)


class Kevent(NamedTuple):
    """
    One change to make, or one event that happened.

    Attributes:
        ident: A descriptor, process, signal or number of one's own, as *filter* has it.
        filter: EVFILT_*.
        flags: EV_*; of an event, EV_EOF and EV_ERROR too.
        fflags: NOTE_* of the filter.
        data: The filter's: bytes that can be read, an errno with EV_ERROR; of a timer, its period
            to begin with and how often it ran out in an event; how often a signal came; what
            wait(2) would say of a process.
        udata: Comes back as it was given. [an integer of 64 bits]
    """

    ident: int
    filter: int
    flags: int = EV_ADD
    fflags: int = 0
    data: int = 0
    udata: int = 0


class Layout(NamedTuple):
    """
    What a system's kevent(2) looks like, on 64 bits.

    Attributes:
        system: Whose it is.
        packed: The fields up to udata, and what follows.
        symbol: The name of the C function that takes this structure.
    """

    system: str
    packed: Struct
    symbol: str = "kevent"

    @property
    def size(self) -> int:
        """The size of one, in bytes."""
        return self.packed.size

    @property
    def filters(self) -> dict[int, int]:
        """What the filters are called there; what is missing is not there."""
        return FILTERS[self.system]

    @property
    def notes(self) -> dict[int, Notes]:
        """What the notes of each filter are called there; what is missing is not there."""
        return NOTES[self.system]


# NetBSD kept its older structures under the older names, and gave each new one a name of its own.
LAYOUTS: Final = {
    one.system: one
    for one in (
        Layout("freebsd", Struct("=QhHIqQ32x")),  # 12 and later: ext[4] at the end
        Layout("freebsd11", Struct("=QhHIqQ")),
        Layout("darwin", Struct("=QhHIqQ")),
        Layout("openbsd", Struct("=QhHIqQ")),
        Layout("dragonfly", Struct("=QhHIqQ")),
        Layout("netbsd", Struct("=QIII4xqQ32x"), "__kevent100"),  # 11 and later
        Layout("netbsd10", Struct("=QIII4xqQ"), "__kevent50"),
        Layout("netbsd9", Struct("=QIII4xqQ"), "__kevent50"),
        Layout("library", Struct("=QhHIqQ")),
    )
}

# Up to which release which of the rows; after them, the one that has no number.
_GENERATIONS: Final = {
    "freebsd": ((11, "freebsd11"),),
    "netbsd": ((9, "netbsd9"), (10, "netbsd10")),
}


def layout_of(platform: str, release: str) -> Layout:
    """
    Return the layout of a system.

    Args:
        platform: As `sys.platform`, such as ``"freebsd14"`` or ``"darwin"``.
        release: As `os.uname` has it, such as ``"14.1-RELEASE"``.

    Raises:
        UnsupportedError: None is known.
    """
    system = platform.rstrip("0123456789")
    if system in _GENERATIONS:
        major = release.partition(".")[0]
        if not major.isdecimal():
            raise UnsupportedError("kqueue", f"a release of {system} that has a number")
        for last, older in reversed(_GENERATIONS[system]):
            if int(major) <= last:
                system = older
    if system not in LAYOUTS or system == "library":
        raise UnsupportedError("kqueue", "FreeBSD, macOS, NetBSD, OpenBSD or DragonFly")
    return LAYOUTS[system]


class Translation:
    """
    Between the numbers of programs and those of one system.

    Raises:
        UnsupportedError: From `theirs`: the system has no such filter or note.
        ValueError: From `theirs`: a timer was given two units.
    """

    def __init__(self, layout: Layout) -> None:
        self._system = layout.system
        self._filters = layout.filters
        self._notes = layout.notes
        # Of the filters that need looking at: ours, and the notes that have another bit there.
        self._ours: dict[int, tuple[int, Notes]] = {}
        for ours, theirs in self._filters.items():
            notes = {b: a for a, b in self._notes.get(ours, {}).items() if b not in (0, a)}
            if theirs != ours or notes or ours == EVFILT_TIMER:
                self._ours[theirs] = ours, notes

    def theirs(self, change: Kevent) -> tuple[int, int]:
        """Return what filter and notes of a change are called there."""
        ours, fflags = change.filter, change.fflags
        filter_ = self._filters.get(ours)
        if filter_ is None:
            raise UnsupportedError(name_of_filter(ours), f"another system than {self._system}")
        if not fflags or ours == EVFILT_USER:
            return filter_, fflags
        check_unit(change)
        found = 0
        for note, theirs in self._notes.get(ours, {}).items():
            if fflags & note:
                fflags &= ~note
                found |= theirs
        if fflags:
            what = f"{name_of_filter(ours)} with {names_of_notes(ours, fflags)}"
            raise UnsupportedError(what, f"another system than {self._system}")
        return filter_, found

    def ours(self, event: Kevent) -> Kevent:
        """Return an event by the numbers of programs."""
        found = self._ours.get(event.filter)
        if found is None:
            return event
        filter_, notes = found
        if filter_ == EVFILT_TIMER:
            return event._replace(filter=filter_, fflags=0)  # some repeat the unit
        fflags = event.fflags
        for theirs, ours in notes.items():
            if event.fflags & theirs:
                fflags = fflags & ~theirs | ours
        return event._replace(filter=filter_, fflags=fflags)


class _Timespec:
    """A timeout in memory that stays where it is."""

    def __init__(self) -> None:
        self._memory = Memory(_TIMESPEC.size)
        self.addr = self._memory.addr

    def set(self, timeout_ns: int) -> int:
        _TIMESPEC.pack_into(self._memory.view, 0, *divmod(timeout_ns, _NS_PER_S))
        return self.addr


class Kqueue:
    """
    One kqueue; a context manager that closes it.

    One thread may make changes, taking no events, while another waits: so a loop is woken, by
    EVFILT_USER.  What else there is to do is for one thread at a time.

    Raises:
        UnsupportedError: There is none here, and `VARIABLE` names no library that has one.
        OpError: The kernel refused.

    Source: kqueue(2).
    """

    def __init__(self) -> None:
        self.layout, library = _library()
        self._functions = library
        create = library["kqueue"]
        create.restype = ctypes.c_int
        self._kevent = library[self.layout.symbol]
        # The counts are C ints everywhere but on NetBSD; a register holds either.
        pointer, count = ctypes.c_void_p, ctypes.c_size_t
        self._kevent.argtypes = (ctypes.c_int, pointer, count, pointer, count, pointer)
        self._kevent.restype = ctypes.c_int
        self._close = library["close"]
        self._close.argtypes = (ctypes.c_int,)
        self._room = Memory(self.layout.size * _BATCH_COUNT_MAX)
        self._changes = Memory(self.layout.size * _BATCH_COUNT_MAX)
        self._timespec = _Timespec()
        translation = Translation(self.layout)
        self._theirs = translation.theirs
        self._ours = translation.ours
        self._fd = int(create())
        if self._fd < 0:
            raise op_error(ctypes.get_errno(), "kqueue")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def fileno(self) -> int:
        """Return the descriptor, -1 once it is closed."""
        return self._fd

    def control(
        self, changes: Sequence[Kevent] = (), count_max: int = 0, timeout_ns: int | None = None
    ) -> list[Kevent]:
        """
        Make changes, then take events.

        Args:
            changes: What to add, change and delete, at most 512.
            count_max: How many events to take at most, up to 512; 0 takes none and does not wait.
            timeout_ns: How long to wait for the first one; None: for ever. [ns]

        Returns:
            Events; a change that failed is one with EV_ERROR and the errno in ``data`` while there
            is room, as is one with EV_RECEIPT that did not, with 0 there.

        Raises:
            OpError: A change failed and there was no room to tell, or the wait was interrupted.
            UnsupportedError: This system has no such filter or note; no change was made.
            ValueError: Too many of either, two units for a timer, a timeout below 0, or a number
                that does not fit.
        """
        check_call(len(changes), count_max, timeout_ns)
        pack_into, size = self.layout.packed.pack_into, self.layout.size
        room = self._changes.view
        for index, change in enumerate(changes):
            filter_, fflags = self._theirs(change)
            ident, _, flags, _, data, udata = change
            try:
                pack_into(room, index * size, ident, filter_, flags, fflags, data, udata)
            except struct_error:
                raise ValueError(f"{change} does not fit this system's struct kevent") from None
        timeout = 0
        if timeout_ns is not None and count_max:  # else another thread may wait by it
            timeout = self._timespec.set(timeout_ns)
        found = self._kevent(
            self._fd, self._changes.addr, len(changes), self._room.addr, count_max, timeout
        )
        if found < 0:
            raise op_error(ctypes.get_errno(), "kevent", self._fd)
        raw = self._room.view[: found * size]
        return [self._event(fields) for fields in self.layout.packed.iter_unpack(raw)]

    def _event(self, fields: Iterable[int]) -> Kevent:
        return self._ours(Kevent(*fields))

    def close(self) -> None:
        """Close it; safe to call twice."""
        if self._fd >= 0:
            self._close(self.detach())

    def detach(self) -> int:
        """Give away the descriptor, which is the caller's to close; the object is as if closed."""
        fd, self._fd = self._fd, -1
        return fd

    def __del__(self) -> None:
        if getattr(self, "_fd", -1) >= 0:
            warnings.warn(f"unclosed kqueue, fd={self._fd}", ResourceWarning, 2, source=self)
            self.close()


class _Controlled(Protocol):
    def control(self, changes: Sequence[Kevent], /) -> list[Kevent]: ...
    def detach(self) -> int: ...
    def close(self) -> None: ...


def process_end(kqueue: _Controlled, pid: int) -> int:
    """
    Have a new kqueue tell of the end of a process, and return its descriptor.

    It can be read once the process has ended, which is left to be waited for.  The descriptor is
    the caller's to close.

    Raises:
        OpError: ESRCH: there is no such process, or on macOS it has ended.
    """
    try:
        kqueue.control([Kevent(pid, EVFILT_PROC, EV_ADD, NOTE_EXIT)])
    except BaseException:
        kqueue.close()
        raise
    return kqueue.detach()


def check_call(changes_count: int, count_max: int, timeout_ns: int | None) -> None:
    """Raise ValueError for more than goes into one call, and for a timeout that is none."""
    if changes_count > _BATCH_COUNT_MAX or not 0 <= operator.index(count_max) <= _BATCH_COUNT_MAX:
        raise ValueError(f"at most {_BATCH_COUNT_MAX} changes and events go into one call")
    if timeout_ns is not None and not 0 <= operator.index(timeout_ns) <= _TIMEOUT_NS_MAX:
        raise ValueError("a timeout is from 0 to 2**63 - 1 ns; None waits for ever")


def check_unit(change: Kevent) -> None:
    """Raise ValueError for a timer with two units, which another system takes for a third one."""
    if change.filter == EVFILT_TIMER and change.fflags & _UNITS_MASK not in TIMER_UNITS:
        raise ValueError(f"a timer has one unit, not the two of {change}")


def _library() -> tuple[Layout, ctypes.CDLL]:
    name = os.environ.get(VARIABLE)
    if name and name != EMULATED:
        try:
            library = ctypes.CDLL(name, use_errno=True)
        except OSError as error:
            needed = f"a library that loads in {VARIABLE}: {error}"
            raise UnsupportedError("kqueue", needed) from error
        layout = LAYOUTS["library"]
    else:
        layout = layout_of(sys.platform, os.uname().release)
        library = ctypes.CDLL(None, use_errno=True)
    if struct_bits() != 64:
        raise UnsupportedError("kqueue", "a 64-bit process")
    for function in ("kqueue", layout.symbol):
        if not hasattr(library, function):
            raise UnsupportedError("kqueue", f"a library that exports {function}")
    return layout, library


def struct_bits() -> int:
    """Return the size of a pointer, in bits."""
    return 8 * ctypes.sizeof(ctypes.c_void_p)
