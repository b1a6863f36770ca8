"""Awaiting under the native scheduler: operations, their callbacks, and what is not ours."""

import asyncio
import concurrent.futures
import contextvars
import gc
import logging
import threading
import types
import warnings
from collections.abc import Generator
from unittest import mock

import pytest

import uringio
from tests.run.native import Run, forever, in_flight, until
from tests.surface.pairs import connected
from uringio import Cancelled, CancelScope, Context, TaskGroup, UsageError, WrongThreadError
from uringio._driver.op import EVENT, READ, Op
from uringio.lowlevel import nop

BAD_FD = 1 << 20


def bad_read() -> Op[int]:
    """An operation that the kernel refuses."""
    return Op(READ, fd=BAD_FD, len_=1, memory=bytearray(1))


# --- operations ----------------------------------------------------------------------------------


def test_checkpoint_lets_others_run(run: Run) -> None:
    """Two tasks that make checkpoints take turns, one step each."""
    steps: list[str] = []

    async def walk(name: str) -> None:
        for _ in range(3):
            steps.append(name)
            await uringio.checkpoint()

    async def main() -> None:
        async with TaskGroup() as group:
            group.start_soon(walk, "a")
            group.start_soon(walk, "b")

    run(main)
    assert steps == ["a", "b"] * 3


def test_checkpoint_lets_the_driver_turn(run: Run) -> None:
    """A task that only makes checkpoints does not keep the kernel's answers out."""

    async def main() -> None:
        async with TaskGroup() as group:
            ended: list[str] = []

            async def receive() -> None:
                async with connected() as (near, far):
                    await far.send_all(b"x")
                    ended.append(str(await near.recv()))

            group.start_soon(receive)
            await until(lambda: bool(ended))

    run(main)


def test_awaiting_costs_nothing_when_abandoned(run: Run) -> None:
    """An operation does not start before it is awaited."""

    async def main() -> None:
        op = uringio.sleep(0)
        assert in_flight() == 0
        assert "new" in repr(op)
        await op
        assert "spent" in repr(op)

    run(main)


def test_awaited_twice(run: Run) -> None:
    """An operation runs once; awaiting it again is refused, at the second task too."""
    raised: list[UsageError] = []

    async def wait(op: Op[None]) -> None:
        try:
            await op
        except UsageError as error:
            raised.append(error)

    async def main() -> None:
        op = uringio.sleep(0.001)
        async with TaskGroup() as group:
            group.start_soon(wait, op)
            group.start_soon(wait, op)
        await wait(op)

    run(main)
    assert ["awaited already" in str(error) for error in raised] == [True, True]


def test_never_awaited(run: Run) -> None:
    """An operation that is dropped without being awaited warns, as a coroutine does."""

    async def main() -> None:
        with pytest.warns(RuntimeWarning, match=r"<Op timeout new> was never awaited"):
            uringio.sleep(1)

    run(main)


def test_never_awaited_because_cancelled(run: Run) -> None:
    """One that a cancelled task did not get to start does not warn."""

    async def main() -> None:
        with CancelScope() as scope:
            scope.cancel()
            await uringio.sleep(1)
        gc.collect()

    run(main)


def test_the_kernels_refusal_is_raised_where_it_was_awaited(run: Run) -> None:
    """The typed error comes out of the await, and is no cycle of garbage afterwards."""

    async def main() -> None:
        with pytest.raises(OSError, match="Bad file descriptor") as caught:
            await bad_read()
        assert caught.value.errno == 9

    run(main)


def test_an_operation_of_another_loop(backend: str) -> None:
    """A handle's operation awaited in another thread's loop is refused there, and not made."""
    raised: list[BaseException] = []

    async def foreign(stream: uringio.SocketStream) -> None:
        try:
            await stream.recv()
        except WrongThreadError as error:
            raised.append(error)

    async def main() -> None:
        async with connected() as (near, far):
            thread = threading.Thread(target=lambda: uringio.run(foreign, near, backend=backend))
            thread.start()
            thread.join()
            await far.send_all(b"kept")
            assert await near.recv() == b"kept"

    uringio.run(main, backend=backend)
    assert len(raised) == 1


def test_cancelling_an_operation_by_hand(run: Run) -> None:
    """`op.cancel()` ends the wait of whoever awaits it with Cancelled."""

    async def main() -> None:
        op: Op[None] = Op(EVENT)
        async with TaskGroup() as group:

            async def wait() -> None:
                with pytest.raises(Cancelled):
                    await op

            group.start_soon(wait)
            await uringio.checkpoint()
            assert op.cancel()
        assert not op.cancel()

    run(main)


# --- what is not ours ----------------------------------------------------------------------------


class Bare:
    """Awaitable, and yields something of its own."""

    def __init__(self, trap: object) -> None:
        self.trap = trap

    def __await__(self) -> Generator[object, None, None]:
        yield self.trap


def test_an_asyncio_future_is_refused_clearly(run: Run) -> None:
    """Awaitables of asyncio need asyncio's loop; the TypeError says so where it was awaited."""

    async def main() -> None:
        loop = asyncio.new_event_loop()
        try:
            future = loop.create_future()
            with pytest.raises(TypeError, match="awaitables of asyncio need asyncio's loop"):
                await future
        finally:
            loop.close()
        await uringio.sleep(0)

    run(main)


@pytest.mark.parametrize("trap", [None, 5, "park", concurrent.futures.Future()])
def test_foreign_traps_are_refused(run: Run, trap: object) -> None:
    """Whatever else a coroutine may yield; and the task can go on."""

    async def main() -> None:
        for _ in range(3):
            with pytest.raises(TypeError, match="belongs to another event loop"):
                await Bare(trap)
        await uringio.sleep(0)

    run(main)


