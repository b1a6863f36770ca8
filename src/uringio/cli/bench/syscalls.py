"""
How many system calls a process makes, counted by `perf` where it is there and may.

Counting costs the process counted, so that it has a window of its own, outside of what is compared.
The count is taken by the kernel's tracepoint, so that calls of every thread are in it, and what
io_uring does without a call is not.
"""

from __future__ import annotations

import os
import select
import shutil
import signal
import subprocess
from types import TracebackType
from typing import Self

_EVENT = "raw_syscalls:sys_enter"
_SECONDS_MAX = 10.0


class CountError(Exception):
    """
    System calls cannot be counted here; the message says why.
    """


class Counter:
    """
    A count of the system calls of one process; a context manager.

    Nothing is counted before `start`. Leaving the context ends `perf` in any case.

    Args:
        pid: A living process.

    Raises:
        CountError: There is no `perf`, or the kernel does not let it.
    """

    def __init__(self, pid: int) -> None:
        perf = shutil.which("perf")
        if perf is None:
            raise CountError("no perf on PATH")
        # perf is told to begin and to end by one pipe, and answers by the other when it has.
        orders_out, self._orders = os.pipe()
        self._answers, answers_in = os.pipe()
        try:
            self._perf = subprocess.Popen(
                [
                    *(perf, "stat", "-x", ",", "-e", _EVENT, "-p", str(pid), "--delay=-1"),
                    f"--control=fd:{orders_out},{answers_in}",
                ],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
                pass_fds=(orders_out, answers_in),
                env={**os.environ, "LC_ALL": "C"},
            )
        except OSError as failure:
            os.close(self._orders)
            os.close(self._answers)
            raise CountError(f"perf does not start: {failure}") from failure
        finally:
            os.close(orders_out)
            os.close(answers_in)

    def __enter__(self) -> Self:
        """
        Return itself.
        """
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """
        End `perf` if it runs still.
        """
        self._perf.kill()
        self._perf.wait()
        if self._perf.stderr is not None:
            self._perf.stderr.close()
        os.close(self._orders)
        os.close(self._answers)

    def start(self) -> None:
        """
        Count from now on.

        Raises:
            CountError: `perf` says no.
        """
        self._order(b"enable\n")

    def stop(self) -> int:
        """
        Return the count since `start`, and end.

        Raises:
            CountError: `perf` says nothing that is a count.
        """
        self._order(b"disable\n")
        self._perf.send_signal(signal.SIGINT)
        said = self._last_words()
        for line in said.splitlines():
            count, _, rest = line.partition(",")
            if _EVENT in rest and count.isdigit():
                return int(count)
        raise CountError(f"perf counted nothing: {said.strip()[-200:]}")

    def _order(self, order: bytes) -> None:
        try:
            os.write(self._orders, order)
        except BrokenPipeError:
            raise CountError(f"perf refuses: {_reason(self._last_words())}") from None
        ready, _, _ = select.select([self._answers], [], [], _SECONDS_MAX)
        if not ready or not os.read(self._answers, 64).startswith(b"ack"):
            self._perf.kill()
            raise CountError(f"perf refuses: {_reason(self._last_words())}")

    def _last_words(self) -> str:
        try:
            return self._perf.communicate(timeout=_SECONDS_MAX)[1]
        except subprocess.TimeoutExpired:
            raise CountError("perf does not end") from None


def _reason(said: str) -> str:
    lines: list[str] = [line.strip() for line in said.splitlines() if line.strip()]
    telling = [line for line in lines if "ermission" in line or "rror" in line]
    return next(iter([*telling, *lines]), "it says nothing")[:200]


def absence() -> str | None:
    """
    Return why system calls cannot be counted here, or None: they can.
    """
    try:
        with Counter(os.getpid()) as counter:
            counter.start()
            os.getppid()
            counter.stop()
    except CountError as reason:
        return str(reason)
    return None
