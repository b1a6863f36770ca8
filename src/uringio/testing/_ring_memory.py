"""
The two queues of a simulated ring, in memory that the program maps.

Source: io_uring_setup(2), and what liburing makes of its offsets.
"""

from collections import deque
from typing import Final

from uringio._sys import constants as k
from uringio._sys.layouts import CQE, SQE
from uringio._sys.memory import Memory

from ._objects import SimFile

__all__ = ["CQ_OFFSETS", "SQ_OFFSETS", "U32_MASK", "RingMemory"]

U32_MASK: Final = 0xFFFFFFFF
# Where the words stand; the completions follow, and the index array. [bytes]
_WORDS_BYTES: Final = 64
SQ_OFFSETS: Final = (0, 4, 8, 12, 16, 20)
CQ_OFFSETS: Final = (32, 36, 40, 44, 48, _WORDS_BYTES, 52)


class RingMemory(SimFile):
    """
    The queues, and what found no room in them.

    Args:
        sq_entries, cq_entries: Sizes, powers of two. [count]
        flags: IORING_SETUP_*.
        start: Where the indexes of both queues begin.

    Attributes:
        ring_memory, sqe_memory: What the program maps.
    """

    def __init__(self, sq_entries: int, cq_entries: int, flags: int, start: int) -> None:
        super().__init__()
        self.flags = flags
        self.sq_entries, self.cq_entries = sq_entries, cq_entries
        self.array_offset = _WORDS_BYTES + cq_entries * CQE.size
        self.ring_memory = Memory(self.array_offset + 4 * sq_entries)
        self.sqe_memory = Memory(sq_entries * SQE.size)
        self._view = self.ring_memory.view
        self._words = self._view[:_WORDS_BYTES].cast("I")
        self._array = self._view[self.array_offset : self.array_offset + 4 * sq_entries].cast("I")
        for index in (0, 1, 8, 9):
            self._words[index] = start & U32_MASK
        self._words[2], self._words[10] = sq_entries - 1, cq_entries - 1
        self._words[3], self._words[11] = sq_entries, cq_entries
        self._overflow: deque[bytes] = deque()
        self._strays: list[bytes] = []

    def _has_room(self) -> bool:
        return self.ready_count() < self.cq_entries

    def ready_count(self) -> int:
        """How many completions stand in the queue."""
        return (self._words[9] - self._words[8]) & U32_MASK

    def _put(self, raw: bytes) -> None:
        start = _WORDS_BYTES + (self._words[9] & self.cq_entries - 1) * CQE.size
        self._view[start : start + CQE.size] = raw
        self._words[9] = (self._words[9] + 1) & U32_MASK

    def flush_overflow(self) -> bool:
        """Move what overflowed into the queue as far as there is room; whether that was all."""
        while self._overflow and self._has_room():
            self._put(self._overflow.popleft())
        if not self._overflow:
            self._words[4] &= ~k.IORING_SQ_CQ_OVERFLOW & U32_MASK
        return not self._overflow

    def _untaken_strays(self) -> int:
        """How many completions that belong to nobody the program has never seen."""
        words, mask = self._words, self.cq_entries - 1
        starts = (
            _WORDS_BYTES + (words[8] + index & mask) * CQE.size
            for index in range(self.ready_count())
        )
        untaken = [bytes(self._view[start : start + CQE.size]) for start in starts]
        untaken += self._overflow
        return sum(raw in untaken for raw in self._strays)
