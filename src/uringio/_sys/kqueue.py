"""
kqueue(2) of the BSDs and macOS, and of any library that offers it elsewhere.

The call is the same everywhere; the structure is not.  `LAYOUTS` has one for each kind of system,
and `layout_of_platform` picks it.  A struct that were one field wrong would be read as other events
on other descriptors, so a system that is in none of the rows is refused.

On Linux there is no kqueue of the kernel's own.  The environment variable
``URINGIO_KQUEUE_LIBRARY`` names a library that exports ``kqueue`` and ``kevent``, such as
libkqueue; its structure is that of the older BSDs.

Sources: kqueue(2) of FreeBSD 11 and 14, macOS, NetBSD 9 and 10, OpenBSD; libkqueue's sys/event.h.
"""

import ctypes
import os
import sys
from collections.abc import Iterable, Sequence
from struct import Struct
from struct import error as struct_error
from typing import Final, NamedTuple

from uringio.errors import UnsupportedError, op_error

from .memory import Memory

__all__ = [
    "EMULATED",
    "EVFILT_PROC",
    "EVFILT_READ",
    "EVFILT_SIGNAL",
    "EVFILT_TIMER",
    "EVFILT_USER",
    "EVFILT_VNODE",
    "EVFILT_WRITE",
    "EV_ADD",
    "EV_CLEAR",
    "EV_DELETE",
    "EV_DISABLE",
    "EV_DISPATCH",
    "EV_ENABLE",
    "EV_EOF",
    "EV_ERROR",
    "EV_ONESHOT",
    "EV_RECEIPT",
    "LAYOUTS",
    "VARIABLE",
    "Kevent",
    "Kqueue",
    "Layout",
    "check_counts",
    "layout_of",
]

VARIABLE: Final = "URINGIO_KQUEUE_LIBRARY"
EMULATED: Final = "emulated"  # as a value of it: `_sys.kqueue_emulated`

# As all but NetBSD number them; see `Layout.filters`.
EVFILT_READ: Final = -1
EVFILT_WRITE: Final = -2
EVFILT_AIO: Final = -3
EVFILT_VNODE: Final = -4
EVFILT_PROC: Final = -5
EVFILT_SIGNAL: Final = -6
EVFILT_TIMER: Final = -7
EVFILT_USER: Final = -11  # but for macOS, NetBSD

EV_ADD: Final = 0x0001
EV_DELETE: Final = 0x0002
EV_ENABLE: Final = 0x0004
EV_DISABLE: Final = 0x0008
EV_ONESHOT: Final = 0x0010
EV_CLEAR: Final = 0x0020
EV_RECEIPT: Final = 0x0040
EV_DISPATCH: Final = 0x0080
EV_ERROR: Final = 0x4000
EV_EOF: Final = 0x8000

_TIMESPEC: Final = Struct("=qq")  # of 64-bit systems
_NS_PER_S: Final = 1_000_000_000
_BATCH_COUNT_MAX: Final = 512


class Kevent(NamedTuple):
    """
    One change to make, or one event that happened.

    Attributes:
        ident: A descriptor, process, signal or number of one's own, as *filter* has it.
        filter: EVFILT_*.
        flags: EV_*; of an event, EV_EOF and EV_ERROR too.
        fflags: NOTE_* of the filter.
        data: The filter's: bytes that can be read, an errno with EV_ERROR, a timer's period.
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
    How a system lays ``struct kevent`` out, on 64 bits.

    Attributes:
        system: Whose it is.
        packed: The fields up to udata, and what follows.
        filters: What the filters are called there, where not as everywhere.
    """

    system: str
    packed: Struct
    filters: dict[int, int]

    @property
    def size(self) -> int:
        """The size of one, in bytes."""
        return self.packed.size


_NETBSD_FILTERS: Final = {
    EVFILT_READ: 0, EVFILT_WRITE: 1, EVFILT_AIO: 2, EVFILT_VNODE: 3, EVFILT_PROC: 4,
    EVFILT_SIGNAL: 5, EVFILT_TIMER: 6, EVFILT_USER: 8,
}  # fmt: skip

