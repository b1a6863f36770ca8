"""
Stream sockets: TCP over IPv4 and IPv6, and Unix.

Calls that are one operation (`SocketStream.recv`, `SocketStream.send_all`, `Listener.accept`, ...)
return an op: nothing happens until it is awaited.  All of them work in tasks under `uringio.run` and
in asyncio tasks on the loop of `uringio.aio`.

One reader and one writer at a time: a second concurrent `recv` (or `send_all`) on a stream raises
`BusyError`.  No byte is ever lost to a cancelled `recv`: what had arrived is kept for the next one.
"""

import errno
import logging
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from types import TracebackType
from typing import Final, TypeVar

from uringio._driver import current
from uringio._driver.contract import Driver
from uringio._driver.op import (
    ACCEPT,
    CLOSE,
    CONNECT,
    EVENT,
    NEW,
    READY,
    RECV,
    SEND_ALL,
    SHUTDOWN,
    SPENT,
    STALE,
    Offload,
    Op,
)
from uringio._driver.sockets import (
    SEND_ALL_FLAGS,
    Address,
    AddressInfo,
    SocketOption,
    numeric_address,
    open_listener,
    open_stream_socket,
    unix_address,
)
from uringio._own.fd import OwnedFd
from uringio.clock import sleep
from uringio.errors import BusyError, ClosedError, EndOfStreamError, UsageError

__all__ = [
    "Address",
    "Listener",
    "SocketOption",
    "SocketStream",
    "connect_tcp",
    "connect_unix",
    "listen_tcp",
    "listen_unix",
]

T = TypeVar("T")

_SHUT_WR: Final = 1
_SOCKADDR_BYTES: Final = 128
# What one SQE can carry; the kernel stops a little below 2 GiB anyway.
_SEND_BYTES_MAX: Final = 1 << 30
_BACKLOG: Final = 4096
# How long accepting rests when descriptors have run out, unless a connection ends before.
_EXHAUSTED_SECONDS: Final = 0.1
_EXHAUSTED: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
# What accept(2) reports of a connection that broke while it waited in the backlog.
_PEER_GONE: Final = frozenset({
    errno.ECONNABORTED, errno.EPERM, errno.EPROTO, errno.ENETDOWN, errno.ENOPROTOOPT,
    errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENETUNREACH, errno.ENONET,
})  # fmt: skip


