"""
Charts of a result, as SVG and as PNG; needs matplotlib.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from .findings import Findings
from .result import Result
from .rounds import Spread
from .sample import Cell
from .tables import Figures, figures, short

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_OURS, _OTHERS, _LIMIT = "#0b6e99", "#9aa5ad", "#d9a441"
_WIDTH_INCHES = 9.0
_ROW_INCHES = 0.27
_HEAD_INCHES = 1.1
_PNG_DPI = 144


def write_charts(result: Result, folder: Path, stem: str) -> list[Path]:
    """
    Draw CPU per message and latency, one chart per heap mode; a panel for each cell.

    Returns:
        The files, each chart's SVG followed by its PNG.

    Raises:
        ImportError: matplotlib is not installed.
    """
    written: list[Path] = []
    for heap in result.heaps:
        panels = [(cell, rows) for cell in result.cells() if (rows := figures(result, cell, heap))]
        if not panels:
            continue
        for kind, draw in (("cpu", _draw_cpu), ("latency", _draw_latency)):
            written += _saved(draw(panels, heap), folder, f"{stem}-{kind}-{heap}")
    return written


def write_bars(found: Findings, folder: Path, stem: str) -> list[Path]:
    """
    Draw the answers to each question of a suite, in one chart; a panel for each.

    Returns:
        The chart's SVG and its PNG.

    Raises:
        ImportError: matplotlib is not installed.
    """
    panels = [
        (question, {name: cost for name in table if (cost := found.cost(question.name, name))})
        for question in found.questions
        if (table := found.table(question.name))
    ]
    if not panels:
        return []
    figure = _panels([len(costs) for _, costs in panels])
    for axes, (question, costs) in zip(figure.axes, panels, strict=True):
        _draw_bars(axes, costs)
        axes.set_title(question.title, loc="left")
        axes.set_xlabel(f"{question.unit}: median, lowest to highest (less is better)")
    return _saved(figure, folder, stem)


def _panels(lengths: list[int]) -> Figure:
    """
    Return a figure of one panel below the other, each with room for as many lines as are given.
    """
    import matplotlib as mpl

    # Letters are drawn: another machine's font would be wider than the room left for it. Ids are
    # not random, so that files compare.
    mpl.rcParams.update({"svg.fonttype": "path", "svg.hashsalt": "uringio", "font.size": 9})
    from matplotlib.figure import Figure

    heights = [_HEAD_INCHES + _ROW_INCHES * length for length in lengths]
    figure = Figure(figsize=(_WIDTH_INCHES, sum(heights)), layout="constrained")
    figure.subplots(len(heights), 1, squeeze=False, gridspec_kw={"height_ratios": heights})
    return figure


def _saved(figure: Figure, folder: Path, stem: str) -> list[Path]:
    written: list[Path] = []
    for suffix in (".svg", ".png"):
        path = folder / f"{stem}{suffix}"
        metadata = {"Date": None} if suffix == ".svg" else None
        figure.savefig(path, dpi=_PNG_DPI, metadata=metadata)
        written.append(path)
    return written


def _draw_bars(axes: Axes, costs: dict[str, Spread]) -> None:
    names = list(costs)
    medians = [cost.median for cost in costs.values()]
    spans = [
        [cost.median - cost.low for cost in costs.values()],
        [cost.high - cost.median for cost in costs.values()],
    ]
    colours = [_colour(name) for name in names]
    bars = axes.barh(names, medians, xerr=spans, color=colours, ecolor="#444444", capsize=2)
    axes.bar_label(bars, [short(one) for one in medians], padding=4, fontsize=8, color="#444444")
    axes.margins(x=0.12)  # the figures stand behind their bars
    axes.invert_yaxis()
    axes.grid(visible=True, axis="x", alpha=0.3)
    axes.set_axisbelow(True)


def _draw_cpu(panels: list[tuple[Cell, list[Figures]]], heap: str) -> Figure:
    figure = _panels([len(rows) for _, rows in panels])
    for axes, (cell, rows) in zip(figure.axes, panels, strict=True):
        _draw_bars(axes, {row.name: row.cost_us for row in rows})
        axes.set_title(f"{cell} connections, {heap} heap", loc="left")
        axes.set_xlabel("server CPU per message, µs: median, lowest to highest (less is better)")
    return figure


def _draw_latency(panels: list[tuple[Cell, list[Figures]]], heap: str) -> Figure:
    figure = _panels([len(rows) for _, rows in panels])
    for axes, (cell, rows) in zip(figure.axes, panels, strict=True):
        names = [row.name for row in rows]
        lows, highs = [row.p50_us for row in rows], [row.p999_us for row in rows]
        axes.hlines(names, lows, highs, color=[_colour(name) for name in names], linewidth=2)
        for label, marker, values in (
            ("p50", "o", lows),
            ("p99", "s", [row.p99_us for row in rows]),
            ("p99.9", "D", highs),
        ):
            axes.plot(values, names, marker, label=label, color="#333333", markersize=4)
        axes.invert_yaxis()
        axes.set_xscale("log")
        axes.set_title(f"{cell} connections, {heap} heap", loc="left")
        axes.set_xlabel("latency of a message, µs (further left is better)")
        axes.grid(visible=True, axis="x", alpha=0.3)
        axes.legend(ncols=3, frameon=False, loc="lower right", bbox_to_anchor=(1, 1))
    return figure


def _colour(name: str) -> str:
    if name.startswith("uringio"):
        return _OURS
    return _LIMIT if name.startswith("c-") else _OTHERS
