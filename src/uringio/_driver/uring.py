"""
The io_uring driver.

Flat by construction: `make_uring_driver` builds two hot closures over the ring's memory, `submit`
and `turn`, in which one op costs one ``pack_into``, two dictionary steps and no call.  One
``io_uring_enter`` per turn both submits and waits.

The tables.  *Operation -> pack* is `HEADS`: every operation fits one SQE shape, so its row is the
SQE's first word; a negative row names an operation that needs no SQE.  *Operation -> settle* is the
list `SETTLES`: None means that the value is ``res``.  The two rows that carry a server, RECV and
SEND_ALL, are written out in `turn`.

``user_data`` is the op's `use`, a number never given twice, looked up in `in_flight`; whatever is
not found there is counted and dropped.  0 is for completions that nobody awaits, 1 the wake pipe.

Receiving.  RECV lets the kernel pick one of a small ring of provided buffers when data is there.
The bytes are copied out and the buffer goes back within the turn.  `uring_standing` has those that
stay armed.  ENOBUFS queues the op until all buffers are back.

Signal handlers and finalizers are Python code that runs, may call `submit` and `cancel`, and may
raise, behind any call that is made here; not between operators.  So what belongs together is
changed by operators alone: a slot is taken, and its op put into `in_flight`, behind the `pack`, if
nobody has taken that slot meanwhile; an op leaves `in_flight` when it is settled, not before.
"""

import _thread
import errno
from collections.abc import Callable, Iterator
from itertools import chain
from typing import Final, cast

from uringio._ring.buffers import BufferRing
from uringio._ring.queue import Completion, make_reap, make_submit_and_wait
from uringio._ring.register import register_ring_fd, unregister_ring_fd
from uringio._ring.setup import FLAG_LADDER, Ring, queue_init
from uringio._sys import constants as k
from uringio._sys.errnos import Fate
from uringio._sys.layouts import SQE_SHORT, PackInto
from uringio._sys.memory import BYTES_DATA_OFFSET, NoClass
from uringio._sys.system import System
from uringio.errors import ClosedError, OpError

from . import op as o
from .bound import BoundDriver, discard, ring_of_another_thread, ring_of_the_parent
from .contract import Deliver, MakeCancelled, Statistics
from .file_calls import read_inline
from .leaks import keep_for_ever, leak
from .offloads import Offloads
from .op import CANCELLING, DONE, RECV, RECV_LEASE, SEND_ALL, SUBMITTED, Op
from .outcome import (
    finish_cancelled,
    orphan_failure,
    settle_cancelled,
    settle_done_as_cancelled,
    settle_failed,
)
from .timers import Timers
from .uring_files import SHAPED, ThreadCalls, shape
from .uring_leases import Leases, grown
from .uring_many import MANY_BIT, ManyReads, ReadMany
from .uring_polls import SeldomOps
from .uring_rows import CANCEL_EVERYTHING, CANCEL_HEAD, HEADS, SLOW_HEADS, WRITING_HEADS
from .uring_settles import SETTLES
from .uring_slots import locate, make_withdraw
from .uring_standing import LATER_PIECES, STANDING_BYTES, Received, Standing, is_idle
from .uring_tables import TAG_BIT, UringTables
from .uring_wake import WakePipe
from .zero_copy import APART, ZERO_COPY_BIT, number_of

__all__ = ["UringDriver", "make_uring_driver"]

_U32_MASK: Final = 0xFFFFFFFF
_USE_NOBODY: Final = 0
_USE_WAKE: Final = 1
_USE_FIRST: Final = 16
_CANCEL_BIT: Final = 1 << 62  # of the user_data of a cancel request; the rest is the op's use
# A cancel request does not find what is just being tried again, which happens up to 128 times.
_CANCEL_TRIES_MAX: Final = 256
_SETTLED: Final[Op[object]] = Op(o.READY)


