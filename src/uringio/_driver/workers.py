"""
A few threads for calls that block and have no operation: name resolution, directory scans.

The threads are daemons that interpreter exit does not wait for, since a resolver may take a minute
to give up.  A worker that has been idle for a while ends, and so do all when they are dismissed.
Nothing of the ring is ever handed to one.
"""

import threading
from collections import deque
from collections.abc import Callable

from uringio._sys.system import System

__all__ = ["Workers"]

_IDLE_SECONDS_MAX = 10.0


class Workers:
    """
    A bounded pool; `start` from any thread, results by callback in the worker.

    Args:
        count_max: The most threads at once; further calls wait in line.
    """

    def __init__(self, system: System, count_max: int = 8) -> None:
        self._system = system
        self._count_max = count_max
        self._calls: deque[Callable[[], None]] = deque()
        self._condition = threading.Condition()
        self._count = 0
        self._idle_count = 0
        self._dismissed = False

    def start(self, call: Callable[[], None]) -> None:
        """
        Run *call*, which must not raise, in a worker.

        Raises:
            RuntimeError: There is no worker, and no thread could be started: *call* is never run.
        """
        if self._system.start_call is not None:
            self._system.start_call(call)
            return
        with self._condition:
            self._calls.append(call)
            if self._idle_count >= len(self._calls):
                self._condition.notify()
                return
            if self._count >= self._count_max:
                return
            self._count += 1
        try:
            self._system.start_thread(self._work)
        except RuntimeError:  # as many as there may be (ulimit -u, a container's pids limit)
            with self._condition:
                self._count -= 1
                if not self._count and call in self._calls:
                    self._calls.remove(call)
                    raise
            # Else the workers that there are come to it in their turn.

    def dismiss(self) -> None:
        """Have each worker end once there is no call for it; programs may make loop after loop."""
        with self._condition:
            self._dismissed = True
            self._condition.notify_all()

    def _work(self) -> None:
        condition = self._condition
        while True:
            with condition:
                while not self._calls:
                    signalled = False
                    if not self._dismissed:
                        self._idle_count += 1
                        signalled = condition.wait(_IDLE_SECONDS_MAX)
                        self._idle_count -= 1
                    if not signalled and not self._calls:
                        self._count -= 1
                        return
                call = self._calls.popleft()
            call()
            del call  # or an idle worker would keep the last call's result alive
