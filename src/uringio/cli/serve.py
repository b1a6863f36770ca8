"""
``uringio serve``: the files of one folder over HTTP/1.1.

From the command's options to a process that serves, or a parent of several that do; and from a
signal to the end.  The first SIGINT or SIGTERM lets every request be answered, within a deadline;
the second ends at once.
"""

import contextlib
import errno
import logging
import os
import re
import resource
import signal
import socket
import sys
import time
from collections.abc import Generator
from types import FrameType
from typing import Final

import attrs

import uringio
from uringio._driver import current
from uringio._driver.sockets import ACCEPT_EXHAUSTED
from uringio.errors import ClosedError, RingError, UnsupportedError
from uringio.net import Listener, SocketStream, adopt_listener, wait_readable
from uringio.proto.http1 import Field

from .access_log import AccessLog
from .backends import described, in_one_line
from .descriptors import raise_descriptor_limit
from .file_server import FileServer, Manners
from .quoting import shown
from .tree import Tree
from .workers import (
    REFUSED,
    Supervisor,
    Word,
    stop_listening,
    turn_away,
    waits_to_be_accepted,
)

__all__ = ["Options", "serve"]

_BACKLOG: Final = 4096
# Connections at a time in one process, if half of its descriptors are enough for that: the other
# half is for files.
_CONNECTIONS_MAX: Final = 8192
_SPARE_DESCRIPTORS: Final = 32
# How long accepting rests when descriptors have run out.
_EXHAUSTED_SECONDS: Final = 0.1
# How long connections that wait to be accepted may keep the end from beginning.
_BACKLOG_SECONDS: Final = 1.0
_DRAIN_TURN_SECONDS: Final = 0.05
_PARENT_SECONDS: Final = 1.0
_LOG_SECONDS: Final = 1.0

_HEADER: Final = re.compile(
    r"([!#$%&'*+\-.^_`|~0-9A-Za-z]+):[ \t]*([\x21-\x7e](?:[\t\x20-\x7e]*[\x21-\x7e])?)?[ \t]*"
)
# What the server itself says, or what would change how a message ends.
_OURS: Final = frozenset({
    "accept-ranges", "allow", "connection", "content-encoding", "content-length", "content-range",
    "content-type", "date", "etag", "keep-alive", "last-modified", "location", "te", "trailer",
    "transfer-encoding", "upgrade", "vary",
})  # fmt: skip

# What the user can do about a socket that cannot be had.
_REMEDIES: Final = {
    errno.EADDRINUSE: "; --port takes another, --port 0 any that is free",
    errno.EADDRNOTAVAIL: "; --host takes an address of this machine, 0.0.0.0 or :: all of them",
    errno.EACCES: "; --port takes one from 1024 up, which need no rights",
}

_logger = logging.getLogger("uringio.serve")


class StartError(Exception):
    """The server cannot begin; the message is for the user."""


@attrs.frozen
class Options:
    """
    What the command was asked for; see its help.

    Attributes:
        max_connections: None for the default, which depends on how many descriptors there may be.
        inherited_fd: The listening socket that a worker inherits, None for a process of its own.
        ready_fd: Where a worker says that it serves.
    """

    folder: str
    host: str
    port: int
    backend: str
    workers: int
    index: str
    cors: str
    headers: tuple[str, ...]
    is_quiet: bool
    grace_seconds: float
    max_connections: int | None
    inherited_fd: int | None
    ready_fd: int | None


def serve(options: Options) -> int:
    """
    Serve until a signal says to stop, and return the exit status.

    A signal is how a server ends, so it is status 0 and no word.  What keeps it from beginning is
    one line on standard error and status 2.
    """
    word = Word(options.ready_fd)
    try:
        manners = _manners(options)
        raise_descriptor_limit()
        if options.inherited_fd is not None:
            listening = socket.socket(fileno=options.inherited_fd)
        else:
            _require_folder(options.folder)
            listening = _listen(options.host, options.port)
        with listening:
            if options.workers > 1 and options.inherited_fd is None:
                return _supervise(options, listening)
            uringio.run(_serve, options, manners, listening, word, backend=options.backend)
    except KeyboardInterrupt:
        return 0
    except (StartError, OSError, UnsupportedError) as error:
        reason = str(error)
        if not isinstance(error, StartError):
            reason = in_one_line(error, options.backend)
        if not word.give(REFUSED + reason):
            print(f"uringio serve: {reason}", file=sys.stderr)
        return 2
    return 0


# --- beginning -----------------------------------------------------------------------------------


