"""
``uringio serve``: the files of one folder over HTTP/1.1.

One task per connection.  A request's name is resolved by `Tree`, a file's bytes are read over the
ring into a pooled buffer and sent from it; a small file leaves in one send together with its head.
"""

import errno
import logging
import os
import sys
import time
from collections.abc import AsyncIterator
from http import HTTPStatus

import uringio
from uringio._driver import current
from uringio.errors import RingError
from uringio.files import File
from uringio.net import SocketStream, listen_tcp
from uringio.proto.http1 import Field, Http1Server, Request
from uringio.proto.static import (
    Target,
    TargetError,
    content_type,
    http_date,
    listing_page,
    parse_target,
)

from .tree import Found, Tree

__all__ = ["FileServer", "serve"]

# A file up to here is read at once and sent with its head.
_WHOLE_BYTES_MAX = 32 * 1024
_PIECE_BYTES = 128 * 1024
_SPARE_PIECES_MAX = 64

# A connection that waits for its peer longer than this, for a head or the rest of it, is dropped.
_PATIENCE_SECONDS = 60.0
_SWEEP_SECONDS = 5.0
# A refused peer gets this long to read why.
_LINGER_SECONDS = 2.0

_KNOWN_METHODS = frozenset({"CONNECT", "DELETE", "OPTIONS", "PATCH", "POST", "PUT", "TRACE"})
_EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM})

_NOSNIFF: Field = (b"X-Content-Type-Options", b"nosniff")
_HTML: Field = (b"Content-Type", b"text/html; charset=utf-8")
_TEXT: Field = (b"Content-Type", b"text/plain; charset=utf-8")

_logger = logging.getLogger("uringio.serve")


class StartError(Exception):
    """The server cannot begin; the message is for the user."""


def serve(folder: str, *, host: str, port: int, backend: str | None) -> int:
    """
    Serve *folder* until Ctrl-C, and return the exit status.

    Ctrl-C is how a server ends, so it is status 0 and no word.  What keeps it from beginning is one
    line on standard error and status 2.
    """
    try:
        uringio.run(_serve, folder, host, port, backend=backend)
    except KeyboardInterrupt:
        return 0
    except (StartError, RingError) as error:
        print(f"uringio serve: {error}", file=sys.stderr)
        return 2
    return 0


async def _serve(folder: str, host: str, port: int) -> None:
    try:
        tree = await Tree.open(folder)
    except (OSError, ValueError) as error:
        raise StartError(f"cannot serve {folder}: {_reason(error)}") from None
    async with tree:
        try:
            listener = await listen_tcp(host, port)
        except (OSError, ValueError) as error:
            raise StartError(f"cannot listen on {host} port {port}: {_reason(error)}") from None
        async with listener:
            address = listener.local_address
            assert isinstance(address, tuple)
            shown_host = f"[{address[0]}]" if ":" in address[0] else address[0]
            print(
                f"Serving {tree.path} at http://{shown_host}:{address[1]}/ "
                f"({current.driver().name}); Ctrl-C to stop",
                flush=True,
            )
            server = FileServer(tree)
            async with uringio.TaskGroup() as group:
                group.start_soon(server.sweep)
                await listener.serve(server.handle)


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.errno is not None:
        # A resolver's errors have numbers of their own, below zero, and say what they are.
        return os.strerror(error.errno) if error.errno > 0 else str(error.strerror)
    return str(error)


class _Connection:
    """A connection as the sweeper sees it."""

    __slots__ = ("scope", "waiting_since")

    def __init__(self) -> None:
        self.scope = uringio.CancelScope()
        self.waiting_since: float | None = None


