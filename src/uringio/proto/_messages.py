"""
What an HTTP/1.1 server and its handlers exchange: requests, bodies, ends, upgraded streams.

Public names of `uringio.proto.http1`; apart from it because none of this touches a stream.
"""

import enum
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol, Self

import attrs

from uringio.proto._limits import Limit
from uringio.proto._octets import BodyDecoder
from uringio.streams import Stream

__all__ = [
    "BodyAbortedError",
    "End",
    "EndReason",
    "Field",
    "Part",
    "Request",
    "RequestBody",
    "UpgradedStream",
    "asks_to_close",
    "offers_upgrade",
    "tokens",
]

Field = tuple[bytes, bytes]


class EndReason(enum.Enum):
    """Why a connection has no next request."""

    FINISHED = enum.auto()  # the peer sent its last request and said so
    ANNOUNCED = enum.auto()  # one side asked for close, and the last response was sent
    REFUSED = enum.auto()  # the peer broke the protocol or a limit
    UNREAD = enum.auto()  # more unread request body than is worth discarding
    CUT = enum.auto()  # a response of ours could not be completed
    LOST = enum.auto()  # the connection broke
    IDLE = enum.auto()  # the peer asked for nothing for too long
    DRAINED = enum.auto()  # the server is ending, and nothing was under way
    UPGRADED = enum.auto()  # the stream went to another owner, who speaks another protocol
    CLOSED = enum.auto()  # closed on this side


@attrs.frozen
class End:
    """
    How a connection ended.

    Attributes:
        reason: The kind of end.
        status: The status sent with a refusal, else 0.
        detail: What happened, in words of ours: no byte of the peer's is repeated.
        limit: The limit of `Limits` that was overstepped, None when none was.
    """

    reason: EndReason
    status: int = 0
    detail: str = ""
    limit: Limit | None = None


class Part(Protocol):
    """A part of a response's body that goes into the stream in a way of its own, such as a file."""

    def __len__(self) -> int:
        """How many bytes it is."""
        ...

    async def send_to(self, stream: Stream, /) -> int:
        """
        Send it.

        Returns:
            How many bytes were sent; fewer than were announced cut the response. [bytes]

        Raises:
            OSError, ClosedError: The stream broke.
        """
        ...


class BodyAbortedError(ConnectionAbortedError):
    """The request body ended before its declared end; what was read of it is not the whole."""


class RequestBody:
    """
    The body of one request, as an asynchronous iterator of `bytes`.

    It can be read once, and only until the next request is asked for.  Iterating raises
    `BodyAbortedError` when the peer breaks off or breaks the framing.
    """

    __slots__ = ("_decoder", "_next_piece")

    def __init__(
        self, decoder: BodyDecoder, next_piece: Callable[[BodyDecoder], Awaitable[bytes]]
    ) -> None:
        self._decoder = decoder
        self._next_piece = next_piece

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        if piece := await self._next_piece(self._decoder):
            return piece
        raise StopAsyncIteration


class Request:
    """
    One request.

    Attributes:
        method: Such as ``"GET"``; case matters.
        target: The request target as sent, percent-encoded, visible ASCII only.
        http_version: ``"1.0"`` or ``"1.1"`` (or a later minor version).
        headers: The fields in order, names in lower case.
        body: The body, empty when there is none.
    """

    __slots__ = ("body", "headers", "http_version", "method", "target")

    def __init__(
        self,
        method: str,
        target: str,
        http_version: str,
        headers: Sequence[Field],
        body: RequestBody,
    ) -> None:
        self.method = method
        self.target = target
        self.http_version = http_version
        self.headers = headers
        self.body = body

    def __repr__(self) -> str:
        return f"<Request {self.method} {self.target} HTTP/{self.http_version}>"

    def field(self, name: bytes) -> bytes | None:
        """Return the value of the field *name* (lower case), several joined by commas, or None."""
        values = [value for found, value in self.headers if found == name]
        return b", ".join(values) if values else None


class UpgradedStream:
    """
    The stream of a connection that has left HTTP, a `uringio.streams.Stream`.

    What the peer had sent behind its request is received first.  Whoever gets this owns the stream
    and closes it; the server that it came from does not touch it any more.

    Args:
        stream: What carries the bytes.
        received: What was read of it already.
    """

    __slots__ = ("_received", "_stream")

    def __init__(self, stream: Stream, received: bytes) -> None:
        self._stream = stream
        self._received = received

    def recv(self, max_bytes: int = 65536, /) -> Awaitable[bytes]:
        """Wait for bytes; see `uringio.streams.ReceiveStream.recv`."""
        return self._take(max_bytes) if self._received else self._stream.recv(max_bytes)

    async def _take(self, max_bytes: int) -> bytes:
        if max_bytes < 1:
            raise ValueError(f"max_bytes is at least 1, not {max_bytes}")
        data, self._received = self._received[:max_bytes], self._received[max_bytes:]
        return data

    def send_all(self, data: bytes | bytearray | memoryview, /) -> Awaitable[None]:
        """Send every byte of *data*; see `uringio.streams.SendStream.send_all`."""
        return self._stream.send_all(data)

    def send_eof(self) -> Awaitable[None]:
        """Tell the peer that no more bytes follow."""
        return self._stream.send_eof()

    def aclose(self) -> Awaitable[None]:
        """Close the stream; safe to call twice."""
        return self._stream.aclose()


def asks_to_close(request: Request) -> bool:
    """Tell whether *request* says that it is its connection's last."""
    return request.http_version == "1.0" or b"close" in tokens(request.field(b"connection"))


def offers_upgrade(request: Request, protocol: bytes) -> bool:
    """Tell whether *request* offers to leave HTTP for *protocol*."""
    return (
        request.http_version != "1.0"
        and b"upgrade" in tokens(request.field(b"connection"))
        and protocol.lower() in tokens(request.field(b"upgrade"))
    )


def tokens(value: bytes | None) -> list[bytes]:
    """Take a list of tokens apart, in lower case."""
    return [part.strip(b" \t").lower() for part in (value or b"").split(b",")]
