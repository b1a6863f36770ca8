"""
Stream transports: a connected socket under an asyncio protocol.

One receive op per transport is used again for every piece.  Its outcome goes from the driver's
completions straight into ``data_received``; then it is submitted anew, or, where a driver goes on
receiving while nobody waits (`Op.later`), only awaited again.  Large pieces are waited for by a
POLL and read just before they are delivered.  Writing is in `writing`.

While reading is paused an outcome that still arrives is held in the op, and delivered on resuming;
what a driver reads ahead is bounded.

The end.  `connection_lost` is called, and the descriptor closed, when no op is in flight any
more: closing a descriptor does not end what the kernel has in hand.  `close` therefore first
cancels the receive and lets the sending end, `abort` cancels both.
"""

import asyncio
import logging
from asyncio import constants
from collections.abc import Callable, Iterator, MutableSequence
from contextvars import Context
from itertools import repeat
from typing import TYPE_CHECKING, Final, Protocol, cast

from uringio._driver.contract import Driver
from uringio._driver.op import NEW, POLL_AGAIN, RECV, SPENT, SUBMITTED, Op
from uringio._driver.poll_bits import POLLIN, POLLRDHUP
from uringio._driver.sockets import MSG_DONTWAIT

from .flow_control import IN_FLIGHT
from .payloads import deliver_to_nobody, fill
from .sockets import INFO_NAMES, HeldSocket, Sock, as_builtin
from .tls import TlsProtocol
from .writing import CLOSING, ENDING, OVER, Borrower, Writing, not_taken

if TYPE_CHECKING:
    from .running import RunningLoop

__all__ = ["Hub", "StreamTransport"]

logger = logging.getLogger("asyncio")

_RECV_BYTES: Final = 65536
_BULK_BYTES: Final = 32768  # received at once, so that the next may be large, too
_SMALL_BYTES: Final = 4096  # ... until one is no larger than this
_READABLE: Final = POLLIN | POLLRDHUP

# Reasons not to read on.
# CLOSING is the third.
_PAUSED: Final = 1
_ENDED: Final = 4


class Hub(Protocol):
    """What a transport tells the server that accepted it."""

    def detach(self, transport: "StreamTransport", /) -> None:
        """Forget *transport*, which has ended."""
        ...