class FileServer:
    """
    Answer requests from a tree of files.

    Args:
        tree: What is served.
    """

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self._connections: set[_Connection] = set()
        self._spare_pieces: list[bytearray] = []

    async def sweep(self) -> None:
        """
        Drop connections whose peers keep us waiting; runs until cancelled.

        One task for all: a deadline per wait would be made and thrown away with every request.
        """
        while True:
            await uringio.sleep(_SWEEP_SECONDS)
            self.drop_silent(time.monotonic() - _PATIENCE_SECONDS)

    def drop_silent(self, since: float) -> None:
        """Drop connections whose peers have owed us a head since before that monotonic time."""
        for connection in self._connections:
            if connection.waiting_since is not None and connection.waiting_since < since:
                connection.scope.cancel()

    async def handle(self, stream: SocketStream) -> None:
        """Serve one connection to its end."""
        connection = _Connection()
        self._connections.add(connection)
        server = Http1Server(stream, standing_fields=_standing_fields)
        try:
            with connection.scope:
                while True:
                    connection.waiting_since = time.monotonic()
                    request = await server.next_request()
                    connection.waiting_since = None
                    if request is None:
                        break
                    await self._answer(server, request)
        finally:
            self._connections.discard(connection)
            with uringio.move_on_after(_LINGER_SECONDS):
                await server.aclose()

    async def _answer(self, server: Http1Server, request: Request) -> None:
        if request.method not in {"GET", "HEAD"}:
            if request.method in _KNOWN_METHODS:
                await _say(server, 405, (b"Allow", b"GET, HEAD"))
            else:
                await _say(server, 501)
            return
        try:
            target = parse_target(request.target)
            async with self._tree.find(target.path) as found:
                await self._send(server, target, found)
        except TargetError as error:
            await _say(server, error.status)
        except OSError as error:
            status = _status_of(error)
            if status == 500:
                _logger.exception("%s failed", request)
            if not server.response_started:
                await _say(server, status)

    async def _send(self, server: Http1Server, target: Target, found: Found) -> None:
        if found.file is not None:
            if target.is_folder:
                await _say(server, 404)
            else:
                await self._send_file(server, target.segments[-1], found.file, found.status)
        elif not target.is_folder:
            await _say(server, 301, (b"Location", target.folder_location))
        else:
            await self._send_folder(server, target, found)

    async def _send_folder(self, server: Http1Server, target: Target, found: Found) -> None:
        try:
            async with self._tree.find(target.path + b"/index.html") as index:
                if index.file is not None:
                    await self._send_file(server, b"index.html", index.file, index.status)
                    return
        except FileNotFoundError:
            pass
        entries = await self._tree.entries(found)
        await server.respond(200, [_HTML, _NOSNIFF], listing_page(target.segments, entries))

    async def _send_file(
        self, server: Http1Server, name: bytes, file: File, status: os.stat_result
    ) -> None:
        fields = [
            (b"Content-Type", content_type(name)),
            (b"Last-Modified", http_date(int(status.st_mtime))),
            _NOSNIFF,
        ]
        size = status.st_size
        if size <= _WHOLE_BYTES_MAX:
            # Whatever was read is the whole body, even if the file has changed size meanwhile.
            await server.respond(200, fields, await file.read_at(0, size) if size else b"")
        else:
            fields.append((b"Content-Length", b"%d" % size))
            await server.respond(200, fields, self._pieces(file, size))

    async def _pieces(self, file: File, size: int) -> AsyncIterator[memoryview]:
        """Read *file* piece by piece, all into one buffer: each must be sent before the next."""
        spare = self._spare_pieces
        buffer = spare.pop() if spare else bytearray(_PIECE_BYTES)
        try:
            with memoryview(buffer) as view:
                offset = 0
                while offset < size:
                    count = await file.read_into_at(offset, view[: size - offset])
                    if not count:
                        return  # it has shrunk, and the response will be cut short
                    yield view[:count]
                    offset += count
        finally:
            if len(spare) < _SPARE_PIECES_MAX:
                spare.append(buffer)


def _standing_fields() -> tuple[Field, ...]:
    return ((b"Date", http_date(int(time.time()))),)


def _status_of(error: OSError) -> int:
    if isinstance(error, FileNotFoundError):
        return 404
    if isinstance(error, PermissionError):
        return 403
    return 503 if error.errno in _EXHAUSTED else 500


async def _say(server: Http1Server, status: int, *fields: Field) -> None:
    """Respond with nothing but a status, in words."""
    text = f"{status} {HTTPStatus(status).phrase}\n"
    await server.respond(status, [_TEXT, _NOSNIFF, *fields], text.encode("ascii"))
