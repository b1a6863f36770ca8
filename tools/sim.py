"""
Run the programs of `tests/testing` on many simulated kernels: ``python -m tools.sim --seeds 2000``.

Each seed runs each program once, on a kernel profile and a fault plan that the seed chooses.  A
program that goes wrong ends the sweep, with the command that repeats it.  The sweep is invalid, and
fails, if fewer faults struck than five in a hundred operations, or if a state that it must have met
was never seen.
"""

import argparse
import hashlib
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import replace

from tests.testing import programs
from uringio import testing

FAULTS_PER_OP_MIN = 0.05
RECOVERY_NS_MAX = 5 * 10**9
# Met at least once in a thousand seeds.
SOMETIMES = ("overflow", "cancel won", "cancel lost", "notification late")
PROFILES = ("6.18", "6.18", "6.1", "6.0", "5.19", "blocked")
PROGRAMS: dict[str, Callable[[], Awaitable[object]]] = {
    "echo": programs.echo_server_and_clients,
    "cancel storm": programs.cancel_storm,
    "pool exhaustion": programs.many_at_once,
    "accept storm": programs.accept_storm,
    "zero copy": programs.zero_copies,
    "file copy": programs.copy_file,
    "burst": programs.burst,
    "leases": programs.lease_and_keep,
}
QUIET_NS = 20_000_000


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Run programs on simulated kernels.")
    parser.add_argument("--seeds", type=int, default=200)
    parser.add_argument("--first", type=int, default=0)
    options = parser.parse_args(arguments)
    faults: Counter[str] = Counter()
    states: Counter[str] = Counter()
    ops = 0
    simulated_ns = 0
    traces = hashlib.blake2b(digest_size=16)
    began = time.monotonic()
    # Faults stop at some time, and then every program must come to its end.
    plan = replace(testing.STORM, until_ns=QUIET_NS)
    # And one that programs do notice.
    breaking = replace(plan, reset=0.05, exhaust=0.05, until_ns=10 * QUIET_NS)
    for seed in range(options.first, options.first + options.seeds):
        profile = PROFILES[seed % len(PROFILES)]
        for program in PROGRAMS.values():
            breaks = program is programs.accept_storm
            kernel = testing.SimKernel(seed, profile, breaking if breaks else plan)
            testing.run(program, kernel=kernel)
            assert kernel.clock.elapsed_ns <= 10 * QUIET_NS + RECOVERY_NS_MAX, (
                f"not alive again {RECOVERY_NS_MAX} ns after the faults: "
                + testing.replay_command(program, kernel)
            )
            faults.update(kernel.faults.counts)
            states.update(kernel.notes)
            ops += kernel.op_count
            traces.update(kernel.trace_hash().encode())
            simulated_ns += kernel.clock.elapsed_ns
    took = time.monotonic() - began
    print(f"{options.seeds} seeds x {len(PROGRAMS)} programs in {took:.1f} s")
    print(f"{simulated_ns / 1e9:.1f} s simulated, {simulated_ns / 1e9 / took:.1f} times real time")
    print(f"{ops} operations, {faults.total()} faults, {100 * faults.total() / ops:.1f} in 100")
    print(f"trace: {traces.hexdigest()} (the same on every Python)")
    for name, counts in (("faults", faults), ("states", states)):
        print(f"{name}: " + ", ".join(f"{what} {count}" for what, count in counts.most_common()))
    if faults.total() < FAULTS_PER_OP_MIN * ops:
        print("invalid: too few faults")
        return 1
    unseen = [state for state in SOMETIMES if not states[state]]
    if unseen:
        print(f"invalid: never seen: {', '.join(unseen)}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
