"""
HTTP/1.1 for servers, over any `uringio.streams.Stream`.

`Http1Server` turns the bytes of one connection into a sequence of `Request`s and sends one
response for each, in order: keep-alive, pipelining, ``Expect: 100-continue``, HEAD and chunked
bodies in both directions are its business, not the handler's.

What the peer sends can never raise in the handler's face.  A malformed request is answered with the
status that fits and ends the connection; so does a peer that goes away, quietly.  The one exception
is a request body that stops in the middle: whoever reads it must not take it for complete, so the
reader gets `BodyAbortedError`, a `ConnectionAbortedError`.

The framing rules live in `_octets` and are stricter than h11's; h11 parses the heads that passed
them, and `_replies` writes the responses.  This module reads no clock and makes no timer:
`check_time`, called about once a second by one sweeper for all connections, names the limit that a
peer has overstepped, and every await can be cancelled and leaves the connection in a state that
`aclose` can end.
"""

from collections.abc import AsyncIterable, Callable, Iterable, Sequence
from types import TracebackType
from typing import Self

from uringio.errors import ClosedError, RingError, UsageError
from uringio.proto import _replies as replies
from uringio.proto._heads import parse_head
from uringio.proto._limits import Limit, Limits
from uringio.proto._messages import (
    BodyAbortedError,
    End,
    EndReason,
    Field,
    Part,
    Request,
    RequestBody,
    UpgradedStream,
    asks_to_close,
    offers_upgrade,
)
from uringio.proto._octets import (
    BodyDecoder,
    ChunkedDecoder,
    HeadFinder,
    LengthDecoder,
    ViolationError,
)
from uringio.proto._pace import BODY, HEAD, IDLE, OURS, SEND, Pace, end_of
from uringio.proto._replies import Chunk, LengthError, Reply
from uringio.streams import Stream

__all__ = [
    "BodyAbortedError",
    "Chunk",
    "End",
    "EndReason",
    "Field",
    "Http1Server",
    "Limit",
    "Limits",
    "Part",
    "Request",
    "RequestBody",
    "UpgradedStream",
]

# Up to here a copy into one send costs less than a second operation.
_JOIN_BYTES_MAX = 32 * 1024


