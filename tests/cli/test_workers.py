"""Several processes on one port, and the end of one or many under load."""

import contextlib
import ctypes
import errno
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Self

import pytest

from tests.cli.site import Served, serving
from tests.fresh import FreshPython
from uringio.cli import workers
from uringio.cli.workers import stop_listening, turn_away, waits_to_be_accepted

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/fd").exists(), reason="the command asks /proc where files lie"
)

CONTENT = bytes(range(256)) * 4000
PATIENCE_S = 50.0
# A connection on which nothing is asked for so long may be closed at the server's end.
IDLE_S = 0.4


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


class Client:
    """
    A connection of few words, which knows what it was promised.

    Attributes:
        port: Its own end's number.
    """

    def __init__(self, served: Served) -> None:
        self.socket = socket.create_connection((served.host, served.port), timeout=PATIENCE_S)
        self.port: int = self.socket.getsockname()[1]
        self.asked_at = time.monotonic()
        self.is_first = True
        self.answer = bytearray()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def is_closed(self) -> bool:
        """Whether the server has ended the connection, before anything was asked for."""
        return bool(select.select([self.socket], [], [], 0)[0])

    def ask(self, *, last: bool = False) -> None:
        """Send a request."""
        self.socket.sendall(
            b"GET /a HTTP/1.1\r\nHost: a\r\n" + b"Connection: close\r\n" * last + b"\r\n"
        )

    def finish(self) -> bool:
        """Get the whole response; tell whether the connection lasts."""
        answer = self.answer = bytearray()
        while (at := answer.find(b"\r\n\r\n")) < 0 or len(answer) < at + 4 + len(CONTENT):
            data = self.socket.recv(1 << 20)
            if not data:
                raise EOFError(f"the end after {len(answer)} bytes")
            answer += data
        assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
        assert answer.endswith(b"\r\n\r\n" + CONTENT)
        return b"\r\nConnection: close" not in answer[:at]

    def fetch(self, *, last: bool = False) -> bool:
        """Ask and get the response; tell whether the connection lasts."""
        is_first, before, self.asked_at = self.is_first, self.asked_at, time.monotonic()
        self.is_first = False
        self.answer.clear()
        try:
            self.ask(last=last)
            return self.finish()
        except (OSError, EOFError):
            if is_first or self.answer or time.monotonic() - before < IDLE_S:
                raise
            return False  # closed as idle, which this thread was while others ran


class Load:
    """
    Clients that fetch until told to stop, on connections that are kept, or on one after another.

    Attributes:
        fetched: How many responses were whole, of each client.
        failed: The ports of connections that had begun and were cut, with the errors.
        refused_count: How many clients nobody listened to any more, and who have left.
    """

    def __init__(self, served: Served, kept: int, fresh: int = 0) -> None:
        self.served = served
        self.fetched = [0] * (kept + fresh)
        self.refused_count = 0
        self.failed: list[tuple[int, Exception]] = []
        self.stopping = threading.Event()
        self.threads = [
            threading.Thread(target=self._run, args=(number, number < kept))
            for number in range(kept + fresh)
        ]

    def __enter__(self) -> Self:
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stopping.set()
        for thread in self.threads:
            thread.join()

    def wait_for_more(self, count: int = 20) -> None:
        """Return once every client has fetched *count* more times."""
        before = self.fetched.copy()
        wait_until(
            lambda: all(now - then >= count for now, then in zip(self.fetched, before, strict=True))
        )

    def _run(self, number: int, keeps: bool) -> None:
        while not self.stopping.is_set():
            try:
                client = Client(self.served)
            except ConnectionRefusedError:
                self.refused_count += 1
                return
            except OSError as error:
                self.failed.append((0, error))
                return
            with client:
                try:
                    lasts = True
                    while lasts and not self.stopping.is_set() and not client.is_closed():
                        lasts = client.fetch(last=not keeps) and keeps
                        self.fetched[number] += 1
                except (OSError, EOFError) as error:
                    self.failed.append((client.port, error))


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
        with Load(served, 4, 2) as load:
            load.wait_for_more()
        assert load.failed == []
        workers = workers_of(served)
        assert served.stop(signal.SIGTERM) == (0, b"", b"")
        assert not any(Path(f"/proc/{worker}").exists() for worker in workers)


def test_a_killed_worker_is_replaced(backend: str, tmp_path: Path) -> None:
    """
    SIGKILL of each worker under load: others take their place, only their connections are cut.

    A victim is stopped first, so that which connections it has can be known: all that it accepted.
    What waits to be accepted is not lost with it.
    """
    with serving(start(tmp_path), backend, ["--workers", "2"]) as served:
        victims = sorted(workers_of(served))
        theirs: set[int] = set()
        with Load(served, 5, 3) as load:
            load.wait_for_more()
            for victim in victims:
                with stopped_then_killed(victim):
                    theirs |= clients_of(served, victim)
                wait_until(lambda victim=victim: len(workers_of(served) - {victim}) == 2)
                load.wait_for_more()
        assert {port for port, _ in load.failed} <= theirs, load.failed
        assert not workers_of(served) & set(victims)
        status, said, errors = served.stop(signal.SIGTERM)
        assert (status, said) == (0, b"")
        for victim, line in zip(victims, errors.splitlines(), strict=True):
            assert line.startswith(b"uringio serve: worker %d ended (signal 9); " % victim)


