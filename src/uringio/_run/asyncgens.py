"""
Async generators that were not exhausted: finalize them where their await still works.

Source: PEP 525, "Finalization".
"""

import sys
import weakref
from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .loop import Context

__all__ = ["AsyncGenerators"]


class AsyncGenerators:
    """The async generators first iterated under one context."""

    def __init__(self, context: "Context") -> None:
        self._context = weakref.proxy(context)
        self._alive: weakref.WeakSet[AsyncGenerator[object, object]] = weakref.WeakSet()
        self._closed = False
        self._before = sys.get_asyncgen_hooks()

    def install(self) -> None:
        """Make the hooks ours, for this thread."""
        self._before = sys.get_asyncgen_hooks()
        sys.set_asyncgen_hooks(firstiter=self._alive.add, finalizer=self._finalize)

    def uninstall(self) -> None:
        """Put the former hooks back."""
        sys.set_asyncgen_hooks(*self._before)

    async def aclose_all(self) -> None:
        """Close every generator still alive; their errors are dropped with them."""
        self._closed = True
        for generator in list(self._alive):
            await self._aclose(generator)

    def _finalize(self, generator: AsyncGenerator[object, object]) -> None:
        # Called by the garbage collector, in any thread.
        if not self._closed:
            context = self._context
            context.run_soon(lambda: context.spawn(self._aclose, generator))

    async def _aclose(self, generator: AsyncGenerator[object, object]) -> None:
        try:
            await generator.aclose()
        except Exception:
            import logging

            logging.getLogger("uringio").exception("closing %r failed", generator)
