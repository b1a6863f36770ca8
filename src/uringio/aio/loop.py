"""
The event loop, as asyncio's users know it; here, servers and connections over TCP and Unix sockets.

The rest of it, `FileSending`, `DatagramCalls`, `PipeCalls`, `ProcessCalls` and what these stand on
(readiness, socket calls, signals, running), has modules of its own.

Names are resolved by asyncio's own ``getaddrinfo``; sockets are made by the driver's system, and
are numbers until somebody asks a transport or server for its ``socket``.
"""

import asyncio
import contextvars
import errno
import os
import sys
from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import Final, TypeAlias, TypeVar

from uringio._driver.contract import Driver
from uringio._driver.sockets import (
    SO_KEEPALIVE,
    SO_REUSEADDR,
    SOL_SOCKET,
    AddressInfo,
    RawOption,
    bind_stream_socket,
    unix_address,
)

from .connecting import connect, connect_first, interleaved
from .datagrams import DatagramCalls
from .pipes import PipeCalls
from .processes import ProcessCalls
from .send_file import FileSending
from .server import Listening, Server
from .sockets import Sock, take_over
from .tls import Tls, refuse_wrapped, require_context, start_tls
from .transport import StreamTransport

__all__ = ["EventLoop", "new_event_loop", "run"]

T = TypeVar("T")
P = TypeVar("P", bound=asyncio.BaseProtocol)
StrPath: TypeAlias = str | bytes | os.PathLike[str]

_AI_PASSIVE: Final = 1
_BACKLOG: Final = 100


