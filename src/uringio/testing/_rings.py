"""
One simulated io_uring: its memory, its requests, its completions.

Requests are tried when they are submitted.  What would have to wait is parked on its file, woken by
it, and tried again as *task work*, which on a ring with deferred task work runs only inside the
owner's own enter, at most twenty at a time unless more are waited for.  Completions that find no
slot, or others waiting for one, go to the overflow list; a multishot request that finds none ends.

Sources: io_uring_enter(2), io_uring_setup(2), and io_uring/io_uring.c of Linux 6.1 and 6.18.
"""

import errno
from collections import deque
from ctypes import string_at
from typing import TYPE_CHECKING, Final

from uringio._sys import constants as k
from uringio._sys.layouts import CQE, SQE, SQE_FULL

from ._disk import OpenFile
from ._kinds import ONE_EACH_TIME, PARTIAL, PROMPT, WITHOUT_FILE, ZERO_COPY, in_worker
from ._links import LINKS, Order, has_failed
from ._messages import gathered
from ._objects import SimFile
from ._operations import HANDLERS, REFUSALS
from ._provided import BufferGroup
from ._requests import Request
from ._ring_memory import U32_MASK, RingMemory
from ._sockets import StreamSocket
from ._timers import arm_link_timeout
from .errors import NotSimulatedError, SimulationError

if TYPE_CHECKING:
    from ._kernel import SimKernel

__all__ = ["SimRing"]

_LET_GO_NS: Final = 10_000
_WORK_COUNT_MAX: Final = 20  # IO_LOCAL_TW_DEFAULT_MAX
_SHOTS_MAX: Final = 32  # MULTISHOT_MAX_RETRY

_SQE_FLAGS: Final = (1 << 7) - 1  # to CQE_SKIP_SUCCESS
_OP_NUMBERS: Final = range(16, 1 << 61)
# What must be looked at before a request may begin at once.
_ORDERED: Final = LINKS | k.IOSQE_IO_DRAIN


