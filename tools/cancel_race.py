"""
The cancel race at length: ``python tools/cancel_race.py --count 1000000``.

Runs `tests.surface.cancel_race`, which says what races and what is accounted for, on both
schedulers and all drivers, each with an equal part of the receives, and prints what became of
them.  The exit status is 1 if a byte, a buffer, a descriptor or an operation was lost.
"""

import argparse
import os
import random
import sys
import traceback
from contextlib import nullcontext
from itertools import product
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "src")]

from tests.kernel import uring_refusal  # noqa: E402 - the path comes first
from tests.surface import schedulers  # noqa: E402 - likewise
from tests.surface.cancel_race import Figures, Race  # noqa: E402 - likewise
from tests.surface.sweep import oldest_ring  # noqa: E402 - likewise

OLDEST_RING = "uring-5.19"  # where completions come at any system call
BACKENDS = ("uring", OLDEST_RING, "epoll")
HEADS = ("scheduler", "driver", "receives", "cancelled", "kept", "done first", "MB", "seconds")
ROW = "{:9} {:10} {:>9} {:>9} {:>8} {:>10} {:>8} {:>7}"


def main(argv: list[str] | None = None) -> int:
    """Run the races that were asked for; 1 if one of them lost something."""
    options = parse(argv)
    backends = [one for one in options.backend if one == "epoll" or not uring_refusal()]
    if refusal := uring_refusal():
        print(f"no uring driver here: {refusal}")
    print(f"seed {options.seed}, Python {sys.version.split()[0]}, {os.uname().release}")
    print(ROW.format(*HEADS))
    cells = list(product(options.scheduler, backends))
    total, failed = Figures(), 0
    for name, backend in cells:
        scheduler = schedulers.make(name, backend.partition("-")[0])
        race = Race(scheduler, -(-options.count // len(cells)), options.seed)
        try:
            with oldest_ring() if backend == OLDEST_RING else nullcontext():
                figures = race.run()
        except Exception:
            traceback.print_exc()
            failed += 1
            continue
        print_row(name, backend, figures)
        for field in ("receives", "cancelled", "too_late", "outrun", "received_bytes", "seconds"):
            setattr(total, field, getattr(total, field) + getattr(figures, field))
        for kind, count in figures.by_kind.items():
            total.by_kind[kind] += count
    print_row("all", "", total)
    kinds = ", ".join(f"{count} {kind}" for kind, count in total.by_kind.items())
    print(f"receives by kind: {kinds}")
    print(
        f"{failed} races failed"
        if failed
        else "every stream was byte-exact; no buffer, descriptor or operation was lost"
    )
    return 1 if failed else 0


def print_row(name: str, backend: str, figures: Figures) -> None:
    """Print one line; *kept*: receives whose bytes came although they were cancelled."""
    megabytes = f"{figures.received_bytes / 1e6:.0f}"
    print(
        ROW.format(
            name, backend, figures.receives, figures.cancelled, figures.too_late, figures.outrun,
            megabytes, f"{figures.seconds:.1f}",
        ),
        flush=True,
    )  # fmt: skip


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.strip().split("\n")[0])
    parser.add_argument("--count", type=int, default=1_000_000, help="receives in all")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**32))
    parser.add_argument(
        "--scheduler", nargs="+", choices=schedulers.NAMES, default=schedulers.NAMES
    )
    parser.add_argument("--backend", nargs="+", choices=BACKENDS, default=BACKENDS)
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
