"""The cancel sweep, short; ``python tools/cancel_sweep.py`` runs the long one."""

import pytest

from tests.kernel import uring_refusal
from tests.surface import schedulers
from tests.surface.schedulers import Scheduler
from tests.surface.sweep import OPERATIONS, PHASES, Sweep, burst, oldest_ring
from uringio._driver import current

COUNT = 200

needs_uring = pytest.mark.skipif(uring_refusal() is not None, reason=str(uring_refusal()))


@pytest.fixture
def sweep_seed(request: pytest.FixtureRequest) -> int:
    """Return the seed of the test run."""
    return int(request.config.getoption("--seed") or request.config.getoption("hypothesis_seed"))


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("operation", OPERATIONS)
def test_cancelling(scheduler: Scheduler, operation: str, phase: str, sweep_seed: int) -> None:
    """Cancelled at whatever moment: the awaiter sees it, and nothing is lost; see `sweep`."""
    tally = Sweep(scheduler, phase, COUNT, sweep_seed).run(operation)
    if phase != "race":
        assert tally.cancelled == COUNT


@needs_uring
@pytest.mark.parametrize("phase", ["flight", "race"])
@pytest.mark.parametrize("operation", ["accept", "connect", "recv", "send"])
@pytest.mark.parametrize("name", schedulers.NAMES)
def test_cancelling_on_an_older_ring(
    name: str, operation: str, phase: str, sweep_seed: int
) -> None:
    """The same where completions come at any system call, so that cancellations come too late."""
    with oldest_ring():
        Sweep(schedulers.make(name, "uring"), phase, COUNT, sweep_seed).run(operation)


@needs_uring
@pytest.mark.parametrize("name", schedulers.NAMES)
def test_burst_needs_every_buffer(name: str) -> None:
    """The sweep's last check can fail: one receive more than there are buffers starves."""

    async def main() -> None:
        await burst(64)
        assert current.driver().statistics().starved == 0
        await burst(65)
        assert current.driver().statistics().starved > 0

    schedulers.make(name, "uring").run(main)
