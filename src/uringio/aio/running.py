"""
How the loop runs: its driver, its passes, its end.

The driver belongs to the thread that runs the loop.  It is made by the first run, made anew when a
later run happens in another thread and nothing is in flight, and let go by `close`, which may be
called from any thread once the loop has stopped.

What asyncio's `BaseEventLoop` does well stays with it: the timer heap, executors, name resolution,
exception handlers, async generators, debug mode.
"""

# The loop's own handles, and a stand-in for asyncio's.
# pyright: reportPrivateUsage=false

import asyncio
import inspect
import sys
import threading
import weakref
from collections import deque
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextvars import Context, copy_context
from itertools import repeat
from typing import IO, TYPE_CHECKING, Any, Final, TypeVar, TypeVarTuple

from uringio._driver import current
from uringio._driver.choice import chosen_backend, make_driver, preload
from uringio._driver.contract import Driver
from uringio._driver.forks import after_fork_in_child
from uringio._driver.op import DONE, Op
from uringio._driver.sockets import HasFileno
from uringio.errors import UsageError, WrongThreadError

from .handles import Handle
from .passes import make_pass
from .signals import Signals
from .tasks import AsyncioScheduler, forget_caller, make_cancelled, start_task

if TYPE_CHECKING:
    from .writing import Writing

__all__ = ["RunningLoop"]

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


# Those that a forked child must not send for.
_loops: "weakref.WeakSet[RunningLoop]" = weakref.WeakSet()


def _send_no_more() -> None:
    for loop in _loops:
        loop.offered.clear()
        loop.gone = loop.forked = True


after_fork_in_child(_send_no_more)


class _Here(threading.local):
    """The identity of a thread; its ident would be given to the next thread when it ends."""

    def __init__(self) -> None:
        self.thread = object()


_here = _Here()


# Whether asyncio's own hands on whatever a task takes.
_TAKES_EAGER_START: Final = bool(
    asyncio.BaseEventLoop.create_task.__code__.co_flags & inspect.CO_VARKEYWORDS
)


