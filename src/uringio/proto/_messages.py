"""
What an HTTP/1.1 server and its handlers exchange: requests, bodies, limits, ends.

Public names of `uringio.proto.http1`; apart from it because none of this touches a stream.
"""

import enum
from collections.abc import Awaitable, Callable, Sequence
from typing import Self

import attrs

from uringio.proto._octets import BodyDecoder

__all__ = [
    "BodyAbortedError",
    "End",
    "EndReason",
    "Field",
    "Limits",
    "Request",
    "RequestBody",
]

Field = tuple[bytes, bytes]


@attrs.frozen
class Limits:
    """
    What one peer may ask of a connection.

    Attributes:
        request_line_bytes_max: Longer first lines are answered with 414. [bytes]
        head_bytes_max: Larger heads are answered with 431. [bytes]
        fields_count_max: More header (or trailer) fields are answered with 431.
        trailer_bytes_max: Larger trailer sections are answered with 431. [bytes]
        requests_count_max: The response to this many closes the connection.
        discard_bytes_max: How much of a body that the handler left unread is read and thrown away
            to keep the connection; beyond, it is closed. [bytes]
        linger_bytes_max: How much is read and thrown away while closing, so that the peer gets to
            see the last response before a reset. [bytes]
    """

    request_line_bytes_max: int = 8 * 1024
    head_bytes_max: int = 64 * 1024
    fields_count_max: int = 100
    trailer_bytes_max: int = 8 * 1024
    requests_count_max: int = 1000
    discard_bytes_max: int = 64 * 1024
    linger_bytes_max: int = 256 * 1024


class EndReason(enum.Enum):
    """Why a connection has no next request."""

    FINISHED = enum.auto()  # the peer sent its last request and said so
    ANNOUNCED = enum.auto()  # one side asked for close, and the last response was sent
    REFUSED = enum.auto()  # the peer broke the protocol or a limit
    UNREAD = enum.auto()  # more unread request body than is worth discarding
    CUT = enum.auto()  # a response of ours could not be completed
    LOST = enum.auto()  # the connection broke
    CLOSED = enum.auto()  # closed on this side


@attrs.frozen
class End:
    """
    How a connection ended.

    Attributes:
        reason: The kind of end.
        status: The status sent with a refusal, else 0.
        detail: What happened, in words of ours: no byte of the peer's is repeated.
    """

    reason: EndReason
    status: int = 0
    detail: str = ""


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
