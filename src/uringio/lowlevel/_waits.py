"""
How a ring is waited on, and how completions are taken from it.

Theory of operation.  Completions are moved from the queue into a list in one go (`_reap`), and
settled only when they are handed out (`_hand_out`): each ends the request of its user_data, and
frees what that kept.  A signal handler may raise behind any call; what was moved by then is handed
out by the next wait.
"""

import time
from _thread import get_ident
from abc import abstractmethod
from typing import TYPE_CHECKING, Final

from uringio._ring.queue import Reap
from uringio._ring.setup import Ring as Core
from uringio._sys import constants as k
from uringio._sys.layouts import CQE, CQE_BIG
from uringio.errors import UsageError

from ._completions import BigCompletion
from ._entering import Entering
from ._filling import Flight, Several

if TYPE_CHECKING:
    from ._batch import Batch

__all__ = ["Waits"]

_U32: Final = (1 << 32) - 1
_MORE: Final = k.IORING_CQE_F_MORE
_PENDING: Final = k.IORING_SQ_CQ_OVERFLOW | k.IORING_SQ_TASKRUN
# From how many requests in flight on it pays to ask whether all have ended.
_MANY: Final = 4


class Waits(Entering):
    """
    The waits of a `Ring`.

    What is kept: *_flight*, what requests keep, by user_data; *_cells*, as in `make_fill`;
    *_storage*, completions not handed out yet, of which *_settled* have ended their requests;
    *_completed*, how many were handed out; *_whole*, the batch that was put while nothing was in
    flight, until something is handed out.
    """

    _core: Core | None
    _owner: int
    _reap: Reap

    def __init__(self) -> None:
        super().__init__()
        self._flight: Flight = {}
        self._renamed: dict[int, int] = {}
        self._storage: list[tuple[int, int, int]] = []
        self._settled = 0
        self._completed = 0
        self._extras: dict[int, tuple[int, int]] | None = None
        self._big = False
        self._whole: Batch | None = None

    def wait(self, count: int = 1, timeout_ns: int | None = None) -> list[tuple[int, int, int]]:
        """
        Submit what was filled, wait, and take what has completed as (user_data, res, flags).

        Args:
            count: How many completions to wait for.
            timeout_ns: How long at most; None: for ever.  Fewer may be there when it has passed.

        Signal handlers run meanwhile, and may raise: completions already taken are then handed out
        by the next call.

        Twin: io_uring_submit_and_wait_timeout with io_uring_peek_batch_cqe.
        """
        core = self._core
        if core is None or get_ident() != self._owner:
            core = self._usable()  # which raises
        if count > core.cq_entries:
            raise ValueError(f"{count} completions do not fit the queue of {core.cq_entries}")
        if timeout_ns is not None and timeout_ns < 0:
            raise ValueError(f"a wait cannot take {timeout_ns} ns")
        storage = self._storage
        if self._whole is not None and timeout_ns is None and not storage:
            self._enter(core, count, None)
            if taken := self._take_whole(core):
                return taken
        self._reap()
        if len(storage) >= count:
            if self._cells[0] & _U32 != core.sq_head[0]:
                self._enter(core, 0, None)
            self._gather(core)
            return self._hand_out()
        deadline_ns = None if timeout_ns is None else time.monotonic_ns() + timeout_ns
        left_ns = None
        while len(storage) < count:
            if deadline_ns is not None:
                left_ns = max(0, deadline_ns - time.monotonic_ns())
            self._enter(core, count - len(storage), left_ns)
            self._gather(core)
            if left_ns == 0:
                break
        return self._hand_out()

    def take(self) -> list[tuple[int, int, int]]:
        """
        Take what has completed, without waiting or submitting, as (user_data, res, flags).

        Deferred work is run for it, and what found no room in the queue is fetched.
        Twin: io_uring_peek_batch_cqe with io_uring_cq_advance.
        """
        self._gather(self._usable())
        return self._hand_out()

    def wait_big(self, count: int = 1, timeout_ns: int | None = None) -> list[BigCompletion]:
        """
        `wait` on a ring made with `SetupFlags.CQE32` or CQE_MIXED, with all 32 bytes.

        Raises:
            UsageError: The ring's completions have 16.
        """
        if not self._big:
            raise UsageError("completions of this ring have 16 bytes: make it with CQE32")
        extras: dict[int, tuple[int, int]] = {}
        self._extras = extras
        first = self._completed
        try:
            taken = self.wait(count, timeout_ns)
        finally:
            self._extras = None
        return [
            BigCompletion(*one, *extras.get(first + index, (0, 0)))
            for index, one in enumerate(taken)
        ]

    # --- within ----------------------------------------------------------------------------------

    @abstractmethod
    def _take_whole(self, core: Core) -> list[tuple[int, int, int]]:
        """Take the completions of the batch *_whole*, if nothing else stands in the queue."""

    def _gather(self, core: Core) -> None:
        """Move completions into storage, those included that wait for room or for being run."""
        reap = self._reap
        reap()
        while core.sq_flags[0] & _PENDING:
            count = len(self._storage)
            # Only what the kernel has already: requests are handed over by those who say so.
            self._submit_and_wait(core.sq_head[0], 0, None)
            reap()
            if len(self._storage) == count:
                break  # the hint was stale, or what is left will come by itself

    def _reap_big(self) -> None:
        core = self._open()
        cqes, mask = core.cqes, core.cq_entries - 1
        mixed = core.flags & k.IORING_SETUP_CQE_MIXED
        head, tail = core.cq_head[0], core.cq_tail[0]
        while head != tail:
            at = (head & mask) * core.cqe_bytes
            user_data, res, flags = CQE.unpack_from(cqes, at)
            head = (head + 1) & _U32
            if mixed and flags & k.IORING_CQE_F_SKIP:
                continue
            if not mixed or flags & k.IORING_CQE_F_32:
                if mixed:
                    head = (head + 1) & _U32
                if self._extras is not None:
                    *_, extra1, extra2 = CQE_BIG.unpack_from(cqes, at)
                    self._extras[self._completed + len(self._storage)] = (extra1, extra2)
            self._storage.append((user_data, res, flags))
        core.cq_head[0] = tail

    def _hand_out(self) -> list[tuple[int, int, int]]:
        storage, flight = self._storage, self._flight
        if not self._settled and len(storage) >= len(flight) > _MANY:
            ended = {name for name, _, flags in storage if not flags & _MORE}
            if flight.keys() == ended and Several not in set(map(type, flight.values())):
                # Everything has ended at once.
                self._settled = len(storage)
                flight.clear()
        for index in range(self._settled, len(storage)):
            # First, so that a signal handler that raises here has memory kept, not freed twice.
            self._settled = index + 1
            name, _, flags = storage[index]
            if not flags & _MORE:
                if name not in flight:
                    name = self._renamed.pop(name, name)
                kept = flight.pop(name, None)
                if isinstance(kept, Several):
                    kept.count -= 1
                    if kept.count:
                        flight[name] = kept
        taken = storage[:]
        self._completed += len(taken)
        self._settled = 0
        self._whole = None
        del storage[:]  # no call, behind which a signal handler might raise
        return taken