class EventLoop(FileSending, DatagramCalls, PipeCalls, ProcessCalls):
    """
    An asyncio event loop on a uringio driver; it has every method of `asyncio.AbstractEventLoop`.

    Args:
        backend: ``"uring"``, ``"epoll"``, ``"kqueue"``, ``"poll"``, or ``"auto"``: what the
            environment variable ``URINGIO_BACKEND`` names, else io_uring, or where that is absent
            or forbidden what the system has: epoll, else kqueue, else poll.
    """

    # --- clients ---------------------------------------------------------------------------------

    async def create_connection(
        self,
        protocol_factory: Callable[[], P],
        host: str | None = None,
        port: int | None = None,
        *,
        ssl: object = None,
        family: int = 0,
        proto: int = 0,
        flags: int = 0,
        sock: Sock | None = None,
        local_addr: tuple[str, int] | None = None,
        server_hostname: str | None = None,
        ssl_handshake_timeout: float | None = None,
        ssl_shutdown_timeout: float | None = None,
        happy_eyeballs_delay: float | None = None,
        interleave: int | None = None,
        all_errors: bool = False,
    ) -> tuple[asyncio.Transport, P]:
        """
        Connect to a TCP address; see `asyncio.loop.create_connection`.

        The addresses of a name are tried one after another or, with *happy_eyeballs_delay*, beside
        each other.  TCP_NODELAY is on.

        Raises:
            TypeError: *ssl* is no context, or *sock* is a socket of the ssl module.
            ValueError: The arguments contradict each other.
            RuntimeError: A transport of this loop uses *sock*.
            OSError: No address answered; ssl.SSLError: the TLS handshake failed.
            ExceptionGroup: The same, with *all_errors*.
        """
        tls = Tls.of_client(ssl, host, server_hostname, ssl_handshake_timeout, ssl_shutdown_timeout)
        driver = self.require_driver()
        if sock is not None:
            if host is not None or port is not None:
                raise ValueError("host/port and sock can not be specified at the same time")
            return await self._adopt(driver, sock, protocol_factory, tls)
        if host is None and port is None:
            raise ValueError("host and port was not specified and no sock specified")
        infos = await self._resolve(host, port, family=family, proto=proto, flags=flags)
        locals_ = [] if local_addr is None else await self._resolve(*local_addr, family=family)
        if happy_eyeballs_delay is not None and interleave is None:
            interleave = 1
        if interleave:
            infos = interleaved(infos, interleave)
        fd = await connect_first(
            self, driver, infos, locals_, happy_eyeballs_delay, all_errors=all_errors
        )
        return await self._start_transport(driver, fd, protocol_factory, tls)

    async def create_unix_connection(
        self,
        protocol_factory: Callable[[], P],
        path: StrPath | None = None,
        *,
        ssl: object = None,
        sock: Sock | None = None,
        server_hostname: str | None = None,
        ssl_handshake_timeout: float | None = None,
        ssl_shutdown_timeout: float | None = None,
    ) -> tuple[asyncio.Transport, P]:
        """
        Connect to a Unix stream socket; see `asyncio.loop.create_unix_connection`.

        Raises:
            TypeError: *ssl* is no context, or *sock* is a socket of the ssl module.
            ValueError: The arguments contradict each other, or the path is too long.
            OSError: Nobody listens there; ssl.SSLError: the TLS handshake failed.
        """
        if ssl and server_hostname is None:
            raise ValueError("you have to pass server_hostname when using ssl")
        tls = Tls.of_client(ssl, None, server_hostname, ssl_handshake_timeout, ssl_shutdown_timeout)
        driver = self.require_driver()
        _require_one(path, sock, "no path and sock were specified")
        if sock is not None:
            _require_unix_stream(driver, sock)
            return await self._adopt(driver, sock, protocol_factory, tls)
        assert path is not None
        fd = await connect(self, driver, unix_address(driver.system, os.fspath(path)))
        return await self._start_transport(driver, fd, protocol_factory, tls)

    async def connect_accepted_socket(
        self,
        protocol_factory: Callable[[], P],
        sock: Sock,
        *,
        ssl: object = None,
        ssl_handshake_timeout: float | None = None,
        ssl_shutdown_timeout: float | None = None,
    ) -> tuple[asyncio.Transport, P]:
        """
        Take over a connection that was accepted elsewhere.

        Raises:
            TypeError: *ssl* is no context, or *sock* is a socket of the ssl module.
            ValueError: *sock* is no stream socket, or *ssl* is True: a server has no default.
            RuntimeError: A transport of this loop uses *sock*.
            OSError: The TLS handshake failed, as ssl.SSLError, or the connection ended meanwhile.
        """
        tls = Tls.of_accepted(ssl, ssl_handshake_timeout, ssl_shutdown_timeout)
        return await self._adopt(self.require_driver(), sock, protocol_factory, tls)

    async def _adopt(
        self, driver: Driver, sock: Sock, protocol_factory: Callable[[], P], tls: Tls | None
    ) -> tuple[asyncio.Transport, P]:
        _require_stream(driver, sock)
        fd = self._take_over(driver, sock)
        return await self._start_transport(driver, fd, protocol_factory, tls, sock)

    def _take_over(self, driver: Driver, sock: Sock) -> int:
        self.ensure_fd_of_nobody(sock)  # of two owners one closes what is somebody else's by then
        return take_over(driver, sock)

    async def _start_transport(
        self,
        driver: Driver,
        fd: int,
        protocol_factory: Callable[[], P],
        tls: Tls | None,
        sock: Sock | None = None,
    ) -> tuple[asyncio.Transport, P]:
        context = contextvars.copy_context()
        begun: asyncio.Future[None] = self.create_future()
        try:
            protocol = protocol_factory()
            above = None if tls is None else tls.wrap(self, protocol, begun)
        except BaseException:
            driver.unregister(fd)
            if sock is None:
                driver.system.close(fd)
            raise
        transport = StreamTransport(self, driver, fd, above or protocol, context, sock=sock)
        # Now: a peer that resets the connection takes its name along.  Servers get it on accepting.
        transport.get_extra_info("peername")
        transport.get_extra_info("sockname")
        # Not from within the caller's task: a protocol is not part of it.
        self.call_soon(_begin, self, transport, begun if above is None else None, context=context)
        try:
            await begun
        except BaseException:
            transport.abort()
            del begun  # the traceback of its exception leads here
            raise
        return transport if above is None else above.program_transport(), protocol

    async def start_tls(
        self,
        transport: asyncio.BaseTransport,
        protocol: asyncio.BaseProtocol,
        sslcontext: object,
        *,
        server_side: bool = False,
        server_hostname: str | None = None,
        ssl_handshake_timeout: float | None = None,
        ssl_shutdown_timeout: float | None = None,
    ) -> asyncio.Transport:
        """
        Encrypt a connection that stands; see `asyncio.loop.start_tls`.

        Returns the transport that *protocol* is to use from now on.

        Raises:
            TypeError: *sslcontext* is no context of the ssl module, or *transport* is neither one
                of a stream socket nor an encrypted one.
            ValueError: A timeout is not positive.
            ssl.SSLError: The handshake failed.
            ConnectionAbortedError: It took too long, or the connection is closed.

        Cancellation: the connection is closed.
        """
        context = require_context(sslcontext)
        timeouts = ssl_handshake_timeout, ssl_shutdown_timeout
        tls = Tls(context, server_side, server_hostname, *timeouts)
        return await start_tls(self, transport, protocol, tls)

    async def _resolve(
        self,
        host: str | None,
        port: int | str | None,
        *,
        family: int = 0,
        proto: int = 0,
        flags: int = 0,
    ) -> list[AddressInfo]:
        """Return the stream addresses of *host*, each once."""
        stream = self.require_driver().system.SOCK_STREAM
        found = await self._ensure_resolved(
            (host, port), family=family, type=stream, proto=proto, flags=flags, loop=self
        )
        if not found:
            raise OSError(f"getaddrinfo() found no address of {host!r}")
        return list(
            dict.fromkeys((int(family), stream, proto, addr) for family, _, proto, _, addr in found)
        )

    # --- servers ---------------------------------------------------------------------------------

    async def create_server(
        self,
        protocol_factory: Callable[[], asyncio.BaseProtocol],
        host: str | Sequence[str] | None = None,
        port: int | None = None,
        *,
        family: int = 0,
        flags: int = _AI_PASSIVE,
        sock: Sock | None = None,
        backlog: int = _BACKLOG,
        ssl: object = None,
        reuse_address: bool | None = None,
        reuse_port: bool | None = None,
        keep_alive: bool | None = None,
        ssl_handshake_timeout: float | None = None,
        ssl_shutdown_timeout: float | None = None,
        start_serving: bool = True,
    ) -> Server:
        """
        Listen on TCP addresses; see `asyncio.loop.create_server`.

        TCP_NODELAY is on for every connection.

        Raises:
            TypeError: *ssl* is no context, or *sock* is a socket of the ssl module.
            ValueError: The arguments contradict each other.
            OSError: An address cannot be bound.
        """
        tls = Tls.of_server(ssl, ssl_handshake_timeout, ssl_shutdown_timeout)
        driver = self.require_driver()
        if sock is not None:
            if host is not None or port is not None:
                raise ValueError("host/port and sock can not be specified at the same time")
            _require_stream(driver, sock)
            listeners = [Listening(self, driver, self._take_over(driver, sock), sock=sock)]
        else:
            if host is None and port is None:
                raise ValueError("Neither host/port nor sock were specified")
            options: list[RawOption] = []
            if reuse_address is False:
                options.append((SOL_SOCKET, SO_REUSEADDR, 0))
            if keep_alive:
                options.append((SOL_SOCKET, SO_KEEPALIVE, 1))
            infos: dict[AddressInfo, None] = {}
            found = await asyncio.gather(
                *(self._resolve(name, port, family=family, flags=flags) for name in _hosts(host))
            )
            for each in found:
                infos.update(dict.fromkeys(each))
            listeners = self._bind(driver, infos, bool(reuse_port), options)
        return await self._serve(driver, listeners, protocol_factory, backlog, tls, start_serving)

    def _bind(
        self,
        driver: Driver,
        infos: Iterable[AddressInfo],
        reuse_port: bool,
        options: Sequence[RawOption],
    ) -> list[Listening]:
        listeners: list[Listening] = []
        failure: OSError | None = None
        try:
            for info in infos:
                try:
                    fd = bind_stream_socket(driver, info, reuse_port=reuse_port, options=options)
                except OSError as error:
                    # asyncio's own words, which programs look for.
                    told = OSError(
                        error.errno,
                        f"error while attempting to bind on address {info[3]!r}: "
                        f"{str(error).lower()}",
                    )
                    # A family that this machine has not, of which a resolver may tell all the same.
                    if error.errno not in {errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL}:
                        raise told from error
                    failure = failure or told
                    continue
                listeners.append(Listening(self, driver, fd))
        except BaseException:
            for listening in listeners:
                listening.close()
            raise
        if not listeners:
            assert failure is not None
            raise failure
        return listeners

    async def create_unix_server(
        self,
        protocol_factory: Callable[[], asyncio.BaseProtocol],
        path: StrPath | None = None,
        *,
        sock: Sock | None = None,
        backlog: int = _BACKLOG,
        ssl: object = None,
        ssl_handshake_timeout: float | None = None,
        ssl_shutdown_timeout: float | None = None,
        start_serving: bool = True,
        cleanup_socket: bool = sys.version_info >= (3, 13),
    ) -> Server:
        """
        Listen on a Unix stream socket; see `asyncio.loop.create_unix_server`.

        A socket that an earlier server left at *path* is replaced, any other file is not.  With
        *cleanup_socket* (the default from Python 3.13 on) closing removes it.

        Raises:
            TypeError: *ssl* is no context, or *sock* is a socket of the ssl module.
            ValueError: The arguments contradict each other, or the path is too long.
            OSError: The path cannot be bound.
        """
        tls = Tls.of_server(ssl, ssl_handshake_timeout, ssl_shutdown_timeout)
        driver = self.require_driver()
        _require_one(path, sock, "path was not specified, and no sock specified")
        if sock is not None:
            _require_unix_stream(driver, sock)
            fd = self._take_over(driver, sock)
        else:
            assert path is not None
            try:
                fd = bind_stream_socket(driver, unix_address(driver.system, path))
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise
                taken = f"Address {os.fspath(path)!r} is already in use"
                raise OSError(errno.EADDRINUSE, taken) from error
        where = driver.system.getsockname(fd) if cleanup_socket else None
        if not isinstance(where, str):  # nothing of the file system: abstract, or to be left
            where = None
        listening = Listening(self, driver, fd, sock=sock, path=where or None)
        return await self._serve(driver, [listening], protocol_factory, backlog, tls, start_serving)

    async def _serve(
        self,
        driver: Driver,
        listeners: list[Listening],
        protocol_factory: Callable[[], asyncio.BaseProtocol],
        backlog: int,
        tls: Tls | None,
        start_serving: bool,
    ) -> Server:
        context = contextvars.copy_context()
        server = Server(self, driver, listeners, protocol_factory, backlog, context, tls)
        if start_serving:
            try:
                await server.start_serving()
            except BaseException:
                server.close()
                raise
        return server


