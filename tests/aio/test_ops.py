"""
uringio's own operations in asyncio tasks: what asyncio does with awaitables, it does with them.
"""

import asyncio
import contextvars
import gc
import socket
import threading
import weakref
from collections.abc import Callable
from pathlib import Path

import pytest

import uringio
from tests.aio.conftest import Run
from tests.aio.waiting import passes, until
from uringio.errors import BusyError, ClosedError, UsageError, WrongThreadError


async def pair() -> tuple[uringio.SocketStream, uringio.SocketStream]:
    """Connect two streams to each other."""
    async with await uringio.listen_tcp("127.0.0.1", 0) as listener:
        accepting = asyncio.create_task(accept(listener))
        ours = await uringio.connect_tcp(*listener.local_address[:2])  # type: ignore[misc]
        return ours, await accepting


async def accept(listener: uringio.Listener) -> uringio.SocketStream:
    """Accept, as a coroutine for a task."""
    return await listener.accept()


async def receive(stream: uringio.SocketStream) -> bytes:
    """Receive, as a coroutine for a task."""
    return await stream.recv()


def test_the_echo_program(run: Run[None]) -> None:
    """The README's echo server, its main awaited on this loop, serves until cancelled."""

    async def echo(stream: uringio.SocketStream) -> None:
        async with stream:
            while data := await stream.recv():
                await stream.send_all(data)

    addresses: list[tuple[str, int]] = []

    async def program() -> None:
        async with await uringio.listen_tcp("127.0.0.1", 0) as listener:
            addresses.append(listener.local_address)  # type: ignore[arg-type]
            await listener.serve(echo)

    async def main() -> None:
        serving = asyncio.create_task(program())
        await until(lambda: addresses)
        streams = [await uringio.connect_tcp(*addresses[0]) for _ in range(20)]
        for number, stream in enumerate(streams):
            await stream.send_all(b"%d" % number)
        for number, stream in enumerate(streams):
            assert await stream.recv() == b"%d" % number
        for stream in streams[:10]:
            await stream.aclose()
        serving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await serving
        for stream in streams[10:]:
            assert await stream.recv() == b""
            await stream.aclose()

    run(main())


