"""
Which native `Context` runs in this thread.

In a forked child none does: the parent's loop stopped existing for it in the middle of a task.
That task and everything it calls still find the context they ran in, so as to hear from it that
they were forked; a new loop may run inside.
"""

import threading
import weakref
from typing import TYPE_CHECKING

from uringio._driver import current
from uringio._driver.forks import after_fork_in_child
from uringio.errors import UsageError

if TYPE_CHECKING:
    from .loop import Loop
    from .task import Task

__all__ = ["context", "enter", "leave", "require_idle", "running_task", "watch_forks"]


class _Running(threading.local):
    context: "Loop | None" = None
    forked: "Loop | None" = None


_running = _Running()
_contexts: "weakref.WeakSet[Loop]" = weakref.WeakSet()


def context() -> "Loop":
    """
    Return the running context.

    Raises:
        UsageError: This thread is not under `uringio.run`.
    """
    found = _running.context or _running.forked
    if found is None:
        raise UsageError(
            "this needs the native scheduler: call it from a task under uringio.run(); under "
            "asyncio, use asyncio's own tasks, timeouts and task groups"
        )
    return found


def running_task() -> "Task[object] | None":
    """Return the task that runs in this thread, if any."""
    found = _running.context or _running.forked
    return found.task if found is not None else None


def require_idle() -> None:
    """Raise `UsageError` if a loop already runs in this thread."""
    if _running.context is not None or (_running.forked is None and current.running()):
        raise UsageError("a uringio loop already runs in this thread; loops do not nest")


def enter(entered: "Loop") -> None:
    """Make *entered* this thread's context; raises `UsageError` as `require_idle`."""
    require_idle()
    _running.context = entered
    current.set_current(entered.driver, entered)


def leave(left: "Loop") -> None:
    """Let no context be this thread's, or the forked one again."""
    _running.context = None
    forked = _running.forked
    if forked is None or forked is left:
        _running.forked = None
        current.set_current(None, None)
    else:
        current.set_current(forked.driver, forked)


def watch_forks(made: "Loop") -> None:
    """Have *made* told when it finds itself in a forked child."""
    _contexts.add(made)


def _after_fork() -> None:
    interrupted, _running.context = _running.context, None
    for one in list(_contexts):
        one.after_fork()
    if interrupted is not None:
        _running.forked = interrupted
        current.set_current(interrupted.driver, interrupted)


after_fork_in_child(_after_fork)
