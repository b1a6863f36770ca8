"""Files: opened, read at offsets, closed; the same on every driver."""

import contextlib
import os
import threading
import warnings
from pathlib import Path

import pytest

from tests.surface.schedulers import Scheduler
from uringio._sys.system import System
from uringio.errors import ClosedError, OpError, UsageError
from uringio.files import File, open_file

CONTENT = bytes(range(256)) * 1000


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Make a file of known bytes."""
    path = tmp_path / "file"
    path.write_bytes(CONTENT)
    return path


def test_reads_give_what_lies_there(scheduler: Scheduler, path: Path) -> None:
    """Reads at any offset return those bytes, fewer at the end, none behind it."""

    async def main() -> None:
        async with await open_file(path) as file:
            assert await file.read_at(0, len(CONTENT)) == CONTENT
            assert await file.read_at(1000, 77) == CONTENT[1000:1077]
            assert await file.read_at(len(CONTENT) - 3, 100) == CONTENT[-3:]
            assert await file.read_at(len(CONTENT), 100) == b""
            assert await file.read_at(2**40, 100) == b""
            assert await file.read_at(0, 0) == b""
            with pytest.raises(ValueError, match="offset"):
                file.read_at(-1, 1)

    scheduler.run(main)


def test_reads_into_memory_touch_only_what_they_say(scheduler: Scheduler, path: Path) -> None:
    """`read_into_at` fills as many bytes as it returns and leaves the rest."""

    async def main() -> None:
        async with await open_file(path) as file:
            buffer = bytearray(b"\xee" * 100)
            assert await file.read_into_at(256 * 7, memoryview(buffer)[10:20]) == 10
            assert buffer == b"\xee" * 10 + bytes(range(10)) + b"\xee" * 80
            assert await file.read_into_at(len(CONTENT) - 5, buffer) == 5
            assert buffer[:5] == CONTENT[-5:]
            assert buffer[5:10] == b"\xee" * 5
            with pytest.raises(TypeError):
                await file.read_into_at(0, memoryview(b"immutable"))

    scheduler.run(main)


def test_memory_cannot_be_resized_under_a_read(scheduler: Scheduler, path: Path) -> None:
    """While a read is in flight its memory stays where it is; afterwards it is free again."""

    async def main() -> None:
        async with await open_file(path) as file:
            buffer = bytearray(65536)

            async def read() -> None:
                # In pieces, for a plain read of cached bytes has ended before anybody could resize.
                assert await file.readv_at(0, [buffer]) == 65536

            async def resize() -> None:
                # Runs in the pass that started the read: no completion was looked for in between.
                with pytest.raises(BufferError):
                    buffer.extend(b"x")

            reading, resizing = scheduler.spawn(read), scheduler.spawn(resize)
            await reading.result()
            await resizing.result()
            buffer.extend(b"x")
            assert buffer[:256] == CONTENT[:256]

    scheduler.run(main)


def test_many_readers_share_a_file(scheduler: Scheduler, path: Path) -> None:
    """Reads of one file from many tasks do not disturb each other."""

    async def main() -> None:
        async with await open_file(path) as file:

            async def read(offset: int) -> None:
                assert await file.read_at(offset, 3000) == CONTENT[offset : offset + 3000]

            readers = [scheduler.spawn(read, at) for at in range(0, len(CONTENT), 3000)]
            for reader in readers:
                await reader.result()

    scheduler.run(main)


def test_stat_tells_size_and_kind(scheduler: Scheduler, path: Path) -> None:
    """`stat` gives what os.stat gives."""

    async def main() -> None:
        async with await open_file(path) as file:
            assert await file.stat() == os.stat(path)

    scheduler.run(main)


def test_paths_may_be_relative_to_a_folder(scheduler: Scheduler, path: Path) -> None:
    """A path of any type is taken, relative to an open folder if one is given."""

    async def main() -> None:
        async with await open_file(path.parent, flags=os.O_DIRECTORY) as folder:
            for name in ("file", b"file", Path("file")):
                async with await open_file(name, folder=folder) as file:
                    assert await file.read_at(0, 4) == CONTENT[:4]
            with pytest.raises(FileNotFoundError):
                await open_file("other", folder=folder)
        with pytest.raises(ClosedError):
            open_file("file", folder=folder)

    scheduler.run(main)


def test_refusals_are_typed(scheduler: Scheduler, path: Path) -> None:
    """What the kernel refuses is the builtin's class, and names the operation."""

    async def main() -> None:
        with pytest.raises(FileNotFoundError) as caught:
            await open_file(path.parent / "missing")
        assert isinstance(caught.value, OpError)
        assert caught.value.op == "open"
        with pytest.raises(NotADirectoryError):
            await open_file(path / "below")
        with pytest.raises(ValueError, match="NUL"):
            open_file("a\0b")
        async with await open_file(path.parent) as folder:
            with pytest.raises(IsADirectoryError):
                await folder.read_at(0, 1)

    scheduler.run(main)


