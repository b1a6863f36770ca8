"""The cancel race in small; `tools/cancel_race.py` runs it a million times."""

import random
from collections.abc import Awaitable, Callable

from tests.surface.cancel_race import KINDS, Race
from tests.surface.schedulers import Scheduler, make

COUNT = 1500


def test_receives_cancelled_while_bytes_arrive(scheduler: Scheduler) -> None:
    """Three in ten are cancelled: the streams are byte-exact, and nothing is lost; see `Race`."""
    figures = Race(scheduler, COUNT, random.randrange(1 << 32)).run()
    assert figures.receives >= COUNT
    assert figures.cancelled >= 0.29 * COUNT
    assert min(figures.by_kind[kind] for kind in KINDS) > 0.15 * COUNT


def test_a_lost_byte_is_seen(backend: str) -> None:
    """The race can fail: where one receive has lost its first byte, it does."""
    race = Race(make("native", backend), 20_000, random.randrange(1 << 32))
    attempt = race.attempt

    async def lossy(call: Callable[[], Awaitable[object]]) -> object:
        value = await attempt(call)
        return value[1:] if isinstance(value, bytes) and race.figures.receives > 100 else value

    race.attempt = lossy
    failure = ""
    try:
        race.run()
    except AssertionError as error:
        failure = str(error)
    assert failure.startswith("wrong bytes by")  # whichever receive comes after it
