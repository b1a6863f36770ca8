"""
Requests in, files out.

One task per connection.  A request's name is resolved by `Tree`; a small file leaves in one send
together with its head, the bytes of a large one go from the page cache to the socket by
`SocketStream.send_file`.  What a connection may hold is bounded: the limits of `Http1Server`, and
one piece of a file, while it is read from the device.
"""

import errno
import logging
import secrets
import socket
import struct
import sys
import time
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from functools import partial
from http import HTTPStatus

import attrs

import uringio
from uringio.errors import ClosedError, RingError
from uringio.files import File
from uringio.net import SocketStream
from uringio.proto.codings import SUFFIXES, acceptable_codings, is_compressible
from uringio.proto.http1 import EndReason, Field, Http1Server, Limit, Limits, Request
from uringio.proto.listing import Order, listing_page
from uringio.proto.ranges import closing_line, content_range, parse_ranges, part_head
from uringio.proto.static import Target, TargetError, content_type, http_date, parse_target
from uringio.proto.validators import entity_tag, range_holds, verdict
from uringio.streams import Stream

from .access_log import AccessLog, Answered
from .tree import Found, Tree

__all__ = ["FileServer", "Manners"]

# A file up to here is read at once and sent with its head.
_WHOLE_BYTES_MAX = 32 * 1024
_PART_BYTES = 512 * 1024

# The page of a larger folder is made by a worker thread, for it takes milliseconds.
_ENTRIES_AT_ONCE_MAX = 200

_SWEEP_SECONDS = 1.0
# How long an idle connection that is to be closed is looked at for a request on its way.
_LATE_SECONDS = 0.002
# A refused peer gets this long to read why.
_LINGER_SECONDS = 2.0

_KNOWN_METHODS = frozenset({"CONNECT", "DELETE", "OPTIONS", "PATCH", "POST", "PUT", "TRACE"})
# EAGAIN: names around the file change without a pause.
_EXHAUSTED = frozenset({errno.EAGAIN, errno.EMFILE, errno.ENFILE, errno.ENOMEM})
_CONDITIONS = frozenset({
    b"if-match", b"if-modified-since", b"if-none-match", b"if-range", b"if-unmodified-since",
    b"range",
})  # fmt: skip

_NOSNIFF: Field = (b"X-Content-Type-Options", b"nosniff")
_HTML: Field = (b"Content-Type", b"text/html; charset=utf-8")
_TEXT: Field = (b"Content-Type", b"text/plain; charset=utf-8")
_RANGES: Field = (b"Accept-Ranges", b"bytes")
_VARY: Field = (b"Vary", b"Accept-Encoding")
_NO_SCRIPT: Field = (b"Content-Security-Policy", b"default-src 'none'; style-src 'unsafe-inline'")

# struct tcp_info of <linux/tcp.h>: 8 single bytes, 24 words of 4, two of 8, then tcpi_bytes_acked.
_ACKED_OFFSET = 120
_RESET = struct.pack("ii", 1, 0)  # struct linger: on, for 0 seconds

_logger = logging.getLogger("uringio.serve")


@attrs.frozen
class Manners:
    """
    How a folder is served.

    Attributes:
        index: The name of the file that is shown for its folder, empty for none.
        cors: The origin whose pages may read the files, ``*`` for all, empty for none.
        headers: Fields of every response.
        limits: What a peer may ask for.
    """

    index: bytes = b"index.html"
    cors: bytes = b""
    headers: tuple[Field, ...] = ()
    limits: Limits = attrs.field(factory=Limits)


class _Connection:
    """A connection as the sweeper and the log see it."""

    __slots__ = ("peer", "scope", "server")

    def __init__(self, server: Http1Server) -> None:
        self.scope = uringio.CancelScope()
        self.server = server
        self.peer = ""