class Http1Server:
    r"""
    The server's side of one HTTP/1.1 connection.

    Args:
        stream: What carries the bytes; `aclose` closes it.
        limits: What the peer may ask for.
        standing_fields: Called for each response, refusals included; its fields are added.  The
            place for ``Date``, which needs a clock.
        acknowledged: Returns how many bytes the peer has taken of what was sent, for the limit of
            sending; None where the stream cannot tell.

    Example::

        async def handle(stream):
            async with Http1Server(stream) as server:
                while (request := await server.next_request()) is not None:
                    await server.respond(200, [(b"Content-Type", b"text/plain")], b"hello\n")
    """

    def __init__(
        self,
        stream: Stream,
        *,
        limits: Limits | None = None,
        standing_fields: Callable[[], Iterable[Field]] = tuple,
        acknowledged: Callable[[], int] | None = None,
    ) -> None:
        self._stream = stream
        self._limits = limits = limits if limits is not None else Limits()
        self._standing_fields = standing_fields
        self._buffer = bytearray()
        self._finder = HeadFinder(
            limits.head_bytes_max, limits.request_line_bytes_max, limits.fields_count_max
        )
        self._request: Request | None = None
        self._decoder: BodyDecoder = LengthDecoder(0)
        self._requests_count = 0
        self._awaits_go_on = False  # the peer may hold its body back until it gets 100
        self._closes = False  # the response under way says so
        self._response_started = False
        self._response_done = False
        self._linger = False
        self._handed_over = self._is_closed = False
        self._pace = Pace(limits, acknowledged)
        self._overdue: ViolationError | None = None
        self._end: End | None = None

    @property
    def end(self) -> End | None:
        """How the connection ended, None while it can go on."""
        return self._end

    @property
    def response_started(self) -> bool:
        """Whether `respond` was called for the current request."""
        return self._response_started

    @property
    def trailers(self) -> Sequence[Field]:
        """The trailer fields of the current request; complete once its body was read."""
        decoder = self._decoder
        return tuple(decoder.trailers) if isinstance(decoder, ChunkedDecoder) else ()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    # --- requests ----------------------------------------------------------------------------

    async def next_request(self) -> Request | None:
        """
        Wait for the next request; None when there will be none (`end` tells why).

        What the handler left unread of the previous request's body is discarded first.

        Raises:
            UsageError: The previous request was not answered.
        """
        if self._request is not None:
            if not self._response_started and self._end is None:
                raise UsageError("respond to the request before asking for the next one")
            if not await self._finish_request():
                return None
        if self._end is not None:
            return None
        buffer = self._buffer
        pace = self._pace
        try:
            while not (length := self._finder.find(buffer) if buffer else 0):
                pace.phase = HEAD if buffer else IDLE
                try:
                    data = await self._stream.recv()
                except (OSError, ClosedError) as error:
                    self._lose(error)
                    return None
                finally:
                    pace.phase = OURS
                if self.end is not None:
                    return None
                if not data:
                    if buffer:
                        raise ViolationError(400, "the request head is cut short")
                    self._end = End(EndReason.FINISHED)
                    return None
                buffer += data
            head = bytes(memoryview(buffer)[:length])
            del buffer[:length]
            return self._open(head)
        except ViolationError as violation:
            await self._refuse(violation)
            return None

    def _open(self, head: bytes) -> Request:
        """Parse a head whose octets were approved, and get ready for its body and its response."""
        event, self._decoder, self._awaits_go_on = parse_head(head, self._limits)
        self._pace.serial += 1
        self._requests_count += 1
        self._request = Request(
            event.method.decode("ascii"),
            event.target.decode("ascii"),
            event.http_version.decode("ascii"),
            list(event.headers),
            RequestBody(self._decoder, self._next_piece),
        )
        return self._request

    async def _finish_request(self) -> bool:
        """Leave the answered request behind; False when the connection cannot go on."""
        assert self._request is not None
        request, self._request = self._request, None
        if self._end is None and not self._response_done:
            self._end = End(EndReason.CUT, detail="a response was left unfinished")
        if self._end is None and self._closes:
            # Who did not ask for the close may be sending, and a reset would overtake the response.
            self._linger = (
                not asks_to_close(request) or not self._decoder.done or bool(self._buffer)
            )
            is_last = self._requests_count >= self._limits.requests_count_max
            self._end = End(EndReason.ANNOUNCED, limit=Limit.REQUESTS_COUNT if is_last else None)
        if self._end is None and not self._decoder.done:
            await self._discard_body()
        if self._end is not None:
            return False
        self._response_started = self._response_done = False
        return True

    async def _discard_body(self) -> None:
        decoder = self._decoder
        buffer = self._buffer
        left = self._limits.discard_bytes_max
        try:
            while True:
                while decoder.take(buffer):
                    pass
                if decoder.done:
                    return
                if left <= 0:
                    self._linger = True
                    self._end = End(
                        EndReason.UNREAD,
                        detail="too much unread request body",
                        limit=Limit.DISCARD_BYTES,
                    )
                    return
                data = await self._recv_body()
                if self.end is not None:
                    return
                if not data:
                    self._lose(BodyAbortedError("the request body is cut short"))
                    return
                left -= len(data)
                buffer += data
        except ViolationError as violation:
            await self._refuse(violation)
        except (OSError, ClosedError) as error:
            self._lose(error)

    async def _recv_body(self) -> bytes:
        pace = self._pace
        pace.phase = BODY
        try:
            data = await self._stream.recv()
        finally:
            pace.phase = OURS
        pace.received_bytes += len(data)
        return data

    async def _next_piece(self, decoder: BodyDecoder) -> bytes:
        """Return the next piece of the current request's body, ``b""`` after the last."""
        if decoder is not self._decoder or self._request is None:
            if decoder.done:
                return b""
            raise UsageError("the body belongs to an earlier request")
        buffer = self._buffer
        try:
            if self._awaits_go_on and not decoder.done and self._end is None:
                # Sent even when the body is here already: what the peer sees depends on its bytes,
                # not on how fast they came.
                self._awaits_go_on = False
                await self._send_paced(replies.GO_ON)
            while True:
                if piece := decoder.take(buffer):
                    return piece
                if decoder.done:
                    return b""
                if self._end is not None:
                    raise BodyAbortedError("the connection has ended") from None
                data = await self._recv_body()
                if self.end is not None:
                    continue
                if not data:
                    raise ViolationError(400, "the request body is cut short")
                if not buffer and type(decoder) is LengthDecoder and decoder.pass_on(data):
                    return data  # the common piece of an upload, not copied
                buffer += data
        except ViolationError as violation:
            await self._refuse(violation)
            raise BodyAbortedError(violation.detail) from None
        except BodyAbortedError:
            raise
        except (OSError, ClosedError) as error:
            self._lose(error)
            raise BodyAbortedError("the connection broke inside the request body") from error

    # --- responses ---------------------------------------------------------------------------

    async def respond(
        self,
        status: int,
        headers: Iterable[Field] = (),
        body: Chunk | AsyncIterable[Chunk | Part] | None = None,
    ) -> int:
        """
        Send the response to the current request.

        ``Content-Length`` is added for a body given as bytes or as None; an iterator without it is
        sent chunked (to HTTP/1.0, until close).  For HEAD, 204 and 304 the body is not sent, and an
        iterator is closed unread.  When the peer is gone nothing is raised: `end` tells.

        Args:
            status: 200 or more.
            headers: Fields to send, beside those that the connection adds.
            body: The content: bytes, or an asynchronous iterable of them and of `Part`s.

        Returns:
            How many bytes of the body were handed to the stream. [bytes]

        Raises:
            UsageError: No request is waiting for its response, or the response is not valid
                HTTP; in the first case and for invalid fields nothing was sent.
            Exception: Whatever the iterator raises; the connection then ends.

        Cancellation: the response is cut, and the connection ends.
        """
        request = self._request
        if request is None or (self._response_started and self._end is None):
            raise UsageError("no request is waiting for a response")
        iterator = None if body is None or isinstance(body, Chunk) else body
        try:
            if self._end is not None:
                return 0
            content = replies.flat(body) if isinstance(body, Chunk) else b""
            reply = replies.response(
                request,
                status,
                headers,
                None if iterator is not None else len(content),
                self._must_close(iterator is None),
                self._standing_fields(),
            )
            self._response_started = True
            self._awaits_go_on = False
            self._closes = reply.closes
            if iterator is None:
                return await self._send_whole(reply, b"" if reply.is_bodiless else content)
            return await self._send_pieces(reply, None if reply.is_bodiless else iterator)
        finally:
            if iterator is not None and (aclose := getattr(iterator, "aclose", None)) is not None:
                await aclose()

    def _must_close(self, is_body_in_hand: bool) -> bool:
        """Tell whether the connection cannot outlive the response that is about to be sent."""
        if self._requests_count >= self._limits.requests_count_max:
            return True
        decoder = self._decoder
        if self._awaits_go_on and not decoder.done:
            # Nobody knows whether the body will still come, so nobody knows where the next head is.
            return True
        if self._pace.is_draining and not (decoder.done and self._buffer):
            return True
        # An iterator may be reading this very body, so only a response in hand settles the rest.
        return (
            is_body_in_hand
            and type(decoder) is LengthDecoder
            and decoder.left_bytes - len(self._buffer) > self._limits.discard_bytes_max
        )

    async def _send_whole(self, reply: Reply, content: Chunk) -> int:
        try:
            before, behind = reply.framed(len(content)) if content else (b"", b"")
            tail = behind + reply.ended()
        except LengthError:
            self._cut("a response did not have its declared length")
            raise UsageError("the body is not as long as its Content-Length says") from None
        try:
            if len(content) <= _JOIN_BYTES_MAX:
                await self._send_paced(b"".join((reply.head, before, content, tail)))
            else:
                await self._send_paced(reply.head + before)
                await self._send_paced(content)
                if tail:
                    await self._send_paced(tail)
        except (OSError, ClosedError) as error:
            self._lose(error)
            return 0
        self._response_done = True
        return len(content)

    async def _send_pieces(self, reply: Reply, pieces: AsyncIterable[Chunk | Part] | None) -> int:
        sent = 0
        if await self._send(reply.head) < 0:
            return 0
        if pieces is not None:
            async for piece in pieces:
                if not (piece := replies.flat(piece) if isinstance(piece, Chunk) else piece):
                    continue
                try:
                    before, behind = reply.framed(len(piece))
                except LengthError:
                    self._cut("a response was longer than declared")
                    raise UsageError("the body is longer than its Content-Length") from None
                parts: tuple[Chunk | Part, ...] = (before, piece, behind)
                if before and isinstance(piece, Chunk):
                    parts = (b"".join((before, piece, behind)),)
                for part in parts:
                    if part and await self._send(part) < len(part):
                        self._cut("a response was shorter than announced")
                        return sent
                sent += len(piece)
        try:
            tail = reply.ended()
        except LengthError:
            # A file that shrank while it was sent, for one.  Closing is how the peer learns.
            self._cut("a response was shorter than declared")
            return sent
        if not tail or await self._send(tail) >= 0:
            self._response_done = True
        return sent

    async def _send(self, data: Chunk | Part) -> int:
        """Send *data*; return how much of it was sent, -1 when the peer is gone."""
        try:
            return await self._send_paced(data)
        except (OSError, ClosedError) as error:
            self._lose(error)
            return -1

    async def _send_paced(self, data: Chunk | Part) -> int:
        pace = self._pace
        sent = pace.sending_bytes = len(data)
        pace.phase = SEND
        try:
            if isinstance(data, Chunk):
                await self._stream.send_all(data)
            else:
                sent = await data.send_to(self._stream)
        finally:
            pace.phase = OURS
        pace.sent_bytes += sent
        return sent

    async def upgrade(
        self, protocol: bytes, headers: Iterable[Field] = ()
    ) -> UpgradedStream | None:
        """
        Switch to another protocol: send 101, and hand the stream over.

        Args:
            protocol: One that the request's ``Upgrade`` field offers, such as ``b"websocket"``.
            headers: Fields to send, beside ``Connection`` and ``Upgrade``.

        Returns:
            The stream, which the caller owns from now on and must close; None when the peer is
            gone.

        Raises:
            UsageError: No request is waiting for its response, it does not offer the protocol, its
                body was not read to the end, or the fields are not valid HTTP; nothing was sent.

        Cancellation: the 101 may have been sent; the connection ends.
        """
        request = self._request
        if request is None or (self._response_started and self._end is None):
            raise UsageError("no request is waiting for a response")
        if not offers_upgrade(request, protocol):
            raise UsageError("the request does not offer to switch to this protocol")
        if self._end is not None:
            return None
        if not self._decoder.done:
            raise UsageError("read the request's body before leaving HTTP")
        data = replies.switch(protocol, headers, self._standing_fields())
        self._response_started = True
        if await self._send(data) < 0:
            return None
        self._response_done = self._handed_over = True
        self._request = None
        self._end = End(EndReason.UPGRADED)
        received = bytes(self._buffer)
        self._buffer.clear()
        return UpgradedStream(self._stream, received)

    async def _refuse(self, violation: ViolationError) -> None:
        """Answer a broken request if that is still possible; either way the connection is over."""
        if self._end is not None:
            return
        self._end = End(EndReason.REFUSED, violation.status, violation.detail, violation.limit)
        self._linger = True
        await self._send_refusal(violation)

    async def _send_refusal(self, violation: ViolationError) -> None:
        if self._response_started:
            return
        self._response_started = True
        data, content = replies.refusal(violation, self._standing_fields())
        if self._request is None or self._request.method != "HEAD":
            data += content
        try:
            await self._send_paced(data)
        except (OSError, ClosedError) as error:
            self._lose(error)

    # --- time ----------------------------------------------------------------------------------

    def check_time(self, now: float) -> Limit | None:
        """
        Judge the peer's pace; meant to be called about once a second while the connection lasts.

        When a limit is returned the connection is over.  Cancel whatever awaits it, then call
        `aclose`, which still says 408 where that fits.

        Args:
            now: The time by any one clock that never goes back. [s]

        Returns:
            The limit that the peer has overstepped, else None.
        """
        limit = None if self._handed_over else self._pace.overdue(now)
        if limit is None or self._end is not None:
            return limit
        self._end, self._overdue = end_of(limit, is_draining=self._pace.is_draining)
        self._linger = self._overdue is not None
        return limit

    def resume(self, data: bytes) -> None:
        """
        Go on after all: *data* arrived while the connection was ended for being idle.

        Raises:
            UsageError: It was not ended for that, or is closed.
        """
        if self._end is None or self._end.limit is not Limit.IDLE_TIME or self._is_closed:
            raise UsageError("only an idle connection that was ended can go on")
        self._end = None
        self._buffer += data

    def drain(self) -> None:
        """
        End soon, without cutting anything: the next response is the last, and says so.

        What the peer has sent behind that request already is answered first.  A connection on which
        nothing is asked for within `Limits.drain_seconds` is over, as `check_time` will tell: a
        request that is on its way finds somebody at home.
        """
        self._pace.drain()

    # --- the end -------------------------------------------------------------------------------

    def _lose(self, error: Exception) -> None:
        if isinstance(error, RingError):
            raise error  # not this connection's trouble: nothing works any more
        self._linger = False
        if self._end is None:
            self._end = End(EndReason.LOST, detail=str(error))

    def _cut(self, detail: str) -> None:
        if self._end is None:
            self._end = End(EndReason.CUT, detail=detail)

    async def aclose(self) -> None:
        """
        Close the connection; safe to call twice.

        After a refusal the peer's remaining bytes are read for a while (set a deadline), for a
        reset would take the response from it.  A stream that was handed over is left alone.

        Cancellation: the stream is closed all the same.
        """
        self._is_closed = True
        if self._end is None:
            self._end = End(EndReason.CLOSED)
        if self._handed_over:
            return
        try:
            if self._overdue is not None:
                overdue, self._overdue = self._overdue, None
                await self._send_refusal(overdue)
            if self._linger:
                self._linger = False
                left = self._limits.linger_bytes_max
                await self._stream.send_eof()
                while left > 0 and (data := await self._stream.recv()):
                    left -= len(data)
        except RingError:
            raise
        except (OSError, ClosedError):
            pass  # the peer was faster
        finally:
            await self._stream.aclose()
