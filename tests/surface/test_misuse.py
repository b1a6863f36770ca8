"""What the surface refuses, and that refusing leaves everything as it was."""

import asyncio
import gc
import threading
import warnings
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

import uringio
from tests.surface.pairs import connected, with_peer
from tests.surface.schedulers import Scheduler, make
from uringio import BusyError, UsageError, WrongThreadError, open_file


async def awaiting(make_op: Callable[[], Awaitable[object]]) -> object:
    return await make_op()


def test_second_reader(scheduler: Scheduler) -> None:
    """Two tasks cannot receive at once: the second is told, the first goes on."""

    async def main() -> None:
        async with with_peer() as (stream, peer):
            first = scheduler.spawn(awaiting, stream.recv)
            await scheduler.checkpoint()
            for again in (stream.recv, lambda: stream.recv(3)):
                with pytest.raises(BusyError, match="receiving"):
                    again()
            with pytest.raises(BusyError, match="receiving"):
                await stream.recv_exactly(1)
            peer.sendall(b"for the first")
            assert await first.result() == b"for the first"

    scheduler.run(main)


def test_second_writer(scheduler: Scheduler) -> None:
    """Two tasks cannot send at once, nor end the stream meanwhile; what is sent stays whole."""

    async def main() -> None:
        data = bytes(range(256)) * (1 << 14)
        async with with_peer(send_buffer_bytes=4096) as (stream, peer):

            async def send() -> None:
                await stream.send_all(data)
                await stream.send_eof()

            first = scheduler.spawn(send)
            await scheduler.checkpoint()
            assert not first.ended
            for again in (
                lambda: stream.send_all(b"x"),
                lambda: stream.send_all(bytearray(b"x")),
                lambda: stream.send_all(b""),
                stream.send_eof,
            ):
                with pytest.raises(BusyError, match="sending"):
                    again()
            received = bytearray()
            reader = threading.Thread(
                target=lambda: received.extend(b"".join(iter(lambda: peer.recv(1 << 20), b"")))
            )
            reader.start()
            await first.result()
            reader.join()
            assert received == data

    scheduler.run(main)


def test_awaited_twice(scheduler: Scheduler) -> None:
    """An operation runs once; awaiting it again is refused, whatever has become of it."""

    async def main() -> None:
        async with with_peer() as (stream, peer):
            peer.sendall(b"once")
            op = stream.recv()
            assert await op == b"once"
            with pytest.raises(UsageError, match="awaited already"):
                await op
            sent = stream.send_all(b"x")
            await sent
            with pytest.raises(UsageError, match="awaited already"):
                await sent
            waiting = stream.recv()
            first = scheduler.spawn(awaiting, lambda: waiting)
            await scheduler.checkpoint()
            with pytest.raises(UsageError, match="awaited already"):
                await waiting
            peer.sendall(b"again")
            assert await first.result() == b"again"

    scheduler.run(main)


def test_superseded_operations(scheduler: Scheduler) -> None:
    """Of two operations made of one kind the later counts; the earlier is refused when awaited."""

    async def main() -> None:
        async with with_peer() as (stream, peer):
            peer.sendall(b"data")
            early, late = stream.recv(), stream.recv(2)
            assert await late == b"da"
            with pytest.raises(BusyError, match="superseded"):
                await early
            assert await stream.recv() == b"ta"
            early_send, late_send = stream.send_all(b"early"), stream.send_all(b"late")
            with pytest.raises(BusyError, match="superseded"):
                await early_send
            await late_send
            early_eof, late_eof = stream.send_eof(), stream.send_eof()
            with pytest.raises(BusyError, match="superseded"):
                await early_eof
            await late_eof
            assert peer.recv(100) == b"late"
            assert peer.recv(100) == b""

    scheduler.run(main)


@pytest.mark.parametrize("max_bytes", [0, -1, -(1 << 70)])
def test_recv_of_less_than_one_byte(scheduler: Scheduler, max_bytes: int) -> None:
    """A limit below 1 is refused at the call."""

    async def main() -> None:
        async with with_peer() as (stream, peer):
            with pytest.raises(ValueError, match="max_bytes"):
                stream.recv(max_bytes)
            peer.sendall(b"data")
            assert await stream.recv() == b"data"

    scheduler.run(main)


