"""
A stream that has been received from often reads ahead; nobody can tell but by its speed.

On io_uring its receive stands from the second on (`uringio._driver.uring_standing`); the other
drivers pass the same tests without.
"""

import gc
import os
import socket
import warnings
from collections.abc import Awaitable, Callable

import pytest

import uringio
from tests.surface.pairs import with_peer
from tests.surface.schedulers import Scheduler
from uringio import Buffer, SocketStream


async def grown_used(stream: SocketStream, peer: socket.socket) -> None:
    """Receive as often as it takes."""
    for number in range(3):
        peer.sendall(b"%d" % number)
        assert await stream.recv() == b"%d" % number


async def _into_memory(stream: SocketStream) -> bytes:
    room = bytearray(100)
    return bytes(room[: await stream.recv_into(room)])


async def _into_buffer(stream: SocketStream) -> bytes:
    count, buffer = await stream.recv_into(Buffer(100))
    return buffer.read()[:count]


async def _lease(stream: SocketStream) -> bytes:
    with await stream.recv_lease() as view:
        return bytes(view)


async def _message(stream: SocketStream) -> bytes:
    return (await stream.recvmsg()).data


async def _polled(stream: SocketStream) -> bytes:
    await uringio.net.wait_readable(stream)
    return await stream.recv()


async def _by_number(stream: SocketStream) -> bytes:
    number = stream.fileno()
    await uringio.net.wait_readable(stream)
    if stream._unread:
        return await stream.recv()
    return os.read(number, 100)


async def _short(stream: SocketStream) -> bytes:
    return await stream.recv(1) + await stream.recv(1)


@pytest.mark.parametrize(
    "receive", [_into_memory, _into_buffer, _lease, _message, _polled, _by_number, _short]
)
@pytest.mark.parametrize("early", [True, False])
def test_every_other_receive_goes_on_where_it_stands(
    scheduler: Scheduler, receive: Callable[[SocketStream], Awaitable[bytes]], early: bool
) -> None:
    """What has come belongs to whoever receives next, in whichever way; and so does what comes."""

    async def main() -> None:
        async with with_peer() as (stream, peer):
            await grown_used(stream, peer)
            if early:
                peer.sendall(b"ab")
                for _ in range(3):
                    await scheduler.checkpoint()
                assert await receive(stream) == b"ab"
            else:
                task = scheduler.spawn(receive, stream)
                await scheduler.checkpoint()
                peer.sendall(b"ab")
                assert await task.result() == b"ab"
            peer.sendall(b"c")
            assert await stream.recv() == b"c"

    scheduler.run(main)


def test_closing_ends_it(scheduler: Scheduler) -> None:
    """The kernel holds the file for nobody: the peer sees the end."""

    async def main() -> None:
        async with with_peer() as (stream, peer):
            await grown_used(stream, peer)
            await stream.aclose()
            await scheduler.checkpoint()
            assert peer.recv(1) == b""

    scheduler.run(main)


def test_dropping_it_ends_it(scheduler: Scheduler) -> None:
    """A stream that is forgotten is closed, with a warning, though it reads ahead."""

    async def main() -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            stream = await uringio.connect_tcp(*server.getsockname())
            peer, _ = server.accept()
        with peer, warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            await grown_used(stream, peer)
            del stream
            await uringio.sleep(0.001)  # the task knows its last operation, until there is another
            gc.collect()
            peer.settimeout(0.0)
            while True:
                await scheduler.checkpoint()
                try:
                    assert peer.recv(1) == b""
                    break
                except BlockingIOError:
                    pass
        assert [one.category for one in caught if one.category is ResourceWarning]

    scheduler.run(main)
