"""Writing to a file."""

import errno
import os
from collections.abc import Callable, Sequence
from operator import index
from typing import Final, TypeVar, cast

from uringio._driver import op as o
from uringio._driver.op import (
    MAX_RW_COUNT,
    WRITE,
    Op,
)
from uringio._driver.vectored import Vectored
from uringio.errors import op_error

from ._flags import WRITE_FLAGS, RWFlags
from ._hull import AT_POSITION
from ._limits import Readable, check_size, size_of
from ._moves import WriteMoves
from ._open_file import OpenFile

__all__ = ["WriteFile"]

T = TypeVar("T")

_MODE_MAX: Final = 0xFFFF
_NO_FLAGS: Final = RWFlags(0)


class WriteFile(OpenFile, WriteMoves):
    """The part of an open file that writes; what a file opened with ``"wb"`` has."""

    __slots__ = ()

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
            UsageError: *data* was made smaller between the call and the await.

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
        length = check_size("a length", length)
        if not 0 <= (mode := index(mode)) <= _MODE_MAX:
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
        size = check_size("a size", size)
        return self.hand_out(Op(o.FTRUNCATE, self._fd.number, off=size))

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
        size = min(size_of(data), MAX_RW_COUNT)
        return self.hand_out(Op(WRITE, fd, 0, size, offset, flags, data, None, finish))
