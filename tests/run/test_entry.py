"""`uringio.run`: what it takes, what it returns, and what it leaves."""

import asyncio
import gc
import inspect
import os
import threading
import weakref
from collections.abc import AsyncGenerator
from contextlib import closing

import pytest

import uringio
from tests import leaks
from tests.run.native import Run
from uringio import UsageError
from uringio._driver import current
from uringio.errors import RingError


async def add(left: int, right: int) -> int:
    await uringio.checkpoint()
    return left + right


def test_returns_what_main_returns(run: Run) -> None:
    """Arguments go in, the value comes out."""
    assert run(add, 1, 2) == 3


def test_raises_what_main_raises(run: Run) -> None:
    """An exception of main's leaves `run` as it is, the same object."""
    error = LookupError("mine")

    async def main() -> None:
        await uringio.checkpoint()
        raise error

    with pytest.raises(LookupError) as caught:
        run(main)
    assert caught.value is error


def test_main_that_awaits_nothing(run: Run) -> None:
    """A main that never waits ends like any other."""

    async def main() -> str:
        return "done"

    assert run(main) == "done"


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), GeneratorExit()])
def test_raises_what_is_no_exception(run: Run, error: BaseException) -> None:
    """Even what stands outside of Exception comes out unchanged."""

    async def main() -> None:
        raise error

    with pytest.raises(type(error)) as caught:
        run(main)
    assert caught.value is error


def test_runs_again_and_again(run: Run) -> None:
    """Each run has a loop of its own and leaves nothing for the next."""
    for turn in range(20):
        assert run(add, turn, 1) == turn + 1


def test_runs_after_a_failed_run(run: Run) -> None:
    """A run that raised leaves the thread fit for another."""

    async def fail() -> None:
        raise LookupError

    with pytest.raises(LookupError):
        run(fail)
    assert run(add, 1, 1) == 2


def test_runs_in_another_thread(run: Run) -> None:
    """A loop runs in any thread, also beside another one, and each sees its own driver."""
    both_run = threading.Barrier(2, timeout=50)

    async def main() -> object:
        both_run.wait()
        driver = current.driver()
        both_run.wait()
        assert current.driver() is driver
        await uringio.sleep(0)
        return driver

    drivers: list[object] = []
    thread = threading.Thread(target=lambda: drivers.append(run(main)))
    thread.start()
    drivers.append(run(main))
    thread.join()
    assert len({id(driver) for driver in drivers}) == 2


# --- wrong arguments -----------------------------------------------------------------------------


def test_refuses_a_coroutine(backend: str) -> None:
    """A coroutine in place of the function is refused, says what to write, and does not warn."""
    main = add(1, 2)
    with pytest.raises(TypeError, match=r"run\(main\), not run\(main\(\)\)"):
        uringio.run(main, backend=backend)  # type: ignore[arg-type]
    assert inspect.getcoroutinestate(main) == inspect.CORO_CLOSED


def test_refuses_a_function_that_is_not_async(backend: str) -> None:
    """A plain function is called, seen to return nothing awaitable, and refused."""
    with pytest.raises(TypeError, match="is not an async function: it returned 5"):
        uringio.run(lambda: 5, backend=backend)  # type: ignore[arg-type, return-value]


def test_refuses_an_async_generator_function(backend: str) -> None:
    """`async def` with `yield` is no async function."""

    async def generator() -> AsyncGenerator[int, None]:
        yield 1

    with pytest.raises(TypeError, match="is not an async function"):
        uringio.run(generator, backend=backend)  # type: ignore[arg-type]


def test_refuses_what_cannot_be_called(backend: str) -> None:
    """Neither a number nor too few arguments."""
    with pytest.raises(TypeError, match="not callable"):
        uringio.run(5, backend=backend)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="missing"):
        uringio.run(add, 1, backend=backend)  # type: ignore[arg-type]


def test_takes_a_function_that_returns_an_operation(run: Run) -> None:
    """`sleep` is a plain function that returns something awaitable; that will do."""
    assert run(uringio.sleep, 0) is None


def test_takes_any_callable(run: Run) -> None:
    """Methods, partials, and objects whose `__call__` is async."""

    class Program:
        async def __call__(self, value: int) -> int:
            await uringio.checkpoint()
            return value

    assert run(Program(), 7) == 7
    assert run(Program().__call__, 8) == 8


# --- nesting -------------------------------------------------------------------------------------


def test_refuses_to_nest(run: Run) -> None:
    """A second loop in the same thread is refused, and the first goes on."""

    async def main() -> int:
        with pytest.raises(UsageError, match="do not nest"):
            run(add, 1, 2)
        return await add(3, 4)

    assert run(main) == 7


