"""`uringio bench`: who takes part, what is shown and stored, and when a run counts as worse."""

import errno
import json
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.cli.refused import SETUP, refusing
from tests.fresh import FreshPython
from uringio.cli import main
from uringio.cli.bench import page, regression, tables
from uringio.cli.bench.compiling import CompileError, compiled
from uringio.cli.bench.options import options
from uringio.cli.bench.result import Result, ResultError, load
from uringio.cli.bench.rivals import CONTENDERS, AbsentError, Contender, by_name, default_names
from uringio.cli.bench.sample import Cell, Sample
from uringio.cli.bench.suites import SUITES

CELL = Cell(64, 50)


def sample(contender: str, round_index: int, cpu_us: float, **changes: int) -> Sample:
    """Make up one sample of 1000 messages in a tenth of a second."""
    fields: dict[str, object] = {
        "contender": contender,
        "heap": "fresh",
        "size_bytes": CELL.size_bytes,
        "connections": CELL.connections,
        "in_flight": CELL.in_flight,
        "round": round_index,
        "messages": 1000,
        "elapsed_ns": 100_000_000,
        "cpu_ns": round(cpu_us * 1_000_000),
        "user_ns": 5_000_000,
        "system_ns": 5_000_000,
        "waiting_ns": 0,
        "faults_minor": 2000,
        "sleeps": 10,
        "client_cpu_ns": 1_000_000,
        "p50_ns": 400_000,
        "p99_ns": 900_000,
        "p999_ns": 1_200_000,
        "max_ns": 2_000_000,
        "ring": True,
        **changes,
    }
    return Sample(**fields)  # type: ignore[arg-type]


def made_up(ours_us: float = 6.0, names: tuple[str, ...] = ("uvloop-protocol", "trio")) -> Result:
    """Make up a result of four rounds, in which everyone else takes 5 us and a bit."""
    samples = [sample("uringio-native", index, ours_us + index / 100) for index in range(4)]
    samples += [sample(name, index, 5 + index / 100) for name in names for index in range(4)]
    return Result(
        machine={"kernel": "6.18", "python": "3.11", "implementation": "CPython", "commit": "x"}
        | {"processor": "a <processor> & co"},
        client="c",
        spin=False,
        server_cpu=1,
        client_cpu=0,
        warm_seconds=0.2,
        seconds=0.1,
        rounds=4,
        heaps=["fresh"],
        skipped={"gevent": "gevent is not installed"},
        samples=samples,
        counted=[sample("trio", -1, 9, syscalls=2870)],
    )


def stored(result: Result, folder: Path) -> Path:
    path = folder / "stored.json"
    path.write_text(json.dumps(result.as_json()), encoding="utf-8")
    return path


