"""`uringio cp` as its users have it: what is copied to where, what is said, what is left."""

import contextlib
import errno
import os
import pty
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.fresh import FreshPython
from uringio._sys.system import System
from uringio.cli import main
from uringio.cli.meter import amount
from uringio.cli.quoting import quoted

MIB = 1 << 20
IS_ROOT = os.geteuid() == 0


@pytest.fixture(autouse=True)
def inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every test use short names, and none wait for what others write to the disk."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "sync", lambda: None)


@pytest.fixture
def cp(backend: str, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, list[str]]]:
    """Return what runs the command: arguments in, status and lines on standard error out."""

    def run(*arguments: str | Path) -> tuple[int, list[str]]:
        status = main(["cp", f"--backend={backend}", *map(str, arguments)])
        said = capsys.readouterr()
        assert said.out == ""
        return status, said.err.splitlines()

    return run


Cp = Callable[..., tuple[int, list[str]]]


def looks(top: Path) -> dict[str, object]:
    """Describe a tree, by name, with everything that a copy keeps."""
    found: dict[str, object] = {}
    firsts: dict[int, str] = {}
    for path in sorted([top, *top.rglob("*")]):
        status = path.lstat()
        name = str(path.relative_to(top))
        content: object = None
        if stat.S_ISREG(status.st_mode):
            content = path.read_bytes()
        elif stat.S_ISLNK(status.st_mode):
            content = os.readlink(path)
        twin = firsts.setdefault(status.st_ino, name) if not path.is_dir() else None
        found[name] = (status.st_mode, status.st_mtime_ns, status.st_uid, content, twin)
    return found


@pytest.fixture
def tree() -> Path:
    """Make a tree of everything: links of both kinds, odd names, a FIFO, a socket, modes, times."""
    top = Path("tree")
    (top / "sub" / "empty").mkdir(parents=True)
    for number, size in enumerate((0, 1, 70_000, 300_000, 5 * MIB)):
        path = top / "sub" / f"file-{number}"
        path.write_bytes(os.urandom(size))
        path.chmod((0o644, 0o600, 0o755, 0o444, 0o640)[number])
        os.utime(path, ns=(10**18 + number, 15 * 10**17 + number))
    (top / os.fsdecode(b"odd \xff\nname")).write_bytes(b"odd")
    (top / "-rf").write_bytes(b"dash")
    os.link(top / "sub" / "file-2", top / "twin")
    os.link(top / "sub" / "file-4", top / "large twin")
    (top / "link").symlink_to("sub")
    (top / "broken").symlink_to("nothing")
    os.mkfifo(top / "fifo", 0o620)
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(top / "socket"))
    os.utime(top / "link", ns=(1, 2), follow_symlinks=False)
    (top / "sub").chmod(0o555)
    os.utime(top / "sub", ns=(10**18, 10**18 + 7))
    return top


def test_trees_arrive_with_all_that_they_are(cp: Cp, tree: Path) -> None:
    """Bytes, modes, times to the nanosecond, links, hard links, FIFOs, sockets, odd names."""
    before = looks(tree)
    assert cp("tree", "copy") == (0, [])
    assert looks(Path("copy")) == before == looks(tree)
    Path("copy/sub").chmod(0o755)  # or only root could replace what is in it
    assert cp("--verify", "tree/.", "copy") == (0, [])  # once more, over what is there
    assert looks(Path("copy")) == before


def test_destinations_mean_what_they_mean_to_cp(cp: Cp) -> None:
    """Into a folder by the source's name, by a new name, by a dot; several into a folder."""
    Path("a").write_bytes(b"a")
    Path("b").write_bytes(b"b")
    Path("folder/in").mkdir(parents=True)
    Path("folder/in/deep").write_bytes(b"d")
    Path("into").mkdir()
    Path("way").symlink_to("into")
    assert cp("a", "new") == (0, [])
    assert cp("a", "b", "folder", "way/") == (0, [])
    assert cp("folder/", "into/renamed") == (0, [])
    assert cp("folder/.", "into") == (0, [])
    assert Path("new").read_bytes() == b"a"
    found = {str(path) for path in Path("into").rglob("*") if path.is_file()}
    assert found == {
        "into/a", "into/b", "into/folder/in/deep", "into/renamed/in/deep", "into/in/deep",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("missing", "new"), "cannot copy 'missing': No such file or directory"),
        (("file", "no/where"), "cannot copy 'file' to 'no/where': No such file or directory"),
        (("file", "file"), "'file' and 'file' are the same file"),
        (("file", "twin"), "'file' and 'twin' are the same file"),
        (("file", "link"), "'file' and 'link' are the same file"),
        (("folder", "other"), "cannot overwrite non-directory 'other' with directory 'folder'"),
        (("file", "parent"), "cannot overwrite directory 'parent/file' with non-directory 'file'"),
        (("folder", "folder"), "cannot copy 'folder' to 'folder/folder': the target is inside of "),
        (("folder", "folder/sub/new"), "cannot copy 'folder' to 'folder/sub/new': the target is "),
        (("file", "new/"), "cannot create 'new/': Not a directory"),
        (("file", ""), "cannot create '': No such file or directory"),
        (("file/", "new"), "cannot copy 'file/': Not a directory"),
        (("file", "other", "new"), "target 'new': No such file or directory"),
        (("file", "folder", "other"), "target 'other': Not a directory"),
        (("file", "fifo"), "cannot copy 'file' to 'fifo': the target is neither file, folder nor"),
        (("file", "dangling"), "not writing through dangling symlink 'dangling'"),
    ],
)
def test_what_cannot_be_is_told_in_one_line(cp: Cp, arguments: tuple[str, ...], line: str) -> None:
    """Status 1, one line, nothing made and nothing changed."""
    Path("file").write_bytes(b"precious")
    Path("other").write_bytes(b"other")
    Path("folder/sub").mkdir(parents=True)
    Path("parent/file").mkdir(parents=True)
    os.link("file", "twin")
    Path("link").symlink_to("file")
    Path("dangling").symlink_to("nothing")
    os.mkfifo("fifo")
    before = sorted(map(str, Path().rglob("*")))
    status, lines = cp(*arguments)
    assert (status, len(lines)) == (1, 1)
    assert lines[0].startswith(f"uringio cp: {line}")
    assert sorted(map(str, Path().rglob("*"))) == before
    assert Path("file").read_bytes() == b"precious"


