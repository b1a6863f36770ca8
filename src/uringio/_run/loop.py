"""
The native loop: one flat closure, and the `Context` that holds what is not hot.

One pass (`tick`) resumes everything that is ready, then makes one turn of the driver, which hands
over all that the resumed tasks asked for and waits.  Finished ops come straight into the same queue:
the driver's ``deliver`` *is* the queue's ``append``.

An op costs, besides the driver's part: one ``popleft``, one ``send`` into the coroutine, two checks.
Everything else (spawning, parking, cancelling, crashing) leaves the closure.

A task that is to be cancelled is interrupted where it waits: its op is cancelled in the driver and
resumes the task when the kernel has let go of it, or its `abort` is called if it is parked.  A task
that is not waiting meets its `attention` flag at the next await.
"""

import _thread
import contextvars
import heapq
import logging
from collections import deque
from collections.abc import Callable, Coroutine
from typing import TypeVar, TypeVarTuple, cast

from uringio._driver import current
from uringio._driver.contract import Driver, make_driver
from uringio._driver.current import ServingGroup
from uringio._driver.op import CLOSE, SPENT, Op
from uringio._sys.system import System
from uringio.errors import Cancelled, UsageError, WrongThreadError

from . import running
from .asyncgens import AsyncGenerators
from .scope import CancelScope
from .task import PARK, Task, park

__all__ = ["Context"]

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


def _make_cancelled(op: Op[object]) -> BaseException:
    error = Cancelled()
    error.done = op.done_bytes
    return error


