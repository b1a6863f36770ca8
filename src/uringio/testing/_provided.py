"""Provided buffers, as the kernel sees them."""

from ctypes import string_at

from uringio._sys.layouts import BUF, BUF_RING_TAIL_OFFSET, BUF_SIZE

from ._requests import BYTE_ORDER

__all__ = ["BufferGroup"]


class BufferGroup:
    """A ring of provided buffers."""

    def __init__(self, addr: int, count: int) -> None:
        self._addr = addr
        self._count = count
        self._head = 0

    def peek(self) -> tuple[int, int, int] | None:
        """Return address, size and number of the next buffer, None if there is none."""
        tail = int.from_bytes(string_at(self._addr + BUF_RING_TAIL_OFFSET, 2), BYTE_ORDER)
        if self._head == tail:
            return None
        entry = self._addr + (self._head & (self._count - 1)) * BUF_SIZE
        found: tuple[int, int, int] = BUF.unpack(string_at(entry, BUF.size))
        return found

    def take(self) -> None:
        """Take the next buffer away."""
        self._head = (self._head + 1) & 0xFFFF
