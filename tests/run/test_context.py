"""`Context`: the loop as others embed it."""

import gc
import os
import select
import signal
import threading
from collections.abc import Callable
from functools import partial

import pytest

import uringio
from tests.run.native import Gate, forever, wait_cancelled
from tests.surface.pairs import connected
from uringio import Context, TaskGroup, UsageError, WrongThreadError
from uringio._driver import current
from uringio.errors import ClosedError

PATIENCE_S = 50.0


# --- tick ----------------------------------------------------------------------------------------


def test_tick_makes_one_step(context: Context) -> None:
    """Each tick resumes what is ready once, and waits for nothing."""
    steps: list[int] = []

    async def walk() -> None:
        for number in range(3):
            steps.append(number)
            await uringio.checkpoint()

    task = context.spawn(walk)
    assert steps == []
    for number in range(3):
        context.tick()
        assert steps == list(range(number + 1))
    context.tick()
    assert task.finished
    context.tick()


def test_tick_does_not_wait(context: Context) -> None:
    """Without a timeout a tick returns although nothing is ready."""
    task = context.spawn(forever)
    for _ in range(5):
        context.tick()
    context.tick(-1)
    assert not task.finished


@pytest.mark.parametrize("timeout", [None, PATIENCE_S, float("inf")])
def test_tick_waits_for_what_comes(context: Context, timeout: float | None) -> None:
    """With a timeout it waits, and returns when something has come."""

    async def sleep() -> None:
        await uringio.sleep(0.001)

    task = context.spawn(sleep)
    turns = 0
    while not task.finished:
        context.tick(timeout)
        turns += 1
    assert turns <= 4


def test_tick_waits_until_its_timeout(context: Context) -> None:
    """It does not wait longer than told, though a task's deadline is far away."""

    async def wait() -> None:
        with uringio.move_on_after(3600):
            await forever()

    context.spawn(wait)
    context.tick()
    before_ns = context.clock()
    context.tick(0.002)
    assert context.clock() - before_ns >= 2_000_000
    assert context.clock() - before_ns < 3600 * 10**9


def test_interleaved_with_a_host(context: Context) -> None:
    """A host's own poll loop can carry the context: two programs, one thread."""
    ours, theirs = os.pipe()

    async def write_later() -> None:
        for _ in range(3):
            await uringio.sleep(0.001)
            os.write(theirs, b"x")

    try:
        task = context.spawn(write_later)
        received = b""
        poll = select.poll()
        poll.register(ours, select.POLLIN)
        while not task.finished or len(received) < 3:
            context.tick(0.001)
            for fd, _ in poll.poll(0):
                received += os.read(fd, 10)
        assert received == b"xxx"
    finally:
        os.close(ours)
        os.close(theirs)


def test_nothing_runs_between_ticks(context: Context) -> None:
    """Outside of a tick the thread has no loop: surface calls say so."""
    context.tick()
    with pytest.raises(UsageError):
        current.driver()
    with pytest.raises(UsageError):
        uringio.sleep(1)


def test_ticks_do_not_nest(context: Context) -> None:
    """Neither a tick in a task of the same context nor one of another."""

    async def nest() -> None:
        for run_again in (context.tick, context.run, lambda: context.run_until_done(forever)):
            with pytest.raises(UsageError, match="do not nest"):
                run_again()
        with pytest.raises(UsageError, match="do not nest"):
            context.close()

    context.run_until_done(nest)


def test_two_contexts_in_one_thread(backend: str) -> None:
    """Two contexts take turns in one thread; each has its own tasks and driver."""
    first, second = Context(backend=backend), Context(backend=backend)
    seen: list[str] = []

    async def program(name: str) -> None:
        for _ in range(3):
            seen.append(name)
            await uringio.sleep(0)

    tasks = [first.spawn(program, "first"), second.spawn(program, "second")]
    while not all(task.finished for task in tasks):
        first.tick()
        second.tick()
    assert seen == ["first", "second"] * 3
    first.close()
    second.close()


# --- run, stop, run_until_done -------------------------------------------------------------------


def test_run_until_done(context: Context) -> None:
    """The value comes back, and other tasks stay where they are."""
    gate = Gate()
    seen: list[str] = []

    async def other() -> None:
        await gate.wait()
        seen.append("other")

    async def main() -> str:
        await uringio.sleep(0.001)
        return "main"

    async def open_gate() -> None:
        gate.open()
        await uringio.checkpoint()
        await uringio.checkpoint()

    task = context.spawn(other)
    assert context.run_until_done(main) == "main"
    assert not task.finished
    context.run_until_done(open_gate)
    assert seen == ["other"]


