"""The tests' own footing: what `Scheduler` promises under both schedulers."""

import pytest

import uringio
from tests.surface.schedulers import Gate, Scheduler


def test_a_cancelled_task_is_seen_as_cancelled(scheduler: Scheduler) -> None:
    """`Spawned.cancel` reaches a task that waits, and `cancelled` tells."""

    async def main() -> None:
        async def sleeper() -> None:
            await uringio.sleep(1000)

        spawned = scheduler.spawn(sleeper)
        await scheduler.checkpoint()
        assert not spawned.ended
        spawned.cancel()
        assert (await spawned.wait()).cancelled

    scheduler.run(main)


def test_results_and_errors_come_out(scheduler: Scheduler) -> None:
    """`Spawned.result` returns what the function returned, and raises what it raised."""

    async def main() -> None:
        gate = Gate()

        async def waiting(value: int) -> int:
            await gate.wait()
            if value < 0:
                raise ValueError(value)
            return value

        good, bad = scheduler.spawn(waiting, 1), scheduler.spawn(waiting, -1)
        gate.open()
        assert await good.result() == 1
        with pytest.raises(ValueError, match="-1"):
            await bad.result()
        assert not bad.cancelled

    scheduler.run(main)


def test_what_is_left_in_flight_fails_the_test(scheduler: Scheduler) -> None:
    """A test body that returns while an operation of its tasks is in flight is an error."""

    async def main() -> None:
        async def sleeper() -> None:
            await uringio.sleep(1000)

        scheduler.spawn(sleeper)
        await scheduler.checkpoint()

    with pytest.raises(AssertionError, match="in flight"):
        scheduler.run(main)