class FileServer:
    """
    Answer requests from a tree of files.

    Args:
        tree: What is served.
        manners: How.
        log: Where requests are noted, None for nowhere.
    """

    def __init__(
        self, tree: Tree, manners: Manners | None = None, log: AccessLog | None = None
    ) -> None:
        self._tree = tree
        self._manners = manners = manners if manners is not None else Manners()
        self._log = log
        self._connections: set[_Connection] = set()
        self._is_draining = False
        self._standing = manners.headers
        if manners.cors:
            self._standing = (
                *manners.headers,
                (b"Access-Control-Allow-Origin", manners.cors),
                (b"Access-Control-Expose-Headers", b"Accept-Ranges, Content-Range, ETag"),
            )

    @property
    def connections_count(self) -> int:
        """How many connections are being served; those that only linger do not count."""
        return len(self._connections)

    # --- time ------------------------------------------------------------------------------------

    async def keep_sweeping(self) -> None:
        """
        Drop connections whose peers overstep a limit of time; runs until cancelled.

        One task for all: a deadline per wait would be made and thrown away with every request.
        """
        while True:
            await uringio.sleep(_SWEEP_SECONDS)
            self.sweep(time.monotonic())

    def sweep(self, now: float) -> None:
        """Drop connections whose peers have overstepped a limit by that monotonic time."""
        for connection in self._connections:
            if connection.server.check_time(now) is not None:
                connection.scope.cancel()

    def drain(self) -> None:
        """Let every connection end with its next response, or soon when there is none."""
        self._is_draining = True
        for connection in self._connections:
            connection.server.drain()

    # --- connections -----------------------------------------------------------------------------

    async def handle(self, stream: SocketStream) -> None:
        """Serve one connection to its end."""
        server = Http1Server(
            stream,
            limits=self._manners.limits,
            standing_fields=self._standing_fields,
            acknowledged=partial(_acknowledged, stream) if sys.platform == "linux" else None,
        )
        connection = _Connection(server)
        if self._is_draining:
            server.drain()
        self._connections.add(connection)
        try:
            while True:
                with connection.scope:
                    while (request := await server.next_request()) is not None:
                        await self._answer_and_log(connection, request, stream)
                if server.end is None or server.end.limit is not Limit.IDLE_TIME:
                    break
                # A request that came while its connection was being ended is answered all the same.
                if not (data := await _come_late(stream)):
                    break
                server.resume(data)
                connection.scope = uringio.CancelScope()
        finally:
            self._connections.discard(connection)
            end = server.end
            if end is not None and end.limit is Limit.SEND_RATE:
                # Else the kernel would keep what the peer does not take, for minutes.
                stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            if end is not None and end.reason is EndReason.REFUSED and self._log is not None:
                self._note(connection, stream, "-", end.status, 0, 0.0)
            with uringio.move_on_after(_LINGER_SECONDS):
                await server.aclose()

    async def _answer_and_log(
        self, connection: _Connection, request: Request, stream: SocketStream
    ) -> None:
        server = connection.server
        if self._log is None:
            await self._answer(server, request)
            return
        start = time.perf_counter()
        status, sent = 0, 0
        try:
            status, sent = await self._answer(server, request)
        finally:
            line = f"{request.method} {request.target} HTTP/{request.http_version}"
            self._note(connection, stream, line, status, sent, time.perf_counter() - start)

    def _note(
        self,
        connection: _Connection,
        stream: SocketStream,
        line: str,
        status: int,
        sent: int,
        seconds: float,
    ) -> None:
        if self._log is None:
            return
        if not connection.peer:
            try:
                address = stream.remote_address
                connection.peer = str(address[0]) if isinstance(address, tuple) else "unix"
            except (OSError, ClosedError):
                connection.peer = "?"
        self._log.add(Answered(time.time(), connection.peer, line, status, sent, seconds))

    def _standing_fields(self) -> tuple[Field, ...]:
        return ((b"Date", http_date(int(time.time()))), *self._standing)

    # --- requests --------------------------------------------------------------------------------

    async def _answer(self, server: Http1Server, request: Request) -> tuple[int, int]:
        """Respond; return the status and how much of a body was sent."""
        if request.method not in {"GET", "HEAD"}:
            if request.method == "OPTIONS" and self._manners.cors:
                return await _preflight(server)
            if request.method in _KNOWN_METHODS:
                return await _say(server, 405, (b"Allow", b"GET, HEAD"))
            return await _say(server, 501)
        try:
            target = parse_target(request.target)
            async with await self._tree.find(target.path) as found:
                return await self._send(server, request, target, found)
        except TargetError as error:
            return await _say(server, error.status)
        except RingError:
            raise
        except OSError as error:
            status = _status_of(error)
            if status == 500:
                _logger.exception("%s failed", request)
            if server.response_started:
                return status, 0
            return await _say(server, status)

    async def _send(
        self, server: Http1Server, request: Request, target: Target, found: Found
    ) -> tuple[int, int]:
        if not found.is_folder:
            if target.is_folder:
                return await _say(server, 404)
            return await self._send_best(server, request, target.path, found)
        if not target.is_folder:
            return await _say(server, 301, (b"Location", target.folder_location))
        return await self._send_folder(server, request, target, found)

    async def _send_folder(
        self, server: Http1Server, request: Request, target: Target, found: Found
    ) -> tuple[int, int]:
        if self._manners.index:
            path = target.path + b"/" + self._manners.index
            try:
                async with await self._tree.find(path) as index:
                    if not index.is_folder:
                        return await self._send_best(server, request, path, index)
            except FileNotFoundError:
                pass
        entries = await self._tree.entries(found)
        order = Order.parse(target.query)
        if len(entries) <= _ENTRIES_AT_ONCE_MAX:
            page = listing_page(target.segments, entries, order)
        else:
            page = await uringio.offload(listing_page, target.segments, entries, order)
        return 200, await server.respond(200, [_HTML, _NOSNIFF, _NO_SCRIPT], page)

    async def _send_best(
        self, server: Http1Server, request: Request, path: bytes, found: Found
    ) -> tuple[int, int]:
        """Send a file, or the compressed sibling that the client likes best."""
        kind = content_type(path.rpartition(b"/")[2])
        accept = request.field(b"accept-encoding")
        if accept is not None and is_compressible(kind):
            for coding in acceptable_codings(accept):
                try:
                    async with await self._tree.find(path + SUFFIXES[coding]) as sibling:
                        # One that is older holds what the file was, not what it is.
                        if (
                            not sibling.is_folder
                            and sibling.status.st_mtime_ns >= found.status.st_mtime_ns
                        ):
                            return await self._send_file(server, request, kind, sibling, coding)
                except (FileNotFoundError, PermissionError):
                    continue
        return await self._send_file(server, request, kind, found, "")

    async def _send_file(
        self, server: Http1Server, request: Request, kind: bytes, found: Found, coding: str
    ) -> tuple[int, int]:
        file, size = found.file, found.status.st_size
        tag = entity_tag(found.status, coding)
        # Never later than Date, as RFC 9110 section 8.8.2.1 has it.
        modified = int(min(found.status.st_mtime, time.time()))
        fields: list[Field] = [(b"ETag", tag), (b"Last-Modified", http_date(modified))]
        if is_compressible(kind):
            fields.append(_VARY)
        conditions = {
            name: request.field(name) or b"" for name, _ in request.headers if name in _CONDITIONS
        }
        if conditions and (status := verdict(conditions, tag, modified)) != 200:
            if status == 412:
                return await _say(server, 412)
            return 304, await server.respond(304, fields)
        if coding:
            fields.append((b"Content-Encoding", coding.encode("ascii")))
        fields += (_RANGES, _NOSNIFF)
        if (
            request.method == "GET"
            and (wanted := _wanted(conditions, size, tag, modified)) is not None
        ):
            return await self._send_ranges(server, fields, kind, file, size, wanted)
        fields.append((b"Content-Type", kind))
        if size <= _WHOLE_BYTES_MAX:
            # Whatever was read is the whole body, even if the file has changed size meanwhile.
            content = await file.read_at(0, size) if size else b""
            return 200, await server.respond(200, fields, content)
        fields.append((b"Content-Length", b"%d" % size))
        return 200, await server.respond(200, fields, _parts(file, 0, size))

    async def _send_ranges(
        self,
        server: Http1Server,
        fields: list[Field],
        kind: bytes,
        file: File,
        size: int,
        ranges: Sequence[tuple[int, int]],
    ) -> tuple[int, int]:
        if not ranges:
            return await _say(server, 416, (b"Content-Range", b"bytes */%d" % size), _RANGES)
        if len(ranges) == 1:
            start, stop = ranges[0]
            fields += [
                (b"Content-Type", kind),
                (b"Content-Range", content_range(start, stop, size)),
                (b"Content-Length", b"%d" % (stop - start)),
            ]
            return 206, await server.respond(206, fields, _parts(file, start, stop))
        boundary = secrets.token_hex(16).encode("ascii")
        heads = [part_head(boundary, kind, start, stop, size) for start, stop in ranges]
        length = sum(len(head) for head in heads) + len(closing_line(boundary))
        length += sum(stop - start for start, stop in ranges)
        fields += [
            (b"Content-Type", b"multipart/byteranges; boundary=" + boundary),
            (b"Content-Length", b"%d" % length),
        ]

        async def parts() -> AsyncIterator[bytes | _FilePart]:
            for head, (start, stop) in zip(heads, ranges, strict=True):
                yield head
                for offset in range(start, stop, _PART_BYTES):
                    yield _FilePart(file, offset, min(_PART_BYTES, stop - offset))
            yield closing_line(boundary)

        return 206, await server.respond(206, fields, parts())