class SocketStream:
    """
    A connected stream socket.

    Made by `connect_tcp`, `connect_unix` and `Listener.accept`.  Close it, or use it as an async
    context manager.

    Attributes:
        local_address: This end's address, as the standard library writes it.
        remote_address: The peer's.
    """

    __slots__ = ("__weakref__", "_driver", "_fd", "_recv_op", "_remote", "_send_op", "_unread")

    def __init__(self, driver: Driver, fd: int, remote: bytes | None = None) -> None:
        self._driver = driver
        self._fd = OwnedFd(fd, driver.system.close, "stream")
        self._remote = remote
        self._unread: deque[bytes] = deque()
        # One op object per direction for the stream's whole life; `state` says whether it is free.
        self._recv_op: Op[bytes] = self._make_recv_op(fd)
        self._send_op: Op[None] = self._make_send_op(fd)

    def __repr__(self) -> str:
        return f"<SocketStream {self._fd!r}>"

    # --- receiving -------------------------------------------------------------------------------

    def recv(self, max_bytes: int = 65536, /) -> Op[bytes]:
        """
        Wait for bytes.

        Args:
            max_bytes: The most to return, at least 1; a driver may return less. [bytes]

        Returns:
            Between 1 and *max_bytes* bytes, or ``b""`` once the peer has sent its last.

        Raises:
            ClosedError: The stream was closed, before the call or during it.
            BusyError: Another task is receiving.
            OpError: The connection broke, such as `ConnectionResetError`.

        Cancellation: bytes that had arrived are kept for the next call.

        Source: recv(2).
        """
        op = self._recv_op
        if op.state != SPENT or self._unread or max_bytes < 1:
            return self._recv_otherwise(max_bytes)
        op.state = NEW
        op.error = None
        op.len = max_bytes
        return op

    async def recv_exactly(self, count: int, /) -> bytes:
        """
        Wait for exactly *count* bytes.

        Raises:
            EndOfStreamError: The peer ended first; ``partial`` has what came.
            ClosedError, BusyError, OpError: As `recv`.

        Cancellation: what had arrived is kept for the next call, as after an error.
        """
        if count < 0:
            raise ValueError(f"a count of bytes is from 0 up, not {count}")
        chunks: list[bytes] = []
        missing = count
        try:
            while missing:
                chunk = await self.recv(min(missing, 65536))
                if not chunk:
                    partial = b"".join(chunks)
                    chunks.clear()
                    raise EndOfStreamError(count, partial)
                chunks.append(chunk)
                missing -= len(chunk)
        except BaseException:
            self._unread.extendleft(reversed(chunks))
            raise
        return b"".join(chunks)

    def __aiter__(self) -> AsyncIterator[bytes]:
        """Iterate over chunks as they arrive, until the peer's end."""
        return self._chunks()

    async def _chunks(self) -> AsyncIterator[bytes]:
        while chunk := await self.recv():
            yield chunk

    def _recv_otherwise(self, max_bytes: int) -> Op[bytes]:
        """`recv` in every case but the plainest."""
        if max_bytes < 1:
            raise ValueError(f"max_bytes is at least 1, not {max_bytes}")
        fd = self._fd.number
        op = self._recv_op
        if op.state == NEW:
            # Handed out and not started.  Whoever holds it may still try to, and must be refused.
            op.state = STALE
        elif op.state != SPENT:
            raise BusyError(f"another task is receiving on {self!r}")
        if self._unread:
            return Op(READY, finish=lambda _: self._take_unread(max_bytes))
        op = self._recv_op = self._make_recv_op(fd)
        op.state = NEW
        op.len = max_bytes
        return op

    def _take_unread(self, max_bytes: int) -> bytes:
        unread = self._unread
        if not unread:
            raise BusyError(f"another task took what was kept on {self!r}")
        chunk = unread.popleft()
        if len(chunk) > max_bytes:
            unread.appendleft(chunk[max_bytes:])
            chunk = chunk[:max_bytes]
        return chunk

    def _make_recv_op(self, fd: int) -> Op[bytes]:
        op: Op[bytes] = Op(RECV, fd, owner=self)
        op.home = self._driver
        op.state = SPENT
        return op

    # --- sending ---------------------------------------------------------------------------------

    def send_all(self, data: bytes | bytearray | memoryview, /) -> Awaitable[None]:
        """
        Send every byte of *data*, waiting where the peer is slow.

        Lifetime: *data* is held until the kernel has taken it all; a `bytearray` cannot be resized
        meanwhile, and changing its contents changes what is sent.

        Raises:
            ClosedError: The stream was closed, before the call or during it.
            BusyError: Another task is sending.
            OpError: The connection broke, such as `BrokenPipeError`; ``done`` counts what had left.

        Cancellation: some of the bytes may have been sent; the exception's ``done`` counts them.

        Source: send(2).
        """
        op = self._send_op
        if op.state != SPENT or type(data) is not bytes or not data:
            return self._send_otherwise(data)
        op.state = NEW
        op.error = None
        op.memory = data
        op.len = len(data)
        op.done_bytes = 0
        return op

    def send_eof(self) -> Op[None]:
        """
        Tell the peer that no more bytes follow; receiving goes on.

        Raises:
            ClosedError: The stream is closed.
            OpError: The peer is gone (ENOTCONN).

        Source: shutdown(2).
        """
        op: Op[None] = Op(SHUTDOWN, self._fd.number, len_=_SHUT_WR)
        op.home = self._driver
        return op

    def _send_otherwise(self, data: bytes | bytearray | memoryview) -> Awaitable[None]:
        """`send_all` in every case but the plainest."""
        fd = self._fd.number
        op = self._send_op
        if op.state == NEW:
            op.state = STALE
            op.memory = None
        elif op.state != SPENT:
            raise BusyError(f"another task is sending on {self!r}")
        view = memoryview(data)
        if view.nbytes == 0:
            return Op(READY)
        if view.nbytes > _SEND_BYTES_MAX:
            return self._send_in_pieces(view.cast("B"))
        op = self._send_op = self._make_send_op(fd)
        op.state = NEW
        op.memory = data
        op.len = view.nbytes
        return op

    async def _send_in_pieces(self, view: memoryview) -> None:
        for start in range(0, view.nbytes, _SEND_BYTES_MAX):
            await self._send_otherwise(view[start : start + _SEND_BYTES_MAX])

    def _make_send_op(self, fd: int) -> Op[None]:
        op: Op[None] = Op(SEND_ALL, fd, flags=SEND_ALL_FLAGS, owner=self)
        op.home = self._driver
        op.state = SPENT
        return op

    # --- the ends --------------------------------------------------------------------------------

    @property
    def local_address(self) -> Address:
        """This end's address; raises `ClosedError`."""
        return self._driver.system.getsockname(self._fd.number)

    @property
    def remote_address(self) -> Address:
        """The peer's address; raises `OpError` (ENOTCONN) where it is not known any more."""
        if self._remote is not None:
            return self._driver.system.unpack_sockaddr(self._remote)
        return self._driver.system.getpeername(self._fd.number)

    def fileno(self) -> int:
        """The descriptor, which stays the stream's; raises `ClosedError`."""
        return self._fd.number

    def setsockopt(self, level: int, option: int, value: int | bytes) -> None:
        """Set a socket option by its numbers; raises `OpError`."""
        self._driver.system.setsockopt(self._fd.number, level, option, value)

    def getsockopt(self, level: int, option: int) -> int:
        """Return an integer socket option by its numbers; raises `OpError`."""
        return self._driver.system.getsockopt(self._fd.number, level, option)

    def aclose(self) -> Op[None]:
        """
        Close the stream; safe to call twice.

        Tasks that are receiving or sending get `ClosedError`.

        Cancellation: the stream is closed all the same.
        """
        return _aclose(self._driver, self._fd, self._recv_op, self._send_op)

    async def __aenter__(self) -> "SocketStream":
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    def orphan(self, op: Op[T], value: object, /) -> None:
        """Keep the bytes that a cancelled receive had got; see `Owner`."""
        if isinstance(value, bytes) and value:
            self._unread.append(value)


