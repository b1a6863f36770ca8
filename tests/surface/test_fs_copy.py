"""Copying: the same bytes, holes, modes, times and attributes, by every way there is."""

import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.surface.schedulers import Scheduler
from uringio import fs
from uringio._sys.system import System
from uringio.fs import _tree

MIB = 1 << 20
WAYS = ("any", "kernel", "ring")


def refuse(number: int) -> Callable[..., int]:
    return staticmethod(lambda *_: -number)


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no cancelled copy leave its threads behind because the disk is slow today."""
    monkeypatch.setattr(_tree, "_IDLE_SECONDS", 50.0)


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Copy as this filesystem can, then without sharing blocks, then without the kernel."""
    if request.param != "any":
        monkeypatch.setattr(System, "clone_file", refuse(errno.EOPNOTSUPP))
    if request.param == "ring":
        monkeypatch.setattr(System, "copy_range", refuse(errno.EXDEV))
    name: str = request.param
    return name


def blocks(path: Path) -> int:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
        return os.fstat(fd).st_blocks
    finally:
        os.close(fd)


def identity(path: Path) -> tuple[object, ...]:
    status = path.lstat()
    kind = stat.S_IFMT(status.st_mode)
    mode = 0 if stat.S_ISLNK(status.st_mode) else stat.S_IMODE(status.st_mode)
    times = 0 if stat.S_ISLNK(status.st_mode) else status.st_mtime_ns
    content: object = None
    if stat.S_ISREG(kind):
        content = path.read_bytes() if mode & 0o400 else "unreadable"
    elif stat.S_ISLNK(kind):
        content = os.readlink(path)
    return kind, mode, times, content


def snapshot(top: Path) -> dict[str, tuple[object, ...]]:
    found = {".": identity(top)}
    for folder, names, others in os.walk(top):
        for name in [*names, *others]:
            path = Path(folder, name)
            found[str(path.relative_to(top))] = identity(path)
    return found


@pytest.mark.parametrize("size", [0, 1, 65535, 262144, 262145, 5 * MIB + 7])
def test_copies_are_identical(scheduler: Scheduler, way: str, tmp_path: Path, size: int) -> None:
    """Bytes, mode, times and attributes of files of every size arrive; progress adds up."""
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(os.urandom(size))
    try:
        os.setxattr(source, "user.test", b"value")
        attributes = ["user.test"]
    except OSError:
        attributes = []
    source.chmod(0o640)
    os.utime(source, ns=(1_000_000_001, 1_500_000_000_123_456_789))
    heard: list[fs.Progress] = []
    scheduler.run(lambda: fs.copy(source, target, progress=heard.append))
    assert target.stat().st_atime_ns == 1_000_000_001
    assert identity(target) == identity(source)
    assert os.listxattr(target) == attributes
    last = heard[-1]
    assert last == fs.Progress(str(source), size, size, size, 1)
    done = [one.path_bytes for one in heard]
    assert done == sorted(done)
    assert way in WAYS


def test_holes_stay_holes(scheduler: Scheduler, way: str, tmp_path: Path) -> None:
    """A sparse file arrives with its content and without a block more than it needs."""
    source = tmp_path / "source"
    with source.open("wb") as file:
        file.seek(10 * MIB)
        file.write(os.urandom(300_000))
        file.seek(30 * MIB)
        file.write(b"end of data")
        file.truncate(50 * MIB)
    if blocks(source) * 512 > MIB:
        pytest.skip("this filesystem has no holes")
    hole = tmp_path / "hole"
    with hole.open("wb") as file:
        file.truncate(20 * MIB)

    async def main() -> None:
        for path in (source, hole):
            heard: list[fs.Progress] = []
            target = path.with_suffix(".copy")
            await fs.copy(path, target, progress=heard.append)
            assert target.read_bytes() == path.read_bytes()
            assert blocks(target) <= blocks(path) + 64
            assert heard[-1].path_bytes == path.stat().st_size

    scheduler.run(main)
    assert way in WAYS


def test_targets_are_overwritten(scheduler: Scheduler, way: str, tmp_path: Path) -> None:
    """A longer file that was there before is gone, sparse source or not."""
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(b"short")
    target.write_bytes(b"x" * MIB)
    scheduler.run(lambda: fs.copy(source, target))
    assert target.read_bytes() == b"short"
    with source.open("wb") as file:
        file.truncate(100_000)
    target.write_bytes(b"x" * MIB)
    scheduler.run(lambda: fs.copy(source, target))
    assert target.read_bytes() == bytes(100_000)
    assert way in WAYS


