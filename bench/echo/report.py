"""
Tables of the samples, within 100 columns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from statistics import median

from bench.echo.contenders import (
    BUDGET_CONNECTIONS,
    BUDGET_SIZE_BYTES,
    BUDGETS,
    FALLBACKS,
    Budget,
)
from bench.echo.sample import Cell, Sample
from bench.rounds import Spread, spread

_CONTENDED_SHARE = 0.05

Measure = Callable[[Sample], float]


def of_cell(samples: Iterable[Sample], cell: Cell, heap: str) -> dict[str, dict[int, Sample]]:
    """
    Return the samples of one cell and heap mode: contender -> round -> sample.
    """
    table: dict[str, dict[int, Sample]] = {}
    for sample in samples:
        if (sample.size_bytes, sample.connections, sample.heap) == (
            cell.size_bytes,
            cell.connections,
            heap,
        ):
            table.setdefault(sample.contender, {})[sample.round] = sample
    return table


def ratios(
    table: dict[str, dict[int, Sample]], contender: str, rival: str, measure: Measure
) -> Spread | None:
    """
    Return the spread of the per-round ratios, or None when no round has both.
    """
    ours, theirs = table.get(contender, {}), table.get(rival, {})
    values = [measure(ours[r]) / measure(theirs[r]) for r in sorted(ours.keys() & theirs.keys())]
    return spread(values) if values else None


def cpu(sample: Sample) -> float:
    """
    Measure: server CPU per message, in microseconds.
    """
    return sample.cpu_us_per_message


def figures(table: dict[str, dict[int, Sample]]) -> list[str]:
    """
    Return the lines of absolute figures of one cell and heap mode.
    """
    widths = {
        "": -22,
        "CPU us per message": 22,
        "1000/s": 8,
        "p50 us": 9,
        "p99 us": 9,
        "kernel": 8,
        "busy": 6,
        "faults": 8,
        "sleeps": 8,
    }
    heads = (head.ljust(-n) if n < 0 else head.rjust(n) for head, n in widths.items())
    lines = ["".join(heads)]
    for name, by_round in table.items():
        samples = list(by_round.values())
        cost = spread([sample.cpu_us_per_message for sample in samples])
        contended = _mid(samples, lambda s: s.contended_share) > _CONTENDED_SHARE
        lines.append(
            f"{name:<22}"
            f"{cost.median:>8.2f} {f'[{cost.low:.2f}-{cost.high:.2f}]':>13}"
            f"{_mid(samples, lambda s: s.messages_per_second / 1000):>8.1f}"
            f"{_mid(samples, lambda s: s.p50_ns / 1000):>9.0f}"
            f"{_mid(samples, lambda s: s.p99_ns / 1000):>9.0f}"
            f"{_mid(samples, lambda s: s.system_ns / max(1, s.user_ns + s.system_ns)):>8.0%}"
            f"{_mid(samples, lambda s: s.busy_share):>6.0%}"
            f"{_mid(samples, lambda s: s.faults_minor / s.messages):>8.2f}"
            f"{_mid(samples, lambda s: s.sleeps / s.messages):>7.3f}"
            f"{'*' if contended else ''}"
        )
    return lines


def comparison(
    table: dict[str, dict[int, Sample]], ours: Sequence[str], rivals: Sequence[str]
) -> list[str]:
    """
    Return the lines of CPU ratios of one cell and heap mode.
    """
    lines = [f"{'CPU ratio to':<22}" + "".join(f"{rival:>19}" for rival in rivals)]
    for name in ours:
        if name not in table:
            continue
        cells = []
        for rival in rivals:
            found = None if rival == name else ratios(table, name, rival, cpu)
            if found is None:
                cells.append(f"{'-':>19}")
            else:
                cells.append(f"{f'{found.median:.2f} [{found.low:.2f}-{found.high:.2f}]':>19}")
        lines.append(f"{name:<22}" + "".join(cells))
    return lines


def between_backends(table: dict[str, dict[int, Sample]]) -> list[str]:
    """
    Return one line for each fallback of ours that was measured beside io_uring.
    """
    lines = []
    for backend in FALLBACKS:
        found = ratios(table, "uringio-native", f"uringio-native-{backend}", cpu)
        if found is not None:
            lines.append(
                f"uring : {backend}".ljust(22)
                + f"{found.median:.2f} [{found.low:.2f}-{found.high:.2f}]".rjust(19)
            )
    return lines


def budget_lines(samples: Sequence[Sample]) -> list[str]:
    """
    Return one line for each budget that these samples can be held against.
    """
    lines = []
    for budget in BUDGETS:
        found = budget_ratio(samples, budget)
        if found is not None:
            verdict = "held" if found.median <= budget.ratio_max else "EXCEEDED"
            lines.append(
                f"budget {budget.contender} / {budget.rival}, {budget.heap}: "
                f"{found.median:.2f} of at most {budget.ratio_max:.2f}: {verdict}"
            )
    return lines


def budget_ratio(samples: Sequence[Sample], budget: Budget) -> Spread | None:
    """
    Return the measured spread that a budget limits, if it was measured.
    """
    cell = Cell(BUDGET_SIZE_BYTES, BUDGET_CONNECTIONS)
    return ratios(of_cell(samples, cell, budget.heap), budget.contender, budget.rival, cpu)


LEGEND = (
    "CPU: the server's, from its CPU clock; median [lowest-highest]. kernel: share in kernel mode.",
    "busy: part of the window it ran. faults, sleeps: per message. * it had to wait for its CPU.",
    "Ratios: median of per-round ratios [lowest-highest]; below 1 is less CPU than the rival.",
)


def _mid(samples: Sequence[Sample], measure: Measure) -> float:
    return median(measure(sample) for sample in samples)
