"""
One sample: a fresh server, a load client, and what the server used meanwhile.
"""

from __future__ import annotations

import contextlib
import json
import select
import subprocess
import tempfile
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

from . import machine
from .accounting import has_ring, usage
from .rivals import AbsentError, Contender
from .syscalls import Counter, CountError

_SLACK_SECONDS = 30.0
MISSING = (
    "ModuleNotFoundError",
    "ImportError",
    "AttributeError",  # of an older release
    "unavailable",  # what a server says itself
    "uringio.errors.UnsupportedError",
)
"""How the last words begin of a server that this machine cannot run, in difference to a failure."""

HEAPS: dict[str, dict[str, str]] = {
    "fresh": {},
    # 32 MiB is the most that glibc takes as mmap threshold; it ignores larger values in silence.
    # Setting either variable also ends glibc's own adjustment of both, so both are set.
    "steady": {
        "MALLOC_MMAP_THRESHOLD_": str(32 << 20),
        "MALLOC_TRIM_THRESHOLD_": str(1 << 30),
    },
}
"""Heap modes by name: what each adds to the environment of every server."""


class SampleError(Exception):
    """
    A server or a client did not do its part.
    """


class MissingError(SampleError):
    """
    A server cannot be had here: it, or something it imports, is not there.
    """


@dataclass(frozen=True)
class Setup:
    """
    What all samples of a run share.
    """

    build: Path
    client: tuple[str, ...]
    server_cpu: int
    client_cpu: int
    warm_ms: int
    measure_ms: int
    spin: bool


@dataclass(frozen=True)
class Cell:
    """
    One combination of message size, number of connections and messages in flight on each.
    """

    size_bytes: int
    connections: int
    in_flight: int = 1

    def __str__(self) -> str:
        """
        Return the cell as tables show it.
        """
        depth = f" x {self.in_flight} in flight" if self.in_flight > 1 else ""
        return f"{self.size_bytes} B x {self.connections}{depth}"


@dataclass(frozen=True)
class Sample:
    """
    One contender measured once.
    """

    contender: str
    heap: str
    size_bytes: int
    connections: int
    in_flight: int
    round: int
    messages: int
    elapsed_ns: int
    cpu_ns: int
    user_ns: int
    system_ns: int
    waiting_ns: int
    faults_minor: int
    sleeps: int
    client_cpu_ns: int
    p50_ns: int
    p99_ns: int
    p999_ns: int
    max_ns: int
    ring: bool
    syscalls: int | None = None
    """Counted only where asked for, and then the CPU includes the counting."""

    @property
    def cell(self) -> Cell:
        """
        What it is a sample of.
        """
        return Cell(self.size_bytes, self.connections, self.in_flight)

    @property
    def cpu_us_per_message(self) -> float:
        """
        Server CPU per message.
        """
        return self.cpu_ns / self.messages / 1000

    @property
    def messages_per_second(self) -> float:
        """
        Throughput.
        """
        return self.messages * 1e9 / self.elapsed_ns

    @property
    def busy_share(self) -> float:
        """
        The part of the window in which the server ran: near 1 when the client saturates it.
        """
        return self.cpu_ns / self.elapsed_ns

    @property
    def contended_share(self) -> float:
        """
        The part of the window in which the server was kept from its processor by something else.
        """
        return self.waiting_ns / self.elapsed_ns


def take(
    setup: Setup,
    contender: Contender,
    heap: str,
    cell: Cell,
    round_index: int,
    *,
    counts: bool = False,
) -> Sample:
    """
    Start a server, load it, measure it, end it.

    The server's counters are read while it is idle, before and after the measured window, so that
    no counter is caught in the middle of an update and no message is counted by one side only.

    Args:
        setup: What all samples share.
        contender: Which server.
        heap: A key of `HEAPS`.
        cell: The load.
        round_index: Noted with the sample.
        counts: Count the server's system calls; such a sample is not to be compared.

    Raises:
        MissingError: The server cannot be had here.
        SampleError: The server or the client failed; the message says how.
    """
    seconds_max = int((setup.warm_ms + setup.measure_ms) / 1000 + 2 * _SLACK_SECONDS)
    try:
        command = contender.command(setup.build, setup.server_cpu, seconds_max)
    except AbsentError as reason:
        raise MissingError(str(reason)) from None
    with serving(command, heap) as server:
        try:
            return _measure(
                setup, contender, heap, cell, round_index, server.pid, server.port, counts=counts
            )
        except (OSError, ValueError, SampleError, CountError) as failure:
            raise SampleError(f"{failure}; server said: {server.last_words()}") from failure


