"""What can be done to the simulated network, and what programs notice of it."""

import errno

import pytest

import uringio
from tests.testing import programs
from uringio import testing
from uringio.errors import OpError
from uringio.net import SocketStream

SECOND = 10**9
PROFILES = ["6.18", "blocked"]


async def connected() -> tuple[uringio.Listener, SocketStream, SocketStream]:
    listener = await uringio.listen_tcp("127.0.0.1", programs.PORT)
    client = await uringio.connect_tcp("127.0.0.1", programs.PORT)
    return listener, client, await listener.accept()


async def close_all(*ends: uringio.Listener | SocketStream) -> None:
    for end in ends:
        await end.aclose()


@pytest.mark.parametrize("profile", PROFILES)
def test_a_partition_delays_streams_until_it_is_repaired(profile: str) -> None:
    """Nothing arrives in either direction, nothing is lost, and its order is kept."""
    kernel = testing.SimKernel(1, profile)

    async def main() -> None:
        listener, client, server = await connected()
        kernel.net.partition(programs.PORT)
        await client.send_all(b"one ")
        await server.send_all(b"back")
        for stream in (client, server):
            with uringio.move_on_after(30) as scope:
                await stream.recv()
            assert scope.cancelled_caught
        await client.send_all(b"two")
        kernel.net.repair()
        assert await server.recv_exactly(7) == b"one two"
        assert await client.recv_exactly(4) == b"back"
        await close_all(client, server, listener)

    testing.run(main, kernel=kernel)
    assert kernel.clock.elapsed_ns > 60 * SECOND


@pytest.mark.parametrize("profile", PROFILES)
def test_what_is_lost_one_way_still_arrives_the_other_way(profile: str) -> None:
    """Only the direction that was named is cut; its ends are told by an address and a port."""
    kernel = testing.SimKernel(2, profile)

    async def main() -> None:
        listener, client, server = await connected()
        kernel.net.lose(("127.0.0.1", programs.PORT))  # what the server sends
        await client.send_all(b"there")
        assert await server.recv_exactly(5) == b"there"
        await server.send_all(b"back")
        with uringio.move_on_after(10) as scope:
            await client.recv()
        assert scope.cancelled_caught
        kernel.net.repair()
        assert await client.recv_exactly(4) == b"back"
        await close_all(client, server, listener)

    testing.run(main, kernel=kernel)


def test_a_partition_that_stays_ends_connections() -> None:
    """TCP gives up after as long as Linux does: ETIMEDOUT, for connections and for connecting."""
    kernel = testing.SimKernel(3)

    async def main() -> None:
        listener, client, server = await connected()
        kernel.net.partition("127.0.0.1")
        with pytest.raises(OpError) as connecting:
            await uringio.connect_tcp("127.0.0.1", programs.PORT)
        assert connecting.value.errno == errno.ETIMEDOUT
        await client.send_all(b"x")
        with pytest.raises(OpError) as waiting:
            await client.recv()
        assert waiting.value.errno == errno.ETIMEDOUT
        await close_all(client, server, listener)

    testing.run(main, kernel=kernel)
    assert 900 * SECOND < kernel.clock.elapsed_ns < 1200 * SECOND


def test_what_is_held_arrives_in_order_when_it_is_released() -> None:
    """Streams and datagrams alike; nothing of either is lost."""
    kernel = testing.SimKernel(4)

    async def main() -> None:
        listener, client, server = await connected()
        receiver = await uringio.open_udp(("127.0.0.1", 0))
        sender = await uringio.open_udp(None, receiver.local_address)
        kernel.net.hold()
        for piece in (b"a", b"b", b"c"):
            await client.send_all(piece)
            await sender.send(piece)
        await uringio.sleep(5)
        kernel.net.release()
        assert await server.recv_exactly(3) == b"abc"
        assert [await receiver.recv() for _ in range(3)] == [b"a", b"b", b"c"]
        await sender.aclose()
        await receiver.aclose()
        await close_all(client, server, listener)

    testing.run(main, kernel=kernel)