class Listener:
    """
    A listening stream socket.

    Attributes:
        local_address: Where it listens, as the standard library writes it.
    """

    def __init__(self, driver: Driver, fd: int) -> None:
        self._driver = driver
        self._fd = OwnedFd(fd, driver.system.close, "listener")
        self.local_address: Address = driver.system.getsockname(fd)
        # Where the kernel writes the peer's address and its length while an accept is in flight.
        self._peer = driver.system.allocate(4096)
        self._accept_op: Op[SocketStream] = Op(
            ACCEPT,
            fd,
            addr=self._peer.addr,
            off=self._peer.addr + _SOCKADDR_BYTES,
            owner=self,
            finish=self._accepted,
        )
        self._accept_op.home = driver
        self._accept_op.state = SPENT

    def __repr__(self) -> str:
        return f"<Listener {self.local_address!r}>"

    def accept(self) -> Op[SocketStream]:
        """
        Wait for a connection.

        Raises:
            ClosedError: The listener was closed, before the call or during it.
            OpError: Such as EMFILE, when no descriptor is left.

        Cancellation: a connection that had been accepted is closed.

        Source: accept4(2).
        """
        op = self._accept_op
        if op.state != SPENT:
            fd = self._fd.number
            # Another task waits here too, or forgot to: this one does without the shared memory.
            return Op(ACCEPT, fd, owner=self, finish=self._accepted_plain)
        op.state = NEW
        op.error = None
        length = self._peer.view[_SOCKADDR_BYTES : _SOCKADDR_BYTES + 4].cast("I")
        length[0] = _SOCKADDR_BYTES
        return op

    def __aiter__(self) -> AsyncIterator[SocketStream]:
        """Iterate over connections for ever."""
        return self._connections()

    async def _connections(self) -> AsyncIterator[SocketStream]:
        while True:
            yield await self.accept()

    async def serve(
        self,
        handler: Callable[[SocketStream], Coroutine[object, None, None]],
        *,
        max_connections: int | None = None,
        on_error: Callable[[Exception, SocketStream], None] | None = None,
    ) -> None:
        """
        Run ``handler(stream)`` as a task for each connection, until cancelled.

        Handlers are isolated.  A connection error out of one closes that connection quietly; any
        other exception goes to *on_error*; neither ends the server.  The stream is closed when its
        handler has ended.

        Args:
            handler: An async function of one argument.
            max_connections: Accept no more while so many handlers run. [count]
            on_error: Called with the exception and the stream; by default the exception is logged.

        Raises:
            ClosedError: The listener was closed.
            OpError: Accepting failed for good.  Running out of descriptors is not that: it pauses
                accepting until some are free.

        Cancellation: every handler is cancelled and waited for.
        """
        if max_connections is not None and max_connections < 1:
            raise ValueError(f"max_connections is at least 1, not {max_connections}")
        async with current.scheduler().serving_group() as group:
            room = _Room(self._driver, max_connections)
            while True:
                await room.wait()
                try:
                    stream = await self.accept()
                except OSError as error:
                    if error.errno in _EXHAUSTED:
                        await sleep(_EXHAUSTED_SECONDS)
                    elif error.errno not in _PEER_GONE:
                        raise
                    continue
                room.taken += 1
                group.spawn(_serve_one(handler, stream, on_error, room))

    def aclose(self) -> Op[None]:
        """Stop listening; safe to call twice.  A task in `accept` gets `ClosedError`."""
        return _aclose(self._driver, self._fd, self._accept_op)

    async def __aenter__(self) -> "Listener":
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    def orphan(self, op: Op[T], value: object, /) -> None:
        """Close a connection whose acceptor had been cancelled; see `Owner`."""
        if isinstance(value, int):
            self._driver.system.close(value)

    def _accepted(self, value: object) -> SocketStream:
        assert isinstance(value, int)
        peer = self._peer.view
        len_bytes = min(peer[_SOCKADDR_BYTES : _SOCKADDR_BYTES + 4].cast("I")[0], _SOCKADDR_BYTES)
        return SocketStream(self._driver, value, bytes(peer[:len_bytes]))

    def _accepted_plain(self, value: object) -> SocketStream:
        assert isinstance(value, int)
        return SocketStream(self._driver, value)


