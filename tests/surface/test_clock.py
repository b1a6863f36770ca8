"""`uringio.sleep`, as users see it."""

import math
import time

import pytest

import uringio
from tests.surface.schedulers import Scheduler


def test_sleepers_wake_in_the_order_of_their_times(scheduler: Scheduler) -> None:
    """Not in the order in which they lay down, and none before its time."""

    async def main() -> None:
        woken: list[float] = []

        async def sleeper(seconds: float) -> None:
            began = time.monotonic()
            await uringio.sleep(seconds)
            assert time.monotonic() - began >= seconds
            woken.append(seconds)

        times = [0.03, 0.01, 0.04, 0.02, 0.0]
        for task in [scheduler.spawn(sleeper, seconds) for seconds in times]:
            await task.result()
        assert woken == sorted(times)

    scheduler.run(main)


def test_time_runs_from_the_call(scheduler: Scheduler) -> None:
    """A sleep that is awaited late is over at once."""

    async def main() -> None:
        early = uringio.sleep(0.01)
        late = uringio.sleep(1800)
        await uringio.sleep(0.02)
        await early

        async def wait() -> None:
            await late

        task = scheduler.spawn(wait)
        await scheduler.checkpoint()
        task.cancel()
        assert (await task.wait()).cancelled

    scheduler.run(main)


def test_others_run_while_one_sleeps(scheduler: Scheduler) -> None:
    """Sleeping for no time lets everybody else run once; a loop of it starves nobody."""

    async def main() -> None:
        order: list[str] = []

        async def count(name: str) -> None:
            for _ in range(3):
                order.append(name)
                await uringio.sleep(0)

        tasks = [scheduler.spawn(count, name) for name in "ab"]
        for task in tasks:
            await task.result()
        assert order == ["a", "b"] * 3

    scheduler.run(main)


@pytest.mark.parametrize("seconds", [-1, -1e-9, math.nan, -math.inf])
def test_times_that_are_none(scheduler: Scheduler, seconds: float) -> None:
    """A negative time, or none at all, is refused at the call."""

    async def main() -> None:
        with pytest.raises(ValueError, match="time to sleep"):
            uringio.sleep(seconds)

    scheduler.run(main)


@pytest.mark.parametrize("seconds", ["1", None, b"1"])
def test_times_of_another_type(scheduler: Scheduler, seconds: float) -> None:
    """What is no number is refused at the call."""

    async def main() -> None:
        with pytest.raises(TypeError):
            uringio.sleep(seconds)

    scheduler.run(main)


@pytest.mark.parametrize("seconds", [1e9, 1e300, math.inf])
def test_sleep_for_ever(scheduler: Scheduler, seconds: float) -> None:
    """Times beyond any clock are fine, and end by cancellation."""

    async def main() -> None:
        async def sleeper() -> None:
            await uringio.sleep(seconds)

        task = scheduler.spawn(sleeper)
        await uringio.sleep(0.001)
        assert not task.ended
        task.cancel()
        assert (await task.wait()).cancelled

    scheduler.run(main)


def test_thousands_of_sleepers(scheduler: Scheduler) -> None:
    """Many at once, cancelled or not, all end; nothing is left in flight (by the scheduler)."""

    async def main() -> None:
        async def sleeper(seconds: float) -> None:
            await uringio.sleep(seconds)

        tasks = [scheduler.spawn(sleeper, number % 7 / 1000) for number in range(2000)]
        hopeless = [scheduler.spawn(sleeper, 1800) for _ in range(2000)]
        for task in tasks:
            await task.result()
        for task in hopeless:
            task.cancel()
        for task in hopeless:
            assert (await task.wait()).cancelled

    scheduler.run(main)
