"""
The driver that waits for readiness, over whichever `Poller` reports edges.

Flat like the uring driver: `submit` and `turn` write out RECV and SEND_ALL of `bytes`; everything
else goes through two tables, *operation -> how it begins* (`starts`) and *operation -> how it is
tried* (`uringio._driver.attempts`).  Queues and the rule that spares attempts are in `descriptors`.

Cancelling is immediate, since nothing of an op is in the kernel: it is taken out of its queue.
Operations on files are different: a thread may be at work on them (`file_calls`).

Signal handlers and finalizers run behind the calls that are made here, and may raise; not between
operators.  What is read for a RECV is stored by the operators that read it, and an op leaves its
table where it is delivered.  The result of another call that a handler raises right behind of is
lost: the count of a RECV_INTO, an accepted descriptor.

One batch of edges at a time, and each op is attempted once in it, so a busy descriptor keeps
neither timers nor other descriptors waiting.  A turn that has read much leaves the rest of the
batch to the next, which waits for nothing then.
"""

import _thread
import warnings
from collections import deque
from collections.abc import Callable, Iterator
from operator import length_hint
from threading import RLock
from typing import Final, cast

from uringio._sys.numbers import MSG_DONTWAIT
from uringio._sys.system import System
from uringio.errors import ClosedError, RingForkedError, WrongThreadError

from . import op as o
from .attempts import RECV_BYTES_MAX, SEND_BYTES_MAX, locate
from .bound import BoundDriver, discard
from .contract import Deliver, MakeCancelled, Statistics
from .descriptors import Descriptor, Descriptors, Poller
from .file_calls import FILE_OPERATIONS, FileCalls, open_inline, read_inline
from .many import read_many_inline
from .offloads import Offloads
from .op import (
    CANCELLING,
    DONE,
    OPENAT2,
    READ_CACHED,
    READ_MANY,
    RECV,
    SEND_ALL,
    SUBMITTED,
    Offload,
    Op,
)
from .outcome import (
    finish_cancelled,
    orphan_failure,
    settle_cancelled,
    settle_done_as_cancelled,
    settle_failed,
    settle_succeeded,
    take_later,
)
from .poll_bits import POLLERR, POLLHUP, POLLIN, POLLOUT, POLLPRI, POLLRDHUP
from .timers import Timers

__all__ = ["make_readiness_driver"]

# What pollers report.
_TROUBLE: Final = POLLRDHUP | POLLHUP | POLLERR | POLLPRI
_READABLE: Final = _TROUBLE | POLLIN
_WRITABLE: Final = POLLHUP | POLLERR | POLLOUT
_PLAIN: Final = POLLIN | POLLOUT  # what an edge-triggered poller says of arrived bytes

_BATCH_COUNT_MAX: Final = 512
# What a turn reads before it leaves the other edges of its batch to the next: long payloads are
# worked on while they, and what the kernel knows of their sockets, are in the processor's cache.
_ROOM_BYTES: Final = 131072
# epoll_wait(2) takes milliseconds in an int; a longer wait is made of several.
_WAIT_SECONDS_MAX: Final = 86400.0
# How often connecting is tried while a Unix listener's queue is full; nothing announces its room.
_CONGESTED_SECONDS: Final = 0.005
_CLOSE_NS: Final = 1_000_000_000

_leaked: list[object] = []  # the calls of drivers whose closing ran out of time


def _warn_leak(count: int) -> None:
    warnings.warn(
        f"{count} file operations were still with worker threads when the driver was closed; their "
        "memory is leaked on purpose",
        ResourceWarning,
        stacklevel=4,
    )


class _ReadinessDriver(BoundDriver):
    recv_bytes_max = RECV_BYTES_MAX


