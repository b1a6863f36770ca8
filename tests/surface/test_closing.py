"""The ends of handles: what closing does to those who use them, and to those who forgot them."""

import gc
import os
import random
import socket
import warnings
from collections.abc import Awaitable, Callable
from functools import partial

import pytest

import uringio
from tests.surface.pairs import call, connected, occupied, queued_bytes, receive_all, with_peer
from tests.surface.schedulers import Gate, Scheduler
from uringio import ClosedError, SocketStream


async def awaiting(make: Callable[[], Awaitable[object]]) -> object:
    """Make an awaitable inside of the task that awaits it."""
    return await make()


def test_aclose_ends_a_waiting_receiver(scheduler: Scheduler) -> None:
    """The task in `recv` gets ClosedError, and the peer sees the end while that task still is."""

    async def main() -> None:
        async with with_peer() as (stream, peer):
            receiving = scheduler.spawn(awaiting, stream.recv)
            exactly = scheduler.spawn(awaiting, lambda: stream.recv_exactly(5))
            await scheduler.checkpoint()
            await stream.aclose()
            assert receive_all(peer) == b""
            assert isinstance((await receiving.wait()).error, ClosedError)
            assert isinstance((await exactly.wait()).error, uringio.BusyError)

    scheduler.run(main)


def test_aclose_ends_a_waiting_sender(scheduler: Scheduler) -> None:
    """The task in `send_all` gets ClosedError; the peer gets what had left, then the end."""

    async def main() -> None:
        async with with_peer(send_buffer_bytes=4096) as (stream, peer):
            data = bytearray(4 << 20)
            sending = scheduler.spawn(awaiting, lambda: stream.send_all(data))
            receiving = scheduler.spawn(awaiting, stream.recv)
            await scheduler.until(lambda: queued_bytes(peer) > 0)
            assert not sending.ended
            await stream.aclose()
            assert 0 < len(receive_all(peer)) < len(data)
            for task in (sending, receiving):
                assert isinstance((await task.wait()).error, ClosedError)
            data.clear()

    scheduler.run(main)


@pytest.mark.parametrize("count", [1, 3])
def test_aclose_ends_waiting_acceptors(scheduler: Scheduler, count: int) -> None:
    """Every task in `accept` gets ClosedError, and the port is closed at once."""

    async def main() -> None:
        listener = await uringio.listen_tcp("127.0.0.1", 0)
        accepting = [scheduler.spawn(awaiting, listener.accept) for _ in range(count)]
        await scheduler.checkpoint()
        await listener.aclose()
        with pytest.raises(ConnectionRefusedError):
            call(listener)
        for task in accepting:
            assert isinstance((await task.wait()).error, ClosedError)

    scheduler.run(main)


def test_aclose_ends_serving(scheduler: Scheduler) -> None:
    """`serve` on a listener that is closed raises ClosedError itself, and its handlers are done."""

    async def main() -> None:
        listener = await uringio.listen_tcp("127.0.0.1", 0)
        started, ended = Gate(), Gate()

        async def handler(stream: SocketStream) -> None:
            started.open()
            try:
                await stream.recv()
            finally:
                ended.open()

        serving = scheduler.spawn(listener.serve, handler)
        with call(listener):
            await started.wait()
            await listener.aclose()
            with pytest.raises(ClosedError):
                await serving.result()
            assert ended.is_open

    scheduler.run(main)


def test_aclose_is_safe_to_repeat(scheduler: Scheduler) -> None:
    """A second close does nothing, also while the first is under way and inside of `async with`."""

    async def main() -> None:
        async with with_peer() as (stream, _peer):
            first, second = stream.aclose(), stream.aclose()
            await second
            await first
            await stream.aclose()
        async with await uringio.listen_tcp("127.0.0.1", 0) as listener:
            await listener.aclose()
            await listener.aclose()

    scheduler.run(main)


def test_closed_handles_refuse(scheduler: Scheduler) -> None:
    """Every call on a closed handle raises ClosedError at once; repr and local_address work."""

    async def main() -> None:
        async with with_peer() as (stream, _peer):
            await stream.aclose()
            for refused in (
                stream.recv,
                lambda: stream.recv(5),
                lambda: stream.send_all(b"x"),
                lambda: stream.send_all(b""),
                lambda: stream.send_all(bytearray(b"x")),
                stream.send_eof,
                stream.fileno,
                lambda: stream.local_address,
                lambda: stream.remote_address,
                lambda: stream.setsockopt(1, 2, 3),
                lambda: stream.getsockopt(1, 2),
            ):
                with pytest.raises(ClosedError):
                    refused()
            with pytest.raises(ClosedError):
                await stream.recv_exactly(1)
            assert "closed" in repr(stream)
        async with await uringio.listen_tcp("127.0.0.1", 0) as listener:
            address = listener.local_address
            await listener.aclose()
            with pytest.raises(ClosedError):
                listener.accept()
            with pytest.raises(ClosedError):
                async for _ in listener:
                    pass
            with pytest.raises(ClosedError):
                await listener.serve(lambda stream: stream.aclose())  # type: ignore[arg-type]
            assert listener.local_address == address

    scheduler.run(main)


