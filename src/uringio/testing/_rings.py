"""
One simulated io_uring: its memory, its requests, its completions.

Requests are tried when they are submitted.  What would have to wait is parked on its file, woken by
it, and tried again as *task work*, which on a ring with deferred task work runs only inside the
owner's own enter, at most twenty at a time unless more are waited for.  Completions that find no
slot, or others waiting for one, go to the overflow list.

Sources: io_uring_enter(2), io_uring_setup(2), and io_uring/io_uring.c of Linux 6.1 and 6.18.
"""

import errno
from collections import deque
from ctypes import string_at
from typing import TYPE_CHECKING, Final

from uringio._sys import constants as k
from uringio._sys.layouts import BUF, BUF_RING_TAIL_OFFSET, BUF_SIZE, CQE, SQE
from uringio._sys.memory import Memory

from ._disk import OpenFile
from ._objects import SimFile
from ._requests import HANDLERS, Request
from .errors import NotSimulatedError, SimulationError

if TYPE_CHECKING:
    from ._invariants import Invariants
    from ._kernel import SimKernel

__all__ = ["CQ_OFFSETS", "SQ_OFFSETS", "SimRing"]

_U32_MASK: Final = 0xFFFFFFFF
_LET_GO_NS: Final = 10_000
_WORK_COUNT_MAX: Final = 20  # IO_LOCAL_TW_DEFAULT_MAX
# Where the words stand; the completions follow, and the index array. [bytes]
_WORDS_BYTES: Final = 64
SQ_OFFSETS: Final = (0, 4, 8, 12, 16, 20)
CQ_OFFSETS: Final = (32, 36, 40, 44, 48, _WORDS_BYTES, 52)

# Flags of an SQE that are simulated.
_SQE_FLAGS: Final = (
    k.IOSQE_FIXED_FILE | k.IOSQE_ASYNC | k.IOSQE_BUFFER_SELECT | k.IOSQE_CQE_SKIP_SUCCESS
)
_WITHOUT_FILE: Final = frozenset({
    k.IORING_OP_NOP, k.IORING_OP_ASYNC_CANCEL, k.IORING_OP_CLOSE, k.IORING_OP_OPENAT,
    k.IORING_OP_OPENAT2, k.IORING_OP_SOCKET, k.IORING_OP_UNLINKAT,
})  # fmt: skip
_OP_NUMBERS: Final = range(16, 1 << 61)
# What a program must not find interrupted, or late: it is over when it returns.
_PROMPT: Final = frozenset({k.IORING_OP_ASYNC_CANCEL, k.IORING_OP_CLOSE})


class BufferGroup:
    """A ring of provided buffers, as the kernel sees it."""

    def __init__(self, addr: int, count: int, invariants: "Invariants") -> None:
        self._addr = addr
        self._count = count
        self._head = self._seen = 0
        self._invariants = invariants
        self._places: dict[int, tuple[int, int]] = {}  # buffer -> where it is, and its size
        self._inside: set[int] = set()

    def peek(self) -> tuple[int, int, int] | None:
        """Return address, size and number of the next buffer, None if there is none."""
        tail = int.from_bytes(string_at(self._addr + BUF_RING_TAIL_OFFSET, 2), _BYTE_ORDER)
        if self._seen != tail:
            self._look(tail)
        if self._head == tail:
            return None
        return self._entry(self._head)

    def take(self) -> None:
        """Take the next buffer away."""
        self._inside.discard(self._entry(self._head)[2])
        self._head = (self._head + 1) & 0xFFFF

    def missing_count(self) -> int:
        """How many buffers are not in the ring."""
        self.peek()
        # A ring that was given up before any buffer was put in misses none.
        return self._count - len(self._inside) if self._places else 0

    def _entry(self, index: int) -> tuple[int, int, int]:
        entry = self._addr + (index & (self._count - 1)) * BUF_SIZE
        found: tuple[int, int, int] = BUF.unpack(string_at(entry, BUF.size))
        return found

    def _look(self, tail: int) -> None:
        """Look at what was put back."""
        while self._seen != tail:
            addr, size, bid = self._entry(self._seen)
            is_own = self._places.setdefault(bid, (addr, size)) == (addr, size)
            is_inside = bid in self._inside
            self._inside.add(bid)
            self._seen = (self._seen + 1) & 0xFFFF
            self._invariants.buffer_put(bid, is_inside, is_own)


