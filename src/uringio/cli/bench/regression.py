"""
Ratios of this run held against those of a stored one.

Figures of two runs are of two machines, or of one machine on two days; ratios to a rival that took
part in the same rounds can be compared. A ratio is worse when its median has grown by more than the
tolerance and three quarters of its rounds are above the stored median.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias, cast

from .result import ResultError, parsed
from .sample import Cell

Key: TypeAlias = tuple[int, int, int, str, str, str]
"""Size, connections, messages in flight, heap mode, contender, rival."""


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
        size_bytes, connections, in_flight, heap, contender, rival = self.key
        change = self.measured / self.stored - 1
        return (
            f"{contender} / {rival}, {Cell(size_bytes, connections, in_flight)}, {heap}: "
            f"{self.measured:.2f}, was {self.stored:.2f} ({change:+.1%})"
        )


@dataclass(frozen=True)
class Baseline:
    """
    A stored run: its ratios, and what it was taken on.
    """

    ratios: dict[Key, dict[str, float]]
    machine: dict[str, object]

    def differences(self, machine: dict[str, object]) -> list[str]:
        """
        Return what was different about machine and versions: reasons to doubt a comparison.
        """
        names = ("processor", "machine", "kernel", "implementation", "python", "libc", "versions")
        return [
            f"{name}: {machine.get(name)}, was {self.machine.get(name)}"
            for name in names
            if machine.get(name) != self.machine.get(name)
        ]


def stored(path: Path) -> Baseline:
    """
    Read a baseline: the JSON of an earlier run.

    Raises:
        ResultError: It cannot be read.
    """
    fields = parsed(path)
    try:
        return Baseline(
            by_key(cast("list[dict[str, object]]", fields["ratios"])),
            cast("dict[str, object]", fields["machine"]),
        )
    except (KeyError, TypeError) as failure:
        raise ResultError(f"{path} is not whole: {failure}") from None


def by_key(rows: Iterable[dict[str, object]]) -> dict[Key, dict[str, float]]:
    """
    Return rows of `Result.ratios` by what they are ratios of.
    """
    names = ("size_bytes", "connections", "in_flight", "heap", "contender", "rival")
    return {
        cast("Key", tuple(row[name] for name in names)): cast("dict[str, float]", row["cpu_ratio"])
        for row in rows
    }


def changes(
    baseline: Baseline, rows: Sequence[dict[str, object]], tolerance: float
) -> list[Change]:
    """
    Return each ratio of ours to a rival that both runs have.

    Args:
        baseline: The stored run.
        rows: `Result.ratios` of this one.
        tolerance: By what part a ratio may grow: 0.05 is five per cent.
    """
    found: list[Change] = []
    for key, now in by_key(rows).items():
        before = baseline.ratios.get(key)
        contender, rival = key[4], key[5]
        is_ours = contender.startswith("uringio") and not rival.startswith("uringio")
        if before is None or not is_ours:
            continue
        is_worse = (
            now["median"] > before["median"] * (1 + tolerance)
            and now["quartile_low"] > before["median"]
        )
        found.append(Change(key, before["median"], now["median"], is_worse))
    return found
