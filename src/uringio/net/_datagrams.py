"""Datagram sockets: UDP over IPv4 and IPv6, and Unix."""

import operator
import weakref
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from types import TracebackType
from typing import Final, NamedTuple, Self, TypeVar

from uringio._driver.contract import Driver
from uringio._driver.messages import Incoming, Received, read_segment_bytes
from uringio._driver.op import NEW, READY, RECVMSG, STALE, Op
from uringio._driver.sockets import Address, HasFileno, SocketAddress
from uringio._own.fd import OwnedFd
from uringio.errors import BusyError

from ._closing import BoundPath, close_op, in_flight
from ._messages import (
    ANCILLARY_BYTES,
    Ancillary,
    Credentials,
    Message,
    Pieces,
    WritablePieces,
    checked_room,
    incoming_op,
    make_message,
    outgoing_op,
    scatter,
    writable_pieces,
)
from ._polling import KeepsUnread

__all__ = ["Datagram", "DatagramSocket"]

T = TypeVar("T")

# More than any UDP datagram is long, and any that the kernel joins.
_RECEIVE_BYTES: Final = 65536
_RECEIVE_BYTES_MAX: Final = 1 << 30
# Of a plain receive; enough for the size of joined segments behind the other items that options
# may have asked for (time stamps, the interface, marks).
_CONTROL_BYTES: Final = 256


class _Pair(NamedTuple):
    data: bytes
    address: SocketAddress


class Datagram(_Pair):
    """
    A datagram and where it came from, also as the pair ``(data, address)``.

    Attributes:
        data: The payload.
        address: The sender's; the empty `UnixAddress` for a Unix socket without a name.
        truncated: The datagram was longer than was asked for; the rest is lost.
        segment_bytes: The size of the datagrams that the kernel has joined into this one (UDP_GRO),
            of which the last may be shorter; 0 if it has not. [bytes]
    """

    truncated: bool = False
    segment_bytes: int = 0


class _Hull(KeepsUnread):
    """What a socket's operations keep alive: its descriptor, and what nobody has read yet."""

    __slots__ = ("fd", "unread")

    def __init__(self, fd: OwnedFd) -> None:
        self.fd = fd
        self.unread: deque[Received | OSError] = deque()

    def has_unread(self) -> bool:
        """See `KeepsUnread`."""
        return bool(self.unread)

    def orphan(self, op: Op[T], value: object, /) -> None:
        """Keep what a cancelled receive had got: an error, or a datagram without descriptors."""
        if op.code != RECVMSG:
            return
        if isinstance(value, OSError):
            self.unread.append(value)
        elif isinstance(value, Received):
            value.close_fds()
            value.data = value.payload()
            self.unread.append(value)