class UringDriver(BoundDriver):
    """The driver over one io_uring, which is its `ring`."""

    polls_cheaply = True
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
    spare_count: int = 64,
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
        spare_count: Buffers beyond those, which take the places of leased ones. [count]
        ladder: Set-up flags to try.

    Raises:
        RingError: io_uring is blocked, missing, or out of memory or descriptors.
    """
    if system.buggify("small queues"):
        entries, buffer_count = 8, 4
    ring = queue_init(system, entries, ladder=ladder)
    try:
        try:
            register_ring_fd(ring)
        except OpError:
            pass  # an optimisation only
        buffers = BufferRing(ring, 0, buffer_count, buffer_bytes, spare_count)
        pipe = WakePipe(system)
    except BaseException:
        unregister_ring_fd(ring)
        ring.close()
        raise

    # --- the ring, as locals of the closures -----------------------------------------------------
    submit_and_wait = make_submit_and_wait(ring)
    storage: list[Completion] = []
    reap = make_reap(ring, storage)
    completions: Iterator[Completion] = iter(storage)
    drained = True
    kept_data: Received = None  # of a receive whose settling goes the slow way
    sqes, sq_head, sq_flags = ring.sqes, ring.sq_head, ring.sq_flags
    sqe_words = sqes.cast("Q")
    entries = ring.sq_entries
    sq_mask = entries - 1
    pack: PackInto = SQE_SHORT.pack_into
    tail = ring.sq_tail[0]  # slots filled; never wraps
    limit = tail + entries  # the tail at which the queue is full

    # --- provided buffers ------------------------------------------------------------------------
    pool = buffers.memory.slices
    held_at, put_buffer, buffer_tail_word = buffers.held_at, buffers.put, buffers.tail_word
    leases: Leases
    buffer_tail = buffer_count
    buffer_mask = buffer_count - 1

    # --- ops -------------------------------------------------------------------------------------
    in_flight: dict[int, Op[object]] = {}
    use = _USE_FIRST
    # Taken out of `in_flight` to be asked for anew: cut short, interrupted, or without a buffer.
    again: dict[int, Op[object]] = {}
    ending: dict[int, Op[object]] = {}  # being cancelled: a signal handler may break it off
    asking = False
    events: dict[Op[object], None] = {}
    cancel_tries: dict[int, int] = {}
    timers = Timers()
    live_timers = timers.live  # which it is no call to ask whether there are any
    clock = system.monotonic_ns
    get_ident = _thread.get_ident
    owner_thread = get_ident()
    wrong_thread: Callable[[], Exception] = ring_of_another_thread
    heads, settles = HEADS.copy(), SETTLES
    # Where a bytes object's storage is an addition away, it needs no call; elsewhere no class
    # matches and every memory goes through `locate`.
    inline_class: type = bytes if BYTES_DATA_OFFSET is not None else NoClass
    inline_offset = BYTES_DATA_OFFSET or 0

    waits = turns = stray = hungry_count = starved_count = resubmitted_count = stood_count = 0
    wake = pipe.wake

    def submit(op: Op[object]) -> None:
        nonlocal tail, use, resubmitted_count, stood_count
        head = heads[op.code]
        if head < 0:
            submit_by_driver(op)
            return
        memory = op.memory
        if type(memory) is inline_class:
            addr = id(memory) + inline_offset
        elif memory is None:
            addr = op.addr
            if (later := op.later) is not None:  # a stream's receive, which may stand
                if op.standing and not later:
                    op.state = SUBMITTED
                    stood_count += 1
                    return
                if later or (op.use and op.len == STANDING_BYTES and not addr):
                    stood_count += standing.receive(op, head)
                    return
        else:
            addr = locate(op)
        if tail == limit:
            enqueue(op, head, op.fd, op.off, addr, op.len, op.flags)
            return
        slot = tail
        use = number = use + 1
        pack(sqes, (slot & sq_mask) << 6, head, op.fd, op.off, addr, op.len, op.flags, number)
        if tail != slot:  # a signal handler has taken it
            resubmitted_count += 1
            enqueue(op, head, op.fd, op.off, addr, op.len, op.flags)
            return
        tail = slot + 1
        op.use = number
        op.state = SUBMITTED
        in_flight[number] = op

    def turn(deadline_ns: int | None) -> None:
        nonlocal limit, buffer_tail, waits, turns, completions, drained, kept_data
        if get_ident() != owner_thread:
            raise wrong_thread()
        turns += 1
        wait_count, timeout_ns = 1, None
        if deadline_ns == 0 or storage or ending or asking or offloads.finished:
            wait_count = 0
        else:
            timer_ns = timers.next_deadline_ns() if live_timers else None
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
                submit_and_wait(sq_head[0], 1, 1_000_000)  # it has no memory for requests
                reap()
        else:
            reap()  # what no enter of ours has brought, or a signal handler kept us from taking

        if reading and drained:
            many.sift(storage, deliver)
        # The iterator outlives the turn: should an exception (a signal handler's, say) end the loop
        # half way, the next turn goes on with the completion at which it struck.
        if drained:
            completions = iter(storage)
        drained = False
        op: Op[object] | None = _SETTLED
        user_data = res = flags = 0
        data: bytes | memoryview
        try:
            for user_data, res, flags in completions:
                try:
                    op = in_flight[user_data]
                except KeyError:
                    op = None
                    unawaited(user_data, res, flags)
                    op = _SETTLED
                    continue
                if flags and flags & 1:  # IORING_CQE_F_BUFFER: a receive has filled buffer `bid`
                    bid = flags >> 16
                    start = bid * buffer_bytes
                    if op.hold is None or res <= 0 or op.state != SUBMITTED:
                        data = pool[start : start + res] if res > 0 else b""
                    else:
                        bid, data = leases.take(op, bid, res)
                    slot = buffer_tail & buffer_mask
                    if held_at[slot] != bid:
                        put_buffer(slot, bid)
                    buffer_tail += 1
                    if flags & 2:  # IORING_CQE_F_MORE: a receive that stands, and goes on
                        user_data = _USE_NOBODY  # noqa: PLW2901 - settled, but in flight still
                        if op.state == SUBMITTED:
                            op.value = data
                            op.state = DONE
                            deliver(op)
                        else:
                            (later := op.later).append(data)  # type: ignore[union-attr, arg-type]
                            if len(later) == LATER_PIECES:  # type: ignore[arg-type]
                                standing.crowded(op)
                    elif op.state == SUBMITTED and res >= 0:
                        op.value = data
                        op.state = DONE
                        op.standing = False
                        del in_flight[user_data]
                        deliver(op)
                    else:
                        kept_data = data
                        settle_slowly(op, res, kept_data, user_data)
                        kept_data = None
                elif res < 0 or op.state != SUBMITTED:
                    settle_slowly(op, res, kept_data, user_data)
                    kept_data = None
                else:
                    code = op.code
                    if code == SEND_ALL and res == op.len and op.hold is None:
                        op.memory = None
                    else:
                        settle = settles[code]
                        if settle is None:
                            op.value = res
                        elif not settle(op, res):
                            again[user_data] = op
                            del in_flight[user_data]
                            continue
                    op.state = DONE
                    del in_flight[user_data]
                    deliver(op)
        except BaseException:
            if op is None or user_data in in_flight:
                # It has not been settled.  A buffer that was put back is not put back again.
                flags = flags if kept_data is None else 0
                completions = chain([(user_data, res, flags)], completions)
            else:
                kept_data = None
            raise
        drained = True
        storage.clear()

        buffer_tail_word[0] = buffer_tail & 0xFFFF
        if again or ending or asking:
            ask_again()
        if live_timers:
            timers.expire(clock(), deliver)
        if offloads.finished:
            offloads.settle_finished(deliver)

    # --- what is seldom --------------------------------------------------------------------------

    def submit_by_driver(op: Op[object]) -> None:
        nonlocal use, asking
        if op.code == o.READ_CACHED and read_inline(op, system):
            use += 1
            op.use = use
            deliver(op)
            return
        code = op.code
        if code == o.READ_MANY and many.locate(op):
            use += 1
            was, asking = asking, True  # the next turn goes on where a signal handler breaks it off
            many.begin(op, use, deliver)
            asking = was
            return
        head = SLOW_HEADS.get(code, heads[code])
        if head >= 0 and (code != RECV_LEASE or not leases.must_wait(op)):
            addr = op.addr if op.memory is None else locate(op)
            head, w5 = tables.fix(head, addr, op.len) if tables.spans else (head, 0)
            enqueue(op, head, op.fd, op.off, addr, op.len, op.flags, w5)
            return
        if code in SHAPED and not threads.must_take(op):
            enqueue(op, *shape(op))
            return
        if op.use in again:
            del again[op.use]
        use += 1
        op.use = use
        op.state = SUBMITTED
        if op.code == o.TIMEOUT:
            timers.add(op)
        elif op.code == o.OFFLOAD:
            assert isinstance(op, o.Offload)
            offloads.start(op)
        elif op.code == o.EVENT:
            events[op] = None
        elif code == RECV_LEASE:
            again[use] = op
        elif code not in SHAPED:
            op.state = DONE
            deliver(op)
        elif number := threads.begin(op):
            settle_failed(op, number)
            deliver(op)

    def enqueue(
        op: Op[object], head: int, fd: int, off: int, addr: int, len_: int, flags: int, w5: int = 0
    ) -> None:
        """Submit *op*, packed as the arguments say; for the second time, if it is in `again`."""
        nonlocal tail, use, resubmitted_count
        while True:
            # A condition, not a question: behind the call of `make_room` others may fill the room.
            while tail == limit:
                if not make_room():
                    settle_failed(op, errno.EAGAIN)
                    again.pop(op.use, None)
                    deliver(op)
                    return
            slot = tail
            use = number = use + 1
            data = number | ZERO_COPY_BIT if op.code in APART else number
            pack(sqes, (slot & sq_mask) << 6, head, fd, off, addr, len_, flags, data)
            if w5:
                sqe_words[(slot & sq_mask) << 3 | 5] = w5
            if op.state > SUBMITTED:
                return  # it was to be asked for again, and was cancelled meanwhile
            if tail == slot:
                break
            resubmitted_count += 1
        tail = slot + 1
        if op.use in again:
            del again[op.use]
        op.use = number
        op.state = SUBMITTED
        in_flight[number] = op

    def fire(op: Op[object]) -> None:
        if op in events:
            op.state = DONE
            del events[op]
            deliver(op)

    def settle_slowly(op: Op[object], res: int, data: Received, number: int = 0) -> None:
        """End an op that failed or was cancelled, or give it another try."""
        nonlocal hungry_count, starved_count
        if op.standing:
            standing.ended(op, number, res, data)
            return
        code = op.code
        if op.state == DONE:  # but for the end of it: a signal handler raised meanwhile
            finish_cancelled(op, make_cancelled)
        elif op.state == CANCELLING:
            if res > 0 and code in (SEND_ALL, o.SENDMSG) and not (op.memory is op.hold is None):
                op.done_bytes += res
                op.memory = op.hold = None  # and so it is counted once
            value: object = res
            if code in (RECV, RECV_LEASE):
                value = data
            if res < 0:
                orphan_failure(op, -res)
            settle_cancelled(op, value, res >= 0 and value is not None, system, make_cancelled)
        elif res == -errno.EINTR and code == o.CLOSE:
            op.state = DONE  # close(2): the descriptor is gone all the same
        elif res == -errno.EINTR or (res == -errno.ENOBUFS and code in (RECV, RECV_LEASE)):
            if res == -errno.ENOBUFS:
                starved_count += 1
                hungry_count += 1
            again[op.use] = op
        else:
            settle_failed(op, -res)
        held = in_flight if op.use in in_flight else threads.running
        if op.use in held:
            del held[op.use]
        if op.state == DONE:
            deliver(op)

    def ask_again() -> None:
        nonlocal hungry_count, resubmitted_count, asking
        asking = True  # until it is through: see `ending`
        for number, op in list(ending.items()):
            if op.use != number:  # the use was over, and this is another
                del ending[number]
            elif number in ending:
                request_cancel(op, number)
        if hungry_count and buffer_count < buffer_count_max:
            grow_buffers()
        hungry_count = 0
        for number, op in list(again.items()):
            if op.state == CANCELLING:  # since a completion that says to ask again
                ending[number] = op
                request_cancel(op, number)
            elif number in again:
                resubmitted_count += 1
                submit_by_driver(op)  # though it may have a short way: that is for new ones
        asking = False

    def grow_buffers() -> None:
        nonlocal buffers, buffer_count, buffer_tail, buffer_mask, leases, hungry_count
        nonlocal pool, held_at, put_buffer, buffer_tail_word
        fresh, struck = grown(ring, buffers, buffer_count + hungry_count, buffer_count_max, wake)
        if fresh is not None:
            buffers, leases = fresh.buffers, fresh  # views of the old ones keep their memory
            buffer_count = buffer_tail = buffers.count
            buffer_mask, pool = buffer_count - 1, buffers.memory.slices
            held_at, put_buffer, buffer_tail_word = buffers.held_at, buffers.put, buffers.tail_word
        hungry_count = 0
        if struck is not None:
            raise struck

    def unawaited(user_data: int, res: int, flags: int) -> None:
        nonlocal stray, buffer_tail
        if flags & k.IORING_CQE_F_BUFFER:
            bid = flags >> k.IORING_CQE_BUFFER_SHIFT
            put_buffer(buffer_tail & buffer_mask, bid)
            buffer_tail += 1
        if user_data == _USE_WAKE:
            pipe.heard()
            standing.stand_dropped_down()
            if threads.finished:
                threads.settle_all(deliver, settle_slowly)
            if not pipe.closed:
                arm_wake()
        elif user_data & _CANCEL_BIT:
            cancel_answered(user_data, res)
        elif user_data & ZERO_COPY_BIT:
            stray += not sends.take_in(user_data, res, flags, deliver)
        elif user_data & MANY_BIT:
            many.take_in((user_data, res, flags), deliver)
        elif user_data & TAG_BIT:
            stray += not tables.released(user_data)
        elif user_data != _USE_NOBODY:
            stray += 1

    def cancel_answered(user_data: int, res: int) -> None:
        """Ask again for a request that the kernel did not find although it is in flight."""
        tries = cancel_tries.pop(user_data, 0) + 1
        target = user_data & ~_CANCEL_BIT
        if res == -errno.ENOENT and sends.is_sought(target) and tries < _CANCEL_TRIES_MAX:
            cancel_tries[user_data] = tries
            push(CANCEL_HEAD, -1, target, 0, 0, user_data)

    def push(head: int, fd: int, addr: int, len_: int, flags: int, user_data: int) -> bool:
        """Queue an SQE that is no op's; False when the queue stays full."""
        nonlocal tail
        while True:
            while tail == limit:
                if not make_room():
                    return False
            slot = tail
            pack(sqes, (slot & sq_mask) << 6, head, fd, 0, addr, len_, flags, user_data)
            if tail == slot:
                tail = slot + 1
                return True

    def arm_wake() -> None:
        head, memory = WRITING_HEADS[o.READ], pipe.memory
        pipe.armed = push(head, pipe.read_fd, memory.addr, memory.len_bytes, 0, _USE_WAKE)

    def lay(op: ReadMany[object], block: memoryview) -> None:
        nonlocal tail
        slot, at = tail, tail & sq_mask
        count = min(len(op.todo), limit - slot, entries - at)
        if tail == slot:  # else a signal handler has been here
            sqes[at << 6 : at + count << 6] = block[: count << 6]
            tail += count
            op.todo = op.todo[count:]

    def hand_over() -> int:
        nonlocal limit, waits
        waits += 1
        submit_and_wait(tail, 0, None)
        pending = (tail - sq_head[0]) & _U32_MASK
        limit = tail + entries - pending
        return pending

    def make_room() -> bool:
        """Hand the full queue over; False when the kernel takes nothing."""
        for _ in range(16):
            pending = hand_over()
            reap()  # here, since the next turn may find nothing to enter for
            if pending < entries:
                return True
        return False

    def flush() -> None:
        if get_ident() != owner_thread:
            raise wrong_thread()
        if tail & _U32_MASK != sq_head[0]:
            make_room()

    def cancel(op: Op[object], reason: BaseException | None) -> bool:
        if get_ident() != owner_thread:
            raise wrong_thread()
        if op.state == SUBMITTED:
            ending[op.use] = op
            op.state = CANCELLING
            op.error = reason
            request_cancel(op, op.use)
            return True
        if op.state == CANCELLING:
            if reason is None:
                op.error = None
            return True
        if op.state == DONE:
            settle_done_as_cancelled(op, reason, system, make_cancelled)
            return True
        return False

    def request_cancel(op: Op[object], number: int) -> None:
        """Have the use *number* of *op* end, wherever it is; may be done again."""
        code = op.code
        if code == o.TIMEOUT:
            if number in timers.live:
                del timers.live[number]
            timers.tidy()
        elif code == o.OFFLOAD:
            offloads.abandon(op)
        elif code == o.EVENT:
            events.pop(op, None)
        elif number in again:
            del again[number]
        elif code == o.CLOSE or op in threads or (number in in_flight and not withdraw(op, number)):
            # A close withdrawn would leak the descriptor; a thread at work on an op will end it.
            if number in in_flight and code != o.CLOSE:
                data = number_of(op)
                push(CANCEL_HEAD, -1, data, 0, 0, data | _CANCEL_BIT)
                if data != number:
                    (many.cancel if code == o.READ_MANY else sends.abort)(op)
            ending.pop(number, None)  # unless a handler has been here meanwhile
            return
        if op.state == CANCELLING:
            settle_cancelled(op, None, False, system, make_cancelled)
            del ending[number]
            deliver(op)
        elif number in ending:  # a completion ended it meanwhile
            del ending[number]

    def statistics() -> Statistics:
        count = len(in_flight) + len(timers) + len(again) + len(offloads)
        count += len(events) + len(threads) - sum(map(is_idle, in_flight.values()))
        taken = use - _USE_FIRST - resubmitted_count + stood_count
        return Statistics(
            "uring", taken, taken - count, count, turns, waits, stray + many.stray, starved_count,
            *leases.counts(),
        )  # fmt: skip

    def retire(make_refusal: Callable[[], Exception]) -> None:
        """Let no closure reach the ring's memory again, whoever still calls one; then free it."""
        nonlocal submit_and_wait, pack, owner_thread, wrong_thread
        pipe.closed = True

        def refuse(*_arguments: object) -> Fate:
            raise make_refusal()

        submit_and_wait = refuse
        pack = cast("PackInto", refuse)
        owner_thread = -1  # no thread has this number
        wrong_thread = make_refusal
        tables.retire()
        many.begin = refuse
        standing.retire()
        ring.close()
        pipe.close()

    def poison() -> None:
        if not pipe.closed:
            retire(ring_of_the_parent)

    def leave() -> None:
        nonlocal deliver
        if pipe.closed:
            return
        pipe.silence()
        deliver = discard
        timers.take_all()
        offloads.take_all()
        # The armed read of the wake pipe ends some time after the ring.
        keep_for_ever(pipe.memory)
        leak(len(in_flight) + threads.desert(), dict(in_flight), buffers, threads)
        # The registered index belongs to the ring's thread, and goes with it.
        ring.registered_by = None
        retire(lambda: ClosedError("this driver is closed"))

    def close(deadline_ns: int | None) -> None:
        nonlocal deliver
        if pipe.closed:
            return
        if get_ident() != owner_thread:
            raise wrong_thread()
        deadline = deadline_ns if deadline_ns is not None else clock() + 1_000_000_000
        deliver = discard
        stranded_count = threads.drain(turn, deadline)  # while the wake pipe is still read
        pipe.silence()
        for op in [*timers.take_all(), *again.values(), *in_flight.values(), *offloads.take_all()]:
            if op.state == SUBMITTED:
                op.state = CANCELLING
        again.clear()
        events.clear()
        tries = 0
        while (in_flight or pipe.armed) and clock() < deadline:
            if tries < _CANCEL_TRIES_MAX:  # see there
                tries += 1
                push(CANCEL_HEAD, -1, 0, 0, CANCEL_EVERYTHING, _USE_NOBODY)
            turn(deadline)
        leak(len(in_flight) + stranded_count, dict(in_flight), buffers, pipe.memory, threads)
        flush()
        unregister_ring_fd(ring)
        retire(lambda: ClosedError("this driver is closed"))

    def register(fd: int) -> None:
        # With O_NONBLOCK set, io_uring would answer EAGAIN instead of waiting.
        system.set_blocking(fd, True)

    leases = Leases(buffers, wake)
    offloads = Offloads(system, wake)
    threads = ThreadCalls(system, wake, ring)
    sends = SeldomOps(system, (in_flight, again, ending), settle_slowly, push)
    withdraw = make_withdraw(ring, in_flight, lambda: tail)
    tables = UringTables(ring, heads, (in_flight, again), flush, cancel)
    many = ManyReads(ring, in_flight, lay, hand_over, make_room, push, tables, settle_slowly)
    reading = many.active
    standing = Standing(
        in_flight, again, pipe, enqueue, settle_slowly, withdraw, turn,
        lambda number: push(CANCEL_HEAD, -1, number, 0, 0, number | _CANCEL_BIT), deliver,
    )  # fmt: skip
    arm_wake()
    driver = UringDriver(
        system, "uring", submit=submit, turn=turn, cancel=cancel, fire=fire, flush=flush, wake=wake,
        wake_fd=pipe.write_fd, register=register, unregister=lambda _: None, statistics=statistics,
        poison=poison, leave=leave, close=close,
    )  # fmt: skip
    driver.ring, driver.tables, driver.stand_down = ring, tables, standing.stand_down
    return driver
