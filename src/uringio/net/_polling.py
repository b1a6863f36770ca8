"""Waiting for readiness of any descriptor, of ours or of others."""

import enum
import threading
import weakref
from typing import Final, TypeVar

from uringio._driver import current
from uringio._driver import poll_bits as bits
from uringio._driver.contract import Driver
from uringio._driver.op import POLL, READY, Op
from uringio._driver.sockets import HasFileno, number_of

__all__ = ["KeepsUnread", "PollEvents", "poll", "polls_on", "wait_readable", "wait_writable"]

T = TypeVar("T")


class PollEvents(enum.IntFlag):
    """What poll(2) can tell; ERR, HUP and NVAL are told unasked."""

    IN = bits.POLLIN
    PRI = bits.POLLPRI
    OUT = bits.POLLOUT
    ERR = bits.POLLERR
    HUP = bits.POLLHUP
    NVAL = bits.POLLNVAL
    RDHUP = bits.POLLRDHUP


_ASKABLE: Final = PollEvents.IN | PollEvents.PRI | PollEvents.OUT | PollEvents.RDHUP


class _Polls(threading.local):
    """Every poll of this thread that may be under way, for whoever closes the descriptor."""

    def __init__(self) -> None:
        self.ops: weakref.WeakSet[Op[object]] = weakref.WeakSet()


_polls = _Polls()


class KeepsUnread:
    """What a socket of ours has in its ``_hull``."""

    __slots__ = ()

    def has_unread(self) -> bool:
        """Whether a cancelled receive has left something: the kernel has it no more to tell of."""
        raise NotImplementedError


class _Keeper:
    """Keeps the object that stands for the descriptor, lest it be closed while it is polled."""

    __slots__ = ("target",)

    def __init__(self, target: int | HasFileno) -> None:
        self.target = target

    def orphan(self, op: Op[T], value: object, /) -> None:
        """Nothing was taken; see `Owner`."""


def poll(fd: int | HasFileno, events: PollEvents | int, /) -> Op[PollEvents]:
    """
    Wait until one of *events* holds on *fd*, and tell which.

    It changes nothing about the descriptor, which may be of any kind that poll(2) knows, and in
    blocking mode or not.  A regular file is always ready.

    Args:
        fd: A number, or an object with ``fileno()``.
        events: `PollEvents` to wait for, at least one of IN, PRI, OUT, RDHUP.

    Raises:
        ClosedError: *fd* was closed, before the call, or by uringio during it.  Who closes it
            elsewhere while it is polled leaves the poll waiting.
        OpError: There is no such descriptor (EBADF).
        ValueError: *events* names nothing that can be waited for.

    Cancellation: at once, leaving nothing behind.

    Source: poll(2).
    """
    mask = int(events)
    if not mask or mask & ~int(_ASKABLE):
        raise ValueError(f"poll waits for IN, PRI, OUT or RDHUP, not for {events!r}")
    number = number_of(fd)
    home = current.driver()
    op: Op[PollEvents]
    if mask & PollEvents.IN and _has_unread(fd):
        op = Op(READY, finish=_unread_events)
    else:
        op = Op(POLL, number, flags=mask, owner=_Keeper(fd), finish=_poll_events)
    op.home = home
    _polls.ops.add(op)
    return op


def wait_readable(fd: int | HasFileno, /) -> Op[None]:
    """
    Wait until a read from *fd* would not wait: data, the end, or an error is there.

    Raises, Cancellation: As `poll`.
    """
    return _wait_for(fd, PollEvents.IN)


def wait_writable(fd: int | HasFileno, /) -> Op[None]:
    """
    Wait until a write to *fd* would not wait: there is room, or an error.

    Raises, Cancellation: As `poll`.
    """
    return _wait_for(fd, PollEvents.OUT)


def _wait_for(fd: int | HasFileno, events: PollEvents) -> Op[None]:
    number = number_of(fd)
    home = current.driver()
    op: Op[None]
    if events is PollEvents.IN and _has_unread(fd):
        op = Op(READY)
    else:
        op = Op(POLL, number, flags=int(events), owner=_Keeper(fd), finish=_nothing)
    op.home = home
    _polls.ops.add(op)
    return op


def polls_on(driver: Driver, fd: int) -> list[Op[object]]:
    """List the polls of *driver* on *fd* that may be under way."""
    ops = _polls.ops
    if not ops:
        return []
    return [op for op in list(ops) if op.fd == fd and op.home is driver]


def _has_unread(target: object) -> bool:
    hull = getattr(target, "_hull", None)
    return isinstance(hull, KeepsUnread) and hull.has_unread()


def _unread_events(_value: object) -> PollEvents:
    return PollEvents.IN


def _poll_events(value: object) -> PollEvents:
    assert isinstance(value, int)
    return PollEvents(value)


def _nothing(_value: object) -> None:
    return None
