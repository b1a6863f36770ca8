"""The examples of the bare ring, run as a user runs them."""

import errno
import importlib.util
import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import pytest

from tests.cli.refused import SETUP, refusing
from tests.fresh import FreshPython
from tests.marks import needs_uring

FOLDER = Path(__file__).resolve().parents[2] / "examples" / "lowlevel"
NAMES = sorted(path.stem for path in FOLDER.glob("*.py"))
PATIENCE_S = 50.0
INTERRUPTED = 130


def command(name: str, *arguments: object) -> list[str]:
    options = ["-W", "error", "-X", "faulthandler"]
    return [sys.executable, *options, str(FOLDER / f"{name}.py"), *map(str, arguments)]


def run(
    name: str, *arguments: object, given: bytes | None = None
) -> subprocess.CompletedProcess[bytes]:
    """Run an example to its end."""
    return subprocess.run(
        command(name, *arguments),
        input=given,
        stdin=subprocess.DEVNULL if given is None else None,
        capture_output=True,
        env=FreshPython.environment(),
        timeout=PATIENCE_S,
        check=False,
    )


def output(name: str, *arguments: object) -> list[str]:
    """Run an example that succeeds, and return its lines."""
    ended = run(name, *arguments)
    assert (ended.returncode, ended.stderr) == (0, b"")
    return ended.stdout.decode().splitlines()


@contextmanager
def running(name: str, *arguments: object) -> Iterator["subprocess.Popen[str]"]:
    """Run an example beside the test; it is gone when the block is left."""
    process = subprocess.Popen(
        command(name, *arguments),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=FreshPython.environment(),
        start_new_session=True,
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def line(process: "subprocess.Popen[str]") -> str:
    """Wait for a line of what it prints."""
    assert process.stdout is not None
    return process.stdout.readline().rstrip("\n")


def interrupt(process: "subprocess.Popen[str]") -> None:
    """Press Ctrl-C when it waits: it must end at once and quietly."""
    # Python does not end a wait for a signal that came just before it.
    stat = Path(f"/proc/{process.pid}/task/{process.pid}/stat")
    deadline = time.monotonic() + PATIENCE_S
    while stat.read_text().rpartition(")")[2].split()[0] != "S":
        assert time.monotonic() < deadline, "it does not wait"
        os.sched_yield()
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, stderr) == (INTERRUPTED, "")


