"""
Charts of a result, as SVG and as PNG; needs matplotlib.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from .result import Result
from .sample import Cell
from .tables import Figures, figures

if TYPE_CHECKING:
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
    import matplotlib as mpl

    # Letters are drawn: another machine's font would be wider than the room left for it. Ids are
    # not random, so that files compare.
    mpl.rcParams.update({"svg.fonttype": "path", "svg.hashsalt": "uringio", "font.size": 9})
    written: list[Path] = []
    for heap in result.heaps:
        panels = [(cell, rows) for cell in result.cells() if (rows := figures(result, cell, heap))]
        if not panels:
            continue
        for kind, draw in (("cpu", _draw_cpu), ("latency", _draw_latency)):
            figure = draw(panels, heap)
            for suffix in (".svg", ".png"):
                path = folder / f"{stem}-{kind}-{heap}{suffix}"
                metadata = {"Date": None} if suffix == ".svg" else None
                figure.savefig(path, dpi=_PNG_DPI, metadata=metadata)
                written.append(path)
    return written


def _panels(panels: list[tuple[Cell, list[Figures]]]) -> Figure:
    from matplotlib.figure import Figure

    heights = [_HEAD_INCHES + _ROW_INCHES * len(rows) for _, rows in panels]
    figure = Figure(figsize=(_WIDTH_INCHES, sum(heights)), layout="constrained")
    figure.subplots(len(panels), 1, squeeze=False, gridspec_kw={"height_ratios": heights})
    return figure


def _draw_cpu(panels: list[tuple[Cell, list[Figures]]], heap: str) -> Figure:
    figure = _panels(panels)
    for axes, (cell, rows) in zip(figure.axes, panels, strict=True):
        medians = [row.cost_us.median for row in rows]
        spans = [
            [row.cost_us.median - row.cost_us.low for row in rows],
            [row.cost_us.high - row.cost_us.median for row in rows],
        ]
        names = [row.name for row in rows]
        colours = [_colour(name) for name in names]
        axes.barh(names, medians, xerr=spans, color=colours, ecolor="#444444", capsize=2)
        axes.invert_yaxis()
        axes.set_title(f"{cell} connections, {heap} heap", loc="left")
        axes.set_xlabel("server CPU per message, µs: median, lowest to highest (less is better)")
        axes.grid(visible=True, axis="x", alpha=0.3)
        axes.set_axisbelow(True)
    return figure


def _draw_latency(panels: list[tuple[Cell, list[Figures]]], heap: str) -> Figure:
    figure = _panels(panels)
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
