"""`uringio bench`'s suites of questions: what is asked, shown, stored, held to a budget."""

import json
import resource
import shutil
from pathlib import Path

import pytest

from uringio.cli import main
from uringio.cli.bench import document, findings_shown, regression
from uringio.cli.bench.findings import Answer, Budget, Findings, Question, Verdict, load
from uringio.cli.bench.result import ResultError
from uringio.cli.bench.tables import WIDTH

WAIT = Question("wait", "how long it waits", "ns", ("beside it",))
SIZE = Question("size", "how large it is", "KiB")


def found(ours: float = 60.0, rounds: int = 4) -> Findings:
    """Make up answers, of which the rival's are 100 and a bit."""
    answers = [
        Answer("wait", name, index, value + index, {"beside it": 7.5})
        for name, value in (("asyncio", 100.0), ("uringio-native", ours))
        for index in range(rounds)
    ]
    return Findings(
        suite="ops",
        machine={"kernel": "6.18", "python": "3.11", "implementation": "CPython", "commit": "x"}
        | {"processor": "a <processor>", "versions": {"uvloop": "1", "trio": None}},
        settings={"rounds": rounds},
        questions=[WAIT, SIZE],
        contenders=["uringio-native", "asyncio"],
        skipped={"uvloop": "uvloop is not installed"},
        answers=[*answers, Answer("size", "uringio-native", 0, 3.0)],
    )


def stored(what: Findings, folder: Path) -> Path:
    path = folder / "stored.json"
    path.write_text(json.dumps(what.as_json()), encoding="utf-8")
    return path


def test_findings_survive_their_json(tmp_path: Path) -> None:
    """What was written is read back equal; a file of another suite is refused."""
    path = stored(found(), tmp_path)
    assert load(path, "ops") == found()
    with pytest.raises(ResultError, match="uringio bench memory"):
        load(path, "memory")
    assert main(["bench", "--report", str(path)]) == 2


def test_tables_fit_a_terminal_and_hold_every_ratio() -> None:
    """Within 80 columns, ours first, each ratio of ours to a rival with its range."""
    lines = [line for one in (WAIT, SIZE) for line in findings_shown.of_question(found(), one)]
    assert max(map(len, lines)) <= WIDTH
    assert [line.split()[0] for line in lines[2:4]] == ["uringio-native", "asyncio"]
    assert "asyncio                  0.61 [0.60-0.61]" in lines


@pytest.mark.parametrize(("most", "is_held"), [(0.7, True), (0.5, False)])
def test_budget_is_of_a_rival_or_of_nobody(most: float, is_held: bool) -> None:
    """A ratio is held against a rival of the same rounds, a figure in its own unit."""
    budgets = [
        Budget("wait", "uringio-native", "asyncio", most),
        Budget("size", "uringio-native", None, 3.0),
        Budget("wait", "uringio-native", "uvloop", 1.0),
    ]
    ratio, size = found().verdicts(budgets)
    assert (ratio.is_held, ratio.unit) == (is_held, "")
    assert (size.is_held, size.unit, size.measured) == (True, "KiB", 3.0)
    assert ("EXCEEDED" in str(ratio)) is not is_held


def test_page_shows_what_is_missed_first(tmp_path: Path) -> None:
    """Budgets that are exceeded stand before those that are held; nothing on it is markup."""
    budgets = [
        Budget("size", "uringio-native", None, 9.0),
        Budget("wait", "uringio-native", "asyncio", 0.5),
    ]
    path = findings_shown.write_page(found(), "A & B", "", budgets, [], tmp_path / "page.html")
    text = path.read_text(encoding="utf-8")
    assert 0 < text.index("EXCEEDED") < text.index("held</span>")
    assert "1 of 2 budgets are held" in text
    assert "A &amp; B" in text
    assert "<processor>" not in text
    assert "uvloop is not installed" in text


def test_many_budgets_are_a_table_of_places() -> None:
    """Whoever has budgets in many places has one line, with what was measured in each."""
    places = [f"{size} B" for size in range(7)]
    many = [
        Verdict(who, place, 1.1, 1.0)
        for who in ("uringio-native / uvloop", "uringio-aio / uvloop")
        for place in places
    ]
    text = document.verdicts([*many[:-1], Verdict("uringio-aio / uvloop", "6 B", 0.9, 1.0)])
    assert "1 of 14 budgets are held" in text
    assert text.count("<tr") == 3
    assert text.count('<span class="worse">1.100</span>') == 13
    assert all(f"<th>{place}</th>" in text for place in places)
    assert document.verdicts([]) == ""


