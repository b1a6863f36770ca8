"""Many reads of a file at once: the same on every driver and under both schedulers."""

import os
from pathlib import Path

import pytest

from tests.kernel import lock_refusal
from tests.surface.schedulers import Scheduler
from uringio import Buffer, BufferPool, RWFlags, aligned_buffer, testing
from uringio._driver import current
from uringio._driver.uring import UringDriver
from uringio._sys import constants as k
from uringio.errors import ClosedError, UsageError, UseAfterMoveError
from uringio.files import open_file

BLOCK = 4096
CONTENT = b"".join(number.to_bytes(8, "little") * (BLOCK // 8) for number in range(40))
PLACES = [7 * BLOCK, 0, 39 * BLOCK, 100, len(CONTENT) - 5, len(CONTENT)]
THERE = [CONTENT[at : at + BLOCK] for at in PLACES]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_bytes(CONTENT)
    return path


def test_bytes_are_those_of_their_places(scheduler: Scheduler, path: Path) -> None:
    """Each read returns what is at its offset: short at the end of the file, nothing behind it."""

    async def main() -> None:
        async with await open_file(path) as file:
            assert await file.read_many_at(PLACES, BLOCK) == THERE
            assert await file.read_many_at((BLOCK,), 3) == [CONTENT[BLOCK : BLOCK + 3]]
            assert await file.read_many_at(range(3), 0) == [b"", b"", b""]

    scheduler.run(main)


def test_memory_is_filled_piece_by_piece(scheduler: Scheduler, path: Path) -> None:
    """Piece after piece, as many bytes of each as its count says; memory behind is not touched."""

    async def main() -> None:
        async with await open_file(path) as file:
            memory = bytearray(b"." * (len(PLACES) * BLOCK + 9))
            counts = await file.read_many_into_at(PLACES, memory, BLOCK)
            assert counts == [len(one) for one in THERE]
            for index, one in enumerate(THERE):
                assert memory[index * BLOCK : index * BLOCK + len(one)] == one
            assert memory[-9:] == b"." * 9
            with pytest.raises(TypeError):
                await file.read_many_into_at([0], memoryview(bytes(BLOCK)), BLOCK)

    scheduler.run(main)


def test_buffer_moves_and_comes_back(scheduler: Scheduler, path: Path) -> None:
    """The handle given is dead meanwhile and after; one that was refused or failed has it still."""

    async def main() -> None:
        async with await open_file(path, "r+") as file:
            old = buffer = Buffer(4 * BLOCK)
            counts, buffer = await file.read_many_into(buffer, PLACES[:4], BLOCK)
            assert counts == [BLOCK] * 4
            assert [buffer.read(at, at + BLOCK) for at in range(0, 4 * BLOCK, BLOCK)] == THERE[:4]
            with pytest.raises(UseAfterMoveError):
                old.read()
            with pytest.raises(ValueError, match="do not fit"):
                file.read_many_into(buffer, PLACES[:4], BLOCK + 1)
            with pytest.raises(OSError, match="read 1 of 1"):
                await file.read_many_into(buffer, [(1 << 63) - 1], BLOCK)
            with pytest.raises(TypeError, match="a Buffer can be moved"):
                file.read_many_into(bytearray(9), [0], 1)  # type: ignore[arg-type]
            assert buffer.read(0, 8) == THERE[0][:8]
            buffer.release()

    scheduler.run(main)


def test_registered_memory_and_file_are_used(scheduler: Scheduler, path: Path) -> None:
    """Within the blocks requests name both by index, if there is a ring; bytes are right."""
    if reason := lock_refusal():
        pytest.skip(reason)

    async def main() -> None:
        pool = BufferPool(1 << 20)
        buffer = pool.allocate(4 * BLOCK)
        assert buffer is not None
        driver = current.driver()
        async with await open_file(path) as file:
            async with pool.registered() as has_memory, file.registered() as has_file:
                if has_file:
                    with pytest.raises(UsageError, match="registered with its loop already"):
                        await file.registered().__aenter__()
                counts, buffer = await file.read_many_into(buffer, PLACES[:4], BLOCK)
                assert counts == [BLOCK] * 4
                assert buffer.read(BLOCK, 2 * BLOCK) == THERE[1]
                if isinstance(driver, UringDriver):
                    # They stay in the slots after their use: operation, then flags.
                    asked = {bytes(driver.ring.sqes[at : at + 2]) for at in range(0, 256 * 64, 64)}
                    operation = k.IORING_OP_READ_FIXED if has_memory else k.IORING_OP_READ
                    assert bytes([operation, k.IOSQE_FIXED_FILE if has_file else 0]) in asked
            assert await file.read_many_at(PLACES, BLOCK) == THERE
            async with file.registered():
                await file.aclose()
                with pytest.raises(ClosedError):
                    file.read_many_at([0], 1)
        async with await open_file(path) as file, file.registered():
            assert await file.read_many_at(PLACES, BLOCK) == THERE
        buffer.release()

    scheduler.run(main)


def test_misuse_is_refused_before_it_runs(scheduler: Scheduler, path: Path) -> None:
    """What cannot be asked for is refused by the call, in words that name it."""

    async def main() -> None:
        async with await open_file(path) as file:
            room = bytearray(8)
            for offsets in ([-1], [1 << 63], [0, (1 << 64) - 1], [1 << 64]):
                with pytest.raises(ValueError, match="an offset is from 0"):
                    file.read_many_at(offsets, 1)
            for offsets in ([], [0] * 1025):
                with pytest.raises(ValueError, match="from 1 to 1024 reads"):
                    file.read_many_at(offsets, 1)
            for size in (-1, 1 << 40):
                with pytest.raises(ValueError, match="bytes"):
                    file.read_many_at([0], size)
            with pytest.raises(TypeError):
                file.read_many_at(["0"], 1)  # type: ignore[list-item]
            with pytest.raises(ValueError, match="do not fit"):
                file.read_many_into_at([0, 0, 0], room, 3)
            for flags in (RWFlags.DSYNC, RWFlags.HIPRI):
                with pytest.raises(ValueError, match="not for this kind"):
                    file.read_many_at([0], 1, flags=flags)
            assert await file.read_many_into_at([0], room, 8, flags=RWFlags.NOWAIT) == [8]

    scheduler.run(main)


def test_direct_batches(scheduler: Scheduler, path: Path) -> None:
    """Past the page cache memory is aligned by itself; what is not aligned is refused by number."""

    async def main() -> None:
        try:
            file = await open_file(path, direct=True)
        except OSError as refusal:
            pytest.skip(f"no O_DIRECT here: {refusal}")
        async with file:
            places = [3 * BLOCK, 0, 39 * BLOCK, 40 * BLOCK]
            there = [CONTENT[at : at + BLOCK] for at in places]
            assert await file.read_many_at(places, BLOCK) == there
            room = aligned_buffer(4 * BLOCK)
            assert await file.read_many_into_at(places, room, BLOCK) == [BLOCK] * 3 + [0]
            assert room[: 3 * BLOCK] == b"".join(there)
            for wrong in (
                lambda: file.read_many_at([0, 7], BLOCK),
                lambda: file.read_many_at([0], 7),
                lambda: file.read_many_into_at([0], room[1 : BLOCK + 1], BLOCK),
            ):
                with pytest.raises(ValueError, match="must be a multiple of"):
                    wrong()

    scheduler.run(main)


def test_closing_ends_a_batch(scheduler: Scheduler, path: Path) -> None:
    """A task that waits for a batch is told that the file was closed, and gets no bytes."""

    async def main() -> None:
        try:
            file = await open_file(path, direct=True)
        except OSError as refusal:
            pytest.skip(f"no O_DIRECT here: {refusal}")
        fd = file.fileno()
        op = file.read_many_at([0] * 100, BLOCK)
        other = file.read_many_at([0], BLOCK)
        current.driver().submit(op)
        closing = file.aclose()
        await closing
        await scheduler.until(lambda: op.done() or op.state > 2)
        assert isinstance(op.error, ClosedError) or op.done()
        with pytest.raises((ClosedError, UsageError)):
            await other
        with pytest.raises(OSError, match="Bad file"):
            os.fstat(fd)

    scheduler.run(main)


def test_simulated_kernel_reads_the_same() -> None:
    """In a storm too, with short queues, completions twice or late, and short reads."""

    async def main() -> None:
        async with await open_file("/tmp/blocks", "wb+") as file:
            await file.write_all(CONTENT)
            for count in (1, 6, 40):
                places = (PLACES * 7)[:count]
                wanted = (THERE * 7)[:count]
                got = await file.read_many_at(places, BLOCK)
                assert len(got) == count
                for one, whole in zip(got, wanted, strict=True):
                    assert whole.startswith(one)
                    assert bool(one) == bool(whole)
                    shorts.append(len(one) < len(whole))

    shorts: list[bool] = []
    for seed in range(6):
        testing.run(main, seed=seed)
    assert not any(shorts)
    for seed in range(6):
        testing.run(main, seed=seed, faults=testing.STORM)
