"""Ways to a transport: sockets of the program's own, Unix sockets, refusals, arguments."""

import asyncio
import errno
import gc
import socket
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.aio.conftest import Run
from tests.aio.protocols import Diary, Echo
from tests.aio.serving import LARGE, listening
from tests.aio.waiting import passes
from tests.surface.pairs import deserted


def test_socket_objects_of_the_program(run: Run[None]) -> None:
    """Connected, accepted and listening socket objects are taken over, and closed in the end."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        ours, theirs = socket.socketpair()
        transport, protocol = await loop.create_connection(Diary, sock=ours)
        assert ours.gettimeout() == 0
        theirs.sendall(b"hello")
        assert await protocol.until_received(5) == b"hello"
        assert transport.get_extra_info("socket").fileno() == ours.fileno()
        transport.close()
        await protocol.lost
        assert ours.fileno() == -1
        theirs.close()

        ours, theirs = socket.socketpair()
        transport, accepted = await loop.connect_accepted_socket(Echo, ours)
        theirs.sendall(b"hello")
        await accepted.until_received(5)
        theirs.close()
        await accepted.lost
        assert ours.fileno() == -1

        listener = socket.create_server(("127.0.0.1", 0))
        address = listener.getsockname()
        server = await loop.create_server(Echo, sock=listener)
        transport, protocol = await loop.create_connection(Diary, *address)
        transport.write(b"x")
        await protocol.until_received(1)
        transport.close()
        await protocol.lost
        server.close()
        await server.wait_closed()
        assert listener.fileno() == -1

        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams:
            with pytest.raises(ValueError, match="Stream"):
                await loop.create_connection(Diary, sock=datagrams)
            with pytest.raises(ValueError, match="Stream"):
                await loop.create_server(Diary, sock=datagrams)

    run(main())


def test_unix_sockets(run: Run[None], tmp_path: Path) -> None:
    """Servers and connections over Unix sockets, by path and abstract; cleaned up if asked to."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        path = tmp_path / "socket"
        for where in (path, str(path), f"\0uringio-test-{id(loop)}"):
            server = await loop.create_unix_server(
                Echo,
                where,
                cleanup_socket=where != path,  # type: ignore[call-arg]  # since 3.13
            )
            transport, client = await loop.create_unix_connection(
                Diary,
                where,  # type: ignore[arg-type]  # as asyncio does at run time
            )
            transport.write(LARGE)
            assert await client.until_received(len(LARGE)) == LARGE
            assert transport.get_extra_info("sockname") == ""
            transport.close()
            await client.lost
            server.close()
            await server.wait_closed()
            assert path.exists() is (where == path)

    run(main())


def test_unix_server_and_what_stands_at_its_path(run: Run[None], tmp_path: Path) -> None:
    """A stale socket is replaced, a living server's and any other file are not."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        path = tmp_path / "socket"
        with socket.socket(socket.AF_UNIX) as stale:
            stale.bind(str(path))
        server = await loop.create_unix_server(Echo, path)
        with pytest.raises(OSError, match=r"(?i)in use") as caught:
            await loop.create_unix_server(Echo, path)
        assert caught.value.errno == errno.EADDRINUSE
        server.close()
        await server.wait_closed()
        path.unlink(missing_ok=True)
        path.write_text("not a socket")
        with pytest.raises(OSError, match=r"(?i)in use"):
            await loop.create_unix_server(Echo, path)
        assert path.read_text() == "not a socket"

    run(main())


def test_refused_connections(run: Run[None], tmp_path: Path) -> None:
    """
    Connecting to nobody raises the error of the last word, for TCP, Unix and several addresses.
    """

    async def main() -> None:
        loop = asyncio.get_running_loop()
        with pytest.raises(FileNotFoundError):
            await loop.create_unix_connection(Diary, str(tmp_path / "nobody"))
        with deserted() as (host, port):
            with pytest.raises(ConnectionRefusedError):
                await loop.create_connection(Diary, host, port)
            with pytest.raises(OSError, match=r"(?i)refused"):
                await loop.create_connection(Diary, "localhost", port)
            with pytest.raises(ExceptionGroup) as caught:
                await loop.create_connection(Diary, host, port, all_errors=True)
            assert isinstance(caught.value.exceptions[0], ConnectionRefusedError)
            with pytest.raises(OSError, match=r"(?i)refused"):
                await loop.create_connection(Diary, host, port, local_addr=("127.0.0.1", 0))

    run(main())


def test_local_address_is_bound(run: Run[None]) -> None:
    """A connection comes from the local address asked for."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        async with listening(Echo) as (_, address):
            transport, client = await loop.create_connection(
                Diary, *address, local_addr=("127.0.0.2", 0)
            )
            assert transport.get_extra_info("sockname")[0] == "127.0.0.2"
            transport.close()
            await client.lost
            with pytest.raises(OSError, match="local address"):
                await loop.create_connection(Diary, *address, local_addr=("::1", 0))

    run(main())


