"""
Tasks: what the loop resumes.

A task is its own wake-up record.  The loop's queue holds ops and tasks alike; both have a `waiter`
(for a task, itself) and an `error` to throw, so resuming needs no case distinction.
"""

import contextvars
import types
from collections.abc import Callable, Coroutine, Generator
from typing import TYPE_CHECKING, Final, Generic, TypeVar, cast

from uringio._driver.op import Op
from uringio.errors import UsageError

if TYPE_CHECKING:
    from .scope import CancelScope

__all__ = ["PARK", "Park", "Task", "park"]

T = TypeVar("T")


class Park:
    """What a task yields when something other than an op will wake it."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "<park>"


PARK: Final = Park()


class Task(Generic[T]):
    """
    One coroutine on its way.

    Attributes:
        name: For people; by default the coroutine function's qualified name.
        scope: The innermost cancel scope the task is in.
        attention: Whether the next await must look at cancellation before it starts anything.
        op: The op last awaited; its state tells whether the task still waits for it.
        abort: While parked: called to ask for an early wake-up, answers whether it came about.
        finished: Whether the coroutine has ended; then `outcome` is its value or `failure` its error.
    """

    __slots__ = (
        "__weakref__",
        "abort",
        "attention",
        "context",
        "coroutine",
        "error",
        "failure",
        "finished",
        "interrupt",
        "name",
        "on_finish",
        "op",
        "outcome",
        "run",
        "scope",
        "send",
        "state",
        "throw",
        "waiter",
    )

    def __init__(
        self,
        coroutine: Coroutine[object, None, T],
        scope: "CancelScope",
        context: contextvars.Context,
        name: str,
        on_finish: "Callable[[Task[T]], None]",
    ) -> None:
        self.coroutine = coroutine
        self.send = coroutine.send
        self.throw = coroutine.throw
        self.context = context
        self.run = context.run
        self.name = name
        self.scope = scope
        self.on_finish = on_finish
        self.waiter: Task[T] = self
        self.state = 0  # means nothing here; the loop stores an op's last state without asking
        self.error: BaseException | None = None
        self.interrupt: BaseException | None = None
        self.attention = False
        self.op: Op[object] | None = None
        self.abort: Callable[[], bool] | None = None
        self.finished = False
        self.outcome: T | None = None
        self.failure: BaseException | None = None

    def __repr__(self) -> str:
        return f"<Task {self.name!r} {'finished' if self.finished else 'alive'}>"

    def result(self) -> T:
        """
        Return what the coroutine returned, or raise what it raised.

        Raises:
            UsageError: The task has not finished.
        """
        if not self.finished:
            raise UsageError(f"{self!r} has not finished")
        if self.failure is not None:
            raise self.failure
        return cast(T, self.outcome)


@types.coroutine
def park() -> Generator[Park, None, None]:
    """Yield to the loop until something puts the task back into its queue."""
    yield PARK