class _Room:
    """Counts a server's connections, and lets the acceptor wait for one to end."""

    def __init__(self, driver: Driver, max_connections: int | None) -> None:
        self._driver = driver
        self._max = max_connections
        self._waiting: Op[None] | None = None
        self.taken = 0

    async def wait(self) -> None:
        """Return when there is room."""
        while self._max is not None and self.taken >= self._max:
            self._waiting = Op(EVENT)
            await self._waiting

    def release(self) -> None:
        """Give one place back."""
        self.taken -= 1
        if self._waiting is not None:
            waiting, self._waiting = self._waiting, None
            self._driver.fire(waiting)


async def _serve_one(
    handler: Callable[[SocketStream], Coroutine[object, None, None]],
    stream: SocketStream,
    on_error: Callable[[Exception, SocketStream], None] | None,
    room: _Room,
) -> None:
    try:
        await handler(stream)
    except (ConnectionError, EndOfStreamError):
        pass  # the peer went away; nobody here can do anything about it
    except Exception as error:
        if on_error is not None:
            on_error(error, stream)
        else:
            logging.getLogger("uringio").exception("the handler of %r failed", stream)
    finally:
        room.release()
        await stream.aclose()


def _aclose(driver: Driver, owned: OwnedFd, *ops: Op[T] | Op[None]) -> Op[None]:
    """End the ops in flight on a handle with `ClosedError`, and return the op that closes it."""
    if owned.closed:
        return Op(READY)
    if current.driver() is not driver:
        raise UsageError("a handle is closed in the loop that it belongs to")
    fd = owned.take()
    reason = ClosedError(f"fd {fd} was closed by another task during the operation")
    for op in ops:
        if not driver.cancel(op, reason):
            op.state = STALE  # whatever is asked of the handle now takes the long way, to the error
    driver.unregister(fd)
    closing: Op[None] = Op(CLOSE, fd)
    closing.home = driver
    return closing


