"""Files into transports and sockets: exact, in order with what is written, and where they stop."""

import asyncio
import errno
import io
import os
import random
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pytest

from tests.aio.conftest import Run
from tests.aio.protocols import Diary, HalfOpen
from tests.aio.serving import listening
from tests.aio.waiting import passes, until
from uringio._driver import current
from uringio._sys.system import System

SIZE = 1_000_001
CONTENT = random.Random(1).randbytes(SIZE)
PARTS = [(0, None), (0, 1), (12_345, 70_000), (SIZE - 10, None), (SIZE - 10, 20), (SIZE, None)]


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a file of known bytes."""
    path = tmp_path_factory.mktemp("send") / "file"
    path.write_bytes(CONTENT)
    return path


@pytest.fixture
def file(path: Path) -> Iterator[IO[bytes]]:
    """Open it."""
    with path.open("rb") as file:
        yield file


@pytest.fixture(params=["sendfile", "cold"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each way for the bytes: handed on by the kernel, or by reads that wait."""
    way: str = request.param
    if way == "cold":
        monkeypatch.setattr(System, "holds_all", lambda *_: False)
        monkeypatch.setattr(System, "read_cached", lambda *_: -errno.EAGAIN)
    return way


class Listener(HalfOpen):
    """A server's side that is found again."""

    made_last: "Listener"

    def __init__(self) -> None:
        super().__init__()
        Listener.made_last = self


class Deaf(Listener):
    """Does not read until it is told to."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.transport.pause_reading()


def narrow(transport: asyncio.Transport) -> None:
    """Have the kernel take little at a time, so that a peer that does not read is soon noticed."""
    sock = transport.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)


async def ended(servant: Diary) -> bytes:
    """Wait for the peer's end, end as well, and return all that came."""
    while "eof" not in servant.calls:
        await servant.change()
    servant.transport.close()
    await servant.lost
    return bytes(servant.received)


@pytest.mark.usefixtures("way")
def test_parts_go_between_what_is_written(run: Run[None], file: IO[bytes]) -> None:
    """Each part arrives behind what was written before, and the file's position moves with it."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        async with listening(Listener) as (_, address):
            transport, client = await loop.create_connection(Diary, *address)
            expected = b""
            for offset, count in PARTS:
                transport.write(b"<")
                part = CONTENT[offset:] if count is None else CONTENT[offset : offset + count]
                file.seek(7)
                assert await loop.sendfile(transport, file, offset, count) == len(part)
                assert file.tell() == (offset + len(part) if part else 7)
                transport.write(b">")
                expected += b"<" + part + b">"
            assert transport.is_reading()
            transport.close()
            await client.lost
            assert await ended(Listener.made_last) == expected

    run(main())


@pytest.mark.usefixtures("way")
def test_parts_go_into_sockets(run: Run[None], file: IO[bytes]) -> None:
    """The same for sockets of the program's own, which stay non-blocking."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        near, far = socket.socketpair()
        with near, far:
            near.setblocking(False)
            far.setblocking(False)
            for offset, count in PARTS:
                part = CONTENT[offset:] if count is None else CONTENT[offset : offset + count]
                sending = asyncio.create_task(loop.sock_sendfile(near, file, offset, count))
                got = b""
                while len(got) < len(part):
                    got += await loop.sock_recv(far, 1 << 20)
                assert got == part
                assert await sending == len(part)
                assert not os.get_blocking(near.fileno())
            with pytest.raises(BlockingIOError):
                far.recv(1)

    run(main())


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("call", ["sendfile", "sock_sendfile"])
def test_a_peer_that_has_ended_and_takes_nothing(
    run: Run[None], file: IO[bytes], call: str
) -> None:
    """Such a peer is waited for asleep, and then gets all of it."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        near, far = socket.socketpair()
        near.setblocking(False)
        far.setblocking(False)
        far.shutdown(socket.SHUT_WR)
        with far:
            transport: asyncio.Transport | None = None
            if call == "sendfile":
                transport, _ = await loop.create_connection(HalfOpen, sock=near)
                sending = asyncio.create_task(loop.sendfile(transport, file))
            else:
                sending = asyncio.create_task(loop.sock_sendfile(near, file))
            await asyncio.sleep(0.01)
            turns = current.driver().statistics().turns
            await asyncio.sleep(0.02)
            assert current.driver().statistics().turns - turns < 10
            assert not sending.done()
            got = b""
            while len(got) < SIZE:
                got += await loop.sock_recv(far, 1 << 20)
            assert got == CONTENT
            assert await sending == SIZE
            if transport is None:
                near.close()
            else:
                transport.close()

    run(main())


def test_what_is_no_file_is_read_and_sent(run: Run[None]) -> None:
    """An object without a descriptor goes the long way, or is refused if that is forbidden."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        async with listening(Listener) as (_, address):
            transport, client = await loop.create_connection(Diary, *address)
            memory = io.BytesIO(CONTENT)
            with pytest.raises(asyncio.SendfileNotAvailableError, match="regular"):
                await loop.sendfile(transport, memory, fallback=False)
            assert await loop.sendfile(transport, memory, 10, 300_000) == 300_000
            assert memory.tell() == 300_010
            assert await loop.sendfile(transport, memory, SIZE - 5) == 5
            transport.close()
            await client.lost
            assert await ended(Listener.made_last) == CONTENT[10:300_010] + CONTENT[-5:]
        near, far = socket.socketpair()
        with near, far:
            near.setblocking(False)
            with pytest.raises(asyncio.SendfileNotAvailableError, match="regular"):
                await loop.sock_sendfile(near, memory, fallback=False)
            assert await loop.sock_sendfile(near, memory, 3, 5) == 5
            assert far.recv(10) == CONTENT[3:8]

    run(main())


