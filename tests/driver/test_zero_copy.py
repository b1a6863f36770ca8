"""Sends without a copy: the memory is the kernel's until it says so, whatever happens meanwhile."""

import array
import errno
import fcntl
import random
import socket
import termios
from typing import Any

import pytest

from tests.backends import RUNG
from tests.driver.conftest import RigMaker
from tests.driver.rig import SEND_ALL_FLAGS, Rig, StandInCancelled, connected, in_thread
from tests.kernel import lock_refusal
from tests.older import without
from uringio._driver import op as o
from uringio._driver.messages import Outgoing
from uringio._driver.op import CANCELLING, SUBMITTED, Op
from uringio._driver.uring_rows import SLOW_HEADS
from uringio._ring.prep import sqe_head
from uringio._ring.probe import probe_ring
from uringio._sys import constants as k
from uringio._sys.memory import Memory

SIZE = 600_000


@pytest.fixture
def rig(make_rig: RigMaker) -> Rig:
    """An io_uring driver whose kernel knows such sends."""
    lacking = without(RUNG, "both of them", k.IORING_OP_SEND_ZC, k.IORING_OP_SENDMSG_ZC)
    lacking = lacking or without(RUNG, "a probe", registration=k.IORING_REGISTER_PROBE)
    if reason := lacking or lock_refusal():
        pytest.skip(reason)
    rig = make_rig("uring")
    if k.IORING_OP_SEND_ZC not in probe_ring(rig.driver.ring).opcodes:
        pytest.skip("this kernel has no SEND_ZC (6.0)")
    return rig


def send_zc(rig: Rig, end: socket.socket, memory: Memory, len_bytes: int = SIZE) -> Op[Any]:
    op: Op[Any] = Op(o.SEND_ZC, end.fileno(), memory.addr, len_bytes, flags=SEND_ALL_FLAGS)
    op.hold = memory
    return rig.submit(op)


def sendmsg_zc(rig: Rig, end: socket.socket, *pieces: bytes) -> Op[Any]:
    message = Outgoing(pieces)
    op: Op[Any] = Op(o.SENDMSG_ZC, end.fileno(), message.addr, 1, flags=SEND_ALL_FLAGS)
    op.hold = message
    return rig.submit(op)


def stalled(ours: socket.socket, theirs: socket.socket) -> None:
    """Make our end take much more than a peer that does not read will acknowledge."""
    theirs.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 * SIZE)


def unacknowledged(end: socket.socket) -> int:
    """Count the bytes that the peer has not acknowledged."""
    count = array.array("i", [0])
    fcntl.ioctl(end, termios.TIOCOUTQ, count)
    return count[0]


def receive(end: socket.socket, count: int) -> bytes:
    got = bytearray()
    while len(got) < count:
        got += end.recv(count - len(got))
    return bytes(got)


