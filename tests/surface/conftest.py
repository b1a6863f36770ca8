"""Fixtures of the surface's tests: both schedulers on both drivers."""

import pytest

from tests.surface import schedulers
from tests.surface.schedulers import Scheduler


@pytest.fixture(params=schedulers.NAMES)
def scheduler(request: pytest.FixtureRequest, backend: str) -> Scheduler:
    """Each scheduler on each driver in turn."""
    return schedulers.make(request.param, backend)
