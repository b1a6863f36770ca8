"""
Rounds, ratios and spreads: how every benchmark in this folder compares two things.

A figure taken now and another taken a minute later differ by what else the machine did in between.
So contenders run interleaved, in rounds; a ratio is formed inside one round, between neighbours in
time, and what is reported is the median of those ratios with their spread. Digits depend on the
machine, ratios far less.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

_T = TypeVar("_T")


@dataclass(frozen=True)
class Spread:
    """
    A median with the range it was taken from.
    """

    median: float
    low: float
    high: float
    quartile_low: float
    quartile_high: float
    count: int

    def as_dict(self) -> dict[str, float]:
        """
        Return the fields as plain numbers, for JSON.
        """
        return {
            "median": self.median,
            "low": self.low,
            "high": self.high,
            "quartile_low": self.quartile_low,
            "quartile_high": self.quartile_high,
            "count": self.count,
        }


def spread(values: Sequence[float]) -> Spread:
    """
    Return median, range and quartiles of *values*, which must not be empty.
    """
    ordered = sorted(values)
    if len(ordered) == 1:
        only = ordered[0]
        return Spread(only, only, only, only, only, 1)
    quartiles = statistics.quantiles(ordered, n=4, method="inclusive")
    return Spread(
        median=statistics.median(ordered),
        low=ordered[0],
        high=ordered[-1],
        quartile_low=quartiles[0],
        quartile_high=quartiles[2],
        count=len(ordered),
    )


def rotated(items: Sequence[_T], round_index: int) -> list[_T]:
    """
    Return *items* in the order of one round.

    The start rotates, so that nobody always runs first; the direction alternates, so that nobody
    always runs after the same neighbour.
    """
    if not items:
        return []
    start = round_index % len(items)
    order = [*items[start:], *items[:start]]
    if round_index % 2:
        order.reverse()
    return order
