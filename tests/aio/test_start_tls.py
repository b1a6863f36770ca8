"""TLS that begins on a connection which stands, be it encrypted already."""

import asyncio
import contextlib
import gc
import ssl
import weakref
from typing import Any

import pytest

from tests.aio.conftest import Run
from tests.aio.protocols import Diary, Echo
from tests.aio.serving import LARGE, listening
from tests.aio.waiting import until
from tests.tls import client_context, server_context

BIG = LARGE[: 1 << 20]


class Upgrading(Diary):
    """Answers "start" with "go", and goes on in TLS; echoes from then on."""

    def __init__(self) -> None:
        super().__init__()
        self.upgrade: asyncio.Task[None] | None = None
        self.upgraded = False

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.upgraded:
            self.transport.write(data)
        elif self.received == b"start":
            self.received.clear()
            self.transport.write(b"go")
            self.upgrade = asyncio.ensure_future(self._upgrade())

    async def _upgrade(self) -> None:
        loop = asyncio.get_running_loop()
        with contextlib.suppress(ConnectionResetError):  # a client that refuses us may be quicker
            self.transport = await loop.start_tls(  # type: ignore[assignment]
                self.transport, self, server_context(), server_side=True
            )
            self.upgraded = True
            self.transport.write(self.received)  # what was quicker than this task


async def upgraded(host: str, port: int) -> tuple[asyncio.Transport, Diary]:
    """Connect to an `Upgrading` server, and have TLS begin."""
    loop = asyncio.get_running_loop()
    plain, client = await loop.create_connection(Diary, host, port)
    plain.write(b"start")
    await client.until_received(2)
    client.received.clear()
    transport = await loop.start_tls(plain, client, client_context(), server_hostname=host)
    assert transport is not None
    return transport, client


def test_both_sides_of_protocols(run: Run[None]) -> None:
    """
    After start_tls on both sides the protocols talk through TLS, and hear of one connection: made
    once, lost once.
    """

    async def main() -> None:
        servants: list[Upgrading] = []

        def factory() -> Upgrading:
            servants.append(Upgrading())
            return servants[-1]

        async with listening(factory) as (_, address):
            transport, client = await upgraded(*address)
            transport.write(BIG)
            assert await client.until_received(len(BIG)) == BIG
            assert transport.get_extra_info("cipher") is not None
            assert transport.get_extra_info("peername") == address
            transport.close()
            await client.lost
            await servants[0].lost
        for calls in (client.calls, servants[0].calls):
            assert calls[0] == "made"
            assert calls[-2:] == ["eof", "lost"]
            assert calls.count("made") == calls.count("eof") == calls.count("lost") == 1

    run(main())


def test_streams(run: Run[None]) -> None:
    """`StreamWriter.start_tls` on both sides, right behind what was written before."""

    async def main() -> None:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            assert await reader.readline() == b"start\n"
            writer.write(b"go\n")
            await writer.start_tls(server_context())
            writer.write(await reader.readline())
            await writer.drain()
            writer.close()
            await writer.wait_closed()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"start\n")
        assert await reader.readline() == b"go\n"
        await writer.start_tls(client_context(), server_hostname="localhost")
        writer.write(b"secret\n")
        assert await reader.readline() == b"secret\n"
        assert await reader.read() == b""
        writer.close()
        await writer.wait_closed()
        server.close()
        await server.wait_closed()

    run(main())


