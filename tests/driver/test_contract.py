"""What each operation on sockets answers, on every driver alike: values, errnos, order."""

import errno
import fcntl
import os
import socket
import struct
import time
from pathlib import Path

import pytest

from tests.driver.rig import (
    MSG_NOSIGNAL,
    SEND_ALL_FLAGS,
    Rig,
    connected,
    empty,
    fill,
    in_thread,
    is_open,
    pair,
    pipe,
)
from tests.marks import needs_pending_errors
from uringio._driver import op as o
from uringio._driver.op import DONE, SUBMITTED, Op
from uringio.errors import OpError

BIG = bytes(range(251)) * 20_000  # 5 MB, and no two pages alike
SMALL_SNDBUF = 150_000  # far below it; with less, TCP waits for delayed acknowledgements

STREAMS = pytest.mark.parametrize("kind", ["tcp", "unix"])


# --- the driver's own operations -----------------------------------------------------------------


def test_nop_completes_in_the_next_turn(rig: Rig) -> None:
    """A NOP is in flight until a turn, and its value is 0."""
    op = rig.submit(Op(o.NOP))
    assert op.state == SUBMITTED
    assert rig.finish(op) == 0


def test_nops_are_delivered_in_order(rig: Rig) -> None:
    """Ops that complete alike come back in the order in which they were submitted."""
    ops = [rig.submit(Op(o.NOP)) for _ in range(100)]
    rig.until(lambda: len(rig.delivered) == 100)
    assert rig.delivered == ops
    rig.wait(*ops)


def test_ready_is_delivered_at_once(rig: Rig) -> None:
    """A READY op needs no turn, and keeps the value that its maker put in."""
    op: Op[object] = Op(o.READY)
    op.value = "kept"
    rig.submit(op)
    assert op.state == DONE
    assert rig.finish(op) == "kept"


def test_event_ends_when_fired(rig: Rig) -> None:
    """An EVENT waits for `fire`, and a second `fire` does nothing."""
    op = rig.submit(Op(o.EVENT))
    rig.turn()
    assert op.state == SUBMITTED
    rig.driver.fire(op)
    rig.driver.fire(op)
    assert rig.finish(op) is None
    rig.driver.fire(op)
    assert rig.delivered == []


def test_timeouts_come_in_the_order_of_their_deadlines(rig: Rig) -> None:
    """Later, earlier and past deadlines are sorted, none comes early, equal ones keep order."""
    now = time.monotonic_ns()
    late, soon, past, twin_a, twin_b = (
        rig.submit(Op(o.TIMEOUT, off=now + offset))
        for offset in (30_000_000, 10_000_000, -5, 20_000_000, 20_000_000)
    )
    rig.until(lambda: len(rig.delivered) == 5)
    assert time.monotonic_ns() >= late.off
    assert rig.delivered == [past, soon, twin_a, twin_b, late]
    assert rig.finish(late) is None
    rig.wait(past, soon, twin_a, twin_b)


def test_many_timeouts_end_once_each(rig: Rig) -> None:
    """Cancelling most of many timers (which thins the heap out) loses and doubles none."""
    now = time.monotonic_ns()
    ops = [rig.submit(Op(o.TIMEOUT, off=now + 1_000_000 + n % 7)) for n in range(500)]
    for op in ops[::3] + ops[1::3]:
        assert rig.driver.cancel(op)
    rig.wait(*ops)
    assert sum(op.error is None for op in ops) == len(ops[2::3])


# --- receiving -----------------------------------------------------------------------------------


@STREAMS
def test_recv_returns_what_is_there(rig: Rig, kind: str) -> None:
    """RECV gives bytes as they arrived, whether they came before the op or after."""
    with connected(rig, kind) as (ours, theirs):
        theirs.sendall(b"before")
        assert rig.do(Op(o.RECV, ours.fileno(), len_=100)) == b"before"
        op = rig.recv(ours.fileno())
        rig.settle_down()
        assert op.state == SUBMITTED
        theirs.sendall(b"after")
        assert rig.finish(op) == b"after"


