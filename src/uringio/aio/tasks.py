"""The asyncio scheduler, as surface rooms see it: groups of tasks, and a way to be called later."""

import asyncio
from collections.abc import Callable, Coroutine
from contextvars import Context
from types import TracebackType
from typing import Self, TypeVar

from uringio._driver.op import Op

__all__ = ["AsyncioScheduler", "ServingGroup", "make_cancelled"]

T = TypeVar("T")


class AsyncioScheduler:
    """
    See `uringio._driver.current.Scheduler`.

    An object of its own, since the loop's ``call_soon`` is asyncio's.
    """

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
