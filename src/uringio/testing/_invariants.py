"""
What must hold whatever happens, looked at while a program runs under simulation.

Checked from below, where the kernel sees what the driver really does, and from above, where ops are
delivered and tasks resumed:

- *ops*: no two requests in flight have one number; an op is delivered once, when it is done, and
  not while the kernel still has a request of it; in the end none is in flight, and the completions
  that belonged to nobody have been counted.
- *memory* (loans): what a request reads stays as it was, and what it writes is touched by nobody
  else, until its last completion; no two requests have the same memory if one of them writes.
- *buffers*: a provided buffer is in its ring once, under its own number; spares and leases add up;
  in the end all are back.
- *fds*: nothing closes a number that is not open, or uses one; in the end all are closed.
- *tasks*: a task is queued once, and not when it has ended; in the end none is alive.
"""

import traceback
from collections import deque
from ctypes import string_at
from typing import TYPE_CHECKING, Final

from uringio._driver.lease_count import LeaseCount
from uringio._driver.op import CLOSE, DONE, SUBMITTED, Op
from uringio._driver.zero_copy import ZERO_COPY_BIT
from uringio._run.task import Task
from uringio._sys import constants as k
from uringio._sys.layouts import IOVEC, MSGHDR
from uringio.errors import OpError, UringioError

from ._requests import Request
from .errors import InvariantError

if TYPE_CHECKING:
    from uringio._driver.contract import Driver, Statistics
    from uringio._run.loop import Loop

    from ._kernel import SimKernel
    from ._rings import SimRing

__all__ = ["Invariants", "WatchedQueue"]

KINDS: Final = ("ops", "memory", "buffers", "fds", "tasks")
_WRITES_MEMORY: Final = frozenset({k.IORING_OP_RECV, k.IORING_OP_READ, k.IORING_OP_READ_FIXED})
_READS_MEMORY: Final = frozenset({
    k.IORING_OP_SEND, k.IORING_OP_SEND_ZC, k.IORING_OP_WRITE, k.IORING_OP_WRITE_FIXED,
})  # fmt: skip
_HAS_MSGHDR: Final = frozenset({k.IORING_OP_SENDMSG, k.IORING_OP_RECVMSG})
# Of long transfers so much is compared. [bytes]
_COMPARED_BYTES: Final = 1024
# Numbers that may be in flight more than once: nobody awaits them.
_SHARED_BIT: Final = 1 << 62
# So often a request may be asked to end that has ended, and not been reaped yet.
_MISSES_MAX: Final = 8


