"""A small share of the model's steps; ``python -m tools.model`` makes as many as one likes."""

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.kernel import uring_refusal
from tests.model.ownership import (
    Ownership,
    PollingOwnership,
    RealOwnership,
    StormyOwnership,
)

MACHINES = {
    "simulated": Ownership,
    "storm": StormyOwnership,
    "uring": RealOwnership,
    "epoll": PollingOwnership,
}


@pytest.mark.parametrize("name", MACHINES)
def test_everything_has_one_owner(name: str) -> None:
    """Any program over streams, buffers, leases and files, cancelled anywhere, breaks no rule."""
    if name == "uring" and (refusal := uring_refusal()):
        pytest.skip(f"no uring driver here: {refusal}")
    machine = MACHINES[name]
    before = dict(machine.counts)
    counts: dict[str, int] = {"done": 0, "cancelled": 0}
    for _ in range(5):  # examples may be drawn that finish little
        run_state_machine_as_test(
            machine,
            settings=settings(
                max_examples=12,
                stateful_step_count=40,
                deadline=None,
                database=None,
                phases=(Phase.generate, Phase.shrink),
                suppress_health_check=list(HealthCheck),
            ),
        )
        counts = {key: value - before.get(key, 0) for key, value in machine.counts.items()}
        if counts["done"] > 10 and counts["cancelled"] > 10:
            break
    # It did something: operations of every outcome that the model knows.
    assert counts["done"] > 10, counts
    assert counts["cancelled"] > 10, counts
