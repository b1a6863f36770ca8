"""
What every page of a result is made of: one HTML file that needs nothing beside it.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import cast

from .findings import Verdict
from .rounds import Spread

_STYLE = """
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 70rem; padding: 0 1rem; }
table { border-collapse: collapse; font-size: .9rem; margin: .5rem 0 1.5rem; }
th, td { padding: .15rem .7rem; text-align: right; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
thead th { border-bottom: 1px solid #8888; vertical-align: bottom; }
tr.ours td:first-child { font-weight: bold; }
td small { opacity: .7; }
table.words td, table.words th { text-align: left; white-space: normal; }
.wide { overflow-x: auto; }
.better { color: #0a7d32; } .worse { color: #b3261e; font-weight: bold; }
figure { margin: 1rem 0; background: #fff; } figure img { max-width: 100%; height: auto; }
@media (prefers-color-scheme: dark) { .better { color: #6fdc8c; } .worse { color: #ffb4ab; } }
"""


def document(title: str, parts: Iterable[str]) -> str:
    """
    Return the page, given its parts: HTML, of which empty ones are left out.
    """
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width">\n'
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
        + "\n".join(filter(None, parts))
        + "\n</body>\n</html>\n"
    )


def figure(chart: Path) -> str:
    """
    Return a chart that was drawn as SVG.
    """
    # As an image, not as elements: two drawings in one document would share their ids.
    held = base64.b64encode(chart.read_bytes()).decode()
    return (
        f'<figure><img alt="{escape(chart.stem)}: the figures are in the tables" '
        f'src="data:image/svg+xml;base64,{held}"></figure>'
    )


def table(heads: Iterable[str], rows: Iterable[Sequence[str]], *, kind: str = "") -> str:
    """
    Return a table.

    Args:
        heads: Plain text.
        rows: The first cell of each is plain text, the others are HTML.
        kind: The class of the table; ``words`` for one that holds no figures.
    """
    head = "".join(f"<th>{escape(one)}</th>" for one in heads)
    lines = [
        f'<tr class="{"ours" if row[0].startswith("uringio") else "other"}">'
        f"<td>{escape(row[0])}</td>{''.join(f'<td>{cell}</td>' for cell in row[1:])}</tr>"
        for row in rows
    ]
    body = "\n".join(lines)
    opening = f'<table class="{kind}">' if kind else "<table>"
    return (
        f'<div class="wide">{opening}<thead><tr>{head}</tr></thead>\n<tbody>{body}</tbody>'
        "</table></div>"
    )


def ratio(found: Spread | None) -> str:
    """
    Return a ratio: marked where all rounds are on one side of 1.
    """
    if found is None:
        return "-"
    kind = "better" if found.high < 1 else "worse" if found.low > 1 else "even"
    span = f" <small>{found.low:.2f}-{found.high:.2f}</small>" if found.count > 1 else ""
    return f'<span class="{kind}">{found.median:.2f}</span>{span}'


def verdicts(found: Sequence[Verdict]) -> str:
    """
    Return the budgets, those that are exceeded first; nothing where there are none.
    """
    if not found:
        return ""
    missed = [one for one in found if not one.is_held]
    rows = [
        (
            one.text,
            _amount(one.measured, one.unit),
            _amount(one.most, one.unit),
            f"{one.measured / one.most - 1:+.0%}",
            '<span class="better">held</span>'
            if one.is_held
            else '<span class="worse">EXCEEDED</span>',
        )
        for one in [*missed, *(one for one in found if one.is_held)]
    ]
    said = f"{len(found) - len(missed)} of {len(found)} budgets are held."
    heads = ("", "measured", "at most", "beyond it", "")
    return f"<h2>Budgets</h2>\n<p>{said}</p>\n{table(heads, rows)}"


def not_measured(skipped: Mapping[str, str], broken: Mapping[str, str]) -> str:
    """
    Return who did not take part, and why; nothing where everybody did.
    """
    rows = [(name, f"skipped: {escape(why)}") for name, why in skipped.items()]
    rows += [(name, f"broken: {escape(why)}") for name, why in broken.items()]
    return "<h2>Not measured</h2>" + table(("", "why"), rows, kind="words") if rows else ""


def taken_on(machine: Mapping[str, object], settings: Mapping[str, object]) -> str:
    """
    Return machine, versions and settings.
    """
    told = {**machine, **settings}
    versions = told.pop("versions", None)
    if isinstance(versions, dict):
        told.update(cast("dict[str, object]", versions))
    rows = [
        (name.replace("_", " "), escape(str(value)))
        for name, value in told.items()
        if value is not None
    ]
    return "<h2>Taken on</h2>" + table(("", "this run"), rows, kind="words")


def _amount(value: float, unit: str) -> str:
    return f"{value:,.0f} {escape(unit)}" if unit else f"{value:.2f}"
