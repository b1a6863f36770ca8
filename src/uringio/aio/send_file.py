"""
Files into sockets: what asyncio's `sendfile` and `sock_sendfile` call, on transports and sockets.

asyncio's own methods check their arguments and decide whether to fall back.  A regular file goes
the way by which the streams of `uringio.net` send files: what the page cache holds by sendfile(2),
the rest read by operations, and a full socket is waited for without a buffer.  Whatever else can
be read is read in a thread and sent from memory, unless the caller forbids that.

A transport lends its sending side for as long as that takes (`StreamTransport.lend`).  Closing it
meanwhile sends the file to its end first, as it does with what was written; aborting ends both.

Behind each call, also one that failed or was cancelled, the file's position is where the sending
stopped, and the exception's ``done`` counts the bytes.
"""

import asyncio
import errno
import io
import stat
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import IO, TYPE_CHECKING, Final, Protocol, cast

from uringio._driver.contract import Driver
from uringio._driver.op import CANCELLING, POLL, READ, SEND_ALL, SUBMITTED, Op
from uringio._driver.relaying import Outlet, relay_all
from uringio._driver.sockets import SEND_ALL_FLAGS
from uringio.errors import OpError, op_error

from .readiness import WRITABLE
from .socket_calls import SocketCalls
from .transport import StreamTransport

if TYPE_CHECKING:
    from socket import socket

__all__ = ["FileSending"]

_SEEK_SET: Final = 0
_PIECE_BYTES: Final = 256 * 1024
_IN_FLIGHT: Final = frozenset({SUBMITTED, CANCELLING})
# What a kernel answers that cannot send this file in this way.
_NO_WAY: Final = frozenset({errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP})


class _ReadableFile(Protocol):
    """What is asked of a file that is read in a thread."""

    def seek(self, offset: int, /) -> int: ...
    def readinto(self, buffer: memoryview, /) -> int | None: ...


class FileSending(SocketCalls):
    """The loop's ways to send a file."""

    if TYPE_CHECKING:
        # BaseEventLoop's own, which its stubs keep to themselves.
        def _check_sendfile_params(
            self, sock: "_StreamKind", file: IO[bytes], offset: int, count: int | None
        ) -> None: ...

    async def _sock_sendfile_native(
        self, sock: "socket", file: IO[bytes], offset: int, count: int | None
    ) -> int:
        fd = self.check_socket(sock)
        source = _RegularFile(self.require_driver(), file)
        outlet = Outlet(
            lambda: fd, lambda: self.until(fd, WRITABLE), partial(self._send_piece, sock)
        )
        return await source.send(outlet, offset, count)

    async def _send_piece(self, sock: "socket", piece: memoryview) -> None:
        try:
            await self.sock_sendall(sock, piece)
        except OSError as error:
            done: int = getattr(error, "done", 0)
            raise op_error(error.errno or errno.EIO, "send", sock.fileno(), done) from None

    async def _sendfile_native(
        self, transp: asyncio.BaseTransport, file: IO[bytes], offset: int, count: int | None
    ) -> int:
        driver = self.require_driver()
        self._check_sendfile_params(_StreamKind(driver), file, offset, count)
        if not isinstance(transp, StreamTransport):
            raise asyncio.SendfileNotAvailableError(f"{transp!r} is no transport of this loop")
        source = _RegularFile(driver, file)
        return await self._by_lending(
            transp, lambda lent: source.send(lent.outlet(), offset, count)
        )

    async def _sendfile_fallback(
        self, transp: asyncio.BaseTransport, file: IO[bytes], offset: int, count: int | None
    ) -> int:
        if not isinstance(transp, StreamTransport):
            return await super()._sendfile_fallback(transp, file, offset, count)
        return await self._by_lending(
            transp, lambda lent: self._read_and_send(lent, file, offset, count)
        )

    async def _read_and_send(
        self, lent: "_Lent", file: IO[bytes], offset: int, count: int | None
    ) -> int:
        """Send what a thread reads."""
        source = cast("_ReadableFile", file)
        if offset:
            source.seek(offset)
        room = memoryview(bytearray(_PIECE_BYTES if count is None else min(count, _PIECE_BYTES)))
        done = 0
        try:
            while count is None or done < count:
                piece = room if count is None else room[: count - done]
                size = await self.run_in_executor(None, source.readinto, piece)
                if not size:
                    break
                await lent.send_all(piece[:size])
                done += size
        except BaseException as error:
            done = _count(error, done)
            raise
        finally:
            if done and hasattr(file, "seek"):
                source.seek(offset + done)
        return done

    async def _by_lending(
        self, transport: StreamTransport, send: "Callable[[_Lent], Awaitable[int]]"
    ) -> int:
        """Have *send* send what is behind all that was written to *transport*."""
        lent = _Lent(self, self.require_driver())
        lent.fd = transport.lend(lent)
        was_reading = transport.is_reading()
        transport.pause_reading()
        failure: OpError | None = None
        try:
            await lent.begun
            return await send(lent)
        except OpError as error:
            if error.op != "read":
                failure = error
            raise
        finally:
            transport.give_back(failure)
            if was_reading:
                transport.resume_reading()


