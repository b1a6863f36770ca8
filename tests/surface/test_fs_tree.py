"""Trees as nobody likes them: deep, wide, circular, changing, failing in the middle."""

import errno
import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.surface.schedulers import Scheduler
from uringio import fs
from uringio._sys.system import System
from uringio.fs import _tree

MIB = 1 << 20


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no cancelled copy leave its threads behind because the disk is slow today."""
    monkeypatch.setattr(_tree, "_IDLE_SECONDS", 50.0)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Make a small tree."""
    top = tmp_path / "tree"
    (top / "sub").mkdir(parents=True)
    for number in range(5):
        (top / "sub" / str(number)).write_bytes(b"%d" % number)
    return top


def content(top: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(top)): path.read_bytes()
        for path in top.rglob("*")
        if path.is_file() and not path.is_symlink()
    }


def descend(top: Path, name: str, depth: int, last: bytes | None = None) -> bytes:
    """Go down *depth* folders by descriptors, making them and a file if told what is *last*."""
    fd = os.open(top, os.O_RDONLY | os.O_DIRECTORY)
    for _ in range(depth):
        if last is not None:
            os.mkdir(name, dir_fd=fd)
        below = os.open(name, os.O_RDONLY | os.O_DIRECTORY, dir_fd=fd)
        os.close(fd)
        fd = below
    try:
        flags = os.O_RDONLY if last is None else os.O_WRONLY | os.O_CREAT
        file_fd = os.open("file", flags, 0o600, dir_fd=fd)
        if last is not None:
            os.write(file_fd, last)
        found = b"" if last is not None else os.read(file_fd, 100)
        os.close(file_fd)
    finally:
        os.close(fd)
    return found


@pytest.fixture
def swept(tmp_path: Path) -> Iterator[Path]:
    """Return a folder for what is too deep for pytest to remove."""
    yield tmp_path
    shutil.rmtree(tmp_path)


def test_trees_may_be_deeper_than_paths(scheduler: Scheduler, swept: Path) -> None:
    """Sixty folders with names of 200 bytes: 12 KiB of path, of which no call sees the whole."""
    (swept / "tree").mkdir()
    descend(swept / "tree", "n" * 200, 60, b"deep")
    scheduler.run(lambda: fs.copy_tree(swept / "tree", swept / "copy"))
    assert descend(swept / "copy", "n" * 200, 60) == b"deep"


