"""
SQEs of the seldom operations on files and names.

They take the long way, through the uring driver's `submit_by_driver`: an SQE of theirs has two
addresses, or an array of them, and most go to a worker of the kernel anyway, which costs more than
a call of ours.
"""

from typing import Final

from uringio._ring.prep import sqe_head
from uringio._ring.probe import probe_ring
from uringio._ring.setup import Ring
from uringio._sys import constants as k
from uringio._sys.layouts import OPEN_HOW
from uringio._sys.memory import pin
from uringio.errors import OpError

from . import op as o
from .op import Op, Vectored

__all__ = ["SHAPED", "known_opcodes", "needs_thread", "shape"]

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
}

_HEADS: Final = {code: sqe_head(opcode) for code, opcode in SHAPED.items()}
_TWO_PATHS: Final = frozenset({o.RENAME, o.SYMLINK, o.LINK})


def known_opcodes(ring: Ring) -> frozenset[int]:
    """Return what the kernel says it knows; nothing if it does not say."""
    try:
        return probe_ring(ring).opcodes
    except OpError:
        return frozenset()


def needs_thread(op: Op[object], known: frozenset[int]) -> bool:
    """Whether a worker thread must carry *op* out, because a ring like ours would refuse it."""
    if SHAPED[op.code] not in known:
        return True
    # Polled transfers belong on a ring made for polling; on others the kernel answers EINVAL where
    # preadv2 takes the flag for the hint that it is.
    return isinstance(op, Vectored) and bool(op.flags & k.RWF_HIPRI)


def shape(op: Op[object]) -> tuple[int, int, int, int, int, int]:
    """
    Return head, fd, off, addr, len and flags of the SQE for *op*, and pin its memory.

    Raises:
        TypeError: The memory cannot be written, and would have to be.
    """
    code, off, addr, len_ = op.code, op.off & _U64_MASK, op.addr, op.len
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