# --- opening -------------------------------------------------------------------------------------


async def listen_tcp(
    host: str,
    port: int,
    *,
    backlog: int = _BACKLOG,
    reuse_port: bool = False,
    options: Sequence[SocketOption] = (),
) -> Listener:
    """
    Listen on one TCP address.

    Args:
        host: A numeric address or a name; of a name the first address that can be bound is taken.
            ``"0.0.0.0"`` and ``"::"`` are all IPv4 and all IPv6 interfaces.
        port: 0..65535; 0 lets the kernel choose, and `Listener.local_address` tell.
        backlog: Connections that may wait to be accepted. [count]
        reuse_port: Share the port with other listeners that say so too (SO_REUSEPORT).
        options: Further socket options as (level, option, value), set before binding.

    Raises:
        OpError: The address cannot be bound, such as EADDRINUSE or EACCES.
        OSError: The name cannot be resolved (``socket.gaierror``).

    TCP_NODELAY is on for every accepted connection.
    """
    driver = current.driver()
    failure: OSError | None = None
    for info in await _resolve(driver, host, port):
        try:
            fd = open_listener(
                driver, info, backlog=backlog, reuse_port=reuse_port, options=options
            )
        except OSError as error:
            failure = failure or error
            continue
        return Listener(driver, fd)
    assert failure is not None
    raise failure


async def listen_unix(
    path: str | bytes, *, backlog: int = _BACKLOG, options: Sequence[SocketOption] = ()
) -> Listener:
    """
    Listen on a Unix stream socket.

    Args:
        path: Where; a leading NUL names the abstract namespace.  A socket that an earlier server
            left behind is replaced, any other file is not.  Closing leaves the path in place.

    Raises:
        ValueError: The path is too long.
        OpError: The path cannot be bound.
    """
    driver = current.driver()
    info = unix_address(driver.system, path)
    return Listener(driver, open_listener(driver, info, backlog=backlog, options=options))


async def connect_tcp(
    host: str, port: int, *, options: Sequence[SocketOption] = ()
) -> SocketStream:
    """
    Connect to a TCP address.

    Args:
        host: A numeric address or a name; the addresses of a name are tried one after another.
        port: 1..65535.
        options: Further socket options as (level, option, value), set before connecting.

    Raises:
        OpError: No address answered; the error is the first one's, such as
            `ConnectionRefusedError`.
        OSError: The name cannot be resolved (``socket.gaierror``).

    Cancellation: at once; the socket is closed.

    TCP_NODELAY is on.
    """
    driver = current.driver()
    failure: OSError | None = None
    for info in await _resolve(driver, host, port):
        try:
            return await _connect(driver, info, options)
        except OSError as error:
            failure = failure or error
    assert failure is not None
    raise failure


async def connect_unix(path: str | bytes, *, options: Sequence[SocketOption] = ()) -> SocketStream:
    """
    Connect to a Unix stream socket.

    Raises:
        ValueError: The path is too long.
        OpError: Nobody listens there (`FileNotFoundError`, `ConnectionRefusedError`).

    Cancellation: at once; the socket is closed.
    """
    driver = current.driver()
    return await _connect(driver, unix_address(driver.system, path), options)


async def _connect(
    driver: Driver, info: AddressInfo, options: Sequence[SocketOption]
) -> SocketStream:
    fd, packed = open_stream_socket(driver, info, options)
    stream = SocketStream(driver, fd)
    op: Op[None] = Op(CONNECT, fd, off=len(packed), memory=packed)
    op.home = driver
    try:
        await op
    except OSError as error:
        await stream.aclose()
        error.add_note(f"while connecting to {info[3]!r}")
        raise
    except BaseException:
        await stream.aclose()
        raise
    return stream


async def _resolve(driver: Driver, host: str, port: int) -> Sequence[AddressInfo]:
    numeric = numeric_address(driver.system, host, port)
    if numeric is not None:
        return (numeric,)
    system = driver.system
    # In a worker that is abandoned on cancellation: a resolver may take minutes to give up.
    return await Offload(lambda: system.getaddrinfo(host, port, system.SOCK_STREAM))