def test_a_receiver_that_tries_again_after_the_close_is_refused(scheduler: Scheduler) -> None:
    """
    The operation that the close ended is not reused: its descriptor's number may be another's now.
    """

    async def main() -> None:
        async with with_peer() as (stream, _peer):
            errors: list[BaseException] = []

            async def stubborn(make: Callable[[], Awaitable[object]]) -> None:
                for _ in range(3):
                    try:
                        await make()
                    except ClosedError as error:
                        errors.append(error)

            data = bytes(4 << 20)
            tasks = [
                scheduler.spawn(stubborn, stream.recv),
                scheduler.spawn(stubborn, lambda: stream.send_all(data)),
            ]
            await scheduler.checkpoint()
            number = stream.fileno()
            await stream.aclose()
            with occupied(number) as witness:
                for task in tasks:
                    await task.result()
                with pytest.raises(BlockingIOError):
                    witness.recv(1)
            assert len(errors) == 6

    scheduler.run(main)


def test_acceptors_that_try_again_after_the_close_are_refused(scheduler: Scheduler) -> None:
    """As for streams."""

    async def main() -> None:
        listener = await uringio.listen_tcp("127.0.0.1", 0)
        errors: list[BaseException] = []

        async def stubborn() -> None:
            for _ in range(3):
                try:
                    await listener.accept()
                except ClosedError as error:
                    errors.append(error)

        tasks = [scheduler.spawn(stubborn) for _ in range(3)]
        await scheduler.checkpoint()
        await listener.aclose()
        for task in tasks:
            await task.result()
        assert len(errors) == 9

    scheduler.run(main)


def test_operations_handed_out_before_the_close_are_refused(scheduler: Scheduler) -> None:
    """What was made and not awaited when its handle closed never reaches the kernel."""

    async def main() -> None:
        async with with_peer() as (stream, peer):
            ops = [stream.recv(), stream.send_all(b"stray"), stream.send_eof()]
            number = stream.fileno()
            await stream.aclose()
            assert receive_all(peer) == b""
            with occupied(number) as witness:
                for op in ops:
                    with pytest.raises(ClosedError):
                        await op
                with pytest.raises(BlockingIOError):
                    witness.recv(1)
        listener = await uringio.listen_tcp("127.0.0.1", 0)
        accepts = [listener.accept(), listener.accept()]
        await listener.aclose()
        for accept in accepts:
            with pytest.raises(ClosedError):
                await accept

    scheduler.run(main)


def test_close_under_cancellation_closes(scheduler: Scheduler) -> None:
    """A task that is cancelled inside of `async with` closes its stream on the way out."""

    async def main() -> None:
        async with with_peer() as (stream, peer):

            async def use() -> None:
                async with stream:
                    await stream.recv()

            using = scheduler.spawn(use)
            await scheduler.checkpoint()
            using.cancel()
            assert (await using.wait()).cancelled
            assert receive_all(peer) == b""
            with pytest.raises(ClosedError):
                stream.fileno()

    scheduler.run(main)


def says_closed(stream: SocketStream) -> bool:
    """Whether the stream has given its descriptor away."""
    return "closed" in repr(stream)


def test_cancelled_while_closing(scheduler: Scheduler) -> None:
    """A close is carried out although its awaiter is cancelled before or during it."""

    async def main() -> None:
        for early in (True, False):
            async with with_peer() as (stream, peer):
                closing = scheduler.spawn(awaiting, stream.aclose)
                if not early:
                    await scheduler.until(partial(says_closed, stream))
                closing.cancel()
                await closing.wait()
                if "closed" in repr(stream):
                    assert receive_all(peer) == b""

    scheduler.run(main)


def test_peer_sees_the_end_of_a_busy_stream_at_once(scheduler: Scheduler) -> None:
    """
    Closing with both directions waiting ends the connection before the loop does anything else.

    The peer's blocking read is what is awaited; an end that came only with the loop's end would
    time it out.
    """

    async def main() -> None:
        for _ in range(20):
            async with with_peer() as (stream, peer):
                receiving = scheduler.spawn(awaiting, stream.recv)
                await scheduler.checkpoint()
                await stream.aclose()
                assert peer.recv(1) == b""
                await receiving.wait()

    scheduler.run(main)


# --- what is forgotten ---------------------------------------------------------------------------


