"""The asyncio scheduler, as surface rooms see it: groups of tasks, and a way to be called later."""

import asyncio
from collections.abc import Callable, Coroutine
from contextvars import Context
from types import TracebackType
from typing import Any, Self, TypeVar, cast

from uringio._driver.op import Op

__all__ = [
    "AsyncioScheduler",
    "ServingGroup",
    "forget_caller",
    "make_cancelled",
    "start_task",
]

T = TypeVar("T")


class AsyncioScheduler:
    """
    See `uringio._driver.current.Scheduler`.

    An object of its own, since the loop's ``call_soon`` is asyncio's.
    """

    driver = task = None

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop

    def serving_group(self) -> "ServingGroup":
        """See `Scheduler`."""
        return ServingGroup()

    def call_soon(
        self, callback: Callable[[Op[T]], object], op: Op[T], context: Context | None, /
    ) -> None:
        """See `Scheduler`."""
        self._loop.call_soon(callback, op, context=context)

    def asyncio_loop(self) -> object:
        """See `Scheduler`."""
        return self._loop


class ServingGroup:
    """
    Tasks that end together, over ``asyncio.TaskGroup``.

    Cancelling the body cancels the children and waits for them.
    """

    def __init__(self) -> None:
        self._group = asyncio.TaskGroup()

    async def __aenter__(self) -> Self:
        await self._group.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
        /,
    ) -> None:
        await self._group.__aexit__(kind, error, traceback)

    def spawn(self, coroutine: Coroutine[object, None, None], /) -> None:
        """Start a task; an exception out of it cancels the group."""
        self._group.create_task(coroutine)


def make_cancelled(op: Op[object]) -> BaseException:
    """Build asyncio's cancelled exception; ``done`` counts the bytes a send had handed over."""
    message = getattr(op, "_cancel_message", None)
    error = asyncio.CancelledError() if message is None else asyncio.CancelledError(message)
    error.done = op.done_bytes  # type: ignore[attr-defined]
    return error


def start_task(
    loop: asyncio.AbstractEventLoop,
    coro: Coroutine[Any, Any, T],
    *,
    name: object,
    context: Context | None,
    eager_start: bool,
) -> asyncio.Task[T]:
    """Make a task as `asyncio.loop.create_task` does from Python 3.13.3 on; needs 3.12."""
    # Every Task there takes what only later stubs know.
    factory = cast("Callable[..., asyncio.Task[T]] | None", loop.get_task_factory())
    if factory is not None:
        task = factory(loop, coro, context=context, eager_start=eager_start)
        if name is not None:
            task.set_name(str(name))
    else:
        make = cast("Callable[..., asyncio.Task[T]]", asyncio.Task)
        task = make(coro, loop=loop, name=name, context=context, eager_start=eager_start)
        forget_caller(task)
    forget_caller(task)
    return task


def forget_caller(task: asyncio.Task[T]) -> None:
    """Take the last step off the way by which a task came into being: the loop's own."""
    steps = cast("list[object] | None", cast("Any", task)._source_traceback)
    if steps:
        del steps[-1]
