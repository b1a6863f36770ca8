"""The examples of the asyncio loop: each with the real package, run as a user runs it."""

import hashlib
import http.client
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.fresh import FreshPython
from tests.ports import own_port

FOLDER = Path(__file__).resolve().parents[2] / "examples" / "asyncio"
PATIENCE_S = 50.0


def needs(*names: str) -> pytest.MarkDecorator:
    """Mark a test that needs packages or commands which may not be installed."""
    missing = [
        name
        for name in names
        if shutil.which(name) is None and importlib.util.find_spec(name) is None
    ]
    return pytest.mark.skipif(bool(missing), reason=f"not installed: {', '.join(missing)}")


def python(*arguments: object) -> list[str]:
    return [sys.executable, "-W", "error::ResourceWarning", *map(str, arguments)]


def output(name: str, *arguments: object) -> list[str]:
    """Run an example to its end, which must be a good one, and return its lines."""
    ended = subprocess.run(
        python(FOLDER / name, *arguments),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=FreshPython.environment(),
        timeout=PATIENCE_S,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout
    return ended.stdout.splitlines()


@contextmanager
def running(command: list[str], ready: str) -> Iterator[str]:
    """
    Run a server beside the test until it has been asked to end, which it must do quietly.

    Yields the line that says *ready*.
    """
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=FreshPython.environment(),
        cwd=FOLDER,
        start_new_session=True,
    )
    assert process.stdout is not None
    said = []
    with process:
        try:
            for line in process.stdout:
                said.append(line)
                if ready in line:
                    break
            else:
                pytest.fail("it did not start:\n" + "".join(said))
            yield line
            process.send_signal(signal.SIGTERM)
            rest, _ = process.communicate(timeout=PATIENCE_S)
            assert process.returncode in {0, -signal.SIGTERM}, "".join(said) + rest
            assert "Traceback" not in rest, rest
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)


def port_in(line: str) -> int:
    return int(line.rsplit(maxsplit=1)[-1])


def body(port: int, path: str, method: str = "GET", sent: bytes | None = None) -> bytes:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)
    try:
        connection.request(method, path, sent)
        return connection.getresponse().read()
    finally:
        connection.close()


@needs("anyio")
def test_calls_of_both_kinds_in_one_task() -> None:
    """Anyio's task groups and deadlines, asyncio's streams and uringio's calls, in one program."""
    lines = output("two_schedulers.py", __file__)
    digest = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()
    assert lines == [f"sha256: {digest}", "nobody else came: True"]


@needs("aiohttp")
def test_aiohttp() -> None:
    """Aiohttp's client talks to aiohttp's server on one loop."""
    lines = output("aiohttp_pair.py")
    assert lines[1:] == [f"digest: {hashlib.sha256(b'uringio').hexdigest()[:16]}", "echo: hello"]


@needs("websockets")
def test_websockets() -> None:
    """A hundred clients hear all that they said."""
    assert output("websockets_echo.py")[-1] == "heard: 1000"


@needs("redis", "redis-server")
def test_redis(tmp_path: Path) -> None:
    """Consumers that wait are cancelled, and others add up what producers push."""
    port = own_port()
    server = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", ""]
    with running([*server, "--dir", str(tmp_path)], "Ready to accept connections"):
        lines = output("redis_queue.py", "--port", port)
    assert lines == ["nothing to do yet", f"sum: {sum(range(401))}"]


@needs("fastapi", "uvicorn", "httpx", "httptools")
@pytest.mark.parametrize("http", ["h11", "httptools"])
def test_uvicorn(http: str) -> None:
    """Uvicorn serves FastAPI on our loop with either parser, and httpx fetches from it."""
    command = python("web.py", "--port", 0, "--http", http)
    with running(command, "listening on") as line:
        port = port_in(line)
        assert body(port, "/") == b'{"loop":"uringio.aio.loop"}'
        sent = bytes(300_000)
        digest = hashlib.sha256(sent).hexdigest()
        assert digest.encode() in body(port, "/digest", "POST", sent)
        urls = [f"http://127.0.0.1:{port}/{path}" for path in ("count/1000", "thread", "wait/1")]
        lines = output("httpx_fetch.py", *urls)
    assert lines == [f"200 3890 {urls[0]}", f"200 19 {urls[1]}", f"200 12 {urls[2]}"]


@needs("fastapi", "gunicorn")
def test_gunicorn() -> None:
    """Gunicorn's worker for ASGI runs on our loop when it is told so."""
    command = python("-m", "gunicorn", "--worker-class", "gunicorn_worker.UringioWorker")
    command += ["--bind", "127.0.0.1:0", "--no-control-socket", "web:app"]
    with running(command, "ASGI server listening on") as line:
        assert body(int(line.rpartition(":")[2]), "/") == b'{"loop":"uringio.aio.loop"}'


@needs("pytest_asyncio")
def test_pytest_asyncio() -> None:
    """Tests by pytest-asyncio run on our loop."""
    ended = subprocess.run(
        python("-m", "pytest", "-q", "-p", "no:cacheprovider", "."),
        capture_output=True,
        text=True,
        env=FreshPython.environment(),
        cwd=FOLDER / "testing_with_pytest",
        timeout=PATIENCE_S,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout
    assert "1 passed" in ended.stdout