class Invariants:
    """
    The checks of one simulated kernel, on which one driver of ours runs.

    Attributes:
        checked: How often each kind was looked at.
        violations: What was found, the first first; each is raised where it is found as well.
        is_active: Whether that is done; `run` sees to it, since bare rings may do as they like.
        driver: Whose accounts to look at.
    """

    def __init__(self, kernel: "SimKernel") -> None:
        self._kernel = kernel
        self.checked = dict.fromkeys(KINDS, 0)
        self.violations: list[str] = []
        self.is_active = False
        self.driver: Driver | None = None
        self._ring: SimRing | None = None  # of the driver; another may have the same numbers
        self._requests: dict[int, Request] = {}  # in the kernel, by number
        self._memory: dict[Request, tuple[int, int, bytes, bytes]] = {}
        self._writing: dict[Request, None] = {}
        self._lendable: int | None = None
        self._cancelled: set[int] = set()
        self._not_found: dict[int, int] = {}  # numbers that a cancel did not find, and how often

    def violated(self, kind: str, what: str) -> None:
        """Note a violation, and raise it; raises InvariantError."""
        if not self.is_active:
            return
        stack = "".join(traceback.format_stack(limit=12)[:-1])
        self.violations.append(f"{kind}: {what}")
        raise InvariantError(f"{kind}: {what}\n{stack}")

    # --- from below ------------------------------------------------------------------------------

    def submitted(self, request: Request) -> None:
        """See a request begin."""
        self.checked["ops"] += 1
        self._ring = self._ring or request.ring
        if request.ring is not self._ring:
            return
        number = request.user_data
        if number and not number & _SHARED_BIT:
            other = self._requests.get(number)
            if other is not None:
                self.violated("ops", f"{request!r} has the number of {other!r}")
            self._requests[number] = request

    def stays(self, request: Request) -> None:
        """See a request that could not be carried out at once: its memory is the kernel's now."""
        opcode = request.opcode
        writes = opcode in _WRITES_MEMORY and not request.flags & k.IOSQE_BUFFER_SELECT
        if not request.len or not (writes or opcode in _READS_MEMORY or opcode in _HAS_MSGHDR):
            return
        size = MSGHDR.size if opcode in _HAS_MSGHDR else request.len
        start, end = request.addr, request.addr + size
        for other in self._memory if writes else self._writing:
            theirs = self._memory[other]
            if start < theirs[1] and theirs[0] < end and other.ring is request.ring:
                self.violated("memory", f"{request!r} was given the memory of {other!r}")
        self._memory[request] = (start, end, *_looked_at(request, start, end))
        if writes:
            self._writing[request] = None

    def goes_on(self, request: Request) -> None:
        """Look at the memory of a request that is tried again, or ends."""
        known = self._memory.get(request)
        if known is None:
            return
        self.checked["memory"] += 1
        start, end, first, second = known
        if request.opcode in _WRITES_MEMORY and (request.done_bytes or request.result is not None):
            return  # what it has written is there
        if request.opcode == k.IORING_OP_RECVMSG and request.result is not None:
            return  # and what it says of it
        if (first, second) != _looked_at(request, start, end):
            self.violated("memory", f"it was changed while {request!r} had it")

    def ended(self, request: Request) -> None:
        """See a request's end."""
        self._memory.pop(request, None)
        self._writing.pop(request, None)
        if self._requests.get(request.user_data) is request:
            del self._requests[request.user_data]

    def cancel_missed(self, number: int) -> None:
        """See a cancel request for what is not in the kernel any more."""
        count = self._not_found[number] = self._not_found.get(number, 0) + 1
        if count > _MISSES_MAX and number not in self._requests:
            self.violated("ops", f"number {number:#x} has ended, and is cancelled again and again")

    def closed(self, fd: int, existed: bool) -> None:
        """See a close."""
        self.checked["fds"] += 1
        if not existed:
            self.violated("fds", f"descriptor {fd} was closed and is not open")

    def used(self, fd: int, name: str) -> None:
        """See a request or call on a number that is not open."""
        self.violated("fds", f"{name} on descriptor {fd}, which is not open")

    def buffer_put(self, bid: int, is_inside: bool, is_own: bool) -> None:
        """See a provided buffer enter its ring."""
        self.checked["buffers"] += 1
        if is_inside:
            self.violated("buffers", f"buffer {bid} was put into its ring twice")
        if not is_own:
            self.violated("buffers", f"buffer {bid} was put into its ring with other memory")

    def buffers_left(self, missing: int) -> None:
        """See a ring of buffers go."""
        self.checked["buffers"] += 1
        if missing:
            self.violated("buffers", f"{missing} provided buffers never came back")

    # --- from above ------------------------------------------------------------------------------

    def watch(self, driver: "Driver") -> None:
        """Look at a driver's accounts from now on, and at what it is asked to cancel."""
        self.driver = driver
        cancel = driver.cancel

        def watched(op: Op[object], reason: BaseException | None = None, /) -> bool:
            is_meant = op.state == SUBMITTED
            if is_meant:
                self._cancelled.add(op.use)
            try:
                return cancel(op, reason)
            finally:
                if op.state == SUBMITTED:  # a signal handler raised before anything was done
                    self._cancelled.discard(op.use)

        driver.cancel = watched  # type: ignore[method-assign]

    def delivered(self, op: Op[object], is_queued: bool) -> None:
        """See an op's outcome on its way to its waiter."""
        self.checked["ops"] += 1
        if op.state != DONE:
            self.violated("ops", f"{op!r} was delivered in state {op.state}")
        if is_queued:
            self.violated("ops", f"{op!r} was delivered twice")
        # (What a lease holds is only its handle's count of them.)
        if op.memory is not None or not isinstance(op.hold, LeaseCount | None):
            self.violated("memory", f"{op!r} has ended and keeps its memory")
        if op.code == CLOSE and isinstance(op.error, OpError):
            self.violated("fds", f"{op!r} failed, and closing never does: {op.error}")
        if op.use in self._cancelled:
            self._cancelled.discard(op.use)
            if op.error is None:
                self.violated("ops", f"{op!r} was cancelled, and delivered a value")
        for number in (op.use, op.use | ZERO_COPY_BIT):
            if number in self._requests and not op.standing:
                self.violated("ops", f"{op!r} was delivered, and the kernel still has it")

    def queued(self, task: Task[object], is_queued: bool) -> None:
        """See a task that is to be resumed."""
        self.checked["tasks"] += 1
        if task.finished or is_queued:
            self.violated("tasks", f"{task!r} was queued {'twice' if is_queued else 'at its end'}")

    def turned(self) -> None:
        """Look at the driver's own accounts; called with every wait."""
        if self.driver is None:
            return
        self.checked["ops"] += 1
        counts = self.driver.statistics()
        if counts.submitted - counts.delivered != counts.in_flight or counts.in_flight < 0:
            self.violated("ops", f"the accounts do not add up: {counts}")
        self._count_buffers(counts)

    def _count_buffers(self, counts: "Statistics") -> None:
        self.checked["buffers"] += 1
        lendable = counts.spare + counts.leased
        if self._lendable is None:
            self._lendable = lendable
        if lendable != self._lendable:
            self.violated("buffers", f"{counts.spare} spare and {counts.leased} leased ones")

    def tasks_ended(self, loop: "Loop") -> None:
        """Look at a loop that has been run down, and at its driver, which is still open."""
        self.checked["tasks"] += 1
        if len(loop.tasks()) or any(isinstance(one, Task) for one in loop.ready):
            self.violated("tasks", f"{len(loop.tasks())} tasks are alive at the end")
        if (in_flight := loop.driver.statistics().in_flight) != 0:
            self.violated("ops", f"{in_flight} ops are in flight at the end")

    def driver_closed(self, driver: "Driver", strays: int) -> None:
        """Look at a driver that has been closed."""
        counted = driver.statistics().stray
        if counted != strays:
            self.violated("ops", f"{strays} completions belonged to nobody, {counted} were counted")
        try:
            driver.flush()
            driver.turn(0)
        except UringioError:
            return
        self.violated("ops", "a driver that is closed still turns")


class WatchedQueue(deque["Op[object] | Task[object]"]):
    """The queue of what is to be resumed, looked at by `Invariants`."""

    def __init__(self, invariants: Invariants) -> None:
        super().__init__()
        self._invariants = invariants

    def append(self, item: "Op[object] | Task[object]", /) -> None:
        """See `deque.append`."""
        is_queued = item in self
        if isinstance(item, Op):
            self._invariants.delivered(item, is_queued)
        else:
            self._invariants.queued(item, is_queued)
        super().append(item)


def _looked_at(request: Request, start: int, end: int) -> tuple[bytes, bytes]:
    """Return the beginning of the memory, and what it points to, or its end."""
    first = string_at(start, min(end - start, _COMPARED_BYTES))
    if request.opcode in _HAS_MSGHDR:
        fields = MSGHDR.unpack(first)
        return first, string_at(fields[2], fields[3] * IOVEC.size)
    return first, string_at(end - 16, 16) if end - start > _COMPARED_BYTES else b""
