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
from typing import TYPE_CHECKING, Self, cast, final

from uringio.errors import Cancelled, UsageError

from . import running

if TYPE_CHECKING:
    from .loop import Loop
    from .task import Task

__all__ = ["CancelScope", "Timeout", "move_on_after", "timeout"]

_NS_PER_S = 1_000_000_000
_FOREVER_SECONDS = 1e9


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
        self.children: dict[CancelScope, None] = {}
        # In the order of their start, which a set of objects would not keep.
        self.tasks: dict[Task[object], None] = {}
        self._context: Loop | None = None
        self._task: Task[object] | None = None
        self._cancelled = False  # including what outer scopes say; kept by `_refresh`

    def __repr__(self) -> str:
        state = "cancelled" if self.cancel_called else "open"
        return f"<{type(self).__name__} {state} at {id(self):#x}>"

    # --- as a context manager --------------------------------------------------------------------

    def __enter__(self) -> Self:
        context = running.context()
        task = context.require_task()
        if self._context is not None:
            raise UsageError("a cancel scope is entered once")
        self._task = task
        self.attach(context, task.scope)
        task.scope.tasks.pop(task, None)
        task.scope = self
        self.tasks[task] = None
        if self._delay_seconds <= 0:
            self.cancel_called = self._cancelled = True
        elif self._delay_seconds < _FOREVER_SECONDS:
            delay_ns = int(self._delay_seconds * _NS_PER_S)
            context.deadlines.add(self, context.clock() + delay_ns)
        self._attend(task)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        task = self._task
        if task is None:
            raise UsageError(f"{self!r} is not entered, or was left already")
        if task.scope is not self or running.running_task() is not task:
            self._leave_out_of_order(task)
            if isinstance(error, GeneratorExit):
                return False  # a coroutine or async generator is being destroyed, by whoever
            raise UsageError(
                f"{self!r} was left in another order or task than it was entered; scopes nest"
            )
        remaining = self.absorb(error)
        parent = self.parent
        assert parent is not None
        self.tasks.pop(task, None)
        task.scope = parent
        parent.tasks[task] = None
        self._detach()
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

    def attach(self, context: "Loop", parent: "CancelScope | None") -> None:
        """Hang the scope into the tree below *parent*."""
        self._context = context
        self.parent = parent
        if parent is not None:
            parent.children[self] = None
            self._cancelled = self.cancel_called or (parent._cancelled and not self._shield)

    def _detach(self) -> None:
        """Take the scope out of the tree; its deadline no longer matters."""
        assert self.parent is not None and self._context is not None
        self.parent.children.pop(self, None)
        self._task = None
        if self.deadline_ns is not None:
            self._context.deadlines.remove(self)

    def _leave_out_of_order(self, task: "Task[object]") -> None:
        """Take the scope, and nothing else, out of the chain of those that *task* is in."""
        parent = self.parent
        assert parent is not None
        if task.scope is self:
            self.tasks.pop(task, None)
            task.scope = parent
            if not task.finished:
                parent.tasks[task] = None
            self._attend(task)
        else:
            inner: CancelScope | None = task.scope
            while inner is not None and inner.parent is not self:
                inner = inner.parent
            if inner is not None:
                self.children.pop(inner, None)
                inner.parent = parent
                parent.children[inner] = None
                inner._refresh()
        self._task = None
        if not self.tasks and not self.children:
            self._detach()  # else the tasks of a group end in it, and are found through it

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
            group = cast("BaseExceptionGroup[BaseException]", error)
            matched, rest = group.split(Cancelled)
            if matched is not None:
                self.cancelled_caught = True
                return rest
            return group
        return error

    # --- cancelling ------------------------------------------------------------------------------

    def cancel(self) -> None:
        """Cancel the scope: every await inside raises `Cancelled` from now on; safe to repeat."""
        if self.cancel_called:
            return
        if self._context is not None:
            self._context.require_thread()
        self.cancel_called = True
        self._refresh()

    @property
    def shield(self) -> bool:
        """Whether outer cancellation stays outside; may be changed at any time."""
        return self._shield

    @shield.setter
    def shield(self, value: bool) -> None:
        if self._context is not None:
            self._context.require_thread()
        self._shield = value
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
        context = self._context
        if context is None:
            return
        changed: list[CancelScope] = [self]
        while changed:  # no recursion: a chain of tasks, each the child of another, may be long
            scope = changed.pop()
            now = scope.cancel_called or scope.outer_cancelled()
            if now == scope._cancelled:
                continue
            scope._cancelled = now
            for task in scope.tasks:
                scope._attend(task)
                if now:
                    context.interrupt(task, None)
            changed.extend(scope.children)

    def reapply(self) -> None:
        """Do all that cancellations here and below should have done; no harm in doing it twice."""
        context = self._context
        assert context is not None
        scopes: list[CancelScope] = [self]
        while scopes:
            scope = scopes.pop()
            scope._cancelled = scope.cancel_called or scope.outer_cancelled()
            for task in scope.tasks:
                scope._attend(task)
                if scope._cancelled:
                    context.interrupt(task, None)
            scopes.extend(scope.children)

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
