"""
The octet rules of HTTP/1.1 requests that must hold before any parser is asked.

Request smuggling lives on leniency: two parsers on one path that disagree about where a message
ends.  h11 forgives a few things that RFC 9112 lets a recipient forgive (bare LF, obs-fold, control
characters in values, repeated lengths, a length beside a transfer coding).  This module forgives
none of them.  It finds the end of a head, judges its lines, and takes bodies apart; h11 then parses
heads that are already known to be unambiguous, and writes all responses.

Every judgement depends only on the bytes up to the first offence, never on how they were split into
reads: lines are judged when their LF is seen, and a limit is broken by the byte that exceeds it.

Sources: RFC 9112 sections 2.2, 5, 6 and 7.1; RFC 9110 sections 5.5 and 8.6.
"""

import re
from collections.abc import Callable

from uringio.proto._limits import Limit

__all__ = [
    "BodyDecoder",
    "ChunkedDecoder",
    "HeadFinder",
    "LengthDecoder",
    "ViolationError",
    "declared_length",
    "is_host",
    "transfer_status",
]

# Everything in a field line except NUL, CR, LF and the other controls; HT is allowed.
_TEXT = rb"[\t\x20-\x7e\x80-\xff]"

# A whole head in one match: a request line, field lines that do not start with a blank (obs-fold)
# or a colon, and the empty line.
_HEAD = re.compile(
    rb"([\x21-\x7e]" + _TEXT + rb"*\r\n)(?:[\x21-\x39\x3b-\x7e]" + _TEXT + rb"*\r\n)*\r\n"
)
_REQUEST_LINE = re.compile(rb"[\x21-\x7e]" + _TEXT + rb"*\r\n")
_FIELD_LINE = re.compile(rb"[\x21-\x39\x3b-\x7e]" + _TEXT + rb"*\r\n")
# Blanks around a value are taken off afterwards: patterns that leave them room on both sides try
# every way to share out a long run of them.
_TRAILER = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+):(" + _TEXT + rb"*)\r\n")

# Behind a body these come too late to say where it ends, or whose it is.
_NOT_TRAILERS = frozenset({
    b"connection", b"content-length", b"host", b"te", b"trailer", b"transfer-encoding", b"upgrade",
})  # fmt: skip

# 16 digits are 64 bits; no blank is allowed around the size, and an extension is kept to text.
_CHUNK_LINE = re.compile(rb"([0-9A-Fa-f]{1,16})(?:;" + _TEXT + rb"*)?\r\n")
_CHUNK_LINE_BYTES_MAX = 256
# How far what surrounds the chunks may outweigh twice what they hold.
_CHUNK_EXCESS_BYTES_MAX = 16 * 1024

_LENGTH = re.compile(rb"^content-length:([^\r\n]*)\r", re.IGNORECASE | re.MULTILINE)
_LENGTH_VALUE = re.compile(rb"[0-9]{1,18}")  # 18 digits stay below 2**63
_CODING = re.compile(rb"^transfer-encoding:([^\r\n]*)\r", re.IGNORECASE | re.MULTILINE)
_CODING_VALUE = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")

# RFC 3986 host and port without userinfo; empty is legal for a target without an authority.
_HOST = re.compile(
    rb"(?:\[(?:[0-9A-Fa-f:.]+(?:%25[0-9A-Za-z.\-_~]+)?"
    rb"|[vV][0-9A-Fa-f]+\.[0-9A-Za-z:.\-_~!$&'()*+,;=]+)\]"
    rb"|(?:[0-9A-Za-z.\-_~!$&'()*+,;=]|%[0-9A-Fa-f]{2})*)(?::[0-9]*)?"
)

_LF = 0x0A


class ViolationError(Exception):
    """
    The peer's bytes break the protocol.

    Attributes:
        status: The response status that fits.
        detail: What was wrong, in words of ours only: a peer's bytes are never echoed.
        limit: The limit that was overstepped, None when the bytes are malformed.
    """

    def __init__(self, status: int, detail: str, limit: Limit | None = None) -> None:
        super().__init__(f"{status}: {detail}")
        self.status = status
        self.detail = detail
        self.limit = limit


