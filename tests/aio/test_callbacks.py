"""Callbacks, timers, threads and executors: what asyncio promises of any loop."""

import asyncio
import contextvars
import logging
import math
import socket
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.aio.conftest import Run
from tests.aio.waiting import passes, until
from uringio._driver import current
from uringio._driver.op import NOP, Op
from uringio.errors import UsageError


def test_callbacks_run_in_order(run: Run[None]) -> None:
    """Callbacks run in the order in which they were given, one pass later."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        order: list[int] = []
        for number in range(100):
            loop.call_soon(order.append, number)
        assert order == []
        await asyncio.sleep(0)
        assert order == list(range(100))

    run(main())


def test_callback_of_a_callback_waits_for_the_next_pass(run: Run[None]) -> None:
    """A callback that schedules itself for ever does not keep the loop from anything else."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        count = 0

        def again() -> None:
            nonlocal count
            count += 1
            handle[0] = loop.call_soon(again)

        handle = [loop.call_soon(again)]
        await asyncio.sleep(0.001)
        handle[0].cancel()
        assert count > 1

    run(main())


def test_what_was_scheduled_before_data_came_runs_before_it_is_delivered(run: Run[None]) -> None:
    """Bytes that are there already do not overtake callbacks and tasks that wait for their turn."""

    async def main() -> None:
        order: list[str] = []

        class Noting(asyncio.Protocol):
            def data_received(self, data: bytes) -> None:
                order.append("data")

        loop = asyncio.get_running_loop()
        ours, theirs = socket.socketpair()
        with theirs:
            transport, _ = await loop.create_connection(Noting, sock=ours)
            await passes(3)  # the receive is under way
            theirs.sendall(b"x")
            loop.call_soon(order.append, "callback")
            task = asyncio.create_task(passes(0))
            task.add_done_callback(lambda _: order.append("task"))
            await until(lambda: len(order) == 3)
            transport.close()
        assert order[0] == "callback"

    run(main())


def test_cancelled_callbacks_do_not_run(run: Run[None]) -> None:
    """A cancelled handle is passed over, soon and later."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        ran: list[str] = []
        loop.call_soon(ran.append, "soon").cancel()
        loop.call_later(0, ran.append, "later").cancel()
        loop.call_later(0, ran.append, "kept")
        await until(lambda: ran)
        assert ran == ["kept"]

    run(main())


def test_timers_run_by_time_not_before(run: Run[None]) -> None:
    """Timers come up in the order of their times, and none before its time."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        came: list[tuple[float, float]] = []
        done = loop.create_future()

        def up(when: float) -> None:
            came.append((when, loop.time()))
            if len(came) == 20:
                done.set_result(None)

        now = loop.time()
        for number in (7, 3, 11, 0, 19, 5, 1, 13, 17, 2, 4, 6, 8, 9, 10, 12, 14, 15, 16, 18):
            when = now + number / 1000
            loop.call_at(when, up, when)
        await done
        assert came == sorted(came)
        # asyncio takes a timer as due from one tick of its clock on.
        resolution = time.get_clock_info("monotonic").resolution
        assert all(actual + resolution >= when for when, actual in came)

    run(main())


def test_a_timer_of_no_time_is_due(run: Run[None]) -> None:
    """One whose time is NaN comes at once, as in asyncio, and keeps no others from coming."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        came: list[str] = []
        loop.call_later(math.nan, came.append, "later")
        loop.call_at(math.nan, came.append, "at")
        loop.call_later(0.001, came.append, "after")
        await until(lambda: "after" in came)
        assert sorted(came) == ["after", "at", "later"]
        turns = current.driver().statistics().turns
        await asyncio.sleep(0.01)
        assert current.driver().statistics().turns - turns < 10

    run(main())


def test_many_cancelled_timers_are_swept(run: Run[None]) -> None:
    """Timers that are set and cancelled without end do not fill the heap."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        kept = loop.call_later(3600, print)
        for _ in range(10):
            for _ in range(100):
                loop.call_later(3600, print).cancel()
            await asyncio.sleep(0.0001)  # only a pass that waits looks at its timers
        assert len(loop._scheduled) < 300  # type: ignore[attr-defined]
        kept.cancel()

    run(main())


def test_context_of_a_callback(run: Run[None]) -> None:
    """A callback runs in the context given, or in a copy of the caller's."""
    variable = contextvars.ContextVar("variable", default="none")

    async def main() -> None:
        loop = asyncio.get_running_loop()
        seen: list[str] = []
        variable.set("caller")
        other = contextvars.Context()
        other.run(variable.set, "given")
        loop.call_soon(lambda: (seen.append(variable.get()), variable.set("changed")))
        loop.call_soon(lambda: seen.append(variable.get()), context=other)
        await asyncio.sleep(0)
        assert seen == ["caller", "given"]
        assert variable.get() == "caller"

    run(main())


