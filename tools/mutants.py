"""
The mutants: ``make mutants``, or ``python tools/mutants.py --only 3 17``, or ``make mutants-sim``.

Applies each wrong version of the library in `mutant_list` to a copy of the tree, runs the tests
that should notice, and prints which were killed.  A hang counts as killed.  Before that the tests
must pass on the copy as it is.  The exit status is 1 if fewer than 95 % were killed.

With ``--simulated`` the tests stay in their box, and simulation alone must notice: the scenarios of
`tools.sim` are run on a few dozen seeds, and 80 % must be killed.
"""

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT)]

from tools.mutant_list import MUTANTS, Mutant  # noqa: E402 - the path comes first

COPIED = ("src", "tests", "tools", "docs", "typings", "pyproject.toml")
TIMEOUT_S = 240.0
KILLED_SHARE_MIN = 0.95
SIMULATED_SHARE_MIN = 0.80
# No scenario uses the bare ring, and so none of these is tried under simulation.
BARE = frozenset(one.file for one in MUTANTS if one.file.startswith("lowlevel/"))
ROW = "{:>3} {:24} {:54} {:>9} {:>6}"


def main(argv: list[str] | None = None) -> int:
    """Run the mutants that were asked for; 1 if too many survived."""
    options = parse(argv)
    os.nice(10)
    seeds = options.seeds if options.simulated else 0
    chosen = [
        (n, one)
        for n, one in enumerate(MUTANTS, 1)
        if n in (options.only or [n]) and not (options.simulated and one.file in BARE)
    ]
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        trees: SimpleQueue[Path] = SimpleQueue()
        for number in range(options.jobs):
            trees.put(copy_tree(Path(folder) / str(number)))
        if not options.no_baseline:
            tests = sorted({name for _, one in chosen for name in one.tests})
            tree = trees.get()
            status, output = run(tree, command_of(tests, seeds), 10 * TIMEOUT_S)
            trees.put(tree)
            if status:
                print(output)
                print("the tests fail without any mutant")
                return 1
        print(ROW.format("", "file", "what is wrong", "", "s"))
        survivors = []
        with ThreadPoolExecutor(options.jobs) as pool:
            tried = [(n, one, pool.submit(try_one, trees, one, seeds)) for n, one in chosen]
            for number, one, future in tried:
                word, seconds = future.result()
                why = one.why if len(one.why) <= 54 else one.why[:53] + "…"
                print(ROW.format(number, one.file, why, word, f"{seconds:.1f}"), flush=True)
                if word == "SURVIVED":
                    survivors.append(number)
    killed = len(chosen) - len(survivors)
    by = " by simulation alone" if options.simulated else ""
    print(f"{killed} of {len(chosen)} killed{by} ({100 * killed / len(chosen):.0f} %)")
    share_min = SIMULATED_SHARE_MIN if options.simulated else KILLED_SHARE_MIN
    return 1 if killed < share_min * len(chosen) else 0


def copy_tree(to: Path) -> Path:
    """Copy what the tests need; the work tree itself is never changed."""
    to.mkdir()
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, to / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, to / name)
    return to


def try_one(trees: "SimpleQueue[Path]", mutant: Mutant, seeds: int) -> tuple[str, float]:
    """Apply *mutant* to a free copy, run what must notice, undo it; its end, and the seconds."""
    tree = trees.get()
    path = tree / "src" / "uringio" / mutant.file
    text = path.read_text(encoding="utf-8")
    began = time.monotonic()
    try:
        path.write_text(text.replace(mutant.old, mutant.new), encoding="utf-8")
        status, output = run(tree, command_of(mutant.tests, seeds), TIMEOUT_S)
    finally:
        path.write_text(text, encoding="utf-8")
        trees.put(tree)
    word = {0: "SURVIVED", None: "hung"}.get(status, "killed")
    if status not in {0, 1, None} and status is not None and status > 0:
        word = "killed" if "error" in output.lower() else "BROKEN"
    return word, time.monotonic() - began


def command_of(tests: Iterable[str], seeds: int) -> list[str]:
    """Return what must notice: these test files, or the simulation of so many *seeds*."""
    if seeds:
        return [sys.executable, "-B", "-m", "tools.sim", "--seeds", str(seeds),
                "--jobs", "1", "--fail-fast"]  # fmt: skip
    return [sys.executable, "-B", "-m", "pytest", "-q", "-x", "-m", "not slow",
            "-p", "no:cacheprovider", "--timeout=40",
            *[f"tests/{name}" for name in tests]]  # fmt: skip


def run(tree: Path, command: list[str], timeout: float) -> tuple[int | None, str]:
    """Run a command in *tree*; the exit status (None: it hung), and what was printed."""
    process = subprocess.Popen(
        command,
        cwd=tree,
        env={**os.environ, "PYTHONPATH": str(tree / "src")},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        output, _ = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        return None, ""
    return process.returncode, output


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.strip().split("\n")[0])
    parser.add_argument("--only", type=int, nargs="+", help="numbers in the list, from 1")
    parser.add_argument("--jobs", type=int, default=2, help="how many at a time")
    parser.add_argument("--simulated", action="store_true", help="by simulation, without tests")
    parser.add_argument("--seeds", type=int, default=48, help="simulated, for each mutant")
    parser.add_argument("--no-baseline", action="store_true", help="trust that all tests pass")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
