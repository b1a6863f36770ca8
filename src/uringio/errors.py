"""
Every exception that uringio raises, on one screen.

Three questions sort them.  Did the kernel refuse?  Then it is an `OpError`, which is always also
the builtin `OSError` subclass that fits the errno, so ``except ConnectionResetError`` works as it
does with the standard library.  Did the program misuse the library?  Then it is a `UsageError`.
Can this machine not do it?  `UnsupportedError` and `RingError` say why and what would help.

`Cancelled` stands apart: a `BaseException`, the native scheduler's word that the task was told to
stop.  Under asyncio, asyncio's own ``CancelledError`` takes its place.
"""

import errno as _errno
import os

__all__ = [
    "BorrowedError",
    "BusyError",
    "Cancelled",
    "ClosedError",
    "DoubleReleaseError",
    "EndOfStreamError",
    "OpError",
    "QueueFullError",
    "RingError",
    "RingForkedError",
    "UnsupportedError",
    "UringioError",
    "UsageError",
    "UseAfterMoveError",
    "WrongThreadError",
    "op_error",
]


class UringioError(Exception):
    """The root of what is ours alone; kernel refusals are `OSError`s instead."""


class UsageError(UringioError, RuntimeError):
    """The program broke a rule of the library; nothing was submitted and nothing is lost."""


class ClosedError(UsageError):
    """The handle is closed, or was closed while the operation was in flight."""


class BusyError(UsageError):
    """Another task already does this on the same handle: one reader and one writer at a time."""


class UseAfterMoveError(UsageError):
    """The buffer was handed to an operation; the old handle no longer owns it."""


class BorrowedError(UsageError):
    """A view of the buffer is alive, so it may not be moved, resized or released."""


class DoubleReleaseError(UsageError):
    """The buffer or descriptor was already given back."""


class RingForkedError(UsageError):
    """The ring belongs to the parent process; a forked child must make its own."""


class QueueFullError(UsageError):
    """A ring has no slot left for another request: submit those that are filled first."""


class WrongThreadError(UsageError):
    """The call came from a thread that does not run this loop."""


class EndOfStreamError(UringioError, EOFError):
    """
    The peer ended the stream before all that was asked for had come.

    Attributes:
        expected: How many bytes were asked for.
        partial: What came.
    """

    def __init__(self, expected: int, partial: bytes) -> None:
        super().__init__(f"the stream ended after {len(partial)} of {expected} bytes")
        self.expected = expected
        self.partial = partial


class UnsupportedError(UringioError):
    """
    This kernel or backend cannot do the operation.

    Attributes:
        op: The operation's name.
        since: The first kernel that has it, or what else would be needed.
    """

    def __init__(self, op: str, since: str) -> None:
        super().__init__(f"{op} is not supported here; it needs {since}")
        self.op = op
        self.since = since


class RingError(UringioError, OSError):
    """
    No ring could be made, or the ring is broken.

    Attributes:
        errno: What the kernel said.
        remedy: What the user can do about it.
    """

    def __init__(self, number: int, what: str, remedy: str) -> None:
        super().__init__(number, f"{what}: {os.strerror(number)}. {remedy}")
        self.remedy = remedy


class OpError(OSError):
    """
    The kernel refused an operation.

    Attributes:
        op: The operation's name, such as ``"recv"``.
        fd: The descriptor it was made on, -1 when there is none.
        done: Bytes transferred before the failure.
    """

    op: str = ""
    fd: int = -1
    done: int = 0


class _BlockingIO(OpError, BlockingIOError): ...


class _BrokenPipe(OpError, BrokenPipeError): ...


class _ChildProcess(OpError, ChildProcessError): ...


class _ConnectionAborted(OpError, ConnectionAbortedError): ...


class _ConnectionRefused(OpError, ConnectionRefusedError): ...


class _ConnectionReset(OpError, ConnectionResetError): ...


class _FileExists(OpError, FileExistsError): ...


class _FileNotFound(OpError, FileNotFoundError): ...


class _Interrupted(OpError, InterruptedError): ...


class _IsADirectory(OpError, IsADirectoryError): ...


class _NotADirectory(OpError, NotADirectoryError): ...


class _Permission(OpError, PermissionError): ...


class _ProcessLookup(OpError, ProcessLookupError): ...


class _Timeout(OpError, TimeoutError): ...


# The same mapping that OSError's own constructor applies; it only does so when called by that name.
_CLASS_OF_ERRNO: dict[int, type[OpError]] = {
    _errno.EAGAIN: _BlockingIO,
    _errno.EALREADY: _BlockingIO,
    _errno.EINPROGRESS: _BlockingIO,
    _errno.EPIPE: _BrokenPipe,
    _errno.ESHUTDOWN: _BrokenPipe,
    _errno.ECHILD: _ChildProcess,
    _errno.ECONNABORTED: _ConnectionAborted,
    _errno.ECONNREFUSED: _ConnectionRefused,
    _errno.ECONNRESET: _ConnectionReset,
    _errno.EEXIST: _FileExists,
    _errno.ENOENT: _FileNotFound,
    _errno.EINTR: _Interrupted,
    _errno.EISDIR: _IsADirectory,
    _errno.ENOTDIR: _NotADirectory,
    _errno.EACCES: _Permission,
    _errno.EPERM: _Permission,
    _errno.ESRCH: _ProcessLookup,
    _errno.ETIMEDOUT: _Timeout,
}


def op_error(number: int, op: str, fd: int = -1, done: int = 0, detail: str = "") -> OpError:
    """
    Build the exception for a refused operation.

    Args:
        number: A positive errno.
        op: The operation's name.
        fd: The descriptor, -1 for none.
        done: Bytes transferred before the failure. [bytes]
        detail: What else helps the reader, such as the address.
    """
    where = f"{op} on fd {fd}" if fd >= 0 else op
    if detail:
        where += f" ({detail})"
    error = _CLASS_OF_ERRNO.get(number, OpError)(number, f"{os.strerror(number)} [{where}]")
    error.op = op
    error.fd = fd
    error.done = done
    return error


class Cancelled(BaseException):
    """
    The native scheduler tells a task to stop at this await; let it pass.

    Attributes:
        done: Bytes that a cancelled send had already handed to the kernel. [bytes]
    """

    done: int = 0
