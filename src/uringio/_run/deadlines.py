"""
The deadlines of cancel scopes.

A heap, like the driver's timers: the nearest deadline bounds the loop's wait.  A scope that is left
before its time stays in the heap until its deadline comes up, or until such entries are half of it:
a server that gives each request an hour must not keep an hour's requests.
"""

import heapq
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .scope import CancelScope

__all__ = ["Deadlines"]

_DEAD_COUNT_MIN = 64


class Deadlines:
    """
    What the loop watches for: each scope until its `deadline_ns`.

    Attributes:
        heap: Deadline, serial number, scope; true while there is anything to watch.
    """

    def __init__(self) -> None:
        self.heap: list[tuple[int, int, CancelScope]] = []
        self._serial = 0
        self._dead_count = 0

    def add(self, scope: "CancelScope", deadline_ns: int) -> None:
        """Cancel *scope* when its deadline comes."""
        self._serial += 1
        scope.deadline_ns = deadline_ns
        heapq.heappush(self.heap, (deadline_ns, self._serial, scope))

    def remove(self, scope: "CancelScope") -> None:
        """Forget *scope*, which must be watched."""
        scope.deadline_ns = None
        self._dead_count += 1
        if self._dead_count > _DEAD_COUNT_MIN and self._dead_count * 2 > len(self.heap):
            # In place: the loop holds the list.
            self.heap[:] = [entry for entry in self.heap if entry[2].deadline_ns is not None]
            heapq.heapify(self.heap)
            self._dead_count = 0

    def nearest_ns(self) -> int | None:
        """Return the nearest deadline, or None."""
        heap = self.heap
        while heap and heap[0][2].deadline_ns is None:
            heapq.heappop(heap)
            self._dead_count -= 1
        return heap[0][0] if heap else None

    def expire(self, now_ns: int) -> None:
        """Cancel every scope whose deadline has come."""
        heap = self.heap
        while heap and heap[0][0] <= now_ns:
            scope = heap[0][2]
            if scope.deadline_ns is None:
                self._dead_count -= 1
            else:
                scope.cancel()
                scope.deadline_ns = None
            heapq.heappop(heap)