def test_datagrams_are_lost_where_the_way_is_cut() -> None:
    """And only there: what is sent after the repair is all that comes."""
    kernel = testing.SimKernel(5)

    async def main() -> None:
        async with (
            await uringio.open_udp(("127.0.0.1", 0)) as receiver,
            await uringio.open_udp(None, receiver.local_address) as sender,
        ):
            kernel.net.lose("127.0.0.1")
            await sender.send(b"lost")
            await uringio.sleep(1)
            kernel.net.repair()
            await sender.send(b"found")
            assert await receiver.recv() == b"found"

    testing.run(main, kernel=kernel)


def test_a_clogged_way_takes_longer() -> None:
    """By what was said, in the direction that was named."""
    kernel = testing.SimKernel(6)

    async def main() -> tuple[int, int]:
        listener, client, server = await connected()
        kernel.net.clog(target=programs.PORT, delay_ns=3 * SECOND)
        began_ns = kernel.clock.now_ns
        await client.send_all(b"x")
        await server.recv_exactly(1)
        there_ns = kernel.clock.now_ns - began_ns
        await server.send_all(b"y")
        await client.recv_exactly(1)
        back_ns = kernel.clock.now_ns - began_ns - there_ns
        await close_all(client, server, listener)
        return there_ns, back_ns

    there_ns, back_ns = testing.run(main, kernel=kernel)
    assert 3 * SECOND <= there_ns < 4 * SECOND
    assert back_ns < SECOND


@pytest.mark.parametrize("profile", PROFILES)
def test_connections_can_be_reset(profile: str) -> None:
    """Both ends of those that are named find ECONNRESET; others go on."""
    kernel = testing.SimKernel(7, profile)

    async def main() -> None:
        listener, client, server = await connected()
        async with await uringio.listen_tcp("127.0.0.1", 9000) as other:
            spared = await uringio.connect_tcp("127.0.0.1", 9000)
            spared_too = await other.accept()
            assert kernel.net.reset(programs.PORT) == 2
            for end in (client, server):
                with pytest.raises(ConnectionResetError):
                    await end.recv()
            await spared.send_all(b"on")
            assert await spared_too.recv_exactly(2) == b"on"
            await close_all(spared, spared_too)
        await close_all(client, server, listener)

    testing.run(main, kernel=kernel)


def test_zero_copy_memory_stays_lent_while_the_way_is_cut() -> None:
    """No acknowledgement, no notification: the buffer comes back with the repair, or the abort."""
    kernel = testing.SimKernel(8)

    async def main() -> None:
        listener, client, server = await connected()
        pool = uringio.BufferPool(1 << 20)
        buffer = await pool.acquire(5_000)
        buffer.write(b"z" * 5_000)
        kernel.net.partition(programs.PORT)
        async with uringio.TaskGroup() as group:

            async def repair() -> None:
                await uringio.sleep(60)
                kernel.net.repair()

            group.start_soon(repair)
            _, buffer = await client.send_buffer(buffer, 0, 5_000, zero_copy=True)
            assert kernel.clock.elapsed_ns > 60 * SECOND
        assert await server.recv_exactly(5_000) == b"z" * 5_000
        buffer.release()
        await close_all(client, server, listener)

    testing.run(main, kernel=kernel)


def test_hosts_with_ports_of_their_own() -> None:
    """One port serves two addresses, and a socket that is bound to neither gets the rest."""

    async def main() -> list[bytes]:
        got: list[bytes] = []
        async with (
            await uringio.listen_tcp("10.0.0.1", programs.PORT) as one,
            await uringio.listen_tcp("10.0.0.2", programs.PORT) as other,
        ):
            for listener, host in ((one, "10.0.0.1"), (other, "10.0.0.2")):
                async with (
                    await uringio.connect_tcp(host, programs.PORT) as client,
                    await listener.accept() as server,
                ):
                    await client.send_all(host.encode())
                    got.append(await server.recv())
            with pytest.raises(ConnectionRefusedError):
                await uringio.connect_tcp("10.0.0.3", programs.PORT)
        return got

    assert testing.run(main) == [b"10.0.0.1", b"10.0.0.2"]
