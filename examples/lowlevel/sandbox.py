#!/usr/bin/env python3
"""
Lock a ring down to reading one file, and see it refuse everything else.

Shows: a ring with restrictions, which hold for good and in the kernel: code that is handed such a
ring can do what is listed and nothing more, whatever it writes into its requests.

    python examples/lowlevel/sandbox.py FILE
"""

import argparse
import os
import socket
import sys
from collections.abc import Callable

from uringio.errors import OpError, UringioError
from uringio.lowlevel import Opcode, Ring, SqeFlags, prep_open, prep_read, prep_socket, prep_write


def main() -> int:
    parser = argparse.ArgumentParser(description="Lock a ring down to reading one file.")
    parser.add_argument("file")
    path = parser.parse_args().file
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        # Slot 0 of its table is the file; only what is in the table may be used.  Reads may be
        # cancelled, so that the ring can be closed while one still waits, as on a pipe.
        ops = [Opcode.READ, Opcode.ASYNC_CANCEL]
        with Ring.sandboxed(8, ops=ops, files=[fd], fixed_files_only=True) as ring:
            return demonstrate(ring, path, fd)
    finally:
        os.close(fd)


def demonstrate(ring: Ring, path: str, fd: int) -> int:
    """Try what is allowed and what is not, and return the exit status."""
    room = bytearray(80)
    in_table = SqeFlags.FIXED_FILE

    def attempt(what: str, fill: Callable[[], None]) -> int:
        fill()
        [(_, result, _)] = ring.wait()
        print(f"{what:<38} {f'{result} bytes' if result >= 0 else os.strerror(-result)}")
        return result

    allowed = attempt("read the file", lambda: prep_read(ring, 0, room, 0, flags=in_table))
    refused = [
        attempt("write to it", lambda: prep_write(ring, 0, b"mine", 0, flags=in_table)),
        attempt("read it by its descriptor", lambda: prep_read(ring, fd, room, 0)),
        attempt("open it once more", lambda: prep_open(ring, path, os.O_RDONLY)),
        attempt("make a socket", lambda: prep_socket(ring, socket.AF_INET, socket.SOCK_STREAM)),
    ]
    try:
        ring.register_files_update(0, [fd])
    except OpError as error:
        number = error.errno or 0
        refused.append(-number)
        print(f"{'put another file into the table':<38} {os.strerror(number)}")
    first_line = bytes(room[: max(allowed, 0)]).partition(b"\n")[0]
    print(f"The file begins: {first_line.decode(errors='replace')}")
    return 0 if allowed >= 0 and len(refused) == 5 and max(refused) < 0 else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
    except (OSError, UringioError) as error:
        sys.exit(f"sandbox: {error}")
