"""SENDMSG and RECVMSG on every driver: payloads, addresses, ancillary data, and who closes what."""

import array
import errno
import fcntl
import gc
import os
import random
import socket
import sys
import termios
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.driver.conftest import RigMaker
from tests.driver.rig import PATIENCE_S, Orphans, Rig, StandInCancelled, connected, fill
from tests.leaks import fd_count
from uringio._driver import op as o
from uringio._driver.messages import (
    MSG_CMSG_CLOEXEC,
    Ancillary,
    Incoming,
    Outgoing,
    Received,
    descriptors_item,
    pack_control,
)
from uringio._driver.op import SUBMITTED, Op
from uringio._sys.memory import ReadableBuffer
from uringio._sys.sockaddr import pack_sockaddr, unpack_sockaddr
from uringio._sys.system import System
from uringio.errors import OpError

NOSIGNAL = 0x4000
IP_PKTINFO = 8  # which the socket module has from 3.14 on


def sendmsg(
    fd: int,
    pieces: Sequence[ReadableBuffer],
    name: bytes = b"",
    control: bytes = b"",
    **more: object,
) -> Op[Any]:
    message = Outgoing(pieces, name, control)
    op: Op[Any] = Op(o.SENDMSG, fd, addr=message.addr, len_=1, flags=NOSIGNAL, **more)
    op.hold = message
    return op


def recvmsg(
    rig: Rig, fd: int, data_bytes: int = 100, control_bytes: int = 64, **more: object
) -> Op[Any]:
    memory = Incoming(rig.system, data_bytes, control_bytes)
    op: Op[Any] = Op(o.RECVMSG, fd, addr=memory.addr, len_=1, flags=MSG_CMSG_CLOEXEC, **more)
    op.hold = memory
    return op


@contextmanager
def udp(rig: Rig) -> Iterator[tuple[socket.socket, socket.socket]]:
    """Yield two bound sockets; the first is the driver's."""
    with (
        socket.socket(type=socket.SOCK_DGRAM) as ours,
        socket.socket(type=socket.SOCK_DGRAM) as theirs,
    ):
        for end in (ours, theirs):
            end.bind(("127.0.0.1", 0))
        theirs.settimeout(PATIENCE_S)
        rig.driver.register(ours.fileno())
        yield ours, theirs
        rig.driver.unregister(ours.fileno())


def pass_fds(end: socket.socket, fds: list[int], data: bytes = b"x") -> None:
    rights = array.array("i", fds)
    end.sendmsg([data], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])


# --- payload and addresses -----------------------------------------------------------------------


def test_datagrams_go_both_ways_with_addresses(rig: Rig) -> None:
    """A datagram reaches the address it names, and one received says where it came from."""
    with udp(rig) as (ours, theirs):
        name = pack_sockaddr(socket.AF_INET, theirs.getsockname())
        assert rig.do(sendmsg(ours.fileno(), [b"ab", bytearray(b"cd"), b""], name)) == 4
        assert theirs.recvfrom(100) == (b"abcd", ours.getsockname())
        theirs.sendto(b"answer", ours.getsockname())
        received = rig.do(recvmsg(rig, ours.fileno()))
        assert (received.data, received.count) == (b"answer", 6)
        assert unpack_sockaddr(received.name) == theirs.getsockname()
        assert not received.truncated
        assert not received.control_truncated


def test_recvmsg_waits(rig: Rig) -> None:
    """Without a datagram the op stays in flight; the next one ends it, an empty one too."""
    with udp(rig) as (ours, theirs):
        for data in (b"late", b""):
            op = rig.submit(recvmsg(rig, ours.fileno()))
            rig.settle_down()
            assert op.state == SUBMITTED
            theirs.sendto(data, ours.getsockname())
            received = rig.finish(op)
            assert received.data == data
            assert op.hold is None


def test_a_longer_datagram_is_cut_and_says_so(rig: Rig) -> None:
    """What does not fit is lost, and `truncated` tells; the next datagram is whole."""
    with udp(rig) as (ours, theirs):
        theirs.sendto(b"0123456789", ours.getsockname())
        theirs.sendto(b"next", ours.getsockname())
        received = rig.do(recvmsg(rig, ours.fileno(), 4))
        assert (received.data, received.truncated) == (b"0123", True)
        received = rig.do(recvmsg(rig, ours.fileno(), 4))
        assert (received.data, received.truncated) == (b"next", False)


