"""
Servers: listening sockets, and the transports that come of them.

Each listening socket has one accept op, used again for every connection.  Closing a server has the
kernel let go of it on the spot, so that nobody can connect any more and the port is free when
`close` returns.
"""

import asyncio
import errno
import sys
import weakref
from asyncio import trsock
from collections.abc import Callable
from contextvars import Context
from functools import partial
from typing import TYPE_CHECKING, Final

from uringio._driver.contract import Driver
from uringio._driver.op import ACCEPT, DONE, NEW, SPENT, Op
from uringio._driver.sockets import ACCEPT_BROKEN, ACCEPT_EXHAUSTED

from .sockets import HeldSocket, Sock
from .tls import Tls
from .transport import StreamTransport

if TYPE_CHECKING:
    from .running import RunningLoop

__all__ = ["Listening", "Server"]

_SOCKADDR_BYTES: Final = 128
_RETRY_SECONDS: Final = 1.0
_PEER_GONE: Final = ACCEPT_BROKEN | {errno.EINTR}
# From 3.12 on asyncio's servers wait for their connections to end.
_WAITS_FOR_CLIENTS: Final = sys.version_info >= (3, 12)


class Listening:
    """
    One bound socket, and the accept op that serves it.

    Args:
        loop: The running loop.
        driver: The loop's driver.
        fd: The socket's descriptor.
        sock: The socket object that owns it, if the program brought one.
        path: Where a Unix socket is to be removed from when it closes.

    Attributes:
        on_closed: Hears when the descriptor is closed.
    """

    def __init__(
        self,
        loop: "RunningLoop",
        driver: Driver,
        fd: int,
        *,
        sock: Sock | None = None,
        path: str | bytes | None = None,
    ) -> None:
        self._loop = loop
        self._driver = driver
        self._fd = fd
        self._socket = HeldSocket(driver, fd, "server", sock)
        self._path = path
        self._inode = 0 if path is None else driver.system.socket_inode(path)
        self._closing = False
        self._busy = False  # whether a connection is being handed over right now
        self._retry: asyncio.TimerHandle | None = None
        self._connected: Callable[[int, bytes], None] | None = None
        self.on_closed: Callable[[Listening], None] | None = None
        # Where the kernel writes the peer's address and its length.
        self._peer = driver.system.allocate(4096)
        self._peer_len = self._peer.view[_SOCKADDR_BYTES : _SOCKADDR_BYTES + 4].cast("I")
        self._op: Op[object] = Op(
            ACCEPT,
            fd,
            addr=self._peer.addr,
            off=self._peer.addr + _SOCKADDR_BYTES,
            flags=driver.system.SOCK_CLOEXEC,
        )
        self._op.state = SPENT
        self._op.home = driver
        self._op.waiter = self._accepted
        loop.listening[fd] = self

    def start(
        self,
        backlog: int,
        context: Context,
        connected: Callable[[int, bytes], None],
    ) -> None:
        """
        Accept connections until `close`.

        Args:
            backlog: Connections that may wait to be accepted. [count]
            context: In which *connected* is called.
            connected: Takes each connection's descriptor and the peer's raw address.
        """
        self._driver.system.listen(self._fd, backlog)
        self._connected = connected
        self._op.context = context
        self._accept()

    def _accept(self) -> None:
        self._retry = None
        op = self._op
        op.state = NEW
        op.error = None
        self._peer_len[0] = _SOCKADDR_BYTES
        self._driver.submit(op)

    def _accepted(self, op: Op[object]) -> None:
        fd, op.value = op.value, None
        try:
            if self._closing:
                return
            self._busy = True
            if op.error is not None:
                self._accept_failed(op.error)
            else:
                assert isinstance(fd, int) and self._connected is not None
                self._connected(fd, bytes(self._peer.view[: self._peer_len[0]]))
        finally:
            self._busy = False
            if self._closing:
                self._release()
            elif self._retry is None:
                self._accept()

    def _accept_failed(self, error: BaseException) -> None:
        number = error.errno if isinstance(error, OSError) else None
        if number in _PEER_GONE:
            return
        self._retry = self._loop.call_later(_RETRY_SECONDS, self._accept)
        what = "out of system resources" if number in ACCEPT_EXHAUSTED else "failed"
        self._loop.call_exception_handler(
            {
                "message": f"accepting connections {what}; trying again in a second",
                "exception": error,
                "socket": self.socket(),
            }
        )

    def close(self) -> None:
        """Accept no more, and close the descriptor as soon as the kernel has let go of it."""
        if self._closing:
            return
        self._closing = True
        if self._retry is not None:
            self._retry.cancel()
        system, path = self._driver.system, self._path
        # Not in a forked child: its parent would be there for nobody.
        if path is not None and not self._loop.forked and self._inode == system.socket_inode(path):
            system.remove_stale_socket(path)
        op = self._op
        if self._loop.gone:
            self._release()  # its driver has seen to the op
        elif self._driver.cancel(op):
            if op.state != DONE:
                self._driver.turn(0)  # a waiting accept ends within the call that cancels it
            if op.state == DONE:
                op.waiter = _ignore
                self._release()
        elif not self._busy:
            self._release()

    def _release(self) -> None:
        if self._loop.listening.get(self._fd) is self:
            del self._loop.listening[self._fd]
        self._socket.close()
        if self.on_closed is not None:
            self.on_closed(self)

    def socket(self) -> trsock.TransportSocket:
        """Return the socket, to look at."""
        return self._socket.as_object()


def _ignore(op: Op[object]) -> None:
    """Wait for the accept op of a socket that is closed already."""


