"""Memory streams by themselves, turns, idleness and the leak check."""

import asyncio
import os

import pytest

import uringio
import uringio.aio
from uringio import testing
from uringio.errors import UsageError


def test_pieces_stay_apart() -> None:
    """What is sent in pieces is received in these pieces: a test decides how bytes are split."""

    async def main() -> list[bytes]:
        sender, receiver = testing.memory_pipe()
        for piece in (b"ab", b"c", b"def"):
            await sender.send_all(piece)
        await sender.aclose()
        return [piece async for piece in receiver]

    assert testing.run(main) == [b"ab", b"c", b"def"]


def test_recv_exactly_gives_back_what_it_could_not_use() -> None:
    """A cancelled `recv_exactly` leaves its bytes; the peer's end says what was missing."""

    async def main() -> None:
        near, far = testing.memory_stream_pair()
        await near.send_all(b"ab")
        with uringio.move_on_after(0.01):
            await far.recv_exactly(3)
        await near.send_all(b"c")
        assert await far.recv_exactly(3) == b"abc"
        await near.send_all(b"xy")
        await near.send_eof()
        with pytest.raises(uringio.EndOfStreamError) as caught:
            await far.recv_exactly(3)
        assert caught.value.partial == b"xy"

    testing.run(main)


def test_a_cancelled_memory_send_counts_what_had_left() -> None:
    """`done` on the exception is what the peer gets."""

    async def main() -> None:
        sender, receiver = testing.memory_pipe(10)
        done = -1
        with uringio.move_on_after(0.01):
            try:
                await sender.send_all(bytes(25))
            except uringio.Cancelled as error:
                done = error.done
                raise
        assert done == 10
        assert await receiver.recv() == bytes(10)

    testing.run(main)


def test_memory_streams_work_under_asyncio() -> None:
    """They wait by operations, which asyncio's tasks on our loop await too."""

    async def main() -> bytes:
        near, far = testing.memory_stream_pair(4)
        sending = asyncio.ensure_future(near.send_all(b"0123456789"))
        got = await far.recv_exactly(10)
        await sending
        return got

    with asyncio.Runner(loop_factory=uringio.aio.new_event_loop) as runner:
        assert runner.run(main()) == b"0123456789"


def test_turns_are_taken_in_order() -> None:
    """Whoever comes first waits for its number."""

    async def main() -> list[int]:
        turn, told = testing.Sequencer(), list[int]()

        async def take(number: int) -> None:
            async with turn(number):
                await uringio.sleep(0.001 * (5 - number))
                told.append(number)

        async with uringio.TaskGroup() as group:
            for number in (3, 1, 4, 0, 2):
                group.start_soon(take, number)
        return told

    assert testing.run(main) == [0, 1, 2, 3, 4]


def test_a_broken_sequence_ends_who_waits() -> None:
    """A block that fails or is cancelled leaves nobody waiting; no number comes twice."""

    async def main() -> list[str]:
        told: list[str] = []
        for cancel in (False, True):
            turn = testing.Sequencer()

            async def wait(turn: testing.Sequencer = turn) -> None:
                try:
                    async with turn(2):
                        told.append("never")
                except UsageError as error:
                    told.append(str(error))

            async with uringio.TaskGroup() as group:
                group.start_soon(wait)
                await testing.wait_all_idle()
                if cancel:
                    with uringio.move_on_after(0.01):
                        async with turn(1):
                            told.append("never")
                else:
                    with pytest.raises(ZeroDivisionError):
                        async with turn(0):
                            raise ZeroDivisionError
            with pytest.raises(UsageError, match="taken already"):
                async with turn(2):
                    told.append("never")
        return told

    assert testing.run(main) == ["turn 2 never comes: an earlier one failed"] * 2


@pytest.mark.parametrize("where", ["real", "simulated"])
def test_idle_is_when_everybody_waits(where: str) -> None:
    """It returns when a chain of tasks that wake each other has come to rest, and not before."""

    async def main() -> None:
        near, far = testing.memory_stream_pair()
        hops: list[int] = []

        async def bounce(stream: testing.MemoryStream) -> None:
            while data := await stream.recv():
                hops.append(len(data))
                if len(hops) < 200:
                    await stream.send_all(data)

        async with uringio.TaskGroup() as group:
            group.start_soon(bounce, near)
            group.start_soon(bounce, far)
            await near.send_all(b"x")
            await testing.wait_all_idle()
            assert len(hops) == 200
            group.cancel_scope.cancel()

    if where == "real":
        uringio.run(main)
    else:
        testing.run(main)


