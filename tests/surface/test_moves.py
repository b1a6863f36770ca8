"""Owned buffers through streams: what moves, what comes back, what nobody touches meanwhile."""

import array
import gc
from collections.abc import Awaitable, Callable

import pytest

from tests.surface.pairs import connected
from tests.surface.schedulers import Scheduler
from uringio import SocketStream
from uringio._own.buffer import Buffer
from uringio._own.pool import Pool
from uringio.errors import (
    BorrowedError,
    BusyError,
    ClosedError,
    DoubleReleaseError,
    UsageError,
    UseAfterMoveError,
)

MIB = 1 << 20

Moving = Callable[[Buffer], Awaitable[tuple[int, Buffer]]]


async def _receive(stream: SocketStream, buffer: Buffer | None) -> tuple[bytes, Buffer]:
    if buffer is None:
        return await stream.recv(), Buffer(5)
    count, buffer = await stream.recv_into(buffer)
    return buffer.read(0, count), buffer


def test_a_buffer_goes_and_comes_back(scheduler: Scheduler) -> None:
    """What one end sends from a buffer the other has in its own; old handles stay shut."""

    async def main() -> None:
        async with connected() as (near, far):
            ours, theirs = Buffer.holding(b"0123456789"), Buffer(4096)
            old = ours, theirs
            for start in range(5):
                sent, ours = await near.send_buffer(ours, start, -1)
                count, theirs = await far.recv_into(theirs)
                assert sent == count == 9 - start
                assert theirs.read(0, count) == b"0123456789"[start:-1]
            for handle in old:
                with pytest.raises(UseAfterMoveError, match="use the handle that the operation"):
                    handle.read()
            await near.send_eof()
            count, theirs = await far.recv_into(theirs)
            assert count == 0

    scheduler.run(main)


def test_receiving_into_a_part(scheduler: Scheduler) -> None:
    """A message is put together in one buffer; bytes outside the part stay as they were."""

    async def main() -> None:
        async with connected() as (near, far):
            buffer = Buffer.holding(b"." * 16)
            await near.send_all(b"abcdef")
            count, buffer = await far.recv_into(buffer, 4, 7)
            assert (count, buffer.read()) == (3, b"....abc" + b"." * 9)
            count, buffer = await far.recv_into(buffer, 7)
            assert (count, buffer.read()) == (3, b"....abcdef" + b"." * 6)
            for start, stop in ((16, None), (5, 5), (9, 3)):
                with pytest.raises(ValueError, match="there are no bytes"):
                    far.recv_into(buffer, start, stop)
            assert buffer.read(4, 7) == b"abc"

    scheduler.run(main)


def test_the_old_handle_is_shut_while_the_operation_runs(scheduler: Scheduler) -> None:
    """From the call on, everything is refused, and the refusal names the operation."""

    async def main() -> None:
        async with connected() as (near, far):
            buffer = Buffer(64)

            async def receive() -> None:
                count, got = await far.recv_into(buffer)
                assert got.read(0, count) == b"here"

            task = scheduler.spawn(receive)
            await scheduler.checkpoint()
            uses: list[Callable[[], object]] = [
                buffer.read,
                buffer.release,
                buffer.view().__enter__,
                lambda: buffer.write(b"x"),
                lambda: buffer.size,
                lambda: near.send_buffer(buffer),
                lambda: near.recv_into(buffer),
            ]
            for use in uses:
                with pytest.raises(UseAfterMoveError, match="recv_into, which still has it"):
                    use()
            await near.send_all(b"here")
            await task.result()

    scheduler.run(main)


def test_a_cancelled_operation_gives_the_buffer_back(scheduler: Scheduler) -> None:
    """The handle opens its memory again, and the next receive has every byte."""

    async def main() -> None:
        async with connected() as (near, far):
            buffer = Buffer(64)
            for _ in range(3):
                task = scheduler.spawn(lambda: _receive(far, buffer))
                await scheduler.checkpoint()
                with pytest.raises(UseAfterMoveError):
                    buffer.read()
                task.cancel()
                assert (await task.wait()).cancelled
                assert buffer.size == 64
            await near.send_all(b"all of it")
            count, buffer = await far.recv_into(buffer)
            assert buffer.read(0, count) == b"all of it"

    scheduler.run(main)


def test_a_failed_operation_gives_the_buffer_back(scheduler: Scheduler) -> None:
    """Closed meanwhile, refused or broken: the memory is the caller's again."""

    async def main() -> None:
        async with connected() as (near, far):
            buffer = Buffer(64)

            async def receive() -> None:
                with pytest.raises(ClosedError):
                    await far.recv_into(buffer)
                buffer.write(b"mine again")

            task = scheduler.spawn(receive)
            await scheduler.checkpoint()
            await far.aclose()
            await task.result()
            with pytest.raises(ClosedError):
                far.recv_into(buffer)
            with pytest.raises(ClosedError):
                far.send_buffer(buffer)
            await near.aclose()
            buffer.write(b"still mine")

    scheduler.run(main)


