"""
Ctrl-C.

In user code, KeyboardInterrupt is raised at once, wherever the program is.  While the interpreter
is in this library's own code it must not be: half of a submission would be lost.  There the handler
only leaves a note and wakes the loop, and the main task gets KeyboardInterrupt at its next await.

Whose code it is, is read off the stack.  Going outwards from the interrupted frame, the first frame
that is neither the standard library's nor frozen decides.

The wait in the kernel ends by itself: Python's C-level handler writes into the driver's wake pipe.
That goes for every signal, so programs with handlers of their own profit too.

Source: trio's `_core/_ki.py` for the idea of protecting the core.
"""

import os
import signal
import threading
from types import FrameType, TracebackType
from typing import Self

from uringio._driver.forks import after_fork_in_child

from .context import Context

__all__ = ["Interrupts", "in_core"]

_STDLIB = os.path.dirname(os.__file__) + os.sep
_SITE = _STDLIB + "site-packages"
_NO_FD = -1


class Interrupts:
    """
    Delivers SIGINT to a context's main task while the block runs, whatever the library is doing.

    Outside of the main thread it does nothing; a SIGINT handler of the program's own is left alone.
    A Ctrl-C that no task could be told of any more is raised at the block's end.
    """

    def __init__(self) -> None:
        self._context: Context | None = None
        self._in_main_thread = threading.current_thread() is threading.main_thread()
        self._installed = False
        self._noted = False
        self._wake_fd = _NO_FD
        self._wake_fd_before = _NO_FD

    def __enter__(self) -> Self:
        global _active
        if self._in_main_thread:
            _active = self
            if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
                self._installed = True
                try:
                    signal.signal(signal.SIGINT, self._handle)
                except ValueError:  # a subinterpreter, which hears of no signals
                    self._in_main_thread = self._installed = False
                    _active = None
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._uninstall()
        if self._noted:
            self._noted = False
            raise KeyboardInterrupt

    def deliver_to(self, context: Context) -> None:
        """Tell *context*'s main task of interrupts, and have signals wake its driver."""
        self._context = context
        if self._in_main_thread:
            self._wake_fd = context.driver.wake_fd
            try:
                self._wake_fd_before = signal.set_wakeup_fd(
                    self._wake_fd, warn_on_full_buffer=False
                )
            except ValueError:  # a subinterpreter where SIGINT's handler is not the default one
                self._wake_fd = _NO_FD
        if self._noted:
            context.run_soon(self._deliver)

    def only_note(self) -> None:
        """Let go of the context, which is about to close; interrupts are only noted from now on."""
        self._context = None
        if self._wake_fd != _NO_FD:
            found = signal.set_wakeup_fd(self._wake_fd_before)
            if found != self._wake_fd:
                signal.set_wakeup_fd(found)  # the program's own, set meanwhile
            self._wake_fd = _NO_FD

    def forget_in_child(self) -> None:
        """Leave signals to the child's own loop, should it make one."""
        self.only_note()
        self._uninstall()

    def _uninstall(self) -> None:
        global _active
        if _active is self:
            _active = None
        if self._installed:
            self._installed = False
            if signal.getsignal(signal.SIGINT) == self._handle:
                signal.signal(signal.SIGINT, signal.default_int_handler)

    def _handle(self, _number: int, frame: FrameType | None) -> None:
        if not in_core(frame):
            raise KeyboardInterrupt
        self._noted = True
        if self._context is not None:
            self._context.run_soon(self._deliver)

    def _deliver(self) -> None:
        if self._noted and self._context is not None:
            self._noted = False
            self._context.interrupt_main(KeyboardInterrupt())


_active: Interrupts | None = None


def _after_fork() -> None:
    if _active is not None:
        _active.forget_in_child()


after_fork_in_child(_after_fork)


def in_core(frame: FrameType | None) -> bool:
    """Whether *frame* was reached through this library's own code."""
    while frame is not None:
        module = str(frame.f_globals.get("__name__", ""))
        if module == "uringio" or module.startswith("uringio."):
            # The command line is a program written with the library, not a part of its core.
            return not module.startswith("uringio.cli")
        filename = frame.f_code.co_filename
        if not filename.startswith("<frozen") and (
            not filename.startswith(_STDLIB) or filename.startswith(_SITE)
        ):
            return False
        frame = frame.f_back
    return False
