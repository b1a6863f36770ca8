"""Whole batches: put, waited for and answered in one go, or one by one where they must be."""

import gc
import os
import signal
import socket
import weakref
from collections.abc import Callable
from types import FrameType

import pytest

from tests.lowlevel.rig import done
from uringio.errors import UsageError
from uringio.lowlevel import (
    Batch,
    NopFlags,
    Request,
    Ring,
    SetupFlags,
    SqeFlags,
    prep_msg_ring,
    prep_nop,
    prep_poll_add,
    prep_read,
    prep_recv,
    prep_send_zc,
    prep_timeout,
    prep_write,
    register_sync_msg,
)

Pair = tuple[socket.socket, socket.socket]
MakeRing = Callable[..., Ring]
LONG_NS = 600_000_000_000
TICKS_S = (0.005, 0.005)  # a timer that strikes again: one that comes just before a wait ends none


class Tracked(bytearray):
    """Memory whose end can be seen."""


def numbers(*results: int) -> Batch:
    """Requests with these results."""
    batch = Batch()
    for name, one in enumerate(results):
        prep_nop(batch, NopFlags.INJECT_RESULT, result=one, user_data=name)
    return batch


def test_results_stand_in_the_order_of_the_batch(make_ring: MakeRing) -> None:
    """As often as it is run, across the ends of both queues, failures included."""
    ring = make_ring(4, cq_entries=8)
    batch = numbers(7, -5, 9)
    for _ in range(10):
        assert ring.run(batch) == [7, -5, 9]
        assert (ring.in_flight, ring.queued, ring.take()) == (0, 0, [])
    assert ring.statistics().completed == 30
    ring.put(batch)
    assert ring.wait(3) == [(0, 7, 0), (1, -5, 0), (2, 9, 0)]


def test_completions_in_another_order_are_put_into_the_batchs(ring: Ring) -> None:
    """A request that waits for a later one of the same batch stands where it was put."""
    reading, writing = os.pipe()
    memory = Tracked(5)
    gone = weakref.ref(memory)
    batch = Batch()
    prep_read(batch, reading, memory, user_data=1)
    prep_write(batch, writing, b"later", user_data=2)
    prep_nop(batch, NopFlags.INJECT_RESULT, result=3, user_data=3)
    assert ring.run(batch) == [5, 5, 3]
    assert memory == b"later"
    assert ring.in_flight == ring.statistics().held == 0
    del batch, memory
    gc.collect()
    assert gone() is None
    os.close(reading)
    os.close(writing)


def test_a_send_without_a_copy_has_its_first_result(ring: Ring, pair: Pair) -> None:
    """The one that counts bytes; the run ends with the second, when the memory is free."""
    server = socket.create_server(("127.0.0.1", 0))
    with server, socket.create_connection(server.getsockname()) as client:
        batch = Batch()
        prep_send_zc(batch, client.fileno(), bytearray(b"zero"), user_data=1)
        assert ring.run(batch) == [4]
        assert ring.statistics().held == 0
        server.accept()[0].close()


def test_completions_of_others_are_left_for_later(ring: Ring, pair: Pair) -> None:
    """Requests that were in flight before, and messages, are handed out by the next call."""
    prep_nop(ring, NopFlags.INJECT_RESULT, result=4, user_data=50)
    prep_recv(ring, pair[0].fileno(), bytearray(4), user_data=51)
    request = Request()
    prep_msg_ring(request, ring.fd, 6, 52)
    register_sync_msg(request)
    assert ring.run(numbers(1, 2)) == [1, 2]
    assert sorted(ring.take()) == [(50, 4, 0), (52, 6, 0)]
    assert ring.in_flight == 1
    assert ring.run(numbers(3)) == [3]
    pair[1].send(b"end")
    assert done(ring) == [(51, 3, 0)]
    assert ring.statistics().completed == 6


def test_iteration_yields_what_was_left_for_later(ring: Ring) -> None:
    """Though nothing is in flight any more."""
    prep_nop(ring, user_data=50)
    assert ring.run(numbers(1)) == [1]
    assert ring.in_flight == 0
    assert [one.user_data for one in ring] == [50]