def test_an_operation_that_never_begins_gives_the_buffer_back(scheduler: Scheduler) -> None:
    """Dropped or superseded, it has moved nothing."""

    async def main() -> None:
        async with connected() as (near, far):
            buffer, other = Buffer(64), Buffer(64)
            op = far.recv_into(buffer)
            with pytest.raises(UseAfterMoveError):
                buffer.read()
            superseding = far.recv_into(other)
            buffer.write(b"back")
            with pytest.raises(BusyError):
                await op
            await near.send_all(b"x")
            count, other = await superseding
            assert other.read(0, count) == b"x"

    scheduler.run(main)


def test_one_receiver_and_one_sender_of_any_kind(scheduler: Scheduler) -> None:
    """Receives that are plain and receives into memory exclude each other; sends likewise."""

    async def main() -> None:
        async with connected() as (near, far):
            buffer = Buffer(64)

            async def receive() -> None:
                assert (await far.recv_into(bytearray(10))) == 2

            task = scheduler.spawn(receive)
            await scheduler.checkpoint()
            for call in (far.recv, lambda: far.recv_into(buffer), far.recvmsg):
                with pytest.raises(BusyError):
                    call()
            buffer.write(b"the refused call has not taken it")
            await near.send_all(b"ab")
            await task.result()

    scheduler.run(main)


def test_kinds_of_receives_take_turns(scheduler: Scheduler) -> None:
    """Plain, into a buffer, into foreign memory, with messages: each gets the bytes that follow."""

    async def main() -> None:
        async with connected() as (near, far):
            buffer, foreign = Buffer(8), bytearray(8)
            for round_ in range(4):
                for kind in range(4):
                    text = b"%d-%d" % (round_, kind)
                    if kind % 2:
                        await near.send_all(text)
                    else:
                        await near.send_buffer(Buffer.holding(text))
                    if kind == 0:
                        assert await far.recv() == text
                    elif kind == 1:
                        count, buffer = await far.recv_into(buffer)
                        assert buffer.read(0, count) == text
                    elif kind == 2:
                        assert await far.recv_into(foreign) == 3
                        assert bytes(foreign[:3]) == text
                    else:
                        assert (await far.recvmsg()).data == text

    scheduler.run(main)


def test_foreign_memory_is_held_by_export(scheduler: Scheduler) -> None:
    """While it is lent it cannot be resized; afterwards it can."""

    async def main() -> None:
        async with connected() as (near, far):
            memory, numbers = bytearray(16), array.array("I", [0] * 4)

            async def receive() -> None:
                assert await far.recv_into(memory, 2) == 5

            task = scheduler.spawn(receive)
            await scheduler.checkpoint()
            with pytest.raises(BufferError):
                memory.extend(b"x")
            await near.send_all(b"bytes")
            await task.result()
            assert memory[:8] == b"\0\0bytes\0"
            memory.extend(b"x")
            await near.send_all(b"\1\0\0\0")
            assert await far.recv_into(memoryview(numbers)) == 4
            assert numbers[0] == 1

    scheduler.run(main)


def test_foreign_memory_is_free_in_the_hands_of_who_catches(scheduler: Scheduler) -> None:
    """A failed or cancelled receive holds it no more, although the traceback has the operation."""

    async def main() -> None:
        async with connected() as (near, far):
            memory = bytearray(16)

            async def receive() -> None:
                try:
                    await far.recv_into(memory)
                except BaseException:
                    memory.extend(b"x")
                    raise

            task = scheduler.spawn(receive)
            await scheduler.checkpoint()
            task.cancel()
            assert (await task.wait()).cancelled
            task = scheduler.spawn(receive)
            await scheduler.checkpoint()
            await far.aclose()
            assert isinstance((await task.wait()).error, ClosedError)
            assert len(memory) == 18
            assert near.fileno() >= 0

    scheduler.run(main)


def test_a_move_that_was_cancelled_before_it_began_is_undone(scheduler: Scheduler) -> None:
    """Handed out, awaited in a task that is cancelled already: the buffer is where it was."""

    async def main() -> None:
        async with connected() as (near, far):
            for call in (near.send_buffer, far.recv_into):
                buffer = Buffer(64)

                async def move(call: Moving = call, buffer: Buffer = buffer) -> None:
                    op = call(buffer)
                    task.cancel()
                    await op

                task = scheduler.spawn(move)
                assert (await task.wait()).cancelled
                buffer.write(b"mine again")
                _, buffer = await near.send_buffer(buffer)
                await far.recv_exactly(64)

    scheduler.run(main)


