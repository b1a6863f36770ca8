"""Fixtures of the ring's tests: rings on the real kernel, closed at the end."""

from collections.abc import Callable, Iterator

import pytest

from tests.kernel import uring_refusal
from tests.ring.pilot import Pilot
from uringio._ring.setup import FLAG_LADDER, queue_init
from uringio._sys.system import System


@pytest.fixture
def system() -> System:
    """A real system of the test's own, free to be bent."""
    if refusal := uring_refusal():
        pytest.skip(refusal)
    return System()


@pytest.fixture
def make_pilot(system: System) -> Iterator[Callable[..., Pilot]]:
    """Make rings flown by hand; all are closed at the end."""
    pilots: list[Pilot] = []

    def make(
        entries: int = 8,
        *,
        cq_entries: int | None = None,
        ladder: tuple[int, ...] = FLAG_LADDER,
        system: System = system,
    ) -> Pilot:
        pilots.append(Pilot(queue_init(system, entries, cq_entries=cq_entries, ladder=ladder)))
        return pilots[-1]

    yield make
    for pilot in pilots:
        pilot.ring.close()


@pytest.fixture
def pilot(make_pilot: Callable[..., Pilot]) -> Pilot:
    """A ring of eight slots, flown by hand."""
    return make_pilot()
