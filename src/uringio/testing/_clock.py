"""Virtual time: it stands still while the program computes, and jumps when all wait."""

import heapq
from collections.abc import Callable

__all__ = ["SimClock"]

_START_NS = 1_000_000_000_000
_REAL_START_NS = 1_750_000_000_000_000_000


class SimClock:
    """
    The clock of a simulated kernel, and everything that is going to happen in it.

    Attributes:
        now_ns: The time. [ns]
        real_offset_ns: How far the wall clock is ahead of it; `set_real` changes it. [ns]
    """

    def __init__(self) -> None:
        self.now_ns = _START_NS
        self.real_offset_ns = _REAL_START_NS - _START_NS
        self._heap: list[tuple[int, int]] = []
        self._pending: dict[int, Callable[[], None]] = {}
        self._last = 0

    @property
    def elapsed_ns(self) -> int:
        """Simulated time since the kernel was made, in nanoseconds."""
        return self.now_ns - _START_NS

    @property
    def real_ns(self) -> int:
        """The wall clock: nanoseconds since 1970."""
        return self.now_ns + self.real_offset_ns

    def set_real(self, when_ns: int) -> None:
        """Set the wall clock, as an administrator does; what waits for a time is not moved."""
        self.real_offset_ns = when_ns - self.now_ns

    def call_at(self, when_ns: int, function: Callable[[], None]) -> int:
        """Have *function* called at a time; returns a number for `cancel`."""
        self._last += 1
        self._pending[self._last] = function
        heapq.heappush(self._heap, (when_ns, self._last))
        return self._last

    def call_later(self, delay_ns: int, function: Callable[[], None]) -> int:
        """Have *function* called when so much time has passed; returns a number for `cancel`."""
        return self.call_at(self.now_ns + delay_ns, function)

    def cancel(self, number: int) -> None:
        """Have a call not made; nothing happens if it was."""
        self._pending.pop(number, None)

    def next_ns(self) -> int | None:
        """Return when the next call is due, None if there is none."""
        heap = self._heap
        while heap and heap[0][1] not in self._pending:
            heapq.heappop(heap)
        return heap[0][0] if heap else None

    def advance_to(self, when_ns: int) -> None:
        """Let time pass, making every call that is due on the way at its own time."""
        while (due_ns := self.next_ns()) is not None and due_ns <= when_ns:
            number = heapq.heappop(self._heap)[1]
            self.now_ns = max(self.now_ns, due_ns)
            self._pending.pop(number)()
        self.now_ns = max(self.now_ns, when_ns)