def test_memory_is_reused_for_messages_of_any_length(rig: Rig) -> None:
    """One `Incoming` serves one message after the other, and none shows bytes of an earlier one."""
    with udp(rig) as (ours, theirs):
        memory = Incoming(rig.system, 1000, 0)
        for size in (1000, 3, 500, 0, 1):
            memory.prepare(size or 1, 0)
            theirs.sendto(bytes([size % 251]) * size, ours.getsockname())
            op: Op[Any] = Op(o.RECVMSG, ours.fileno(), addr=memory.addr, len_=1)
            op.hold = memory
            assert rig.do(op).data == bytes([size % 251]) * size


def test_scatter_fills_pieces_in_order(rig: Rig) -> None:
    """The caller's memory gets the bytes, piece by piece, and nothing behind them is touched."""
    with connected(rig) as (ours, theirs):
        theirs.sendall(b"abcdefg")
        pieces = [bytearray(3), memoryview(bytearray(b"....")), bytearray(b"....")]
        memory = Incoming(rig.system, 0, 0, pieces)
        op: Op[Any] = Op(o.RECVMSG, ours.fileno(), addr=memory.addr, len_=1)
        op.hold = memory
        received = rig.do(op)
        assert (received.count, received.data, received.payload()) == (7, b"", b"abcdefg")
        assert [bytes(piece) for piece in pieces] == [b"abc", b"defg", b"...."]
        pieces[0].extend(b"x")  # nothing pins it any more


def test_pieces_are_pinned_while_the_op_waits(rig: Rig) -> None:
    """A `bytearray` that the kernel will write into cannot be resized until it has."""
    with connected(rig) as (ours, theirs):
        piece = bytearray(10)
        memory = Incoming(rig.system, 0, 0, [piece])
        op: Op[Any] = Op(o.RECVMSG, ours.fileno(), addr=memory.addr, len_=1)
        op.hold = memory
        del memory
        rig.submit(op)
        rig.settle_down()
        gc.collect()
        with pytest.raises(BufferError):
            piece.extend(b"more")
        theirs.sendall(b"data")
        assert rig.finish(op).count == 4
        assert bytes(piece[:4]) == b"data"


def test_sendmsg_waits_for_room(rig: Rig) -> None:
    """A full socket takes the message when its peer has read."""
    with connected(rig, "unix") as (ours, theirs):
        filled = fill(ours)
        op = rig.submit(sendmsg(ours.fileno(), [b"at last"]))
        rig.settle_down()
        assert op.state == SUBMITTED
        while filled:
            filled -= len(theirs.recv(filled))
        assert rig.finish(op) == 7
        assert theirs.recv(100) == b"at last"


def test_a_unix_datagram_waits_for_room_and_is_whole(rig: Rig, tmp_path: Path) -> None:
    """
    With the receiver's queue full, a SENDMSG_UNIX waits, can be cancelled, and is sent as it was
    given when there is room; a driver may also close while it waits.
    """
    path = str(tmp_path / "socket")

    def send(text: bytes) -> Op[Any]:
        op = sendmsg(ours.fileno(), [text])
        op.code = o.SENDMSG_UNIX
        op.flags |= socket.MSG_DONTWAIT
        return op

    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as theirs,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ours,
    ):
        theirs.bind(path)
        ours.connect(path)
        rig.driver.register(ours.fileno())
        filler_count = 0
        while True:
            op = rig.submit(send(b"filler"))
            rig.settle_down()
            if not rig.is_delivered(op):
                break
            assert rig.finish(op) == 6
            filler_count += 1
        for moment in range(4):
            cancelled = rig.submit(send(b"cancelled"))
            for _ in range(moment):
                rig.settle_down()
            assert rig.driver.cancel(cancelled)
            with pytest.raises(StandInCancelled) as caught:
                rig.finish(cancelled)
            assert caught.value.done == 0
        assert op.state == SUBMITTED
        for _ in range(filler_count):
            assert theirs.recv(100) == b"filler"
        assert rig.finish(op) == 6
        assert theirs.recv(100) == b"filler"
        theirs.setblocking(False)
        with pytest.raises(BlockingIOError):
            theirs.recv(100)
        for _ in range(filler_count):
            assert rig.do(send(b"filler")) == 6
        rig.submit(send(b"late"))
        rig.settle_down()
        rig.close()


