"""Reading from a file."""

import os
from collections.abc import Callable, Sequence
from typing import Final, TypeVar, cast

from uringio._driver import op as o
from uringio._driver.op import (
    MAX_RW_COUNT,
    READ,
    READ_CACHED,
    READY,
    Op,
)
from uringio._driver.vectored import Vectored
from uringio.errors import EndOfStreamError

from ._flags import READ_FLAGS, RWFlags
from ._hull import AT_POSITION, Taker
from ._iterators import Chunks, Lines
from ._limits import Writable, size_of
from ._many import ReadsMany
from ._moves import ReadMoves

__all__ = ["ReadFile"]

T = TypeVar("T")

_AHEAD_BYTES: Final = 65536
_NO_FLAGS: Final = RWFlags(0)


class ReadFile(ReadsMany, ReadMoves):
    """The part of an open file that reads; what a file opened with ``"rb"`` has."""

    __slots__ = ()

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
            UsageError: *buffer* was made smaller between the call and the await.
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

    def _hand_out_read(
        self,
        offset: int,
        buffer: Writable,
        flags: RWFlags,
        finish: Callable[[object], T] | None,
    ) -> Op[T]:
        size = min(size_of(buffer), MAX_RW_COUNT)
        fd = self._fd.number
        if flags or self._limits.direct or size == MAX_RW_COUNT:
            self._limits.check_flags(flags, READ_FLAGS)
            if flags & RWFlags.HIPRI:
                return self.hand_out(Vectored(o.READV, fd, [buffer], offset, flags, finish))
            return self.hand_out(Op(READ, fd, 0, size, offset, flags, buffer, None, finish))
        return self.hand_out(Op(READ_CACHED, fd, 0, size, offset, 0, buffer, None, finish))

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

    def _seekable(self) -> bool:
        try:
            self.tell()
        except OSError:
            return False
        return True
