"""Leases: bytes where the kernel put them, and a pool that adds up at every moment."""

import gc
import random
import threading

import pytest

from tests.surface.pairs import connected
from tests.surface.schedulers import Scheduler
from uringio import SocketStream
from uringio._driver import current
from uringio.errors import BusyError, ClosedError


def counts() -> tuple[int, int, int]:
    """Return how many buffers the driver has provided, spare and leased; 0 on epoll."""
    return current.driver().statistics()[-3:]


async def sent(near: SocketStream, far: SocketStream, data: bytes) -> memoryview:
    await near.send_all(data)
    return await far.recv_lease()


def test_a_lease_is_what_was_sent(scheduler: Scheduler) -> None:
    """Its view reads the bytes, cannot be written, and is dead after the block."""

    async def main() -> None:
        async with connected() as (near, far):
            lease = await sent(near, far, b"hello")
            with lease as view:
                assert bytes(view) == b"hello"
                assert (len(view), view.format, view.readonly) == (5, "B", True)
                with pytest.raises(TypeError):
                    view[0] = 1
            with pytest.raises(ValueError, match="released"):
                view[0]
            lease.release()
            await near.send_eof()
            assert len(await far.recv_lease()) == 0

    scheduler.run(main)


def test_buffers_add_up_at_every_moment(scheduler: Scheduler) -> None:
    """In the ring, spare, leased: the sum stays; and every byte of a lease stays what it was."""

    async def main() -> None:
        async with connected() as (near, far):
            whole = sum(counts())
            drawn = random.Random(7)
            held: list[tuple[bytes, memoryview]] = []
            for step in range(300):
                text = b"%d," % step * drawn.randrange(1, 200)
                held.append((text, await sent(near, far, text)))
                while len(held) > 20 or (held and drawn.random() < 0.4):
                    expected, lease = held.pop(drawn.randrange(len(held)))
                    with lease as view:
                        assert view == expected
                assert sum(counts()) == whole
            assert all(bytes(lease) == text for text, lease in held)
            del lease
            held.clear()
            gc.collect()
            assert counts()[2] == 0

    scheduler.run(main)


def test_a_slice_keeps_its_buffer_leased(scheduler: Scheduler) -> None:
    """What was sliced from a view reads on behind the block, and only then the buffer is spare."""
    if scheduler.backend != "uring":
        pytest.skip("what epoll receives are copies, which nothing waits for")

    async def main() -> None:
        async with connected() as (near, far):
            with await sent(near, far, b"head and body") as view:
                body = view[9:]
            for _ in range(200):
                with await sent(near, far, b"something else"):
                    pass
            assert bytes(body) == b"body"
            del view, body
            gc.collect()
            assert counts()[2] == 0

    scheduler.run(main)


def test_whoever_holds_leases_waits_when_none_is_spare(scheduler: Scheduler) -> None:
    """The others go on, with copies; a release in any thread lets the waiting one go on."""
    if scheduler.backend != "uring":
        pytest.skip("what epoll receives are copies, which need no spare")

    async def main() -> None:
        async with connected() as (near, far), connected() as (other_near, other_far):
            _, spare_count, _ = counts()
            held = [await sent(near, far, b"%d" % number) for number in range(spare_count)]
            await near.send_all(b"late")
            waiting = scheduler.spawn(far.recv_lease)
            for _ in range(3):
                with await sent(other_near, other_far, b"other") as view:
                    assert view == b"other"
                assert await _echoed(other_near, other_far) == b"plain"
            assert not waiting.ended
            assert counts()[1:] == (0, spare_count)
            thread = threading.Thread(target=held.pop().release)
            thread.start()
            with await waiting.result() as view:
                assert view == b"late"
            thread.join()
            waiting = scheduler.spawn(far.recv_lease)
            await scheduler.checkpoint()
            waiting.cancel()
            assert (await waiting.wait()).cancelled
            for lease in held:
                lease.release()
            assert counts()[1:] == (spare_count, 0)

    scheduler.run(main)


async def _echoed(near: SocketStream, far: SocketStream) -> bytes:
    await near.send_all(b"plain")
    return await far.recv()


def test_a_cancelled_lease_loses_no_bytes(scheduler: Scheduler) -> None:
    """What had arrived is the next receive's, of whatever kind, and no buffer is lost."""

    async def main() -> None:
        async with connected() as (near, far):
            whole, got, expected = counts(), b"", b""
            for step in range(60):
                piece = b"%03d" % step
                expected += piece
                await near.send_all(piece)
                task = scheduler.spawn(_bytes_of, far)
                for _ in range(step % 4):
                    await scheduler.checkpoint()
                task.cancel()
                await task.wait()
                if not task.cancelled:
                    got += await task.result()
                if step % 7 == 0 and len(got) < len(expected):
                    got += await far.recv()
            await near.send_eof()
            while more := await _bytes_of(far):
                got += more
            assert got == expected
            assert counts() == whole

    scheduler.run(main)


async def _bytes_of(stream: SocketStream) -> bytes:
    with await stream.recv_lease() as view:
        return bytes(view)


def test_leases_outlive_their_stream_and_loop(scheduler: Scheduler) -> None:
    """The bytes are there until the lease ends, whatever has ended before."""

    async def main() -> memoryview:
        async with connected() as (near, far):
            return await sent(near, far, b"kept")

    lease = scheduler.run_and_leave(main)
    gc.collect()
    assert bytes(lease) == b"kept"
    lease.release()


def test_one_receiver_at_a_time(scheduler: Scheduler) -> None:
    """A lease is a receive like the others."""

    async def main() -> None:
        async with connected() as (near, far):
            task = scheduler.spawn(_bytes_of, far)
            await scheduler.checkpoint()
            for call in (far.recv, far.recv_lease, lambda: far.recv_into(bytearray(8))):
                with pytest.raises(BusyError):
                    call()
            await near.send_all(b"x")
            assert await task.result() == b"x"
            closing = scheduler.spawn(_bytes_of, far)
            await scheduler.checkpoint()
            await far.aclose()
            assert isinstance((await closing.wait()).error, ClosedError)

    scheduler.run(main)
