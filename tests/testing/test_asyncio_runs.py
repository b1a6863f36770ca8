"""asyncio's programs under simulation, on the event loop of `uringio.aio`."""

import asyncio

import pytest

from uringio import testing

PROFILES = ["6.18", "plain", "blocked", "kqueue", "poll"]


async def ask(number: int) -> None:
    reader, writer = await asyncio.open_connection("server.example", 8000)
    message = bytes([number]) * 20_000
    writer.write(message)
    await writer.drain()
    assert await reader.readexactly(len(message)) == message
    writer.close()
    await writer.wait_closed()


async def echo_server_and_clients() -> int:
    ended = asyncio.Semaphore(0)

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1000):
            writer.write(data)
            await writer.drain()
        writer.close()
        await writer.wait_closed()
        ended.release()

    async with await asyncio.start_server(echo, "10.0.0.1", 8000):
        await asyncio.gather(*(ask(number) for number in range(5)))
        for _ in range(5):
            await ended.acquire()
    return await asyncio.to_thread(lambda: 7)


async def sleeps() -> float:
    loop = asyncio.get_running_loop()
    began = loop.time()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(1800):
            await loop.create_future()
    return loop.time() - began


async def waits_for_ever() -> None:
    await asyncio.get_running_loop().create_future()


@pytest.mark.parametrize("profile", PROFILES)
def test_streams_survive_a_storm_the_same_each_time(profile: str) -> None:
    """Transports, names and threads under faults: every byte comes back, and the trace is one."""
    hashes = set()
    for _ in range(2):
        kernel = testing.SimKernel(3, profile, testing.STORM)
        kernel.net.names["server.example"] = "10.0.0.1"
        assert testing.run_asyncio(echo_server_and_clients, kernel=kernel) == 7
        assert kernel.faults.total
        assert kernel.idle()
        hashes.add(kernel.trace_hash())
    assert len(hashes) == 1


def test_half_an_hour_passes_at_once() -> None:
    """The loop's clock is the simulation's, and so are its timers."""
    kernel = testing.SimKernel(0)
    assert 1800 <= testing.run_asyncio(sleeps, kernel=kernel) < 1801
    assert kernel.clock.elapsed_ns > 1800 * 10**9


def test_deadlock_is_told() -> None:
    """A future that nobody will end is found, with the command that repeats it."""
    with pytest.raises(testing.DeadlockError) as caught:
        testing.run_asyncio(waits_for_ever)
    assert "--asyncio" in caught.value.__notes__[0]
