"""
Memory that the kernel may still touch after a ring's closing ran out of time.

It is kept for as long as the process lives: freed, it would become something else's.
"""

import warnings
from typing import Final

__all__ = ["keep_for_ever", "leak"]

_leaked: Final[list[object]] = []


def keep_for_ever(*memory: object) -> None:
    """Keep what the kernel may still touch for a moment."""
    _leaked.append(memory)


def leak(count: int, *memory: object) -> None:
    """Keep what belongs to *count* operations, and say so, unless there are none."""
    if not count:
        return
    keep_for_ever(*memory)
    warnings.warn(
        f"{count} operations were still in the kernel when the ring was closed; their memory is "
        "leaked on purpose, since freeing it would let the kernel write into what comes after",
        ResourceWarning,
        stacklevel=4,
    )
