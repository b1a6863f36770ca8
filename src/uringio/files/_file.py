"""The open file."""

import errno
import os
import weakref
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Final, Self, TypeVar, cast

from uringio._driver import current
from uringio._driver import op as o
from uringio._driver.op import (
    CANCELLING,
    CLOSE,
    DONE,
    NEW,
    READ,
    READ_CACHED,
    READY,
    SPENT,
    STALE,
    SUBMITTED,
    WRITE,
    Op,
    Vectored,
)
from uringio.errors import (
    BusyError,
    ClosedError,
    EndOfStreamError,
    WrongThreadError,
    op_error,
)

from ._flags import READ_FLAGS, WRITE_FLAGS, RWFlags
from ._hull import AT_POSITION, Hull, Taker, refuse_later
from ._iterators import Chunks, Lines
from ._limits import Limits, Readable, Writable, check_size, size_of
from ._moves import Moves

__all__ = ["File"]

T = TypeVar("T")

_TRANSFER_BYTES_MAX: Final = 0x7FFFF000  # what the kernel moves at most in one call
_PIECES_MAX: Final = 1024  # IOV_MAX
_MODE_MAX: Final = 0xFFFF
_DATA_ONLY: Final = 1  # IORING_FSYNC_DATASYNC
_AHEAD_BYTES: Final = 65536
_PENDING: Final = frozenset({NEW, SUBMITTED, CANCELLING, DONE})
_NO_FLAGS: Final = RWFlags(0)


