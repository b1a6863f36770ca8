"""Servers, and streams on top of them."""

import asyncio
import errno
import resource
import socket
import sys
from collections.abc import Callable

import pytest

from tests.aio.conftest import Run
from tests.aio.protocols import Diary, Echo
from tests.aio.waiting import passes, until

LINES = [b"line %d\n" % number for number in range(2000)]
LARGE = bytes(range(256)) * 4096 * 8  # 8 MiB in which every shift shows


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Write back what comes, with flow control."""
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    finally:
        writer.close()
        await writer.wait_closed()


def test_streams_echo(run: Run[None]) -> None:
    """open_connection and start_server: lines, exact counts, large data, the end."""

    async def main() -> None:
        server = await asyncio.start_server(echo, "127.0.0.1", 0)
        async with server:
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            writer.writelines(LINES)
            for line in LINES:
                assert await reader.readline() == line
            writer.write(LARGE)

            async def read() -> bytes:
                return await reader.readexactly(len(LARGE))

            reading = asyncio.ensure_future(read())
            await writer.drain()
            assert await reading == LARGE
            writer.write_eof()
            assert await reader.read() == b""
            writer.close()
            await writer.wait_closed()

    run(main())


def test_streams_with_slow_readers_on_both_sides(run: Run[None]) -> None:
    """A reader that takes small sips makes the whole line wait, and loses nothing."""

    async def main() -> None:
        server = await asyncio.start_server(echo, "127.0.0.1", 0)
        async with server:
            address = server.sockets[0].getsockname()
            reader, writer = await asyncio.open_connection(*address, limit=1000)

            async def write() -> None:
                for start in range(0, 1 << 20, 1 << 16):
                    writer.write(LARGE[start : start + (1 << 16)])
                    await writer.drain()
                writer.write_eof()

            writing = asyncio.ensure_future(write())
            received = bytearray()
            while sip := await reader.read(777):
                received += sip
            await writing
            assert received == LARGE[: 1 << 20]
            writer.close()
            await writer.wait_closed()

    run(main())


def test_many_connections_at_once(run: Run[None]) -> None:
    """200 clients talk at the same time, each gets its own bytes back."""

    async def main() -> None:
        server = await asyncio.start_server(echo, "127.0.0.1", 0)
        async with server:
            address = server.sockets[0].getsockname()

            async def client(number: int) -> None:
                reader, writer = await asyncio.open_connection(*address)
                for turn in range(5):
                    text = b"%d/%d;" % (number, turn)
                    writer.write(text)
                    assert await reader.readexactly(len(text)) == text
                writer.close()
                await writer.wait_closed()

            async with asyncio.TaskGroup() as group:
                for number in range(200):
                    group.create_task(client(number))

    run(main())


def test_server_does_not_serve_before_it_is_started(run: Run[None]) -> None:
    """With start_serving=False nobody can connect until start_serving, which may come twice."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(Echo, "127.0.0.1", 0, start_serving=False)
        address = server.sockets[0].getsockname()
        assert not server.is_serving()
        with pytest.raises(ConnectionRefusedError):
            await loop.create_connection(Diary, *address)
        await server.start_serving()
        await server.start_serving()
        assert server.is_serving()
        assert server.get_loop() is loop
        transport, client = await loop.create_connection(Diary, *address)
        transport.write(b"x")
        await client.until_received(1)
        transport.close()
        await client.lost
        server.close()
        await server.wait_closed()
        never = await loop.create_server(Echo, "127.0.0.1", 0, start_serving=False)
        never.close()
        await never.wait_closed()

    run(main())


def test_closed_server_refuses_at_once(run: Run[None]) -> None:
    """From close on nobody can connect, the port can be bound again, and connections live on."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(Echo, "127.0.0.1", 0)
        address = server.sockets[0].getsockname()
        transport, client = await loop.create_connection(Diary, *address)
        transport.write(b"x")
        await client.until_received(1)
        server.close()
        server.close()
        assert server.sockets == ()
        assert not server.is_serving()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(address)
        again = await loop.create_server(Echo, *address)
        transport.write(b"y")
        await client.until_received(2)
        transport.close()
        await client.lost
        again.close()
        await asyncio.gather(server.wait_closed(), again.wait_closed())

    run(main())


@pytest.mark.skipif(sys.version_info < (3, 12), reason="asyncio waits for them from 3.12 on")
def test_wait_closed_waits_for_connections(run: Run[None]) -> None:
    """wait_closed returns when the last connection has ended, whoever ends it."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(Echo, "127.0.0.1", 0)
        _, client = await loop.create_connection(Diary, *server.sockets[0].getsockname())
        await until(lambda: server._clients)  # type: ignore[attr-defined]
        server.close()
        waiting = asyncio.ensure_future(server.wait_closed())
        await passes(5)
        assert not waiting.done()
        server.close_clients()  # type: ignore[attr-defined]
        await waiting
        await client.lost

    run(main())


