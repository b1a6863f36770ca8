"""What tests of the native scheduler have in common."""

import gc
import weakref
from collections.abc import Awaitable, Callable
from typing import Protocol, TypeVar, TypeVarTuple

import uringio
from tests.surface.schedulers import Gate
from uringio import Cancelled
from uringio._driver import current

__all__ = ["Gate", "Run", "collect", "forever", "in_flight", "until", "wait_cancelled"]

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class Run(Protocol):
    """`uringio.run` without its keyword."""

    def __call__(self, async_fn: Callable[[*Ts], Awaitable[T]], *args: *Ts) -> T: ...


async def forever() -> None:
    """Wait for what never happens."""
    await Gate().wait()


async def wait_cancelled(seen: list[str], name: str) -> None:
    """Wait for ever, and put *name* into *seen* when cancelled."""
    try:
        await forever()
    except Cancelled:
        seen.append(name)
        raise


def in_flight() -> int:
    """Count the operations that the driver has."""
    return current.driver().statistics().in_flight


async def until(condition: Callable[[], bool]) -> None:
    """Let other tasks run until the condition holds."""
    while not condition():
        await uringio.checkpoint()


def collect(*watched: "weakref.ref[T]") -> None:
    """Collect garbage until what is watched has gone."""
    for _ in range(3):
        gc.collect()
        if all(one() is None for one in watched):
            return
