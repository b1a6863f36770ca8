"""
Pipe transports: one end of a pipe, a stream socket or a character device under a protocol.

As in asyncio the descriptor is made non-blocking, for whoever else has the file too.  So io_uring's
own reads and writes would not wait for it; a POLL waits, and reading and writing are done on the
spot.  That serves every kind of file and driver alike, and ends without anything of ours in the
kernel's hands.
"""

import asyncio
import errno
import stat
import warnings
from collections import deque
from collections.abc import Callable
from itertools import islice
from typing import Final, Protocol, TypeVar, cast

from uringio._driver.contract import Driver
from uringio._driver.op import POLL, Op
from uringio._driver.poll_bits import POLLRDHUP
from uringio.errors import op_error

from .endpoint import Endpoint, WritingEndpoint
from .payloads import as_bytes
from .readiness import READABLE, WRITABLE
from .running import RunningLoop

__all__ = ["PipeCalls", "PipeEnd", "ReadPipeTransport", "WritePipeTransport"]

P = TypeVar("P", bound=asyncio.BaseProtocol)

_READ_BYTES: Final = 65536  # what a pipe holds, unless somebody has enlarged it
_PIECES_MAX: Final = 64


class PipeEnd(Protocol):
    """What is asked of the object that the program brings along; the transport closes it."""

    def fileno(self) -> int:
        """The descriptor."""
        ...

    def close(self) -> object:
        """Close the descriptor."""
        ...


class _HeldPipe:
    """
    A pipe object, non-blocking, and the duty to close it.

    Args:
        driver: Whose ops wait for it.
        pipe: The object.
        what: For the warning if it is forgotten.

    Attributes:
        fd: Its descriptor.
        mode: What kind of file that is.

    Raises:
        ValueError: It is neither a pipe nor a socket nor a character device.
    """

    __slots__ = ("_driver", "_pipe", "_what", "fd", "mode")

    def __init__(self, driver: Driver, pipe: PipeEnd, what: str) -> None:
        self._driver = driver
        self._what = what
        self.fd = pipe.fileno()
        self.mode = driver.system.fstat(self.fd).st_mode
        if not (stat.S_ISFIFO(self.mode) or stat.S_ISSOCK(self.mode) or stat.S_ISCHR(self.mode)):
            raise ValueError("Pipe transport is for pipes, sockets and character devices only.")
        driver.system.set_blocking(self.fd, False)
        self._pipe: PipeEnd | None = pipe

    def close(self) -> None:
        """Close it, once."""
        pipe, self._pipe = self._pipe, None
        if pipe is not None:
            self._driver.unregister(self.fd)
            pipe.close()

    def describe(self, closing: bool) -> str:
        """Return the transport's repr."""
        if self._pipe is None:
            return f"<{self._what} closed>"
        return f"<{self._what} {'closing' if closing else 'open'} fd={self.fd}>"

    def __del__(self) -> None:
        pipe: PipeEnd | None = getattr(self, "_pipe", None)
        if pipe is not None:
            text = f"unclosed transport {self.describe(closing=False)}"
            warnings.warn(text, ResourceWarning, stacklevel=2, source=self)
            pipe.close()


class ReadPipeTransport(Endpoint, asyncio.ReadTransport):
    """
    The end that is read from.

    Args:
        loop, driver, protocol: See `Endpoint`.
        pipe: What to read from.
    """

    def __init__(
        self, loop: RunningLoop, driver: Driver, protocol: asyncio.BaseProtocol, pipe: PipeEnd
    ) -> None:
        super().__init__(loop, driver, protocol)
        self._pipe = _HeldPipe(driver, pipe, "ReadPipeTransport")
        self._extra["pipe"] = pipe
        self._paused = False
        self._poll_op = self._make_op(Op(POLL, self._pipe.fd, flags=READABLE), self._readable)

    def __repr__(self) -> str:
        return self._pipe.describe(self._closing)

    def _go_on(self) -> None:
        if not self._closing and not self._paused:
            self._start(self._poll_op)

    def _readable(self, op: Op[object]) -> None:
        if self._has_ended(op) or self._paused:
            return
        try:
            if op.error is not None:
                raise op.error
            data = self._driver.system.read_bytes(self._pipe.fd, _READ_BYTES)
        except (BlockingIOError, InterruptedError):
            self._go_on()
            return
        except OSError as error:
            # EIO is how a terminal says that its other side has gone.
            expected = error.errno == errno.EIO
            self._fatal_error(error, "Fatal read error on pipe transport", expected=expected)
            return
        protocol = cast("asyncio.Protocol", self._protocol)
        if not data:
            self._closing = True
            self._tell_protocol("eof_received", protocol.eof_received)
            self._end()
            return
        try:
            protocol.data_received(data)
        except (KeyboardInterrupt, SystemExit):
            self._go_on()
            raise
        except BaseException as error:
            self._report("protocol.data_received() failed", error)
        self._go_on()

    def is_reading(self) -> bool:
        """Whether data is delivered as it comes."""
        return not self._paused and not self._closing

    def pause_reading(self) -> None:
        """Deliver no more until `resume_reading`; safe to call twice."""
        if not self._closing:
            self._paused = True

    def resume_reading(self) -> None:
        """Deliver again what comes; safe to call twice."""
        if self._paused and not self._closing:
            self._paused = False
            self._go_on()

    def close(self) -> None:
        """Read no more and end; safe to call twice."""
        self._force_close(None)

    def _release(self) -> None:
        self._pipe.close()