class HeadFinder:
    """
    Find the end of the next request head in a growing buffer.

    Args:
        head_bytes_max: The most that a head may have, empty line included. [bytes]
        request_line_bytes_max: The most that its first line may have, CRLF included. [bytes]
        fields_count_max: The most field lines.
    """

    __slots__ = (
        "_fields_count",
        "_fields_count_max",
        "_head_bytes_max",
        "_line_at",
        "_line_max",
        "_may_skip",
        "_scanned",
    )

    def __init__(
        self, head_bytes_max: int, request_line_bytes_max: int, fields_count_max: int
    ) -> None:
        self._head_bytes_max = head_bytes_max
        self._line_max = min(request_line_bytes_max, head_bytes_max)
        self._fields_count_max = fields_count_max
        self._line_at = 0  # where the first line that was not judged yet begins
        self._scanned = 0  # how far the search for its LF has come
        self._fields_count = 0
        self._may_skip = True

    def find(self, buffer: bytearray) -> int:
        """
        Return the length of the head that *buffer* begins with, 0 when it is not complete.

        One empty line before the request line is removed from *buffer*, as RFC 9112 section 2.2
        asks.  After a length has been returned the finder is ready for the next head.

        Raises:
            ViolationError: The head is malformed or over a limit; the finder is spent.
        """
        if self._scanned == 0 and (match := _HEAD.match(buffer)) is not None:
            end = match.end()
            if (
                end <= self._head_bytes_max
                and match.end(1) <= self._line_max
                and buffer.count(b"\n", 0, end) - 2 <= self._fields_count_max
            ):
                self._may_skip = True
                return end
        return self._find_by_line(buffer)

    def _find_by_line(self, buffer: bytearray) -> int:
        if self._scanned == 0 and buffer[0] == 0x0D and self._may_skip:
            if len(buffer) == 1:
                return 0
            if buffer[1] == _LF:
                self._may_skip = False
                del buffer[:2]
                return self.find(buffer) if buffer else 0
        if self._scanned == 0 and not 0x21 <= buffer[0] <= 0x7E:
            # Refused at the first byte: a TLS client, for one, sends no LF to wait for.
            raise ViolationError(400, "the request line does not begin with a method")
        while True:
            at = self._line_at
            found = buffer.find(b"\n", self._scanned)
            end = found + 1 if found >= 0 else len(buffer)
            if at == 0 and end > self._line_max:
                raise ViolationError(414, "the request line is too long", Limit.REQUEST_LINE_BYTES)
            if end > self._head_bytes_max:
                raise ViolationError(431, "the request head is too large", Limit.HEAD_BYTES)
            if found < 0:
                self._scanned = end
                return 0
            if end - at == 2 and buffer[at] == 0x0D and at > 0:
                self._line_at = self._scanned = self._fields_count = 0
                self._may_skip = True
                return end
            if at == 0:
                if _REQUEST_LINE.fullmatch(buffer, at, end) is None:
                    raise ViolationError(400, "malformed request line")
            else:
                self._fields_count += 1
                if self._fields_count > self._fields_count_max:
                    raise ViolationError(431, "too many header fields", Limit.FIELDS_COUNT)
                if _FIELD_LINE.fullmatch(buffer, at, end) is None:
                    raise ViolationError(400, "malformed header field")
            self._line_at = self._scanned = end


def declared_length(head: bytes | bytearray) -> int:
    """
    Return the one length that *head* declares.

    Raises:
        ViolationError: It is repeated, a list, signed, empty or beyond 63 bits.
    """
    values = _LENGTH.findall(head)
    if len(values) != 1 or _LENGTH_VALUE.fullmatch(value := values[0].strip(b" \t")) is None:
        raise ViolationError(400, "Content-Length is not one plain number")
    return int(value)


def transfer_status(head: bytes | bytearray) -> int:
    """
    Say how to refuse the transfer codings of *head*: 0 for exactly ``chunked``, else a status.

    A coding that we merely lack is 501; a field from which the message's length cannot be known
    (not ending in ``chunked``, chunked twice, spread over lines, not tokens) is 400.
    """
    values = _CODING.findall(head)
    if len(values) != 1:
        return 400
    codings = [coding.strip(b" \t").lower() for coding in values[0].split(b",")]
    if codings == [b"chunked"]:
        return 0
    if codings[-1] != b"chunked" or codings.count(b"chunked") != 1:
        return 400
    if any(_CODING_VALUE.fullmatch(coding) is None for coding in codings):
        return 400
    return 501


def is_host(value: bytes) -> bool:
    """Tell whether *value* can be the value of a Host field."""
    return _HOST.fullmatch(value) is not None


class LengthDecoder:
    """
    Take a body of known length.

    Attributes:
        done: The whole body has been taken.
        left_bytes: What is still to come. [bytes]
    """

    __slots__ = ("done", "left_bytes")

    def __init__(self, length_bytes: int) -> None:
        self.left_bytes = length_bytes
        self.done = length_bytes == 0

    def take(self, buffer: bytearray) -> bytes:
        """Remove the next piece of the body from *buffer*; ``b""`` when there is none in it."""
        piece = bytes(memoryview(buffer)[: self.left_bytes])
        del buffer[: len(piece)]
        self.left_bytes -= len(piece)
        self.done = self.left_bytes == 0
        return piece

    def pass_on(self, data: bytes) -> bool:
        """Count *data* as the next piece if it is of this body as a whole, and tell whether."""
        if len(data) > self.left_bytes:
            return False
        self.left_bytes -= len(data)
        self.done = self.left_bytes == 0
        return True


