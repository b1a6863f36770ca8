"""Fixtures of the native scheduler's tests: `uringio.run` on each driver."""

from collections.abc import Awaitable, Callable, Iterator
from typing import TypeVar, TypeVarTuple

import pytest

import uringio
from tests.run.native import Run
from uringio import Context
from uringio._driver import current

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


@pytest.fixture
def run(backend: str) -> Run:
    """`uringio.run` on the driver of this turn; at the program's end nothing is in flight."""

    async def checked(async_fn: Callable[[*Ts], Awaitable[T]], args: tuple[*Ts]) -> T:
        try:
            return await async_fn(*args)
        finally:
            assert current.driver().statistics().in_flight == 0, "operations are still in flight"

    def run(async_fn: Callable[[*Ts], Awaitable[T]], *args: *Ts) -> T:
        return uringio.run(checked, async_fn, args, backend=backend)

    return run


@pytest.fixture
def context(backend: str) -> Iterator[Context]:
    """A context on the driver of this turn, closed afterwards."""
    made = Context(backend=backend)
    yield made
    made.close()
