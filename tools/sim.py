"""
Run the scenarios of `tests/testing` on simulated kernels: ``python -m tools.sim --seeds 2000``.

Each seed runs each scenario once, on a kernel profile that the seed chooses, through a storm of
faults that ends after twenty simulated seconds.  The sweep fails if anything goes wrong (then one
command repeats it), if an actor is not well again five simulated seconds after the storm, if any
run met fewer faults than planned, which makes it invalid, or if a state that a thousand seeds must
meet was not seen.
"""

import argparse
import hashlib
import logging
import multiprocessing
import os
import sys
import time
import warnings
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Final

from tests.testing import lending, moments, ownership, scenarios
from tests.testing.stage import Stage
from uringio import testing

__all__ = ["SCENARIOS", "main", "run_one"]

STORM_NS: Final = 20 * 10**9
RECOVERY_NS_MAX: Final = 5 * 10**9
FAULTS_PER_OP_MIN: Final = 0.05
SIMULATED_PER_REAL_MIN: Final = 100
PROFILES: Final = ("6.18", "6.18", "6.1", "6.0", "5.19", "plain", "blocked")
# What programs need not notice, and what they do.
STORM: Final = replace(testing.STORM, until_ns=STORM_NS)
BREAKING: Final = replace(STORM, reset=0.02, exhaust=0.02, disk_error=0.01)
Scenario = Callable[[], Awaitable[Stage]]
SCENARIOS: Final[dict[str, tuple[Scenario, testing.FaultPlan]]] = {
    "echo": (scenarios.echo, BREAKING),
    "HTTP serve": (scenarios.http, BREAKING),
    "file copy": (scenarios.file_copy, BREAKING),
    "cancel storm": (scenarios.cancel_storm, STORM),
    "pool exhaustion": (lending.pool_exhaustion, BREAKING),
    "accept storm": (scenarios.accept_storm, BREAKING),
    "zero copy": (lending.zero_copy, BREAKING),
    "ownership": (ownership.ownership, BREAKING),
    "signals": (moments.signals, STORM),
}
# What must be met at least once in a thousand seeds, and what the kernel notes it as.
SOMETIMES: Final = {
    "overflow": "overflow",
    "orphaned CQE": "orphaned completion",
    "NOTIF late": "notification late",
    "cancel lost the race": "cancel lost",
    "re-arm after ENOBUFS": "armed anew after ENOBUFS",
    "late fd closed": "late fd closed",
    "short send resumed": "short send resumed",
}
SEEDS_TO_MEET_ALL: Final = 1000
FAILURES_SHOWN_MAX: Final = 5
WIDTH: Final = 100
ROW: Final = "{:16} {:>6} {:>9} {:>9} {:>6} {:>6} {:>12} {:>12} {:>9}"


@dataclass
class Tally:
    """
    What came of one scenario, on one seed or on many.

    Attributes:
        least_share: The fewest faults per operation that any run met.
        traces: Each run's trace hash, by seed.
        troubles: How often programs had to begin anew.
        met: How often each state was met, by block of a thousand seeds.
    """

    runs: int = 0
    ops: int = 0
    simulated_ns: int = 0
    recovery_ns: int = 0
    troubles: int = 0
    least_share: float = 1.0
    faults: Counter[str] = field(default_factory=Counter)
    met: Counter[tuple[int, str]] = field(default_factory=Counter)
    checked: Counter[str] = field(default_factory=Counter)
    violations: int = 0
    failures: list[str] = field(default_factory=list)
    traces: dict[int, str] = field(default_factory=dict)

    def add(self, other: "Tally") -> None:
        """Take in what came of other seeds."""
        self.runs += other.runs
        self.ops += other.ops
        self.simulated_ns += other.simulated_ns
        self.recovery_ns = max(self.recovery_ns, other.recovery_ns)
        self.troubles += other.troubles
        self.least_share = min(self.least_share, other.least_share)
        self.faults.update(other.faults)
        self.met.update(other.met)
        self.checked.update(other.checked)
        self.violations += other.violations
        self.failures += other.failures
        self.traces.update(other.traces)


