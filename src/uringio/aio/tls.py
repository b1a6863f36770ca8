"""
TLS: the standard library's TLS protocol, between our transports and the program's protocols.

The records, the handshake, flow control and the orderly end are asyncio's own ``SSLProtocol``, so
that TLS behaves here as on every other loop.  It is a `asyncio.BufferedProtocol`, but gets what was
received as it is, since it would only copy it once more.

What is relied on of ``asyncio.sslproto``, which is private, here and nowhere else; the same in
Python 3.11, 3.12 and 3.13:

- the constructor's parameters, as `Tls.wrap` gives them;
- ``_incoming``: the memory from which records are read, and ``buffer_updated``, which goes on with
  whatever ``_state`` it is in, be the update of 0 bytes; ``max_size`` is its own buffer's;
- ``_do_read``, which unless the program has paused reading calls ``_do_read__copied`` or
  ``_do_read__buffered``, which hand on what ``_sslobj`` gives them: to ``_app_protocol``, or by
  ``_app_protocol_get_buffer`` and ``_app_protocol_buffer_updated``; at TLS's own end
  ``_call_eof_received``, ``_start_shutdown``;
- ``_process_outgoing``, which writes what is in ``_outgoing`` to ``_transport``, but for
  ``_ssl_writing_paused``; ``_control_app_writing``, which acts while ``_app_writing_paused``, or if
  ``_write_buffer_size`` and what is in ``_outgoing`` reach ``_outgoing_high_water``;
- ``_do_shutdown``, which is called at TLS's end, and for what comes until the peer has answered;
- ``connection_lost`` tells the protocol unless ``_set_state`` says that a handshake goes on, whose
  end ``_wakeup_waiter`` announces;
- ``_app_transport``: what the program writes to, None once the connection is lost;
- of the transport beneath, it calls ``_force_close(error)``; transports have
  ``_start_tls_compatible``, and ``_protocol_paused`` while their protocol is not to write.
"""

# pyright: reportPrivateUsage=false

import asyncio
from asyncio import sslproto
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, cast

if TYPE_CHECKING:
    from ssl import MemoryBIO, SSLContext, SSLObject, SSLSocket
else:
    try:
        from ssl import SSLContext, SSLSocket
    except ImportError:  # a Python without ssl has asyncio all the same, and nothing is of these
        SSLContext = SSLSocket = ()

__all__ = ["Tls", "TlsProtocol", "refuse_wrapped", "require_context", "start_tls"]

# A record holds no more, and a read never returns more than one record.  The stdlib's reads ask for
# 256 KiB each time, which malloc maps and unmaps: a small message costs 30 us more.
_RECORD_BYTES_MAX: Final = 16384

_WRAPPED: Final = sslproto.SSLProtocolState.WRAPPED

# What a read raises while the record is not complete.
_AGAIN: Final[tuple[type[Exception], ...]] = getattr(sslproto, "SSLAgainErrors", ())
# Which the stubs do not know.
_say_goodbye = cast(
    "Callable[[sslproto.SSLProtocol], None]", vars(sslproto.SSLProtocol)["_do_shutdown"]
)


