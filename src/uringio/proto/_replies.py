"""
Responses on their way out: their heads, and the framing of their bodies.

Written here rather than by h11, whose writer looks at every field four times over: a third of what
a small response cost.  What h11 would refuse to send is refused here too.
"""

import http
import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Final

from uringio.errors import UsageError
from uringio.proto._messages import Field, Request, asks_to_close, tokens
from uringio.proto._octets import ViolationError

__all__ = ["GO_ON", "Chunk", "LengthError", "Reply", "flat", "refusal", "response", "switch"]

Chunk = bytes | bytearray | memoryview

_BODILESS: Final = frozenset({204, 304})

_REASONS = {int(status): status.phrase.encode("ascii") for status in http.HTTPStatus}
_STATUS_LINES = {
    status: b"HTTP/1.1 %d %s\r\n" % (status, reason) for status, reason in _REASONS.items()
}

GO_ON: Final = _STATUS_LINES[100] + b"\r\n"

_TOKEN: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_NO_VALUE: Final = re.compile(rb"[^\t\x20-\x7e\x80-\xff]|^[ \t]|[ \t]\Z")
_LENGTH: Final = re.compile(rb"[0-9]{1,19}")
_FRAMING: Final = frozenset({b"connection", b"content-length", b"transfer-encoding"})


def flat(data: Chunk) -> Chunk:
    """Return *data* as something whose length is that of its bytes."""
    if type(data) is memoryview and (data.ndim, data.itemsize, data.c_contiguous) != (1, 1, True):
        return data.tobytes()
    return data


class LengthError(Exception):
    """A body is not as long as was declared."""


class Reply:
    """
    The response to one request.

    Attributes:
        head: Its octets, to the empty line.
        closes: The connection ends behind it.
        is_bodiless: It has no body, whatever the head says of one.
    """

    __slots__ = ("_is_chunked", "_left_bytes", "closes", "head", "is_bodiless")

    def __init__(
        self, head: bytes, closes: bool, is_bodiless: bool, is_chunked: bool, length: int | None
    ) -> None:
        self.head = head
        self.closes = closes
        self.is_bodiless = is_bodiless
        self._is_chunked = is_chunked and not is_bodiless
        self._left_bytes = 0 if is_bodiless else length

    def framed(self, size: int) -> tuple[bytes, bytes]:
        """
        Return what goes before and behind the next *size* bytes of the body, which are some.

        Raises:
            LengthError: They are more than was declared.
        """
        if self._is_chunked:
            return b"%x\r\n" % size, b"\r\n"
        if self._left_bytes is not None:
            self._left_bytes -= size
            if self._left_bytes < 0:
                raise LengthError
        return b"", b""

    def ended(self) -> bytes:
        """
        Return what goes behind the whole body.

        Raises:
            LengthError: More was declared.
        """
        if self._is_chunked:
            return b"0\r\n\r\n"
        if self._left_bytes:
            raise LengthError
        return b""


def response(
    request: Request,
    status: int,
    headers: Iterable[Field],
    length: int | None,
    closes: bool,
    standing: Iterable[Field],
) -> Reply:
    """
    Make the response, for its body to follow.

    A body of unknown length is chunked; to HTTP/1.0 it ends with the connection.

    Args:
        request: What it answers.
        status: 200 or more.
        headers: What the handler wants sent.
        length: The length of the body if that is known. [bytes]
        closes: Whether the connection ends behind it.
        standing: What is sent with every response.

    Raises:
        UsageError: It would not be valid HTTP.
    """
    if not 200 <= status <= 999:
        raise UsageError(f"invalid response: a final status is from 200 to 999, not {status}")
    if request.method == "CONNECT" and status < 300:
        raise UsageError("a tunnel cannot be opened by respond()")
    parts = [_STATUS_LINES.get(status) or b"HTTP/1.1 %d \r\n" % status]
    framing = [*_written(parts, headers), *_written(parts, standing)]
    is_bodiless = request.method == "HEAD" or status in _BODILESS
    connection: list[bytes] = []
    declared: bytes | None = None
    is_chunked = False
    for name, value in framing:
        if name == b"connection":
            connection += tokens(value)
        elif name == b"transfer-encoding":
            if value.lower() != b"chunked" or is_chunked:
                raise UsageError("invalid response: Transfer-Encoding is chunked or nothing")
            is_chunked = True
        elif _LENGTH.fullmatch(value) is None or declared not in {None, value}:
            raise UsageError(f"invalid response: no Content-Length is {value!r}")
        else:
            declared = value
    closes = closes or b"close" in connection or asks_to_close(request)
    if status not in _BODILESS:
        if declared is None and not is_chunked:
            if length is not None:
                declared = b"%d" % length
            else:
                is_chunked = True
        if is_chunked:
            declared = None
            if request.http_version == "1.0":
                is_chunked = False
                closes = True
            else:
                parts.append(b"Transfer-Encoding: chunked\r\n")
    else:
        is_chunked = False
        if status == 204:
            declared = None  # RFC 9110 section 8.6: it has no length at all
    if declared is not None:
        parts.append(b"Content-Length: %s\r\n" % declared)
    if closes:
        connection = [token for token in connection if token not in {b"", b"keep-alive", b"close"}]
        connection.append(b"close")
    if connection:
        parts.append(b"Connection: %s\r\n" % b", ".join(connection))
    parts.append(b"\r\n")
    known = None if declared is None else int(declared)
    return Reply(b"".join(parts), closes, is_bodiless, is_chunked, known)


def _written(parts: list[bytes], fields: Iterable[Field]) -> Sequence[Field]:
    """Write *fields* behind *parts*; return those that frame instead, names in lower case."""
    framing: list[Field] = []
    for name, value in fields:
        if (lower := _lower(name)) is None or _NO_VALUE.search(value) is not None:
            raise UsageError(f"invalid response: {name!r}: {value!r} is no field")
        if lower in _FRAMING:
            framing.append((lower, value))
        else:
            parts += (name, b": ", value, b"\r\n")
    return framing


@lru_cache(maxsize=256)
def _lower(name: bytes) -> bytes | None:
    """Return a field's name in lower case, None for what is no name."""
    return name.lower() if _TOKEN.fullmatch(name) is not None else None


def refusal(violation: ViolationError, standing: Iterable[Field]) -> tuple[bytes, bytes]:
    """Make the response to a broken request: its head, and its body."""
    reason = _REASONS[violation.status]
    content = b"%d %s: %s\n" % (violation.status, reason, violation.detail.encode("ascii"))
    parts = [
        _STATUS_LINES[violation.status],
        b"Content-Type: text/plain; charset=utf-8\r\nContent-Length: %d\r\n" % len(content),
        b"Connection: close\r\n",
    ]
    _written(parts, standing)
    parts.append(b"\r\n")
    return b"".join(parts), content


def switch(protocol: bytes, headers: Iterable[Field], standing: Iterable[Field]) -> bytes:
    """
    Make the head that ends HTTP on a connection.

    Raises:
        UsageError: It would not be valid HTTP.
    """
    parts = [_STATUS_LINES[101], b"Connection: Upgrade\r\n"]
    if _written(parts, ((b"Upgrade", protocol), *headers, *standing)):
        raise UsageError("invalid response: a switch of protocols has no body and no Connection")
    parts.append(b"\r\n")
    return b"".join(parts)