@STREAMS
def test_recv_returns_at_most_its_length_and_the_rest_later(rig: Rig, kind: str) -> None:
    """Bytes over the length stay in the socket for the next RECV, in order."""
    with connected(rig, kind) as (ours, theirs):
        op = rig.recv(ours.fileno(), 4)
        rig.settle_down()
        theirs.sendall(b"0123456789")
        assert rig.finish(op) == b"0123"
        assert rig.do(Op(o.RECV, ours.fileno(), len_=1)) == b"4"
        assert rig.do(Op(o.RECV, ours.fileno(), len_=100)) == b"56789"


@STREAMS
def test_recv_returns_nothing_at_the_end_of_the_stream(rig: Rig, kind: str) -> None:
    """After the peer's end RECV is b"", at once and as often as it is asked; data comes first."""
    with connected(rig, kind) as (ours, theirs):
        op = rig.recv(ours.fileno())
        rig.settle_down()
        theirs.sendall(b"last")
        theirs.shutdown(socket.SHUT_WR)
        assert rig.finish(op) == b"last"
        assert rig.do(Op(o.RECV, ours.fileno(), len_=100)) == b""
        assert rig.do(Op(o.RECV, ours.fileno(), len_=100)) == b""


def test_recv_waits_for_the_end_of_the_stream(rig: Rig) -> None:
    """An end that comes while RECV waits, with nothing before it, ends it."""
    with connected(rig) as (ours, theirs):
        theirs.sendall(b"x")
        assert rig.do(Op(o.RECV, ours.fileno(), len_=100)) == b"x"
        op = rig.recv(ours.fileno())
        rig.settle_down()
        theirs.close()
        assert rig.finish(op) == b""


def test_recv_is_bounded(rig: Rig) -> None:
    """A long RECV of a full socket gives what the driver says or less; all arrives in the end."""
    with connected(rig) as (ours, theirs):
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        sender = in_thread(lambda: theirs.sendall(BIG))
        received = bytearray()
        while len(received) < len(BIG):
            data = rig.do(Op(o.RECV, ours.fileno(), len_=1 << 20))
            assert 0 < len(data) <= rig.driver.recv_bytes_max < 1 << 17
            received += data
        sender.join()
        assert received == BIG


@STREAMS
def test_many_small_messages_arrive_complete(rig: Rig, kind: str) -> None:
    """Ping-pong with reads of every relation to the message size loses and doubles nothing."""
    with connected(rig, kind) as (ours, theirs):
        for n in range(300):
            message = bytes([n % 256]) * (n % 50 + 1)
            theirs.sendall(message)
            received = b""
            while len(received) < len(message):
                received += rig.do(Op(o.RECV, ours.fileno(), len_=n % 13 + 1))
            assert received == message


@needs_pending_errors
def test_recv_fails_when_the_peer_resets(rig: Rig) -> None:
    """A reset while RECV waits is ECONNRESET, with operation and descriptor on the error."""
    with connected(rig) as (ours, theirs):
        op = rig.recv(ours.fileno())
        rig.settle_down()
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        theirs.close()
        with pytest.raises(ConnectionResetError) as caught:
            rig.finish(op)
        assert isinstance(caught.value, OpError)
        assert (caught.value.op, caught.value.fd) == ("recv", ours.fileno())


def test_recv_peek_leaves_the_bytes(rig: Rig) -> None:
    """With MSG_PEEK the next RECV gets the same bytes, also where the peek had to wait."""
    with connected(rig) as (ours, theirs):
        op = rig.recv(ours.fileno(), 3, socket.MSG_PEEK)
        rig.settle_down()
        theirs.sendall(b"abcdef")
        assert rig.finish(op) == b"abc"
        assert rig.do(Op(o.RECV, ours.fileno(), len_=100, flags=socket.MSG_PEEK)) == b"abcdef"
        assert rig.do(Op(o.RECV, ours.fileno(), len_=100)) == b"abcdef"


