"""
The numbers of kqueue(2), and what each system calls them.

Programs, and the rooms above, use one set of numbers: FreeBSD's.  Three things differ elsewhere,
and `FILTERS` and `NOTES` say how.  NetBSD numbers the filters from 0, and EVFILT_USER has another
number nearly everywhere.  The units of timers are bits in one system, values in the next, and
milliseconds are what nothing means.  Notes that one system alone has may share a bit with those of
another: they have a bit of their own here, above all that is in use.

A filter or note that is missing from a system's table is not to be had there, so that asking for it
can be refused by its name rather than mean something else.

Sources: sys/event.h of FreeBSD 11 to 14, xnu 8019, NetBSD 9 to 11, OpenBSD 7.8 (1.74), DragonFly
6.4, libkqueue (f966089).
"""

from typing import Final

EVFILT_READ: Final = -1
EVFILT_WRITE: Final = -2
EVFILT_AIO: Final = -3
EVFILT_VNODE: Final = -4
EVFILT_PROC: Final = -5
EVFILT_SIGNAL: Final = -6
EVFILT_TIMER: Final = -7
EVFILT_USER: Final = -11

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

# EVFILT_READ and EVFILT_WRITE.
NOTE_LOWAT: Final = 0x0001

# EVFILT_VNODE.
NOTE_DELETE: Final = 0x0001
NOTE_WRITE: Final = 0x0002
NOTE_EXTEND: Final = 0x0004
NOTE_ATTRIB: Final = 0x0008
NOTE_LINK: Final = 0x0010
NOTE_RENAME: Final = 0x0020
NOTE_REVOKE: Final = 0x0040
NOTE_OPEN: Final = 0x0080
NOTE_CLOSE: Final = 0x0100
NOTE_CLOSE_WRITE: Final = 0x0200
NOTE_READ: Final = 0x0400
NOTE_TRUNCATE: Final = 0x10000  # OpenBSD's 0x0080
NOTE_FUNLOCK: Final = 0x20000  # macOS's 0x0100

# EVFILT_PROC.
NOTE_EXIT: Final = 0x80000000
NOTE_FORK: Final = 0x40000000
NOTE_EXEC: Final = 0x20000000
NOTE_EXITSTATUS: Final = 0x04000000  # to be asked for on macOS; told unasked elsewhere
NOTE_TRACK: Final = 0x00000001
NOTE_TRACKERR: Final = 0x00000002
NOTE_CHILD: Final = 0x00000004

# EVFILT_TIMER; milliseconds without a unit.
NOTE_SECONDS: Final = 0x0001
NOTE_MSECONDS: Final = 0x0002
NOTE_USECONDS: Final = 0x0004
NOTE_NSECONDS: Final = 0x0008
NOTE_ABSTIME: Final = 0x0010

# EVFILT_USER.
NOTE_TRIGGER: Final = 0x01000000
NOTE_FFNOP: Final = 0x00000000
NOTE_FFAND: Final = 0x40000000
NOTE_FFOR: Final = 0x80000000
NOTE_FFCOPY: Final = 0xC0000000
NOTE_FFCTRLMASK: Final = 0xC0000000
NOTE_FFLAGSMASK: Final = 0x00FFFFFF

TIMER_UNITS: Final = {
    0: 1_000_000, NOTE_SECONDS: 1_000_000_000, NOTE_MSECONDS: 1_000_000, NOTE_USECONDS: 1_000,
    NOTE_NSECONDS: 1,
}  # fmt: skip

# Ours: theirs.
Filters = dict[int, int]
Notes = dict[int, int]

_SIX: Final = {
    one: one
    for one in (EVFILT_READ, EVFILT_WRITE, EVFILT_VNODE, EVFILT_PROC, EVFILT_SIGNAL, EVFILT_TIMER)
}
_NETBSD_9: Final = {
    EVFILT_READ: 0, EVFILT_WRITE: 1, EVFILT_AIO: 2, EVFILT_VNODE: 3, EVFILT_PROC: 4,
    EVFILT_SIGNAL: 5, EVFILT_TIMER: 6,
}  # fmt: skip
_NETBSD: Final = {**_NETBSD_9, EVFILT_USER: 8}
_BSD: Final = {**_SIX, EVFILT_AIO: EVFILT_AIO}

FILTERS: Final[dict[str, Filters]] = {
    "freebsd": {**_BSD, EVFILT_USER: -11},
    "freebsd11": {**_BSD, EVFILT_USER: -11},
    "darwin": {**_BSD, EVFILT_USER: -10},
    "openbsd": {**_BSD, EVFILT_USER: -10},
    "dragonfly": {**_BSD, EVFILT_USER: -9},
    "netbsd": _NETBSD,
    "netbsd10": _NETBSD,
    "netbsd9": _NETBSD_9,
    "library": {**_SIX, EVFILT_USER: -11},
}

