"""
What the echo suite is held to: the most that ours may cost of a rival, printed and never asserted.
"""

from __future__ import annotations

from dataclasses import dataclass

from .sample import HEAPS, Cell

_SIZES = (64, 1 << 10, 16 << 10, 64 << 10)
_COUNTS = (1, 50, 500)
_SMALL = tuple(Cell(size, count) for size in _SIZES[:2] for count in (10, 50, 500))
_EVERY = tuple(Cell(size, count) for size in _SIZES for count in _COUNTS)
_DEEP = tuple(Cell(size, count, 16) for size in _SIZES for count in _COUNTS)
_C = (Cell(64, 50),)
_FORMS = ("protocol", "buffered", "streams", "sock")


@dataclass(frozen=True)
class Budget:
    """
    The most that one contender's CPU per message may be of a rival's, and where.
    """

    contender: str
    rival: str
    ratio_max: float
    cells: tuple[Cell, ...]
    heaps: tuple[str, ...] = tuple(HEAPS)

    def holds_in(self, cell: Cell, heap: str) -> bool:
        """
        Return whether it is a budget of this cell in this heap mode.
        """
        return heap in self.heaps and cell in self.cells


BUDGETS = (
    Budget("uringio-native", "uvloop-protocol", 1.0, _SMALL),
    Budget("uringio-native", "uvloop-streams", 0.85, _EVERY),
    Budget("uringio-native", "c-epoll", 1.25, _C),
    *(
        Budget(f"uringio-aio-{form}", f"uvloop-{form}", 1.0, (*_SMALL, *_EVERY, *_DEEP))
        for form in _FORMS
    ),
    Budget("uringio-epoll-protocol", "asyncio-protocol", 1.0, _EVERY, ("steady",)),
    Budget("uringio-native-epoll", "asyncio-streams", 0.8, _EVERY, ("steady",)),
)
"""The epoll driver is held to the steady heap: in a fresh one asyncio pays for its allocator."""
