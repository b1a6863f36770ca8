"""Provided buffers, as the kernel sees them."""

from ctypes import string_at
from typing import TYPE_CHECKING

from uringio._sys.layouts import BUF, BUF_RING_TAIL_OFFSET, BUF_SIZE

from ._requests import BYTE_ORDER

if TYPE_CHECKING:
    from ._invariants import Invariants

__all__ = ["BufferGroup"]


class BufferGroup:
    """A ring of provided buffers."""

    def __init__(self, addr: int, count: int, invariants: "Invariants") -> None:
        self._addr = addr
        self._count = count
        self._head = self._seen = 0
        self._invariants = invariants
        self._places: dict[int, tuple[int, int]] = {}  # buffer -> where it is, and its size
        self._inside: set[int] = set()

    def peek(self) -> tuple[int, int, int] | None:
        """Return address, size and number of the next buffer, None if there is none."""
        tail = int.from_bytes(string_at(self._addr + BUF_RING_TAIL_OFFSET, 2), BYTE_ORDER)
        if self._seen != tail:
            self._look(tail)
        if self._head == tail:
            return None
        return self._entry(self._head)

    def take(self) -> None:
        """Take the next buffer away."""
        self._inside.discard(self._entry(self._head)[2])
        self._head = (self._head + 1) & 0xFFFF

    def missing_count(self) -> int:
        """How many buffers are not in the ring."""
        self.peek()
        # A ring that was given up before any buffer was put in misses none.
        return self._count - len(self._inside) if self._places else 0

    def _entry(self, index: int) -> tuple[int, int, int]:
        entry = self._addr + (index & (self._count - 1)) * BUF_SIZE
        found: tuple[int, int, int] = BUF.unpack(string_at(entry, BUF.size))
        return found

    def _look(self, tail: int) -> None:
        """Look at what was put back."""
        while self._seen != tail:
            addr, size, bid = self._entry(self._seen)
            is_own = self._places.setdefault(bid, (addr, size)) == (addr, size)
            is_inside = bid in self._inside
            self._inside.add(bid)
            self._seen = (self._seen + 1) & 0xFFFF
            self._invariants.buffer_put(bid, is_inside, is_own)
