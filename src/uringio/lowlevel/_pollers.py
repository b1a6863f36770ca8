"""The plain interfaces of readiness, and kqueue's numbers by its own names."""

from enum import IntEnum, IntFlag

from uringio._sys import kqueue_numbers as q
from uringio._sys.epoll import Epoll, EpollEvent
from uringio._sys.kqueue import Kevent, Kqueue

__all__ = [
    "Epoll",
    "EpollEvent",
    "Kevent",
    "KeventFlags",
    "Kqueue",
    "KqueueFilter",
    "KqueueProcNotes",
    "KqueueSocketNotes",
    "KqueueTimerNotes",
    "KqueueUserNotes",
    "KqueueVnodeNotes",
]


class KqueueFilter(IntEnum):
    """
    What an event is about: EVFILT_*, as FreeBSD numbers them; `Kqueue` translates.

    A filter that the system does not have is an `UnsupportedError`.
    """

    READ = q.EVFILT_READ
    WRITE = q.EVFILT_WRITE
    VNODE = q.EVFILT_VNODE
    PROC = q.EVFILT_PROC
    SIGNAL = q.EVFILT_SIGNAL
    TIMER = q.EVFILT_TIMER
    USER = q.EVFILT_USER


class KeventFlags(IntFlag):
    """What to do with an event, and what is said of one: EV_*."""

    ADD = q.EV_ADD
    DELETE = q.EV_DELETE
    ENABLE = q.EV_ENABLE
    DISABLE = q.EV_DISABLE
    ONESHOT = q.EV_ONESHOT
    CLEAR = q.EV_CLEAR
    RECEIPT = q.EV_RECEIPT
    DISPATCH = q.EV_DISPATCH
    ERROR = q.EV_ERROR
    EOF = q.EV_EOF


class KqueueSocketNotes(IntFlag):
    """NOTE_* of READ and WRITE: with LOWAT, ``data`` is how many bytes it takes."""

    LOWAT = q.NOTE_LOWAT


class KqueueVnodeNotes(IntFlag):
    """
    NOTE_* of VNODE, whose ident is an open descriptor: what may happen to its file.

    OPEN, CLOSE, CLOSE_WRITE and READ are FreeBSD's and NetBSD's (10), TRUNCATE is OpenBSD's and
    libkqueue's, FUNLOCK is macOS's; `Kqueue` translates, and refuses what the system does not have.
    """

    DELETE = q.NOTE_DELETE
    WRITE = q.NOTE_WRITE
    EXTEND = q.NOTE_EXTEND
    ATTRIB = q.NOTE_ATTRIB
    LINK = q.NOTE_LINK
    RENAME = q.NOTE_RENAME
    REVOKE = q.NOTE_REVOKE
    OPEN = q.NOTE_OPEN
    CLOSE = q.NOTE_CLOSE
    CLOSE_WRITE = q.NOTE_CLOSE_WRITE
    READ = q.NOTE_READ
    TRUNCATE = q.NOTE_TRUNCATE
    FUNLOCK = q.NOTE_FUNLOCK


class KqueueProcNotes(IntFlag):
    """
    NOTE_* of PROC, whose ident is a process.

    EXIT comes with EV_EOF and, as ``data``, the status that wait(2) gives; macOS tells that only if
    EXITSTATUS is asked for as well, which is nothing elsewhere.  The process stays to be waited
    for.  TRACK, TRACKERR and CHILD are not on macOS; libkqueue has EXIT alone.
    """

    EXIT = q.NOTE_EXIT
    FORK = q.NOTE_FORK
    EXEC = q.NOTE_EXEC
    EXITSTATUS = q.NOTE_EXITSTATUS
    TRACK = q.NOTE_TRACK
    TRACKERR = q.NOTE_TRACKERR
    CHILD = q.NOTE_CHILD


class KqueueTimerNotes(IntFlag):
    """
    NOTE_* of TIMER: the unit of ``data``, one at most, milliseconds without; and ABSTIME.

    With ABSTIME the time is the wall clock's, since 1970, and the timer runs out once.  DragonFly,
    and NetBSD before 10, have milliseconds from now alone.
    """

    SECONDS = q.NOTE_SECONDS
    MSECONDS = q.NOTE_MSECONDS
    USECONDS = q.NOTE_USECONDS
    NSECONDS = q.NOTE_NSECONDS
    ABSTIME = q.NOTE_ABSTIME


class KqueueUserNotes(IntFlag):
    """
    NOTE_* of USER: TRIGGER makes it happen; the low 24 bits are the program's own.

    FFAND, FFOR and FFCOPY say what becomes of these; without any they stay as they are.
    """

    TRIGGER = q.NOTE_TRIGGER
    FFAND = q.NOTE_FFAND
    FFOR = q.NOTE_FFOR
    FFCOPY = q.NOTE_FFCOPY
