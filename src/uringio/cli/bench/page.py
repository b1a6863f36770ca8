"""
The page that shows a result: one HTML file that needs nothing beside it.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from typing import cast

from . import machine, tables
from .result import Result, cpu, ours_and_rivals, ratios
from .rounds import Spread
from .sample import Cell

_STYLE = """
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 70rem; padding: 0 1rem; }
table { border-collapse: collapse; font-size: .9rem; margin: .5rem 0 1.5rem; }
th, td { padding: .15rem .7rem; text-align: right; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
thead th, tr.last td { border-bottom: 1px solid #8888; }
tr.ours td:first-child { font-weight: bold; }
td small { opacity: .7; }
.wide { overflow-x: auto; }
.better { color: #0a7d32; } .worse { color: #b3261e; }
figure { margin: 1rem 0; background: #fff; } figure img { max-width: 100%; height: auto; }
@media (prefers-color-scheme: dark) { .better { color: #6fdc8c; } .worse { color: #ffb4ab; } }
"""
_ABOUT = """
<p>In every round every contender gets a fresh server process on one processor and a load client on
another, in an order that rotates. What is compared is the CPU time the server spent per message,
read from the kernel while the server is idle before and after the window; a ratio is formed within
a round, and its median is shown with the lowest and the highest. Below 1, uringio spends less.</p>
<p><b>fresh</b> leaves glibc's allocator as a young process has it; <b>steady</b> raises its mmap
and trim thresholds for everyone. A claim that holds in one of them only is a claim about malloc.
<b>c-epoll</b> and <b>c-io-uring</b> are no rivals but the limit: servers in C with nothing around
the system calls.</p>
"""


def write_page(result: Result, charts: Sequence[Path], path: Path) -> Path:
    """
    Write the page, with the charts that are SVG inside it, and return where.
    """
    cells = [(cell, heap) for cell in result.cells() for heap in result.heaps]
    body = [
        "<h1>uringio beside its rivals: TCP echo</h1>",
        f"<p>{escape(machine.headline(result.machine))}</p>",
        _ABOUT,
        *(_figure(chart) for chart in charts if chart.suffix == ".svg"),
        *(_cell(result, cell, heap) for cell, heap in cells),
        _not_measured(result),
        "<h2>Budgets</h2>" if tables.verdicts(result) else "",
        *(f"<p>{escape(line)}</p>" for line in tables.verdicts(result)),
        _taken_on(result),
    ]
    text = (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width">\n'
        f"<title>uringio bench</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
        + "\n".join(filter(None, body))
        + "\n</body>\n</html>\n"
    )
    path.write_text(text, encoding="utf-8")
    return path


def _figure(chart: Path) -> str:
    # As an image, not as elements: two drawings in one document would share their ids.
    held = base64.b64encode(chart.read_bytes()).decode()
    return (
        f'<figure><img alt="{escape(chart.stem)}: the figures are in the tables below" '
        f'src="data:image/svg+xml;base64,{held}"></figure>'
    )


def _cell(result: Result, cell: Cell, heap: str) -> str:
    table = result.table(cell, heap)
    if not table:
        return ""
    rows = [
        (
            row.name,
            _cost(row),
            f"{row.per_second:,.0f}",
            f"{row.p50_us:.0f}",
            f"{row.p99_us:.0f}",
            f"{row.p999_us:.0f}",
            f"{row.busy_share:.0%}",
            f"{row.kernel_share:.0%}",
            f"{row.faults:.2f}",
            f"{row.sleeps:.3f}",
            "-" if row.syscalls is None else f"{row.syscalls:.2f}",
        )
        for row in tables.figures(result, cell, heap)
    ]
    heads = (
        "",
        "CPU µs per message",
        "messages/s",
        "p50 µs",
        "p99",
        "p99.9",
        "busy",
        "kernel",
        "faults",
        "sleeps",
        "syscalls",
    )
    parts = [f"<h2>{escape(str(cell))} connections, {escape(heap)} heap</h2>", _table(heads, rows)]
    ours, rivals = ours_and_rivals(table)
    if ours and rivals:
        compared = [
            (rival, *(_ratio(ratios(table, name, rival, cpu)) for name in ours)) for rival in rivals
        ]
        parts.append(_table(("CPU ratio to", *ours), compared))
    return "\n".join(parts)


def _cost(row: tables.Figures) -> str:
    cost = row.cost_us
    span = f"<small>{cost.low:.2f}-{cost.high:.2f}</small>"
    return f"{cost.median:.2f} {span}{' *' if row.is_contended else ''}"


def _ratio(found: Spread | None) -> str:
    if found is None:
        return "-"
    kind = "better" if found.high < 1 else "worse" if found.low > 1 else "even"
    return (
        f'<span class="{kind}">{found.median:.2f}</span> '
        f"<small>{found.low:.2f}-{found.high:.2f}</small>"
    )


def _table(heads: Iterable[str], rows: Iterable[Sequence[str]]) -> str:
    head = "".join(f"<th>{escape(one)}</th>" for one in heads)
    lines = [
        f'<tr class="{"ours" if row[0].startswith("uringio-") else "other"}">'
        f"<td>{escape(row[0])}</td>{''.join(f'<td>{cell}</td>' for cell in row[1:])}</tr>"
        for row in rows
    ]
    body = "\n".join(lines)
    table = f"<table><thead><tr>{head}</tr></thead>\n<tbody>{body}</tbody></table>"
    return f'<div class="wide">{table}</div>'


def _not_measured(result: Result) -> str:
    rows = [(name, f"skipped: {escape(why)}") for name, why in result.skipped.items()]
    rows += [(name, f"broken: {escape(why)}") for name, why in result.broken.items()]
    return "<h2>Not measured</h2>" + _table(("", "why"), rows) if rows else ""


def _taken_on(result: Result) -> str:
    settings: dict[str, object] = {
        **result.machine,
        "rounds": result.rounds,
        "window": f"{result.seconds:g} s after {result.warm_seconds:g} s of warm-up",
        "client": f"{result.client}{', polling busily' if result.spin else ''}",
        "processors": f"server {result.server_cpu}, client {result.client_cpu}",
    }
    versions = settings.pop("versions", None)
    if isinstance(versions, dict):
        settings.update(cast("dict[str, object]", versions))
    rows = [
        (name.replace("_", " "), escape(str(value)))
        for name, value in settings.items()
        if value is not None
    ]
    return "<h2>Taken on</h2>" + _table(("", "this run"), rows)
