"""A ring flown by hand: what a driver does, one step at a time."""

from uringio._ring.prep import prep, sqe_head
from uringio._ring.queue import Completion, make_reap, make_submit_and_wait
from uringio._ring.setup import Ring
from uringio._sys import constants as k
from uringio._sys.errnos import Fate

# The most that a test waits for what must come. [nanoseconds]
PATIENCE_NS = 50_000_000_000


class Pilot:
    """
    A ring, its two closures, and the tail between them.

    Attributes:
        tail: Slots filled, a count that never wraps.
        taken: Completions, in the order in which they were reaped.
    """

    def __init__(self, ring: Ring) -> None:
        self.ring = ring
        self.tail = ring.sq_tail[0]
        self.taken: list[Completion] = []
        self.submit_and_wait = make_submit_and_wait(ring)
        self.reap = make_reap(ring, self.taken)

    def put(
        self, opcode: int, fd: int = -1, *, flags: int = 0, ioprio: int = 0, **fields: int
    ) -> None:
        """Fill the next slot."""
        prep(self.ring, self.tail, sqe_head(opcode, flags, ioprio), fd, **fields)
        self.tail += 1

    def put_nops(self, count: int, first: int = 0) -> None:
        """Fill slots with requests that complete at once, numbered from *first* on."""
        for number in range(first, first + count):
            self.put(k.IORING_OP_NOP, user_data=number)

    def enter(self, wait_count: int = 0, timeout_ns: int | None = None) -> Fate:
        """Hand over what was filled, and wait."""
        return self.submit_and_wait(self.tail, wait_count, timeout_ns)

    def collect(self, count: int) -> list[Completion]:
        """Enter and reap until *count* completions have come, and return them."""
        while len(self.taken) < count:
            before = len(self.taken)
            self.enter(1, PATIENCE_NS)
            self.reap()
            assert len(self.taken) > before, f"only {before} of {count} completions came"
        assert len(self.taken) == count
        out = self.taken[:]
        self.taken.clear()
        return out

    def result(self) -> int:
        """Enter, and return the result of the one request in flight."""
        [(_, res, _)] = self.collect(1)
        return res

    def consumed(self) -> int:
        """Count the slots that the kernel has taken, modulo 2**32."""
        return self.ring.sq_head[0]
