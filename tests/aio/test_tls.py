"""TLS: connections and servers that are encrypted from their beginning."""

import asyncio
import contextvars
import socket
import ssl
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.aio.conftest import Run
from tests.aio.protocols import Buffered, Diary, Echo
from tests.aio.serving import LARGE, listening
from tests.aio.waiting import passes, until
from tests.tls import client_context, server_context


def test_echo_and_what_is_known(run: Run[None]) -> None:
    """Both sides hear the calls of an orderly connection, and can say how it is encrypted."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        servants: list[Echo] = []

        def factory() -> Echo:
            servants.append(Echo())
            return servants[-1]

        secrets = server_context()
        async with listening(factory, ssl=secrets) as (_, (host, port)):
            transport, client = await loop.create_connection(
                Diary, host, port, ssl=client_context()
            )
            assert client.calls == ["made"]
            assert client.transport is transport
            transport.write(b"one")
            assert await client.until_received(3) == b"one"
            known = transport.get_extra_info
            assert ("DNS", "localhost") in known("peercert")["subjectAltName"]
            assert known("cipher") == known("ssl_object").cipher()
            assert known("compression") is None
            assert known("sslcontext").check_hostname
            assert known("peername") == (host, port)
            assert known("nonsense", 5) == 5
            its = servants[0].transport.get_extra_info
            assert its("peercert") is None
            assert its("sslcontext") is secrets
            assert its("peername") == known("sockname") == known("socket").getsockname()
            transport.close()
            assert transport.is_closing()
            await client.lost
            await servants[0].lost
        assert client.calls == ["made", "data", "eof", "lost"]
        assert servants[0].calls == ["made", "data", "eof", "lost"]
        assert client.error is servants[0].error is None

    run(main())


def test_large_transfers_cross(run: Run[None]) -> None:
    """Megabytes go both ways at once, byte for byte."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        data = LARGE[: 4 << 20]
        async with listening(Echo, ssl=server_context()) as (_, (host, port)):
            transport, client = await loop.create_connection(
                Diary, host, port, ssl=client_context()
            )
            transport.write(data)
            assert await client.until_received(len(data)) == data
            transport.close()
            await client.lost

    run(main())


def test_slow_reader_stops_the_writer(run: Run[None]) -> None:
    """A protocol that does not read makes its peer pause, and gets everything once it reads."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        readers: list[Diary] = []

        class SlowReader(Diary):
            def connection_made(self, transport: asyncio.BaseTransport) -> None:
                super().connection_made(transport)
                self.transport.pause_reading()
                readers.append(self)

        async with listening(SlowReader, ssl=server_context()) as (_, (host, port)):
            transport, client = await loop.create_connection(
                Diary, host, port, ssl=client_context()
            )
            sent = 0
            while "pause" not in client.calls:
                transport.write(LARGE[:100_000])
                sent += 100_000
                await asyncio.sleep(0)
            await until(lambda: readers)
            assert readers[0].calls == ["made"]
            readers[0].transport.resume_reading()
            assert await readers[0].until_received(sent) == LARGE[:100_000] * (sent // 100_000)
            await until(lambda: "resume" in client.calls)
            transport.close()
            await client.lost

    run(main())


def test_streams(run: Run[None]) -> None:
    """Streams of asyncio's talk TLS; what was written before the end arrives before the end."""

    async def main() -> None:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(await reader.readline())
            writer.write(LARGE[: 1 << 20])
            writer.close()
            await writer.wait_closed()

        server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=server_context())
        port = server.sockets[0].getsockname()[1]
        reader, writer = await asyncio.open_connection("localhost", port, ssl=client_context())
        writer.write(b"line\n")
        assert await reader.read() == b"line\n" + LARGE[: 1 << 20]
        writer.close()
        await writer.wait_closed()
        server.close()
        await server.wait_closed()

    run(main())


