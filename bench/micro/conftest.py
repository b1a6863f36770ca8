"""
What the micro-benchmarks share. Every timed call handles `BATCH` operations at once.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from uringio._driver.choice import make_driver
from uringio._driver.contract import Driver
from uringio._driver.op import SPENT, Op
from uringio._ring.setup import Ring, queue_init
from uringio._sys.system import real_system
from uringio.errors import RingError

BATCH = 64
"""Operations per timed call: divide what is reported by it."""

ROUNDS = 2000
"""Timed calls of a benchmark that needs a set-up before each."""


class Cancelled(BaseException):
    """
    Stands for a scheduler's cancelled exception.
    """


class Bench:
    """
    A driver without a scheduler: delivered ops become spent, and are counted.
    """

    def __init__(self, backend: str) -> None:
        self.delivered_count = 0
        self.driver: Driver = make_driver(self._deliver, lambda _op: Cancelled(), backend=backend)

    def _deliver(self, op: Op[object]) -> None:
        op.state = SPENT
        self.delivered_count += 1

    def finish(self, count: int) -> None:
        """
        Turn until *count* ops have been delivered since the last call.
        """
        turn = self.driver.turn
        while self.delivered_count < count:
            turn(None)
        self.delivered_count = 0


@pytest.fixture
def ring() -> Iterator[Ring]:
    """
    A ring of its own, or a skip where there is none.
    """
    try:
        made = queue_init(real_system(), 2 * BATCH)
    except RingError as refusal:
        pytest.skip(str(refusal))
    yield made
    made.close()


@pytest.fixture(params=("uring", "epoll"))
def bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    """
    A driver of each kind.
    """
    backend: str = request.param
    try:
        made = Bench(backend)
    except RingError as refusal:
        pytest.skip(str(refusal))
    yield made
    made.driver.close()