class _FilePart:
    """A part of a file, to be sent by `SocketStream.send_file`."""

    __slots__ = ("_file", "_length", "_offset")

    def __init__(self, file: File, offset: int, length: int) -> None:
        self._file = file
        self._offset = offset
        self._length = length

    def __len__(self) -> int:
        return self._length

    async def send_to(self, stream: Stream) -> int:
        """Send it; fewer bytes if the file has shrunk."""
        assert isinstance(stream, SocketStream)
        return await stream.send_file(self._file, self._offset, self._length)


async def _parts(file: File, start: int, stop: int) -> AsyncGenerator[_FilePart, None]:
    """Take a file apart: the log and the limit of sending count whole parts."""
    for offset in range(start, stop, _PART_BYTES):
        yield _FilePart(file, offset, min(_PART_BYTES, stop - offset))


def _wanted(
    conditions: Mapping[bytes, bytes], size: int, tag: bytes, modified: int
) -> list[tuple[int, int]] | None:
    """Return the parts that a request asks for, None for the whole."""
    value = conditions.get(b"range")
    if value is None or not range_holds(conditions.get(b"if-range"), tag, modified):
        return None
    return parse_ranges(value, size)


async def _come_late(stream: SocketStream) -> bytes:
    """Return what has arrived by now, b"" for nothing."""
    try:
        with uringio.move_on_after(_LATE_SECONDS):
            return await stream.recv()
    except RingError:
        raise
    except (OSError, ClosedError):
        pass  # it is over in any case
    return b""


