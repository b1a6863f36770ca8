"""
Operations on regular files, made by worker threads for drivers that wait for readiness.

A regular file is always "ready", so readiness says nothing about it, and a read of it blocks.  Such
an op goes to a thread and stays in flight until the thread is done with its memory: cancelling one
that a thread has begun waits for it.  One that waits for a thread is not begun any more, nor is a
read or write of a FIFO or terminal that waits for its other end.

A descriptor must not be closed, and its number given anew, while a thread is about to use it: a
CLOSE waits for the calls that are in flight on its descriptor.
"""

import errno
import threading
import traceback
from collections import deque
from collections.abc import Callable
from typing import Final, cast

from uringio._sys.constants import RESOLVE_CACHED, SIZEOF_STATX
from uringio._sys.layouts import IOVEC, OPEN_HOW
from uringio._sys.memory import ReadableBuffer, memory_at, pin
from uringio._sys.system import System

from . import op as o
from .many import ReadMany
from .op import (
    CANCELLING,
    DONE,
    FSYNC,
    MAKES_DESCRIPTOR,
    OPEN,
    READ,
    READV,
    WRITE,
    WRITEV,
    Op,
)
from .poll_bits import POLLIN, POLLOUT
from .workers import Workers

__all__ = ["FILE_OPERATIONS", "FileCalls", "open_inline", "read_inline"]

FILE_OPERATIONS: Final = frozenset({
    o.OPEN, o.READ, o.WRITE, o.FSYNC, o.READV, o.WRITEV, o.FALLOCATE, o.FTRUNCATE, o.OPENAT2,
    o.STATX, o.RENAME, o.UNLINK, o.MKDIR, o.SYMLINK, o.LINK, o.READ_MANY,
})  # fmt: skip

_OPENS: Final = frozenset({OPEN, o.OPENAT2})
_DATA_ONLY: Final = 1  # IORING_FSYNC_DATASYNC
_PATH_BYTES_MAX: Final = 4096
_AT_CURRENT_POSITION: Final = (1 << 64) - 1  # as in an SQE
# How often a thread that waits for a FIFO looks whether it was cancelled. [ms]
_LOOK_MS: Final = 50
_TWO_FOLDERS: Final = frozenset({o.RENAME, o.LINK})  # the second is in `len`


