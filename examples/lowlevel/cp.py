#!/usr/bin/env python3
"""
Copy a file by pairs of linked requests: a read, and a write that begins when the read succeeds.

Shows: links, which the kernel follows without coming back to us in between; that a link breaks when
less is read than was asked for, and what to do then; many pairs in flight.

    python examples/lowlevel/cp.py FROM TO
"""

import argparse
import errno
import os
import sys
from typing import NamedTuple

from uringio.errors import UringioError
from uringio.lowlevel import Ring, SqeFlags, prep_read, prep_write

BLOCK_BYTES = 128 * 1024
PAIRS = 8


class Piece(NamedTuple):
    """A part of the file that is yet to be copied."""

    offset: int
    len_bytes: int


def main() -> int:
    parser = argparse.ArgumentParser(description="Copy a file by linked reads and writes.")
    parser.add_argument("source", metavar="FROM")
    parser.add_argument("target", metavar="TO")
    options = parser.parse_args()
    with open(options.source, "rb", buffering=0) as source:
        status = os.fstat(source.fileno())
        if os.path.exists(options.target) and os.path.samestat(status, os.stat(options.target)):
            raise OSError(f"{options.source} and {options.target} are the same file")
        with Ring(2 * PAIRS) as ring, open(options.target, "wb", buffering=0) as target:
            copy(ring, source.fileno(), target.fileno(), status.st_size)
    return 0


def copy(ring: Ring, source: int, target: int, size: int) -> None:
    """Copy *size* bytes, PAIRS pieces at a time."""
    left = [
        Piece(offset, min(BLOCK_BYTES, size - offset)) for offset in range(0, size, BLOCK_BYTES)
    ][::-1]
    rooms = [bytearray(BLOCK_BYTES) for _ in range(PAIRS)]
    idle = list(range(PAIRS))
    pieces: dict[int, Piece] = {}  # under way, by the number of their room
    reads: dict[int, int] = {}  # what their reads have come to
    while left or pieces:
        while left and idle:
            number, piece = idle.pop(), left.pop()
            pieces[number] = piece
            room = memoryview(rooms[number])[: piece.len_bytes]
            # A read has twice its room's number as its user_data, the write behind it one more.
            prep_read(
                ring, source, room, piece.offset, user_data=2 * number, flags=SqeFlags.IO_LINK
            )
            prep_write(ring, target, room, piece.offset, user_data=2 * number + 1)
        for user_data, result, _ in ring.wait():
            number, is_write = divmod(user_data, 2)
            if not is_write:
                reads[number] = result
                continue
            left += not_copied(pieces.pop(number), reads.pop(number), result)
            idle.append(number)


def not_copied(piece: Piece, read: int, written: int) -> list[Piece]:
    """Say what is left of a piece whose read and write have ended with these results."""
    offset, len_bytes = piece
    if read < 0:
        raise OSError(-read, os.strerror(-read), "reading")
    if read == 0:
        raise OSError("the file became shorter while it was copied")
    if written == -errno.ECANCELED:
        # Less was read than asked for, which breaks the link: ask for just that, and for the rest.
        return [Piece(offset + read, len_bytes - read), Piece(offset, read)]
    if written < 0:
        raise OSError(-written, os.strerror(-written), "writing")
    return [Piece(offset + written, len_bytes - written)] if written < len_bytes else []


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
    except (OSError, UringioError) as error:
        sys.exit(f"cp: {error}")
