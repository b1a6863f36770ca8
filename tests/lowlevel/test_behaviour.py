"""
How requests behave together, and at the edges: what liburing's own tests hold the kernel to.

docs/reference/liburing_areas.md says which of them is held to what here.
"""

import errno
import os
import select
import socket
import struct
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.lowlevel.rig import PATIENCE_NS, done, result, results
from tests.lowlevel.test_lacking import running
from uringio._ring.queue import make_reap, make_submit_and_wait
from uringio._ring.setup import queue_init
from uringio._sys.layouts import SQE_FULL
from uringio._sys.system import System
from uringio.errors import OpError
from uringio.lowlevel import (
    CqeFlags,
    NopFlags,
    Opcode,
    PollFlags,
    ProvidedBuffers,
    RecvSendFlags,
    Ring,
    SetupFlags,
    SqeFlags,
    Vectors,
    allocate,
    prep_accept,
    prep_cancel64,
    prep_msg_ring,
    prep_nop,
    prep_poll_multishot,
    prep_poll_update,
    prep_provide_buffers,
    prep_read,
    prep_recv,
    prep_recv_multishot,
    prep_rw,
    prep_timeout,
)

MakeRing = Callable[..., Ring]
Pair = tuple[socket.socket, socket.socket]
DEFERRED = SetupFlags.SINGLE_ISSUER | SetupFlags.DEFER_TASKRUN


# --- queues --------------------------------------------------------------------------------------


def test_completions_of_both_sizes_are_taken_in_one_batch(make_ring: MakeRing) -> None:
    """Five of each batch, two of them large, across the queue's end with its fillers."""
    ring = make_ring(8, cq_entries=8, flags=DEFERRED | SetupFlags.CQE_MIXED)
    for number in range(20):
        for name in range(5):
            prep_nop(ring, NopFlags.CQE32 if name in {1, 3} else 0, user_data=10 * number + name)
        found = ring.wait_big(5)
        assert [one.user_data for one in found] == [10 * number + name for name in range(5)]
        large = [bool(one.flags & CqeFlags.F_32) for one in found]
        assert large == [False, True, False, True, False]


def test_arguments_may_go_once_they_were_submitted(ring: Ring, file: Path) -> None:
    """An array of pieces that is wiped behind the submission was read by then."""
    room = allocate(4)
    vectors = Vectors([room], writable=True)
    array = bytearray(16)
    struct.pack_into("QQ", array, 0, room.addr, 4)
    fd = os.open(file, os.O_RDONLY)
    memory = allocate(16)
    memory.view[:] = array
    prep_rw(ring, Opcode.READV, fd, memory.addr, vectors.count, 0, flags=SqeFlags.ASYNC)
    ring.submit()
    memory.view[:] = bytes(16)
    assert (result(ring), bytes(room.view)) == (4, b"0123")
    os.close(fd)


def test_messages_to_a_full_queue_are_kept(ring: Ring, make_ring: MakeRing) -> None:
    """All arrive, in their order, though the other ring has room for two."""
    other = make_ring(2, cq_entries=2)
    for number in range(10):
        prep_msg_ring(ring, other.fd, number, 100 + number)
    done(ring, 10)
    found = other.take()
    while len(found) < 10:
        found += other.wait()
    assert found == [(100 + number, number, 0) for number in range(10)]


# --- chains --------------------------------------------------------------------------------------


def test_a_chain_with_a_bad_request_is_cancelled_as_a_whole(ring: Ring) -> None:
    """What stands before the bad one as well: it is looked at before anything starts."""
    prep_nop(ring, user_data=1, flags=SqeFlags.IO_LINK)
    prep_nop(ring, 1 << 30, user_data=2, flags=SqeFlags.IO_LINK)
    prep_nop(ring, user_data=3)
    prep_nop(ring, user_data=4)
    cancelled = -errno.ECANCELED
    assert results(ring, 4) == {1: cancelled, 2: -errno.EINVAL, 3: cancelled, 4: 0}


def test_a_drained_chain_waits_for_those_before(ring: Ring) -> None:
    """Its first request holds up the whole of it, and what comes behind."""
    prep_timeout(ring, 1_000_000, user_data=1)
    prep_nop(ring, user_data=2, flags=SqeFlags.IO_DRAIN | SqeFlags.IO_LINK)
    prep_nop(ring, user_data=3)
    prep_nop(ring, user_data=4)
    assert [one.user_data for one in done(ring, 4)] == [1, 2, 3, 4]


