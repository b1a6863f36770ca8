"""The cancel sweep, short; ``python tools/cancel_sweep.py`` runs the long one."""

import socket

import pytest

from tests.marks import needs_uring
from tests.surface import schedulers
from tests.surface.schedulers import Scheduler
from tests.surface.sweep import OPERATIONS, PHASES, Sweep, burst, oldest_ring
from uringio._driver import current
from uringio._driver.op import SEND_ALL, Op

COUNT = 200


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
        # Natively a receive of what an earlier one has left ends before a sibling cancels it.
        assert tally.cancelled + tally.completed == COUNT
        assert operation == "recv" or not tally.completed


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


def test_what_is_in_flight_was_handed_over(scheduler: Scheduler) -> None:
    """The phase ``flight`` is what it says: however the passes fall, the kernel has the op."""
    seeds = range(64)  # many times every way to make one or two passes
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)

    async def send() -> None:
        await Op(SEND_ALL, ours.fileno(), len_=1, memory=b"x")

    async def main() -> None:
        for seed in seeds:
            await scheduler.checkpoint()  # to begin, as the sweep does, from one of asyncio's steps
            spawned = scheduler.spawn(send)
            await Sweep(scheduler, "flight", 1, seed).pass_until_handed_over()
            assert theirs.recv(2) == b"x", f"not handed over with seed {seed}"
            await spawned.result()

    with ours, theirs:
        scheduler.run(main)
