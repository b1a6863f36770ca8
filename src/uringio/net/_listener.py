"""Listening stream sockets, and the server's loop on them."""

import errno
import logging
import weakref
from collections.abc import AsyncIterator, Callable, Coroutine
from types import TracebackType
from typing import Final, Self, TypeVar, cast

from uringio._driver import current
from uringio._driver.contract import Driver
from uringio._driver.op import ACCEPT, EVENT, NEW, SPENT, STALE, TIMEOUT, Op
from uringio._driver.sockets import ACCEPT_BROKEN, ACCEPT_EXHAUSTED, SocketAddress
from uringio._own.fd import OwnedFd
from uringio.errors import EndOfStreamError, OpError

from ._closing import BoundPath, close_op
from ._stream import SocketStream

__all__ = ["Listener"]

T = TypeVar("T")

_SOCKADDR_BYTES: Final = 128
# How long accepting rests when descriptors have run out, unless a connection ends before.
_EXHAUSTED_NS: Final = 100_000_000
# How else than by a `ConnectionError` a connection ends that nobody ended.
_PEER_LOST: Final = frozenset({
    errno.ETIMEDOUT, errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENETDOWN, errno.ENETUNREACH,
    errno.ENOTCONN,
})  # fmt: skip

_CLOSED_ACCEPT: Final[Op[SocketStream]] = Op(ACCEPT)
_CLOSED_ACCEPT.state = STALE

Handler = Callable[[SocketStream], Coroutine[object, None, None]]
OnError = Callable[[Exception, SocketStream], None]


class _Porch:
    """What a listener's operations keep alive: its descriptor, and memory for a peer's address."""

    def __init__(self, driver: Driver, fd: OwnedFd, is_unix: bool) -> None:
        self.fd = fd
        self._driver = driver
        self._reads_ahead = not is_unix
        # Where the kernel writes the peer's address and its length while an accept is in flight.
        self._memory = driver.system.allocate(4096)
        self.addr = self._memory.addr
        self.len_addr = self.addr + _SOCKADDR_BYTES
        self._peer = self._memory.view[:_SOCKADDR_BYTES]
        self._len = self._memory.view[_SOCKADDR_BYTES : _SOCKADDR_BYTES + 4].cast("I")

    def clear(self) -> None:
        """Tell the kernel how much room there is for the next peer's address."""
        self._len[0] = _SOCKADDR_BYTES

    def accepted(self, value: object) -> SocketStream:
        """Turn an accepted descriptor, and the address beside it, into a stream."""
        assert isinstance(value, int)
        peer = bytes(self._peer[: min(self._len[0], _SOCKADDR_BYTES)])
        return SocketStream(self._driver, value, peer, reads_ahead=self._reads_ahead)

    def accepted_plain(self, value: object) -> SocketStream:
        """Turn an accepted descriptor into a stream."""
        assert isinstance(value, int)
        return SocketStream(self._driver, value, reads_ahead=self._reads_ahead)

    def orphan(self, op: Op[T], value: object, /) -> None:
        """Close a connection whose acceptor had been cancelled; see `Owner`."""
        if isinstance(value, int):
            self._driver.unregister(value)
            self._driver.system.close(value)


