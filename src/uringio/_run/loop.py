"""
The native loop: one flat closure, and the `Loop` that holds what is not hot.

One pass resumes everything that is ready, then makes one turn of the driver, which hands over all
that the resumed tasks asked for and waits.  Finished ops come straight into the same queue: the
driver's ``deliver`` *is* the queue's ``append``.

An op costs, besides the driver's part: one ``popleft``, one ``send`` into the coroutine, two
checks.  Everything else (spawning, parking, cancelling, crashing) leaves the closure.

A task that is to be cancelled is interrupted where it waits: its op is cancelled in the driver and
resumes the task when the kernel has let go of it, or its `abort` is called if it is parked.  A task
that is not waiting meets its `attention` flag at the next await.
"""

import _thread
import contextvars
import logging
import warnings
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from typing import TypeVar, TypeVarTuple, cast

from uringio._driver.choice import make_driver
from uringio._driver.contract import Driver, System
from uringio._driver.current import ServingGroup
from uringio._driver.op import CLOSE, NEW, SPENT, Op
from uringio.errors import Cancelled, ClosedError, UsageError, WrongThreadError

from . import running
from .accidents import (
    abandon,
    abandon_awaited,
    empty_for_child,
    forked_error,
    has_ended,
    requeue_lost,
)
from .asyncgens import AsyncGenerators
from .deadlines import Deadlines
from .scope import CancelScope
from .task import PARK, LooseTask, Task, coroutine_of, name_of, park

__all__ = ["Loop", "ignore"]

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


def _make_cancelled(op: Op[object]) -> BaseException:
    error = Cancelled()
    error.done = op.done_bytes
    return error