class StreamTransport(Writing):
    """
    A stream socket's transport.

    Args:
        loop: The running loop.
        driver: The loop's driver.
        fd: The socket's descriptor.
        protocol: Told what happens, in *context*.
        server: Hears of the end.
        sock: The socket object that owns the descriptor, if the program brought one.
        peer: The peer's address as the kernel writes it, if it is known.
    """

    __slots__ = (
        "__weakref__",
        "_deliver",
        "_error",
        "_held",
        "_receives",
        "_recv_op",
        "_server",
        "_socket",
    )

    def __init__(
        self,
        loop: "RunningLoop",
        driver: Driver,
        fd: int,
        protocol: asyncio.BaseProtocol,
        context: Context,
        *,
        server: Hub | None = None,
        sock: Sock | None = None,
        peer: bytes | None = None,
    ) -> None:
        super().__init__(loop, driver, fd, context)
        self._socket = HeldSocket(driver, fd, "transport", sock, peer)
        self._server = server
        self._held = False
        self._receives: Iterator[bytes] | None = None
        self._error: BaseException | None = None
        self._deliver: Callable[..., object]
        self.set_protocol(protocol)
        self._recv_op: Op[object] = Op(RECV, fd, len_=driver.recv_bytes_max)
        self._recv_op.later = []  # a deque is 600 bytes
        self._recv_op.owner = self
        self._ready_op(self._recv_op, self._received)
        self._ready_op(self._send_op, self._sent)
        loop._transports[fd] = self  # pyright: ignore[reportPrivateUsage]

    def _ready_op(self, op: Op[object], waiter: Callable[[Op[object]], None]) -> None:
        op.state = SPENT
        op.home = self._driver
        op.waiter = waiter
        op.context = self._context

    def __repr__(self) -> str:
        if self._recv_op.fd < 0:
            return "<StreamTransport closed>"
        closing = " closing" if self._obstacle & CLOSING else ""
        reading = "on" if self.is_reading() else "off"
        buffered = self.get_write_buffer_size()
        fd = self._recv_op.fd
        return f"<StreamTransport{closing} fd={fd} reading={reading} buffered={buffered}>"

    # asyncio's own transports have them, and what works on top of any of them asks for them.
    _sendfile_compatible = constants._SendfileMode.TRY_NATIVE  # pyright: ignore[reportPrivateUsage]
    _start_tls_compatible = True

    if TYPE_CHECKING:
        _extra: dict[str, object]

    # --- reading ---------------------------------------------------------------------------------

    def introduce(self) -> None:
        """Tell the protocol that the connection stands."""
        try:
            self._protocol.connection_made(self)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:
            self._report("Exception in protocol.connection_made()", error)

    def read_on(self) -> None:
        """Read, unless something speaks against it; to be called once when all know each other."""
        op = self._recv_op
        if not self._obstacle and op.state == SPENT and not self._held:
            op.state = NEW
            try:
                self._submit(op)
            except BaseException:
                not_taken(op)
                raise

    def _received(self, op: Op[object]) -> None:
        data = op.value
        if not data or self._obstacle:
            self._received_otherwise(op)
            return
        op.value = None
        self._sent_bytes = 0
        if op.later:
            data = _joined(data, op.later)  # type: ignore[arg-type]  # a cast is a call
        try:
            self._deliver(data)
        except BaseException as error:
            buffered = isinstance(self._protocol, asyncio.BufferedProtocol)
            self._protocol_failed("buffer_updated" if buffered else "data_received", error)
            return
        if not self._obstacle and op.state == SPENT:  # type: ignore[redundant-expr]
            # A cast is a call, and this is hot.
            if len(data) >= _BULK_BYTES and self._receives is None:  # type: ignore[arg-type]
                self._receive_bulk(op)
            if op.standing and not op.later:  # as `submit` would, without the call
                op.state = SUBMITTED
                return
            op.state = NEW
            try:
                self._submit(op)
            except BaseException:
                not_taken(op)
                raise

    def _receive_bulk(self, op: Op[object]) -> None:
        """
        Wait by a POLL from now on, and read when the piece before has been worked on.

        A ring reads for all connections at once, into memory that is cold by the time it is used.
        """
        if op.standing or op.later or not self._driver.polls_cheaply:
            return
        recv = self._driver.system.receiver(op.fd)
        if recv is not None:
            self._receives = map(recv, repeat(_RECV_BYTES), repeat(MSG_DONTWAIT))
            op.code = POLL_AGAIN
            op.flags = _READABLE
            op.len = 0
            op.waiter = self._readable

    def _readable(self, op: Op[object]) -> None:
        op.value = None
        receives = self._receives
        if op.error is None and not self._obstacle and receives is not None:
            try:
                for op.value in receives:
                    break
                self._look_at_size(op)
            except (BlockingIOError, InterruptedError):
                self.read_on()
                return
            except OSError as error:
                if error.errno is None:
                    raise  # a signal handler's, such as a TimeoutError
                op.error = error
        elif self._obstacle == _PAUSED and op.error is None:
            return
        self._received(op)

    def _look_at_size(self, op: Op[object]) -> None:
        """Go back to the usual way of receiving when a piece is small."""
        if len(cast("bytes", op.value)) < _SMALL_BYTES:
            op.code = RECV
            op.flags = 0
            op.len = self._driver.recv_bytes_max
            op.waiter = self._received
            self._receives = None

    def _received_otherwise(self, op: Op[object]) -> None:
        """Handle what is not simply data that is welcome."""
        if self._obstacle & CLOSING:
            op.value = None
            op.error = None
            if op.standing:
                self._stop_receiving()  # a receive that went on behind what was cancelled
            self._end_now_if_idle()
        elif self._obstacle & _PAUSED:
            self._held = True
        elif op.error is not None:
            error, op.error = op.error, None
            self._fatal_error(error, "Fatal read error on socket transport")
        else:
            self._peer_ended()

    def _stop_receiving(self) -> None:
        """Have the receive end; what it brings is nobody's any more."""
        op = self._recv_op
        if op.standing and op.state == SPENT:
            op.state = SUBMITTED  # awaited again, so that its end is told
        self._driver.cancel(op)

    def orphan(self, op: Op[object], value: object, /) -> None:
        """Keep the error that ended a receive for which nobody waited; see `Owner`."""
        if isinstance(value, OSError) and op.later is not None:
            op.later.append(value)

    def _deliver_held(self) -> None:
        if self._held and not self._obstacle & _PAUSED:
            self._held = False
            self._received(self._recv_op)

    def _peer_ended(self) -> None:
        self._obstacle |= _ENDED
        try:
            keep_open = self._protocol.eof_received()  # type: ignore[attr-defined]
        except BaseException as error:
            self._protocol_failed("eof_received", error)
            return
        if not keep_open:
            self.close()

    def _deliver_into_buffer(self, data: bytes) -> None:
        """`data_received` of a `BufferedProtocol`: copy into the buffer that it offers."""
        protocol = cast("asyncio.BufferedProtocol", self._protocol)
        size = len(data)
        try:
            buffer = protocol.get_buffer(size)
            if type(buffer) is bytearray and len(buffer) >= size:
                buffer[:size] = data  # the usual case, at a tenth of the price
            else:
                size = fill(buffer, data)
        except BaseException as error:
            self._protocol_failed("get_buffer", error)
            return
        protocol.buffer_updated(size)
        if size < len(data):
            self._deliver_rest(protocol, memoryview(data)[size:])

    def _deliver_in_vain(self, data: bytes) -> None:
        """Fail as asyncio does where the protocol takes no data."""
        cast("asyncio.Protocol", self._protocol).data_received(data)

    def _deliver_rest(self, protocol: asyncio.BufferedProtocol, rest: memoryview) -> None:
        """Go on with what had no room in the buffer."""
        while rest and not self._obstacle & CLOSING:
            if self._obstacle & _PAUSED:
                self._recv_op.value = bytes(rest)
                self._held = True
                return
            if protocol is not self._protocol:
                self._deliver(bytes(rest))  # it has put another in its place
                return
            try:
                count = fill(protocol.get_buffer(len(rest)), rest)
            except BaseException as error:
                self._protocol_failed("get_buffer", error)
                return
            protocol.buffer_updated(count)
            rest = rest[count:]

    def _protocol_failed(self, method: str, error: BaseException) -> None:
        if isinstance(error, KeyboardInterrupt | SystemExit):
            self.read_on()
            raise error
        self._fatal_error(error, f"Fatal error: protocol.{method}() call failed.")

    def is_reading(self) -> bool:
        """Whether data is delivered as it comes."""
        return not self._obstacle & (_PAUSED | CLOSING)

    def pause_reading(self) -> None:
        """Deliver no more until `resume_reading`; safe to call twice."""
        if not self._obstacle & CLOSING:
            self._obstacle |= _PAUSED

    def resume_reading(self) -> None:
        """Deliver again what comes; safe to call twice."""
        if self._obstacle & CLOSING or not self._obstacle & _PAUSED:
            return
        self._obstacle &= ~_PAUSED
        if self._held:
            self._loop.call_soon(self._deliver_held, context=self._context)
        else:
            self.read_on()

    # --- lending ---------------------------------------------------------------------------------

    def lend(self, borrower: Borrower) -> int:
        """
        Let *borrower* send, from when it is told to begin until `give_back`, and `write` refuse.

        Returns the descriptor, which stays open until then.

        Raises:
            RuntimeError: It is lent already, or `write_eof` was called.
        """
        if self._borrower is not None or self._eof:
            what = "write_eof() was called" if self._eof else "sendfile is in progress already"
            raise RuntimeError(f"unable to send a file; {what}")
        self.send_gathered()
        self._borrower = borrower
        self._sends = None
        self._after_send = True
        if self._send_op.state == SPENT:
            borrower.begin()
        return self._send_op.fd

    def give_back(self, failure: BaseException | None) -> None:
        """Send what is written again; *failure* is why the borrower could not go on sending."""
        self._borrower = None
        if failure is not None:
            self._fatal_error(failure, "Fatal write error on socket transport")
        if self._ending:
            self._end_now_if_idle()
        else:
            self._finish_writing()

    # --- the ends --------------------------------------------------------------------------------

    def is_closing(self) -> bool:
        """Whether the transport is closed or on its way there."""
        return self._obstacle & CLOSING != 0

    def close(self) -> None:
        """Read no more, send what was written, then end; safe to call twice."""
        if self._obstacle & CLOSING:
            return
        if self._loop.gone:
            self._force_close(None)
            return
        self.send_gathered()
        self._obstacle |= CLOSING
        self._sends = None
        self._stop_receiving()
        if self._send_op.state in IN_FLIGHT or self._backlog or self._borrower is not None:
            self._after_send = True
        else:
            self._end()

    def abort(self) -> None:
        """End at once; what was not sent, for lack of room or behind such, is lost."""
        self.send_gathered()
        self._force_close(None)

    def _fatal_error(self, error: BaseException, message: str) -> None:
        if isinstance(error, OSError):
            if self._loop.get_debug():
                logger.debug("%r: %s", self, message, exc_info=error)
        else:
            self._report(message, error)
        self._force_close(as_builtin(error))

    def _force_close(self, error: BaseException | None) -> None:
        if self._ending:
            return
        self._obstacle |= CLOSING
        self._sends = None
        self._backlog.clear()
        self._backlog_bytes = 0
        self._error = error
        if self._loop.gone:
            self._ending = OVER  # and nobody is left to be told of it
            self._release()
            return
        self._stop_receiving()
        if self._send_op.state == SUBMITTED:
            # As far as there is room, what was written before is sent, as by asyncio's own.
            self._driver.flush()
        if self._driver.cancel(self._send_op):
            self._after_send = True
        if self._borrower is not None:
            self._borrower.stop()
        self._end()

    def _end(self) -> None:
        if self._ending:
            return
        self._ending = ENDING
        if self._is_idle():
            # Not from here, which may be in the middle of the protocol's own code.
            self._ending = OVER
            self._loop.call_soon(self._connection_lost, context=self._context)

    def _end_now_if_idle(self) -> None:
        """Tell the protocol of the end; called by what the driver delivers, outside of its code."""
        if self._ending == ENDING and self._is_idle():
            self._ending = OVER
            self._connection_lost()

    def _is_idle(self) -> bool:
        return (
            self._recv_op.state not in IN_FLIGHT
            and not self._recv_op.standing
            and self._send_op.state not in IN_FLIGHT
            and self._borrower is None
        )

    def _connection_lost(self) -> None:
        protocol, error = self._protocol, self._error
        try:
            self._tell_protocol(
                "connection_lost",
                lambda: protocol.connection_lost(error),  # type: ignore[arg-type]
            )
        finally:
            self._release()

    def _release(self) -> None:
        """Close the descriptor and let go of everything."""
        if self._server is not None:
            self.get_extra_info("sockname")  # which it is known by behind its end, too
        self._socket.close()
        for op in (self._recv_op, self._send_op):
            op.fd = -1
            op.waiter = op.context = op.owner = None
        # Protocols hold their transport; here the circle is broken.
        self._protocol = None  # type: ignore[assignment]
        self._error = None  # whose traceback may lead here
        self._deliver = deliver_to_nobody
        self._leave_server()

    def _leave_server(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            server.detach(self)

    def __del__(self) -> None:
        if self._server is not None:
            self._leave_server()  # abandoned: the descriptor warns and closes itself

    # --- about it --------------------------------------------------------------------------------

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Let *protocol* hear what happens from now on."""
        self._protocol = protocol
        if isinstance(protocol, TlsProtocol):
            self._deliver = protocol.data_received
        elif isinstance(protocol, asyncio.BufferedProtocol):
            self._deliver = self._deliver_into_buffer
        else:
            self._deliver = getattr(protocol, "data_received", self._deliver_in_vain)

    def get_protocol(self) -> asyncio.BaseProtocol:
        """Return who hears what happens."""
        return self._protocol

    def get_extra_info(self, name: str, default: object = None) -> object:
        """
        Return what is known about the connection, or *default*.

        Behind the end that is what was asked for before, and both names.

        Args:
            name: ``"socket"`` (a socket object to look at and set options on), ``"sockname"`` or
                ``"peername"``.
        """
        known: dict[str, object] = self._extra
        if name not in known and name in INFO_NAMES:
            known[name] = self._socket.info(name)
        return known.get(name, default)


def _joined(data: bytes, later: MutableSequence[bytes | OSError]) -> bytes:
    """Return *data* with what came behind it in the same turn, up to an error."""
    pieces = [data]
    while later and isinstance(later[0], bytes):
        pieces.append(later[0])
        del later[0]
    return b"".join(pieces)