def test_unix_sockets(run: Run[None], tmp_path: Path) -> None:
    """TLS over Unix sockets; there the name that the certificate must have is to be given."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        path = tmp_path / "socket"
        server = await loop.create_unix_server(Echo, path, ssl=server_context())
        with pytest.raises(ValueError, match="server_hostname when using ssl"):
            await loop.create_unix_connection(Diary, path, ssl=client_context())
        transport, client = await loop.create_unix_connection(
            Diary, path, ssl=client_context(), server_hostname="localhost"
        )
        transport.write(b"data")
        assert await client.until_received(4) == b"data"
        transport.close()
        await client.lost
        server.close()
        await server.wait_closed()

    run(main())


def test_sockets_brought_along(run: Run[None]) -> None:
    """Both ends of a pair of sockets become TLS transports, which close them."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        ours, theirs = socket.socketpair()
        (_, servant), (transport, client) = await asyncio.gather(
            loop.connect_accepted_socket(Echo, theirs, ssl=server_context()),
            loop.create_connection(
                Diary, sock=ours, ssl=client_context(), server_hostname="localhost"
            ),
        )
        transport.write(b"data")
        assert await client.until_received(4) == b"data"
        transport.close()
        await client.lost
        await servant.lost
        await until(lambda: ours.fileno() == theirs.fileno() == -1)

    run(main())


def test_buffered_protocol_above(run: Run[None]) -> None:
    """A BufferedProtocol gets decrypted data into its own buffer, of whatever size."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        data = LARGE[:100_000]
        async with listening(Echo, ssl=server_context()) as (_, (host, port)):
            transport, client = await loop.create_connection(
                lambda: Buffered(1000), host, port, ssl=client_context()
            )
            transport.write(data)
            await until(lambda: sum(map(len, client.pieces)) == len(data))
            assert b"".join(client.pieces) == data
            assert max(map(len, client.pieces)) == 1000
            transport.close()
            await client.lost

    run(main())


def test_contradictions_are_refused_as_asyncio_does(run: Run[None]) -> None:
    """The same calls are refused with the same exceptions and words as by asyncio's own loop."""
    secrets = client_context()
    stream = SimpleNamespace(type=socket.SOCK_STREAM)

    def attempts(loop: Any) -> list[Any]:
        connect, connect_unix = loop.create_connection, loop.create_unix_connection
        serve, serve_unix = loop.create_server, loop.create_unix_server
        both, accept = ((connect, "h", 1), (serve, "h", 1)), loop.connect_accepted_socket
        return [
            connect(Diary, "h", 1, server_hostname="other"),
            connect(Diary, sock=stream, ssl=secrets),
            connect(Diary, "", 1, ssl=secrets),
            *(call(Diary, *to, ssl_handshake_timeout=1) for call, *to in both),
            *(call(Diary, *to, ssl_shutdown_timeout=1) for call, *to in both),
            accept(Diary, stream, ssl_handshake_timeout=1),
            accept(Diary, stream, ssl_shutdown_timeout=1),
            serve(Diary, "h", 1, ssl=True),
            serve(Diary, "h", 1, ssl=False),
            serve_unix(Diary, "p", ssl=True),
            serve_unix(Diary, "p", ssl_handshake_timeout=1),
            serve_unix(Diary, "p", ssl_shutdown_timeout=1),
            connect_unix(Diary, "p", server_hostname="h"),
            connect_unix(Diary, "p", ssl_handshake_timeout=1),
            connect_unix(Diary, "p", ssl_shutdown_timeout=1),
            loop.start_tls(None, None, "context"),
            loop.start_tls(None, None, secrets),
        ]

    async def answers() -> list[str]:
        found = await asyncio.gather(*attempts(asyncio.get_running_loop()), return_exceptions=True)
        return [repr(one) for one in found]

    async def main() -> None:
        expected = await asyncio.to_thread(asyncio.run, answers())
        assert await answers() == expected
        assert all(one.startswith(("ValueError(", "TypeError(")) for one in expected), expected

    run(main())


