"""
Same seed, same trace: on every Python, and for every hash seed.

``python -m tools.determinism --pythons python3.11 python3.12 python3.13 --seeds 200`` runs the
scenarios of `tools.sim` with each interpreter and each hash seed, in a process of its own, and
compares the hashes of all their traces.  Each interpreter must have what `tests` imports.
"""

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ROW = "{:44} {:>10} {:>7} {:>10}  {}"


def main(arguments: list[str] | None = None) -> int:
    """Compare; 0 if all traces are the same."""
    parser = argparse.ArgumentParser(description="Compare the traces of simulated runs.")
    parser.add_argument("--pythons", nargs="+", default=[sys.executable], help="interpreters")
    parser.add_argument("--hash-seeds", nargs="+", default=["0", "1", "4711"])
    parser.add_argument("--seeds", type=int, default=200)
    parser.add_argument("--only", nargs="+", help="of the scenarios")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes")
    options = parser.parse_args(arguments)
    more = ["--seeds", str(options.seeds), "--jobs", str(options.jobs), "--hashes"]
    more += ["--only", *options.only] if options.only else []
    print(ROW.format("interpreter", "hash seed", "seeds", "seconds", "traces"))
    wanted: list[str] | None = None
    differing = 0
    for python in options.pythons:
        for hash_seed in options.hash_seeds:
            began = time.monotonic()
            traces = traces_of(python, hash_seed, more)
            wanted = wanted or traces
            word = "the same" if traces == wanted else _difference(wanted, traces)
            differing += traces != wanted
            took = time.monotonic() - began
            name = python if len(python) <= 44 else f"...{python[-41:]}"
            print(ROW.format(name, hash_seed, len(traces), f"{took:.1f}", word), flush=True)
    runs = len(options.pythons) * len(options.hash_seeds)
    print(f"{differing} of {runs} runs of {options.seeds} seeds differ from the first")
    return 1 if differing else 0


def traces_of(python: str, hash_seed: str, more: list[str]) -> list[str]:
    """Return a line for each seed: its number, and the trace hash of each scenario."""
    ran = subprocess.run(
        [python, "-B", "-m", "tools.sim", *more],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src"), "PYTHONHASHSEED": hash_seed},
        capture_output=True,
        text=True,
        check=False,
    )
    if ran.returncode:
        raise SystemExit(f"{python} failed:\n{ran.stderr}")
    return ran.stdout.splitlines()


def _difference(wanted: list[str], found: list[str]) -> str:
    """Say where two lists part."""
    for one, other in zip(wanted, found, strict=False):
        if one != other:
            seed, *hashes = one.split()
            at = [a != b for a, b in zip(hashes, other.split()[1:], strict=True)].index(True)
            return f"seed {seed} differs in scenario {at + 1}"
    return f"{len(found)} seeds instead of {len(wanted)}"


if __name__ == "__main__":
    sys.exit(main())
