"""
Slots of the submission queue: where an op's memory lies, and taking back what was not handed over.
"""

from typing import Final

from uringio._ring.setup import Ring
from uringio._sys.layouts import SQE_SHORT
from uringio._sys.memory import pin

from . import op as o
from .op import Op
from .uring_rows import HEADS, WRITING_HEADS
from .zero_copy import number_of

__all__ = ["locate", "withdraw"]

_U32_MASK: Final = 0xFFFFFFFF


def locate(op: Op[object]) -> int:
    """Pin memory that is not inline bytes, or that the kernel will write into; its address."""
    assert op.memory is not None
    addr, _, op.hold = pin(op.memory, writable=op.code in WRITING_HEADS, at_least=op.len)
    return addr


def withdraw(ring: Ring, tail: int, op: Op[object], in_flight: dict[int, Op[object]]) -> bool:
    """
    Turn an SQE that the kernel has not seen into a NOP; False if it has.

    Args:
        ring: Where it stands.
        tail: How many slots were filled.
        op: What it is for.
        in_flight: From which *op* goes along with it.
    """
    if op.code == o.READ_MANY:
        return False  # they are handed over at once, and no one of them is the op
    data, sq_head, words = number_of(op), ring.sq_head, ring.sqes.cast("Q")
    mask = ring.sq_entries - 1
    for index in range(tail - ((tail - sq_head[0]) & _U32_MASK), tail):
        slot = index & mask
        # Pending still, in one go with what follows: a handler may have handed it over.
        if words[slot << 3 | 4] == data and (index - sq_head[0]) & _U32_MASK <= mask:
            del in_flight[op.use]
            SQE_SHORT.pack_into(ring.sqes, slot << 6, HEADS[o.NOP], -1, 0, 0, 0, 0, 0)
            return True
    return False
