"""
Signals, for a loop that runs in the main thread.

Python runs signal handlers between two bytecodes of the main thread, so also in the middle of a
submission.  asyncio's own SIGINT handler (`asyncio.Runner`) cancels the main task, which would
reach into the driver there.  While the loop runs, the program's SIGINT handler is therefore called
at once only where user code was interrupted; where it was ours, the loop calls it among its next
callbacks, or where it stops before that.  Whose code it is, is read off the stack: going outwards,
the first frame that is not the standard library's decides.  The closing of a loop is not broken
off either.

A wait in the kernel ends by itself: the interpreter's C handler writes into the driver's wake pipe.
"""

# asyncio's way into its loop from a signal handler is private.
# pyright: reportPrivateUsage=false

import asyncio
import contextlib
import errno
import inspect
import os
import signal
import threading
from collections.abc import Callable, Generator
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from uringio._driver.forks import after_fork_in_child

if TYPE_CHECKING:
    from .running import RunningLoop

__all__ = ["Signals"]

_STDLIB = str(Path(os.__file__).parent) + os.sep
_SITE = _STDLIB + "site-packages"

# Whose wake pipe is the process's wakeup descriptor, and which that is.
_watching: "Signals | None" = None
_watched_fd = -1


class Signals:
    """
    The signal handlers of one loop.

    Attributes:
        handles: What is to be called, by signal number.
    """

    def __init__(self, loop: "RunningLoop") -> None:
        self._loop = loop
        self.handles: dict[int, asyncio.Handle] = {}

    def add(self, number: int, callback: object, args: tuple[object, ...]) -> None:
        """
        Have the loop call ``callback(*args)`` when the signal arrives.

        Raises:
            TypeError: *callback* is a coroutine or a coroutine function, or *number* no int.
            ValueError: There is no such signal.
            RuntimeError: The signal cannot be caught, or this is not the main thread.
        """
        if asyncio.iscoroutine(callback) or inspect.iscoroutinefunction(callback):
            raise TypeError("coroutines cannot be used with add_signal_handler()")
        if not callable(callback):
            raise TypeError(f"a signal handler is called, which {callback!r} cannot be")
        _check(number)
        self.handles[number] = asyncio.Handle(callback, args, self._loop, None)
        try:
            signal.signal(number, self.arrived)
            signal.siginterrupt(number, False)
        except (ValueError, OSError) as error:
            del self.handles[number]
            if isinstance(error, OSError) and error.errno != errno.EINVAL:
                raise
            what = f"sig {number} cannot be caught" if isinstance(error, OSError) else str(error)
            raise RuntimeError(what) from error

    def remove(self, number: int) -> bool:
        """Restore the signal's default; False if the loop does not handle it."""
        _check(number)
        if self.handles.pop(number, None) is None:
            return False
        default = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
        signal.signal(number, default)
        return True

    def clear(self) -> None:
        """Remove every handler, where that can be done: in the main thread."""
        for number in list(self.handles):
            with contextlib.suppress(ValueError):
                self.remove(number)

    def arrived(self, number: int, _frame: FrameType | None = None) -> None:
        """Have the loop call the signal's handler; one that was cancelled is removed."""
        handle = self.handles.get(number)
        if handle is None:
            return
        if handle.cancelled():
            self._loop.remove_signal_handler(number)
        else:
            self._loop._add_callback_signalsafe(handle)

    @contextlib.contextmanager
    def watched(self, wake_fd: int) -> Generator[None, None, None]:
        """Let signals wake the driver, and SIGINT spare it, while the block runs."""
        global _watching, _watched_fd
        try:
            fd_before = signal.set_wakeup_fd(wake_fd, warn_on_full_buffer=False)
        except ValueError:  # not the main thread, where no handler runs
            yield
            return
        if fd_before != -1:
            signal.set_wakeup_fd(fd_before)  # the program's own, which it would miss
        else:
            _watched_fd = wake_fd
        outer, _watching = _watching, self
        original = signal.getsignal(signal.SIGINT)
        waiting: list[asyncio.Handle] = []
        wrapper = self._wrap(original, waiting) if callable(original) else None
        if wrapper is not None:
            signal.signal(signal.SIGINT, wrapper)
        try:
            yield
        finally:
            if wrapper is not None and signal.getsignal(signal.SIGINT) is wrapper:
                signal.signal(signal.SIGINT, original)
            _watching = outer
            if fd_before == -1:
                _forget_wakeup_fd()
        # The loop has stopped before it came to it, and may never run again.
        if any(not handle.cancelled() for handle in waiting) and callable(original):
            for handle in waiting:
                handle.cancel()
            original(signal.SIGINT, None)

    @contextlib.contextmanager
    def held_back(self) -> Generator[None, None, None]:
        """Let SIGINT wait for the end of the block, in which it would leave things half closed."""
        original = signal.getsignal(signal.SIGINT)
        if threading.current_thread() is not threading.main_thread() or not callable(original):
            yield
            return
        arrived: list[int] = []

        def note(number: int, _frame: FrameType | None) -> None:
            arrived.append(number)

        signal.signal(signal.SIGINT, note)
        try:
            yield
        finally:
            if signal.getsignal(signal.SIGINT) is note:
                signal.signal(signal.SIGINT, original)
            if arrived:
                original(signal.SIGINT, None)

    def _wrap(
        self,
        original: Callable[[int, FrameType | None], object],
        waiting: list[asyncio.Handle],
    ) -> Callable[[int, FrameType | None], None]:
        def on_interrupt(number: int, frame: FrameType | None) -> None:
            if _watching is self and _in_library(frame):

                def call() -> None:
                    waiting.remove(later)
                    original(number, frame)

                later = asyncio.Handle(call, (), self._loop, None)
                waiting.append(later)
                self._loop._add_callback_signalsafe(later)
            else:
                original(number, frame)

        return on_interrupt


def _check(number: object) -> None:
    if not isinstance(number, int):
        raise TypeError(f"a signal is an int, not {number!r}")
    if number not in signal.valid_signals():
        raise ValueError(f"there is no signal {number}")


def _in_library(frame: FrameType | None) -> bool:
    """Whether *frame* was reached through this library's own code."""
    while frame is not None:
        module = frame.f_globals.get("__name__", "")
        if module == "uringio" or module.startswith("uringio."):
            return True
        filename = frame.f_code.co_filename
        if not filename.startswith("<frozen") and (
            not filename.startswith(_STDLIB) or filename.startswith(_SITE)
        ):
            return False
        frame = frame.f_back
    return False


def _forget_wakeup_fd() -> None:
    global _watched_fd
    found = signal.set_wakeup_fd(-1)
    if found not in {-1, _watched_fd}:
        signal.set_wakeup_fd(found)  # the program has put its own there
    _watched_fd = -1


def _after_fork() -> None:
    # The pipe is the parent's: a signal to the child must not wake it.
    global _watching
    _watching = None
    if _watched_fd != -1:
        with contextlib.suppress(ValueError):
            _forget_wakeup_fd()


after_fork_in_child(_after_fork)