class Server(asyncio.Server):
    """
    See `asyncio.Server`.

    Each connection's protocol runs in a copy of the context in which the server was made.
    """

    def __init__(
        self,
        loop: "RunningLoop",
        driver: Driver,
        listeners: list[Listening],
        protocol_factory: Callable[[], asyncio.BaseProtocol],
        backlog: int,
        context: Context,
        tls: Tls | None,
    ) -> None:
        self._loop = loop
        self._driver = driver
        self._tls = tls
        self._listeners = listeners  # those whose descriptor is not closed
        self._protocol_factory = protocol_factory
        self._backlog = backlog
        self._context = context
        self._serving = False
        self._closed = False
        self._clients: weakref.WeakSet[StreamTransport] = weakref.WeakSet()
        self._waiters: list[asyncio.Future[None]] | None = []  # None: all has ended
        self._forever: asyncio.Future[None] | None = None
        for listening in listeners:
            listening.on_closed = self._listening_closed

    def __repr__(self) -> str:
        return f"<Server sockets={self.sockets!r}>"

    def get_loop(self) -> asyncio.AbstractEventLoop:
        """Return the loop that serves."""
        return self._loop

    def is_serving(self) -> bool:
        """Whether connections are accepted."""
        return self._serving

    @property
    def sockets(self) -> tuple[trsock.TransportSocket, ...]:  # type: ignore[override]
        """The listening sockets, none once the server is closed."""
        if self._closed:
            return ()
        return tuple(listening.socket() for listening in self._listeners)

    @property
    def _sockets(self) -> list[trsock.TransportSocket] | None:
        # asyncio's own server has it, and some look at it to see whether the server is closed.
        return None if self._closed else list(self.sockets)

    def begin(self) -> None:
        """
        Accept connections from now on; safe to call twice.

        Raises:
            RuntimeError: The server is closed.
        """
        if self._closed:
            raise RuntimeError(f"{self!r} is closed")
        if self._serving:
            return
        self._serving = True
        for listening in self._listeners:
            listening.start(self._backlog, self._context.copy(), self._connected)

    def _connected(self, fd: int, peer: bytes) -> None:
        context = self._context.copy()
        tls = self._tls
        waiter: asyncio.Future[None] | None = None
        try:
            protocol = context.run(self._protocol_factory)
            if tls is not None:
                if self._loop.get_debug():
                    waiter = self._loop.create_future()
                protocol = context.run(tls.wrap, self._loop, protocol, waiter)
        except BaseException as error:
            self._driver.unregister(fd)
            self._driver.system.close(fd)
            if isinstance(error, KeyboardInterrupt | SystemExit):
                raise
            self._loop.call_exception_handler(
                {
                    "message": "Error on transport creation for incoming connection",
                    "exception": error,
                }
            )
            return
        transport = StreamTransport(
            self._loop, self._driver, fd, protocol, context, server=self, peer=peer
        )
        self._clients.add(transport)
        if waiter is not None:
            waiter.add_done_callback(partial(self._handshake_ended, transport, protocol))
        context.run(transport.introduce)
        transport.read_on()

    def _handshake_ended(
        self,
        transport: StreamTransport,
        protocol: asyncio.BaseProtocol,
        waiter: "asyncio.Future[None]",
    ) -> None:
        """Report a handshake that failed, which asyncio does in debug mode only."""
        error = waiter.exception()
        if error is not None:
            self._loop.call_exception_handler(
                {
                    "message": "Error on transport creation for incoming connection",
                    "exception": error,
                    "transport": transport,
                    "protocol": protocol,
                }
            )

    def detach(self, transport: StreamTransport, /) -> None:
        """Forget a transport that has ended."""
        self._clients.discard(transport)
        self._maybe_finish()

    def _listening_closed(self, listening: Listening) -> None:
        self._listeners.remove(listening)
        self._maybe_finish()

    def _maybe_finish(self) -> None:
        if not self._closed or self._listeners or (_WAITS_FOR_CLIENTS and self._clients):
            return
        waiters, self._waiters = self._waiters, None
        for waiter in waiters or ():
            if not waiter.done():
                waiter.set_result(None)

    def close(self) -> None:
        """Accept no more; connections that stand stay.  Safe to call twice."""
        if self._closed:
            return
        self._closed = True
        self._serving = False
        for listening in list(self._listeners):
            listening.close()
        if self._forever is not None and not self._forever.done():
            self._forever.cancel()

    def close_clients(self) -> None:
        """Close every connection that the server accepted."""
        for transport in list(self._clients):
            transport.close()

    def abort_clients(self) -> None:
        """Abort every connection that the server accepted."""
        for transport in list(self._clients):
            transport.abort()

    async def start_serving(self) -> None:
        """
        Accept connections from now on; safe to call twice.

        Raises:
            RuntimeError: The server is closed.
        """
        self.begin()
        await asyncio.sleep(0)

    async def serve_forever(self) -> None:
        """
        Accept connections until cancelled, which closes the server.

        Raises:
            RuntimeError: The server is closed, or another task is in here.
        """
        if self._forever is not None:
            raise RuntimeError(f"another task is in serve_forever() of {self!r}")
        self.begin()
        self._forever = self._loop.create_future()
        try:
            await self._forever
        except asyncio.CancelledError:
            self.close()
            await self.wait_closed()
            raise
        finally:
            self._forever = None

    async def wait_closed(self) -> None:
        """Wait until the server is closed and, from Python 3.12 on, its connections have ended."""
        if self._waiters is None:
            return
        waiter: asyncio.Future[None] = self._loop.create_future()
        self._waiters.append(waiter)
        await waiter
