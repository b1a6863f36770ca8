"""Names: looked at, changed, listed and walked; the same on every driver, and as with `os`."""

import os
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.surface.schedulers import Scheduler
from uringio import fs
from uringio._driver.op import Op
from uringio.errors import OpError, UsageError


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Make a tree with everything that a tree may hold."""
    top = tmp_path / "tree"
    (top / "a" / "deep" / "er").mkdir(parents=True)
    (top / "b").mkdir()
    (top / "empty").mkdir()
    (top / "file").write_bytes(b"content")
    (top / "a" / "deep" / "one").write_bytes(b"1")
    (top / "b" / "two").write_bytes(b"22")
    (top / "to-file").symlink_to("file")
    (top / "to-folder").symlink_to("a")
    (top / "to-nothing").symlink_to("nothing")
    (top / "circle").symlink_to("circle")
    os.mkfifo(top / "fifo")
    (top / "b" / os.fsdecode(b"not \xff utf-8")).write_bytes(b"")
    return top


def test_stat_is_that_of_os(scheduler: Scheduler, tree: Path) -> None:
    """Every field of `os.stat_result` is what `os.stat` says, of every kind of path and file."""
    paths = [*tree.iterdir(), Path("/dev/null"), Path("/proc/self/stat"), Path("/")]

    async def outcome(form: object, follow: bool) -> object:
        try:
            return await fs.stat(form, follow_symlinks=follow)  # type: ignore[arg-type]
        except OSError as error:
            return OSError, error.errno, error.filename

    async def main() -> None:
        for path in paths:
            for follow in (True, False):
                expected: object
                try:
                    expected = os.stat(path, follow_symlinks=follow)
                except OSError as error:
                    expected = type(error), error.errno, str(path)
                for form in (path, str(path), os.fsencode(path)):
                    found = await outcome(form, follow)
                    if isinstance(expected, tuple) and len(expected) == 3:
                        # The class is for `test_errors_are_those_of_os`.
                        assert isinstance(found, tuple)
                        assert found[1:] == expected[1:]
                        continue
                    assert found == expected
                    for name in ("st_atime_ns", "st_mtime_ns", "st_ctime_ns", "st_blksize",
                                 "st_blocks", "st_rdev", "st_dev", "st_mtime"):  # fmt: skip
                        if not str(path).startswith("/proc"):  # whose times are now
                            assert getattr(found, name) == getattr(expected, name), name

    scheduler.run(main)


def test_names_change(scheduler: Scheduler, tmp_path: Path) -> None:
    """Each call does to the filesystem what its name says."""

    async def main() -> None:
        await fs.mkdir(tmp_path / "d")
        await fs.mkdir(os.fsencode(tmp_path / "private"), permissions=0o700)
        assert (tmp_path / "private").stat().st_mode & 0o777 == 0o700
        (tmp_path / "d" / "f").write_bytes(b"1")
        await fs.link(tmp_path / "d" / "f", tmp_path / "hard")
        assert (tmp_path / "hard").stat().st_nlink == 2
        await fs.symlink("d/f", tmp_path / "soft")
        assert (tmp_path / "soft").read_bytes() == b"1"
        await fs.link(tmp_path / "soft", tmp_path / "soft2")
        assert (tmp_path / "soft2").is_symlink()
        await fs.link(tmp_path / "soft", tmp_path / "hard2", follow_symlinks=True)
        assert (tmp_path / "hard2").stat().st_nlink == 3
        await fs.rename(tmp_path / "hard", tmp_path / "hard2")
        await fs.rename(tmp_path / "d" / "f", tmp_path / "g")
        with pytest.raises(FileExistsError):
            await fs.rename(tmp_path / "g", tmp_path / "hard2", replace=False)
        await fs.rename(tmp_path / "g", tmp_path / "new", replace=False)
        await fs.unlink(tmp_path / "new")
        await fs.rmdir(tmp_path / "d")

    before = os.umask(0)
    try:
        scheduler.run(main)
    finally:
        os.umask(before)
    # Renaming a file over another name of itself changes nothing, says rename(2).
    left = sorted(path.name for path in tmp_path.iterdir())
    assert left == ["hard", "hard2", "private", "soft", "soft2"]


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (lambda at: fs.stat(at / "no"), lambda at: (at / "no").stat()),
        (lambda at: fs.stat(at / "file" / "x"), lambda at: (at / "file" / "x").stat()),
        (lambda at: fs.stat(at / "circle"), lambda at: (at / "circle").stat()),
        (lambda at: fs.stat(at / ("x" * 300)), lambda at: (at / ("x" * 300)).stat()),
        (lambda _: fs.stat(""), lambda _: os.stat("")),
        (lambda at: fs.unlink(at / "a"), lambda at: os.unlink(at / "a")),
        (lambda at: fs.rmdir(at / "a"), lambda at: os.rmdir(at / "a")),
        (lambda at: fs.rmdir(at / "file"), lambda at: os.rmdir(at / "file")),
        (lambda at: fs.mkdir(at / "a"), lambda at: os.mkdir(at / "a")),
        (lambda at: fs.mkdir(at / "x" / "y"), lambda at: os.mkdir(at / "x" / "y")),
        (
            lambda at: fs.rename(at / "no", at / "b"),
            lambda at: os.rename(at / "no", at / "b"),
        ),
        (
            lambda at: fs.rename(at / "a", at / "b"),
            lambda at: os.rename(at / "a", at / "b"),
        ),
        (
            lambda at: fs.rename(at / "a", at / "a" / "deep" / "x"),
            lambda at: os.rename(at / "a", at / "a" / "deep" / "x"),
        ),
        (
            lambda at: fs.link(at / "a", at / "x"),
            lambda at: os.link(at / "a", at / "x"),
        ),
        (
            lambda at: fs.symlink("x", at / "file"),
            lambda at: os.symlink("x", at / "file"),
        ),
    ],
)
def test_errors_are_those_of_os(
    scheduler: Scheduler,
    tree: Path,
    ours: Callable[[Path], Op[object]],
    theirs: Callable[[Path], object],
) -> None:
    """A refused call raises the class, errno and names that `os` raises."""
    with pytest.raises(OSError) as expected:
        theirs(tree)

    async def main() -> None:
        with pytest.raises(type(expected.value)) as caught:
            await ours(tree)
        assert isinstance(caught.value, OpError)
        for name in ("errno", "filename", "filename2"):
            found, wanted = getattr(caught.value, name), getattr(expected.value, name)
            assert (str(found), name) == (str(wanted), name)

    scheduler.run(main)


def test_misuse_is_told_at_the_call(scheduler: Scheduler) -> None:
    """Paths with a NUL, things that are no paths, and calls without a loop."""

    async def main() -> None:
        with pytest.raises(ValueError, match="NUL"):
            fs.stat("a\0b")
        with pytest.raises(TypeError):
            fs.stat(3)  # type: ignore[arg-type]

    scheduler.run(main)
    with pytest.raises(UsageError):
        fs.stat("/")


# --- listing -------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", [str, os.fsencode, Path])
def test_entries_are_those_of_os(
    scheduler: Scheduler, tree: Path, form: Callable[[Path], str | bytes]
) -> None:
    """`scandir` gives what `os.scandir` gives: names, paths, kinds, inodes."""

    def describe(entry: object) -> tuple[object, ...]:
        return (
            entry.name, entry.path, entry.is_symlink(),  # type: ignore[attr-defined]
            *(
                method(follow_symlinks=follow)
                for method in (entry.is_dir, entry.is_file)  # type: ignore[attr-defined]
                for follow in (True, False)
            ),
        )  # fmt: skip

    async def main() -> None:
        top = form(tree)
        found = {}
        async with fs.scandir(top) as entries:
            async for entry in entries:
                found[entry.name] = entry
        expected = {}
        with os.scandir(top) as theirs:
            for one in theirs:
                if one.name not in {"circle", b"circle"}:  # where os raises ELOOP
                    expected[one.name] = one
                assert found[one.name].inode == one.inode()
        circle = found.pop("circle" if form is not os.fsencode else b"circle")
        assert (circle.is_symlink(), circle.is_dir(), circle.is_file()) == (True, False, False)
        assert {name: describe(one) for name, one in found.items()} == {
            name: describe(one) for name, one in expected.items()
        }
        for entry in found.values():
            assert await entry.stat(follow_symlinks=False) == os.lstat(entry.path)

    scheduler.run(main)


def test_large_folders_come_in_batches(scheduler: Scheduler, tmp_path: Path) -> None:
    """Every name of a large folder comes once, and a listing may be left at any point."""
    names = {f"file-{number}" for number in range(2000)}
    for name in names:
        (tmp_path / name).touch()

    async def main() -> None:
        assert sorted([entry.name async for entry in fs.scandir(tmp_path)]) == sorted(names)
        for count in (0, 1, 700):
            async with fs.scandir(tmp_path) as entries:
                for _ in range(count):
                    await anext(entries)
            assert [entry async for entry in entries] == []
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            async for _ in fs.scandir(tmp_path):
                break

    scheduler.run(main)


def test_cancelled_listings_leave_nothing_open(scheduler: Scheduler, tree: Path) -> None:
    """A listing that is cancelled at any point is closed (the leak check of every test looks)."""

    async def main() -> None:
        async def listing() -> None:
            while True:
                async with fs.scandir(tree) as entries:
                    async for _ in entries:
                        pass

        for passes in range(6):
            task = scheduler.spawn(listing)
            for _ in range(passes):
                await scheduler.checkpoint()
            task.cancel()
            assert (await task.wait()).cancelled
        async for _ in fs.scandir(tree):  # behind whatever threads still had to do
            pass

    scheduler.run(main)


def test_folders_that_cannot_be_listed_say_so(scheduler: Scheduler, tree: Path) -> None:
    """The errors of `os.scandir`."""

    async def main() -> None:
        for name, expected in (("no", FileNotFoundError), ("file", NotADirectoryError)):
            with pytest.raises(expected) as caught:
                await anext(fs.scandir(tree / name))
            assert caught.value.filename == str(tree / name)

    scheduler.run(main)


@pytest.mark.parametrize("top_down", [True, False])
@pytest.mark.parametrize("follow", [True, False])
def test_walks_are_those_of_os(
    scheduler: Scheduler, tree: Path, top_down: bool, follow: bool
) -> None:
    """`walk` visits what `os.walk` visits, in an order that it allows."""

    async def main() -> None:
        def tidy(folders: list[str], others: list[str]) -> tuple[list[str], list[str]]:
            return sorted(folders), sorted(others)

        seen = {}
        order = []
        async for path, folders, others in fs.walk(tree, top_down=top_down, follow_symlinks=follow):
            seen[path] = tidy(folders, others)
            order.append(path)
        expected = {
            path: tidy(folders, others)
            for path, folders, others in os.walk(tree, topdown=top_down, followlinks=follow)
        }
        assert seen == expected
        for path in order:
            for inner in order:
                if inner.startswith(path + "/"):
                    assert (order.index(path) < order.index(inner)) == top_down

    scheduler.run(main)


def test_walks_can_be_steered(scheduler: Scheduler, tree: Path) -> None:
    """Folders that are taken out are not entered; errors are heard of, or passed over."""

    async def main() -> None:
        seen = []
        async for path, folders, _ in fs.walk(str(tree)):
            seen.append(path)
            if "b" in folders:
                folders.remove("b")
        assert str(tree / "b") not in seen
        assert str(tree / "a" / "deep" / "er") in seen
        heard: list[OSError] = []
        assert [one async for one in fs.walk(tree / "no", on_error=heard.append)] == []
        assert [type(one) for one in heard] == [FileNotFoundError]
        assert [one async for one in fs.walk(tree / "no")] == []

    scheduler.run(main)