def test_forgotten_stream_warns_and_closes(scheduler: Scheduler) -> None:
    """
    A stream that is dropped is closed without the garbage collector, and says so.

    Not before its task awaits something else: until then the task holds its last operation.
    """

    async def main() -> None:
        async with connected() as (near, far):
            lost = SocketStream(near._driver, socket.dup(far.fileno()))
            lost._driver.register(lost.fileno())
            await near.send_all(b"x")
            assert await lost.recv() == b"x"
            fd = lost.fileno()
            gc.disable()
            try:
                with warnings.catch_warnings(record=True) as caught:
                    warnings.simplefilter("always")
                    del lost
                    await uringio.sleep(0)
            finally:
                gc.enable()
            assert [str(one.message) for one in caught] == [f"a stream on fd {fd} was never closed"]
            with pytest.raises(OSError, match="Bad file descriptor"):
                os.fstat(fd)

    scheduler.run(main)


def test_forgotten_handles_are_closed_where_warnings_are_errors(scheduler: Scheduler) -> None:
    """Even then no descriptor leaks (by the leak check), and the error is reported once each."""
    reported: list[object] = []

    async def main() -> None:
        import sys

        async with connected() as (near, _far):
            driver = near._driver
            fd = socket.dup(near.fileno())
            before, sys.unraisablehook = (
                sys.unraisablehook,
                lambda one: reported.append(one.exc_type),
            )
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("error")
                    SocketStream(driver, fd)
                    await uringio.listen_tcp("127.0.0.1", 0)
                    gc.collect()
            finally:
                sys.unraisablehook = before

    scheduler.run(main)
    assert reported == [ResourceWarning, ResourceWarning]


def test_forgotten_operations_warn(scheduler: Scheduler) -> None:
    """An operation that was never awaited is reported, and the stream is as it was."""

    async def main() -> None:
        async with connected() as (near, far):
            near.send_eof()
            with pytest.warns(RuntimeWarning, match="shutdown.* was never awaited"):
                near._eof_op = None
            await near.send_all(b"x")
            assert await far.recv() == b"x"
            with pytest.warns(RuntimeWarning, match="close.* was never awaited"):
                far.aclose()
            assert await near.recv() == b""

    scheduler.run(main)


def test_dropped_stream_lives_while_its_operation_does(scheduler: Scheduler) -> None:
    """The descriptor stays open under an operation whose stream nobody holds any more."""

    async def main() -> None:
        async with connected() as (near, far):
            fd = socket.dup(far.fileno())

            async def receive() -> bytes:
                stream = SocketStream(near._driver, fd)
                near._driver.register(fd)
                op = stream.recv()
                del stream
                return await op

            receiving = scheduler.spawn(receive)
            await scheduler.checkpoint()
            gc.collect()
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                await near.send_all(b"still there")  # the receiver may be through before this is
                assert await receiving.result() == b"still there"
                gc.collect()
            assert [one.category for one in caught] == [ResourceWarning]

    scheduler.run(main)


def test_reused_descriptors_carry_no_foreign_bytes(scheduler: Scheduler) -> None:
    """
    Streams that are opened and closed in a storm, in the middle of everything, stay themselves.

    Numbers of descriptors are reused at once, while operations of their last owners are still being
    cancelled.  Each client sends a word of its own and may only ever receive that.
    """
    rng = random.Random(random.random())

    async def echo(stream: SocketStream) -> None:
        while data := await stream.recv():
            await stream.send_all(data)

    async def client(address: tuple[str, int], word: bytes) -> None:
        stream = await uringio.connect_tcp(*address)
        receiving = scheduler.spawn(awaiting, stream.recv)
        data = word * rng.randrange(1, 2000)
        sending = scheduler.spawn(awaiting, lambda: stream.send_all(data))
        for _ in range(rng.randrange(8)):
            await scheduler.checkpoint()
        if rng.random() < 0.5:
            await stream.aclose()
        else:
            receiving.cancel()
            sending.cancel()
        for task in (receiving, sending):
            await task.wait()
            assert task.cancelled or task.error is None or isinstance(task.error, ClosedError)
        received = await receiving.result() if receiving.error is None else b""
        if "closed" not in repr(stream):
            if sending.error is None:  # what was kept of the cancelled receive comes first
                received += await stream.recv_exactly(len(data) - len(received))
            await stream.aclose()
        assert isinstance(received, bytes)
        assert received == data[: len(received)]

    async def main() -> None:
        async with await uringio.listen_tcp("127.0.0.1", 0) as listener:
            serving = scheduler.spawn(listener.serve, echo)
            host, port = listener.local_address[:2]
            for start in range(0, 200, 20):
                words = [b"<%06d>" % number for number in range(start, start + 20)]
                clients = [scheduler.spawn(client, (host, port), word) for word in words]
                for one in clients:
                    await one.result()
            serving.cancel()
            await serving.wait()

    scheduler.run(main)
