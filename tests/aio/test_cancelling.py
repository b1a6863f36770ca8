"""
Cancelling operations from asyncio tasks, at every moment.

Contract 4: who asked to be cancelled always gets the cancellation, when the kernel has let go, and
never data instead; bytes, descriptors and buffers that came all the same are not lost.
"""

import asyncio
import random
import socket
from collections.abc import Callable, Coroutine

import pytest

import uringio
from tests.aio.conftest import Run
from tests.aio.test_ops import accept, pair, receive
from tests.aio.waiting import passes, until

ROUNDS = 300
MOMENTS = ("before its first step", "before submission", "in flight", "racing")


async def cancelled_at(
    moment: str,
    start: Callable[[], Coroutine[object, object, object]],
    finish: Callable[[], object],
) -> bool:
    """
    Start a task, cancel it at *moment*, and say whether the cancellation came.

    Args:
        finish: Makes the operation complete; called right before a racing cancellation.
    """
    task = asyncio.ensure_future(start())
    if moment == "before submission":
        await asyncio.sleep(0)
    elif moment in {"in flight", "racing"}:
        await passes(random.randint(1, 4))
    if moment == "racing":
        finish()
        await passes(random.randint(0, 2))
    asked = task.cancel()
    try:
        await task
    except asyncio.CancelledError:
        return True
    assert not asked, "the task was cancelled and got a result instead"
    return False


@pytest.mark.parametrize("moment", MOMENTS)
def test_cancelled_recv_loses_no_byte(run: Run[None], moment: str) -> None:
    """Receives are cancelled over and over; every byte sent arrives in the end, once, in order."""

    async def main() -> None:
        stream, peer = await pair()
        expected = bytearray()
        received = bytearray()

        async def recv() -> None:
            received.extend(await stream.recv(random.randint(1, 8)))

        def send() -> None:
            data = b"<%d>" % len(expected)
            expected.extend(data)
            sending.append(asyncio.ensure_future(send_all(data)))

        async def send_all(data: bytes) -> None:
            async with lock:
                await peer.send_all(data)

        lock = asyncio.Lock()
        sending: list[asyncio.Future[None]] = []
        for _ in range(ROUNDS):
            await cancelled_at(moment, recv, send)
        if sending:
            await asyncio.wait(sending)
        while len(received) < len(expected):
            await asyncio.wait_for(recv(), 50)
        assert received == expected
        await stream.aclose()
        await peer.aclose()

    run(main())


