"""
OFFLOAD ops: calls that worker threads make for a driver.

A finished call is put into a queue and the driver woken; the driver's own thread settles the op.
An abandoned call runs on unheard: its result is dropped, which is why only calls that own nothing
of ours may be offloaded.
"""

import errno
import threading
from collections import deque
from collections.abc import Callable

from uringio._sys.system import System
from uringio.errors import op_error

from .contract import Deliver
from .op import DONE, Awaited, Offload, Op
from .workers import Workers

__all__ = ["Offloads"]


class Offloads:
    """
    The offloaded calls of one driver.

    Args:
        system: Where threads come from.
        wake: Wakes the driver; called in workers.

    Attributes:
        finished: Calls that have ended and are not settled yet.
    """

    def __init__(self, system: System, wake: Callable[[], None]) -> None:
        self._workers = Workers(system)
        self._wake = wake
        self._running: dict[int, Offload[object]] = {}
        # Reentrant: a signal handler may cancel a task in the middle of an abandoning.
        self._lock = threading.RLock()
        self.finished: deque[tuple[int, object, BaseException | None]] = deque()

    def __len__(self) -> int:
        return len(self._running)

    def start(self, op: Offload[object]) -> None:
        """Have a worker call ``op.function``."""
        use, function = op.use, op.function
        self._running[use] = op
        finished, wake = self.finished, self._wake
        lock, running = self._lock, self._running

        def end(value: object, error: BaseException | None) -> None:
            with lock:  # so that who abandons the call knows that it will not wake any more
                if use in running:
                    finished.append((use, value, error))
                    wake()

        if isinstance(op, Awaited):
            awaited = op

            def tell() -> None:
                if awaited.outcome is not None:
                    end(*awaited.outcome)

            op.tell = tell
            tell()  # it may have come about already
            return

        def call() -> None:
            try:
                value, error = function(), None
            except BaseException as caught:  # the op's error, whatever it is
                value, error = None, caught
            end(value, error)
            del value, error

        try:
            self._workers.start(call)
        except RuntimeError:
            end(None, op_error(errno.EAGAIN, "offload", detail="no thread could be started"))

    def abandon(self, op: Op[object]) -> None:
        """Stop listening for the op's call."""
        with self._lock:
            self._running.pop(op.use, None)

    def settle_finished(self, deliver: Deliver) -> None:
        """Settle every op whose call has ended, and hand it to *deliver*."""
        while self.finished:
            # It stays where it is until it is settled: a signal handler may raise behind any call.
            use, value, error = self.finished[0]
            if use in self._running:
                op = self._running[use]
                op.value = value
                op.error = error
                op.state = DONE
                del self._running[use]
                deliver(op)
            del self.finished[0]

    def take_all(self) -> list[Offload[object]]:
        """Abandon every running call, for the driver's end, and return their ops."""
        self._workers.dismiss()
        with self._lock:
            ops = list(self._running.values())
            self._running.clear()
        return ops