class DatagramSocket:
    """
    A socket that sends and receives datagrams.

    Made by `open_udp` and `open_unix_datagram`.  Close it, or use it as an async context manager.
    One task receives at a time; any number of tasks may send.

    Attributes:
        local_address: What it is bound to.
    """

    __slots__ = (
        "__weakref__",
        "_control_bytes",
        "_driver",
        "_family",
        "_fd",
        "_hull",
        "_last_name",
        "_memory",
        "_path",
        "_recv_op",
        "_send_ops",
    )

    def __init__(self, driver: Driver, fd: int, family: int, path: BoundPath | None = None) -> None:
        self._driver = driver
        self._family = family
        self._path = path
        self._fd = OwnedFd(fd, driver.system.close, "datagram socket")
        self._hull = _Hull(self._fd)
        self._control_bytes = 0 if family == driver.system.AF_UNIX else _CONTROL_BYTES
        # Made by the first receive; reused, since there is one at a time.
        self._memory: Incoming | None = None
        self._recv_op: Op[object] | None = None
        self._send_ops: weakref.WeakSet[Op[object]] = weakref.WeakSet()
        self._last_name: tuple[Address, bytes] | None = None

    def __repr__(self) -> str:
        return f"<DatagramSocket {self._fd!r}>"

    # --- sending ---------------------------------------------------------------------------------

    def send_to(
        self, data: bytes | bytearray | memoryview, address: Address, /, *, segment_bytes: int = 0
    ) -> Op[int]:
        """
        Send one datagram to *address*, waiting while the socket is full.

        Args:
            data: The payload.  It is held until the kernel has taken it.
            address: As the standard library writes it, numeric: see `resolve` for names.
            segment_bytes: Have the kernel cut *data* into datagrams of this size (UDP_SEGMENT,
                Linux 4.18), of which the last may be shorter; 0 sends a single one. [bytes]

        Returns:
            How many bytes were sent, which is all of them.

        Raises:
            ClosedError: The socket was closed, before the call or during it.
            OpError: The kernel refused, such as EMSGSIZE; or ECONNREFUSED, which tells of an
                earlier datagram to a connected peer that does not listen.
            ValueError: The address does not fit the socket, or *segment_bytes* is given for a Unix
                socket.

        Cancellation: the datagram was sent, or it was not; ``done`` on the exception tells.

        Source: sendmsg(2), udp(7).
        """
        return self.sendmsg(data, address, segment_bytes=segment_bytes)

    def send(self, data: bytes | bytearray | memoryview, /, *, segment_bytes: int = 0) -> Op[int]:
        """
        Send one datagram to the peer that the socket is connected to; see `send_to`.

        Raises:
            OpError: EDESTADDRREQ or ENOTCONN where it is connected to none.
        """
        return self.sendmsg(data, segment_bytes=segment_bytes)

    def sendmsg(
        self,
        pieces: Pieces,
        address: Address | None = None,
        /,
        *,
        fds: Sequence[int | HasFileno] = (),
        credentials: Credentials | None = None,
        segment_bytes: int = 0,
        ancillary: Sequence[Ancillary] = (),
    ) -> Op[int]:
        """
        Send one datagram, gathered from *pieces*, with ancillary data.

        Args:
            pieces: Bytes-like objects that make up the payload, or a single one.
            address: Where to; None for the connected peer.
            fds: Descriptors, or objects with ``fileno()``, of which the receiver gets copies (Unix
                sockets only).  They are duplicated by the call and may be closed after it.
            credentials: Who to be to the receiver; root may choose.
            segment_bytes: As in `send_to`.
            ancillary: Further items by their numbers.

        Raises, Cancellation: As `send_to`.
        """
        fd = self._fd.number
        if segment_bytes and self._family == self._driver.system.AF_UNIX:
            # The kernel would send all of it as one.
            raise ValueError("only UDP sockets cut what they send into segments")
        name = b"" if address is None else self._pack(address)
        op = outgoing_op(
            self._driver,
            fd,
            self._hull,
            pieces,
            name=name,
            fds=fds,
            credentials=credentials,
            segment_bytes=segment_bytes,
            ancillary=ancillary,
            unix_datagram=self._family == self._driver.system.AF_UNIX,
        )
        self._send_ops.add(op)
        return op

    def _pack(self, address: Address) -> bytes:
        last = self._last_name
        # Of the same type: `bytes` (abstract) and `str` are never to be compared under ``-bb``.
        if last is not None and type(last[0]) is type(address) and last[0] == address:
            return last[1]
        name = self._driver.system.pack_sockaddr(self._family, address)
        self._last_name = (address, name)
        return name

    # --- receiving -------------------------------------------------------------------------------

    def recv_from(self, max_bytes: int = _RECEIVE_BYTES, /) -> Op[Datagram]:
        """
        Wait for a datagram.

        Args:
            max_bytes: The most to return; of a longer datagram the rest is lost, and `truncated`
                says so. [bytes]

        Raises:
            ClosedError: The socket was closed, before the call or during it.
            BusyError: Another task is receiving.
            OpError: An earlier datagram to the connected peer was refused (ECONNREFUSED).

        Cancellation: a datagram that had arrived is kept for the next call.

        Source: recvmsg(2), udp(7).
        """
        return self._receive(max_bytes, self._control_bytes, self._datagram)

    def recv(self, max_bytes: int = _RECEIVE_BYTES, /) -> Op[bytes]:
        """
        Wait for a datagram, wherever it comes from: a connected socket gets its peer's only.

        Returns:
            Its payload, which may be empty; there is no end.  Whether it was cut to *max_bytes*, or
            joined of several (UDP_GRO), only `recv_from` tells.

        Raises, Cancellation: As `recv_from`.
        """
        return self._receive(max_bytes, self._control_bytes, _data_of)

    def recvmsg(
        self, max_bytes: int = _RECEIVE_BYTES, /, *, ancillary_bytes: int = ANCILLARY_BYTES
    ) -> Op[Message]:
        """
        Wait for a datagram and what comes with it.

        Args:
            max_bytes: The most payload to return. [bytes]
            ancillary_bytes: Room for ancillary data; descriptors without room are closed. [bytes]

        Raises: As `recv_from`.

        Cancellation: a datagram that had arrived is kept for the next call; its descriptors are
        closed.
        """
        return self._receive(max_bytes, checked_room(ancillary_bytes), self._message)

    def recvmsg_into(
        self, pieces: WritablePieces, /, *, ancillary_bytes: int = ANCILLARY_BYTES
    ) -> Op[Message]:
        """
        Wait for a datagram, and put it into *pieces*, one after the other.

        Lifetime: *pieces* are held until the op is done; a `bytearray` cannot be resized meanwhile.

        Raises:
            TypeError: A piece cannot be written.
            ClosedError, BusyError, OpError: As `recvmsg`.

        Cancellation: As `recvmsg`; what *pieces* hold then is undefined.
        """
        parts = writable_pieces(pieces)
        room = checked_room(ancillary_bytes)
        fd = self._claim_reader()
        if self._hull.unread:
            return self._kept(lambda received: self._scattered(received, parts))
        memory = Incoming(self._driver.system, 0, room, parts)
        return self._hand_out(fd, memory, self._message)

    def __aiter__(self) -> AsyncIterator[Datagram]:
        """Iterate over datagrams for ever."""
        return self._datagrams()

    async def _datagrams(self) -> AsyncIterator[Datagram]:
        while True:
            yield await self.recv_from()

    def _receive(
        self, max_bytes: int, control_bytes: int, convert: Callable[[Received], T]
    ) -> Op[T]:
        if not 1 <= operator.index(max_bytes) <= _RECEIVE_BYTES_MAX:
            raise ValueError(f"max_bytes is of 1..{_RECEIVE_BYTES_MAX}, not {max_bytes}")
        fd = self._claim_reader()
        if self._hull.unread:
            return self._kept(lambda received: convert(_cut(received, max_bytes)))
        memory = self._memory
        if memory is None or memory.data_bytes < max_bytes or memory.control_bytes < control_bytes:
            data_bytes = max(max_bytes, _RECEIVE_BYTES)
            memory = Incoming(self._driver.system, data_bytes, max(control_bytes, ANCILLARY_BYTES))
            self._memory = memory
        memory.prepare(max_bytes, control_bytes)
        return self._hand_out(fd, memory, convert)

    def _claim_reader(self) -> int:
        fd = self._fd.number
        op = self._recv_op
        if op is not None:
            if op.state == NEW:
                # Handed out and not started.  Whoever holds it may still try to, and is refused.
                op.state = STALE
            elif in_flight(op):
                raise BusyError(f"another task is receiving on {self!r}")
        return fd

    def _hand_out(self, fd: int, memory: Incoming, convert: Callable[[Received], T]) -> Op[T]:
        op = incoming_op(self._driver, fd, self._hull, memory, convert)
        self._recv_op = op
        return op

    def _kept(self, convert: Callable[[Received], T]) -> Op[T]:
        unread = self._hull.unread

        def take(_: object) -> T:
            if not unread:
                raise BusyError(f"another task took what was kept on {self!r}")
            first = unread.popleft()
            if isinstance(first, OSError):
                raise first
            return convert(first)

        op: Op[T] = Op(READY, finish=take)
        op.home = self._driver
        return op

    def _datagram(self, received: Received) -> Datagram:
        datagram = Datagram(received.data, self._driver.system.unpack_sockaddr(received.name))
        if received.truncated:
            datagram.truncated = True
        for item in received.items:
            segment_bytes = read_segment_bytes(item)
            if segment_bytes is not None:
                datagram.segment_bytes = segment_bytes
        return datagram

    def _message(self, received: Received) -> Message:
        return make_message(self._driver, received)

    def _scattered(self, received: Received, pieces: Sequence[bytearray | memoryview]) -> Message:
        message = make_message(self._driver, received)
        message.count = scatter(received.data, pieces)
        message.truncated = message.truncated or message.count < len(received.data)
        message.data = b""
        return message

    # --- the ends --------------------------------------------------------------------------------

    @property
    def local_address(self) -> SocketAddress:
        """What it is bound to; raises `ClosedError`."""
        return self._driver.system.getsockname(self._fd.number)

    @property
    def remote_address(self) -> SocketAddress:
        """The connected peer's address; raises `OpError` (ENOTCONN) where there is none."""
        return self._driver.system.getpeername(self._fd.number)

    def fileno(self) -> int:
        """The descriptor, which stays the socket's; raises `ClosedError`."""
        return self._fd.number

    def setsockopt(self, level: int, option: int, value: int | bytes) -> None:
        """Set a socket option by its numbers, such as a group to join; raises `OpError`."""
        self._driver.system.setsockopt(self._fd.number, level, option, value)

    def getsockopt(self, level: int, option: int) -> int:
        """Return an integer socket option by its numbers; raises `OpError`."""
        return self._driver.system.getsockopt(self._fd.number, level, option)

    def aclose(self) -> Op[None]:
        """
        Close the socket; safe to call twice.  Tasks that receive or send get `ClosedError`.

        The path that it is bound to is removed, unless another socket has been bound there since.

        Raises:
            WrongThreadError: The socket belongs to another loop or thread.

        Cancellation: the socket is closed all the same.
        """
        ops = list(self._send_ops)
        if self._recv_op is not None:
            ops.append(self._recv_op)
        closing = close_op(self._driver, self._fd, ops)
        if self._path is not None:
            self._path.remove()
        self._recv_op = None
        self._memory = None  # an op that is still in flight holds it
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


def _data_of(received: Received) -> bytes:
    return received.data


def _cut(received: Received, max_bytes: int) -> Received:
    """Make a kept datagram what a receive of *max_bytes* would have got."""
    if len(received.data) > max_bytes:
        received.data = received.data[:max_bytes]
        received.count = max_bytes
        received.truncated = True
    return received
