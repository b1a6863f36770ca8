"""
Ctrl-C.

In user code, KeyboardInterrupt is raised at once, wherever the program is.  While the interpreter is
in this library's own code it must not be: half of a submission would be lost.  There the handler
only leaves a note and wakes the driver, and the main task gets KeyboardInterrupt at its next await.

Whose code it is, is read off the stack.  Going outwards from the interrupted frame, the first frame
that is neither the standard library's nor frozen decides.

The wait in the kernel ends by itself: Python's C-level handler writes into the driver's wake pipe.

Source: trio's `_core/_ki.py` for the idea of protecting the core.
"""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from .loop import Context

__all__ = ["delivering_interrupts"]

_STDLIB = os.path.dirname(os.__file__) + os.sep
_SITE = _STDLIB + "site-packages"


@contextmanager
def delivering_interrupts(context: Context) -> Iterator[None]:
    """
    Deliver SIGINT to the context's main task while the block runs.

    Does nothing outside of the main thread, or where the program has a SIGINT handler of its own.
    """
    if (
        threading.current_thread() is not threading.main_thread()
        or signal.getsignal(signal.SIGINT) is not signal.default_int_handler
    ):
        yield
        return

    def handler(number: int, frame: FrameType | None) -> None:
        if in_core(frame):
            context.interrupt_main(KeyboardInterrupt())
        else:
            raise KeyboardInterrupt

    wake_fd_before = signal.set_wakeup_fd(context.driver.wake_fd, warn_on_full_buffer=False)
    signal.signal(signal.SIGINT, handler)
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGINT) is handler:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.set_wakeup_fd(wake_fd_before)


def in_core(frame: FrameType | None) -> bool:
    """Whether *frame* was reached through this library's own code."""
    while frame is not None:
        module = frame.f_globals.get("__name__", "")
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