@pytest.mark.parametrize("max_bytes", ["1", 1.5, None, b"1"])
def test_recv_of_no_number(scheduler: Scheduler, max_bytes: int) -> None:
    """A limit that is no int is refused at the call, on a stream in whatever state."""

    async def main() -> None:
        async with with_peer() as (stream, peer):
            with pytest.raises(TypeError):
                stream.recv(max_bytes)
            peer.sendall(b"data")
            assert await stream.recv(1) == b"d"
            held = stream.recv()
            with pytest.raises(TypeError):
                stream.recv(max_bytes)
            assert await held == b"ata"

    scheduler.run(main)


def test_recv_of_a_huge_number(scheduler: Scheduler) -> None:
    """No limit is too large to be one."""

    async def main() -> None:
        async with with_peer() as (stream, peer):
            for max_bytes in (65536, 65537, 1 << 31, 1 << 32, 1 << 80):
                peer.sendall(b"data")
                assert await stream.recv(max_bytes) == b"data"

    scheduler.run(main)


def test_recv_exactly_of_less_than_nothing(scheduler: Scheduler) -> None:
    """A count below 0 is refused."""

    async def main() -> None:
        async with with_peer() as (stream, _):
            with pytest.raises(ValueError, match="count"):
                await stream.recv_exactly(-1)

    scheduler.run(main)


@pytest.mark.parametrize("data", ["text", 5, None, [1, 2], 1.5])
def test_send_all_of_no_bytes(scheduler: Scheduler, data: bytes) -> None:
    """What is not bytes-like is refused at the call, and supersedes nothing."""

    async def main() -> None:
        async with with_peer() as (stream, peer):
            good = stream.send_all(b"good")
            with pytest.raises(TypeError):
                stream.send_all(data)
            await good
            assert peer.recv(100) == b"good"

    scheduler.run(main)


def test_bad_limits_of_serve(scheduler: Scheduler) -> None:
    """`serve` refuses a limit below 1 and a handler that cannot be called."""

    async def main() -> None:
        async with await uringio.listen_tcp("127.0.0.1", 0) as listener:

            async def handler(stream: uringio.SocketStream) -> None:
                raise AssertionError(stream)

            for count in (0, -1):
                with pytest.raises(ValueError, match="max_connections"):
                    await listener.serve(handler, max_connections=count)
            coroutine = handler(None)  # type: ignore[arg-type]
            with pytest.raises(TypeError, match="async function"):
                await listener.serve(coroutine)  # type: ignore[arg-type]
            coroutine.close()

    scheduler.run(main)


# --- loops and threads ---------------------------------------------------------------------------


def elsewhere(scheduler: Scheduler, attempt: Callable[[], Awaitable[object]]) -> list[str]:
    """Await what *attempt* makes on a loop of another thread; return the errors' kinds."""
    kinds: list[str] = []

    def thread() -> None:
        async def main() -> None:
            try:
                await attempt()
            except BaseException as error:
                kinds.append(type(error).__name__)

        scheduler.run(main)

    runner = threading.Thread(target=thread)
    runner.start()
    runner.join()
    return kinds


def test_use_on_another_loop(scheduler: Scheduler) -> None:
    """A handle belongs to its loop; on another thread's, all is refused and nothing changed."""

    async def main() -> None:
        async with with_peer() as (stream, peer):
            other = make(scheduler.name, scheduler.backend)
            for attempt in (
                stream.recv,
                lambda: stream.recv_exactly(1),
                lambda: stream.send_all(b"x"),
                lambda: stream.send_all(bytearray(b"x")),
                stream.send_eof,
                stream.aclose,
            ):
                assert elsewhere(other, attempt) == ["WrongThreadError"]
            peer.sendall(b"here")
            assert await stream.recv(1) == b"h"
            # What was kept of a cancelled receive is no more theirs than what comes.
            stream._unread.append(b"kept")
            assert elsewhere(other, stream.recv) == ["WrongThreadError"]
            assert await stream.recv() == b"kept"
            await stream.send_all(b"there")
            assert peer.recv(100) == b"there"
        async with await uringio.listen_tcp("127.0.0.1", 0) as listener:

            async def handler(stream: uringio.SocketStream) -> None:
                raise AssertionError(stream)

            first = scheduler.spawn(awaiting, listener.accept)
            await scheduler.checkpoint()
            for attempt in (
                listener.accept,
                listener.aclose,
                lambda: listener.serve(handler),
                lambda: listener.serve(handler, max_connections=1),
            ):
                assert elsewhere(other, attempt) == ["WrongThreadError"]
            async with await uringio.connect_tcp(*listener.local_address[:2]):
                await (await first.result()).aclose()  # type: ignore[attr-defined]

    scheduler.run(main)


