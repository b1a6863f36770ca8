"""Memory of a pool that is registered with the ring: used by itself, and let go of in time."""

import os
import random
import struct
from pathlib import Path

import pytest

from tests.backends import RUNG
from tests.fresh import FreshPython
from tests.kernel import lock_refusal, uring_refusal
from tests.older import without
from tests.surface.pairs import connected
from tests.surface.schedulers import Scheduler, Spawned
from uringio import Buffer, BufferPool, files
from uringio._driver import current, uring_tables
from uringio._driver.uring import UringDriver
from uringio._sys import constants as k
from uringio.errors import UsageError

MIB = 1 << 20
FIXED = {k.IORING_OP_READ_FIXED, k.IORING_OP_WRITE_FIXED}


@pytest.fixture(autouse=True)
def lockable() -> None:
    """Skip where not even a small pool may be locked."""
    lacking = without(RUNG, "registered memory", registration=k.IORING_REGISTER_BUFFERS2)
    if reason := lacking or lock_refusal():
        pytest.skip(reason)


def opcodes() -> set[int]:
    """Return the opcodes in the slots of the running ring, which stay there after their use."""
    driver = current.driver()
    assert isinstance(driver, UringDriver)
    return set(driver.ring.sqes[::64])


def forget_opcodes() -> None:
    driver = current.driver()
    assert isinstance(driver, UringDriver)
    driver.flush()
    driver.ring.sqes[:] = bytes(len(driver.ring.sqes))


def test_transfers_of_registered_buffers_are_fixed(scheduler: Scheduler, tmp_path: Path) -> None:
    """Within the block both directions use the registration, behind it neither; bytes are right."""

    async def main() -> None:
        pool = BufferPool(MIB)
        data = random.randbytes(65536)
        async with await files.open_file(tmp_path / "f", "w+") as file:
            for registered in (True, False, True):
                buffer, other = pool.allocate(65536), pool.allocate(65536)
                assert buffer is not None
                assert other is not None
                buffer.write(data)
                block = pool.registered()
                if registered:
                    assert await block.__aenter__() is (scheduler.backend == "uring")
                if scheduler.backend == "uring":
                    forget_opcodes()
                for offset in (0, 4096):
                    wrote, buffer = await file.write_from(buffer, offset, 100, 20_000)
                    assert wrote == 19_900
                    os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
                    read, other = await file.read_into(other, offset, 7, 7 + wrote)
                    assert read == wrote
                    assert other.read(7, 7 + wrote) == data[100:20_000]
                if scheduler.backend == "uring":
                    assert (k.IORING_OP_WRITE_FIXED in opcodes()) is registered
                if registered:
                    await block.__aexit__(None, None, None)
                buffer.release()
                other.release()

    scheduler.run(main)


def test_direct_reads_are_fixed(scheduler: Scheduler, tmp_path: Path) -> None:
    """Reads that the page cache does not answer go by the registration too."""
    if scheduler.backend != "uring":
        pytest.skip("there are no registrations")

    async def main() -> None:
        data = random.randbytes(65536)
        (tmp_path / "f").write_bytes(data)
        pool = BufferPool(MIB)
        try:
            file = await files.open_file(tmp_path / "f", direct=True)
        except OSError as error:
            pytest.skip(f"no O_DIRECT here: {error}")
        async with file, pool.registered():
            forget_opcodes()
            buffer = await pool.acquire(65536)
            read, buffer = await file.read_into(buffer, 0)
            assert (read, buffer.read()) == (65536, data)
            assert k.IORING_OP_READ_FIXED in opcodes()
            buffer.release()
            other = BufferPool(MIB)
            foreign = await other.acquire(4096)
            forget_opcodes()
            read, foreign = await file.read_into(foreign, 4096)
            assert foreign.read() == data[4096:8192]
            assert not opcodes() & FIXED
            foreign.release()

    scheduler.run(main)


def test_sends_without_a_copy_are_fixed(scheduler: Scheduler) -> None:
    """The bytes arrive, by the registration where there is one, before, in and behind the block."""
    if lacking := without(RUNG, "SEND_ZC", k.IORING_OP_SEND_ZC):
        pytest.skip(lacking)

    async def main() -> None:
        pool, data = BufferPool(MIB), random.randbytes(100_000)
        async with connected() as (near, far):
            buffer = await pool.acquire(100_000)
            buffer.write(data)

            async def send(start: int) -> None:
                nonlocal buffer
                task = scheduler.spawn(far.recv_exactly, 100_000 - start)
                sent, buffer = await near.send_buffer(buffer, start, zero_copy=True)
                assert sent == 100_000 - start
                assert await task.result() == data[start:]

            await send(0)
            async with pool.registered() as registered:
                await send(0)
                if registered:
                    forget_opcodes()
                await send(5000)
                if registered:
                    driver = current.driver()
                    assert isinstance(driver, UringDriver)
                    sqes = driver.ring.sqes
                    heads = {bytes(sqes[at : at + 4]) for at in range(0, len(sqes), 64)}
                    fixed = (k.IORING_OP_SEND_ZC, 0, k.IORING_RECVSEND_FIXED_BUF)
                    assert struct.pack("=BBH", *fixed) in heads
            await send(17)
            buffer.release()

    scheduler.run(main)


