"""
The io_uring driver.

Flat by construction: `make_uring_driver` builds two hot closures over the ring's memory, `submit`
and `turn`, in which one op costs one ``pack_into``, two dictionary steps and no call.  Everything
seldom stands in nested functions beside them.  One ``io_uring_enter`` per turn both submits and
waits.

The tables.  *Operation -> pack* is `HEADS`: every operation fits one SQE shape, so its row is the
SQE's first word; a negative row names an operation that needs no SQE.  *Operation -> settle* is the
list `settles`: None means that the value is ``res``.  The two rows that carry a server, RECV and
SEND_ALL, are written out in `turn`.

``user_data`` is the op's `use`, a number never given twice, looked up in `in_flight`; whatever is
not found there is counted and dropped.  0 belongs to completions that nobody awaits, 1 to the wake
pipe.

Receiving.  RECV lets the kernel pick one of a small ring of provided buffers when data is there, so
an idle connection holds none.  The bytes are copied out and the buffer goes back within the same
turn.  ENOBUFS (more receives completed in one enter than there are buffers) queues the op until the
turn's end, when all buffers are back; and then the ring of buffers is doubled, up to
`buffer_count_max`:
with 500 busy connections and 64 buffers, three receives in four were refused and made again, 9.9 us
of CPU per message against 6.7.  It does not begin large, because the kernel walks through all of
it, and 512 buffers at 50 connections cost 5 % in cache misses.

Sending.  SEND_ALL carries MSG_WAITALL, with which the kernel itself goes on after a short send;
what is cut short all the same is resubmitted from where it stopped.

What keeps memory safe: an op in `in_flight` is referenced from here, with its memory, until its
terminal completion; and at close, what the kernel still holds is leaked on purpose.
"""

import _thread
import errno
from collections import deque
from collections.abc import Callable
from struct import Struct
from typing import Final, Protocol, cast

from uringio._ring.buffers import BufferRing
from uringio._ring.queue import Completion, make_reap, make_submit_and_wait
from uringio._ring.register import register_ring_fd, unregister_ring_fd
from uringio._ring.setup import FLAG_LADDER, Ring, queue_init
from uringio._sys import constants as k
from uringio._sys.errnos import Fate
from uringio._sys.layouts import SQE_SHORT
from uringio._sys.memory import BYTES_DATA_OFFSET, pin
from uringio._sys.system import System
from uringio.errors import ClosedError, OpError, RingForkedError, WrongThreadError

from . import op as o
from .attempts import VALUED
from .bound import BoundDriver
from .contract import Deliver, MakeCancelled, Statistics
from .file_calls import read_inline
from .leaks import keep_for_ever, leak
from .offloads import Offloads
from .op import (
    CANCELLING,
    DONE,
    READ_CACHED,
    RECV,
    RECVMSG,
    SEND_ALL,
    SENDMSG,
    SUBMITTED,
    Offload,
    Op,
)
from .outcome import (
    orphan_failure,
    received,
    settle_cancelled,
    settle_done_as_cancelled,
    settle_failed,
)
from .timers import Timers
from .uring_files import SHAPED, ThreadCalls, shape
from .uring_rows import CANCEL_EVERYTHING, CANCEL_HEAD, HEADS, WRITING_HEADS

__all__ = ["UringDriver", "make_uring_driver"]

_U32_MASK: Final = 0xFFFFFFFF
_USE_NOBODY: Final = 0
_USE_WAKE: Final = 1
_USE_FIRST: Final = 16
_CANCEL_BIT: Final = 1 << 62  # of the user_data of a cancel request; the rest is the op's use
# A request that is just being tried again is not found by a cancel request. It is asked for anew,
# but not for ever: the kernel tries 128 times before it gives a request to a thread of its own.
_CANCEL_TRIES_MAX: Final = 256
_STALL_NS: Final = 1_000_000

_USER_DATA: Final = Struct("=Q")


class _PackInto(Protocol):
    def __call__(self, buffer: memoryview, offset: int, /, *values: int) -> object: ...


class _NoClass:
    """No memory has this class: the switch that sends all of it through `pin`."""