@pytest.mark.parametrize(("ours", "is_worse"), [(61.0, False), (70.0, True)])
def test_baseline_is_small_and_holds_ratios_only(
    ours: float, is_worse: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What `--save-baseline` wrote serves `--baseline`, and names versions that have changed."""
    path, then = stored(found(), tmp_path), tmp_path / "bench" / "then.json"
    arguments = ["bench", "ops", "--report", str(path), "--out", str(tmp_path / "shown")]
    assert main([*arguments, "--save-baseline", str(then)]) == 0
    held = json.loads(then.read_text(encoding="utf-8"))
    assert [(row["contender"], row["rival"]) for row in held["ratios"]] == [
        ("uringio-native", "asyncio")
    ]
    assert "answers" not in held
    now = found(ours)
    now.machine["versions"] = {"uvloop": "2", "trio": "1"}
    arguments[3] = str(stored(now, tmp_path))
    assert main([*arguments, "--baseline", str(then)]) == is_worse
    said = capsys.readouterr().out
    assert "the baseline is of another uvloop: 2, was 1" in said
    assert ("WORSE: uringio-native / asyncio, wait" in said) is is_worse


def test_baseline_of_echo_is_not_one_of_operations(tmp_path: Path) -> None:
    """A baseline belongs to its suite."""
    regression.save(tmp_path / "echo.json", "echo", {}, [])
    assert regression.stored(tmp_path / "echo.json", "echo").medians == {}
    with pytest.raises(ResultError, match="uringio bench ops"):
        regression.stored(tmp_path / "echo.json", "ops")


def test_operations_are_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each contender answers in a process of its own; epoll's has no ring to ask."""
    arguments = ["--rounds", "1", "--contenders", "uringio-native-epoll,asyncio"]
    assert main(["bench", "ops", *arguments, "--out", str(tmp_path)]) == 0, capsys.readouterr().err
    (written,) = tmp_path.glob("*.json")
    measured = load(written, "ops")
    assert {one.name for one in measured.questions} == {one.question for one in measured.answers}
    assert all(one.value > 0 for one in measured.answers)
    assert measured.ratio("await", "uringio-native-epoll", "asyncio") is not None
    assert "ratio to" in capsys.readouterr().out


@pytest.mark.parametrize("wrong", [("--contenders", "nobody"), ("--rounds", "0"), ("--cpus", "x")])
def test_wrong_arguments_are_refused(
    wrong: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    """What cannot be measured is refused before anything runs, naming what was given."""
    assert main(["bench", "ops", *wrong]) == 2
    assert wrong[1] in capsys.readouterr().err


def test_forms_are_compared_with_their_like() -> None:
    """Streams are not held against Protocol; what has no such forms is, with either."""
    names = ("uringio-native", "uringio-aio-streams", "uvloop-streams", "uvloop-protocol")
    made = found()
    made.answers = [Answer("wait", name, 0, 2.0) for name in names]
    pairs = {(row["contender"], row["rival"]) for row in made.ratios()}
    assert ("uringio-aio-streams", "uvloop-streams") in pairs
    assert ("uringio-aio-streams", "uvloop-protocol") not in pairs
    assert ("uringio-native", "uvloop-protocol") in pairs


def test_memory_is_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A server with its connections idle, and operations in flight, each in a fresh process."""
    arguments = ["--rounds", "1", "--connections", "200", "--contenders"]
    arguments += ["uringio-native-epoll,asyncio-streams,asyncio", "--out", str(tmp_path)]
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert main(["bench", "memory", *arguments]) == 0, capsys.readouterr().err
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == before
    (written,) = tmp_path.glob("*.json")
    measured = load(written, "memory")
    assert {(one.contender, one.question) for one in measured.answers} == {
        ("uringio-native-epoll", "connection"),
        ("uringio-native-epoll", "rss"),
        ("uringio-native-epoll", "op"),
        ("uringio-native-epoll", "task"),
        ("asyncio-streams", "connection"),
        ("asyncio-streams", "rss"),
        ("asyncio", "op"),
        ("asyncio", "task"),
    }
    assert all(one.value >= 0 for one in measured.answers)


@pytest.mark.skipif(shutil.which("wrk") is None, reason="no wrk on PATH")
def test_uvicorn_is_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An answer to wrk is measured on our loop, with either parser; without uvicorn it says so."""
    arguments = ["--rounds", "1", "--seconds", "1", "--warm", "0", "--heap", "fresh"]
    arguments += ["--connections", "10", "--contenders", "uringio-aio", "--out", str(tmp_path)]
    assert main(["bench", "uvicorn", *arguments]) == 0, capsys.readouterr().err
    (written,) = tmp_path.glob("*.json")
    measured = load(written, "uvicorn")
    if measured.skipped:
        pytest.skip(measured.skipped["uringio-aio"])
    assert [one.question for one in measured.answers] == ["h11-fresh", "httptools-fresh"]
    assert all(one.value > 0 for one in measured.answers)


def test_uvicorn_needs_its_load(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without wrk nothing is measured, and the reason is told with status 2."""
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main(["bench", "uvicorn"]) == 2
    assert "no wrk on PATH" in capsys.readouterr().err
