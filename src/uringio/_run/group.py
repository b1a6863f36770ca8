"""
Task groups: tasks that end before the block that started them.

A group owns a cancel scope.  The first child (or the body) to fail cancels the rest; the block ends
when every child has ended *and* the kernel has let go of what they had in flight, because a
cancelled op resumes its task only then.

Source: "Notes on structured concurrency" (N. J. Smith, 2018); asyncio.TaskGroup for how errors win
over cancellation, and how KeyboardInterrupt and SystemExit leave the group bare.
"""

from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import TypeVar, TypeVarTuple

from uringio.errors import Cancelled, UsageError

from . import running
from .loop import Context, coroutine_of
from .scope import CancelScope
from .task import Task, park

__all__ = ["TaskGroup"]

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class TaskGroup:
    """
    A group of tasks, as an async context manager.

    Raises (at the block's end):
        ExceptionGroup: What children and the body raised, cancellation left out.
        KeyboardInterrupt, SystemExit: As they are, if one of the tasks raised one.

    Cancellation: cancelling the block's task cancels the children and waits for them.
    """

    def __init__(self) -> None:
        self.cancel_scope = CancelScope()
        self._context: Context | None = None
        self._parent: Task[object] | None = None
        self._children: set[Task[None]] = set()
        self._errors: list[BaseException] = []
        self._waiting = False
        self._closed = False

    async def __aenter__(self) -> "TaskGroup":
        self._context = running.context()
        self._parent = self._context.require_task()
        self.cancel_scope.__enter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        parent = self._parent
        assert parent is not None
        if error is not None:
            if not isinstance(error, Cancelled):
                self._errors.append(error)
            self.cancel_scope.cancel()
        while self._children:
            # Not to be aborted: cancellation reaches the children by the scope tree, and their end
            # is what is waited for.
            self._waiting = True
            parent.abort = _never
            await park()
            self._waiting = False
        self._closed = True
        final = self._outcome(error)
        scope = self.cancel_scope
        absorbed = scope.__exit__(type(final) if final is not None else None, final, None)
        if final is None or absorbed:
            return True
        if final is error:
            return False
        try:
            raise final
        finally:
            del final, error  # they would hold this frame, and the frame them

    def start_soon(
        self, async_fn: Callable[[*Ts], Coroutine[object, None, None]], *args: *Ts
    ) -> None:
        """
        Start ``async_fn(*args)`` as a child; it first runs in the loop's next pass.

        Raises:
            UsageError: The group is not open.
            TypeError: *async_fn* is not an async function.
        """
        self._require_open()
        self.spawn(coroutine_of(async_fn, args))

    def spawn(self, coroutine: Coroutine[object, None, None], /) -> None:
        """Start a coroutine that exists already as a child; see `start_soon`."""
        if self._context is None or self._closed:
            coroutine.close()
        context = self._require_open()
        name = getattr(coroutine, "__qualname__", repr(coroutine))
        task = context.spawn_coroutine(coroutine, self.cancel_scope, name, self._finished)
        self._children.add(task)

    def _require_open(self) -> Context:
        if self._context is None:
            raise UsageError("enter the task group with 'async with' before starting tasks in it")
        if self._closed:
            raise UsageError("the task group has ended; tasks cannot be started in it any more")
        return self._context

    def _finished(self, task: Task[None]) -> None:
        self._children.discard(task)
        failure = task.failure
        if failure is not None and not isinstance(failure, Cancelled):
            self._errors.append(failure)
            self.cancel_scope.cancel()
        if self._waiting and not self._children:
            assert self._context is not None and self._parent is not None
            self._waiting = False
            self._context.wake_task(self._parent)

    def _outcome(self, error: BaseException | None) -> BaseException | None:
        for caught in self._errors:
            if isinstance(caught, KeyboardInterrupt | SystemExit):
                return caught
        if self._errors:
            errors, self._errors = self._errors, []
            return BaseExceptionGroup("unhandled errors in a TaskGroup", errors)
        if error is not None:
            return error
        return Cancelled() if self.cancel_scope.outer_cancelled() else None


def _never() -> bool:
    return False