def test_call_from_another_thread_wakes_the_loop(run: Run[None]) -> None:
    """A loop that waits for nothing else is woken by call_soon_threadsafe, again and again."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        for number in range(200):
            came: asyncio.Future[int] = loop.create_future()
            thread = threading.Thread(
                target=loop.call_soon_threadsafe, args=(came.set_result, number)
            )
            thread.start()
            assert await came == number
            thread.join()

    run(main())


def test_storm_of_threadsafe_calls(run: Run[None]) -> None:
    """No call is lost when threads outrun the loop, and each thread's calls keep their order."""
    thread_count, call_count = 4, 2000

    async def main() -> None:
        loop = asyncio.get_running_loop()
        came: list[list[int]] = [[] for _ in range(thread_count)]
        done = asyncio.Event()

        def arrived(index: int, number: int) -> None:
            came[index].append(number)
            if all(len(numbers) == call_count for numbers in came):
                done.set()

        def work(index: int) -> None:
            for number in range(call_count):
                loop.call_soon_threadsafe(arrived, index, number)

        threads = [threading.Thread(target=work, args=(index,)) for index in range(thread_count)]
        for thread in threads:
            thread.start()
        await done.wait()
        for thread in threads:
            thread.join()
        assert came == [list(range(call_count))] * thread_count

    run(main())


def test_debug_mode_refuses_calls_from_foreign_threads(
    loop: asyncio.AbstractEventLoop,
) -> None:
    """In debug mode call_soon, call_later and call_at raise in any thread but the loop's."""
    loop.set_debug(True)

    async def main() -> None:
        def intrude() -> list[type[BaseException]]:
            raised: list[type[BaseException]] = []
            for call in (
                lambda: loop.call_soon(print),
                lambda: loop.call_later(1, print),
                lambda: loop.call_at(1, print),
            ):
                try:
                    call()
                except RuntimeError as error:
                    raised.append(type(error))
            return raised

        assert await asyncio.to_thread(intrude) == [RuntimeError] * 3

    loop.run_until_complete(main())
    loop.run_until_complete(loop.shutdown_default_executor())


def test_debug_mode_names_slow_callbacks(
    loop: asyncio.AbstractEventLoop, caplog: pytest.LogCaptureFixture
) -> None:
    """In debug mode a callback that takes longer than `slow_callback_duration` is logged."""
    loop.set_debug(True)
    loop.slow_callback_duration = 0.0

    def named_callback() -> None:
        loop.stop()

    with caplog.at_level(logging.WARNING, "asyncio"):
        loop.call_soon(named_callback)
        loop.run_forever()
    assert any("named_callback" in record.getMessage() for record in caplog.records)


def test_debug_mode_names_tasks_that_an_operation_woke(
    loop: asyncio.AbstractEventLoop, caplog: pytest.LogCaptureFixture
) -> None:
    """What runs at the end of an operation is watched, too, and goes by the task's name."""
    loop.set_debug(True)
    loop.slow_callback_duration = 0.0

    async def main() -> None:
        await Op[int](NOP)
        caplog.clear()
        await Op[int](NOP)

    with caplog.at_level(logging.WARNING, "asyncio"):
        loop.run_until_complete(loop.create_task(main(), name="sleepless"))
    told = [record.getMessage() for record in caplog.records]
    assert any(one.startswith("Executing <Task") and "'sleepless'" in one for one in told), told


@pytest.mark.skipif(sys.version_info < (3, 12), reason="no eager tasks before Python 3.12")
def test_eager_tasks(run: Run[None]) -> None:
    """By argument or by factory a task runs up to its first wait as it is made."""

    async def main() -> None:
        loop: Any = asyncio.get_running_loop()
        steps: list[str] = []

        async def stepping(name: str) -> str:
            steps.append(name)
            await asyncio.sleep(0)
            return name

        one = loop.create_task(stepping("one"), eager_start=True, name="first")
        assert steps == ["one"]
        assert one.get_name() == "first"
        two = loop.create_task(stepping("two"))
        assert steps == ["one"]
        loop.set_task_factory(asyncio.eager_task_factory)  # type: ignore[attr-defined]
        three = loop.create_task(stepping("three"), name="third")
        assert steps == ["one", "three"]
        assert three.get_name() == "third"
        loop.set_task_factory(None)
        assert await asyncio.gather(one, two, three) == ["one", "two", "three"]

    run(main())


def test_debug_mode_tells_where_a_handle_was_made(loop: asyncio.AbstractEventLoop) -> None:
    """The repr of a debug handle names the line that called call_soon, not one of the loop's."""
    loop.set_debug(True)
    handle = loop.call_soon(print)
    assert "test_callbacks.py" in repr(handle)
    handle.cancel()

    async def main() -> None:
        task = loop.create_task(asyncio.sleep(0))
        assert f"created at {__file__}" in repr(task)
        await task

    loop.run_until_complete(main())