@pytest.mark.parametrize(
    "target", [b"bytes", memoryview(b"read-only"), "text", 5, memoryview(bytearray(8))[::2]]
)
def test_what_cannot_receive_is_refused_at_the_call(scheduler: Scheduler, target: object) -> None:
    """Immutable memory, memory with gaps and no memory at all: a TypeError, and nothing begun."""

    async def main() -> None:
        async with connected() as (near, far):
            await near.send_all(b"kept")
            with pytest.raises(TypeError):
                far.recv_into(target)  # type: ignore[call-overload]
            assert await far.recv() == b"kept"

    scheduler.run(main)


def test_a_viewed_or_released_buffer_does_not_move(scheduler: Scheduler) -> None:
    """The call is refused, the stream is as before, and the view goes on."""

    async def main() -> None:
        async with connected() as (near, far):
            buffer = Buffer(8)
            moves: list[Callable[[Buffer], object]] = [far.recv_into, near.send_buffer]
            for move in moves:
                with buffer.view() as view, pytest.raises(BorrowedError):
                    move(buffer)
                view = None  # type: ignore[assignment]  # noqa: F841
            buffer.release()
            for move in moves:
                with pytest.raises(UseAfterMoveError, match="was released"):
                    move(buffer)
            with pytest.raises(DoubleReleaseError):
                buffer.release()
            await near.send_all(b"fine")
            assert await far.recv() == b"fine"

    scheduler.run(main)


def test_bytes_of_a_cancelled_receive_reach_a_receive_into_a_buffer(scheduler: Scheduler) -> None:
    """And the other way round: nothing that arrived is lost between the kinds."""

    async def main() -> None:
        async with connected() as (near, far):
            buffer, expected, got = Buffer(5), b"", b""
            for step in range(30):
                piece = b"%03d" % step
                expected += piece
                await near.send_all(piece)
                task = scheduler.spawn(lambda: _receive(far, buffer if step % 2 else None))
                for _ in range(step % 4):
                    await scheduler.checkpoint()
                task.cancel()
                await task.wait()
                if not task.cancelled:
                    piece, buffer = await task.result()
                    got += piece
            await near.send_eof()
            while True:
                count, buffer = await far.recv_into(buffer)
                if not count:
                    break
                got += buffer.read(0, count)
            assert got == expected

    scheduler.run(main)


def test_large_sends_come_whole(scheduler: Scheduler) -> None:
    """A buffer larger than the socket's is sent to its last byte, and stays away until then."""

    async def main() -> None:
        async with connected() as (near, far):
            buffer = Buffer(8 * MIB)
            pattern = bytes(range(256)) * (len(bytes(8 * MIB)) // 256)
            buffer.write(pattern)

            async def send() -> None:
                sent, back = await near.send_buffer(buffer)
                assert sent == back.size == 8 * MIB
                await near.send_eof()

            task = scheduler.spawn(send)
            got = bytearray()
            into = Buffer(65536)
            while True:
                count, into = await far.recv_into(into)
                if not count:
                    break
                got += into.read(0, count)
            await task.result()
            assert got == pattern

    scheduler.run(main)


def test_memory_of_a_pool_is_not_handed_out_while_the_kernel_has_it(scheduler: Scheduler) -> None:
    """Dropping every handle of a buffer in flight does not bring it back before the operation."""

    async def main() -> None:
        pool = Pool(MIB, (4096,))
        async with connected() as (near, far):

            async def receive() -> None:
                buffer = pool.allocate(4096)
                assert buffer is not None
                op = far.recv_into(buffer)
                del buffer
                count, got = await op
                assert got.read(0, count) == b"done"
                got.release()

            task = scheduler.spawn(receive)
            await scheduler.checkpoint()
            gc.collect()
            assert pool.stats().out_count == 1
            await near.send_all(b"done")
            await task.result()
        assert pool.stats().out_count == 0

    scheduler.run(main)


def test_a_result_is_taken_once(scheduler: Scheduler) -> None:
    """A second await of the same operation is refused and brings no second handle."""

    async def main() -> None:
        async with connected() as (near, far):
            await near.send_all(b"x")
            op = far.recv_into(Buffer(8))
            await op
            with pytest.raises(UsageError):
                await op

    scheduler.run(main)


def test_receiving_into_more_than_one_operation_takes(scheduler: Scheduler) -> None:
    """Each receive asks for what a request has room to say, the second as well as the first."""

    async def main() -> None:
        async with connected() as (near, far):
            try:
                buffer = Buffer(1 << 32)  # of which pages that are touched cost memory
            except OSError:
                pytest.skip("so much address space is not to be had")
            for data in (b"one", b"two", b"three"):
                await near.send_all(data)
                count, buffer = await far.recv_into(buffer)
                assert buffer.read(0, count) == data

    scheduler.run(main)
