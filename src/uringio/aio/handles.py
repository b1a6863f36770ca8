"""Handles: callbacks that wait for their turn."""

# pyright: reportPrivateUsage=false
# asyncio's loops and handles are made for each other, and so is what stands in for either.

import asyncio
import contextvars
from asyncio import format_helpers
from collections.abc import Callable
from typing import TYPE_CHECKING

__all__ = ["Handle", "report_failure"]


class Handle(asyncio.Handle):
    """
    asyncio's handle, made without asking the loop whether it is in debug mode.

    The loop makes these outside of debug mode only, where the answer is known.
    """

    __slots__ = ()

    if TYPE_CHECKING:
        _callback: Callable[..., object]
        _context: contextvars.Context

    def __init__(
        self,
        callback: Callable[..., object],
        args: tuple[object, ...],
        loop: asyncio.AbstractEventLoop,
        context: contextvars.Context | None,
    ) -> None:
        self._context = contextvars.copy_context() if context is None else context
        self._loop = loop
        self._callback = callback
        self._args = args
        self._cancelled = False
        self._repr = None
        self._source_traceback = None


def report_failure(
    loop: asyncio.AbstractEventLoop, handle: asyncio.Handle, error: BaseException
) -> None:
    """Tell the loop's exception handler that *handle*'s callback raised."""
    callback: Callable[..., object] = handle._callback  # type: ignore[attr-defined]
    what = format_helpers._format_callback_source(callback, handle._args)
    loop.call_exception_handler(
        {
            "message": f"Exception in callback {what}",
            "exception": error,
            "handle": handle,
        }
    )
