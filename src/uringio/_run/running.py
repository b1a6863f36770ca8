"""Which native `Context` runs in this thread."""

import threading
from typing import TYPE_CHECKING, NoReturn

from uringio._driver.forks import after_fork_in_child
from uringio.errors import UsageError

if TYPE_CHECKING:
    from .loop import Context

__all__ = ["context", "maybe_context", "refuse_nesting", "set_context"]


class _Running(threading.local):
    context: "Context | None" = None


_running = _Running()


def context() -> "Context":
    """
    Return the running context.

    Raises:
        UsageError: This thread is not under `uringio.run`.
    """
    found = _running.context
    if found is None:
        raise UsageError(
            "this needs the native scheduler: call it from a task under uringio.run(); under "
            "asyncio, use asyncio's own tasks, timeouts and task groups"
        )
    return found


def refuse_nesting() -> NoReturn:
    """Raise the error for a second loop in one thread."""
    raise UsageError("a uringio loop already runs in this thread; loops do not nest")


def maybe_context() -> "Context | None":
    """Return the running context, if any."""
    return _running.context


def _forget() -> None:
    _running.context = None


after_fork_in_child(_forget)


def set_context(found: "Context | None") -> None:
    """Make *found* this thread's context."""
    _running.context = found
