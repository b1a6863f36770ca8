"""Fields of requests that are not simply what the caller said."""

import sys
from collections.abc import Iterable
from struct import Struct, pack, unpack
from typing import Final

from uringio._sys import constants as k
from uringio._sys.packing import packed

__all__ = [
    "addr_len",
    "command_number",
    "level_and_option",
    "poll_mask",
    "processor_mask",
    "selecting",
    "slot_of",
]

_TWO_INTS: Final = Struct("=ii")
_PROCESSORS_MAX: Final = 1 << 16  # of which no kernel can be built for as many


def slot_of(file_index: int) -> int:
    """
    Encode a slot of the registered files: 0 means a plain descriptor, so slots count from 1.

    Raises:
        ValueError: There is no such slot.
    """
    if file_index == k.IORING_FILE_INDEX_ALLOC:
        return file_index
    if not 0 <= file_index < k.IORING_FILE_INDEX_ALLOC - 1:
        raise ValueError(f"there is no slot {file_index}")
    return file_index + 1


def selecting(flags: int, buf_group: int | None) -> tuple[int, int]:
    """Add what a request needs that takes a provided buffer: (flags, group)."""
    return (flags, 0) if buf_group is None else (flags | k.IOSQE_BUFFER_SELECT, buf_group)


def addr_len(len_bytes: int) -> int:
    """Place the length of a destination's address, 16 bits at the word's first byte."""
    if not 0 <= len_bytes < 1 << 16:
        raise ValueError(f"an address cannot have {len_bytes} bytes")
    return len_bytes if sys.byteorder == "little" else len_bytes << 16


def command_number(command_op: int) -> int:
    """Place a command's number, 32 bits where other requests' offset begins."""
    return command_op if sys.byteorder == "little" else command_op << 32


def processor_mask(processors: Iterable[int]) -> bytes:
    """
    Write a set of processors as the kernel has it: an array of longs, the lowest first.

    Raises:
        ValueError: There is no such processor.
    """
    mask = 0
    for one in processors:
        if not 0 <= one < _PROCESSORS_MAX:
            raise ValueError(f"there is no processor {one}")
        mask |= 1 << one
    longs = -(-mask.bit_length() // 64) or 1
    return pack(f"={longs}Q", *(mask >> 64 * at & (1 << 64) - 1 for at in range(longs)))


def level_and_option(level: int, option: int) -> int:
    """Place a socket option's two numbers where other requests have an address."""
    word: int = unpack("=Q", packed(_TWO_INTS, level=level, option=option))[0]
    return word


def poll_mask(mask: int) -> int:
    """Place POLL* bits, whose halves the kernel swaps on big-endian machines."""
    if sys.byteorder == "little":
        return mask
    return (mask & 0xFFFF) << 16 | mask >> 16 & 0xFFFF