def _acknowledged(stream: SocketStream) -> int:
    """Ask the kernel how much of what was sent the peer has acknowledged."""
    try:
        borrowed = socket.socket(
            socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, stream.fileno()
        )
    except (OSError, ClosedError):
        return 0
    try:
        info = borrowed.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _ACKED_OFFSET + 8)
        return int(struct.unpack_from("Q", info, _ACKED_OFFSET)[0])
    except (OSError, struct.error):
        return 0
    finally:
        borrowed.detach()


def _status_of(error: OSError) -> int:
    if isinstance(error, FileNotFoundError):
        return 404
    if isinstance(error, PermissionError):
        return 403
    return 503 if error.errno in _EXHAUSTED else 500


async def _say(server: Http1Server, status: int, *fields: Field) -> tuple[int, int]:
    """Respond with nothing but a status, in words."""
    text = f"{status} {HTTPStatus(status).phrase}\n"
    return status, await server.respond(status, [_TEXT, _NOSNIFF, *fields], text.encode("ascii"))


async def _preflight(server: Http1Server) -> tuple[int, int]:
    """Tell a browser what pages of another origin may do here."""
    fields = [
        (b"Allow", b"GET, HEAD, OPTIONS"),
        (b"Access-Control-Allow-Methods", b"GET, HEAD"),
        (b"Access-Control-Allow-Headers", b"If-Match, If-None-Match, If-Range, Range"),
        (b"Access-Control-Max-Age", b"86400"),
    ]
    return 204, await server.respond(204, fields)