def test_nobody_else_sends_meanwhile(run: Run[None], file: IO[bytes]) -> None:
    """Write and a second sendfile are refused; write_eof and close happen behind the file."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        async with listening(Deaf) as (_, address):
            for end in ("write_eof", "close"):
                transport, client = await loop.create_connection(Diary, *address)
                narrow(transport)
                transport.write(b"before")
                sending = asyncio.create_task(loop.sendfile(transport, file))
                await passes(5)
                for _ in range(2):
                    with pytest.raises(RuntimeError, match="sendfile is in progress"):
                        transport.write(b"between")
                    with pytest.raises(RuntimeError, match="sendfile is in progress"):
                        await loop.sendfile(transport, file)
                    transport.set_write_buffer_limits()
                getattr(transport, end)()
                await passes(5)
                assert not sending.done()
                assert not client.lost.done()
                servant = Deaf.made_last
                servant.transport.resume_reading()
                assert await sending == SIZE
                assert await ended(servant) == b"before" + CONTENT
                await client.lost

    run(main())


def test_a_cancelled_sendfile_leaves_the_transport_in_order(
    run: Run[None], file: IO[bytes]
) -> None:
    """What was sent is counted, and is where the file stands; what is written then comes behind."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        async with listening(Deaf) as (_, address):
            transport, client = await loop.create_connection(Diary, *address)
            transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
            for content in (file, io.BytesIO(CONTENT)):
                content.seek(0)
                sending = asyncio.create_task(loop.sendfile(transport, content, 5))
                await until(lambda: transport.get_write_buffer_size() == 0)
                await passes(20)
                sending.cancel()
                with pytest.raises(asyncio.CancelledError) as cancelled:
                    await sending
                done = getattr(cancelled.value, "done", 0)
                assert done < SIZE
                assert content.tell() == (5 + done if done else 0)
                transport.write(b"behind%d" % done)
            transport.close()
            Deaf.made_last.transport.resume_reading()
            received = await ended(Deaf.made_last)
            await client.lost
            first = received.index(b"behind")
            assert received.startswith(CONTENT[5 : 5 + first] + b"behind%d" % first)
            assert received.endswith(b"behind%d" % done)

    run(main())


def test_abort_ends_both(run: Run[None], file: IO[bytes]) -> None:
    """Aborting a transport that sends a file ends the sending with an error, before or behind."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        # Held by the test, for nothing else holds a connection that neither reads nor writes.
        servants: list[Deaf] = []

        def serve() -> Deaf:
            servants.append(Deaf())
            return servants[-1]

        async with listening(serve) as (server, address):
            for made, count in enumerate((0, 10_000_000), 1):  # it waits for the write, or for room
                transport, client = await loop.create_connection(Diary, *address)
                # Else abort_clients may be too early for it.
                await until(lambda made=made: len(servants) == made and servants[-1].calls)
                narrow(transport)
                transport.write(bytes(count))
                sending = asyncio.create_task(loop.sendfile(transport, file))
                await passes(10)
                transport.abort()
                with pytest.raises(ConnectionAbortedError, match="transport"):
                    await sending
                await client.lost
                assert client.calls[-1] == "lost"
            server.abort_clients()  # type: ignore[attr-defined]

    run(main())


def test_a_peer_that_goes_away(run: Run[None], file: IO[bytes]) -> None:
    """The sending fails with what the kernel says, and the transport ends with the same."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        async with listening(Deaf) as (_, address):
            transport, client = await loop.create_connection(Diary, *address)
            narrow(transport)
            sending = asyncio.create_task(loop.sendfile(transport, file))
            await passes(5)
            Deaf.made_last.transport.abort()
            with pytest.raises(ConnectionError):
                await sending
            assert transport.is_closing()
            await client.lost
            assert isinstance(client.error, ConnectionError)
            with pytest.raises(RuntimeError, match="closing"):
                await loop.sendfile(transport, file)
        near, far = socket.socketpair()
        with near:
            near.setblocking(False)
            far.close()
            with pytest.raises(BrokenPipeError):
                await loop.sock_sendfile(near, file)

    run(main())


def test_wrong_arguments(run: Run[None], file: IO[bytes], path: Path) -> None:
    """Modes, counts, offsets and transports that cannot be are refused, with nothing sent."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        async with listening(Listener) as (_, address):
            transport, client = await loop.create_connection(Diary, *address)
            with path.open() as text, pytest.raises(ValueError, match="binary"):
                await loop.sendfile(transport, text)  # type: ignore[arg-type]
            for offset, count in ((-1, None), (0, 0), (0, -1)):
                with pytest.raises(ValueError, match="must be"):
                    await loop.sendfile(transport, file, offset, count)
            with pytest.raises(TypeError, match="must be"):
                await loop.sendfile(transport, file, 0, "1")  # type: ignore[arg-type]
            transport.write_eof()
            with pytest.raises(RuntimeError, match="write_eof"):
                await loop.sendfile(transport, file)
            transport.close()
            await client.lost
            assert await ended(Listener.made_last) == b""
            endpoint, _ = await loop.create_datagram_endpoint(
                asyncio.DatagramProtocol, ("127.0.0.1", 0)
            )
            with pytest.raises(RuntimeError, match="not supported"):
                await loop.sendfile(endpoint, file)  # type: ignore[arg-type]
            endpoint.close()

    run(main())