def make_readiness_driver(
    system: System, deliver: Deliver, make_cancelled: MakeCancelled, poller: Poller
) -> BoundDriver:
    """
    Build the driver of the calling thread over *poller*, which it owns from now on.

    Raises:
        OSError: No descriptor was left for the wake pipe.
    """
    try:
        wake_read_fd, wake_write_fd = system.pipe()
    except BaseException:
        poller.close()
        raise
    poller.watch_level(wake_read_fd)

    wait, wait_until = poller.wait, poller.wait_until
    clock = system.monotonic_ns
    get_ident = _thread.get_ident
    owner_thread = get_ident()

    descriptors = Descriptors(system, poller, deliver)
    poller.begin(descriptors.table)
    find: Callable[[int], Descriptor | None] = descriptors.table.get
    unfinished, congested = descriptors.unfinished, descriptors.congested
    departed = descriptors.departed
    serve_readers, serve_writers = descriptors.serve_readers, descriptors.serve_writers
    serve_pollers = descriptors.serve_pollers
    timers = Timers()
    live_timers = timers.live  # which it is no call to ask whether there are any
    events: dict[Op[object], None] = {}
    cancelling: dict[int, Op[object]] = {}
    nops: deque[Op[object]] = deque()
    starts: list[Callable[[Op[object]], object]] = []
    use = waits = turns = stray = 0
    arrivals: Iterator[tuple[int, int]] = iter(())
    unserved = False  # some of them are left
    suspect = False  # edges may have been lost to an exception
    woken = closed = False
    # Who wakes must not find the pipe's number given to something else.  Reentrant: for handlers.
    wake_lock = RLock()

    def submit(op: Op[object]) -> None:
        nonlocal use
        code = op.code
        if code == RECV:
            if op.later:
                use += 1
                op.use = use
                take_later(op)
                deliver(op)
                return
            op.value = None
            descriptor = find(op.fd)
            if descriptor is not None and descriptor.dry and not op.flags:
                use += 1
                op.use = use
                op.state = SUBMITTED
                if descriptor.reader is None and not descriptor.readers:
                    descriptor.reader = op
                else:
                    descriptor.line_up(op)
                return
        elif code == SEND_ALL:
            memory = op.memory
            descriptor = find(op.fd)
            if (
                descriptor is not None
                and type(memory) is bytes
                and len(memory) == op.len < SEND_BYTES_MAX
                and not descriptor.writers
            ):
                use += 1
                op.use = use
                op.state = SUBMITTED
                try:
                    if descriptor.send is not None:
                        res = descriptor.send(memory, op.flags)
                    else:
                        res = descriptors.send_early(descriptor, op, memory)
                except OSError as error:
                    if error.errno is None:
                        raise  # a signal handler's, such as a TimeoutError
                    res = -error.errno
                if res == op.len:
                    op.memory = None
                    op.state = DONE
                    deliver(op)
                else:
                    descriptors.go_on_sending(op, res)
                return
        start = starts[code]
        if code == READ_CACHED:
            if read_inline(op, system):
                use += 1
                op.use = use
                deliver(op)
                return
            start = start_file
        elif code == OPENAT2 and op.len and open_inline(op, system):
            descriptors.forget(cast("int", op.value))  # whatever had this number before
            use += 1
            op.use = use
            deliver(op)
            return
        elif code == READ_MANY and read_many_inline(op, system):
            use += 1
            op.use = use
            deliver(op)
            return
        locate(op)
        use += 1
        op.use = use
        op.state = SUBMITTED
        start(op)

    def turn(deadline_ns: int | None) -> None:
        nonlocal waits, turns, woken, suspect, stray, arrivals, unserved
        if get_ident() != owner_thread:
            raise wrong_thread()
        turns += 1
        seconds, until_ns = -1.0, 0
        if not unserved:
            waits += 1
            if departed:
                descriptors.unwatch_departed()
            if deadline_ns == 0 or woken or nops or unfinished or suspect or cancelling:
                seconds = 0.0
            else:
                if live_timers:
                    timer_ns = timers.next_deadline_ns()
                    if timer_ns is not None and (deadline_ns is None or timer_ns < deadline_ns):
                        deadline_ns = timer_ns
                if deadline_ns is not None:
                    # The poller rounds up to its milliseconds: never early, so never a busy wait.
                    seconds = min(max(0.0, (deadline_ns - clock()) / 1e9), _WAIT_SECONDS_MAX)
                    if wait_until is not None and 0 < seconds < _WAIT_SECONDS_MAX:
                        until_ns = deadline_ns
                if congested and not 0 <= seconds < _CONGESTED_SECONDS:
                    seconds, until_ns = _CONGESTED_SECONDS, 0
        try:
            if suspect:
                descriptors.serve_everybody()
                suspect = False
            if unserved:
                unserved = False
            elif until_ns and wait_until is not None:
                arrivals = iter(wait_until(until_ns, _BATCH_COUNT_MAX))
            else:
                arrivals = iter(wait(seconds, _BATCH_COUNT_MAX))
            room = _ROOM_BYTES
            for fd, bits in arrivals:
                descriptor = find(fd)
                if descriptor is None:
                    if fd == wake_read_fd:
                        woken = True
                    else:
                        stray += 1
                    continue
                if (bits != _PLAIN and bits != POLLIN) or descriptor.pollers or descriptor.writers:
                    serve_otherwise(descriptor, bits)
                    if not bits & _READABLE:
                        continue
                op = descriptor.reader
                if op is None:
                    descriptor.dry = False
                    if descriptor.readers:
                        serve_readers(descriptor)
                    continue
                if op.len != descriptor.asked:
                    descriptors.prepare_reads(descriptor, op.len)
                try:
                    # No call of ours, behind which a handler might raise, stands between reading
                    # and storing.
                    for op.value in descriptor.reads:
                        break
                except OSError as error:
                    descriptors.recv_failed(descriptor, op, error)
                    continue
                data = op.value  # a handler that cancels takes it away
                op.state = DONE
                descriptor.reader = None
                deliver(op)
                got = len(data)  # type: ignore[arg-type]
                if not 0 < got < descriptor.size or not descriptor.exact:
                    descriptors.doubt(descriptor, got)
                room -= got
                if room <= 0 and length_hint(arrivals):
                    unserved = True
                    return
            if woken:
                # In this order: who finds `woken` set and does not poke has left its work before
                # it is cleared, and that work is looked at after.
                system.drain(wake_read_fd)
                woken = False
            if unfinished or congested:
                descriptors.serve_postponed()
        except BaseException:
            # A signal handler's, say: the edge in hand is lost, and edges come only once.
            suspect = True
            raise
        if cancelling:
            go_on_with_cancelling()
        if nops:
            settle_nops()
        if live_timers:
            timers.expire(clock(), deliver)
        if offloads.finished:
            offloads.settle_finished(deliver)
        if files.finished:
            files.settle_finished(settle_file)
        if files.closes:
            settle_closes()

    def serve_otherwise(descriptor: Descriptor, bits: int) -> None:
        """Do what an edge asks for beside reading."""
        if descriptor.pollers:  # first: they ask for what the others will take away
            serve_pollers(descriptor, bits)
        if bits & _TROUBLE:
            descriptor.exact = False
        if descriptor.writers and bits & _WRITABLE:
            serve_writers(descriptor)

    # --- beginning -------------------------------------------------------------------------------

    def start_close(op: Op[object]) -> None:
        if not files.keep_back(op):
            finish_close(op)

    def start_file(op: Op[object]) -> None:
        descriptor = find(op.fd)
        if descriptor is not None and descriptor.stream and op.code == o.READ:
            descriptors.start_reader(op)
        elif descriptor is not None and descriptor.stream and op.code == o.WRITE:
            descriptors.start_writer(op)
        else:
            files.start(op)

    def start_copied_send(op: Op[object]) -> None:
        op.flags &= ~MSG_DONTWAIT  # of a SENDMSG_UNIX, which waits like any other here
        op.code = SEND_ALL if op.code == o.SEND_ZC else o.SENDMSG
        descriptors.start_writer(op)

    def start_offload(op: Op[object]) -> None:
        assert isinstance(op, Offload)
        offloads.start(op)

    def start_event(op: Op[object]) -> None:
        events[op] = None

    def start_ready(op: Op[object]) -> None:
        op.state = DONE
        deliver(op)

    def start_lease(op: Op[object]) -> None:
        op.value = None
        op.code = RECV  # the bytes are its value's own, so there is nothing to lease
        descriptors.start_reader(op)

    # --- ending ----------------------------------------------------------------------------------

    def settle(op: Op[object], res: int) -> None:
        """End an op that may have been cancelled while nobody could stop it."""
        if op.state == SUBMITTED and res >= 0:
            settle_succeeded(op, res)
        elif op.state == SUBMITTED:
            settle_failed(op, -res)
        elif op.state == CANCELLING:
            if res < 0:
                orphan_failure(op, -res)
            settle_cancelled(op, res, res >= 0, system, make_cancelled)
        else:  # but for the end of it: a signal handler raised meanwhile
            finish_cancelled(op, make_cancelled)

    def finish_close(op: Op[object]) -> None:
        descriptors.depart_closing(op.fd)
        res = 0  # what it is for good, should a signal handler raise: never closed twice
        try:
            res = descriptors.attempts[o.CLOSE](op)
        finally:
            settle(op, res)
            if op in files.closes:
                files.closes.remove(op)
            deliver(op)

    def settle_nops() -> None:
        while nops:
            op = nops[0]
            if op.state == SUBMITTED:
                descriptors.finish(op, 0)
            del nops[0]

    def settle_file(op: Op[object], res: int) -> None:
        if op.code in o.MAKES_DESCRIPTOR and res >= 0 and op.state == SUBMITTED:
            descriptors.forget(res)  # whatever had this number before
        settle(op, res)
        del files.running[op.use]
        deliver(op)

    def settle_closes() -> None:
        while (op := files.free_close()) is not None:
            finish_close(op)

    def fire(op: Op[object]) -> None:
        if op in events:
            op.state = DONE
            del events[op]
            deliver(op)

    # --- what is seldom --------------------------------------------------------------------------

    def register(fd: int) -> None:
        unregister(fd)
        system.set_blocking(fd, False)
        descriptors.adopt(fd, stream=True)

    def unregister(fd: int) -> None:
        if not closed:
            descriptors.depart(fd)

    def flush() -> None:
        if get_ident() != owner_thread:
            raise wrong_thread()

    def cancel(op: Op[object], reason: BaseException | None) -> bool:
        if get_ident() != owner_thread:
            raise wrong_thread()
        if op.state == SUBMITTED:
            cancelling[op.use] = op  # until it is through: a signal handler may raise in between
            op.state = CANCELLING
            op.error = reason
            go_on_cancelling(op, op.use)
            return True
        if op.state == CANCELLING:
            if reason is None:
                op.error = None
            return True
        if op.state == DONE:
            settle_done_as_cancelled(op, reason, system, make_cancelled)
            return True
        return False

    def go_on_with_cancelling() -> None:
        """End what a signal handler's exception has left in the middle of its cancelling."""
        for number, op in list(cancelling.items()):
            if op.use != number:  # it has ended, and is used anew
                del cancelling[number]
            elif number in cancelling:
                go_on_cancelling(op, number)

    def go_on_cancelling(op: Op[object], number: int) -> None:
        """End the use *number* of *op*, which is being cancelled; may be done again."""
        if op.code == o.TIMEOUT:
            if number in timers.live:
                del timers.live[number]
            timers.tidy()
        elif op.code == o.OFFLOAD:
            offloads.abandon(op)
        elif op.code == o.EVENT:
            events.pop(op, None)
        elif op.code == o.NOP:
            if op in nops:
                nops.remove(op)
        elif op.code == o.CLOSE and op not in files:
            # Its submission was broken off before it was carried out, which it must be.
            del cancelling[number]
            finish_close(op)
            return
        elif op not in files:
            descriptors.withdraw(op)
        elif not files.leave(op):
            del cancelling[number]
            return
        if op.state == CANCELLING:
            # A handler that raised behind a read has left there what was read.
            data = op.value if op.code == RECV else None
            settle_cancelled(op, data, data is not None, system, make_cancelled)
        else:  # but for the end of it
            finish_cancelled(op, make_cancelled)
        del cancelling[number]
        deliver(op)

    def wake() -> None:
        nonlocal woken
        if not woken and not closed:
            with wake_lock:
                if not closed:
                    woken = True
                    system.poke(wake_write_fd)

    def statistics() -> Statistics:
        count = len(descriptors) + len(timers) + len(events) + len(nops) + len(offloads)
        count += len(files)
        return Statistics(poller.name, use, use - count, count, turns, waits, stray, 0)

    def wrong_thread() -> Exception:
        return WrongThreadError(
            "this driver belongs to the thread that made it; from other threads only wake() and "
            "the loop's thread-safe calls may be used"
        )

    def retire(make_refusal: Callable[[], Exception]) -> None:
        """Let no closure reach the poller again, whoever still calls one; then close it."""
        nonlocal closed, find, starts, owner_thread, wrong_thread
        closed = True

        def refuse(*_arguments: object) -> Descriptor:
            raise make_refusal()

        find = refuse
        starts = [refuse] * len(starts)
        owner_thread = -1  # no thread has this number
        wrong_thread = make_refusal
        poller.close()
        system.close(wake_read_fd)
        system.close(wake_write_fd)

    def poison() -> None:
        # Closing a copy of the poller's descriptor changes nothing for the parent; a watch would.
        if not closed:
            retire(
                lambda: RingForkedError(
                    "this process was forked while the driver was in use: what it watches belongs "
                    "to the parent. Start a new loop in the child"
                )
            )

    def leave() -> None:
        nonlocal owner_thread
        # Nothing here is tied to the thread: it changes hands, and closes without waiting.
        if not closed:
            owner_thread = get_ident()
            close(0)

    def close(deadline_ns: int | None) -> None:
        nonlocal deliver, closed
        if closed:
            return
        if get_ident() != owner_thread:
            raise wrong_thread()
        deliver = descriptors.deliver = discard
        for op in [
            *timers.take_all(),
            *offloads.take_all(),
            *events,
            *nops,
            *descriptors.take_all(),
        ]:
            op.state = CANCELLING
            settle_cancelled(op, None, False, system, make_cancelled)
        events.clear()
        nops.clear()
        for op in files.ops():
            if op.state == SUBMITTED and op.code != o.CLOSE:
                op.state = CANCELLING
        deadline = deadline_ns if deadline_ns is not None else clock() + _CLOSE_NS
        while files and clock() < deadline:
            turn(deadline)
        stranded_count = files.desert()
        if stranded_count:
            _leaked.append(files)
            _warn_leak(stranded_count)
        with wake_lock:
            closed = True
        retire(lambda: ClosedError("this driver is closed"))

    starts += [descriptors.start_at_once] * len(o.OPERATION_NAMES)
    for code in (o.RECV, o.RECV_INTO, o.RECVMSG, o.ACCEPT):
        starts[code] = descriptors.start_reader
    for code in (o.SEND, o.SEND_ALL, o.SENDMSG):
        starts[code] = descriptors.start_writer
    starts[o.SEND_ZC] = starts[o.SENDMSG_ZC] = starts[o.SENDMSG_UNIX] = start_copied_send
    for code in FILE_OPERATIONS:
        starts[code] = start_file
    starts[o.RECV_LEASE] = start_lease
    starts[o.NOP] = nops.append
    starts[o.CONNECT] = descriptors.start_connect
    starts[o.CLOSE] = start_close
    starts[o.POLL] = starts[o.POLL_AGAIN] = descriptors.start_poll
    starts[o.TIMEOUT] = timers.add
    starts[o.OFFLOAD] = start_offload
    starts[o.READY] = start_ready
    starts[o.EVENT] = start_event
    offloads = Offloads(system, wake)
    files = FileCalls(system, wake)
    return _ReadinessDriver(
        system,
        poller.name,
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
