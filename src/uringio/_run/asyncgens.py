"""
Async generators that were not exhausted: finalize them where their await still works.

Source: PEP 525, "Finalization".
"""

import logging
import sys
import weakref
from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING

from uringio.errors import ClosedError

if TYPE_CHECKING:
    from .loop import Loop

__all__ = ["AsyncGenerators"]


class AsyncGenerators:
    """The async generators first iterated under one context."""

    def __init__(self, context: "Loop") -> None:
        self._context = weakref.proxy(context)
        self._alive: weakref.WeakSet[AsyncGenerator[object, object]] = weakref.WeakSet()
        self._before = sys.get_asyncgen_hooks()

    def install(self) -> None:
        """Make the hooks ours, for this thread."""
        self._before = sys.get_asyncgen_hooks()
        sys.set_asyncgen_hooks(firstiter=self._alive.add, finalizer=self._finalize)

    def uninstall(self) -> None:
        """Put the former hooks back."""
        sys.set_asyncgen_hooks(*self._before)

    def __bool__(self) -> bool:
        return bool(self._alive)

    async def aclose_all(self) -> None:
        """Close every generator still alive, and what they begin meanwhile; errors are logged."""
        while self._alive:
            await self._aclose(self._alive.pop())

    def _finalize(self, generator: AsyncGenerator[object, object]) -> None:
        # Called by the garbage collector, in any thread.
        try:
            context = self._context
            context.run_soon(lambda: context.spawn(self._aclose, generator))
        except (ReferenceError, ClosedError):
            pass  # the loop is gone, and with it whatever the generator might await

    @staticmethod
    async def _aclose(generator: AsyncGenerator[object, object]) -> None:
        try:
            await generator.aclose()
        except Exception:
            logging.getLogger("uringio").exception("closing %r failed", generator)
