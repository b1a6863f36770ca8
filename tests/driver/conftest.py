"""Drivers for the contract suite."""

from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack

import pytest

from tests.driver.rig import KINDS, READINESS_DRIVERS, Rig
from tests.kernel import uring_refusal

RigMaker = Callable[..., Rig]


def _skip_where_refused(kind: str) -> None:
    if kind not in READINESS_DRIVERS and (refusal := uring_refusal()):
        pytest.skip(f"no uring driver here: {refusal}")


@pytest.fixture
def make_rig() -> Iterator[RigMaker]:
    """Make rigs by kind; each is closed at the end, and must then have nothing in flight."""
    with ExitStack() as stack:

        def make(kind: str, **options: object) -> Rig:
            _skip_where_refused(kind)
            rig = Rig(kind, **options)
            stack.callback(rig.close)
            return rig

        yield make


@pytest.fixture(params=KINDS)
def rig(request: pytest.FixtureRequest, make_rig: RigMaker) -> Iterator[Rig]:
    """A driver of every kind in turn; the test must leave nothing in flight."""
    made = make_rig(request.param)
    yield made
    if request.node.stash.get(_passed, True):
        statistics = made.driver.statistics()
        assert statistics.in_flight == 0
        assert statistics.stray == 0


_passed = pytest.StashKey[bool]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.when == "call":
        item.stash[_passed] = report.passed
    return report
