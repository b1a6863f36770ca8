"""The ring for people: batches, overflow, iteration, waiting, its end."""

import errno
import gc
import os
import signal
import socket
import weakref
from collections.abc import Callable

import pytest

from tests.fresh import FreshPython
from tests.lowlevel.rig import done, effect, result, until_end
from uringio.errors import ClosedError, QueueFullError, UnsupportedError, UsageError
from uringio.lowlevel import (
    Batch,
    EnterFlags,
    Features,
    Message,
    NopFlags,
    Ring,
    SetupFlags,
    SqeFlags,
    SqRingFlags,
    Vectors,
    allocate,
    prep_cancel64,
    prep_nop,
    prep_read,
    prep_readv,
    prep_recv,
    prep_recvmsg,
    prep_rw,
    prep_timeout,
    prep_write,
)

Pair = tuple[socket.socket, socket.socket]
MakeRing = Callable[..., Ring]
LONG_NS = 600_000_000_000


def test_batches_keep_their_order(ring: Ring) -> None:
    """Completions that come at once are handed out as they came, over many turns of the queues."""
    for base in range(0, 1000, 16):
        for number in range(base, base + 16):
            prep_nop(ring, user_data=number)
        assert ring.submit() == 16
        assert [one.user_data for one in done(ring, 16)] == list(range(base, base + 16))


@effect(Features.NODROP, SqRingFlags.CQ_OVERFLOW)
def test_nothing_is_lost_when_completions_overflow(make_ring: MakeRing) -> None:
    """Ten times as many as the queue holds all arrive, each once."""
    ring = make_ring(8, cq_entries=8)
    for base in range(0, 80, 8):
        for number in range(base, base + 8):
            prep_nop(ring, user_data=number)
        ring.submit()
    assert ring.in_flight == 80
    found: list[int] = []
    while len(found) < 80:
        found += [one.user_data for one in done(ring)]
    assert sorted(found) == list(range(80))
    assert ring.statistics()[:4] == (80, 80, 0, 0)


def test_more_than_twenty_deferred_completions_come_by_one_take(make_ring: MakeRing) -> None:
    """The kernel runs twenty pieces of deferred work in one call; `take` goes on until none."""
    ring = make_ring(64)
    for number in range(64):
        prep_nop(ring, NopFlags.TW, user_data=number)
    ring.submit()
    found = len(ring.take())
    assert found == 64


def test_iteration_ends_with_the_last_request(ring: Ring) -> None:
    """Requests that are filled within the loop belong to it."""
    prep_nop(ring, user_data=3)
    seen = []
    for one in ring:
        seen.append(one.user_data)
        if one.user_data:
            prep_nop(ring, user_data=one.user_data - 1)
    assert seen == [3, 2, 1, 0]
    assert list(ring) == []


@pytest.mark.parametrize("messages", [False, True])
def test_what_a_loop_did_not_see_is_not_lost(make_ring: MakeRing, messages: bool) -> None:
    """Left early, by break or by an exception, it leaves the rest of the batch for the next."""
    ring = make_ring(messages=messages)
    for number in range(4):
        prep_nop(ring, user_data=number)
    for one in ring:
        assert one.user_data == 0
        break
    assert ring.statistics().completed == 1
    with pytest.raises(KeyError):
        for one in ring:
            raise KeyError(one.user_data)
    assert ring.statistics().completed == 2
    prep_nop(ring, user_data=4)
    assert [one.user_data for one in ring] == [2, 3, 4]
    assert ring.statistics().completed == 5


@pytest.mark.parametrize("count", [0, 1])
def test_a_wait_that_need_not_wait_submits_all_the_same(ring: Ring, count: int) -> None:
    """What was filled is handed over also where enough had completed before."""
    prep_nop(ring, user_data=1)
    ring.submit()
    prep_nop(ring, user_data=2)
    taken = ring.wait(count)
    assert ring.queued == 0
    assert [*taken, *ring.take()] == [(1, 0, 0), (2, 0, 0)]


def test_a_closed_ring_has_no_completions_to_loop_over(ring: Ring) -> None:
    """It says that it is closed, as whatever else is done with it does."""
    ring.close()
    with pytest.raises(ClosedError, match="closed"):
        list(ring)


@effect(EnterFlags.EXT_ARG, Features.EXT_ARG)
def test_wait_gives_up_when_its_time_is_over(ring: Ring) -> None:
    """What has come by then is handed out; the rest stays in flight."""
    prep_timeout(ring, LONG_NS, user_data=1)
    prep_nop(ring, user_data=2)
    assert ring.wait(2, 1_000_000) == [(2, 0, 0)]
    assert ring.in_flight == 1
    assert ring.wait(1, 0) == []