class _StreamKind:
    """As much of a socket as asyncio's check of the arguments looks at."""

    def __init__(self, driver: Driver) -> None:
        self.type = driver.system.SOCK_STREAM


class _Lent:
    """
    The sending side of a transport, while it is lent to a file.

    Attributes:
        begun: Done when all that was written before is sent.
        fd: The socket.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, driver: Driver) -> None:
        self.begun: asyncio.Future[None] = loop.create_future()
        self.fd = -1
        self._driver = driver
        self._stopped: OpError | None = None
        self._op: Op[object] | None = None

    def begin(self) -> None:
        """Hear from the transport that all that was written is sent; perhaps more than once."""
        if not self.begun.done():
            self.begun.set_result(None)

    def stop(self) -> None:
        """Hear from the transport that it is forced to end."""
        reason = op_error(errno.ECONNABORTED, "send", self.fd, detail="the transport has ended")
        self._stopped = reason
        if not self.begun.done():
            self.begun.set_exception(reason)
        elif self._op is not None and self._op.state in _IN_FLIGHT:
            self._driver.cancel(self._op, reason)

    def outlet(self) -> Outlet:
        """Return it as what files are relayed into."""
        return Outlet(self._claim, self._wait_for_room, self.send_all)

    def send_all(self, piece: memoryview) -> Op[None]:
        """Send *piece*, waiting; its memory is lent until that has ended."""
        fd = self._claim()
        op: Op[None] = Op(SEND_ALL, fd, len_=len(piece), flags=SEND_ALL_FLAGS, memory=piece)
        self._op = op
        return op

    def _wait_for_room(self) -> Op[int]:
        op: Op[int] = Op(POLL, self._claim(), flags=WRITABLE)
        self._op = op
        return op

    def _claim(self) -> int:
        if self._stopped is not None:
            raise self._stopped
        return self.fd


class _RegularFile:
    """
    A file to be sent from any offset.

    Raises:
        SendfileNotAvailableError: It is something else, or not open.
    """

    def __init__(self, driver: Driver, file: IO[bytes]) -> None:
        self._system = driver.system
        try:
            self._fd = file.fileno()
            mode = self._system.fstat(self._fd).st_mode
        except (AttributeError, io.UnsupportedOperation, OSError) as error:
            raise asyncio.SendfileNotAvailableError("not a regular file") from error
        if not stat.S_ISREG(mode):
            raise asyncio.SendfileNotAvailableError("not a regular file")

    def fileno(self) -> int:
        """See `RelaySource`."""
        return self._fd

    def read_into_at(self, offset: int, buffer: memoryview, /) -> Op[int]:
        """See `RelaySource`."""
        return Op(READ, self._fd, len_=len(buffer), off=offset, memory=buffer)

    async def send(self, outlet: Outlet, offset: int, count: int | None) -> int:
        """
        Send *count* bytes, or all there are, and leave the file's position behind them.

        Raises:
            SendfileNotAvailableError: It turned out, before anything was sent, that this file
                cannot be sent so.
            OpError: The connection broke, or the file cannot be read.
        """
        done = 0
        try:
            while True:
                end = self._system.fstat(self._fd).st_size if count is None else offset + count
                missing = end - offset - done
                if missing <= 0:
                    return done
                sent = await relay_all(self._system, outlet, self, offset + done, missing)
                done += sent
                if sent < missing:
                    return done
        except BaseException as error:
            done = _count(error, done)
            if not done and isinstance(error, OpError):
                if error.op == "read" or error.errno in _NO_WAY:
                    raise asyncio.SendfileNotAvailableError(str(error)) from error
                if error.errno == errno.ENOTCONN:
                    raise ConnectionError(error.errno, "socket is not connected") from error
            raise
        finally:
            if done:
                with suppress(OSError):  # it was closed meanwhile, and has no position any more
                    self._system.lseek(self._fd, offset + done, _SEEK_SET)


def _count(error: BaseException, done: int) -> int:
    """Add what was sent before to *error*'s ``done``, and return the sum."""
    done += getattr(error, "done", 0)
    if done:
        error.__dict__["done"] = done
    return done
