"""The crash lab in small, and its judge; `tools/crashlab.py` runs it at length."""

import random

import pytest

from tests.crashlab import child, control
from tests.crashlab.lab import PROGRAMS
from tests.crashlab.runner import Judged, judge, run_all
from tests.kernel import uring_refusal

RUNS_PER_PROGRAM = 2
JOBS = 2


@pytest.mark.timeout(240)
def test_misuse_does_no_harm(request: pytest.FixtureRequest) -> None:
    """No program, however careless, is killed by a signal, hangs, or sees wrong bytes."""
    assert child.main
    seed = random.randrange(1 << 32)
    names = [name for name in PROGRAMS for _ in range(RUNS_PER_PROGRAM)]
    bad: list[Judged] = []
    tallies = run_all(
        ((name, seed + number) for number, name in enumerate(names)),
        JOBS,
        lambda one: bad.append(one) if one.kind != "ok" else None,
    )
    assert not bad, "\n".join(f"{one}\n{one.output}" for one in bad)
    assert sum(tally.counts["ok"] for tally in tallies.values()) == len(names) >= 40


@pytest.mark.skipif(uring_refusal() is not None, reason=f"no io_uring here: {uring_refusal()}")
def test_the_same_on_the_bare_ring_does_harm() -> None:
    """The lab can fail: without an owner for memory and descriptors each kind of misuse tells."""
    runs = ((name, seed) for name in control.PROGRAMS for seed in range(2))
    tallies = run_all(runs, JOBS, module=control.__name__)
    harmed = {
        name for name, tally in tallies.items() if tally.counts["crash"] or tally.counts["wrong"]
    }
    assert harmed == set(control.PROGRAMS)


@pytest.mark.parametrize(
    ("status", "stdout", "stderr", "kind"),
    [
        (0, "verdict ok, status 0\n", "", "ok"),
        (7, "verdict ok, status 7\n", "a warning", "ok"),
        (None, "verdict ok, status 0\n", "", "hang"),
        (-11, "verdict ok, status 0\n", "", "crash"),
        (0, "verdict ok, status 0\n", "Fatal Python error: pymalloc", "crash"),
        (0, "", "", "wrong"),
        (1, "verdict ok, status 0\n", "", "wrong"),
    ],
)
def test_ends_are_told_apart(status: int | None, stdout: str, stderr: str, kind: str) -> None:
    """Signals, fatal errors, deadlines, missing verdicts and other statuses are each seen."""
    assert judge(status, stdout, stderr)[0] == kind
