"""Transports: the conversation between a connection and its protocol."""

import asyncio
import contextvars
import errno
import socket
import struct
from collections.abc import Callable
from typing import Any, cast

import pytest

from tests.aio.conftest import Run
from tests.aio.protocols import Buffered, Diary, Echo, HalfOpen
from tests.aio.serving import LARGE, listening
from tests.aio.waiting import passes, until


def test_echo_and_the_order_of_calls(run: Run[None]) -> None:
    """
    connection_made, data_received, eof_received, connection_lost(None), each once and in order.
    """

    async def main() -> None:
        loop = asyncio.get_running_loop()
        servants: list[Echo] = []

        def factory() -> Echo:
            servants.append(Echo())
            return servants[-1]

        async with listening(factory) as (_, address):
            transport, client = await loop.create_connection(Diary, *address)
            assert client.calls == ["made"]
            transport.write(b"one")
            assert await client.until_received(3) == b"one"
            transport.close()
            assert transport.is_closing()
            await client.lost
            await servants[0].lost
        assert client.calls == ["made", "data", "lost"]
        assert servants[0].calls == ["made", "data", "eof", "lost"]
        assert client.error is None
        assert servants[0].error is None

    run(main())


def test_writes_keep_their_order_and_are_joined(run: Run[None]) -> None:
    """Many small writes in one pass arrive complete and in order, of every bytes-like type."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        async with listening(Echo) as (_, address):
            transport, client = await loop.create_connection(Diary, *address)
            expected = b""
            for number in range(1000):
                piece = struct.pack("!I", number)
                kind = (bytes, bytearray, memoryview)[number % 3]
                transport.write(kind(piece))
                expected += piece
            transport.writelines([b"a", bytearray(b"b"), memoryview(b"c")])
            expected += b"abc"
            assert await client.until_received(len(expected)) == expected
            transport.close()
            await client.lost

    run(main())


def test_bytearray_may_change_after_write(run: Run[None]) -> None:
    """What was written is what was in the bytearray at that moment."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        async with listening(Echo) as (_, address):
            transport, client = await loop.create_connection(Diary, *address)
            data = bytearray(b"before")
            transport.write(data)
            data[:] = b"after!"
            data.extend(b"and resized")
            assert await client.until_received(6) == b"before"
            transport.close()
            await client.lost

    run(main())


def test_large_transfer_is_exact(run: Run[None]) -> None:
    """16 MiB in one write come back byte for byte through an echo with flow control."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        async with listening(Echo) as (_, address):
            transport, client = await loop.create_connection(Diary, *address)
            transport.write(LARGE)
            assert await client.until_received(len(LARGE)) == LARGE
            transport.close()
            await client.lost
        assert client.calls.count("pause") == client.calls.count("resume") == 1

    run(main())


def test_wrong_data_is_refused(run: Run[None]) -> None:
    """Write refuses what is not bytes, and takes nothing for nothing."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        async with listening(Echo) as (_, address):
            transport, client = await loop.create_connection(Diary, *address)
            with pytest.raises(TypeError, match="str"):
                transport.write("text")  # type: ignore[arg-type]
            transport.write(b"")
            assert transport.get_write_buffer_size() == 0
            transport.close()
            await client.lost

    run(main())