class Context:
    """
    A native loop that others may embed.

    ``uringio.run`` makes one and drives it to its end.  A host with a loop of its own calls `tick`
    whenever it likes, from the thread that made the context.

    Args:
        backend: ``"uring"``, ``"epoll"``, or None to choose.

    Attributes:
        driver: The completion driver.
        task: The task that runs now, if any.
    """

    def __init__(self, *, backend: str | None = None, system: System | None = None) -> None:
        self.ready: deque[Op[object] | Task[object]] = deque()
        self.driver: Driver = make_driver(
            self.ready.append, _make_cancelled, backend=backend, system=system
        )
        self.clock = self.driver.system.monotonic_ns
        self.task: Task[object] | None = None
        self.root = CancelScope()
        self.root.attach(self, None)
        self.asyncgens = AsyncGenerators(self)
        self._thread = _thread.get_ident()
        self._deadlines: list[tuple[int, int, CancelScope]] = []
        self._deadline_serial = 0
        self._inbox: deque[Callable[[], object]] = deque()
        self._stopping = False
        self._hurry = False  # something ended that a caller watches: do not wait in this pass
        self._alive_count = 0
        self._main: Task[object] | None = None
        self._closed = False
        self._pass = self._make_pass()

    # --- running ---------------------------------------------------------------------------------

    def tick(self, timeout_seconds: float | None = 0.0) -> None:
        """
        Resume what is ready, then make one turn of the driver.

        Args:
            timeout_seconds: How long the turn may wait when nothing is ready; None: for ever.

        Raises:
            WrongThreadError: Called from another thread than the one that made the context.
        """
        self._enter()
        try:
            if timeout_seconds is None:
                self._pass(None)
            else:
                self._pass(self.clock() + int(timeout_seconds * 1e9) if timeout_seconds else 0)
        finally:
            self._leave()

    def run(self) -> None:
        """Run passes until `stop` is called."""
        self._enter()
        self._stopping = False
        try:
            while not self._stopped():
                self._pass(None)
        finally:
            self._leave()

    def run_until_done(
        self, async_fn: Callable[[*Ts], Coroutine[object, None, T]], *args: *Ts
    ) -> T:
        """
        Run ``async_fn(*args)`` as a task until it ends, and return what it returns.

        Other tasks run on meanwhile, and stay where they are when it has ended.
        """
        self._enter()
        try:
            task = self.spawn(async_fn, *args)
            one_pass = self._pass
            while not task.finished:
                one_pass(None)
            return task.result()
        finally:
            self._leave()

    def run_main(
        self, async_fn: Callable[[*Ts], Coroutine[object, None, T]], args: tuple[*Ts]
    ) -> T:
        """Like `run_until_done`, for the task that Ctrl-C is delivered to."""
        self._enter()
        try:
            task = self.spawn(async_fn, *args)
            self._main = cast("Task[object]", task)
            one_pass = self._pass
            while not task.finished:
                one_pass(None)
            return task.result()
        finally:
            self._main = None
            self._leave()

    def run_down(self) -> None:
        """Cancel every task that is left and run until the last has ended."""
        self._enter()
        try:
            closing = self.spawn(self.asyncgens.aclose_all)
            while not closing.finished:
                self._pass(None)
            self.root.cancel()
            while self._alive_count:
                self._pass(None)
        finally:
            self._leave()

    def interrupt_main(self, reason: BaseException) -> None:
        """
        Raise *reason* in the main task at its next await; from a signal handler.

        Without a main task it is raised by the pass that is under way.
        """

        def interrupt() -> None:
            main = self._main
            if main is None or main.finished:
                raise reason
            main.interrupt = reason
            main.attention = True
            self.interrupt(main, reason)

        self.run_soon(interrupt)

    async def pass_turn(self) -> None:
        """Let the running task wait for the next pass; see `checkpoint`."""
        task = self.require_task()
        if not task.attention:
            self.ready.append(task)
            await park()
        if task.attention:
            task.abort = _at_once
            await park()

    def stop(self) -> None:
        """Let `run` return after its current pass; from any thread."""
        self._stopping = True
        self._hurry = True
        self.driver.wake()

    def _stopped(self) -> bool:
        return self._stopping

    def run_soon(self, function: Callable[[], object]) -> None:
        """
        Have the loop call *function* in its next pass; from any thread or signal handler.

        An exception out of it is logged.
        """
        self._inbox.append(function)
        self.driver.wake()

    def close(self) -> None:
        """Cancel what is left, give the kernel a second to let go of it, free everything."""
        if not self._closed:
            self.require_thread()
            self._closed = True
            self.driver.close()

    # --- tasks -----------------------------------------------------------------------------------

    def spawn(self, async_fn: Callable[[*Ts], Coroutine[object, None, T]], *args: *Ts) -> Task[T]:
        """
        Start a task that belongs to the context itself; whoever calls looks at its result.

        Tasks started with a `TaskGroup` are looked after by it; prefer those.
        """
        return self.spawn_coroutine(
            coroutine_of(async_fn, args), self.root, _name_of(async_fn), _ignore
        )

    def spawn_coroutine(
        self,
        coroutine: Coroutine[object, None, T],
        scope: CancelScope,
        name: str,
        on_finish: Callable[[Task[T]], None],
    ) -> Task[T]:
        """Start *coroutine* as a task in *scope*; *on_finish* hears of its end."""
        self.require_thread()
        task = Task(coroutine, scope, contextvars.copy_context(), name, on_finish)
        anonymous = cast("Task[object]", task)
        scope.tasks.add(anonymous)
        task.attention = scope.cancelled
        self._alive_count += 1
        self.ready.append(anonymous)
        return task

    def require_task(self) -> Task[object]:
        """Return the running task; raises `UsageError` outside of one."""
        if self.task is None:
            raise UsageError("this is for tasks; no task is running")
        return self.task

    def wake_task(self, task: Task[object], error: BaseException | None = None) -> None:
        """Put a parked task back into the queue."""
        task.abort = None
        task.error = error
        self.ready.append(task)

    def interrupt(self, task: Task[object], reason: BaseException | None) -> None:
        """
        Ask for *task*, if it waits, to be resumed with `Cancelled`, or with *reason*.

        A task that does not wait meets its `attention` flag instead.
        """
        if task is self.task or task.finished:
            return
        if task.abort is not None:
            if task.abort():
                self.wake_task(task, reason if reason is not None else Cancelled())
                if reason is not None:
                    self.interrupt_delivered(task)
        elif task.op is not None and task.op.waiter is task:
            if self.driver.cancel(task.op, reason) and reason is not None:
                self.interrupt_delivered(task)

    def interrupt_delivered(self, task: Task[object]) -> None:
        """Forget the task's pending interrupt, which is on its way into it."""
        task.interrupt = None
        task.attention = task.scope.cancelled

    # --- the scheduler protocol of `_driver.current` -----------------------------------------------

    def serving_group(self) -> ServingGroup:
        """See `Scheduler`."""
        from .group import TaskGroup

        return TaskGroup()

    def call_soon(
        self,
        callback: Callable[[Op[T]], object],
        op: Op[T],
        context: contextvars.Context | None,
    ) -> None:
        """See `Scheduler`."""
        self.run_soon(lambda: context.run(callback, op) if context else callback(op))

    def asyncio_loop(self) -> object:
        """See `Scheduler`."""
        raise UsageError("the native scheduler has no asyncio loop")

    # --- time ------------------------------------------------------------------------------------

    def watch_deadline(self, scope: CancelScope) -> None:
        """Cancel *scope* when its deadline comes, unless it was left or moved before."""
        assert scope.deadline_ns is not None
        self._deadline_serial += 1
        heapq.heappush(self._deadlines, (scope.deadline_ns, self._deadline_serial, scope))

    def _next_deadline_ns(self) -> int | None:
        deadlines = self._deadlines
        while deadlines and deadlines[0][2].deadline_ns != deadlines[0][0]:
            heapq.heappop(deadlines)
        return deadlines[0][0] if deadlines else None

    def _expire(self) -> None:
        now_ns = self.clock()
        deadlines = self._deadlines
        while deadlines and deadlines[0][0] <= now_ns:
            deadline_ns, _, scope = heapq.heappop(deadlines)
            if scope.deadline_ns == deadline_ns:
                scope.cancel()

    # --- the flat part -----------------------------------------------------------------------------

    def _make_pass(self) -> Callable[[int | None], None]:
        ready = self.ready
        take = ready.popleft
        driver = self.driver
        submit, turn = driver.submit, driver.turn
        inbox, deadlines = self._inbox, self._deadlines
        context = self

        def one_pass(deadline_ns: int | None) -> None:
            for _ in range(len(ready)):
                item = take()
                # A task, or else `_finish` finds out: a check here would cost every op.
                task: Task[object] = item.waiter  # type: ignore[assignment]
                error = item.error
                context.task = task
                item.state = SPENT
                try:
                    if error is None:
                        trap = task.run(task.send, None)
                    else:
                        item.error = None
                        trap = task.run(task.throw, error)
                except BaseException as failure:
                    finish(item, task, failure)
                    continue
                if (
                    type(trap) is Op
                    and not task.attention
                    and ((home := trap.home) is driver or home is None)
                ):
                    task.op = trap
                    trap.waiter = task
                    try:
                        submit(trap)
                    except BaseException as failure:
                        refused(task, trap, failure)
                else:
                    trapped(task, trap)
            context.task = None
            if inbox:
                context._drain_inbox()
            if ready or context._hurry:
                context._hurry = False
                turn(0)
            elif deadlines:
                nearest_ns = context._next_deadline_ns()
                if nearest_ns is None or (deadline_ns is not None and deadline_ns < nearest_ns):
                    nearest_ns = deadline_ns
                turn(nearest_ns)
            else:
                turn(deadline_ns)
            if inbox:
                context._drain_inbox()
            if deadlines:
                context._expire()

        finish, refused, trapped = self._finish, self._refused, self._trapped
        return one_pass

    # --- what is seldom ----------------------------------------------------------------------------

    def _finish(
        self, item: Op[object] | Task[object], task: Task[object], failure: BaseException
    ) -> None:
        """End a task whose coroutine returned or raised."""
        self.task = None
        if isinstance(item, Op) and not isinstance(item.waiter, Task):
            self._deliver_elsewhere(item)
            return
        if isinstance(failure, StopIteration):
            task.outcome = failure.value
        else:
            task.failure = failure
        task.finished = True
        task.op = None
        task.scope.tasks.discard(task)
        self._alive_count -= 1
        if task.scope is self.root:
            self._hurry = True
        task.on_finish(task)

    def _deliver_elsewhere(self, op: Op[object]) -> None:
        """Deliver an op that no task awaits: to its callback, or to nobody."""
        callback, context = op.waiter, op.context
        if callable(callback):
            try:
                if context is None:
                    callback(op)
                else:
                    context.run(callback, op)
            except Exception:
                logging.getLogger("uringio").exception("a done callback of %r failed", op)

    def _refused(self, task: Task[object], op: Op[object], failure: BaseException) -> None:
        """Throw into the task what the driver said to its op."""
        op.state = SPENT
        self.wake_task(task, failure)

    def _trapped(self, task: Task[object], trap: object) -> None:
        """Handle whatever a task yielded that is not simply an op to submit."""
        self.task = None
        if isinstance(trap, Op):
            if trap.home is not None and trap.home is not self.driver:
                self.driver.abandon(trap)
                self.wake_task(
                    task, WrongThreadError(f"{trap!r} belongs to a handle of another loop")
                )
                return
            if not task.attention:
                task.op = trap
                trap.waiter = task
                try:
                    self.driver.submit(trap)
                except BaseException as failure:
                    self._refused(task, trap, failure)
                return
            reason = task.interrupt
            if reason is not None:
                self.interrupt_delivered(task)
            if trap.code == CLOSE:
                # A close that is not made leaks the descriptor: make it, then report.
                task.op = trap
                trap.waiter = task
                self.driver.submit(trap)
                self.driver.cancel(trap, reason)
            else:
                self.driver.abandon(trap)
                self.wake_task(task, reason if reason is not None else Cancelled())
        elif trap is PARK:
            if task.attention:
                self.interrupt(task, task.interrupt)
        else:
            self.wake_task(
                task,
                TypeError(
                    f"a task under uringio.run awaited {trap!r}, which belongs to another "
                    "event loop; awaitables of asyncio need asyncio's loop"
                ),
            )

    def _drain_inbox(self) -> None:
        inbox = self._inbox
        for _ in range(len(inbox)):
            function = inbox.popleft()
            try:
                function()
            except Exception:
                logging.getLogger("uringio").exception("a function given to run_soon failed")

    def require_thread(self) -> None:
        """Raise `WrongThreadError` unless called from the context's own thread."""
        if _thread.get_ident() != self._thread:
            raise WrongThreadError(
                "this belongs to a loop that runs in another thread; use run_soon() to reach it"
            )

    def _enter(self) -> None:
        self.require_thread()
        if self._closed:
            raise UsageError("this context is closed")
        if running.maybe_context() is not None:
            running.refuse_nesting()
        running.set_context(self)
        current.set_current(self.driver, self)
        self.asyncgens.install()

    def _leave(self) -> None:
        self.asyncgens.uninstall()
        running.set_context(None)
        current.set_current(None, None)
        self.task = None


def coroutine_of(
    async_fn: Callable[[*Ts], Coroutine[object, None, T]], args: tuple[*Ts]
) -> Coroutine[object, None, T]:
    """
    Call *async_fn* and return its coroutine.

    Raises:
        TypeError: It is a coroutine already, or returns something else.
    """
    given: object = async_fn
    if isinstance(given, Coroutine):
        given.close()
        raise TypeError(
            "pass the async function and its arguments, not a coroutine: run(main), not run(main())"
        )
    coroutine = async_fn(*args)
    returned: object = coroutine
    if not isinstance(returned, Coroutine):
        raise TypeError(f"{async_fn!r} is not an async function: it returned {returned!r}")
    return coroutine


def _at_once() -> bool:
    return True


def _name_of(async_fn: object) -> str:
    return str(getattr(async_fn, "__qualname__", async_fn))


def _ignore(task: Task[T]) -> None:
    """Nobody but the holder of the task hears of its end."""