def sum_of(tallies: dict[str, Tally]) -> Tally:
    """Add up what came of several scenarios."""
    total = Tally()
    for tally in tallies.values():
        total.add(tally)
    return total


def run_one(name: str, seed: int) -> Tally:
    """Run one scenario on one seed."""
    scenario, plan = SCENARIOS[name]
    kernel = testing.SimKernel(seed, PROFILES[seed % len(PROFILES)], plan)
    tally = Tally(runs=1)
    try:
        with warnings.catch_warnings():
            # Of what is left behind on purpose, or by a run that fails.
            warnings.simplefilter("ignore", ResourceWarning)
            stage = testing.run(scenario, kernel=kernel)
        tally.recovery_ns = stage.recovery_ns
        tally.troubles = stage.troubles
    except Exception as error:
        first = (str(error).splitlines() or [""])[0]
        again = testing.replay_command(scenario, kernel)
        tally.failures.append(f"{name}: {type(error).__name__}: {first[:80]}\n  {again}")
    tally.ops = kernel.op_count
    tally.simulated_ns = kernel.clock.elapsed_ns
    tally.least_share = kernel.faults.total / max(kernel.op_count, 1)
    tally.faults.update(kernel.faults.counts)
    block = seed // SEEDS_TO_MEET_ALL
    tally.met.update({(block, state): count for state, count in kernel.notes.items()})
    tally.checked.update(kernel.invariants.checked)
    tally.violations = len(kernel.invariants.violations)
    tally.traces[seed] = kernel.trace_hash()
    return tally


def run_some(names: list[str], seeds: range, fail_fast: bool = False) -> dict[str, Tally]:
    """Run scenarios on some seeds, in this process; *fail_fast*: until the first failure."""
    logging.disable(logging.CRITICAL)
    tallies = {name: Tally() for name in names}
    for seed in seeds:
        for name, tally in tallies.items():
            tally.add(run_one(name, seed))
            if fail_fast and tally.failures:
                return tallies
    logging.disable(logging.NOTSET)
    return tallies


def run_all(names: list[str], seeds: range, jobs: int) -> dict[str, Tally]:
    """Run scenarios on all seeds, in so many processes."""
    pieces = [seeds[start : start + 10] for start in range(0, len(seeds), 10)]
    tallies = {name: Tally() for name in names}
    for found in _each(names, pieces, jobs):
        for name, tally in found.items():
            tallies[name].add(tally)
    return tallies


def _each(names: list[str], pieces: list[range], jobs: int) -> Iterator[dict[str, Tally]]:
    if jobs == 1:
        yield from (run_some(names, piece) for piece in pieces)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, mp_context=context) as pool:
        yield from pool.map(run_some, [names] * len(pieces), pieces)


