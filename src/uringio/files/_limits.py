"""What a transfer may be asked for, checked before there is an operation."""

from collections.abc import Sequence
from operator import index
from typing import Final, TypeAlias

from uringio._own.aligned import address_of, aligned_buffer

from ._flags import RWFlags

__all__ = ["Limits", "Readable", "Writable", "check_size", "size_of"]

_OFFSET_MAX: Final = (1 << 63) - 1

Readable: TypeAlias = bytes | bytearray | memoryview
Writable: TypeAlias = bytearray | memoryview


class Limits:
    """
    The checks of one file.

    Args:
        alignment: Of memory, then of offsets and sizes, with O_DIRECT; None without it. [bytes]

    Attributes:
        direct: Whether the file bypasses the page cache.
    """

    __slots__ = ("_memory_step", "_step", "direct")

    def __init__(self, alignment: tuple[int, int] | None) -> None:
        self.direct = alignment is not None
        self._memory_step, self._step = alignment if alignment is not None else (1, 1)

    def place(self, offset: int) -> int:
        """Return *offset* if a transfer may begin there; raises TypeError, ValueError."""
        offset = check_size("an offset", offset)
        if self.direct and offset % self._step:
            raise _misaligned("the offset", offset, self._step)
        return offset

    def check_places(self, offsets: Sequence[int]) -> None:
        """Raise ValueError if a transfer may not begin at each of *offsets*."""
        step = self._step
        if any(map(step.__rmod__, offsets)):
            raise _misaligned("the offset", next(one for one in offsets if one % step), step)

    def make_room(self, max_bytes: int) -> Writable:
        """Return memory for a read of *max_bytes*; raises ValueError."""
        if max_bytes < 0:
            raise ValueError(f"a number of bytes is from 0 up, not {max_bytes}")
        if not self.direct or not max_bytes:
            return bytearray(max_bytes)
        if max_bytes % self._step:
            raise _misaligned("the number of bytes", max_bytes, self._step)
        return aligned_buffer(max_bytes)

    def check_memory(self, data: Readable) -> None:
        """Raise ValueError for memory that the device cannot reach as it lies."""
        if not self.direct:
            return
        size = size_of(data)
        self.check_length(size)
        self.check_address(address_of(data) if size else 0)

    def check_length(self, size: int) -> None:
        """Raise ValueError for a number of bytes that a transfer may not have."""
        if size % self._step:
            raise _misaligned("the number of bytes", size, self._step)

    def check_address(self, address: int) -> None:
        """Raise ValueError for an address that the device cannot reach."""
        if address % self._memory_step:
            raise _misaligned("the memory's address", address, self._memory_step)

    def check_flags(self, flags: RWFlags, legal: RWFlags) -> None:
        """Raise ValueError for flags that this kind of transfer, or this file, has not."""
        # As numbers: the complement of an IntFlag leaves out bits that have no name.
        foreign = int(flags) & ~int(legal)
        if foreign:
            raise ValueError(f"{RWFlags(foreign)!r} is not for this kind of transfer")
        if flags & RWFlags.HIPRI and not self.direct:
            raise ValueError("HIPRI is for files opened with direct=True")

    def rounded(self, size: int) -> int:
        """Return *size*, made larger until a transfer may have it."""
        return -(-size // self._step) * self._step


def check_size(what: str, value: int) -> int:
    """
    Return *value* if it is one that files may have.

    Raises:
        TypeError: It is no whole number.
        ValueError: It is negative, or has more than 63 bits, which would wrap around in an SQE.
    """
    value = index(value)
    if not 0 <= value <= _OFFSET_MAX:
        raise ValueError(f"{what} is from 0 to 2**63 - 1, not {value}")
    return value


def size_of(data: Readable) -> int:
    """Return how many bytes *data* has, whatever its items are."""
    if isinstance(data, bytes | bytearray):
        return len(data)
    try:
        return memoryview(data).nbytes
    except TypeError:
        raise TypeError(f"a bytes-like object is required, not {type(data).__name__!r}") from None


def _misaligned(what: str, value: int, step: int) -> ValueError:
    return ValueError(
        f"{what} of a transfer with direct=True must be a multiple of {step}, not {value}; "
        "aligned_buffer() makes memory that fits"
    )