def test_contradicting_arguments(run: Run[None]) -> None:
    """Arguments that contradict each other are refused before anything is made."""

    async def main() -> None:
        loop: Any = asyncio.get_running_loop()
        ours, theirs = socket.socketpair()
        with ours, theirs:
            for call in (
                loop.create_connection(Diary),
                loop.create_connection(Diary, "127.0.0.1", 1, sock=ours),
                loop.create_connection(Diary, "127.0.0.1", 1, server_hostname="x"),
                loop.create_server(Diary),
                loop.create_server(Diary, "127.0.0.1", 1, sock=ours),
                loop.create_unix_connection(Diary),
                loop.create_unix_connection(Diary, "x", sock=ours),
                loop.create_unix_server(Diary),
                loop.create_unix_server(Diary, "x", sock=ours),
                loop.create_unix_server(Diary, "x" * 200),
            ):
                with pytest.raises(ValueError):
                    await call

    run(main())


def test_cancelled_while_connecting(run: Run[None]) -> None:
    """A create_connection that is cancelled leaves no socket behind."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        with socket.create_server(("127.0.0.1", 0), backlog=0) as listener:
            address = listener.getsockname()
            # With the queue full, connecting hangs.
            fillers = []
            for _ in range(4):
                filler = socket.socket()
                filler.setblocking(False)
                filler.connect_ex(address)
                fillers.append(filler)
            task = loop.create_task(loop.create_connection(Diary, *address))
            await passes(5)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            for filler in fillers:
                filler.close()

    run(main())


def test_abandoned_transport_warns_and_closes(
    make_loop: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    """
    A transport still open when its loop is closed warns, and its descriptor is closed with it.
    """
    ours, theirs = socket.socketpair()

    async def main() -> None:
        protocol: Diary
        _, protocol = await asyncio.get_running_loop().create_connection(
            Diary, sock=socket.socket(fileno=ours.detach())
        )
        await protocol.made
        server = await asyncio.get_running_loop().create_server(Echo, "127.0.0.1", 0)
        assert server.is_serving()

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with asyncio.Runner(loop_factory=make_loop) as runner:
            runner.run(main())
        gc.collect()
    kinds = {warning.category for warning in caught}
    assert kinds == {ResourceWarning}
    assert theirs.recv(1) == b""
    theirs.close()


def test_a_socket_has_one_transport(run: Run[None]) -> None:
    """A second transport of a socket is refused, and the first goes on."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        near, far = socket.socketpair()
        with far:
            transport, client = await loop.create_connection(Diary, sock=near)
            for again in (
                loop.create_connection(Diary, sock=near),
                loop.connect_accepted_socket(Diary, near),
                loop.create_server(Diary, sock=near),
                loop.create_unix_server(Diary, sock=near),
            ):
                with pytest.raises(RuntimeError, match="is used by"):
                    await again
            far.send(b"x")
            assert await client.until_received(1) == b"x"
            transport.close()
            await client.lost
        near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        with far:
            datagrams, _ = await loop.create_datagram_endpoint(asyncio.DatagramProtocol, sock=near)
            with pytest.raises(RuntimeError, match="is used by"):
                await loop.create_datagram_endpoint(asyncio.DatagramProtocol, sock=near)
            datagrams.close()

    run(main())
