"""
The crash lab: ``python tools/crashlab.py --runs 1000``.

Runs programs that misuse the library (`tests.crashlab`), each in a process of its own with a seed
of its own, and counts those that a signal killed, that hung, or that got wrong bytes.  The exit
status is 1 if there was one.  ``--control`` runs the same kinds of misuse written against the bare
ring, without a library that keeps memory alive, to show that they do harm.
"""

import argparse
import os
import random
import sys
import time
from itertools import cycle, islice
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "src")]

from tests.crashlab import child, control, lab  # noqa: E402 - the path comes first
from tests.crashlab.runner import CLASSES, Judged, allocator, run_all  # noqa: E402 - likewise
from tests.kernel import uring_refusal  # noqa: E402 - likewise

ROW = "{:36} {:>6} {:>6} {:>6} {:>6} {:>6} {:>8}"
SEED_STEP = 1_000_003


def main(argv: list[str] | None = None) -> int:
    """Run what was asked for; 1 if anything but an orderly end was seen."""
    options = parse(argv)
    os.nice(options.nice)
    if refusal := uring_refusal():
        print(f"no uring driver here: {refusal}")
    print(f"seed {options.seed}, Python {sys.version.split()[0]}, {os.uname().release}")
    if options.control:
        return run_control(options)
    runs = (
        (name, options.seed + SEED_STEP * number)
        for number, name in enumerate(islice(cycle(options.program), options.runs))
    )
    began = time.monotonic()
    tallies = run_all(runs, options.jobs, tell)
    print(ROW.format("program", "runs", *CLASSES, "s/run"))
    total = dict.fromkeys(CLASSES, 0)
    for name in sorted(tallies):
        counts = tallies[name].counts
        count = sum(counts.values())
        pace = f"{tallies[name].seconds / count:.2f}"
        print(ROW.format(name, count, *counts.values(), pace))
        for kind in CLASSES:
            total[kind] += counts[kind]
    print(ROW.format("all", sum(total.values()), *total.values(), ""))
    print(f"in {time.monotonic() - began:.0f} s, {options.jobs} at a time")
    return 0 if total["ok"] == sum(total.values()) else 1


def tell(one: Judged) -> None:
    """Print what went wrong, and how to see it again."""
    if one.kind != "ok":
        variables = "".join(f"{name}={value} " for name, value in allocator(one.seed).items())
        print(f"{one.kind}: {one.how}; again by")
        print(f"{variables}python -m {child.__name__} {one.program} {one.seed}")
        print(one.output, flush=True)


def run_control(options: argparse.Namespace) -> int:
    """Show what the same misuse does to a program that has nothing but the ring."""
    runs = [(name, seed) for name in control.PROGRAMS for seed in range(options.control)]
    tallies = run_all(runs, options.jobs, module=control.__name__)
    print(ROW.format("program, on the bare ring", "runs", *CLASSES, "s/run"))
    for name, tally in tallies.items():
        count = sum(tally.counts.values())
        print(ROW.format(name, count, *tally.counts.values(), f"{tally.seconds / count:.2f}"))
    return 0


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.strip().split("\n")[0])
    parser.add_argument("--runs", type=int, default=1000, help="in all")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**32))
    parser.add_argument("--jobs", type=int, default=2, help="at a time")
    parser.add_argument("--nice", type=int, default=10, help="how much to step back for others")
    names = sorted(lab.PROGRAMS)
    parser.add_argument("--program", nargs="+", choices=names, default=names)
    parser.add_argument(
        "--control", type=int, nargs="?", const=25, metavar="RUNS", help="of each on the bare ring"
    )
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