def test_what_waits_to_be_accepted_outlives_a_worker(backend: str, tmp_path: Path) -> None:
    """Connections that no worker could accept yet are served by the next one."""
    with serving(start(tmp_path), backend, ["--workers", "2"]) as served, ExitStack() as stack:
        victims = workers_of(served)
        with ExitStack() as killing:
            for victim in victims:
                killing.enter_context(stopped_then_killed(victim))
            clients = [stack.enter_context(Client(served)) for _ in range(20)]
            for client in clients:
                client.ask()
        for client in clients:
            client.finish()
        wait_until(lambda: len(workers_of(served) - victims) == 2)
        assert served.stop(signal.SIGTERM)[:2] == (0, b"")


def may_filter() -> bool:
    """Whether a packet filter can be put on a socket: one that takes everything."""
    everything = ctypes.create_string_buffer(struct.pack("=HBBI", 0x06, 0, 0, 0xFFFFFFFF), 8)
    with socket.socket() as probe:
        try:
            probe.setsockopt(
                socket.SOL_SOCKET, workers._SO_ATTACH_FILTER,
                struct.pack("@HP", 1, ctypes.addressof(everything)),
            )  # fmt: skip
        except PermissionError:
            return False
    return True


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6], ids=["v4", "v6"])
@pytest.mark.parametrize("way", ["filter", "backlog"])
def test_newcomers_are_turned_away_and_nobody_else(
    monkeypatch: pytest.MonkeyPatch, family: socket.AddressFamily, way: str
) -> None:
    """What was connected is accepted and goes on; what comes then never is; the end refuses it."""
    if way == "backlog":
        monkeypatch.setattr(workers, "_SO_ATTACH_FILTER", 0xFFFF)
    elif not may_filter():
        pytest.skip("the kernel keeps packet filters to administrators")
    with ExitStack() as stack:
        listening = stack.enter_context(socket.socket(family))
        try:
            listening.bind(("::1" if family == socket.AF_INET6 else "127.0.0.1", 0))
        except OSError as error:
            pytest.skip(f"this machine has no such address: {error}")
        listening.listen(10)
        address = listening.getsockname()
        before = stack.enter_context(socket.create_connection(address[:2], timeout=PATIENCE_S))
        before.sendall(b"first")
        turn_away(listening)
        late = stack.enter_context(socket.socket(family))
        late.setblocking(False)
        assert late.connect_ex(address) == errno.EINPROGRESS
        assert select.select([], [late], [], 0)[1] == []
        accepted, _ = listening.accept()
        stack.enter_context(accepted)
        before.sendall(b" and second")
        accepted.settimeout(PATIENCE_S)
        assert accepted.recv(16, socket.MSG_WAITALL) == b"first and second"
        accepted.sendall(b"answer")
        assert before.recv(6, socket.MSG_WAITALL) == b"answer"
        if way == "filter":  # else the second try, after a second, finds room
            assert not waits_to_be_accepted(listening)
            assert select.select([], [late], [], 0)[1] == []
        stop_listening(listening)
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(address[:2], timeout=PATIENCE_S)


WORKER = """
import os, signal, sys
os.write(int(sys.argv[-1]), b"name")
os.close(int(sys.argv[-1]))
signal.pause()
"""


def test_a_worker_that_cannot_be_started_is_tried_again(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """When there is no room for another process, the parent and the other workers go on."""
    monkeypatch.setattr(workers, "_BACKOFF_SECONDS_MAX", 0.01)
    started: list[int] = []
    popen = subprocess.Popen

    def start_some(*args: object, **options: object) -> object:
        started.append(0)
        if len(started) in {3, 4}:
            raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        process = popen(*args, **options)  # type: ignore[call-overload]
        started[-1] = process.pid
        return process

    monkeypatch.setattr(workers.subprocess, "Popen", start_some)

    def strike() -> None:
        os.kill(started[0], signal.SIGKILL)
        wait_until(lambda: len(started) == 5 and bool(started[4]))
        os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=strike)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        supervisor = workers.Supervisor(
            [sys.executable, "-S", "-c", WORKER], 2, listening,
            grace_seconds=PATIENCE_S, started=lambda _: thread.start(),
        )  # fmt: skip
        assert supervisor.run() == 0
    thread.join()
    said = capfd.readouterr().err.splitlines()
    line = "uringio serve: no worker could be started ({}); another try in 0.01 s"
    assert said[1:] == [line.format(os.strerror(errno.EAGAIN))] * 2