# --- cancellation and polls ----------------------------------------------------------------------


def test_a_cancellation_that_races_loses_nothing(ring: Ring, pair: Pair) -> None:
    """Each receive has its byte or is cancelled, and every byte is received or still there."""
    rounds = 200
    taken = 0
    start = threading.Semaphore(0)

    def send() -> None:
        for _ in range(rounds):
            start.acquire()
            pair[1].send(b"x")

    thread = threading.Thread(target=send)
    thread.start()
    for _ in range(rounds):
        prep_recv(ring, pair[0].fileno(), bytearray(1), user_data=1)
        ring.submit()
        start.release()
        prep_cancel64(ring, 1, user_data=2)
        found = results(ring, 2)
        assert found[1] in {1, -errno.ECANCELED}
        assert found[2] in {0, -errno.ENOENT, -errno.EALREADY}
        taken += found[1] == 1
    thread.join()
    pair[0].setblocking(False)
    try:
        left = len(pair[0].recv(1000))
    except BlockingIOError:
        left = 0
    assert taken + left == rounds
    assert ring.in_flight == 0


def test_polls_that_overflow_the_queue_tell_all_they_saw(make_ring: MakeRing) -> None:
    """Of many that become ready at once each is told; those that end say so."""
    ring = make_ring(8, cq_entries=8)
    pipes = [os.pipe() for _ in range(24)]
    for name, (reading, _) in enumerate(pipes):
        if ring.space == 0:
            ring.submit()
        prep_poll_multishot(ring, reading, select.POLLIN, user_data=name)
    ring.submit()
    for _, writing in pipes:
        os.write(writing, b"x")
    ended, told = set(), set()
    while len(told) < len(pipes):
        for name, res, flags in ring.wait():
            assert res & select.POLLIN
            told.add(name)
            if not flags & CqeFlags.MORE:
                ended.add(name)
    assert told == set(range(len(pipes)))
    assert ring.in_flight == len(pipes) - len(ended)
    for ends in pipes:
        for one in ends:
            os.close(one)


def test_a_multishot_poll_goes_on_when_it_is_changed(ring: Ring, pair: Pair) -> None:
    """It then waits for the new events, as often as they come."""
    left, right = pair
    prep_poll_multishot(ring, left.fileno(), select.POLLPRI, user_data=1)
    flags = PollFlags.UPDATE_EVENTS | PollFlags.ADD_MULTI
    prep_poll_update(ring, 1, 0, select.POLLIN, flags, user_data=2)
    assert results(ring, 1) == {2: 0}
    for _ in range(3):
        right.send(b"x")
        [one] = done(ring)
        assert (one.user_data, one.res, one.more) == (1, select.POLLIN, True)
        left.recv(1)


# --- several completions, provided buffers -------------------------------------------------------


def test_the_end_of_a_stream_ends_a_multishot_receive(ring: Ring, pair: Pair) -> None:
    """With 0, behind all that was sent before."""
    ring.setup_buf_ring(1, 4, 16)
    prep_recv_multishot(ring, pair[0].fileno(), 1)
    ring.submit()
    pair[1].send(b"last")
    pair[1].shutdown(socket.SHUT_WR)
    found = done(ring)
    while found[-1].more:
        found += done(ring)
    assert [(one.res, one.more) for one in found] == [(4, True), (0, False)]


