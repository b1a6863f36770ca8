"""Many reads of one file at once, which end as one."""

import sys
import weakref
from array import array
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Final, TypeAlias, TypeVar, cast

from uringio._driver.many import READS_MAX, ReadMany
from uringio._driver.op import MAX_RW_COUNT, Op
from uringio._own.buffer import Buffer
from uringio._own.loans import Mover

from ._flags import READ_FLAGS, RWFlags
from ._limits import Writable, check_size, size_of
from ._open_file import OpenFile

__all__ = ["ReadsMany", "RegisteredFile"]

T = TypeVar("T")
MovedMany: TypeAlias = tuple[list[int], Buffer]

_NO_FLAGS: Final = RWFlags(0)
_TOP: Final = 7 if sys.byteorder == "little" else 0
_PIECE_BYTES_MAX: Final = MAX_RW_COUNT // READS_MAX
_LEGAL: Final = READ_FLAGS & ~RWFlags.HIPRI


class ReadsMany(OpenFile):
    """The part of a file that reads at many places at once."""

    __slots__ = ()

    def read_many_at(
        self, offsets: Sequence[int], max_bytes: int, *, flags: RWFlags = _NO_FLAGS
    ) -> Op[list[bytes]]:
        """
        Read at many places at once, as `read_at` would at each.

        Args:
            offsets: Where to begin, 1 to 1024 of them. [bytes]
            max_bytes: The most to return of each. [bytes]
            flags: NOWAIT or DONTCACHE.

        Returns:
            What was read, in the order of *offsets*.

        Raises:
            ClosedError: The file was closed, before the call or during it.
            OpError: The kernel refused one; it says which.  What others have read is lost.
            TypeError, ValueError: There are none or too many, or one of the numbers is negative or,
                for a direct file, not aligned; or *flags* are not for reading.

        Cancellation: nothing has changed.

        Source: preadv2(2), io_uring_enter(2).
        """
        places = self._places(offsets, max_bytes)
        buffer = self._limits.make_room(max_bytes * len(places))

        def take(results: object) -> list[bytes]:
            with memoryview(buffer) as view:
                starts = range(0, len(view), max_bytes) if max_bytes else [0] * len(places)
                counts = cast("list[int]", results)
                return [
                    bytes(view[at : at + count]) for at, count in zip(starts, counts, strict=True)
                ]

        return self._hand_out_many(places, max_bytes, buffer, flags, take)

    def read_many_into_at(
        self,
        offsets: Sequence[int],
        buffer: Writable,
        piece_bytes: int,
        *,
        flags: RWFlags = _NO_FLAGS,
    ) -> Op[list[int]]:
        """
        Read at many places at once into writable memory, one piece after another.

        Args:
            offsets: Where to begin, 1 to 1024 of them. [bytes]
            buffer: Memory for at least as many pieces; the first holds what is at the first offset.
            piece_bytes: The most to read at each. [bytes]
            flags: NOWAIT or DONTCACHE.

        Returns:
            How many bytes were read at each; 0 behind the end of the file. [bytes]

        Raises:
            ClosedError: The file was closed, before the call or during it.
            OpError: The kernel refused one; it says which.  *buffer* holds what others have read.
            TypeError: *buffer* cannot be written, or is not contiguous; raised by the await.
            UsageError: *buffer* was made smaller between the call and the await.
            ValueError: As with `read_many_at`, or *buffer* is too small.

        Cancellation: *buffer* may have been written, all or in part.

        Lifetime: *buffer* can be neither resized nor freed until all reads have ended.

        Source: preadv2(2), io_uring_enter(2).
        """
        places = self._places(offsets, piece_bytes)
        _require_room(size_of(buffer), len(places), piece_bytes)
        self._limits.check_memory(buffer)
        return self._hand_out_many(places, piece_bytes, buffer, flags, None)

    def read_many_into(
        self,
        buffer: Buffer,
        offsets: Sequence[int],
        /,
        piece_bytes: int,
        *,
        flags: RWFlags = _NO_FLAGS,
    ) -> Op[MovedMany]:
        """
        Read at many places at once into *buffer*, which moves.

        With a buffer of a pool that is registered (`BufferPool.registered`), this is the cheapest
        way there is to read small pieces.

        Args: as with `read_many_into_at`.

        Returns:
            How many bytes were read at each place, and the handle to go on with.

        Raises:
            UseAfterMoveError, BorrowedError: The buffer is elsewhere, or viewed.
            ClosedError, OpError, TypeError, ValueError: As with `read_many_into_at`; the buffer is
                back under the handle that it came from.

        Cancellation: the buffer is back under the handle that it came from; what is in it is
        undefined.

        Source: preadv2(2), io_uring_enter(2).
        """
        if type(buffer) is not Buffer:
            raise TypeError(
                f"a Buffer can be moved into read_many_into, not {type(buffer).__name__!r}"
            )
        loan = buffer.loan
        loan.require(buffer.key, "be moved into read_many_into")
        places = self._places(offsets, piece_bytes)
        _require_room(loan.size, len(places), piece_bytes)
        self._limits.check_address(loan.addr)
        op = self._hand_out_many(
            places, piece_bytes, None, flags, cast("Callable[[object], MovedMany]", loan.take)
        )
        op.addr = loan.addr
        op.hold = loan.memory
        mover: Mover = op
        loan.lend(buffer.key, weakref.ref(mover), "read_many_into")
        return op

    def registered(self) -> "RegisteredFile":
        """
        Keep the file registered with the running ring during an ``async with`` block.

        So::

            async with pool.registered(), file.registered():
                counts, buf = await file.read_many_into(buf, offsets, 4096)

        Meanwhile `read_many_at` and its kin spare the kernel looking up the descriptor for each
        read.  The block's value says whether it is registered: False on other backends, and where
        the kernel registers no files; there nothing changes.  Closing the file ends it.

        Raises:
            ClosedError: The file is closed.
            UsageError: It is registered already, or the ring has room for no more.

        Source: io_uring_register(2).
        """
        return RegisteredFile(self)

    def _places(self, offsets: Sequence[int], size: int) -> "array[int]":
        """Return *offsets* as an array; raises TypeError, ValueError."""
        try:
            places = array("Q", offsets)
        except OverflowError:
            raise ValueError("an offset is from 0 to 2**63 - 1") from None
        if not 0 < len(places) <= READS_MAX:
            raise ValueError(f"from 1 to {READS_MAX} reads at once, not {len(places)}")
        # The highest byte of each: quicker than a comparison for each.
        if not places.tobytes()[_TOP::8].isascii():
            raise ValueError("an offset is from 0 to 2**63 - 1")
        limits = self._limits
        if limits.direct:
            limits.check_length(size)
            limits.check_places(places)
        if check_size("a number of bytes", size) > _PIECE_BYTES_MAX:
            raise ValueError(f"at most {_PIECE_BYTES_MAX} bytes at each place, not {size}")
        return places

    def _hand_out_many(
        self,
        places: "array[int]",
        size: int,
        buffer: Writable | None,
        flags: RWFlags,
        finish: Callable[[object], T] | None,
    ) -> ReadMany[T]:
        fd = self._fd.number
        limits = self._limits
        if flags:
            limits.check_flags(flags, _LEGAL)
        cached = not limits.direct and not flags
        op = ReadMany(fd, places, size, flags, finish, cached=cached)
        op.memory = buffer
        op.registered = self._registered
        self.hand_out(op)
        return op


class RegisteredFile:
    """See `ReadFile.registered`."""

    __slots__ = ("_file",)

    def __init__(self, file: ReadsMany) -> None:
        self._file = file

    async def __aenter__(self) -> bool:
        return self._file.register()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._file.unregister()


def _require_room(room_bytes: int, count: int, piece_bytes: int) -> None:
    if room_bytes < count * piece_bytes:
        raise ValueError(
            f"{count} pieces of {piece_bytes} bytes do not fit into memory of {room_bytes}"
        )