class RunningLoop(asyncio.BaseEventLoop):
    """The running half of `EventLoop`."""

    if TYPE_CHECKING:
        # BaseEventLoop's own, which its stubs keep to themselves.
        _ready: deque[asyncio.Handle]
        _scheduled: list[asyncio.TimerHandle]
        _timer_cancelled_count: int
        _clock_resolution: float
        _stopping: bool
        _closed: bool
        _debug: bool
        _current_handle: asyncio.Handle | None
        slow_callback_duration: float

        def _check_closed(self) -> None: ...
        def _check_running(self) -> None: ...
        def _add_callback_signalsafe(self, handle: asyncio.Handle) -> None: ...

        async def _sendfile_fallback(
            self, transp: asyncio.BaseTransport, file: IO[bytes], offset: int, count: int | None
        ) -> int: ...

        async def _ensure_resolved(
            self,
            address: object,
            *,
            family: int = 0,
            type: int = 0,  # noqa: A002 - asyncio's name
            proto: int = 0,
            flags: int = 0,
            loop: asyncio.AbstractEventLoop,
        ) -> Sequence[tuple[int, int, int, str, tuple[str, int]]]: ...

    def __init__(self, *, backend: str = "auto") -> None:
        super().__init__()
        try:
            self._backend = chosen_backend(backend)
        except UsageError:
            self._closed = True  # there is nothing to close, nor to warn of
            raise
        preload(self._backend)
        self._completed: deque[Op[object]] = deque()
        self._driver: Driver | None = None
        self._driver_thread: object = None
        self._scheduler = AsyncioScheduler(self)
        # Who uses which descriptor; asyncio's name, which some look at.
        self._transports: weakref.WeakValueDictionary[int, asyncio.BaseTransport] = (
            weakref.WeakValueDictionary()
        )
        # What a transport is about to send, and that again and again: see `StreamTransport.write`.
        self.offered: list[bytes] = [b""]
        # Empty in a forked child and once the loop is closed.
        self.offers: Iterator[bytes] = map(self.offered.__getitem__, repeat(0))
        self.gone = False  # closed, or the parent process's: nothing can be waited for
        self.forked = False
        # The listening sockets of servers, by their descriptors.
        self.listening: weakref.WeakValueDictionary[int, object] = weakref.WeakValueDictionary()
        _loops.add(self)
        # What has something to send when this pass ends.
        self.gathering: deque[Writing] = deque()
        self._signals = Signals(self)
        # Between a thread that wakes the driver and one that closes it.  Reentrant, for the sake of
        # signal handlers, which run in the middle of either.
        self._wake_lock = threading.RLock()

    # --- running ---------------------------------------------------------------------------------

    def run_forever(self) -> None:
        """
        Run until `stop` is called.

        Raises:
            RuntimeError: This loop or another already runs in this thread.
            RingError: The backend asked for cannot be had here.
            WrongThreadError: The loop ran in another thread, where operations are still in flight.
            RingForkedError: It ran in the parent process of this one.
        """
        self._check_closed()
        self._check_running()
        if current.running():
            raise UsageError(
                "uringio already runs in this thread; this is no place for another loop"
            )
        driver = self._prepare_driver()
        driver.flush()  # in a forked child, this says so
        with self._signals.watched(driver.wake_fd):
            current.set_current(driver, self._scheduler)
            try:
                super().run_forever()
            finally:
                current.set_current(None, None)

    def prepare(self) -> None:
        """Make the driver for a run in this thread; raises as `run_forever` would."""
        self._prepare_driver()

    def _prepare_driver(self) -> Driver:
        """Return the driver for a run in this thread."""
        driver = self._driver
        if driver is not None and self._driver_thread is not _here.thread:
            if driver.statistics().in_flight or self._completed:
                raise WrongThreadError(
                    "this loop ran in another thread, where operations are still in flight; close "
                    "its transports and handles there before running it here"
                )
            with self._wake_lock:
                self._driver = None
            driver.leave()
            driver = None
        if driver is None:
            driver = self.make_driver()
            self._driver = driver
            self._driver_thread = _here.thread
            self._run_once = make_pass(self, driver, self._completed)
        return driver

    def make_driver(self) -> Driver:
        """Build a driver for this thread; a loop on another system overrides this."""
        return make_driver(self._completed.append, make_cancelled, backend=self._backend)

    def require_driver(self) -> Driver:
        """Return the running driver; raises `UsageError` when the loop does not run here."""
        driver = self._driver
        if driver is None or self._driver_thread is not _here.thread:
            raise UsageError("this needs the loop to run, in this thread")
        return driver

    def close(self) -> None:
        """
        Cancel what is in flight, wait for the kernel to let go of it, free everything.

        From another thread than the one that ran the loop, nobody can wait for the kernel: what is
        still in flight is then leaked on purpose, with a `ResourceWarning`.

        Raises:
            RuntimeError: The loop runs.
        """
        with self._signals.held_back():
            self._close()

    def _close(self) -> None:
        if self._closed:
            return
        super().close()
        self.gone = True
        self.offered.clear()
        self._signals.clear()
        with self._wake_lock:
            driver, self._driver = self._driver, None
        if driver is None:
            return
        self._run_once = _refuse_to_run  # and let go of the driver
        if self._driver_thread is _here.thread:
            for op in self._completed:
                if op.state == DONE:
                    driver.cancel(op)  # its owner hears of bytes and descriptors nobody will take
            self._completed.clear()
            driver.close()
        else:
            self._completed.clear()
            driver.leave()

    def ensure_fd_of_nobody(self, fd: int | HasFileno) -> int:
        """
        Return the descriptor's number.

        Raises:
            ValueError: It has none.
            RuntimeError: A transport of this loop uses it.
        """
        if isinstance(fd, int):
            number = fd
        else:
            try:
                number = int(fd.fileno())
            except (AttributeError, TypeError, ValueError):
                raise ValueError(f"Invalid file object: {fd!r}") from None
        transport = self._transports.get(number)
        if transport is not None and not transport.is_closing():
            raise RuntimeError(f"File descriptor {fd!r} is used by transport {transport!r}")
        return number

    if sys.version_info >= (3, 12) and not _TAKES_EAGER_START:

        def create_task(
            self,
            coro: Coroutine[Any, Any, T],
            *,
            name: object = None,
            context: Context | None = None,
            eager_start: bool | None = None,
        ) -> asyncio.Task[T]:
            """
            Make a task of *coro*.

            With *eager_start* it runs at once up to where it first waits, as a task may from Python
            3.12 on; asyncio's own loop can be asked for it from 3.13.3 on.
            """
            if eager_start is None:
                task = super().create_task(coro, name=name, context=context)
                forget_caller(task)
                return task
            self._check_closed()
            return start_task(self, coro, name=name, context=context, eager_start=eager_start)

    # --- being called ----------------------------------------------------------------------------

    def call_soon(
        self,
        callback: Callable[[*Ts], object],
        *args: *Ts,
        context: Context | None = None,
    ) -> asyncio.Handle:
        """Call ``callback(*args)`` in the next pass."""
        if self._debug or self._closed:
            checked = super().call_soon(callback, *args, context=context)
            if checked._source_traceback:  # type: ignore[attr-defined]
                del checked._source_traceback[-1]  # type: ignore[attr-defined]
            return checked
        # Here rather than in a method of its own: a frame is a third of what this costs.
        handle = Handle()
        handle._context = copy_context() if context is None else context
        handle._loop = self
        handle._callback = callback
        handle._args = args
        handle._cancelled = False
        handle._repr = handle._source_traceback = None
        self._ready.append(handle)
        return handle

    def _write_to_self(self) -> None:
        # Under the lock: the pipe of a driver that is being closed may be somebody else's by now.
        with self._wake_lock:
            if self._driver is not None:
                self._driver.wake()

    def make_cancelled_error(self, op: Op[object], /) -> BaseException:
        """Build the exception that `asyncio.gather` raises for a child."""
        return make_cancelled(op)

    # --- signals ---------------------------------------------------------------------------------

    def add_signal_handler(self, sig: int, callback: Callable[[*Ts], object], *args: *Ts) -> None:
        """
        Call ``callback(*args)`` in the loop when the signal arrives.

        Raises:
            TypeError, ValueError: As `asyncio`'s own.
            RuntimeError: The signal cannot be caught, or this is not the main thread.
        """
        self._check_closed()
        self._signals.add(sig, callback, args)

    def remove_signal_handler(self, sig: int) -> bool:
        """Restore the signal's default; False if there was no handler."""
        return self._signals.remove(sig)

    # What programs reach into of asyncio's own loop, to call or to wrap the handlers of others.

    @property
    def _signal_handlers(self) -> dict[int, asyncio.Handle]:
        return self._signals.handles

    def _handle_signal(self, sig: int) -> None:
        self._signals.arrived(sig)


def _refuse_to_run() -> None:
    raise RuntimeError("this loop is closed")