def test_an_accept_tells_whether_more_connections_wait(ring: Ring) -> None:
    """As a receive does of bytes."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        clients = [socket.create_connection(server.getsockname()) for _ in range(2)]
        found = []
        for client in clients:
            prep_accept(ring, server.fileno())
            [one] = done(ring)
            os.close(one.res)
            client.close()
            found.append(bool(one.flags & CqeFlags.SOCK_NONEMPTY))
    if found == [False, False]:
        pytest.skip("accepts tell of others from Linux 6.10 on")
    assert found == [True, False]


def test_a_group_becomes_a_ring_when_its_buffers_are_used_up(ring: Ring, pair: Pair) -> None:
    """Not before; and what the older way provided has nothing to do with it any more."""
    memory = allocate(16)
    prep_provide_buffers(ring, memory, 16, 1, 4, 9)
    assert result(ring) >= 0
    with pytest.raises(OpError, match="PBUF_RING") as caught:
        ring.setup_buf_ring(4, 2, 16)
    assert caught.value.errno == errno.EEXIST
    pair[1].send(b"old")
    prep_recv(ring, pair[0].fileno(), 0, buf_group=4, len_bytes=16)
    assert done(ring)[0].buffer_id == 9
    ring.setup_buf_ring(4, 2, 16)
    prep_provide_buffers(ring, memory, 16, 1, 4, 9)
    assert result(ring) == -errno.EINVAL
    pair[1].send(b"new")
    prep_recv(ring, pair[0].fileno(), 0, buf_group=4, len_bytes=16)
    assert done(ring)[0].buffer_id == 0


def collected(
    buffers: ProvidedBuffers, places: list[int], found: list[tuple[int, int, int]]
) -> bytes:
    """Put together what completions say is in buffers that are used bit by bit, in ring order."""
    text = b""
    for _, res, flags in found:
        bid, left = flags >> 16, res
        while left > 0:
            size = min(left, buffers.buffer_bytes - places[bid])
            text += bytes(buffers.view(bid, size, places[bid]))
            places[bid] += size
            left -= size
            if left:
                bid = (bid + 1) % buffers.count
    return text


def test_bundles_of_incremental_buffers_keep_their_order(ring: Ring, pair: Pair) -> None:
    """Of chunks of odd sizes each byte stands where the completions say, none twice."""
    buffers = ring.setup_buf_ring(7, 8, 64, incremental=True)
    prep_recv_multishot(ring, pair[0].fileno(), 7, ioprio=RecvSendFlags.BUNDLE)
    ring.submit()
    sent = b""
    found: list[tuple[int, int, int]] = []
    places = [0] * 8
    text = b""
    for number in range(12):
        chunk = bytes(range(number * 20, number * 20 + 7 + 5 * (number % 5)))
        sent += chunk
        pair[1].send(chunk)
        found = ring.wait()
        assert all(res > 0 for _, res, _ in found)
        text += collected(buffers, places, found)
    while len(text) < len(sent):
        text += collected(buffers, places, ring.wait())
    assert text == sent
    assert len(sent) > 2 * buffers.buffer_bytes


# --- the life of rings ---------------------------------------------------------------------------


def test_requests_of_a_thread_that_ends_are_cancelled() -> None:
    """
    When what they wait for comes: they end with ECANCELED, and the bytes are there for others.

    What was written is written.
    """
    left, right = socket.socketpair()
    ring = queue_init(System(), 4, ladder=(SetupFlags.CQSIZE,))
    room = allocate(4)

    def use() -> None:
        for name, fd in ((1, left.fileno()), (2, left.fileno())):
            head = Opcode.SEND if name == 1 else Opcode.RECV
            arguments = (head, fd, 0, room.addr, 4, 0, name, 0, 0, 0, 0, 0)
            SQE_FULL.pack_into(ring.sqes, 64 * (name - 1), *arguments)
        make_submit_and_wait(ring)(2, 0, None)

    thread = threading.Thread(target=use)
    thread.start()
    thread.join()
    deadline_ns = time.monotonic_ns() + PATIENCE_NS
    while Path(f"/proc/self/task/{thread.native_id}").exists():  # it takes its time to go
        assert time.monotonic_ns() < deadline_ns
        os.sched_yield()
    found: list[tuple[int, int, int]] = []
    reap = make_reap(ring, found)
    reap()
    assert found == [(1, 4, 0)]
    assert right.recv(10) == bytes(4)
    right.send(b"late")
    poll = select.poll()
    poll.register(ring.fd, select.POLLIN)
    while len(found) < 2:
        assert poll.poll(PATIENCE_NS // 1_000_000)
        reap()
    assert found[1] == (2, -errno.ECANCELED, 0)
    assert left.recv(10) == b"late"
    ring.close()
    left.close()
    right.close()


@pytest.mark.skipif(running() < (6, 8), reason="rings can be sent before Linux 6.8")
def test_a_ring_cannot_travel(ring: Ring, pair: Pair) -> None:
    """Its descriptor is refused as an ancillary item, so that no cycle can keep it alive."""
    with pytest.raises(OSError, match="Invalid argument"):
        socket.send_fds(pair[0], [b"x"], [ring.fd])


def test_special_files_are_read(ring: Ring) -> None:
    """What the kernel makes up as it is read, with and without an offset."""
    fd = os.open("/proc/self/comm", os.O_RDONLY)
    expected = os.pread(fd, 100, 0)
    for offset in (0, -1):
        room = bytearray(100)
        prep_read(ring, fd, room, offset)
        assert room[: result(ring)] == expected
    os.close(fd)
