"""Writing, modes, pieces, flags and sizes of files; the same on every driver."""

import errno
import os
import stat
import warnings
from array import array
from pathlib import Path
from typing import Any

import pytest

from tests.surface.schedulers import Scheduler
from uringio.errors import ClosedError, OpError
from uringio.files import File, Resolve, RWFlags, aligned_buffer, open_file

CONTENT = bytes(range(256)) * 1000
BLOCK = 4096


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Make a file of known bytes."""
    path = tmp_path / "file"
    path.write_bytes(CONTENT)
    return path


@pytest.mark.parametrize("mode", ["rb", "r", "wb", "ab", "xb", "r+b", "rb+", "w+b", "a+", "x+b"])
@pytest.mark.parametrize("exists", [True, False])
def test_modes_are_the_builtins(
    scheduler: Scheduler, tmp_path: Path, mode: str, exists: bool
) -> None:
    """Each mode opens, creates, cuts and refuses exactly where the builtin does."""

    def prepare(name: str) -> Path:
        path = tmp_path / name
        if exists:
            path.write_bytes(b"old")
        return path

    def by_builtin(path: Path) -> list[object]:
        seen: list[object] = []
        binary = mode if "b" in mode else mode + "b"
        try:
            with path.open(binary, buffering=0) as file:
                for call in (
                    lambda: file.write(b"new"),
                    lambda: file.seek(0),
                    lambda: file.read(9),
                ):
                    try:
                        seen.append(call())
                    except OSError:  # io.UnsupportedOperation
                        seen.append("refused")
        except OSError as error:
            seen.append(type(error))
        return seen

    async def by_us(path: Path) -> list[object]:
        seen: list[object] = []
        try:
            async with await open_file(path, mode) as file:
                for call in (
                    lambda: file.write(b"new"),
                    lambda: file.seek(0),
                    lambda: file.read(9),
                ):
                    try:
                        found = call()
                        seen.append(found if isinstance(found, int) else await found)
                    except OSError as error:
                        seen.append("refused" if error.errno == errno.EBADF else error)
        except OSError as error:
            seen.append(type(error).__bases__[1])
        return seen

    ours, theirs = prepare("ours"), prepare("theirs")
    assert scheduler.run(by_us, ours) == by_builtin(theirs)
    assert ours.exists() == theirs.exists()
    if ours.exists():
        assert ours.read_bytes() == theirs.read_bytes()


@pytest.mark.parametrize("mode", ["", "b", "rw", "rt", "rr", "r++", "z", "wxb"])
def test_other_modes_are_refused(scheduler: Scheduler, path: Path, mode: str) -> None:
    """A mode that means nothing, or text, is a mistake that touches no file."""

    async def main() -> None:
        with pytest.raises(ValueError, match="mode"):
            open_file(path, mode)

    scheduler.run(main)
    assert path.read_bytes() == CONTENT


def test_files_are_created_with_permissions(scheduler: Scheduler, tmp_path: Path) -> None:
    """The permissions that are asked for are given, less the umask."""

    async def main() -> None:
        await (await open_file(tmp_path / "a", "xb", permissions=0o640)).aclose()
        await (await open_file(tmp_path / "b", "xb")).aclose()

    before = os.umask(0o022)
    try:
        scheduler.run(main)
    finally:
        os.umask(before)
    modes = [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in "ab"]
    assert modes == [0o640, 0o644]


def test_writes_land_where_they_say(scheduler: Scheduler, path: Path) -> None:
    """Writes of every kind of memory, in one piece or several, at any offset."""

    async def main() -> None:
        async with await open_file(path, "r+b") as file:
            assert await file.write_at(10, b"bytes") == 5
            assert await file.write_at(20, bytearray(b"bytearray")) == 9
            assert await file.write_at(30, memoryview(b"-memoryview-")[1:-1]) == 10
            assert await file.write_at(40, b"") == 0
            assert await file.writev_at(50, [b"one", b"", bytearray(b"two")]) == 6
            assert await file.write_at(len(CONTENT) + 10, b"behind") == 6
            assert file.tell() == 0

    scheduler.run(main)
    expected = bytearray(CONTENT)
    for at, data in ((10, b"bytes"), (20, b"bytearray"), (30, b"memoryview"), (50, b"onetwo")):
        expected[at : at + len(data)] = data
    assert path.read_bytes() == expected + bytes(10) + b"behind"


def test_pieces_are_filled_in_order(scheduler: Scheduler, path: Path) -> None:
    """`readv_at` fills one piece after another, and stops at the end of the file."""

    async def main() -> None:
        async with await open_file(path) as file:
            pieces = [bytearray(5), bytearray(0), bytearray(100)]
            assert await file.readv_at(3, pieces) == 105
            assert b"".join(pieces) == CONTENT[3:108]
            assert await file.readv_at(len(CONTENT) - 7, pieces) == 7
            assert pieces[2][:2] == CONTENT[-2:]
            assert await file.readv_at(0, []) == 0
            with pytest.raises(TypeError):
                await file.readv_at(0, [bytearray(1), memoryview(b"fixed")])
            with pytest.raises(ValueError, match="1024"):
                file.readv_at(0, [bytearray(1)] * 1025)

    scheduler.run(main)


def test_flags_change_one_transfer(scheduler: Scheduler, path: Path) -> None:
    """APPEND writes at the end whatever the offset; DSYNC and NOWAIT are taken; others are not."""

    async def main() -> None:
        async with await open_file(path, "r+b") as file:
            assert await file.write_at(0, b"end", flags=RWFlags.APPEND) == 3
            assert await file.write_at(0, b"sure", flags=RWFlags.DSYNC | RWFlags.SYNC) == 4
            assert await file.writev_at(4, [b"l", b"y"], flags=RWFlags.DSYNC) == 2
            assert await file.read_at(0, 6, flags=RWFlags.NOWAIT) == b"surely"
            buffer = bytearray(3)
            assert await file.read_into_at(len(CONTENT), buffer, flags=RWFlags.NOWAIT) == 3
            assert buffer == b"end"
            with pytest.raises(ValueError, match="DSYNC"):
                file.read_at(0, 1, flags=RWFlags.DSYNC)
            with pytest.raises(ValueError, match="APPEND"):
                file.readv_at(0, [bytearray(1)], flags=RWFlags.APPEND)
            with pytest.raises(ValueError, match="HIPRI"):
                file.read_at(0, 1, flags=RWFlags.HIPRI)
            with pytest.raises(OpError) as caught:
                await file.write_at(0, b"x", flags=RWFlags.APPEND | RWFlags.NOAPPEND)
            assert caught.value.errno in {errno.EINVAL, errno.EOPNOTSUPP}

    scheduler.run(main)
    assert path.read_bytes() == b"surely" + CONTENT[6:] + b"end"


def test_uncached_reads_do_not_wait_when_told(scheduler: Scheduler, path: Path) -> None:
    """NOWAIT raises `BlockingIOError` for what is not in memory; a plain read gets it."""
    fd = os.open(path, os.O_RDONLY)
    os.fsync(fd)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    try:
        os.preadv(fd, [bytearray(1)], 128 * 1024, os.RWF_NOWAIT)
    except BlockingIOError:
        pass
    else:
        pytest.skip("the page cache cannot be emptied here")
    # The attempt has had the kernel read ahead: wait for that, and empty the cache once more.
    os.pread(fd, len(CONTENT), 0)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(fd)

    async def main() -> None:
        async with await open_file(path) as file:
            with pytest.raises(BlockingIOError):
                await file.read_at(128 * 1024, 10, flags=RWFlags.NOWAIT)
            assert await file.read_at(128 * 1024, 10) == CONTENT[128 * 1024 :][:10]

    scheduler.run(main)


def test_partly_cached_reads_are_whole(scheduler: Scheduler, tmp_path: Path) -> None:
    """Where only the beginning of a range is in memory, the read waits for the rest."""
    path = tmp_path / "large"
    content = os.urandom(1 << 21)
    path.write_bytes(content)
    fd = os.open(path, os.O_RDONLY)
    os.fsync(fd)
    os.posix_fadvise(fd, 1 << 20, 1 << 20, os.POSIX_FADV_DONTNEED)
    os.close(fd)

    async def main() -> None:
        async with await open_file(path) as file:
            assert await file.read_at(0, len(content)) == content
            assert await file.read_all() == content

    scheduler.run(main)


def test_sizes_change(scheduler: Scheduler, path: Path) -> None:
    """`truncate` and `fallocate` change size and room; the data is synchronised on demand."""

    async def main() -> None:
        async with await open_file(path, "r+b") as file:
            await file.truncate(1000)
            assert (await file.stat()).st_size == 1000
            await file.fallocate(0, 1 << 20, 1)  # FALLOC_FL_KEEP_SIZE
            found = await file.stat()
            assert found.st_size == 1000
            assert found.st_blocks * 512 >= 1 << 20
            await file.fallocate(1000, 1000)
            assert (await file.stat()).st_size == 2000
            await file.fdatasync()
            await file.fsync()
            for call in (lambda: file.truncate(-1), lambda: file.fallocate(-1, 1)):
                with pytest.raises(ValueError, match="from 0"):
                    call()
        async with await open_file(path) as file:
            with pytest.raises(OpError) as caught:
                await file.truncate(1)
            assert caught.value.errno in {errno.EINVAL, errno.EBADF}
            for op in (file.truncate, file.fsync):
                assert op  # bound while open
        with pytest.raises(ClosedError):
            file.fsync()

    scheduler.run(main)
    assert path.read_bytes() == CONTENT[:1000] + bytes(1000)


def test_full_devices_refuse(scheduler: Scheduler) -> None:
    """Writing without room raises ENOSPC."""

    async def main() -> None:
        async with await open_file("/dev/full", "wb") as file:
            with pytest.raises(OpError) as caught:
                await file.write_all(b"x" * 100)
            assert caught.value.errno == errno.ENOSPC

    scheduler.run(main)


def test_paths_are_resolved_by_rule(scheduler: Scheduler, tmp_path: Path) -> None:
    """`Resolve` keeps a path inside its folder, whatever it leads through."""
    inside = tmp_path / "in"
    inside.mkdir()
    (tmp_path / "secret").write_bytes(b"s")
    (inside / "file").write_bytes(b"f")
    (inside / "out").symlink_to("../secret")
    (inside / "here").symlink_to("file")

    async def main() -> None:
        async with await open_file(inside, flags=os.O_PATH | os.O_DIRECTORY) as folder:

            async def read(path: str, resolve: Resolve) -> bytes:
                async with await open_file(path, folder=folder, resolve=resolve) as file:
                    return await file.read_all()

            assert await read("here", Resolve.BENEATH) == b"f"
            assert await read("/file", Resolve.IN_ROOT) == b"f"
            for path in ("out", "../secret", str(inside / "file")):
                with pytest.raises(OpError) as caught:
                    await read(path, Resolve.BENEATH)
                assert caught.value.errno == errno.EXDEV
                assert caught.value.filename == path
            with pytest.raises(OpError) as caught:
                await read("here", Resolve.NO_SYMLINKS)
            assert caught.value.errno == errno.ELOOP
            async with await open_file(
                "new", "xb", folder=folder, resolve=Resolve.BENEATH, permissions=0o600
            ) as file:
                assert stat.S_IMODE((await file.stat()).st_mode) == 0o600

    scheduler.run(main)


# --- O_DIRECT ------------------------------------------------------------------------------------


def test_aligned_buffers_begin_at_pages() -> None:
    """Every buffer is zeroed, writable, of its size, and needs no loop."""
    for size in (1, 512, 100_000):
        buffer = aligned_buffer(size)
        assert buffer.nbytes == size
        assert not any(buffer)
        buffer[-1] = 1
    with pytest.raises(ValueError, match="1 byte"):
        aligned_buffer(0)


async def open_direct(path: Path, mode: str) -> File:
    try:
        return await open_file(path, mode, direct=True)
    except OSError as error:
        if error.errno == errno.EINVAL:
            pytest.skip("this filesystem has no O_DIRECT")
        raise


def test_direct_files_move_aligned_blocks(scheduler: Scheduler, tmp_path: Path) -> None:
    """Aligned transfers of every form work, polled ones too, and are short at the file's end."""
    path = tmp_path / "direct"

    async def main() -> None:
        async with await open_direct(path, "w+b") as file:
            block = aligned_buffer(3 * BLOCK)
            block[:] = CONTENT[: 3 * BLOCK]
            assert await file.write_at(0, block) == 3 * BLOCK
            assert await file.writev_at(3 * BLOCK, [block[:BLOCK], block[BLOCK:]]) == 3 * BLOCK
            assert await file.write_at(0, block[:BLOCK], flags=RWFlags.HIPRI) == BLOCK
            await file.truncate(6 * BLOCK - 100)
            assert await file.read_at(BLOCK, BLOCK) == CONTENT[BLOCK : 2 * BLOCK]
            assert await file.read_at(0, BLOCK, flags=RWFlags.HIPRI) == CONTENT[:BLOCK]
            assert len(await file.read_at(5 * BLOCK, BLOCK)) == BLOCK - 100
            assert await file.read_into_at(2 * BLOCK, block) == 3 * BLOCK
            assert block[:BLOCK] == CONTENT[2 * BLOCK : 3 * BLOCK]
            assert await file.read_all() == (CONTENT[: 3 * BLOCK] * 2)[:-100]
            assert file.tell() == 6 * BLOCK - 100
            assert await file.read(BLOCK) == b""
            file.seek(BLOCK)
            assert await file.write(block[:BLOCK]) == BLOCK
            assert file.tell() == 2 * BLOCK
            assert await file.read(BLOCK) == CONTENT[2 * BLOCK : 3 * BLOCK]
            file.seek(100)
            with pytest.raises(ValueError, match="multiple"):
                file.read(BLOCK)
        async with await open_file(path, "ab", direct=True) as file:
            await file.truncate(BLOCK)
            await file.write_all(block[:BLOCK])
            assert file.tell() == 2 * BLOCK

    scheduler.run(main)