def test_the_end_waits_for_what_is_in_flight(scheduler: Scheduler) -> None:
    """The block ends when the last transfer that uses the registration has."""
    if scheduler.backend != "uring":
        pytest.skip("there are no registrations")

    async def main() -> None:
        pool = BufferPool(MIB)
        read_end, write_end = os.pipe()
        file = await files.open_file(f"/proc/self/fd/{read_end}")
        buffer = await pool.acquire(4096)
        order: list[str] = []

        async def read() -> None:
            count, got = await file.read_into(buffer, 0)
            order.append("read")
            assert got.read(0, count) == b"late"
            got.release()

        async def hold() -> None:
            async with pool.registered():
                task = scheduler.spawn(read)
                for _ in range(3):
                    await scheduler.checkpoint()
                assert k.IORING_OP_READ_FIXED in opcodes()
            order.append("free")
            await task.result()

        task = scheduler.spawn(hold)
        for _ in range(20):
            await scheduler.checkpoint()
        assert order == []
        os.write(write_end, b"late")
        await task.result()
        assert sorted(order) == ["free", "read"]
        await file.aclose()
        os.close(read_end)
        os.close(write_end)

    scheduler.run(main)


def test_cancelled_while_it_ends(scheduler: Scheduler, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever does not wait for the end leaves the memory withdrawn, and free when it can be."""
    if scheduler.backend != "uring":
        pytest.skip("there are no registrations")
    monkeypatch.setattr(uring_tables, "_SPAN_BYTES_MAX", MIB)

    async def main() -> None:
        pool = BufferPool(2 * MIB)
        read_end, write_end = os.pipe()
        file = await files.open_file(f"/proc/self/fd/{read_end}")
        buffers = [await pool.acquire(MIB) for _ in range(2)]

        async def read(buffer: Buffer) -> int:
            count, got = await file.read_into(buffer, 0)
            got.release()
            return count

        async def hold() -> list[Spawned[int]]:
            async with pool.registered():
                tasks.extend(scheduler.spawn(read, buffer) for buffer in buffers)
                for _ in range(3):
                    await scheduler.checkpoint()
            return tasks

        tasks: list[Spawned[int]] = []
        task = scheduler.spawn(hold)
        for _ in range(10):
            await scheduler.checkpoint()
        task.cancel()
        assert (await task.wait()).cancelled
        for count in (1, 2):
            os.write(write_end, b"late")
            await scheduler.until(lambda count=count: sum(one.ended for one in tasks) >= count)
        async with pool.registered():
            pass
        await file.aclose()
        os.close(read_end)
        os.close(write_end)

    scheduler.run(main)


def test_what_cannot_be_registered_is_refused(
    scheduler: Scheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twice is a mistake of the program; the first registration is as before, and can be undone."""
    if scheduler.backend != "uring":
        pytest.skip("there are no registrations")

    async def main() -> None:
        monkeypatch.setattr(uring_tables, "_SPANS_MAX", 1)
        pool, other = BufferPool(MIB), BufferPool(MIB)
        for _ in range(3):
            async with pool.registered():
                with pytest.raises(UsageError, match="registered with this loop already"):
                    await pool.registered().__aenter__()
                with pytest.raises(UsageError, match="room for 1 registered"):
                    await other.registered().__aenter__()
            async with other.registered():
                pass

    scheduler.run(main)


LOCKED = """
import os, resource, sys
import uringio
from uringio.errors import RingError

if os.geteuid() == 0:
    os.setgid(65534)
    os.setuid(65534)
resource.setrlimit(resource.RLIMIT_MEMLOCK, (1 << 20, 1 << 20))

async def main():
    pool = uringio.BufferPool(4 << 20)
    try:
        async with pool.registered():
            print("registered")
    except RingError as error:
        assert error.errno == 12, error
        print(error)
    small = uringio.BufferPool(1 << 20, (4096,))
    buffer = small.allocate(4096)
    buffer.release()

try:
    uringio.run(main, backend="uring")
except RingError as error:
    print("no ring:", error)
"""


@pytest.mark.skipif(uring_refusal() is not None, reason="there is no io_uring")
def test_memory_that_may_not_be_locked(fresh_python: FreshPython) -> None:
    """Without the right to lock so much, the error says what would help."""
    said = fresh_python(LOCKED).check().stdout
    if said.startswith("no ring"):
        pytest.skip(said)
    assert "4194304 bytes of memory could not be registered" in said
    assert "ulimit -l" in said


FORK = """
import os, random, sys
import uringio
from uringio import files

async def main():
    data = random.randbytes(65536)
    pool = uringio.BufferPool(1 << 20)
    async with await files.open_file(sys.argv[1], "w+") as file, pool.registered() as registered:
        assert registered
        buffer = await pool.acquire(65536)
        buffer.write(data)
        start, end = os.pipe()
        child = os.fork()
        if not child:
            os.read(start, 1)
            memory = buffer.loan.memory.view
            memory[:] = bytes(len(memory))  # the child's copy
            os._exit(0)
        _, buffer = await file.write_from(buffer, 0)
        os.write(end, b"x")
        os.waitpid(child, 0)
        buffer.write(b"new" + data[3:])
        _, buffer = await file.write_from(buffer, 65536)
        buffer.release()
        assert await file.read_at(0, 65536) == data
        assert await file.read_at(65536, 65536) == b"new" + data[3:]
    print("fine")

uringio.run(main, backend="uring")
"""


@pytest.mark.skipif(uring_refusal() is not None, reason="there is no io_uring")
def test_registered_memory_over_a_fork(fresh_python: FreshPython, tmp_path: Path) -> None:
    """Both processes write into it after the fork: the kernel goes on with the parent's pages."""
    assert fresh_python(FORK, str(tmp_path / "f")).check().stdout == "fine\n"
