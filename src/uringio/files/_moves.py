"""Owned buffers to and from a file."""

import weakref
from abc import abstractmethod
from collections.abc import Callable
from typing import TypeAlias, TypeVar

from uringio._driver.op import Op
from uringio._own.buffer import Buffer
from uringio._own.loans import Mover

from ._flags import RWFlags
from ._limits import Limits, Readable, Writable

__all__ = ["ReadMoves", "WriteMoves"]

T = TypeVar("T")
Moved: TypeAlias = tuple[int, Buffer]

_NO_FLAGS = RWFlags(0)


class ReadMoves:
    """The part of a file that reads into buffers."""

    __slots__ = ()

    _limits: Limits

    def read_into(
        self,
        buffer: Buffer,
        offset: int,
        /,
        start: int = 0,
        stop: int | None = None,
        *,
        flags: RWFlags = _NO_FLAGS,
    ) -> Op[Moved]:
        """
        Read from *offset* on into bytes *start* to *stop* of *buffer*, which moves.

        Args:
            buffer: Aligned by itself as direct files need it, with the alignment it has by default.
            offset: Where in the file. [bytes]
            start: Where in *buffer*, counted as a slice counts.
            stop: Where to end at the latest.
            flags: As with `read_at`.

        Returns:
            How many bytes were read, 0 behind the end of the file, and the handle to go on with.

        Raises:
            UseAfterMoveError, BorrowedError: The buffer is elsewhere, or viewed.
            ClosedError, OpError, ValueError: As with `read_at`; the buffer is back under the handle
                that it came from.

        Cancellation: the buffer is back under the handle that it came from; what is in it is
        undefined.

        Source: preadv2(2).
        """
        part = _part_of(self._limits, buffer, start, stop, "be moved into read_into")
        finish = buffer.loan.take
        op = self._hand_out_read(self._limits.place(offset), part, flags, finish)
        return _moved(buffer, op, "read_into")

    @abstractmethod
    def _hand_out_read(
        self,
        offset: int,
        buffer: Writable,
        flags: RWFlags,
        finish: Callable[[object], T] | None,
    ) -> Op[T]:
        """Make a read."""


class WriteMoves:
    """The part of a file that writes from buffers."""

    __slots__ = ()

    _limits: Limits

    def write_from(
        self,
        buffer: Buffer,
        offset: int,
        /,
        start: int = 0,
        stop: int | None = None,
        *,
        flags: RWFlags = _NO_FLAGS,
    ) -> Op[Moved]:
        """
        Write bytes *start* to *stop* of *buffer*, which moves, at *offset*.

        Args: as with `read_into`, and *flags* as with `write_at`.

        Returns:
            How many bytes were written, and the handle to go on with.

        Raises:
            UseAfterMoveError, BorrowedError: The buffer is elsewhere, or viewed.
            ClosedError, OpError, ValueError: As with `write_at`; the buffer is back under the
                handle that it came from.

        Cancellation: As with `write_at`; the buffer is back under the handle that it came from.

        Source: pwritev2(2).
        """
        part = _part_of(self._limits, buffer, start, stop, "be moved into write_from")
        op: Op[Moved] = self._hand_out_write(
            self._limits.place(offset), part, flags, buffer.loan.take
        )
        return _moved(buffer, op, "write_from")

    @abstractmethod
    def _hand_out_write(
        self,
        offset: int,
        data: Readable,
        flags: RWFlags,
        finish: Callable[[object], T] | None = None,
    ) -> Op[T]:
        """Make a write."""


def _part_of(limits: Limits, buffer: Buffer, start: int, stop: int | None, what: str) -> memoryview:
    if type(buffer) is not Buffer:
        raise TypeError(f"a Buffer can {what}, not {type(buffer).__name__!r}")
    loan = buffer.loan
    loan.require(buffer.key, what)
    start, stop, _ = slice(start, stop).indices(loan.size)
    begin = loan.addr - loan.memory.addr
    part = loan.memory.view[begin + start : begin + max(start, stop)]
    limits.check_memory(part)
    return part


def _moved(buffer: Buffer, op: Op[Moved], went: str) -> Op[Moved]:
    mover: Mover = op
    buffer.loan.lend(buffer.key, weakref.ref(mover), went)
    return op