def test_signals_run_their_handlers_while_a_wait_goes_on(ring: Ring) -> None:
    """A handler that returns does not end the wait; one that raises does, and loses nothing."""
    calls: list[int] = []

    def handle(number: int, _frame: object) -> None:
        calls.append(number)
        if len(calls) == 2:
            raise InterruptedError("by hand")

    before = signal.signal(signal.SIGALRM, handle)
    try:
        prep_timeout(ring, LONG_NS, user_data=1)
        ring.submit()
        signal.setitimer(signal.ITIMER_REAL, 0.005, 0.005)
        with pytest.raises(InterruptedError, match="by hand"):
            ring.wait(1)
        signal.setitimer(signal.ITIMER_REAL, 0)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert len(calls) >= 2  # a busy machine may be slow to stop the timer
    prep_cancel64(ring, 1, user_data=2)
    assert {one.user_data for one in done(ring, 2)} == {1, 2}


def test_a_refused_request_does_not_stop_the_batch(ring: Ring) -> None:
    """It gets its own completion, and those behind it run."""
    prep_nop(ring, user_data=1)
    prep_nop(ring, 1 << 30, user_data=2)
    prep_nop(ring, user_data=3)
    assert ring.submit() == 3
    assert sorted(one[:2] for one in done(ring, 3)) == [(1, 0), (2, -errno.EINVAL), (3, 0)]


def test_a_full_queue_says_so_and_takes_no_harm(make_ring: MakeRing) -> None:
    """The request that found no room is not there, memory and all; the others are."""
    ring = make_ring(2)
    prep_nop(ring, user_data=1)
    prep_nop(ring, user_data=2)
    assert ring.space == 0
    with pytest.raises(QueueFullError, match=r"all 2 slots .* submit\(\)"):
        prep_write(ring, 1, bytearray(5), user_data=3)
    assert (ring.queued, ring.in_flight) == (2, 2)
    assert [one.user_data for one in done(ring, 2)] == [1, 2]
    prep_nop(ring, user_data=3)
    assert result(ring) == 0


# --- memory --------------------------------------------------------------------------------------


class Tracked(bytearray):
    """A bytearray whose end can be watched."""


def test_memory_lives_as_long_as_its_request(ring: Ring, pair: Pair) -> None:
    """Forgotten by the program, it is kept until the last completion was handed out."""
    left, right = pair
    memory = Tracked(8)
    gone = weakref.ref(memory)
    prep_recv(ring, left.fileno(), memory)
    del memory
    ring.submit()
    gc.collect()
    assert gone() is not None
    right.send(b"x")
    assert result(ring) == 1
    gc.collect()
    assert gone() is None


def test_memory_in_flight_cannot_be_resized(ring: Ring, pair: Pair) -> None:
    """A bytearray that a request may write to refuses to move."""
    memory = bytearray(8)
    prep_recv(ring, pair[0].fileno(), memory)
    ring.submit()
    with pytest.raises(BufferError):
        memory.extend(bytes(10_000))
    pair[1].send(b"x")
    result(ring)
    memory.extend(bytes(10_000))


def test_requests_that_share_a_user_data_keep_memory_until_all_have_ended(
    ring: Ring, pair: Pair
) -> None:
    """Whose completion came cannot be told apart, so none is let go of early."""
    for side in pair:
        prep_recv(ring, side.fileno(), bytearray(4), user_data=5)
    ring.submit()
    assert (ring.in_flight, ring.statistics().held) == (2, 2)
    pair[0].send(b"x")
    done(ring)
    assert (ring.in_flight, ring.statistics().held) == (1, 2)
    pair[1].send(b"x")
    done(ring)
    assert (ring.in_flight, ring.statistics().held) == (0, 0)


@effect(Features.SUBMIT_STABLE)
def test_arguments_survive_a_storm_of_garbage(ring: Ring, pair: Pair) -> None:
    """Whatever is allocated between filling and submitting does not overwrite what was passed."""
    first, second = bytearray(2), bytearray(6)
    prep_recvmsg(ring, pair[0].fileno(), Message(Vectors([first, second], writable=True)))
    gc.collect()
    _storm = [bytearray(b"\xff" * size) for size in range(1, 600)]
    pair[1].send(b"message!")
    assert result(ring) == 8
    assert first + second == b"message!"


def test_a_timeout_needs_nothing_of_the_caller(ring: Ring) -> None:
    """Its time lives until it was submitted."""
    for _ in range(10):
        prep_timeout(ring, 1, user_data=1)
        _storm = [bytes(16) for _ in range(100)]
        assert result(ring) == -errno.ETIME


