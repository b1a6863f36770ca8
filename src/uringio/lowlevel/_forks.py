"""Rings that are no longer to be used: closed, or another process's."""

import os
import weakref
from typing import Protocol

from uringio.errors import ClosedError, RingForkedError

__all__ = ["forked_error", "refuse_closed", "refuse_forked", "watch"]


class _Ring(Protocol):
    def poison(self) -> None: ...


_rings: "weakref.WeakSet[_Ring]" = weakref.WeakSet()


def watch(ring: _Ring) -> None:
    """Poison *ring* in forked children, before any other code of theirs runs."""
    _rings.add(ring)


def refuse_closed(*_: object) -> None:
    """Stand in for what a closed ring can no longer do."""
    raise ClosedError("this ring is closed")


def forked_error() -> RingForkedError:
    """Build what every use of a parent's ring raises."""
    return RingForkedError("this ring belongs to the parent process: make one in the child")


def refuse_forked(*_: object) -> None:
    """Stand in for what the ring of a parent can no longer do."""
    raise forked_error()


def _poison_all() -> None:
    for ring in list(_rings):
        ring.poison()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_poison_all)