class SimRing(RingMemory):
    """
    See the module's head.

    Args:
        kernel: Whose it is.
        sq_entries, cq_entries: Sizes, powers of two. [count]
        flags: IORING_SETUP_*.
        start: Where the indexes of both queues begin.

    Attributes:
        groups: Provided buffers by group.
        files: Registered files.
        file_range: Which of their slots are allocated from: the first one, and how many.
        memory: Registered memory: address, size and tag of each place, None where there is none.
        requests: What has been submitted and not completed, oldest first.
    """

    kind = "io_uring"

    def __init__(
        self, kernel: "SimKernel", sq_entries: int, cq_entries: int, flags: int, start: int
    ) -> None:
        super().__init__(sq_entries, cq_entries, flags, start)
        self.number = kernel.next_ring_number()
        self.groups: dict[int, BufferGroup] = {}
        self.files: list[SimFile | None] = []
        self.file_range: tuple[int, int] = (0, 0)
        self.memory: list[tuple[int, int, int] | None] = []
        self.requests: dict[int, Request] = {}
        self.owner: int | None = None
        self.kernel = kernel
        self._work: list[Request] = []
        self._messages: deque[tuple[int, int, int]] = deque()
        self._order = Order(self)
        self._countdowns: dict[Request, int] = {}
        self._last_wake_ns = 0
        self._gathers = False
        self._gathered: deque[Request] = deque()
        self._last = 0
        self._finished: tuple[int, int] | None = None

    # --- submission ------------------------------------------------------------------------------

    def submit(self, count: int) -> int:
        """Take at most so many requests; how many were taken."""
        words = self._words
        head = words[0]
        count = min(count, (words[1] - head) & U32_MASK)
        faults = self.kernel.faults
        if count and faults.strikes("refuse_submit"):
            return -errno.EAGAIN
        if count > 1 and faults.strikes("partial_submit"):
            count = 1 + faults.below("partial_submit", count - 1)
        mask = self.sq_entries - 1
        order = self._order
        taken = 0
        self._gathers = True
        while taken < count:
            slot = head & mask
            if not self.flags & k.IORING_SETUP_NO_SQARRAY:
                slot = self._array[slot]
            fields = SQE_FULL.unpack_from(self.sqe_memory.view, slot * SQE.size)
            head = (head + 1) & U32_MASK
            words[0] = head
            taken += 1
            self._last += 1
            request = Request(self, self._last, fields)
            self.requests[self._last] = request
            request.failed = self._refusal(request)
            if (
                request.flags & _ORDERED
                or request.failed
                or order.busy
                or request.opcode == k.IORING_OP_LINK_TIMEOUT
            ):
                failed = request.failed
                order.add(request)
                if (failed or request.failed) and not self.flags & k.IORING_SETUP_SUBMIT_ALL:
                    break
            else:
                self.start(request)
        order.end_chain()
        self._flush()
        return taken

    def _refusal(self, request: Request) -> int:
        """Count a new request; an errno if it is none of this kernel's."""
        kernel = self.kernel
        kernel.op_count += 1
        kernel.trace.add(
            f"sqe {self.number} {request.name} {request.fd} {request.len} {request.user_data:x}"
        )
        kernel.invariants.submitted(request)
        if request.opcode not in kernel.profile.opcodes or request.flags & ~_SQE_FLAGS:
            return errno.EINVAL
        if request.opcode not in HANDLERS:
            raise NotSimulatedError(f"{request!r} is not simulated")
        if request.flags & k.IOSQE_CQE_SKIP_SUCCESS:
            self._order.counts_no_more = True
        refusal = REFUSALS.get(request.opcode)
        return 0 if refusal is None else refusal(request)

    def start(self, request: Request) -> None:
        """Try a request for the first time."""
        kernel = self.kernel
        number = self._prepare(request)
        if number == errno.EBADF:
            kernel.invariants.used(request.fd, request.name)
        kernel.sightings.begins(request)
        number = number or kernel.faults.exact(request.name)
        if not number and request.opcode not in PROMPT:
            if kernel.faults.strikes("interrupt", request.name):
                number = errno.EINTR
            elif kernel.faults.strikes("delay", request.name):
                delay_ns = 1 + kernel.faults.below("delay", kernel.faults.plan.delay_ns_max)
                request.state = "working" if isinstance(request.file, OpenFile) else "woken"
                request.timer = kernel.clock.call_later(delay_ns, lambda: self._begin_late(request))
        if number:
            request.failed = number
            self.finish(request, -number)
        elif request.state == "new":
            request.state = "tried"
            self._attempt(request)
        if request.state == "done" or (request.result is not None and request in self._gathered):
            return
        kernel.invariants.stays(request)
        behind = request.next
        if behind is not None and behind.guards is request:
            arm_link_timeout(kernel, behind)

    def _begin_late(self, request: Request) -> None:
        request.timer = 0
        if request.state == "working":
            # A thread of the kernel's does it now; the completion is told as task work.
            self.kernel.invariants.goes_on(request)
            request.result = HANDLERS[request.opcode](self.kernel, request)
            assert request.result is not None, request
        else:
            request.state = "begun"
        self._queue(request)

    def _prepare(self, request: Request) -> int:
        """Find the request's file; a positive errno on refusal."""
        if request.opcode in WITHOUT_FILE:
            return 0
        file = self.file_of(request.fd, bool(request.flags & k.IOSQE_FIXED_FILE))
        if file is None:
            return errno.EBADF
        if not self._is_registered(request):
            return errno.EFAULT
        file.hold()
        request.file = file
        return 0

    def file_of(self, fd: int, fixed: bool) -> SimFile | None:
        """Return what a descriptor, or a slot, names."""
        if fixed:
            return self.files[fd] if 0 <= fd < len(self.files) else None
        return self.kernel.file_of(fd)

    def _is_registered(self, request: Request) -> bool:
        """Whether a transfer with registered memory keeps to it; others may use any."""
        if request.opcode not in {k.IORING_OP_READ_FIXED, k.IORING_OP_WRITE_FIXED}:
            return True
        index = request.buffer_group
        place = self.memory[index] if index < len(self.memory) else None
        if place is None:
            return False
        first, size, _ = place
        return first <= request.addr and request.addr + request.len <= first + size

    def _attempt(self, request: Request) -> None:
        self.kernel.invariants.goes_on(request)
        handler = HANDLERS[request.opcode]
        for _ in range(_SHOTS_MAX):
            result = handler(self.kernel, request)
            if result is None:
                self._park(request)
                return
            if not request.shots:
                if in_worker(request) and self.kernel.faults.strikes("late", request.name):
                    self._finish_late(request, result)
                else:
                    self.finish(request, result)
                return
            if not self._goes_on(request, result):
                self.finish(request, result)
                return
            if request.opcode in ONE_EACH_TIME:
                assert request.file is not None
                request.file.watch(request)
                return
        self._queue(request)  # others have their turn

    def _park(self, request: Request) -> None:
        request.state = "parked"
        file = request.waits_on or request.file
        if file is None:
            return  # it waits for time
        file.watch(request)
        if file.poll() & request.wanted:  # cut short, and there is more to do
            if not request.shots:
                file.unwatch(request)
            self.wake(request)

    def _finish_late(self, request: Request, result: int) -> None:
        """Tell later of what is over now, and can no longer be withdrawn."""
        faults = self.kernel.faults
        request.result = result
        request.state = "woken"
        delay_ns = 1 + faults.below("late", faults.plan.delay_ns_max)
        request.timer = self.kernel.clock.call_later(delay_ns, lambda: self._woken(request))

    def _goes_on(self, request: Request, result: int) -> bool:
        """Tell what a multishot request has got, if it is not its last."""
        if request.opcode == k.IORING_OP_TIMEOUT:
            goes_on = result == -errno.ETIME and (not request.off or request.shots < request.off)
        elif request.opcode == k.IORING_OP_ACCEPT:
            goes_on = result >= 0
        else:
            goes_on = result > 0
        if not goes_on:
            return False
        if self._gathered:
            self._flush()
            self._gathers = True
        if (
            self._overflow
            or not self._has_room()
            or self.kernel.faults.strikes("end_shots", request.name)
        ):
            self.kernel.note("multishot ended early")
            return False
        self._tell(request.user_data, result, _buffer_flags(request) | k.IORING_CQE_F_MORE)
        request.shots += 1
        request.buffer = -1
        request.state = "parked"
        if request.opcode == k.IORING_OP_TIMEOUT:
            return True
        request.done_bytes = 0
        self._count_down()
        return True

    # --- task work -------------------------------------------------------------------------------

    def start_later(self, request: Request) -> None:
        """Start a request that has waited for others."""
        self._queue(request)

    def retry(self, request: Request) -> None:
        """Try a request again, as what it waits for has changed."""
        self._attempt(request)

    def wake(self, request: Request) -> None:
        """Have a parked request tried again soon."""
        request.state = "woken"
        # Who was woken first is tried first.
        clock = self.kernel.clock
        delay_ns = self.kernel.wake_delay_ns()
        if not delay_ns:
            self._queue(request)
            return
        self._last_wake_ns = max(self._last_wake_ns, clock.now_ns + delay_ns)
        request.timer = clock.call_at(self._last_wake_ns, lambda: self._woken(request))

    def expire(self, request: Request, result: int) -> None:
        """Have a request completed as task work."""
        if request.timer:
            self.kernel.clock.cancel(request.timer)
            request.timer = 0
        self._countdowns.pop(request, None)
        request.result = result
        request.state = "woken"
        self._queue(request)

    def _woken(self, request: Request) -> None:
        request.timer = 0
        self._queue(request)

    def _queue(self, request: Request) -> None:
        faults = self.kernel.faults
        if self._work and faults.strikes("reorder"):
            self._work.insert(faults.below("reorder", len(self._work)), request)
        else:
            self._work.append(request)
        if self.flags & k.IORING_SETUP_TASKRUN_FLAG:
            self._words[4] |= k.IORING_SQ_TASKRUN

    def run_work(self, count_max: int | None) -> None:
        """Run what is pending, at most so much."""
        count = len(self._work) if count_max is None else min(len(self._work), count_max)
        batch, self._work = self._work[:count], self._work[count:]
        if not self._work:
            self._words[4] &= ~k.IORING_SQ_TASKRUN & U32_MASK
        while self._messages:
            self.post(*self._messages.popleft())
            self._count_down()
        self._gathers = True
        for request in batch:
            if request.result is not None:
                self.finish(request, request.result)
            elif request.state == "new":
                self.start(request)
            elif request.state != "done":
                self._attempt(request)
        self._flush()

    def has_work(self) -> bool:
        """Whether anything is pending."""
        return bool(self._work or self._messages)

    def receive_message(self, user_data: int, result: int, flags: int) -> None:
        """Take a completion that another ring sends."""
        if not self.deferred:
            self.post(user_data, result, flags)
            self._count_down()
            return
        self._messages.append((user_data, result, flags))
        if self.flags & k.IORING_SETUP_TASKRUN_FLAG:
            self._words[4] |= k.IORING_SQ_TASKRUN

    # --- cancelling ------------------------------------------------------------------------------

    def withdraw(self, request: Request) -> None:
        """Have a request that waits completed with ECANCELED, or with what it has moved."""
        self.kernel.note("cancel won")
        request.unwatch()
        queued = request in self._work
        if request.timer:
            self.kernel.clock.cancel(request.timer)
            request.timer = 0
        self._countdowns.pop(request, None)
        moved = request.done_bytes if request.opcode in PARTIAL else 0
        request.result = moved or -errno.ECANCELED
        request.state = "woken"
        if not queued:
            self._queue(request)

    def limit_reached(self, timeout: Request) -> None:
        """Withdraw what a LINK_TIMEOUT limits."""
        request, timeout.guards = timeout.guards, None
        answer = -errno.ETIME
        if request is not None and request.state != "done":
            if request.next is timeout:
                request.next, timeout.next = timeout.next, None
            if request.result is not None:
                answer = -errno.ENOENT
            elif request.state == "working":
                answer = -errno.EALREADY
            else:
                self.withdraw(request)
        self.expire(timeout, answer)

    def count_down(self, request: Request) -> None:
        """Have a timeout end when so many others have completed."""
        self._countdowns[request] = request.off

    def _count_down(self) -> None:
        for request in list(self._countdowns):
            self._countdowns[request] -= 1
            if not self._countdowns[request]:
                self.expire(request, 0)

    def drop_all(self) -> None:
        """End every request without a completion: the ring is gone."""
        self._order.clear()
        for request in list(self.requests.values()):
            request.next = None
            request.unwatch()
            if request.timer:
                self.kernel.clock.cancel(request.timer)
            self._end(request)
        self._work.clear()
        self._countdowns.clear()

    # --- completion ------------------------------------------------------------------------------

    def forget(self, request: Request) -> None:
        """End a request without telling."""
        if request.timer:
            self.kernel.clock.cancel(request.timer)
            request.timer = 0
        self._end(request)

    def _end(self, request: Request) -> None:
        request.state = "done"
        if request.shots:
            request.unwatch()
        self.kernel.invariants.ended(request)
        del self.requests[request.serial]
        file, request.file = request.file, None
        if file is not None:
            file.drop()

    def finish(self, request: Request, result: int) -> None:
        """Complete a request, with the others that are submitted or worked on together."""
        if self._gathers:
            request.result = result
            self._gathered.append(request)
        else:
            self._finish(request, result)

    def _flush(self) -> None:
        """Tell what has been completed together."""
        while self._gathered:
            request = self._gathered.popleft()
            assert request.result is not None
            self._finish(request, request.result)
        self._gathers = False

    def _finish(self, request: Request, result: int) -> None:
        if request.lent is not None:
            self._notify(request)
            return
        self.kernel.sightings.completes(request, result)
        self.kernel.invariants.goes_on(request)
        if request.opcode in ZERO_COPY and result >= 0:
            self._lend(request, result)
            return
        self._end(request)
        flags = _buffer_flags(request)
        if not request.flags & k.IOSQE_CQE_SKIP_SUCCESS or has_failed(request, result):
            self.post(request.user_data, result, flags)
            if request.opcode != k.IORING_OP_TIMEOUT and self._countdowns:
                self._count_down()
            faults = self.kernel.faults
            if not flags and self._finished and faults.strikes("duplicate"):
                self.kernel.note("stray completion")
                self.kernel.stray_count += 1
                self._strays.append(CQE.pack(*self._finished, 0))
                self.post(*self._finished, 0)
            # Such as nobody can tell from its first: only ops' numbers are never given again.
            if not flags and not request.shots and request.user_data in _OP_NUMBERS:
                self._finished = request.user_data, result
        if request.next is not None or self._order.busy:
            self._order.ended(request, result)

    def _lend(self, request: Request, result: int) -> None:
        """Tell what a zero-copy send has sent; that its memory is free comes later."""
        request.lent = _sent_from(request)[:result]
        self.post(request.user_data, result, k.IORING_CQE_F_MORE)
        request.state = "working"
        request.result = 0
        delay_ns = 2 * self.kernel.net.travel_ns()
        if self.kernel.faults.strikes("delay", "notification"):
            delay_ns += self.kernel.faults.plan.delay_ns_max
            self.kernel.note("notification late")
        request.timer = self.kernel.clock.call_later(delay_ns, lambda: self._let_go(request))
        if self._countdowns:
            self._count_down()
        if request.next is not None:
            self._order.ended(request, result)

    def _let_go(self, request: Request) -> None:
        request.timer = 0
        file = request.file
        if isinstance(file, StreamSocket):
            file.when_acknowledged(lambda: self._queue(request))
        else:
            self._queue(request)

    def _notify(self, request: Request) -> None:
        """Tell that the memory of a zero-copy send is the program's again."""
        assert request.lent is not None
        if _sent_from(request)[: len(request.lent)] != request.lent:
            raise SimulationError(f"memory was written while {request!r} still sent from it")
        self._end(request)
        self.post(request.user_data, 0, k.IORING_CQE_F_NOTIF)

    def post(self, user_data: int, result: int, flags: int) -> None:
        """Write a completion, or keep it until there is room."""
        kernel = self.kernel
        if self._overflow or not self._has_room() or kernel.faults.strikes("overflow"):
            kernel.trace.add(f"cqe {self.number} {user_data:x} {result} {flags:x}")
            self._overflow.append(CQE.pack(user_data, result, flags))
            self._words[4] |= k.IORING_SQ_CQ_OVERFLOW
            kernel.note("overflow")
        else:
            self._tell(user_data, result, flags)

    def _tell(self, user_data: int, result: int, flags: int) -> None:
        self.kernel.trace.add(f"cqe {self.number} {user_data:x} {result} {flags:x}")
        self._put(CQE.pack(user_data, result, flags))

    def let_go(self, place: tuple[int, int, int]) -> None:
        """Tell, by its tag, that memory is registered no more, once no request uses it."""
        first, size, tag = place

        def tell() -> None:
            if any(first <= one.addr < first + size for one in self.requests.values()):
                self.kernel.clock.call_later(_LET_GO_NS, tell)
            else:
                self.post(tag, 0, 0)

        self.kernel.clock.call_later(_LET_GO_NS, tell)

    # --- waiting ---------------------------------------------------------------------------------

    def wait(self, min_complete: int, deadline_ns: int | None) -> int:
        """Run task work until so many completions are there; 0 or ``-errno``."""
        kernel = self.kernel
        wanted = min(min_complete, self.cq_entries)
        batch = max(_WORK_COUNT_MAX, wanted) if self.deferred else None
        if not self.flush_overflow() and kernel.profile.busy_on_overflow:
            return -errno.EBUSY
        self.run_work(batch)
        while self.ready_count() < wanted:
            self.flush_overflow()
            if self.has_work():
                self.run_work(batch)
                continue
            if self.ready_count() >= wanted:
                break
            if kernel.faults.strikes("interrupt", "enter"):
                return -errno.EINTR
            if not kernel.pass_time(deadline_ns, self.requests.values()) and not self.has_work():
                return -errno.ETIME
            # The processor is given to the program some time after what it waits for.
            kernel.advance_to(kernel.clock.now_ns + kernel.scheduling_ns())
        return 0

    @property
    def deferred(self) -> bool:
        """Whether task work runs only inside the owner's enter."""
        return bool(self.flags & k.IORING_SETUP_DEFER_TASKRUN)

    def released(self) -> None:
        """See `SimFile`."""
        self.drop_all()
        self.kernel.stray_count -= self._untaken_strays()
        for group in self.groups.values():
            self.kernel.invariants.buffers_left(group.missing_count())
        for file in self.files:
            if file is not None:
                file.drop()
        self.files.clear()
        self.kernel.ring_is_gone(self)


def _sent_from(request: Request) -> bytes:
    """Return the memory that a send reads."""
    if request.opcode == k.IORING_OP_SENDMSG_ZC:
        return gathered(request.addr)
    return string_at(request.addr, request.len)


def _buffer_flags(request: Request) -> int:
    if request.buffer < 0:
        return 0
    return k.IORING_CQE_F_BUFFER | request.buffer << k.IORING_CQE_BUFFER_SHIFT
