"""Files into streams: exact, in order, from the cache or not, to peers that are slow or go away."""

import errno
import os
import random
import select
from pathlib import Path

import pytest

import uringio
from tests.surface.pairs import connected, with_peer
from tests.surface.schedulers import Scheduler
from uringio._driver import current
from uringio._sys.system import System
from uringio.errors import BusyError, ClosedError, OpError
from uringio.files import open_file

SIZE = 3_000_001


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a file of known bytes."""
    path = tmp_path_factory.mktemp("send") / "file"
    path.write_bytes(random.Random(1).randbytes(SIZE))
    return path


@pytest.fixture(params=["sendfile", "memory", "cold"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each way for the bytes: handed on by the kernel, by our memory, by reads that wait."""
    way: str = request.param
    if way != "sendfile":
        monkeypatch.setattr(System, "holds_all", lambda *_: False)
    if way == "cold":
        monkeypatch.setattr(System, "read_cached", lambda *_: -errno.EAGAIN)
    return way


async def received(stream: uringio.SocketStream, sent: list[bytes]) -> None:
    while data := await stream.recv():
        sent.append(data)


PARTS = [(0, SIZE), (0, 1), (12_345, 70_000), (SIZE - 100_000, 100_000), (SIZE - 10, 10), (5, 0)]


def test_parts_arrive_exactly(scheduler: Scheduler, path: Path, way: str) -> None:
    """Every part of the file, from any offset, over whichever way."""
    content = path.read_bytes()

    async def main() -> None:
        async with await open_file(path) as file, connected() as (near, far):
            got: list[bytes] = []
            receiving = scheduler.spawn(received, far, got)
            for offset, count in PARTS:
                assert await near.send_file(file, offset, count) == count
            await near.send_all(b"behind")
            await near.send_eof()
            await receiving.result()
            expected = b"".join(content[offset : offset + count] for offset, count in PARTS)
            assert b"".join(got) == expected + b"behind"

    scheduler.run(main)


def test_the_end_of_the_file_is_the_end(scheduler: Scheduler, path: Path, way: str) -> None:
    """Where the file ends before, what there was is counted."""

    async def main() -> None:
        async with await open_file(path) as file, connected() as (near, far):
            got: list[bytes] = []
            receiving = scheduler.spawn(received, far, got)
            assert await near.send_file(file, SIZE - 100_000, 1 << 40) == 100_000
            assert await near.send_file(file, SIZE, 10) == 0
            assert await near.send_file(file, SIZE + 10, 1 << 20) == 0
            await near.send_eof()
            await receiving.result()
            assert len(b"".join(got)) == 100_000

    scheduler.run(main)


def test_one_sender_at_a_time(scheduler: Scheduler, path: Path, way: str) -> None:
    """While a file waits for its peer nobody else sends; closing ends the wait."""

    async def main() -> None:
        async with await open_file(path) as file, with_peer(8192) as (stream, _peer):

            async def send() -> None:
                while True:  # until it waits for the peer, who reads nothing
                    await stream.send_file(file, 0, SIZE)

            sending = scheduler.spawn(send)
            while True:
                await scheduler.checkpoint()
                if select.select([], [stream], [], 0)[1]:
                    continue
                try:
                    stream.send_all(b"")
                except BusyError:
                    break
            with pytest.raises(BusyError):
                stream.send_all(b"between")
            with pytest.raises(BusyError):
                await stream.send_file(file, 0, 1)
            await stream.aclose()
            with pytest.raises(ClosedError):
                await sending.result()
            with pytest.raises(ClosedError):
                await stream.send_file(file, 0, 1)

    scheduler.run(main)


def test_a_cancelled_file_tells_how_much_had_left(
    scheduler: Scheduler, path: Path, way: str
) -> None:
    """The exception counts the bytes, and the stream goes on from there."""

    async def main() -> None:
        async with await open_file(path) as file, connected() as (near, far):
            counts: list[int] = []

            async def send() -> None:
                try:
                    while True:
                        counts.append(await near.send_file(file, 0, SIZE))
                except BaseException as error:
                    counts.append(getattr(error, "done", 0))
                    raise

            sending = scheduler.spawn(send)
            for _ in range(100):
                await scheduler.checkpoint()
            sending.cancel()
            assert (await sending.wait()).cancelled
            got: list[bytes] = []
            receiving = scheduler.spawn(received, far, got)
            await near.send_all(b"behind")
            await near.send_eof()
            await receiving.result()
            data = b"".join(got)
            assert len(data) == sum(counts) + len(b"behind")
            assert data.endswith(b"behind")

    scheduler.run(main)


def test_peers_that_are_gone(scheduler: Scheduler, path: Path, way: str) -> None:
    """A peer that resets is a connection error, as with every send."""

    async def main() -> None:
        async with await open_file(path) as file, with_peer() as (stream, peer):
            peer.close()
            with pytest.raises(ConnectionError):
                while True:
                    await stream.send_file(file, 0, SIZE)

    scheduler.run(main)


def test_bad_parts_and_closed_files(scheduler: Scheduler, path: Path) -> None:
    """What is no part is refused; a closed file says so."""

    async def main() -> None:
        async with with_peer() as (stream, _):
            file = await open_file(path)
            for offset, count in ((-1, 1), (1, -1)):
                with pytest.raises(ValueError, match="from 0 up"):
                    await stream.send_file(file, offset, count)
            await file.aclose()
            with pytest.raises(ClosedError):
                await stream.send_file(file, 0, 1)
            folder = await open_file(path.parent)
            with pytest.raises(OpError):
                await stream.send_file(folder, 0, 1)
            await folder.aclose()

    scheduler.run(main)


def test_sockets_keep_their_mode(backend: str, path: Path) -> None:
    """Sending from the cache leaves O_NONBLOCK as the backend wants it."""

    async def main() -> None:
        async with await open_file(path) as file, with_peer() as (stream, peer):
            before = os.get_blocking(stream.fileno())
            assert await stream.send_file(file, 0, 65536) == 65536
            assert os.get_blocking(stream.fileno()) == before
            assert before == (backend == "uring")
            assert len(peer.recv(65536)) > 0

    uringio.run(main, backend=backend)


def test_a_peer_that_has_ended_and_takes_nothing_costs_no_spinning(
    scheduler: Scheduler, path: Path
) -> None:
    """While such a peer is waited for the loop sleeps; what it takes later arrives whole."""
    times = 8  # more than sockets hold

    async def send(near: uringio.SocketStream) -> None:
        async with await open_file(path) as file:
            for _ in range(times):
                assert await near.send_file(file, 0, SIZE) == SIZE

    async def main() -> None:
        async with connected() as (near, far):
            await far.send_eof()
            assert await near.recv() == b""
            sending = scheduler.spawn(send, near)
            await uringio.sleep(0.02)
            turns = current.driver().statistics().turns
            await uringio.sleep(0.05)
            assert current.driver().statistics().turns - turns < 10
            got = bytearray()
            while len(got) < times * SIZE:
                got += await far.recv()
            assert got == path.read_bytes() * times
            await sending.result()

    scheduler.run(main)