def test_files_of_unknown_size_are_copied(scheduler: Scheduler, tmp_path: Path) -> None:
    """Files that say that they are empty, as those in /proc do, are copied to their end."""
    scheduler.run(lambda: fs.copy("/proc/self/maps", tmp_path / "maps"))
    assert b"python" in (tmp_path / "maps").read_bytes()


def test_what_cannot_be_copied_is_refused(scheduler: Scheduler, tmp_path: Path) -> None:
    """Missing files, folders, FIFOs, one file by two names: each has its error, nothing is lost."""
    source = tmp_path / "source"
    source.write_bytes(b"precious")
    os.link(source, tmp_path / "twin")
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("source")

    async def main() -> None:
        for path, target, expected in (
            ("missing", "new", FileNotFoundError),
            ("folder", "new", IsADirectoryError),
            ("source", "folder", IsADirectoryError),
            ("source", "no/where", FileNotFoundError),
        ):
            with pytest.raises(expected):
                await fs.copy(tmp_path / path, tmp_path / target)
        for path, target in (("fifo", "new"), ("source", "twin"), ("source", "link")):
            with pytest.raises(OSError, match=r"regular|one file") as caught:
                await fs.copy(tmp_path / path, tmp_path / target)
            assert caught.value.errno == errno.EINVAL
            assert caught.value.filename == str(tmp_path / path)
        with pytest.raises(OSError, match="No such device") as caught:
            await fs.copy(tmp_path / "source", tmp_path / "fifo")  # nobody reads it
        assert caught.value.errno == errno.ENXIO

    scheduler.run(main)
    assert source.read_bytes() == b"precious"
    assert not (tmp_path / "new").exists()


def test_links_are_followed_or_made_again(scheduler: Scheduler, tmp_path: Path) -> None:
    """A link is copied as what it leads to, unless told otherwise."""
    (tmp_path / "file").write_bytes(b"1")
    (tmp_path / "link").symlink_to("file")

    async def main() -> None:
        await fs.copy(tmp_path / "link", tmp_path / "a")
        await fs.copy(tmp_path / "link", tmp_path / "b", follow_symlinks=False)

    scheduler.run(main)
    assert not (tmp_path / "a").is_symlink()
    assert (tmp_path / "a").read_bytes() == b"1"
    assert os.readlink(tmp_path / "b") == "file"


def test_full_targets_end_the_copy(scheduler: Scheduler, way: str, tmp_path: Path) -> None:
    """A device that takes nothing more raises ENOSPC, whoever copies and however large."""
    source = tmp_path / "source"

    async def main() -> None:
        for size in (10, 3 * MIB):
            source.write_bytes(os.urandom(size))
            with pytest.raises(OSError, match="space") as caught:
                await fs.copy(source, "/dev/full")
            assert caught.value.errno == errno.ENOSPC

    scheduler.run(main)
    assert way in WAYS


def test_progress_may_end_the_copy(scheduler: Scheduler, way: str, tmp_path: Path) -> None:
    """What the callback raises comes out of the copy."""
    source = tmp_path / "source"
    source.write_bytes(os.urandom(MIB))

    def stop(_: fs.Progress) -> None:
        raise ValueError("enough")

    async def main() -> None:
        with pytest.raises(ValueError, match="enough"):
            await fs.copy(source, tmp_path / "target", progress=stop)

    scheduler.run(main)
    assert way in WAYS


def test_cancelled_copies_leave_nothing_open(
    scheduler: Scheduler, way: str, tmp_path: Path
) -> None:
    """A copy that is cancelled at any point ends; the leak check of every test looks."""
    source = tmp_path / "source"
    source.write_bytes(os.urandom(2 * MIB))
    tree = tmp_path / "tree"
    tree.mkdir()
    for number in range(30):
        (tree / str(number)).write_bytes(b"x" * 1000 * number)

    async def main() -> None:
        for passes in range(0, 40, 3):
            for number, make in enumerate((fs.copy, fs.copy_tree)):
                target = tmp_path / f"target-{number}-{passes}"
                task = scheduler.spawn(make, source if number == 0 else tree, target)
                for _ in range(passes):
                    await scheduler.checkpoint()
                task.cancel()
                await task.wait()
                assert task.cancelled or task.error is None
        await fs.copy(source, tmp_path / "whole")  # behind whatever threads still had to do

    scheduler.run(main)
    assert way in WAYS