def loaded(name: str) -> ModuleType:
    """Import an example, for what cannot be brought about from outside."""
    spec = importlib.util.spec_from_file_location(f"example_{name}", FOLDER / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def some_bytes(count: int) -> bytes:
    return random.Random(count).randbytes(count)


# --- all of them ---------------------------------------------------------------------------------

# What each is refused for, and what it is given where that is right.
WRONG: dict[str, tuple[str, ...]] = {
    "cat": (),
    "cp": ("one",),
    "echo": ("--port", "65536"),
    "message": ("46341",),
    "sandbox": (),
    "wait": ("--seconds", "0", "true"),
    "watch": (".", "--events", "0"),
}
RIGHT: dict[str, tuple[str, ...]] = {
    "cat": (os.devnull,),
    "cp": (os.devnull, "copy"),
    "echo": ("--port", "0"),
    "message": ("1",),
    "sandbox": (os.devnull,),
    "wait": ("true",),
    "watch": (".",),
}

# One after another in one interpreter, each as a program; a line of JSON for how each ended.
ONE_BY_ONE = """
import contextlib, io, json, os, runpy, sys
folder = sys.argv[1]
for name, arguments in json.loads(sys.argv[2]).items():
    sys.argv[:] = [os.path.join(folder, name + ".py"), *arguments]
    status, out, err = 0, io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            runpy.run_path(sys.argv[0], run_name="__main__")
        except SystemExit as request:
            status = request.code
    print(json.dumps([name, status, err.getvalue()]))
"""


def one_by_one(
    python: FreshPython, before: str, arguments: dict[str, tuple[str, ...]], cwd: Path
) -> Iterator[tuple[str, object, str]]:
    """Run them all; yield their names, what they ended with, and what they complained of."""
    assert sorted(arguments) == NAMES
    ended = python(before + ONE_BY_ONE, str(FOLDER), json.dumps(arguments), cwd=cwd).check()
    assert ended.stderr == ""
    told = [json.loads(one) for one in ended.stdout.splitlines() if one.startswith("[")]
    assert len(told) == len(NAMES)
    yield from ((name, status, complaint) for name, status, complaint in told)


def test_wrong_arguments_are_told_in_words(fresh_python: FreshPython, tmp_path: Path) -> None:
    """Usage and a reason on standard error, status 2."""
    for name, status, complaint in one_by_one(fresh_python, "", WRONG, tmp_path):
        assert status == 2
        assert complaint.startswith(f"usage: {name}.py ")
        assert f"{name}.py: error: " in complaint


@needs_uring
def test_without_io_uring_each_says_why(fresh_python: FreshPython, tmp_path: Path) -> None:
    """They end with one line: their name, what was refused and what may help."""
    before = refusing([SETUP], errno.EPERM)
    for name, status, complaint in one_by_one(fresh_python, before, RIGHT, tmp_path):
        assert complaint == ""  # the interpreter prints it, and ends with status 1
        assert isinstance(status, str)
        assert status.startswith(f"{name}: ")
        assert "io_uring is blocked here" in status
    assert not (tmp_path / "copy").exists()


def test_the_index_names_them_all() -> None:
    """examples/README.md links each program, and nothing that is not there."""
    text = (FOLDER.parent / "README.md").read_text(encoding="utf-8")
    assert sorted(re.findall(r"\(lowlevel/(\w+)\.py\)", text)) == NAMES
    for path in FOLDER.glob("*.py"):
        source = path.read_text(encoding="utf-8")
        assert f"python examples/lowlevel/{path.name} " in source
        assert "\nShows: " in source
        assert os.access(path, os.X_OK)


# --- each of them --------------------------------------------------------------------------------


@needs_uring
def test_cat(tmp_path: Path) -> None:
    """Files of all sizes one after another, and what has no size: every byte in its place."""
    sizes = [0, 5, 64 * 1024, (1 << 20) + 77]
    paths = [tmp_path / str(size) for size in sizes]
    for path, size in zip(paths, sizes, strict=True):
        path.write_bytes(some_bytes(size))
    ended = run("cat", *paths, "/dev/stdin", "/proc/version", given=some_bytes(300_000))
    assert ended.stderr == b""
    expected = [*map(some_bytes, sizes), some_bytes(300_000), Path("/proc/version").read_bytes()]
    assert ended.stdout == b"".join(expected)


@needs_uring
def test_cat_of_what_is_not_there(tmp_path: Path) -> None:
    """The name and the reason, in one line."""
    ended = run("cat", tmp_path / "none")
    assert ended.returncode == 1
    assert ended.stderr.decode() == f"cat: [Errno 2] No such file or directory: '{tmp_path}/none'\n"


@needs_uring
def test_cat_is_interrupted(tmp_path: Path) -> None:
    """While it waits for a pipe that nobody writes to, Ctrl-C ends it."""
    path = tmp_path / "pipe"
    os.mkfifo(path)
    with running("cat", path) as process, path.open("w") as writer:
        writer.write("x")
        writer.flush()
        interrupt(process)


@needs_uring
def test_cat_into_a_pager_that_was_left(tmp_path: Path) -> None:
    """When nobody reads any more it ends, and has nothing to say."""
    path = tmp_path / "large"
    path.write_bytes(bytes(4 << 20))
    with running("cat", path) as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.wait(PATIENCE_S) == 1
        assert process.stderr is not None
        assert process.stderr.read() == ""


@needs_uring
@pytest.mark.parametrize("size", [0, 1, 3 * 128 * 1024, (2 << 20) + 17])
def test_cp(tmp_path: Path, size: int) -> None:
    """The copy is the file, whatever stood in its place before."""
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(some_bytes(size))
    target.write_bytes(bytes(3 << 20))
    assert output("cp", source, target) == []
    assert target.read_bytes() == some_bytes(size)


def test_cp_refuses_to_empty_what_it_copies(tmp_path: Path) -> None:
    """A file is not copied onto itself, by whatever name."""
    path, other = tmp_path / "file", tmp_path / "link"
    path.write_bytes(b"content")
    other.symlink_to(path)
    ended = run("cp", path, other)
    assert (ended.returncode, path.read_bytes()) == (1, b"content")
    assert ended.stderr.decode().startswith("cp: ")
    assert "same file" in ended.stderr.decode()


def test_cp_follows_broken_links() -> None:
    """Whatever the results of a pair: what is left is told, and the ends of files are errors."""
    cp = loaded("cp")
    piece = cp.Piece(100, 50)
    assert cp.not_copied(piece, 50, 50) == []
    assert cp.not_copied(piece, 50, 20) == [(120, 30)]
    assert cp.not_copied(piece, 20, -125) == [(120, 30), (100, 20)]
    with pytest.raises(OSError, match="shorter"):
        cp.not_copied(piece, 0, -125)
    with pytest.raises(OSError, match="No space left"):
        cp.not_copied(piece, 50, -28)
    with pytest.raises(OSError, match="Input/output error"):
        cp.not_copied(piece, -5, -125)


@needs_uring
def test_echo() -> None:
    """Fifty connections at once get back what they sent; Ctrl-C ends the server."""
    with running("echo", "--port", 0) as process:
        port = int(line(process).rpartition(" ")[2])
        sockets = [
            socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S) for _ in range(50)
        ]
        for number, one in enumerate(sockets):
            one.sendall(some_bytes(30_000 + number))
            one.shutdown(socket.SHUT_WR)
        for number, one in enumerate(sockets):
            with one, one.makefile("rb") as file:
                assert file.read() == some_bytes(30_000 + number)
        with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S) as idle:
            idle.sendall(b"x")
            assert idle.recv(10) == b"x"
            interrupt(process)
            assert idle.recv(10) == b""