def _begin(
    loop: asyncio.AbstractEventLoop,
    transport: StreamTransport,
    begun: "asyncio.Future[None] | None",
) -> None:
    transport.introduce()
    if begun is not None and not begun.done():
        begun.set_result(None)
    # Behind the caller's waking: it is to know its transport before data comes.
    loop.call_soon(transport.read_on)


def _hosts(host: str | Sequence[str] | None) -> Sequence[str | None]:
    if host is None or host == "":  # an empty list is no host, "" is any
        return [None]
    return [host] if isinstance(host, str) else list(host)


def _require_stream(driver: Driver, sock: Sock) -> None:
    refuse_wrapped(sock)
    if sock.type != driver.system.SOCK_STREAM:
        raise ValueError(f"A Stream Socket was expected, got {sock!r}")


def _require_unix_stream(driver: Driver, sock: Sock) -> None:
    system = driver.system
    if sock.family != system.AF_UNIX or sock.type != system.SOCK_STREAM:
        raise ValueError(f"A UNIX Domain Stream Socket was expected, got {sock!r}")


def _require_one(path: object, sock: object, neither: str) -> None:
    if path is not None and sock is not None:
        raise ValueError("path and sock can not be specified at the same time")
    if path is None and sock is None:
        raise ValueError(neither)


