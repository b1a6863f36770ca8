"""
Forks: a child never touches what its parent has in the kernel.

A forked child inherits the ring's shared memory; even a refused attempt to submit would move the
parent's queue.  So in the child every driver is poisoned before any other code runs, and nothing
counts as running there: a child may start a loop of its own.
"""

import os
import weakref
from collections.abc import Callable

from . import current
from .contract import Driver

__all__ = ["after_fork_in_child", "watch"]

_drivers: "weakref.WeakSet[Driver]" = weakref.WeakSet()
_callbacks: list[Callable[[], None]] = []


def watch(driver: Driver) -> None:
    """Poison *driver* in forked children."""
    _drivers.add(driver)


def after_fork_in_child(callback: Callable[[], None]) -> None:
    """Call *callback* in forked children, after the drivers were poisoned; for module state."""
    _callbacks.append(callback)


def _poison_all() -> None:
    for driver in list(_drivers):
        driver.poison()
    current.set_current(None, None)
    for callback in _callbacks:
        callback()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_poison_all)
