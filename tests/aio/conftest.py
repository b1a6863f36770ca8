"""Fixtures of the asyncio loop's tests: loops on each driver, watched for what they leave."""

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from typing import TypeVar

import pytest

from tests.aio.waiting import passes, until

T = TypeVar("T")

Run = Callable[[Coroutine[object, object, T]], T]


@pytest.fixture
def make_loop(backend: str) -> Iterator[Callable[[], asyncio.AbstractEventLoop]]:
    """Make loops on this driver; every one of them must be closed by the test."""
    from uringio import aio

    made: list[asyncio.AbstractEventLoop] = []

    def make() -> asyncio.AbstractEventLoop:
        made.append(aio.new_event_loop(backend=backend))
        return made[-1]

    yield make
    assert all(loop.is_closed() for loop in made)


@pytest.fixture
def loop(
    make_loop: Callable[[], asyncio.AbstractEventLoop],
) -> Iterator[asyncio.AbstractEventLoop]:
    """One loop, which is run by the test and closed after it."""
    made = make_loop()
    yield made
    made.close()


@pytest.fixture
def run(make_loop: Callable[[], asyncio.AbstractEventLoop]) -> Run[T]:
    """Run a coroutine by `asyncio.Runner`; after it nothing may be in flight or have gone wrong."""
    from uringio._driver import current

    async def watched(main: Coroutine[object, object, T], wrong: list[object]) -> T:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: wrong.append(context))
        driver = current.driver()
        before = driver.statistics().in_flight
        value = await main
        # What was closed ends in the next passes.  So does a server's side of a connection, for
        # which wait_closed does not wait before Python 3.12.  What never ends runs out of time.
        for _ in range(2):
            await until(lambda: driver.statistics().in_flight == before)
            await passes(3)  # for what follows from that, such as the end of a handler's task
        assert driver.statistics().in_flight == before, "operations are still in flight"
        return value

    def run_one(main: Coroutine[object, object, T]) -> T:
        wrong: list[object] = []
        with asyncio.Runner(loop_factory=make_loop) as runner:
            value = runner.run(watched(main, wrong))
        assert not wrong, wrong
        return value

    return run_one
