"""Waiting for what has no event of its own."""

import asyncio
from collections.abc import Callable

__all__ = ["passes", "until"]


async def until(condition: Callable[[], object]) -> None:
    """Let the loop make passes until the condition holds; a test that waits in vain times out."""
    while not condition():  # noqa: ASYNC110 - there is nothing to be told by
        await asyncio.sleep(0)


async def passes(count: int) -> None:
    """Let the loop make *count* passes."""
    for _ in range(count):
        await asyncio.sleep(0)
