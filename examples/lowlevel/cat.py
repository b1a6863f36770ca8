#!/usr/bin/env python3
"""
Print files, with eight reads of each in flight.

Shows: opening, reading and closing by requests; telling completions apart by their user_data;
putting in order what ends in any order.

    python examples/lowlevel/cat.py FILE...
"""

import argparse
import os
import sys
from collections.abc import Iterator

from uringio.errors import UringioError
from uringio.lowlevel import Ring, prep_close, prep_open, prep_read

BLOCK_BYTES = 64 * 1024
DEPTH = 8


def main() -> int:
    parser = argparse.ArgumentParser(description="Print files, with several reads in flight.")
    parser.add_argument("file", nargs="+")
    files = parser.parse_args().file
    with Ring(2 * DEPTH) as ring:
        for path in files:
            prep_open(ring, path, os.O_RDONLY | os.O_CLOEXEC)
            fd = only_result(ring, path)
            for block in blocks(ring, fd, path):
                sys.stdout.buffer.write(block)
            prep_close(ring, fd)
            only_result(ring, path)
    sys.stdout.flush()
    return 0


def only_result(ring: Ring, path: str) -> int:
    """Wait for the one request in flight."""
    [(_, result, _)] = ring.wait()
    return checked(result, path)


def checked(result: int, path: str) -> int:
    """Raise what a negative result stands for."""
    if result < 0:
        raise OSError(-result, os.strerror(-result), path)
    return result


def blocks(ring: Ring, fd: int, path: str) -> Iterator[bytes]:
    """Yield the content in order, DEPTH blocks ahead of whoever takes it."""
    size = os.fstat(fd).st_size
    arrived: dict[int, bytes] = {}  # by offset
    rooms: dict[int, bytearray] = {}  # of reads in flight, by offset
    asked = told = 0
    while told < size:
        while asked < size and len(rooms) + len(arrived) < DEPTH:
            rooms[asked] = bytearray(min(BLOCK_BYTES, size - asked))
            prep_read(ring, fd, rooms[asked], asked, user_data=asked)
            asked += len(rooms[asked])
        for offset, count, _ in ring.wait():
            room = rooms.pop(offset)
            arrived[offset] = bytes(room[: checked(count, path)])
            if 0 < count < len(room):  # less than asked for is no error: ask for the rest
                rest = rooms[offset + count] = bytearray(len(room) - count)
                prep_read(ring, fd, rest, offset + count, user_data=offset + count)
        while told in arrived:
            block = arrived.pop(told)
            if not block:  # somebody has made the file shorter
                size = told
                break
            told += len(block)
            yield block
    for _ in ring:  # reads behind what has become the end
        pass
    # Pipes, terminals and files of /proc have no size: they are read until there is no more.
    while True:
        room = bytearray(BLOCK_BYTES)
        prep_read(ring, fd, room, told if size else -1)
        count = only_result(ring, path)
        if not count:
            return
        told += count
        yield bytes(room[:count])


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:  # who reads what is printed has left
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except (OSError, UringioError) as error:
        sys.exit(f"cat: {error}")
