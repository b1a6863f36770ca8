"""`uringio.offload`, as users see it."""

import contextvars
import threading

import pytest

import uringio
from tests.fresh import FreshPython
from tests.surface.schedulers import Scheduler, with_tests


def test_calls_run_beside_the_loop(scheduler: Scheduler) -> None:
    """The call waits for something that only the loop does; its value comes back."""

    async def main() -> None:
        released = threading.Event()
        loop_thread = threading.get_ident()

        def call(value: int) -> int:
            assert released.wait(50)
            assert threading.get_ident() != loop_thread
            return value + 1

        async def offload() -> int:
            return await uringio.offload(call, 41)

        task = scheduler.spawn(offload)
        await scheduler.checkpoint()
        assert not task.ended
        released.set()
        assert await task.result() == 42

    scheduler.run(main)


def test_errors_come_back(scheduler: Scheduler) -> None:
    """What the call raises is raised where it is awaited, with the traceback of the call."""

    def call() -> None:
        raise LookupError("in the worker")

    async def main() -> None:
        with pytest.raises(LookupError, match="in the worker") as caught:
            await uringio.offload(call)
        assert caught.traceback[-1].name == "call"

    scheduler.run(main)


def test_context_variables_are_seen(scheduler: Scheduler) -> None:
    """The call sees the caller's context variables; what it sets stays with it."""
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable")

    def call() -> str:
        value = variable.get()
        variable.set("the worker's")
        return value

    async def main() -> None:
        variable.set("the caller's")
        assert await uringio.offload(call) == "the caller's"
        assert variable.get() == "the caller's"

    scheduler.run(main)


def test_many_calls(scheduler: Scheduler) -> None:
    """More calls than workers: each gets its own answer, and at most eight run at once."""

    async def main() -> None:
        lock = threading.Lock()
        now = most = 0

        def call(number: int) -> int:
            nonlocal now, most
            with lock:
                now += 1
                most = max(most, now)
            with lock:
                now -= 1
            return number * number

        async def offload(number: int) -> int:
            return await uringio.offload(call, number)

        tasks = [scheduler.spawn(offload, number) for number in range(200)]
        assert [await task.result() for task in tasks] == [n * n for n in range(200)]
        assert most <= 8

    scheduler.run(main)


def test_cancelled_call_is_left_to_itself(scheduler: Scheduler) -> None:
    """The caller is told at once; the call ends unheard, and disturbs nobody."""

    async def main() -> None:
        entered, released = threading.Event(), threading.Event()

        def call() -> None:
            entered.set()
            assert released.wait(50)
            raise LookupError("to nobody")

        async def offload() -> None:
            await uringio.offload(call)

        task = scheduler.spawn(offload)
        await scheduler.until(entered.is_set)
        task.cancel()
        assert (await task.wait()).cancelled
        released.set()
        assert await uringio.offload(int) == 0

    scheduler.run(main)


@pytest.mark.parametrize("count", [1, 30])
def test_hanging_calls_do_not_hold_up_exit(
    scheduler: Scheduler, fresh_python: FreshPython, count: int
) -> None:
    """A program ends although calls that were cancelled never do."""
    code = """
        import sys, threading
        import uringio
        from tests.surface import schedulers

        scheduler = schedulers.make(*sys.argv[1:3])
        entered = threading.Event()

        def hang():
            entered.set()
            threading.Event().wait()

        async def offload():
            await uringio.offload(hang)

        async def main():
            for _ in range(int(sys.argv[3])):
                scheduler.spawn(offload)
            await scheduler.until(entered.is_set)

        scheduler.run_and_leave(main)
        print("ended")
    """
    ended = fresh_python(code, scheduler.name, scheduler.backend, str(count), env=with_tests())
    assert ended.check().stdout == "ended\n"
