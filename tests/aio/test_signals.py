"""Signals: Ctrl-C under asyncio.Runner and without, and handlers on the loop."""

import asyncio
import os
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

import pytest

import uringio
from tests.aio.conftest import Run
from tests.aio.test_ops import pair, receive
from tests.aio.waiting import passes, until
from tests.fresh import FreshPython
from uringio._driver import current


def test_ctrl_c_cancels_the_main_task(make_loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
    """
    SIGINT under asyncio.Runner cancels main, whatever it waits for, and raises KeyboardInterrupt.
    """

    def interrupt_soon() -> None:
        asyncio.get_running_loop().call_later(0.005, os.kill, os.getpid(), signal.SIGINT)

    async def nap() -> None:
        interrupt_soon()
        await uringio.sleep(3600)

    async def read() -> None:
        ours, theirs = await pair()
        try:
            interrupt_soon()
            await ours.recv()
        finally:
            await ours.aclose()
            await theirs.aclose()

    async def future() -> None:
        interrupt_soon()
        await asyncio.get_running_loop().create_future()

    async def timer() -> None:
        interrupt_soon()
        await asyncio.sleep(3600)

    for body in (nap, read, future, timer):
        ended: list[type[BaseException]] = []

        async def main(
            body: Callable[[], object] = body, ended: list[type[BaseException]] = ended
        ) -> None:
            try:
                await body()  # type: ignore[misc]
            except BaseException as error:
                ended.append(type(error))
                raise

        with asyncio.Runner(loop_factory=make_loop) as runner, pytest.raises(KeyboardInterrupt):
            runner.run(main())
        assert ended == [asyncio.CancelledError]
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_ctrl_c_from_another_process_wakes_a_waiting_loop(
    fresh_python: FreshPython, backend: str
) -> None:
    """
    A loop that waits in the kernel for nothing is ended by a SIGINT from outside, and cleans up.
    """
    process = subprocess.Popen(
        [
            sys.executable,
            "-W",
            "error",
            "-c",
            """
import asyncio, functools, sys
import uringio
from uringio import aio

async def handler(stream):
    try:
        await stream.recv()
    finally:
        print("handler ended", flush=True)

async def main():
    try:
        async with await uringio.listen_tcp("127.0.0.1", 0) as listener:
            stream = await uringio.connect_tcp(*listener.local_address)
            say = functools.partial(print, "waiting", flush=True)
            asyncio.get_running_loop().call_later(0.01, say)
            async with stream:
                await listener.serve(handler)
    finally:
        print("main ended", flush=True)

try:
    aio.run(main(), backend=sys.argv[1])
except KeyboardInterrupt:
    print("interrupted", flush=True)
""",
            backend,
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=fresh_python.environment(),
        start_new_session=True,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "waiting\n"
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=50)
    finally:
        process.kill()
        process.wait()
    assert stderr == ""
    assert stdout.splitlines()[-3:] == ["handler ended", "main ended", "interrupted"]
    assert process.returncode == 0


def test_storm_of_interrupts_at_any_moment(fresh_python: FreshPython, backend: str) -> None:
    """
    Interrupts that strike a busy loop at arbitrary moments cancel main or end the run; afterwards
    the runner closes without a hang and the next one works.
    """
    run = fresh_python(
        """
        import asyncio, os, random, signal, sys, threading, time
        import uringio
        from uringio import aio

        async def echo(reader, writer):
            try:
                while data := await reader.read(100):
                    writer.write(data)
            finally:
                writer.close()

        async def client(address):
            reader, writer = await asyncio.open_connection(*address)
            try:
                while True:
                    writer.write(b"x")
                    await reader.readexactly(1)
            finally:
                writer.close()

        async def ours(address):
            async with await uringio.connect_tcp(*address) as stream:
                while True:
                    await stream.send_all(b"y")
                    await stream.recv_exactly(1)

        async def main():
            server = await asyncio.start_server(echo, "127.0.0.1", 0)
            async with server:
                address = server.sockets[0].getsockname()
                async with asyncio.TaskGroup() as group:
                    for _ in range(5):
                        group.create_task(client(address))
                        group.create_task(ours(address))
                    timer = threading.Timer(
                        random.uniform(0.001, 0.02), os.kill, (os.getpid(), signal.SIGINT)
                    )
                    timer.start()
                    await asyncio.sleep(3600)

        for _ in range(40):
            try:
                aio.run(main(), backend=sys.argv[1])
            except KeyboardInterrupt:
                continue
            raise AssertionError("not interrupted")
        print("fine")
        """,
        backend,
        timeout_s=50,
        options=("-X", "faulthandler"),
    ).check()
    assert run.stdout == "fine\n"


def test_interrupts_never_tear_a_submission(
    make_loop: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    """
    A SIGINT handler that cancels an operation, as asyncio.Runner's does, strikes at any call that
    the driver makes; no submission is torn by it, no byte is lost.
    """
    targets: list[asyncio.Task[None]] = []
    handled: list[int] = []

    def handler(number: int, _frame: object) -> None:
        handled.append(number)
        for target in targets:
            target.cancel()

    async def echo(stream: uringio.SocketStream) -> None:
        while data := await stream.recv():
            await stream.send_all(data)

    async def chat(address: tuple[str, int]) -> None:
        async with await uringio.connect_tcp(*address) as stream:
            for number in range(300):
                text = b"%08d" % number
                await stream.send_all(text)
                assert await stream.recv_exactly(8) == text

    async def victim(stream: uringio.SocketStream) -> None:
        while targets:
            with suppress(asyncio.CancelledError):
                await stream.recv()

    struck: list[str] = []

    def strike(frame: FrameType, event: str, _: object) -> None:
        """Do what the interpreter does when the signal is found pending at this place."""
        ours = frame.f_globals["__name__"].startswith("uringio._driver.")
        # Seldom enough that there is an operation to be cancelled again.
        if event == "c_return" and ours and random.random() < 0.05:
            struck.append(frame.f_code.co_name)
            interrupt(signal.SIGINT, frame)

    async def main() -> None:
        nonlocal interrupt
        async with await uringio.listen_tcp("127.0.0.1", 0) as listener:
            address = listener.local_address
            serving = asyncio.create_task(listener.serve(echo))
            stream = await uringio.connect_tcp(*address[:2])  # type: ignore[misc]
            targets.append(asyncio.create_task(victim(stream)))
            await passes(3)
            interrupt = signal.getsignal(signal.SIGINT)  # type: ignore[assignment]
            assert interrupt is not handler
            async with asyncio.TaskGroup() as group:
                for _ in range(5):
                    group.create_task(chat(address))  # type: ignore[arg-type]
                sys.setprofile(strike)
            sys.setprofile(None)
            target = targets.pop()
            assert not target.done()
            target.cancel()
            await target
            await stream.aclose()
            serving.cancel()
            await asyncio.wait([serving])
            assert current.driver().statistics().stray == 0

    interrupt: Callable[[int, FrameType | None], object] = handler
    with handler_kept(signal.SIGINT):
        signal.signal(signal.SIGINT, handler)
        try:
            with asyncio.Runner(loop_factory=make_loop) as runner:
                runner.run(main())
        finally:
            sys.setprofile(None)
    assert "submit" in struck
    assert len(handled) > 100


def test_ctrl_c_without_a_runner(loop: asyncio.AbstractEventLoop) -> None:
    """With Python's own handler SIGINT raises KeyboardInterrupt out of run_forever; runs go on."""
    for _ in range(20):
        killer = threading.Timer(0.001, os.kill, (os.getpid(), signal.SIGINT))
        loop.call_soon(killer.start)
        with pytest.raises(KeyboardInterrupt):
            loop.run_forever()
        killer.join()
    ours, theirs = loop.run_until_complete(pair())
    loop.run_until_complete(_send(ours, b"still works"))
    assert loop.run_until_complete(receive(theirs)) == b"still works"

    async def close() -> None:
        await ours.aclose()
        await theirs.aclose()

    loop.run_until_complete(close())


async def _send(stream: uringio.SocketStream, data: bytes) -> None:
    await stream.send_all(data)


@contextmanager
def handler_kept(number: int) -> Iterator[None]:
    """Put the process's handler for the signal back in the end."""
    before = signal.getsignal(number)
    try:
        yield
    finally:
        signal.signal(number, before)


def test_own_handler_of_the_program_still_runs(loop: asyncio.AbstractEventLoop) -> None:
    """
    A SIGINT handler that the program installed is called, and is still installed after the run.
    """
    came: list[int] = []

    def handler(number: int, frame: object) -> None:
        came.append(number)

    with handler_kept(signal.SIGINT):
        signal.signal(signal.SIGINT, handler)

        async def main() -> None:
            for count in range(1, 6):
                os.kill(os.getpid(), signal.SIGINT)
                await until(lambda: len(came) == count)

        loop.run_until_complete(main())
        assert signal.getsignal(signal.SIGINT) is handler
    assert came == [signal.SIGINT] * 5


def test_signal_handlers_of_the_loop(run: Run[None]) -> None:
    """add_signal_handler calls with arguments, in the loop; remove restores the default."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        came: list[tuple[str, object]] = []

        def arrived(what: str) -> None:
            came.append((what, asyncio.get_running_loop()))

        loop.add_signal_handler(signal.SIGUSR1, arrived, "first")
        loop.add_signal_handler(signal.SIGUSR1, arrived, "usr1")
        loop.add_signal_handler(signal.SIGUSR2, arrived, "usr2")
        for number in (signal.SIGUSR1, signal.SIGUSR2, signal.SIGUSR1):
            count = len(came)
            os.kill(os.getpid(), number)
            await until(lambda: len(came) > count)
        assert came == [("usr1", loop), ("usr2", loop), ("usr1", loop)]
        assert loop.remove_signal_handler(signal.SIGUSR1)
        assert not loop.remove_signal_handler(signal.SIGUSR1)
        assert signal.getsignal(signal.SIGUSR1) == signal.SIG_DFL

    run(main())
    # The loop's closing removed the one that was left.
    assert signal.getsignal(signal.SIGUSR2) == signal.SIG_DFL


def test_signal_wakes_a_loop_that_waits(run: Run[None]) -> None:
    """A signal that arrives while the loop waits in the kernel is handled at once."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        came = asyncio.Event()
        loop.add_signal_handler(signal.SIGUSR1, came.set)
        for _ in range(20):
            came.clear()
            timer = threading.Timer(0.001, os.kill, (os.getpid(), signal.SIGUSR1))
            timer.start()
            await came.wait()
            timer.join()
        loop.remove_signal_handler(signal.SIGUSR1)

    run(main())


def test_sigint_handler_of_the_loop(run: Run[None]) -> None:
    """A loop's own SIGINT handler takes the place of KeyboardInterrupt until it is removed."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        came = asyncio.Event()
        loop.add_signal_handler(signal.SIGINT, came.set)
        os.kill(os.getpid(), signal.SIGINT)
        await came.wait()
        loop.remove_signal_handler(signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler

    before = signal.getsignal(signal.SIGINT)
    run(main())
    assert signal.getsignal(signal.SIGINT) is before


def test_wrong_signal_handlers_are_refused(run: Run[None]) -> None:
    """Coroutines, unknown signals, SIGKILL and other threads are refused."""

    async def coroutine() -> None: ...

    async def main() -> None:
        loop = asyncio.get_running_loop()
        with pytest.raises(TypeError):
            loop.add_signal_handler(signal.SIGUSR1, coroutine)
        with pytest.raises(TypeError):
            loop.add_signal_handler("SIGUSR1", print)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="no signal"):
            loop.add_signal_handler(12345, print)
        with pytest.raises(RuntimeError):
            loop.add_signal_handler(signal.SIGKILL, print)

        def elsewhere() -> None:
            with pytest.raises(RuntimeError):
                loop.add_signal_handler(signal.SIGUSR1, print)

        await asyncio.to_thread(elsewhere)

    run(main())


def test_wakeup_descriptor_is_given_back(run: Run[None]) -> None:
    """
    The process's signal wakeup descriptor is the loop's while it runs, unless the program has one.
    """

    async def main() -> None:
        mine = signal.set_wakeup_fd(-1)
        signal.set_wakeup_fd(mine)
        during.append(mine)

    during: list[int] = []
    run(main())
    assert during[0] != -1
    assert signal.set_wakeup_fd(-1) == -1
    read_fd, write_fd = os.pipe()
    os.set_blocking(write_fd, False)
    signal.set_wakeup_fd(write_fd)
    try:
        run(main())
        assert during[1] == write_fd
    finally:
        assert signal.set_wakeup_fd(-1) == write_fd
        os.close(read_fd)
        os.close(write_fd)


def test_child_does_not_wake_its_parent(loop: asyncio.AbstractEventLoop) -> None:
    """
    A signal to a forked child writes nothing into the parent's wake pipe, and is the child's own.
    """
    from tests.aio.test_lifetimes import forked

    async def main() -> None:
        def child() -> None:
            assert signal.set_wakeup_fd(-1) == -1
            with pytest.raises(KeyboardInterrupt):
                os.kill(os.getpid(), signal.SIGINT)

        assert forked(child) == 0

    with handler_kept(signal.SIGINT):
        loop.run_until_complete(main())


def test_a_cancelled_signal_handler_is_removed(run: Run[None]) -> None:
    """Programs reach the handles of signals, as on asyncio's loop; one they cancel goes at last."""

    async def main() -> None:
        loop: Any = asyncio.get_running_loop()
        called: list[int] = []
        loop.add_signal_handler(signal.SIGUSR1, called.append, 1)
        loop._handle_signal(signal.SIGUSR1)
        await until(lambda: called)
        loop._signal_handlers[signal.SIGUSR1].cancel()
        os.kill(os.getpid(), signal.SIGUSR1)
        assert loop._signal_handlers == {}
        assert signal.getsignal(signal.SIGUSR1) is signal.SIG_DFL
        assert called == [1]

    run(main())
