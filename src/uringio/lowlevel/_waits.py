"""
How a ring is waited on, and how completions are taken from it.

Theory of operation.  Completions are moved from the queue into a list in one go (`_reap`), and
settled only when they are handed out (`_hand_out`): each ends the request of its user_data, and
frees what that kept.  A signal handler may raise behind any call; what was moved by then is handed
out by the next wait.
"""

import operator
from _thread import get_ident
from abc import abstractmethod
from collections.abc import Collection
from time import CLOCK_MONOTONIC
from typing import TYPE_CHECKING, Final

from uringio._ring.queue import Reap
from uringio._ring.setup import Ring as Core
from uringio._ring.waits import knows_enter_flag, wait, wait_registered
from uringio._sys import constants as k
from uringio._sys.layouts import CLOCK_REGISTER, CQE, CQE_BIG
from uringio._sys.packing import packed
from uringio.errors import UnsupportedError, UsageError

from ._completions import BigCompletion
from ._entering import Entering
from ._flight import Flight, Several
from ._opcodes import RegisterOp
from ._wait_terms import Terms, WaitRegion, make_terms

if TYPE_CHECKING:
    from ._batch import Batch

__all__ = ["Waits"]

_U32: Final = (1 << 32) - 1
_MORE: Final = k.IORING_CQE_F_MORE
_PENDING: Final = k.IORING_SQ_CQ_OVERFLOW | k.IORING_SQ_TASKRUN
# From how many requests in flight on it pays to ask whether all have ended.
_MANY: Final = 4
_NS_PER_US: Final = 1000
_BUSY: Final = k.IORING_SETUP_IOPOLL | k.IORING_SETUP_SQPOLL