def test_exceptions_of_callbacks_go_to_the_handler(loop: asyncio.AbstractEventLoop) -> None:
    """A callback that raises is reported with its handle, and the rest goes on."""
    reports: list[dict[str, object]] = []
    loop.set_exception_handler(lambda _, context: reports.append(context))

    def fail() -> None:
        raise ValueError("on purpose")

    handle = loop.call_soon(fail)
    loop.call_soon(loop.stop)
    loop.run_forever()
    assert len(reports) == 1
    assert isinstance(reports[0]["exception"], ValueError)
    assert reports[0]["handle"] is handle
    assert "fail" in str(reports[0]["message"])


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_exits_end_the_run_and_leave_the_rest_for_the_next(
    loop: asyncio.AbstractEventLoop, kind: type[BaseException]
) -> None:
    """KeyboardInterrupt and SystemExit leave run_forever at once; what was ready is still ready."""
    ran: list[int] = []

    def exit_now() -> None:
        raise kind

    loop.call_soon(ran.append, 1)
    loop.call_soon(exit_now)
    loop.call_soon(ran.append, 2)
    with pytest.raises(kind):
        loop.run_forever()
    assert ran == [1]
    loop.call_soon(loop.stop)
    loop.run_forever()
    assert ran == [1, 2]


def test_executor_and_its_shutdown(run: Run[None]) -> None:
    """run_in_executor and to_thread return what the thread did; the executor ends with the loop."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        here = threading.get_ident()
        assert await loop.run_in_executor(None, threading.get_ident) != here
        assert await asyncio.gather(*(asyncio.to_thread(pow, 2, n) for n in range(20))) == [
            2**n for n in range(20)
        ]
        with pytest.raises(ZeroDivisionError):
            await asyncio.to_thread(lambda: 1 // 0)

    run(main())


def test_names_are_resolved(run: Run[None]) -> None:
    """Names and addresses are found by getaddrinfo and getnameinfo."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo("localhost", 80)
        assert {info[4][0] for info in found} & {"127.0.0.1", "::1"}
        assert await loop.getnameinfo(("127.0.0.1", 80), 3) == ("127.0.0.1", "80")

    run(main())


def test_async_generators_are_closed_at_the_end(run: Run[None]) -> None:
    """An async generator that was left half way is closed by the loop's end."""
    closed: list[bool] = []

    async def numbers() -> object:
        try:
            yield 1
            yield 2
        finally:
            await asyncio.sleep(0)
            closed.append(True)

    generator = numbers()

    async def main() -> None:
        assert await anext(generator) == 1  # type: ignore[arg-type]

    run(main())
    assert closed == [True]


def test_stop_takes_effect_after_the_pass(loop: asyncio.AbstractEventLoop) -> None:
    """What was ready together with the stop still runs; what came later waits for the next run."""
    ran: list[str] = []

    def stop() -> None:
        loop.stop()
        loop.call_soon(ran.append, "next run")

    loop.call_soon(stop)
    loop.call_soon(ran.append, "same pass")
    loop.run_forever()
    assert ran == ["same pass"]
    loop.call_soon(loop.stop)
    loop.run_forever()
    assert ran == ["same pass", "next run"]


def test_closed_loop_refuses(make_loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
    """A closed loop raises RuntimeError; closing it again does nothing."""
    loop = make_loop()
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()
    loop.close()
    for call in (
        lambda: loop.call_soon(print),
        lambda: loop.call_soon_threadsafe(print),
        lambda: loop.call_later(1, print),
        loop.run_forever,
    ):
        with pytest.raises(RuntimeError, match="closed"):
            call()


def test_running_loop_cannot_be_closed_nor_run(loop: asyncio.AbstractEventLoop) -> None:
    """Close and run_forever refuse while the loop runs."""

    async def main() -> None:
        with pytest.raises(RuntimeError):
            loop.close()
        with pytest.raises(RuntimeError):
            loop.run_forever()

    loop.run_until_complete(main())


def test_no_loop_inside_of_uringio_run(backend: str) -> None:
    """Under the native scheduler another loop cannot be run in the same thread."""
    import uringio
    from uringio import aio

    async def main() -> None:
        loop = aio.new_event_loop(backend=backend)
        try:
            with pytest.raises(UsageError, match="already runs"):
                loop.run_forever()
        finally:
            loop.close()

    uringio.run(main, backend=backend)


def test_unknown_backend_is_refused() -> None:
    """A backend that does not exist is refused when the loop is made; nothing is left to close."""
    from uringio import aio

    with pytest.raises(UsageError, match="no backend"):
        aio.new_event_loop(backend="pigeons")


def test_run_is_the_short_way(backend: str) -> None:
    """`aio.run` runs a coroutine on this library's loop and returns its result."""
    from uringio import aio

    async def main() -> tuple[bool, bool]:
        loop = asyncio.get_running_loop()
        return isinstance(loop, aio.EventLoop), loop.get_debug()

    assert aio.run(main(), backend=backend, debug=True) == (True, True)
