"""Opening beneath a folder: what stays inside is opened, whatever the name looks like."""

import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.surface.schedulers import Scheduler
from uringio.errors import OpError, op_error
from uringio.files import File, Resolve, _beneath, open_beneath, open_file


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Make a folder with files, links in and out, and something to find outside."""
    folder = tmp_path / "folder"
    (folder / "deep" / "er").mkdir(parents=True)
    (folder / "deep" / "er" / "file").write_bytes(b"inside")
    (folder / "in").symlink_to("deep/er/file")
    (folder / "in-up").symlink_to("deep/../deep/er")
    (folder / "absolute").symlink_to(folder / "in")
    (folder / "out").symlink_to("../secret")
    (folder / "by-outside").symlink_to("../folder/in")
    (folder / "magic").symlink_to("/proc/self/cwd")
    (folder / "loop").symlink_to("loop")
    os.mkfifo(folder / "fifo")
    (tmp_path / "secret").write_bytes(b"outside")
    return folder


async def content(folder: File, path: str) -> bytes:
    async with await open_beneath(folder, path) as file:
        return await file.read_at(0, 100)


async def refusal(folder: File, path: str | bytes, flags: int = 0) -> int | None:
    with pytest.raises(OpError) as caught:
        await open_beneath(folder, path, flags=flags | os.O_NONBLOCK)
    return caught.value.errno


def test_links_that_stay_inside_are_followed(scheduler: Scheduler, folder: Path) -> None:
    """Links and dots inside lead to their file; leaving is EXDEV, even for a moment."""

    async def main() -> None:
        async with await open_file(folder) as root:
            for path in ("deep/er/file", "in", "in-up/file", "./deep//er/../er/file"):
                assert await content(root, path) == b"inside"
            for path in ("..", "../secret", "out", "by-outside", "absolute", "magic", "/etc"):
                assert await refusal(root, path) == errno.EXDEV, path
            assert await refusal(root, "loop") == errno.ELOOP
            assert await refusal(root, "nowhere") == errno.ENOENT
            assert await refusal(root, "") == errno.ENOENT
            assert await refusal(root, "in/") == errno.ENOTDIR
            assert await refusal(root, "n" * 256) == errno.ENAMETOOLONG
            with pytest.raises(ValueError, match="NUL"):
                await open_beneath(root, "in\0")
            async with await open_beneath(root, "fifo", flags=os.O_NONBLOCK) as fifo:
                assert stat.S_ISFIFO((await fifo.stat()).st_mode)

    scheduler.run(main)


def test_files_are_created_beneath(scheduler: Scheduler, folder: Path) -> None:
    """Modes and permissions are those of `open_file`; the folder may be renamed meanwhile."""

    async def main() -> None:
        async with await open_file(folder) as root:
            moved = folder.rename(folder.with_name("moved"))
            async with await open_beneath(root, "deep/new", "xb", permissions=0o600) as file:
                assert await file.write(b"made") == 4
            assert (moved / "deep" / "new").read_bytes() == b"made"
            assert stat.S_IMODE((moved / "deep" / "new").stat().st_mode) == 0o600
            with pytest.raises(OpError) as caught:
                await open_beneath(root, "../new", "xb")
            assert caught.value.errno == errno.EXDEV
            assert not (folder.parent / "new").exists()

    scheduler.run(main)


def _refusing(number: int) -> Callable[..., object]:
    """Stand in for `open_file` on a system whose openat2 always answers *number*."""

    def stand_in(path: str, *args: object, **named: object) -> object:
        if not named.get("resolve", Resolve(0)):
            return open_file(path, *args, **named)  # type: ignore[call-overload]

        async def refuse() -> None:
            raise op_error(number, "openat2")

        return refuse()

    return stand_in


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.EPERM])
def test_without_openat2_no_link_is_followed(
    scheduler: Scheduler, folder: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """Where the call is missing or forbidden, names without links work, and nothing leaves."""
    monkeypatch.setattr(_beneath, "open_file", _refusing(number))

    async def main() -> None:
        async with await open_file(folder) as root:
            for path in ("deep/er/file", "./deep//er/./file"):
                assert await content(root, path) == b"inside"
            for path in (".", "deep/er/", "deep/er"):
                async with await open_beneath(root, path) as found:
                    assert stat.S_ISDIR((await found.stat()).st_mode)
            for path in ("..", "deep/../deep/er/file", "/etc"):
                assert await refusal(root, path) == errno.EXDEV, path
            for path in ("in", "out", "absolute", "magic", "loop"):
                assert await refusal(root, path) == errno.ELOOP, path
                assert await refusal(root, path, os.O_PATH) == errno.ELOOP, path
            assert await refusal(root, "in-up/file") == errno.ENOTDIR
            assert await refusal(root, "deep/er/file/") == errno.ENOTDIR
            assert await refusal(root, "") == errno.ENOENT
            async with await open_beneath(root, "deep/new", "wb") as file:
                assert await file.write(b"made") == 4
            async with await open_beneath(root, "fifo", flags=os.O_NONBLOCK) as fifo:
                assert stat.S_ISFIFO((await fifo.stat()).st_mode)

    scheduler.run(main)
    assert (folder / "deep" / "new").read_bytes() == b"made"


def test_a_refusal_of_the_file_is_not_taken_for_one_of_the_call(
    scheduler: Scheduler, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """EPERM for one path, where the call works for others, is that path's error."""
    real = open_file

    def stand_in(path: object, *args: object, **named: object) -> object:
        if path == "in":

            async def refuse() -> None:
                raise op_error(errno.EPERM, "openat2")

            return refuse()
        return real(path, *args, **named)  # type: ignore[call-overload]

    monkeypatch.setattr(_beneath, "open_file", stand_in)

    async def main() -> None:
        async with await open_file(folder) as root:
            assert await refusal(root, "in") == errno.EPERM

    scheduler.run(main)


def test_names_that_change_are_tried_again_and_not_for_ever(
    scheduler: Scheduler, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """EAGAIN is tried again; without an end to it, it is raised."""
    real = open_file
    refusals = [0]

    def stand_in(path: object, *args: object, **named: object) -> object:
        if refusals[0]:
            refusals[0] -= 1

            async def refuse() -> None:
                raise op_error(errno.EAGAIN, "openat2")

            return refuse()
        return real(path, *args, **named)  # type: ignore[call-overload]

    async def main() -> None:
        async with await open_file(folder) as root:
            monkeypatch.setattr(_beneath, "open_file", stand_in)
            refusals[0] = 20
            assert await content(root, "in") == b"inside"
            refusals[0] = 10_000
            with pytest.raises(BlockingIOError):
                await open_beneath(root, "in")
            assert refusals[0] > 9_000

    scheduler.run(main)
