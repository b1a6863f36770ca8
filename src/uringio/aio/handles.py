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

    The loop makes these outside of debug mode only, where the answer is known.  It also gives them
    their attributes, see `RunningLoop.call_soon`; elsewhere `made` does.
    """

    __slots__ = ()

    if TYPE_CHECKING:
        _callback: Callable[..., object]
        _cancelled: bool
        _context: contextvars.Context
        _loop: asyncio.AbstractEventLoop
        _repr: str | None
        _source_traceback: object

    if not TYPE_CHECKING:
        __init__ = object.__init__  # not asyncio's
    else:

        def __init__(self) -> None: ...

    @classmethod
    def made(cls, callback: Callable[[], object], loop: asyncio.AbstractEventLoop) -> "Handle":
        """Return a handle in an empty context."""
        handle = cls()
        handle._context = contextvars.Context()
        handle._loop = loop
        handle._callback = callback
        handle._args = ()
        handle._cancelled = False
        handle._repr = handle._source_traceback = None
        return handle


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
