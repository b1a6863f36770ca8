"""
The public form of the loop: what runs it, in whole programs and inside of other loops.

`uringio.run` makes a `Context` and drives it to its end.  A host with a loop of its own calls
`tick` whenever it likes.
"""

from collections.abc import Awaitable, Callable
from typing import TypeVar, TypeVarTuple, cast

from uringio.errors import Cancelled, RingForkedError

from . import running
from .accidents import forked_error
from .loop import Loop, ignore
from .task import Task, name_of

__all__ = ["Context"]

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

_FOREVER_SECONDS = 1e9
# How often, at the end, functions of `run_soon` are called; one may ask for itself each time.
_INBOX_ROUNDS_MAX = 8


class Context(Loop):
    """
    A native loop that others may embed.

    All of it is for the thread that made the context, except `run_soon` and `stop`.

    Args:
        backend: As for `uringio.run`.

    Attributes:
        driver: The completion driver.
        task: The task that runs now, if any.
    """

    def tick(self, timeout_seconds: float | None = 0.0) -> None:
        """
        Resume what is ready, then make one turn of the driver.

        Args:
            timeout_seconds: How long the turn may wait when nothing is ready; None: for ever.

        Raises:
            WrongThreadError: Called from another thread than the one that made the context.
            UsageError: The context is closed, or a loop runs in this thread already.
        """
        deadline_ns: int | None = 0
        if timeout_seconds is None:
            deadline_ns = None
        elif timeout_seconds > 0:
            deadline_ns = self.clock() + int(min(timeout_seconds, _FOREVER_SECONDS) * 1e9)
        self._enter()
        try:
            self._pass(deadline_ns)
        except BaseException as failure:
            self.recover(failure)
            raise
        finally:
            self._leave()

    def run(self) -> None:
        """
        Run passes, at least one, until `stop` is called.

        Raises:
            WrongThreadError, UsageError: As `tick`.
        """
        self._enter()
        try:
            while True:
                self._pass(0 if self._stopping else None)
                if self._stopping:
                    return
        except BaseException as failure:
            self.recover(failure)
            raise
        finally:
            self._stopping = False
            self._leave()

    def run_until_done(self, async_fn: Callable[[*Ts], Awaitable[T]], *args: *Ts) -> T:
        """
        Run ``async_fn(*args)`` as a task until it ends, and return what it returns.

        Other tasks run on meanwhile, and stay where they are when it has ended.
        `stop` is not heard.

        Raises:
            WrongThreadError, UsageError: As `tick`.
        """
        self._enter()
        try:
            return self._run_to_end(self.spawn(async_fn, *args))
        finally:
            self._leave()

    def run_main(self, async_fn: Callable[[*Ts], Awaitable[T]], args: tuple[*Ts]) -> T:
        """Like `run_until_done`, for the task that Ctrl-C is delivered to."""
        self._enter()
        try:
            task = self.spawn(async_fn, *args)
            self._main = cast("Task[object]", task)
            try:
                return self._run_to_end(task)
            finally:
                self._main = None
                if task.interrupt is not None and not self._forked:  # it did not await again
                    raise task.interrupt
        finally:
            self._leave()

    def _run_to_end(self, task: Task[T]) -> T:
        self._watched = cast("Task[object]", task)
        one_pass = self._pass
        try:
            while not task.finished:
                try:
                    one_pass(None)
                except RingForkedError:
                    # In a forked child: the task that forked goes on to its next await, and there
                    # hears of it.
                    if not self._forked or not (self.ready or task.finished):
                        raise
        except BaseException as failure:
            self.recover(failure)
            raise
        finally:
            self._watched = None
        return task.result()

    def run_down(self) -> None:
        """
        Cancel every task that is left and run until the last has ended, then finalize generators.

        Raises:
            KeyboardInterrupt: Ctrl-C was pressed meanwhile; the second one ends the waiting.
        """
        if self._forked:
            return
        self._enter()
        interrupted: KeyboardInterrupt | None = None
        finalizing = False
        inbox_rounds = _INBOX_ROUNDS_MAX
        try:
            self.recover(Cancelled())
            self._everything.cancel()
            while True:
                try:
                    while self._alive:
                        self._pass(None)
                    if self._inbox and inbox_rounds:
                        inbox_rounds -= 1
                        self._pass(0)
                    elif self._asyncgens and not finalizing:
                        finalizing = True
                        closing = self._asyncgens.aclose_all()
                        self.spawn_coroutine(closing, self._root, name_of(closing), ignore)
                    else:
                        break
                except KeyboardInterrupt as error:
                    if interrupted is not None:
                        raise
                    interrupted = error
                    self._root.cancel()
                    self.recover(error)
            if interrupted is not None:
                raise interrupted
        finally:
            self._leave()

    def stop(self) -> None:
        """
        Let `run` return after its current pass, or its next one after a single pass.

        From any thread or signal handler.
        """
        self._stopping = True
        self.driver.wake()

    def close(self) -> None:
        """
        Cancel every task that is left, wait until they have ended, and free everything.

        Safe to call twice.

        Raises:
            WrongThreadError: Called from another thread than the one that made the context.
            UsageError: A loop runs in this thread: a context is not closed from within.
        """
        if not self._closed:
            self.require_thread()
            running.require_idle()
            try:
                self.run_down()
            finally:
                self.close_driver()

    def close_driver(self) -> None:
        """Free everything; tasks that are left are abandoned, and the kernel given a second."""
        if not self._closed:
            self._closed = True
            self.driver.close()

    def _enter(self) -> None:
        self._require_usable()
        if self._forked:
            raise forked_error()
        running.require_idle()
        try:
            running.enter(self)
            self._asyncgens.install()
        except BaseException:  # a signal handler's
            self._leave()
            raise

    def _leave(self) -> None:
        try:
            self._asyncgens.uninstall()
        finally:
            running.leave(self)
            self.task = None
