"""Loops that are made in one thread and run in others, closed from elsewhere, and forked."""

import asyncio
import gc
import os
import socket
import threading
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeVar

import pytest

import uringio
from tests.aio.protocols import Diary, Echo
from tests.aio.test_ops import pair, receive
from tests.aio.waiting import passes
from tests.fresh import FreshPython
from uringio.errors import RingForkedError, WrongThreadError

T = TypeVar("T")


def in_thread(function: Callable[[], T]) -> T:
    """Call *function* in a thread that ends after it; return or raise what it does."""
    results: list[T] = []
    errors: list[BaseException] = []

    def call() -> None:
        try:
            results.append(function())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return results[0]


async def conversation() -> bytes:
    """Use everything for a moment: operations, a server, a timer, an executor."""
    ours, theirs = await pair()
    await ours.send_all(b"x")
    data = await theirs.recv()
    await ours.aclose()
    await theirs.aclose()
    loop = asyncio.get_running_loop()
    servant = Echo()
    server = await loop.create_server(lambda: servant, "127.0.0.1", 0)
    transport, client = await loop.create_connection(Diary, *server.sockets[0].getsockname())
    transport.write(data)
    data = await client.until_received(1)
    transport.close()
    await client.lost
    await servant.lost  # for which wait_closed does not wait before Python 3.12
    server.close()
    await server.wait_closed()
    await uringio.sleep(0)
    await asyncio.sleep(0)
    return data


def run_conversation(loop: asyncio.AbstractEventLoop) -> bytes:
    """Run `conversation` on *loop*."""
    return loop.run_until_complete(conversation())


def test_made_here_run_elsewhere_run_again_in_a_third(
    loop: asyncio.AbstractEventLoop,
) -> None:
    """
    A loop runs in whatever thread runs it, one after another, and is closed where it was made.
    """
    for _ in range(5):
        # Each thread ends before the next begins, so they may well share their number.
        assert in_thread(lambda: loop.run_until_complete(conversation())) == b"x"
    assert loop.run_until_complete(conversation()) == b"x"
    assert in_thread(lambda: loop.run_until_complete(conversation())) == b"x"


