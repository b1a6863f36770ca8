"""
The interrupt sweep: ``python tools/interrupt_sweep.py``.

Raises a real signal at every bytecode of submit, reap, settle and close, in several programs, on
both drivers and schedulers, and an exception out of every hook (`tests.surface.interrupts` says
what is swept and how the books are kept).  Each cell runs in a process of its own; the exit status
is 1 if one of them has lost, doubled or leaked something.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "src")]

from tests.kernel import uring_refusal  # noqa: E402 - the path comes first
from tests.surface import interrupts  # noqa: E402 - likewise

BACKENDS = ("uring", "epoll")
CELL_S = 1800.0
HEADS = ("kind", "program", "scheduler", "driver", "points", "struck", "lost", "twice", "leaked",
         "seconds")  # fmt: skip
ROW = "{:9} {:8} {:9} {:6} {:>8} {:>8} {:>5} {:>6} {:>7} {:>8}"


def main(argv: list[str] | None = None) -> int:
    """Run the cells that were asked for; 1 if one of them failed."""
    options = parse(argv)
    if options.cell:
        print(json.dumps(asdict(interrupts.run_cell(*options.cell, every=options.every))))
        return 0
    refusal = uring_refusal()
    if refusal:
        print(f"no uring driver here: {refusal}")
    print(f"every {options.every}, Python {sys.version.split()[0]}, {os.uname().release}")
    print(ROW.format(*HEADS))
    failed = points = 0
    for kind, program, scheduler in interrupts.cells():
        for backend in BACKENDS:
            if kind not in options.kind or program not in {*options.program, "hooks"}:
                continue
            if backend == "epoll" or not refusal:
                tried, sound = run_cell(options, (kind, program, scheduler, backend))
                points += tried
                failed += not sound
    print(f"{points} points, {failed} cells in which something was wrong")
    return 1 if failed else 0


def run_cell(options: argparse.Namespace, cell: tuple[str, str, str, str]) -> tuple[int, bool]:
    """Run one cell in a fresh interpreter and print its row; how many points, and all well."""
    command = [sys.executable, __file__, "--every", str(options.every), "--cell", *cell]
    began = time.monotonic()
    try:
        ended = subprocess.run(command, capture_output=True, text=True, timeout=CELL_S, check=False)
    except subprocess.TimeoutExpired:
        print(ROW.format(*cell, "HUNG", "", "", "", "", f"{CELL_S:.0f}"))
        return 0, False
    if ended.returncode:
        print(ROW.format(*cell, "FAILED", "", "", "", "", ""))
        print(ended.stderr)
        return 0, False
    books = json.loads(ended.stdout.splitlines()[-1])
    seconds = f"{time.monotonic() - began:.1f}"
    print(ROW.format(*cell, *(books[head] for head in HEADS[4:9]), seconds), flush=True)
    for problem in books["problems"][: options.show]:
        print(f"    {problem}"[:100])
    return books["points"], not (books["lost"] or books["twice"] or books["leaked"])


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.strip().split("\n")[0])
    parser.add_argument("--every", type=int, default=1, help="of so many bytecodes one")
    parser.add_argument("--show", type=int, default=5, help="problems to print per cell")
    parser.add_argument("--kind", nargs="+", choices=interrupts.KINDS, default=interrupts.KINDS)
    names = tuple(interrupts.PROGRAMS)
    parser.add_argument("--program", nargs="+", choices=names, default=names)
    parser.add_argument("--cell", nargs=4, help=argparse.SUPPRESS)
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
