"""
Slots of the submission queue: where an op's memory lies, and taking back what was not handed over.
"""

from collections.abc import Callable
from typing import Final

from uringio._ring.setup import Ring
from uringio._sys.layouts import SQE_SHORT
from uringio._sys.memory import pin

from . import op as o
from .op import Op
from .uring_rows import HEADS, WRITING_HEADS
from .zero_copy import APART, ZERO_COPY_BIT

__all__ = ["locate", "make_withdraw"]

_U32_MASK: Final = 0xFFFFFFFF


def locate(op: Op[object]) -> int:
    """Pin memory that is not inline bytes, or that the kernel will write into; its address."""
    assert op.memory is not None
    addr, _, op.hold = pin(op.memory, writable=op.code in WRITING_HEADS, at_least=op.len)
    return addr


def make_withdraw(
    ring: Ring, in_flight: dict[int, Op[object]], get_tail: Callable[[], int]
) -> Callable[[Op[object], int], bool]:
    """
    Build the function that turns an SQE which the kernel has not seen into a NOP.

    ``withdraw(op, number)`` is False if the kernel has seen that of the use *number* of *op*; else
    the use has left *in_flight*.  *get_tail* tells how many slots were filled.
    """
    sqes, sq_head = ring.sqes, ring.sq_head
    sqe_words, mask = sqes.cast("Q"), ring.sq_entries - 1
    pack = SQE_SHORT.pack_into

    def withdraw(op: Op[object], number: int) -> bool:
        if op.code == o.READ_MANY:
            return False  # they are handed over at once, and no one of them is the op
        data = number | ZERO_COPY_BIT if op.code in APART else number
        tail = get_tail()
        pending = (tail - sq_head[0]) & _U32_MASK
        if pending > mask + 1:
            return False  # a handler has handed over more than there was, and so this too
        for index in range(tail - pending, tail):
            slot = index & mask
            # Pending still, in one go with what follows: a handler may have handed it over.
            if sqe_words[slot << 3 | 4] == data and (index - sq_head[0]) & _U32_MASK <= mask:
                del in_flight[number]
                op.standing = False
                pack(sqes, slot << 6, HEADS[o.NOP], -1, 0, 0, 0, 0, 0)
                return True
        return False

    return withdraw