def test_more_that_is_refused(run: Run[None]) -> None:
    """
    Timeouts of nothing, contexts that are none, and sockets of the ssl module are refused at once;
    and so is a server's side without a context.
    """

    async def main() -> None:
        loop: Any = asyncio.get_running_loop()
        secrets = client_context()
        for seconds in (0, -1):
            for name in ("ssl_handshake_timeout", "ssl_shutdown_timeout"):
                limit = {name: seconds}
                for call in (
                    loop.create_connection(Diary, "127.0.0.1", 1, ssl=secrets, **limit),
                    loop.create_server(Diary, "127.0.0.1", 0, ssl=secrets, **limit),
                    loop.start_tls(None, None, secrets, **limit),
                ):
                    with pytest.raises(ValueError, match=f"{name} should be a positive number"):
                        await call
        with pytest.raises(TypeError, match="SSLContext"):
            await loop.create_connection(Diary, "127.0.0.1", 1, ssl="context")
        ours, theirs = socket.socketpair()
        with ours, theirs:
            with pytest.raises(ValueError, match="needs a valid SSLContext"):
                await loop.connect_accepted_socket(Diary, ours, ssl=True)
            with secrets.wrap_socket(
                ours, server_hostname="localhost", do_handshake_on_connect=False
            ) as wrapped:
                for ssl_ in (None, secrets):
                    with pytest.raises(TypeError, match="SSLSocket"):
                        await loop.create_connection(
                            Diary, sock=wrapped, ssl=ssl_, server_hostname=ssl_ and "localhost"
                        )

    run(main())


def test_failing_factory_leaves_no_socket(run: Run[None]) -> None:
    """A name no certificate can have, and a factory that fails, cost the socket: no descriptor."""

    def fail() -> Diary:
        raise ZeroDivisionError

    async def main() -> None:
        loop = asyncio.get_running_loop()
        async with listening(Echo) as (_, (host, port)):
            with pytest.raises(ValueError, match="idna"):
                await loop.create_connection(
                    Diary, host, port, ssl=client_context(), server_hostname=".bad"
                )
            with pytest.raises(ZeroDivisionError):
                await loop.create_connection(fail, host, port)

    run(main())


@pytest.mark.parametrize("name", [None, "elsewhere.example"])
def test_wrong_certificate(run: Run[None], name: str | None) -> None:
    """
    A server that nobody trusts, or that has another name, is not talked to: no protocol hears of
    the connection, and nothing is reported.
    """

    async def main() -> None:
        loop = asyncio.get_running_loop()
        made: list[Diary] = []

        def factory() -> Diary:
            made.append(Diary())
            return made[-1]

        who = "stranger" if name is None else "server"
        async with listening(factory, ssl=server_context(who)) as (_, (host, port)):
            with pytest.raises(ssl.SSLCertVerificationError):
                await loop.create_connection(
                    factory, host, port, ssl=client_context(), server_hostname=name
                )
        # In TLS 1.3 the client's refusal reaches a server that has sent all that it has to send.
        assert [one.calls for one in made if one.calls] == []

    run(main())


def test_default_context_and_no_name(run: Run[None]) -> None:
    """
    ssl=True trusts what the system trusts, which is not our authority; an empty name checks none.
    """

    async def main() -> None:
        loop = asyncio.get_running_loop()
        async with listening(Echo, ssl=server_context()) as (_, (host, port)):
            with pytest.raises(ssl.SSLCertVerificationError):
                await loop.create_connection(Diary, host, port, ssl=True)
            secrets = client_context()
            secrets.check_hostname = False
            transport, client = await loop.create_connection(
                Diary, host, port, ssl=secrets, server_hostname=""
            )
            assert transport.get_extra_info("ssl_object").server_hostname is None
            transport.close()
            await client.lost

    run(main())


def test_clients_with_certificates(run: Run[None]) -> None:
    """A server that asks for certificates knows its client by it, and refuses one without."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        servants: list[Echo] = []

        def factory() -> Echo:
            servants.append(Echo())
            return servants[-1]

        secrets = server_context(asks_clients=True)
        async with listening(factory, ssl=secrets) as (_, (host, port)):
            transport, client = await loop.create_connection(
                Diary, host, port, ssl=client_context("client")
            )
            transport.write(b"data")
            assert await client.until_received(4) == b"data"
            subject = servants[0].transport.get_extra_info("peercert")["subject"]
            assert subject == ((("commonName", "client"),),)
            transport.close()
            await client.lost
            # In TLS 1.3 the client's handshake is over before the server has looked.
            _, nobody = await loop.create_connection(Diary, host, port, ssl=client_context())
            await nobody.lost
            assert servants[1].calls == []

    run(main())


def test_handshake_timeout_of_a_client(run: Run[None]) -> None:
    """A peer that never answers is given up after *ssl_handshake_timeout*."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        with (
            socket.create_server(("127.0.0.1", 0)) as silent,
            pytest.raises(ConnectionAbortedError, match="handshake is taking longer"),
        ):
            await loop.create_connection(
                Diary, *silent.getsockname(), ssl=client_context(), ssl_handshake_timeout=0.01
            )

    run(main())