def test_tls_in_tls(run: Run[None]) -> None:
    """A TLS transport carries another; both are as good as one, with megabytes too."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        async with listening(Upgrading, ssl=server_context()) as (_, (host, port)):
            outer, client = await loop.create_connection(Diary, host, port, ssl=client_context())
            outer.write(b"start")
            await client.until_received(2)
            client.received.clear()
            inner = await loop.start_tls(outer, client, client_context(), server_hostname=host)
            assert inner is not None
            assert inner.get_extra_info("ssl_object") is not outer.get_extra_info("ssl_object")
            assert inner.get_extra_info("peername") == (host, port)
            inner.write(BIG)
            assert await client.until_received(len(BIG)) == BIG
            inner.close()
            await client.lost
        assert client.calls.count("lost") == 1

    run(main())


def test_wrong_certificate_and_timeout(run: Run[None]) -> None:
    """A handshake that fails, or takes too long, is raised, and ends the connection."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        async with listening(Upgrading) as (_, (host, port)):
            plain, client = await loop.create_connection(Diary, host, port)
            plain.write(b"start")
            await client.until_received(2)
            with pytest.raises(ssl.SSLCertVerificationError):
                await loop.start_tls(plain, client, client_context(), server_hostname="elsewhere")
            assert plain.is_closing()
        async with listening(Diary) as (_, (host, port)):
            plain, client = await loop.create_connection(Diary, host, port)
            with pytest.raises(ConnectionAbortedError, match="taking longer"):
                await loop.start_tls(
                    plain,
                    client,
                    client_context(),
                    server_hostname=host,
                    ssl_handshake_timeout=0.01,
                )
            assert plain.is_closing()

    run(main())


def test_cancelled(run: Run[None]) -> None:
    """A start_tls that is cancelled closes the connection, of which the protocol hears."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        servants: list[Diary] = []

        def factory() -> Diary:
            servants.append(Diary())
            return servants[-1]

        async with listening(factory) as (_, (host, port)):
            for at_once in (True, False):
                plain, client = await loop.create_connection(Diary, host, port)
                starting = asyncio.ensure_future(
                    loop.start_tls(plain, client, client_context(), server_hostname=host)
                )
                if at_once:
                    await asyncio.sleep(0)
                else:
                    await until(lambda: servants[-1].received)
                starting.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await starting
                await servants[-1].lost
                await client.lost
                assert client.calls == ["made", "lost"]

    run(main())


def test_connection_that_ends_meanwhile(run: Run[None]) -> None:
    """Closed before or within the handshake: an error, at once, not None and not a timeout."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        async with listening(Diary) as (_, (host, port)):
            plain, client = await loop.create_connection(Diary, host, port)
            starting = asyncio.ensure_future(
                loop.start_tls(plain, client, client_context(), server_hostname=host)
            )
            await asyncio.sleep(0)
            plain.abort()
            with pytest.raises(ConnectionAbortedError):
                await starting
            with pytest.raises(ConnectionAbortedError, match="is closed"):
                await loop.start_tls(plain, client, client_context(), server_hostname=host)

    run(main())


def test_while_writing_is_paused(run: Run[None]) -> None:
    """A protocol that was told to pause hears that it may go on, through TLS."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        servants: list[Diary] = []

        class Slow(Diary):
            def connection_made(self, transport: asyncio.BaseTransport) -> None:
                super().connection_made(transport)
                self.transport.pause_reading()
                servants.append(self)

        async with listening(Slow) as (_, (host, port)):
            plain, client = await loop.create_connection(Diary, host, port)
            sent = 0
            while "pause" not in client.calls:
                plain.write(BIG)
                sent += len(BIG)
                await asyncio.sleep(0)
            starting = asyncio.ensure_future(
                loop.start_tls(plain, client, client_context(), server_hostname=host)
            )
            await until(lambda: servants)
            servants[0].transport.resume_reading()
            await servants[0].until_received(sent + 1)  # the first of TLS follows all of the rest
            await until(lambda: "resume" in client.calls)
            assert client.calls == ["made", "pause", "resume"]
            starting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await starting
            await client.lost

    run(main())


def test_no_cycles_are_left(run: Run[None]) -> None:
    """A connection that has ended is gone without the collector's help, however it ended."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        clients: list[weakref.ref[Any]] = []

        async def connect(name: str | None, address: tuple[str, int]) -> None:
            def factory() -> Diary:
                client = Diary()
                clients.append(weakref.ref(client))
                return client

            try:
                transport, client = await loop.create_connection(
                    factory, *address, ssl=client_context(), server_hostname=name
                )
            except ssl.SSLError:
                return
            transport.close()
            await client.lost

        async with listening(Echo, ssl=server_context()) as (_, address):
            gc.collect()
            gc.disable()
            try:
                await connect(None, address)
                await connect("elsewhere", address)
                await until(lambda: [one() for one in clients] == [None, None])
            finally:
                gc.enable()

    run(main())