def test_done_at_the_notification_only(rig: Rig) -> None:
    """
    The socket has taken every byte, the peer has not: the op stays in flight, its memory held.

    Once the peer reads it gets what was in the memory all the time, and only then the op is done.
    """
    memory = Memory(SIZE)
    memory.view[:] = data = random.randbytes(SIZE)
    with connected(rig) as (ours, theirs):
        stalled(ours, theirs)
        op = send_zc(rig, ours, memory)
        rig.until(lambda: unacknowledged(ours) > SIZE // 2)
        # All of it was taken at one go, so what is missing is the notification.
        for _ in range(5):
            rig.turn()
            assert op.state == SUBMITTED
            assert op.hold is memory
            assert not rig.is_delivered(op)
        assert receive(theirs, SIZE) == data
        rig.finish(op)
        assert op.hold is None
    assert rig.in_flight() == 0
    assert rig.driver.statistics().stray == 0


@pytest.mark.parametrize("cancelled", [False, True])
def test_a_message_is_held_until_the_notification(rig: Rig, cancelled: bool) -> None:
    """Every piece of it, and what says where they are; cancelled, the count of bytes is told."""
    data = random.randbytes(SIZE)
    with connected(rig) as (ours, theirs):
        stalled(ours, theirs)
        op = sendmsg_zc(rig, ours, data[:1000], data[1000:])
        rig.until(lambda: unacknowledged(ours) > SIZE // 2)
        for _ in range(5):
            rig.turn()
            assert op.state == SUBMITTED
            assert op.hold is not None
        if cancelled:
            rig.driver.cancel(op)
            with pytest.raises(StandInCancelled) as caught:
                rig.finish(op)
            assert caught.value.done == SIZE
        else:
            assert receive(theirs, SIZE) == data
            assert rig.finish(op) == SIZE
        assert op.hold is None
    assert rig.driver.statistics().stray == 0


@pytest.mark.parametrize("kind", ["uring", "epoll"])
def test_a_message_over_a_socket_that_cannot(make_rig: RigMaker, kind: str) -> None:
    """It is copied, and its value is the count."""
    rig = make_rig(kind)
    with connected(rig, "unix") as (ours, theirs):
        assert rig.finish(sendmsg_zc(rig, ours, b"one", b"two")) == 6
        assert receive(theirs, 6) == b"onetwo"


def test_every_byte_is_sent(rig: Rig) -> None:
    """More than the socket has room for at a time, and several at once: all comes, in order."""
    memory = Memory(2_000_000)
    memory.view[:] = data = random.randbytes(2_000_000)
    with connected(rig) as (ours, theirs):
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
        got: list[bytes] = []
        reader = in_thread(lambda: got.append(receive(theirs, 2 * len(data))))
        for _ in range(2):
            op = send_zc(rig, ours, memory, len(data))
            rig.finish(op)
        reader.join()
        assert got[0] == data * 2


def test_without_waitall_the_rest_is_sent_too(rig: Rig) -> None:
    """Short sends go on where they stopped, each with a notification of its own."""
    memory = Memory(SIZE)
    memory.view[:] = data = random.randbytes(SIZE)
    with connected(rig) as (ours, theirs):
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
        got: list[bytes] = []
        reader = in_thread(lambda: got.append(receive(theirs, SIZE)))
        op: Op[Any] = Op(o.SEND_ZC, ours.fileno(), memory.addr, SIZE, flags=0x4000)
        op.hold = memory
        rig.do(op)
        reader.join()
        assert got[0] == data
        assert rig.driver.statistics().stray == 0


def test_cancelled_while_only_the_notification_is_due(rig: Rig) -> None:
    """The connection is aborted, the op ends with its cancellation, and the peer gets a reset."""
    memory = Memory(SIZE)
    with connected(rig) as (ours, theirs):
        stalled(ours, theirs)
        op = send_zc(rig, ours, memory)
        rig.until(lambda: unacknowledged(ours) > SIZE // 2)
        rig.turn()
        rig.driver.cancel(op)
        assert op.state == CANCELLING
        assert op.hold is memory
        with pytest.raises(StandInCancelled) as caught:
            rig.finish(op)
        assert caught.value.done == SIZE
        with pytest.raises(ConnectionResetError):
            receive(theirs, SIZE)
    assert rig.in_flight() == 0


def test_cancelled_in_the_middle(rig: Rig) -> None:
    """A send that waits for room ends promptly, though the peer does not read."""
    memory = Memory(8 * SIZE)
    with connected(rig) as (ours, theirs):
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
        op = send_zc(rig, ours, memory, 8 * SIZE)
        rig.until(lambda: unacknowledged(ours))
        rig.turn()
        assert op.state == SUBMITTED
        rig.driver.cancel(op)
        with pytest.raises(StandInCancelled):
            rig.finish(op)
        assert op.hold is None
        assert rig.driver.statistics().stray == 0


def test_cancelled_when_it_is_done(rig: Rig) -> None:
    """Before its delivery was looked at, a cancellation still counts what was sent."""
    memory = Memory(SIZE)
    with connected(rig) as (ours, theirs):
        op = send_zc(rig, ours, memory, 10)
        rig.until(lambda: rig.is_delivered(op))
        assert receive(theirs, 10) == bytes(10)
        rig.driver.cancel(op)
        with pytest.raises(StandInCancelled) as caught:
            rig.finish(op)
        assert caught.value.done == 10


def test_cancelled_before_the_kernel_has_seen_it(rig: Rig) -> None:
    """Nothing was begun, so the connection goes on."""
    memory = Memory(SIZE)
    with connected(rig) as (ours, theirs):
        op = send_zc(rig, ours, memory)
        rig.driver.cancel(op)
        with pytest.raises(StandInCancelled):
            rig.finish(op)
        rig.finish(rig.send_all(ours.fileno(), b"goes on"))
        assert theirs.recv(100) == b"goes on"


def test_failing_at_once(rig: Rig) -> None:
    """Refused without a notification (a bad descriptor) or with one (a closed peer): one error."""
    memory = Memory(SIZE)
    with connected(rig) as (ours, _theirs):
        op: Op[Any] = Op(o.SEND_ZC, 1_000_000, memory.addr, 10, flags=SEND_ALL_FLAGS)
        with pytest.raises(OSError, match="Bad file") as caught:
            rig.do(op)
        assert caught.value.errno == errno.EBADF
        ours.shutdown(socket.SHUT_WR)
        op = send_zc(rig, ours, memory)
        with pytest.raises(BrokenPipeError):
            rig.finish(op)
        assert op.hold is None
    assert rig.in_flight() == 0


@pytest.mark.parametrize("kind", ["uring", "epoll"])
def test_a_socket_that_cannot_is_sent_copies(make_rig: RigMaker, kind: str) -> None:
    """Unix sockets answer EOPNOTSUPP, and epoll knows no such send: the bytes come all the same."""
    rig = make_rig(kind)
    data = random.randbytes(SIZE)
    with connected(rig, "unix") as (ours, theirs):
        got: list[bytes] = []
        reader = in_thread(lambda: got.append(receive(theirs, SIZE)))
        op: Op[Any] = Op(
            o.SEND_ZC, ours.fileno(), len_=SIZE, flags=SEND_ALL_FLAGS, memory=bytearray(data)
        )
        rig.do(op)
        reader.join()
        assert got[0] == data


def test_a_kernel_without_them_is_sent_copies(
    make_rig: RigMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An opcode that the kernel does not know is answered EINVAL: a plain send takes over."""
    monkeypatch.setitem(SLOW_HEADS, o.SEND_ZC, sqe_head(255))
    rig = make_rig("uring")
    memory = Memory(SIZE)
    with connected(rig) as (ours, theirs):
        stalled(ours, theirs)
        rig.finish(send_zc(rig, ours, memory))  # a copy is taken though nobody reads
        assert receive(theirs, SIZE) == bytes(SIZE)


def test_closing_waits_no_longer_than_it_may(rig: Rig) -> None:
    """A driver that is closed while a peer stalls leaks the memory on purpose, and says so."""
    memory = Memory(SIZE)
    with connected(rig) as (ours, theirs):
        stalled(ours, theirs)
        op = send_zc(rig, ours, memory)
        rig.until(lambda: unacknowledged(ours) > SIZE // 2)
        with pytest.warns(ResourceWarning, match="leaked on purpose"):
            rig.driver.close(0)
        assert op.hold is memory