def test_nothing_is_lost_to_a_signal_handler_that_raises(ring: Ring, pair: Pair) -> None:
    """What had completed by then is handed out later, and the rest goes on."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        if ring.in_flight and not struck:  # else it comes too early, and strikes again
            struck.append(True)
            raise KeyboardInterrupt

    struck: list[bool] = []
    batch = Batch()
    prep_nop(batch, NopFlags.INJECT_RESULT, result=1, user_data=1)
    prep_recv(batch, pair[0].fileno(), bytearray(4), user_data=2)
    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, *TICKS_S)
        with pytest.raises(KeyboardInterrupt):
            ring.run(batch)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    pair[1].send(b"abc")
    found = ring.wait(2) if ring.in_flight else ring.take()
    while len(found) < 2:
        found += ring.wait()
    assert found == [(1, 1, 0), (2, 3, 0)]


def test_a_handler_that_uses_the_ring_takes_nothing_from_a_batch(ring: Ring, pair: Pair) -> None:
    """It fills and submits a request of its own, whose completion comes with the others."""

    def use(_number: int, _frame: FrameType | None) -> None:
        if not ring.in_flight or used:
            return
        used.append(True)
        prep_nop(ring, NopFlags.INJECT_RESULT, result=9, user_data=99)
        ring.submit()
        pair[1].send(b"abc")

    used: list[bool] = []
    batch = Batch()
    prep_recv(batch, pair[0].fileno(), bytearray(4), user_data=2)
    before = signal.signal(signal.SIGALRM, use)
    try:
        signal.setitimer(signal.ITIMER_REAL, *TICKS_S)
        assert ring.run(batch) == [3]
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert ring.wait(1) == [(99, 9, 0)]


@pytest.mark.parametrize("fresh", [False, True])
def test_requests_beside_a_batch_keep_their_memory(ring: Ring, pair: Pair, fresh: bool) -> None:
    """A receive under a user_data of the batch's is not taken for ended with it."""
    memory = Tracked(4)
    gone = weakref.ref(memory)
    batch = numbers(1, 2)
    if fresh:
        ring.put(batch)
    prep_recv(ring, pair[0].fileno(), memory, user_data=1)
    if not fresh:
        ring.put(batch)
    del memory
    assert sorted(ring.wait(2)) == [(0, 1, 0), (1, 2, 0)]
    gc.collect()
    assert gone() is not None
    assert ring.in_flight == 1
    pair[1].send(b"abc")
    assert done(ring) == [(1, 3, 0)]
    gc.collect()
    assert gone() is None


def test_a_wait_for_a_part_of_a_batch_takes_what_is_there(ring: Ring, pair: Pair) -> None:
    """Neither more is waited for than asked, nor is the rest forgotten."""
    batch = Batch()
    prep_nop(batch, user_data=1)
    prep_poll_add(batch, pair[0].fileno(), 1, user_data=2)
    prep_timeout(batch, LONG_NS, user_data=3)
    ring.put(batch)
    assert ring.wait(1) == [(1, 0, 0)]
    assert ring.in_flight == 2
    pair[1].send(b"x")
    assert done(ring) == [(2, 1, 0)]


def test_what_cannot_be_run_is_refused_before_it_is_put(make_ring: MakeRing, pair: Pair) -> None:
    """Batches whose results could not be told apart, and completions of another size."""
    ring = make_ring()
    twice = numbers(1)
    prep_nop(twice, user_data=0)
    with pytest.raises(UsageError, match=r"share a user_data: use put\(\) and wait\(\)"):
        ring.run(twice)
    silent = numbers(1)
    prep_nop(silent, flags=SqeFlags.CQE_SKIP_SUCCESS)
    with pytest.raises(UsageError, match="posts no completion"):
        ring.run(silent)
    prep_poll_add(ring, pair[0].fileno(), 1, user_data=0)
    with pytest.raises(UsageError, match="a request in flight has a user_data"):
        ring.run(numbers(1))
    assert (ring.queued, ring.in_flight) == (1, 1)
    assert ring.run(Batch()) == []
    with pytest.raises(UsageError, match=r"32 bytes: use put\(\) and wait_big\(\)"):
        make_ring(flags=SetupFlags.CQE32).run(numbers(1))


def test_deferred_work_of_a_batch_is_waited_for(make_ring: MakeRing) -> None:
    """More requests than the kernel completes in one go."""
    ring = make_ring(64)
    batch = Batch()
    for name in range(50):
        prep_nop(batch, NopFlags.INJECT_RESULT | NopFlags.TW, result=name, user_data=name)
    assert ring.run(batch) == list(range(50))
