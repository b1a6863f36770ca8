"""
What idle connections cost a server: its own memory, and the kernel's.
"""

from __future__ import annotations

import contextlib
import resource
import socket
import struct
import time
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path

from .rivals import Contender
from .sample import SampleError, serving

_WARM_COUNT = 64
"""Connections before those that count: pools, rings and caches have their first memory by then."""
_SPARE_DESCRIPTORS = 100
_SECONDS_MAX = 120
_ANSWER_SECONDS_MAX = 20.0
_MESSAGE = b"x" * 64
_BATCH = 32
"""Connections at a time: fewer than every server's backlog."""
_SETTLE_SECONDS = 0.2


@dataclass(frozen=True)
class Held:
    """
    What a server holds with its connections idle.
    """

    connections: int
    bytes_each: float
    """Of the process's own memory, per connection."""
    kernel_bytes_each: float
    """Of the kernel's, for both ends of a connection: what all of the machine did meanwhile."""
    rss_bytes: int
    rss_empty_bytes: int


def connections_max() -> int:
    """
    Return how many connections the limits of descriptors permit.
    """
    return resource.getrlimit(resource.RLIMIT_NOFILE)[1] - _SPARE_DESCRIPTORS - _WARM_COUNT


def hold(contender: Contender, build: Path, cpu: int, count: int) -> Held:
    """
    Start a server, open connections, send a message on each, and look while nothing happens.

    Args:
        contender: Which server.
        build: The folder for what is compiled.
        cpu: The processor to run on.
        count: How many connections; at most `connections_max`.

    Raises:
        AbsentError: The contender cannot be had here.
        MissingError: The contender says so itself.
        SampleError: It failed.
    """
    command = contender.command(build, cpu, _SECONDS_MAX)
    with (
        _descriptors(),
        serving(command, "fresh", _ANSWER_SECONDS_MAX) as server,
        contextlib.ExitStack() as closing,
    ):
        try:
            _connect(server.port, _WARM_COUNT, closing)
            empty, kernel_before = _memory(server.pid), _kernel_bytes()
            _connect(server.port, count, closing)
            full, kernel = _memory(server.pid), _kernel_bytes()
        except (OSError, ValueError) as failure:
            raise SampleError(f"{failure}; server said: {server.last_words()}") from failure
    return Held(
        connections=count,
        bytes_each=(full["Anonymous"] - empty["Anonymous"]) / count,
        kernel_bytes_each=(kernel - kernel_before) / count,
        rss_bytes=full["Rss"],
        rss_empty_bytes=empty["Rss"],
    )


@contextlib.contextmanager
def _descriptors() -> Generator[None, None, None]:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (before[1], before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def _connect(port: int, count: int, closing: contextlib.ExitStack) -> None:
    while count:
        batch = min(count, _BATCH)
        count -= batch
        made: list[socket.socket] = []
        for _ in range(batch):
            end = socket.create_connection(("127.0.0.1", port), timeout=_ANSWER_SECONDS_MAX)
            closing.callback(end.close)
            # Closing resets: thousands in TIME_WAIT would be the next sample's memory.
            end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            end.sendall(_MESSAGE)
            made.append(end)
        for end in made:
            left = len(_MESSAGE)
            while left:
                got = len(end.recv(left))
                if not got:
                    raise ValueError("the server closed a connection")
                left -= got
    # What a server does behind its answers: it is idle when it has said nothing for a while.
    time.sleep(_SETTLE_SECONDS)


def _memory(pid: int) -> dict[str, int]:
    """
    Return the fields of smaps_rollup, in bytes.
    """
    lines = (Path("/proc") / str(pid) / "smaps_rollup").read_text(encoding="ascii").splitlines()
    fields = (line.split() for line in lines[1:])
    return {field[0].rstrip(":"): int(field[1]) * 1024 for field in fields}


def _kernel_bytes() -> int:
    """
    Return what the kernel holds in small objects: sockets, requests, poll entries, file records.
    """
    for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
        if line.startswith("Slab:"):
            return int(line.split()[1]) * 1024
    return 0
