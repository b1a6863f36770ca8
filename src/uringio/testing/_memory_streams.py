"""Streams without a kernel: what one end sends, the other receives, within one loop."""

import errno
import operator
from collections import deque
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Final, Self

from uringio._driver import current
from uringio._driver.op import EVENT, Op
from uringio.errors import BusyError, ClosedError, EndOfStreamError, UsageError, op_error

__all__ = [
    "MemoryReceiveStream",
    "MemorySendStream",
    "MemoryStream",
    "memory_pipe",
    "memory_stream_pair",
]

_CAPACITY_BYTES: Final = 65536


class _Bell:
    """One task waits; anybody rings."""

    __slots__ = ("_op",)

    def __init__(self) -> None:
        self._op: Op[None] | None = None

    @property
    def awaited(self) -> bool:
        return self._op is not None

    async def wait(self) -> None:
        """Wait until `ring`; the caller looks for itself whether what it wants is so."""
        op: Op[None] = Op(EVENT)
        op.home = current.driver()
        self._op = op
        try:
            await op
        finally:
            self._op = None

    def ring(self) -> None:
        op = self._op
        if op is not None and op.home is not None:
            op.home.fire(op)


class _Conduit:
    """One direction: what was sent and not received, in the pieces that it was sent in."""

    def __init__(self, capacity_bytes: int) -> None:
        self.capacity_bytes = capacity_bytes
        self.pieces: deque[bytes] = deque()
        self.held_bytes = 0
        self.ended = False  # the sender has said, or closed, that no more comes
        self.receiver_gone = False
        self.arrival = _Bell()
        self.room = _Bell()

    def put(self, view: memoryview) -> int:
        """Take as much of *view* as there is room for, and return how much."""
        count = min(len(view), self.capacity_bytes - self.held_bytes)
        if count:
            self.pieces.append(bytes(view[:count]))
            self.held_bytes += count
            self.arrival.ring()
        return count

    def take(self, max_bytes: int) -> bytes:
        """Return the first piece, or as much of it as was asked for."""
        piece = self.pieces.popleft()
        if len(piece) > max_bytes:
            self.pieces.appendleft(piece[max_bytes:])
            piece = piece[:max_bytes]
        self.held_bytes -= len(piece)
        self.room.ring()
        return piece

    def end(self) -> None:
        """No more comes."""
        self.ended = True
        self.arrival.ring()

    def drop(self) -> None:
        """Nobody will receive any more."""
        self.receiver_gone = True
        self.pieces.clear()
        self.held_bytes = 0
        self.room.ring()


class MemoryReceiveStream:
    """
    The receiving end of a `memory_pipe`.

    It keeps sends apart: one `recv` never returns bytes of two of them, so a test decides by the
    pieces that it sends how what it sends is split.
    """

    def __init__(self, conduit: _Conduit) -> None:
        self._incoming = conduit
        self._receiving = False
        self._receive_closed = False

    async def recv(self, max_bytes: int = 65536, /) -> bytes:
        """
        Wait for bytes.

        Args:
            max_bytes: The most to return, at least 1. [bytes]

        Returns:
            Between 1 and *max_bytes* bytes, or ``b""`` once the sender has ended.

        Raises:
            ClosedError: This end was closed, before the call or during it.
            BusyError: Another task is receiving.

        Cancellation: nothing is lost; it is there for the next call.
        """
        if operator.index(max_bytes) < 1:
            raise ValueError(f"max_bytes is at least 1, not {max_bytes}")
        if self._receive_closed:
            raise ClosedError(f"{self!r} is closed")
        if self._receiving:
            raise BusyError(f"another task is receiving on {self!r}")
        incoming = self._incoming
        self._receiving = True
        try:
            while not incoming.pieces and not incoming.ended:
                await incoming.arrival.wait()
                if self._receive_closed:
                    raise ClosedError(f"{self!r} was closed while it was receiving")
            return incoming.take(max_bytes) if incoming.pieces else b""
        finally:
            self._receiving = False

    async def recv_exactly(self, count: int, /) -> bytes:
        """
        Wait for exactly *count* bytes.

        Raises:
            EndOfStreamError: The sender ended first; ``partial`` has what came.
            ClosedError, BusyError: As `recv`.

        Cancellation: what had arrived is kept for the next call, as after an error.
        """
        if count < 0:
            raise ValueError(f"a count of bytes is from 0 up, not {count}")
        pieces: list[bytes] = []
        missing = count
        incoming = self._incoming
        try:
            while missing:
                piece = await self.recv(missing)
                if not piece:
                    partial = b"".join(pieces)
                    raise EndOfStreamError(count, partial)
                pieces.append(piece)
                missing -= len(piece)
        except BaseException as error:
            if not self._receive_closed and not isinstance(error, EndOfStreamError):
                incoming.pieces.extendleft(reversed(pieces))
                incoming.held_bytes += count - missing
            raise
        return b"".join(pieces)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Iterate over pieces as they arrive, until the sender's end."""
        while piece := await self.recv():
            yield piece

    async def aclose(self) -> None:
        """Close this end; safe to call twice.  A task that is receiving gets `ClosedError`."""
        self._close_receiving()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    def _close_receiving(self) -> None:
        self._receive_closed = True
        self._incoming.drop()
        self._incoming.arrival.ring()