def test_result_survives_its_json(tmp_path: Path) -> None:
    """What was written is read back equal, samples and counts included."""
    result = made_up()
    assert load(stored(result, tmp_path)) == result


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"benchmark": "echo", "format": 1}'])
def test_other_files_are_no_results(
    text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file of something else, or of an older format, is refused in one line with status 2."""
    path = tmp_path / "other.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ResultError):
        load(path)
    assert main(["bench", "--report", str(path)]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_table_fits_a_terminal() -> None:
    """No line is wider than 80 columns, whoever takes part and however large the figures."""
    result = made_up(names=tuple(one.name for one in CONTENDERS[1:]))
    result.samples += [
        sample(one.name, 9, 12345.678, p999_ns=99_999_000, waiting_ns=90_000_000)
        for one in CONTENDERS
    ]
    lines = tables.of_cell(result, CELL, "fresh") + list(tables.LEGEND)
    assert [line for line in lines if len(line) > tables.WIDTH] == []
    assert sum(line.startswith("c-io-uring ") for line in lines) >= 2


def test_ratio_is_the_median_within_rounds() -> None:
    """Each round's cost is divided by the rival's of the same round; rounds of one only are out."""
    result = made_up(names=())
    result.samples = [sample("uringio-native", index, cost) for index, cost in enumerate((2, 6, 9))]
    result.samples += [sample("trio", index, cost) for index, cost in enumerate((4, 4))]
    (row,) = (one for one in result.ratios() if one["contender"] == "uringio-native")
    assert row["rival"] == "trio"
    ratio = row["cpu_ratio"]
    assert isinstance(ratio, dict)
    assert (ratio["low"], ratio["median"], ratio["high"]) == (0.5, 1.0, 1.5)


def test_counted_system_calls_stand_beside_their_contender() -> None:
    """Calls per message come from the counting round, which no figure of cost does."""
    rows = {row.name: row for row in tables.figures(made_up(), CELL, "fresh")}
    assert rows["trio"].syscalls == 2.87
    assert rows["uvloop-protocol"].syscalls is None
    assert rows["trio"].cost_us.high < 6


@pytest.mark.parametrize(("ours_us", "is_worse"), [(6.0, False), (6.2, False), (7.0, True)])
def test_run_is_worse_when_its_ratios_are(ours_us: float, is_worse: bool, tmp_path: Path) -> None:
    """A ratio beyond the tolerance is worse; ratios between rivals are nobody's regression."""
    baseline = regression.stored(stored(made_up(6.0), tmp_path), "echo")
    changes = regression.changes(baseline, made_up(ours_us).ratios(), tolerance=0.05)
    assert {change.key[1:] for change in changes} == {
        ("uringio-native", "uvloop-protocol"),
        ("uringio-native", "trio"),
    }
    assert [change.is_worse for change in changes] == [is_worse, is_worse]


def test_command_compares_two_stored_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`--report` with `--baseline` measures nothing; its status says whether ratios are worse."""
    (tmp_path / "then").mkdir()
    before, after = stored(made_up(6.0), tmp_path / "then"), stored(made_up(8.0), tmp_path)
    arguments = ["bench", "--report", str(after), "--out", str(tmp_path / "shown"), "--baseline"]
    assert main([*arguments, str(before)]) == 1
    said = capsys.readouterr().out
    assert "WORSE: uringio-native / trio, 64 B x 50, fresh: 1.60, was 1.20 (+33.3%)" in said
    assert main([*arguments, str(after)]) == 0
    assert (tmp_path / "shown" / "stored.html").is_file()


def test_page_says_everything_and_trusts_nothing(tmp_path: Path) -> None:
    """Everyone measured or skipped is on it; what the machine calls itself is no markup."""
    text = page.write_page(made_up(), [], tmp_path / "page.html").read_text(encoding="utf-8")
    for name in ("uringio-native", "uvloop-protocol", "trio", "gevent is not installed"):
        assert name in text
    assert "a &lt;processor&gt; &amp; co" in text
    assert "<processor>" not in text


@pytest.mark.skipif(find_spec("matplotlib") is None, reason="no matplotlib: the [bench] extra")
def test_charts_are_svg_and_png(fresh_python: FreshPython, tmp_path: Path) -> None:
    """Cost and latency are drawn in both formats; alone, since matplotlib keeps its fonts open."""
    code = "import sys; from uringio.cli import main; sys.exit(main(sys.argv[1:]))"
    path = stored(made_up(), tmp_path)
    fresh_python(code, "bench", "--report", str(path), options=()).check()
    for kind in ("cpu", "latency"):
        drawn = tmp_path / f"stored-{kind}-fresh"
        assert drawn.with_suffix(".svg").read_bytes().startswith(b"<?xml")
        assert drawn.with_suffix(".png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    assert path.with_suffix(".html").read_text(encoding="utf-8").count("<img ") == 2


def test_names_choose_contenders() -> None:
    """A star takes all that begin so; nobody is taken twice; a name that nobody has is refused."""
    assert [one.name for one in by_name("trio,c-*,trio")] == ["trio", "c-epoll", "c-io-uring"]
    with pytest.raises(ValueError, match="unknown: nobody"):
        by_name("nobody")


def test_default_has_one_fallback() -> None:
    """Beside io_uring the native form runs on the backend asked for, and on no other."""
    names = default_names("poll").split(",")
    assert [name for name in names if name.startswith("uringio-native")] == [
        "uringio-native",
        "uringio-native-poll",
    ]


def test_contender_that_cannot_be_had_says_why(tmp_path: Path) -> None:
    """A package that is not installed, and a source that no compiler takes, are told apart."""
    with pytest.raises(AbsentError, match="no_such_loop is not installed"):
        Contender("absent", "trio_streams.py", needs="no_such_loop").command(tmp_path, 0, 1)
    source = tmp_path / "broken.c"
    source.write_text("#error not on this system\n", encoding="utf-8")
    with pytest.raises(CompileError, match=r"no C compiler|not on this system"):
        compiled(source, tmp_path)


def test_list_names_everyone(capsys: pytest.CaptureFixture[str]) -> None:
    """`--list` measures nothing and tells of everyone whether they can take part, within 80."""
    assert main(["bench", "--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == [one.name for one in CONTENDERS]
    assert max(map(len, lines)) <= tables.WIDTH


def test_who_needs_a_ring_is_skipped_without(fresh_python: FreshPython, tmp_path: Path) -> None:
    """Where the kernel refuses io_uring, its C server is skipped with the errno; others go on."""
    code = refusing([SETUP], errno.EPERM)
    code += "import sys; from uringio.cli import main; sys.exit(main(sys.argv[1:]))"
    arguments = ["--rounds", "1", "--seconds", "0.01", "--warm", "0.01", "--heap", "fresh"]
    arguments += ["--contenders", "uringio-native,c-io-uring", "--no-syscalls"]
    run = fresh_python(code, "bench", *arguments, "--out", str(tmp_path)).check()
    assert "note: uringio-native has no ring here" in run.stdout
    told = next(line for line in run.stdout.splitlines() if line.startswith("skipped: c-io-uring"))
    assert "no C compiler" in told or f"io_uring_setup: errno {errno.EPERM:d}" in told


def test_no_compiler_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a compiler the servers in C do not take part, and the reason is theirs to print."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    with pytest.raises(AbsentError, match="no C compiler on PATH"):
        by_name("c-epoll")[0].command(tmp_path, 0, 1)


@pytest.mark.parametrize(
    "wrong",
    [
        ("--sizes", "big"),
        ("--rounds", "0"),
        ("--contenders", "nobody"),
        ("--heap", "old"),
        ("--cpus", "1"),
        ("--cpus", "100000,100001"),
        ("--baseline", "/nowhere/at/all.json"),
    ],
)
def test_wrong_arguments_are_refused(
    wrong: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    """What cannot be measured is refused before anything runs, naming what was given."""
    assert main(["bench", *wrong]) == 2
    said = capsys.readouterr()
    assert wrong[1] in said.err
    assert said.out == ""


def test_other_systems_are_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where there is no Linux it says so, and does not fail by a missing call."""
    monkeypatch.setattr("sys.platform", "darwin")
    assert main(["bench", "--list"]) == 2
    assert "needs Linux" in capsys.readouterr().err


def test_quick_leaves_what_was_asked_for() -> None:
    """`--quick` shortens only what was not said."""
    given = options(["--quick", "--rounds", "7", "--sizes", "1k,64"])
    assert (given.rounds, given.seconds, given.sizes) == (7, 0.2, [1024, 64])


@pytest.mark.parametrize(
    ("client", "names", "in_flight"),
    [("python", "uringio-native", 1), ("c", "asyncio-sock,c-epoll,c-io-uring", 5)],
)
def test_command_measures(
    client: str,
    names: str,
    in_flight: int,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """
    Real servers under a real load, in C too where it can be compiled: every file is written.

    The load client compares every byte that comes back, so that order holds with more than a
    socket's room of bytes in flight.
    """
    arguments = ["--rounds", "1", "--seconds", "0.01", "--warm", "0.01", "--heap", "fresh"]
    arguments += ["--sizes", "100k", "--connections", "3", "--no-syscalls", "--client", client]
    arguments += ["--in-flight", str(in_flight)]
    status = main(["bench", *arguments, "--contenders", names, "--out", str(tmp_path)])
    said = capsys.readouterr()
    if status == 2 and client == "c":
        pytest.skip(said.err.strip())
    assert status == 0, said.err + said.out
    (written,) = tmp_path.glob("*.json")
    result = load(written)
    measured = {one.contender for one in result.samples}
    assert measured
    assert measured | set(result.skipped) == set(names.split(","))
    assert all(one.messages >= 3 * in_flight and one.cpu_ns > 0 for one in result.samples)
    assert written.with_suffix(".html").is_file()


def test_suites_are_named_first(capsys: pytest.CaptureFixture[str]) -> None:
    """Echo runs with and without its name; another name is refused, telling which there are."""
    assert main(["bench", "echo", "--list"]) == main(["bench", "--list"]) == 0
    first, second = capsys.readouterr().out.split("uringio-native ")[1:]
    assert first == second
    assert main(["bench", "ecko"]) == 2
    assert "echo" in capsys.readouterr().err
    assert all(len(one.what) <= 60 for one in SUITES.values())


def test_each_suite_is_imported_alone(fresh_python: FreshPython) -> None:
    """What one suite needs is not imported for the help of another, and has a help of its own."""
    told = fresh_python(
        """
        import contextlib, io, sys
        from uringio.cli import bench
        from uringio.cli.bench.suites import SUITES
        modules = {f"uringio.cli.bench.{name}" for name in SUITES}
        for name in reversed(SUITES):
            with contextlib.redirect_stdout(io.StringIO()) as out:
                assert bench.main([name, "--help"]) == 0
            assert out.getvalue().startswith("usage: uringio bench")
            assert modules & set(sys.modules) == {f"uringio.cli.bench.{name}"}
            for module in list(sys.modules):
                if module.startswith("uringio.cli.bench."):
                    del sys.modules[module]
        """
    )
    told.check()