class FileCalls:
    """
    The file ops of one driver.

    Args:
        system: Where threads and calls come from.
        wake: Wakes the driver; called in workers.

    Attributes:
        closes: CLOSE ops that were kept back.
        finished: Use and result of calls that have ended and are not settled yet.
        running: The ops, by use, whose calls have not been settled.
    """

    def __init__(self, system: System, wake: Callable[[], None]) -> None:
        self._system = system
        self._wake = wake
        self._workers = Workers(system)
        self.running: dict[int, Op[object]] = {}
        self._left: dict[int, int] = {}  # use of an open that nobody waits for -> its folder
        self._duplicates: dict[int, int] = {}  # use -> a descriptor of the call's own
        self.closes: list[Op[object]] = []
        self._deserted = False
        self._lock = threading.Lock()  # of who says that nothing is taken any more, and who brings
        self.finished: deque[tuple[int, int]] = deque()

    def __len__(self) -> int:
        return len(self.running) + len(self.closes)

    def __contains__(self, op: Op[object]) -> bool:
        return op.use in self.running or op in self.closes

    def start(self, op: Op[object]) -> None:
        """
        Have a worker carry *op* out; its memory stands at ``op.addr``.

        Where no thread can be started it ends with EAGAIN, as pthread_create(3) has it.
        """
        use = op.use
        self.running[use] = op
        # The thread's own: an open may end before its call does.
        kept = (op.memory, op.hold) if op.code in _OPENS else None
        try:
            self._workers.start(lambda: self._work(op, use, kept))
        except RuntimeError:
            duplicate = self._duplicates.pop(use, -1)
            if duplicate >= 0:
                self._system.close(duplicate)
            self.finished.append((use, -errno.EAGAIN))
            self._wake()

    def start_on_duplicate(self, op: Op[object]) -> None:
        """
        Have a worker carry *op* out on a descriptor of its own.

        For drivers whose CLOSE goes elsewhere, and could so meet a number that is given anew.

        Raises:
            OSError: No descriptor was left.
        """
        if op.fd >= 0:
            self._duplicates[op.use] = self._system.duplicate(op.fd)
        self.start(op)

    def keep_back(self, op: Op[object]) -> bool:
        """Keep a CLOSE back if a call is in flight on its descriptor."""
        if op.fd in self._busy():
            self.closes.append(op)
            return True
        return False

    def leave(self, op: Op[object]) -> bool:
        """
        Wait no longer for an open, whose descriptor is closed when it comes; False for other ops.

        Opening a FIFO, or a file on a device that hangs, may take for ever, and writes to no memory
        of ours.
        """
        if op.code not in _OPENS or op.use not in self.running:
            return False
        del self.running[op.use]
        self._left[op.use] = op.fd
        return True

    def settle_finished(self, settle: Callable[[Op[object], int], object]) -> None:
        """
        Give each op whose call has ended to *settle*, with its result, oldest first.

        *settle* takes it out of `running` where it is settled for good, which no signal handler may
        come between; an op that is still there when a handler has raised is given to it once more.
        """
        finished = self.finished
        while finished:
            use, res = finished[0]
            if use in self.running:
                settle(self.running[use], res)
            elif use in self._left:
                # Whoever raises in between leaves a descriptor open rather than closes one twice.
                del self._left[use], finished[0]
                if res >= 0:
                    self._system.close(res)
                continue
            del finished[0]

    def free_close(self) -> Op[object] | None:
        """Return a CLOSE op whose descriptor nobody uses any more, if there is one; it stays."""
        if self.closes:
            busy = self._busy()
            for op in self.closes:
                if op.fd not in busy:
                    return op
        return None

    def ops(self) -> list[Op[object]]:
        """Return every op that is in flight here."""
        return [*self.running.values(), *self.closes]

    def desert(self) -> int:
        """
        Leave the calls that still run to themselves, and return how many ops that strands.

        Their threads keep the memory alive, and close what they open.
        """
        self._workers.dismiss()
        with self._lock:
            self._deserted = True
        for use, res in self.finished:
            if use in self._left and res >= 0:
                self._system.close(res)
        return len(self)

    def _busy(self) -> set[int]:
        busy = {running.fd for running in self.running.values()}
        busy.update(self._left.values())
        return busy.union(op.len for op in self.running.values() if op.code in _TWO_FOLDERS)

    def _work(self, op: Op[object], use: int, _kept: object) -> None:
        duplicate = self._duplicates.pop(use, -1)
        if op.state == CANCELLING or use in self._left:
            res = -errno.ECANCELED
        else:
            try:
                res = self._call(op, duplicate if duplicate >= 0 else op.fd)
            except (ValueError, OverflowError):  # a number that the standard library refuses
                res = -errno.EINVAL
            except Exception:  # a bug of ours: to be told, and not to be waited for
                traceback.print_exc()  # `logging` would leave a dummy in `threading`
                res = -errno.EIO
        if duplicate >= 0:
            self._system.close(duplicate)
        with self._lock:
            deserted = self._deserted
            if not deserted:
                self.finished.append((use, res))
                self._wake()
        if deserted and op.code in MAKES_DESCRIPTOR and res >= 0:
            self._system.close(res)

    def _call(self, op: Op[object], fd: int) -> int:
        system, code = self._system, op.code
        if code in _TRANSFERS:
            res = -errno.EINTR
            while res == -errno.EINTR:
                res = self._transfer(op, fd)
            return res
        if code == OPEN:
            memory = op.memory  # which goes if the op is left meanwhile
            path = bytes(memory) if memory is not None else _path_at(op.addr)
            return system.open_at(fd, path.split(b"\0")[0], op.flags, op.len)
        if code == FSYNC:
            return system.fsync(fd, bool(op.flags & _DATA_ONLY))
        return _CALLS[code](system, op, fd)

    def _transfer(self, op: Op[object], fd: int) -> int:
        system, code, addr = self._system, op.code, op.addr
        if op.off == _AT_CURRENT_POSITION:  # only there FIFOs are read; files are always ready
            ready = POLLIN if code in {READ, READV} else POLLOUT
            while not system.poll_fd(fd, ready, _LOOK_MS):
                if op.state == CANCELLING:
                    return -errno.ECANCELED
        offset = -1 if op.off == _AT_CURRENT_POSITION else op.off
        if code in {READV, WRITEV}:
            assert isinstance(op.memory, bytes)
            pieces = [memory_at(*piece) for piece in IOVEC.iter_unpack(op.memory) if piece[1]]
        elif op.flags:
            pieces = [memory_at(addr, op.len)] if op.len else []
        elif offset < 0:
            return (system.read if code == READ else system.write)(fd, addr, op.len)
        else:
            return (system.pread if code == READ else system.pwrite)(fd, addr, op.len, offset)
        move = system.preadv if code in {READ, READV} else system.pwritev
        return move(fd, pieces, offset, op.flags)


