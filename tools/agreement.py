"""
Hold every driver and the simulated kernel against each other: ``python -m tools.agreement``.

Each generated program runs on each driver over the real kernel, and on each over simulated kernels;
every outcome of every step must be the same in all of these places.  ``--kind`` chooses programs of
streams and files, of datagrams, of names and trees, or of the bare ring, whose completions are
compared.  Each has a number: ``--first 17 --programs 1`` has one again.
"""

import argparse
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import tests.backends  # noqa: F401 - has kqueue played
from tests.testing.agreement import differences, program
from tests.testing.comparing import COMPARISONS
from tests.testing.places import REAL, places, told_apart

TOGETHER = 20


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Compare drivers and kernels.")
    parser.add_argument("--programs", type=int, default=200)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--kind", choices=("streams", *COMPARISONS), default="streams")
    parser.add_argument("--backend", choices=(*REAL, "all"), default="all")
    options = parser.parse_args(arguments)
    where = places(REAL if options.backend == "all" else (options.backend,))
    print(f"on {', '.join(where)}" if options.kind != "rings" else "on uring, simulated 6.18")
    began = time.monotonic()
    seeds = range(options.first, options.first + options.programs)
    with tempfile.TemporaryDirectory(prefix="uringio-agreement-") as folder:
        if options.kind == "streams":
            differing = compare_streams(seeds, where, folder)
        else:
            differing = compare(options.kind, seeds, where, Path(folder))
    took = time.monotonic() - began
    print(f"{len(seeds)} programs of {options.kind}, {took:.0f} s; {differing} differ")
    return 1 if differing else 0


def compare_streams(seeds: range, where: tuple[str, ...], folder: str) -> int:
    """Compare programs of streams and files, many at a time; how many differ."""
    steps: Counter[str] = Counter()
    kinds: Counter[str] = Counter()
    differing = 0
    for number, start in enumerate(range(seeds.start, seeds.stop, TOGETHER)):
        batch = range(start, min(start + TOGETHER, seeds.stop))
        tcp = bool(number & 1)  # each batch on one kind of socket
        kinds["tcp" if tcp else "unix"] += len(batch)
        for seed in batch:
            steps.update(step.action for step in program(seed))
        for seed, found in differences(batch, tcp, where, folder).items():
            differing += 1
            print(f"program {seed}, {'tcp' if tcp else 'unix'}:")
            for step, told in found:
                print(f"  {step}: {told_apart(told)}")
    print(", ".join(f"{kind} {count}" for kind, count in kinds.most_common()), end="; ")
    print(f"{steps.total()} steps:")
    print(", ".join(f"{what} {count}" for what, count in steps.most_common()))
    return differing


def compare(kind: str, seeds: range, where: tuple[str, ...], folder: Path) -> int:
    """Compare programs of another kind, one at a time; how many differ."""
    differing = 0
    for seed in seeds:
        place = folder / str(seed)
        place.mkdir()
        if told := COMPARISONS[kind](seed, where, place):
            differing += 1
            print(f"program {seed} {told}")
    return differing


if __name__ == "__main__":
    sys.exit(main())