@dataclass(frozen=True)
class Server:
    """
    A server that runs, and where it listens.
    """

    pid: int
    port: int
    last_words: Callable[[], str]
    """What it has said on standard error, last."""


@contextlib.contextmanager
def serving(
    command: Sequence[str], heap: str, start_seconds_max: float = 30.0
) -> Generator[Server, None, None]:
    """
    Run a server, which prints its port, while the context lasts.

    Raises:
        MissingError: It cannot run here.
        SampleError: It printed no port in time.
    """
    with tempfile.TemporaryFile("w+") as errors:
        server = subprocess.Popen(
            command,
            env=machine.environment(**HEAPS[heap]),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
        assert server.stdout is not None
        try:
            said = line_of(server.stdout, start_seconds_max)
            if not said.isdigit():
                raise _failed_start(server, errors)
            yield Server(server.pid, int(said), lambda: tail(errors))
        finally:
            server.kill()
            server.wait()
            server.stdout.close()


def _measure(
    setup: Setup,
    contender: Contender,
    heap: str,
    cell: Cell,
    round_index: int,
    pid: int,
    port: int,
    *,
    counts: bool,
) -> Sample:
    wait_seconds = (setup.warm_ms + setup.measure_ms) / 1000 + _SLACK_SECONDS
    arguments = (
        port,
        cell.connections,
        cell.size_bytes,
        cell.in_flight,
        setup.warm_ms,
        setup.measure_ms,
        setup.client_cpu,
        int(setup.spin),
    )
    with tempfile.TemporaryFile("w+") as errors:
        client = subprocess.Popen(
            [*setup.client, *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
        assert client.stdin is not None
        assert client.stdout is not None
        try:
            if line_of(client.stdout, wait_seconds) != "warm":
                client.wait(_SLACK_SECONDS)
                raise SampleError(tail(errors))
            ring = has_ring(pid)
            with Counter(pid) if counts else contextlib.nullcontext() as counter:
                if counter is not None:
                    counter.start()
                before = usage(pid)
                client.stdin.write("go\n")
                client.stdin.flush()
                answer = line_of(client.stdout, wait_seconds)
                if not answer:
                    client.wait(_SLACK_SECONDS)
                    raise SampleError(tail(errors))
                used = usage(pid).since(before)
                syscalls = None if counter is None else counter.stop()
        except subprocess.TimeoutExpired:
            raise SampleError("the client does not end") from None
        finally:
            client.kill()
            client.wait()
            client.stdin.close()
            client.stdout.close()
    load = cast("dict[str, int]", json.loads(answer))
    return Sample(
        contender=contender.name,
        heap=heap,
        size_bytes=cell.size_bytes,
        connections=cell.connections,
        in_flight=cell.in_flight,
        round=round_index,
        messages=int(load["messages"]),
        elapsed_ns=int(load["elapsed_ns"]),
        cpu_ns=used.cpu_ns,
        user_ns=used.user_ns,
        system_ns=used.system_ns,
        waiting_ns=used.waiting_ns,
        faults_minor=used.faults_minor,
        sleeps=used.sleeps,
        client_cpu_ns=int(load["client_cpu_ns"]),
        p50_ns=int(load["p50_ns"]),
        p99_ns=int(load["p99_ns"]),
        p999_ns=int(load["p999_ns"]),
        max_ns=int(load["max_ns"]),
        ring=ring,
        syscalls=syscalls,
    )


def _failed_start(server: subprocess.Popen[str], errors: IO[str]) -> SampleError:
    """
    Return why a server printed no port: a `MissingError` where it cannot run here.
    """
    try:
        # End of output may be seen a moment before the exit status.
        ended = server.wait(1.0)
    except subprocess.TimeoutExpired:
        return SampleError(f"the server does not come up: {tail(errors)}")
    reason = tail(errors)
    if reason.startswith(MISSING):
        return MissingError(reason)
    return SampleError(f"the server ended with status {ended}: {reason}")


def line_of(stream: IO[str], seconds_max: float) -> str:
    """
    Return the next line of a pipe, or "" where it has ended, or says nothing for so long.
    """
    # Each side writes whole lines, one at a time: a readable pipe holds one, or has ended.
    ready, _, _ = select.select([stream], [], [], seconds_max)
    return stream.readline().strip() if ready else ""


def tail(errors: IO[str]) -> str:
    """
    Return the last words of a process.
    """
    errors.seek(0)
    lines = [line.strip() for line in errors.read().splitlines() if line.strip()]
    return lines[-1] if lines else "nothing on standard error"