def test_recv_dontwait_does_not_wait(rig: Rig) -> None:
    """With MSG_DONTWAIT an empty socket is EAGAIN."""
    with connected(rig) as (ours, theirs):
        with pytest.raises(BlockingIOError):
            rig.do(Op(o.RECV, ours.fileno(), len_=100, flags=socket.MSG_DONTWAIT))
        theirs.sendall(b"x")
        assert rig.do(Op(o.RECV, ours.fileno(), len_=100)) == b"x"


def test_recv_into_fills_memory_and_counts(rig: Rig) -> None:
    """RECV_INTO writes into a bytearray or a slice of one and returns how much."""
    with connected(rig) as (ours, theirs):
        target = bytearray(b"." * 10)
        fd = ours.fileno()
        op = rig.submit(Op(o.RECV_INTO, fd, len_=4, memory=memoryview(target)[3:7]))
        rig.settle_down()
        theirs.sendall(b"abcdef")
        assert rig.finish(op) == 4
        assert target == b"...abcd..."
        assert rig.do(Op(o.RECV_INTO, fd, len_=10, memory=target)) == 2
        assert target == b"ef.abcd..."
        theirs.close()
        assert rig.do(Op(o.RECV_INTO, fd, len_=10, memory=target)) == 0


@pytest.mark.parametrize(
    "memory", [b"immutable", memoryview(b"immutable"), memoryview(bytearray(10))[::2]]
)
def test_recv_into_refuses_memory_that_it_cannot_write(
    rig: Rig, memory: bytes | memoryview
) -> None:
    """Immutable or scattered memory is a TypeError, and nothing is in flight."""
    with connected(rig) as (ours, _):
        op: Op[int] = Op(o.RECV_INTO, ours.fileno(), len_=5, memory=memory)
        with pytest.raises(TypeError):
            rig.submit(op)
        assert op.state == o.NEW
        assert rig.in_flight() == 0
        rig.driver.abandon(op)
        assert rig.driver.statistics().submitted == 0


def test_memory_of_a_receive_cannot_be_resized(rig: Rig) -> None:
    """While RECV_INTO is in flight its bytearray refuses to move; afterwards it may."""
    with connected(rig) as (ours, theirs):
        target = bytearray(10)
        op = rig.submit(Op(o.RECV_INTO, ours.fileno(), len_=10, memory=target))
        rig.settle_down()
        with pytest.raises(BufferError):
            target.extend(b"more")
        theirs.sendall(b"x")
        assert rig.finish(op) == 1
        target.extend(b"more")


# --- sending -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make",
    [bytes, bytearray, memoryview, lambda data: memoryview(bytearray(data))],
    ids=["bytes", "bytearray", "view", "writable-view"],
)
def test_send_all_takes_every_kind_of_memory(rig: Rig, make: type) -> None:
    """SEND_ALL sends the bytes behind any contiguous memory; its value is None."""
    with connected(rig) as (ours, theirs):
        assert rig.finish(rig.send_all(ours.fileno(), make(b"some bytes"))) is None
        assert theirs.recv(100) == b"some bytes"


def test_send_all_takes_scattered_memory(rig: Rig) -> None:
    """What is not contiguous is sent in its logical order."""
    with connected(rig) as (ours, theirs):
        scattered = memoryview(b"a-b-c-d-")[::2]
        assert rig.finish(rig.send_all(ours.fileno(), scattered)) is None
        assert theirs.recv(100) == b"abcd"


