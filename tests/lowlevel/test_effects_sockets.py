"""Requests on sockets and epoll descriptors, each seen to have its effect."""

import array
import errno
import os
import select
import socket
import struct
from collections.abc import Iterator

import pytest

from tests.lowlevel.rig import PATIENCE_NS, done, effect, result, results, until_end
from uringio.lowlevel import (
    FILE_INDEX_ALLOC,
    AcceptFlags,
    CqeFlags,
    Features,
    Message,
    NotifUsage,
    Opcode,
    PbufRingFlags,
    RecvSendFlags,
    RegisterOp,
    Ring,
    SocketUringOp,
    SqeFlags,
    Vectors,
    allocate,
    pack_epoll_event,
    pack_sockaddr,
    prep_accept,
    prep_accept_direct,
    prep_bind,
    prep_cmd_sock,
    prep_connect,
    prep_epoll_ctl,
    prep_epoll_wait,
    prep_listen,
    prep_multishot_accept,
    prep_multishot_accept_direct,
    prep_recv,
    prep_recv_multishot,
    prep_recvmsg,
    prep_recvmsg_multishot,
    prep_send,
    prep_send_bundle,
    prep_send_set_addr,
    prep_send_zc,
    prep_send_zc_fixed,
    prep_sendmsg,
    prep_sendmsg_zc,
    prep_sendto,
    prep_shutdown,
    prep_socket,
    prep_socket_direct,
    prep_socket_direct_alloc,
    unpack_epoll_events,
    unpack_recvmsg,
    unpack_sockaddr,
)

Pair = tuple[socket.socket, socket.socket]
INET = socket.AF_INET


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """A listening socket on the loopback."""
    with socket.create_server(("127.0.0.1", 0)) as made:
        yield made


@pytest.fixture
def tcp(listener: socket.socket) -> Iterator[Pair]:
    """Two ends of a TCP connection."""
    with socket.create_connection(listener.getsockname()) as left:
        right, _ = listener.accept()
        with right:
            yield left, right


@pytest.fixture
def udp() -> Iterator[Pair]:
    """Two UDP sockets on the loopback, not connected."""
    with socket.socket(INET, socket.SOCK_DGRAM) as left:
        left.bind(("127.0.0.1", 0))
        with socket.socket(INET, socket.SOCK_DGRAM) as right:
            right.bind(("127.0.0.1", 0))
            right.settimeout(50)
            yield left, right


