"""
Run the ownership model for many steps: ``python -m tools.model --steps 200000``.

Hypothesis writes programs of the rules of `tests.model.ownership` and carries them out, on the real
kernel by default, until so many steps were made.  A violation ends the run, and the program that it
takes is shown, shrunk.
"""

import argparse
import sys
import time
from collections import Counter

from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.model import ownership

MACHINES = {
    "uring": ownership.RealOwnership,
    "epoll": ownership.PollingOwnership,
    "simulated": ownership.Ownership,
    "storm": ownership.StormyOwnership,
}
CANCELLED_SHARE_MIN = 0.30
STEPS_PER_PROGRAM = 60


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Run the ownership model.")
    parser.add_argument("--steps", type=int, default=20_000)
    parser.add_argument("--on", choices=sorted(MACHINES), default="uring")
    parser.add_argument("--no-shrink", action="store_true", help="show what fails as it is")
    options = parser.parse_args(arguments)
    machine = MACHINES[options.on]
    counts: Counter[str] = machine.counts
    began = time.monotonic()
    programs = 0
    while counts["steps"] < options.steps:
        missing = options.steps - counts["steps"]
        examples = max(1, min(200, missing // STEPS_PER_PROGRAM + 1))
        run_state_machine_as_test(
            machine,
            settings=settings(
                max_examples=examples,
                stateful_step_count=STEPS_PER_PROGRAM,
                deadline=None,
                database=None,
                phases=(Phase.generate,) if options.no_shrink else (Phase.generate, Phase.shrink),
                suppress_health_check=list(HealthCheck),
            ),
        )
        programs += examples
    took = time.monotonic() - began
    started = counts["started"]
    share = counts["cancelled"] / started
    print(f"{counts['steps']} steps in {programs} programs on {options.on}, {took:.0f} s")
    print(
        f"{started} operations: {counts['done']} done, {counts['cancelled']} cancelled "
        f"({100 * share:.1f} %), {counts['failed']} failed; 0 violations"
    )
    if share < CANCELLED_SHARE_MIN:
        print(f"invalid: fewer than {100 * CANCELLED_SHARE_MIN:.0f} % were cancelled")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
