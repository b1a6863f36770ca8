"""
The load client of client.c in Python, for machines without a compiler: same use, same lines.

Slower than the C program, so that it may not saturate the server; `uringio bench` says
which client it used. Needs Linux (epoll) and nothing outside the standard library.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import sys
import time

STALL_SECONDS = 10.0
MESSAGES_MAX = 100_000_000
INCOMING_MAX_BYTES = 64 << 20


class Connection:
    """
    One connection and the messages in flight on it.

    Attributes:
        begun: The newest message.
        sending: The one being sent; begun + 1 if none is.
        expected: The one whose reply is next; begun + 1 if none is.
        sent: Bytes of `sending`.
        received: Bytes of `expected`.
    """

    __slots__ = (
        "begun",
        "expected",
        "index",
        "received",
        "sending",
        "sent",
        "sock",
        "started_ns",
    )

    def __init__(self, index: int, sock: socket.socket, in_flight: int) -> None:
        self.index = index
        self.sock = sock
        self.begun = self.sent = self.received = 0
        self.sending = self.expected = 1
        self.started_ns = [0] * in_flight


class Load:
    """
    All connections to one server, exchanging messages in a closed loop.
    """

    def __init__(
        self, port: int, connections_count: int, size_bytes: int, in_flight: int, *, spin: bool
    ) -> None:
        self.size_bytes = size_bytes
        self.timeout_seconds = 0.0 if spin else STALL_SECONDS
        self.head_size = min(8, size_bytes)
        body = range(self.head_size, size_bytes)
        self.body = bytes((i * 131 + (i >> 8) * 29) & 0xFF for i in body)
        self.in_flight = in_flight
        self.poll = select.epoll()
        self.connections: dict[int, Connection] = {}
        self.latencies_ns: list[int] = []
        for index in range(connections_count):
            sock = socket.create_connection(("127.0.0.1", port), timeout=STALL_SECONDS)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            # One byte there and back: the server has accepted, so its backlog never overflows.
            sock.sendall(b"?")
            if sock.recv(1) != b"?":
                raise SystemExit("client: first exchange failed")
            sock.setblocking(False)
            self.connections[sock.fileno()] = Connection(index, sock, in_flight)
            self.poll.register(sock.fileno(), select.EPOLLIN)

    def _push(self, c: Connection) -> None:
        while c.sending <= c.begun:
            message = self._head(c, c.sending) + self.body
            with contextlib.suppress(BlockingIOError):
                c.sent += c.sock.send(memoryview(message)[c.sent :] if c.sent else message)
            if c.sent < self.size_bytes:
                self.poll.modify(c.sock.fileno(), select.EPOLLIN | select.EPOLLOUT)
                return
            c.sent = 0
            c.sending += 1

    def _head(self, c: Connection, sequence: int) -> bytes:
        return (c.index << 40 | sequence).to_bytes(8, "little")[: self.head_size]

    def _begin(self, c: Connection, at_ns: int) -> None:
        c.begun += 1
        c.started_ns[c.begun % self.in_flight] = at_ns
        self._push(c)

    def _check(self, c: Connection, chunk: bytes, *, whole: bool) -> None:
        offset = c.received
        head = self._head(c, c.expected)
        if offset < self.head_size and not chunk.startswith(head[offset : offset + len(chunk)]):
            raise SystemExit("client: a reply does not begin as its message did")
        if whole and chunk != (head + self.body)[offset : offset + len(chunk)]:
            raise SystemExit("client: a reply differs from its message")

    def exchange(self, until_ns: int, *, whole: bool) -> int:
        """
        Exchange messages until *until_ns*, let what is in flight come home, return the replies.
        """
        clock = time.monotonic_ns
        connections = self.connections
        size_bytes = self.size_bytes
        latencies_ns = self.latencies_ns = []
        in_flight = len(connections) * self.in_flight
        idle_since_ns = clock()
        for c in connections.values():
            for _ in range(self.in_flight):
                self._begin(c, clock())
        while in_flight:
            events = self.poll.poll(self.timeout_seconds, 1024)
            if not events:
                if clock() - idle_since_ns >= STALL_SECONDS * 1e9:
                    raise SystemExit("client: no reply from the server")
                continue
            for fd, mask in events:
                c = connections[fd]
                if mask & select.EPOLLOUT:
                    self.poll.modify(fd, select.EPOLLIN)
                    self._push(c)
                if not mask & ~select.EPOLLOUT:
                    continue
                awaited = (c.begun + 1 - c.expected) * size_bytes - c.received
                if not awaited:
                    raise SystemExit("client: bytes that nobody sent")
                try:
                    data = c.sock.recv(min(awaited, INCOMING_MAX_BYTES))
                except BlockingIOError:
                    continue
                if not data:
                    raise SystemExit("client: the server closed a connection")
                while data:
                    room = size_bytes - c.received
                    chunk, data = data[:room], data[room:]
                    self._check(c, chunk, whole=whole)
                    c.received += len(chunk)
                    if c.received < size_bytes:
                        break
                    at_ns = idle_since_ns = clock()
                    latencies_ns.append(at_ns - c.started_ns[c.expected % self.in_flight])
                    c.received = 0
                    c.expected += 1
                    if at_ns < until_ns and len(latencies_ns) < MESSAGES_MAX:
                        self._begin(c, at_ns)
                    else:
                        in_flight -= 1
        for c in connections.values():
            try:
                c.sock.recv(1, socket.MSG_PEEK)
            except BlockingIOError:
                continue
            raise SystemExit("client: a reply longer than its message, or a connection closed")
        return len(latencies_ns)


def main(argv: list[str]) -> int:
    """
    Run the two phases as client.c does.
    """
    if len(argv) != 8:
        usage = "usage: client PORT CONNECTIONS SIZE IN_FLIGHT WARM_MS MEASURE_MS CPU SPIN"
        print(usage, file=sys.stderr)
        return 2
    port, connections_count, size_bytes, in_flight, warm_ms, measure_ms, cpu, spin = map(int, argv)
    signal.alarm((warm_ms + measure_ms) // 1000 + 60)
    if cpu >= 0:
        os.sched_setaffinity(0, {cpu})
    load = Load(port, connections_count, size_bytes, in_flight, spin=bool(spin))
    load.exchange(time.monotonic_ns() + warm_ms * 1_000_000, whole=True)
    print("warm", flush=True)
    if not sys.stdin.readline():
        return 0
    cpu_ns = time.process_time_ns()
    from_ns = time.monotonic_ns()
    replies = load.exchange(from_ns + measure_ms * 1_000_000, whole=False)
    elapsed_ns = time.monotonic_ns() - from_ns
    cpu_ns = time.process_time_ns() - cpu_ns
    latencies_ns = sorted(load.latencies_ns)
    print(
        json.dumps(
            {
                "messages": replies,
                "elapsed_ns": elapsed_ns,
                "client_cpu_ns": cpu_ns,
                "p50_ns": latencies_ns[replies // 2],
                "p99_ns": latencies_ns[replies * 99 // 100],
                "p999_ns": latencies_ns[replies * 999 // 1000],
                "max_ns": latencies_ns[-1],
            }
        ),
        flush=True,
    )
    while sys.stdin.readline():
        pass
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
