"""Connected sockets for tests: two streams of ours, or one of ours and a plain one."""

import fcntl
import os
import socket
import struct
import sys
import termios
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import uringio
from uringio import Listener, SocketStream

# A peer that does not answer makes the test fail rather than hang. [seconds]
PEER_S = 50.0


@asynccontextmanager
async def connected() -> AsyncIterator[tuple[SocketStream, SocketStream]]:
    """Yield the two ends of a TCP connection; both may be closed before the block ends."""
    async with await uringio.listen_tcp("127.0.0.1", 0) as listener:
        host, port = listener.local_address[:2]
        near = await uringio.connect_tcp(host, port)
        far = await listener.accept()
    async with near, far:
        yield near, far


@asynccontextmanager
async def with_peer(
    send_buffer_bytes: int | None = None,
) -> AsyncIterator[tuple[SocketStream, socket.socket]]:
    """Yield a stream and the standard library's socket at its other end."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        if send_buffer_bytes is not None:
            server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        options = (
            []
            if send_buffer_bytes is None
            else [(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer_bytes)]
        )
        stream = await uringio.connect_tcp(*server.getsockname(), options=options)
        peer, _ = server.accept()
    peer.settimeout(PEER_S)
    with peer:
        async with stream:
            yield stream, peer


def call(listener: Listener) -> socket.socket:
    """Connect to *listener* with a plain socket; its kernel's queue answers, so nobody waits."""
    address = listener.local_address
    if isinstance(address, tuple):
        family = socket.AF_INET if len(address) == 2 else socket.AF_INET6
    else:
        family = socket.AF_UNIX
    client = socket.socket(family)
    client.settimeout(PEER_S)
    try:
        client.connect(address)
    except BaseException:
        client.close()
        raise
    return client


@contextmanager
def deserted() -> Iterator[tuple[str, int]]:
    """Yield an address where nobody listens, and which nobody else is given during the block."""
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        yield reserved.getsockname()


def fill_queue(path: Path) -> list[bytes]:
    """Send datagrams until their receiver's queue is full; return what they hold."""
    sent: list[bytes] = []
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as other:
        try:
            while True:
                other.sendto(b"%d" % len(sent), str(path))
                sent.append(b"%d" % len(sent))
        except BlockingIOError:
            return sent


def reset(peer: socket.socket) -> None:
    """Close *peer* so that the other end gets a reset instead of an end."""
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    peer.close()


def queued_bytes(end: SocketStream | socket.socket) -> int:
    """Count what has arrived at *end* and was not received."""
    return int.from_bytes(fcntl.ioctl(end.fileno(), termios.FIONREAD, bytes(4)), sys.byteorder)


@contextmanager
def occupied(fd: int) -> Iterator[socket.socket]:
    """Put one end of a pair of sockets where *fd* was; yield the other, which sees its traffic."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        squatter, witness = (theirs, ours) if ours.fileno() != fd else (ours, theirs)
        extra = None
        if squatter.fileno() != fd:
            extra = fcntl.fcntl(squatter, fcntl.F_DUPFD_CLOEXEC, fd)
            assert extra == fd, "the descriptor's number is not free"
        witness.setblocking(False)
        try:
            yield witness
        finally:
            if extra is not None:
                os.close(extra)


def receive_all(peer: socket.socket) -> bytes:
    """Read a plain socket to its end."""
    return b"".join(iter(lambda: peer.recv(1 << 20), b""))
