"""Connected stream sockets."""

import operator
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from types import TracebackType
from typing import Final, Self, TypeVar

from uringio._driver.contract import Driver
from uringio._driver.lease_count import LeaseCount
from uringio._driver.messages import Ancillary, Credentials, Incoming
from uringio._driver.op import (
    HERE,
    NEW,
    POLL,
    READY,
    RECV,
    SEND_ALL,
    SHUTDOWN,
    SPENT,
    STALE,
    Op,
)
from uringio._driver.poll_bits import POLLOUT
from uringio._driver.relaying import Outlet, RelaySource, relay_all
from uringio._driver.sockets import SEND_ALL_FLAGS, HasFileno, SocketAddress
from uringio._own.fd import OwnedFd
from uringio.errors import BusyError, EndOfStreamError, OpError

from ._closing import close_op, in_flight
from ._hull import Hull
from ._messages import (
    ANCILLARY_BYTES,
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
from ._moves import Moves

__all__ = ["SocketStream"]

T = TypeVar("T")

_SHUT_WR: Final = 1
# What one operation is asked for at most; drivers have buffers of this size.
_RECV_BYTES_MAX: Final = 65536
# What one operation is given; the kernel takes a little below 2 GiB at a time anyway.
_SEND_BYTES_MAX: Final = 1 << 30
_RECV_MSG_BYTES_MAX: Final = 1 << 30

# In the places of a closed stream's ops: never free, so every call takes the long way to the error.
_CLOSED_RECV: Final[Op[bytes]] = Op(READY)
_CLOSED_RECV.state = STALE
_CLOSED_SEND: Final[Op[None]] = Op(READY)
_CLOSED_SEND.state = STALE


class SocketStream(Moves):
    """
    A connected stream socket.

    Made by `connect_tcp`, `connect_unix` and `Listener.accept`.  Close it, or use it as an async
    context manager.

    Attributes:
        local_address: This end's address, as the standard library writes it.
        remote_address: The peer's.
    """

    __slots__ = (
        "__weakref__",
        "_eof_op",
        "_fd",
        "_hull",
        "_reads_ahead",
        "_recv_op",
        "_remote",
        "_send_op",
    )

    def __init__(
        self, driver: Driver, fd: int, remote: bytes | None = None, *, reads_ahead: bool = True
    ) -> None:
        self._driver = driver
        self._fd = OwnedFd(fd, driver.system.close, "stream")
        self._remote = remote
        self._hull = Hull(self._fd)
        self._unread = self._hull.unread
        # Not where descriptors come with bytes: who reads ahead does not know what will be asked.
        self._reads_ahead = reads_ahead
        # One op object per direction for the stream's whole life; `state` says whether it is free.
        self._recv_op: Op[bytes] = self._make_recv_op(fd)
        self._send_op: Op[None] = self._make_send_op(fd)
        self._eof_op: Op[None] | None = None
        # The last that were not plain; after one, a closed op stands in for the plain one of its
        # direction, until that is wanted again.
        self._last_recv = self._last_send = None
        self._into_op = self._out_op = self._foreign = self._lease_op = None
        self._leases = LeaseCount()

    def __repr__(self) -> str:
        return f"<SocketStream {self._fd!r}>"

    def __del__(self) -> None:
        op: Op[bytes] | None = getattr(self, "_recv_op", None)
        if op is not None and op.standing:
            self._driver.stand_down(op, False)

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
        # An op that still has its value is one that somebody will ask for the result, later.
        if op.state != SPENT or op.value is not None:
            return self._recv_otherwise(max_bytes)
        if max_bytes != _RECV_BYTES_MAX:
            # The shift gives 0 for 1.._RECV_BYTES_MAX, and a TypeError for what is no number.
            if self._unread or op.standing or (max_bytes - 1) >> 16:
                return self._recv_otherwise(max_bytes)
        elif self._unread:
            op.state = HERE
            op.error = None
            op.len = max_bytes
            return op
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
                chunk = await self.recv(min(missing, _RECV_BYTES_MAX))
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
        if operator.index(max_bytes) < 1:
            raise ValueError(f"max_bytes is at least 1, not {max_bytes}")
        fd = self._fd.number
        op = self._recv_op
        if op.state in {NEW, HERE}:
            # Handed out and not started.  Whoever holds it may still try to, and must be refused.
            op.state = STALE
        elif in_flight(op):
            raise BusyError(f"another task is receiving on {self!r}")
        if op.standing:
            self._driver.stand_down(op, True)
        self._supersede(self._last_recv, "receiving")
        self._supersede(self._foreign_op(), "receiving")
        if self._unread:
            kept: Op[bytes] = Op(READY, finish=lambda _: self._take_unread(max_bytes))
            kept.home = self._driver
            return kept
        if op.state != SPENT or op.value is not None:
            op = self._recv_op = self._make_recv_op(fd)
        self._last_recv = None
        op.state = NEW
        op.error = None
        op.len = min(max_bytes, _RECV_BYTES_MAX)
        return op

    def _take_unread(self, max_bytes: int) -> bytes:
        unread = self._unread
        if not unread:
            raise BusyError(f"another task took what was kept on {self!r}")
        first = unread.popleft()
        if isinstance(first, OSError):
            raise first
        if len(first) > max_bytes:
            unread.appendleft(first[max_bytes:])
            first = first[:max_bytes]
        return first

    def _make_recv_op(self, fd: int) -> Op[bytes]:
        op: Op[bytes] = Op(RECV, fd, int(not self._reads_ahead), owner=self._hull)
        op.home = self._driver
        op.later = self._unread
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

    def send_file(self, file: RelaySource, offset: int, count: int, /) -> Awaitable[int]:
        """
        Send a part of a file, waiting where the peer is slow.

        What the page cache holds goes straight on; only the rest is waited for.  Who waits for a
        peer holds no memory.  Bytes that are changed in the file before the peer has them may
        arrive as either.

        Args:
            file: Open for reading; it must stay so until the call has ended.
            offset: Where to begin. [bytes]
            count: How much to send. [bytes]

        Returns:
            How many bytes were sent, fewer than *count* where the file ended before. [bytes]

        Raises:
            ClosedError: The stream was closed, before the call or during it.
            BusyError: Another task is sending.
            OpError: The connection broke, or the file cannot be read; ``done`` counts what had
                left.
            ValueError: *offset* or *count* is negative.

        Cancellation: some of the bytes may have been sent; the exception's ``done`` counts them.

        Kernel: 6.5 (cachestat), and a file that is one's own or writable, for sendfile; else
        preadv2 and send.  Source: sendfile(2), cachestat(2), preadv2(2), poll(2).
        """
        return relay_all(
            self._driver.system,
            Outlet(self._claim_writer, self._wait_for_room, self.send_all),
            file,
            offset,
            count,
        )

    def _wait_for_room(self) -> Op[int]:
        """Wait until something can be sent; stands in for a send, so that none gets in between."""
        op: Op[int] = Op(POLL, self._claim_writer(), flags=POLLOUT, owner=self._hull)
        op.home = self._driver
        self._last_send = op
        return op

    def send_eof(self) -> Op[None]:
        """
        Tell the peer that no more bytes follow; receiving goes on.

        Raises:
            ClosedError: The stream is closed.
            BusyError: Another task is sending; what it sends would be cut off.
            OpError: The peer is gone (ENOTCONN).

        Source: shutdown(2).
        """
        fd = self._fd.number
        if in_flight(self._send_op) or (self._last_send and in_flight(self._last_send)):
            raise BusyError(f"another task is sending on {self!r}")
        before = self._eof_op
        if before is not None and before.state == NEW:
            before.state = STALE  # one at a time is what `aclose` can end
        op: Op[None] = Op(SHUTDOWN, fd, len_=_SHUT_WR, owner=self._hull)
        op.home = self._driver
        self._eof_op = op
        return op

    def _send_otherwise(self, data: bytes | bytearray | memoryview) -> Awaitable[None]:
        """`send_all` in every case but the plainest."""
        fd = self._fd.number
        view = memoryview(data)
        op = self._send_op
        if op.state == NEW:
            op.state = STALE
            op.memory = None
        elif in_flight(op):
            raise BusyError(f"another task is sending on {self!r}")
        self._supersede(self._last_send, "sending")
        if view.nbytes == 0:
            return Op(READY)
        if view.nbytes > _SEND_BYTES_MAX:
            return self._send_in_pieces(view.cast("B"))
        op = self._send_op = self._make_send_op(fd)
        self._last_send = None
        op.state = NEW
        op.memory = data
        op.len = view.nbytes
        return op

    async def _send_in_pieces(self, view: memoryview) -> None:
        for start in range(0, view.nbytes, _SEND_BYTES_MAX):
            try:
                await self._send_otherwise(view[start : start + _SEND_BYTES_MAX])
            except BaseException as error:
                if isinstance(error, OpError) or not isinstance(error, Exception):
                    error.__dict__["done"] = start + getattr(error, "done", 0)
                raise

    def _make_send_op(self, fd: int) -> Op[None]:
        op: Op[None] = Op(SEND_ALL, fd, flags=SEND_ALL_FLAGS, owner=self._hull)
        op.home = self._driver
        op.state = SPENT
        return op

    # --- messages --------------------------------------------------------------------------------

    def sendmsg(
        self,
        pieces: Pieces,
        /,
        *,
        fds: Sequence[int | HasFileno] = (),
        credentials: Credentials | None = None,
        ancillary: Sequence[Ancillary] = (),
        zero_copy: bool = False,
    ) -> Op[int]:
        """
        Send what is gathered from *pieces*, with ancillary data; perhaps not all of it.

        Args:
            pieces: Bytes-like objects, or a single one; at least one byte if anything goes with it.
            fds: Descriptors, or objects with ``fileno()``, of which the receiver gets copies (Unix
                sockets only).  They are duplicated by the call and may be closed after it.
            credentials: Who to be to the receiver; root may choose.
            ancillary: Further items by their numbers.
            zero_copy: Let the network take the pieces, which must be `bytes`, from where they lie;
                with all that `send_buffer` says of it.  Kernel: 6.1, otherwise copied.

        Returns:
            How many bytes were sent; ancillary data goes with the first.

        Raises:
            TypeError: Something that may change was to be sent with *zero_copy*.
            ClosedError, BusyError, OpError: As `send_all`.
            ValueError: Too many pieces or descriptors, or nothing for them to go with; or what only
                Unix sockets pass was given to another.

        Cancellation: ``done`` on the exception counts the bytes that were sent.

        Source: sendmsg(2), unix(7).
        """
        op = outgoing_op(
            self._driver,
            self._claim_writer(),
            self._hull,
            pieces,
            fds=fds,
            credentials=credentials,
            ancillary=ancillary,
            empty=not (fds or credentials or ancillary),
            zero_copy=zero_copy,
        )
        self._last_send = op
        return op

    def recvmsg(
        self, max_bytes: int = 65536, /, *, ancillary_bytes: int = ANCILLARY_BYTES
    ) -> Op[Message]:
        """
        Wait for bytes and for what comes with them.

        Args:
            max_bytes: The most payload to return. [bytes]
            ancillary_bytes: Room for ancillary data; descriptors without room are closed. [bytes]

        Returns:
            A message; its payload is empty once the peer has sent its last.

        Raises:
            ClosedError, BusyError, OpError: As `recv`.

        Cancellation: bytes that had arrived are kept for the next call; descriptors are closed.

        Source: recvmsg(2), unix(7).
        """
        if not 1 <= operator.index(max_bytes) <= _RECV_MSG_BYTES_MAX:
            raise ValueError(f"max_bytes is of 1..{_RECV_MSG_BYTES_MAX}, not {max_bytes}")
        room = checked_room(ancillary_bytes)
        fd = self._claim_reader()
        if self._unread:
            return self._kept_message(lambda: _plain_message(self._take_unread(max_bytes)))
        return self._recvmsg(fd, Incoming(self._driver.system, max_bytes, room))

    def recvmsg_into(
        self, pieces: WritablePieces, /, *, ancillary_bytes: int = ANCILLARY_BYTES
    ) -> Op[Message]:
        """
        Wait for bytes and what comes with them, and put the bytes into *pieces*, in their order.

        Lifetime: *pieces* are held until the op is done; a `bytearray` cannot be resized meanwhile.

        Returns:
            A message without `data`, whose `count` is 0 once the peer has sent its last.

        Raises:
            TypeError: A piece cannot be written.
            ClosedError, BusyError, OpError: As `recv`.

        Cancellation: As `recvmsg`; what *pieces* hold then is undefined.
        """
        parts = writable_pieces(pieces)
        room = checked_room(ancillary_bytes)
        fd = self._claim_reader()
        if self._unread:
            return self._kept_message(lambda: self._scatter_unread(parts))
        return self._recvmsg(fd, Incoming(self._driver.system, 0, room, parts))

    def _recvmsg(self, fd: int, memory: Incoming) -> Op[Message]:
        driver = self._driver
        op = incoming_op(driver, fd, self._hull, memory, lambda got: make_message(driver, got))
        self._last_recv = op
        return op

    def _claim_reader(self) -> int:
        fd = self._fd.number
        self._supersede(self._recv_op, "receiving")
        self._supersede(self._last_recv, "receiving")
        self._supersede(self._foreign_op(), "receiving")
        if self._recv_op.standing:
            self._driver.stand_down(self._recv_op, True)
        self._recv_op = _CLOSED_RECV
        return fd

    def _claim_writer(self) -> int:
        fd = self._fd.number
        self._supersede(self._send_op, "sending")
        self._supersede(self._last_send, "sending")
        self._send_op = _CLOSED_SEND
        return fd

    def _owner(self) -> Hull:
        return self._hull

    def _supersede(self, op: Op[object] | None, doing: str) -> None:
        """Let *op* never start, or raise `BusyError` if it has."""
        if op is None:
            return
        if op.state in {NEW, HERE}:
            op.state = STALE
            op.memory = None
        elif in_flight(op):
            raise BusyError(f"another task is {doing} on {self!r}")

    def _kept_message(self, take: Callable[[], Message]) -> Op[Message]:
        op: Op[Message] = Op(READY, finish=lambda _: take())
        op.home = self._driver
        return op

    def _scatter_unread(self, pieces: list[bytearray | memoryview]) -> Message:
        room = sum(memoryview(piece).nbytes for piece in pieces)
        return Message(b"", scatter(self._take_unread(room), pieces))

    # --- the ends --------------------------------------------------------------------------------

    @property
    def local_address(self) -> SocketAddress:
        """This end's address; raises `ClosedError`."""
        return self._driver.system.getsockname(self._fd.number)

    @property
    def remote_address(self) -> SocketAddress:
        """The peer's address; raises `OpError` (ENOTCONN) where it is not known any more."""
        if self._remote is not None:
            return self._driver.system.unpack_sockaddr(self._remote)
        return self._driver.system.getpeername(self._fd.number)

    def fileno(self) -> int:
        """
        The descriptor, which stays the stream's; raises `ClosedError`.

        Bytes that came before the call may be the stream's already, for its next receive.  From the
        call on (made in the stream's thread) it takes none that nobody has asked it for; so to hand
        a connection on, to another process say, with all that the peer will send, call this before
        you receive.
        """
        number = self._fd.number
        if self._reads_ahead:  # and never again: whoever knows the number may receive, too
            op = self._recv_op
            if op.standing:
                self._driver.stand_down(op, True)
            op.addr = 1
            self._reads_ahead = False
        return number

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

        Raises:
            WrongThreadError: The stream belongs to another loop or thread.

        Cancellation: the stream is closed all the same.
        """
        ops: list[Op[object]] = [self._recv_op, self._send_op]
        seldom = (self._eof_op, self._last_recv, self._last_send, self._foreign_op())
        ops += [op for op in seldom if op is not None]
        closing = close_op(self._driver, self._fd, ops)
        # The old ones may still be on their way; delivered, they would look free.
        self._recv_op, self._send_op = _CLOSED_RECV, _CLOSED_SEND
        self._last_recv = self._last_send = None
        return closing

    def close_idle(self) -> None:
        """Close at once; for streams that nothing was ever awaited on."""
        if not self._fd.closed:
            self._driver.unregister(self._fd.number)
            self._fd.close()
            self._recv_op, self._send_op = _CLOSED_RECV, _CLOSED_SEND

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()


def _plain_message(data: bytes) -> Message:
    return Message(data, len(data))