class MemorySendStream:
    """The sending end of a `memory_pipe`."""

    def __init__(self, conduit: _Conduit) -> None:
        self._outgoing = conduit
        self._sending = False
        self._send_closed = False

    async def send_all(self, data: bytes | bytearray | memoryview, /) -> None:
        """
        Send every byte of *data*, waiting where there is no room.

        Raises:
            ClosedError: This end was closed, before the call or during it.
            BusyError: Another task is sending.
            OpError: The receiver was closed, or `send_eof` came before (`BrokenPipeError`);
                ``done`` counts what had left.

        Cancellation: some of the bytes may have been sent; the exception's ``done`` counts them.
        """
        view = memoryview(data).cast("B")
        if self._send_closed:
            raise ClosedError(f"{self!r} is closed")
        if self._sending:
            raise BusyError(f"another task is sending on {self!r}")
        outgoing = self._outgoing
        if outgoing.ended and len(view):
            raise op_error(errno.EPIPE, "send", detail="after send_eof")
        done = 0
        self._sending = True
        try:
            while done < len(view):
                if outgoing.receiver_gone:
                    raise op_error(errno.EPIPE, "send", done=done)
                count = outgoing.put(view[done:])
                done += count
                if not count:
                    await outgoing.room.wait()
                    if self._send_closed:
                        raise ClosedError(f"{self!r} was closed while it was sending")
        except BaseException as error:
            if not isinstance(error, Exception):
                error.__dict__["done"] = done
            raise
        finally:
            self._sending = False

    async def send_eof(self) -> None:
        """
        Tell the receiver that no more bytes follow.

        Raises:
            ClosedError: This end is closed.
            BusyError: Another task is sending; what it sends would be cut off.
        """
        if self._send_closed:
            raise ClosedError(f"{self!r} is closed")
        if self._sending:
            raise BusyError(f"another task is sending on {self!r}")
        self._outgoing.end()

    async def aclose(self) -> None:
        """Close this end, which ends the stream; safe to call twice."""
        self._close_sending()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    def _close_sending(self) -> None:
        self._send_closed = True
        self._outgoing.end()
        self._outgoing.room.ring()


class MemoryStream(MemoryReceiveStream, MemorySendStream):
    """One end of a `memory_stream_pair`: it sends and receives; a `uringio.streams.Stream`."""

    def __init__(self, incoming: _Conduit, outgoing: _Conduit) -> None:
        MemoryReceiveStream.__init__(self, incoming)
        MemorySendStream.__init__(self, outgoing)

    async def aclose(self) -> None:
        """Close both directions; safe to call twice.  Tasks in a call here get `ClosedError`."""
        self._close_receiving()
        self._close_sending()


def memory_pipe(
    capacity_bytes: int = _CAPACITY_BYTES,
) -> tuple[MemorySendStream, MemoryReceiveStream]:
    """
    Make a stream of one direction: what is sent at the first end is received at the second.

    Args:
        capacity_bytes: How much is held before senders wait; at least 1. [bytes]

    Lifetime: both ends are for tasks of one loop.
    """
    conduit = _conduit(capacity_bytes)
    return MemorySendStream(conduit), MemoryReceiveStream(conduit)


def memory_stream_pair(
    capacity_bytes: int = _CAPACITY_BYTES,
) -> tuple[MemoryStream, MemoryStream]:
    """
    Make two connected streams; each receives what the other sends.

    Args:
        capacity_bytes: How much each direction holds before senders wait; at least 1. [bytes]

    Lifetime: both ends are for tasks of one loop.  Unlike a socket closed with bytes unread, a
    memory stream that is closed ends in good order for the other side.

    Example:
        >>> import uringio
        >>> from uringio import testing
        >>> async def main() -> bytes:
        ...     near, far = testing.memory_stream_pair()
        ...     await near.send_all(b"ping")
        ...     return await far.recv()
        >>> uringio.run(main)
        b'ping'
    """
    there, back = _conduit(capacity_bytes), _conduit(capacity_bytes)
    return MemoryStream(there, back), MemoryStream(back, there)


def _conduit(capacity_bytes: int) -> _Conduit:
    if operator.index(capacity_bytes) < 1:
        raise UsageError(f"a stream holds at least 1 byte, not {capacity_bytes}")
    return _Conduit(capacity_bytes)
