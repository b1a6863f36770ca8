"""`Listener.serve`: handlers in isolation, limits, exhaustion, and its end."""

import errno
import logging
import socket
import subprocess
import sys
import textwrap

import pytest

import uringio
from tests.fresh import FreshPython
from tests.surface.pairs import call, receive_all, reset
from tests.surface.schedulers import Gate, Scheduler, with_tests
from uringio import SocketStream


async def echo(stream: SocketStream) -> None:
    while data := await stream.recv():
        await stream.send_all(data)


async def still_serves(listener: uringio.Listener) -> None:
    """Check that a new connection is echoed."""
    async with await uringio.connect_tcp(*listener.local_address[:2]) as client:
        await client.send_all(b"ping")
        assert await client.recv_exactly(4) == b"ping"


def test_a_task_per_connection(scheduler: Scheduler) -> None:
    """Connections are served at the same time, and each is closed when its handler has ended."""

    async def main() -> None:
        async with await uringio.listen_tcp("127.0.0.1", 0) as listener:
            serving = scheduler.spawn(listener.serve, echo)
            clients = [await uringio.connect_tcp(*listener.local_address[:2]) for _ in range(100)]
            for number, client in enumerate(clients):
                await client.send_all(b"%d" % number)
            for number, client in reversed(list(enumerate(clients))):
                assert await client.recv() == b"%d" % number
                await client.send_eof()
                assert await client.recv() == b""
                await client.aclose()
            serving.cancel()
            assert (await serving.wait()).cancelled

    scheduler.run(main)


