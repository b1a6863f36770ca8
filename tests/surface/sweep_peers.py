"""
The other side of a cancel sweep's races, in a process of its own so that it acts at any moment.

Run as ``python sweep_peers.py ROLE ADDRESS SEED``, where ADDRESS is a port of 127.0.0.1 or a path.
Each role works until its standard input ends, then prints one number and exits.
"""

import contextlib
import random
import select
import socket
import struct
import sys
import time
from collections.abc import Iterator

RESET_ON_CLOSE = (socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
PATIENCE_S = 50.0
PAUSE_US_MAX = 120.0
CONNECTIONS_MAX = 50


def numbered(start: int, count: int) -> bytes:
    """Return *count* bytes from *start* on of the stream of all numbers, eight bytes each."""
    first = start // 8
    words = range(first, (start + count + 7) // 8)
    return b"".join(word.to_bytes(8, "big") for word in words)[start - first * 8 :][:count]


def pauses(seed: int) -> Iterator[None]:
    """Yield after moments of random length, until standard input ends."""
    rng = random.Random(seed)
    poller = select.poll()
    poller.register(sys.stdin, select.POLLIN | select.POLLHUP)
    while not poller.poll(0):
        end = time.perf_counter() + rng.random() * PAUSE_US_MAX / 1e6
        while time.perf_counter() < end:
            pass
        yield


def client_of(address: str) -> socket.socket:
    """Connect to *address*."""
    if address.isdigit():
        client = socket.create_connection(("127.0.0.1", int(address)), PATIENCE_S)
    else:
        client = socket.socket(socket.AF_UNIX)
        client.settimeout(PATIENCE_S)
        client.connect(address)
    return client


def write(address: str, seed: int) -> int:
    """Write the numbered stream in pieces of random size; the number is how many bytes."""
    rng = random.Random(seed + 1)
    sent = 0
    with client_of(address) as client:
        for _ in pauses(seed):
            data = numbered(sent, rng.randrange(1, 40))
            client.sendall(data)
            sent += len(data)
    return sent


def read(address: str, seed: int) -> int:
    """Read the numbered stream in pieces of random size to its end, and check every byte."""
    rng = random.Random(seed + 1)
    received = 0
    with client_of(address) as client:
        pace = pauses(seed)
        while data := client.recv(rng.randrange(1, 3000)):
            assert data == numbered(received, len(data)), f"wrong bytes after {received}"
            received += len(data)
            next(pace, None)
    return received


def connect(address: str, seed: int) -> int:
    """Connect again and again; every connection must be ended by the other side."""
    waiting: list[socket.socket] = []
    made = 0
    for _ in pauses(seed):
        if len(waiting) < CONNECTIONS_MAX:
            waiting.append(client_of(address))
            made += 1
        elif select.select(waiting[:1], [], [], 0)[0]:
            see_end(waiting.pop(0))
    tell(made)  # from here on there are no new ones
    for client in waiting:
        see_end(client)
    return made


def see_end(client: socket.socket) -> None:
    """Wait for the end of a connection, and leave no trace of it in the kernel."""
    with client, contextlib.suppress(ConnectionResetError):
        assert client.recv(1) == b""
        client.setsockopt(*RESET_ON_CLOSE)


def accept(address: str, seed: int) -> int:
    """Accept and close, from a listener whose queue holds one connection."""
    family = socket.AF_INET if address.isdigit() else socket.AF_UNIX
    accepted = 0
    with socket.socket(family) as listener:
        listener.bind(("127.0.0.1", 0) if address.isdigit() else address)
        listener.listen(0 if family == socket.AF_UNIX else 100)
        tell(listener.getsockname()[1] if address.isdigit() else address)
        listener.setblocking(False)
        for _ in pauses(seed):
            with contextlib.suppress(BlockingIOError):
                connection, _peer = listener.accept()
                connection.close()
                accepted += 1
    return accepted


def tell(word: object) -> None:
    """Write a line to whoever started this."""
    sys.stdout.write(f"{word}\n")
    sys.stdout.flush()


ROLES = {"write": write, "read": read, "connect": connect, "accept": accept}

if __name__ == "__main__":
    tell(ROLES[sys.argv[1]](sys.argv[2], int(sys.argv[3])))
