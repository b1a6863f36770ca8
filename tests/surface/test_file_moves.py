"""Owned buffers to and from files."""

from pathlib import Path

import pytest

import uringio
from tests.surface.schedulers import Scheduler
from uringio._own.buffer import Buffer
from uringio._own.pool import Pool
from uringio.errors import BorrowedError, ClosedError, OpError, UseAfterMoveError


def test_a_file_written_from_buffers_reads_the_same(scheduler: Scheduler, tmp_path: Path) -> None:
    """Parts of a buffer land at their offsets, and come back into another."""

    async def main() -> None:
        async with await uringio.open_file(tmp_path / "file", "w+b") as file:
            buffer = Buffer.holding(bytes(range(200)))
            done, buffer = await file.write_from(buffer, 10)
            assert done == 200
            done, buffer = await file.write_from(buffer, 0, 190)
            assert done == 10
            into = Buffer(300)
            old = into
            count, into = await file.read_into(into, 5, 100)
            assert count == 200
            expected = (bytes(range(190, 200)) + bytes(range(200)))[5:205]
            assert into.read(100) == expected
            assert into.read(0, 100) == bytes(100)
            with pytest.raises(UseAfterMoveError):
                old.read()
            count, into = await file.read_into(into, 1000)
            assert count == 0

    scheduler.run(main)


def test_direct_files_take_buffers_as_they_are(scheduler: Scheduler, tmp_path: Path) -> None:
    """A buffer, from a pool or not, is aligned well enough for O_DIRECT."""
    path = tmp_path / "file"
    path.write_bytes(bytes(range(256)) * 64)

    async def main() -> None:
        pool = Pool(1 << 20)
        try:
            file = await uringio.open_file(path, "r+b", direct=True)
        except OpError:
            pytest.skip("this filesystem has no O_DIRECT")
        async with file:
            pooled = pool.allocate(8192)
            assert pooled is not None
            for buffer in (Buffer(8192), pooled):
                count, back = await file.read_into(buffer, 4096)
                assert (count, back.read(0, 256)) == (8192, bytes(range(256)))
                done, back = await file.write_from(back, 0)
                assert done == 8192
                with pytest.raises(ValueError, match="multiple of"):
                    file.read_into(back, 0, 1)
                back.release()

    scheduler.run(main)


def test_refused_moves_leave_the_buffer(scheduler: Scheduler, tmp_path: Path) -> None:
    """Bad offsets, views, files that are closed or not writable: the handle is as it was."""
    path = tmp_path / "file"
    path.write_bytes(b"text")

    async def main() -> None:
        buffer = Buffer(16)
        async with await uringio.open_file(path, "rb") as file:
            with pytest.raises(ValueError, match="offset"):
                file.read_into(buffer, -1)
            with buffer.view(), pytest.raises(BorrowedError):
                file.read_into(buffer, 0)
            with pytest.raises(OpError):
                await file.write_from(buffer, 0)
            buffer.write(b"mine")
        with pytest.raises(ClosedError):
            file.read_into(buffer, 0)
        buffer.release()
        with pytest.raises(UseAfterMoveError, match="was released"):
            file.read_into(buffer, 0)

    scheduler.run(main)


def test_only_buffers_move(scheduler: Scheduler, tmp_path: Path) -> None:
    """Other memory is refused by its type before there is an operation."""

    async def main() -> None:
        async with await uringio.open_file(tmp_path / "file", "w+b") as file:
            with pytest.raises(TypeError, match="moved into read_into, not 'bytearray'"):
                file.read_into(bytearray(4), 0)  # type: ignore[arg-type]
            with pytest.raises(TypeError, match="moved into write_from, not 'bytes'"):
                file.write_from(b"data", 0)  # type: ignore[arg-type]

    scheduler.run(main)