class Loop:
    """
    Tasks, and the pass that resumes them; `Context` adds the ways to run it.

    Args:
        backend: As for `uringio.run`.
        system: The system to run on; by default the real one.
        ready: The queue to use, for one that looks at what passes through it.

    Attributes:
        driver: The completion driver.
        task: The task that runs now, if any.
    """

    _closed = True  # until there is something to close
    _forked = False

    def __init__(
        self,
        *,
        backend: str = "auto",
        system: System | None = None,
        ready: "deque[Op[object] | Task[object]] | None" = None,
    ) -> None:
        self.ready: deque[Op[object] | Task[object]] = deque() if ready is None else ready
        self.driver: Driver = make_driver(
            self.ready.append, _make_cancelled, backend=backend, system=system
        )
        self._closed = False
        self.clock = self.driver.system.monotonic_ns
        self.task: Task[object] | None = None
        self.deadlines = Deadlines()
        # Two scopes: what programs start is cancelled as a whole, and what cleans up behind it not.
        self._root = CancelScope()
        self._root.attach(self, None)
        self._everything = CancelScope()
        self._everything.attach(self, self._root)
        self._asyncgens = AsyncGenerators(self)
        self._thread = _thread.get_ident()
        self._inbox: deque[Callable[[], object]] = deque()
        self._stopping = False
        self._hurry = False  # something ended that a caller watches: do not wait in this pass
        self._alive: dict[Task[object], None] = {}
        self._main: Task[object] | None = None
        self._watched: Task[object] | None = None
        self._pass = self._make_pass()
        running.watch_forks(self)

    def __del__(self) -> None:
        if not self._closed and not self._forked:
            warnings.warn(f"{self!r} was never closed", ResourceWarning, stacklevel=1, source=self)

    # --- waking and interrupting -----------------------------------------------------------------

    def interrupt_main(self, reason: BaseException) -> None:
        """
        Raise *reason* in the main task at its next await.

        Without a main task it is raised here, and so by the pass that is under way.
        """
        main = self._main
        if main is None:
            raise reason
        main.interrupt = reason
        if not main.finished:  # else whoever runs main finds it there
            main.attention = True
            self.interrupt(main, reason)

    async def pass_turn(self) -> None:
        """Let the running task wait for the next pass; see `checkpoint`."""
        task = self.require_task()
        if not task.attention:
            try:
                self.ready.append(task)
                await park()
            except BaseException:  # a signal handler's: whoever goes on must not be resumed twice
                if task in self.ready:
                    self.ready.remove(task)
                raise
        if task.attention:
            task.abort = _at_once
            await park()

    def run_soon(self, function: Callable[[], object]) -> None:
        """
        Have the loop call *function* in its next pass; from any thread or signal handler.

        An exception out of it is logged; KeyboardInterrupt and SystemExit end the pass.

        Raises:
            ClosedError: The context is closed.
        """
        if self._closed:
            raise ClosedError("this context is closed; nothing runs in it any more")
        self._inbox.append(function)
        self.driver.wake()

    # --- tasks -----------------------------------------------------------------------------------

    def spawn(self, async_fn: Callable[[*Ts], Awaitable[T]], *args: *Ts) -> Task[T]:
        """
        Start a task that belongs to the context itself; whoever calls looks at its result.

        A failure that nobody asks for is logged; KeyboardInterrupt and SystemExit end the pass.
        Tasks started with a `TaskGroup` are looked after by it; prefer those.

        Raises:
            WrongThreadError: Called from another thread than the one that made the context.
            ClosedError: The context is closed.
        """
        self._require_usable()
        coroutine = coroutine_of(async_fn, args)
        task = LooseTask(
            coroutine, self._everything, contextvars.copy_context(), name_of(async_fn), ignore
        )
        self._start(cast("Task[object]", task))
        return task

    def spawn_coroutine(
        self,
        coroutine: Coroutine[object, None, T],
        scope: CancelScope,
        name: str,
        on_finish: Callable[[Task[T]], None],
    ) -> Task[T]:
        """Start *coroutine* as a task in *scope*; *on_finish* hears of its end."""
        task = Task(coroutine, scope, contextvars.copy_context(), name, on_finish)
        self._start(cast("Task[object]", task))
        return task

    def _start(self, task: Task[object]) -> None:
        task.attention = task.scope.cancelled
        self.ready.append(task)
        task.scope.tasks[task] = None
        self._alive[task] = None

    def tasks(self) -> list[Task[object]]:
        """Return every task that has not ended, in the order of their start."""
        return list(self._alive)

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
        if task is self.task or task.finished or self._forked:
            return
        if task.abort is not None:
            if task.abort(reason):
                self.wake_task(task, reason if reason is not None else Cancelled())
                if reason is not None:
                    self.interrupt_delivered(task)
            return
        op = task.op
        if op is None or op.waiter is not task:
            return
        if reason is None and not isinstance(op.error, Exception | Cancelled | None):
            return  # Ctrl-C, or what a handler raised, is on its way and outranks cancellation
        if self.driver.cancel(op, reason) and reason is not None:
            op.error = reason  # it might have been on its way to a mere cancellation
            self.interrupt_delivered(task)

    def interrupt_delivered(self, task: Task[object]) -> None:
        """Forget the task's pending interrupt, which is on its way into it."""
        task.interrupt = None
        task.attention = task.scope.cancelled

    # --- the scheduler protocol of `_driver.current` ---------------------------------------------

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
        self.run_soon(lambda: callback(op) if context is None else context.run(callback, op))

    def asyncio_loop(self) -> object:
        """See `Scheduler`."""
        raise UsageError("the native scheduler has no asyncio loop")

    # --- the flat part ---------------------------------------------------------------------------

    def _make_pass(self) -> Callable[[int | None], None]:
        ready = self.ready
        take = ready.popleft
        driver = self.driver
        submit, turn = driver.submit, driver.turn
        inbox = self._inbox
        deadlines = self.deadlines.heap
        nearest, expire, clock = self.deadlines.nearest_ns, self.deadlines.expire, self.clock
        context = self

        def one_pass(deadline_ns: int | None) -> None:
            # Twice: what follows an operation that ended at once costs no turn of its own.
            for _ in range(2 if deadline_ns != 0 else 1):
                for _ in range(len(ready)):
                    item = take()
                    # A task, or else `_finish` finds out: a check here would cost every op.
                    task: Task[object] = item.waiter  # type: ignore[assignment]
                    trap: Op[object]  # or anything else that a coroutine may yield
                    error = item.error
                    context.task = task
                    item.state = SPENT
                    try:
                        if error is None:
                            trap = task.run(task.send, None)  # type: ignore[arg-type]
                        else:
                            item.error = None
                            trap = task.run(task.throw, error)  # type: ignore[arg-type]
                    except BaseException as failure:
                        finish(item, task, failure, error)
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
                        trapped(item, task, trap, error)
                if not ready or inbox or context._hurry:
                    break
            # The wait may be long; nothing that has ended shall live through it in a local.
            item = task = trap = error = None  # type: ignore[assignment]
            context.task = None
            if inbox:
                context._drain_inbox()
            if ready or context._hurry:
                context._hurry = False
                turn(0)
            elif deadlines:
                nearest_ns = nearest()
                if nearest_ns is None or (deadline_ns is not None and deadline_ns < nearest_ns):
                    nearest_ns = deadline_ns
                turn(nearest_ns)
            else:
                turn(deadline_ns)
            if inbox:
                context._drain_inbox()
            if deadlines:
                expire(clock())

        finish, refused, trapped = self._finish, self._refused, self._trapped
        return one_pass

    # --- what is seldom --------------------------------------------------------------------------

    def _finish(
        self,
        item: Op[object] | Task[object],
        task: Task[object],
        failure: BaseException,
        thrown: BaseException | None,
    ) -> None:
        """End a task whose coroutine returned or raised."""
        self.task = None
        if not isinstance(item.waiter, Task):
            self._deliver_elsewhere(item, thrown)
            if not isinstance(failure, AttributeError | TypeError):
                raise failure  # a signal handler's; of these two kinds is that it is no task
            return
        if isinstance(failure, StopIteration):
            task.outcome = failure.value
        elif not has_ended(task) and (thrown is None or not isinstance(failure, RuntimeError)):
            # (A RuntimeError says that the coroutine cannot be run, which must not go on for ever.)
            self._struck(item, task, failure)
            return
        else:
            task.failure = failure
            if failure.__traceback__ is not None:
                # Without the pass's own frame, which holds the task, which holds the failure.
                failure.__traceback__ = failure.__traceback__.tb_next
        self._complete(task)

    def _struck(
        self, item: Op[object] | Task[object], task: Task[object], failure: BaseException
    ) -> None:
        """Go on after a signal handler raised just before or just after a coroutine ran."""
        resumed = not isinstance(item, Op) or item.value is None  # it takes the value first thing
        if resumed and getattr(task.coroutine, "cr_suspended", False):
            # What it yielded is lost, so it must hear of that.
            abandon_awaited(task, self.driver)
            self.wake_task(task, failure)
        else:
            self.ready.append(item)
            raise failure

    def _complete(self, task: Task[object]) -> None:
        """Tell of a task's end; may be done again where it was broken off."""
        task.finished = True
        task.on_finish(task)
        task.op = task.waiter = None
        task.scope.tasks.pop(task, None)
        self._alive.pop(task, None)
        if task is self._watched or not self._alive:
            self._hurry = True
        if (
            task.on_finish is ignore
            and task is not self._watched
            and isinstance(task.failure, KeyboardInterrupt | SystemExit)
        ):
            raise task.failure  # nobody else would

    def _deliver_elsewhere(
        self, item: Op[object] | Task[object], thrown: BaseException | None
    ) -> None:
        """Deliver an op that no task awaits: to its callback, or to nobody."""
        if not isinstance(item, Op):
            return  # a task that has ended, queued twice by an accident
        item.error = thrown  # the pass took it away before it knew
        context = item.context
        if callable(item.waiter):
            callback = cast("Callable[[Op[object]], object]", item.waiter)
            try:
                if context is None:
                    callback(item)
                else:
                    context.run(callback, item)
            except Exception:
                logging.getLogger("uringio").exception("a done callback of %r failed", item)

    def _refused(self, task: Task[object], op: Op[object], failure: BaseException) -> None:
        """Throw into the task what the driver said to its op."""
        if op.state != NEW and self.driver.cancel(op, failure):
            return  # a signal handler raised when the driver had taken it
        abandon(op, self.driver)
        self.wake_task(task, failure)

    def _trapped(
        self,
        item: Op[object] | Task[object],
        task: Task[object],
        trap: object,
        thrown: BaseException | None,
    ) -> None:
        """Handle whatever a task yielded that is not simply an op to submit."""
        self.task = None
        if not isinstance(item.waiter, Task):
            self._deliver_elsewhere(item, thrown)  # a callback that looks like a task
        elif self._forked:
            self._refuse_forked(task, trap)
        elif isinstance(trap, Op):
            self._trapped_op(task, cast("Op[object]", trap))
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

    def _trapped_op(self, task: Task[object], op: Op[object]) -> None:
        if op.home is not None and op.home is not self.driver:
            self.driver.abandon(op)
            self.wake_task(task, WrongThreadError(f"{op!r} belongs to a handle of another loop"))
            return
        reason: BaseException | None = None
        if task.attention:
            reason = task.interrupt
            if reason is not None:
                self.interrupt_delivered(task)
            if op.code != CLOSE:
                self.driver.abandon(op)
                self.wake_task(task, reason if reason is not None else Cancelled())
                return
        task.op = op
        op.waiter = task
        try:
            self.driver.submit(op)
        except BaseException as failure:
            self._refused(task, op, failure)
            return
        if op.code == CLOSE and (reason is not None or task.attention):
            # A close that is not made leaks the descriptor: it is made, and then reported so.
            self.driver.cancel(op, reason)

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

    def _require_usable(self) -> None:
        self.require_thread()
        if self._closed:
            raise ClosedError("this context is closed; nothing runs in it any more")

    # --- accidents -------------------------------------------------------------------------------

    def recover(self, failure: BaseException) -> None:
        """Make whole again what *failure* may have broken off in the middle."""
        if self._forked:
            return
        for task in list(self._alive):
            if has_ended(task):
                if not task.finished and task.failure is None:
                    task.failure = failure
                self._complete(task)
            else:
                task.scope.tasks[task] = None
        requeue_lost(self._alive, self.ready, self.driver, failure)
        self._root.reapply()

    def after_fork(self) -> None:
        """In a forked child: let the task that forked hear of it, and no other ever run."""
        self._forked = True
        empty_for_child(self._alive, self.ready, self._inbox)

    def _refuse_forked(self, task: Task[object], trap: object) -> None:
        if isinstance(trap, Op):
            abandon(cast("Op[object]", trap), self.driver)  # a CLOSE closes the child's own copy
        self.wake_task(task, forked_error())


def _at_once(_reason: BaseException | None) -> bool:
    return True


def ignore(task: Task[T]) -> None:
    """Nobody but the holder of the task hears of its end."""