def new_event_loop(*, backend: str = "auto") -> EventLoop:
    """
    Make an event loop.

    Args:
        backend: ``"uring"``, ``"epoll"``, ``"kqueue"``, ``"poll"``, or ``"auto"``: what the
            environment variable ``URINGIO_BACKEND`` names, else io_uring, or where that is absent
            or forbidden what the system has: epoll, else kqueue, else poll.

    Raises:
        UsageError: There is no such backend.

    The driver is made by the loop's first run, in the thread that runs it.

    Example:
        >>> import asyncio, uringio.aio
        >>> async def main() -> str:
        ...     await asyncio.sleep(0)
        ...     return "done"
        >>> with asyncio.Runner(loop_factory=uringio.aio.new_event_loop) as runner:
        ...     runner.run(main())
        'done'
    """
    return EventLoop(backend=backend)


def run(
    main: Coroutine[object, object, T], *, debug: bool | None = None, backend: str = "auto"
) -> T:
    """
    Run the coroutine *main* on an event loop of its own; like ``asyncio.run``.

    Raises:
        RingError: The backend asked for cannot be had here.
    """

    def make() -> EventLoop:
        loop = EventLoop(backend=backend)
        try:
            loop.prepare()  # now: within `run`, asyncio would hide the reason behind what follows
        except BaseException:
            loop.close()
            if asyncio.iscoroutine(main):
                main.close()
            raise
        return loop

    with asyncio.Runner(debug=debug, loop_factory=make) as runner:
        return runner.run(main)
