"""
The sender of a cancel race, in a process of its own.

Run as ``python cancel_race_peer.py PORT COUNT SEED``.  Makes COUNT connections and sends the
numbered stream on each of them, in pieces of random size at random moments, until its standard
input ends.  Then it ends the streams and prints how many bytes each of them had, in the order in
which it connected.
"""

import random
import select
import socket
import sys
import time
from array import array

PATIENCE_S = 60.0
PIECE_BYTES_MAX = 1500
PAUSE_US_MAX = 30.0
SEND_BUFFER_BYTES = 8192  # so that receivers are now behind, now waiting


def numbered(start: int, count: int) -> bytes:
    """Return *count* bytes from *start* on of the stream of all numbers, eight bytes each."""
    first = start // 8
    words = array("Q", range(first, (start + count + 7) // 8))
    if sys.byteorder == "little":
        words.byteswap()
    return words.tobytes()[start - first * 8 :][:count]


def main(port: int, count: int, seed: int) -> None:
    rng = random.Random(seed)
    streams = [socket.create_connection(("127.0.0.1", port), PATIENCE_S) for _ in range(count)]
    for stream in streams:
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sent = [0] * count
    poller = select.poll()
    poller.register(sys.stdin, select.POLLIN | select.POLLHUP)
    rounds = 0
    while rounds % 16 or not poller.poll(0):
        rounds += 1
        index = rng.randrange(count)
        data = numbered(sent[index], rng.randint(1, PIECE_BYTES_MAX))
        try:
            sent[index] += streams[index].send(data, socket.MSG_DONTWAIT)
        except BlockingIOError:
            pass
        end = time.perf_counter() + rng.random() * PAUSE_US_MAX / 1e6
        while time.perf_counter() < end:
            pass
    for stream in streams:
        stream.shutdown(socket.SHUT_WR)
    sys.stdout.write(" ".join(map(str, sent)) + "\n")
    sys.stdout.flush()
    for stream in streams:
        with stream:
            stream.recv(1)  # its reader has come to the end


if __name__ == "__main__":
    main(*map(int, sys.argv[1:4]))
