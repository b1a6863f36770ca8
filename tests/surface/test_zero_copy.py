"""Sending owned memory without a copy: the buffer stays away until the kernel has let go of it."""

import fcntl
import gc
import random
import socket
import sys
import termios

import pytest

import uringio
from tests.backends import RUNG
from tests.kernel import lock_refusal
from tests.older import without
from tests.surface.pairs import connected, receive_all, with_peer
from tests.surface.schedulers import Scheduler
from uringio import Buffer, BufferPool
from uringio._ring.probe import probe_ring
from uringio._ring.setup import queue_init
from uringio._sys import constants as k
from uringio._sys.system import System
from uringio.errors import BusyError, UseAfterMoveError

SIZE = 600_000


def unacknowledged(end: uringio.SocketStream) -> int:
    return int.from_bytes(fcntl.ioctl(end.fileno(), termios.TIOCOUTQ, bytes(4)), sys.byteorder)


def require_zero_copy(scheduler: Scheduler) -> None:
    if scheduler.backend != "uring":
        pytest.skip("the epoll driver copies, and is done at once")
    if RUNG and (lacking := without(RUNG, "SEND_ZC", k.IORING_OP_SEND_ZC)):
        pytest.skip(f"{lacking}, copies, and is done at once")
    if reason := lock_refusal():
        pytest.skip(reason)
    ring = queue_init(System(), 1)
    try:
        if k.IORING_OP_SEND_ZC not in probe_ring(ring).opcodes:
            pytest.skip("this kernel has no SEND_ZC (6.0)")
    finally:
        ring.close()


def test_what_is_sent_arrives(scheduler: Scheduler) -> None:
    """Buffers, parts of them, and bytes, one after another, mixed with plain sends."""

    async def main() -> None:
        data = random.randbytes(SIZE)
        async with connected() as (near, far):

            async def send() -> None:
                buffer = Buffer.holding(data)
                sent, buffer = await near.send_buffer(buffer, zero_copy=True)
                assert sent == SIZE
                await near.send_all(b"plain")
                sent, buffer = await near.send_buffer(buffer, 100, 200, zero_copy=True)
                assert sent == 100
                sent, buffer = await near.send_buffer(buffer, -10)
                assert buffer.read() == data
                assert await near.send_buffer(data, 5, zero_copy=True) == SIZE - 5
                assert await near.send_buffer(b"end") == 3
                await near.send_eof()

            task = scheduler.spawn(send)
            expected = data + b"plain" + data[100:200] + data[-10:] + data[5:] + b"end"
            assert b"".join([chunk async for chunk in far]) == expected
            await task.result()

    scheduler.run(main)


def test_messages_arrive(scheduler: Scheduler) -> None:
    """Gathered from bytes, which never change; from anything else they are refused."""

    async def main() -> None:
        async with connected() as (near, far):
            with pytest.raises(TypeError, match="only bytes"):
                near.sendmsg([b"a", bytearray(b"b")], zero_copy=True)
            assert await near.sendmsg([b"one", b"", b"two"], zero_copy=True) == 6
            assert await near.sendmsg(b"three", zero_copy=True) == 5
            assert await far.recv_exactly(11) == b"onetwothree"

    scheduler.run(main)


def test_over_unix_sockets_the_bytes_are_copied(scheduler: Scheduler) -> None:
    """They have no way without a copy, and nobody needs to know."""

    async def main() -> None:
        async with await uringio.listen_unix(b"\0uringio-test-%x" % random.getrandbits(64)) as door:
            near = await uringio.connect_unix(door.local_address)  # type: ignore[arg-type]
            async with near, await door.accept() as far:
                buffer = Buffer.holding(b"0123456789")
                for _ in range(3):
                    sent, buffer = await near.send_buffer(buffer, zero_copy=True)
                    assert sent == 10
                assert await far.recv_exactly(30) == b"0123456789" * 3

    scheduler.run(main)


def test_the_buffer_is_away_until_the_peer_has_it(scheduler: Scheduler) -> None:
    """The kernel has taken all, the peer nothing: the handle is shut, the pool has not got it."""
    require_zero_copy(scheduler)

    async def main() -> None:
        data, pool = random.randbytes(SIZE), BufferPool(1 << 20)
        async with with_peer(4 * SIZE) as (near, peer):
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
            buffer = pool.allocate(SIZE)
            assert buffer is not None
            buffer.write(data)

            async def send() -> None:
                sent, back = await near.send_buffer(buffer, zero_copy=True)
                assert sent == SIZE
                assert back.read() == data
                back.release()

            task = scheduler.spawn(send)
            await scheduler.until(lambda: unacknowledged(near) > SIZE // 2)
            for _ in range(5):
                await scheduler.checkpoint()
                gc.collect()
                for use in (buffer.read, buffer.release, lambda: buffer.write(b"x")):
                    with pytest.raises(UseAfterMoveError, match="which still has it"):
                        use()
                with pytest.raises(BusyError):
                    near.send_all(b"between")
                assert pool.stats().out_count == 1
            got = bytearray()
            peer.setblocking(False)
            while not task.ended:
                try:
                    got += peer.recv(1 << 20)
                except BlockingIOError:
                    await scheduler.checkpoint()
            await task.result()
            peer.setblocking(True)
            await near.send_eof()
            assert bytes(got) + receive_all(peer) == data
            assert pool.stats().out_count == 0

    scheduler.run(main)


@pytest.mark.parametrize("how", ["cancelled", "closed"])
def test_a_peer_that_does_not_read_holds_nobody_up(scheduler: Scheduler, how: str) -> None:
    """Cancelled or closed by another task, the send ends at once, by aborting the connection."""
    require_zero_copy(scheduler)

    async def main() -> None:
        async with with_peer(4 * SIZE) as (near, peer):
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
            buffer = Buffer(SIZE)

            async def send() -> None:
                await near.send_buffer(buffer, zero_copy=True)

            task = scheduler.spawn(send)
            await scheduler.until(lambda: unacknowledged(near) > SIZE // 2)
            if how == "cancelled":
                task.cancel()
                assert (await task.wait()).cancelled
                assert task.error is not None
                assert task.error.__dict__["done"] == SIZE
            else:
                await near.aclose()
                with pytest.raises(uringio.errors.ClosedError):
                    await task.result()
            buffer.write(b"mine again")
            with pytest.raises(ConnectionResetError):
                receive_all(peer)

    scheduler.run(main)


def test_memory_that_may_change_is_refused(scheduler: Scheduler) -> None:
    """Only owned buffers and bytes; the stream is as before."""

    async def main() -> None:
        async with connected() as (near, far):
            for data in (bytearray(5), memoryview(b"12345"), "text", None):
                with pytest.raises(TypeError, match="takes a Buffer or bytes"):
                    near.send_buffer(data, zero_copy=True)  # type: ignore[call-overload]
            with pytest.raises(ValueError, match="there are no bytes"):
                near.send_buffer(b"", zero_copy=True)
            await near.send_all(b"fine")
            assert await far.recv() == b"fine"

    scheduler.run(main)