_TRANSFERS: Final = frozenset({READ, WRITE, READV, WRITEV})


def _call_fallocate(system: System, op: Op[object], fd: int) -> int:
    return system.fallocate(fd, op.len, op.off, op.addr)


def _call_ftruncate(system: System, op: Op[object], fd: int) -> int:
    return system.ftruncate(fd, op.off)


def _call_openat2(system: System, op: Op[object], fd: int) -> int:
    return system.openat2(fd, op.addr + OPEN_HOW.size, op.addr, OPEN_HOW.size)


def _call_statx(system: System, op: Op[object], fd: int) -> int:
    return system.statx(fd, op.addr + SIZEOF_STATX, op.flags, op.len, op.addr)


def _call_rename(system: System, op: Op[object], fd: int) -> int:
    return system.renameat(fd, op.addr, op.len, op.addr + op.off, op.flags)


def _call_unlink(system: System, op: Op[object], fd: int) -> int:
    return system.unlinkat(fd, op.addr, op.flags)


def _call_mkdir(system: System, op: Op[object], fd: int) -> int:
    return system.mkdirat(fd, op.addr, op.len)


def _call_symlink(system: System, op: Op[object], fd: int) -> int:
    return system.symlinkat(op.addr, fd, op.addr + op.off)


def _call_link(system: System, op: Op[object], fd: int) -> int:
    return system.linkat(fd, op.addr, op.len, op.addr + op.off, op.flags)


def _call_read_many(system: System, op: Op[object], fd: int) -> int:
    assert isinstance(op, ReadMany)
    size = op.len
    room = memory_at(op.addr, size * len(op.offsets))
    for index in op.todo:
        piece, res = [room[index * size : (index + 1) * size]], -errno.EINTR
        while res == -errno.EINTR:
            if op.state == CANCELLING:
                return -errno.ECANCELED
            res = system.preadv(fd, piece, op.offsets[index], op.flags)
        op.results[index] = res
    return 0


_CALLS: Final[dict[int, Callable[[System, Op[object], int], int]]] = {
    o.FALLOCATE: _call_fallocate,
    o.FTRUNCATE: _call_ftruncate,
    o.OPENAT2: _call_openat2,
    o.STATX: _call_statx,
    o.RENAME: _call_rename,
    o.UNLINK: _call_unlink,
    o.MKDIR: _call_mkdir,
    o.SYMLINK: _call_symlink,
    o.LINK: _call_link,
    o.READ_MANY: _call_read_many,
}


def read_inline(op: Op[object], system: System) -> bool:
    """End a new READ_CACHED if its bytes can be had at once; else make it a READ."""
    res = system.read_cached(op.fd, cast("ReadableBuffer", op.memory), op.len, op.off)
    if res < 0:
        op.code = READ
        return False
    op.value = res
    op.memory = None
    op.state = DONE
    return True


def open_inline(op: Op[object], system: System) -> bool:
    """End a new OPENAT2 that may be tried, if the names in memory are enough for it."""
    if system.buggify("no open is tried"):
        return False
    memory = cast("bytes", op.memory)
    flags, permissions, resolve = OPEN_HOW.unpack_from(memory)
    how = OPEN_HOW.pack(flags, permissions, resolve | RESOLVE_CACHED)
    addr, _, hold = pin(how + memory[OPEN_HOW.size :])
    res = system.openat2(op.fd, addr + OPEN_HOW.size, addr, OPEN_HOW.size)
    del hold
    if res < 0:
        return False  # whatever it is: the operation itself will say it, if it must not only wait
    op.value = res
    op.memory = None
    op.state = DONE
    return True


def _path_at(addr: int) -> bytes:
    raw = bytearray()
    while len(raw) < _PATH_BYTES_MAX:
        # Byte by byte: what lies behind the NUL may not be ours to read.
        byte = memory_at(addr + len(raw), 1)[0]
        if not byte:
            break
        raw.append(byte)
    return bytes(raw)