def test_skipped_completions_may_have_arguments_that_end_with_submission(ring: Ring) -> None:
    """A link timeout or a path is let go of when the kernel has taken it."""
    prep_timeout(ring, 1, user_data=1, flags=SqeFlags.CQE_SKIP_SUCCESS)
    assert ring.in_flight == 0
    assert [one[:2] for one in done(ring)] == [(1, -errno.ETIME)]


# --- its end -------------------------------------------------------------------------------------


def test_closing_cancels_and_waits(make_ring: MakeRing, pair: Pair) -> None:
    """Requests in flight and those never submitted have ended; their memory is free."""
    ring = make_ring()
    memory, other = Tracked(8), Tracked(8)
    gone = [weakref.ref(memory), weakref.ref(other)]
    prep_recv(ring, pair[0].fileno(), memory)
    ring.submit()
    prep_recv(ring, pair[0].fileno(), other, user_data=1)
    del memory, other
    ring.close()
    ring.close()
    gc.collect()
    assert [one() for one in gone] == [None, None]
    pair[1].send(b"still here")
    assert pair[0].recv(20) == b"still here"


def test_what_does_not_end_is_kept_for_ever(make_ring: MakeRing) -> None:
    """A request that cannot be cancelled in time keeps its memory beyond the ring, and says so."""
    ring = make_ring()
    reading, writing = os.pipe()
    memory = Tracked(1 << 16)
    gone = weakref.ref(memory)
    prep_read(ring, reading, memory)
    del memory
    ring.submit()
    with pytest.warns(ResourceWarning, match="kept for ever"):
        ring.close(timeout_ns=0)
    gc.collect()
    assert gone() is not None
    os.close(reading)
    os.close(writing)


def test_a_forgotten_ring_closes_itself_and_complains(make_ring: MakeRing) -> None:
    """The descriptor is closed when nobody knows the ring any more."""
    ring = Ring(4)
    fd = ring.fd
    with pytest.warns(ResourceWarning, match="never closed"):
        del ring
        gc.collect()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)


def test_a_forked_child_cannot_touch_it(fresh_python: FreshPython) -> None:
    """Every use in the child is refused, and the parent's queue does not move."""
    fresh_python(
        """
        import os
        from uringio.errors import RingForkedError
        from uringio.lowlevel import Ring, prep_nop
        ring = Ring(4)
        buffers = ring.setup_buf_ring(0, 4, 8)
        prep_nop(ring, user_data=1)
        child = os.fork()
        if not child:
            refused = 0
            for use in (lambda: prep_nop(ring), ring.submit, ring.wait, ring.take,
                        lambda: ring.register_files([0]), ring.statistics, buffers.free):
                try:
                    use()
                except RingForkedError:
                    refused += 1
            with Ring(4) as own:
                prep_nop(own, user_data=9)
                assert own.wait() == [(9, 0, 0)]
            os._exit(refused)
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == 7, status
        assert ring.wait() == [(1, 0, 0)]
        ring.close()
        """
    ).check()


# --- what it tells -------------------------------------------------------------------------------


def test_it_tells_its_state(ring: Ring, pair: Pair) -> None:
    """The representation and the figures say what is filled, in flight and done."""
    prep_recv(ring, pair[0].fileno(), bytearray(1))
    ring.submit()
    prep_nop(ring, user_data=1)
    text = repr(ring)
    for part in (f"fd {ring.fd}", "16 + 64 slots", "1 queued", "2 in flight", "DEFER_TASKRUN"):
        assert part in text
    figures = ring.statistics()
    assert (figures.submitted, figures.queued, figures.in_flight, figures.held) == (1, 1, 2, 1)
    ring.close()
    assert repr(ring) == "<uringio.lowlevel.Ring, closed>"
    assert ring.fd == -1


def test_features_and_flags_have_names(ring: Ring) -> None:
    """What the kernel said comes back as the enumerations."""
    assert SetupFlags.DEFER_TASKRUN in ring.setup_flags
    assert Features.NODROP in ring.features


def test_rings_share_workers(make_ring: MakeRing) -> None:
    """A bound that is set through one holds for the other."""
    first = make_ring()
    second = make_ring(workers_of=first)
    assert second.setup_flags & SetupFlags.ATTACH_WQ
    first.register_iowq_max_workers(5, 6)
    assert second.register_iowq_max_workers() == (5, 6)


