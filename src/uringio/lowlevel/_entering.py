"""
How requests are handed to the kernel, by the kinds of rings.

Theory of operation.  Most rings are entered: the kernel takes requests inside the owner's call, and
the queue's head tells how many.  With SQPOLL a thread of the kernel's takes them at its own time:
they are out of the owner's hands when the queue's tail says so, long before the head does.  With
IOPOLL the call that waits looks at the device and knows no timeout, so that a wait with one has to
look, return, and look again.  With SQ_REWIND each call starts at the first slot (`_rewinding`).
"""

from abc import abstractmethod
from typing import Final

from uringio._ring.polled import make_careful_reap, make_poke, make_polled_submit
from uringio._ring.queue import (
    Completion,
    Reap,
    SubmitAndWait,
    make_reap,
    make_submit_and_wait,
)
from uringio._ring.setup import Ring as Core
from uringio._sys import constants as k
from uringio._sys.errnos import Fate
from uringio._sys.fences import Fence
from uringio.errors import UsageError

from ._limits import Limits
from ._registrations import Registrations
from ._rewinding import make_rewinding_submit
from ._zero_copy import ZeroCopyReceives

__all__ = ["Entering", "make_taking"]

_U32: Final = (1 << 32) - 1
_BUSY: Final = k.IORING_SETUP_IOPOLL | k.IORING_SETUP_SQPOLL


class Entering(Registrations, Limits, ZeroCopyReceives):
    """
    The part of a `Ring` that hands requests over.

    What is kept: *_cells*, as in `make_fill`; *_passing*, what must live until the request of a
    slot was taken, oldest first; *_fence*, the barrier of a ring with SQPOLL, None on others;
    *_enabled*, False on a ring that was made disabled, which is entered to be told so.
    """

    _submit_and_wait: SubmitAndWait
    _fence: Fence | None

    def __init__(self) -> None:
        super().__init__()
        self._cells: list[int] = []
        self._passing: list[tuple[int, object]] = []
        self._enabled = True

    @property
    @abstractmethod
    def space(self) -> int:
        """How many more may be filled before a `submit`."""

    def submit(self) -> int:
        """
        Hand over all requests that were filled, and return how many the kernel took.

        Fewer than `queued` only where it has no memory for more, or where completions must be taken
        first: take them, and call again.

        With `SetupFlags.SQPOLL` it returns how many were published; the kernel's thread takes them
        later, and until then they are `queued`.

        Raises:
            RingError: The ring is unusable.
            WrongThreadError: Another thread owns the ring.

        Twin: io_uring_submit.
        """
        core, cells = self._usable(), self._cells
        before = self._handed(core) - cells[4]
        self._enter(core, 0, None)
        return (self._handed(core) - cells[4] - before) & _U32

    def wait_for_room(self) -> int:
        """
        Submit what was filled, wait until a slot is free, and return how many are.

        For rings with `SetupFlags.SQPOLL`, whose slots are free again when the kernel's thread has
        taken what stands there.  Signal handlers run meanwhile, and may raise.

        Raises:
            UsageError: Another ring: its slots are free again after `submit`.
            RingError: The kernel's thread has died, or the ring was never enabled.
            WrongThreadError: Another thread owns the ring.

        Kernel: 5.10.  Twin: io_uring_sqring_wait.
        """
        core = self._usable()
        if self._fence is None:
            raise UsageError(
                "only a ring with SetupFlags.SQPOLL waits for room: submit() frees this one's slots"
            )
        self._enter(core, 0, None)
        poke = make_poke(core)
        while not self.space:
            poke(k.IORING_ENTER_SQ_WAIT | k.IORING_ENTER_SQ_WAKEUP)
        self._let_go(core)
        return self.space

    # --- within ----------------------------------------------------------------------------------

    def _rewire(self) -> None:
        """Enter the ring by what it can be found by now."""
        core = self._open()
        enter = make_submit_and_wait(core)
        if self._fence is not None and self._enabled:
            enter = make_polled_submit(core, enter, make_poke(core), self._fence)
        elif core.flags & k.IORING_SETUP_SQ_REWIND:
            enter = make_rewinding_submit(core, self._cells, enter)
        elif core.flags & _BUSY == k.IORING_SETUP_IOPOLL:
            enter = _make_looking_submit(enter)
        self._submit_and_wait = enter

    def _enter(self, core: Core, count: int, timeout_ns: int | None) -> None:
        self._submit_and_wait(self._cells[0], count, timeout_ns)
        if self._passing:
            self._let_go(core)

    def _hand_over_apart(self, core: Core) -> int:
        """
        Hand requests over if this kind of ring does it apart from waiting.

        Returns:
            What to pass for the tail of a wait that may hand over as well.
        """
        if self._fence is None and not core.flags & k.IORING_SETUP_SQ_REWIND:
            return self._cells[0]
        self._enter(core, 0, None)
        return self._handed(core)

    def _handed(self, core: Core) -> int:
        """Tell up to which slot, as 32 bits count, requests are out of our hands."""
        return (core.sq_head if self._fence is None else core.sq_tail)[0]

    def _let_go(self, core: Core) -> None:
        """Free what had to live until its request was taken."""
        tail, passing = self._cells[0], self._passing
        taken = tail - ((tail - core.sq_head[0]) & _U32)
        if core.flags & k.IORING_SETUP_SQ_REWIND and taken != tail:
            return  # what is left stands under other counts now
        count = 0
        while count < len(passing) and passing[count][0] < taken:
            count += 1
        del passing[:count]


def make_taking(core: Core, storage: list[Completion], fence: Fence | None, unwanted: int) -> Reap:
    """
    Build what moves completions of 16 bytes from the queue into *storage*.

    Args:
        fence: The barrier of a ring with SQPOLL.
        unwanted: The user_data of requests of our own, -1 where there are none.
    """
    if core.system.total_store_order:
        fence = None
    if fence is not None or unwanted >= 0:
        return make_careful_reap(core, storage, fence, unwanted)
    return make_reap(core, storage)


def _make_looking_submit(submit_and_wait: SubmitAndWait) -> SubmitAndWait:
    def submit_and_look(tail: int, wait_count: int, timeout_ns: int | None, /) -> Fate:
        # The kernel's own look takes no timeout: with one, look once, and let the caller see.
        return submit_and_wait(tail, wait_count if timeout_ns is None else 0, None)

    return submit_and_look