@STREAMS
@pytest.mark.parametrize("flags", [SEND_ALL_FLAGS, MSG_NOSIGNAL], ids=["waitall", "short"])
@pytest.mark.parametrize("make", [bytes, bytearray])
def test_send_all_sends_all_through_a_small_socket_buffer(
    rig: Rig, kind: str, flags: int, make: type
) -> None:
    """Five megabytes through a tiny SO_SNDBUF arrive byte for byte, however short the sends are."""
    with connected(rig, kind) as (ours, theirs):
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SMALL_SNDBUF)
        op = rig.send_all(ours.fileno(), make(BIG), flags)
        rig.settle_down()
        received = bytearray()

        def read() -> None:
            while len(received) < len(BIG):
                received.extend(theirs.recv(100_000))

        reader = in_thread(read)
        assert rig.finish(op) is None
        reader.join()
        assert received == BIG
        # Or this would prove nothing. With WAITALL io_uring goes on by itself.
        assert (op.done_bytes > 0) == (flags == MSG_NOSIGNAL or not rig.is_uring)


def test_send_all_leaves_the_others_their_turns(rig: Rig) -> None:
    """While five megabytes go to a fast reader, other ops come through."""
    with connected(rig) as (ours, theirs):
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SMALL_SNDBUF)
        op = rig.send_all(ours.fileno(), BIG, MSG_NOSIGNAL)
        assert rig.do(Op(o.NOP)) == 0
        rig.wait(rig.timeout(0))
        assert op.state == SUBMITTED
        received_count = 0

        def read() -> None:
            nonlocal received_count
            while received_count < len(BIG):
                received_count += len(theirs.recv(1 << 20))

        reader = in_thread(read)
        assert rig.finish(op) is None
        reader.join()


def test_sends_on_one_stream_keep_their_order(rig: Rig) -> None:
    """A send that has to wait is not overtaken by the next one on the same stream."""
    if rig.is_uring:
        pytest.skip("io_uring promises no order between sends in flight; net allows one at a time")
    with connected(rig) as (ours, theirs):
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SMALL_SNDBUF)
        first = rig.send_all(ours.fileno(), BIG)
        second = rig.send_all(ours.fileno(), b"end")
        received = bytearray()

        def read() -> None:
            while len(received) < len(BIG) + 3:
                received.extend(theirs.recv(100_000))

        reader = in_thread(read)
        rig.wait(first, second)
        reader.join()
        assert received == BIG + b"end"


def test_send_returns_what_was_taken(rig: Rig) -> None:
    """SEND is one send: it counts what the kernel took, which may be less than all."""
    with connected(rig) as (ours, theirs):
        op = rig.submit(
            Op(o.SEND, ours.fileno(), len_=5, flags=MSG_NOSIGNAL, memory=bytearray(b"hello"))
        )
        assert rig.finish(op) == 5
        assert theirs.recv(100) == b"hello"
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SMALL_SNDBUF)
        op = rig.submit(Op(o.SEND, ours.fileno(), len_=len(BIG), flags=MSG_NOSIGNAL, memory=BIG))
        count = rig.finish(op)
        assert 0 < count < len(BIG)
        received = b""
        while len(received) < count:
            received += theirs.recv(1 << 20)
        assert received == BIG[:count]


def test_send_to_a_closed_peer_fails_without_a_signal(rig: Rig) -> None:
    """Sending to a peer that is gone is EPIPE or ECONNRESET, and no SIGPIPE is raised."""
    with connected(rig, "unix") as (ours, theirs):
        theirs.close()
        with pytest.raises(BrokenPipeError) as caught:
            rig.finish(rig.send_all(ours.fileno(), b"x"))
        assert isinstance(caught.value, OpError)
        assert caught.value.op == "send_all"
        assert caught.value.done == 0
        with pytest.raises(BrokenPipeError):
            rig.do(Op(o.SEND, ours.fileno(), len_=1, flags=MSG_NOSIGNAL, memory=b"x"))


def test_send_all_that_breaks_half_way_tells_how_much_had_left(rig: Rig) -> None:
    """When the peer resets in the middle, the error's ``done`` counts what the kernel had taken."""
    with connected(rig) as (ours, theirs):
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SMALL_SNDBUF)
        op = rig.send_all(ours.fileno(), BIG, MSG_NOSIGNAL)
        rig.settle_down()
        theirs.recv(50_000)
        rig.settle_down()
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        theirs.close()
        with pytest.raises(OpError) as caught:
            rig.finish(op)
        assert caught.value.errno in {errno.ECONNRESET, errno.EPIPE}
        assert 0 < caught.value.done < len(BIG)