def test_close_while_another_loop_runs_in_the_thread(scheduler: Scheduler) -> None:
    """A handle that outlived its loop is refused by the next one, and is told of when forgotten."""
    kept: list[uringio.Listener] = []

    async def first() -> None:
        kept.append(await uringio.listen_tcp("127.0.0.1", 0))

    async def second() -> None:
        with pytest.raises(WrongThreadError):
            await kept[0].aclose()
        with pytest.raises(WrongThreadError):
            await kept[0].accept()

    scheduler.run(first)
    scheduler.run(second)
    with pytest.raises(UsageError, match="no uringio loop"):
        kept[0].aclose()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        kept.clear()
        gc.collect()  # what was refused holds the handle in its traceback
    assert [one.category for one in caught] == [ResourceWarning]


def test_asyncio_that_is_not_ours() -> None:
    """On asyncio's own loop the calls say which loop they need."""

    async def main() -> None:
        with pytest.raises(UsageError, match=r"uringio\.aio"):
            await uringio.connect_tcp("127.0.0.1", 1)
        with pytest.raises(UsageError, match=r"uringio\.aio"):
            await uringio.sleep(0)
        with pytest.raises(UsageError, match=r"uringio\.aio"):
            await uringio.offload(int)

    asyncio.run(main())


def test_awaitables_of_another_loop_are_refused(backend: str) -> None:
    """A native task that awaits something of asyncio's is told so, and the loop goes on."""

    async def main() -> None:
        loop = asyncio.new_event_loop()
        try:
            with pytest.raises(TypeError, match="asyncio"):
                await loop.create_future()
        finally:
            loop.close()
        async with connected() as (near, far):
            await near.send_all(b"x")
            assert await far.recv() == b"x"

    uringio.run(main, backend=backend)


def test_memory_that_was_cut_before_the_await(scheduler: Scheduler, tmp_path: Path) -> None:
    """
    A call that was made with more bytes than there are when it is awaited is refused: it would send
    what lies behind them, or write over it.
    """

    async def main() -> None:
        size = 100_000
        async with with_peer() as (stream, peer), await open_file(tmp_path / "a", "wb+") as file:
            await file.write_all(bytes(size))

            def cut(call: Callable[[bytearray], Awaitable[object]]) -> Awaitable[object]:
                data = bytearray(size)
                op = call(data)
                del data[2:]
                return op

            for call in (
                stream.send_all,
                lambda data: file.write_at(0, data),
                lambda data: file.read_into_at(0, data),
            ):
                with pytest.raises(UsageError, match=r"100000 bytes .* cut to 2 before"):
                    await cut(call)
            await stream.send_all(bytearray(b"still fine"))
            assert peer.recv(100) == b"still fine"

    scheduler.run(main)


def test_numbers_that_are_none_are_refused_at_the_call(
    scheduler: Scheduler, tmp_path: Path
) -> None:
    """A fraction or a text in the place of a number is a TypeError, and no task waits for ever."""

    async def main() -> None:
        wrong: Any = 1.5
        text: Any = "80"
        nothing: Any = None
        async with await open_file(tmp_path / "a", "wb+") as file:
            for call in (
                lambda: file.read_at(wrong, 1),
                lambda: file.write_at(wrong, b"x"),
                lambda: file.truncate(wrong),
                lambda: file.fallocate(0, wrong),
                lambda: file.fallocate(0, 1, wrong),
                lambda: open_file(tmp_path / "b", "wb", permissions=wrong),
            ):
                with pytest.raises(TypeError, match="'float' object cannot be interpreted"):
                    call()
        async with await uringio.open_udp(("127.0.0.1", 0)) as udp:
            with pytest.raises(TypeError, match="a port is an int from 0 to 65535, not '80'"):
                udp.send_to(b"x", ("127.0.0.1", text))
            with pytest.raises(ValueError, match=r"no numeric IPv4 address; resolve\(\) finds"):
                udp.send_to(b"x", ("localhost", 80))
        for connect in (uringio.connect_tcp, uringio.listen_tcp):
            with pytest.raises(TypeError, match="a port is an int from 0 to 65535, not '80'"):
                await connect("127.0.0.1", text)
            with pytest.raises(TypeError, match=r"a host is a str, .*, not None"):
                await connect(nothing, 80)

    scheduler.run(main)
