"""
What this kernel's io_uring can do, as one frozen record.

Twin: io_uring_get_probe_ring, io_uring_opcode_supported.  Source: io_uring_register(2).
"""

from typing import NamedTuple

from uringio._sys import constants as k
from uringio._sys.layouts import PROBE_HEAD, PROBE_OP
from uringio._sys.memory import pin
from uringio.errors import op_error

from .setup import Ring

__all__ = ["Capabilities", "probe_ring"]


class Capabilities(NamedTuple):
    """
    The answer of a probe.

    Attributes:
        flags: Set-up flags that the ring was made with.
        features: IORING_FEAT_* bits.
        opcodes: Opcodes that the kernel supports.
    """

    flags: int
    features: int
    opcodes: frozenset[int]


def probe_ring(ring: Ring) -> Capabilities:
    """Ask the kernel which operations it knows; raises `OpError`.  Kernel: 5.6."""
    count = 256
    raw = bytearray(PROBE_HEAD.size + count * PROBE_OP.size)
    addr, _, _keep = pin(raw, writable=True)
    result = ring.register(k.IORING_REGISTER_PROBE, addr, count)
    if result < 0:
        raise op_error(-result, "register_probe", ring.fd)
    ops_len = PROBE_HEAD.unpack_from(raw)[1]
    opcodes = frozenset(
        op
        for op, flags in PROBE_OP.iter_unpack(
            raw[PROBE_HEAD.size : PROBE_HEAD.size + ops_len * PROBE_OP.size]
        )
        if flags & k.IO_URING_OP_SUPPORTED
    )
    return Capabilities(ring.flags, ring.features, opcodes)
