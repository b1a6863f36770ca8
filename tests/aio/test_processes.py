"""Child processes: their pipes, signals and ends, whoever else takes an interest in children."""

import asyncio
import contextlib
import gc
import os
import signal
import subprocess
import sys
import threading
from asyncio.subprocess import DEVNULL, PIPE, STDOUT
from collections.abc import Callable, Iterator
from typing import Any, cast

import pytest

from tests.aio.conftest import Run
from tests.aio.serving import LARGE
from tests.leaks import holdings

execute = asyncio.create_subprocess_exec
shell = asyncio.create_subprocess_shell

CAT = "/bin/cat"


def has_children() -> bool:
    """Whether this process has a child, be it a zombie."""
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


@contextlib.contextmanager
def disposition(what: Any) -> Iterator[None]:
    before = signal.signal(signal.SIGCHLD, what)
    try:
        yield
    finally:
        signal.signal(signal.SIGCHLD, before)


def without_pidfds(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Have pidfd_open(2) fail, as before Linux 5.3 or under a filter."""
    from uringio._sys.system import System

    monkeypatch.setattr(System, "open_pidfd", lambda _self, _pid: -number)


def test_communicate(run: Run[None]) -> None:
    """All three pipes and the return code come together, from exec and from a shell."""

    async def main() -> None:
        child = await execute(CAT, stdin=PIPE, stdout=PIPE)
        assert await child.communicate(b"through") == (b"through", None)
        assert child.returncode == 0
        child = await shell("echo out; echo err >&2; exit 7", stdout=PIPE, stderr=PIPE)
        assert await child.communicate() == (b"out\n", b"err\n")
        assert child.returncode == await child.wait() == 7
        child = await shell("echo err >&2", stdout=PIPE, stderr=STDOUT, stdin=DEVNULL)
        assert await child.communicate() == (b"err\n", None)
        assert not has_children()

    run(main())


def test_large_amounts_both_ways(run: Run[None]) -> None:
    """16 MiB go through a child, flow control and all, and come back as they were."""

    async def main() -> None:
        child = await execute(CAT, stdin=PIPE, stdout=PIPE)
        out, _ = await child.communicate(LARGE)
        assert out == LARGE

    run(main())


def test_input_that_nobody_reads(run: Run[None]) -> None:
    """A child that ends without reading its input does not disturb communicate."""

    async def main() -> None:
        child = await execute("/bin/true", stdin=PIPE)
        assert await child.communicate(LARGE) == (None, None)
        assert child.returncode == 0

    run(main())


@pytest.mark.parametrize("way", ["kill", "terminate", "send_signal"])
def test_signals_end_a_child(run: Run[None], way: str) -> None:
    """
    The return code names the signal; afterwards ProcessLookupError says that there is nobody left.
    """

    async def main() -> None:
        child = await execute("sleep", "100")
        assert child.returncode is None
        number = {"kill": signal.SIGKILL, "terminate": signal.SIGTERM}.get(way, signal.SIGINT)
        arguments = (number,) if way == "send_signal" else ()
        getattr(child, way)(*arguments)
        getattr(child, way)(*arguments)
        assert await child.wait() == -number
        with pytest.raises(ProcessLookupError):
            getattr(child, way)(*arguments)

    run(main())


def test_the_order_of_calls(run: Run[None]) -> None:
    """
    A protocol hears connection_made first, each pipe's data before its end, process_exited once,
    and connection_lost when all is over.
    """

    class Diary(asyncio.SubprocessProtocol):
        def __init__(self) -> None:
            self.calls: list[str] = []
            self.lost = asyncio.get_running_loop().create_future()

        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            self.calls.append("made")

        def pipe_data_received(self, fd: int, data: bytes) -> None:
            self.calls.append(f"data {fd} {data!r}")

        def pipe_connection_lost(self, fd: int, exc: Exception | None) -> None:
            assert exc is None
            self.calls.append(f"pipe {fd} lost")

        def process_exited(self) -> None:
            self.calls.append("exited")

        def connection_lost(self, exc: Exception | None) -> None:
            assert exc is None
            self.calls.append("lost")
            self.lost.set_result(None)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        transport, diary = await loop.subprocess_exec(Diary, "/bin/sh", "-c", "echo o; echo e >&2")
        assert isinstance(transport.get_pid(), int)
        assert transport.get_pipe_transport(0) is not None
        assert transport.get_pipe_transport(3) is None
        await diary.lost
        calls = diary.calls
        assert transport.get_returncode() == 0
        assert calls[0] == "made"
        assert calls[-1] == "lost"
        assert sorted(calls[1:-1]) == sorted(
            ["data 1 b'o\\n'", "data 2 b'e\\n'", "exited", *(f"pipe {n} lost" for n in range(3))]
        )
        for number, text in ((1, "o"), (2, "e")):
            assert calls.index(f"data {number} b'{text}\\n'") < calls.index(f"pipe {number} lost")
        transport.close()

    run(main())


def test_programs_that_cannot_be_started(run: Run[None]) -> None:
    """The error is Popen's, and neither descriptors nor children are left; nor text modes taken."""

    async def main() -> None:
        before = holdings().fds
        with pytest.raises(FileNotFoundError):
            await execute("/nowhere/at/all", stdin=PIPE, stdout=PIPE, stderr=PIPE)
        with pytest.raises(ValueError, match="text"):
            await cast("Any", execute)(CAT, text=True)
        with pytest.raises(ValueError, match="shell"):
            await cast("Any", asyncio.get_running_loop()).subprocess_exec(
                asyncio.SubprocessProtocol, CAT, shell=True
            )
        assert holdings().fds == before
        assert not has_children()

    run(main())


def test_many_children_at_once(run: Run[None]) -> None:
    """200 children, 40 at a time, each tell what is theirs; no descriptor and no zombie stays."""

    async def main() -> None:
        before = holdings().fds
        places = asyncio.Semaphore(40)

        async def one(number: int) -> None:
            async with places:
                child = await shell(f"read x; exit $((x + {number % 2}))", stdin=PIPE, stderr=PIPE)
                await child.communicate(b"%d\n" % (number % 100))
                assert child.returncode == number % 100 + number % 2

        async with asyncio.TaskGroup() as group:
            for number in range(200):
                group.create_task(one(number))
        assert not has_children()
        gc.collect()
        assert holdings().fds == before

    run(main())


@pytest.mark.parametrize("number", [0, 38])
def test_loops_of_other_threads(
    make_loop: Callable[[], asyncio.AbstractEventLoop],
    monkeypatch: pytest.MonkeyPatch,
    number: int,
) -> None:
    """Children work in a loop of another thread than the main one; with pidfds and without."""
    if number:
        without_pidfds(monkeypatch, number)
    found: list[object] = []

    async def main() -> None:
        child = await execute(CAT, stdin=PIPE, stdout=PIPE)
        found.append(await child.communicate(b"here"))
        found.append(child.returncode)
        child = await execute("sleep", "100")
        child.kill()
        found.append(await child.wait())

    def work() -> None:
        with asyncio.Runner(loop_factory=make_loop) as runner:
            runner.run(main())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [(b"here", None), 0, -9]
    assert not has_children()


def test_sigchld_is_the_programs(run: Run[None]) -> None:
    """A handler of the program's for SIGCHLD is called, and takes nothing from the loop."""
    heard: list[int] = []

    async def main() -> None:
        child = await shell("exit 3")
        assert await child.wait() == 3

    with disposition(lambda number, _: heard.append(number)):
        run(main())
    assert heard


@pytest.mark.skipif(sys.version_info >= (3, 14), reason="there are no child watchers any more")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_child_watchers_are_not_let_in(run: Run[None]) -> None:
    """A watcher of asyncio's that waits for any child is attached, and takes none's status."""

    async def main() -> None:
        watcher: Any = asyncio.FastChildWatcher()
        watcher.attach_loop(asyncio.get_running_loop())
        async with asyncio.TaskGroup() as group:
            for number in range(10):
                group.create_task(one(number))
        watcher.attach_loop(None)
        watcher.close()

    async def one(number: int) -> None:
        child = await shell(f"exit {number}")
        assert await child.wait() == number

    run(main())


def test_status_taken_by_somebody_else(run: Run[None], caplog: pytest.LogCaptureFixture) -> None:
    """
    255 and a warning, where others have waited for the child, or SIGCHLD is ignored; what `Popen`
    knows is taken from there.
    """

    async def main() -> None:
        child = await execute("sleep", "100")
        child.kill()
        os.waitpid(child.pid, 0)
        assert await child.wait() == 255
        assert "255" in caplog.text
        caplog.clear()
        child = await execute("sleep", "100")
        transport: Any = child._transport  # type: ignore[attr-defined]
        process: subprocess.Popen[bytes] = transport.get_extra_info("subprocess")
        child.kill()
        assert process.wait() == -9
        assert await child.wait() == -9
        assert caplog.text == ""
        with disposition(signal.SIG_IGN):
            child = await execute("/bin/true")
            assert await child.wait() == 255
        assert "255" in caplog.text

    run(main())


@pytest.mark.parametrize("passes", range(6))
def test_cancelled_while_starting(run: Run[None], passes: int) -> None:
    """A child whose creation is cancelled, at whatever step, is killed and waited for."""

    async def main() -> None:
        before = holdings().fds
        task = asyncio.create_task(execute("sleep", "100", stdin=PIPE, stdout=PIPE))
        for _ in range(passes):
            await asyncio.sleep(0)
        if task.done():
            child = task.result()
            child.kill()
            await child.wait()
        else:
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        assert not has_children()
        while holdings().fds != before:
            await asyncio.sleep(0)
            gc.collect()

    run(main())


def test_cancelled_at_the_last_moment(run: Run[None]) -> None:
    """A start that is cancelled when all is ready, and nobody knows, ends like an earlier one."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        before = holdings().fds

        class Cancels(asyncio.SubprocessProtocol):
            def connection_made(self, transport: asyncio.BaseTransport) -> None:
                task.cancel()

        for command in (["sleep", "100"], ["/bin/true"]):
            task = asyncio.create_task(loop.subprocess_exec(Cancels, *command))
            with pytest.raises(asyncio.CancelledError):
                await task
            assert not has_children()
        while holdings().fds != before:
            await asyncio.sleep(0)
            gc.collect()

    run(main())


def test_pipes_that_fail_do_not_hang(run: Run[None], monkeypatch: pytest.MonkeyPatch) -> None:
    """A child whose pipe cannot be connected is killed, and the failure told."""

    async def main() -> None:
        loop = asyncio.get_running_loop()

        async def fail(*_: object) -> None:
            raise LookupError("no pipe")

        monkeypatch.setattr(loop, "connect_read_pipe", fail)
        with pytest.raises(LookupError):
            await execute(CAT, stdin=PIPE, stdout=PIPE)
        assert not has_children()
        gc.collect()

    run(main())


def test_cancelled_waits_and_reads(run: Run[None]) -> None:
    """Waiting and reading may be cancelled; the child and its pipes go on as before."""

    async def main() -> None:
        child = await execute(CAT, stdin=PIPE, stdout=PIPE)
        assert child.stdin is not None
        assert child.stdout is not None
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(child.wait(), 0.001)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(child.stdout.read(1), 0.001)
        child.stdin.write(b"on")
        assert await child.stdout.readexactly(2) == b"on"
        child.stdin.close()
        assert await child.wait() == 0

    run(main())


def test_a_loop_that_closes_before_its_child(
    make_loop: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    """Closing the loop leaves no descriptor; the transport, when it goes, kills the child."""
    loop = make_loop()
    loop.run_until_complete(asyncio.sleep(0))
    child = loop.run_until_complete(_started(loop))
    pid = child.pid
    with pytest.warns(ResourceWarning):
        loop.close()
        del child, loop
        gc.collect()
    with contextlib.suppress(ChildProcessError):  # Popen's finalizer was quicker
        os.waitpid(pid, 0)
    assert not has_children()


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # of the transport, whenever it goes
def test_a_thread_that_outlives_its_loop(
    make_loop: Callable[[], asyncio.AbstractEventLoop], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without pidfds, the thread that waits says that the loop has closed, and takes the status."""
    without_pidfds(monkeypatch, 1)
    said = threading.Event()
    monkeypatch.setattr("uringio.aio.processes.logger.warning", lambda *_: said.set())
    loop = make_loop()
    child = loop.run_until_complete(_started(loop))
    loop.close()
    child.kill()
    said.wait()
    assert not has_children()


async def _started(_: object) -> Any:
    return await execute("sleep", "100", stdin=PIPE)


def test_a_child_that_runs_python(run: Run[None]) -> None:
    """What runs before exec in the child, with the loop's driver about, does no harm to either."""
    told: list[int] = []

    async def main() -> None:
        child = await execute(
            sys.executable, "-c", "import os; print(os.getcwd())", stdout=PIPE,
            preexec_fn=lambda: os.chdir("/"),
        )  # fmt: skip
        out, _ = await child.communicate()
        assert out == b"/\n"
        told.append(1)

    run(main())
    assert told