_LOWAT: Final = {NOTE_LOWAT: NOTE_LOWAT}
_CHANGES: Final = {
    one: one
    for one in (
        NOTE_DELETE, NOTE_WRITE, NOTE_EXTEND, NOTE_ATTRIB, NOTE_LINK, NOTE_RENAME, NOTE_REVOKE
    )
}  # fmt: skip
_USES: Final = {one: one for one in (NOTE_OPEN, NOTE_CLOSE, NOTE_CLOSE_WRITE, NOTE_READ)}
_TRUNCATE: Final = {NOTE_TRUNCATE: 0x0080}
_LIFE: Final = {NOTE_EXIT: NOTE_EXIT, NOTE_FORK: NOTE_FORK, NOTE_EXEC: NOTE_EXEC}
_PROCESS: Final = {
    **_LIFE, NOTE_EXITSTATUS: 0, NOTE_TRACK: NOTE_TRACK, NOTE_TRACKERR: NOTE_TRACKERR,
    NOTE_CHILD: NOTE_CHILD,
}  # fmt: skip
_UNITS_BITS: Final = {
    one: one for one in (NOTE_SECONDS, NOTE_MSECONDS, NOTE_USECONDS, NOTE_NSECONDS, NOTE_ABSTIME)
}
_UNITS_DARWIN: Final = {
    NOTE_SECONDS: 1, NOTE_MSECONDS: 0, NOTE_USECONDS: 2, NOTE_NSECONDS: 4, NOTE_ABSTIME: 8
}  # fmt: skip
_UNITS_VALUES: Final = {
    NOTE_SECONDS: 1, NOTE_MSECONDS: 0, NOTE_USECONDS: 2, NOTE_NSECONDS: 3, NOTE_ABSTIME: 0x10
}  # fmt: skip
_MILLISECONDS: Final = {NOTE_MSECONDS: 0}


def _notes(vnode: Notes, process: Notes, timer: Notes) -> dict[int, Notes]:
    return {
        EVFILT_READ: _LOWAT, EVFILT_WRITE: _LOWAT, EVFILT_VNODE: vnode, EVFILT_PROC: process,
        EVFILT_SIGNAL: {}, EVFILT_TIMER: timer,
    }  # fmt: skip


# EVFILT_USER's are the same everywhere, and partly the program's own: they are passed on.
NOTES: Final[dict[str, dict[int, Notes]]] = {
    "freebsd": _notes({**_CHANGES, **_USES}, _PROCESS, _UNITS_BITS),
    "freebsd11": _notes({**_CHANGES, **_USES}, _PROCESS, _UNITS_BITS),
    "darwin": _notes(
        {**_CHANGES, NOTE_FUNLOCK: 0x0100},
        {**_LIFE, NOTE_EXITSTATUS: NOTE_EXITSTATUS},
        _UNITS_DARWIN,
    ),
    "openbsd": _notes({**_CHANGES, **_TRUNCATE}, _PROCESS, _UNITS_VALUES),
    "dragonfly": _notes(_CHANGES, _PROCESS, _MILLISECONDS),
    "netbsd": _notes({**_CHANGES, **_USES}, _PROCESS, _UNITS_VALUES),
    "netbsd10": _notes({**_CHANGES, **_USES}, _PROCESS, _UNITS_VALUES),
    "netbsd9": _notes(_CHANGES, _PROCESS, _MILLISECONDS),
    "library": _notes(
        {one: one for one in _CHANGES if one != NOTE_REVOKE} | _TRUNCATE,
        {NOTE_EXIT: NOTE_EXIT, NOTE_EXITSTATUS: 0},
        _UNITS_DARWIN,
    ),
}

_OF_VNODES: Final = (
    "DELETE WRITE EXTEND ATTRIB LINK RENAME REVOKE OPEN CLOSE CLOSE_WRITE READ TRUNCATE FUNLOCK"
)
_NAMES: Final = {
    EVFILT_READ: "LOWAT",
    EVFILT_WRITE: "LOWAT",
    EVFILT_VNODE: _OF_VNODES,
    EVFILT_PROC: "EXIT FORK EXEC EXITSTATUS TRACK TRACKERR CHILD",
    EVFILT_TIMER: "SECONDS MSECONDS USECONDS NSECONDS ABSTIME",
}


def name_of_filter(filter_: int) -> str:
    """Return a filter's name, such as ``"EVFILT_PROC"``; its number where it has none."""
    for name, value in globals().items():
        if name.startswith("EVFILT_") and value == filter_:
            return name
    return f"filter {filter_}"


def names_of_notes(filter_: int, notes: int) -> str:
    """Return the names of the notes of a filter, as in ``"NOTE_FORK | NOTE_EXEC"``."""
    names: list[str] = []
    for name in _NAMES.get(filter_, "").split():
        value: int = globals()[f"NOTE_{name}"]
        if notes & value:
            names.append(f"NOTE_{name}")
            notes &= ~value
    if notes:
        names.append(f"{notes:#x}")
    return " | ".join(names)
