"""
Deadlines, kept by the driver itself.

A heap beside the loop costs about a microsecond per timer and no system call; an IORING_OP_TIMEOUT
costs an SQE, a kernel timer and a completion, and a cancelled one as much again.  The nearest
deadline bounds the driver's wait, so no timer needs the kernel at all.

Cancelled entries stay in the heap until they come up, or until they are half of it, or all.
"""

import heapq

from .contract import Deliver
from .op import DONE, Op

__all__ = ["Timers"]


class Timers:
    """
    The TIMEOUT ops of one driver: ``op.off`` is the deadline.

    Attributes:
        live: The ops by their ``use``; who cancels one takes it out of here, and then calls `tidy`.
    """

    def __init__(self) -> None:
        self.live: dict[int, Op[object]] = {}
        self._heap: list[tuple[int, int, Op[object]]] = []  # deadline, use, op

    def __len__(self) -> int:
        return len(self.live)

    def add(self, op: Op[object]) -> None:
        """Watch ``op.off``, a time on the driver's clock, in nanoseconds."""
        self.live[op.use] = op
        heapq.heappush(self._heap, (op.off, op.use, op))

    def tidy(self) -> None:
        """Drop the entries of cancelled ops, once they are many."""
        heap = self._heap
        if not self.live:
            heap.clear()  # for where nothing is live, nobody asks for the nearest, and tidies up
        count = len(heap)
        if count > 64 and count > 2 * len(self.live):
            kept = [entry for entry in heap if entry[1] in self.live]
            heapq.heapify(kept)
            if not heap[count:]:  # else a signal handler has added some, and the next may tidy up
                heap[:] = kept

    def next_deadline_ns(self) -> int | None:
        """Return the nearest deadline, or None."""
        heap = self._heap
        while heap and heap[0][1] not in self.live:
            heapq.heappop(heap)
        return heap[0][0] if heap else None

    def expire(self, now_ns: int, deliver: Deliver) -> None:
        """Settle every op whose deadline has come, and hand it to *deliver*."""
        heap, live = self._heap, self.live
        while heap and heap[0][0] <= now_ns:
            # A signal handler may raise behind any call: it finds an op either settled or here.
            _, use, op = heap[0]
            if use in live:
                op.state = DONE
                del live[use]
                deliver(op)
            else:
                heapq.heappop(heap)

    def take_all(self) -> list[Op[object]]:
        """Empty the heap and return the live ops."""
        ops = list(self.live.values())
        self.live.clear()
        self._heap.clear()
        return ops
