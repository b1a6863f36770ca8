"""Operations awaited through asyncio's own helpers, which ask for the outcome late."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from tests.surface import schedulers
from tests.surface.pairs import with_peer

Helper = Callable[[Awaitable[bytes]], Awaitable[bytes]]


async def wait_for(op: Awaitable[bytes]) -> bytes:
    return await asyncio.wait_for(op, 20)


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