class Listener:
    """
    A listening stream socket.

    Made by `listen_tcp` and `listen_unix`.  Close it, or use it as an async context manager.

    Attributes:
        local_address: Where it listens, as the standard library writes it.
    """

    __slots__ = (
        "__weakref__",
        "_accept_op",
        "_driver",
        "_fd",
        "_others",
        "_path",
        "_porch",
        "local_address",
    )

    def __init__(self, driver: Driver, fd: int, path: BoundPath | None = None) -> None:
        self._driver = driver
        self._path = path
        self._fd = OwnedFd(fd, driver.system.close, "listener")
        self.local_address: SocketAddress = driver.system.getsockname(fd)
        porch = self._porch = _Porch(driver, self._fd, not isinstance(self.local_address, tuple))
        self._accept_op: Op[SocketStream] = Op(
            ACCEPT,
            fd,
            addr=porch.addr,
            off=porch.len_addr,
            flags=driver.system.SOCK_CLOEXEC,
            owner=porch,
            finish=porch.accepted,
        )
        self._accept_op.home = driver
        self._accept_op.state = SPENT
        # The ops of further tasks that accept at the same time.
        self._others: weakref.WeakSet[Op[SocketStream]] = weakref.WeakSet()

    def __repr__(self) -> str:
        return f"<Listener {self.local_address!r}>"

    def accept(self) -> Op[SocketStream]:
        """
        Wait for a connection; several tasks may do so at once.

        Raises:
            ClosedError: The listener was closed, before the call or during it.
            OpError: Such as EMFILE, when no descriptor is left.

        Cancellation: a connection that had been accepted is closed.

        Source: accept4(2).
        """
        op = self._accept_op
        if op.state != SPENT:
            return self._accept_otherwise()
        op.state = NEW
        op.error = None
        self._porch.clear()
        return op

    def _accept_otherwise(self) -> Op[SocketStream]:
        """`accept` while another one is under way: this one does without the shared memory."""
        porch = self._porch
        flags = self._driver.system.SOCK_CLOEXEC
        op = Op(ACCEPT, self._fd.number, flags=flags, owner=porch, finish=porch.accepted_plain)
        op.home = self._driver
        self._others.add(op)
        return op

    def __aiter__(self) -> AsyncIterator[SocketStream]:
        """Iterate over connections for ever."""
        return self._connections()

    async def _connections(self) -> AsyncIterator[SocketStream]:
        while True:
            yield await self.accept()

    async def serve(
        self,
        handler: Handler,
        *,
        max_connections: int | None = None,
        on_error: OnError | None = None,
    ) -> None:
        """
        Run ``handler(stream)`` as a task for each connection, until cancelled.

        Handlers are isolated.  A connection error out of one closes that connection quietly; any
        other exception goes to *on_error*; neither ends the server.  The stream is closed when its
        handler has ended.

        Args:
            handler: An async function of one argument.
            max_connections: Accept no more while so many handlers run. [count]
            on_error: Called with the exception and the stream, which is still open; by default the
                exception is logged.  What it raises is logged as well.

        Raises:
            ClosedError: The listener was closed; handlers are cancelled and waited for.
            OpError: Accepting failed for good, likewise.  Running out of descriptors is not that:
                it pauses accepting until some are free.

        Cancellation: every handler is cancelled and waited for.
        """
        if not callable(handler):
            raise TypeError(f"a handler is an async function of one argument, not {handler!r}")
        if max_connections is not None and max_connections < 1:
            raise ValueError(f"max_connections is at least 1, not {max_connections}")
        server = _Server(self._driver, handler, max_connections, on_error)
        try:
            async with current.scheduler().serving_group() as group:
                while True:
                    await server.wait_room()
                    try:
                        stream = await self.accept()
                    except OSError as error:
                        if error.errno in ACCEPT_EXHAUSTED:
                            await server.rest()
                        elif error.errno not in ACCEPT_BROKEN:
                            raise
                        continue
                    group.spawn(server.take(stream))
        except BaseExceptionGroup as error:
            # Handlers' errors do not get here: it holds the one error that ended the loop above.
            if len(error.exceptions) != 1:
                raise
            raise error.exceptions[0] from None
        finally:
            server.close_unstarted()

    def fileno(self) -> int:
        """The descriptor, which stays the listener's; raises `ClosedError`."""
        return self._fd.number

    def aclose(self) -> Op[None]:
        """
        Stop listening; safe to call twice.  Tasks in `accept` or `serve` get `ClosedError`.

        The path of a Unix socket is removed, unless another server has taken it over since.

        Raises:
            WrongThreadError: The listener belongs to another loop or thread.
        """
        closing = close_op(self._driver, self._fd, [self._accept_op, *self._others])
        if self._path is not None:
            self._path.remove()
        self._accept_op = _CLOSED_ACCEPT
        return closing

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()


class _DescriptorFreed(Exception):
    """Accepting may go on."""


class _Server:
    """One run of `Listener.serve`: its connections, and how each is looked after."""

    def __init__(
        self,
        driver: Driver,
        handler: Handler,
        max_connections: int | None,
        on_error: OnError | None,
    ) -> None:
        self._driver = driver
        self._handler = handler
        self._max = max_connections
        self._on_error = on_error
        self._count = 0
        self._waiting: Op[None] | None = None
        self._resting: Op[None] | None = None
        # asyncio never starts the coroutine of a task that is cancelled before its first step.
        self._unstarted: set[SocketStream] = set()

    async def wait_room(self) -> None:
        """Return when another connection may be taken."""
        while self._max is not None and self._count >= self._max:
            self._waiting = Op(EVENT)
            self._waiting.home = self._driver
            await self._waiting

    async def rest(self) -> None:
        """Return when a connection has ended, or after a while: others close descriptors too."""
        op: Op[None] = Op(TIMEOUT, off=self._driver.system.monotonic_ns() + _EXHAUSTED_NS)
        op.home = self._driver
        self._resting = op
        try:
            await op
        except _DescriptorFreed:
            pass
        finally:
            self._resting = None

    def take(self, stream: SocketStream) -> Coroutine[object, None, None]:
        """Count *stream* in and return what handles it."""
        self._count += 1
        self._unstarted.add(stream)
        return self._handle(stream)

    async def _handle(self, stream: SocketStream) -> None:
        self._unstarted.discard(stream)
        try:
            try:
                await self._handler(stream)
            except Exception as error:
                if not _is_peer_lost(error):
                    self._report(error, stream)
            finally:
                await stream.aclose()
        except Exception:
            logging.getLogger("uringio").exception("%r could not be closed", stream)
        finally:
            self._release()

    def _report(self, error: Exception, stream: SocketStream) -> None:
        log = logging.getLogger("uringio")
        if self._on_error is None:
            log.error("the handler of %r failed", stream, exc_info=error)
            return
        try:
            self._on_error(error, stream)
        except Exception:
            log.exception("on_error failed for %r", stream)

    def _release(self) -> None:
        self._count -= 1
        if self._resting is not None:
            self._driver.cancel(self._resting, _DescriptorFreed())
        if self._waiting is not None:
            waiting, self._waiting = self._waiting, None
            self._driver.fire(waiting)

    def close_unstarted(self) -> None:
        """Close the connections whose handler never ran."""
        for stream in self._unstarted:
            stream.close_idle()
        self._unstarted.clear()


def _is_peer_lost(error: Exception) -> bool:
    """Whether *error* means only that the peer is gone, which nobody here can help."""
    if isinstance(error, ExceptionGroup):
        group = cast("ExceptionGroup[Exception]", error)
        return all(_is_peer_lost(one) for one in group.exceptions)
    if isinstance(error, OpError) and error.errno in _PEER_LOST:
        return True
    return isinstance(error, ConnectionError | EndOfStreamError)
