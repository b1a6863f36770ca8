"""
What bad clients cost good ones: `uringio serve` under slow writers and clients that never read.

For some seconds, many connections send one byte of a head per second and others ask for 64 MiB and
read nothing, while good clients fetch small files.  Printed, beside what these see alone: the
good ones' failures and p99, the server's memory and kernel workers, and how the bad ones ended.

    python tools/slow_clients.py --seconds 30 --slow 1000 --deaf 200 --backend uring
"""

import argparse
import http.client
import re
import resource
import selectors
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

MIB = 1024 * 1024
HEAD = b"GET /small HTTP/1.1\r\nHost: a\r\nX-Slow: " + b"x" * 4000
DEAF_RECV_BYTES = 64 * 1024


class Good(threading.Thread):
    """A client that does as it should, and measures."""

    def __init__(self, port: int) -> None:
        super().__init__()
        self.port = port
        self.stopping = threading.Event()
        self.times: list[float] = []
        self.failures: list[Exception] = []

    def run(self) -> None:
        client = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        while not self.stopping.is_set():
            start = time.perf_counter()
            try:
                client.request("GET", "/small")
                response = client.getresponse()
                body = response.read()
                if response.status != 200 or len(body) != 1024:
                    raise http.client.HTTPException(f"status {response.status}")
            except (OSError, http.client.HTTPException) as error:
                self.failures.append(error)
                client.close()
                continue
            self.times.append(time.perf_counter() - start)
            time.sleep(0.002)
        client.close()


def measure_good(port: int, count: int, seconds: float) -> tuple[list[float], list[Exception]]:
    """Run good clients; return their times and failures."""
    threads = [Good(port) for _ in range(count)]
    for thread in threads:
        thread.start()
    time.sleep(seconds)
    for thread in threads:
        thread.stopping.set()
    for thread in threads:
        thread.join()
    return (
        sorted(one for thread in threads for one in thread.times),
        [error for thread in threads for error in thread.failures],
    )


def p99_ms(times: list[float]) -> float:
    """The time that one in a hundred exceeds."""
    return times[int(len(times) * 0.99)] * 1000


class Bad(threading.Thread):
    """All the bad clients, in one thread; each that is dropped comes back at once."""

    def __init__(self, port: int, slow_count: int, deaf_count: int, seconds: float) -> None:
        super().__init__()
        self.address = ("127.0.0.1", port)
        self.slow_count = slow_count
        self.deaf_count = deaf_count
        self.seconds = seconds
        self.ends: Counter[str] = Counter()
        self.lives: dict[str, list[float]] = {"slow": [], "deaf": []}

    def run(self) -> None:
        selector = selectors.DefaultSelector()
        slow: dict[socket.socket, tuple[float, int]] = {}
        deaf: dict[socket.socket, float] = {}
        for _ in range(self.slow_count):
            self._begin_slow(selector, slow)
        for _ in range(self.deaf_count):
            self._begin_deaf(deaf)
        end = time.monotonic() + self.seconds
        while (now := time.monotonic()) < end:
            for client, (born, sent) in list(slow.items()):
                if now - born > sent:
                    try:
                        client.send(HEAD[sent : sent + 1])
                    except OSError:
                        pass  # its end is read below
                    slow[client] = (born, sent + 1)
            for key, _ in selector.select(0.05):
                client = key.fileobj
                assert isinstance(client, socket.socket)
                self._end_slow(client, now - slow.pop(client)[0], selector)
                self._begin_slow(selector, slow)
            for client, born in list(deaf.items()):
                # Looked at without reading: a reset is an error that waits.
                if client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                    self.ends["deaf: reset"] += 1
                    self.lives["deaf"].append(now - born)
                    client.close()
                    del deaf[client]
                    self._begin_deaf(deaf)
        for client in (*slow, *deaf):
            client.close()
        selector.close()

    def _begin_slow(
        self, selector: selectors.BaseSelector, slow: dict[socket.socket, tuple[float, int]]
    ) -> None:
        client = socket.create_connection(self.address, timeout=30)
        client.setblocking(False)
        selector.register(client, selectors.EVENT_READ)
        slow[client] = (time.monotonic(), 0)

    def _end_slow(
        self, client: socket.socket, life: float, selector: selectors.BaseSelector
    ) -> None:
        selector.unregister(client)
        try:
            said = client.recv(4096)
        except OSError:
            said = b"reset"
        self.ends[f"slow: {said[9:12].decode() if said[:5] == b'HTTP/' else said.decode()}"] += 1
        self.lives["slow"].append(life)
        client.close()

    def _begin_deaf(self, deaf: dict[socket.socket, float]) -> None:
        client = socket.socket()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, DEAF_RECV_BYTES)
        client.settimeout(30)
        client.connect(self.address)
        client.sendall(b"GET /big HTTP/1.1\r\nHost: a\r\n\r\n")
        deaf[client] = time.monotonic()


def memory_mib(pid: int, field: str = "VmRSS") -> float:
    """What a process has in memory; with VmHWM the most that it had."""
    match = re.search(rf"{field}:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert match is not None
    return int(match[1]) / 1024


def kernel_workers(pid: int) -> int:
    """How many threads of io_uring's worker pool a process has."""
    names = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/comm")]
    return sum(name.startswith("iou-wrk") for name in names)


def main() -> int:
    """Run it and print the figures; status 1 when a promise is broken."""
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--slow", type=int, default=1000)
    parser.add_argument("--deaf", type=int, default=200)
    parser.add_argument("--good", type=int, default=4)
    parser.add_argument("--backend", default="auto")
    options = parser.parse_args()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "small").write_bytes(bytes(1024))
        with Path(folder, "big").open("wb") as file:
            file.truncate(64 * MIB)
        command = [sys.executable, "-m", "uringio", "serve", folder, "--port", "0", "--quiet",
                   "--backend", options.backend]  # fmt: skip
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            print(line.strip())
            match = re.search(r":(\d+)/ ", line)
            assert match is not None
            return report(int(match[1]), process.pid, options)
        finally:
            process.terminate()
            process.wait()
            process.stdout.close()


def report(port: int, pid: int, options: argparse.Namespace) -> int:
    """Measure and print."""
    alone, failures_alone = measure_good(port, options.good, min(options.seconds, 10.0))
    memory_before = memory_mib(pid)
    bad = Bad(port, options.slow, options.deaf, options.seconds)
    bad.start()
    beside, failures = measure_good(port, options.good, options.seconds)
    workers = kernel_workers(pid)
    bad.join()
    grown = memory_mib(pid, "VmHWM") - memory_before
    print(f"good clients alone:  {len(alone)} requests, p99 {p99_ms(alone):.2f} ms, "
          f"{len(failures_alone)} failed")  # fmt: skip
    print(f"beside the bad ones: {len(beside)} requests, p99 {p99_ms(beside):.2f} ms, "
          f"{len(failures)} failed")  # fmt: skip
    print(f"p99 ratio {p99_ms(beside) / p99_ms(alone):.2f}")
    print(f"server: RSS {memory_before:.1f} MiB, at most {grown:.1f} MiB more; "
          f"{workers} kernel workers")  # fmt: skip
    print(f"bad clients' ends: {dict(bad.ends)}")
    for name, lives in bad.lives.items():
        if lives:
            print(f"  {name}: lived {min(lives):.1f} to {max(lives):.1f} s")
    for error in failures[:3]:
        print(f"  failure: {error!r}")
    return 1 if failures or grown > 64 or workers > 8 else 0


if __name__ == "__main__":
    sys.exit(main())