@pytest.mark.parametrize("moment", MOMENTS)
def test_cancelled_accept_loses_no_descriptor(run: Run[None], moment: str) -> None:
    """Accepts are cancelled over and over; each client is either served or closed."""

    async def main() -> None:
        async with await uringio.listen_tcp("127.0.0.1", 0) as listener:
            address = listener.local_address
            clients: list[socket.socket] = []
            streams: list[uringio.SocketStream] = []

            async def take() -> None:
                streams.append(await listener.accept())

            def connect() -> None:
                clients.append(socket.create_connection(address))  # type: ignore[arg-type]

            for _ in range(ROUNDS // 3):
                await cancelled_at(moment, take, connect)
            connect()
            while True:
                # Whoever is still in the queue is before the last one.
                stream = await asyncio.wait_for(accept(listener), 50)
                streams.append(stream)
                if stream.remote_address == clients[-1].getsockname():
                    break
            for stream in streams:
                await stream.send_all(b"!")
                await stream.aclose()
            answers = []
            for client in clients:
                client.settimeout(50)
                answers.append(client.recv(2))
                client.close()
            assert answers.count(b"!") == len(streams)
            assert answers.count(b"") == len(clients) - len(streams)

    run(main())


@pytest.mark.parametrize("moment", MOMENTS)
def test_cancelled_connect_leaves_nothing(run: Run[None], moment: str) -> None:
    """Connects are cancelled over and over; none leaves a socket, which the fixture would see."""

    async def main() -> None:
        with socket.create_server(("127.0.0.1", 0), backlog=ROUNDS) as listener:
            address = listener.getsockname()

            async def connect() -> None:
                stream = await uringio.connect_tcp(*address)
                await stream.aclose()

            for _ in range(ROUNDS // 3):
                await cancelled_at(moment, connect, lambda: None)

    run(main())


@pytest.mark.parametrize("moment", MOMENTS)
def test_cancelled_send_tells_how_much_left(run: Run[None], moment: str) -> None:
    """The cancelled send's `done` is exactly how many bytes its peer gets."""
    data = bytes(range(256)) * 4096

    async def main() -> None:
        for _ in range(ROUNDS // 20):
            stream, peer = await pair()
            done: list[int] = []
            draining: list[asyncio.Future[bytes]] = []

            async def send() -> None:
                try:
                    await stream.send_all(data)
                except asyncio.CancelledError as error:
                    done.append(error.done)  # type: ignore[attr-defined]
                    raise
                done.append(len(data))

            async def drain() -> bytes:
                received = bytearray()
                while chunk := await peer.recv():
                    received += chunk
                return bytes(received)

            await cancelled_at(
                moment, send, lambda: draining.append(asyncio.ensure_future(drain()))
            )
            await stream.send_eof()
            received = await (draining[0] if draining else drain())
            assert received == data[: len(received)]
            assert len(received) == (done[0] if done else 0)
            await stream.aclose()
            await peer.aclose()

    run(main())


@pytest.mark.parametrize("moment", MOMENTS)
def test_cancelled_sleep_and_offload(run: Run[None], moment: str) -> None:
    """
    Waiting for time and for threads is cancelled at every moment, and leaves nothing in flight.
    """

    async def main() -> None:
        async def nap() -> None:
            await uringio.sleep(random.choice((0.0, 0.0001, 3600.0)))

        async def call() -> None:
            await uringio.offload(int)

        for _ in range(ROUNDS):
            await cancelled_at(moment, nap, lambda: None)
            await cancelled_at(moment, call, lambda: None)

    run(main())


def test_cancelled_close_closes(run: Run[None]) -> None:
    """A cancelled aclose is cancelled, and the descriptor is closed all the same."""

    async def main() -> None:
        for moment in MOMENTS * 20:
            ours, theirs = await pair()

            async def close(stream: uringio.SocketStream = ours) -> None:
                await stream.aclose()

            await cancelled_at(moment, close, lambda: None)
            await ours.aclose()
            assert await asyncio.wait_for(receive(theirs), 50) == b""
            await theirs.aclose()

    run(main())


def test_data_that_waits_for_delivery_is_not_delivered_to_the_cancelled(run: Run[None]) -> None:
    """
    A cancellation out of a callback of the very pass in which the data came still wins, and the
    next reader gets the data.
    """

    async def main() -> None:
        ours, theirs = await pair()
        for _ in range(50):
            reading = asyncio.ensure_future(receive(ours))
            killer = asyncio.ensure_future(receive(theirs))
            killer.add_done_callback(lambda _, task=reading: task.cancel())  # type: ignore[misc]
            await passes(3)
            # Both complete in one turn of the driver.
            await asyncio.gather(ours.send_all(b"now"), theirs.send_all(b"data"))
            await asyncio.wait([reading, killer])
            if reading.cancelled():
                assert await ours.recv() == b"data"
            else:
                assert reading.result() == b"data"
        await ours.aclose()
        await theirs.aclose()

    run(main())


def test_second_cancellation_changes_nothing(run: Run[None]) -> None:
    """A task that is cancelled again while its operation ends is cancelled once."""

    async def main() -> None:
        ours, theirs = await pair()
        reading = asyncio.ensure_future(receive(ours))
        await passes(3)
        assert reading.cancel()
        assert reading.cancel("again")
        with pytest.raises(asyncio.CancelledError):
            await reading
        await theirs.send_all(b"x")
        assert await ours.recv() == b"x"
        await ours.aclose()
        await theirs.aclose()

    run(main())


def test_message_of_a_cancellation_arrives(run: Run[None]) -> None:
    """The message given to cancel is the exception's argument."""

    async def main() -> None:
        async def nap() -> None:
            await uringio.sleep(3600)

        for message in (None, "why"):
            task = asyncio.ensure_future(nap())
            await passes(2)
            task.cancel(message)
            with pytest.raises(asyncio.CancelledError) as caught:
                await task
            assert caught.value.args == ((message,) if message else ())

    run(main())


@pytest.mark.parametrize("started", [True, False])
def test_everything_in_flight_ends_with_the_runner(
    make_loop: Callable[[], asyncio.AbstractEventLoop], started: bool
) -> None:
    """
    When main returns, whatever tasks still await is cancelled and asyncio.Runner comes to its end:
    servers, readers, writers, sleepers.
    """
    ended: list[str] = []

    async def watched(name: str, coroutine: Coroutine[object, object, object]) -> None:
        try:
            await coroutine
        except asyncio.CancelledError:
            ended.append(name)
            raise

    async def main() -> None:
        ours, theirs = await pair()
        listener = await uringio.listen_tcp("127.0.0.1", 0)

        async def write() -> None:
            try:
                await ours.send_all(bytes(1 << 24))
            finally:
                await ours.aclose()

        async def read_and_close() -> None:
            try:
                await ours.recv()
            finally:
                await theirs.aclose()

        async def serve() -> None:
            async with listener:
                await listener.serve(swallow)

        async def swallow(stream: uringio.SocketStream) -> None:
            await stream.recv()

        async def nap() -> None:
            await uringio.sleep(3600)

        client = await uringio.connect_tcp(*listener.local_address[:2])  # type: ignore[misc]
        tasks.update(
            asyncio.ensure_future(watched(name, coroutine))
            for name, coroutine in {
                "write": write(),
                "read": read_and_close(),
                "serve": serve(),
                "nap": nap(),
            }.items()
        )
        if started:
            await passes(5)
        else:
            await passes(1)
        await client.aclose()

    tasks: set[asyncio.Future[None]] = set()
    with asyncio.Runner(loop_factory=make_loop) as runner:
        runner.run(main())
    assert sorted(ended) == ["nap", "read", "serve", "write"]
    tasks.clear()


def test_timeouts_race_with_data(run: Run[None]) -> None:
    """wait_for either returns the data or times out and leaves it for the next reader."""

    async def main() -> None:
        ours, theirs = await pair()
        expected = bytearray()
        received = bytearray()

        async def feed() -> None:
            for number in range(ROUNDS):
                data = b"%d;" % number
                expected.extend(data)
                await theirs.send_all(data)
                await uringio.sleep(random.random() / 2000)

        feeding = asyncio.ensure_future(feed())
        while not feeding.done() or len(received) < len(expected):
            try:
                received += await asyncio.wait_for(ours.recv(), random.random() / 2000)
            except TimeoutError:
                pass
        assert received == expected
        await ours.aclose()
        await theirs.aclose()
        await until(feeding.done)

    run(main())