def test_refusals_are_the_kernels(rig: Rig) -> None:
    """Too long, not connected, closed peer, no descriptor: the errno, and the operation's name."""
    with udp(rig) as (ours, theirs):
        name = pack_sockaddr(socket.AF_INET, theirs.getsockname())
        with pytest.raises(OpError) as too_long:
            rig.do(sendmsg(ours.fileno(), [bytes(70_000)], name))
        assert (too_long.value.errno, too_long.value.op) == (errno.EMSGSIZE, "sendmsg")
        with pytest.raises(OpError) as nowhere:
            rig.do(sendmsg(ours.fileno(), [b"x"]))
        assert nowhere.value.errno == errno.EDESTADDRREQ
    with pytest.raises(OpError) as closed:
        rig.do(recvmsg(rig, 1_000_000))
    assert (closed.value.errno, closed.value.op) == (errno.EBADF, "recvmsg")
    with connected(rig, "unix") as (ours, theirs):
        theirs.close()
        with pytest.raises(BrokenPipeError):
            rig.do(sendmsg(ours.fileno(), [b"x"]))


# --- ancillary data ------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 2, 3])
def test_descriptors_travel(rig: Rig, tmp_path: Path, count: int) -> None:
    """What is passed arrives as copies, closed on exec, that the taker has to close."""
    path = tmp_path / "file"
    path.write_bytes(b"content")
    fds = [os.open(path, os.O_RDONLY) for _ in range(count)]
    try:
        with connected(rig, "unix") as (ours, theirs):
            control = pack_control([descriptors_item(fds)])
            assert rig.do(sendmsg(ours.fileno(), [b"out"], control=control)) == 3
            data, got, _, _ = socket.recv_fds(theirs, 100, 10)
            assert (data, len(got)) == (b"out", count)
            for fd in got:
                os.close(fd)
            pass_fds(theirs, fds, b"in")
            received = rig.do(recvmsg(rig, ours.fileno()))
            taken = received.take_fds()
            assert (received.data, len(taken), received.items) == (b"in", count, [])
            for fd in taken:
                assert not os.get_inheritable(fd)
                assert os.pread(fd, 100, 0) == b"content"
                os.close(fd)
    finally:
        for fd in fds:
            os.close(fd)


def test_descriptors_that_nobody_takes_are_closed(rig: Rig) -> None:
    """Dropping the message closes them."""
    with connected(rig, "unix") as (ours, theirs):
        before = fd_count()
        pass_fds(theirs, [0, 1, 2])
        received = rig.do(recvmsg(rig, ours.fileno()))
        assert fd_count() == before + 3
        del received
        assert fd_count() == before


def test_descriptors_without_room_are_closed_by_the_kernel(rig: Rig) -> None:
    """Room for none, or for one of three: `control_truncated` tells, and nothing leaks."""
    with connected(rig, "unix") as (ours, theirs):
        before = fd_count()
        for control_bytes, count in ((0, 0), (20, 1)):
            pass_fds(theirs, [0, 1, 2])
            received = rig.do(recvmsg(rig, ours.fileno(), control_bytes=control_bytes))
            assert received.control_truncated
            assert fd_count() == before + count
            received.close_fds()
            assert fd_count() == before
            assert received.take_fds() == []


def test_other_items_come_as_they_are(rig: Rig) -> None:
    """Items that are no descriptors are handed on by number; their bytes are the kernel's."""
    with udp(rig) as (ours, theirs):
        ours.setsockopt(socket.IPPROTO_IP, IP_PKTINFO, 1)
        ours.setsockopt(socket.IPPROTO_IP, socket.IP_RECVTOS, 1)
        theirs.sendto(b"x", ours.getsockname())
        received = rig.do(recvmsg(rig, ours.fileno(), control_bytes=256))
        found = {(item.level, item.kind): item.data for item in received.items}
        assert len(found[socket.IPPROTO_IP, IP_PKTINFO]) == 12
        assert found[socket.IPPROTO_IP, socket.IP_TOS] == b"\0"


def test_packing_matches_the_standard_library() -> None:
    """Items of every length are encoded as the standard library's sendmsg does."""
    for data in (b"", b"a", b"1234567", b"12345678", b"123456789"):
        packed = pack_control([Ancillary(1, 2, data), Ancillary(3, 4, data)])
        assert len(packed) == 2 * socket.CMSG_SPACE(len(data))


# --- cancellation --------------------------------------------------------------------------------


