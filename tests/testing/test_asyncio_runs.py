"""asyncio's programs under simulation, on the event loop of `uringio.aio`."""

import asyncio
from typing import cast

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


async def datagrams() -> list[bytes]:
    loop = asyncio.get_running_loop()
    answers: list[bytes] = []

    class Returner(asyncio.DatagramProtocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            self.transport = cast("asyncio.DatagramTransport", transport)

        def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
            self.transport.sendto(data, addr)

    class Asker(asyncio.DatagramProtocol):
        def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
            assert addr == ("10.0.0.1", 9000)
            answers.append(data)

    server, _ = await loop.create_datagram_endpoint(Returner, ("10.0.0.1", 9000))
    client, _ = await loop.create_datagram_endpoint(Asker, remote_addr=("server.example", 9000))
    for number in range(20):
        client.sendto(b"%d" % number)
        await asyncio.sleep(1)
    client.close()
    server.close()
    await asyncio.sleep(1)
    return answers


async def wants_what_is_real() -> None:
    for call in (
        asyncio.create_subprocess_exec("true"),
        asyncio.get_running_loop().connect_read_pipe(asyncio.Protocol, None),
        asyncio.get_running_loop().connect_write_pipe(asyncio.Protocol, None),
    ):
        with pytest.raises(testing.NotSimulatedError):
            await call


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


@pytest.mark.parametrize("profile", PROFILES)
def test_datagrams_go_there_and_back(profile: str) -> None:
    """Datagram endpoints run on every simulated kernel, and leave nothing."""
    kernel = testing.SimKernel(3, profile)
    kernel.net.names["server.example"] = "10.0.0.1"
    answers = testing.run_asyncio(datagrams, kernel=kernel)
    assert answers == [b"%d" % number for number in range(20)]
    assert kernel.idle()


def test_pipes_and_children_are_refused() -> None:
    """What belongs to the real system is not taken for the simulation's."""
    testing.run_asyncio(wants_what_is_real)


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
