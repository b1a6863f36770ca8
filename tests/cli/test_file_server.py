"""The file server in this process: what a subprocess could show only after a long wait."""

import contextlib
import os
import re
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

import uringio
from uringio.cli.file_server import FileServer
from uringio.cli.tree import Tree

Client = Callable[[int, FileServer], Awaitable[None]]


async def serve_here(folder: Path, client: Client) -> None:
    """Serve *folder* in a task of this loop while *client* runs."""
    async with (
        await Tree.open(str(folder)) as tree,
        await uringio.listen_tcp("127.0.0.1", 0) as listener,
        uringio.TaskGroup() as group,
    ):
        server = FileServer(tree)
        group.start_soon(listener.serve, server.handle)
        address = listener.local_address
        assert isinstance(address, tuple)
        await client(address[1], server)
        group.cancel_scope.cancel()


async def sweep_until_dropped(stream: uringio.SocketStream, server: FileServer) -> bytes:
    """Let the server's clock run, ten minutes a step, until it closes; return what it said."""
    said = bytearray()
    dropped = False

    async def watch() -> None:
        nonlocal dropped
        with contextlib.suppress(ConnectionResetError):
            while data := await stream.recv():
                said.extend(data)
        dropped = True

    now = time.monotonic()
    async with uringio.TaskGroup() as group:
        group.start_soon(watch)
        while not dropped:
            now += 600
            server.sweep(now)
            await uringio.checkpoint()
    return bytes(said)


@pytest.mark.parametrize("unfinished", [b"", b"GET / HT", b"GET / HTTP/1.1\r\nHost: a\r\n"])
def test_silent_peers_are_dropped(backend: str, tmp_path: Path, unfinished: bytes) -> None:
    """A connection that owes a head gets no answer, one that owes the end of a head 408."""
    (tmp_path / "a").write_bytes(b"a")

    async def client(port: int, server: FileServer) -> None:
        async with await uringio.connect_tcp("127.0.0.1", port) as stream:
            await stream.send_all(b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n" + unfinished)
            assert (await stream.recv()).endswith(b"\r\n\r\na")
            said = await sweep_until_dropped(stream, server)
            assert said.startswith(b"HTTP/1.1 408 ") == bool(unfinished)

    uringio.run(serve_here, tmp_path, client, backend=backend)


def test_a_request_that_comes_as_the_connection_ends_is_answered(
    backend: str, tmp_path: Path
) -> None:
    """Bytes that were there before an idle connection was given up are still a request."""
    (tmp_path / "a").write_bytes(b"a")
    wire = b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n"

    async def client(port: int, server: FileServer) -> None:
        async with await uringio.connect_tcp("127.0.0.1", port) as stream:
            await stream.send_all(wire)
            assert (await stream.recv()).endswith(b"\r\n\r\na")
            now = time.monotonic()
            for _ in range(3):
                await uringio.sleep(0)  # until it waits again
                server.sweep(now)
            # All in one go: what the server has is in the kernel's hands, and its time is over.
            os.write(stream.fileno(), wire)
            server.sweep(now + 600)
            assert (await stream.recv()).endswith(b"\r\n\r\na")
            assert not await sweep_until_dropped(stream, server)

    uringio.run(serve_here, tmp_path, client, backend=backend)


def test_large_folders_are_shown_whole(backend: str, tmp_path: Path) -> None:
    """A page that is made apart from the loop, because of its size, has every name."""
    names = {f"file {number}" for number in range(500)}
    for name in names:
        (tmp_path / name).touch()

    async def client(port: int, _: FileServer) -> None:
        async with await uringio.connect_tcp("127.0.0.1", port) as stream:
            await stream.send_all(b"GET / HTTP/1.0\r\n\r\n")
            page = b"".join([chunk async for chunk in stream]).decode()
            assert set(re.findall(r">(file \d+)</a>", page)) == names

    uringio.run(serve_here, tmp_path, client, backend=backend)


def test_peers_that_never_read_are_reset(backend: str, tmp_path: Path) -> None:
    """A peer that takes nothing of a large body is dropped by a reset."""
    with (tmp_path / "big").open("wb") as file:
        file.truncate(64 * 1024 * 1024)

    async def client(port: int, server: FileServer) -> None:
        async with await uringio.connect_tcp("127.0.0.1", port) as stream:
            await stream.send_all(b"GET /big HTTP/1.1\r\nHost: a\r\n\r\n")
            now = time.monotonic()
            while server.connections_count == 0:
                await uringio.checkpoint()
            while server.connections_count:
                now += 600
                server.sweep(now)
                await uringio.sleep(0)

            async def read_on() -> None:
                while await stream.recv():
                    pass

            with pytest.raises(ConnectionResetError):
                await read_on()

    uringio.run(serve_here, tmp_path, client, backend=backend)


def test_peers_that_read_slowly_are_kept(backend: str, tmp_path: Path) -> None:
    """A peer that goes on reading, if slowly, gets it all, whatever stands in buffers."""
    size = 64 * 1024 * 1024
    with (tmp_path / "big").open("wb") as file:
        file.truncate(size)

    async def client(port: int, server: FileServer) -> None:
        async with await uringio.connect_tcp("127.0.0.1", port) as stream:
            await stream.send_all(b"GET /big HTTP/1.1\r\nHost: a\r\n\r\n")
            now = time.monotonic()
            got = 0
            step = 1024 * 1024
            due = step
            while got < size:
                data = await stream.recv()
                assert data, "the connection was dropped"
                got += len(data)
                if due <= got < size // 2:  # the rest may be more than sockets buffer
                    # A mebibyte in ten minutes is 1.7 kB/s.
                    due += step
                    now += 600
                    server.sweep(now)

    uringio.run(serve_here, tmp_path, client, backend=backend)


def test_many_bad_clients_do_not_hurt_a_good_one(backend: str, tmp_path: Path) -> None:
    """60 that never end a head and 20 that never read 64 MiB: dropped; a good one is served."""
    (tmp_path / "a").write_bytes(b"a")
    with (tmp_path / "big").open("wb") as file:
        file.truncate(64 * 1024 * 1024)

    async def client(port: int, server: FileServer) -> None:
        async with AsyncExitStack() as stack, uringio.TaskGroup() as group:
            bad: list[uringio.SocketStream] = []
            for number in range(80):
                one = await stack.enter_async_context(await uringio.connect_tcp("127.0.0.1", port))
                wire = b"GET /big HTTP/1.1\r\nHost: a\r\n" + b"\r\n" * (number < 20)
                await one.send_all(wire)
                bad.append(one)

            async def trickle() -> None:
                while True:
                    for one in bad[20:]:
                        with contextlib.suppress(OSError):
                            await one.send_all(b"X")
                    await uringio.checkpoint()

            group.start_soon(trickle)
            good = await stack.enter_async_context(await uringio.connect_tcp("127.0.0.1", port))
            now = time.monotonic()
            rounds = 0
            while server.connections_count > 1:
                now += 4
                server.sweep(now)
                await good.send_all(b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n")
                assert (await good.recv()).endswith(b"\r\n\r\na")
                rounds += 1
            assert rounds >= 3
            # Pieces of files are all that sending holds, and few of them are kept.
            group.cancel_scope.cancel()

    uringio.run(serve_here, tmp_path, client, backend=backend)
