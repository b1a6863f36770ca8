"""
The page that shows a result of the echo suite.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path

from . import document, machine, tables
from .result import Result, cpu, ours_and_rivals, ratios
from .sample import Cell

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
    settings: dict[str, object] = {
        "rounds": result.rounds,
        "window": f"{result.seconds:g} s after {result.warm_seconds:g} s of warm-up",
        "client": f"{result.client}{', polling busily' if result.spin else ''}",
        "processors": f"server {result.server_cpu}, client {result.client_cpu}",
    }
    parts = (
        "<h1>uringio beside its rivals: TCP echo</h1>",
        f"<p>{escape(machine.headline(result.machine))}</p>",
        _ABOUT,
        document.verdicts(tables.verdicts(result)),
        *(document.figure(chart) for chart in charts if chart.suffix == ".svg"),
        *(_cell(result, cell, heap) for cell, heap in cells),
        document.not_measured(result.skipped, result.broken),
        document.taken_on(result.machine, settings),
    )
    path.write_text(document.document("uringio bench: echo", parts), encoding="utf-8")
    return path


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
    parts = [
        f"<h2>{escape(str(cell))} connections, {escape(heap)} heap</h2>",
        document.table(heads, rows),
    ]
    ours, rivals = ours_and_rivals(table)
    if ours and rivals:
        compared = [
            (rival, *(document.ratio(ratios(table, name, rival, cpu)) for name in ours))
            for rival in rivals
        ]
        parts.append(document.table(("CPU ratio to", *ours), compared))
    return "\n".join(parts)


def _cost(row: tables.Figures) -> str:
    cost = row.cost_us
    span = f"<small>{cost.low:.2f}-{cost.high:.2f}</small>"
    return f"{cost.median:.2f} {span}{' *' if row.is_contended else ''}"
