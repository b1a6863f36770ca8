"""Waiting for a pool's buffers: in line, across threads, and cancelled."""

import asyncio
import gc
import threading
from collections import deque

import pytest

import uringio
from tests.surface.schedulers import Scheduler
from uringio import Buffer, BufferPool, aio
from uringio._driver.op import Awaited
from uringio.aio import EventLoop
from uringio.errors import UsageError

MIB = 1 << 20


def full(pool: BufferPool) -> list[Buffer]:
    taken = []
    while (buffer := pool.allocate(65536)) is not None:
        taken.append(buffer)
    return taken


def test_those_who_wait_are_served_in_line(scheduler: Scheduler) -> None:
    """Each release lets the first of the line through, whatever comes later may want less."""

    async def main() -> None:
        pool = BufferPool(MIB)
        taken = full(pool)
        order: list[int] = []

        async def wait(number: int, size: int) -> None:
            buffer = await pool.acquire(size)
            order.append(number)
            buffer.release()

        tasks = [scheduler.spawn(wait, 0, MIB)]
        await scheduler.checkpoint()
        for number in range(1, 4):
            tasks.append(scheduler.spawn(wait, number, 100))
            await scheduler.checkpoint()
        for buffer in taken:
            assert order == []
            buffer.release()
            await scheduler.checkpoint()
            await scheduler.checkpoint()
        for task in tasks:
            await task.result()
        assert order == [0, 1, 2, 3]
        assert pool.stats().out_count == 0

    scheduler.run(main)


def test_a_release_in_another_thread_wakes_who_waits(scheduler: Scheduler) -> None:
    """Also one by the garbage collector, which runs anywhere."""

    async def main() -> None:
        pool = BufferPool(MIB)
        taken = full(pool)

        async def wait() -> None:
            (await pool.acquire(65536)).release()

        for _ in range(5):
            task = scheduler.spawn(wait)
            await scheduler.checkpoint()
            thread = threading.Thread(target=taken.pop().release)
            thread.start()
            await task.result()
            thread.join()
            buffer = pool.allocate(65536)
            assert buffer is not None
            taken.append(buffer)
            del buffer
        task = scheduler.spawn(wait)
        await scheduler.checkpoint()
        with pytest.warns(ResourceWarning):
            taken.pop()
            gc.collect()
            await task.result()
        for one in taken:
            one.release()

    scheduler.run(main)


def test_a_cancelled_wait_takes_nothing_and_passes_its_turn_on(scheduler: Scheduler) -> None:
    """Also when the buffer came back just before the cancellation."""

    async def main() -> None:
        pool = BufferPool(MIB)
        for checkpoints in range(3):
            taken = full(pool)

            async def wait() -> None:
                (await pool.acquire(65536)).release()

            first, second = scheduler.spawn(wait), scheduler.spawn(wait)
            await scheduler.checkpoint()
            taken.pop().release()
            for _ in range(checkpoints):
                await scheduler.checkpoint()
            first.cancel()
            await first.wait()
            await second.result()
            for buffer in taken:
                buffer.release()
            assert pool.stats().out_count == 0

    scheduler.run(main)


def test_acquiring_needs_a_loop() -> None:
    """Outside of one it says so, and takes nothing."""
    pool = BufferPool(MIB)
    coroutine = pool.acquire(100)
    with pytest.raises(UsageError, match="no uringio loop runs"):
        coroutine.send(None)
    assert pool.stats().out_count == 0


def test_many_tasks_share_few_buffers(scheduler: Scheduler) -> None:
    """A hundred tasks over sixteen buffers all get their turns, and nobody sees another's bytes."""

    async def main() -> None:
        pool = BufferPool(MIB)
        done = 0

        async def work(number: int) -> None:
            nonlocal done
            for _ in range(3):
                buffer = await pool.acquire(65536)
                buffer.write(bytes([number]) * 100)
                await scheduler.checkpoint()
                assert buffer.read(0, 100) == bytes([number]) * 100
                buffer.release()
                done += 1

        tasks = [scheduler.spawn(work, number) for number in range(100)]
        for task in tasks:
            await task.result()
        assert (done, pool.stats().out_count) == (300, 0)

    scheduler.run(main)


def test_a_size_that_no_pool_has_never_stands_in_line(scheduler: Scheduler) -> None:
    """It is refused at once, also while others wait, and nobody behind it is kept waiting."""

    async def main() -> None:
        pool = BufferPool(MIB)
        buffer = pool.allocate(MIB)
        assert buffer is not None

        async def wait() -> Buffer:
            return await pool.acquire(4096)

        first = scheduler.spawn(wait)
        await scheduler.checkpoint()
        with pytest.raises(ValueError, match="this pool has buffers of"):
            await pool.acquire(MIB + 1)
        second = scheduler.spawn(wait)
        await scheduler.checkpoint()
        buffer.release()
        for task in (first, second):
            (await task.result()).release()

    scheduler.run(main)


def test_a_buffer_that_comes_back_while_one_gets_in_line(
    scheduler: Scheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever was called before it had looked where it stands tries again."""

    async def main() -> None:
        pool = BufferPool(MIB)
        taken = full(pool)

        class Line(deque[Awaited[None]]):
            def append(self, turn: Awaited[None], /) -> None:
                super().append(turn)
                taken.pop().release()  # as another thread may

        monkeypatch.setattr(pool, "_waiting", Line())
        (await pool.acquire(65536)).release()
        for buffer in taken:
            buffer.release()

    scheduler.run(main)


def test_the_line_goes_on_behind_a_loop_that_has_gone() -> None:
    """A task that its loop was closed under is passed over."""
    pool = BufferPool(MIB)
    taken = full(pool)

    async def wait() -> Buffer:
        return await pool.acquire(65536)

    async def begin(loop: EventLoop) -> "asyncio.Task[Buffer]":
        task = loop.create_task(wait())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        return task

    loop = aio.new_event_loop()
    abandoned = loop.run_until_complete(begin(loop))
    loop.close()
    assert not abandoned.done()

    async def main() -> None:
        async def release() -> None:
            taken.pop().release()

        async with uringio.TaskGroup() as group:
            with uringio.timeout(20):
                group.start_soon(release)
                (await pool.acquire(65536)).release()

    uringio.run(main)
    for buffer in taken:
        buffer.release()
    abandoned.get_coro().close()  # type: ignore[union-attr]
    abandoned._log_destroy_pending = False  # type: ignore[attr-defined]


def test_only_buffers_come_back() -> None:
    """Anything else is refused by its type, and so is a size that is no whole number."""
    pool = BufferPool(MIB)
    with pytest.raises(TypeError, match="takes back a Buffer, not 'bytes'"):
        pool.release(b"x")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="integer"):
        pool.allocate(1.5)  # type: ignore[arg-type]
    assert pool.stats().allocated_count == 0