class File(Moves):
    """
    An open file; close it with `aclose`, or use it as an async context manager.

    Iterating over it gives its lines.  Reads and writes that name no offset go on where the last
    one ended, and one task at a time may make them; the others may be made by any number of tasks.

    Args:
        fd: An open descriptor, which the file owns from now on.
        direct: It was opened with O_DIRECT.
        appends: It was opened with O_APPEND.
    """

    __slots__ = (
        "__weakref__",
        "_appends",
        "_driver",
        "_fd",
        "_hull",
        "_ops",
        "_ops_max",
        "_positional",
    )

    def __init__(self, fd: int, *, direct: bool = False, appends: bool = False) -> None:
        driver = current.driver()
        self._appends = appends
        self._driver = driver
        self._hull = Hull(driver, fd)
        self._fd = self._hull.fd
        self._limits = Limits(driver.system.direct_alignment(fd) if direct else None)
        # Handed out and not done: closing must reach them, for their descriptor may be given anew.
        # Weakly, for their memory should go with them; a started op is held by its driver.
        self._ops: list[weakref.ref[Op[object]]] = []
        self._ops_max = 16  # from here on, the list is looked through for what is done
        self._positional: weakref.ref[Op[object]] | None = None

    def __repr__(self) -> str:
        return f"<File {self._fd!r}>"

    def fileno(self) -> int:
        """The descriptor, which stays the file's; raises `ClosedError`."""
        return self._fd.number

    # --- at an offset ----------------------------------------------------------------------------

    def read_at(self, offset: int, max_bytes: int, *, flags: RWFlags = _NO_FLAGS) -> Op[bytes]:
        """
        Read from *offset* on.

        What the page cache holds is read at once; only the rest is waited for.

        Args:
            offset: Where to begin. [bytes]
            max_bytes: The most to return. [bytes]
            flags: HIPRI, NOWAIT or DONTCACHE.

        Returns:
            At most *max_bytes* bytes, fewer near the end of the file, ``b""`` behind it.

        Raises:
            ClosedError: The file was closed, before the call or during it.
            OpError: The kernel refused.
            ValueError: *offset* or *max_bytes* is negative or, for a direct file, not aligned; or
                *flags* are not for reading.

        Cancellation: nothing has changed.

        Source: preadv2(2).
        """
        buffer = self._limits.make_room(max_bytes)
        return self._hand_out_read(self._limits.place(offset), buffer, flags, Taker(buffer))

    def read_into_at(self, offset: int, buffer: Writable, *, flags: RWFlags = _NO_FLAGS) -> Op[int]:
        """
        Read from *offset* on into writable memory.

        Returns:
            How many bytes were read; 0 behind the end of the file. [bytes]

        Raises:
            ClosedError: The file was closed, before the call or during it.
            OpError: The kernel refused.
            TypeError: *buffer* cannot be written, or is not contiguous; raised by the await.
            ValueError: As with `read_at`.

        Cancellation: *buffer* may have been written, all or in part.

        Lifetime: *buffer* can be neither resized nor freed until the read has ended.

        Source: preadv2(2).
        """
        offset = self._limits.place(offset)
        self._limits.check_memory(buffer)
        return self._hand_out_read(offset, buffer, flags, None)

    def readv_at(
        self, offset: int, buffers: Sequence[Writable], *, flags: RWFlags = _NO_FLAGS
    ) -> Op[int]:
        """
        Read from *offset* on into several pieces of memory, one after another.

        Args:
            buffers: At most 1024.

        Returns, Raises, Cancellation, Lifetime: as with `read_into_at`.
        """
        return self._hand_out_pieces(o.READV, offset, buffers, flags, READ_FLAGS)

    def write_at(self, offset: int, data: Readable, *, flags: RWFlags = _NO_FLAGS) -> Op[int]:
        """
        Write at *offset*; a file that was opened to append is written at its end instead.

        Returns:
            How many bytes were written, which is fewer than all only where room or a limit ended.
            [bytes]

        Raises:
            ClosedError: The file was closed, before the call or during it.
            OpError: The kernel refused.
            ValueError: *offset* is negative, or something is not aligned for a direct file, or
                HIPRI is asked of a file that is not direct.

        Cancellation: what was written all the same is noted on the exception, as ``done``.

        Lifetime: *data*, if it can be resized or written, stays as it is until the write has ended.

        Source: pwritev2(2).
        """
        return self._hand_out_write(self._limits.place(offset), data, flags)

    def writev_at(
        self, offset: int, pieces: Sequence[Readable], *, flags: RWFlags = _NO_FLAGS
    ) -> Op[int]:
        """
        Write several pieces of memory at *offset*, one after another.

        Args:
            pieces: At most 1024.

        Returns, Raises, Cancellation, Lifetime: as with `write_at`.
        """
        return self._hand_out_pieces(o.WRITEV, offset, pieces, flags, WRITE_FLAGS)

    # --- at the file's position ------------------------------------------------------------------

    def read(self, max_bytes: int) -> Op[bytes]:
        """
        Read from the file's position on, and move it.

        Returns:
            At most *max_bytes* bytes; ``b""`` at the end of the file, and only there.

        Raises:
            BusyError: Another task reads or writes at the position.
            ClosedError, OpError, ValueError: As with `read_at`.

        Cancellation: nothing is lost; the next read gets what this one would have got.

        Source: read(2).
        """
        self._require_position()
        buffer = self._limits.make_room(max_bytes)
        hull = self._hull
        if hull.ahead and max_bytes:

            def take(_: object) -> bytes:
                data = bytes(hull.ahead[:max_bytes])
                del hull.ahead[:max_bytes]
                return data

            self._fd.number  # noqa: B018 - raises when it is closed
            return self._claim(self.hand_out(Op(READY, finish=take)))
        return self._claim(self._hand_out_positional_read(buffer))

    def write(self, data: Readable, *, flags: RWFlags = _NO_FLAGS) -> Op[int]:
        """
        Write at the file's position, and move it.

        Returns:
            How many bytes were written; see `write_all`. [bytes]

        Raises:
            BusyError: Another task reads or writes at the position.
            ClosedError, OpError, ValueError: As with `write_at`.

        Cancellation: what was written all the same is noted on the exception, as ``done``.

        Source: write(2).
        """
        self._require_position()
        self._step_back()
        if not self._limits.direct:
            return self._claim(self._hand_out_write(AT_POSITION, data, flags))
        at = self._limits.place(self.tell())
        appends = self._appends or bool(flags & RWFlags.APPEND)
        hull = self._hull

        def move(count: object) -> int:
            if appends:
                hull.move(0, os.SEEK_END)
            else:
                hull.move(at + cast("int", count), os.SEEK_SET)
            return cast("int", count)

        op: Op[int] = self._hand_out_write(at, data, flags)
        op.finish = move
        return self._claim(op)

    async def read_all(self) -> bytes:
        """
        Read from the file's position to its end.

        Raises: as with `read`.

        Cancellation: what was read until then is lost, as is the position.
        """
        parts: list[bytes] = []
        hint = (await self.stat()).st_size - (self.tell() if self._seekable() else 0)
        size = min(max(hint, 0) + 1, 1 << 30)  # one more: to find the end in the same read
        while data := await self.read(self._limits.rounded(size)):
            parts.append(data)
            size = _AHEAD_BYTES
        return parts[0] if len(parts) == 1 else b"".join(parts)

    async def read_exactly(self, size: int) -> bytes:
        """
        Read *size* bytes from the file's position on.

        Raises:
            EndOfStreamError: The file ended before; its ``partial`` is what there was.
            BusyError, ClosedError, OpError, ValueError: As with `read`.

        Cancellation: what was read until then is lost, as is the position.
        """
        data = await self.read(size)
        if len(data) == size:
            return data
        parts = bytearray(data)
        while data and len(parts) < size:
            data = await self.read(size - len(parts))
            parts += data
        if len(parts) < size:
            raise EndOfStreamError(size, bytes(parts))
        return bytes(parts)

    async def write_all(self, data: Readable, *, flags: RWFlags = _NO_FLAGS) -> None:
        """
        Write all of *data* at the file's position.

        Raises: as with `write`; EIO from a device that takes nothing, ``done`` is how much before.

        Cancellation: a part may have been written.
        """
        written = await self.write(data, flags=flags)
        with memoryview(data) as given, given.cast("B") as view:
            while written < len(view):
                count = await self.write(view[written:], flags=flags)
                if not count:  # a device that takes nothing: asking for ever would not help
                    raise op_error(errno.EIO, "write", self.fileno(), written)
                written += count

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """
        Move the file's position, and return it; at once.

        Args:
            whence: ``os.SEEK_SET``, ``SEEK_CUR``, ``SEEK_END``, or ``SEEK_DATA`` and ``SEEK_HOLE``,
                which find where a sparse file holds something or nothing.

        Raises:
            BusyError: A task reads or writes at the position.
            ClosedError: The file is closed.
            OpError: The kernel refused, such as for a FIFO, or behind the last data.
            ValueError: *offset* has 64 bits or more.
        """
        check_size("an offset", abs(offset))
        self._require_position()
        self._step_back()
        return self._hull.move(offset, whence)

    def tell(self) -> int:
        """Return the file's position; raises as `seek` does."""
        self._require_position()
        return self._hull.move(0, os.SEEK_CUR) - len(self._hull.ahead)

    def __aiter__(self) -> Lines:
        return self.lines()

    def lines(self) -> Lines:
        r"""
        Iterate over the lines from the file's position on, each with its end, ``b"\n"``.

        Raises: as with `read`.

        Cancellation: nothing is lost.
        """
        return Lines(self)

    def chunks(self, max_bytes: int = _AHEAD_BYTES) -> Chunks:
        """
        Iterate over the bytes from the file's position on, at most *max_bytes* at a time.

        Raises: as with `read`.

        Cancellation: nothing is lost.
        """
        return Chunks(self, max_bytes)

    # --- the file itself -------------------------------------------------------------------------

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

    def fsync(self) -> Op[None]:
        """
        Wait until the device has everything that was written, and what describes the file.

        Raises: `ClosedError`, `OpError`.

        Source: fsync(2).
        """
        return self.hand_out(Op(o.FSYNC, self._fd.number))

    def fdatasync(self) -> Op[None]:
        """
        Wait until the device has everything that is needed to read back what was written.

        Raises: `ClosedError`, `OpError`.

        Source: fdatasync(2).
        """
        return self.hand_out(Op(o.FSYNC, self._fd.number, flags=_DATA_ONLY))

    def fallocate(self, offset: int, length: int, mode: int = 0) -> Op[None]:
        """
        Reserve or give back room for *length* bytes from *offset* on.

        Args:
            mode: ``FALLOC_FL_*`` of the kernel; 0 reserves, and lengthens the file if need be.

        Raises:
            ClosedError: The file was closed, before the call or during it.
            OpError: The kernel refused, such as with ENOSPC, or EOPNOTSUPP by the filesystem.
            ValueError: A number is negative.

        Source: fallocate(2).
        """
        check_size("a length", length)
        if not 0 <= mode <= _MODE_MAX:
            raise ValueError(f"a mode is made of FALLOC_FL_*, not {mode}")
        return self.hand_out(
            Op(o.FALLOCATE, self._fd.number, addr=length, len_=mode, off=self._limits.place(offset))
        )

    def truncate(self, size: int) -> Op[None]:
        """
        Make the file *size* bytes long, cutting it or adding zeros; its position stays.

        Raises: `ClosedError`, `OpError`, `ValueError` for a negative size.

        Source: ftruncate(2).
        """
        check_size("a size", size)
        return self.hand_out(Op(o.FTRUNCATE, self._fd.number, off=size))

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
        for ref in self._ops:
            op = ref()
            if op is None:
                continue
            # One exception each: raised in two tasks, a shared one would mix their tracebacks.
            reason = ClosedError("this file was closed by another task meanwhile")
            if op.state == NEW:
                refuse_later(op, reason)
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

    # --- making ops ------------------------------------------------------------------------------

    def hand_out(self, op: Op[T]) -> Op[T]:
        """Tie *op*, new and on this file's descriptor, to the file's life."""
        op.home = self._driver
        op.owner = self._hull
        ops = self._ops
        if len(ops) >= self._ops_max:
            ops[:] = [ref for ref in ops if (one := ref()) is not None and one.state in _PENDING]
            self._ops_max = max(16, 2 * len(ops))
        ops.append(weakref.ref(op))
        return op

    def _hand_out_read(
        self,
        offset: int,
        buffer: Writable,
        flags: RWFlags,
        finish: Callable[[object], T] | None,
    ) -> Op[T]:
        size = min(size_of(buffer), _TRANSFER_BYTES_MAX)
        fd = self._fd.number
        if flags or self._limits.direct or size == _TRANSFER_BYTES_MAX:
            self._limits.check_flags(flags, READ_FLAGS)
            if flags & RWFlags.HIPRI:
                return self.hand_out(Vectored(o.READV, fd, [buffer], offset, flags, finish))
            return self.hand_out(Op(READ, fd, 0, size, offset, flags, buffer, None, finish))
        return self.hand_out(Op(READ_CACHED, fd, 0, size, offset, 0, buffer, None, finish))

    def _hand_out_write(
        self,
        offset: int,
        data: Readable,
        flags: RWFlags,
        finish: Callable[[object], T] | None = None,
    ) -> Op[T]:
        fd = self._fd.number
        self._limits.check_memory(data)
        if flags:
            self._limits.check_flags(flags, WRITE_FLAGS)
            if flags & RWFlags.HIPRI:
                return self.hand_out(Vectored(o.WRITEV, fd, [data], offset, flags, finish))
        size = min(size_of(data), _TRANSFER_BYTES_MAX)
        return self.hand_out(Op(WRITE, fd, 0, size, offset, flags, data, None, finish))

    def _hand_out_pieces(
        self, code: int, offset: int, pieces: Sequence[Readable], flags: RWFlags, legal: RWFlags
    ) -> Op[int]:
        offset = self._limits.place(offset)
        if len(pieces) > _PIECES_MAX:
            raise ValueError(f"at most {_PIECES_MAX} pieces of memory at once, not {len(pieces)}")
        self._limits.check_flags(flags, legal)
        for piece in pieces:
            self._limits.check_memory(piece)
        return self.hand_out(Vectored(code, self._fd.number, list(pieces), offset, flags))

    # --- the position ----------------------------------------------------------------------------

    def _hand_out_positional_read(self, buffer: Writable) -> Op[bytes]:
        taker = Taker(buffer)
        if not self._limits.direct:
            return self._hand_out_read(AT_POSITION, buffer, _NO_FLAGS, taker)
        # io_uring forgets to move the position behind a direct transfer that it had to wait for, so
        # these are made at offsets, and the position moved by us.
        hull = self._hull
        at = hull.move(0, os.SEEK_CUR)
        if at < self._driver.system.fstat(self._fd.number).st_size:
            self._limits.place(at)  # at the end, a read has nothing to align

        def take(count: object) -> bytes:
            hull.move(at + cast("int", count), os.SEEK_SET)
            return taker(count)

        return self._hand_out_read(at, buffer, _NO_FLAGS, take)

    def _claim(self, op: Op[T]) -> Op[T]:
        self._positional = weakref.ref(op)
        return op

    def _require_position(self) -> None:
        last = self._positional() if self._positional is not None else None
        if last is None or last.state == SPENT or last.state == STALE:
            return
        if last.state == NEW:
            last.state = STALE  # a call that was made and dropped must not run out of its turn
            return
        raise BusyError(
            "another task reads or writes at this file's position; use read_at, write_at"
        )

    def _step_back(self) -> None:
        """Put the descriptor's position where the file's is."""
        ahead = self._hull.ahead
        if ahead:
            self._hull.move(-len(ahead), os.SEEK_CUR)
            ahead.clear()

    def _seekable(self) -> bool:
        try:
            self.tell()
        except OSError:
            return False
        return True

    async def read_line(self) -> bytes:
        """
        Read one line from the file's position on, with its end; ``b""`` at the end of the file.

        Raises: as with `read`.

        Cancellation: nothing is lost.
        """
        ahead = self._hull.ahead
        searched = 0
        while (end := ahead.find(b"\n", searched)) < 0:
            searched = len(ahead)
            self._require_position()
            buffer = self._limits.make_room(_AHEAD_BYTES)
            more = await self._claim(self._hand_out_positional_read(buffer))
            if not more:
                end = searched - 1
                break
            ahead += more
        line = bytes(ahead[: end + 1])
        del ahead[: end + 1]
        return line