LAYOUTS: Final = {
    one.system: one
    for one in (
        Layout("freebsd", Struct("=QhHIqQ32x"), {}),  # 12 and later: ext[4] at the end
        Layout("freebsd11", Struct("=QhHIqQ"), {}),
        Layout("darwin", Struct("=QhHIqQ"), {EVFILT_USER: -10}),
        Layout("openbsd", Struct("=QhHIqQ"), {}),
        Layout("dragonfly", Struct("=QhHIqQ"), {EVFILT_USER: -9}),
        Layout("netbsd", Struct("=QIII4xqQ32x"), _NETBSD_FILTERS),  # 10 and later
        Layout("netbsd9", Struct("=QIII4xqQ"), _NETBSD_FILTERS),
        Layout("library", Struct("=QhHIqQ"), {}),
    )
}

_EXT_SINCE: Final = {"freebsd": 12, "netbsd": 10}


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
    since = _EXT_SINCE.get(system)
    if since is not None:
        major = release.partition(".")[0]
        if not major.isdecimal():
            raise UnsupportedError("kqueue", f"a release of {system} that has a number")
        if int(major) < since:
            system += str(since - 1)
    if system not in LAYOUTS or system == "library":
        raise UnsupportedError("kqueue", "FreeBSD, macOS, NetBSD, OpenBSD or DragonFly")
    return LAYOUTS[system]


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
    One kqueue.

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
        self._kevent = library["kevent"]
        pointer, count = ctypes.c_void_p, ctypes.c_int
        self._kevent.argtypes = (count, pointer, count, pointer, count, pointer)
        self._kevent.restype = ctypes.c_int
        self._close = library["close"]
        self._close.argtypes = (ctypes.c_int,)
        self._room = Memory(self.layout.size * _BATCH_COUNT_MAX)
        self._changes = Memory(self.layout.size * _BATCH_COUNT_MAX)
        self._timespec = _Timespec()
        self._to_theirs = self.layout.filters
        self._to_ours = {theirs: ours for ours, theirs in self.layout.filters.items()}
        self._fd = int(create())
        if self._fd < 0:
            raise op_error(ctypes.get_errno(), "kqueue")

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
            ValueError: Too many of either.
        """
        check_counts(len(changes), count_max)
        pack_into, size = self.layout.packed.pack_into, self.layout.size
        room, to_theirs = self._changes.view, self._to_theirs
        for index, change in enumerate(changes):
            filter_ = to_theirs.get(change.filter, change.filter)
            try:
                pack_into(room, index * size, change.ident, filter_, *change[2:])
            except struct_error:
                raise ValueError(f"{change} does not fit this system's struct kevent") from None
        timeout = 0 if timeout_ns is None else self._timespec.set(timeout_ns)
        found = self._kevent(
            self._fd, self._changes.addr, len(changes), self._room.addr, count_max, timeout
        )
        if found < 0:
            raise op_error(ctypes.get_errno(), "kevent", self._fd)
        raw = self._room.view[: found * size]
        return [self._event(fields) for fields in self.layout.packed.iter_unpack(raw)]

    def _event(self, fields: Iterable[int]) -> Kevent:
        event = Kevent(*fields)
        ours = self._to_ours.get(event.filter)
        return event if ours is None else event._replace(filter=ours)

    def close(self) -> None:
        """Close it; safe to call twice."""
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            self._close(fd)


def check_counts(changes_count: int, count_max: int) -> None:
    """Raise ValueError for more than goes into one call."""
    if changes_count > _BATCH_COUNT_MAX or not 0 <= count_max <= _BATCH_COUNT_MAX:
        raise ValueError(f"at most {_BATCH_COUNT_MAX} changes and events go into one call")


def _library() -> tuple[Layout, ctypes.CDLL]:
    name = os.environ.get(VARIABLE)
    if name:
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
    for function in ("kqueue", "kevent"):
        if not hasattr(library, function):
            raise UnsupportedError("kqueue", f"a library that exports {function}")
    return layout, library


def struct_bits() -> int:
    """Return the size of a pointer, in bits."""
    return 8 * ctypes.sizeof(ctypes.c_void_p)
