"""
The long cancel sweep: ``python tools/cancel_sweep.py --count 10000``.

Runs every cell of `tests.surface.sweep` (which says what is swept and accounted for) in a process
of its own, and prints a table.  The exit status is 1 if a cell failed or hung.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import time
from contextlib import nullcontext
from dataclasses import asdict
from itertools import product
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "src")]

from tests.kernel import uring_refusal  # noqa: E402 - the path comes first
from tests.surface import schedulers, sweep  # noqa: E402 - likewise

OLDEST_RING = "uring-5.19"
BACKENDS = ("uring", OLDEST_RING, "epoll")
# Before a cell counts as hung: a start, and a generous time per attempt. [seconds]
START_S, ATTEMPT_S = 60.0, 0.02

HEADS = ("operation", "phase", "scheduler", "driver", "attempts", "cancelled", "completed",
         "orphaned", "seconds")  # fmt: skip
ROW = "{:9} {:7} {:9} {:10} {:>8} {:>9} {:>9} {:>8} {:>7}"


def main(argv: list[str] | None = None) -> int:
    """Run the cells that were asked for; 1 if one of them failed."""
    options = parse(argv)
    if options.cell:
        scheduler, backend, operation, phase = options.cell
        made = schedulers.make(scheduler, backend.partition("-")[0])
        with sweep.oldest_ring() if backend == OLDEST_RING else nullcontext():
            tally = sweep.Sweep(made, phase, options.count, options.seed).run(operation)
        print(json.dumps(asdict(tally)))
        return 0
    if refusal := uring_refusal():
        print(f"no uring driver here: {refusal}")
    print(f"seed {options.seed}, Python {sys.version.split()[0]}, {os.uname().release}")
    print(ROW.format(*HEADS))
    failed = 0
    for operation, phase, scheduler, backend in product(
        options.operation, options.phase, options.scheduler, options.backend
    ):
        if backend != "epoll" and refusal:
            continue
        failed += not run_cell(options, (scheduler, backend, operation, phase))
    print(
        f"{failed} cells failed"
        if failed
        else "no outcome, byte, descriptor, buffer or operation in flight was lost; no loop hung"
    )
    return 1 if failed else 0


def run_cell(options: argparse.Namespace, cell: tuple[str, str, str, str]) -> bool:
    """Run one cell in a fresh interpreter and print its row."""
    scheduler, backend, operation, phase = cell
    command = [sys.executable, "-W", "error", __file__, "--count", str(options.count),
               "--seed", str(options.seed), "--cell", *cell]  # fmt: skip
    began = time.monotonic()
    try:
        ended = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=START_S + ATTEMPT_S * options.count,
            check=False,
        )
        output, problem = ended.stdout, ended.stderr if ended.returncode else ""
    except subprocess.TimeoutExpired as hung:
        output, problem = "", f"hung for {hung.timeout:.0f} s"
    seconds = f"{time.monotonic() - began:.1f}"
    names = (operation, phase, scheduler, backend)
    if problem:
        print(ROW.format(*names, "FAILED", "", "", "", seconds))
        print(problem)
        return False
    tally = json.loads(output.splitlines()[-1])
    print(ROW.format(*names, *(tally[head] for head in HEADS[4:8]), seconds), flush=True)
    return True


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.strip().split("\n")[0])
    parser.add_argument("--count", type=int, default=10_000, help="attempts per cell")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**32))
    parser.add_argument(
        "--operation", nargs="+", choices=sweep.OPERATIONS, default=sweep.OPERATIONS
    )
    parser.add_argument("--phase", nargs="+", choices=sweep.PHASES, default=sweep.PHASES)
    parser.add_argument(
        "--scheduler", nargs="+", choices=schedulers.NAMES, default=schedulers.NAMES
    )
    parser.add_argument("--backend", nargs="+", choices=BACKENDS, default=BACKENDS)
    parser.add_argument("--cell", nargs=4, help=argparse.SUPPRESS)
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
