"""
Ctrl-C at any moment, in this process: between any two steps of the library's own code.

The signal handler is called as Python would call it, with the frame in which it strikes, so a test
can choose the moment: a certain step of the program, or each opcode of the library in turn.
"""

import random
import signal
import sys
import types
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import pytest

import uringio
from tests import leaks
from tests.run.native import Gate, forever, in_flight
from tests.surface.pairs import connected
from uringio import Cancelled, CancelScope, Context, TaskGroup
from uringio._run import context as context_module
from uringio._run import running
from uringio._run.interrupt import in_core

T = TypeVar("T")

OPCODES_TRIED = 40


@pytest.fixture(autouse=True)
def default_handler() -> Iterator[None]:
    """Python's own SIGINT handler, whoever runs the tests; it is there afterwards too."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert signal.set_wakeup_fd(-1) == -1
    signal.signal(signal.SIGINT, before)


def _strike() -> None:
    signal.raise_signal(signal.SIGINT)


# The same, as code of the library's.
strike_core = types.FunctionType(
    _strike.__code__, {"__name__": "uringio.anything", "signal": signal}
)


def test_whose_code_it_is() -> None:
    """The library's frames are the core, the program's are not, and the standard library's pass."""
    frames: dict[str, bool] = {}

    def note(name: str) -> None:
        frames[name] = in_core(sys._getframe(1))

    def named(module: object, filename: str = "<string>") -> Callable[[str], None]:
        code = compile("def call(note, name): note(name)", filename, "exec")
        namespace: dict[str, Callable[..., None]] = {}
        exec(code, {"__name__": module}, namespace)
        return lambda name: namespace["call"](note, name)

    named("uringio")("package")
    named("uringio._run.loop")("module")
    named("uringio.cli.serve")("command")
    named("uringio_app")("program")
    named(None)("nameless")
    named("threading", threading_file())("stdlib called by the program")
    core = named("uringio._run.loop")
    assert frames == {
        "package": True,
        "module": True,
        "command": False,
        "program": False,
        "nameless": False,
        "stdlib called by the program": False,
    }
    del core
    assert not in_core(None)


def threading_file() -> str:
    import threading

    return threading.__file__


# --- at chosen steps -----------------------------------------------------------------------------


def test_in_the_core_it_is_delivered_at_the_next_await(backend: str) -> None:
    """Nothing happens where it strikes; main hears of it at its next await."""
    seen: list[str] = []

    async def main() -> None:
        strike_core()
        seen.append("went on")
        try:
            await uringio.checkpoint()
        except KeyboardInterrupt:
            seen.append("heard")
        await uringio.checkpoint()
        seen.append("once")

    uringio.run(main, backend=backend)
    assert seen == ["went on", "heard", "once"]


def test_main_that_ends_without_another_await(backend: str) -> None:
    """Ctrl-C that main did not get to hear is raised by `run`, in place of its result."""

    async def main() -> int:
        strike_core()
        return 5

    with pytest.raises(KeyboardInterrupt):
        uringio.run(main, backend=backend)


def test_main_that_fails_without_another_await(backend: str) -> None:
    """Likewise, with main's own error as its context."""

    async def main() -> None:
        await uringio.checkpoint()
        strike_core()
        raise LookupError

    with pytest.raises(KeyboardInterrupt) as caught:
        uringio.run(main, backend=backend)
    chain = []
    error: BaseException | None = caught.value
    while error is not None:
        chain.append(type(error))
        error = error.__context__
    assert LookupError in chain


@pytest.mark.parametrize("order", ["strike first", "cancel first"])
@pytest.mark.parametrize("wait", ["event", "sleep", "recv", "checkpoint", "children"])
def test_it_outranks_cancellation(backend: str, order: str, wait: str) -> None:
    """Ctrl-C and a cancellation that strike together: main hears KeyboardInterrupt."""

    async def together(scope: CancelScope) -> None:
        await uringio.checkpoint()
        await uringio.checkpoint()
        if order == "strike first":
            strike_core()
            await uringio.checkpoint()
            scope.cancel()
        else:
            scope.cancel()
            strike_core()

    async def main() -> None:
        async with connected() as (near, _), TaskGroup() as outer:
            with CancelScope() as scope:
                outer.start_soon(together, scope)
                if wait == "event":
                    await forever()
                elif wait == "sleep":
                    await uringio.sleep(3600)
                elif wait == "recv":
                    await near.recv()
                elif wait == "checkpoint":
                    while True:
                        await uringio.checkpoint()
                else:
                    async with TaskGroup() as group:
                        group.start_soon(forever)

    with pytest.raises(KeyboardInterrupt):
        uringio.run(main, backend=backend)