# --- trees ---------------------------------------------------------------------------------------


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Make a tree of many files, links, odd names, and folders that may not be written."""
    top = tmp_path / "tree"
    for number in range(20):
        folder = top / f"folder-{number % 5}" / f"{number}"
        folder.mkdir(parents=True)
        for size in (0, 10, 70_000):
            (folder / f"file-{size}").write_bytes(os.urandom(size))
            (folder / f"file-{size}").chmod(0o600 + number)
    (top / os.fsdecode(b"odd \xff name\n")).write_bytes(b"odd")
    (top / "large").write_bytes(os.urandom(MIB))
    (top / "link").symlink_to("folder-1")
    (top / "broken").symlink_to("nothing")
    (top / "empty").mkdir()
    sealed = top / "sealed"
    sealed.mkdir()
    (sealed / "file").write_bytes(b"s")
    sealed.chmod(0o555)
    os.utime(top / "folder-0", ns=(10**18, 10**18 + 1))
    return top


def test_trees_are_identical(scheduler: Scheduler, way: str, tree: Path, tmp_path: Path) -> None:
    """Names, kinds, modes, times, links and bytes of a whole tree arrive."""
    heard: list[fs.Progress] = []
    target = tmp_path / "copy"
    before = snapshot(tree)
    scheduler.run(lambda: fs.copy_tree(tree, target, progress=heard.append))
    assert snapshot(target) == before == snapshot(tree)
    files = [path for path in tree.rglob("*") if path.is_file() and not path.is_symlink()]
    own = [path for path in files if not str(path).startswith(str(tree / "link"))]
    assert heard[-1].file_count == len(own)
    assert max(one.total_bytes for one in heard) == sum(path.stat().st_size for path in own)
    assert way in WAYS


def test_trees_can_be_merged(scheduler: Scheduler, tree: Path, tmp_path: Path) -> None:
    """An existing target is refused, or with exist_ok added to."""
    target = tmp_path / "copy"
    (target / "empty").mkdir(parents=True)
    (target / "other").write_bytes(b"stays")
    (target / "large").write_bytes(b"goes")
    (tree / "broken").unlink()
    (tree / "link").unlink()

    async def main() -> None:
        with pytest.raises(FileExistsError):
            await fs.copy_tree(tree, target)
        await fs.copy_tree(tree, target, exist_ok=True)

    scheduler.run(main)
    found = snapshot(target)
    assert found.pop("other")[3] == b"stays"
    assert found == snapshot(tree)


def test_links_of_trees_can_be_followed(scheduler: Scheduler, tmp_path: Path) -> None:
    """With follow_symlinks the copy holds what the links led to."""
    tree = tmp_path / "tree"
    (tree / "a").mkdir(parents=True)
    (tree / "a" / "file").write_bytes(b"1")
    (tree / "b").symlink_to("a")
    (tree / "c").symlink_to("a/file")
    scheduler.run(lambda: fs.copy_tree(tree, tmp_path / "copy", follow_symlinks=True))
    assert not (tmp_path / "copy" / "b").is_symlink()
    assert (tmp_path / "copy" / "b" / "file").read_bytes() == b"1"
    assert (tmp_path / "copy" / "c").read_bytes() == b"1"


def test_trees_that_cannot_be_copied_are_refused(scheduler: Scheduler, tmp_path: Path) -> None:
    """A FIFO in the tree, a target inside of it, a missing source: the error comes out as it is."""
    tree = tmp_path / "tree"
    (tree / "sub").mkdir(parents=True)
    (tmp_path / "file").touch()

    async def main() -> None:
        with pytest.raises(OSError, match="inside") as caught:
            await fs.copy_tree(tree, tree / "sub" / "copy")
        assert caught.value.errno == errno.EINVAL
        with pytest.raises(FileNotFoundError):
            await fs.copy_tree(tmp_path / "missing", tmp_path / "copy")
        with pytest.raises(NotADirectoryError):
            await fs.copy_tree(tmp_path / "file", tmp_path / "copy")
        os.mkfifo(tree / "fifo")
        with pytest.raises(OSError, match="regular"):
            await fs.copy_tree(tree / ".", tmp_path / "copy")

    scheduler.run(main)
