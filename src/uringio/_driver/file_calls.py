"""
Operations on regular files, made by worker threads for drivers that wait for readiness.

A regular file is always "ready", so readiness says nothing about it, and a read of it blocks.  Such
an op goes to a thread and stays in flight until the thread is done with its memory: cancelling one
that a thread has begun waits for it.  One that waits for a thread is not begun any more.

A descriptor must not be closed, and its number given anew, while a thread is about to use it: a
CLOSE waits for the calls that are in flight on its descriptor.
"""

import errno
from collections import deque
from collections.abc import Callable
from typing import Final

from uringio._sys.memory import memory_at
from uringio._sys.system import System

from .op import CANCELLING, FSYNC, OPEN, READ, WRITE, Op
from .workers import Workers

__all__ = ["FileCalls"]

_DATA_ONLY: Final = 1  # IORING_FSYNC_DATASYNC
_PATH_BYTES_MAX: Final = 4096
_AT_CURRENT_POSITION: Final = (1 << 64) - 1  # as in an SQE


class FileCalls:
    """
    The file ops of one driver.

    Args:
        system: Where threads and calls come from.
        wake: Wakes the driver; called in workers.

    Attributes:
        finished: Use and result of calls that have ended and are not settled yet.
    """

    def __init__(self, system: System, wake: Callable[[], None]) -> None:
        self._system = system
        self._wake = wake
        self._workers = Workers(system)
        self._running: dict[int, Op[object]] = {}
        self._closes: list[Op[object]] = []
        self._deserted = False
        self.finished: deque[tuple[int, int]] = deque()

    def __len__(self) -> int:
        return len(self._running) + len(self._closes)

    def __contains__(self, op: Op[object]) -> bool:
        return op.use in self._running or op in self._closes

    def start(self, op: Op[object]) -> None:
        """Have a worker carry *op* out; its memory stands at ``op.addr``."""
        self._running[op.use] = op
        self._workers.start(lambda use=op.use: self._work(op, use))  # type: ignore[misc]

    def keep_back(self, op: Op[object]) -> bool:
        """Keep a CLOSE back if a call is in flight on its descriptor."""
        if any(running.fd == op.fd for running in self._running.values()):
            self._closes.append(op)
            return True
        return False

    def take_finished(self) -> list[tuple[Op[object], int]]:
        """Return the ops whose calls have ended, with their results, oldest first."""
        taken: list[tuple[Op[object], int]] = []
        while self.finished:
            use, res = self.finished.popleft()
            taken.append((self._running.pop(use), res))
        return taken

    def take_closes(self) -> list[Op[object]]:
        """Return the CLOSE ops whose descriptor nobody uses any more."""
        if not self._closes:
            return []
        busy = {running.fd for running in self._running.values()}
        free = [op for op in self._closes if op.fd not in busy]
        self._closes = [op for op in self._closes if op.fd in busy]
        return free

    def ops(self) -> list[Op[object]]:
        """Return every op that is in flight here."""
        return [*self._running.values(), *self._closes]

    def desert(self) -> int:
        """
        Leave the calls that still run to themselves, and return how many ops that strands.

        Their threads keep the memory alive, and close what they open.
        """
        self._deserted = True
        return len(self)

    def _work(self, op: Op[object], use: int) -> None:
        if op.state == CANCELLING:
            res = -errno.ECANCELED
        else:
            try:
                res = self._call(op)
            except (ValueError, OverflowError):  # a number that the standard library refuses
                res = -errno.EINVAL
        if self._deserted and op.code == OPEN and res >= 0:
            self._system.close(res)
        self.finished.append((use, res))
        self._wake()

    def _call(self, op: Op[object]) -> int:
        system, code = self._system, op.code
        if code == OPEN:
            path = bytes(op.memory) if op.memory is not None else _path_at(op.addr)
            return system.open_at(op.fd, path.split(b"\0")[0], op.flags, op.len)
        if code == FSYNC:
            return system.fsync(op.fd, bool(op.flags & _DATA_ONLY))
        assert code in (READ, WRITE)
        res = -errno.EINTR
        while res == -errno.EINTR:
            if op.flags:
                call = system.pread_flags if code == READ else system.pwrite_flags
                res = call(op.fd, op.addr, op.len, op.off, op.flags)
            elif op.off == _AT_CURRENT_POSITION:
                res = (system.read if code == READ else system.write)(op.fd, op.addr, op.len)
            else:
                at = system.pread if code == READ else system.pwrite
                res = at(op.fd, op.addr, op.len, op.off)
        return res


def _path_at(addr: int) -> bytes:
    raw = bytearray()
    while len(raw) < _PATH_BYTES_MAX:
        # Byte by byte: what lies behind the NUL may not be ours to read.
        byte = memory_at(addr + len(raw), 1)[0]
        if not byte:
            break
        raw.append(byte)
    return bytes(raw)
