"""
Task groups: tasks that end before the block that started them.

A group owns a cancel scope.  The first child (or the body) to fail cancels the rest; the block ends
when every child has ended *and* the kernel has let go of what they had in flight, because a
cancelled op resumes its task only then.

Source: "Notes on structured concurrency" (N. J. Smith, 2018); asyncio.TaskGroup for how errors win
over cancellation, and how KeyboardInterrupt and SystemExit leave the group bare.
"""

from collections.abc import Awaitable, Callable, Coroutine
from types import TracebackType
from typing import Self, TypeVar, TypeVarTuple

from uringio.errors import Cancelled, RingForkedError, UsageError

from . import running
from .loop import Loop
from .scope import CancelScope
from .task import Task, coroutine_of, name_of, park

__all__ = ["TaskGroup"]

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class TaskGroup:
    """
    A group of tasks, as an async context manager; used once.

    Attributes:
        cancel_scope: The scope of the body and the children; cancel it to end the group early.

    Raises (at the block's end):
        ExceptionGroup: What children and the body raised, cancellation left out.
        KeyboardInterrupt, SystemExit: As they are, if one of the tasks raised one.

    Cancellation: cancelling the block's task cancels the children and waits for them.
    """

    def __init__(self) -> None:
        self.cancel_scope = CancelScope()
        self._context: Loop | None = None
        self._parent: Task[object] | None = None
        self._waiting: Task[object] | None = None
        self._children: set[Task[object]] = set()
        self._errors: list[BaseException] = []
        self._closed = False

    async def __aenter__(self) -> Self:
        context = running.context()
        parent = context.require_task()
        self.cancel_scope.__enter__()
        self._context = context
        self._parent = parent
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        context = self._context
        assert context is not None
        if error is not None:
            if not isinstance(error, Cancelled | GeneratorExit):
                self._errors.append(error)
            self.cancel_scope.cancel()
        task = context.task
        if isinstance(error, GeneratorExit) and task is not self._parent:
            # The body is being destroyed from outside, where nothing can wait for the children.
            self._closed = True
            return self.cancel_scope.__exit__(kind, error, traceback)
        while self._children:
            self._waiting = context.require_task()
            self._waiting.abort = self._interrupted
            try:
                await park()
            except GeneratorExit:
                raise
            except RingForkedError as forked:
                self._errors.append(forked)
                self._children.clear()  # they go on in the parent process, and end there
            except BaseException as broken:  # a signal handler's, see `accidents`
                self._errors.append(broken)
                self.cancel_scope.cancel()
            self._waiting = None
        self._closed = True
        final = self._outcome(error)
        scope = self.cancel_scope
        absorbed = scope.__exit__(type(final) if final is not None else None, final, None)
        if final is None or absorbed:
            return True
        if final is error:
            return False
        context_before = final.__context__
        try:
            raise final
        finally:
            # The body's error is part of it, or is cancellation; it was not "during" anything.
            final.__context__ = context_before
            del final, error  # they would hold this frame, and the frame them

    def start_soon(self, async_fn: Callable[[*Ts], Awaitable[object]], *args: *Ts) -> None:
        """
        Start ``async_fn(*args)`` as a child; it first runs in the loop's next pass.

        Raises:
            UsageError: The group is not open.
            WrongThreadError: Called from another thread than the loop's.
            TypeError: *async_fn* is not an async function.
        """
        context = self._require_open()
        coroutine = coroutine_of(async_fn, args)
        self._start(context, coroutine, name_of(async_fn))

    def spawn(self, coroutine: Coroutine[object, None, None], /) -> None:
        """Start a coroutine that exists already as a child; see `start_soon`."""
        try:
            context = self._require_open()
        except UsageError:
            coroutine.close()
            raise
        self._start(context, coroutine, name_of(coroutine))

    def _start(self, context: Loop, coroutine: Coroutine[object, None, object], name: str) -> None:
        task = context.spawn_coroutine(coroutine, self.cancel_scope, name, self._finished)
        self._children.add(task)

    def _require_open(self) -> Loop:
        if self._context is None:
            raise UsageError("enter the task group with 'async with' before starting tasks in it")
        self._context.require_thread()
        if self._closed:
            raise UsageError("the task group has ended; tasks cannot be started in it any more")
        return self._context

    def _finished(self, task: Task[object]) -> None:
        # In this order it may be broken off anywhere and done again.
        if task not in self._children:
            return
        failure = task.failure
        if failure is not None and not isinstance(failure, Cancelled):
            if not any(failure is error for error in self._errors):
                self._errors.append(failure)
            self.cancel_scope.cancel()
        waiting = self._waiting
        if waiting is not None and waiting.abort is not None and len(self._children) == 1:
            assert self._context is not None
            self._context.wake_task(waiting)
        self._children.discard(task)

    def _interrupted(self, reason: BaseException | None) -> bool:
        """
        Answer whoever would end the wait for the children: nobody can.

        Cancellation reaches the children by the scope tree, and their end is what is waited for.
        KeyboardInterrupt is kept, and ends them.
        """
        if reason is not None:
            assert self._context is not None and self._waiting is not None
            self._errors.append(reason)
            self._context.interrupt_delivered(self._waiting)
            self.cancel_scope.cancel()
        return False

    def _outcome(self, error: BaseException | None) -> BaseException | None:
        """Decide what the block raises; bare interrupts first, then errors, then cancellation."""
        errors, self._errors = self._errors, []
        for caught in errors:
            if isinstance(caught, KeyboardInterrupt | SystemExit):
                return caught
        if errors:
            return BaseExceptionGroup("unhandled errors in a TaskGroup", errors)
        if error is not None:
            return error
        return Cancelled() if self.cancel_scope.outer_cancelled() else None
