"""`offload`: blocking calls in worker threads, and how little they can hold up."""

import contextvars
import threading
import time

import pytest

import uringio
from tests.fresh import FreshPython
from tests.run.native import Run, in_flight, until
from uringio import CancelScope, TaskGroup, UsageError


def test_result(run: Run) -> None:
    """The call is made in another thread, with its arguments, and its result comes back."""

    def call(left: int, right: int) -> tuple[int, int]:
        return left + right, threading.get_ident()

    async def main() -> tuple[int, int]:
        return await uringio.offload(call, 1, 2)

    total, thread = run(main)
    assert total == 3
    assert thread != threading.get_ident()


@pytest.mark.parametrize("error", [LookupError("mine"), SystemExit(1), KeyboardInterrupt()])
def test_error(run: Run, error: BaseException) -> None:
    """What the call raises is raised where it is awaited."""

    def call() -> None:
        raise error

    async def main() -> None:
        with pytest.raises(type(error)) as caught:
            await uringio.offload(call)
        assert caught.value is error

    run(main)


def test_context_variables(run: Run) -> None:
    """The call sees the caller's variables, as they are when `offload` is called."""
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="nothing")

    def call() -> str:
        seen = variable.get()
        variable.set("the worker's")
        return seen

    async def main() -> list[str]:
        variable.set("the caller's")
        op = uringio.offload(call)
        variable.set("later")
        return [await op, variable.get()]

    assert run(main) == ["the caller's", "later"]


def test_more_calls_than_workers(run: Run) -> None:
    """Calls beyond the pool's size wait in line, and none is lost."""
    most = running = 0
    lock = threading.Lock()

    def call(number: int) -> int:
        nonlocal most, running
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(0.001)
        with lock:
            running -= 1
        return number

    async def one(number: int) -> None:
        results.append(await uringio.offload(call, number))

    async def main() -> None:
        async with TaskGroup() as group:
            for number in range(100):
                group.start_soon(one, number)

    results: list[int] = []
    run(main)
    assert sorted(results) == list(range(100))
    assert 1 <= most <= 8


def test_cancelled_at_once(run: Run) -> None:
    """A cancelled wait ends while the call still runs; what it returns is dropped."""
    started, may_end = threading.Event(), threading.Event()

    def call() -> str:
        started.set()
        may_end.wait(50)
        return "dropped"

    async def main() -> None:
        with CancelScope() as scope:
            async with TaskGroup() as group:
                group.start_soon(uringio.offload, call)
                await until(started.is_set)
                scope.cancel()
        assert scope.cancelled_caught
        assert not may_end.is_set()
        assert in_flight() == 0
        may_end.set()
        for _ in range(10):
            await uringio.checkpoint()

    run(main)


def test_needs_a_loop() -> None:
    """Outside of a loop it says so at once."""
    with pytest.raises(UsageError):
        uringio.offload(print)


def test_a_blocked_call_does_not_hold_up_exit(backend: str, fresh_python: FreshPython) -> None:
    """A call that never returns keeps neither `run` nor the interpreter from ending."""
    ended = fresh_python(
        """
        import sys, threading, uringio

        started = threading.Event()

        def call():
            started.set()
            threading.Event().wait()

        async def main():
            with uringio.CancelScope() as scope:
                op = uringio.offload(call)
                op.add_done_callback(lambda _: None)
                await uringio.offload(started.wait)
                scope.cancel()
                await uringio.offload(call)
            assert scope.cancelled_caught
            print("main ended", flush=True)

        uringio.run(main, backend=sys.argv[1])
        print("run ended", flush=True)
        """,
        backend,
    )
    ended.check()
    assert ended.stdout.split("\n")[:2] == ["main ended", "run ended"]
