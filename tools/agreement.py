"""
Hold the simulated kernel against the real one: ``python -m tools.agreement --programs 5000``.

Generated programs run on both, and every outcome of every step must be the same.  Programs are
numbered, so that one can be had again: ``--first 17 --programs 1``.
"""

import argparse
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from tests.testing.agreement import differences, program
from tests.testing.comparing import COMPARISONS

TOGETHER = 20


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Compare real and simulated kernels.")
    parser.add_argument("--programs", type=int, default=200)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--kind", choices=("streams", *COMPARISONS), default="streams")
    parser.add_argument("--backend", choices=("uring", "epoll", "both"), default="both")
    options = parser.parse_args(arguments)
    backends = ("uring", "epoll") if options.backend == "both" else (options.backend,)
    if options.kind != "streams":
        return compare(options.kind, options.first, options.programs, backends)
    began = time.monotonic()
    steps: Counter[str] = Counter()
    differing = 0
    counts: Counter[str] = Counter()
    with tempfile.TemporaryDirectory(prefix="uringio-agreement-") as folder:
        last = options.first + options.programs
        for number, start in enumerate(range(options.first, last, TOGETHER)):
            seeds = range(start, min(start + TOGETHER, last))
            # Each batch on one kind of socket and one driver, in turn.
            tcp = bool(number & 1)
            backend = backends[number // 2 % len(backends)]
            counts[f"{backend} {'tcp' if tcp else 'unix'}"] += len(seeds)
            for seed in seeds:
                steps.update(step.action for step in program(seed))
            for seed, found in differences(seeds, tcp, backend, folder).items():
                differing += 1
                print(f"program {seed} on {backend}, {'tcp' if tcp else 'unix'}:")
                for step, real, simulated in found:
                    print(f"  {step}: real {real!r}, simulated {simulated!r}")
    took = time.monotonic() - began
    kinds = ", ".join(f"{kind} {count}" for kind, count in sorted(counts.items()))
    print(f"{options.programs} programs ({kinds}), {steps.total()} steps, {took:.0f} s")
    print("steps: " + ", ".join(f"{what} {count}" for what, count in steps.most_common()))
    print(f"{differing} programs differ")
    return 1 if differing else 0


def compare(kind: str, first: int, count: int, backends: tuple[str, ...]) -> int:
    """Compare programs of another kind than streams; 0 unless one differs."""
    began = time.monotonic()
    differing = 0
    with tempfile.TemporaryDirectory(prefix="uringio-agreement-") as folder:
        for seed in range(first, first + count):
            backend = backends[seed % len(backends)]
            place = Path(folder) / str(seed)
            place.mkdir()
            if told := COMPARISONS[kind](seed, backend, place):
                differing += 1
                print(f"program {seed} on {backend} {told}")
    print(f"{count} programs of {kind}, {time.monotonic() - began:.0f} s; {differing} differ")
    return 1 if differing else 0


if __name__ == "__main__":
    sys.exit(main())