def main(arguments: list[str] | None = None) -> int:
    """Run the sweep and say what it met; 0 if all is well."""
    parser = argparse.ArgumentParser(description="Run scenarios on simulated kernels.")
    parser.add_argument("--seeds", type=int, default=200, help="how many")
    parser.add_argument("--first", type=int, default=0, help="the first of them")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes")
    parser.add_argument("--only", nargs="+", choices=list(SCENARIOS), help="of the scenarios")
    parser.add_argument("--hashes", action="store_true", help="print a line of hashes per seed")
    parser.add_argument("--fail-fast", action="store_true", help="end with the first failure")
    options = parser.parse_args(arguments)
    names = options.only or list(SCENARIOS)
    seeds = range(options.first, options.first + options.seeds)
    began = time.monotonic()
    if options.fail_fast:
        found = run_some(names, seeds, True)
        problems = judge(found, sum_of(found), seeds, 0.0)
        print("\n".join(problems))
        return 1 if problems else 0
    tallies = run_all(names, seeds, min(options.jobs, -(-len(seeds) // 10)))
    took = time.monotonic() - began
    if options.hashes:
        for seed in seeds:
            print(seed, *(tally.traces[seed] for tally in tallies.values()))
        return 0
    total = sum_of(tallies)
    show(tallies, total, seeds, took)
    problems = judge(tallies, total, seeds, took)
    for problem in problems:
        print(f"FAILED: {problem}")
    if not problems:
        print("all is well")
    return 1 if problems else 0


def show(tallies: dict[str, Tally], total: Tally, seeds: range, took: float) -> None:
    """Print what was met, at most `WIDTH` columns wide."""
    print(ROW.format("scenario", "runs", "ops", "faults", "per", "least", "simulated",
                     "well again", "begun"))  # fmt: skip
    print(ROW.format("", "", "", "", "100", "", "s", "s, at most", "anew"))
    print("-" * WIDTH)
    for name, one in [*tallies.items(), ("all", total)]:
        print(
            ROW.format(
                name,
                one.runs,
                one.ops,
                one.faults.total(),
                f"{100 * one.faults.total() / max(one.ops, 1):.1f}",
                f"{100 * one.least_share:.1f}",
                f"{one.simulated_ns / 1e9:,.0f}",
                f"{one.recovery_ns / 1e9:.2f}",
                one.troubles,
            )
        )
    print()
    _pairs("faults", total.faults)
    _pairs("checks", total.checked)
    met = Counter({name: _met(total, state) for name, state in SOMETIMES.items()})
    _pairs("states", met)
    digest = hashlib.blake2b(digest_size=16)
    for tally in tallies.values():
        for seed in seeds:
            digest.update(tally.traces[seed].encode())
    simulated = total.simulated_ns / 1e9
    print(f"{total.violations} invariants violated in {total.checked.total():,} checks")
    print(
        f"{simulated:,.0f} s simulated in {took:.1f} s of real time by all processes together: "
        f"{simulated / took:.0f} to 1"
    )
    print(f"trace {digest.hexdigest()}, the same on every Python")


def judge(tallies: dict[str, Tally], total: Tally, seeds: range, took: float) -> list[str]:
    """Say what is wrong with the sweep."""
    problems = total.failures[:FAILURES_SHOWN_MAX]
    if len(total.failures) > len(problems):
        problems.append(f"and {len(total.failures) - len(problems)} more")
    for name, tally in tallies.items():
        if tally.recovery_ns > RECOVERY_NS_MAX:
            problems.append(f"{name}: not well again for {tally.recovery_ns / 1e9:.2f} s")
        if tally.least_share < FAULTS_PER_OP_MIN:
            problems.append(
                f"invalid: a run of {name} met {100 * tally.least_share:.1f} faults in 100 "
                f"operations, and {100 * FAULTS_PER_OP_MIN:.0f} are planned"
            )
    if total.violations:
        problems.append(f"{total.violations} invariants violated")
    # A short sweep is mostly start-up.
    if len(seeds) >= SEEDS_TO_MEET_ALL and total.simulated_ns / 1e9 < SIMULATED_PER_REAL_MIN * took:
        problems.append(f"less than {SIMULATED_PER_REAL_MIN} simulated seconds in a real one")
    whole = range(-(-seeds.start // SEEDS_TO_MEET_ALL), seeds.stop // SEEDS_TO_MEET_ALL)
    for block in whole:
        unmet = [name for name, state in SOMETIMES.items() if not total.met[block, state]]
        if unmet and len(tallies) == len(SCENARIOS):
            first = block * SEEDS_TO_MEET_ALL
            problems.append(f"never met in a thousand seeds from {first} on: {', '.join(unmet)}")
    return problems


def _met(tally: Tally, state: str) -> int:
    return sum(count for (_, name), count in tally.met.items() if name == state)


def _pairs(title: str, counts: Counter[str]) -> None:
    """Print names and counts, three to a line."""
    for index, (name, count) in enumerate(counts.most_common()):
        if index % 3 == 0:
            print(f"{title if not index else '':8}", end="")
        end = "\n" if index % 3 == 2 or index == len(counts) - 1 else "  "
        print(f"{name:20} {count:>8}", end=end)
    print()


if __name__ == "__main__":
    sys.exit(main())
