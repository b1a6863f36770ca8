"""
What the loops' results mean: what ours owes, what is explained, what is not.

``explained.toml`` lists the tests that a peer passes and our loop does not, with reasons::

    [[different]]
    suite = "cpython"
    tests = ["test_module.Class.test_*"]   # patterns
    python = ["3.11"]                      # optional: every version otherwise
    sometimes = true                       # optional: it may pass
    reason = "why"
"""

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from .running import Run

__all__ = ["SHARE_MIN", "Different", "Verdict", "judge", "read_explained"]

EXPLAINED = Path(__file__).with_name("explained.toml")
# Of the loop-making tests that asyncio's own loop passes, those that ours has to.
SHARE_MIN = 0.95


@dataclass
class Different:
    """One entry of ``explained.toml``."""

    suite: str
    tests: list[str]
    reason: str
    python: list[str]
    sometimes: bool = False

    def explains(self, test: str) -> bool:
        return any(fnmatchcase(test, pattern) for pattern in self.tests)


@dataclass
class Verdict:
    """
    What came out.

    Attributes:
        loop_making: Tests that made a loop, on any of the loops.
        passed: Those of them that each loop passed, by its name.
        missing: Those that a peer passes and ours does not, and which peers those are.
        unexplained: Those of `missing` that nothing explains.
        stale: Patterns that explain nothing any more.
    """

    loop_making: set[str]
    passed: dict[str, set[str]]
    missing: dict[str, list[str]]
    unexplained: list[str]
    stale: list[str]

    def share(self, peer: str) -> float:
        """Of what *peer* passes, the share that ours passes, too."""
        owed = self.passed[peer]
        return len(owed & self.passed["uringio"]) / len(owed) if owed else 1.0


def read_explained(suite: str, python: str) -> list[Different]:
    """Return the entries for *suite* on the version *python*."""
    entries = tomllib.loads(EXPLAINED.read_text(encoding="utf-8")).get("different", [])
    read = [Different(**{"python": [], **entry}) for entry in entries]
    return [one for one in read if one.suite == suite and (not one.python or python in one.python)]


def judge(runs: Mapping[str, Run], explained: Iterable[Different], *, whole: bool) -> Verdict:
    """
    Compare the loops.

    Args:
        runs: The results by loop; ours among them.
        explained: What may be different.
        whole: Whether all tests ran, so that what explains nothing is stale.
    """
    making = set().union(*(run.loop_making() for run in runs.values()))
    passed = {loop: run.passed() & making for loop, run in runs.items()}
    ours = passed["uringio"]
    missing = {
        test: [peer for peer in sorted(passed) if test in passed[peer]]
        for test in sorted(set().union(*passed.values()) - ours)
    }
    explained = list(explained)
    unexplained = [
        test for test in missing if not any(different.explains(test) for different in explained)
    ]
    stale = [
        pattern
        for different in explained
        if whole and not different.sometimes
        for pattern in different.tests
        if not any(fnmatchcase(test, pattern) for test in missing)
    ]
    return Verdict(making, passed, missing, unexplained, stale)