# --- ending --------------------------------------------------------------------------------------


def test_shutdown_tells_the_peer(rig: Rig) -> None:
    """SHUTDOWN of the sending side gives the peer its end; receiving goes on."""
    with connected(rig) as (ours, theirs):
        assert rig.do(Op(o.SHUTDOWN, ours.fileno(), len_=socket.SHUT_WR)) is None
        assert theirs.recv(100) == b""
        theirs.sendall(b"still")
        assert rig.do(Op(o.RECV, ours.fileno(), len_=100)) == b"still"


def test_shutdown_of_an_unconnected_socket_fails(rig: Rig) -> None:
    """SHUTDOWN without a peer is ENOTCONN."""
    with socket.socket() as alone, pytest.raises(OpError) as caught:
        rig.do(Op(o.SHUTDOWN, alone.fileno(), len_=socket.SHUT_WR))
    assert caught.value.errno == errno.ENOTCONN


def test_close_closes(rig: Rig) -> None:
    """CLOSE ends the descriptor; its number can be used anew, with nothing left of the old one."""
    ours, theirs = pair(rig)
    fd = ours.detach()
    op = rig.recv(fd)
    rig.settle_down()
    theirs.sendall(b"x")
    assert rig.finish(op) == b"x"
    assert rig.do(Op(o.CLOSE, fd)) is None
    assert not is_open(fd)
    assert theirs.recv(1) == b""
    theirs.close()
    for _ in range(3):
        again, theirs = pair(rig)
        with theirs:
            op = rig.recv(again.fileno())
            rig.settle_down()
            theirs.sendall(b"anew")
            assert rig.finish(op) == b"anew"
            rig.do(Op(o.CLOSE, again.detach()))


@pytest.mark.parametrize(
    "operation", [o.RECV, o.SEND_ALL, o.SEND, o.RECV_INTO, o.ACCEPT, o.SHUTDOWN, o.CLOSE, o.POLL]
)
def test_operations_on_a_closed_descriptor_fail(rig: Rig, operation: int) -> None:
    """A number that is no descriptor is EBADF for every operation."""
    read_end, write_end = os.pipe()
    os.close(read_end)
    os.close(write_end)
    op: Op[object] = Op(operation, write_end, flags=1 if operation == o.POLL else 0)
    if operation in {o.SEND_ALL, o.SEND, o.RECV_INTO}:
        op.memory = bytearray(1)
        op.len = 1
    with pytest.raises(OpError) as caught:
        rig.do(op)
    assert caught.value.errno == errno.EBADF
    assert caught.value.fd == write_end


# --- readiness and pipes -------------------------------------------------------------------------


def test_poll_tells_what_is_ready(rig: Rig) -> None:
    """POLL is the mask that holds now, or the first to hold later; HUP is told unasked."""
    with connected(rig, "unix") as (ours, theirs):
        fd = ours.fileno()
        assert rig.do(Op(o.POLL, fd, flags=0x4)) == 0x4
        waiting = [rig.submit(Op(o.POLL, fd, flags=0x1)) for _ in range(2)]
        rig.settle_down()
        assert rig.delivered == []
        theirs.sendall(b"x")
        assert [rig.finish(op) for op in waiting] == [0x1, 0x1]
        assert rig.do(Op(o.POLL, fd, flags=0x5)) == 0x5
        assert rig.do(Op(o.RECV, fd, len_=10)) == b"x"
        last = rig.submit(Op(o.POLL, fd, flags=0x2))
        rig.settle_down()
        assert last.state == SUBMITTED
        theirs.close()
        assert rig.finish(last) & 0x10


