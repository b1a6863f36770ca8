"""Seeded choices that come out the same on every Python."""

import hashlib
import random
from collections.abc import Sequence
from typing import TypeVar

__all__ = ["Dice"]

T = TypeVar("T")


class Dice:
    """
    One stream of choices, a function of the seed and the stream's name alone.

    Streams are apart so that leaving out one fault does not change when messages arrive.  Only
    `random.Random.random` is used, the one method whose results Python promises to keep.

    Args:
        seed: Any number.
        name: What the choices are about.
    """

    def __init__(self, seed: int, name: str) -> None:
        digest = hashlib.blake2b(f"{seed}/{name}".encode(), digest_size=8).digest()
        # It chooses among faults, and is meant to be predictable.
        self._random = random.Random(int.from_bytes(digest, "big")).random  # noqa: S311

    def chance(self, share: float) -> bool:
        """Whether something with this probability happens; draws nothing for 0."""
        return share > 0.0 and self._random() < share

    def below(self, count: int) -> int:
        """Return a number from 0 to *count* - 1."""
        return int(self._random() * count)

    def between(self, low: int, high: int) -> int:
        """Return a number from *low* to *high*, both included."""
        return low + int(self._random() * (high - low + 1))

    def pick(self, choices: Sequence[T]) -> T:
        """Return one of *choices*."""
        return choices[int(self._random() * len(choices))]