def _long_chunk_line() -> ViolationError:
    return ViolationError(400, "a chunk line is too long")


def _large_trailers() -> ViolationError:
    return ViolationError(431, "the trailer section is too large", Limit.TRAILER_BYTES)


class ChunkedDecoder:
    """
    Take a chunked body.

    Args:
        trailer_bytes_max: The most that the trailer section may have. [bytes]
        trailers_count_max: The most trailer fields.
        body_bytes_max: The most that all chunks may have together; None for no limit. [bytes]

    Attributes:
        done: The last chunk and the trailer section have been taken.
        trailers: The trailer fields, names in lower case; complete when `done`.
    """

    __slots__ = (
        "_body_left",
        "_chunk_left",
        "_crlf_left",
        "_excess_bytes",
        "_in_trailers",
        "_scanned",
        "_trailer_bytes",
        "_trailer_bytes_max",
        "_trailers_count_max",
        "done",
        "trailers",
    )

    def __init__(
        self, trailer_bytes_max: int, trailers_count_max: int, body_bytes_max: int | None = None
    ) -> None:
        self.done = False
        self._body_left = body_bytes_max
        self.trailers: list[tuple[bytes, bytes]] = []
        self._trailer_bytes_max = trailer_bytes_max
        self._trailers_count_max = trailers_count_max
        self._trailer_bytes = 0
        self._chunk_left = 0
        self._excess_bytes = 0
        self._crlf_left = b""  # what must follow before the next chunk line
        self._in_trailers = False
        self._scanned = 0

    def take(self, buffer: bytearray) -> bytes:
        """
        Remove the next piece of the body from *buffer*; ``b""`` when there is none in it.

        Raises:
            ViolationError: The framing is malformed or over a limit; the decoder is spent.
        """
        while buffer and not self.done:
            if self._chunk_left:
                piece = bytes(memoryview(buffer)[: self._chunk_left])
                del buffer[: len(piece)]
                self._chunk_left -= len(piece)
                if not self._chunk_left:
                    self._crlf_left = b"\r\n"
                return piece
            if self._crlf_left:
                if buffer[0] != self._crlf_left[0]:
                    raise ViolationError(400, "a chunk is longer than its declared size")
                del buffer[:1]
                self._crlf_left = self._crlf_left[1:]
            elif self._in_trailers:
                if not self._take_trailer(buffer):
                    break
            elif not self._take_chunk_line(buffer):
                break
        return b""

    def _line_end(
        self, buffer: bytearray, bytes_max: int, violation: Callable[[], ViolationError]
    ) -> int:
        found = buffer.find(b"\n", self._scanned)
        end = found + 1 if found >= 0 else len(buffer)
        if end > bytes_max:
            raise violation()
        self._scanned = 0 if found >= 0 else end
        return end if found >= 0 else 0

    def _take_chunk_line(self, buffer: bytearray) -> bool:
        end = self._line_end(buffer, _CHUNK_LINE_BYTES_MAX, _long_chunk_line)
        if not end:
            return False
        match = _CHUNK_LINE.fullmatch(buffer, 0, end)
        if match is None:
            raise ViolationError(400, "malformed chunk line")
        self._chunk_left = int(match[1], 16)
        if self._body_left is not None:
            # Judged by the chunk's declaration: what has come of it depends on the reads.
            self._body_left -= self._chunk_left
            if self._body_left < 0:
                raise ViolationError(413, "the request body is too large", Limit.BODY_BYTES)
        # Chunks of one byte with long extensions would make a small body cost any amount of bytes.
        self._excess_bytes = max(self._excess_bytes + end - 16 - 2 * self._chunk_left, 0)
        if self._excess_bytes > _CHUNK_EXCESS_BYTES_MAX:
            raise ViolationError(400, "too much around too little in chunks")
        self._in_trailers = self._chunk_left == 0
        del buffer[:end]
        return True

    def _take_trailer(self, buffer: bytearray) -> bool:
        bytes_max = self._trailer_bytes_max - self._trailer_bytes
        end = self._line_end(buffer, bytes_max, _large_trailers)
        if not end:
            return False
        if buffer.startswith(b"\r\n"):
            self.done = True
        else:
            match = _TRAILER.fullmatch(buffer, 0, end)
            if match is None:
                raise ViolationError(400, "malformed trailer field")
            name = bytes(match[1]).lower()
            if name in _NOT_TRAILERS:
                raise ViolationError(400, "a trailer that only a head may have")
            if len(self.trailers) == self._trailers_count_max:
                raise ViolationError(431, "too many trailer fields", Limit.FIELDS_COUNT)
            self.trailers.append((name, bytes(match[2]).strip(b" \t")))
        self._trailer_bytes += end
        del buffer[:end]
        return True


BodyDecoder = LengthDecoder | ChunkedDecoder
