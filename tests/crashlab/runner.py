"""Run programs of the crash lab in processes of their own, and judge how they end."""

import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.surface.schedulers import with_tests

__all__ = ["CLASSES", "Judged", "Tally", "allocator", "judge", "run_all"]

ROOT = Path(__file__).resolve().parents[2]
# What may become of a run.
CLASSES = ("ok", "crash", "hang", "wrong")
# A run still going after this long hangs, on however busy a machine. [seconds]
DEADLINE_S = 60.0
_VERDICT = re.compile(r"^verdict ok, status (\d+)$", re.MULTILINE)
# Allocators that notice what the usual one may overlook; each run draws one.
_ALLOCATORS: tuple[dict[str, str], ...] = (
    {},
    {},
    {"PYTHONMALLOC": "debug"},
    {"PYTHONMALLOC": "malloc_debug", "MALLOC_PERTURB_": "165"},
    {"PYTHONMALLOC": "malloc", "MALLOC_PERTURB_": "90", "MALLOC_CHECK_": "3"},
)


@dataclass(frozen=True)
class Judged:
    """
    How one run ended.

    Attributes:
        kind: One of `CLASSES`.
        how: The signal, the exit status, or what was expected instead.
        output: What it wrote, the end of it.
    """

    program: str
    seed: int
    kind: str
    how: str
    output: str
    seconds: float


@dataclass
class Tally:
    """What became of one program's runs."""

    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(CLASSES, 0))
    seconds: float = 0.0

    def add(self, one: Judged) -> None:
        self.counts[one.kind] += 1
        self.seconds += one.seconds


def allocator(seed: int) -> dict[str, str]:
    """Return the variables that choose the allocator of a run, which belongs to what it draws."""
    return random.Random(seed).choice(_ALLOCATORS)


def judge(status: int | None, stdout: str, stderr: str) -> tuple[str, str]:
    """
    Say what a run's end means.

    Args:
        status: As of `subprocess`; None if it had to be killed.
    """
    if status is None:
        return "hang", f"still running after {DEADLINE_S:.0f} s"
    if status < 0:
        return "crash", signal.Signals(-status).name
    if "Fatal Python error" in stderr:
        return "crash", "a fatal error of the interpreter"
    verdicts = _VERDICT.findall(stdout)
    if not verdicts:
        return "wrong", f"no verdict, status {status}"
    if status != int(verdicts[-1]):
        return "wrong", f"status {status} in place of {verdicts[-1]}"
    return "ok", ""


def run_all(
    runs: Iterable[tuple[str, int]],
    jobs: int,
    note: Callable[[Judged], object] = lambda _: None,
    module: str = "tests.crashlab.child",
) -> dict[str, Tally]:
    """
    Run programs with seeds, so many at a time.

    Args:
        runs: Program and seed of each.
        jobs: How many run at the same time. [count]
        note: Hears of each run's end.
        module: What is run.
    """
    tallies: dict[str, Tally] = {}
    waiting = iter(runs)
    running: list[_Run] = []
    try:
        while True:
            while len(running) < jobs and (chosen := next(waiting, None)) is not None:
                running.append(_Run(module, *chosen))
            if not running:
                return tallies
            for ended in _ended(running):
                judged = ended.judged()
                tallies.setdefault(judged.program, Tally()).add(judged)
                note(judged)
    finally:
        for one in running:
            one.kill()


def _ended(running: "list[_Run]") -> "Iterator[_Run]":
    """Wait until at least one of them has ended or is overdue, and take those out."""
    while True:
        over = [one for one in running if one.is_over()]
        if over:
            for one in over:
                running.remove(one)
            yield from over
            return
        time.sleep(0.005)


class _Run:
    """A program that runs, in a session of its own, so that nothing of it is left behind."""

    def __init__(self, module: str, program: str, seed: int) -> None:
        self.program = program
        self.seed = seed
        # Closed when judged.
        self._out = tempfile.TemporaryFile("w+", errors="replace")  # noqa: SIM115
        self._err = tempfile.TemporaryFile("w+", errors="replace")  # noqa: SIM115
        self._began = time.monotonic()
        self._process = subprocess.Popen(
            [sys.executable, "-X", "faulthandler", "-m", module, program, str(seed)],
            stdin=subprocess.DEVNULL,
            stdout=self._out,
            stderr=self._err,
            env={**os.environ, **with_tests(), **allocator(seed)},
            cwd=ROOT,
            start_new_session=True,
        )

    def is_over(self) -> bool:
        return self._process.poll() is not None or time.monotonic() > self._began + DEADLINE_S

    def judged(self) -> Judged:
        seconds = time.monotonic() - self._began
        status = self._process.poll()
        if status is None:  # where does it hang?
            self._process.send_signal(signal.SIGABRT)
            self._wait()
        self.kill()
        with self._out, self._err:
            self._out.seek(0)
            self._err.seek(0)
            stdout, stderr = self._out.read(), self._err.read()
        kind, how = judge(status, stdout, stderr)
        return Judged(self.program, self.seed, kind, how, (stdout + stderr)[-4000:], seconds)

    def kill(self) -> None:
        try:
            os.killpg(self._process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self._wait()

    def _wait(self) -> None:
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            pass