@effect(Opcode.SOCKET, Opcode.BIND, Opcode.LISTEN, Opcode.CONNECT, Opcode.ACCEPT)
def test_a_connection_from_nothing(ring: Ring) -> None:
    """Sockets made, bound, listening, connected and accepted by requests carry bytes."""
    prep_socket(ring, INET, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    server = socket.socket(fileno=result(ring))
    prep_bind(ring, server.fileno(), pack_sockaddr(INET, ("127.0.0.1", 0)))
    assert result(ring) == 0
    prep_listen(ring, server.fileno(), 5)
    assert result(ring) == 0
    prep_socket(ring, INET, socket.SOCK_STREAM)
    client = socket.socket(fileno=result(ring))
    room, size = bytearray(16), bytearray(struct.pack("i", 16))
    prep_accept(ring, server.fileno(), room, size, socket.SOCK_CLOEXEC, user_data=1)
    prep_connect(ring, client.fileno(), pack_sockaddr(INET, server.getsockname()), user_data=2)
    found = results(ring, 2)
    assert found[2] == 0
    with socket.socket(fileno=found[1]) as accepted, server, client:
        assert unpack_sockaddr(bytes(room)) == client.getsockname()
        assert struct.unpack("i", size) == (16,)
        client.sendall(b"hello")
        assert accepted.recv(100) == b"hello"


def test_sockets_in_slots(ring: Ring, listener: socket.socket) -> None:
    """Made, connected and accepted without a descriptor."""
    ring.register_files_sparse(4)
    prep_socket_direct(ring, INET, socket.SOCK_STREAM, 0, 2)
    assert result(ring) == 0
    prep_socket_direct_alloc(ring, INET, socket.SOCK_STREAM)
    assert result(ring) == 3  # the slot: the search goes on behind the last
    to = pack_sockaddr(INET, listener.getsockname())
    prep_connect(ring, 2, to, user_data=1, flags=SqeFlags.FIXED_FILE)
    prep_accept_direct(ring, listener.fileno(), FILE_INDEX_ALLOC, user_data=2)
    found = results(ring, 2)
    assert found == {1: 0, 2: found[2]}
    room = bytearray(5)
    prep_send(ring, 2, b"slots", flags=SqeFlags.FIXED_FILE, user_data=1)
    prep_recv(ring, found[2], room, flags=SqeFlags.FIXED_FILE, user_data=2)
    assert results(ring, 2) == {1: 5, 2: 5}
    assert room == b"slots"


@effect(AcceptFlags.MULTISHOT)
def test_multishot_accept(ring: Ring, listener: socket.socket) -> None:
    """One request takes every connection, into descriptors or slots."""
    prep_multishot_accept(ring, listener.fileno(), user_data=1)
    for _ in range(3):
        with socket.create_connection(listener.getsockname()) as client:
            [one] = done(ring)
            assert one.more
            with socket.socket(fileno=one.res) as taken:
                assert taken.getpeername() == client.getsockname()
    assert ring.in_flight == 1


def test_multishot_accept_into_slots(ring: Ring, listener: socket.socket) -> None:
    """The slot of each is told; a full table ends it with ENFILE, and the connection is lost."""
    ring.register_files_sparse(2)
    prep_multishot_accept_direct(ring, listener.fileno())
    clients = []
    found = []
    for _ in range(3):
        clients.append(socket.create_connection(listener.getsockname()))
        found += [(one.res, one.more) for one in done(ring)]
    assert found == [(0, True), (1, True), (-errno.ENFILE, False)]
    for one in clients:
        one.close()


@effect(Opcode.SEND, Opcode.RECV)
def test_send_and_recv(ring: Ring, pair: Pair) -> None:
    """Bytes cross, with their MSG_* flags."""
    left, right = (one.fileno() for one in pair)
    room, peek = bytearray(10), bytearray(3)
    prep_send(ring, left, b"crossing")
    assert result(ring) == 8
    prep_recv(ring, right, peek, socket.MSG_PEEK)
    assert (result(ring), peek) == (3, b"cro")
    prep_recv(ring, right, room)
    assert (result(ring), room) == (8, b"crossing\0\0")


def test_waitall_fills_the_room(ring: Ring, pair: Pair) -> None:
    """With MSG_WAITALL a receive goes on until there is no room left."""
    left, right = pair
    room = bytearray(6)
    prep_recv(ring, right.fileno(), room, socket.MSG_WAITALL)
    left.send(b"abc")
    assert ring.wait(1, 0) == []
    left.send(b"def")
    assert (result(ring), room) == (6, b"abcdef")


def test_sendto(ring: Ring, udp: Pair) -> None:
    """A datagram goes to the address that is given with it, in either way."""
    left, right = udp
    to = pack_sockaddr(INET, right.getsockname())
    prep_sendto(ring, left.fileno(), b"one", 0, to)
    assert result(ring) == 3
    prep_send(ring, left.fileno(), b"two")
    prep_send_set_addr(ring, to)
    assert result(ring) == 3
    assert [right.recvfrom(10) for _ in range(2)] == [
        (b"one", left.getsockname()),
        (b"two", left.getsockname()),
    ]


@effect(RecvSendFlags.BUNDLE, Features.RECVSEND_BUNDLE)
def test_bundles(ring: Ring, pair: Pair) -> None:
    """One send takes several buffers; one receive fills several, consecutive in ring order."""
    left, right = pair
    buffers = ring.setup_buf_ring(3, 4, 4)
    buffers.memory.view[:] = b"aaaabbbbccccdddd"
    prep_send_bundle(ring, left.fileno(), 0, 0, 3, user_data=1)
    [sent] = done(ring)
    assert (sent.res, sent.buffer_id) == (16, 0)
    assert right.recv(100) == b"aaaabbbbccccdddd"
    buffers.put(2, 0, 3, 1)
    left.send(b"0123456789")
    bundle = RecvSendFlags.BUNDLE
    prep_recv(ring, right.fileno(), 0, ioprio=bundle, buf_group=3, len_bytes=12)
    [got] = done(ring)
    assert (got.res, got.buffer_id) == (10, 2)
    taken = b"".join(bytes(buffers.view(one, 4)) for one in (2, 0, 3))
    assert taken[:10] == b"0123456789"
    assert ring.buf_ring_head(3) == 7


@effect(RecvSendFlags.RECV_MULTISHOT)
def test_recv_multishot(ring: Ring, pair: Pair) -> None:
    """Each arrival is a completion; without buffers it ends with ENOBUFS, and loses nothing."""
    left, right = pair
    buffers = ring.setup_buf_ring(9, 2, 16)
    prep_recv_multishot(ring, right.fileno(), 9, user_data=4)
    seen = []
    for text in (b"one", b"two", b"three"):
        left.send(text)
        [one] = done(ring)
        seen.append((one.res, one.more))
    assert seen == [(3, True), (3, True), (-errno.ENOBUFS, False)]
    assert bytes(buffers.view(0, 3)) + bytes(buffers.view(1, 3)) == b"onetwo"
    assert right.recv(100) == b"three"


def test_multishot_without_buffers_is_refused(ring: Ring, pair: Pair) -> None:
    """RecvSendFlags.RECV_MULTISHOT needs SqeFlags.BUFFER_SELECT."""
    prep_recv(ring, pair[0].fileno(), bytearray(4), ioprio=RecvSendFlags.RECV_MULTISHOT)
    assert result(ring) == -errno.EINVAL


@effect(PbufRingFlags.INC, CqeFlags.BUF_MORE)
def test_incremental_buffers(make_ring: type[Ring], pair: Pair) -> None:
    """A large buffer is filled bit by bit, and says so; the next bytes stand behind."""
    ring = make_ring()
    left, right = pair
    buffers = ring.setup_buf_ring(2, 1, 8, incremental=True)
    at = 0
    for text, more in ((b"abc", True), (b"de", True), (b"fgh", False)):
        left.send(text)
        prep_recv(ring, right.fileno(), 0, buf_group=2, len_bytes=0)
        [one] = done(ring)
        assert (one.res, one.buffer_id) == (len(text), 0)
        assert bool(one.flags & CqeFlags.BUF_MORE) is more
        assert buffers.view(0, one.res, at) == text
        at += one.res


@effect(Opcode.SENDMSG, Opcode.RECVMSG)
def test_messages(ring: Ring, pair: Pair) -> None:
    """Pieces and a descriptor cross, and are put together again."""
    left, right = (one.fileno() for one in pair)
    reading, writing = os.pipe()
    passed = struct.pack("=Qiii4x", 20, socket.SOL_SOCKET, socket.SCM_RIGHTS, writing)
    prep_sendmsg(ring, left, Message(Vectors([b"ab", b"cd"], writable=False), control=passed))
    assert result(ring) == 4
    room, control = bytearray(6), bytearray(24)
    message = Message(Vectors([room], writable=True), control=control)
    prep_recvmsg(ring, right, message, socket.MSG_CMSG_CLOEXEC)
    assert (result(ring), room) == (4, b"abcd\0\0")
    assert (message.control_bytes, message.flags & socket.MSG_CTRUNC) == (24, 0)
    arrived = array.array("i", control[16:20])[0]
    os.write(arrived, b"same pipe")
    assert os.read(reading, 100) == b"same pipe"
    for fd in (reading, writing, arrived):
        os.close(fd)


def test_recvmsg_names_the_sender(ring: Ring, udp: Pair) -> None:
    """The address is in the room for it, and its length in the message."""
    left, right = udp
    left.sendto(b"hello", right.getsockname())
    name = bytearray(28)
    message = Message(Vectors([bytearray(10)], writable=True), name=name)
    prep_recvmsg(ring, right.fileno(), message)
    assert result(ring) == 5
    assert message.name_bytes == 16
    assert unpack_sockaddr(bytes(name[:16])) == left.getsockname()


def test_recvmsg_multishot(ring: Ring, udp: Pair) -> None:
    """
    Each datagram stands in a buffer of its own, behind its sender.

    An empty one ends the request, as the end of a stream would.
    """
    left, right = udp
    buffers = ring.setup_buf_ring(5, 4, 128)
    message = Message(name_bytes=28)
    prep_recvmsg_multishot(ring, right.fileno(), message, 5)
    ring.submit()
    for text in (b"one", b"three", b""):
        left.sendto(text, right.getsockname())
        [one] = done(ring)
        assert one.more is bool(text)
        assert one.buffer_id is not None
        received = unpack_recvmsg(buffers.view(one.buffer_id, one.res), message)
        assert bytes(received.payload) == text
        assert unpack_sockaddr(bytes(received.name)) == left.getsockname()


@effect(Opcode.SEND_ZC)
@effect(RecvSendFlags.SEND_ZC_REPORT_USAGE, CqeFlags.NOTIF, NotifUsage.ZC_COPIED)
def test_send_zc(ring: Ring, tcp: Pair) -> None:
    """Two completions: the bytes are sent, then the memory is free; only then it is let go of."""
    left, right = tcp
    prep_send_zc(
        ring, left.fileno(), bytearray(b"zero copy"),
        zc_flags=RecvSendFlags.SEND_ZC_REPORT_USAGE, user_data=3,
    )  # fmt: skip
    ring.submit()
    assert ring.statistics().held == 1
    sent, free = until_end(ring)
    assert (sent.res, sent.more) == (9, True)
    assert right.recv(100) == b"zero copy"
    assert (free.more, free.flags & CqeFlags.NOTIF) == (False, CqeFlags.NOTIF)
    assert free.res & 0xFFFFFFFF == NotifUsage.ZC_COPIED  # as the loopback always does
    assert ring.statistics().held == 0


@effect(RecvSendFlags.FIXED_BUF)
def test_send_zc_fixed(ring: Ring, tcp: Pair) -> None:
    """Registered memory goes out the same way, and no other does."""
    memory = allocate(4096)
    memory.view[:5] = b"fixed"
    ring.register_buffers([memory])
    prep_send_zc_fixed(ring, tcp[0].fileno(), memory, 0, 0, 0, len_bytes=5)
    sent, free = until_end(ring)
    assert (sent.res, free.flags) == (5, CqeFlags.NOTIF)
    assert tcp[1].recv(100) == b"fixed"
    prep_send_zc_fixed(ring, tcp[0].fileno(), allocate(8), 0, 0, 0, len_bytes=5)
    assert until_end(ring)[0].res == -errno.EFAULT


@effect(Opcode.SENDMSG_ZC)
def test_sendmsg_zc(ring: Ring, tcp: Pair) -> None:
    """A message in pieces goes out the same way."""
    prep_sendmsg_zc(ring, tcp[0].fileno(), Message(Vectors([b"in ", b"pieces"], writable=False)))
    sent, free = until_end(ring)
    assert (sent.res, free.flags) == (9, CqeFlags.NOTIF)
    assert tcp[1].recv(100) == b"in pieces"


@effect(Opcode.SHUTDOWN)
def test_shutdown(ring: Ring, pair: Pair) -> None:
    """The peer sees the end of one direction; the other goes on."""
    left, right = pair
    prep_shutdown(ring, left.fileno(), socket.SHUT_WR)
    assert result(ring) == 0
    assert right.recv(10) == b""
    right.send(b"still")
    assert left.recv(10) == b"still"


@effect(Opcode.URING_CMD)
@effect(
    SocketUringOp.SETSOCKOPT,
    SocketUringOp.GETSOCKOPT,
    SocketUringOp.SIOCINQ,
    SocketUringOp.SIOCOUTQ,
)
def test_socket_commands(ring: Ring, tcp: Pair) -> None:
    """Options are set and read, and queues measured."""
    left, right = tcp
    value = struct.pack("i", 1)
    set_, get = SocketUringOp.SETSOCKOPT, SocketUringOp.GETSOCKOPT
    prep_cmd_sock(ring, set_, left.fileno(), socket.SOL_SOCKET, socket.SO_KEEPALIVE, value)
    assert result(ring) == 0
    assert left.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
    room = bytearray(4)
    prep_cmd_sock(ring, get, left.fileno(), socket.SOL_SOCKET, socket.SO_KEEPALIVE, room)
    assert (result(ring), bytes(room)) == (4, value)
    right.send(b"seven b")
    left.recv(1, socket.MSG_PEEK)
    prep_cmd_sock(ring, SocketUringOp.SIOCINQ, left.fileno(), 0, 0, b"")
    assert result(ring) == 7
    prep_cmd_sock(ring, SocketUringOp.SIOCOUTQ, left.fileno(), 0, 0, b"")
    assert result(ring) == 0


@effect(Opcode.EPOLL_CTL, Opcode.EPOLL_WAIT)
def test_epoll(ring: Ring, pair: Pair) -> None:
    """What was added is reported by the poller, and by a request that waits on it."""
    left, right = pair
    with select.epoll() as poller:
        event = pack_epoll_event(select.EPOLLIN, 77)
        prep_epoll_ctl(ring, poller.fileno(), right.fileno(), 1, event)  # EPOLL_CTL_ADD
        assert result(ring) == 0
        room = bytearray(4 * len(event))
        prep_epoll_wait(ring, poller.fileno(), room, 4)
        assert ring.wait(1, 0) == []
        left.send(b"x")
        assert result(ring) == 1
        assert unpack_epoll_events(room, 1) == [(select.EPOLLIN, 77)]
        prep_epoll_ctl(ring, poller.fileno(), right.fileno(), 2, event)  # EPOLL_CTL_DEL
        assert result(ring) == 0
        assert poller.poll(0) == []


@effect(RegisterOp.PBUF_STATUS)
def test_head_of_a_buffer_ring(ring: Ring, pair: Pair) -> None:
    """The kernel counts what it has taken."""
    ring.setup_buf_ring(1, 4, 8)
    assert ring.buf_ring_head(1) == 0
    pair[0].send(b"x")
    prep_recv(ring, pair[1].fileno(), 0, buf_group=1, len_bytes=0)
    done(ring)
    assert ring.buf_ring_head(1) == 1


def test_cancelled_receive_keeps_its_memory_until_it_ends(ring: Ring, pair: Pair) -> None:
    """Memory that the program has forgotten is held while the kernel may write to it."""
    prep_recv(ring, pair[0].fileno(), bytearray(100), user_data=8)
    ring.submit()
    assert ring.statistics().held == 1
    assert ring.register_sync_cancel(8, timeout_ns=PATIENCE_NS) == 0
    assert ring.statistics().held == 1
    [one] = done(ring)
    assert one.res in {-errno.ECANCELED, -errno.EINTR}
    assert ring.statistics().held == 0
