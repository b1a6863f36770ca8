"""Files: opened, read at offsets, closed; the same on every driver."""

import os
import warnings
from pathlib import Path

import pytest

import uringio
from uringio.errors import BusyError, ClosedError, OpError, UsageError
from uringio.files import File, open_file

CONTENT = bytes(range(256)) * 1000


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Make a file of known bytes."""
    path = tmp_path / "file"
    path.write_bytes(CONTENT)
    return path


def test_reads_give_what_lies_there(backend: str, path: Path) -> None:
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

    uringio.run(main, backend=backend)


def test_reads_into_memory_touch_only_what_they_say(backend: str, path: Path) -> None:
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

    uringio.run(main, backend=backend)


def test_memory_cannot_be_resized_under_a_read(backend: str, path: Path) -> None:
    """While a read is in flight its memory stays where it is; afterwards it is free again."""

    async def main() -> None:
        async with await open_file(path) as file:
            buffer = bytearray(65536)

            async def read() -> None:
                assert await file.read_into_at(0, buffer) == 65536

            async def resize() -> None:
                # Runs in the pass that started the read: no completion was looked for in between.
                with pytest.raises(BufferError):
                    buffer.extend(b"x")

            async with uringio.TaskGroup() as group:
                group.start_soon(read)
                group.start_soon(resize)
            buffer.extend(b"x")
            assert buffer[:256] == CONTENT[:256]

    uringio.run(main, backend=backend)


def test_many_readers_share_a_file(backend: str, path: Path) -> None:
    """Reads of one file from many tasks do not disturb each other."""

    async def main() -> None:
        async with await open_file(path) as file:

            async def read(offset: int) -> None:
                assert await file.read_at(offset, 3000) == CONTENT[offset : offset + 3000]

            async with uringio.TaskGroup() as group:
                for offset in range(0, len(CONTENT), 3000):
                    group.start_soon(read, offset)

    uringio.run(main, backend=backend)


def test_stat_tells_size_and_kind(backend: str, path: Path) -> None:
    """`stat` gives what os.stat gives."""

    async def main() -> None:
        async with await open_file(path) as file:
            assert await file.stat() == os.stat(path)  # noqa: PTH116

    uringio.run(main, backend=backend)


def test_paths_may_be_relative_to_a_folder(backend: str, path: Path) -> None:
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

    uringio.run(main, backend=backend)


def test_refusals_are_typed(backend: str, path: Path) -> None:
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

    uringio.run(main, backend=backend)


def test_descriptors_are_closed_on_exec(backend: str, path: Path) -> None:
    """No child inherits a file."""

    async def main() -> None:
        async with await open_file(path) as file:
            assert not os.get_inheritable(file.fileno())

    uringio.run(main, backend=backend)


def test_closed_files_refuse(backend: str, path: Path) -> None:
    """After `aclose` every call is misuse, and closing again is harmless."""

    async def main() -> None:
        file = await open_file(path)
        early = file.read_at(0, 1)
        await file.aclose()
        await file.aclose()
        with pytest.raises(BusyError):
            await early  # its descriptor's number may be another file's by now
        with pytest.raises(ClosedError):
            file.read_at(0, 1)
        with pytest.raises(ClosedError):
            file.stat()
        with pytest.raises(ClosedError):
            file.fileno()

    uringio.run(main, backend=backend)


def test_closing_ends_reads(backend: str, path: Path) -> None:
    """A read in flight when its file is closed ends, with its bytes or with `ClosedError`."""
    outcomes: list[object] = []

    async def main() -> None:
        file = await open_file(path)

        async def read() -> None:
            try:
                outcomes.append(await file.read_at(0, 100))
            except ClosedError:
                outcomes.append(CONTENT[:100])

        async with uringio.TaskGroup() as group:
            for _ in range(20):
                group.start_soon(read)
            await uringio.checkpoint()
            await file.aclose()

    uringio.run(main, backend=backend)
    assert outcomes == [CONTENT[:100]] * 20


def test_cancelled_opens_leave_no_descriptor(backend: str, path: Path) -> None:
    """However an open is cancelled, nothing stays open (the leak check of every test looks)."""

    async def opener() -> None:
        file = await open_file(path)
        await file.aclose()

    async def main() -> None:
        for passes in range(4):
            for _ in range(25):
                async with uringio.TaskGroup() as group:
                    group.start_soon(opener)
                    for _ in range(passes):
                        await uringio.checkpoint()
                    group.cancel_scope.cancel()

    uringio.run(main, backend=backend)


def test_forgotten_files_warn(backend: str, path: Path) -> None:
    """A file that is dropped without `aclose` warns."""

    async def main() -> None:
        file = await open_file(path)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            del file
        assert [warning.category for warning in caught] == [ResourceWarning]

    uringio.run(main, backend=backend)


def test_files_belong_to_a_loop(path: Path) -> None:
    """Without a running loop there are no files."""
    with pytest.raises(UsageError):
        File(0)
    assert path.exists()


def test_files_work_in_asyncio_tasks(backend: str, path: Path) -> None:
    """The same calls, awaited by asyncio on our loop."""
    aio = pytest.importorskip("uringio.aio")
    import asyncio

    async def main() -> None:
        async with await open_file(path) as file:
            first, second = await asyncio.gather(file.read_at(0, 10), file.read_at(10, 10))
            assert first + second == CONTENT[:20]
            assert await asyncio.wait_for(file.read_at(5, 5), 30) == CONTENT[5:10]

    with asyncio.Runner(loop_factory=lambda: aio.new_event_loop(backend=backend)) as runner:
        runner.run(main())