def test_handshake_timeout_of_a_server(run: Run[None]) -> None:
    """A client that never begins is put out; its protocol never hears of it."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        servants: list[Diary] = []

        def factory() -> Diary:
            servants.append(Diary())
            return servants[-1]

        options = {"ssl": server_context(), "ssl_handshake_timeout": 0.01}
        async with listening(factory, **options) as (_, address):
            _, client = await loop.create_connection(Diary, *address)
            await client.lost
        assert [one.calls for one in servants] == [[]]

    run(main())


def test_what_crosses_the_end_is_dropped(run: Run[None]) -> None:
    """What a peer sent before it heard of the end neither arrives nor fails the connection."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        servants: list[Diary] = []

        class Pausing(Diary):
            def connection_made(self, transport: asyncio.BaseTransport) -> None:
                super().connection_made(transport)
                self.transport.pause_reading()
                servants.append(self)

        async with listening(Pausing, ssl=server_context()) as (_, (host, port)):
            transport, client = await loop.create_connection(
                Diary, host, port, ssl=client_context()
            )
            await until(lambda: servants)
            transport.close()
            for _ in range(2):
                servants[0].transport.write(b"trailing")
                await passes(3)
            servants[0].transport.resume_reading()
            await client.lost
            await servants[0].lost
            assert client.error is None
            assert client.received == b""

    run(main())


def test_shutdown_timeout(run: Run[None]) -> None:
    """A peer that does not answer the end is cut off after *ssl_shutdown_timeout*."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        servants: list[Diary] = []

        class Deaf(Diary):
            def connection_made(self, transport: asyncio.BaseTransport) -> None:
                super().connection_made(transport)
                self.transport.pause_reading()
                servants.append(self)

        async with listening(Deaf, ssl=server_context()) as (_, (host, port)):
            transport, client = await loop.create_connection(
                Diary, host, port, ssl=client_context(), ssl_shutdown_timeout=0.01
            )
            # So much that the peer's TLS stops reading, and never sees the end.
            transport.write(LARGE)
            transport.close()
            await client.lost
            assert isinstance(client.error, TimeoutError)
            servants[0].transport.abort()
            await servants[0].lost

    run(main())


def test_cancelled_in_the_handshake(run: Run[None]) -> None:
    """A create_connection that is cancelled while it waits for the peer leaves nothing behind."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        with socket.create_server(("127.0.0.1", 0)) as silent:
            silent.setblocking(False)
            connecting = asyncio.ensure_future(
                loop.create_connection(Diary, *silent.getsockname(), ssl=client_context())
            )
            while True:
                try:
                    peer, _ = silent.accept()
                    break
                except BlockingIOError:
                    await asyncio.sleep(0)
            with peer:
                peer.setblocking(False)
                hello = b""
                while not hello:
                    try:
                        hello = peer.recv(65536)
                    except BlockingIOError:
                        await asyncio.sleep(0)
                connecting.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await connecting

    run(main())


def test_peer_that_leaves_in_the_handshake(run: Run[None]) -> None:
    """A connection that ends before the handshake does is an error of the connection."""

    async def main() -> None:
        loop = asyncio.get_running_loop()

        class Leaving(Diary):
            def data_received(self, data: bytes) -> None:
                self.transport.close()

        async with listening(Leaving) as (_, (host, port)):
            with pytest.raises(ConnectionResetError, match="during the TLS handshake"):
                await loop.create_connection(Diary, host, port, ssl=client_context())

    run(main())