def test_flow_control_with_a_slow_reader(run: Run[None]) -> None:
    """
    A peer that does not read makes the protocol pause above the high limit, and go on below the low
    one once it reads; nothing is lost.
    """

    async def main() -> None:
        loop = asyncio.get_running_loop()
        readers: list[Diary] = []

        class SlowReader(Diary):
            def connection_made(self, transport: asyncio.BaseTransport) -> None:
                super().connection_made(transport)
                self.transport.pause_reading()
                readers.append(self)

        class Writer(Diary):
            def __init__(self) -> None:
                super().__init__()
                self.paused = False

            def pause_writing(self) -> None:
                super().pause_writing()
                self.paused = True
                assert self.transport.get_write_buffer_size() > 100_000

            def resume_writing(self) -> None:
                super().resume_writing()
                self.paused = False
                assert self.transport.get_write_buffer_size() <= 10_000

        async with listening(SlowReader) as (_, address):
            transport, client = await loop.create_connection(Writer, *address)
            await until(lambda: readers)
            transport.set_write_buffer_limits(high=100_000, low=10_000)
            assert transport.get_write_buffer_limits() == (10_000, 100_000)
            sent = 0
            while True:
                transport.write(bytes([sent // 50_000 % 256]) * 50_000)
                sent += 50_000
                await asyncio.sleep(0)
                if client.paused:
                    await passes(20)  # the kernel may take more by and by
                    if client.paused:
                        break
            assert transport.get_write_buffer_size() > 10_000
            assert readers[0].calls == ["made"]
            assert not readers[0].transport.is_reading()
            readers[0].transport.resume_reading()
            received = await readers[0].until_received(sent)
            assert received == b"".join(bytes([n % 256]) * 50_000 for n in range(sent // 50_000))
            while client.paused:
                await client.change()
            transport.close()
            await client.lost
            await readers[0].lost

    run(main())


def test_write_buffer_limits_are_checked(run: Run[None]) -> None:
    """Limits follow one another as asyncio's do, and contradictions are refused."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        async with listening(Diary) as (_, address):
            transport, client = await loop.create_connection(Diary, *address)
            assert transport.get_write_buffer_limits() == (16384, 65536)
            transport.set_write_buffer_limits(high=1000)
            assert transport.get_write_buffer_limits() == (250, 1000)
            transport.set_write_buffer_limits(low=1000)
            assert transport.get_write_buffer_limits() == (1000, 4000)
            transport.set_write_buffer_limits()
            assert transport.get_write_buffer_limits() == (16384, 65536)
            with pytest.raises(ValueError, match="low"):
                transport.set_write_buffer_limits(high=1, low=2)
            with pytest.raises(ValueError, match="low"):
                transport.set_write_buffer_limits(high=-1)
            transport.close()
            await client.lost

    run(main())


def test_writing_while_resumed(run: Run[None]) -> None:
    """A protocol that writes inside of resume_writing keeps the order of its bytes."""

    async def main() -> None:
        loop = asyncio.get_running_loop()

        class Refiller(Diary):
            def resume_writing(self) -> None:
                super().resume_writing()
                self.transport.write(b"<after>")

        async with listening(Echo) as (_, address):
            transport, client = await loop.create_connection(Refiller, *address)
            transport.set_write_buffer_limits(high=10, low=10)
            # What finds room is sent on the spot, and nobody pauses for it.
            transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
            expected = b""
            while "pause" not in client.calls:
                piece = bytes([len(expected) // 100_000 % 256]) * 100_000
                transport.write(piece)
                expected += piece
            expected += b"<after>"
            assert await client.until_received(len(expected)) == expected
            transport.close()
            await client.lost

    run(main())


def test_a_protocol_that_takes_no_data(
    loop: asyncio.AbstractEventLoop,
) -> None:
    """Data for a protocol without ``data_received`` ends the connection and is told, as there."""

    class Speechless(asyncio.BaseProtocol):
        lost: asyncio.Future[BaseException | None]

        def connection_lost(self, exc: BaseException | None) -> None:
            self.lost.set_result(exc)

    async def main() -> None:
        loop.set_exception_handler(lambda _, context: told.append(context))
        near, far = socket.socketpair()
        with far:
            _, protocol = await loop.create_connection(Speechless, sock=near)
            protocol.lost = loop.create_future()
            far.send(b"unheard")
            assert isinstance(await protocol.lost, AttributeError)

    told: list[dict[str, Any]] = []
    loop.run_until_complete(main())
    (context,) = told
    assert context["message"] == "Fatal error: protocol.data_received() call failed."


def test_an_accepted_connection_keeps_its_names(run: Run[None]) -> None:
    """Both names of an accepted connection, though nobody has asked before."""

    async def main() -> None:
        made: list[Diary] = []

        def make() -> Diary:
            made.append(Diary())
            return made[0]

        async with listening(make) as (_, address):
            with socket.create_connection(address) as peer:
                name = peer.getsockname()
            await until(lambda: made)
            await made[0].lost
        assert made[0].transport.get_extra_info("sockname") == address
        assert made[0].transport.get_extra_info("peername") == name

    run(main())


def test_pause_holds_what_arrives(run: Run[None]) -> None:
    """Paused, nothing is delivered; resumed, what came meanwhile is, in order and complete."""

    async def main() -> None:
        readers: list[Diary] = []

        class Pauser(Diary):
            def connection_made(self, transport: asyncio.BaseTransport) -> None:
                super().connection_made(transport)
                readers.append(self)

            def data_received(self, data: bytes) -> None:
                super().data_received(data)
                self.transport.pause_reading()

        async with listening(Pauser) as (_, address):
            with socket.create_connection(address) as peer:
                expected = b""
                for number in range(50):
                    peer.sendall(b"%d," % number)
                    expected += b"%d," % number
                    await until(lambda: not (not readers or readers[0].received != expected))
                    # The pause came with that delivery: what comes now waits for the resumption.
                    peer.sendall(b"held,")
                    await passes(3)
                    assert readers[0].received == expected
                    expected += b"held,"
                    readers[0].transport.resume_reading()
                    readers[0].transport.resume_reading()
                    assert await readers[0].until_received(len(expected)) == expected
                    readers[0].transport.resume_reading()
            await readers[0].lost

    run(main())


def test_large_pieces_and_small_ones(run: Run[None]) -> None:
    """
    Large pieces are waited for in another way than small ones: in turns all of them come, in order,
    paused or not, and so does the end.
    """

    async def main() -> None:
        readers: list[Diary] = []

        class Reader(Diary):
            def connection_made(self, transport: asyncio.BaseTransport) -> None:
                super().connection_made(transport)
                readers.append(self)

        async with listening(Reader) as (_, address):
            with socket.create_connection(address) as peer:
                await until(lambda: readers)
                reader = readers[0]
                expected = b""
                for number, size in enumerate([60_000, 50_000, 3, 2, 40_000, 70_000, 1, 65_536]):
                    piece = bytes([number]) * size
                    peer.sendall(piece)
                    expected += piece
                    assert await reader.until_received(len(expected)) == expected
                    reader.transport.pause_reading()
                    peer.sendall(piece)
                    await passes(3)
                    assert reader.received == expected
                    expected += piece
                    reader.transport.resume_reading()
                    assert await reader.until_received(len(expected)) == expected
            await reader.lost
            assert reader.calls[-2:] == ["eof", "lost"]
            assert reader.error is None

    run(main())


def test_pause_and_resume_within_one_delivery(run: Run[None]) -> None:
    """Pausing and resuming inside of data_received changes nothing."""

    async def main() -> None:
        loop = asyncio.get_running_loop()

        class Fickle(Echo):
            def data_received(self, data: bytes) -> None:
                self.transport.pause_reading()
                self.transport.resume_reading()
                super().data_received(data)

        async with listening(Fickle) as (_, address):
            transport, client = await loop.create_connection(Diary, *address)
            for number in range(1, 50):
                transport.write(b"x")
                await client.until_received(number)
            transport.close()
            await client.lost

    run(main())


@pytest.mark.parametrize("size", [1, 7, 1024, 1 << 20])
def test_buffered_protocol(run: Run[None], size: int) -> None:
    """A BufferedProtocol gets every byte through whatever buffer it offers."""
    data = bytes(range(256)) * (4 if size < 1024 else 1000)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        async with listening(Echo) as (_, address):
            transport, client = await loop.create_connection(lambda: Buffered(size), *address)
            transport.write(data)
            await until(lambda: sum(map(len, client.pieces)) >= len(data))
            assert b"".join(client.pieces) == data
            assert max(map(len, client.pieces)) <= size
            transport.close()
            await client.lost

    run(main())


def test_buffered_protocol_without_room_is_fatal(
    make_loop: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    """An empty buffer is the protocol's mistake: reported, and the connection ends."""
    reports: list[str] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: reports.append(context["message"]))
        async with listening(Echo) as (_, address):
            transport, client = await loop.create_connection(lambda: Buffered(0), *address)
            transport.write(b"data")
            await client.lost

    with asyncio.Runner(loop_factory=make_loop) as runner:
        runner.run(main())
    assert len(reports) == 1
    assert "get_buffer" in reports[0]


def test_buffered_protocol_pauses_within_a_piece(run: Run[None]) -> None:
    """What is left of a delivery when a BufferedProtocol pauses waits for the resumption."""

    class Pauser(Buffered):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            self.transport = cast("asyncio.Transport", transport)

        def buffer_updated(self, nbytes: int) -> None:
            super().buffer_updated(nbytes)
            self.transport.pause_reading()

    async def main() -> None:
        loop = asyncio.get_running_loop()
        async with listening(Echo) as (_, address):
            transport, client = await loop.create_connection(lambda: Pauser(3), *address)
            transport.write(b"0123456789")
            for count in range(1, 5):
                await until(lambda: len(client.pieces) == count)
                await passes(3)
                assert len(client.pieces) == count
                transport.resume_reading()
            assert client.pieces == [b"012", b"345", b"678", b"9"]
            transport.close()
            await client.lost

    run(main())


def test_protocol_is_exchanged_in_flight(run: Run[None]) -> None:
    """set_protocol takes effect with the next delivery, also out of a delivery."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        second: list[Diary] = []

        class Upgrader(Diary):
            def data_received(self, data: bytes) -> None:
                super().data_received(data)
                second.append(Diary())
                second[0].transport = self.transport
                self.transport.set_protocol(second[0])
                assert self.transport.get_protocol() is second[0]
                self.transport.write(b"ready")

        async with listening(Upgrader) as (_, address):
            transport, client = await loop.create_connection(Diary, *address)
            transport.write(b"upgrade")
            await client.until_received(5)
            transport.write(b"more")
            while not second[0].received:
                await second[0].change()
            assert second[0].received == b"more"
            transport.close()
            await client.lost
            await second[0].lost
        assert second[0].calls == ["data", "eof", "lost"]

    run(main())


def test_write_eof_ends_one_half(run: Run[None]) -> None:
    """After write_eof the peer sees the end behind all data, and can still answer."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        servants: list[HalfOpen] = []

        def factory() -> HalfOpen:
            servants.append(HalfOpen())
            return servants[-1]

        async with listening(factory) as (_, address):
            transport, client = await loop.create_connection(Diary, *address)
            assert transport.can_write_eof()
            transport.write(LARGE)
            transport.write_eof()
            transport.write_eof()
            with pytest.raises(RuntimeError, match=r"write\(\) after write_eof"):
                transport.write(b"late")
            with pytest.raises(RuntimeError, match=r"writelines\(\) after write_eof"):
                transport.writelines([])
            await until(lambda: servants)
            while "eof" not in servants[0].calls:
                await servants[0].change()
            assert servants[0].received == LARGE
            servants[0].transport.write(b"answer")
            servants[0].transport.close()
            await client.lost
            assert client.received == b"answer"
            assert client.calls[-2:] == ["eof", "lost"]

    run(main())


def test_close_sends_what_was_written(run: Run[None]) -> None:
    """
    Close right after a large write loses nothing; what is written while that is sent is sent as
    well, as asyncio does, and what is written after the end is dropped.
    """

    async def main() -> None:
        loop = asyncio.get_running_loop()
        servants: list[Diary] = []

        def factory() -> Diary:
            servants.append(Diary())
            return servants[-1]

        async with listening(factory) as (_, address):
            transport, client = await loop.create_connection(Diary, *address)
            transport.write(LARGE)
            transport.write(b"end")
            transport.close()
            transport.close()
            transport.write(b", late")
            transport.write_eof()
            assert client.calls.count("lost") == 0
            await client.lost
            transport.write(b"dropped")
            await until(lambda: servants)
            while "eof" not in servants[0].calls:
                await servants[0].change()
            assert servants[0].received == LARGE + b"end, late"
            await servants[0].lost

    run(main())


def test_abort_loses_what_was_not_sent(run: Run[None]) -> None:
    """Abort ends at once, although a slow peer has not taken what was written."""

    async def main() -> None:
        loop = asyncio.get_running_loop()

        servants: list[Diary] = []  # held, since nothing else holds what neither reads nor writes

        class Deaf(Diary):
            def connection_made(self, transport: asyncio.BaseTransport) -> None:
                super().connection_made(transport)
                self.transport.pause_reading()
                servants.append(self)

        async with listening(Deaf) as (server, address):
            transport, client = await loop.create_connection(Diary, *address)
            await until(lambda: servants)  # else abort_clients may be too early for it
            transport.write(LARGE)
            await asyncio.sleep(0)
            transport.abort()
            transport.abort()
            transport.close()
            assert transport.get_write_buffer_size() <= len(LARGE)
            await client.lost
            assert client.error is None
            server.abort_clients()

    run(main())


def test_what_was_written_before_an_abort_is_sent(run: Run[None]) -> None:
    """What there is room for is sent, though an abort or a failing protocol follows at once."""

    class Failing(Diary):
        def data_received(self, data: bytes) -> None:
            self.transport.write(b"sorry")
            raise ConnectionError("of no interest to the exception handler")

    async def main() -> None:
        loop = asyncio.get_running_loop()
        near, far = socket.socketpair()
        far.setblocking(False)
        with far:
            transport, client = await loop.create_connection(Diary, sock=near)
            transport.write(b"last words")
            transport.abort()
            assert await loop.sock_recv(far, 100) == b"last words"
            assert await loop.sock_recv(far, 100) == b""
            await client.lost
        near, far = socket.socketpair()
        far.setblocking(False)
        with far:
            _, failing = await loop.create_connection(Failing, sock=near)
            far.send(b"x")
            assert await loop.sock_recv(far, 100) == b"sorry"
            assert await loop.sock_recv(far, 100) == b""
            await failing.lost

    run(main())


def test_reset_is_reported_as_the_error(run: Run[None]) -> None:
    """A connection that the peer resets ends with connection_lost(ConnectionResetError)."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        servants: list[Diary] = []

        def factory() -> Diary:
            servants.append(Diary())
            return servants[-1]

        async with listening(factory) as (_, address):
            peer = socket.create_connection(address)
            await until(lambda: servants)
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            peer.close()
            await servants[0].lost
            assert isinstance(servants[0].error, ConnectionResetError)
            assert servants[0].error.errno == errno.ECONNRESET
        del loop

    run(main())


def test_writing_to_a_peer_that_is_gone(run: Run[None]) -> None:
    """Writing on and on into a connection that the peer closed ends it, with the error."""

    async def main() -> None:
        servants: list[HalfOpen] = []

        def factory() -> HalfOpen:
            servants.append(HalfOpen())
            return servants[-1]

        async with listening(factory) as (_, address):
            socket.create_connection(address).close()
            await until(lambda: servants)
            servant = servants[0]
            while "eof" not in servant.calls:
                await servant.change()
            while not servant.lost.done():
                servant.transport.write(b"is anybody there?")
                await asyncio.sleep(0)
            assert isinstance(servant.error, BrokenPipeError | ConnectionResetError)
            servant.transport.write(b"dropped")

    run(main())


def test_sockets_that_the_program_brings_send_at_once(run: Run[None]) -> None:
    """A listener given as a socket accepts with TCP_NODELAY, and a client's socket gets it too."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        servants: list[Diary] = []

        def factory() -> Diary:
            servants.append(Diary())
            return servants[-1]

        with socket.create_server(("127.0.0.1", 0)) as listener:  # its protocol's number is 0
            server = await loop.create_server(factory, sock=listener)
            client = socket.create_connection(listener.getsockname())
            transport, protocol = await loop.create_connection(Diary, sock=client)
            await until(lambda: servants)
            accepted = servants[0].transport.get_extra_info("socket")
            for sock in (client, accepted):
                assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
            transport.close()
            await protocol.lost
            server.close()
            await server.wait_closed()

    run(main())


def test_extra_info(run: Run[None]) -> None:
    """socket, sockname and peername tell what they should on both sides, also after the end."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        servants: list[Diary] = []

        def factory() -> Diary:
            servants.append(Diary())
            return servants[-1]

        async with listening(factory) as (_, address):
            transport, client = await loop.create_connection(Diary, *address)
            await until(lambda: servants)
            servant = servants[0].transport
            sock = transport.get_extra_info("socket")
            assert sock.type == socket.SOCK_STREAM
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
            accepted = servant.get_extra_info("socket")
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
            assert transport.get_extra_info("peername") == address
            assert servant.get_extra_info("sockname") == address
            assert transport.get_extra_info("sockname") == servant.get_extra_info("peername")
            assert transport.get_extra_info("sockname") == sock.getsockname()
            assert transport.get_extra_info("nonsense", 5) == 5
            assert not sock.get_inheritable()
            assert not accepted.get_inheritable()
            transport.close()
            await client.lost
            assert transport.get_extra_info("peername") == address
            assert servant.get_extra_info("cipher") is None

    run(main())


def test_names_are_known_behind_the_end(run: Run[None]) -> None:
    """Who first asks when the connection was reset and is over still hears who the peer was."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        servants: list[Diary] = []

        def factory() -> Diary:
            servants.append(Diary())
            return servants[-1]

        async with listening(factory) as (_, address):
            with socket.create_connection(address) as sock:
                name = sock.getsockname()
                await until(lambda: servants)
            await servants[0].lost
            await passes(2)
            assert servants[0].transport.get_extra_info("peername") == name
            assert servants[0].transport.get_extra_info("socket") is None
        with socket.create_server(("127.0.0.1", 0)) as listener:
            transport, client = await loop.create_connection(Diary, *listener.getsockname())
            sock, name = listener.accept()
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            sock.close()
            await client.lost
            await passes(2)
            assert transport.get_extra_info("peername") == listener.getsockname()
            assert transport.get_extra_info("sockname") == name
            assert transport.get_extra_info("socket") is None

    run(main())


def test_context_of_a_connection(run: Run[None]) -> None:
    """
    A server's protocols run in copies of the context in which it was made; what one connection
    sets, it sees again, and no other does.
    """
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="none")

    async def main() -> None:
        loop = asyncio.get_running_loop()
        seen: list[list[str]] = []

        class Contextual(Diary):
            def connection_made(self, transport: asyncio.BaseTransport) -> None:
                super().connection_made(transport)
                self.seen = [variable.get()]
                seen.append(self.seen)

            def data_received(self, data: bytes) -> None:
                self.seen.append(variable.get())
                variable.set(data.decode())

            def connection_lost(self, exc: Exception | None) -> None:
                self.seen.append(variable.get())
                super().connection_lost(exc)

        variable.set("server")
        async with listening(Contextual) as (_, address):
            variable.set("later")
            for number in (0, 1):
                with socket.create_connection(address) as peer:
                    peer.sendall(b"first")
                    await until(lambda: not (len(seen) <= number or len(seen[number]) < 2))
                    peer.sendall(b"second")
                    await until(lambda: len(seen[number]) >= 3)
                await until(lambda: len(seen[number]) >= 4)
        assert seen == [["server", "server", "first", "second"]] * 2
        del loop

    run(main())


def test_buffered_protocol_may_resize_its_buffer(run: Run[None]) -> None:
    """Nothing holds the buffer while buffer_updated runs; it may be of any kind, and writable."""

    async def main() -> None:
        loop = asyncio.get_running_loop()

        class Growing(asyncio.BufferedProtocol):
            def __init__(self) -> None:
                self.buffer = bytearray(1)
                self.received = b""

            def get_buffer(self, sizehint: int) -> memoryview | bytearray:
                assert sizehint > 0
                return self.buffer

            def buffer_updated(self, nbytes: int) -> None:
                self.received += self.buffer[:nbytes]
                self.buffer.extend(b"more")

        async with listening(Echo) as (_, address):
            transport, client = await loop.create_connection(Growing, *address)
            transport.write(LARGE[:1000])
            await until(lambda: len(client.received) == 1000)
            assert client.received == LARGE[:1000]
            transport.close()

    run(main())
