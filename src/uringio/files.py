"""
Files, read at offsets, over whichever driver runs.

Every call that is one operation returns it: `open_file` and the methods of `File` give an `Op`, to
be awaited once.  Reads name their offset, so any number of tasks may read one file at once.

Regular files are what this room is for.  Descriptors of other kinds (a folder to open things in, an
``O_PATH`` handle) can be opened and closed through it, and looked at with `File.stat`.
"""

import os
from types import TracebackType
from typing import Final, NoReturn, Self, TypeVar, cast

from uringio._driver import current
from uringio._driver.contract import Driver
from uringio._driver.op import CANCELLING, CLOSE, DONE, NEW, OPEN, READ, READY, SUBMITTED, Op
from uringio._own.fd import OwnedFd
from uringio.errors import ClosedError, WrongThreadError

__all__ = ["File", "open_file"]

T = TypeVar("T")

_AT_FDCWD: Final = -100  # openat(2): relative paths start at the working directory


class _Hull:
    """
    What a file's operations keep alive: its descriptor.

    Apart from the file, which refers to its ops, so that a file that is dropped goes at once rather
    than when the garbage collector finds the circle.
    """

    __slots__ = ("_driver", "fd")

    def __init__(self, driver: Driver, fd: int) -> None:
        self._driver = driver
        self.fd = OwnedFd(fd, driver.system.close, "file")

    def orphan(self, op: Op[T], value: object, /) -> None:
        """Close what a cancelled open had opened all the same; see `Owner`."""
        if op.code == OPEN and isinstance(value, int):
            self._driver.system.close(value)


class File:
    """
    An open file; close it with `aclose`, or use it as an async context manager.

    Args:
        fd: An open descriptor, which the file owns from now on.
    """

    __slots__ = ("__weakref__", "_driver", "_fd", "_hull", "_ops")

    def __init__(self, fd: int) -> None:
        driver = current.driver()
        self._driver = driver
        self._hull = _Hull(driver, fd)
        self._fd = self._hull.fd
        # Handed out and not done: closing must reach them, for their descriptor may be given anew.
        self._ops: list[Op[object]] = []

    def __repr__(self) -> str:
        return f"<File {self._fd!r}>"

    def fileno(self) -> int:
        """The descriptor, which stays the file's; raises `ClosedError`."""
        return self._fd.number

    def stat(self) -> Op[os.stat_result]:
        """
        Look at the file's kind, size and times.

        Raises:
            ClosedError: The file is closed.
            OpError: The kernel refused.

        Source: fstat(2), which does not wait for a local file.
        """
        op: Op[os.stat_result] = Op(READY)
        op.value = self._driver.system.fstat(self._fd.number)
        return op

    def read_at(self, offset: int, max_bytes: int) -> Op[bytes]:
        """
        Read from *offset* on.

        Args:
            offset: Where to begin. [bytes]
            max_bytes: The most to return. [bytes]

        Returns:
            At most *max_bytes* bytes, fewer near the end of the file, ``b""`` behind it.

        Raises:
            ClosedError: The file was closed, before the call or during it.
            OpError: The kernel refused.

        Cancellation: nothing has changed.

        Source: pread(2).
        """
        fd = self._readable(offset)
        buffer = bytearray(max_bytes)

        def finish(count: object) -> bytes:
            with memoryview(buffer) as view:
                return bytes(view[: cast("int", count)])

        return self.hand_out(Op(READ, fd, len_=max_bytes, off=offset, memory=buffer, finish=finish))

    def read_into_at(self, offset: int, buffer: bytearray | memoryview) -> Op[int]:
        """
        Read from *offset* on into writable memory.

        Returns:
            How many bytes were read; 0 behind the end of the file. [bytes]

        Raises:
            ClosedError: The file was closed, before the call or during it.
            OpError: The kernel refused.
            TypeError: *buffer* cannot be written, or is not contiguous; raised by the await.

        Cancellation: *buffer* may have been written, all or in part.

        Lifetime: *buffer* can be neither resized nor freed until the read has ended.

        Source: pread(2).
        """
        fd = self._readable(offset)
        len_bytes = memoryview(buffer).nbytes
        op: Op[int] = Op(READ, fd, len_=len_bytes, off=offset, memory=buffer)
        return self.hand_out(op)

    def aclose(self) -> Op[None]:
        """
        Close the file; safe to call twice.

        Tasks that are reading get `ClosedError`.

        Raises:
            WrongThreadError: The file belongs to another loop or thread.

        Cancellation: the file is closed all the same.
        """
        driver = self._driver
        if self._fd.closed:
            return Op(READY)
        if current.driver() is not driver:
            raise WrongThreadError("a file is closed in the loop that it belongs to")
        fd = self._fd.take()
        for op in self._ops:
            # One exception each: raised in two tasks, a shared one would mix their tracebacks.
            reason = ClosedError("this file was closed by another task meanwhile")
            if op.state == NEW:
                _refuse_later(op, reason)
            else:
                driver.cancel(op, reason)
        self._ops.clear()
        closing: Op[None] = Op(CLOSE, fd)
        closing.home = driver
        return closing

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    def _readable(self, offset: int) -> int:
        """Check what can be checked before there is an op, and return the descriptor."""
        if offset < 0:
            raise ValueError(f"an offset is from 0 up, not {offset}")
        return self._fd.number

    def hand_out(self, op: Op[T]) -> Op[T]:
        """Tie *op*, new and on this file's descriptor, to the file's life."""
        op.home = self._driver
        op.owner = self._hull
        self._ops = [one for one in self._ops if one.state in _PENDING]
        self._ops.append(op)
        return op


_PENDING: Final = frozenset({NEW, SUBMITTED, CANCELLING, DONE})


def _refuse_later(op: Op[object], reason: ClosedError) -> None:
    """Make an op that was handed out and not started raise *reason* once it is."""

    def refuse(_: object) -> NoReturn:
        raise reason

    op.code = READY
    op.fd = -1
    op.memory = None
    op.finish = refuse


def open_file(
    path: str | bytes | os.PathLike[str] | os.PathLike[bytes],
    *,
    folder: File | None = None,
    flags: int = os.O_RDONLY,
) -> Op[File]:
    """
    Open a file for reading.

    Args:
        path: Where; relative to *folder*, else to the working directory.
        folder: An open folder.
        flags: ``os.O_*``; the descriptor is closed on exec whatever they say.

    Raises:
        OpError: The kernel refused, such as `FileNotFoundError`, `PermissionError`.
        ValueError: The path holds a NUL.
        ClosedError: *folder* was closed, before the call or during it.

    Cancellation: a descriptor that was opened all the same is closed.

    Source: openat(2).
    """
    raw = os.fsencode(path)
    if b"\0" in raw:
        raise ValueError("a path holds no NUL")
    fd = _AT_FDCWD if folder is None else folder.fileno()
    driver = current.driver()
    op = Op(OPEN, fd, flags=flags | os.O_CLOEXEC, memory=raw + b"\0", finish=_opened)
    op.home = driver
    return op if folder is None else folder.hand_out(op)


def _opened(fd: object) -> File:
    return File(cast("int", fd))
