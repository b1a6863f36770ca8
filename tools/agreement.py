"""
Hold the simulated kernel against the real one: ``python -m tools.agreement --programs 5000``.

Generated programs run on both, and every outcome of every step must be the same: programs of
streams and files on our drivers, and with ``--rings N`` programs of requests on the bare ring as
well, whose completions are compared.  Each has a number: ``--first 17 --programs 1`` has one again.
"""

import argparse
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import tests.backends  # noqa: F401 - has kqueue played
from tests.testing import ring_agreement
from tests.testing.agreement import SETTLE_SECONDS, differences, program
from tests.testing.comparing import COMPARISONS
from uringio import testing
from uringio._sys.system import real_system

TOGETHER = 20
BACKENDS = ("uring", "epoll", "kqueue", "poll")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Compare real and simulated kernels.")
    parser.add_argument("--programs", type=int, default=200)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--kind", choices=("streams", *COMPARISONS), default="streams")
    parser.add_argument("--backend", choices=(*BACKENDS, "all"), default="all")
    parser.add_argument("--rings", type=int, default=0, help="programs on the bare ring")
    options = parser.parse_args(arguments)
    backends = BACKENDS if options.backend == "all" else (options.backend,)
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
    if options.rings:
        began = time.monotonic()
        found = [
            ring_difference(seed) for seed in range(options.first, options.first + options.rings)
        ]
        differing += sum(map(bool, found))
        print("".join(filter(None, found)), end="")
        print(f"{options.rings} programs on the bare ring, {time.monotonic() - began:.0f} s")
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


def ring_difference(seed: int) -> str:
    """Run one program on the real ring and on a simulated one; say where they differ."""
    steps = ring_agreement.program(seed)
    real = simulated = None
    for settle_seconds in SETTLE_SECONDS:
        settle_ns = int(settle_seconds * 2e9)
        real = ring_agreement.outcomes(real_system(), steps, settle_ns)
        kernel = testing.SimKernel(seed)
        kernel.net.latency_ns = (0, 0)  # as within one machine
        try:
            simulated = ring_agreement.outcomes(kernel.system, steps, settle_ns)
        except Exception as error:
            return f"ring program {seed}: {steps}\n  the simulation failed: {error!r}\n"
        if real == simulated:
            return ""
    return f"ring program {seed}: {steps}\n  real {real!r}\n  simulated {simulated!r}\n"


if __name__ == "__main__":
    sys.exit(main())
