"""
Deadlines, kept by the driver itself.

A heap beside the loop costs about a microsecond per timer and no system call; an IORING_OP_TIMEOUT
costs an SQE, a kernel timer and a completion, and a cancelled one as much again.  The nearest
deadline bounds the driver's wait, so no timer needs the kernel at all.

Cancelled entries stay in the heap until they come up, or until they are half of it.
"""

import heapq

from .contract import Deliver
from .op import DONE, Op

__all__ = ["Timers"]


class Timers:
    """
    The TIMEOUT ops of one driver: ``op.off`` is the deadline, ``op.use`` tells uses apart.

    Attributes:
        dead_count: Entries whose ops are not in flight any more.
    """

    def __init__(self) -> None:
        self._heap: list[tuple[int, int, Op[object]]] = []  # deadline, use, op
        self.dead_count = 0

    def __len__(self) -> int:
        return len(self._heap) - self.dead_count

    def add(self, op: Op[object]) -> None:
        """Watch ``op.off``, a time on the driver's clock, in nanoseconds."""
        heapq.heappush(self._heap, (op.off, op.use, op))

    def tidy(self) -> None:
        """
        Drop the entries of cancelled ops, once they are many.

        Who cancels one sets its ``use`` to 0 and counts it in `dead_count`, in one go: between
        operators no signal handler runs.
        """
        heap = self._heap
        if self.dead_count > 64 and self.dead_count * 2 > len(heap):
            live = [entry for entry in heap if entry[1] == entry[2].use]
            heapq.heapify(live)
            # A handler may have cancelled others meanwhile.
            self.dead_count -= len(heap) - len(live)
            heap[:] = live

    def next_deadline_ns(self) -> int | None:
        """Return the nearest deadline, or None."""
        heap = self._heap
        while heap and heap[0][1] != heap[0][2].use:
            self.dead_count -= 1
            heapq.heappop(heap)
        return heap[0][0] if heap else None

    def expire(self, now_ns: int, deliver: Deliver) -> None:
        """Settle every op whose deadline has come, and hand it to *deliver*."""
        heap = self._heap
        while heap and heap[0][0] <= now_ns:
            # A signal handler may raise behind any call: it finds an op either settled or here, and
            # the entries that are dead counted.
            _, use, op = heap[0]
            if use == op.use:
                op.use = 0
                op.state = DONE
                self.dead_count += 1
                deliver(op)
            else:
                self.dead_count -= 1
                heapq.heappop(heap)

    def take_all(self) -> list[Op[object]]:
        """Empty the heap and return the live ops."""
        live = [op for _, use, op in self._heap if use == op.use]
        self._heap.clear()
        self.dead_count = 0
        return live
