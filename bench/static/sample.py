"""
One sample: a fresh server, wrk against it, and the CPU that the server used for that.
"""

from __future__ import annotations

import ctypes
import http.client
import os
import re
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from bench.static.contenders import Contender
from uringio.cli.bench import machine
from uringio.cli.bench.accounting import usage

HEAPS: dict[str, dict[str, str]] = {
    "fresh": {},
    "steady": {"MALLOC_MMAP_THRESHOLD_": "33554432", "MALLOC_TRIM_THRESHOLD_": "1073741824"},
}
_START_SECONDS = 20.0
_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None)


class MissingError(Exception):
    """
    The contender cannot run here.
    """


class SampleError(Exception):
    """
    The contender did not serve as it should.
    """


@dataclass(frozen=True)
class Setup:
    """
    What all samples of a run share.
    """

    folder: Path
    server_cpu: int
    client_cpu: int
    warm_seconds: int
    seconds: int


@dataclass(frozen=True)
class Sample:
    """
    One measured window.
    """

    contender: str
    size_bytes: int
    connections: int
    heap: str
    round: int
    requests: int
    errors: int
    seconds: float
    cpu_ns: int
    user_ns: int
    system_ns: int

    @property
    def cpu_us_per_request(self) -> float:
        """
        Server CPU per request, all its threads and processes.
        """
        return self.cpu_ns / 1000 / max(1, self.requests)

    @property
    def requests_per_second(self) -> float:
        """
        Requests per second of the clock.
        """
        return self.requests / self.seconds


def take(
    setup: Setup, contender: Contender, size: int, connections: int, heap: str, round_index: int
) -> Sample:
    """
    Measure one contender once.

    Raises:
        MissingError: It cannot run here.
        SampleError: It did not serve.
    """
    with _serving(setup, contender, heap) as (pid, port):
        url = f"http://127.0.0.1:{port}/{size}.bin"
        _check(setup.folder / f"{size}.bin", port)
        if setup.warm_seconds:
            _wrk(setup, url, connections, setup.warm_seconds)
        before = _account(pid)
        requests, errors, seconds = _wrk(setup, url, connections, setup.seconds)
        after = _account(pid)
        cpu, user, system = (then - now for now, then in zip(before, after, strict=True))
    return Sample(
        contender.name, size, connections, heap, round_index,
        requests, errors, seconds, cpu, user, system,
    )  # fmt: skip


@contextmanager
def _serving(setup: Setup, contender: Contender, heap: str) -> Iterator[tuple[int, int]]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])

    def prepare() -> None:
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)  # should the starter die
        os.sched_setaffinity(0, {setup.server_cpu})

    with tempfile.TemporaryDirectory(prefix="static-") as home, tempfile.TemporaryFile() as said:
        # nginx gives its worker another user, who must get there.
        Path(home).chmod(0o755)
        try:
            command = contender.command(setup.folder, port, Path(home))
        except FileNotFoundError as error:
            raise MissingError(str(error)) from None
        server = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=said,
            env=machine.environment(**HEAPS[heap]),
            preexec_fn=prepare,  # noqa: PLW1509 - there are no threads
        )
        try:
            _wait_for(server, port, said)
            yield server.pid, port
        finally:
            server.terminate()
            try:
                server.wait(10)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()


def _wait_for(server: subprocess.Popen[bytes], port: int, said: object) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=5).close()
        except OSError:
            if server.poll() is None and time.monotonic() < deadline:
                time.sleep(0.02)
                continue
            said.seek(0)  # type: ignore[attr-defined]
            words = said.read().decode("utf-8", "replace").strip()  # type: ignore[attr-defined]
            last = words.splitlines()[-1] if words else "it does not listen"
            if "ModuleNotFoundError" in words:
                raise MissingError(last) from None
            raise SampleError(last) from None
        else:
            return


def _check(path: Path, port: int) -> None:
    """
    Compare one answer with the file: who sends something else is not compared.
    """
    client = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        client.request("GET", f"/{path.name}")
        answer = client.getresponse()
        body = answer.read()
    finally:
        client.close()
    if answer.status != 200 or body != path.read_bytes():
        raise SampleError(f"{answer.status} with {len(body)} bytes")


def _wrk(setup: Setup, url: str, connections: int, seconds: int) -> tuple[int, int, float]:
    done = subprocess.run(
        ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "10s", url],
        capture_output=True,
        text=True,
        timeout=seconds + 60,
        check=False,
        preexec_fn=lambda: os.sched_setaffinity(0, {setup.client_cpu}),
    )
    found = re.search(r"(\d+) requests in ([\d.]+)(ms|s|m),", done.stdout)
    if done.returncode or found is None:
        raise SampleError(f"wrk: {(done.stderr or done.stdout).strip()[-200:]}")
    took = float(found[2]) * {"ms": 0.001, "s": 1.0, "m": 60.0}[found[3]]
    if "Non-2xx" in done.stdout:
        raise SampleError("answers other than 200")
    errors = re.search(r"connect (\d+), read (\d+), write (\d+), timeout (\d+)", done.stdout)
    return int(found[1]), sum(map(int, errors.groups())) if errors else 0, took


def _account(pid: int) -> tuple[int, int, int]:
    """
    Return CPU, user and system time of a process and all its descendants, in ns.
    """
    cpu = user = system = 0
    waiting = [pid]
    while waiting:
        one = waiting.pop()
        used = usage(one)
        cpu, user, system = cpu + used.cpu_ns, user + used.user_ns, system + used.system_ns
        for task in (Path("/proc") / str(one) / "task").iterdir():
            with suppress(FileNotFoundError, ProcessLookupError):  # a thread that has just ended
                waiting += map(int, (task / "children").read_text().split())
    return cpu, user, system
