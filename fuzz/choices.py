"""Choices out of bytes: what hypothesis mutates and a corpus keeps, as a target's decisions."""

__all__ = ["Choices"]


class Choices:
    """
    Read an input from its beginning; at its end every choice is the first.

    So any bytes are an input, a shorter one makes fewer choices, and zeros make the simplest.
    """

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def __bool__(self) -> bool:
        """Whether anything is left."""
        return self._at < len(self._data)

    def number(self, size_bytes: int) -> int:
        """Return an unsigned number of so many bytes."""
        taken = self.take(size_bytes)
        return int.from_bytes(taken.ljust(size_bytes, b"\0"), "little")

    def below(self, count: int) -> int:
        """Return a number from 0 to *count* - 1."""
        return self.number(1 if count <= 256 else 2) % count

    def take(self, count: int) -> bytes:
        """Return the next *count* bytes, or what is left of them."""
        taken = self._data[self._at : self._at + count]
        self._at += len(taken)
        return taken

    def rest(self) -> bytes:
        """Return all that is left."""
        return self.take(len(self._data))
