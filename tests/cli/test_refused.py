"""
The commands where io_uring is refused for real, as first-time users meet them.

The folder is served all the same, what is printed says on what and why, and who insists on io_uring
is told in one line why not.
"""

import errno
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.refused import ENTER, REGISTER, SETUP, as_anybody, locked_to, refusing, under
from tests.cli.site import Served, serving
from tests.fresh import FreshPython
from tests.marks import needs_uring
from uringio.cli.workers import Word

ROOT = Path(__file__).parent.parent.parent
LOCKED_BYTES = 64 * 1024

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="seccomp is Linux's")


@pytest.fixture(autouse=True)
def no_opinion(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have nothing in the environment choose."""
    monkeypatch.delenv("URINGIO_BACKEND", raising=False)


def folder(tmp_path: Path) -> Path:
    tmp_path.chmod(0o755)
    (tmp_path / "a.txt").write_bytes(b"the file a\n" * 1000)
    return tmp_path


def check_pages(served: Served) -> None:
    """Fetch a file, a listing and what is not there."""
    status, body, _ = served.get("/a.txt")
    assert (status, body) == (200, b"the file a\n" * 1000)
    status, body, _ = served.get("/")
    assert status == 200
    assert b"a.txt" in body
    assert served.get("/none")[0] == 404


def run(*prefix: str, command: list[str], **env: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [*prefix, sys.executable, "-W", "error", "-m", "uringio", *command],
        env=FreshPython.environment(env),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )


@needs_uring
@pytest.mark.parametrize("error", [errno.EPERM, errno.ENOSYS])
def test_served_where_a_filter_refuses(tmp_path: Path, error: int) -> None:
    """`serve` serves on epoll, says so and why on its one line, and ends in order by SIGTERM."""
    with serving(folder(tmp_path), "auto", prefix=under(error)) as served:
        reason = f"(epoll, since a seccomp filter forbids io_uring: {errno.errorcode[error]})"
        assert reason in served.line
        check_pages(served)
        targets = served.fd_targets()
        assert "anon_inode:[eventpoll]" in targets
        assert "anon_inode:[io_uring]" not in targets
        assert served.stop(signal.SIGTERM) == (0, b"", b"")


@needs_uring
def test_workers_where_a_filter_refuses(tmp_path: Path) -> None:
    """Workers inherit the filter; the parent's line tells what they found."""
    with serving(folder(tmp_path), "auto", ["--workers", "2"], prefix=under(1)) as served:
        assert "(epoll, since a seccomp filter forbids io_uring: EPERM, 2 workers)" in served.line
        check_pages(served)
        assert served.stop(signal.SIGTERM) == (0, b"", b"")


@needs_uring
@pytest.mark.parametrize(
    ("options", "env"),
    [
        (["--backend", "uring"], {}),
        (["--backend", "uring", "--workers", "2"], {}),
        ([], {"URINGIO_BACKEND": "uring"}),
    ],
    ids=["option", "workers", "environment"],
)
def test_who_insists_on_io_uring_is_told(
    tmp_path: Path, options: list[str], env: dict[str, str]
) -> None:
    """One line on standard error, however many workers: why, who asked, what to do; status 2."""
    command = ["serve", str(tmp_path), "--port", "0", *options]
    ended = run(*under(errno.EPERM), command=command, **env)
    who = "URINGIO_BACKEND" if env else "--backend"
    assert ended.stderr == (
        f"uringio serve: a seccomp filter forbids io_uring: EPERM. {who} asks for it; auto would "
        "take another backend. 'uringio probe' says what would help\n"
    )
    assert (ended.returncode, ended.stdout) == (2, "")


@needs_uring
def test_copying_where_a_filter_refuses(tmp_path: Path) -> None:
    """`cp` copies without a word; told to use io_uring, it refuses in one line."""
    source, target = folder(tmp_path) / "a.txt", tmp_path / "b.txt"
    prefix = under(errno.ENOSYS)
    ended = run(*prefix, command=["cp", "--quiet", str(source), str(target)])
    assert (ended.returncode, ended.stderr) == (0, "")
    assert target.read_bytes() == source.read_bytes()
    ended = run(*prefix, command=["cp", "--backend", "uring", str(source), str(tmp_path / "c")])
    assert ended.returncode == 2
    assert re.fullmatch(r"uringio cp: a seccomp filter forbids.*ENOSYS.*\n", ended.stderr)


@needs_uring
def test_programs_where_a_filter_refuses(fresh_python: FreshPython) -> None:
    """
    Both schedulers run on epoll; where the program insists, the error is the whole story.

    Neither a coroutine that was never awaited nor a task that was destroyed is told of behind it.
    """
    before = refusing([SETUP, ENTER, REGISTER], errno.EPERM)
    program = """
import sys
import uringio
from uringio import aio
from uringio._driver import current

async def main():
    await uringio.sleep(0)
    return current.driver()

for driver in (uringio.run(main), aio.run(main())):
    assert driver.name == "epoll"
    assert driver.refusal.errno == 1
assert uringio.run(main, backend="epoll").refusal is None
if sys.argv[1:]:
    aio.run(main(), backend="uring")
else:
    uringio.run(main, backend="uring")
"""
    for arguments in ((), ("aio",)):
        ended = fresh_python(before + program, *arguments)
        assert ended.returncode == 1
        *_, last = ended.stderr.splitlines()
        assert last.startswith("uringio.errors.RingError: [Errno 1] io_uring_setup failed")
        assert ended.stderr.count("Error:") == 1, ended.stderr
        assert "never awaited" not in ended.stderr


@needs_uring
@pytest.mark.skipif(shutil.which("make") is None, reason="no make")
def test_make_run_with_io_uring_refused(tmp_path: Path) -> None:
    """`make run BACKEND=uring` says nothing but why not, beside make's own word that it failed."""
    tools = tmp_path / "env" / "bin"
    tools.mkdir(parents=True)
    command = tools / "uringio"
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m uringio "$@"\n', encoding="utf-8")
    command.chmod(0o755)
    (tools.parent / ".run").touch()
    make = shutil.which("make") or ""
    ended = subprocess.run(
        [*under(errno.EPERM), make, "--no-print-directory", "-C", str(ROOT), "run",
         "BACKEND=uring", "PORT=0", f"ENV={tools.parent}", f"DIR={tmp_path}",
         f"PYTHON={sys.executable}"],
        env={**FreshPython.environment(), "LC_ALL": "C", "MAKEFLAGS": "", "MAKELEVEL": ""},
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )  # fmt: skip
    assert ended.returncode == 2
    assert ended.stdout == ""
    first, *others = ended.stderr.splitlines()
    assert first.startswith("uringio serve: a seccomp filter forbids io_uring: EPERM.")
    assert len(others) == 1, ended.stderr
    assert others[0].startswith("make: ***")


# --- little memory that may be locked ------------------------------------------------------------


def rings_count_as_locked() -> bool:
    """Whether this kernel counts rings against RLIMIT_MEMLOCK."""
    return not (5, 12) <= tuple(map(int, os.uname().release.split(".")[:2])) < (6, 14)


@needs_uring
def test_served_with_64_kib_of_locked_memory(tmp_path: Path) -> None:
    """An ordinary user's server serves on io_uring; what is made smaller is told of."""
    site = folder(tmp_path)
    prefix = [*as_anybody(), *locked_to(LOCKED_BYTES)]
    try:
        with serving(site, "auto", prefix=prefix, warnings="default") as served:
            assert "(uring)" in served.line
            check_pages(served)
            status, _, errors = served.stop(signal.SIGTERM)
    except AssertionError as error:
        # All of a user's rings count, and who is not root has those of these tests beside it.
        if os.geteuid() == 0 or "leaves no room for a ring: ENOMEM" not in str(error):
            raise
    else:
        assert status == 0
        assert not errors or b"RuntimeWarning: the ring has" in errors


@needs_uring
@pytest.mark.skipif(not rings_count_as_locked(), reason="this kernel does not count rings")
@pytest.mark.skipif(os.geteuid() != 0, reason="this user's other rings count too")
def test_a_limit_that_makes_the_ring_smaller(tmp_path: Path) -> None:
    """
    With half of that the ring has 64 slots: the server says so, serves, and the probe explains.

    With less than a ring needs, neither goes on in silence on another backend.
    """
    site = folder(tmp_path)
    pages_bytes = 4 * os.sysconf("SC_PAGE_SIZE")  # two for requests, one for completions, buffers
    prefix = [*as_anybody(), *locked_to(2 * pages_bytes)]
    with serving(site, "auto", prefix=prefix, warnings="default") as served:
        assert "(uring)" in served.line
        check_pages(served)
        status, _, errors = served.stop(signal.SIGTERM)
    assert status == 0
    assert re.search(rb"RuntimeWarning: the ring has 64 submission slots.*RLIMIT_MEMLOCK", errors)

    ended = run(*as_anybody(), *locked_to(2 * pages_bytes), command=["probe"])
    assert (ended.returncode, ended.stderr) == (0, "")
    words = " ".join(ended.stdout.split())
    assert "smaller than usual, since little memory may be locked (ulimit -l)" in words
    assert "64 submissions" in words

    none = [*as_anybody(), *locked_to(os.sysconf("SC_PAGE_SIZE"))]
    ended = run(*none, command=["serve", str(site), "--port", "0"])
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr == (
        "uringio serve: the limit of locked memory (ulimit -l) leaves no room for a ring: ENOMEM. "
        "'uringio probe' says what would help\n"
    )
    ended = run(*none, command=["probe"])
    assert ended.returncode == 2
    assert "Rings count as locked memory here" in ended.stdout


# --- a worker's word -----------------------------------------------------------------------------


def test_a_word_is_given_once() -> None:
    """The pipe gets it whole and is closed; who has no parent, or one that has gone, is told."""
    read_fd, write_fd = os.pipe()
    word = Word(write_fd)
    assert word.give("uring")
    assert os.read(read_fd, 100) == b"uring"
    assert os.read(read_fd, 100) == b""
    os.close(read_fd)
    assert not word.give("again")
    assert not Word(None).give("uring")
    read_fd, write_fd = os.pipe()
    os.close(read_fd)
    assert not Word(write_fd).give("uring")
    with pytest.raises(OSError, match="Bad file"):
        os.fstat(write_fd)


# --- the recipe ----------------------------------------------------------------------------------


def test_the_recipe_for_a_profile_is_json() -> None:
    """What docs/backends.md has people add to a seccomp profile names the three calls."""
    page = ROOT / "docs" / "backends.md"
    if not page.exists():
        pytest.skip("no documents beside the tests")
    text = page.read_text(encoding="utf-8")
    (block,) = re.findall(r"(?s)```json\n(.*?)```", text)
    rule = json.loads(block)
    assert rule["action"] == "SCMP_ACT_ALLOW"
    assert rule["names"] == ["io_uring_setup", "io_uring_enter", "io_uring_register"]
    (command,) = re.findall(r"(?s)jq '\.syscalls \+= (\[.*?\])' default\.json", text)
    assert json.loads(command) == [rule]


@pytest.mark.parametrize(
    ("limit_count", "command"),
    [
        (5, ["serve", "--backend=epoll", "--port=0"]),  # none for the driver's pipe
        (9, ["serve", "--backend=epoll", "--port=0"]),  # none for that of the signals
        (5, ["cp", "--backend=epoll", __file__, os.devnull]),
    ],
)
def test_too_few_descriptors_to_begin_with(limit_count: int, command: list[str]) -> None:
    """One line that says what is missing, whatever it was missing for."""
    limited = ("/bin/sh", "-c", f'ulimit -n {limit_count}; exec "$@"', "sh")
    done = run(*limited, command=command)
    words = "there are too few descriptors to begin with (ulimit -n): EMFILE"
    assert (done.returncode, done.stderr) == (2, f"uringio {command[0]}: {words}\n")
