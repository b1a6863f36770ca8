"""
Many reads of one file as one op: what all drivers share of it.

Each read has an offset of its own and the next piece of the op's memory, and all of them end as
one.  So they are packed, and their results taken, by the batch; and no task, no op and no wake-up
stands beside any single one of them.
"""

from array import array
from collections.abc import Callable, Sequence
from typing import Final

from uringio._sys.memory import memory_at, pin
from uringio._sys.system import System
from uringio.errors import op_error

from .direct import FixedFd
from .op import DONE, READ_MANY, Op, T_co

__all__ = [
    "MANY_BIT",
    "NUMBER_MASK",
    "NUMBER_SHIFT",
    "READS_MAX",
    "UNKNOWN",
    "ReadMany",
    "name_of",
    "read_many_inline",
    "settle_many",
]

READS_MAX: Final = 1024
UNKNOWN: Final = -1 << 31

# The user_data of a read on a ring: a bit of their own, the op's `off`, and which read it is.
MANY_BIT: Final = 1 << 59
NUMBER_SHIFT: Final = 16
NUMBER_MASK: Final = (1 << 40) - 1


class ReadMany(Op[T_co]):
    """
    READ_MANY: reads of `len` bytes each at `offsets`, into one piece of memory after another.

    Its value is the list of their results; one that failed is its error.  `off` is the number that
    a ring gives it.

    Attributes:
        offsets: Where in the file, as an array of type "Q"; at most `READS_MAX`.
        cached: Whether reads that need no waiting may be made while it is submitted.
        registered: The file as a ring knows it, if it does; else None.
        results: Of each read; `UNKNOWN` until it has ended.
        missing: How many have not ended.
        todo: The indexes of those that nobody was asked for yet.
    """

    __slots__ = ("cached", "missing", "offsets", "registered", "results", "todo")

    def __init__(
        self,
        fd: int,
        offsets: "array[int]",
        size: int,
        flags: int = 0,
        finish: Callable[[object], T_co] | None = None,
        *,
        cached: bool = False,
    ) -> None:
        super().__init__(READ_MANY, fd, 0, size, 0, flags, finish=finish)
        self.offsets = offsets
        self.cached = cached
        self.registered: FixedFd | None = None
        self.missing = len(offsets)
        self.results = [UNKNOWN] * self.missing
        self.todo: Sequence[int] = range(self.missing)

    def locate(self) -> None:
        """
        Put the address of its memory into `addr`, and what keeps it there into `hold`.

        Raises:
            TypeError: The memory cannot be written.
            UsageError: It was cut since the call was made.
        """
        if self.memory is not None and self.hold is None:
            size = len(self.offsets) * self.len
            self.addr, _, self.hold = pin(self.memory, writable=True, at_least=size)


def name_of(number: int, index: int) -> int:
    """Return the ``user_data`` of the read *index* of the op that has this number."""
    return MANY_BIT | (number & NUMBER_MASK) << NUMBER_SHIFT | index


def settle_many(op: Op[object]) -> None:
    """End *op*, whose reads have all ended, with their results or the error of the first failed."""
    assert isinstance(op, ReadMany)
    value: list[int] | None = op.results
    if op.results.count(op.len) != len(op.results) and min(op.results) < 0:
        index, res = next((at, res) for at, res in enumerate(op.results) if res < 0)
        where = f"read {index + 1} of {len(op.results)}, at offset {op.offsets[index]}"
        op.error = op_error(-res, "read", op.fd, detail=where)
        value = None
    op.value = value
    op.memory = None
    op.hold = None
    op.state = DONE


def read_many_inline(op: Op[object], system: System) -> bool:
    """End a new READ_MANY if all its bytes can be had at once; else note what is left to do."""
    assert isinstance(op, ReadMany)
    op.locate()
    if not op.cached:
        return False
    size, read_cached = op.len, system.read_cached
    room = memory_at(op.addr, size * len(op.offsets))
    left: list[int] = []
    for index, offset in enumerate(op.offsets):
        res = read_cached(op.fd, room[index * size : (index + 1) * size], size, offset)
        if res < 0:
            left.append(index)
        else:
            op.results[index] = res
    op.todo = left
    op.missing = len(left)
    if not left:
        settle_many(op)
    return not left
