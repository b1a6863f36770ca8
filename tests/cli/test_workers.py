"""Several processes on one port, and the end of one or many under load."""

import contextlib
import http.client
import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Self

import pytest

from tests.cli.site import Served, serving

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/fd").exists(), reason="the command asks /proc where files lie"
)

CONTENT = bytes(range(256)) * 4000
PATIENCE_S = 30.0


def workers_of(served: Served) -> set[int]:
    """Which processes the parent has started."""
    pid = served.process.pid
    return {int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()}


def wait_until(condition: Callable[[], bool]) -> None:
    """Ask again and again; other processes tell nobody when they have changed."""
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.01)


class Load:
    """
    Clients that fetch until told to stop, each on a connection that is kept.

    Attributes:
        fetched: How many responses were whole.
        cut: The errors of those that had begun, or were promised, and were not whole.
        refused_count: How often nobody listened any more.
    """

    def __init__(self, served: Served, count: int, *, keeps: bool = True) -> None:
        self.served = served
        self.keeps = keeps
        self.fetched = 0
        self.refused_count = 0
        self.cut: list[tuple[int, Exception]] = []
        self.stopping = threading.Event()
        self.threads = [threading.Thread(target=self._run, args=(n,)) for n in range(count)]

    def __enter__(self) -> Self:
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stopping.set()
        for thread in self.threads:
            thread.join()

    def _run(self, number: int) -> None:
        while not self.stopping.is_set():
            client = self.served.connect()
            try:
                client.connect()
            except ConnectionRefusedError:
                self.refused_count += 1
                return
            except OSError as error:
                self.cut.append((0, error))
                return
            with contextlib.closing(client):
                try:
                    self._fetch(client)
                except (OSError, http.client.HTTPException) as error:
                    self.cut.append((number, error))

    def _fetch(self, client: http.client.HTTPConnection) -> None:
        while not self.stopping.is_set():
            client.request("GET", "/a")
            with client.getresponse() as response:
                assert response.read() == CONTENT
                self.fetched += 1
                if not self.keeps or response.will_close:
                    return


def start(folder: Path) -> Path:
    (folder / "a").write_bytes(CONTENT)
    return folder


def test_workers_share_a_port(backend: str, tmp_path: Path) -> None:
    """N processes, fresh ones, serve one port; the start line comes once they do."""
    with serving(start(tmp_path), backend, ["--workers", "3"]) as served:
        assert f"({backend}, 3 workers)" in served.line
        assert len(workers_of(served)) == 3
        for worker in workers_of(served):
            assert b"--inherited-fd" in Path(f"/proc/{worker}/cmdline").read_bytes()
        with Load(served, 6) as load:
            wait_until(lambda: load.fetched > 100)
        assert load.cut == []
        workers = workers_of(served)
        assert served.stop(signal.SIGTERM) == (0, b"", b"")
        assert not any(Path(f"/proc/{worker}").exists() for worker in workers)


def test_a_killed_worker_is_replaced(backend: str, tmp_path: Path) -> None:
    """SIGKILL under load: another takes its place, and no connection of the others fails."""
    with serving(start(tmp_path), backend, ["--workers", "2"]) as served:
        victim, other = sorted(workers_of(served))
        with Load(served, 6) as load:
            wait_until(lambda: load.fetched > 50)
            theirs = connections_of(victim)
            os.kill(victim, signal.SIGKILL)
            wait_until(lambda: len(workers_of(served) - {victim}) == 2)
            assert other in workers_of(served)
            before = load.fetched
            wait_until(lambda: load.fetched > before + 50)
        # Who was not connected to the victim noticed nothing.
        assert len(load.cut) <= theirs + 1
        status, said, errors = served.stop(signal.SIGTERM)
        assert (status, said) == (0, b"")
        assert errors.startswith(b"uringio serve: worker %d ended (signal 9); " % victim)
        assert errors.count(b"\n") == 1


def connections_of(pid: int) -> int:
    count = 0
    for fd in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            count += os.readlink(fd).startswith("socket:")
    return count


@pytest.mark.parametrize("options", [[], ["--workers", "2"]], ids=["one", "two workers"])
@pytest.mark.parametrize("keeps", [True, False], ids=["kept", "one request each"])
def test_sigterm_cuts_nothing(
    backend: str, tmp_path: Path, options: list[str], *, keeps: bool
) -> None:
    """SIGTERM under load: every request that was accepted gets its whole response."""
    with serving(start(tmp_path), backend, options) as served:
        with Load(served, 8, keeps=keeps) as load:
            wait_until(lambda: load.fetched > 50)
            assert served.stop(signal.SIGTERM) == (0, b"", b"")
        assert load.refused_count == 8
        assert load.cut == []


def test_a_worker_without_its_parent_ends(backend: str, tmp_path: Path) -> None:
    """A parent that is killed cannot tell its workers; they notice, and leave the port."""
    with serving(start(tmp_path), backend, ["--workers", "2"]) as served:
        workers = workers_of(served)
        served.process.kill()
        served.process.wait()
        wait_until(lambda: not any(is_running(worker) for worker in workers))
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((served.host, served.port), timeout=30).close()


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_a_second_signal_ends_at_once(backend: str, tmp_path: Path) -> None:
    """The first SIGINT waits for a client that does not read; the second does not."""
    with (tmp_path / "big").open("wb") as file:
        file.truncate(64 * 1024 * 1024)
    for options in ([], ["--workers", "2"]):
        with (
            serving(tmp_path, backend, ["--grace", "600", *options]) as served,
            socket.create_connection((served.host, served.port), timeout=30) as client,
        ):
            client.sendall(b"GET /big HTTP/1.1\r\nHost: a\r\n\r\n")
            assert client.recv(1) == b"H"
            served.process.send_signal(signal.SIGINT)
            wait_until(lambda served=served: is_refused(served))
            assert served.process.poll() is None
            assert served.stop(signal.SIGINT) == (0, b"", b"")


def is_refused(served: Served) -> bool:
    try:
        socket.create_connection((served.host, served.port), timeout=30).close()
    except ConnectionRefusedError:
        return True
    except ConnectionResetError:
        return False
    return False


def test_workers_that_cannot_begin_are_the_end(tmp_path: Path) -> None:
    """What keeps a worker from beginning keeps the command from beginning."""
    import subprocess
    import sys

    from tests.fresh import FreshPython

    run = subprocess.run(
        [sys.executable, "-m", "uringio", "serve", str(tmp_path / "missing"), "--workers", "2"],
        capture_output=True, timeout=30, check=False, env=FreshPython.environment(),
    )  # fmt: skip
    assert (run.returncode, run.stdout) == (2, b"")
    assert b"No such file or directory" in run.stderr