def _discard(op: Op[object]) -> None:
    """Deliver to nobody: the scheduler has gone."""


class UringDriver(BoundDriver):
    """
    The driver over one io_uring.

    Attributes:
        ring: Its ring.
    """

    ring: Ring


def make_uring_driver(
    system: System,
    deliver: Deliver,
    make_cancelled: MakeCancelled,
    *,
    entries: int = 256,
    buffer_count: int = 64,
    buffer_count_max: int = 1024,
    buffer_bytes: int = 65536,
    ladder: tuple[int, ...] = FLAG_LADDER,
) -> UringDriver:
    """
    Build the io_uring driver of the calling thread.

    Args:
        entries: Submission slots; more ops than that are handed over in several enters. [count]
        buffer_count: Provided receive buffers to begin with, a power of two. [count]
        buffer_count_max: How many there may become; with *buffer_bytes*, the bound on what the
            driver spends on received data not yet copied out. [count]
        buffer_bytes: The size of each, and so the most that one RECV returns. [bytes]
        ladder: Set-up flags to try.

    Raises:
        RingError: io_uring is blocked, missing, or out of memory or descriptors.
    """
    ring = queue_init(system, entries, ladder=ladder)
    try:
        try:
            register_ring_fd(ring)
        except OpError:
            pass  # an optimisation only
        buffers = BufferRing(ring, 0, buffer_count, buffer_bytes)
        wake_read_fd, wake_write_fd = system.pipe()
    except BaseException:
        unregister_ring_fd(ring)
        ring.close()
        raise
    system.set_blocking(wake_read_fd, True)
    wake_memory = system.allocate(4096)

    # --- the ring, as locals of the closures -----------------------------------------------------
    submit_and_wait = make_submit_and_wait(ring)
    storage: list[Completion] = []
    reap = make_reap(ring, storage)
    completions = iter(storage)
    drained = True
    sqes, sq_head, sq_flags = ring.sqes, ring.sq_head, ring.sq_flags
    entries = ring.sq_entries
    sq_mask = entries - 1
    undeferred = not ring.deferred
    pack: _PackInto = SQE_SHORT.pack_into
    tail = 0  # slots filled; never wraps
    limit = entries  # the tail at which the queue is full

    # --- provided buffers ------------------------------------------------------------------------
    pool = buffers.memory.slices
    held_at, put_buffer, publish_buffers = buffers.held_at, buffers.put, buffers.publish
    buffer_tail = buffer_count
    buffer_mask = buffer_count - 1

    # --- ops -------------------------------------------------------------------------------------
    in_flight: dict[int, Op[object]] = {}
    forget = in_flight.pop
    use = _USE_FIRST
    starved: deque[Op[object]] = deque()
    events: set[Op[object]] = set()
    cancel_tries: dict[int, int] = {}
    timers = Timers()
    clock = system.monotonic_ns
    get_ident = _thread.get_ident
    owner_thread = get_ident()
    heads = HEADS
    # Where a bytes object's storage is an addition away, it needs no call; elsewhere no class
    # matches and every memory goes through `locate`.
    inline_class: type = bytes if BYTES_DATA_OFFSET is not None else _NoClass
    inline_offset = BYTES_DATA_OFFSET or 0

    waits = turns = stray = starved_count = resubmitted_count = 0
    woken = wake_armed = False
    closed = False

    def submit(op: Op[object]) -> None:
        nonlocal tail, use
        head = heads[op.code]
        if head < 0:
            submit_by_driver(op)
            return
        if tail == limit and not make_room():
            settle_failed(op, errno.EAGAIN)
            deliver(op)
            return
        memory = op.memory
        if memory is None:
            addr = op.addr
        elif type(memory) is inline_class:
            addr = id(memory) + inline_offset
        else:
            addr = locate(op)
        use += 1
        pack(sqes, (tail & sq_mask) << 6, head, op.fd, op.off, addr, op.len, op.flags, use)
        op.use = use
        op.state = SUBMITTED
        in_flight[use] = op
        tail += 1

    def turn(deadline_ns: int | None) -> None:
        nonlocal limit, buffer_tail, waits, turns, completions, drained
        if get_ident() != owner_thread:
            raise wrong_thread()
        turns += 1
        wait_count, timeout_ns = 1, None
        if deadline_ns == 0 or storage or offloads.finished:
            wait_count = 0
        else:
            timer_ns = timers.next_deadline_ns()
            if timer_ns is not None and (deadline_ns is None or timer_ns < deadline_ns):
                deadline_ns = timer_ns
            if deadline_ns is not None:
                timeout_ns = deadline_ns - clock()
                if timeout_ns <= 0:
                    wait_count = 0
        if wait_count or sq_flags[0] or tail & _U32_MASK != sq_head[0]:
            waits += 1
            fate = submit_and_wait(tail, wait_count, timeout_ns)
            limit = tail + entries - ((tail - sq_head[0]) & _U32_MASK)
            reap()
            if fate is Fate.REAP and not storage:
                stall()
        elif undeferred:
            reap()  # completions may stand there that no enter of ours has brought

        # The iterator outlives the turn: should an exception (a signal handler's, say) end the loop
        # half way, the next turn goes on behind the completion at which it struck.
        if drained:
            completions = iter(storage)
        drained = False
        for user_data, res, flags in completions:
            op = forget(user_data, None)
            if op is None:
                unawaited(user_data, res, flags)
            elif flags & 1:  # IORING_CQE_F_BUFFER: a receive, and bid is the buffer it filled
                bid = flags >> 16
                start = bid * buffer_bytes
                data = pool[start : start + res] if res > 0 else b""
                slot = buffer_tail & buffer_mask
                if held_at[slot] != bid:
                    put_buffer(slot, bid)
                buffer_tail += 1
                if op.state == SUBMITTED and res >= 0:
                    op.value = data
                    op.state = DONE
                    deliver(op)
                else:
                    settle_slowly(op, res, data)
            elif res < 0 or op.state != SUBMITTED:
                settle_slowly(op, res, None)
            else:
                code = op.code
                if code == SEND_ALL and res == op.len and op.hold is None:
                    op.memory = None
                else:
                    settle = settles[code]
                    if settle is None:
                        op.value = res
                    elif not settle(op, res):
                        continue
                op.state = DONE
                deliver(op)
        storage.clear()
        drained = True

        publish_buffers(buffer_tail)
        if starved:
            feed_starved()
        if timers:
            timers.expire(clock(), settle_timer)
        if offloads.finished:
            offloads.settle_finished()

    # --- rows of the settle table: False means resubmitted ---------------------------------------

    def settle_send_all(op: Op[object], res: int) -> bool:
        if res == op.len:
            op.memory = None
            op.hold = None
            return True
        if op.memory is not None:
            # From the first short send on, the rest goes by address, with what holds it there.
            op.addr, _, op.hold = pin(op.memory)
            op.memory = None
        op.addr += res
        op.done_bytes += res
        op.len -= res
        resubmit(op)
        return False

    def settle_none(op: Op[object], res: int) -> bool:
        op.memory = None
        op.hold = None
        return True

    def settle_count(op: Op[object], res: int) -> bool:
        op.memory = None
        op.hold = None
        op.value = res
        return True

    def settle_recv(op: Op[object], res: int) -> bool:
        op.value = b""  # the peer's end; the kernel took no buffer for it
        return True

    def settle_recvmsg(op: Op[object], res: int) -> bool:
        op.value = received(op, res)
        op.hold = None
        return True

    settles: list[Callable[[Op[object], int], bool] | None] = [None] * len(heads)
    settles[RECV] = settle_recv
    settles[SEND_ALL] = settle_send_all
    settles[RECVMSG] = settle_recvmsg
    for code in SHAPED:
        settles[code] = settle_none
    for code in VALUED - {o.NOP, o.ACCEPT, o.POLL, READ_CACHED}:
        settles[code] = settle_count
    for code in (o.CONNECT, o.SHUTDOWN, o.CLOSE, o.FSYNC):
        settles[code] = settle_none

    # --- what is seldom --------------------------------------------------------------------------

    def locate(op: Op[object]) -> int:
        """Pin memory that is not inline bytes, or that the kernel will write into."""
        assert op.memory is not None
        addr, _, op.hold = pin(op.memory, writable=op.code in WRITING_HEADS)
        return addr

    def submit_by_driver(op: Op[object]) -> None:
        nonlocal use
        if op.code == READ_CACHED and read_inline(op, system):
            use += 1
            op.use = use
            deliver(op)
            return
        code = op.code
        if code in WRITING_HEADS:
            addr = op.addr if op.memory is None else locate(op)
            enqueue(op, WRITING_HEADS[code], op.fd, op.off, addr, op.len, op.flags)
            return
        if code in SHAPED and not threads.must_take(op):
            enqueue(op, *shape(op))
            return
        use += 1
        op.use = use
        op.state = SUBMITTED
        if op.code == o.TIMEOUT:
            timers.add(op)
        elif op.code == o.OFFLOAD:
            assert isinstance(op, Offload)
            offloads.start(op)
        elif op.code == o.EVENT:
            events.add(op)
        elif code not in SHAPED:
            op.state = DONE
            deliver(op)
        elif number := threads.begin(op):
            settle_failed(op, number)
            deliver(op)

    def enqueue(op: Op[object], *fields: int) -> None:
        nonlocal tail, use
        if tail == limit and not make_room():
            settle_failed(op, errno.EAGAIN)
            deliver(op)
            return
        use += 1
        pack(sqes, (tail & sq_mask) << 6, *fields, use)
        op.use = use
        op.state = SUBMITTED
        in_flight[use] = op
        tail += 1

    def settle_timer(op: Op[object]) -> None:
        op.use = 0
        op.state = DONE
        deliver(op)

    def fire(op: Op[object]) -> None:
        if op in events:
            events.discard(op)
            op.state = DONE
            deliver(op)

    def settle_slowly(op: Op[object], res: int, data: bytes | None) -> None:
        """End an op that failed or was cancelled, or give it another try."""
        nonlocal starved_count
        code = op.code
        if op.state == CANCELLING:
            if res > 0 and code in (SEND_ALL, SENDMSG):
                op.done_bytes += res
            value: object = res
            if code == RECV:
                value = data
            if res < 0:
                orphan_failure(op, -res)
            settle_cancelled(op, value, res >= 0 and value is not None, system, make_cancelled)
        elif res == -errno.ENOBUFS and code == RECV:
            starved_count += 1
            starved.append(op)
            return
        elif res == -errno.EINTR and code == o.CLOSE:
            op.state = DONE  # close(2): the descriptor is gone all the same
        elif res == -errno.EINTR:
            resubmit(op)
            return
        else:
            settle_failed(op, -res)
        deliver(op)

    def feed_starved() -> None:
        if buffer_count < buffer_count_max:
            grow_buffers()
        waiting = list(starved)
        starved.clear()
        for op in waiting:
            resubmit(op)

    def resubmit(op: Op[object]) -> None:
        nonlocal resubmitted_count
        resubmitted_count += 1
        submit(op)

    def grow_buffers() -> None:
        """Replace the ring of buffers by a larger one, while no buffer is in use."""
        nonlocal buffers, buffer_count, buffer_tail, buffer_mask
        nonlocal pool, held_at, put_buffer, publish_buffers
        if (
            not ring.deferred
            or sq_flags[0] & k.IORING_SQ_CQ_OVERFLOW
            or ring.cq_head[0] != ring.cq_tail[0]
        ):
            return  # a completion that names an old buffer may be on its way
        count = buffer_count
        while count < buffer_count + len(starved) and count < buffer_count_max:
            count *= 2
        buffers.unregister()
        try:
            buffers = BufferRing(ring, 0, count, buffer_bytes)
        except OSError:  # no memory for more: go on with as many as before
            buffers = BufferRing(ring, 0, buffer_count, buffer_bytes)
        buffer_count = buffer_tail = buffers.count
        buffer_mask = buffer_count - 1
        pool = buffers.memory.slices
        held_at, put_buffer, publish_buffers = buffers.held_at, buffers.put, buffers.publish

    def unawaited(user_data: int, res: int, flags: int) -> None:
        nonlocal stray, buffer_tail, woken, wake_armed
        if flags & k.IORING_CQE_F_BUFFER:
            bid = flags >> k.IORING_CQE_BUFFER_SHIFT
            put_buffer(buffer_tail & buffer_mask, bid)
            buffer_tail += 1
        if user_data == _USE_WAKE:
            woken = wake_armed = False
            if not closed:
                arm_wake()
            if threads.finished:
                threads.settle_finished(deliver, settle_slowly)
        elif user_data & _CANCEL_BIT:
            cancel_answered(user_data, res)
        elif user_data != _USE_NOBODY:
            stray += 1

    def cancel_answered(user_data: int, res: int) -> None:
        """Ask again for a request that the kernel did not find although it is in flight."""
        tries = cancel_tries.pop(user_data, 0) + 1
        target = user_data & ~_CANCEL_BIT
        if res == -errno.ENOENT and target in in_flight and tries < _CANCEL_TRIES_MAX:
            cancel_tries[user_data] = tries
            push(CANCEL_HEAD, -1, target, 0, 0, user_data)

    def push(head: int, fd: int, addr: int, len_: int, flags: int, user_data: int) -> bool:
        """Queue an SQE that is no op's; False when the queue stays full."""
        nonlocal tail
        if tail == limit and not make_room():
            return False
        pack(sqes, (tail & sq_mask) << 6, head, fd, 0, addr, len_, flags, user_data)
        tail += 1
        return True

    def arm_wake() -> None:
        nonlocal wake_armed
        head, memory = WRITING_HEADS[o.READ], wake_memory
        wake_armed = push(head, wake_read_fd, memory.addr, memory.len_bytes, 0, _USE_WAKE)

    def make_room() -> bool:
        """Hand the full queue over; False when the kernel takes nothing."""
        nonlocal limit, waits
        for _ in range(16):
            waits += 1
            submit_and_wait(tail, 0, None)
            pending = (tail - sq_head[0]) & _U32_MASK
            limit = tail + entries - pending
            reap()  # here, since the next turn may find nothing to enter for
            if pending < entries:
                return True
        return False

    def stall() -> None:
        """Wait a moment, submitting nothing: the kernel is out of memory for requests."""
        submit_and_wait(sq_head[0], 1, _STALL_NS)
        reap()

    def flush() -> None:
        if get_ident() != owner_thread:
            raise wrong_thread()
        if tail & _U32_MASK != sq_head[0]:
            make_room()

    def cancel(op: Op[object], reason: BaseException | None) -> bool:
        if get_ident() != owner_thread:
            raise wrong_thread()
        if op.state == SUBMITTED:
            op.state = CANCELLING
            op.error = reason
            request_cancel(op)
            return True
        if op.state == CANCELLING:
            if reason is None:
                op.error = None
            return True
        if op.state == DONE:
            settle_done_as_cancelled(op, reason, system, make_cancelled)
            return True
        return False

    def request_cancel(op: Op[object]) -> None:
        if op.code == o.CLOSE:
            return  # a close that is withdrawn would leak the descriptor
        if op.code == o.TIMEOUT:
            timers.remove(op)
        elif op.code == o.OFFLOAD:
            offloads.abandon(op)
        elif op.code == o.EVENT:
            events.discard(op)
        elif op in threads:
            return  # its thread is at work on its memory, or will find it cancelled
        elif op in starved:
            starved.remove(op)
        elif not withdraw(op.use):
            push(CANCEL_HEAD, -1, op.use, 0, 0, op.use | _CANCEL_BIT)
            return
        else:
            forget(op.use)
        settle_cancelled(op, None, False, system, make_cancelled)
        deliver(op)

    def withdraw(op_use: int) -> bool:
        """Turn an SQE that the kernel has not seen into a NOP; False if it has."""
        pending = (tail - sq_head[0]) & _U32_MASK
        for index in range(tail - pending, tail):
            start = (index & sq_mask) << 6
            if _USER_DATA.unpack_from(sqes, start + 32)[0] == op_use:
                pack(sqes, start, HEADS[o.NOP], -1, 0, 0, 0, 0, _USE_NOBODY)
                return True
        return False

    def wake() -> None:
        nonlocal woken
        if not woken and not closed:
            woken = True
            system.poke(wake_write_fd)

    def statistics() -> Statistics:
        count = len(in_flight) + len(timers) + len(starved) + len(offloads)
        count += len(events) + len(threads)
        submitted = use - _USE_FIRST - resubmitted_count
        return Statistics(
            "uring", submitted, submitted - count, count, turns, waits, stray, starved_count
        )

    def wrong_thread() -> Exception:
        return WrongThreadError(
            "this io_uring belongs to the thread that made it; from other threads only wake() and "
            "the loop's thread-safe calls may be used"
        )

    def retire(make_refusal: Callable[[], Exception]) -> None:
        """Let no closure reach the ring's memory again, whoever still calls one; then free it."""
        nonlocal submit_and_wait, pack, owner_thread, wrong_thread, closed
        closed = True

        def refuse(*_arguments: object) -> Fate:
            raise make_refusal()

        submit_and_wait = refuse
        pack = cast("_PackInto", refuse)
        owner_thread = -1  # no thread has this number
        wrong_thread = make_refusal
        ring.close()
        system.close(wake_read_fd)
        system.close(wake_write_fd)

    def poison() -> None:
        if not closed:
            retire(
                lambda: RingForkedError(
                    "this process was forked while the ring was in use: the ring belongs to the "
                    "parent. Start a new loop in the child"
                )
            )

    def leave() -> None:
        nonlocal deliver
        if closed:
            return
        deliver = _discard
        timers.take_all()
        offloads.take_all()
        # The armed read of the wake pipe ends some time after the ring.
        keep_for_ever(wake_memory)
        leak(len(in_flight) + threads.desert(), dict(in_flight), buffers, threads)
        # The registered index belongs to the ring's thread, and goes with it.
        ring.registered_by = None
        retire(lambda: ClosedError("this driver is closed"))

    def close(deadline_ns: int | None) -> None:
        nonlocal closed, deliver
        if closed:
            return
        if get_ident() != owner_thread:
            raise wrong_thread()
        deadline = deadline_ns if deadline_ns is not None else clock() + 1_000_000_000
        deliver = _discard
        stranded_count = threads.drain(turn, deadline)  # while the wake pipe is still read
        closed = True
        for op in [*timers.take_all(), *starved, *in_flight.values(), *offloads.take_all()]:
            if op.state == SUBMITTED:
                op.state = CANCELLING
        starved.clear()
        events.clear()
        tries = 0
        while (in_flight or wake_armed) and clock() < deadline:
            if tries < _CANCEL_TRIES_MAX:  # see there
                tries += 1
                push(CANCEL_HEAD, -1, 0, 0, CANCEL_EVERYTHING, _USE_NOBODY)
            turn(deadline)
        leak(len(in_flight) + stranded_count, dict(in_flight), buffers, wake_memory, threads)
        flush()
        unregister_ring_fd(ring)
        retire(lambda: ClosedError("this driver is closed"))

    def hand_over(op: Op[object]) -> None:
        deliver(op)  # whatever it is by then: closing makes it `_discard`

    def register(fd: int) -> None:
        # With O_NONBLOCK set, io_uring would answer EAGAIN instead of waiting.
        system.set_blocking(fd, True)

    def unregister(_fd: int) -> None:
        """Io_uring keeps nothing per descriptor."""

    offloads = Offloads(system, hand_over, wake)
    threads = ThreadCalls(system, wake, ring)
    arm_wake()
    driver = UringDriver(
        system,
        "uring",
        submit=submit,
        turn=turn,
        cancel=cancel,
        fire=fire,
        flush=flush,
        wake=wake,
        wake_fd=wake_write_fd,
        register=register,
        unregister=unregister,
        statistics=statistics,
        poison=poison,
        leave=leave,
        close=close,
    )
    driver.ring = ring
    return driver
