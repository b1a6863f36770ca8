#!/usr/bin/env python3
"""
Send back whatever comes, on every connection at once.

Shows: one multishot accept, which yields a connection each time; one request in flight for each
connection, a receive or a send; a single wait that hands over what is new and takes what is done.

    python examples/lowlevel/echo.py [--host 127.0.0.1] [--port 8007]     (Ctrl-C ends it)
"""

import argparse
import errno
import os
import socket
import sys

from uringio.errors import UringioError
from uringio.lowlevel import CqeFlags, Ring, prep_multishot_accept, prep_recv, prep_send

ROOM_BYTES = 16 * 1024

# The low bits of a user_data say what has completed, the others on which descriptor.
ACCEPT, RECV, SEND = range(3)


def main() -> int:
    parser = argparse.ArgumentParser(description="Send back whatever comes.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8007, help="0: any that is free")
    options = parser.parse_args()
    if not 0 <= options.port < 1 << 16:
        parser.error(f"a port is from 0 to 65535, not {options.port}")
    with socket.create_server((options.host, options.port), backlog=512) as listener:
        host, port = listener.getsockname()[:2]
        print(f"listening on {host} port {port}", flush=True)
        serve(listener.fileno())
    return 0


def serve(listener: int) -> None:
    """Accept and echo, until something stops us."""
    rooms: dict[int, bytearray] = {}  # of the connections, by descriptor
    accepting = full = False
    try:
        with Ring(256) as ring:
            while True:
                if not accepting and not full:
                    prep_multishot_accept(ring, listener, socket.SOCK_CLOEXEC, user_data=ACCEPT)
                    accepting = True
                for user_data, result, flags in ring.wait():
                    fd, what = user_data >> 2, user_data & 3
                    if ring.space < 2:  # one for this connection, one for the accept
                        ring.submit()
                    if what == ACCEPT:
                        accepting = bool(flags & CqeFlags.MORE)
                        full = result in {-errno.EMFILE, -errno.ENFILE}
                        if result >= 0:
                            rooms[result] = bytearray(ROOM_BYTES)
                            receive(ring, result, rooms[result])
                        elif result != -errno.ECONNABORTED and not (full and rooms):
                            raise OSError(-result, os.strerror(-result), "accepting")
                    elif result <= 0:  # the peer has closed, or is gone
                        del rooms[fd]
                        os.close(fd)
                        full = False
                    elif what == RECV:
                        send_back(ring, fd, rooms[fd], result)
                    else:
                        receive(ring, fd, rooms[fd])
    finally:  # behind the end of the ring, which uses them until then
        for fd in rooms:
            os.close(fd)


def receive(ring: Ring, fd: int, room: bytearray) -> None:
    prep_recv(ring, fd, room, user_data=fd << 2 | RECV)


def send_back(ring: Ring, fd: int, room: bytearray, count: int) -> None:
    # MSG_WAITALL: complete when all of it is sent, not before.
    flags = socket.MSG_WAITALL | socket.MSG_NOSIGNAL
    prep_send(ring, fd, memoryview(room)[:count], flags, user_data=fd << 2 | SEND)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
    except (OSError, UringioError) as error:
        sys.exit(f"echo: {error}")