class WritePipeTransport(WritingEndpoint, asyncio.Transport):
    """
    The end that is written to; as in asyncio a `Transport`, of which nothing can be read.

    It ends by itself when the reader's end of a pipe or socket is closed.

    Args:
        loop, driver, protocol: See `Endpoint`.
        pipe: What to write to.
    """

    def __init__(
        self, loop: RunningLoop, driver: Driver, protocol: asyncio.BaseProtocol, pipe: PipeEnd
    ) -> None:
        super().__init__(loop, driver, protocol)
        self._pipe = _HeldPipe(driver, pipe, "WritePipeTransport")
        self._extra["pipe"] = pipe
        self._backlog: deque[memoryview] = deque()
        self._room_op = self._make_op(Op(POLL, self._pipe.fd, flags=WRITABLE), self._write_on)
        # Errors and hang-ups are told of unasked.
        mask = POLLRDHUP if stat.S_ISSOCK(self._pipe.mode) else 0
        self._gone_op = self._make_op(Op(POLL, self._pipe.fd, flags=mask), self._reader_gone)

    def __repr__(self) -> str:
        return self._pipe.describe(self._closing)

    def _go_on(self) -> None:
        # Of a terminal, poll(2) would tell nothing of the kind.
        if not self._closing and not stat.S_ISCHR(self._pipe.mode):
            self._start(self._gone_op)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """
        Write *data*, without waiting.

        Raises:
            TypeError: *data* is not bytes-like.
        """
        piece = memoryview(as_bytes(data))
        if not piece:
            return
        if self._closing:
            self._lose_write("writing to a pipe that is closed, here or by its reader")
            return
        if not self._backlog:
            res = self._write([piece])
            if res == len(piece) or res < 0:
                return
            piece = piece[res:]
            self._start(self._room_op)
        self._backlog.append(piece)
        self._unsent_bytes += len(piece)
        self._maybe_pause_writing()

    def _write(self, pieces: list[memoryview]) -> int:
        """Return how much the pipe took, or a negative number if that was the end of it."""
        res = self._driver.system.pwritev(self._pipe.fd, pieces, -1, 0)
        if res in {-errno.EAGAIN, -errno.EINTR}:
            return 0
        if res < 0:
            error = op_error(-res, "write", self._pipe.fd)
            self._fatal_error(error, "Fatal write error on pipe transport", expected=True)
        return res

    def _write_on(self, op: Op[object]) -> None:
        if self._has_ended(op):
            return
        backlog = self._backlog
        res = self._write(list(islice(backlog, _PIECES_MAX)))
        if res < 0:
            return
        self._unsent_bytes -= res
        while res:
            piece = backlog.popleft()
            if len(piece) > res:
                backlog.appendleft(piece[res:])
                break
            res -= len(piece)
        if backlog:
            self._start(self._room_op)
        self._maybe_resume_writing()  # which may write more, or close
        if self._closing and not backlog:
            self._end()

    def _reader_gone(self, op: Op[object]) -> None:
        if not self._has_ended(op):
            self._force_close(BrokenPipeError() if self._backlog else None)

    def can_write_eof(self) -> bool:
        """Return True: the end of a pipe is that it is closed."""
        return True

    def write_eof(self) -> None:
        """Write what waits, then end; safe to call twice."""
        if self._closing:
            return
        self._closing = True
        if not self._backlog:
            self._end()

    def close(self) -> None:
        """Write what waits, then end; safe to call twice."""
        self.write_eof()

    def abort(self) -> None:
        """End at once; what was not written is lost."""
        self._force_close(None)

    def _drop_unsent(self) -> None:
        self._backlog.clear()
        self._unsent_bytes = 0

    def _release(self) -> None:
        self._pipe.close()


class PipeCalls(RunningLoop):
    """The part of the event loop that connects to pipes."""

    async def connect_read_pipe(
        self, protocol_factory: Callable[[], P], pipe: PipeEnd
    ) -> tuple[asyncio.ReadTransport, P]:
        """
        Read from *pipe*; see `asyncio.loop.connect_read_pipe`.

        Raises:
            ValueError: *pipe* is neither a pipe nor a socket nor a character device.
        """
        protocol = protocol_factory()
        transport = ReadPipeTransport(self, self.require_driver(), protocol, pipe)
        await transport.begin()
        return transport, protocol

    async def connect_write_pipe(
        self, protocol_factory: Callable[[], P], pipe: PipeEnd
    ) -> tuple[asyncio.WriteTransport, P]:
        """
        Write to *pipe*; see `asyncio.loop.connect_write_pipe`.

        Raises:
            ValueError: *pipe* is neither a pipe nor a socket nor a character device.
        """
        protocol = protocol_factory()
        transport = WritePipeTransport(self, self.require_driver(), protocol, pipe)
        await transport.begin()
        return transport, protocol