def test_first_workers_that_cannot_be_started_are_the_end(tmp_path: Path) -> None:
    """One line says that the machine has no room for them."""
    code = """
    import sys
    from unittest import mock
    from uringio.cli import main

    def refuse(*args, **options):
        raise BlockingIOError(11, "Resource temporarily unavailable")

    with mock.patch("uringio.cli.workers.subprocess.Popen", refuse):
        sys.exit(main(["serve", sys.argv[1], "--port", "0", "--workers", "2"]))
    """
    run = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), str(tmp_path)],
        capture_output=True, timeout=50, check=False, env=FreshPython.environment(),
    )  # fmt: skip
    assert (run.returncode, run.stdout) == (2, b"")
    assert run.stderr == (
        b"uringio serve: cannot start 2 workers: Resource temporarily unavailable\n"
    )


@contextlib.contextmanager
def stopped_then_killed(pid: int) -> Iterator[None]:
    """Stop a process for the time of the block, and then kill it."""
    os.kill(pid, signal.SIGSTOP)
    try:
        wait_until(lambda: state_of(pid) == "T")
        yield
    finally:
        os.kill(pid, signal.SIGKILL)


def clients_of(served: Served, pid: int) -> set[int]:
    """The other ends' port numbers of the connections that a process has."""
    inodes = set()
    for fd in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            inodes.add(os.readlink(fd))
    found = set()
    for line in Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]:
        _, local, remote, _, _, _, _, _, _, inode, *_ = line.split()
        if int(local.partition(":")[2], 16) == served.port and f"socket:[{inode}]" in inodes:
            found.add(int(remote.partition(":")[2], 16))
    return found - {0}


@pytest.mark.parametrize("options", [[], ["--workers", "2"]], ids=["one", "two workers"])
def test_sigterm_cuts_nothing(backend: str, tmp_path: Path, options: list[str]) -> None:
    """SIGTERM under load: whoever got a connection gets whole responses; later ones are refused."""
    with serving(start(tmp_path), backend, options) as served:
        with Load(served, 4, 4) as load:
            load.wait_for_more(10)
            assert served.stop(signal.SIGTERM) == (0, b"", b"")
            for thread in load.threads:
                thread.join()
        assert load.refused_count == 8
        assert load.failed == []


@pytest.mark.parametrize("options", [[], ["--workers", "2"]], ids=["one", "two workers"])
def test_sigterm_answers_what_was_pipelined(
    backend: str, tmp_path: Path, options: list[str]
) -> None:
    """Requests that came in one go before the signal are all answered, the last one with close."""
    with serving(start(tmp_path), backend, options) as served, Client(served) as client:
        client.socket.sendall(b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n" * 20)
        answer = bytearray(client.socket.recv(1))  # they are being answered
        served.process.send_signal(signal.SIGTERM)
        wait_until(lambda: is_refused(served))
        while data := client.socket.recv(1 << 20):
            answer += data
        assert served.stop(signal.SIGTERM)[:2] == (0, b"")
    parts = answer.split(b"HTTP/1.1 200 OK\r\n")[1:]
    assert [part.partition(b"\r\n\r\n")[2] == CONTENT for part in parts] == [True] * 20
    assert b"\r\nConnection: close" in parts[-1].partition(b"\r\n\r\n")[0]


def test_a_worker_without_its_parent_ends(backend: str, tmp_path: Path) -> None:
    """A parent that is killed cannot tell its workers; they notice, and leave the port."""
    with serving(start(tmp_path), backend, ["--workers", "2"]) as served:
        workers = workers_of(served)
        served.process.kill()
        served.process.wait()
        wait_until(lambda: all(state_of(worker) in {"", "Z"} for worker in workers))
        wait_until(lambda: is_refused(served))  # a ring lets go of what it held some time later


def state_of(pid: int) -> str:
    """The letter of a process's state, empty when there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return ""


def test_a_second_signal_ends_at_once(backend: str, tmp_path: Path) -> None:
    """The first SIGINT waits for a client that does not read; the second does not."""
    with (tmp_path / "big").open("wb") as file:
        file.truncate(64 * 1024 * 1024)
    for options in ([], ["--workers", "2"]):
        with (
            serving(tmp_path, backend, ["--grace", "600", *options]) as served,
            socket.create_connection((served.host, served.port), timeout=50) as client,
        ):
            client.sendall(b"GET /big HTTP/1.1\r\nHost: a\r\n\r\n")
            assert client.recv(1) == b"H"
            served.process.send_signal(signal.SIGINT)
            wait_until(lambda served=served: is_refused(served))
            assert served.process.poll() is None
            assert served.stop(signal.SIGINT) == (0, b"", b"")


def is_refused(served: Served) -> bool:
    try:
        socket.create_connection((served.host, served.port), timeout=50).close()
    except ConnectionRefusedError:
        return True
    except ConnectionResetError:
        return False
    return False


def test_workers_that_cannot_begin_are_the_end(tmp_path: Path) -> None:
    """What keeps a worker from beginning keeps the command from beginning."""
    run = subprocess.run(
        [sys.executable, "-m", "uringio", "serve", str(tmp_path / "missing"), "--workers", "2"],
        capture_output=True, timeout=50, check=False, env=FreshPython.environment(),
    )  # fmt: skip
    assert (run.returncode, run.stdout) == (2, b"")
    assert b"No such file or directory" in run.stderr