def test_descriptors_are_closed_on_exec(scheduler: Scheduler, path: Path) -> None:
    """No child inherits a file."""

    async def main() -> None:
        async with await open_file(path) as file:
            assert not os.get_inheritable(file.fileno())

    scheduler.run(main)


def test_closed_files_refuse(scheduler: Scheduler, path: Path) -> None:
    """After `aclose` every call is misuse, and closing again is harmless."""

    async def main() -> None:
        file = await open_file(path)
        early = file.read_at(0, 1)
        await file.aclose()
        await file.aclose()
        with pytest.raises(ClosedError):
            await early  # its descriptor's number may be another file's by now
        with pytest.raises(ClosedError):
            file.read_at(0, 1)
        with pytest.raises(ClosedError):
            file.stat()
        with pytest.raises(ClosedError):
            file.fileno()

    scheduler.run(main)


def test_closing_ends_reads(scheduler: Scheduler, path: Path) -> None:
    """A read in flight when its file is closed ends, with its bytes or with `ClosedError`."""
    outcomes: list[object] = []

    async def main() -> None:
        file = await open_file(path)

        async def read() -> None:
            try:
                outcomes.append(await file.read_at(0, 100))
            except ClosedError:
                outcomes.append(CONTENT[:100])

        readers = [scheduler.spawn(read) for _ in range(20)]
        await scheduler.checkpoint()
        await file.aclose()
        for reader in readers:
            await reader.result()

    scheduler.run(main)
    assert outcomes == [CONTENT[:100]] * 20


@pytest.mark.parametrize("where", ["anywhere", "in a folder"])
def test_cancelled_opens_leave_no_descriptor(scheduler: Scheduler, path: Path, where: str) -> None:
    """However an open is cancelled, nothing stays open (the leak check of every test looks)."""

    async def main() -> None:
        async with await open_file(path.parent) as parent:
            folder = parent if where == "in a folder" else None

            async def opener() -> None:
                file = await open_file(path, folder=folder)
                await file.aclose()

            for passes in range(1, 5):  # a task of asyncio that never began cannot say it ended
                for _ in range(25):
                    opening = scheduler.spawn(opener)
                    for _ in range(passes):
                        await scheduler.checkpoint()
                    opening.cancel()
                    await opening.wait()

    scheduler.run(main)


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_reads_keep_their_file_open(scheduler: Scheduler, path: Path) -> None:
    """A read that outlives every other reference to its file still reads that file."""

    async def main() -> None:
        read = (await open_file(path)).read_at(0, 4)
        async with await open_file("/dev/null"):  # would get the number
            assert await read == CONTENT[:4]

    scheduler.run(main)


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_opens_keep_their_folder_open(scheduler: Scheduler, path: Path) -> None:
    """So does an open in a folder; and one whose folder was closed first is refused."""

    async def main() -> None:
        opening = open_file("file", folder=await open_file(path.parent))
        async with await open_file("/"), await opening as file:
            assert await file.read_at(0, 4) == CONTENT[:4]
        folder = await open_file(path.parent)
        opening = open_file("file", folder=folder)
        await folder.aclose()
        async with await open_file("/"):
            with pytest.raises(ClosedError):
                await opening

    scheduler.run(main)


def test_forgotten_files_warn(scheduler: Scheduler, path: Path) -> None:
    """A file that is dropped without `aclose` warns."""

    async def main() -> None:
        file = await open_file(path)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            del file
        assert [warning.category for warning in caught] == [ResourceWarning]

    scheduler.run(main)


def test_files_belong_to_a_loop(path: Path) -> None:
    """Without a running loop there are no files."""
    with pytest.raises(UsageError):
        File(0)
    assert path.exists()


def test_opens_that_would_wait_for_ever_can_be_cancelled(
    scheduler: Scheduler, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A FIFO that nobody writes to: its open ends when cancelled, and what comes late is closed."""
    if scheduler.backend != "epoll":
        pytest.skip("io_uring opens a FIFO without waiting for its other end")
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    begun, ended = threading.Event(), threading.Event()
    real = System.open_at

    def open_at(self: System, dir_fd: int, path: bytes, flags: int, mode: int) -> int:
        begun.set()
        res = real(self, dir_fd, path, flags, mode)
        ended.set()
        return res

    monkeypatch.setattr(System, "open_at", open_at)

    def fds() -> int:
        found = 0
        for name in os.listdir("/proc/self/fd"):
            with contextlib.suppress(OSError):
                found += os.readlink(f"/proc/self/fd/{name}") == str(fifo)
        return found

    async def open_it() -> None:
        await open_file(fifo, "rb")

    async def main() -> None:
        task = scheduler.spawn(open_it)
        await scheduler.until(begun.is_set)
        task.cancel()
        await task.wait()
        assert task.cancelled
        writing = os.open(fifo, os.O_RDWR)
        await scheduler.until(ended.is_set)
        await scheduler.until(lambda: fds() == 1)
        os.close(writing)

    scheduler.run(main)
    assert fds() == 0
