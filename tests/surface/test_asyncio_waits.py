"""Operations awaited through asyncio's own helpers, which ask for the outcome late."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from tests.surface import schedulers
from tests.surface.pairs import with_peer
from uringio import Buffer

Helper = Callable[[Awaitable[bytes]], Awaitable[bytes]]


async def wait_for(op: Awaitable[bytes]) -> bytes:
    return await asyncio.wait_for(op, 50)


async def wait(op: Awaitable[bytes]) -> bytes:
    (done,), pending = await asyncio.wait([asyncio.ensure_future(op)])
    assert not pending
    return done.result()


async def gather(op: Awaitable[bytes]) -> bytes:
    (found,) = await asyncio.gather(op)
    return found


async def shield(op: Awaitable[bytes]) -> bytes:
    return await asyncio.shield(op)


HELPERS = pytest.mark.parametrize("helper", [wait_for, wait, gather, shield])


@HELPERS
def test_helpers_await_operations(backend: str, helper: Helper) -> None:
    """Each of them returns what the operation does."""

    async def main() -> None:
        async with with_peer() as (stream, peer):
            for number in range(5):
                peer.sendall(b"%d" % number)
                assert await helper(stream.recv()) == b"%d" % number

    schedulers.make("asyncio", backend).run(main)


def test_timed_out_receive_loses_nothing(backend: str) -> None:
    """`asyncio.timeout` and `wait_for` around `recv` that expires: the bytes are the next one's."""

    async def main() -> None:
        async with with_peer() as (stream, peer):

            async def receive_in_time() -> None:
                async with asyncio.timeout(0.001):
                    await stream.recv()

            for number in range(20):
                with pytest.raises(TimeoutError):
                    await (
                        asyncio.wait_for(stream.recv(), 0.001) if number % 2 else receive_in_time()
                    )
                peer.sendall(b"%d" % number)
                assert await stream.recv() == b"%d" % number

    schedulers.make("asyncio", backend).run(main)


@pytest.mark.parametrize("kind", ["recv", "recv_into", "recv_lease"])
def test_a_result_that_is_taken_late_is_still_there(backend: str, kind: str) -> None:
    """The same call, made again before the first one's result was asked for, is another one."""

    async def main() -> None:
        async with with_peer() as (stream, peer):

            def receive() -> Awaitable[object]:
                if kind == "recv_into":
                    return stream.recv_into(Buffer(10))
                return stream.recv() if kind == "recv" else stream.recv_lease()

            def content(found: object) -> bytes:
                if isinstance(found, tuple):
                    count, buffer = found
                    return bytes(buffer.read(0, count))
                assert isinstance(found, bytes | memoryview)
                return bytes(found)

            for _ in range(2):  # the first call of a kind takes another way than the next
                peer.sendall(b"first")
                (early,), _pending = await asyncio.wait([asyncio.ensure_future(receive())])
                late = receive()
                peer.sendall(b"second")
                assert content(await late) == b"second"
                assert content(early.result()) == b"first"

    schedulers.make("asyncio", backend).run(main)