def test_serve_forever_until_cancelled(run: Run[None]) -> None:
    """serve_forever serves until it is cancelled, then closes; two at once are refused."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(Echo, "127.0.0.1", 0, start_serving=False)
        address = server.sockets[0].getsockname()
        serving = loop.create_task(server.serve_forever())
        await until(server.is_serving)
        with pytest.raises(RuntimeError, match="serve_forever"):
            await server.serve_forever()
        transport, client = await loop.create_connection(Diary, *address)
        transport.close()
        await client.lost
        serving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await serving
        assert not server.is_serving()
        with pytest.raises(RuntimeError, match="closed"):
            await server.start_serving()
        with pytest.raises(RuntimeError, match="closed"):
            await server.serve_forever()

    run(main())


def test_close_ends_serve_forever(run: Run[None]) -> None:
    """A server that is closed elsewhere ends its serve_forever."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(Echo, "127.0.0.1", 0)
        serving = loop.create_task(server.serve_forever())
        await passes(2)
        server.close()
        with pytest.raises(asyncio.CancelledError):
            await serving

    run(main())


def test_protocol_that_closes_its_server(run: Run[None]) -> None:
    """A server may be closed out of its own connection_made."""

    async def main() -> None:
        loop = asyncio.get_running_loop()

        class Last(Echo):
            def connection_made(self, transport: asyncio.BaseTransport) -> None:
                super().connection_made(transport)
                server.close()

        server = await loop.create_server(Last, "127.0.0.1", 0)
        transport, client = await loop.create_connection(Diary, *server.sockets[0].getsockname())
        transport.write(b"x")
        await client.until_received(1)
        transport.close()
        await client.lost
        await server.wait_closed()

    run(main())


def test_several_addresses(run: Run[None]) -> None:
    """A server listens on each host of a list, and on every interface for none."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(Echo, ["127.0.0.1", "127.0.0.2"], 0)
        hosts = [sock.getsockname()[0] for sock in server.sockets]
        assert sorted(hosts) == ["127.0.0.1", "127.0.0.2"]
        for sock in server.sockets:
            transport, client = await loop.create_connection(Diary, *sock.getsockname()[:2])
            transport.close()
            await client.lost
        server.close()
        await server.wait_closed()
        server = await loop.create_server(Echo, None, 0)
        assert "0.0.0.0" in [sock.getsockname()[0] for sock in server.sockets]
        server.close()
        await server.wait_closed()

    run(main())


def test_address_in_use(run: Run[None]) -> None:
    """A port that is taken is refused, and what was bound before it is let go."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        first = await loop.create_server(Echo, "127.0.0.1", 0)
        port = first.sockets[0].getsockname()[1]
        with pytest.raises(OSError, match=r"(?i)in use") as caught:
            await loop.create_server(Echo, ["127.0.0.2", "127.0.0.1"], port)
        assert caught.value.errno == errno.EADDRINUSE
        assert str(port) in str(caught.value)
        shared = await loop.create_server(Echo, "127.0.0.2", port)
        first.close()
        shared.close()
        await asyncio.gather(first.wait_closed(), shared.wait_closed())

    run(main())


def test_reuse_port(run: Run[None]) -> None:
    """Two servers share a port that both ask to share."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        first = await loop.create_server(Echo, "127.0.0.1", 0, reuse_port=True)
        address = first.sockets[0].getsockname()
        second = await loop.create_server(Echo, *address, reuse_port=True)
        first.close()
        second.close()
        await asyncio.gather(first.wait_closed(), second.wait_closed())

    run(main())


def test_out_of_descriptors_is_reported_and_outlived(
    make_loop: Callable[[], asyncio.AbstractEventLoop], monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    EMFILE pauses accepting, is reported, and accepting goes on when descriptors are free again.
    """
    from uringio.aio import server as server_module

    monkeypatch.setattr(server_module, "_RETRY_SECONDS", 0.01)
    reports: list[OSError] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: reports.append(context["exception"]))
        servant = Echo()
        server = await loop.create_server(lambda: servant, "127.0.0.1", 0)
        address = server.sockets[0].getsockname()
        peer = socket.socket()
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (peer.fileno() + 1, limits[1]))
        try:
            peer.connect(address)
            await until(lambda: reports)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        peer.sendall(b"x")
        peer.setblocking(False)
        transport, client = await loop.create_connection(Diary, sock=peer)
        await client.until_received(1)
        transport.close()
        await client.lost
        await servant.lost
        server.close()
        await server.wait_closed()

    with asyncio.Runner(loop_factory=make_loop) as runner:
        runner.run(main())
    assert {report.errno for report in reports} == {errno.EMFILE}


def test_server_without_room_can_be_closed(
    make_loop: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    """A server that is closed while it waits for descriptors ends."""
    reports: list[OSError] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: reports.append(context["exception"]))
        server = await loop.create_server(Echo, "127.0.0.1", 0)
        address = server.sockets[0].getsockname()
        with socket.socket() as peer:
            limits = resource.getrlimit(resource.RLIMIT_NOFILE)
            resource.setrlimit(resource.RLIMIT_NOFILE, (peer.fileno() + 1, limits[1]))
            try:
                peer.connect(address)
                await until(lambda: reports)
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, limits)
            server.close()
        await server.wait_closed()

    with asyncio.Runner(loop_factory=make_loop) as runner:
        runner.run(main())
    assert len(reports) == 1
