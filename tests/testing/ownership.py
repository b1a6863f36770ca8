"""
The scenario in which everything is misused on purpose, in the middle of a storm.

Old handles, double releases, views that outlive their blocks, buffers of another pool, forgotten
buffers and sockets: each must be refused, or be taken care of, whatever the kernel does meanwhile.
"""

import gc
import warnings
import weakref
from collections.abc import Callable
from functools import partial

import uringio
from tests.testing.programs import PORT, pattern
from tests.testing.scenarios import ANSWER_SECONDS, open_listener, served
from tests.testing.stage import Stage
from uringio._driver.contract import make_driver
from uringio._driver.op import READ, Op
from uringio.net import SocketStream
from uringio.testing._rings import SimRing

__all__ = ["ownership"]

_SIZE = 3_000


class Room(bytearray):
    """Memory whose end can be heard of."""


def refused(kind: type[BaseException], call: Callable[[], object]) -> None:
    """Check that a call is refused as it must be."""
    try:
        call()
    except kind:
        return
    raise AssertionError(f"{kind.__name__} was not raised")


async def ownership() -> Stage:
    """Whatever is misused is refused, and nothing is lost, doubled or mixed up by it."""
    stage = Stage("ownership")
    pool = uringio.BufferPool(1 << 20, (65_536, 262_144))
    other = uringio.BufferPool(1 << 20, (65_536,))
    data = pattern(4, _SIZE)

    async def answer(stream: SocketStream) -> None:
        async with stream:
            while chunk := await stream.recv():
                await stream.send_all(chunk)

    async def moves() -> None:
        """A handle opens its buffer until it moves, and after a move that came to nothing."""
        async with await uringio.connect_tcp("127.0.0.1", PORT) as stream:
            first, second = await pool.acquire(_SIZE), await pool.acquire(_SIZE)
            first.write(data)
            try:
                op = stream.send_buffer(first, 0, _SIZE)
                refused(uringio.UseAfterMoveError, first.read)
                old = first
                with uringio.timeout(ANSWER_SECONDS):
                    sent, first = await op
                assert sent == _SIZE
                refused(uringio.UseAfterMoveError, old.read)
                refused(uringio.UseAfterMoveError, partial(stream.recv_into, old))
                with uringio.timeout(ANSWER_SECONDS):
                    got = await stream.recv_exactly(_SIZE)
                assert got == data
                # Nothing comes: the move is cancelled, and the same operation has another buffer
                # when the first is looked at again.
                with uringio.move_on_after(0.01):
                    _, first = await stream.recv_into(first)
                async with uringio.TaskGroup() as group:
                    group.start_soon(receive_nothing, stream, second)
                    await uringio.sleep(0.005)
                    first.write(b"again")
                    assert first.read(0, 5) == b"again"
                    group.cancel_scope.cancel()
                second.write(b"ours")
            finally:
                first.release()
                second.release()
            refused(uringio.DoubleReleaseError, first.release)
            refused(uringio.UseAfterMoveError, first.read)

    async def receive_nothing(stream: SocketStream, buffer: uringio.Buffer) -> None:
        try:
            await stream.recv_into(buffer)
        except OSError:
            pass

    async def views() -> None:
        """A buffer is lent to nobody while any view of it is alive."""
        buffer = await pool.acquire(_SIZE)
        try:
            async with await uringio.open_file("/views", "w+b") as file:
                with buffer.view(0, 10) as one:
                    with buffer.view(10, 20) as two:
                        one[:2], two[:2] = b"ab", b"cd"
                        refused(uringio.BorrowedError, partial(file.write_from, buffer, 0))
                    refused(uringio.BorrowedError, partial(file.write_from, buffer, 0))
                    refused(uringio.BorrowedError, buffer.release)
                del one, two
                count, buffer = await file.write_from(buffer, 0, 0, 20)
                assert (await file.read_at(0, 20))[:2] in {b"a", b"ab"}
                assert count
        finally:
            buffer.release()

    async def accounts() -> None:
        """A pool hands out each piece once, and cuts what is back anew."""
        mine = uringio.BufferPool(1 << 20, (65_536, 262_144))
        small = [mine.allocate(60_000) for _ in range(16)]
        held = [one for one in small if one is not None]
        assert len(held) == 16 and mine.allocate(1) is None
        assert len({one.address for one in held}) == 16
        for number, one in enumerate(held):
            one.write(pattern(number, 100))
        await uringio.sleep(0.001)
        assert [one.read(0, 100) for one in held] == [pattern(n, 100) for n in range(16)]
        assert mine.stats().out_bytes == 1 << 20
        refused(uringio.UsageError, partial(other.release, held[0]))
        for one in held:
            mine.release(one)
        assert mine.stats().out_bytes == mine.stats().out_count == 0
        large = [mine.allocate(200_000) for _ in range(4)]
        assert None not in large and mine.allocate(1) is None
        large.clear()
        del one
        assert mine.stats().forgotten_count == 4
        assert mine.stats().out_count == 0

    async def forget() -> None:
        """What is forgotten is closed, and comes back."""
        stream = await uringio.connect_tcp("127.0.0.1", PORT)
        buffer = await pool.acquire(_SIZE)
        fd = stream.fileno()
        file = stage.kernel.file_of(fd)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            del stream, buffer
            await uringio.sleep(0.001)  # the loop still had the operation that made it
            gc.collect(0)
        assert stage.kernel.file_of(fd) is not file, "a forgotten socket stays open"

    def end_a_driver() -> None:
        """Closing ends what waits, and keeps the memory of what the kernel will not let go of."""
        system = stage.kernel.system
        delivered: list[Op[object]] = []
        driver = make_driver(delivered.append, lambda _op: uringio.Cancelled(), system=system)
        waiting, stuck = system.pipe(), system.pipe()
        room = Room(10)
        kept = weakref.ref(room)
        for (fd, _), memory in zip((waiting, stuck), (bytearray(10), room), strict=True):
            system.set_blocking(fd, True)
            op: Op[object] = Op(READ, fd, memory=memory, len_=10)
            driver.submit(op)
        driver.flush()
        del op, memory, room
        if driver.name == "uring":
            ring = stage.kernel.ring_of(driver.ring.fd, 0)  # type: ignore[attr-defined]
            assert isinstance(ring, SimRing)
            for request in ring.requests.values():
                if request.fd == stuck[0]:  # as a thread of the kernel's would be
                    request.unwatch()
                    request.state = "working"
            won = stage.kernel.notes.get("cancel won", 0)
            driver.close()
            del driver
            gc.collect()
            assert kept() is not None, "memory that the kernel has was freed"
            # What waits in the pipe, and the read of the wake pipe.
            assert stage.kernel.notes.get("cancel won", 0) >= won + 2, "closing cancels nothing"
        else:
            driver.close()
        for fd in (*waiting, *stuck):
            system.close(fd)

    rounds = [moves, views, accounts, forget]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        actors = [partial(stage.act, one, 9.0) for one in rounds]
        await served(await open_listener(), answer, actors)
        end_a_driver()
    assert pool.stats().out_count == 0, pool.stats()
    return stage