class TlsProtocol(sslproto.SSLProtocol):
    """asyncio's TLS protocol on our transports."""

    max_size = _RECORD_BYTES_MAX

    def data_received(self, data: bytes) -> None:
        """Take what the transport has received; a `StreamTransport` calls this."""
        self._incoming.write(data)
        if self._state is _WRAPPED:
            self._do_read()
        else:
            self.buffer_updated(0)

    def _process_outgoing(self) -> None:
        """Send the records that are ready, and see to flow control if that has something to do."""
        outgoing = self._outgoing
        if outgoing.pending and not self._ssl_writing_paused:
            self._transport.write(outgoing.read())  # type: ignore[union-attr]
        waiting = outgoing.pending + self._write_buffer_size
        if waiting >= self._outgoing_high_water or self._app_writing_paused:
            self._control_app_writing()

    def _do_read__copied(self) -> None:
        """Hand on what can be read, without trying in vain: the exception costs 3 us."""
        tls, incoming = self._sslobj, self._incoming
        pieces: list[bytes] = []
        try:
            while piece := tls.read(_RECORD_BYTES_MAX):
                pieces.append(piece)
                # Nothing is left of this record, and nothing is there of another.
                if not (tls.pending() or incoming.pending):
                    break
            ended = not piece
        except _AGAIN:
            ended = False
        if pieces:
            data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
            self._app_protocol.data_received(data)  # type: ignore[attr-defined]
        if ended:
            self._peer_has_ended()

    def _do_read__buffered(self) -> None:
        """
        Hand on what fits into the buffer that the program's protocol offers.

        The stdlib's loses data if that is not a memoryview: it reads into a copied slice.
        """
        tls, incoming = self._sslobj, self._incoming
        # With a buffer it returns a count, which the stubs do not say.
        read = cast("Callable[[int, memoryview], int]", tls.read)
        done = 0
        with memoryview(self._app_protocol_get_buffer(incoming.pending)) as view:
            room = len(view)
            if not room:
                raise RuntimeError("get_buffer() returned an empty buffer")
            try:
                while count := read(room - done, view[done:]):
                    done += count
                    if done == room or not (tls.pending() or incoming.pending):
                        break
                ended = not count
            except _AGAIN:
                ended = False
        if done:
            if done == room:
                self._loop.call_soon(self._do_read)  # there may be more
            self._app_protocol_buffer_updated(done)
        if ended:
            self._peer_has_ended()

    def _do_shutdown(self) -> None:
        """
        Say goodbye, having dropped what the peer had sent before it heard of it.

        Without that OpenSSL fails with "application data after close notify" (bpo-39951).
        """
        try:
            while self._sslobj.read(_RECORD_BYTES_MAX):
                pass
        except OSError:  # an SSLError is one
            pass  # nothing is left, or `unwrap` will say what is wrong
        _say_goodbye(self)

    def connection_lost(self, exc: BaseException | None) -> None:
        """Tell the program of the end, as the stdlib does not in a handshake of start_tls."""
        self._set_state(sslproto.SSLProtocolState.UNWRAPPED)
        super().connection_lost(exc)

    def _wakeup_waiter(self, exc: BaseException | None = None) -> None:
        if exc is not None:
            # Where it was raised says nothing, but leads back here: a cycle that holds everything.
            exc = exc.with_traceback(None)
            if isinstance(exc, ConnectionResetError) and not exc.args:
                exc.args = ("the peer closed the connection during the TLS handshake",)
        super()._wakeup_waiter(exc)

    def _peer_has_ended(self) -> None:
        self._call_eof_received()
        self._start_shutdown()

    def program_transport(self) -> asyncio.Transport:
        """
        Return what the program writes to.

        Raises:
            ConnectionAbortedError: The connection was closed meanwhile.
        """
        transport = cast("asyncio.Transport | None", self._app_transport)
        if transport is None:
            raise ConnectionAbortedError("the connection was closed during the TLS handshake")
        return transport

    def begin_paused(self) -> None:
        """Begin over a transport that had the program's protocol pause; it hears of the end."""
        self.pause_writing()
        self._app_writing_paused = True

    if TYPE_CHECKING:
        _sslobj: SSLObject
        _incoming: MemoryBIO
        _outgoing: MemoryBIO
        _state: sslproto.SSLProtocolState
        _ssl_writing_paused: bool
        _app_writing_paused: bool
        _outgoing_high_water: int
        _app_protocol_get_buffer: Callable[[int], bytearray]
        _app_protocol_buffer_updated: Callable[[int], None]

        def _do_read(self) -> None: ...
        def _control_app_writing(self) -> None: ...
        def _set_state(self, new_state: object) -> None: ...
        def _call_eof_received(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Tls:
    """
    How a connection is to be encrypted.

    Attributes:
        context: None: a client's default, which verifies the server.
        server_side: Whether the peer is the client.
        server_hostname: Whom the server's certificate must name; ``""``: anybody.
        handshake_timeout: After this the connection is aborted; None: asyncio's 60. [seconds]
        shutdown_timeout: How long the peer's answer to the end is waited for; None: asyncio's 30.
            [seconds]
    """

    context: "SSLContext | None"
    server_side: bool
    server_hostname: str | None
    handshake_timeout: float | None
    shutdown_timeout: float | None

    def __post_init__(self) -> None:
        # Here rather than when there is a connection, which is when the stdlib looks.
        for name, seconds in (
            ("ssl_handshake_timeout", self.handshake_timeout),
            ("ssl_shutdown_timeout", self.shutdown_timeout),
        ):
            if seconds is not None and seconds <= 0:
                raise ValueError(f"{name} should be a positive number, got {seconds}")

    @classmethod
    def of_client(
        cls,
        ssl: object,
        host: str | None,
        server_hostname: str | None,
        handshake_timeout: float | None,
        shutdown_timeout: float | None,
    ) -> "Tls | None":
        """
        Check what a client was asked to do; None: no TLS.

        Args:
            ssl: The program's *ssl*: a context, True for the default one, or nothing.
            host: Where it connects to, which is whom the certificate must name unless
                *server_hostname* says otherwise.

        Raises:
            ValueError: The arguments contradict each other, or nobody says who the server is.
            TypeError: *ssl* is no context.
        """
        if not ssl:
            _require_nothing(
                server_hostname=server_hostname,
                ssl_handshake_timeout=handshake_timeout,
                ssl_shutdown_timeout=shutdown_timeout,
            )
            return None
        if server_hostname is None:
            if not host:
                raise ValueError("You must set server_hostname when using ssl without a host")
            server_hostname = host
        context = None if isinstance(ssl, bool) else _looks_like_context(ssl)
        return cls(context, False, server_hostname, handshake_timeout, shutdown_timeout)

    @classmethod
    def of_server(
        cls, ssl: object, handshake_timeout: float | None, shutdown_timeout: float | None
    ) -> "Tls | None":
        """
        Check what a server was asked to do; None: no TLS.

        Raises:
            ValueError: The arguments contradict each other.
            TypeError: *ssl* is no context; a server has no default.
        """
        if isinstance(ssl, bool):
            raise TypeError("ssl argument must be an SSLContext or None")
        return cls.of_accepted(ssl, handshake_timeout, shutdown_timeout)

    @classmethod
    def of_accepted(
        cls, ssl: object, handshake_timeout: float | None, shutdown_timeout: float | None
    ) -> "Tls | None":
        """
        Check what is asked for on a connection that was accepted elsewhere; None: no TLS.

        Raises:
            ValueError: The arguments contradict each other, or *ssl* is True: no default.
            TypeError: *ssl* is no context.
        """
        if not ssl:
            _require_nothing(
                ssl_handshake_timeout=handshake_timeout, ssl_shutdown_timeout=shutdown_timeout
            )
            return None
        if isinstance(ssl, bool):
            # As asyncio says it, which raises it when there is a connection.
            raise ValueError("Server side SSL needs a valid SSLContext")  # noqa: TRY004
        return cls(_looks_like_context(ssl), True, None, handshake_timeout, shutdown_timeout)

    def wrap(
        self,
        loop: asyncio.AbstractEventLoop,
        protocol: asyncio.BaseProtocol,
        waiter: "asyncio.Future[None] | None",
        *,
        call_connection_made: bool = True,
    ) -> TlsProtocol:
        """
        Put TLS between *protocol* and the transport that will get the result as its protocol.

        Args:
            waiter: Done when the handshake is, or has failed.
            call_connection_made: Whether the protocol does not know of its connection yet.

        Raises:
            ValueError: The host's name is none that a certificate could have.
        """
        return TlsProtocol(
            loop,
            protocol,
            self.context,  # type: ignore[arg-type]  # the stubs do not say that it may be None
            waiter,  # type: ignore[arg-type]  # nor that this may
            server_side=self.server_side,
            server_hostname=self.server_hostname,
            call_connection_made=call_connection_made,
            ssl_handshake_timeout=self.handshake_timeout,  # type: ignore[arg-type]
            ssl_shutdown_timeout=self.shutdown_timeout,
        )


async def start_tls(
    loop: asyncio.AbstractEventLoop,
    transport: asyncio.BaseTransport,
    protocol: asyncio.BaseProtocol,
    tls: Tls,
) -> asyncio.Transport:
    """
    Encrypt a connection that stands; see `asyncio.loop.start_tls`.

    Raises:
        TypeError: *transport* cannot be encrypted.
        ssl.SSLError: The handshake failed.
        ConnectionAbortedError: It took too long, or the connection is closed.

    Cancellation: the connection is closed.
    """
    if not getattr(transport, "_start_tls_compatible", False):
        raise TypeError(f"transport {transport!r} is not supported by start_tls()")
    assert isinstance(transport, asyncio.Transport)
    if transport.is_closing():
        raise ConnectionAbortedError(f"{transport!r} is closed, so TLS cannot begin on it")
    waiter: asyncio.Future[None] = loop.create_future()
    above = tls.wrap(loop, protocol, waiter, call_connection_made=False)
    if getattr(transport, "_protocol_paused", False):
        above.begin_paused()
    # What comes now waits until the TLS protocol knows its transport.
    transport.pause_reading()
    transport.set_protocol(above)
    handles = (
        loop.call_soon(above.connection_made, transport),
        loop.call_soon(transport.resume_reading),
    )
    try:
        await waiter
    except BaseException:
        transport.close()
        for handle in handles:
            handle.cancel()
        del waiter  # its exception's traceback leads here
        raise
    return above.program_transport()


def refuse_wrapped(sock: object) -> None:
    """Raise TypeError if *sock* is an ``ssl.SSLSocket``, whose bytes are not the connection's."""
    if isinstance(sock, SSLSocket):
        raise TypeError("Socket cannot be of type SSLSocket")


def require_context(sslcontext: object) -> "SSLContext":
    """Return what start_tls was given; raises TypeError if it is no context of the ssl module."""
    if not isinstance(sslcontext, SSLContext):
        raise TypeError(
            f"sslcontext is expected to be an instance of ssl.SSLContext, got {sslcontext!r}"
        )
    return sslcontext


def _looks_like_context(ssl: object) -> "SSLContext":
    if not hasattr(ssl, "wrap_bio"):  # what has it need not be the standard library's
        raise TypeError(f"ssl argument must be an SSLContext or None, not {ssl!r}")
    return cast("SSLContext", ssl)


def _require_nothing(**details: object) -> None:
    for name, detail in details.items():
        if detail is not None:
            raise ValueError(f"{name} is only meaningful with ssl")
