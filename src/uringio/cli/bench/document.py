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

_LISTED_MAX = 10
"""How many budgets are shown line by line."""
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
    Return the budgets and what missed them; nothing where there are none.

    Few are a list, those that are exceeded first. Many are a table of whose they are and where.
    """
    if not found:
        return ""
    held = sum(one.is_held for one in found)
    said = f"<h2>Budgets</h2>\n<p>{held} of {len(found)} budgets are held.</p>\n"
    wheres = list(dict.fromkeys(one.where for one in found))
    whos = dict.fromkeys((one.who, one.most, one.unit) for one in found)
    if len(found) > _LISTED_MAX and len(whos) < len(found):
        by_place = {(one.who, one.where): one for one in found}
        rows = [
            (who, _amount(most, unit), *(_verdict(by_place.get((who, where))) for where in wheres))
            for who, most, unit in whos
        ]
        said += "<p>What exceeds its budget is bold and red.</p>\n"
        return said + table(("", "at most", *wheres), rows)
    listed = [
        (
            f"{one.who}, {one.where}",
            _amount(one.measured, one.unit),
            _amount(one.most, one.unit),
            f"{one.measured / one.most - 1:+.1%}",
            f'<span class="{_kind(one)}">{"held" if one.is_held else "EXCEEDED"}</span>',
        )
        for one in sorted(found, key=lambda one: one.is_held)
    ]
    return said + table(("", "measured", "at most", "beyond it", ""), listed)


def _verdict(one: Verdict | None) -> str:
    if one is None:
        return ""
    return f'<span class="{_kind(one)}">{_amount(one.measured, one.unit)}</span>'


def _kind(one: Verdict) -> str:
    return "better" if one.is_held else "worse"


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
    return f"{value:,.0f} {escape(unit)}" if unit else f"{value:.3f}"
