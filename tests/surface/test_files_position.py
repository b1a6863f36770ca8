"""Reads and writes where a file stands, and iteration; the same on every driver."""

import contextlib
import errno
import os
from pathlib import Path

import pytest

from tests.surface.schedulers import Scheduler
from uringio.errors import BusyError, EndOfStreamError, OpError
from uringio.files import open_file

LINES = [b"line %d" % number + b"x" * (number % 300) + b"\n" for number in range(3000)]
CONTENT = b"".join(LINES)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Make a file of many lines."""
    path = tmp_path / "file"
    path.write_bytes(CONTENT)
    return path


def test_reads_and_writes_go_on_where_the_last_ended(scheduler: Scheduler, path: Path) -> None:
    """One position serves reads, writes, `seek` and `tell`, as with the builtin."""

    async def main() -> None:
        async with await open_file(path, "r+b") as file:
            assert await file.read(10) == CONTENT[:10]
            assert await file.read(10) == CONTENT[10:20]
            assert file.tell() == 20
            assert await file.write(b"-written-") == 9
            assert await file.read(5) == CONTENT[29:34]
            assert file.seek(3, os.SEEK_CUR) == 37
            assert await file.read(1) == CONTENT[37:38]
            assert file.seek(-4, os.SEEK_END) == len(CONTENT) - 4
            assert await file.read(100) == CONTENT[-4:]
            assert await file.read(100) == b""
            assert file.seek(20) == 20
            assert await file.read(9) == b"-written-"
            assert await file.read_at(0, 3) == CONTENT[:3]
            assert file.tell() == 29
            with pytest.raises(OpError) as caught:
                file.seek(-1)
            assert caught.value.errno == errno.EINVAL

    scheduler.run(main)


def test_wholes_are_read_and_written(scheduler: Scheduler, tmp_path: Path) -> None:
    """`write_all`, `read_all` and `read_exactly` move everything, or say what there was."""
    data = os.urandom(3_000_000)

    async def main() -> None:
        async with await open_file(tmp_path / "new", "x+b") as file:
            await file.write_all(data)
            await file.write_all(memoryview(data)[::1].cast("I"))
            assert file.tell() == 2 * len(data)
            file.seek(0)
            assert await file.read_exactly(len(data)) == data
            assert await file.read_all() == data
            assert await file.read_all() == b""
            file.seek(-10, os.SEEK_END)
            with pytest.raises(EndOfStreamError) as caught:
                await file.read_exactly(11)
            assert caught.value.partial == data[-10:]
            assert await file.read_exactly(0) == b""

    scheduler.run(main)


def test_files_of_unknown_size_are_read_to_the_end(scheduler: Scheduler) -> None:
    """Files that say that they are empty are read all the same."""

    async def main() -> None:
        async with await open_file("/proc/self/stat") as file:
            assert (await file.stat()).st_size == 0
            assert (await file.read_all()).startswith(b"%d " % os.getpid())

    scheduler.run(main)


def test_appended_files_grow_at_their_end(scheduler: Scheduler, path: Path) -> None:
    """Mode a writes at the end whatever the position or the offset says."""

    async def main() -> None:
        async with await open_file(path, "a+b") as file:
            assert await file.read(4) == CONTENT[:4]
            await file.write_all(b"one")
            assert file.tell() == len(CONTENT) + 3
            assert await file.write_at(0, b"two") == 3

    scheduler.run(main)
    assert path.read_bytes() == CONTENT + b"onetwo"


def test_lines_come_whole_and_in_order(scheduler: Scheduler, path: Path) -> None:
    """Iteration gives each line with its end, and the last one without if it has none."""
    with path.open("ab") as file:
        file.write(b"the end")

    async def main() -> None:
        async with await open_file(path) as file:
            assert [line async for line in file] == [*LINES, b"the end"]
            assert await file.read(1) == b""
            assert [line async for line in file] == []
            file.seek(3)
            assert [line async for line in file][0] == LINES[0][3:]  # noqa: RUF015
            assert await file.read_line() == b""

    scheduler.run(main)


def test_lines_may_be_longer_than_any_buffer(scheduler: Scheduler, tmp_path: Path) -> None:
    """A line is as long as it is; empty lines and an empty file are what they are."""
    path = tmp_path / "file"

    async def lines(content: bytes) -> list[bytes]:
        path.write_bytes(content)
        async with await open_file(path) as file:
            return [line async for line in file.lines()]

    for content in (b"x" * 300_000 + b"\n" + b"y" * 70_000, b"\n\n\n", b"", b"\0\r\n\n"):
        assert scheduler.run(lines, content) == content.splitlines(keepends=True)


def test_iteration_can_be_left_and_mixed(scheduler: Scheduler, path: Path) -> None:
    """Behind a loop that was left, reads, writes and `tell` go on behind the last line."""

    async def main() -> None:
        async with await open_file(path, "r+b") as file:
            count = 0
            async for line in file:
                assert line == LINES[count]
                count += 1
                assert file.tell() == sum(map(len, LINES[:count]))
                if count == 5:
                    break
            assert await file.read(4) == LINES[5][:4]
            assert (
                await file.read_exactly(len(CONTENT) // 2)
                == (b"".join(LINES[5:])[4 : 4 + len(CONTENT) // 2])
            )
            file.seek(0)
            await file.read_line()
            await file.write_all(b"LINE")
            assert await file.read_line() == LINES[1][4:]
            assert file.seek(2, os.SEEK_CUR) == len(LINES[0]) + len(LINES[1]) + 2

    scheduler.run(main)
    assert path.read_bytes() == CONTENT.replace(b"\nline 1x", b"\nLINE 1x", 1)


def test_chunks_cover_the_file(scheduler: Scheduler, path: Path) -> None:
    """`chunks` gives all bytes, none longer than asked for."""

    async def main() -> None:
        async with await open_file(path) as file:
            chunks = [chunk async for chunk in file.chunks(10_000)]
            assert b"".join(chunks) == CONTENT
            assert {len(chunk) for chunk in chunks[:-1]} == {10_000}
            with pytest.raises(ValueError, match="chunk"):
                file.chunks(0)

    scheduler.run(main)


def test_fifos_are_read_where_they_stand(scheduler: Scheduler, tmp_path: Path) -> None:
    """A FIFO has no offsets, but reads, lines and waiting work; `seek` is refused."""
    path = tmp_path / "fifo"
    os.mkfifo(path)

    async def main() -> None:
        keep = os.open(path, os.O_RDWR)
        async with await open_file(path) as file, await open_file(path, "wb") as end:
            os.close(keep)
            reading = scheduler.spawn(file.read_line)
            await scheduler.checkpoint()
            assert not reading.ended
            await end.write_all(b"first\nsecond\nrest")
            assert await reading.result() == b"first\n"
            assert await file.read(3) == b"sec"
            await end.aclose()
            assert await file.read_all() == b"ond\nrest"
            with pytest.raises(OpError) as caught:
                file.seek(0)
            assert caught.value.errno == errno.ESPIPE

    scheduler.run(main)


def test_waiting_for_a_fifo_can_be_cancelled(scheduler: Scheduler, tmp_path: Path) -> None:
    """Nobody writes, nobody makes room: the task ends when cancelled, not later."""
    path = tmp_path / "fifo"
    os.mkfifo(path)

    async def main() -> None:
        async with await open_file(path, "r+b") as file:
            reading = scheduler.spawn(file.read_line)
            await scheduler.checkpoint()
            reading.cancel()
            await reading.wait()
            os.set_blocking(file.fileno(), False)
            with contextlib.suppress(BlockingIOError):
                while True:
                    os.write(file.fileno(), bytes(4096))
            os.set_blocking(file.fileno(), True)

            async def write() -> None:
                await file.write(b"x")

            writing = scheduler.spawn(write)
            await scheduler.checkpoint()
            writing.cancel()
            await writing.wait()
            assert await file.read(5) == bytes(5)

    scheduler.run(main)


def test_one_task_at_a_time_has_the_position(scheduler: Scheduler, tmp_path: Path) -> None:
    """A second read, write or seek at the position, while one is in flight, is refused."""
    path = tmp_path / "fifo"
    os.mkfifo(path)

    async def main() -> None:
        async with await open_file(path, "r+b") as file:
            reading = scheduler.spawn(file.read_line)
            await scheduler.checkpoint()
            for call in (
                lambda: file.read(1),
                lambda: file.write(b"x"),
                lambda: file.seek(0),
                file.tell,
            ):
                with pytest.raises(BusyError):
                    call()
            fd = os.open(path, os.O_WRONLY)
            os.write(fd, b"line\n")
            os.close(fd)
            assert await reading.result() == b"line\n"

    scheduler.run(main)


def test_superseded_reads_do_not_run(scheduler: Scheduler, path: Path) -> None:
    """A read that was made and not awaited is replaced by the next call."""

    async def main() -> None:
        async with await open_file(path) as file:
            first = file.read(10)
            assert await file.read(4) == CONTENT[:4]
            with pytest.raises(BusyError):
                await first

    scheduler.run(main)


def test_cancelled_reads_lose_nothing(scheduler: Scheduler, tmp_path: Path) -> None:
    """However reads are cancelled, all bytes come, in order, in the reads that are not."""
    path = tmp_path / "fifo"
    os.mkfifo(path)
    data = os.urandom(40_000)

    async def main() -> None:
        async with await open_file(path, "r+b") as file:
            fd = os.open(path, os.O_WRONLY)
            got = b""
            sent = 0
            number = 0
            while len(got) < len(data):
                number += 1
                parts: list[bytes] = []

                async def read(parts: list[bytes] = parts) -> None:
                    parts.append(await file.read(1000))

                reading = scheduler.spawn(read)
                for _ in range(number % 4):
                    await scheduler.checkpoint()
                if sent < len(data):
                    sent += os.write(fd, data[sent : sent + 700])
                for _ in range(number % 3):
                    await scheduler.checkpoint()
                if number % 5 or len(got) >= sent:
                    reading.cancel()
                await reading.wait()
                got += b"".join(parts)
            os.close(fd)
            assert got == data

    scheduler.run(main)


def test_cancelled_reads_of_files_lose_nothing(scheduler: Scheduler, path: Path) -> None:
    """The same for a regular file, whose reads never wait for anybody."""

    async def main() -> None:
        async with await open_file(path) as file:
            got = b""
            number = 0
            while len(got) < len(CONTENT):
                number += 1
                parts: list[bytes] = []

                async def read(parts: list[bytes] = parts) -> None:
                    parts.append(await file.read(5000))

                reading = scheduler.spawn(read)
                for _ in range(number % 4):
                    await scheduler.checkpoint()
                if number % 4 != 3:
                    reading.cancel()
                await reading.wait()
                got += b"".join(parts)
            assert got == CONTENT

    scheduler.run(main)
