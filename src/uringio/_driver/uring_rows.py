"""
How each operation is packed into an SQE: the first table of the io_uring driver.

Every operation fits one SQE shape (`_sys.layouts.SQE_SHORT`), so a row is the SQE's first word:
opcode, flags and ioprio.  A negative row names an operation that the driver carries out itself.

What these rows need of the kernel has no substitute on a ring, and is asked for by `require`; what
has one (a thread, a copy) is asked for when it is used.
"""

import errno
from typing import Final

from uringio._ring.prep import sqe_head
from uringio._ring.probe import probe_ring
from uringio._ring.setup import Ring
from uringio._sys import constants as k
from uringio.errors import OpError, RingError

from . import op as o

__all__ = [
    "BY_DRIVER",
    "CANCEL_EVERYTHING",
    "CANCEL_HEAD",
    "HEADS",
    "SLOW_HEADS",
    "WRITING_HEADS",
    "require",
]

BY_DRIVER: Final = -1  # rows without an SQE

HEADS: Final = [BY_DRIVER] * len(o.OPERATION_NAMES)
HEADS[o.NOP] = sqe_head(k.IORING_OP_NOP)
HEADS[o.RECV] = sqe_head(k.IORING_OP_RECV, k.IOSQE_BUFFER_SELECT)
HEADS[o.SEND] = sqe_head(k.IORING_OP_SEND)
HEADS[o.SEND_ALL] = sqe_head(k.IORING_OP_SEND)
HEADS[o.ACCEPT] = sqe_head(k.IORING_OP_ACCEPT)
HEADS[o.CONNECT] = sqe_head(k.IORING_OP_CONNECT)
HEADS[o.SHUTDOWN] = sqe_head(k.IORING_OP_SHUTDOWN)
HEADS[o.CLOSE] = sqe_head(k.IORING_OP_CLOSE)
HEADS[o.OPEN] = sqe_head(k.IORING_OP_OPENAT)
HEADS[o.WRITE] = sqe_head(k.IORING_OP_WRITE)
HEADS[o.FSYNC] = sqe_head(k.IORING_OP_FSYNC)
HEADS[o.POLL] = HEADS[o.POLL_AGAIN] = sqe_head(k.IORING_OP_POLL_ADD)
HEADS[o.SENDMSG] = sqe_head(k.IORING_OP_SENDMSG)
HEADS[o.RECVMSG] = sqe_head(k.IORING_OP_RECVMSG)

# The kernel writes into the memory of these: they keep off the path that takes `bytes` as they are.
WRITING_HEADS: Final = {
    o.RECV_INTO: sqe_head(k.IORING_OP_RECV),
    o.READ: sqe_head(k.IORING_OP_READ),
}
# All that keep off that path.
SLOW_HEADS: Final = WRITING_HEADS | {
    o.RECV_LEASE: sqe_head(k.IORING_OP_RECV, k.IOSQE_BUFFER_SELECT),
    o.SEND_ZC: sqe_head(k.IORING_OP_SEND_ZC),
    o.SENDMSG_ZC: sqe_head(k.IORING_OP_SENDMSG_ZC),
    o.SENDMSG_UNIX: HEADS[o.SENDMSG],
    o.WRITE: HEADS[o.WRITE],  # while there is registered memory
    o.POLL_ON: HEADS[o.POLL],
}

CANCEL_HEAD: Final = sqe_head(k.IORING_OP_ASYNC_CANCEL)
CANCEL_EVERYTHING: Final = k.IORING_ASYNC_CANCEL_ALL | k.IORING_ASYNC_CANCEL_ANY

_WITH_SUBSTITUTE: Final = frozenset({k.IORING_OP_SEND_ZC, k.IORING_OP_SENDMSG_ZC})
_NEEDED: Final = (
    frozenset(head & 0xFF for head in (*HEADS, *SLOW_HEADS.values(), CANCEL_HEAD) if head >= 0)
    - _WITH_SUBSTITUTE
)


def require(ring: Ring) -> None:
    """
    Raise `RingError` if the kernel of *ring* lacks an operation that nothing stands in for.

    By asking it rather than by its release: it may have been built without sockets, or be another
    program that plays a kernel.
    """
    try:
        known = probe_ring(ring).opcodes
    except OpError:
        return  # it does not tell; what it lacks, the operations will say
    if missing := _NEEDED - known:
        names = {value: name for name, value in vars(k).items() if name.startswith("IORING_OP_")}
        raise RingError(
            errno.ENOSYS,
            f"this kernel's io_uring lacks {', '.join(names[one] for one in sorted(missing))}",
            "Another backend works without",
        )