def test_the_cancellation_that_it_outranks_is_not_lost(backend: str) -> None:
    """Ctrl-C while a receive is being cancelled comes first, and the cancellation next."""
    heard: list[str] = []

    async def both(scope: CancelScope) -> None:
        await uringio.checkpoint()
        scope.cancel()
        strike_core()

    async def main() -> None:
        async with connected() as (near, _), TaskGroup() as group:
            with CancelScope() as scope:
                group.start_soon(both, scope)
                with pytest.raises(KeyboardInterrupt):
                    await near.recv()
                heard.append("interrupt")
                try:
                    await uringio.checkpoint()
                except Cancelled:
                    heard.append("cancellation")
                    raise
            await uringio.checkpoint()

    uringio.run(main, backend=backend)
    assert heard == ["interrupt", "cancellation"]


def test_it_does_not_wait_for_a_shielded_child(backend: str) -> None:
    """Main in the end of a group whose child is shielded: main is told when the child has ended."""
    seen: list[str] = []
    gate = Gate()

    async def child() -> None:
        with CancelScope(shield=True):
            await gate.wait()
        seen.append("child")

    async def strike_and_open() -> None:
        await uringio.checkpoint()
        strike_core()
        try:
            await forever()
        except Cancelled:
            seen.append("sibling")
            gate.open()
            raise

    async def main() -> None:
        try:
            async with TaskGroup() as group:
                group.start_soon(child)
                group.start_soon(strike_and_open)
        except KeyboardInterrupt:
            seen.append("main")
            raise

    with pytest.raises(KeyboardInterrupt):
        uringio.run(main, backend=backend)
    assert seen == ["sibling", "child", "main"]


