"""
The files that a run leaves: its record, charts, and the page that shows both.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from . import machine


def write_files(
    suite: str,
    record: Mapping[str, object],
    out: Path | None,
    report: Path | None,
    draw: Callable[[Path, str], list[Path]],
    lay_out: Callable[[Sequence[Path], Path], Path],
) -> None:
    """
    Write them, and tell where; without matplotlib there are no charts.

    Args:
        suite: The suite's name, with which theirs begin.
        record: The run as JSON.
        out: The folder, made if need be; None: beside *report*, or the usual one.
        report: The record that is shown again, and so is not written.
        draw: Writes charts into a folder, named by a stem, and returns them.
        lay_out: Writes the page with the charts to a path, and returns it.
    """
    if report is not None:
        stem, folder = report.stem, out or report.parent
    else:
        stem, folder = time.strftime(f"{suite}-%Y%m%d-%H%M%S"), out or machine.RESULTS
    folder.mkdir(parents=True, exist_ok=True)
    written: list[Path] = []
    if report is None:
        written.append(machine.save(stem, record, folder / f"{stem}.json"))
    charts: list[Path] = []
    try:
        charts = draw(folder, stem)
    except ImportError as reason:
        print(f"no charts: {reason}; the [bench] extra brings matplotlib")
    written += [*charts, lay_out(charts, folder / f"{stem}.html")]
    for path in written:
        print(f"written: {path}")