@pytest.mark.parametrize(
    "error",
    [
        ConnectionResetError(104, "by the handler"),
        BrokenPipeError(),
        uringio.EndOfStreamError(5, b""),
        TimeoutError(),
        ExceptionGroup("both", [ConnectionResetError(), BrokenPipeError()]),
        ExceptionGroup("outer", [ExceptionGroup("inner", [ConnectionAbortedError()])]),
    ],
    ids=repr,
)
def test_connection_errors_are_quiet(
    scheduler: Scheduler, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    """A peer that goes away ends its own connection and is nobody's news."""
    if isinstance(error, TimeoutError):
        from uringio.errors import op_error

        error = op_error(errno.ETIMEDOUT, "recv", 5)  # as of a keep-alive that failed

    async def main() -> None:
        async with await uringio.listen_tcp("127.0.0.1", 0) as listener:
            raised = False

            async def handler(stream: SocketStream) -> None:
                nonlocal raised
                if not raised:
                    raised = True
                    raise error
                await echo(stream)

            serving = scheduler.spawn(listener.serve, handler)
            client = call(listener)
            await scheduler.until(lambda: raised)
            await still_serves(listener)
            assert receive_all(client) == b""
            client.close()
            serving.cancel()
            await serving.wait()

    with caplog.at_level(logging.DEBUG, "uringio"):
        scheduler.run(main)
    assert caplog.records == []


def test_a_reset_peer_is_quiet(scheduler: Scheduler, caplog: pytest.LogCaptureFixture) -> None:
    """A real reset in the middle of a handler's work, likewise."""

    async def main() -> None:
        async with await uringio.listen_tcp("127.0.0.1", 0) as listener:
            ended = Gate()

            async def handler(stream: SocketStream) -> None:
                try:
                    await echo(stream)
                finally:
                    ended.open()

            serving = scheduler.spawn(listener.serve, handler)
            client = call(listener)
            client.sendall(b"x")
            assert await uringio.offload(client.recv, 1) == b"x"
            reset(client)
            await ended.wait()
            await still_serves(listener)
            serving.cancel()
            await serving.wait()

    scheduler.run(main)
    assert caplog.records == []


@pytest.mark.parametrize(
    "error",
    [
        ValueError("a bug"),
        FileNotFoundError(2, "no file"),
        TimeoutError("a timeout of the handler's own"),
        ExceptionGroup("mixed", [ConnectionResetError(), KeyError("k")]),
    ],
    ids=repr,
)
def test_other_errors_are_logged(
    scheduler: Scheduler, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    """A handler's bug is logged with its traceback, closes its connection, and no other."""

    async def main() -> None:
        async with await uringio.listen_tcp("127.0.0.1", 0) as listener:
            raised = False

            async def handler(stream: SocketStream) -> None:
                nonlocal raised
                if not raised:
                    raised = True
                    raise error
                await echo(stream)

            serving = scheduler.spawn(listener.serve, handler)
            client = call(listener)
            await scheduler.until(lambda: raised)
            await still_serves(listener)
            assert receive_all(client) == b""
            client.close()
            serving.cancel()
            await serving.wait()

    scheduler.run(main)
    (record,) = caplog.records
    assert (record.name, record.levelno) == ("uringio", logging.ERROR)
    assert record.exc_info is not None
    assert record.exc_info[1] is error


def test_other_errors_go_to_the_hook(
    scheduler: Scheduler, caplog: pytest.LogCaptureFixture
) -> None:
    """The hook gets the error and the stream while it is still open, and nothing is logged."""
    heard: list[tuple[Exception, object]] = []

    async def main() -> None:
        async with await uringio.listen_tcp("127.0.0.1", 0) as listener:

            async def handler(stream: SocketStream) -> None:
                if not heard:
                    raise ValueError("a bug")
                await echo(stream)

            def on_error(error: Exception, stream: SocketStream) -> None:
                heard.append((error, stream.remote_address))
                assert stream.fileno() >= 0

            serving = scheduler.spawn(lambda: listener.serve(handler, on_error=on_error))
            client = call(listener)
            await scheduler.until(lambda: bool(heard))
            assert str(heard[0][0]) == "a bug"
            assert heard[0][1] == client.getsockname()
            client.close()
            await still_serves(listener)
            serving.cancel()
            await serving.wait()

    scheduler.run(main)
    assert caplog.records == []


def test_a_failing_hook_does_not_end_the_server(
    scheduler: Scheduler, caplog: pytest.LogCaptureFixture
) -> None:
    """What the hook itself raises is logged, and the server goes on."""

    async def main() -> None:
        async with await uringio.listen_tcp("127.0.0.1", 0) as listener:
            count = 0

            async def handler(stream: SocketStream) -> None:
                nonlocal count
                count += 1
                if count == 1:
                    raise ValueError("a bug")
                await echo(stream)

            def on_error(error: Exception, stream: SocketStream) -> None:
                raise KeyError(error, stream)

            serving = scheduler.spawn(lambda: listener.serve(handler, on_error=on_error))
            client = call(listener)
            await scheduler.until(lambda: count == 1)
            await still_serves(listener)
            assert receive_all(client) == b""
            client.close()
            serving.cancel()
            await serving.wait()

    scheduler.run(main)
    assert [record.getMessage().partition(" for ")[0] for record in caplog.records] == [
        "on_error failed"
    ]


def test_handler_that_closes_its_stream_itself(scheduler: Scheduler) -> None:
    """Closing twice, once by each, is no error; nor is a handler that is done at once."""

    async def main() -> None:
        async with await uringio.listen_tcp("127.0.0.1", 0) as listener:

            async def handler(stream: SocketStream) -> None:
                async with stream:
                    await stream.send_all(b"bye")

            serving = scheduler.spawn(listener.serve, handler)
            for _ in range(3):
                client = call(listener)
                assert await uringio.offload(receive_all, client) == b"bye"
                client.close()
            serving.cancel()
            await serving.wait()

    scheduler.run(main)


@pytest.mark.parametrize("limit", [1, 3])
def test_max_connections(scheduler: Scheduler, limit: int) -> None:
    """No more handlers than that run at once; whoever waits is served when one ends."""

    async def main() -> None:
        async with await uringio.listen_tcp("127.0.0.1", 0) as listener:
            now = most = done = 0

            async def handler(stream: SocketStream) -> None:
                nonlocal now, most, done
                now += 1
                most = max(most, now)
                await stream.recv()
                now -= 1
                done += 1

            serving = scheduler.spawn(lambda: listener.serve(handler, max_connections=limit))
            clients = [call(listener) for _ in range(10)]
            await scheduler.until(lambda: now == limit)
            for _ in range(20):
                await scheduler.checkpoint()
            assert now == limit
            for client in clients:
                client.close()
            await scheduler.until(lambda: done == 10)
            assert most == limit
            serving.cancel()
            await serving.wait()

    scheduler.run(main)


@pytest.mark.parametrize("limit", [None, 1])
def test_cancelling_waits_for_the_handlers(scheduler: Scheduler, limit: int | None) -> None:
    """When `serve` has ended, every handler has, its cleaning up included, and every stream."""

    async def main() -> None:
        async with await uringio.listen_tcp("127.0.0.1", 0) as listener:
            entered, seen = 0, []

            async def handler(stream: SocketStream) -> None:
                nonlocal entered
                entered += 1
                try:
                    await stream.recv()
                finally:
                    seen.append(stream)

            serving = scheduler.spawn(lambda: listener.serve(handler, max_connections=limit))
            clients = [call(listener) for _ in range(3)]
            await scheduler.until(lambda: entered == (limit or 3))
            serving.cancel()
            assert (await serving.wait()).cancelled
            assert len(seen) == entered
            assert all("closed" in repr(stream) for stream in seen)
            for client in clients[:entered]:
                assert receive_all(client) == b""
            for client in clients:
                client.close()

    scheduler.run(main)


def test_cancelling_at_the_moment_of_a_connection(scheduler: Scheduler) -> None:
    """
    A connection that is accepted in the pass in which `serve` is cancelled is closed, not lost.

    By the leak check, and by the client's seeing the end.
    """

    async def main() -> None:
        for passes in range(6):
            async with await uringio.listen_tcp("127.0.0.1", 0) as listener:
                serving = scheduler.spawn(listener.serve, echo)
                await scheduler.checkpoint()
                clients = [call(listener) for _ in range(3)]
                for _ in range(passes):
                    await scheduler.checkpoint()
                serving.cancel()
                assert (await serving.wait()).cancelled
            for client in clients:
                try:
                    assert receive_all(client) == b""
                except ConnectionResetError:
                    pass  # it was still in the queue of the listener
                client.close()

    scheduler.run(main)


def test_errors_of_accepting(scheduler: Scheduler, monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection that broke in the queue is passed over; an error for good ends `serve` bare."""
    from uringio.errors import op_error
    from uringio.net import Listener

    async def main() -> None:
        async with await uringio.listen_tcp("127.0.0.1", 0) as listener:
            answers = [errno.ECONNABORTED, errno.EPROTO, errno.EMFILE, None, errno.EBADF]
            accept = Listener.accept

            def scripted(self: Listener) -> object:
                number = answers.pop(0)
                if number is None:
                    return accept(self)

                async def fail() -> None:
                    raise op_error(number, "accept", 5)

                return fail()

            monkeypatch.setattr(Listener, "accept", scripted)
            with call(listener) as client:
                with pytest.raises(OSError, match="accept") as caught:
                    await listener.serve(echo)
                assert caught.value.errno == errno.EBADF
                assert answers == []
                assert receive_all(client) == b""

    scheduler.run(main)


def test_exit_of_a_handler_ends_the_server(scheduler: Scheduler) -> None:
    """SystemExit out of a handler is for the program, as it is."""

    async def main() -> None:
        async with await uringio.listen_tcp("127.0.0.1", 0) as listener:

            async def handler(_: SocketStream) -> None:
                raise SystemExit(3)

            with call(listener):
                await listener.serve(handler)

    with pytest.raises(SystemExit) as caught:
        scheduler.run(main)
    assert caught.value.code == 3


# A server under a low limit of descriptors, in a process of its own: more clients come than it can
# take, then nothing happens while the driver's turns are counted, then the clients go one by one.
STORM_SERVER = """
    import os, resource, sys
    import uringio
    from tests.surface import schedulers
    from uringio._driver import current

    def exhausted():
        try:
            os.close(os.dup(0))
        except OSError:
            return True

    async def main():
        handled = 0

        async def handler(stream):
            nonlocal handled
            handled += 1
            await stream.send_all(b"hello")
            await stream.recv()

        await uringio.offload(int)  # whatever is opened late is open now
        async with await uringio.listen_tcp("127.0.0.1", 0) as listener:
            print(listener.local_address[1], flush=True)
            resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40))
            serving = scheduler.spawn(listener.serve, handler)
            while not exhausted():
                await uringio.sleep(0.01)
            statistics = current.driver().statistics
            turns = statistics().turns
            await uringio.sleep(1)
            print(handled, statistics().turns - turns, flush=True)
            await uringio.offload(sys.stdin.readline)
            serving.cancel()
            assert (await serving.wait()).cancelled
            print(handled)

    scheduler = schedulers.make(*sys.argv[1:3])
    scheduler.run(main)
"""


def test_running_out_of_descriptors(scheduler: Scheduler) -> None:
    """
    A storm of connections beyond RLIMIT_NOFILE: accepting pauses without spinning, and recovers.

    While it pauses it looks again every tenth of a second: two or three turns of the driver each.
    """
    clients: list[socket.socket] = []
    with subprocess.Popen(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(STORM_SERVER), scheduler.name,
         scheduler.backend],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=FreshPython.environment(with_tests()),
    ) as server:  # fmt: skip
        assert server.stdin is not None
        assert server.stdout is not None
        try:
            port = int(server.stdout.readline())
            clients.extend(
                socket.create_connection(("127.0.0.1", port), timeout=50) for _ in range(100)
            )
            handled, turns = map(int, server.stdout.readline().split())
            assert 10 < handled < 40
            assert turns < 60
            for client in clients:
                # Those at the end of the queue are greeted as those before them leave.
                assert client.recv(5) == b"hello"
                client.close()
            server.stdin.write("\n")
            server.stdin.flush()
            assert server.stdout.read() == "100\n"
            assert server.wait(50) == 0
        finally:
            server.kill()
            for client in clients:
                client.close()


def test_serve_on_unix(scheduler: Scheduler, tmp_path: object) -> None:
    """Unix listeners serve like TCP ones."""

    async def main() -> None:
        async with await uringio.listen_unix(f"{tmp_path}/socket") as listener:
            serving = scheduler.spawn(listener.serve, echo)
            async with await uringio.connect_unix(f"{tmp_path}/socket") as client:
                await client.send_all(b"ping")
                assert await client.recv_exactly(4) == b"ping"
            serving.cancel()
            await serving.wait()

    scheduler.run(main)