@pytest.mark.parametrize("debug", [False, True])
def test_nonsense_from_a_client(
    make_loop: Callable[[], asyncio.AbstractEventLoop], debug: bool
) -> None:
    """Who does not speak TLS is put out, and others are served; reported in debug mode only."""
    reports: list[dict[str, Any]] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: reports.append(context))
        async with listening(Echo, ssl=server_context()) as (_, (host, port)):
            plain, stranger = await loop.create_connection(Diary, host, port)
            plain.write(b"GET / HTTP/1.0\r\n\r\n")
            await stranger.lost
            transport, client = await loop.create_connection(
                Diary, host, port, ssl=client_context()
            )
            transport.write(b"data")
            assert await client.until_received(4) == b"data"
            transport.close()
            await client.lost

    with asyncio.Runner(loop_factory=make_loop, debug=debug) as runner:
        runner.run(main())
    assert [report["message"] for report in reports] == [
        "Error on transport creation for incoming connection"
    ] * debug
    assert all(isinstance(report["exception"], ssl.SSLError) for report in reports)


def test_truncation(run: Run[None]) -> None:
    """A connection that ends without TLS's own end ends all the same; what came is delivered."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        servants: list[Diary] = []

        def factory() -> Diary:
            servants.append(Diary())
            return servants[-1]

        async with listening(factory, ssl=server_context()) as (_, (host, port)):
            transport, client = await loop.create_connection(
                Diary, host, port, ssl=client_context()
            )
            transport.write(b"last words")
            await until(lambda: transport.get_write_buffer_size() == 0 and servants)
            assert await servants[0].until_received(10) == b"last words"
            transport.get_extra_info("socket").shutdown(socket.SHUT_WR)
            await servants[0].lost
            await client.lost
        assert servants[0].calls == ["made", "data", "eof", "lost"]

    run(main())


def test_no_half_closing(run: Run[None]) -> None:
    """TLS transports say that they have no end of their own to send, and refuse to."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        async with listening(Echo, ssl=server_context()) as (_, (host, port)):
            transport, client = await loop.create_connection(
                Diary, host, port, ssl=client_context()
            )
            assert not transport.can_write_eof()
            with pytest.raises(NotImplementedError):
                transport.write_eof()
            transport.abort()
            await client.lost
            assert client.calls == ["made", "lost"]

    run(main())


def test_failing_protocol(make_loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
    """A connection_made or data_received that raises is reported, and ends that connection."""
    reports: list[dict[str, Any]] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: reports.append(context))
        count = 0

        class Failing(Diary):
            def connection_made(self, transport: asyncio.BaseTransport) -> None:
                nonlocal count
                count += 1
                if count == 1:
                    raise ValueError("made")
                super().connection_made(transport)

            def data_received(self, data: bytes) -> None:
                raise ValueError("data")

        async with listening(Failing, ssl=server_context()) as (_, (host, port)):
            for _ in range(2):
                transport, client = await loop.create_connection(
                    Diary, host, port, ssl=client_context()
                )
                transport.write(b"data")
                await client.lost

    with asyncio.Runner(loop_factory=make_loop) as runner:
        runner.run(main())
    assert [str(report["exception"]) for report in reports] == ["made", "data"]


def test_context_of_callbacks(run: Run[None]) -> None:
    """Every call of a protocol above TLS is made in the context its connection began with."""
    variable = contextvars.ContextVar("variable", default="none")
    seen: list[str] = []

    class Contextual(Echo):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            seen.append(variable.get())
            super().connection_made(transport)

        def data_received(self, data: bytes) -> None:
            seen.append(variable.get())
            super().data_received(data)

        def connection_lost(self, exc: Exception | None) -> None:
            seen.append(variable.get())
            super().connection_lost(exc)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        variable.set("server")
        async with listening(Contextual, ssl=server_context()) as (_, (host, port)):
            variable.set("client")
            transport, client = await loop.create_connection(
                Diary, host, port, ssl=client_context()
            )
            transport.write(b"data")
            await client.until_received(4)
            transport.close()
            await client.lost
        assert seen == ["server"] * 3

    run(main())