def test_idle_needs_a_loop_of_ours() -> None:
    """Elsewhere nobody knows who waits."""
    with pytest.raises(UsageError, match="native scheduler"):
        testing.wait_all_idle().send(None)


# --- leaks ---------------------------------------------------------------------------------------


async def leaks_an_op(keep: list[object]) -> None:
    near, _ = testing.memory_stream_pair()
    keep.append(uringio.sleep(1))
    keep.append(near)


async def leaks_a_task(keep: list[object]) -> None:
    async def wait() -> None:
        await uringio.sleep(1)

    group = uringio.TaskGroup()
    await group.__aenter__()
    group.start_soon(wait)
    await testing.wait_all_idle()
    keep.append(group)


async def leaks_a_buffer(keep: list[object]) -> None:
    pool = uringio.BufferPool(1 << 20)
    keep.extend((pool, await pool.acquire(100)))


async def leaks_a_loan(keep: list[object]) -> None:
    buffer = uringio.Buffer(10)
    keep.append((buffer, buffer.view().__enter__()))


async def leaks_a_descriptor(keep: list[object]) -> None:
    keep.append(await uringio.listen_tcp("127.0.0.1", 0))


LEAKS = {
    "op": leaks_an_op,
    "task": leaks_a_task,
    "buffer": leaks_a_buffer,
    "loan": leaks_a_loan,
    "fd": leaks_a_descriptor,
}


@pytest.mark.parametrize("where", ["real", "simulated"])
@pytest.mark.parametrize("kind", LEAKS)
def test_each_kind_of_leak_is_named(kind: str, where: str) -> None:
    """What a block leaves is told by its kind; what was there before is not held against it."""

    async def main() -> None:
        keep: list[object] = []
        outer: list[object] = []
        async with uringio.TaskGroup() as group:
            await LEAKS[kind](outer)
            with testing.assert_no_leaks():
                pass
            with (
                pytest.raises(testing.LeakError, match=rf"behind: .*{kind} "),
                testing.assert_no_leaks(patience_seconds=0.02),
            ):
                await LEAKS[kind](keep)
            for one in (*keep, *outer):
                await _undo(one)
            group.cancel_scope.cancel()
            await uringio.checkpoint()

    if where == "real":
        uringio.run(main)
    else:
        testing.run(main)


async def _undo(one: object) -> None:
    if isinstance(one, uringio.Listener):
        await one.aclose()
    elif isinstance(one, uringio.Buffer):
        one.release()
    elif isinstance(one, uringio.TaskGroup):
        one.cancel_scope.cancel()
        await one.__aexit__(None, None, None)
    elif isinstance(one, tuple):
        one[1].release()
    elif not isinstance(one, testing.MemoryStream | uringio.BufferPool):
        await one  # type: ignore[misc]


def test_a_clean_program_is_not_accused() -> None:
    """A program that uses all of it and cleans up passes, seen from outside as well."""

    async def main() -> None:
        pool = uringio.BufferPool(1 << 20)
        async with (
            await uringio.listen_tcp("127.0.0.1", 0) as listener,
            uringio.TaskGroup() as group,
        ):
            near = await uringio.connect_tcp("127.0.0.1", listener.local_address[1])
            far = await listener.accept()
            async with near, far:
                buffer = await pool.acquire(100)
                group.start_soon(near.send_all, b"data")
                count, buffer = await far.recv_into(buffer)
                assert buffer.read(0, count) == b"data"
                with uringio.move_on_after(0.001):
                    await far.recv_into(buffer)
                buffer.release()

    with testing.assert_no_leaks():
        uringio.run(main)


def test_a_descriptor_of_the_process_is_seen_from_outside() -> None:
    """Without a loop, the process's own descriptors are looked at."""
    reader, writer = os.pipe()
    try:
        with (
            pytest.raises(testing.LeakError, match=r"fd .*pipe"),
            testing.assert_no_leaks(patience_seconds=0.02),
        ):
            extra = os.dup(reader)
        os.close(extra)
    finally:
        os.close(reader)
        os.close(writer)
