"""
Provided buffers that a receiver keeps for a while.

A receive usually copies its bytes out and puts the buffer back within the turn.  A leased one hands
out a view of the buffer instead, and a spare goes into the ring in its place; the buffer becomes a
spare when the last view made from that one has gone, wherever that happens.  At every moment the
buffers in the ring, the spares and those leased are all there are (`counts`).

Where no spare is left, data is copied, so a receive never fails for it; and whoever holds leases
already waits with the next receive until one comes back (`must_wait`).  So a slow reader slows
itself, and nobody else.
"""

import weakref
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Final

from uringio._ring.buffers import BufferRing
from uringio._ring.setup import Ring
from uringio._sys import constants as k

from .lease_count import LeaseCount
from .op import Op

__all__ = ["Leases", "grown"]

# How often handlers that raise may break off the growing of a ring.
_TRIES_MAX: Final = 16


class Leases:
    """
    The spares of one ring of buffers, and what is leased of it.

    Args:
        buffers: The ring; numbers from its ``count`` up are spares.
        wake: Wakes the driver; called from wherever a view ends.

    Attributes:
        buffers: The ring.
        is_awaited: Whether somebody waits for a lease to end.
    """

    def __init__(self, buffers: BufferRing, wake: Callable[[], None]) -> None:
        self.buffers = buffers
        self._wake = wake
        self._spares = list(range(buffers.count, buffers.count + buffers.spare_count))
        # Buffer -> what tells that nobody sees it any more.
        self._out: dict[int, object] = {}
        # A view may end in any thread, and in the middle of any line here: it only queues.
        self._back: deque[int] = deque()
        # The last lease, and the spare for it: a signal handler may keep it from being used, and
        # then it is asked for again before any other.
        self._last = -1, -1
        self._kind: type | None = None
        self.is_awaited = False

    def take(self, op: Op[object], bid: int, size: int) -> tuple[int, bytes | memoryview]:
        """
        Lease buffer *bid*, which holds *size* bytes, to the handle of *op*.

        Returns:
            The buffer that goes into the ring, and what the receiver gets.
        """
        self._take_in()
        buffers = self.buffers
        if self._last[0] == bid:
            self._undo(*self._last)
        start = bid * buffers.buffer_bytes
        if not self._spares:
            return bid, buffers.memory.slices[start : start + size]
        # Of the whole buffer: the type that exports it is one for each size, and slow to make.
        view = buffers.memory.part(start, buffers.buffer_bytes)
        self._kind = type(view.obj)
        data = view[:size].toreadonly()
        count = op.hold
        assert isinstance(count, LeaseCount)
        gone = weakref.ref(view.obj, partial(self._came_back, bid, count))
        spare = self._spares[-1]
        self._last = bid, spare
        self._out[bid] = gone
        del self._spares[-1]
        count.out_count += 1
        return spare, data

    def _undo(self, bid: int, spare: int) -> None:
        """Take back a lease whose view nobody got."""
        if self._out.pop(bid, None) is None and bid in self._spares:
            self._spares.remove(bid)
        if spare not in self._spares:
            self._spares.append(spare)
        self._last = -1, -1

    def must_wait(self, op: Op[object]) -> bool:
        """Whether *op*, whose ``hold`` counts its handle's leases, may not receive yet."""
        self._take_in()
        self.is_awaited = not self._spares and bool(op.hold)
        return self.is_awaited

    def counts(self) -> tuple[int, int, int]:
        """Return how many buffers are in the ring, spare, and leased."""
        self._take_in()
        return self.buffers.count, len(self._spares), len(self._out)

    def _came_back(self, bid: int, count: LeaseCount, _: object) -> None:
        count.out_count -= 1
        self._back.append(bid)
        if self.is_awaited:
            self._wake()

    def _take_in(self) -> None:
        while self._back:
            bid = self._back.popleft()
            if self._out.pop(bid, None) is not None:
                self._spares.append(bid)


def grown(
    ring: Ring, buffers: BufferRing, count_min: int, count_max: int, wake: Callable[[], None]
) -> tuple[Leases | None, BaseException | None]:
    """
    Replace *buffers* by a ring of *count_min* or more, up to *count_max*, while none is on its way.

    With 500 busy connections and 64 buffers, three receives in four were refused and made again,
    9.9 us of CPU per message against 6.7.  It does not begin large, because the kernel walks
    through all of it, and 512 buffers at 50 connections cost 5 % in cache misses.

    A signal handler may raise in the middle, when the old ring is gone and the new one is not yet
    the driver's.  So what it raises is kept until there is a whole one, and is for the caller to
    raise when that is in use.

    Returns:
        The leases of the new ring, or None where it is large enough or cannot be replaced now; and
        what a handler has raised.
    """
    count_min = min(count_min, count_max)
    if (
        buffers.count >= count_min
        or not ring.deferred
        or ring.sq_flags[0] & k.IORING_SQ_CQ_OVERFLOW
        or ring.cq_head[0] != ring.cq_tail[0]
        or ring.system.buggify("buffers do not grow")
    ):
        return None, None  # a completion that names an old buffer may be on its way
    count = buffers.count
    while count < count_min:
        count *= 2
    size, spare_count = buffers.buffer_bytes, buffers.spare_count
    struck: BaseException | None = None
    for _ in range(_TRIES_MAX):
        try:
            _unregister(buffers)
            try:
                after = BufferRing(ring, 0, count, size, spare_count)
            except OSError:  # no memory for more: go on with as many as before
                _unregister(buffers)
                after = BufferRing(ring, 0, buffers.count, size, spare_count)
            return Leases(after, wake), struck
        except OSError:
            raise
        except BaseException as error:
            struck = error
    assert struck is not None
    raise struck


def _unregister(buffers: BufferRing) -> None:
    """Withdraw whatever ring has the group of *buffers*: this one, half of another, or none."""
    try:
        buffers.unregister()
    except FileNotFoundError:
        pass