def test_the_ring_can_be_polled(ring: Ring) -> None:
    """Its descriptor is readable when a completion waits."""
    import select

    poller = select.poll()
    poller.register(ring.fd, select.POLLIN)
    assert poller.poll(0) == []
    prep_timeout(ring, 1)
    ring.submit()
    assert poller.poll(20_000)
    assert until_end(ring)[-1].res == -errno.ETIME


def test_other_rings_take_completions_from_anywhere(make_ring: MakeRing) -> None:
    """A ring without deferred work works the same from its one thread."""
    ring = make_ring(flags=SetupFlags.COOP_TASKRUN | SetupFlags.TASKRUN_FLAG)
    for number in range(50):
        prep_nop(ring, user_data=number, flags=SqeFlags.ASYNC if number % 2 else 0)
        assert [one.user_data for one in done(ring)] == [number]


def test_one_address_is_as_good_as_another(ring: Ring) -> None:
    """Memory given by its address is the caller's, and nothing of it is kept."""
    memory = allocate(8)
    reading, writing = os.pipe()
    os.write(writing, b"12345678")
    prep_read(ring, reading, memory.addr, len_bytes=4)
    assert ring.statistics().held == 0
    assert result(ring) == 4
    room = memory.part(4, 4)
    prep_readv(ring, reading, Vectors([room], writable=True))
    assert result(ring) == 4
    assert memory.view == b"12345678"
    os.close(reading)
    os.close(writing)


# --- batches -------------------------------------------------------------------------------------


def test_a_batch_is_put_as_often_as_wanted(make_ring: MakeRing) -> None:
    """Requests recorded once run each time, across the queue's end, with their memory held."""
    ring = make_ring(8)
    reading, writing = os.pipe()
    memory = Tracked(5)
    gone = weakref.ref(memory)
    batch = Batch()
    prep_write(batch, writing, b"again", user_data=1, flags=SqeFlags.IO_LINK)
    prep_read(batch, reading, memory, user_data=2, flags=SqeFlags.IO_LINK)
    prep_nop(batch, user_data=3)
    for _ in range(10):
        ring.put(batch)
        assert (ring.queued, ring.statistics().held) == (3, 2)
        memory[:] = b"-----"
        assert [one[:2] for one in done(ring, 3)] == [(1, 5), (2, 5), (3, 0)]
        assert memory == b"again"
        assert ring.in_flight == 0
    ring.put(batch)
    del memory, batch
    gc.collect()
    assert gone() is not None
    done(ring, 3)
    assert gone() is None
    os.close(reading)
    os.close(writing)


def test_batches_that_share_a_user_data_are_counted(make_ring: MakeRing) -> None:
    """A batch in flight twice, and equal numbers within one, keep their memory to the end."""
    ring = make_ring(8)
    batch = Batch()
    prep_timeout(batch, LONG_NS, user_data=1)
    prep_timeout(batch, LONG_NS, user_data=1)
    ring.put(batch)
    ring.put(batch)
    ring.submit()
    assert (ring.in_flight, ring.statistics().held) == (4, 4)
    prep_cancel64(ring, 1, user_data=2)
    done(ring, 2)
    assert ring.in_flight == 3


def test_a_batch_that_does_not_fit_leaves_the_ring_as_it_was(make_ring: MakeRing) -> None:
    """Neither slots nor memory are taken; after a submit there is room."""
    ring = make_ring(4)
    batch = Batch()
    for number in range(3):
        prep_nop(batch, user_data=number)
    ring.put(batch)
    with pytest.raises(QueueFullError, match="3 requests do not fit 1 slots"):
        ring.put(batch)
    assert (ring.queued, ring.in_flight) == (3, 3)
    prep_nop(ring, user_data=9)
    with pytest.raises(QueueFullError):
        prep_nop(ring)
    done(ring, 4)
    ring.put(batch)
    assert [one.user_data for one in done(ring, 3)] == [0, 1, 2]
    assert len(batch) == 3


def test_a_batch_is_checked_as_a_ring_would(make_ring: MakeRing) -> None:
    """What the kernel lacks, memory without a completion, and slots of another size are refused."""
    ring = make_ring(4)
    batch = Batch()
    with pytest.raises(UsageError, match="leave CQE_SKIP_SUCCESS out"):
        prep_read(batch, 0, bytearray(1), flags=SqeFlags.CQE_SKIP_SUCCESS)
    assert len(batch) == 0
    prep_rw(batch, 250, 0, 0, 0, 0)
    with pytest.raises(UnsupportedError, match="operation 250"):
        ring.put(batch)
    with pytest.raises(UsageError, match="64 bytes"):
        make_ring(4, flags=SetupFlags.SQE128).put(Batch())
    assert ring.queued == 0