def test_run_until_done_raises(context: Context) -> None:
    """What the function raises comes out; the context goes on."""

    async def fail() -> None:
        raise LookupError

    with pytest.raises(LookupError):
        context.run_until_done(fail)
    with pytest.raises(TypeError, match="not an async function"):
        context.run_until_done(lambda: None)  # type: ignore[arg-type, return-value]
    context.run_until_done(uringio.sleep, 0)


def test_run_until_stopped_by_a_task(context: Context) -> None:
    """`stop` from inside lets `run` return; the tasks are still there."""

    async def stop_later() -> None:
        await uringio.sleep(0.001)
        context.stop()
        await forever()

    task = context.spawn(stop_later)
    context.run()
    assert not task.finished


def test_run_until_stopped_by_another_thread(context: Context) -> None:
    """`stop` wakes a loop that waits in the kernel."""
    waiting = threading.Event()

    async def wait() -> None:
        waiting.set()
        await forever()

    context.spawn(wait)

    def stop() -> None:
        waiting.wait(PATIENCE_S)
        context.stop()

    for _ in range(20):
        thread = threading.Thread(target=stop)
        thread.start()
        context.run()
        thread.join()


def test_stop_before_run(context: Context) -> None:
    """A `stop` that comes first is not lost: `run` makes one pass and returns, once."""
    seen: list[str] = []
    context.run_soon(lambda: seen.append("ran"))
    context.stop()
    context.run()
    assert seen == ["ran"]
    context.run_soon(context.stop)
    context.run()


def test_stop_from_a_signal_handler(context: Context) -> None:
    """`stop` may be called from a signal handler, wherever the signal strikes."""
    before = signal.signal(signal.SIGALRM, lambda *_: context.stop())
    before_fd = signal.set_wakeup_fd(context.driver.wake_fd, warn_on_full_buffer=False)
    try:
        for _ in range(20):
            signal.setitimer(signal.ITIMER_REAL, 0.001)
            context.run()
    finally:
        signal.set_wakeup_fd(before_fd)
        signal.signal(signal.SIGALRM, before)


# --- run_soon ------------------------------------------------------------------------------------


def test_run_soon(context: Context) -> None:
    """Functions are called in the order in which they came, in the loop's thread, once."""
    seen: list[object] = []
    for number in range(3):
        context.run_soon(partial(seen.append, number))
    context.run_soon(lambda: seen.append(threading.get_ident()))
    context.tick()
    context.tick()
    assert seen == [0, 1, 2, threading.get_ident()]


def test_run_soon_from_many_threads(context: Context) -> None:
    """No call is lost, however many threads call at once while the loop sleeps and wakes."""
    per_thread, thread_count = 500, 8
    seen: list[tuple[int, int]] = []

    def feed(thread: int) -> None:
        for number in range(per_thread):
            context.run_soon(partial(seen.append, (thread, number)))

    threads = [threading.Thread(target=feed, args=(thread,)) for thread in range(thread_count)]
    for thread in threads:
        thread.start()
    while len(seen) < per_thread * thread_count:
        context.tick(None)
    for thread in threads:
        thread.join()
    for thread_number in range(thread_count):
        numbers = [number for thread, number in seen if thread == thread_number]
        assert numbers == list(range(per_thread))


def test_run_soon_wakes_a_waiting_loop(context: Context) -> None:
    """A thread's call ends a wait in the kernel, again and again."""
    waiting, answered = threading.Semaphore(0), threading.Semaphore(0)

    def feed() -> None:
        for _ in range(100):
            assert waiting.acquire(timeout=PATIENCE_S)
            context.run_soon(answered.release)
            assert answered.acquire(timeout=PATIENCE_S)
        context.run_soon(context.stop)

    async def keep_asking() -> None:
        while True:
            waiting.release()
            await uringio.sleep(0.0005)

    context.spawn(keep_asking)
    thread = threading.Thread(target=feed)
    thread.start()
    context.run()
    thread.join()


def test_run_soon_that_fails(context: Context, caplog: pytest.LogCaptureFixture) -> None:
    """An exception is logged, and the others are called."""
    seen: list[str] = []

    def fail() -> None:
        raise LookupError("soon")

    context.run_soon(fail)
    context.run_soon(lambda: seen.append("after"))
    context.tick()
    assert seen == ["after"]
    assert "LookupError: soon" in caplog.text


