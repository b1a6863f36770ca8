"""
The findings of a suite of questions, as tables within 80 columns and as a page.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path
from statistics import median

from . import document, machine
from .findings import Answer, Budget, Findings, Question
from .rounds import Spread
from .tables import NAME_WIDTH, WIDTH, compared, ratio_text, short

LEGEND = (
    "Median of the rounds [lowest-highest]; less is better.",
    "Ratios: median of those within rounds [lowest-highest]; below 1 is less.",
)
_VALUE_WIDTH = 26
_BESIDE_WIDTH = 11


def of_question(found: Findings, question: Question) -> list[str]:
    """
    Return the lines of one question, or none where nobody answered it.
    """
    table = found.table(question.name)
    if not table:
        return []
    heads = "".join(f"{name:>{_BESIDE_WIDTH}}" for name in question.beside)
    lines = [
        f"-- {question.name}: {question.title} ".ljust(WIDTH, "-")[:WIDTH],
        f"{'':<{NAME_WIDTH}}{question.unit:>{_VALUE_WIDTH}}{heads}",
    ]
    for name, by_round in table.items():
        cost = found.cost(question.name, name)
        if cost is None:
            continue
        span = ratio_text(cost)
        others = "".join(
            f"{short(_middle(by_round, one)):>{_BESIDE_WIDTH}}" for one in question.beside
        )
        lines.append(f"{name:<{NAME_WIDTH}}{span:>{_VALUE_WIDTH}}{others}")
    ours, rivals = _sides(table)
    if ours and rivals:
        lines += [
            "",
            *compared(
                ours, rivals, lambda one, other: found.ratio(question.name, one, other), "ratio to"
            ),
        ]
    return [*lines, ""]


def write_page(
    found: Findings,
    title: str,
    about: str,
    budgets: Sequence[Budget],
    charts: Sequence[Path],
    path: Path,
) -> Path:
    """
    Write the page, with the charts that are SVG inside it, and return where.

    Args:
        found: What was measured.
        title: What the suite compares.
        about: How it is measured, as HTML.
        budgets: What it is held to.
        charts: Drawn charts; those that are SVG are put into the page.
        path: The page's file.
    """
    parts = (
        f"<h1>{escape(title)}</h1>",
        f"<p>{escape(machine.headline(found.machine))}</p>",
        about,
        document.verdicts(found.verdicts(budgets)),
        *(document.figure(chart) for chart in charts if chart.suffix == ".svg"),
        *(_question(found, question) for question in found.questions),
        document.not_measured(found.skipped, found.broken),
        document.taken_on(found.machine, found.settings),
    )
    path.write_text(document.document(f"uringio bench: {found.suite}", parts), encoding="utf-8")
    return path


def _question(found: Findings, question: Question) -> str:
    table = found.table(question.name)
    if not table:
        return ""
    ours, rivals = _sides(table)
    rows: list[Sequence[str]] = []
    for name, by_round in table.items():
        cost = found.cost(question.name, name)
        if cost is None:
            continue
        rows.append(
            (
                name,
                _with_range(cost),
                *(short(_middle(by_round, one)) for one in question.beside),
            )
        )
    parts = [
        f"<h2>{escape(question.title)}</h2>",
        document.table(("", question.unit, *question.beside), rows),
    ]
    if ours and rivals:
        ratios = [
            (rival, *(document.ratio(found.ratio(question.name, name, rival)) for name in ours))
            for rival in rivals
        ]
        parts.append(document.table(("ratio to", *ours), ratios))
    return "\n".join(parts)


def _with_range(cost: Spread) -> str:
    span = f" <small>{short(cost.low)}-{short(cost.high)}</small>" if cost.count > 1 else ""
    return short(cost.median) + span


def _sides(table: dict[str, dict[int, Answer]]) -> tuple[list[str], list[str]]:
    ours = [name for name in table if name.startswith("uringio")]
    return ours, [name for name in table if name not in ours]


def _middle(by_round: dict[int, Answer], name: str) -> float:
    return median(one.beside.get(name, 0.0) for one in by_round.values())
