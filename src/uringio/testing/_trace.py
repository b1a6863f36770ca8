"""What happened in a simulation, as one hash and its last lines."""

import hashlib
from collections import deque

__all__ = ["Trace"]


class Trace:
    """
    Every event in order: numbers and names, never addresses.

    Attributes:
        count: Events so far.
        tail: The last of them.
    """

    def __init__(self, tail_count: int = 100) -> None:
        self._hash = hashlib.blake2b(digest_size=16)
        self.count = 0
        self.tail: deque[str] = deque(maxlen=tail_count)

    def add(self, line: str) -> None:
        """Note one event."""
        self._hash.update(line.encode())
        self._hash.update(b"\n")
        self.count += 1
        self.tail.append(line)

    def digest(self) -> str:
        """Return the hash of all events so far."""
        return self._hash.hexdigest()