def test_folders_may_hold_more_than_is_listed_at_once(
    scheduler: Scheduler, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Names that come in several listings, folders among them, arrive all and once."""
    monkeypatch.setattr(_tree, "_LISTED_COUNT", 20)
    top = tmp_path / "tree"
    top.mkdir()
    for number in range(130):
        if number % 10:
            os.symlink("x", top / str(number))
        else:
            (top / str(number)).mkdir()
    scheduler.run(lambda: fs.copy_tree(top, tmp_path / "copy"))
    assert sorted(os.listdir(tmp_path / "copy")) == sorted(os.listdir(top))


def test_hard_links_stay_or_become_copies(scheduler: Scheduler, tree: Path, tmp_path: Path) -> None:
    """With hard_links names of one file are names of one copy, across folders; else not."""
    (tree / "large").write_bytes(os.urandom(5 * MIB))
    for name in ("0", "1", "2"):
        os.link(tree / "sub" / name, tree / f"twin-{name}")
    for number in range(3):
        os.link(tree / "large", tree / "sub" / f"large-{number}")
    heard: list[fs.Progress] = []

    async def main() -> None:
        await fs.copy_tree(tree, tmp_path / "a", hard_links=True, progress=heard.append)
        await fs.copy_tree(tree, tmp_path / "b")
        await fs.copy_tree(tree, tmp_path / "a", hard_links=True, exist_ok=True)

    scheduler.run(main)
    for name in ("a", "b"):
        assert content(tmp_path / name) == content(tree)
    inodes = {(tmp_path / "a" / "large").stat().st_ino}
    inodes |= {(tmp_path / "a" / "sub" / f"large-{number}").stat().st_ino for number in range(3)}
    assert len(inodes) == 1
    assert (tmp_path / "a" / "twin-0").samefile(tmp_path / "a" / "sub" / "0")
    assert (tmp_path / "b" / "large").stat().st_nlink == 1
    assert heard[-1].file_count == len(content(tree))
    assert max(one.total_bytes for one in heard) == 5 * MIB + 5  # each file's bytes once


def test_circles_end(scheduler: Scheduler, tree: Path, tmp_path: Path) -> None:
    """Followed links that lead into what holds them are an error each; the rest is copied."""
    (tree / "sub" / "up").symlink_to("..")
    (tree / "sub" / "self").symlink_to("self")
    (tree / "to-sub").symlink_to("sub")
    failures: list[OSError] = []
    scheduler.run(
        lambda: fs.copy_tree(
            tree, tmp_path / "copy", follow_symlinks=True, on_error=failures.append
        )
    )
    assert {error.errno for error in failures} == {errno.ELOOP}
    assert len(failures) == 4  # through sub, and through to-sub
    assert str(tree / "sub" / "up") in {error.filename for error in failures}
    assert content(tmp_path / "copy").keys() >= {"sub/0", "to-sub/0"}


def test_links_in_the_target_lead_nowhere(scheduler: Scheduler, tree: Path, tmp_path: Path) -> None:
    """A link where a file goes is replaced, one where a folder goes refused; nothing outside."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_bytes(b"stays")
    target = tmp_path / "copy"
    (target / "sub").mkdir(parents=True)
    (target / "sub" / "0").symlink_to(outside / "file")
    (tree / "other").mkdir()
    (tree / "other" / "file").write_bytes(b"does not go outside")
    (target / "other").symlink_to(outside)
    failures: list[OSError] = []
    scheduler.run(lambda: fs.copy_tree(tree, target, exist_ok=True, on_error=failures.append))
    assert [error.filename2 for error in failures] == [str(target / "other")]
    assert (outside / "file").read_bytes() == b"stays"
    assert not (target / "sub" / "0").is_symlink()
    assert (target / "sub" / "0").read_bytes() == b"0"


def test_what_fails_is_told_and_leaves_nothing(
    scheduler: Scheduler, tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full device: each file is told of with both names, small, large, new or replaced."""
    (tree / "large").write_bytes(os.urandom(5 * MIB))
    (tree / "medium").write_bytes(os.urandom(MIB))
    target = tmp_path / "copy"
    target.mkdir()
    (target / "medium").write_bytes(b"what was there")
    monkeypatch.setattr(System, "clone_file", staticmethod(lambda *_: -errno.EOPNOTSUPP))
    monkeypatch.setattr(System, "copy_range", staticmethod(lambda *_: -errno.ENOSPC))
    failures: list[OSError] = []

    async def main() -> None:
        await fs.copy_tree(tree, target, exist_ok=True, on_error=failures.append)
        with pytest.raises(OSError, match="space") as caught:
            await fs.copy_tree(tree, tmp_path / "other")
        assert caught.value.errno == errno.ENOSPC
        with pytest.raises(OSError, match="space"):
            await fs.copy(tree / "large", tmp_path / "file")

    scheduler.run(main)
    assert {error.errno for error in failures} == {errno.ENOSPC}
    assert {error.filename for error in failures} == {str(tree / "large"), str(tree / "medium")}
    found = content(target)
    assert found.pop("medium") == b"what was there"
    assert found == {f"sub/{number}": b"%d" % number for number in range(5)}
    assert not (tmp_path / "other" / "large").exists()
    assert not (tmp_path / "file").exists()


def test_refused_metadata_is_told_and_the_copy_kept(
    scheduler: Scheduler, tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Times that the target's filesystem refuses: an error, but the bytes are there, mode too."""
    (tree / "sub" / "0").chmod(0o640)

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    failures: list[OSError] = []
    with monkeypatch.context() as patched:
        patched.setattr(os, "utime", refuse)
        scheduler.run(lambda: fs.copy_tree(tree, tmp_path / "copy", on_error=failures.append))
    told = {(error.filename, error.filename2) for error in failures}
    assert (str(tree / "sub" / "0"), str(tmp_path / "copy" / "sub" / "0")) in told
    assert (str(tree), str(tmp_path / "copy")) in told
    assert len(failures) == 7
    assert content(tmp_path / "copy") == content(tree)
    assert stat.S_IMODE((tmp_path / "copy" / "sub" / "0").stat().st_mode) == 0o640


def test_sources_may_shrink_meanwhile(
    scheduler: Scheduler, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that is cut while it is copied ends where it ends, by either way, without a loop."""
    top = tmp_path / "tree"
    top.mkdir()
    for name, size in (("small", 100_000), ("medium", MIB), ("large", 6 * MIB)):
        (top / name).write_bytes(b"x" * size)
    real = System.copy_range
    monkeypatch.setattr(System, "clone_file", staticmethod(lambda *_: -errno.EOPNOTSUPP))

    def cut(source: int, target: int, offset: int, size: int) -> int:
        os.truncate(os.readlink(f"/proc/self/fd/{source}"), 50_000)
        return real(source, target, offset, size)

    monkeypatch.setattr(System, "copy_range", staticmethod(cut))
    scheduler.run(lambda: fs.copy_tree(top, tmp_path / "copy"))
    found = content(tmp_path / "copy")
    assert len(found.pop("small")) == 100_000
    assert {len(data) for data in found.values()} == {50_000}


def test_cancelled_trees_hold_whole_files_only(
    scheduler: Scheduler, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cancelled at any moment, what is in the target is whole, and nothing goes on afterwards."""
    tree = tmp_path / "tree"
    tree.mkdir()
    expected = {f"small-{number}": bytes([number]) * 3000 for number in range(40)}
    expected["large"] = os.urandom(5 * MIB)
    for name, data in expected.items():
        (tree / name).write_bytes(data)
    monkeypatch.setattr(System, "clone_file", staticmethod(lambda *_: -errno.EOPNOTSUPP))

    async def main() -> None:
        for passes in range(0, 30, 3):
            target = tmp_path / f"target-{passes}"
            task = scheduler.spawn(fs.copy_tree, tree, target)
            for _ in range(passes):
                await scheduler.checkpoint()
            task.cancel()
            await task.wait()
            found = content(target) if target.exists() else {}
            assert found.items() <= expected.items()

    scheduler.run(main)


def test_targets_are_not_looked_for_by_permission(scheduler: Scheduler, tmp_path: Path) -> None:
    """A target inside of the source is found also where a folder between may not be read."""
    tree = tmp_path / "tree"
    (tree / "closed" / "inner").mkdir(parents=True)
    (tree / "closed").chmod(0o300)

    async def main() -> None:
        with pytest.raises(OSError, match="inside") as caught:
            await fs.copy_tree(tree, tree / "closed" / "inner" / "copy")
        assert caught.value.errno == errno.EINVAL

    try:
        scheduler.run(main)
        assert os.listdir(tree / "closed" / "inner") == []
    finally:
        (tree / "closed").chmod(0o700)