def test_asyncio_streams_and_ours_talk(run: Run[None]) -> None:
    """A Protocol server serves a uringio stream, and a uringio listener an asyncio client."""

    async def main() -> None:
        async def shout(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while line := await reader.readline():
                writer.write(line.upper())
            writer.close()

        async with await asyncio.start_server(shout, "127.0.0.1", 0) as server:
            stream = await uringio.connect_tcp(*server.sockets[0].getsockname())
            await stream.send_all(b"hello\n")
            assert await stream.recv_exactly(6) == b"HELLO\n"
            await stream.send_eof()
            assert await stream.recv() == b""
            await stream.aclose()

    run(main())


def test_sleep_offload_and_files(run: Run[None], tmp_path: Path) -> None:
    """The clock, worker threads and files work in tasks, together by gather."""
    from uringio.files import open_file

    path = tmp_path / "file"
    path.write_bytes(b"contents")
    variable: contextvars.ContextVar[int] = contextvars.ContextVar("variable")

    async def main() -> None:
        loop = asyncio.get_running_loop()
        variable.set(42)
        before = loop.time()
        await uringio.sleep(0.01)
        assert loop.time() - before >= 0.01
        assert await uringio.offload(variable.get) == 42
        assert await uringio.offload(threading.get_ident) != threading.get_ident()
        with pytest.raises(ZeroDivisionError):
            await uringio.offload(lambda: 1 // 0)
        async with await open_file(path) as file:
            pieces = await asyncio.gather(*(file.read_at(offset, 1) for offset in range(8)))
        assert b"".join(pieces) == b"contents"
        with pytest.raises(FileNotFoundError):
            await open_file(tmp_path / "nothing")

    run(main())


def test_gather_of_operations(run: Run[None]) -> None:
    """Gather takes operations as they are, with results in order, errors, and errors as results."""

    async def main() -> None:
        ours, theirs = await pair()
        results = await asyncio.gather(
            ours.recv(), theirs.send_all(b"x"), uringio.sleep(0.001), uringio.offload(lambda: 7)
        )
        assert results == [b"x", None, None, 7]

        def fail() -> None:
            raise ValueError("on purpose")

        with pytest.raises(ValueError, match="on purpose"):
            await asyncio.gather(uringio.sleep(0.001), uringio.offload(fail))
        results = await asyncio.gather(
            uringio.offload(fail), uringio.sleep(0), return_exceptions=True
        )
        assert isinstance(results[0], ValueError)
        await uringio.sleep(0.002)  # the one that the failed gather left behind
        op = uringio.offload(lambda: 5)
        assert await asyncio.gather(op, op) == [5, 5]
        await ours.aclose()
        await theirs.aclose()

    run(main())


def test_cancelled_gather_cancels_its_operations(run: Run[None]) -> None:
    """Cancelling a gather cancels every operation in it; no byte is lost."""

    async def main() -> None:
        ours, theirs = await pair()

        async def both() -> None:
            await asyncio.gather(ours.recv(), theirs.recv(), uringio.sleep(3600))

        task = asyncio.create_task(both())
        await passes(3)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        results = await asyncio.gather(
            ours.recv(), theirs.recv(), ours.send_all(b"a"), theirs.send_all(b"b")
        )
        assert results[:2] == [b"b", b"a"]

        async def patient() -> list[object]:
            return await asyncio.gather(ours.recv(), uringio.sleep(3600), return_exceptions=True)

        patient_task = asyncio.create_task(patient())
        await passes(3)
        patient_task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await patient_task
        await ours.aclose()
        await theirs.aclose()

    run(main())


def test_shielded_operation_goes_on(run: Run[None]) -> None:
    """A shielded operation survives the cancellation of who waits for it, and keeps its result."""

    async def main() -> None:
        ours, theirs = await pair()
        op = ours.recv()

        async def shielded() -> bytes:
            return await asyncio.shield(op)

        task = asyncio.create_task(shielded())
        await passes(3)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not op.done()
        await theirs.send_all(b"kept")
        await until(op.done)
        assert op.result() == b"kept"
        assert await asyncio.shield(uringio.offload(lambda: 3)) == 3
        await ours.aclose()
        await theirs.aclose()

    run(main())


def test_timeouts_around_operations(run: Run[None]) -> None:
    """
    wait_for and timeout end an operation that takes too long, and leave one alone that does not.
    """

    async def main() -> None:
        ours, theirs = await pair()
        for seconds in (0, 0.001):
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(ours.recv(), seconds)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(seconds):
                    await ours.recv()
        await theirs.send_all(b"in time")
        assert await asyncio.wait_for(ours.recv(), 60) == b"in time"
        await theirs.send_all(b"again")
        async with asyncio.timeout(60):
            assert await ours.recv() == b"again"
        await ours.aclose()
        await theirs.aclose()

    run(main())


def test_task_group_with_operations(run: Run[None]) -> None:
    """A child that fails cancels its siblings' operations, and the group ends when they have."""

    async def main() -> None:
        ours, theirs = await pair()
        cancelled: list[str] = []

        async def wait(name: str) -> None:
            try:
                await (ours if name == "ours" else theirs).recv()
            except asyncio.CancelledError:
                cancelled.append(name)
                raise

        async def fail() -> None:
            await uringio.sleep(0.001)
            raise ValueError("on purpose")

        with pytest.raises(ExceptionGroup):
            async with asyncio.TaskGroup() as group:
                group.create_task(wait("ours"))
                group.create_task(wait("theirs"))
                group.create_task(fail())
        assert sorted(cancelled) == ["ours", "theirs"]
        await ours.aclose()
        await theirs.aclose()

    run(main())


def test_wait_and_as_completed(run: Run[None]) -> None:
    """asyncio.wait and as_completed take operations, which end and tell as futures do."""

    async def main() -> None:
        quick, slow = uringio.offload(lambda: 1), uringio.sleep(3600)
        done, pending = await asyncio.wait(
            [quick, slow],  # type: ignore[type-var]  # a future by its protocol
            return_when=asyncio.FIRST_COMPLETED,
        )
        assert done == {quick}
        assert pending == {slow}
        assert quick.result() == 1
        assert quick.exception() is None
        assert slow.cancel()
        await until(slow.done)
        assert slow.cancelled()
        assert not slow.cancel()
        with pytest.raises(asyncio.CancelledError):
            slow.result()
        with pytest.raises(asyncio.CancelledError):
            slow.exception()
        first, second = uringio.offload(lambda: 2), uringio.offload(lambda: 3)
        found = {await one for one in asyncio.as_completed([first, second])}
        assert found == {2, 3}

    run(main())


def test_every_done_callback_is_called(run: Run[None]) -> None:
    """
    Callbacks of one operation run in order and in their contexts; a failing one stops no other.
    """
    variable = contextvars.ContextVar("variable", default="none")

    async def main() -> None:
        loop = asyncio.get_running_loop()
        reports: list[BaseException] = []
        handler = loop.get_exception_handler()
        loop.set_exception_handler(lambda _, context: reports.append(context["exception"]))
        seen: list[str] = []
        op = uringio.sleep(0.001)
        variable.set("copied")
        op.add_done_callback(lambda _: seen.append(variable.get()))
        variable.set("later")

        def fail(_: object) -> None:
            raise ValueError("on purpose")

        op.add_done_callback(fail)
        removed = seen.append
        op.add_done_callback(removed)  # type: ignore[arg-type]
        context = contextvars.Context()
        context.run(variable.set, "given")
        op.add_done_callback(lambda _: seen.append(variable.get()), context=context)
        assert op.remove_done_callback(removed) == 1  # type: ignore[arg-type]
        assert op.remove_done_callback(removed) == 0  # type: ignore[arg-type]
        await until(lambda: len(seen) == 2)
        assert seen == ["copied", "given"]
        assert [str(report) for report in reports] == ["on purpose"]
        late: list[object] = []
        op.add_done_callback(late.append)
        assert late == []
        await passes(2)
        assert late == [op]
        loop.set_exception_handler(handler)

    run(main())


def test_operation_tells_its_state(run: Run[None]) -> None:
    """Done, result and exception speak of a finished operation only; get_loop names the loop."""

    async def main() -> None:
        op = uringio.sleep(0.001)
        op.add_done_callback(lambda _: None)
        assert not op.done()
        assert not op.cancelled()
        with pytest.raises(UsageError, match="not finished"):
            op.result()
        with pytest.raises(UsageError, match="not finished"):
            op.exception()
        assert op.get_loop() is asyncio.get_running_loop()
        with pytest.raises(UsageError, match="once"):
            await op
        await until(op.done)
        op.result()

    run(main())


def test_operation_cancelled_before_it_starts(run: Run[None]) -> None:
    """Cancelling an operation that nobody has awaited starts and stops it."""

    async def main() -> None:
        ours, theirs = await pair()
        op = ours.recv()
        assert op.cancel("never mind")
        await until(op.done)
        assert op.cancelled()
        await theirs.send_all(b"x")
        assert await ours.recv() == b"x"
        await ours.aclose()
        await theirs.aclose()

    run(main())


def test_concurrent_readers_are_refused(run: Run[None]) -> None:
    """A second reader gets BusyError, and the first goes on undisturbed."""

    async def main() -> None:
        ours, theirs = await pair()
        reading = asyncio.create_task(receive(ours))
        await passes(2)
        with pytest.raises(BusyError):
            await ours.recv()
        await theirs.send_all(b"x")
        assert await reading == b"x"
        await ours.aclose()
        await theirs.aclose()

    run(main())


def test_closing_ends_a_reader(run: Run[None]) -> None:
    """A task that receives on a stream which another closes gets ClosedError."""

    async def main() -> None:
        ours, theirs = await pair()
        reading = asyncio.create_task(receive(ours))
        await passes(2)
        await ours.aclose()
        with pytest.raises(ClosedError):
            await reading
        with pytest.raises(ClosedError):
            await ours.recv()
        await theirs.aclose()

    run(main())


def test_operation_on_another_loops_handle_fails(
    make_loop: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    """
    A handle of one loop, used on another, fails the task that tries.

    asyncio's own loop says so in its words, ours in its own; neither hangs.
    """
    first, second = make_loop(), make_loop()
    ours, theirs = first.run_until_complete(pair())

    def elsewhere() -> None:
        with pytest.raises(WrongThreadError):
            second.run_until_complete(receive(ours))
        with pytest.raises(WrongThreadError):
            second.run_until_complete(asyncio.wait_for(receive(ours), 60))
        with pytest.raises(RuntimeError, match="different loop"):
            asyncio.run(receive(ours))

    thread_errors: list[BaseException] = []

    def caught() -> None:
        try:
            elsewhere()
        except BaseException as error:
            thread_errors.append(error)
        finally:
            second.close()

    thread = threading.Thread(target=caught)
    thread.start()
    thread.join()
    if thread_errors:
        raise thread_errors[0]

    async def close() -> None:
        await theirs.send_all(b"x")
        assert await ours.recv() == b"x"
        await ours.aclose()
        await theirs.aclose()

    first.run_until_complete(close())
    first.close()


def test_finished_tasks_are_let_go(run: Run[None]) -> None:
    """A stream's reused operation does not keep the last task that awaited it."""

    async def main() -> None:
        ours, theirs = await pair()
        task = asyncio.create_task(receive(ours))
        await theirs.send_all(b"x")
        assert await task == b"x"
        gone = weakref.ref(task)
        del task
        await passes(2)
        gc.collect()
        assert gone() is None
        await ours.aclose()
        await theirs.aclose()

    run(main())


def test_connection_that_nobody_took_is_closed(run: Run[None]) -> None:
    """An accept whose awaiter has left leaves no descriptor behind."""

    async def main() -> None:
        async with await uringio.listen_tcp("127.0.0.1", 0) as listener:
            # The second accept has an operation of its own, which nobody will keep.
            first = asyncio.create_task(accept(listener))
            await passes(2)

            async def shielded() -> None:
                await asyncio.shield(listener.accept())

            second = asyncio.create_task(shielded())
            await passes(2)
            second.cancel()
            with pytest.raises(asyncio.CancelledError):
                await second
            with (
                socket.create_connection(listener.local_address) as one,  # type: ignore[arg-type]
                socket.create_connection(listener.local_address) as two,  # type: ignore[arg-type]
            ):
                stream = await first
                await stream.aclose()
                await passes(5)
                gc.collect()
                for peer in (one, two):
                    assert peer.recv(1) == b""

    run(main())


def test_serving_isolates_its_handlers(run: Run[None], caplog: pytest.LogCaptureFixture) -> None:
    """Under asyncio too, a handler that fails is logged and ends its own connection only."""

    async def handler(stream: uringio.SocketStream) -> None:
        data = await stream.recv()
        if data == b"fail":
            raise ValueError("on purpose")
        await stream.send_all(data)

    async def main() -> None:
        async with await uringio.listen_tcp("127.0.0.1", 0) as listener:
            serving = asyncio.create_task(listener.serve(handler))
            for data, answer in ((b"ok", b"ok"), (b"fail", b""), (b"still", b"still")):
                stream = await uringio.connect_tcp(*listener.local_address[:2])  # type: ignore[misc]
                await stream.send_all(data)
                assert await stream.recv() == answer
                await stream.aclose()
            serving.cancel()
            with pytest.raises(asyncio.CancelledError):
                await serving

    run(main())
    assert "on purpose" in caplog.text
