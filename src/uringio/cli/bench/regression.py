"""
Ratios of this run held against those of a stored one.

Figures of two runs are of two machines, or of one machine on two days; ratios to a rival that took
part in the same rounds can be compared. A ratio is worse when its median has grown by more than the
tolerance and three quarters of its rounds are above the stored median.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias, cast

from .result import ResultError, held_object
from .sample import Cell

Key: TypeAlias = tuple[str, str, str]
"""Where (a cell and its heap mode, or a question), contender, rival."""
Rows: TypeAlias = Sequence[dict[str, object]]
"""The `ratios` of a result."""

_NAMES = ("processor", "machine", "kernel", "implementation", "python", "libc", "versions")
"""What of the machine is told when it is another than it was."""
_DIGITS = 4


@dataclass(frozen=True)
class Change:
    """
    One ratio, stored and measured.
    """

    key: Key
    stored: float
    measured: float
    is_worse: bool

    def __str__(self) -> str:
        """
        Return it as the command prints it.
        """
        where, contender, rival = self.key
        change = self.measured / self.stored - 1
        return (
            f"{contender} / {rival}, {where}: "
            f"{self.measured:.2f}, was {self.stored:.2f} ({change:+.1%})"
        )


@dataclass(frozen=True)
class Baseline:
    """
    A stored run: the medians of its ratios, and what it was taken on.
    """

    medians: dict[Key, float]
    machine: dict[str, object]

    def differences(self, machine: dict[str, object]) -> list[str]:
        """
        Return what was different about machine and versions: reasons to doubt a comparison.
        """
        found: list[str] = []
        for name in _NAMES:
            then, now = self.machine.get(name), machine.get(name)
            if isinstance(then, dict) and isinstance(now, dict):
                before = cast("dict[str, object]", then)
                after = cast("dict[str, object]", now)
                found += [
                    f"{package}: {after.get(package)}, was {before[package]}"
                    for package in before
                    if before[package] is not None and after.get(package) != before[package]
                ]
            elif now != then:
                found.append(f"{name}: {now}, was {then}")
        return found


def stored(path: Path, suite: str) -> Baseline:
    """
    Read a baseline: what `save` wrote, or the JSON of an earlier run.

    Raises:
        ResultError: It cannot be read, or is of another suite.
    """
    fields = held_object(path, suite)
    try:
        rows = by_key(cast("Rows", fields["ratios"]))
        machine = cast("dict[str, object]", fields["machine"])
        return Baseline({key: ratio["median"] for key, ratio in rows.items()}, machine)
    except (KeyError, TypeError) as failure:
        raise ResultError(f"{path} is not whole: {failure}") from None


def save(path: Path, suite: str, machine: dict[str, object], rows: Rows) -> None:
    """
    Write a baseline: the medians of our ratios to rivals, and nothing that is larger.
    """
    kept = [
        {
            **{name: value for name, value in row.items() if name != _ratio_name(row)},
            _ratio_name(row): {"median": round(ratio["median"], _DIGITS)},
        }
        for row in rows
        for key, ratio in by_key([row]).items()
        if _is_of_interest(key)
    ]
    lines = ",\n".join(f"  {json.dumps(row)}" for row in kept)
    about = {name: machine.get(name) for name in (*_NAMES, "commit", "taken_at")}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        f'{{\n "benchmark": {json.dumps(suite)},\n "machine": {json.dumps(about)},\n'
        f' "ratios": [\n{lines}\n ]\n}}\n',
        encoding="utf-8",
    )


def by_key(rows: Iterable[dict[str, object]]) -> dict[Key, dict[str, float]]:
    """
    Return the ratios of a result by what they are of.
    """
    return {
        (_where(row), cast("str", row["contender"]), cast("str", row["rival"])): cast(
            "dict[str, float]", row[_ratio_name(row)]
        )
        for row in rows
    }


def changes(baseline: Baseline, rows: Rows, tolerance: float) -> list[Change]:
    """
    Return each ratio of ours to a rival that both runs have.

    Args:
        baseline: The stored run.
        rows: The `ratios` of this one.
        tolerance: By what part a ratio may grow: 0.05 is five per cent.
    """
    found: list[Change] = []
    for key, now in by_key(rows).items():
        before = baseline.medians.get(key)
        if before is None or not _is_of_interest(key):
            continue
        is_worse = now["median"] > before * (1 + tolerance) and now["quartile_low"] > before
        found.append(Change(key, before, now["median"], is_worse))
    return found


def report(
    baseline: Baseline, rows: Rows, machine: dict[str, object], tolerance: float
) -> tuple[bool, list[str]]:
    """
    Return whether a run is worse than its baseline, or tells nothing of it, and the lines to print.
    """
    found = changes(baseline, rows, tolerance)
    worse = [one for one in found if one.is_worse]
    lines = [f"the baseline is of another {one}" for one in baseline.differences(machine)]
    lines += [f"WORSE: {one}" for one in worse]
    lines.append(f"{len(found)} ratios compared with the baseline, {len(worse)} worse")
    if not found:
        lines.append("nothing in common with the baseline: other cells, or other contenders")
    return bool(worse) or not found, lines


def _where(row: dict[str, object]) -> str:
    if "question" in row:
        return cast("str", row["question"])
    numbers = cast("dict[str, int]", row)
    cell = Cell(numbers["size_bytes"], numbers["connections"], numbers["in_flight"])
    return f"{cell}, {row['heap']}"


def _ratio_name(row: dict[str, object]) -> str:
    return "cpu_ratio" if "cpu_ratio" in row else "ratio"


def _is_of_interest(key: Key) -> bool:
    _, contender, rival = key
    return contender.startswith("uringio") and not rival.startswith("uringio")
