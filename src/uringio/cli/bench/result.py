"""
What a run found: in memory, as JSON, and the ratios within it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TypeAlias, cast

from .rivals import CONTENDERS
from .rounds import Spread, spread
from .sample import Cell, Sample

FORMAT = 2
"""Of the JSON. 1 had neither the 99.9th percentile nor counts of system calls."""

Measure = Callable[[Sample], float]
Table: TypeAlias = dict[str, dict[int, Sample]]
"""Contender -> round -> sample, of one cell and heap mode."""


class ResultError(Exception):
    """
    A file holds no result that can be read; the message says why.
    """


@dataclass
class Result:
    """
    Everything about one run of the echo benchmark.
    """

    machine: dict[str, object]
    client: str
    spin: bool
    server_cpu: int
    client_cpu: int
    warm_seconds: float
    seconds: float
    rounds: int
    heaps: list[str]
    skipped: dict[str, str] = field(default_factory=dict[str, str])
    """Who did not take part, and why."""
    broken: dict[str, str] = field(default_factory=dict[str, str])
    """Who failed on the way, and how."""
    samples: list[Sample] = field(default_factory=list[Sample])
    counted: list[Sample] = field(default_factory=list[Sample])
    """Samples for nothing but their count of system calls."""

    def cells(self) -> list[Cell]:
        """
        Return the cells that have samples, in the order measured.
        """
        return list(dict.fromkeys(sample.cell for sample in self.samples))

    def table(self, cell: Cell, heap: str) -> Table:
        """
        Return the samples of one cell and heap mode, contenders in the order of the tables.
        """
        return _table(self.samples, cell, heap)

    def syscalls(self, cell: Cell, heap: str) -> dict[str, float]:
        """
        Return system calls per message by contender, for those that were counted.
        """
        return {
            name: sample.syscalls / sample.messages
            for name, by_round in _table(self.counted, cell, heap).items()
            for sample in by_round.values()
            if sample.syscalls is not None
        }

    def ratios(self) -> list[dict[str, object]]:
        """
        Return the spread of the CPU ratios of every pair in every cell, for JSON.
        """
        rows: list[dict[str, object]] = []
        for cell in self.cells():
            for heap in self.heaps:
                table = self.table(cell, heap)
                for name in table:
                    for rival in table:
                        found = ratios(table, name, rival, cpu) if name != rival else None
                        if found is not None:
                            rows.append(
                                {
                                    **asdict(cell),
                                    "heap": heap,
                                    "contender": name,
                                    "rival": rival,
                                    "cpu_ratio": found.as_dict(),
                                }
                            )
        return rows

    def as_json(self) -> dict[str, object]:
        """
        Return all of it, with the ratios, as JSON takes it.
        """
        return {
            "benchmark": "echo",
            "format": FORMAT,
            **{name: getattr(self, name) for name in _PLAIN},
            "samples": [asdict(sample) for sample in self.samples],
            "counted": [asdict(sample) for sample in self.counted],
            "ratios": self.ratios(),
        }


_PLAIN = (
    "machine",
    "client",
    "spin",
    "server_cpu",
    "client_cpu",
    "warm_seconds",
    "seconds",
    "rounds",
    "heaps",
    "skipped",
    "broken",
)
"""The fields of a result that JSON takes as they are."""


def held_object(path: Path, suite: str) -> dict[str, object]:
    """
    Return the object that a file of one suite holds, of whatever format.

    Raises:
        ResultError: It cannot be read, or is of something else.
    """
    try:
        held: object = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as failure:
        raise ResultError(f"{path}: {failure}") from None
    fields = cast("dict[str, object]", held) if isinstance(held, dict) else {}
    if fields.get("benchmark") != suite:
        raise ResultError(f"{path} is no result of `uringio bench {suite}`")
    return fields


def parsed(path: Path, suite: str, version: int) -> dict[str, object]:
    """
    Return the object that the result file of a whole run holds.

    Raises:
        ResultError: It cannot be read, is of something else or of another format.
    """
    fields = held_object(path, suite)
    if fields.get("format") != version:
        raise ResultError(f"{path} is no result of `uringio bench {suite}` in format {version}")
    return fields


def load(path: Path) -> Result:
    """
    Return the result that was written to *path*.

    Raises:
        ResultError: It cannot be read, is of something else or of another format.
    """
    fields = parsed(path, "echo", FORMAT)
    try:
        rows = {
            name: [_sample(row) for row in cast("list[dict[str, int]]", fields[name])]
            for name in ("samples", "counted")
        }
        plain = cast("dict[str, int]", {name: fields[name] for name in _PLAIN})
        return Result(**plain, **rows)  # type: ignore[arg-type]  # as_json() wrote them
    except (KeyError, TypeError) as failure:
        raise ResultError(f"{path} is not whole: {failure}") from None


def _sample(row: dict[str, int]) -> Sample:
    return Sample(**row)  # type: ignore[arg-type]  # of as many types as asdict() took apart


def ratios(table: Table, contender: str, rival: str, measure: Measure) -> Spread | None:
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


def ours_and_rivals(table: Table) -> tuple[list[str], list[str]]:
    """
    Return the names of our forms and of the others, each in the order of the tables.
    """
    ours = [one.name for one in CONTENDERS if one.is_ours and one.name in table]
    return ours, [name for name in table if name not in ours]


def _table(samples: Iterable[Sample], cell: Cell, heap: str) -> Table:
    table: Table = {}
    for sample in samples:
        if sample.heap == heap and sample.cell == cell:
            table.setdefault(sample.contender, {})[sample.round] = sample
    order: Sequence[str] = [one.name for one in CONTENDERS]
    return {name: table[name] for name in (*order, *table) if name in table}