def test_poll_of_no_events_tells_of_the_end(rig: Rig) -> None:
    """A POLL of nothing on a pipe's write end is ended by the reader's going, and nothing else."""
    reader, writer = os.pipe()
    try:
        op = rig.submit(Op(o.POLL, writer, flags=0))
        rig.settle_down()
        assert op.state == SUBMITTED
        os.write(writer, b"x")
        os.read(reader, 1)
        rig.settle_down()
        assert op.state == SUBMITTED
        os.close(reader)
        reader = -1
        assert rig.finish(op) & 0x18
    finally:
        rig.driver.unregister(writer)
        os.close(writer)
        if reader >= 0:
            os.close(reader)


def test_polls_that_follow_one_another(rig: Rig) -> None:
    """
    A POLL_AGAIN tells what holds like the POLL before it, also when that was never waited for, and
    what changes in one direction alone does not end a poll for the other.
    """
    with connected(rig, "unix") as (ours, theirs):
        fd = ours.fileno()
        for code in (o.POLL, o.POLL_AGAIN):
            assert rig.do(Op(code, fd, flags=0x4)) == 0x4
        op: Op[object] = Op(o.POLL, fd, flags=0x1)
        for _ in range(3):
            rig.submit(op)
            rig.settle_down()
            assert op.state == SUBMITTED
            ours.sendall(bytes(1000))
            theirs.recv(1000)  # there is room again, of which some pollers tell
            rig.settle_down()
            assert op.state == SUBMITTED
            theirs.sendall(b"x")
            assert rig.finish(op) == 0x1
            assert rig.do(Op(o.POLL_AGAIN, fd, flags=0x1)) == 0x1
            assert rig.do(Op(o.RECV, fd, len_=10)) == b"x"
            op = Op(o.POLL_AGAIN, fd, flags=0x1)
        op = rig.submit(op)
        theirs.close()
        assert rig.finish(op) & 0x10


def test_poll_tells_of_room_to_write(rig: Rig) -> None:
    """A POLL for writing waits while the socket is full."""
    with connected(rig, "unix") as (ours, theirs):
        fill(ours)
        op = rig.submit(Op(o.POLL, ours.fileno(), flags=0x4))
        rig.settle_down()
        assert op.state == SUBMITTED
        empty(theirs)
        assert rig.finish(op) == 0x4


def test_poll_of_a_file_is_ready(rig: Rig, tmp_path: Path) -> None:
    """Regular files can always be read and written, says POLL."""
    with (tmp_path / "f").open("w") as file:
        assert rig.do(Op(o.POLL, file.fileno(), flags=0x5)) == 0x5


def test_pipes_are_read_and_written(rig: Rig) -> None:
    """READ waits for a pipe's bytes and ends at its end; WRITE waits for room."""
    with pipe(rig) as (read_end, write_end):
        target = bytearray(10)
        op = rig.submit(Op(o.READ, read_end, len_=10, memory=target))
        rig.settle_down()
        assert op.state == SUBMITTED
        assert rig.do(Op(o.WRITE, write_end, len_=5, memory=b"hello")) == 5
        assert rig.finish(op) == 5
        assert target == b"hello" + bytes(5)

        filler = bytes(fcntl.fcntl(write_end, fcntl.F_GETPIPE_SZ))
        assert rig.do(Op(o.WRITE, write_end, len_=len(filler), memory=filler)) == len(filler)
        blocked = rig.submit(Op(o.WRITE, write_end, len_=4, memory=b"more"))
        rig.settle_down()
        assert blocked.state == SUBMITTED
        whole = bytearray(len(filler))
        assert rig.do(Op(o.READ, read_end, len_=len(whole), memory=whole)) == len(filler)
        assert rig.finish(blocked) == 4
        assert rig.do(Op(o.READ, read_end, len_=10, memory=target)) == 4
        rig.do(Op(o.CLOSE, write_end))
        assert rig.do(Op(o.READ, read_end, len_=10, memory=target)) == 0
