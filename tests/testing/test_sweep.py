"""The sweep of `make sim`, in small: it counts, it judges, and it fails where it must."""

from collections import Counter

import pytest

from tests.testing import scenarios
from tests.testing.stage import Stage
from tools import sim
from uringio import testing


@pytest.mark.parametrize("name", sim.SCENARIOS)
@pytest.mark.parametrize("seed", [0, 5])
def test_scenario_is_well_after_the_storm(name: str, seed: int) -> None:
    """On io_uring (0) and on epoll (5): nothing violated, many faults, and soon alive again."""
    tally = sim.run_one(name, seed)
    assert not tally.failures
    assert tally.violations == 0 and tally.checked["ops"] > 100 < tally.checked["buffers"]
    assert tally.least_share >= sim.FAULTS_PER_OP_MIN
    assert tally.recovery_ns <= sim.RECOVERY_NS_MAX
    assert tally.simulated_ns >= sim.STORM_NS


def test_table_is_tidy(capsys: pytest.CaptureFixture[str]) -> None:
    """What the sweep says fits into a hundred columns, and ends with its verdict."""
    assert sim.main(["--seeds", "3", "--jobs", "1", "--only", "file copy", "accept storm"]) == 0
    told = capsys.readouterr().out
    assert max(map(len, told.splitlines())) <= sim.WIDTH
    assert told.endswith("all is well\n")
    assert "0 invariants violated" in told
    assert all(state in told for state in sim.SOMETIMES)


def well(**changes: object) -> sim.Tally:
    """What a thousand seeds of one scenario might bring."""
    tally = sim.Tally(runs=1000, ops=1000, simulated_ns=10**15, least_share=0.2)
    tally.met = Counter({(0, state): 1 for state in sim.SOMETIMES.values()})
    for name, value in changes.items():
        assert hasattr(tally, name)
        setattr(tally, name, value)
    return tally


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"least_share": 0.04}, "invalid: a run of echo met 4.0 faults in 100"),
        ({"recovery_ns": 6 * 10**9}, "not well again for 6.00 s"),
        ({"violations": 1}, "1 invariants violated"),
        ({"simulated_ns": 10**9}, "less than 100 simulated seconds"),
        ({"failures": ["echo: it broke"]}, "echo: it broke"),
        ({"met": Counter()}, "never met in a thousand seeds from 0 on: overflow, orphaned CQE"),
    ],
)
def test_sweep_fails_where_it_must(
    changes: dict[str, object], problem: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of the promises is judged, and a sweep that keeps them all passes."""
    monkeypatch.setattr(sim, "SCENARIOS", {"echo": sim.SCENARIOS["echo"]})
    seeds = range(1000)
    good, bad = well(), well(**changes)
    assert sim.judge({"echo": good}, good, seeds, 1.0) == []
    problems = sim.judge({"echo": bad}, bad, seeds, 1.0)
    assert len(problems) == 1 and problem in problems[0]


async def fails() -> Stage:
    await scenarios.echo(1)
    raise ArithmeticError("on purpose")


def test_failure_is_told_with_its_command(monkeypatch: pytest.MonkeyPatch) -> None:
    """What goes wrong in a scenario is one line and one command, and the sweep goes on."""
    monkeypatch.setitem(sim.SCENARIOS, "echo", (fails, testing.STORM))
    tally = sim.run_one("echo", 4)
    (told,) = tally.failures
    first, command = told.splitlines()
    assert first == "echo: ArithmeticError: on purpose"
    assert "--seed 4 --profile 5.19 --faults 'delay=" in command
