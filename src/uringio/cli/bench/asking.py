"""
How the suites of questions run: arguments, rounds, tables as they come, files at the end.

A suite says who takes part, how one of them is asked once, and what it is held to; all else is the
same for every suite, and stands here.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, TypeVar

from . import findings_shown, machine, regression
from .findings import Answer, Budget, Findings, Question, load
from .options import CPUS_HELP, add_results_group, counted_rounds, two_cpus, two_cpus_of
from .result import ResultError
from .rivals import AbsentError
from .rounds import rotated
from .sample import SampleError
from .tables import WIDTH, print_lines
from .writing import write_files

_QUICK_ROUNDS = 2


class Request(argparse.Namespace):
    """
    What was asked for; a suite may add arguments of its own.
    """

    rounds: int | None
    quick: bool
    contenders: list[str] | None
    is_list: bool
    cpus: tuple[int, int]
    out: Path | None
    report: Path | None
    baseline: Path | None
    tolerance: float
    save_baseline: Path | None


R = TypeVar("R", bound=Request)
"""The arguments of one suite."""


@dataclass(frozen=True)
class Entrant:
    """
    Somebody who takes part in a suite.
    """

    name: str
    needs: tuple[str, ...] = ()
    """The packages without which it cannot."""
    is_default: bool = True
    """Whether it takes part where nobody is named."""


@dataclass(frozen=True)
class Suite(Generic[R]):
    """
    One suite of questions.
    """

    name: str
    title: str
    about: str
    """How it is measured: HTML, for the page."""
    help: str
    entrants: Sequence[Entrant]
    rounds: int
    request: type[R]
    arguments: Callable[[argparse.ArgumentParser], None]
    """Adds what only this suite has."""
    questions: Callable[[R], list[Question]]
    settings: Callable[[R], dict[str, object]]
    ask: Callable[[R, Entrant, int], list[Answer]]
    """
    Asks one contender once, in a fresh process, for the round given.

    It raises `AbsentError` where the contender cannot take part here, and `SampleError` where it
    fails.
    """
    budgets: Sequence[Budget]
    blocked: Callable[[], str | None] = field(default=lambda: None)
    """Says why nothing can be measured here at all."""


def run(suite: Suite[R], argv: Sequence[str]) -> int:
    """
    Read the arguments, measure, or read, and show; the exit status of the command.

    Raises:
        SystemExit: The arguments are wrong, or help was asked for.
    """
    request = _parser(suite).parse_args(argv, suite.request())
    if request.is_list:
        for entrant in suite.entrants:
            told = "takes part" if entrant.is_default else "by --contenders"
            print(f"{entrant.name:<24}{_missing(entrant) or told}"[:WIDTH])
        return 0
    try:
        baseline = None
        if request.baseline is not None:
            baseline = regression.stored(request.baseline, suite.name)
        found = load(request.report, suite.name) if request.report else _measured(suite, request)
    except ResultError as failure:
        print(f"uringio bench {suite.name}: {failure}", file=sys.stderr)
        return 2
    if found is None:
        return 2
    if request.report:
        print(machine.headline(found.machine))
    for question in found.questions:
        print_lines(findings_shown.of_question(found, question))
    verdicts = found.verdicts(suite.budgets)
    print_lines([*findings_shown.LEGEND, *map(str, verdicts)])
    is_worse = False
    if baseline is not None:
        is_worse, lines = regression.report(
            baseline, found.ratios(), found.machine, request.tolerance
        )
        print_lines(lines)
    if request.save_baseline is not None:
        regression.save(request.save_baseline, suite.name, found.machine, found.ratios())
        print(f"written: {request.save_baseline}")
    _write(suite, request, found)
    for name, reason in found.broken.items():
        print(f"broken: {name}: {reason}", file=sys.stderr)
    return 1 if found.broken or is_worse else 0


def _parser(suite: Suite[R]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=f"uringio bench {suite.name}",
        description=suite.help,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--rounds", type=counted_rounds, help=f"at least 10 to be quoted (default: {suite.rounds})"
    )
    parser.add_argument("--quick", action="store_true", help=f"{_QUICK_ROUNDS} rounds")
    names = [one.name for one in suite.entrants]

    def contenders(text: str) -> list[str]:
        chosen = text.split(",")
        if unknown := [name for name in chosen if name not in names]:
            raise argparse.ArgumentTypeError(
                f"unknown: {', '.join(unknown)}; known: {', '.join(names)}"
            )
        return chosen

    parser.add_argument("--contenders", type=contenders, help=", ".join(names))
    parser.add_argument(
        "--list", dest="is_list", action="store_true", help="tell who could take part here, and end"
    )
    parser.add_argument("--cpus", type=two_cpus_of, default=two_cpus(), help=CPUS_HELP)
    suite.arguments(parser)
    add_results_group(parser)
    return parser


def _measured(suite: Suite[R], request: R) -> Findings | None:
    reason = suite.blocked()
    if reason is not None:
        print(f"uringio bench {suite.name}: {reason}", file=sys.stderr)
        return None
    began = time.monotonic()
    rounds = request.rounds or (_QUICK_ROUNDS if request.quick else suite.rounds)
    wanted = request.contenders
    entrants = [one for one in suite.entrants if (one.name in wanted if wanted else one.is_default)]
    found = Findings(
        suite=suite.name,
        machine=machine.describe(),
        settings={"rounds": rounds, **suite.settings(request)},
        questions=suite.questions(request),
        contenders=[one.name for one in suite.entrants],
    )
    print(machine.headline(found.machine))
    for name, value in found.settings.items():
        print(f"{name}: {value}")
    print(flush=True)
    try:
        for index in range(rounds):
            for entrant in rotated(entrants, index):
                _ask(suite, request, entrant, index, found)
    except KeyboardInterrupt:
        print("\ninterrupted: what was measured so far is saved")
        found.broken["run"] = "interrupted"
    for name, why in found.skipped.items():
        print(f"skipped: {name}: {why}")
    print(f"took {time.monotonic() - began:.0f} s\n")
    return found


def _ask(suite: Suite[R], request: R, entrant: Entrant, index: int, found: Findings) -> None:
    if entrant.name in found.skipped or entrant.name in found.broken:
        return
    if sys.stderr.isatty():
        print(f"\r\x1b[Kround {index + 1}  {entrant.name}", end="", file=sys.stderr, flush=True)
    try:
        missing = _missing(entrant)
        if missing is not None:
            raise AbsentError(missing)
        found.answers += suite.ask(request, entrant, index)
    except AbsentError as reason:
        found.skipped[entrant.name] = str(reason)
    except SampleError as failure:
        found.broken[entrant.name] = str(failure)
    finally:
        if sys.stderr.isatty():
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)


def _missing(entrant: Entrant) -> str | None:
    from importlib.util import find_spec

    absent = [name for name in entrant.needs if find_spec(name) is None]
    return f"{absent[0]} is not installed; the [bench] extra brings it" if absent else None


def _write(suite: Suite[R], request: R, found: Findings) -> None:
    from .charts import write_bars

    write_files(
        suite.name,
        found.as_json(),
        request.out,
        request.report,
        lambda folder, stem: write_bars(found, folder, stem),
        lambda charts, path: findings_shown.write_page(
            found, suite.title, suite.about, suite.budgets, charts, path
        ),
    )
