"""
SQEs of the seldom operations on files and names.

They take the long way, through the uring driver's `submit_by_driver`: an SQE of theirs has two
addresses, or an array of them, and most go to a worker of the kernel anyway, which costs more than
a call of ours.
"""

import errno
from collections.abc import Callable
from typing import Final

from uringio._ring.prep import sqe_head
from uringio._ring.probe import probe_ring
from uringio._ring.setup import Ring
from uringio._sys import constants as k
from uringio._sys.layouts import OPEN_HOW
from uringio._sys.memory import pin
from uringio._sys.system import System
from uringio.errors import OpError

from . import op as o
from .attempts import locate
from .direct import Direct
from .file_calls import FILE_OPERATIONS, FileCalls
from .op import CANCELLING, SUBMITTED, Op
from .outcome import settle_succeeded
from .uring_rows import WRITING_HEADS
from .vectored import Vectored

__all__ = ["SHAPED", "ThreadCalls", "shape"]

_U32_MASK: Final = 0xFFFFFFFF
_U64_MASK: Final = (1 << 64) - 1

# Operation -> opcode.
SHAPED: Final = {
    o.READV: k.IORING_OP_READV,
    o.WRITEV: k.IORING_OP_WRITEV,
    o.FALLOCATE: k.IORING_OP_FALLOCATE,
    o.FTRUNCATE: k.IORING_OP_FTRUNCATE,
    o.OPENAT2: k.IORING_OP_OPENAT2,
    o.STATX: k.IORING_OP_STATX,
    o.RENAME: k.IORING_OP_RENAMEAT,
    o.UNLINK: k.IORING_OP_UNLINKAT,
    o.MKDIR: k.IORING_OP_MKDIRAT,
    o.SYMLINK: k.IORING_OP_SYMLINKAT,
    o.LINK: k.IORING_OP_LINKAT,
    # No thread could do these, so whoever makes them has asked whether the kernel can.
    o.DIRECT: k.IORING_OP_NOP,
    o.INSTALL: k.IORING_OP_FIXED_FD_INSTALL,
}

_DIRECT_HEADS: Final = {
    o.SEND: sqe_head(k.IORING_OP_SEND, k.IOSQE_FIXED_FILE),
    o.RECV_INTO: sqe_head(k.IORING_OP_RECV, k.IOSQE_FIXED_FILE),
    o.READ: sqe_head(k.IORING_OP_READ, k.IOSQE_FIXED_FILE),
    o.WRITE: sqe_head(k.IORING_OP_WRITE, k.IOSQE_FIXED_FILE),
}

_INSTALL_HEAD: Final = sqe_head(k.IORING_OP_FIXED_FD_INSTALL, k.IOSQE_FIXED_FILE)
_HEADS: Final = {code: sqe_head(opcode) for code, opcode in SHAPED.items()}
_TWO_PATHS: Final = frozenset({o.RENAME, o.SYMLINK, o.LINK})


class ThreadCalls(FileCalls):
    """
    What a ring leaves to worker threads; settled when the wake pipe is read.

    Args:
        system: Where threads and calls come from.
        wake: Wakes the driver; called in workers.
        ring: The ring whose kernel is asked what it knows, by the first op that it may not know.
    """

    def __init__(self, system: System, wake: Callable[[], None], ring: Ring) -> None:
        super().__init__(system, wake)
        self._ring = ring
        self._known: frozenset[int] | None = None

    def must_take(self, op: Op[object]) -> bool:
        """
        Whether the ring would refuse *op*; if so its memory is pinned, before the op counts.

        Raises:
            TypeError, UsageError: The memory will not do.
        """
        if self._ring_takes(op):
            return False
        locate(op)
        return True

    def _ring_takes(self, op: Op[object]) -> bool:
        if op.code not in FILE_OPERATIONS:
            return True  # a direct descriptor's: no thread could, whatever the kernel tells
        if self._known is None:
            try:
                self._known = probe_ring(self._ring).opcodes
            except OpError:
                self._known = frozenset()
        if SHAPED[op.code] not in self._known:
            return False
        if self._system.buggify("a thread does it"):
            return False
        # Polled transfers belong on a ring made for polling; on others the kernel answers EINVAL
        # where preadv2 takes the flag for the hint that it is.
        return not (isinstance(op, Vectored) and op.flags & k.RWF_HIPRI)

    def begin(self, op: Op[object]) -> int:
        """Have a worker carry *op* out; returns an errno if it cannot be."""
        try:
            self.start_on_duplicate(op)
        except OSError as error:
            return error.errno or errno.EIO
        return 0

    def settle_all(
        self,
        deliver: Callable[[Op[object]], object],
        settle_slowly: Callable[[Op[object], int, bytes | None], None],
    ) -> None:
        """End the ops whose calls have ended."""

        def settle(op: Op[object], res: int) -> None:
            if res < 0 or op.state != SUBMITTED:
                settle_slowly(op, res, None)
                return
            settle_succeeded(op, res)
            del self.running[op.use]
            deliver(op)

        self.settle_finished(settle)

    def drain(self, turn: Callable[[int | None], None], deadline_ns: int) -> int:
        """Cancel everything, turn until it has ended or the time is up; how many ops are left."""
        for op in self.ops():
            if op.state == SUBMITTED:
                op.state = CANCELLING
        while len(self) and self._system.monotonic_ns() < deadline_ns:
            turn(deadline_ns)
        return self.desert()


def shape(op: Op[object]) -> tuple[int, int, int, int, int, int]:
    """
    Return head, fd, off, addr, len and flags of the SQE for *op*, and pin its memory.

    Raises:
        TypeError: The memory cannot be written, and would have to be.
    """
    code, off, addr, len_ = op.code, op.off & _U64_MASK, op.addr, op.len
    if isinstance(op, Direct):
        return _shape_direct(op)
    if isinstance(op, Vectored):
        op.pin_pieces()
        addr = op.addr
    elif op.memory is not None:
        base, _, op.hold = pin(op.memory, writable=code == o.STATX)
        addr = base + o.PATH_STARTS[code]
        if code in _TWO_PATHS:
            off = base + op.off
        elif addr != base:
            off = base
        if code == o.OPENAT2:
            len_ = OPEN_HOW.size
    return _HEADS[code], op.fd, off, addr, len_ & _U32_MASK, op.flags


def _shape_direct(op: Direct[object]) -> tuple[int, int, int, int, int, int]:
    slot = op.file.slot
    if op.row == o.INSTALL:
        return _INSTALL_HEAD, slot, 0, 0, 0, 0
    assert op.memory is not None
    addr, _, op.hold = pin(op.memory, writable=op.row in WRITING_HEADS)
    return _DIRECT_HEADS[op.row], slot, op.off & _U64_MASK, addr, op.len & _U32_MASK, op.flags