class SimRing(SimFile):
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
        memory: Registered memory: address, size and tag of each place, None where there is none.
        requests: What has been submitted and not completed, oldest first.
        ring_memory, sqe_memory: What the program maps.
    """

    kind = "io_uring"

    def __init__(
        self, kernel: "SimKernel", sq_entries: int, cq_entries: int, flags: int, start: int
    ) -> None:
        super().__init__()
        self.flags = flags
        self.number = kernel.next_ring_number()
        self.sq_entries, self.cq_entries = sq_entries, cq_entries
        self.array_offset = _WORDS_BYTES + cq_entries * CQE.size
        self.ring_memory = Memory(self.array_offset + 4 * sq_entries)
        self.sqe_memory = Memory(sq_entries * SQE.size)
        self.groups: dict[int, BufferGroup] = {}
        self.files: list[SimFile | None] = []
        self.memory: list[tuple[int, int, int] | None] = []
        self.requests: dict[int, Request] = {}
        self.owner: int | None = None
        self._kernel = kernel
        self._view = self.ring_memory.view
        self._words = self._view[:_WORDS_BYTES].cast("I")
        self._array = self._view[self.array_offset : self.array_offset + 4 * sq_entries].cast("I")
        for index in (0, 1, 8, 9):
            self._words[index] = start & _U32_MASK
        self._words[2], self._words[10] = sq_entries - 1, cq_entries - 1
        self._words[3], self._words[11] = sq_entries, cq_entries
        self._overflow: deque[bytes] = deque()
        self._work: list[Request] = []
        self._last = 0
        self._finished: tuple[int, int] | None = None
        self._strays: list[bytes] = []

    # --- submission ------------------------------------------------------------------------------

    def submit(self, count: int) -> int:
        """Take at most so many requests; how many were taken."""
        words = self._words
        head = words[0]
        count = min(count, (words[1] - head) & _U32_MASK)
        faults = self._kernel.faults
        if count and faults.strikes("refuse_submit"):
            return -errno.EAGAIN
        if count > 1 and faults.strikes("partial_submit"):
            count = 1 + faults.below("partial_submit", count - 1)
        mask = self.sq_entries - 1
        for _ in range(count):
            slot = head & mask
            if not self.flags & k.IORING_SETUP_NO_SQARRAY:
                slot = self._array[slot]
            fields = SQE.unpack_from(self.sqe_memory.view, slot * SQE.size)
            head = (head + 1) & _U32_MASK
            words[0] = head
            self._last += 1
            request = Request(self, self._last, fields)
            self.requests[self._last] = request
            self._begin(request)
        return count

    def _begin(self, request: Request) -> None:
        kernel = self._kernel
        kernel.op_count += 1
        kernel.trace.add(
            f"sqe {self.number} {request.name} {request.fd} {request.len} {request.user_data:x}"
        )
        kernel.invariants.submitted(request)
        number = self._prepare(request)
        if number == errno.EBADF:
            kernel.invariants.used(request.fd, request.name)
        kernel.sightings.begins(request)
        number = number or kernel.faults.exact(request.name)
        if not number and request.opcode not in _PROMPT:
            if kernel.faults.strikes("interrupt", request.name):
                number = errno.EINTR
            elif kernel.faults.strikes("delay", request.name):
                delay_ns = 1 + kernel.faults.below("delay", kernel.faults.plan.delay_ns_max)
                request.state = "working" if isinstance(request.file, OpenFile) else "woken"
                request.timer = kernel.clock.call_later(delay_ns, lambda: self._begin_late(request))
                kernel.invariants.stays(request)
                return
        if number:
            self._complete(request, -number)
            return
        self._attempt(request, True)
        if request.state != "done":
            kernel.invariants.stays(request)

    def _begin_late(self, request: Request) -> None:
        request.timer = 0
        if request.state == "working":
            # A thread of the kernel's does it now; the completion is told as task work.
            self._kernel.invariants.goes_on(request)
            request.result = HANDLERS[request.opcode](self._kernel, request)
            assert request.result is not None, request
        self._queue(request)

    def _prepare(self, request: Request) -> int:
        """Find the request's file; a positive errno on refusal."""
        kernel = self._kernel
        opcode = request.opcode
        if opcode not in kernel.profile.opcodes:
            return errno.EINVAL
        if opcode not in HANDLERS or request.flags & ~_SQE_FLAGS:
            raise NotSimulatedError(f"{request!r} with flags {request.flags:#x} is not simulated")
        if opcode in _WITHOUT_FILE:
            return 0
        if request.flags & k.IOSQE_FIXED_FILE:
            slot = request.fd
            file = self.files[slot] if 0 <= slot < len(self.files) else None
        else:
            file = kernel.file_of(request.fd)
        if file is None:
            return errno.EBADF
        if not self._is_registered(request):
            return errno.EFAULT
        file.hold()
        request.file = file
        return 0

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

    def _attempt(self, request: Request, at_once: bool) -> None:
        self._kernel.invariants.goes_on(request)
        result = HANDLERS[request.opcode](self._kernel, request)
        if result is None:
            request.state = "parked"
            file = request.file
            assert file is not None
            file.watch(request)
            if file.poll() & request.wanted:  # cut short, and there is more to do
                file.unwatch(request)
                self.wake(request)
        elif at_once:
            self._complete(request, result)
        else:
            request.result = result
            self._complete(request, result)

    # --- task work -------------------------------------------------------------------------------

    def wake(self, request: Request) -> None:
        """Have a parked request tried again soon."""
        request.state = "woken"
        delay_ns = self._kernel.wake_delay_ns()
        request.timer = self._kernel.clock.call_later(delay_ns, lambda: self._woken(request))

    def _woken(self, request: Request) -> None:
        request.timer = 0
        self._queue(request)

    def _queue(self, request: Request) -> None:
        faults = self._kernel.faults
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
            self._words[4] &= ~k.IORING_SQ_TASKRUN & _U32_MASK
        for request in batch:
            if request.result is not None:
                self._complete(request, request.result)
            elif request.state != "done":
                self._attempt(request, False)

    # --- cancelling ------------------------------------------------------------------------------

    def cancel_by(self, request: Request) -> int:
        """Carry an ASYNC_CANCEL out."""
        flags = request.op_flags
        if flags & ~(k.IORING_ASYNC_CANCEL_ALL | k.IORING_ASYNC_CANCEL_ANY):
            raise NotSimulatedError(f"cancelling with flags {flags:#x} is not simulated")
        anything = bool(flags & k.IORING_ASYNC_CANCEL_ANY)
        found = [
            one
            for one in self.requests.values()
            if one is not request and (anything or one.user_data == request.addr)
        ]
        if not flags & k.IORING_ASYNC_CANCEL_ALL:
            found = found[:1]
        count = 0
        answer = -errno.ENOENT
        if not found:
            self._kernel.sightings.is_missed(request.addr)
        for one in found:
            self._kernel.sightings.is_asked_to_end(one)
            # What is being tried just now is not found; with result, it is over.
            if one.result is not None or (
                one.state != "working" and self._kernel.faults.strikes("cancel_miss", one.name)
            ):
                self._kernel.note("cancel lost")
            elif one.state == "working":
                self._kernel.note("cancel too late")
                answer = -errno.EALREADY
            else:
                self._withdraw(one)
                count += 1
        if flags & k.IORING_ASYNC_CANCEL_ALL:
            return count
        return 0 if count else answer

    def _withdraw(self, request: Request) -> None:
        self._kernel.note("cancel won")
        if request.file is not None:
            request.file.unwatch(request)
        queued = request in self._work
        if request.timer:
            self._kernel.clock.cancel(request.timer)
            request.timer = 0
        moved = request.done_bytes if request.opcode == k.IORING_OP_SEND else 0
        request.result = moved or -errno.ECANCELED
        request.state = "woken"
        if not queued:
            self._queue(request)

    def drop_all(self) -> None:
        """End every request without a completion: the ring is gone."""
        for request in list(self.requests.values()):
            if request.file is not None:
                request.file.unwatch(request)
            if request.timer:
                self._kernel.clock.cancel(request.timer)
            self._end(request)
        self._work.clear()

    # --- completion ------------------------------------------------------------------------------

    def _end(self, request: Request) -> None:
        request.state = "done"
        self._kernel.invariants.ended(request)
        del self.requests[request.serial]
        file, request.file = request.file, None
        if file is not None:
            file.drop()

    def _complete(self, request: Request, result: int) -> None:
        if request.lent is not None:
            self._notify(request)
            return
        self._kernel.sightings.completes(request, result)
        self._kernel.invariants.goes_on(request)
        if request.opcode == k.IORING_OP_SEND_ZC and result >= 0:
            self._lend(request, result)
            return
        self._end(request)
        flags = 0
        if request.buffer >= 0:
            flags = k.IORING_CQE_F_BUFFER | request.buffer << k.IORING_CQE_BUFFER_SHIFT
        if result >= 0 and request.flags & k.IOSQE_CQE_SKIP_SUCCESS:
            return
        self.post(request.user_data, result, flags)
        faults = self._kernel.faults
        if not flags and self._finished and faults.strikes("duplicate"):
            self._kernel.note("stray completion")
            self._kernel.stray_count += 1
            self._strays.append(CQE.pack(*self._finished, 0))
            self.post(*self._finished, 0)
        # Such as nobody can tell from its first: the numbers of ops alone are never given again.
        if not flags and _OP_NUMBERS.start <= request.user_data < _OP_NUMBERS.stop:
            self._finished = request.user_data, result

    def _lend(self, request: Request, result: int) -> None:
        """Tell what a zero-copy send has sent; that its memory is free comes later."""
        request.lent = string_at(request.addr, result)
        self.post(request.user_data, result, k.IORING_CQE_F_MORE)
        request.state = "working"
        request.result = 0
        delay_ns = 2 * self._kernel.net.travel_ns()
        if self._kernel.faults.strikes("delay", "notification"):
            delay_ns += self._kernel.faults.plan.delay_ns_max
            self._kernel.note("notification late")
        request.timer = self._kernel.clock.call_later(delay_ns, lambda: self._woken(request))

    def _notify(self, request: Request) -> None:
        """Tell that the memory of a zero-copy send is the program's again."""
        assert request.lent is not None
        if string_at(request.addr, len(request.lent)) != request.lent:
            raise SimulationError(f"memory was written while {request!r} still sent from it")
        self._end(request)
        self.post(request.user_data, 0, k.IORING_CQE_F_NOTIF)

    def post(self, user_data: int, result: int, flags: int) -> None:
        """Write a completion, or keep it until there is room."""
        kernel = self._kernel
        kernel.trace.add(f"cqe {self.number} {user_data:x} {result} {flags:x}")
        raw = CQE.pack(user_data, result, flags)
        if self._overflow or not self._has_room() or kernel.faults.strikes("overflow"):
            self._overflow.append(raw)
            self._words[4] |= k.IORING_SQ_CQ_OVERFLOW
            kernel.note("overflow")
        else:
            self._put(raw)

    def _has_room(self) -> bool:
        return self.ready_count() < self.cq_entries

    def ready_count(self) -> int:
        """How many completions stand in the queue."""
        return (self._words[9] - self._words[8]) & _U32_MASK

    def _put(self, raw: bytes) -> None:
        start = _WORDS_BYTES + (self._words[9] & self.cq_entries - 1) * CQE.size
        self._view[start : start + CQE.size] = raw
        self._words[9] = (self._words[9] + 1) & _U32_MASK

    def flush_overflow(self) -> bool:
        """Move what overflowed into the queue as far as there is room; whether that was all."""
        while self._overflow and self._has_room():
            self._put(self._overflow.popleft())
        if not self._overflow:
            self._words[4] &= ~k.IORING_SQ_CQ_OVERFLOW & _U32_MASK
        return not self._overflow

    def _untaken_strays(self) -> int:
        """How many completions that belong to nobody the program has never seen."""
        words, mask = self._words, self.cq_entries - 1
        starts = (
            _WORDS_BYTES + (words[8] + index & mask) * CQE.size
            for index in range(self.ready_count())
        )
        untaken = [bytes(self._view[start : start + CQE.size]) for start in starts]
        untaken += self._overflow
        return sum(raw in untaken for raw in self._strays)

    def let_go(self, place: tuple[int, int, int]) -> None:
        """Tell, by its tag, that memory is registered no more, once no request uses it."""
        first, size, tag = place

        def tell() -> None:
            if any(first <= one.addr < first + size for one in self.requests.values()):
                self._kernel.clock.call_later(_LET_GO_NS, tell)
            else:
                self.post(tag, 0, 0)

        self._kernel.clock.call_later(_LET_GO_NS, tell)

    # --- waiting ---------------------------------------------------------------------------------

    def wait(self, min_complete: int, deadline_ns: int | None) -> int:
        """Run task work until so many completions are there; 0 or ``-errno``."""
        kernel = self._kernel
        wanted = min(min_complete, self.cq_entries)
        batch = max(_WORK_COUNT_MAX, wanted) if self.deferred else None
        if not self.flush_overflow() and kernel.profile.busy_on_overflow:
            return -errno.EBUSY
        self.run_work(batch)
        while self.ready_count() < wanted:
            self.flush_overflow()
            if self._work:
                self.run_work(batch)
                continue
            if self.ready_count() >= wanted:
                break
            if kernel.faults.strikes("interrupt", "enter"):
                return -errno.EINTR
            if not kernel.pass_time(deadline_ns, self.requests.values()) and not self._work:
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
        self._kernel.stray_count -= self._untaken_strays()
        for group in self.groups.values():
            self._kernel.invariants.buffers_left(group.missing_count())
        for file in self.files:
            if file is not None:
                file.drop()
        self.files.clear()
        self._kernel.ring_is_gone(self)


_BYTE_ORDER: Final = "little" if memoryview(b"\1\0").cast("H")[0] == 1 else "big"