class Waits(Entering):
    """
    The waits of a `Ring`.

    What is kept: *_flight*, what requests keep, by user_data; *_cells*, as in `make_fill`;
    *_storage*, completions not handed out yet, of which *_settled* have ended their requests;
    *_completed*, how many were handed out; *_whole*, the batch that was put while nothing was in
    flight, until something is handed out; *_unwanted*, the user_data of requests of our own, -1
    where there are none.
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
        self._completed: int = 0
        self._extras: dict[int, tuple[int, int]] | None = None
        self._big = False
        self._unwanted = -1
        self._clock: int = CLOCK_MONOTONIC
        self._knows_moments: bool | None = None
        self._region: WaitRegion | None = None
        self._enabled = True
        self._whole: Batch | None = None

    def wait(
        self,
        count: int = 1,
        timeout_ns: int | None = None,
        *,
        until_ns: int | None = None,
        min_wait_ns: int = 0,
        sigmask: Collection[int] | None = None,
    ) -> list[tuple[int, int, int]]:
        """
        Submit what was filled, wait, and take what has completed as (user_data, res, flags).

        Args:
            count: How many completions to wait for.
            timeout_ns: How long at most; None: for ever.  Fewer may be there when it has passed.
            until_ns: Until when instead, by the ring's clock (`register_clock`; CLOCK_MONOTONIC at
                first).  Kernel: 6.12.
            min_wait_ns: How long to hope for all *count*; from then on, one is enough.  Rounded up
                to microseconds.  Kernel: 6.12 (`Features.MIN_TIMEOUT`).
            sigmask: Signals that are blocked meanwhile, instead of those that the thread blocks;
                as with `signal.pthread_sigmask` and pselect(2), none is lost in between.

        Signal handlers run meanwhile, and may raise: completions already taken are then handed out
        by the next call.  One that returns does not end the wait.

        Raises:
            RingError: The ring is unusable.
            UnsupportedError: The kernel lacks a term.
            UsageError: The wait has two ends.
            ValueError: No kernel could wait so.
            WrongThreadError: Another thread owns the ring.

        Twin: io_uring_submit_and_wait_timeout, io_uring_submit_and_wait_min_timeout, with
        io_uring_peek_batch_cqe.
        """
        core = self._core
        if core is None or get_ident() != self._owner:
            core = self._usable()  # which raises
        if count > core.cq_entries:
            raise ValueError(f"{count} completions do not fit the queue of {core.cq_entries}")
        if until_ns is not None or min_wait_ns or sigmask is not None:
            terms = make_terms(timeout_ns, until_ns, min_wait_ns, sigmask)
            self._refuse_unknown(core, terms)
            return self._wait_by(core, count, terms, None)
        if timeout_ns is not None and not 0 <= operator.index(timeout_ns) < 1 << 63:
            raise ValueError(f"a wait cannot take {timeout_ns} ns")
        storage = self._storage
        if self._whole is not None and timeout_ns is None and not storage:
            self._submit_and_wait(self._cells[0], count, None)
            if self._passing:
                self._let_go(core)
            if taken := self._take_whole(core):
                return taken
        self._reap()
        if len(storage) >= count:
            return self._already(core)
        deadline_ns = None if timeout_ns is None else core.system.clock_ns(self._clock) + timeout_ns
        left_ns = None
        while len(storage) < count:
            if deadline_ns is not None:
                left_ns = max(0, deadline_ns - core.system.clock_ns(self._clock))
            self._enter(core, count - len(storage), left_ns)
            self._gather(core)
            if left_ns == 0:
                break
        return self._hand_out()

    def setup_reg_wait(self, count: int = 64) -> WaitRegion:
        """
        Register memory for the terms of waits, to be named by `wait_registered`; once per ring.

        The ring must have been made with `SetupFlags.R_DISABLED`, and not be enabled yet.

        Raises:
            OpError: EBUSY, there is one; EINVAL, the kernel is too old.
            UsageError: The ring is enabled.
            ValueError: There is no such number.

        Kernel: 6.13.  Twin: io_uring_setup_reg_wait.
        """
        core = self._usable()
        if self._enabled:
            raise UsageError(
                "terms of waits are registered before a ring is enabled: make it with "
                "SetupFlags.R_DISABLED, call this, and then enable()"
            )
        self._region = WaitRegion(core, count)
        return self._region

    def wait_registered(self, count: int, index: int) -> list[tuple[int, int, int]]:
        """
        `wait`, by the terms that stand at *index* of what `setup_reg_wait` has registered.

        Raises:
            UsageError: Nothing is registered.
            ValueError: There is no such place, or no kernel could wait so.

        Kernel: 6.13.  Twin: io_uring_submit_and_wait_reg.
        """
        core = self._usable()
        if self._region is None:
            raise UsageError("no terms of waits are registered: call setup_reg_wait() first")
        if count > core.cq_entries:
            raise ValueError(f"{count} completions do not fit the queue of {core.cq_entries}")
        return self._wait_by(core, count, self._region.terms(index), index)

    def register_clock(self, clock: int) -> None:
        """
        Choose the clock of waits, CLOCK_MONOTONIC or CLOCK_BOOTTIME.

        Kernel: 6.12.  Twin: io_uring_register_clock.
        """
        self.register(RegisterOp.CLOCK, packed(CLOCK_REGISTER, clock=clock))
        self._clock = clock

    @property
    def iowait(self) -> bool:
        """
        Whether the machine counts a wait as one for a disk while requests are in flight.

        False unless set, as far as the kernel lets one choose: then idle processors look idle.

        Raises (on setting):
            UnsupportedError: The kernel always counts them.

        Kernel: 6.15 (`Features.NO_IOWAIT`).  Twin: io_uring_set_iowait.
        """
        return not self._open().enter_flags & k.IORING_ENTER_NO_IOWAIT

    @iowait.setter
    def iowait(self, counted: bool) -> None:
        core = self._usable()
        if counted:
            core.enter_flags &= ~k.IORING_ENTER_NO_IOWAIT
        elif not core.features & k.IORING_FEAT_NO_IOWAIT:
            raise UnsupportedError("waiting without being counted as iowait", "Linux 6.15")
        else:
            core.enter_flags |= k.IORING_ENTER_NO_IOWAIT
        self._rewire()

    def take(self) -> list[tuple[int, int, int]]:
        """
        Take what has completed, without waiting or submitting, as (user_data, res, flags).

        Deferred work is run for it, and what found no room in the queue is fetched.
        Twin: io_uring_peek_batch_cqe with io_uring_cq_advance.
        """
        self._gather(self._usable())
        return self._hand_out()

    def wait_big(
        self,
        count: int = 1,
        timeout_ns: int | None = None,
        *,
        until_ns: int | None = None,
        min_wait_ns: int = 0,
        sigmask: Collection[int] | None = None,
    ) -> list[BigCompletion]:
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
            taken = self.wait(
                count, timeout_ns, until_ns=until_ns, min_wait_ns=min_wait_ns, sigmask=sigmask
            )
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

    def _refuse_unknown(self, core: Core, terms: Terms) -> None:
        if terms.min_wait_us and not core.features & k.IORING_FEAT_MIN_TIMEOUT:
            raise UnsupportedError("a wait of a least duration", "Linux 6.12")
        if terms.absolute:
            if self._knows_moments is None:
                self._knows_moments = knows_enter_flag(core, k.IORING_ENTER_ABS_TIMER)
            if not self._knows_moments:
                raise UnsupportedError("a wait until a moment", "Linux 6.12")

    def _wait_by(
        self, core: Core, count: int, terms: Terms, index: int | None
    ) -> list[tuple[int, int, int]]:
        if core.flags & _BUSY == k.IORING_SETUP_IOPOLL:
            raise UsageError(
                "a ring with SetupFlags.IOPOLL looks at its devices and does not sleep: only "
                "timeout_ns ends a wait of its"
            )
        storage = self._storage
        self._reap()
        if len(storage) >= count:
            return self._already(core)
        now_ns = core.system.clock_ns(self._clock)
        end_ns = terms.time_ns
        if end_ns is not None and not terms.absolute:
            end_ns += now_ns
        enough_ns = now_ns + terms.min_wait_us * _NS_PER_US
        while True:
            tail = self._hand_over_apart(core)
            missing = count - len(storage)
            if index is not None and not (terms.min_wait_us and storage):
                wait_registered(core, tail, missing, index, absolute=terms.absolute)
            else:
                # Anew, with what is left of the time.  One completion that was taken already is
                # enough at the end of the least duration, and the kernel does not know of it.
                until_ns, min_wait_us = end_ns, 0
                if storage and terms.min_wait_us:
                    until_ns = enough_ns if end_ns is None else min(end_ns, enough_ns)
                elif now_ns < enough_ns:
                    min_wait_us = -(-(enough_ns - now_ns) // _NS_PER_US)
                elif terms.min_wait_us:
                    missing = 1
                if until_ns is not None and not terms.absolute:
                    until_ns = max(0, until_ns - now_ns)
                wait(
                    core,
                    tail,
                    missing,
                    until_ns,
                    absolute=terms.absolute,
                    min_wait_us=min_wait_us,
                    mask=terms.mask,
                )
            index = None
            self._let_go(core)
            self._gather(core)
            now_ns = core.system.clock_ns(self._clock)
            if (
                len(storage) >= count
                or (end_ns is not None and now_ns >= end_ns)
                or (storage and terms.min_wait_us and now_ns >= enough_ns)
            ):
                return self._hand_out()

    def _already(self, core: Core) -> list[tuple[int, int, int]]:
        """Submit, and hand out what has come before one had to wait."""
        if self._cells[0] & _U32 != core.sq_head[0]:
            self._enter(core, 0, None)
        self._gather(core)
        return self._hand_out()

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
        core, storage, wanted = self._open(), self._storage, self._extras
        cqes, mask = core.cqes, core.cq_entries - 1
        mixed = core.flags & k.IORING_SETUP_CQE_MIXED
        first, tail = core.cq_head[0], core.cq_tail[0]
        head = first
        found: list[tuple[int, int, int]] = []
        while head != tail:
            at = (head & mask) * core.cqe_bytes
            user_data, res, flags = CQE.unpack_from(cqes, at)
            head = (head + 1) & _U32
            if user_data == self._unwanted or (mixed and flags & k.IORING_CQE_F_SKIP):
                continue
            if not mixed or flags & k.IORING_CQE_F_32:
                if mixed:
                    head = (head + 1) & _U32
                if wanted is not None:
                    *_, extra1, extra2 = CQE_BIG.unpack_from(cqes, at)
                    wanted[self._completed + len(storage) + len(found)] = (extra1, extra2)
            found.append((user_data, res, flags))
        if core.cq_head[0] != first:
            self._reap_big()  # a signal handler has taken some: see what is left
            return
        # No call between these two, behind which such a handler might raise.
        storage += found
        core.cq_head[0] = tail

    def _hand_out(self) -> list[tuple[int, int, int]]:
        storage, flight = self._storage, self._flight
        if self._secret:
            self._settle_aliased()
        if not self._settled and len(storage) >= len(flight) > _MANY:
            ended = {name for name, _, flags in storage if not flags & _MORE}
            if flight.keys() == ended and Several not in set(map(type, flight.values())):
                # Everything has ended at once.
                self._settled = len(storage)
                flight.clear()
        renamed = self._renamed
        for index in range(self._settled, len(storage)):
            name, _, flags = storage[index]
            known = name if flags & _MORE or name in flight else renamed.get(name, name)
            kept = flight.get(known)
            several = kept if isinstance(kept, Several) else None
            # From here on no call, behind which a signal handler might raise: what it breaks off
            # has been done wholly or is done again.
            self._settled = index + 1
            if not flags & _MORE:
                if known != name:
                    del renamed[name]
                if several is not None and several.count > 1:
                    several.count -= 1
                elif known in flight:
                    del flight[known]
        taken = storage[:]
        self._completed += len(taken)
        self._settled = 0
        self._whole = None
        del storage[:]  # no call, behind which a signal handler might raise
        return taken

    def _settle_aliased(self) -> None:
        """Tell completions of requests from others, and give them their own names again."""
        storage, flight, renamed, secret = self._storage, self._flight, self._renamed, self._secret
        for index in range(self._settled, len(storage)):
            name, res, flags = storage[index]
            known = name if name in flight else renamed.get(name)
            kept = None if known is None else flight.get(known)
            several = kept if isinstance(kept, Several) else None
            # As in `_hand_out`, no call from here on.
            self._settled = index + 1
            if known is not None:
                storage[index] = (name ^ secret, res, flags)
                if not flags & _MORE:
                    if name in renamed:
                        del renamed[name]
                    if several is not None and several.count > 1:
                        several.count -= 1
                    elif known in flight:
                        del flight[known]