def test_refuses_to_nest_in_a_callback(run: Run) -> None:
    """Nor does it nest in a function that the loop itself calls."""
    raised: list[Exception] = []

    async def main() -> None:
        op = uringio.sleep(0)

        def nested(_: object) -> None:
            try:
                run(add, 1, 2)
            except UsageError as error:
                raised.append(error)

        op.add_done_callback(nested)
        while not raised:
            await uringio.checkpoint()

    run(main)
    assert len(raised) == 1


def test_refuses_to_nest_in_our_asyncio_loop(backend: str) -> None:
    """In a task of `uringio.aio` it is refused too, and the asyncio loop still knows its driver."""
    from uringio import aio

    async def main() -> None:
        driver = current.driver()
        with pytest.raises(UsageError, match="do not nest"):
            uringio.run(add, 1, 2)
        assert current.driver() is driver
        await uringio.sleep(0)

    with asyncio.Runner(loop_factory=lambda: aio.new_event_loop(backend=backend)) as runner:
        runner.run(main())


def test_our_asyncio_loop_refuses_to_nest_in_it(backend: str) -> None:
    """The other way round as well, and the driver stays the thread's own."""
    from uringio import aio

    async def main() -> None:
        driver = current.driver()
        loop = aio.new_event_loop(backend=backend)
        with closing(loop), pytest.raises(UsageError, match="already runs in this thread"):
            loop.run_forever()
        assert current.driver() is driver
        await uringio.sleep(0)

    uringio.run(main, backend=backend)


def test_in_another_loops_task_it_runs_and_blocks_that_loop(backend: str) -> None:
    """A loop that is not ours does not keep it from running: it is a blocking call there."""

    async def main() -> int:
        return uringio.run(add, 1, 2, backend=backend)

    assert asyncio.run(main()) == 3


def test_a_refused_nested_run_makes_no_loop(run: Run) -> None:
    """Refusing costs no descriptor."""

    async def main() -> None:
        before = leaks.holdings()
        with pytest.raises(UsageError):
            run(add, 1, 2)
        assert leaks.difference(before) == []

    run(main)


def test_nothing_of_the_loop_outside_of_run(run: Run) -> None:
    """Before and after, what needs a loop says that there is none."""
    for need in (uringio.CancelScope().__enter__, current.driver, lambda: uringio.sleep(0)):
        with pytest.raises(UsageError, match=r"under uringio\.run"):
            need()
    run(add, 1, 2)
    with pytest.raises(UsageError):
        current.driver()


# --- backends ------------------------------------------------------------------------------------


def test_backend_is_the_one_asked_for(backend: str) -> None:
    """The driver that runs is the one that was named."""

    async def main() -> str:
        return current.driver().name

    assert uringio.run(main, backend=backend) == backend


def test_some_backend_without_asking() -> None:
    """Without a name one is chosen that works here."""
    assert uringio.run(add, 1, 2) == 3


def test_unknown_backend() -> None:
    """A backend that does not exist is a mistake of the program's."""
    with pytest.raises(UsageError, match="no backend 'kpoll'"):
        uringio.run(add, 1, 2, backend="kpoll")


def test_no_descriptors_for_a_loop(backend: str) -> None:
    """Where descriptors have run out, `run` says so, and works again when there are some."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    gc.collect()
    lowest = os.dup(0)
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
    try:
        with pytest.raises((RingError, OSError)):
            uringio.run(add, 1, 2, backend=backend)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert uringio.run(add, 1, 2, backend=backend) == 3


# --- the end -------------------------------------------------------------------------------------


def test_tasks_that_are_left_are_cancelled(backend: str) -> None:
    """A task that main left behind is cancelled and waited for, its cleanup included."""
    from uringio._run import running

    seen: list[str] = []

    async def left() -> None:
        try:
            await uringio.sleep(3600)
        finally:
            with uringio.CancelScope(shield=True):
                await uringio.sleep(0.001)
            seen.append("cleaned up")

    async def main() -> None:
        running.context().spawn(left)
        await uringio.checkpoint()

    uringio.run(main, backend=backend)
    assert seen == ["cleaned up"]


def test_nothing_is_kept_alive(run: Run) -> None:
    """A run's loop and tasks are garbage when it has ended."""
    refs: list[weakref.ref[object]] = []

    async def main() -> None:
        from uringio._run import running

        refs.append(weakref.ref(running.context()))
        refs.append(weakref.ref(running.context().require_task()))

    run(main)
    gc.collect()
    assert [ref() for ref in refs] == [None, None]