def test_a_generator_based_coroutine(run: Run) -> None:
    """`types.coroutine` may yield an operation by hand; that is what `await` does."""

    @types.coroutine
    def by_hand() -> Generator[object, None, int]:
        op = nop()
        yield op
        return 5

    async def main() -> int:
        return await by_hand()

    assert run(main) == 5


# --- callbacks -----------------------------------------------------------------------------------


def test_done_callback(run: Run) -> None:
    """A callback starts the operation and is called with it, once, with its result to be had."""
    called: list[Op[int]] = []

    async def main() -> None:
        op = nop()
        op.add_done_callback(called.append)
        assert not op.done()
        await until(lambda: bool(called))
        assert called == [op]
        assert op.done()
        assert op.result() == 0
        assert op.exception() is None

    run(main)


def test_done_callback_of_a_failed_operation(run: Run) -> None:
    """The failure is there to be asked for."""
    called: list[BaseException | None] = []

    async def main() -> None:
        op = bad_read()
        op.add_done_callback(lambda done: called.append(done.exception()))
        await until(lambda: bool(called))
        with pytest.raises(OSError, match="Bad file descriptor"):
            op.result()

    run(main)
    assert isinstance(called[0], OSError)


def test_done_callback_of_a_cancelled_operation(run: Run) -> None:
    """It is called too, and the operation says that it was cancelled."""
    called: list[Op[None]] = []

    async def main() -> None:
        op = uringio.sleep(3600)
        op.add_done_callback(called.append)
        assert op.cancel()
        await until(lambda: bool(called))
        assert op.cancelled()
        with pytest.raises(Cancelled):
            op.result()

    run(main)


def test_done_callback_in_a_context(run: Run) -> None:
    """A callback runs in the context it was given, an empty one too."""
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="nothing")
    seen: list[str] = []

    async def main() -> None:
        variable.set("main's")
        copy = contextvars.copy_context()
        copy.run(variable.set, "the copy's")
        op = nop()
        op.add_done_callback(lambda _: seen.append(variable.get()), context=copy)
        await until(lambda: len(seen) == 1)
        # The operation is done: these go another way.
        for context in (copy, contextvars.Context()):
            op.add_done_callback(lambda _: seen.append(variable.get()), context=context)
        await until(lambda: len(seen) == 3)

    run(main)
    assert seen == ["the copy's", "the copy's", "nothing"]


def test_done_callback_that_fails(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    """Its exception is logged, and nobody else suffers."""

    def callback(_: object) -> None:
        raise ValueError("callback")

    async def main() -> None:
        op = nop()
        op.add_done_callback(callback)
        await until(op.done)
        await uringio.sleep(0)

    with caplog.at_level(logging.ERROR, logger="uringio"):
        run(main)
    assert "a done callback" in caplog.text
    assert "ValueError: callback" in caplog.text


def test_done_callback_removed(run: Run) -> None:
    """A callback that was taken back is not called; the operation ends all the same."""
    called: list[object] = []

    async def main() -> None:
        op = nop()
        op.add_done_callback(called.append)
        assert op.remove_done_callback(called.append) == 1
        await until(op.done)

    run(main)
    assert called == []


def test_done_callback_that_looks_like_a_task(run: Run) -> None:
    """A mock has every attribute, a task's too; it is called like any other callback."""
    ok, failed = mock.Mock(), mock.Mock()

    async def main() -> None:
        good, bad = nop(), bad_read()
        good.add_done_callback(ok)
        bad.add_done_callback(failed)
        await until(lambda: ok.called and failed.called)
        ok.assert_called_once_with(good)
        assert isinstance(bad.exception(), OSError)

    run(main)


# --- tasks of the context ------------------------------------------------------------------------


def test_task_of_the_context(context: Context) -> None:
    """A spawned task runs beside others; its result, or its error, is there when it has ended."""

    async def double(value: int) -> int:
        await uringio.checkpoint()
        return value * 2

    async def fail() -> None:
        raise LookupError

    good = context.spawn(double, 4)
    bad = context.spawn(fail)
    assert "alive" in repr(good)
    with pytest.raises(UsageError, match="has not finished"):
        good.result()
    while not (good.finished and bad.finished):
        context.tick()
    assert good.result() == 8
    assert "finished" in repr(good)
    with pytest.raises(LookupError):
        bad.result()


def test_failure_that_nobody_asks_for(context: Context, caplog: pytest.LogCaptureFixture) -> None:
    """A spawned task's failure is logged when the task is dropped and nobody has looked."""

    async def fail(text: str) -> None:
        raise LookupError(text)

    with caplog.at_level(logging.ERROR, logger="uringio"):
        unheard, heard = context.spawn(fail, "unheard"), context.spawn(fail, "heard")
        context.tick()
        with pytest.raises(LookupError):
            heard.result()
        del unheard, heard
        gc.collect()
    assert "LookupError: unheard" in caplog.text
    assert "LookupError: heard" not in caplog.text


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(2)])
def test_interrupt_out_of_a_spawned_task(context: Context, error: BaseException) -> None:
    """KeyboardInterrupt and SystemExit end the pass: no task keeps them to itself."""

    async def fail() -> None:
        raise error

    context.spawn(fail)
    other = context.spawn(forever)
    with pytest.raises(type(error)):
        context.tick()
    assert not other.finished


def test_warnings_are_not_swallowed(run: Run) -> None:
    """A warning that is an error is raised in the task that caused it."""

    async def main() -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with pytest.raises(DeprecationWarning):
                warnings.warn("old", DeprecationWarning, stacklevel=1)
        await uringio.checkpoint()

    run(main)