def test_run_in_turns_by_two_living_threads(loop: asyncio.AbstractEventLoop) -> None:
    """Two threads, both alive all the time, take turns in running the loop."""
    turns = [threading.Semaphore(1), threading.Semaphore(0)]
    answers: list[bytes] = []

    def work(index: int) -> None:
        for _ in range(3):
            turns[index].acquire()
            answers.append(loop.run_until_complete(conversation()))
            turns[1 - index].release()

    threads = [threading.Thread(target=work, args=(index,)) for index in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [b"x"] * 6


def test_run_elsewhere_with_operations_in_flight_is_refused(
    loop: asyncio.AbstractEventLoop,
) -> None:
    """While an operation is in flight the loop stays with its thread, and still works there."""

    async def begin() -> tuple[uringio.SocketStream, uringio.SocketStream, asyncio.Task[bytes]]:
        ours, theirs = await pair()
        reading = loop.create_task(receive(ours))
        await passes(3)
        return ours, theirs, reading

    ours, theirs, reading = loop.run_until_complete(begin())

    def run_elsewhere() -> None:
        with pytest.raises(WrongThreadError, match="in flight"):
            loop.run_forever()

    in_thread(run_elsewhere)

    async def end() -> None:
        await theirs.send_all(b"x")
        assert await reading == b"x"
        await ours.aclose()
        await theirs.aclose()

    loop.run_until_complete(end())
    assert in_thread(lambda: loop.run_until_complete(conversation())) == b"x"


def test_handles_stay_with_their_driver(loop: asyncio.AbstractEventLoop) -> None:
    """A stream that was idle when its loop moved to another thread says what is wrong there."""
    streams = list(loop.run_until_complete(pair()))

    def elsewhere() -> None:
        with pytest.raises(WrongThreadError):
            loop.run_until_complete(receive(streams[0]))

    in_thread(elsewhere)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        streams.clear()
        gc.collect()
    assert {warning.category for warning in caught} == {ResourceWarning}


def test_closed_from_another_thread(make_loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
    """A loop that ran elsewhere and has nothing in flight is closed here, with all it had."""
    for _ in range(5):
        loop = make_loop()
        assert in_thread(partial(run_conversation, loop)) == b"x"
        loop.close()
        assert loop.is_closed()


def test_stopped_from_outside_and_closed_here(
    make_loop: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    """The common way of a loop in a thread: run_forever there, stop, join and close here."""
    loop = make_loop()
    started = threading.Event()

    def work() -> None:
        loop.call_soon(started.set)
        loop.run_forever()

    thread = threading.Thread(target=work)
    thread.start()
    started.wait()
    answer = asyncio.run_coroutine_threadsafe(conversation(), loop).result(50)
    assert answer == b"x"
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


def test_closed_with_operations_in_flight(
    make_loop: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    """Closing in the loop's own thread ends what is in flight, without a word from the driver."""
    loop = make_loop()

    async def begin() -> tuple[uringio.SocketStream, uringio.SocketStream]:
        ours, theirs = await pair()
        reading = ours.recv()
        reading.add_done_callback(lambda _: None)
        loop.call_later(3600, print)
        await passes(2)
        return ours, theirs

    streams = loop.run_until_complete(begin())
    loop.close()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        del streams
        gc.collect()
    assert {str(warning.message)[:8] for warning in caught} == {"a stream"}


def test_transports_and_servers_closed_behind_their_loop(
    make_loop: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    """What is closed behind its loop lets go of its descriptor, and says nothing."""
    loop = make_loop()

    async def begin() -> tuple[asyncio.Transport, asyncio.Transport, asyncio.Server]:
        server = await loop.create_server(Diary, "127.0.0.1", 0)
        address = server.sockets[0].getsockname()
        closed, _ = await loop.create_connection(Diary, *address)
        aborted, _ = await loop.create_connection(Diary, *address)
        return closed, aborted, server

    before = len(os.listdir("/proc/self/fd"))
    closed, aborted, server = loop.run_until_complete(begin())
    loop.close()
    assert len(os.listdir("/proc/self/fd")) > before
    with warnings.catch_warnings():
        warnings.simplefilter("error", ResourceWarning)
        server.close()
        closed.close()
        aborted.abort()
        for transport in (closed, aborted):
            assert transport.is_closing()
            transport.close()
            transport.abort()
    with warnings.catch_warnings():
        # The server's side, which nobody holds any more, warns.
        warnings.simplefilter("ignore", ResourceWarning)
        del server
        gc.collect()
    assert len(os.listdir("/proc/self/fd")) == before


def test_never_run_loop_holds_nothing(make_loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
    """A loop makes its driver when it first runs, so one that never ran has no descriptor."""
    before = set(os.listdir("/proc/self/fd"))
    loop = make_loop()
    assert set(os.listdir("/proc/self/fd")) == before
    loop.call_soon_threadsafe(loop.stop)
    loop.run_forever()
    assert set(os.listdir("/proc/self/fd")) > before
    loop.close()
    assert set(os.listdir("/proc/self/fd")) == before


def test_loops_in_many_threads_at_once(make_loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
    """Every thread has a loop of its own, all at the same time."""
    loops = [make_loop() for _ in range(6)]
    answers: list[bytes] = []

    def work(loop: asyncio.AbstractEventLoop) -> None:
        for _ in range(5):
            answers.append(loop.run_until_complete(conversation()))  # noqa: PERF401 - it shows
        loop.close()

    threads = [threading.Thread(target=work, args=(loop,)) for loop in loops]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [b"x"] * 30


def test_unclosed_loop_warns(backend: str) -> None:
    """A forgotten loop warns and is closed with its descriptors, which the fixture checks."""
    from uringio import aio

    loop = aio.new_event_loop(backend=backend)
    loop.run_until_complete(conversation())
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        del loop
        gc.collect()
    assert [warning.category for warning in caught] == [ResourceWarning]
    assert "unclosed event loop" in str(caught[0].message)


def test_loop_needs_no_policy(backend: str) -> None:
    """The loop sets nothing global: after a run there is no current loop."""
    from uringio import aio

    aio.run(conversation(), backend=backend)
    with pytest.raises(RuntimeError):
        asyncio.get_running_loop()


def forked(child: Callable[[], object]) -> int:
    """Call *child* in a forked process that ends after it; return its exit status."""
    with warnings.catch_warnings():
        # Python 3.12 warns of forking beside threads; there are none here.
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid == 0:
        status = 1
        try:
            child()
            status = 0
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_fork_in_the_middle_of_io(
    loop: asyncio.AbstractEventLoop, backend: str, tmp_path: Path
) -> None:
    """
    A child forked in a callback can use nothing of its parent's loop, and says so.

    It can close what it has inherited, which is closed there alone, and run a loop of its own; its
    parent does not notice.
    """
    from uringio import aio

    async def main() -> None:
        ours, theirs = await pair()
        reading = loop.create_task(receive(ours))
        server = await loop.create_server(Echo, "127.0.0.1", 0)
        path = str(tmp_path / "server")
        unix_server = await loop.create_unix_server(Echo, path)
        transport, client = await loop.create_connection(Diary, *server.sockets[0].getsockname())
        transport.write(b"before")
        await client.until_received(6)

        def child() -> None:
            with pytest.raises(RingForkedError):
                transport.write(b"from the child")
            with pytest.raises(RingForkedError):
                reading.cancel()
            fd = transport.get_extra_info("socket").fileno()
            transport.close()
            assert transport.is_closing()
            with pytest.raises(OSError, match="Bad file descriptor"):
                os.fstat(fd)
            unix_server.close()
            assert os.path.exists(path)
            loop.call_soon_threadsafe(print)
            assert aio.run(conversation(), backend=backend) == b"x"

        assert forked(child) == 0
        transport.write(b"after")
        assert await client.until_received(11) == b"beforeafter"
        await theirs.send_all(b"data")
        assert await reading == b"data"
        transport.close()
        await client.lost
        server.close()
        await server.wait_closed()
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(b"x")
        assert await reader.readexactly(1) == b"x"
        writer.close()
        await writer.wait_closed()
        unix_server.close()
        await unix_server.wait_closed()
        await ours.aclose()
        await theirs.aclose()

    loop.run_until_complete(main())


def test_forked_child_that_goes_on_running_is_told(
    loop: asyncio.AbstractEventLoop,
) -> None:
    """A child that returns into its parent's loop leaves it with RingForkedError."""
    loop.run_until_complete(conversation())

    def child() -> None:
        with pytest.raises(RingForkedError):
            loop.run_until_complete(asyncio.sleep(3600))

    assert forked(child) == 0
    assert loop.run_until_complete(conversation()) == b"x"

    async def fork_within() -> None:
        pid = os.fork()
        if pid:
            status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            assert status == 33
            return
        children.append(True)
        await uringio.sleep(0)

    children: list[bool] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        try:
            loop.run_until_complete(fork_within())
        except BaseException as error:
            if children:
                os._exit(33 if isinstance(error, RingForkedError) else 34)
            raise
        if children:
            os._exit(35)
    assert loop.run_until_complete(conversation()) == b"x"


def test_multiprocessing_by_fork(loop: asyncio.AbstractEventLoop, backend: str) -> None:
    """A process pool of forked workers, each with a loop of its own, serves an executor."""
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor

    async def main() -> None:
        context = multiprocessing.get_context("fork")
        with ProcessPoolExecutor(2, mp_context=context) as pool:
            answers = await asyncio.gather(
                *(loop.run_in_executor(pool, converse, backend) for _ in range(4))
            )
        assert answers == [b"x"] * 4

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        loop.run_until_complete(main())


def converse(backend: str) -> bytes:
    """Run the conversation on a loop of this process."""
    from uringio import aio

    return aio.run(conversation(), backend=backend)


def test_debug_mode_of_the_interpreter(fresh_python: FreshPython, backend: str) -> None:
    """Under -X dev, warnings as errors, a whole program runs and leaves nothing behind."""
    fresh_python(
        """
        import asyncio, gc, sys
        import uringio, uringio.aio
        from uringio import aio

        async def echo(reader, writer):
            while data := await reader.read(100):
                writer.write(data)
                await writer.drain()
            writer.close()
            await writer.wait_closed()

        async def main():
            loop = asyncio.get_running_loop()
            assert loop.get_debug()
            server = await asyncio.start_server(echo, "127.0.0.1", 0)
            async with server:
                address = server.sockets[0].getsockname()
                reader, writer = await asyncio.open_connection(*address)
                stream = await uringio.connect_tcp(*address)
                writer.write(b"one")
                await stream.send_all(b"two")
                assert await reader.read(10) == b"one"
                assert await stream.recv() == b"two"
                await stream.aclose()
                writer.close()
                await writer.wait_closed()
            try:
                await asyncio.wait_for(uringio.sleep(3600), 0.001)
            except TimeoutError:
                pass

        aio.run(main(), backend=sys.argv[1])
        gc.collect()
        """,
        backend,
        options=("-X", "dev", "-W", "error"),
    ).check()


def test_threadsafe_calls_race_with_close(
    make_loop: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    """A thread that calls into a loop while it is closed gets RuntimeError, and harms nobody."""
    for _ in range(20):
        loop = make_loop()
        refused = threading.Event()

        def work(
            loop: asyncio.AbstractEventLoop = loop, refused: threading.Event = refused
        ) -> None:
            try:
                while True:
                    loop.call_soon_threadsafe(loop.stop)
            except RuntimeError:
                refused.set()

        thread = threading.Thread(target=work)
        loop.call_soon(thread.start)
        loop.run_forever()
        loop.close()
        # These have the numbers of what was closed; a late wake-up would be written to one of them.
        pairs = [socket.socketpair() for _ in range(4)]
        thread.join()
        assert refused.is_set()
        ends = [end for ends in pairs for end in ends]
        for end in ends:
            with pytest.raises(BlockingIOError):
                end.recv(1, socket.MSG_DONTWAIT)
        for end in ends:
            end.close()


def test_the_first_run_imports_nothing(fresh_python: FreshPython, backend: str) -> None:
    """A timer set before the first run is not late for what the loop had to import."""
    fresh_python(
        f"""
        import asyncio, sys
        from uringio.aio import new_event_loop

        loop = new_event_loop(backend={backend!r})
        known = set(sys.modules)
        loop.run_until_complete(asyncio.sleep(0))
        late = {{name for name in set(sys.modules) - known if name.startswith("uringio")}}
        loop.close()
        late -= {{"uringio._sys.kqueue_emulated", "uringio._sys.kqueue_sources"}}  # of tests alone
        assert not late, late
        """
    ).check()