@needs_uring
def test_echo_survives_a_peer_that_vanishes() -> None:
    """A connection that is reset ends alone."""
    with running("echo", "--port", 0) as process:
        address = ("127.0.0.1", int(line(process).rpartition(" ")[2]))
        with socket.create_connection(address, timeout=PATIENCE_S) as gone:
            gone.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            gone.sendall(bytes(1000))
        with socket.create_connection(address, timeout=PATIENCE_S) as one:
            one.sendall(b"still there?")
            assert one.recv(100) == b"still there?"


@needs_uring
def test_watch(tmp_path: Path) -> None:
    """What happens to names is told in order; it ends by itself after so many events."""
    with running("watch", tmp_path, "--events", 4) as process:
        assert line(process) == f"watching {tmp_path}"
        (tmp_path / "one").mkdir()
        (tmp_path / "one").rename(tmp_path / "two")
        (tmp_path / "two").rmdir()
        stdout, stderr = process.communicate(timeout=PATIENCE_S)
    assert stdout.splitlines() == [
        "created one/",
        "moved away one/",
        "moved here two/",
        "deleted two/",
    ]
    assert (process.returncode, stderr) == (0, "")


@needs_uring
def test_watch_loses_nothing(tmp_path: Path) -> None:
    """More events at once than the provided buffers hold: each is told once, in order."""
    count = 2000
    with running("watch", tmp_path, "--events", count) as process:
        line(process)
        os.kill(process.pid, signal.SIGSTOP)  # so that they pile up
        names = [f"{number:04}-{'x' * 60}" for number in range(count)]
        for name in names:
            (tmp_path / name).symlink_to("nowhere")
        os.kill(process.pid, signal.SIGCONT)
        stdout, _ = process.communicate(timeout=PATIENCE_S)
    assert stdout.splitlines() == [f"created {name}" for name in names]


@needs_uring
def test_watch_ends(tmp_path: Path) -> None:
    """By Ctrl-C, or when there is no folder to watch any more; a file is none."""
    with running("watch", tmp_path) as process:
        line(process)
        interrupt(process)
    folder = tmp_path / "folder"
    folder.mkdir()
    with running("watch", folder) as process:
        line(process)
        folder.rmdir()
        assert line(process) == "is gone: the folder itself"
        assert process.wait(PATIENCE_S) == 0
    ended = run("watch", __file__)
    assert ended.returncode == 1
    assert ended.stderr.startswith(b"watch: [Errno 20] Not a directory")


@needs_uring
def test_sandbox(tmp_path: Path) -> None:
    """What is allowed is done, all else refused, by the kernel's word for it."""
    path = tmp_path / "file"
    path.write_text("mine\nand more")
    lines = output("sandbox", path)
    assert re.fullmatch(r"read the file +13 bytes", lines[0])
    assert [told.rpartition("  ")[2].strip() for told in lines[1:6]] == ["Permission denied"] * 5
    assert lines[6:] == ["The file begins: mine"]
    assert path.read_text() == "mine\nand more"


@needs_uring
def test_sandbox_is_interrupted(tmp_path: Path) -> None:
    """A read that waits on a pipe can be cancelled in spite of the restrictions."""
    path = tmp_path / "pipe"
    os.mkfifo(path)
    with running("sandbox", path) as process, path.open("w"):
        interrupt(process)


@needs_uring
def test_message() -> None:
    """Each number's square comes back from the other thread's ring."""
    assert output("message", 0, 7, 46340) == [
        "0 squared is 0",
        "7 squared is 49",
        "46340 squared is 2147395600",
    ]
    with running("message", *range(10_000)) as process:
        assert line(process) == "0 squared is 0"
        interrupt(process)


@needs_uring
def test_wait() -> None:
    """Every end is told, by status or signal, and the failures are counted."""
    ended = run("wait", "--seconds", "1000", "exit 0", "exit 3", "kill -9 $$", "true")
    assert (ended.returncode, ended.stderr) == (2, b"")
    told = sorted(
        re.sub(r" after \d+\.\d\d s", "", one) for one in ended.stdout.decode().split("\n")
    )
    assert told == ["", "exit 0: exit 0", "exit 0: true", "exit 3: exit 3", "signal 9: kill -9 $$"]


@needs_uring
def test_wait_gives_up() -> None:
    """What takes too long is killed, and its end told like any other."""
    ended = run("wait", "--seconds", "0.05", "exec sleep 1000")
    assert ended.returncode == 1
    assert re.fullmatch(r"signal 9 after \d+\.\d\d s: exec sleep 1000\n", ended.stdout.decode())


@needs_uring
def test_wait_is_interrupted() -> None:
    """Ctrl-C leaves no process behind."""
    with running("wait", "echo $$; exec sleep 1000") as process:
        child = int(line(process))
        interrupt(process)
    with pytest.raises(ProcessLookupError):
        os.kill(child, 0)