def test_while_the_loop_is_made(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C while the driver is built: main starts, hears of it, and nothing leaks."""
    made = context_module.Context.__init__

    def init(self: Context, **options: object) -> None:
        strike_core()
        made(self, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Context, "__init__", init)
    seen: list[str] = []

    async def main() -> None:
        seen.append("started")
        await forever()

    with pytest.raises(KeyboardInterrupt):
        uringio.run(main, backend=backend)
    assert seen == ["started"]


def test_while_the_loop_cannot_be_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C while building fails: it is what comes out."""

    def init(*_: object, **__: object) -> None:
        strike_core()
        raise OSError("no loop today")

    monkeypatch.setattr(Context, "__init__", init)
    with pytest.raises(KeyboardInterrupt) as caught:
        uringio.run(forever)
    assert isinstance(caught.value.__context__, OSError)


@pytest.mark.parametrize("name", ["run_down", "close_driver"])
def test_while_the_loop_ends(backend: str, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Ctrl-C when main has returned: everything is closed, and then it is raised."""
    end = getattr(Context, name)

    def struck(self: Context) -> None:
        strike_core()
        end(self)

    monkeypatch.setattr(Context, name, struck)

    async def main() -> None:
        await uringio.checkpoint()

    with pytest.raises(KeyboardInterrupt):
        uringio.run(main, backend=backend)


def test_one_that_everybody_heard_is_not_raised_again(backend: str) -> None:
    """After it was delivered and swallowed, `run` returns normally."""

    async def main() -> str:
        strike_core()
        with pytest.raises(KeyboardInterrupt):
            await uringio.checkpoint()
        return "fine"

    assert uringio.run(main, backend=backend) == "fine"


def test_handlers_set_meanwhile_are_left_alone(backend: str) -> None:
    """A SIGINT handler and a wakeup fd that the program sets while it runs stay."""
    import socket

    ours, theirs = socket.socketpair()
    theirs.setblocking(False)

    def handler(*_: object) -> None:
        return

    async def main() -> None:
        signal.signal(signal.SIGINT, handler)
        signal.set_wakeup_fd(theirs.fileno())
        await uringio.checkpoint()

    uringio.run(main, backend=backend)
    assert signal.getsignal(signal.SIGINT) is handler
    assert signal.set_wakeup_fd(-1) == theirs.fileno()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    ours.close()
    theirs.close()


# --- at every opcode -----------------------------------------------------------------------------


class Stop(BaseException):
    """What a program's own handler raises."""


class AtOpcode:
    """Calls *strike* with the frame, before the *index*-th opcode of the frames it looks at."""

    def __init__(
        self,
        index: int,
        strike: Callable[[types.FrameType], None],
        looks_at: Callable[[types.FrameType], bool],
    ) -> None:
        self.index = index
        self.count = 0
        self._strike = strike
        self._looks_at = looks_at

    def __call__(self, frame: types.FrameType, event: str, _argument: object) -> object:
        if event == "call":
            frame.f_trace_lines = False
            if not self._looks_at(frame):
                return None
            frame.f_trace_opcodes = True
            return self
        if event == "opcode":
            self.count += 1
            if self.count == self.index:
                self._strike(frame)
        return self


@contextmanager
def traced(trace: AtOpcode) -> Iterator[None]:
    before = sys.gettrace()
    sys._getframe().f_trace_opcodes = True  # 3.12 looks for it in `settrace`
    sys.settrace(trace)  # type: ignore[arg-type]
    try:
        yield
    finally:
        sys.settrace(before)


def struck(main: Callable[[], Awaitable[T]], backend: str, trace: AtOpcode) -> T | BaseException:
    """
    Run *main* while it is traced; return what came of it.

    It runs in a generator, which has its own record of the exception that is being handled.  A
    trace function that raises amid the end of an except clause, where no signal handler runs, has
    CPython leave that clause's exception current: it would be the context of whatever the tests
    behind this one raise.
    """

    def inside() -> Iterator[T | BaseException]:
        try:
            with traced(trace):
                came: T | BaseException = uringio.run(main, backend=backend)
        except BaseException as error:
            came = error
        yield came

    return next(inside())


async def echo(stream: uringio.SocketStream) -> None:
    async with stream:
        while data := await stream.recv():
            await stream.send_all(data)


async def talk(sleepers: int = 0) -> str:
    """Use most of the library: sockets, groups, scopes, deadlines, callbacks; *sleepers* sleep."""
    async with (
        await uringio.listen_tcp("127.0.0.1", 0) as listener,
        await uringio.connect_tcp("127.0.0.1", int(listener.local_address[1])) as near,
        await listener.accept() as far,
        TaskGroup() as group,
    ):
        group.start_soon(echo, far)
        with uringio.timeout(3600):
            for number in range(3):
                await near.send_all(b"%d" % number)
                assert await near.recv() == b"%d" % number
        with uringio.move_on_after(0.0005):
            await near.recv()
        running.context().run_soon(lambda: None)
        uringio.sleep(0).add_done_callback(lambda _: None)
        await uringio.sleep(0)
        with CancelScope() as scope:
            scope.cancel()
            await uringio.checkpoint()
        await near.send_eof()
    assert in_flight() <= sleepers
    return "talked"


def in_library(frame: types.FrameType) -> bool:
    module = str(frame.f_globals.get("__name__", ""))
    return module.startswith(("uringio._run", "uringio._driver", "uringio.net", "uringio._own"))


def interrupt(frame: types.FrameType) -> None:
    """Call the handler as Python would; before ours is there nothing happens."""
    handler = signal.getsignal(signal.SIGINT)
    assert callable(handler)
    if handler is not signal.default_int_handler:
        handler(signal.SIGINT, frame)


def test_at_every_opcode_of_the_library(backend: str) -> None:
    """Wherever in the library it strikes: KeyboardInterrupt comes out, and nothing is left."""
    counting = AtOpcode(-1, interrupt, in_library)
    with traced(counting):
        assert uringio.run(talk, backend=backend) == "talked"
    heard = 0
    for _ in range(OPCODES_TRIED):
        index = random.randrange(counting.count)
        before = leaks.holdings()
        outcome = struck(talk, backend, AtOpcode(index, interrupt, in_library))
        if isinstance(outcome, KeyboardInterrupt):
            heard += 1
        else:
            # It struck before the handler was there or after it had gone, or not at all in a run
            # that was shorter than the first.
            assert outcome == "talked"
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        assert leaks.difference(before) == [], index
    assert heard > OPCODES_TRIED * 0.8


def test_a_handler_that_raises_at_every_opcode_of_the_loop(backend: str) -> None:
    """A program's own handler may raise in the loop: the program ends, and loses no task."""

    def in_loop(frame: types.FrameType) -> bool:
        return frame.f_code.co_name in {"one_pass", "_finish", "_refused", "_trapped_op"} and (
            in_library(frame)
        )

    def stop(_frame: types.FrameType) -> None:
        raise Stop

    ended: list[str] = []

    async def child(number: int) -> None:
        try:
            while True:
                await uringio.checkpoint() if number % 2 else await uringio.sleep(0)
        finally:
            ended.append(f"child {number}")

    async def main() -> None:
        try:
            async with TaskGroup() as group:
                for number in range(4):
                    group.start_soon(child, number)
                assert await talk(sleepers=2) == "talked"
                group.cancel_scope.cancel()
        finally:
            ended.append("main")

    counting = AtOpcode(-1, stop, in_loop)
    with traced(counting):
        uringio.run(main, backend=backend)
    for _ in range(OPCODES_TRIED):
        index = random.randrange(counting.count)
        before = leaks.holdings()
        ended.clear()
        assert stopped(main, backend, AtOpcode(index, stop, in_loop)), index
        # Those that had begun have all come to their ends.
        assert len(ended) == len(set(ended))
        assert "main" in ended or len(ended) == 0
        assert leaks.difference(before) == [], index


def stopped(main: Callable[[], Awaitable[None]], backend: str, at: AtOpcode) -> bool:
    """Run *main*, to be struck; tell whether that, and nothing else, is what came out."""
    outcome = struck(main, backend, at)
    if outcome is not None:
        return contains_stop(outcome)
    return at.count < at.index  # the run was shorter than the one that was counted


def contains_stop(error: BaseException) -> bool:
    if isinstance(error, BaseExceptionGroup):
        return any(contains_stop(one) for one in error.exceptions)
    return isinstance(error, Stop)
