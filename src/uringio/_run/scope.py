"""
Cancel scopes.

The semantics are trio's.  A scope is a region of code that can be told to stop.  Cancellation is
level-triggered: inside a cancelled scope every await that would wait raises `Cancelled`, again and
again, until the scope's end, which absorbs it.  A shield hides outer cancellation, not the scope's
own.  Deadlines are scopes that cancel themselves.

Each task belongs to its innermost scope, and scopes form a tree, so the question *is this task
cancelled?* is answered once per change, by walking down from the scope that changed, and costs a
task's await no more than one flag.

Source: "Timeouts and cancellation for humans" (N. J. Smith, 2018); trio's reference, "Cancellation
and timeouts".
"""

import math
from types import TracebackType
from typing import TYPE_CHECKING, final

from uringio.errors import Cancelled, UsageError

from . import running

if TYPE_CHECKING:
    from .loop import Context
    from .task import Task

__all__ = ["CancelScope", "Timeout", "move_on_after", "timeout"]

_NS_PER_S = 1_000_000_000


class CancelScope:
    """
    A region of code that can be cancelled, as a context manager; used once.

    Args:
        deadline_seconds: Time from entering until the scope cancels itself; infinite by default.
        shield: Whether outer cancellation stays outside.

    Attributes:
        cancel_called: Whether the scope was cancelled.
        cancelled_caught: Whether its block was left by that cancellation.
    """

    def __init__(self, *, deadline_seconds: float = math.inf, shield: bool = False) -> None:
        if math.isnan(deadline_seconds):
            raise ValueError("the deadline is not a number")
        self._delay_seconds = deadline_seconds
        self._shield = shield
        self.cancel_called = False
        self.cancelled_caught = False
        self.deadline_ns: int | None = None
        self.parent: CancelScope | None = None
        self.children: set[CancelScope] = set()
        self.tasks: set[Task[object]] = set()
        self._context: Context | None = None
        self._task: Task[object] | None = None
        self._cancelled = False  # including what outer scopes say; kept by `_refresh`

    def __repr__(self) -> str:
        state = "cancelled" if self.cancel_called else "open"
        return f"<{type(self).__name__} {state} at {id(self):#x}>"

    # --- as a context manager --------------------------------------------------------------------

    def __enter__(self) -> "CancelScope":
        context = running.context()
        task = context.require_task()
        if self._context is not None:
            raise UsageError("a cancel scope is entered once")
        self._task = task
        self.attach(context, task.scope)
        task.scope.tasks.discard(task)
        task.scope = self
        self.tasks.add(task)
        if not math.isinf(self._delay_seconds) or self._delay_seconds < 0:
            delay_ns = max(0, int(min(self._delay_seconds, 1e9) * _NS_PER_S))
            self.deadline_ns = context.clock() + delay_ns
            context.watch_deadline(self)
        self._attend(task)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        task = self._task
        if task is None or task.scope is not self:
            raise UsageError(
                f"{self!r} was left in another order or task than it was entered; scopes nest"
            )
        remaining = self.absorb(error)
        parent = self.parent
        assert parent is not None
        self.tasks.discard(task)
        task.scope = parent
        parent.tasks.add(task)
        self.detach()
        self._attend(task)
        if remaining is error:
            return False
        if remaining is None:
            return True
        # Part of a group was our cancellation; the rest goes on as if it had been raised alone.
        context_before = remaining.__context__
        try:
            raise remaining
        finally:
            remaining.__context__ = context_before
            del remaining, error

    def attach(self, context: "Context", parent: "CancelScope | None") -> None:
        """Hang the scope into the tree below *parent*."""
        self._context = context
        self.parent = parent
        if parent is not None:
            parent.children.add(self)
            self._cancelled = self.cancel_called or (parent._cancelled and not self._shield)

    def detach(self) -> None:
        """Take the scope out of the tree; its deadline no longer matters."""
        if self.parent is not None:
            self.parent.children.discard(self)
        self.deadline_ns = None
        self._task = None

    def absorb(self, error: BaseException | None) -> BaseException | None:
        """
        Return what is left of *error* once this scope's own cancellation is taken out.

        A `Cancelled` is ours only if no outer scope is cancelled too; then it is the outer one's.
        """
        if error is None or not self._cancelled or self.outer_cancelled():
            return error
        if isinstance(error, Cancelled):
            self.cancelled_caught = True
            return None
        if isinstance(error, BaseExceptionGroup):
            matched, rest = error.split(Cancelled)
            if matched is not None:
                self.cancelled_caught = True
                return rest
        return error

    # --- cancelling ------------------------------------------------------------------------------

    def cancel(self) -> None:
        """Cancel the scope: every await inside raises `Cancelled` from now on; safe to repeat."""
        if self.cancel_called:
            return
        self.cancel_called = True
        if self._context is not None:
            self._context.require_thread()
            self._refresh()

    @property
    def shield(self) -> bool:
        """Whether outer cancellation stays outside; may be changed at any time."""
        return self._shield

    @shield.setter
    def shield(self, value: bool) -> None:
        self._shield = value
        if self._context is not None:
            self._refresh()

    @property
    def cancelled(self) -> bool:
        """Whether an await inside would raise now, by this scope or an outer one."""
        return self._cancelled

    def outer_cancelled(self) -> bool:
        """Whether a scope outside cancels this one too."""
        return self.parent is not None and not self._shield and self.parent._cancelled

    def _refresh(self) -> None:
        """Work out anew who is cancelled, from here down, and interrupt those who newly are."""
        now = self.cancel_called or self.outer_cancelled()
        if now == self._cancelled:
            return
        self._cancelled = now
        for task in list(self.tasks):
            self._attend(task)
            if now:
                assert self._context is not None
                self._context.interrupt(task, None)
        for child in list(self.children):
            child._refresh()

    @staticmethod
    def _attend(task: "Task[object]") -> None:
        task.attention = task.scope._cancelled or task.interrupt is not None


@final
class Timeout(CancelScope):
    """A scope whose expiry is an error: see `timeout`."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        absorbed = super().__exit__(kind, error, traceback)
        if self.cancelled_caught:
            raise TimeoutError(f"not done within {self._delay_seconds:g} seconds") from None
        return absorbed


def move_on_after(seconds: float, *, shield: bool = False) -> CancelScope:
    """
    Return a scope that gives its block *seconds* and then goes on behind it.

    ``cancelled_caught`` tells afterwards whether the time ran out.
    """
    return CancelScope(deadline_seconds=_checked(seconds), shield=shield)


def timeout(seconds: float, *, shield: bool = False) -> Timeout:
    """
    Return a scope that gives its block *seconds* and then raises.

    Raises:
        TimeoutError: At the block's end, when the time ran out.
    """
    return Timeout(deadline_seconds=_checked(seconds), shield=shield)


def _checked(seconds: float) -> float:
    if not seconds >= 0:
        raise ValueError(f"a timeout is a number of seconds from 0 up, not {seconds!r}")
    return seconds
