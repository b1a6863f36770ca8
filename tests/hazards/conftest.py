"""Fixtures of the hazards' tests: schedulers, as the surface has them, and bare drivers."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from tests.driver.rig import KINDS, RINGS, Rig
from tests.kernel import uring_refusal
from tests.surface import schedulers
from tests.surface.schedulers import Scheduler


@pytest.fixture(params=schedulers.NAMES)
def scheduler(request: pytest.FixtureRequest, backend: str) -> Scheduler:
    """Each scheduler on each driver in turn."""
    return schedulers.make(request.param, backend)


@pytest.fixture
def make_rig() -> Iterator[Callable[..., Rig]]:
    """Make rigs by kind; each is closed at the end."""
    with ExitStack() as stack:

        def make(kind: str, **options: object) -> Rig:
            if kind in RINGS and (refusal := uring_refusal()):
                pytest.skip(f"no uring driver here: {refusal}")
            rig = Rig(kind, **options)
            stack.callback(rig.driver.close)
            return rig

        yield make


@pytest.fixture(params=KINDS)
def rig(request: pytest.FixtureRequest, make_rig: Callable[..., Rig]) -> Rig:
    """A driver of every kind in turn."""
    return make_rig(request.param)
