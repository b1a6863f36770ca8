"""
The scenarios of memory that is lent: pools and leases that run out, sends without a copy.

As in `scenarios`: whole programs that live through a storm of faults.
"""

from functools import partial

import uringio
from tests.testing.programs import PORT, pattern
from tests.testing.scenarios import ANSWER_SECONDS, Actor, open_listener, served
from tests.testing.stage import Stage
from uringio.net import SocketStream

__all__ = ["pool_exhaustion", "zero_copy"]


# --- buffers -------------------------------------------------------------------------------------


async def pool_exhaustion(stream_count: int = 70) -> Stage:
    """More receives than provided buffers, more users than a pool has room, leases kept long."""
    stage = Stage("pool exhaustion")
    pool = uringio.BufferPool(1 << 20, (262_144,))
    payload = pattern(7, 3_000)

    async def answer(stream: SocketStream) -> None:
        """Keep leases of what came, and send it back."""
        async with stream:
            kept: list[memoryview] = []
            while sum(map(len, kept)) < len(payload):
                view = await stream.recv_lease()
                if not view:
                    return
                kept.append(view)
            await stream.send_all(b"".join(kept))

    async def converse() -> None:
        async with await uringio.connect_tcp("127.0.0.1", PORT) as stream:
            with uringio.timeout(ANSWER_SECONDS):
                buffer = await pool.acquire(len(payload))
            try:
                buffer.write(payload)
                with uringio.timeout(ANSWER_SECONDS):
                    _, buffer = await stream.send_buffer(buffer, 0, len(payload))
                    done = 0
                    while done < len(payload):
                        count, buffer = await stream.recv_into(buffer)
                        if not count:
                            raise ConnectionResetError("cut short")
                        assert buffer.read(0, count) == payload[done : done + count]
                        done += count
            finally:
                buffer.release()

    async def hoard() -> None:
        """Lease more than there is to lease; who waits for it is woken when it comes back."""
        kept: list[memoryview] = []
        async with (
            await uringio.listen_tcp("127.0.0.1", PORT + 3) as listener,
            uringio.TaskGroup() as group,
        ):
            group.start_soon(listener.serve, trickle)
            async with await uringio.connect_tcp("127.0.0.1", PORT + 3) as stream:
                group.start_soon(let_go, kept)
                group.start_soon(lease_one)
                with uringio.timeout(3.0):
                    while view := await stream.recv_lease():
                        kept.append(view)
                        del view
            group.cancel_scope.cancel()

    async def trickle(stream: SocketStream) -> None:
        async with stream:
            for _ in range(70):
                await stream.send_all(b"drop")
                await uringio.sleep(0.002)
                if stage.kernel.net.latency_ns[1] > 1_000_000:
                    break  # too far away for drops to arrive one by one

    async def lease_one() -> None:
        """Who holds no lease does not wait for those of others."""
        await uringio.sleep(0.5)
        async with await uringio.connect_tcp("127.0.0.1", PORT + 3) as stream:
            with uringio.timeout(0.4):
                assert await stream.recv_lease()

    async def let_go(kept: list[memoryview]) -> None:
        await uringio.sleep(1.0)
        kept.clear()

    async def busy() -> None:
        """A task that computes and never waits does not keep another from hearing."""
        heard: list[bytes] = []

        async def hear() -> None:
            async with await uringio.connect_tcp("127.0.0.1", PORT + 3) as stream:
                heard.append(await stream.recv())

        async with (
            await uringio.listen_tcp("127.0.0.1", PORT + 3) as listener,
            uringio.TaskGroup() as group,
        ):
            group.start_soon(listener.serve, trickle)
            group.start_soon(hear)
            for _ in range(6_000):
                if heard:
                    break
                stage.kernel.advance_to(stage.kernel.clock.now_ns + 100_000)
                await uringio.checkpoint()
            assert heard, "it was never heard"
            group.cancel_scope.cancel()

    async def crowd() -> None:
        """Connections that all hear something at once."""
        await uringio.sleep(0.1)
        async with uringio.TaskGroup() as group:
            for _ in range(stream_count):
                group.start_soon(one_of_many)

    async def one_of_many() -> None:
        try:
            async with await uringio.connect_tcp("127.0.0.1", PORT) as stream:
                await uringio.sleep(0.1)
                await stream.send_all(payload)
                with uringio.timeout(ANSWER_SECONDS):
                    assert await stream.recv_exactly(len(payload)) == payload
        except (OSError, uringio.EndOfStreamError):
            stage.troubles += 1

    clients: list[Actor] = [partial(stage.act, converse, 10.0) for _ in range(4)]
    await served(await open_listener(), answer, [*clients, crowd])
    await stage.act(hoard, 0.0)
    await stage.act(busy, 0.0)
    assert pool.stats().out_count == 0, pool.stats()
    return stage


