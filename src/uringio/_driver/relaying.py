"""
Files on their way into sockets.

What the page cache holds is handed on by sendfile(2), which then waits for nothing.  Where the
kernel does not tell what it holds, it is read without waiting into one piece of memory and sent
from there.  Either way a peer that takes nothing holds no buffer of ours, only a place in the file.

A MiB costs 230 us of CPU by sendfile, over loopback and from a file server with 50 connections, and
410 by way of memory, which is no less than reading and sending by separate operations.  Splicing
over a ring is no third way: the kernel gives each splice to a thread.
"""

import errno
import threading
from collections.abc import Awaitable, Callable
from typing import Final, NamedTuple, Protocol

from uringio._sys.numbers import MSG_DONTWAIT, MSG_NOSIGNAL
from uringio._sys.system import System
from uringio.errors import OpError, op_error

__all__ = ["Outlet", "RelaySource", "relay", "relay_all"]

_SCRATCH_BYTES: Final = 128 * 1024
_AT_ONCE_BYTES_MAX: Final = 1024 * 1024
# Below, asking what is cached costs more than the copy.
_HANDED_ON_BYTES_MIN: Final = 65536
_PIECE_BYTES: Final = 128 * 1024  # of a file that must be waited for
_NOT_CACHED: Final = -1  # in the place of an errno
_FLAGS: Final = MSG_DONTWAIT | MSG_NOSIGNAL


class RelaySource(Protocol):
    """A file to be sent, such as `uringio.files.File`."""

    def fileno(self) -> int:
        """The descriptor."""
        ...

    def read_into_at(self, offset: int, buffer: memoryview, /) -> Awaitable[int]:
        """Read from *offset* on into *buffer*; 0 behind the end."""
        ...


class Outlet(NamedTuple):
    """
    The stream that it goes into.

    Attributes:
        claim: Returns the descriptor; raises `ClosedError`, and `BusyError` while another sends.
        wait_for_room: Returns what waits until something can be sent, and keeps others from it.
        send_all: Sends, waiting.
    """

    claim: Callable[[], int]
    wait_for_room: Callable[[], Awaitable[int]]
    send_all: Callable[[memoryview], Awaitable[None]]


class _Scratch(threading.local):
    """The memory of one thread; `keep` is what holds it at its address."""

    view: memoryview | None = None
    addr = 0
    keep: object = None


_scratch = _Scratch()


def relay(system: System, to_fd: int, from_fd: int, offset: int, count: int) -> tuple[int, int]:
    """
    Send what can be sent at once, at most a MiB.

    Returns:
        How many bytes were sent, and why not more: 0 because that was enough, EAGAIN because the
        socket is full, _NOT_CACHED because a file must be waited for or has ended, or an errno of
        send(2).
    """
    count = min(count, _AT_ONCE_BYTES_MAX)
    if count >= _HANDED_ON_BYTES_MIN and system.holds_all(from_fd, offset, count):
        sent = system.send_cached(to_fd, from_fd, offset, count)
        if sent < 0:
            return 0, -sent
        return sent, 0 if sent == count else errno.EAGAIN
    return _relay_by_memory(system, to_fd, from_fd, offset, count)


def _relay_by_memory(
    system: System, to_fd: int, from_fd: int, offset: int, count: int
) -> tuple[int, int]:
    scratch = _scratch
    if (view := scratch.view) is None:
        memory = scratch.keep = system.allocate(_SCRATCH_BYTES)
        view, scratch.addr = memory.view, memory.addr
        scratch.view = view
    done = 0
    while done < count:
        size = min(_SCRATCH_BYTES, count - done)
        got = system.read_cached(from_fd, view[:size], size, offset + done)
        if got <= 0:
            return done, _NOT_CACHED
        sent = system.send(to_fd, scratch.addr, got, _FLAGS)
        if sent < 0:
            return done, -sent
        done += sent
        if sent < got:
            return done, errno.EAGAIN
    return done, 0


async def relay_all(
    system: System, outlet: Outlet, file: RelaySource, offset: int, count: int
) -> int:
    """Send a part of *file*; see `SocketStream.send_file`."""
    if offset < 0 or count < 0:
        raise ValueError(f"a part of a file is from 0 up, not {count} bytes from {offset}")
    done = 0
    try:
        while True:
            fd = outlet.claim()
            sent, why = relay(system, fd, file.fileno(), offset + done, count - done)
            done += sent
            if done == count:
                return done
            if why == _NOT_CACHED:
                piece = memoryview(bytearray(min(count - done, _PIECE_BYTES)))
                if not (got := await file.read_into_at(offset + done, piece)):
                    return done
                await outlet.send_all(piece[:got])
                done += got
            elif why and why != errno.EAGAIN and why != errno.EINTR:
                raise op_error(why, "send", fd)
            else:
                await outlet.wait_for_room()
    except BaseException as error:
        if done and (isinstance(error, OpError) or not isinstance(error, Exception)):
            error.__dict__["done"] = done + getattr(error, "done", 0)
        raise
