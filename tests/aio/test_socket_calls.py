"""Operations on the program's own socket objects: what they give, refuse, and leave behind."""

import asyncio
import os
import socket
import ssl
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.aio.conftest import Run
from tests.aio.protocols import Diary
from tests.aio.serving import LARGE, listening
from tests.aio.waiting import passes
from uringio._driver import current


@contextmanager
def connected(kind: int = socket.SOCK_STREAM) -> Iterator[tuple[socket.socket, socket.socket]]:
    """Two ends of a connection, non-blocking."""
    near, far = socket.socketpair(socket.AF_UNIX, kind)
    with near, far:
        near.setblocking(False)
        far.setblocking(False)
        yield near, far


def test_a_conversation_over_tcp(run: Run[None]) -> None:
    """Accept, connect by name, send and receive 16 MiB, the end; every socket non-blocking."""

    async def serve(listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        sock, _ = await loop.sock_accept(listener)
        with sock:
            assert sock.gettimeout() == 0
            assert not sock.get_inheritable()
            received = bytearray(len(LARGE))
            rest = memoryview(received)
            while rest:
                rest = rest[await loop.sock_recv_into(sock, rest) :]
            assert received == LARGE
            await loop.sock_sendall(sock, memoryview(LARGE).cast("I"))

    async def main() -> None:
        loop = asyncio.get_running_loop()
        with socket.create_server(("127.0.0.1", 0)) as listener, socket.socket() as client:
            listener.setblocking(False)
            client.setblocking(False)
            servant = asyncio.create_task(serve(listener))
            await loop.sock_connect(client, ("localhost", listener.getsockname()[1]))
            await loop.sock_sendall(client, LARGE)
            pieces = []
            while piece := await loop.sock_recv(client, 1 << 20):
                pieces.append(piece)
            assert b"".join(pieces) == LARGE
            await servant

    run(main())


def test_datagrams(run: Run[None]) -> None:
    """Datagrams come whole, cut to what was asked for, and with their sender's address."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        with (
            socket.socket(type=socket.SOCK_DGRAM) as near,
            socket.socket(type=socket.SOCK_DGRAM) as far,
        ):
            for sock in (near, far):
                sock.setblocking(False)
                sock.bind(("127.0.0.1", 0))
            receiving = asyncio.create_task(loop.sock_recvfrom(near, 3))
            await passes(2)
            assert await loop.sock_sendto(far, b"abcdef", near.getsockname()) == 6
            assert await receiving == (b"abc", far.getsockname())
            buffer = bytearray(b"......")
            for nbytes, expected in ((0, b"ghijkl"), (2, b"mnijkl")):
                filling = asyncio.create_task(loop.sock_recvfrom_into(near, buffer, nbytes))
                await passes(2)
                data = expected[: nbytes or None]
                await loop.sock_sendto(far, data, near.getsockname())
                assert await filling == (len(data), far.getsockname())
                assert buffer == expected
            with pytest.raises(ValueError):
                await loop.sock_recvfrom_into(near, buffer, 7)

    run(main())


def test_a_datagram_that_must_wait(run: Run[None]) -> None:
    """A datagram whose receiver's queue is full is sent once there is room, and once."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        with connected(socket.SOCK_DGRAM) as (near, far):
            count = 0
            with pytest.raises(BlockingIOError):
                while True:
                    near.send(b"filler")
                    count += 1
            sending = asyncio.create_task(loop.sock_sendall(near, b"last"))
            await passes(5)
            assert not sending.done()
            got = [await loop.sock_recv(far, 100) for _ in range(count + 1)]
            await sending
            assert got == [b"filler"] * count + [b"last"]
            with pytest.raises(BlockingIOError):
                far.recv(1)

    run(main())


def test_cancelled_receives_lose_nothing(run: Run[None]) -> None:
    """
    Whether it is cancelled before or after the bytes came, a receive or accept that is cancelled
    has taken nothing: the next one gets all.
    """

    async def main() -> None:
        loop = asyncio.get_running_loop()
        with connected() as (near, far):
            for sent_first in (False, True):
                buffer = bytearray(10)
                for call in (loop.sock_recv(near, 10), loop.sock_recv_into(near, buffer)):
                    task = asyncio.create_task(call)
                    await passes(3)
                    if sent_first:
                        far.send(b"data")
                    task.cancel()
                    if not sent_first:
                        far.send(b"data")
                    with pytest.raises(asyncio.CancelledError):
                        await task
                    assert buffer == bytes(10)
                    assert await loop.sock_recv(near, 10) == b"data"
        with socket.create_server(("127.0.0.1", 0)) as listener:
            listener.setblocking(False)
            accepting = asyncio.create_task(loop.sock_accept(listener))
            await passes(3)
            with socket.create_connection(listener.getsockname()) as client:
                accepting.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await accepting
                sock, address = await loop.sock_accept(listener)
                assert address == client.getsockname()
                sock.close()

    run(main())


def test_a_cancelled_send_tells_how_far_it_came(run: Run[None]) -> None:
    """The exception of a cancelled sock_sendall counts the bytes that the peer then gets."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        with connected() as (near, far):
            sending = asyncio.create_task(loop.sock_sendall(near, LARGE))
            await passes(3)
            sending.cancel()
            with pytest.raises(asyncio.CancelledError) as cancelled:
                await sending
            near.close()
            got = 0
            while piece := await loop.sock_recv(far, 1 << 20):
                got += len(piece)
            assert 0 < got < len(LARGE)
            assert got == cancelled.value.done  # type: ignore[attr-defined]

    run(main())


def test_connecting_that_fails(run: Run[None]) -> None:
    """A refusal raises what connect(2) would, over TCP and to a Unix path."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        with socket.socket() as bound, socket.socket() as client:
            bound.bind(("127.0.0.1", 0))
            client.setblocking(False)
            with pytest.raises(ConnectionRefusedError, match="connect"):
                await loop.sock_connect(client, bound.getsockname())
        with socket.socket(socket.AF_UNIX) as client:
            client.setblocking(False)
            with pytest.raises(FileNotFoundError):
                await loop.sock_connect(client, "/nonexistent/socket")

    run(main())


def test_a_full_unix_listener_is_waited_for(run: Run[None]) -> None:
    """Connecting to a Unix listener whose queue is full ends when somebody is accepted."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        with (
            tempfile.TemporaryDirectory() as folder,
            socket.socket(socket.AF_UNIX) as listener,
            socket.socket(socket.AF_UNIX) as first,
            socket.socket(socket.AF_UNIX) as second,
        ):
            path = os.path.join(folder, "s")
            listener.bind(path)
            listener.listen(0)
            for sock in (listener, first, second):
                sock.setblocking(False)
            await loop.sock_connect(first, path)
            connecting = asyncio.create_task(loop.sock_connect(second, path))
            await passes(5)
            assert not connecting.done()
            accepted = [(await loop.sock_accept(listener))[0]]
            await connecting
            accepted.append((await loop.sock_accept(listener))[0])
            await loop.sock_sendall(accepted[1], b"hello")
            assert await loop.sock_recv(second, 10) == b"hello"
            for sock in accepted:
                sock.close()

    run(main())


def test_sockets_that_are_refused(run: Run[None]) -> None:
    """
    TLS sockets, those that a transport or server uses, closed ones, and blocking ones in debug
    mode.
    """

    async def main() -> None:
        loop = asyncio.get_running_loop()

        def calls(sock: socket.socket) -> list[object]:
            return [
                loop.sock_recv(sock, 1),
                loop.sock_recv_into(sock, bytearray(1)),
                loop.sock_recvfrom(sock, 1),
                loop.sock_recvfrom_into(sock, bytearray(1)),
                loop.sock_sendall(sock, b"x"),
                loop.sock_sendto(sock, b"x", ("127.0.0.1", 9)),
                loop.sock_connect(sock, ("127.0.0.1", 9)),
                loop.sock_accept(sock),
            ]

        async def all_raise(sock: socket.socket, error: type[Exception], match: str) -> None:
            for call in calls(sock):
                with pytest.raises(error, match=match):
                    await call  # type: ignore[misc]

        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        with context.wrap_socket(socket.socket(), server_hostname="x") as wrapped:
            await all_raise(wrapped, TypeError, "SSLSocket")
        with socket.socket() as blocking:
            loop.set_debug(True)
            await all_raise(blocking, ValueError, "non-blocking")
            loop.set_debug(False)
        async with listening(Diary) as (_, address):
            sock = socket.create_connection(address)
            transport, client = await loop.create_connection(Diary, sock=sock)
            await all_raise(sock, RuntimeError, "used by transport")
            transport.close()
            await client.lost
        with pytest.raises(OSError, match="Bad file descriptor"):
            await loop.sock_recv(sock, 1)
        listener = socket.create_server(("127.0.0.1", 0))
        server = await loop.create_server(Diary, sock=listener)
        with pytest.raises(RuntimeError, match="used by a server"):
            await loop.sock_accept(listener)
        server.close()
        await server.wait_closed()

    run(main())


def test_a_peer_that_has_ended_and_takes_nothing_costs_no_spinning(run: Run[None]) -> None:
    """While a sock_sendall waits for such a peer the loop sleeps."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        with connected() as (near, far):
            far.shutdown(socket.SHUT_WR)
            sending = asyncio.create_task(loop.sock_sendall(near, LARGE))
            await asyncio.sleep(0.02)
            turns = current.driver().statistics().turns
            await asyncio.sleep(0.05)
            assert current.driver().statistics().turns - turns < 10
            got = b""
            while len(got) < len(LARGE):
                got += await loop.sock_recv(far, 1 << 20)
            assert got == LARGE
            await sending

    run(main())