# --- sends without a copy ------------------------------------------------------------------------


async def zero_copy() -> Stage:
    """Memory is lent to the network until it says so; some sends are cancelled meanwhile."""
    stage = Stage("zero copy")
    data = pattern(5, 12_000)
    pool = uringio.BufferPool(1 << 20, (65_536,))

    async def take(stream: SocketStream) -> None:
        async with stream:
            got = bytearray()
            while chunk := await stream.recv():
                got += chunk
                if len(got) % len(data) == 0:
                    assert got == data * (len(got) // len(data))
                    await stream.send_all(b"+")

    async def send_some() -> None:
        async with await uringio.connect_tcp("127.0.0.1", PORT) as stream:
            buffer = await pool.acquire(len(data))
            try:
                buffer.write(data)
                for _ in range(3):
                    with uringio.timeout(ANSWER_SECONDS):
                        sent, buffer = await stream.send_buffer(
                            buffer, 0, len(data), zero_copy=True
                        )
                        assert sent == len(data)
                        assert await stream.recv() == b"+"
            finally:
                assert buffer.read(0, len(data)) == data
                buffer.release()

    async def send_and_cancel() -> None:
        async with await uringio.connect_tcp("127.0.0.1", PORT) as stream:
            buffer = await pool.acquire(len(data))
            buffer.write(data)
            try:
                with uringio.move_on_after(stage.dice.below(3_000) / 1e6):
                    _, buffer = await stream.send_buffer(buffer, 0, len(data), zero_copy=True)
            finally:
                buffer.write(bytes(len(data)))  # it is ours again, whatever came of it
                buffer.release()

    async def send_into_silence() -> None:
        """Nobody will ever acknowledge it; cancelling must get the memory back all the same."""
        async with await uringio.connect_tcp("127.0.0.1", PORT) as stream:
            buffer = await pool.acquire(len(data))
            stage.kernel.net.hold()
            try:
                with uringio.move_on_after(0.05):
                    _, buffer = await stream.send_buffer(buffer, 0, len(data), zero_copy=True)
            finally:
                stage.kernel.net.release()
                buffer.write(bytes(len(data)))
                buffer.release()

    async def through_a_file() -> None:
        buffer = await pool.acquire(len(data))
        try:
            buffer.write(data)
            async with await uringio.open_file("/buffer", "w+b") as file:
                written, buffer = await file.write_from(buffer, 0, 0, len(data))
                buffer.write(bytes(len(data)))
                taken, buffer = await file.read_into(buffer, 0, 0, written)
                assert 0 < taken <= written  # either may be short
                assert buffer.read(0, taken) == data[:taken]
        finally:
            buffer.release()

    async with pool.registered():
        clients = [
            partial(stage.act, one, 9.0)
            for one in (send_some, send_and_cancel, send_into_silence, through_a_file)
        ]
        await served(await open_listener(), take, clients)
    assert pool.stats().out_count == 0, pool.stats()
    return stage