def test_misaligned_transfers_are_refused_at_the_call(scheduler: Scheduler, tmp_path: Path) -> None:
    """What O_DIRECT cannot take is refused before there is an operation, saying what fits."""
    path = tmp_path / "direct"

    async def main() -> None:
        async with await open_direct(path, "w+b") as file:
            before = await file.stat()
            block = aligned_buffer(2 * BLOCK)
            for call in (
                lambda: file.write_at(1, block),
                lambda: file.write_at(0, block[:100]),
                lambda: file.write_at(0, block[1 : BLOCK + 1]),
                lambda: file.writev_at(0, [block, block[:7]]),
                lambda: file.write(block[:100]),
                lambda: file.read_at(0, 100),
                lambda: file.read_at(7, BLOCK),
                lambda: file.read_into_at(0, block[3 : BLOCK + 3]),
                lambda: file.read(100),
            ):
                with pytest.raises(ValueError, match=r"multiple of .*aligned_buffer"):
                    call()
            assert (await file.stat()).st_size == before.st_size == 0

    scheduler.run(main)


# --- cancelling and closing ----------------------------------------------------------------------


def test_cancelled_transfers_end_cancelled(scheduler: Scheduler, path: Path) -> None:
    """Tasks cancelled at any point of a transfer end by cancellation, and nothing is in flight."""

    async def main() -> None:
        async with await open_file(path, "r+b") as file:

            async def work(number: int) -> None:
                piece = bytearray(4096)
                while True:
                    await file.readv_at(number * 4096, [piece])
                    await file.write_at(number * 4096, piece)
                    await file.fdatasync()

            for passes in range(1, 8):
                tasks = [scheduler.spawn(work, number) for number in range(5)]
                for _ in range(passes):
                    await scheduler.checkpoint()
                for task in tasks:
                    task.cancel()
                for task in tasks:
                    assert (await task.wait()).cancelled

    scheduler.run(main)
    assert path.read_bytes() == CONTENT


