"""The plain interfaces of readiness, and kqueue's numbers by its own names."""

from enum import IntEnum, IntFlag

from uringio._sys import kqueue as q
from uringio._sys.epoll import Epoll, EpollEvent
from uringio._sys.kqueue import Kevent, Kqueue

__all__ = ["Epoll", "EpollEvent", "Kevent", "KeventFlags", "Kqueue", "KqueueFilter"]


class KqueueFilter(IntEnum):
    """What an event is about: EVFILT_*, as all but NetBSD number them; `Kqueue` translates."""

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
