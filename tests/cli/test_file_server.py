"""The file server in this process: what a subprocess could show only after a long wait."""

import contextlib
import math
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

import uringio
from uringio.cli.serve import FileServer
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
        group.start_soon(server.sweep)
        group.start_soon(listener.serve, server.handle)
        address = listener.local_address
        assert isinstance(address, tuple)
        await client(address[1], server)
        group.cancel_scope.cancel()


@pytest.mark.parametrize("unfinished", [b"", b"GET / HT", b"GET / HTTP/1.1\r\nHost: a\r\n"])
def test_silent_peers_are_dropped(backend: str, tmp_path: Path, unfinished: bytes) -> None:
    """A connection that owes a head, or the end of one, is closed once patience is over."""
    (tmp_path / "a").write_bytes(b"a")

    async def client(port: int, server: FileServer) -> None:
        async with await uringio.connect_tcp("127.0.0.1", port) as stream:
            await stream.send_all(b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n" + unfinished)
            assert (await stream.recv()).endswith(b"\r\n\r\na")
            server.drop_silent(0.0)  # long ago: nobody has waited that long
            dropped = False

            async def watch() -> None:
                nonlocal dropped
                with contextlib.suppress(ConnectionResetError):
                    assert await stream.recv() == b""
                dropped = True

            async with uringio.TaskGroup() as group:
                group.start_soon(watch)
                for _ in range(10):
                    await uringio.checkpoint()
                assert not dropped
                # The server begins to wait a moment after its response has arrived.
                while not dropped:
                    server.drop_silent(math.inf)
                    await uringio.checkpoint()

    uringio.run(serve_here, tmp_path, client, backend=backend)


def test_peers_that_read_slowly_are_kept(backend: str, tmp_path: Path) -> None:
    """Patience is for peers that owe us bytes: one that is owed some is not dropped."""
    size = 64 * 1024 * 1024
    with (tmp_path / "big").open("wb") as file:
        file.truncate(size)

    async def client(port: int, server: FileServer) -> None:
        async with await uringio.connect_tcp("127.0.0.1", port) as stream:
            await stream.send_all(b"GET /big HTTP/1.1\r\nHost: a\r\n\r\n")
            got = 0
            while got < size:
                data = await stream.recv()
                assert data, "the connection was dropped"
                got += len(data)
                if got < size // 2:  # the rest is more than sockets buffer
                    server.drop_silent(math.inf)

    uringio.run(serve_here, tmp_path, client, backend=backend)


def test_short_reads_are_continued(tmp_path: Path) -> None:
    """A read that returns less than asked for is followed by one from where it ended."""
    content = bytes(range(256)) * 40

    class Reluctant:
        async def read_into_at(self, offset: int, buffer: memoryview) -> int:
            count = min(len(buffer), 999, len(content) - offset)
            buffer[:count] = content[offset : offset + count]
            return count

    async def main() -> None:
        async with await Tree.open(str(tmp_path)) as tree:
            server = FileServer(tree)
            for size in (len(content), len(content) - 1):
                pieces = [bytes(piece) async for piece in server._pieces(Reluctant(), size)]
                assert b"".join(pieces) == content[:size]

    uringio.run(main)