def test_what_fails_does_not_keep_the_rest_from_being_copied(
    cp: Cp, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each failure is one line with both names; everything else arrives."""
    real = System.copy_small

    def fail_some(draft: object, *rest: object) -> int:
        if draft.name.startswith(b"odd"):  # type: ignore[attr-defined]
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return real(draft, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(System, "copy_small", staticmethod(fail_some))
    Path("a").write_bytes(b"a")
    Path("into").mkdir()
    status, lines = cp("missing", "tree", "a", "into")
    assert status == 1
    assert lines == [
        "uringio cp: cannot copy 'missing': No such file or directory",
        "uringio cp: cannot copy $'tree/odd \\xff\\nname': Input/output error",
    ]
    expected = looks(tree)
    del expected[os.fsdecode(b"odd \xff\nname")]
    assert looks(Path("into/tree")) == expected
    assert Path("into/a").read_bytes() == b"a"


def test_existing_files_are_replaced_and_links_not_followed(cp: Cp, tree: Path) -> None:
    """A file that is replaced keeps its other names; a link in a tree is never written through."""
    Path("into/tree/sub").mkdir(parents=True)
    Path("outside").write_bytes(b"stays")
    os.link("outside", "into/tree/-rf")
    Path("into/tree/twin").symlink_to("../../outside")
    Path("into/tree/sub/file-0").symlink_to("../../../outside")
    Path("into/tree/link").write_bytes(b"becomes a link")
    assert cp("tree", "into") == (0, [])
    assert looks(Path("into/tree")) == looks(tree)
    assert Path("outside").read_bytes() == b"stays"


def test_one_name_is_not_copied_over_another(cp: Cp) -> None:
    """Two sources of one name: the second is refused, the first kept."""
    for name in ("x/same", "y/same", "into/other"):
        Path(name).parent.mkdir()
        Path(name).write_bytes(name.encode())
    status, lines = cp("x/same", "y/same", "into")
    assert status == 1
    assert lines == ["uringio cp: will not overwrite just-created 'into/same' with 'y/same'"]
    assert Path("into/same").read_bytes() == b"x/same"


def test_verifying_finds_every_difference(
    cp: Cp, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A byte of a small and of a large file, a mode: each is told, and the status is 1."""
    real = System.forget_cached

    def spoil(fd: int) -> None:
        path = os.readlink(f"/proc/self/fd/{fd}")
        number = path[-1] if "file-" in path else ""
        if number in {"1", "4"}:
            before = os.stat(path)
            with open(path, "r+b") as file:
                file.seek(before.st_size - 1)
                byte = file.read(1)[0]
                file.seek(before.st_size - 1)
                file.write(bytes([byte ^ 1]))
            os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        real(fd)

    monkeypatch.setattr(System, "forget_cached", staticmethod(spoil))
    (tree / "large twin").unlink()
    (tree / "sub" / "file-1").chmod(0o644)
    status, lines = cp("--verify", "tree", "copy")
    assert status == 1
    assert sorted(lines) == [
        "uringio cp: 'tree/sub/file-1': the copy differs: bytes",
        "uringio cp: 'tree/sub/file-4': the copy differs: bytes",
    ]


def test_files_of_unknown_size_are_verified(cp: Cp) -> None:
    """What says that it is empty, as files in /proc do, is compared to its end."""
    assert cp("--verify", "/proc/version", "version") == (0, [])
    assert Path("version").read_bytes() == Path("/proc/version").read_bytes()


def test_privileges_are_not_given_to_somebody_else(cp: Cp) -> None:
    """Set-user-ID stays where the owner does, and goes where it cannot."""
    path = Path("tool")
    path.write_bytes(b"#!")
    path.chmod(0o4755)
    assert cp("tool", "copy") == (0, [])
    assert Path("copy").stat().st_mode == path.stat().st_mode
    if IS_ROOT:
        os.chown(path, 12345, 12345)
        path.chmod(0o6755)
        assert cp("tool", "copy") == (0, [])
        there = Path("copy").stat()
        assert (there.st_uid, there.st_gid) == (12345, 12345)
        assert stat.S_IMODE(there.st_mode) == 0o6755


def test_unreadable_things_are_told(cp: Cp) -> None:
    """A file and a folder that may not be read: a line each; the folder's copy is not made."""
    if IS_ROOT:
        pytest.skip("root may read everything")
    Path("tree/closed").mkdir(parents=True)
    Path("tree/secret").write_bytes(b"1")
    Path("tree/secret").chmod(0)
    Path("tree/closed").chmod(0)
    status, lines = cp("tree", "copy")
    Path("tree/closed").chmod(0o700)
    assert status == 1
    assert sorted(lines) == [
        "uringio cp: cannot copy 'tree/closed': Permission denied",
        "uringio cp: cannot copy 'tree/secret': Permission denied",
    ]
    assert sorted(os.listdir("copy")) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_copies_leave_only_whole_files(
    fresh_python: FreshPython, backend: str, number: signal.Signals
) -> None:
    """A signal in the middle: no traceback, no file that is not whole, the signal's status."""
    top = Path("tree")
    top.mkdir()
    for count in range(300):
        (top / f"small-{count}").write_bytes(b"s" * 1000)
    with (top / "large").open("wb") as file:
        for _ in range(3000):  # of so many pieces that somebody has the time to stop it
            file.write(b"l" * 4096)
            file.seek(1 << 20, os.SEEK_CUR)
    command = [sys.executable, "-m", "uringio", "cp", f"--backend={backend}", "tree", "copy"]
    process = subprocess.Popen(
        command, env=fresh_python.environment(), stderr=subprocess.PIPE, text=True
    )
    with process:
        while not (Path("copy").exists() and os.listdir("copy")) and process.poll() is None:
            time.sleep(0.001)
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(number)
        _, said = process.communicate(timeout=50)
    assert process.returncode in {0, 128 + number}  # 0: it was quicker
    assert said in {"", "uringio cp: interrupted\n"}
    assert (said == "") == (process.returncode == 0)
    for path in Path("copy").iterdir():
        assert not path.name.startswith(".uringio")
        assert path.stat().st_size == (top / path.name).stat().st_size
        if path.name != "large":
            assert path.read_bytes() == b"s" * 1000


def on_terminal(command: list[str], environment: dict[str, str]) -> tuple[int, str]:
    """Run *command* with standard error on a terminal of 80 columns; return status and output."""
    ours, theirs = pty.openpty()
    environment = {**environment, "COLUMNS": "80", "TERM": "xterm"}
    with subprocess.Popen(command, env=environment, stderr=theirs) as process:
        os.close(theirs)
        shown = b""
        with contextlib.suppress(OSError):  # EIO: the last of the other end was closed
            while data := os.read(ours, 65536):
                shown += data
        os.close(ours)
    return process.returncode, shown.decode()


def test_progress_is_shown_on_terminals_only(fresh_python: FreshPython) -> None:
    """On a terminal a line and a sum, failures between them; --quiet shows failures only."""
    Path("tree").mkdir()
    Path("tree/file").write_bytes(b"x" * 300_000)
    Path("into").mkdir()
    environment = fresh_python.environment()
    block = "import sys; sys.modules['rich'] = None; from uringio.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", block, "cp", "missing", "tree", "into"]
    status, shown = on_terminal(command, environment)
    assert status == 1
    assert "uringio cp: cannot copy 'missing': No such file or directory\r\n" in shown
    assert "1 file copied, 293 KiB in 0." in shown
    assert all(len(line) < 100 for line in shown.replace("\r", "\n").split("\n"))
    status, shown = on_terminal([*command, "--quiet"], environment)
    assert status == 1
    assert shown == "uringio cp: cannot copy 'missing': No such file or directory\r\n"


def test_names_are_quoted_into_one_line() -> None:
    """What is plain stays so; the rest is escaped as a shell takes it."""
    assert quoted("a b") == "'a b'"
    assert quoted(b"new\nline") == "$'new\\nline'"
    assert quoted(b"it's \xff") == "$'it\\'s \\xff'"
    assert quoted("grün") == "'grün'"


def test_amounts_are_told_for_people() -> None:
    """Three digits at most, in powers of 1024."""
    told = [amount(size) for size in (0, 999, 1024, 10_240, 1_048_576_000, 3 << 40, 5000 << 40)]
    assert told == ["0 B", "999 B", "1.0 KiB", "10.0 KiB", "1.0 GiB", "3.0 TiB", "5000 TiB"]


def test_help_fits_a_screen(fresh_python: FreshPython) -> None:
    """No line is wider than 100 columns, and all options are there."""
    run = fresh_python("from uringio.cli import main; main(['cp', '--help'])")
    assert all(len(line) <= 100 for line in run.stdout.splitlines())
    for option in ("--verify", "--quiet", "--backend", "SOURCE", "DEST", "130"):
        assert option in run.stdout