def _manners(options: Options) -> Manners:
    if "/" in options.index or "\0" in options.index or options.index in {".", ".."}:
        raise StartError(f"--index: {options.index!r} is not the name of a file")
    headers: list[Field] = []
    for text in options.headers:
        match = _HEADER.fullmatch(text)
        if match is None:
            raise StartError(f"--header: {text!r} is not of the form 'Name: value'")
        if match[1].lower() in _OURS:
            raise StartError(f"--header: {match[1]} is for the server to say")
        headers.append((match[1].encode("ascii"), (match[2] or "").encode("ascii")))
    if re.fullmatch(r"[\x21-\x7e]*", options.cors) is None:
        raise StartError(f"--cors: {options.cors!r} is not an origin")
    return Manners(os.fsencode(options.index), options.cors.encode("ascii"), tuple(headers))


def _connections_max(options: Options) -> int:
    if options.max_connections is not None:
        return options.max_connections
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return _CONNECTIONS_MAX
    return max(1, min(_CONNECTIONS_MAX, (soft - _SPARE_DESCRIPTORS) // 2))


def _require_folder(folder: str) -> None:
    try:
        os.close(os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
    except (OSError, ValueError) as error:
        raise StartError(f"cannot serve {shown(folder)}: {_reason(error)}") from None


def _listen(host: str, port: int) -> socket.socket:
    try:
        infos = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        failure: OSError | None = None
        for family, kind, protocol, _, address in infos:
            listening = socket.socket(family, kind, protocol)
            try:
                listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                # Linux hands it on to every accepted socket.
                listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                listening.setblocking(False)
                listening.bind(address)
                listening.listen(_BACKLOG)
            except OSError as error:
                listening.close()
                failure = failure or error
                continue
            return listening
        raise failure or OSError(errno.EADDRNOTAVAIL, os.strerror(errno.EADDRNOTAVAIL))
    except (OSError, ValueError) as error:
        reason = _reason(error) + _REMEDIES.get(getattr(error, "errno", None) or 0, "")
        raise StartError(f"cannot listen on {shown(host)} port {port}: {reason}") from None


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.errno is not None:
        # A resolver's errors have numbers of their own, below zero, and say what they are.
        return os.strerror(error.errno) if error.errno > 0 else str(error.strerror)
    return str(error)


def _say_where(folder: str, listening: socket.socket, how: str) -> None:
    address = listening.getsockname()
    host = f"[{address[0]}]" if ":" in address[0] else address[0]
    url = f"http://{host}:{address[1]}/"
    print(f"Serving {shown(folder)} at {url} ({how}); Ctrl-C to stop", flush=True)


def _supervise(options: Options, listening: socket.socket) -> int:
    command = [
        sys.executable,
        *(f"-W{option}" for option in sys.warnoptions),
        *("-m", "uringio", "serve"),
        f"--backend={options.backend or 'auto'}",
        f"--index={options.index}",
        *([f"--cors={options.cors}"] if options.cors else []),
        *(f"--header={header}" for header in options.headers),
        *(["--quiet"] if options.is_quiet else []),
        f"--grace={options.grace_seconds}",
        *([f"--max-connections={options.max_connections}"] if options.max_connections else []),
    ]
    folder = os.path.realpath(options.folder)
    supervisor = Supervisor(
        [*command, f"--folder={folder}"],
        options.workers,
        listening,
        grace_seconds=options.grace_seconds,
        started=lambda how: _say_where(folder, listening, f"{how}, {options.workers} workers"),
    )
    try:
        return supervisor.run()
    except OSError as error:
        raise StartError(f"cannot start {options.workers} workers: {_reason(error)}") from None


# --- serving -------------------------------------------------------------------------------------


async def _serve(options: Options, manners: Manners, listening: socket.socket, word: Word) -> None:
    try:
        tree = await Tree.open(options.folder)
    except (OSError, ValueError) as error:
        raise StartError(f"cannot serve {shown(options.folder)}: {_reason(error)}") from None
    log = None if options.is_quiet else AccessLog(sys.stdout.fileno())
    async with tree, adopt_listener(os.dup(listening.fileno())) as listener:
        server = FileServer(tree, manners, log)
        # Outside of the group, so that what is missing for a beginning is no group of errors.
        with _signal_pipe() as (signal_fd, write_fd):
            async with uringio.TaskGroup() as group:
                process = _Process(options, server, listener, listening, group)
                with process.signals(write_fd):
                    group.start_soon(process.obey_signals, signal_fd)
                    group.start_soon(server.keep_sweeping)
                    if log is not None:
                        group.start_soon(log.keep_writing)
                    group.start_soon(process.accept)
                    backend = described(current.driver(), options.backend)
                    parent = (
                        os.getppid()
                    )  # if there is one: it waits for the next line, so is alive
                    if word.give(backend):
                        await process.watch_parent(parent)
                    else:
                        _say_where(tree.path, listening, backend)
                        await uringio.sleep(1e9)
        if log is not None:
            with contextlib.suppress(OSError), uringio.move_on_after(_LOG_SECONDS):
                await log.flush()


@contextlib.contextmanager
def _signal_pipe() -> Generator[tuple[int, int], None, None]:
    """Make a pipe for signal handlers, which must not wait: its (read, write) ends."""
    both = os.pipe()
    try:
        for fd in both:
            os.set_blocking(fd, False)
        yield both
    finally:
        for fd in both:
            os.close(fd)


class _Process:
    """A process that serves: what it accepts, and how it ends."""

    def __init__(
        self,
        options: Options,
        server: FileServer,
        listener: Listener,
        listening: socket.socket,
        group: uringio.TaskGroup,
    ) -> None:
        self._grace_seconds = options.grace_seconds
        self._connections_max = _connections_max(options)
        self._is_worker = options.inherited_fd is not None
        self._server = server
        self._listener = listener
        self._listening = listening
        self._group = group
        self._handlers_count = 0
        self._is_accepting = True
        self._is_full = False
        self._is_draining = False
        self._signals_count = 0

    @contextlib.contextmanager
    def signals(self, write_fd: int) -> Generator[None, None, None]:
        """Count SIGINT and SIGTERM, and write of both to a pipe, for `obey_signals`."""

        def note(number: int, _frame: FrameType | None) -> None:
            # To a worker SIGINT is its parent's word that there was a second signal.
            self._signals_count += 2 if self._is_worker and number == signal.SIGINT else 1
            with contextlib.suppress(BlockingIOError):  # full: it will be woken
                os.write(write_fd, b"\0")

        before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    async def obey_signals(self, wake_fd: int) -> None:
        """Let the first signal end the process in order, and the second at once."""
        while True:
            await wait_readable(wake_fd)
            with contextlib.suppress(BlockingIOError):
                os.read(wake_fd, 4096)
            if self._signals_count > 1:
                self._group.cancel_scope.cancel()
            elif self._signals_count:
                self._begin_end()

    def _begin_end(self) -> None:
        if not self._is_draining:
            self._is_draining = True
            self._group.start_soon(self._drain)

    async def _drain(self) -> None:
        """Answer what was asked for and what is about to be, then end; in time, or else."""
        now = time.monotonic()
        deadline = now + self._grace_seconds
        self._server.drain()
        if self._is_worker:
            # The parent stops the listening, for all at once.
            while self._is_accepting and time.monotonic() < now + _BACKLOG_SECONDS:
                await uringio.sleep(_DRAIN_TURN_SECONDS / 5)
        else:
            turn_away(self._listening)
            while True:
                await uringio.sleep(_DRAIN_TURN_SECONDS / 5)
                waits = waits_to_be_accepted(self._listening)
                if not waits or time.monotonic() > now + _BACKLOG_SECONDS:
                    break
            if not stop_listening(self._listening):
                self._is_accepting = False  # the accept goes with everything else
        while (self._handlers_count or self._is_accepting) and time.monotonic() < deadline:
            await uringio.sleep(_DRAIN_TURN_SECONDS)
            self._server.sweep(time.monotonic())
            if self._is_worker and time.monotonic() > now + _BACKLOG_SECONDS:
                self._is_accepting = False
        self._group.cancel_scope.cancel()

    async def watch_parent(self, parent: int) -> None:
        """End when the parent has died without saying so; runs until cancelled."""
        while os.getppid() == parent:
            await uringio.sleep(_PARENT_SECONDS)
        self._begin_end()

    async def accept(self) -> None:
        """
        Take connections until the listening is stopped, or until there are as many as may be.

        In the second case the rest wait in the kernel's backlog, and the next connection to end has
        accepting go on.
        """
        while True:
            if self._handlers_count >= self._connections_max:
                self._is_full = True
                return
            try:
                stream = await self._listener.accept()
            except ClosedError:
                break
            except OSError as error:
                if error.errno in ACCEPT_EXHAUSTED:
                    await uringio.sleep(_EXHAUSTED_SECONDS)
                elif error.errno == errno.EINVAL:
                    break
                # Anything else is the end of a connection that waited in the backlog.
                continue
            self._handlers_count += 1
            self._group.spawn(self._handle(stream))
        self._is_accepting = False
        self._begin_end()

    async def _handle(self, stream: SocketStream) -> None:
        try:
            async with stream:
                await self._server.handle(stream)
        except OSError as error:
            if isinstance(error, RingError):
                raise
        except Exception:
            _logger.exception("a connection failed")
        finally:
            self._handlers_count -= 1
            if self._is_full and not self._group.cancel_scope.cancel_called:
                self._is_full = False
                self._group.start_soon(self.accept)