def test_run_soon_that_interrupts(context: Context) -> None:
    """KeyboardInterrupt out of a function ends the pass; what was to come is not lost."""
    seen: list[str] = []

    def interrupt() -> None:
        raise KeyboardInterrupt

    context.run_soon(interrupt)
    context.run_soon(lambda: seen.append("after"))
    with pytest.raises(KeyboardInterrupt):
        context.tick()
    context.tick()
    assert seen == ["after"]


def test_run_soon_inside_of_run_soon(context: Context) -> None:
    """A function that asks again is called in the next pass, so the loop cannot be starved."""
    seen: list[int] = []

    def again() -> None:
        seen.append(len(seen))
        context.run_soon(again)

    context.run_soon(again)
    for _ in range(5):
        context.tick()
    assert 5 <= len(seen) <= 10


# --- threads -------------------------------------------------------------------------------------


def in_thread(function: Callable[[], object]) -> BaseException | None:
    """Call *function* in another thread and return what it raised."""
    raised: list[BaseException | None] = []

    def call() -> None:
        try:
            function()
        except BaseException as error:
            raised.append(error)
        else:
            raised.append(None)

    thread = threading.Thread(target=call)
    thread.start()
    thread.join()
    return raised[0]


def test_another_thread_is_refused(context: Context) -> None:
    """All but `run_soon` and `stop` is for the thread that made it; nothing is changed."""
    attempts: list[Callable[[], object]] = [
        context.tick,
        context.run,
        lambda: context.run_until_done(forever),
        lambda: context.spawn(forever),
        context.close,
    ]
    for attempt in attempts:
        assert isinstance(in_thread(attempt), WrongThreadError)
    assert in_thread(context.stop) is None
    context.run_until_done(uringio.sleep, 0)


def test_made_in_one_thread_is_no_other_threads_loop(context: Context) -> None:
    """While it runs here, another thread has no loop."""

    async def main() -> None:
        assert isinstance(in_thread(lambda: uringio.sleep(1)), UsageError)
        assert isinstance(in_thread(uringio.CancelScope().__enter__), UsageError)

    context.run_until_done(main)


# --- the end -------------------------------------------------------------------------------------


def test_close_cancels_and_waits(backend: str) -> None:
    """Tasks that are left are cancelled, their cleanup run, and their sockets closed."""
    context = Context(backend=backend)
    seen: list[str] = []

    async def serve() -> None:
        async with connected() as (near, _):
            try:
                await near.recv()
            finally:
                with uringio.CancelScope(shield=True):
                    await uringio.sleep(0.001)
                seen.append("cleaned up")

    async def group() -> None:
        async with TaskGroup() as tasks:
            tasks.start_soon(wait_cancelled, seen, "child")

    context.spawn(serve)
    context.spawn(group)
    for _ in range(20):
        context.tick(0.01)
    context.close()
    assert sorted(seen) == ["child", "cleaned up"]
    assert context.driver.statistics().in_flight == 0


def test_close_twice(backend: str) -> None:
    """Closing again does nothing, from any thread."""
    context = Context(backend=backend)
    context.close()
    context.close()
    assert in_thread(context.close) is None


def test_close_with_a_task_that_fails(backend: str) -> None:
    """An error out of a task's cleanup does not keep the context from being closed."""
    context = Context(backend=backend)

    async def fail_when_cancelled() -> None:
        try:
            await forever()
        finally:
            raise LookupError

    task = context.spawn(fail_when_cancelled)
    context.tick()
    context.close()
    with pytest.raises(LookupError):
        task.result()


def test_use_after_close(backend: str) -> None:
    """Everything but `close` and `stop` is refused, and no coroutine is left unawaited."""
    context = Context(backend=backend)
    context.close()
    attempts: list[Callable[[], object]] = [
        context.tick,
        context.run,
        lambda: context.run_until_done(forever),
        lambda: context.spawn(forever),
        lambda: context.run_soon(lambda: None),
    ]
    for attempt in attempts:
        with pytest.raises(ClosedError, match="this context is closed"):
            attempt()
    context.stop()
    gc.collect()


def test_never_closed(backend: str) -> None:
    """A context that is forgotten warns."""
    context = Context(backend=backend)
    driver = context.driver
    context = None  # type: ignore[assignment]
    with pytest.warns(ResourceWarning, match="was never closed"):
        gc.collect()
    driver.close()


def test_close_gives_everything_back(backend: str) -> None:
    """A hundred contexts, used and closed, leave no descriptor; the fixture of all tests looks."""
    for _ in range(100):
        context = Context(backend=backend)
        context.run_until_done(uringio.sleep, 0)
        context.close()
