"""
Tables of a result for people, within 80 columns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import median

from .budgets import BUDGETS
from .findings import Verdict
from .result import Measure, Result, Table, cpu, ours_and_rivals, ratios
from .rivals import FALLBACKS
from .rounds import Spread, spread
from .sample import Cell, Sample

WIDTH = 80
_CONTENDED_SHARE = 0.05
NAME_WIDTH = 22
_RATIO_WIDTH = 19
_RATIO_COLUMNS = (WIDTH - NAME_WIDTH) // _RATIO_WIDTH


@dataclass(frozen=True)
class Figures:
    """
    The absolute figures of one contender in one cell and heap mode: medians over the rounds.
    """

    name: str
    cost_us: Spread
    """Server CPU per message."""
    per_second: float
    p50_us: float
    p99_us: float
    p999_us: float
    kernel_share: float
    busy_share: float
    faults: float
    """Per message, as are those below."""
    sleeps: float
    syscalls: float | None
    is_contended: bool
    """Whether it was kept waiting for its processor."""


def figures(result: Result, cell: Cell, heap: str) -> list[Figures]:
    """
    Return the figures of everyone who was measured in one cell and heap mode.
    """
    counts = result.syscalls(cell, heap)
    return [
        Figures(
            name=name,
            cost_us=spread([cpu(sample) for sample in by_round.values()]),
            per_second=_mid(by_round, lambda s: s.messages_per_second),
            p50_us=_mid(by_round, lambda s: s.p50_ns / 1000),
            p99_us=_mid(by_round, lambda s: s.p99_ns / 1000),
            p999_us=_mid(by_round, lambda s: s.p999_ns / 1000),
            kernel_share=_mid(by_round, lambda s: s.system_ns / max(1, s.user_ns + s.system_ns)),
            busy_share=_mid(by_round, lambda s: s.busy_share),
            faults=_mid(by_round, lambda s: s.faults_minor / s.messages),
            sleeps=_mid(by_round, lambda s: s.sleeps / s.messages),
            syscalls=counts.get(name),
            is_contended=_mid(by_round, lambda s: s.contended_share) > _CONTENDED_SHARE,
        )
        for name, by_round in result.table(cell, heap).items()
    ]


def of_cell(result: Result, cell: Cell, heap: str) -> list[str]:
    """
    Return the lines of one cell and heap mode, or none where nothing was measured.
    """
    table = result.table(cell, heap)
    if not table:
        return []
    ours, rivals = ours_and_rivals(table)
    lines = [f"-- {cell} connections, {heap} heap ".ljust(WIDTH, "-")]
    lines += _absolute(figures(result, cell, heap))
    if rivals and len(table) > 1:
        lines += ["", *compared(ours or rivals, rivals, partial(_cpu_ratio, table))]
    lines += _between_backends(table)
    return [*lines, ""]


def verdicts(result: Result) -> list[Verdict]:
    """
    Return a verdict for each budget that this result can be held against.
    """
    found: list[Verdict] = []
    for budget in BUDGETS:
        for heap in result.heaps:
            for cell in result.cells():
                table = result.table(cell, heap)
                measured = (
                    ratios(table, budget.contender, budget.rival, cpu)
                    if budget.holds_in(cell, heap)
                    else None
                )
                if measured is not None:
                    who = f"{budget.contender} / {budget.rival}, {heap}"
                    found.append(Verdict(who, str(cell), measured.median, budget.ratio_max))
    return found


LEGEND = (
    "us: server CPU per message, by its CPU clock; median [lowest-highest].",
    "p50 to p99.9: us, m: ms. pf: page faults, sys: system calls, both per message.",
    "busy: part of the window it ran. * it was kept waiting for its processor.",
    "Ratios of CPU: median of those within rounds [lowest-highest]; below 1 is less.",
)


def ratio_text(found: Spread | None) -> str:
    """
    Return a ratio as tables show it.
    """
    if found is None:
        return "-"
    middle = short(found.median)
    return middle if found.count == 1 else f"{middle} [{short(found.low)}-{short(found.high)}]"


def _absolute(rows: Sequence[Figures]) -> list[str]:
    # 22 + 7 + 14 + 7 + 6 + 6 + 7 + 5 + 5 = 79, and the asterisk.
    head = f"{'':<{NAME_WIDTH}}{'us':>7}{'':>14}{'1000/s':>7}"
    lines = [f"{head}{'p50':>6}{'p99':>6}{'p99.9':>7}{'pf':>5}{'sys':>5}"]
    for row in rows:
        cost = row.cost_us
        scarce = "-" if row.syscalls is None else short(row.syscalls)
        lines.append(
            f"{row.name:<{NAME_WIDTH}}"
            f"{short(cost.median, 2):>7}"
            f"{f'[{short(cost.low, 2)}-{short(cost.high, 2)}]':>14}"
            f"{row.per_second / 1000:>7.1f}"
            f"{_latency(row.p50_us):>6}{_latency(row.p99_us):>6}{_latency(row.p999_us):>7}"
            f"{short(row.faults):>5}{scarce:>5}"
            f"{'*' if row.is_contended else ''}"
        )
    busy = ", ".join(f"{row.name} {row.busy_share:.0%}" for row in rows if row.busy_share < 0.9)
    if busy:
        lines += _wrapped(f"idle at times, busy: {busy}")
    return lines


def compared(
    ours: Sequence[str],
    rivals: Sequence[str],
    ratio: Callable[[str, str], Spread | None],
    what: str = "CPU ratio to",
) -> list[str]:
    """
    Return the ratios of each of *ours* to each of *rivals*, as many columns as there is room for.
    """
    lines: list[str] = []
    for start in range(0, len(ours), _RATIO_COLUMNS):
        columns = ours[start : start + _RATIO_COLUMNS]
        heads = "".join(f"{name.removeprefix('uringio-'):>{_RATIO_WIDTH}}" for name in columns)
        lines.append(f"{what:<{NAME_WIDTH}}{heads}")
        for rival in rivals:
            found = [None if rival == name else ratio(name, rival) for name in columns]
            cells = "".join(f"{ratio_text(one):>{_RATIO_WIDTH}}" for one in found)
            lines.append(f"{rival:<{NAME_WIDTH}}{cells}")
    return lines


def _between_backends(table: Table) -> list[str]:
    lines: list[str] = []
    for backend in FALLBACKS:
        found = ratios(table, "uringio-native", f"uringio-native-{backend}", cpu)
        if found is not None:
            lines.append(f"{f'uring : {backend}':<{NAME_WIDTH}}{ratio_text(found):>{_RATIO_WIDTH}}")
    return lines


def _cpu_ratio(table: Table, contender: str, rival: str) -> Spread | None:
    return ratios(table, contender, rival, cpu)


def _mid(by_round: dict[int, Sample], measure: Measure) -> float:
    return median(measure(sample) for sample in by_round.values())


def short(value: float, digits: int = 2) -> str:
    """
    Return a figure in at most five characters.
    """
    # Below 100,000, that is: what is large needs no decimals.
    return f"{value:.{digits if value < 10 else 1 if value < 1000 else 0}f}"


def _latency(us: float) -> str:
    return f"{us:.0f}" if us < 10_000 else f"{us / 1000:.0f}m"


def _wrapped(text: str) -> list[str]:
    import textwrap

    return textwrap.wrap(text, WIDTH, subsequent_indent="  ")


def print_lines(lines: Iterable[str]) -> None:
    """
    Print them, at once: a run lasts, and somebody watches.
    """
    for line in lines:
        print(line, flush=True)
