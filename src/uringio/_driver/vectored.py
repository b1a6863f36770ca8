"""The op that transfers between a file and several pieces of memory."""

from collections.abc import Callable, Sequence
from typing import TypeVar

from uringio._sys.layouts import IOVEC
from uringio._sys.memory import ReadableBuffer, pin

from .op import READV, Op

__all__ = ["Vectored"]

T_co = TypeVar("T_co", covariant=True)


class Vectored(Op[T_co]):
    """
    READV or WRITEV: one transfer between a file and several pieces of memory.

    The driver makes the array of their addresses, and holds it and them to the end.

    Args:
        pieces: At most 1024, in the order of the file.
    """

    __slots__ = ("pieces",)

    def __init__(
        self,
        code: int,
        fd: int,
        pieces: Sequence[ReadableBuffer],
        off: int,
        flags: int = 0,
        finish: Callable[[object], T_co] | None = None,
    ) -> None:
        super().__init__(code, fd, len_=len(pieces), off=off, flags=flags, finish=finish)
        self.pieces = pieces

    def pin_pieces(self) -> None:
        """
        Make the array of addresses, as `memory` at `addr`; `hold` keeps all of it in place.

        Raises:
            TypeError: A piece cannot be written, and would have to be.
        """
        pinned = [pin(piece, writable=self.code == READV) for piece in self.pieces]
        array = b"".join([IOVEC.pack(addr, len_bytes) for addr, len_bytes, _ in pinned])
        self.addr, _, kept = pin(array)
        self.memory = array
        self.hold = (kept, *[keep for _, _, keep in pinned])
