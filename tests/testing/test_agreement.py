"""The fake is verified: generated programs come to the same on the real kernel and on it."""

import pytest

import uringio
from tests.testing.agreement import SETTLE_SECONDS, outcomes, program
from uringio import testing

PROGRAM_COUNT = 8


@pytest.mark.parametrize("tcp", [True, False], ids=["tcp", "unix"])
def test_simulated_streams_do_what_real_ones_do(backend: str, tcp: bool) -> None:
    """Sends, receives, ends, closes in any order: data, ends, resets and refusals agree."""
    profile = "6.18" if backend == "uring" else "blocked"
    for seed in range(PROGRAM_COUNT):
        steps = program(seed)
        differing: list[object] = []
        for settle_seconds in SETTLE_SECONDS:
            real = uringio.run(outcomes, steps, tcp, settle_seconds, backend=backend)
            simulated = testing.run(
                outcomes, steps, tcp, settle_seconds, seed=seed, profile=profile
            )
            differing = [
                (step, one, other)
                for step, one, other in zip(steps, real, simulated, strict=True)
                if one != other
            ]
            if not differing:
                break
        assert not differing, f"seed {seed}: {steps}\nstep, real, simulated: {differing}"
