"""
Tasks: what the loop resumes.

A task is its own wake-up record.  The loop's queue holds ops and tasks alike; both have a `waiter`
(for a task, itself) and an `error` to throw, so resuming needs no case distinction.
"""

import contextvars
import logging
import types
from collections.abc import Awaitable, Callable, Coroutine, Generator
from typing import TYPE_CHECKING, Final, Generic, TypeVar, TypeVarTuple, cast

from uringio._driver.op import Op
from uringio.errors import UsageError

if TYPE_CHECKING:
    from .scope import CancelScope

__all__ = ["PARK", "LooseTask", "Park", "Task", "coroutine_of", "name_of", "park"]

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


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
        abort: While parked: asked for an early wake-up, with the reason or None for cancellation;
            answers whether there is to be one.
        interrupt: A KeyboardInterrupt that the task is still to hear of.
        finished: Whether the coroutine has ended; then `outcome` is its value or `failure` what it
            raised.
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
        self.waiter: Task[T] | None = self  # until it ends: nothing else would break the cycle
        self.state = 0  # means nothing here; the loop stores an op's last state without asking
        self.error: BaseException | None = None
        self.interrupt: BaseException | None = None
        self.attention = False
        self.op: Op[object] | None = None
        self.abort: Callable[[BaseException | None], bool] | None = None
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


class LooseTask(Task[T]):
    """A task outside of any group: only whoever started it can hear of its failure."""

    __slots__ = ("_heard",)

    def __init__(
        self,
        coroutine: Coroutine[object, None, T],
        scope: "CancelScope",
        context: contextvars.Context,
        name: str,
        on_finish: "Callable[[Task[T]], None]",
    ) -> None:
        super().__init__(coroutine, scope, context, name, on_finish)
        self._heard = False

    def result(self) -> T:
        """See `Task.result`."""
        self._heard = True
        return super().result()

    def __del__(self) -> None:
        if isinstance(self.failure, Exception) and not self._heard:
            logging.getLogger("uringio").error(
                "%r failed, and nobody asked for its result", self, exc_info=self.failure
            )


@types.coroutine
def park() -> Generator[Park, None, None]:
    """Yield to the loop until something puts the task back into its queue."""
    yield PARK


def coroutine_of(
    async_fn: Callable[[*Ts], Awaitable[T]], args: tuple[*Ts]
) -> Coroutine[object, None, T]:
    """
    Call *async_fn* and return its coroutine, or one that awaits what it returned.

    Raises:
        TypeError: It is a coroutine already, or does not return anything that can be awaited.
    """
    given: object = async_fn
    if isinstance(given, Awaitable):
        if isinstance(given, Coroutine):
            given.close()
        raise TypeError(
            "pass the async function and its arguments, not what it returns: "
            "run(main), not run(main())"
        )
    returned = cast("object", async_fn(*args))
    if isinstance(returned, Coroutine):
        return cast("Coroutine[object, None, T]", returned)
    if isinstance(returned, Awaitable):
        return _awaiting(cast("Awaitable[T]", returned))
    raise TypeError(f"{async_fn!r} is not an async function: it returned {returned!r}")


async def _awaiting(awaitable: Awaitable[T]) -> T:
    return await awaitable


def name_of(async_fn: object) -> str:
    """Return what a task of *async_fn* is called."""
    return str(getattr(async_fn, "__qualname__", async_fn))
