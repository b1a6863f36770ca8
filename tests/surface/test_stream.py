"""Bytes through a `SocketStream`: limits, order, ends, and the caller's memory meanwhile."""

import array
import random
import socket
import threading
from collections.abc import Callable

import pytest

import uringio
from tests.marks import needs_pending_errors
from tests.surface.pairs import connected, queued_bytes, receive_all, reset, with_peer
from tests.surface.schedulers import Scheduler

SOL_SNDBUF = (socket.SOL_SOCKET, socket.SO_SNDBUF)


def numbered(count: int) -> bytes:
    """Return bytes of which every eight tell where they belong."""
    return b"".join(number.to_bytes(8, "big") for number in range(-(-count // 8)))[:count]


# --- receiving -----------------------------------------------------------------------------------


def test_recv_returns_what_is_there(scheduler: Scheduler) -> None:
    """`recv` does not wait for more than the first bytes."""

    async def main() -> None:
        async with with_peer() as (stream, peer):
            peer.sendall(b"abc")
            assert await stream.recv() == b"abc"

    scheduler.run(main)


@pytest.mark.parametrize("max_bytes", [1, 2, 5, 7, 8])
def test_recv_keeps_to_its_limit(scheduler: Scheduler, max_bytes: int) -> None:
    """No chunk is longer than asked for, and nothing between chunks is lost."""

    async def main() -> None:
        async with with_peer() as (stream, peer):
            peer.sendall(b"0123456789")
            peer.shutdown(socket.SHUT_WR)
            chunks = []
            while chunk := await stream.recv(max_bytes):
                chunks.append(chunk)
            assert b"".join(chunks) == b"0123456789"
            assert max(map(len, chunks)) == max_bytes

    scheduler.run(main)


def test_recv_with_a_limit_beyond_any_buffer(scheduler: Scheduler) -> None:
    """A limit is only a limit: a huge one reserves nothing and is no error."""

    async def main() -> None:
        async with with_peer() as (stream, peer):
            peer.sendall(b"abc")
            assert await stream.recv((1 << 32) - 1) == b"abc"

    scheduler.run(main)


def test_recv_waits(scheduler: Scheduler) -> None:
    """`recv` waits for bytes that come later, while other tasks run."""

    async def main() -> None:
        async with connected() as (near, far):

            async def receive() -> bytes:
                return await near.recv()

            receiving = scheduler.spawn(receive)
            await scheduler.checkpoint()
            assert not receiving.ended
            await far.send_all(b"late")
            assert await receiving.result() == b"late"

    scheduler.run(main)


def test_end_of_stream_is_told_again_and_again(scheduler: Scheduler) -> None:
    """After the peer's end every `recv` returns b"" at once; sending goes on."""

    async def main() -> None:
        async with with_peer() as (stream, peer):
            peer.sendall(b"last")
            peer.shutdown(socket.SHUT_WR)
            assert await stream.recv() == b"last"
            for _ in range(3):
                assert await stream.recv() == b""
            await stream.send_all(b"still here")
            await stream.send_eof()
            assert receive_all(peer) == b"still here"

    scheduler.run(main)


def test_iteration_ends_with_the_stream(scheduler: Scheduler) -> None:
    """`async for` yields every byte in order and stops at the peer's end."""

    async def main() -> None:
        data = numbered(1 << 20)
        async with connected() as (near, far):

            async def send() -> None:
                await near.send_all(data)
                await near.send_eof()

            sending = scheduler.spawn(send)
            assert b"".join([chunk async for chunk in far]) == data
            await sending.result()

    scheduler.run(main)


def test_recv_exactly(scheduler: Scheduler) -> None:
    """Exactly so many bytes, however they were sent, and none of those behind them."""

    async def main() -> None:
        data = numbered(300_001)
        async with connected() as (near, far):

            async def send() -> None:
                for start in range(0, len(data), 7001):
                    await near.send_all(data[start : start + 7001])

            sending = scheduler.spawn(send)
            got = []
            for count in (0, 1, 7, 65536, 65537, 100_000):
                got.append(await far.recv_exactly(count))
                assert len(got[-1]) == count
            got.append(await far.recv_exactly(len(data) - sum(map(len, got))))
            assert b"".join(got) == data
            await sending.result()

    scheduler.run(main)


def test_recv_exactly_at_the_end(scheduler: Scheduler) -> None:
    """A stream that ends too early: EndOfStreamError holds what came, which is read no more."""

    async def main() -> None:
        async with with_peer() as (stream, peer):
            peer.sendall(b"abc")
            peer.shutdown(socket.SHUT_WR)
            with pytest.raises(uringio.EndOfStreamError, match="3 of 5") as caught:
                await stream.recv_exactly(5)
            assert (caught.value.expected, caught.value.partial) == (5, b"abc")
            assert isinstance(caught.value, EOFError)
            assert await stream.recv() == b""

    scheduler.run(main)


def test_recv_exactly_cancelled_keeps_what_came(scheduler: Scheduler) -> None:
    """The bytes before the cancellation are the next reader's, in order, of whatever kind it is."""

    async def main() -> None:
        async with with_peer() as (stream, peer):
            for size in (3, 4, 100):
                receiving = scheduler.spawn(stream.recv_exactly, 100)
                peer.sendall(b"abcd")
                # Once the bytes have left the socket, the task waits for the other 96.
                await scheduler.until(lambda: queued_bytes(stream) == 0)
                await scheduler.checkpoint()
                assert not receiving.ended
                receiving.cancel()
                assert (await receiving.wait()).cancelled
                peer.sendall(b"ef")
                peer.sendall(b"gh" if size == 100 else b"")
                if size == 100:
                    assert await stream.recv_exactly(8) == b"abcdefgh"
                else:
                    assert await stream.recv(size) == b"abcd"[:size]
                    assert await stream.recv_exactly(6 - size) == b"abcdef"[size:]

    scheduler.run(main)


def test_recv_cancelled_leaves_later_bytes(scheduler: Scheduler) -> None:
    """A cancelled `recv` takes nothing of what comes after it."""

    async def main() -> None:
        async with with_peer() as (stream, peer):

            async def receive() -> bytes:
                return await stream.recv()

            for number in range(20):
                receiving = scheduler.spawn(receive)
                await scheduler.checkpoint()
                receiving.cancel()
                assert (await receiving.wait()).cancelled
                peer.sendall(bytes([number]))
                assert await stream.recv() == bytes([number])

    scheduler.run(main)


def test_data_that_came_with_the_cancellation_is_kept(scheduler: Scheduler) -> None:
    """
    A reader whose data and canceller come together is cancelled or gets the data, never neither.

    The next reader gets what a cancelled one did not.
    """

    async def main() -> None:
        async with connected() as (near, far), connected() as (signal, other):

            async def receive() -> bytes:
                return await near.recv()

            receiving = scheduler.spawn(receive)

            async def cancel() -> None:
                await signal.recv()
                receiving.cancel()

            # The driver delivers both in one batch; whichever order, one runs before the other.
            cancelling = scheduler.spawn(cancel)
            await scheduler.checkpoint()
            with socket.socket(fileno=other.fileno()) as b, socket.socket(fileno=far.fileno()) as a:
                b.sendall(b"!")
                a.sendall(b"data")
                a.detach()
                b.detach()
            await cancelling.result()
            await receiving.wait()
            if receiving.cancelled:
                assert await near.recv() == b"data"
            else:
                assert await receiving.result() == b"data"

    for _ in range(5):
        scheduler.run(main)


# --- sending -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make",
    [
        bytes,
        bytearray,
        memoryview,
        lambda data: memoryview(bytearray(data)),
        lambda data: memoryview(array.array("H", data)),
        lambda data: memoryview(data + bytes(100))[: len(data)],
        lambda data: (
            memoryview(bytes(len(data) * 2)).cast("B")[: len(data)]
            and memoryview(bytes(b for pair in zip(data, data, strict=True) for b in pair))[::2]
        ),
        type("Bytes", (bytes,), {}),
    ],
    ids=["bytes", "bytearray", "memoryview", "writable", "items", "slice", "strided", "subclass"],
)
@pytest.mark.parametrize("count", [0, 2, 20_000], ids=["nothing", "little", "more"])
def test_send_all_takes_bytes_of_every_kind(
    scheduler: Scheduler, make: Callable[[bytes], bytes], count: int
) -> None:
    """Every kind of bytes-like object arrives as its bytes, an empty one as nothing."""
    data = numbered(count)

    async def main() -> None:
        async with with_peer() as (stream, peer):
            await stream.send_all(b"<")
            await stream.send_all(make(data))
            await stream.send_all(b">")
            await stream.send_eof()
            assert receive_all(peer) == b"<" + data + b">"

    scheduler.run(main)


@pytest.mark.parametrize("kind", [bytes, bytearray])
def test_send_all_of_much_to_a_slow_reader(
    scheduler: Scheduler, kind: Callable[[bytes], bytes]
) -> None:
    """64 MiB through small socket buffers, read in uneven pieces, arrive byte for byte."""
    data = random.randbytes(1 << 20) * 64

    async def main() -> None:
        async with with_peer(send_buffer_bytes=4096) as (stream, peer):
            received = bytearray()
            sizes = random.Random(random.random())

            def read() -> None:
                while chunk := peer.recv(sizes.choice((1, 100, 65536, 1 << 20))):
                    received.extend(chunk)

            reader = threading.Thread(target=read)
            reader.start()
            try:
                await stream.send_all(kind(data))
                await stream.send_eof()
            finally:
                reader.join()
            assert received == data

    scheduler.run(main)


def test_send_all_in_pieces(scheduler: Scheduler, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is too large for one operation goes in several, and `done` counts over all of them."""
    from uringio.net import _stream

    monkeypatch.setattr(_stream, "_SEND_BYTES_MAX", 10_000)

    async def main() -> None:
        async with with_peer() as (stream, peer):
            await stream.send_all(bytearray(numbered(95_001)))
            await stream.send_eof()
            assert receive_all(peer) == numbered(95_001)
        async with with_peer(send_buffer_bytes=4096) as (stream, peer):

            async def send() -> None:
                await stream.send_all(bytearray(numbered(10_000_000)))

            sending = scheduler.spawn(send)
            head = b""
            while len(head) < 30_000:
                await scheduler.until(lambda: queued_bytes(peer) > 0)
                head += peer.recv(30_000 - len(head))
            sending.cancel()
            error = (await sending.wait()).error
            assert sending.cancelled
            done = getattr(error, "done", 0)
            await stream.send_eof()
            assert len(head) + len(receive_all(peer)) == done
            assert done >= 30_000

    scheduler.run(main)


def test_send_all_waits_for_room(scheduler: Scheduler) -> None:
    """While the peer does not read, `send_all` waits; cancelled, it says how much had left."""

    async def main() -> None:
        async with with_peer(send_buffer_bytes=4096) as (stream, peer):
            data = numbered(4 << 20)

            async def send() -> None:
                await stream.send_all(data)

            sending = scheduler.spawn(send)
            await scheduler.until(lambda: queued_bytes(peer) > 0)
            assert not sending.ended
            sending.cancel()
            error = (await sending.wait()).error
            assert sending.cancelled
            await stream.send_eof()
            received = receive_all(peer)
            assert received == data[: len(received)]
            assert len(received) == getattr(error, "done", 0) > 0

    scheduler.run(main)


def test_bytearray_in_flight_cannot_be_resized(scheduler: Scheduler) -> None:
    """Memory that the kernel reads from stays where it is: resizing raises until the op's end."""

    async def main() -> None:
        async with with_peer(send_buffer_bytes=4096) as (stream, peer):
            data = bytearray(4 << 20)

            async def send() -> None:
                await stream.send_all(data)

            sending = scheduler.spawn(send)
            await scheduler.until(lambda: queued_bytes(peer) > 0)
            for resize in (lambda: data.append(1), data.clear, lambda: data.extend(b"xx")):
                with pytest.raises(BufferError):
                    resize()
            sending.cancel()
            await sending.wait()
            data.clear()

    scheduler.run(main)


def test_bytearray_is_free_after_sending(scheduler: Scheduler) -> None:
    """When `send_all` has returned, nothing holds the memory any more."""

    async def main() -> None:
        async with with_peer() as (stream, peer):
            for _ in range(3):
                data = bytearray(b"abc")
                await stream.send_all(data)
                data.extend(b"def")
                view = memoryview(data)
                await stream.send_all(view)
                view.release()
                data.clear()
            assert peer.recv(27, socket.MSG_WAITALL) == b"abcabcdef" * 3

    scheduler.run(main)


def test_sent_bytes_are_not_kept(scheduler: Scheduler) -> None:
    """A stream that is idle keeps neither what it sent nor what it received."""
    import gc
    import sys

    async def main() -> None:
        async with with_peer() as (stream, peer):
            data = numbered(5000)
            count = sys.getrefcount(data)
            await stream.send_all(data)
            assert sys.getrefcount(data) == count
            peer.sendall(b"x" * 54_321)
            got = await stream.recv_exactly(54_321)
            assert len(got) == 54_321
            del got
            kept = [
                one for one in gc.get_referents(stream._recv_op) if isinstance(one, bytes) and one
            ]
            assert kept == []

    scheduler.run(main)


def test_send_eof(scheduler: Scheduler) -> None:
    """The peer sees the end, can still answer, and sending is over."""

    async def main() -> None:
        async with connected() as (near, far):
            await near.send_all(b"all")
            await near.send_eof()
            assert await far.recv() == b"all"
            assert await far.recv() == b""
            await far.send_all(b"answer")
            assert await near.recv() == b"answer"
            with pytest.raises(BrokenPipeError) as caught:
                await near.send_all(b"more")
            assert isinstance(caught.value, uringio.OpError)
            assert (caught.value.op, caught.value.fd) == ("send_all", near.fileno())

    scheduler.run(main)


# --- when the connection breaks ------------------------------------------------------------------


@needs_pending_errors
def test_reset_while_receiving(scheduler: Scheduler) -> None:
    """A reset ends a waiting `recv` with ConnectionResetError, typed and telling."""

    async def main() -> None:
        async with with_peer() as (stream, peer):

            async def receive() -> bytes:
                return await stream.recv()

            receiving = scheduler.spawn(receive)
            await scheduler.checkpoint()
            reset(peer)
            with pytest.raises(ConnectionResetError) as caught:
                await receiving.result()
            error = caught.value
            assert isinstance(error, uringio.OpError)
            assert (error.op, error.fd, error.errno, error.done) == (
                "recv", stream.fileno(), 104, 0,
            )  # fmt: skip

    scheduler.run(main)


def test_reset_while_sending(scheduler: Scheduler) -> None:
    """A reset ends a waiting `send_all`; `done` counts what had left before."""

    async def main() -> None:
        async with with_peer(send_buffer_bytes=4096) as (stream, peer):

            async def send() -> None:
                await stream.send_all(bytes(4 << 20))

            sending = scheduler.spawn(send)
            await scheduler.until(lambda: queued_bytes(peer) > 0)
            here = queued_bytes(peer)
            reset(peer)
            with pytest.raises(ConnectionError) as caught:
                await sending.result()
            error = caught.value
            assert isinstance(error, uringio.OpError)
            assert (error.op, error.fd) == ("send_all", stream.fileno())
            assert here <= error.done < 4 << 20
            with pytest.raises(BrokenPipeError):
                await stream.send_all(b"more")

    scheduler.run(main)


@needs_pending_errors
@pytest.mark.parametrize("call", ["recv", "recv_into", "recvmsg"])
def test_reset_that_came_with_the_cancellation_is_kept(scheduler: Scheduler, call: str) -> None:
    """
    A reader that is cancelled when the reset has come must not hide it from the next reader.

    The kernel tells of a reset once; after that the stream seems to have ended in good order.
    """

    async def main() -> None:
        async with with_peer() as (stream, peer), connected() as (signal, other):

            async def receive() -> object:
                if call == "recv_into":
                    return await stream.recv_into(bytearray(10))
                return await getattr(stream, call)()

            async def cancel() -> None:
                await signal.recv()
                receiving.cancel()

            cancelling = scheduler.spawn(cancel)
            receiving = scheduler.spawn(receive)
            await scheduler.checkpoint()
            with socket.socket(fileno=other.fileno()) as plain:
                plain.sendall(b"!")
                plain.detach()
            reset(peer)
            await cancelling.result()
            await receiving.wait()
            if receiving.cancelled:
                with pytest.raises(ConnectionResetError):
                    await stream.recv()
            else:
                assert isinstance(receiving.error, ConnectionResetError)

    for _ in range(5):
        scheduler.run(main)
