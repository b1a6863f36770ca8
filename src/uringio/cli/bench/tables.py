"""
Tables of a result for people, within 80 columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from .result import Measure, Result, Table, cpu, ours_and_rivals, ratios
from .rivals import BUDGET_CONNECTIONS, BUDGET_SIZE_BYTES, BUDGETS, FALLBACKS
from .rounds import Spread, spread
from .sample import Cell, Sample

WIDTH = 80
_CONTENDED_SHARE = 0.05
_NAME_WIDTH = 21
_RATIO_WIDTH = 19
_RATIO_COLUMNS = (WIDTH - _NAME_WIDTH) // _RATIO_WIDTH


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
        lines += ["", *_compared(table, ours or rivals, rivals)]
    lines += _between_backends(table)
    return [*lines, ""]


def verdicts(result: Result) -> list[str]:
    """
    Return one line for each budget that this result can be held against.
    """
    lines: list[str] = []
    cell = Cell(BUDGET_SIZE_BYTES, BUDGET_CONNECTIONS)
    for budget in BUDGETS:
        found = ratios(result.table(cell, budget.heap), budget.contender, budget.rival, cpu)
        if found is not None:
            verdict = "held" if found.median <= budget.ratio_max else "EXCEEDED"
            lines.append(
                f"budget {budget.contender} / {budget.rival}, {budget.heap}: "
                f"{found.median:.2f} of at most {budget.ratio_max:.2f}: {verdict}"
            )
    return lines


LEGEND = (
    "us: server CPU per message, by its CPU clock; median [lowest-highest].",
    "p50 to p99.9: us. pf: page faults, sys: system calls, both per message.",
    "busy: part of the window it ran. * it was kept waiting for its processor.",
    "Ratios of CPU: median of those within rounds [lowest-highest]; below 1 is less.",
)


def ratio_text(found: Spread | None) -> str:
    """
    Return a ratio as tables show it.
    """
    return "-" if found is None else f"{found.median:.2f} [{found.low:.2f}-{found.high:.2f}]"


def _absolute(rows: Sequence[Figures]) -> list[str]:
    # 21 + 7 + 15 + 7 + 6 + 6 + 7 + 5 + 5 = 79, and the asterisk.
    head = f"{'':<{_NAME_WIDTH}}{'us':>7}{'':>15}{'1000/s':>7}"
    lines = [f"{head}{'p50':>6}{'p99':>6}{'p99.9':>7}{'pf':>5}{'sys':>5}"]
    for row in rows:
        cost = row.cost_us
        scarce = "-" if row.syscalls is None else _short(row.syscalls)
        lines.append(
            f"{row.name:<{_NAME_WIDTH}}"
            f"{_short(cost.median, 2):>7}"
            f"{f'[{_short(cost.low, 2)}-{_short(cost.high, 2)}]':>15}"
            f"{row.per_second / 1000:>7.1f}"
            f"{row.p50_us:>6.0f}{row.p99_us:>6.0f}{row.p999_us:>7.0f}"
            f"{_short(row.faults):>5}{scarce:>5}"
            f"{'*' if row.is_contended else ''}"
        )
    busy = ", ".join(f"{row.name} {row.busy_share:.0%}" for row in rows if row.busy_share < 0.9)
    if busy:
        lines += _wrapped(f"idle at times, busy: {busy}")
    return lines


def _compared(table: Table, ours: Sequence[str], rivals: Sequence[str]) -> list[str]:
    lines: list[str] = []
    for start in range(0, len(ours), _RATIO_COLUMNS):
        columns = ours[start : start + _RATIO_COLUMNS]
        heads = "".join(f"{name.removeprefix('uringio-'):>{_RATIO_WIDTH}}" for name in columns)
        lines.append(f"{'CPU ratio to':<{_NAME_WIDTH}}{heads}")
        for rival in rivals:
            found = [None if rival == name else ratios(table, name, rival, cpu) for name in columns]
            cells = "".join(f"{ratio_text(one):>{_RATIO_WIDTH}}" for one in found)
            lines.append(f"{rival:<{_NAME_WIDTH}}{cells}")
    return lines


def _between_backends(table: Table) -> list[str]:
    lines: list[str] = []
    for backend in FALLBACKS:
        found = ratios(table, "uringio-native", f"uringio-native-{backend}", cpu)
        if found is not None:
            lines.append(
                f"{f'uring : {backend}':<{_NAME_WIDTH}}{ratio_text(found):>{_RATIO_WIDTH}}"
            )
    return lines


def _mid(by_round: dict[int, Sample], measure: Measure) -> float:
    return median(measure(sample) for sample in by_round.values())


def _short(value: float, digits: int = 2) -> str:
    # At most five characters below 100,000: what is large needs no decimals.
    return f"{value:.{digits if value < 10 else 1 if value < 1000 else 0}f}"


def _wrapped(text: str) -> list[str]:
    import textwrap

    return textwrap.wrap(text, WIDTH, subsequent_indent="  ")