def test_a_waiting_recvmsg_is_cancelled(rig: Rig) -> None:
    """It ends as cancelled, gives its memory up, and leaves the datagram to the next one."""
    with udp(rig) as (ours, theirs):
        op = rig.submit(recvmsg(rig, ours.fileno()))
        rig.settle_down()
        assert rig.driver.cancel(op)
        with pytest.raises(StandInCancelled):
            rig.finish(op)
        assert op.hold is None
        theirs.sendto(b"next", ours.getsockname())
        assert rig.do(recvmsg(rig, ours.fileno())).data == b"next"


def test_a_waiting_sendmsg_is_cancelled(rig: Rig) -> None:
    """Nothing of it reaches the peer."""
    with connected(rig, "unix") as (ours, theirs):
        filled = fill(ours)
        op = rig.submit(sendmsg(ours.fileno(), [b"never"]))
        rig.settle_down()
        assert rig.driver.cancel(op)
        with pytest.raises(StandInCancelled) as caught:
            rig.finish(op)
        assert caught.value.done == 0
        rig.driver.unregister(ours.fileno())
        ours.close()
        while data := theirs.recv(1 << 20):
            filled -= len(data)
        assert filled == 0


def test_bytes_of_a_cancelled_sendmsg_are_counted(rig: Rig) -> None:
    """What had left before the cancellation stands on the exception."""
    with connected(rig, "unix") as (ours, theirs):
        op = rig.submit(sendmsg(ours.fileno(), [b"left"]))
        rig.until(lambda: rig.delivered)
        assert rig.driver.cancel(op)
        with pytest.raises(StandInCancelled) as caught:
            rig.finish(op)
        assert caught.value.done == 4
        assert theirs.recv(100) == b"left"


@pytest.mark.parametrize("owned", [False, True])
def test_no_descriptor_leaks_wherever_the_cancellation_strikes(rig: Rig, owned: bool) -> None:
    """Before, while or after the message comes: the owner gets what came, or it is closed."""
    orphans = Orphans([])
    with connected(rig, "unix") as (ours, theirs):
        before = fd_count()
        received_count = 0
        for n in range(90):
            op = rig.submit(recvmsg(rig, ours.fileno(), 1, owner=orphans if owned else None))
            if n % 3:
                rig.settle_down()
            pass_fds(theirs, [0, 1])
            if random.random() < 0.5:
                rig.settle_down()
            assert rig.driver.cancel(op)
            with pytest.raises(StandInCancelled):
                rig.finish(op)
            for received in orphans.given:
                assert isinstance(received, Received)
                received_count += received.count
                fds = received.take_fds()
                assert len(fds) == 2
                for fd in fds:
                    os.close(fd)
            orphans.given.clear()
        assert fd_count() == before
        if owned:
            assert received_count + queued_bytes(ours) == 90


def queued_bytes(end: socket.socket) -> int:
    return int.from_bytes(fcntl.ioctl(end.fileno(), termios.FIONREAD, bytes(4)), sys.byteorder)


def test_a_driver_that_closes_leaves_no_descriptor(make_rig: RigMaker, backend: str) -> None:
    """Messages that were delivered to nobody, or wait at the end, take their descriptors along."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        before = fd_count()
        rig = make_rig(backend)
        rig.driver.register(ours.fileno())
        pass_fds(theirs, [0, 1])
        rig.submit(recvmsg(rig, ours.fileno()))
        rig.settle_down()
        rig.submit(recvmsg(rig, ours.fileno()))
        rig.settle_down()
        rig.driver.close()
        rig.delivered.clear()
        del rig
        gc.collect()
        assert fd_count() == before


# --- POLL on descriptors of others ---------------------------------------------------------------


def test_poll_on_a_number_that_names_another_file_by_now(rig: Rig) -> None:
    """A descriptor closed behind the driver's back, and its number given anew: POLL still wakes."""
    for _ in range(3):
        read_end, write_end = os.pipe()
        op = rig.submit(Op(o.POLL, read_end, flags=0x1))
        rig.settle_down()
        assert op.state == SUBMITTED
        os.write(write_end, b"x")
        assert rig.finish(op) & 0x1
        os.close(read_end)
        os.close(write_end)


def test_system_door_answers_errnos() -> None:
    """The attempts answer ``-errno`` like every other."""
    system = System()
    memory = Incoming(system, 10, 0)
    assert system.recvmsg(1_000_000, memory.addr, 0) == -errno.EBADF
    assert system.sendmsg(1_000_000, Outgoing([b"x"]).addr, 0) == -errno.EBADF