def test_closing_ends_transfers(scheduler: Scheduler, path: Path) -> None:
    """Whatever is in flight or only handed out when a file is closed ends with it."""

    async def main() -> None:
        file = await open_file(path, "r+b")
        early = [file.readv_at(0, [bytearray(1)]), file.truncate(0), file.read(1)]

        async def work() -> str:
            try:
                await file.fsync()
            except ClosedError:
                return "closed"
            return "done"

        tasks = [scheduler.spawn(work) for _ in range(10)]
        await scheduler.checkpoint()
        await file.aclose()
        for task in tasks:
            assert await task.result() in {"closed", "done"}
        for op in early:
            with pytest.raises(ClosedError):
                await op

    scheduler.run(main)
    assert path.read_bytes() == CONTENT


def test_finished_operations_are_let_go(scheduler: Scheduler, path: Path) -> None:
    """A file that is read many times holds neither the operations nor their memory."""

    async def main() -> None:
        async with await open_file(path) as file:
            for number in range(500):
                await file.readv_at(number, [bytearray(10)])
            assert len(file._ops) < 40

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scheduler.run(main)


def test_numbers_that_no_file_has_are_refused(scheduler: Scheduler, path: Path) -> None:
    """What would wrap around in an SQE, and cut the file or read elsewhere, is a ValueError."""

    async def main() -> None:
        async with await open_file(path, "rb+") as file:
            before = await file.read_all()
            for number in (-1, 1 << 63, (1 << 64) - 1, 1 << 64):
                for make in (
                    lambda number=number: file.read_at(number, 1),
                    lambda number=number: file.write_at(number, b"x"),
                    lambda number=number: file.readv_at(number, [bytearray(1)]),
                    lambda number=number: file.truncate(number),
                    lambda number=number: file.fallocate(number, 1),
                    lambda number=number: file.fallocate(0, number),
                    lambda number=number: file.fallocate(0, 1, number),
                    lambda number=number: open_file(path, permissions=number),
                    lambda number=number: open_file(path, flags=number),
                ):
                    with pytest.raises(ValueError, match="not"):
                        make()
            with pytest.raises(ValueError, match="not"):
                file.seek(1 << 64)
            with pytest.raises(ValueError, match="not for this kind"):
                file.write_at(0, b"x", flags=RWFlags(1 << 20))
            assert await file.read_at(0, 1 << 20) == before

    scheduler.run(main)


def test_devices_that_take_nothing_end_write_all(
    scheduler: Scheduler, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A write of no bytes is an error that tells how much went before, not a loop without end."""
    counts = iter([3, 0])

    async def main() -> None:
        async with await open_file(path, "rb+") as file:
            write = file._hand_out_write

            def stuck(*arguments: Any) -> Any:
                op = write(*arguments)
                op.finish = lambda _: next(counts)
                return op

            monkeypatch.setattr(File, "_hand_out_write", lambda _, *rest: stuck(*rest))
            with pytest.raises(OpError) as caught:
                await file.write_all(b"12345")
            assert (caught.value.errno, caught.value.done) == (errno.EIO, 3)

    scheduler.run(main)


def test_memory_whose_items_are_larger_than_a_byte(scheduler: Scheduler, path: Path) -> None:
    """An array is counted in bytes, not in items."""

    async def main() -> None:
        numbers: Any = array("i", range(100))
        async with await open_file(path, "r+b") as file:
            assert await file.write_at(8, numbers) == numbers.itemsize * 100
            again: Any = array("i", bytes(numbers.itemsize * 100))
            assert await file.read_into_at(8, again) == numbers.itemsize * 100
            assert again == numbers

    scheduler.run(main)
