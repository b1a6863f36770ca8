"""
READ_MANY on a ring: requests laid by the batch, and results taken by the batch.

The requests of a batch differ in three words: where in the file, where in memory, and
``user_data``.  So they are one block of memory, kept for the next batch with the same file and
memory, for which only the column of offsets is set; and the block is copied into the queue.  Then
it is handed over at once.  What the page cache holds ends within that call, and the completions of
a batch that has gone well are bytes known beforehand: if these stand in the queue, the op ends
before `submit` returns.  Per read all of this takes a tenth of what packing it alone would.  What
is left comes back by turns (`ManyReads.sift`), before the loop over other completions, which so
never meets them.

``user_data`` is a bit of their own, the batch's number, and which read it is.  A number is never
given twice: its lowest byte counts the uses of a block, which is made anew in time.  The op itself
is in flight under its `use` like any other, so that closing and counting know of it.

A signal handler may raise at any moment, and the next turn goes on: what a batch still has to do is
`todo`, what it still misses `missing`; both are changed by operators alone, together with what
they tell of.  Seen twice, a completion counts once.
"""

import errno
import sys
from array import array
from collections.abc import Callable
from operator import eq
from typing import Final, Protocol

from uringio._ring.prep import sqe_head
from uringio._ring.queue import Completion
from uringio._ring.setup import Ring
from uringio._sys import constants as k
from uringio._sys.layouts import CQE, SQE_SHORT
from uringio.errors import ClosedError

from .contract import Deliver
from .many import (
    MANY_BIT,
    NUMBER_MASK,
    NUMBER_SHIFT,
    UNKNOWN,
    ReadMany,
    name_of,
    settle_many,
)
from .op import CANCELLING, SUBMITTED, Op
from .uring_datagrams import Push
from .uring_rows import CANCEL_HEAD
from .uring_tables import UringTables

__all__ = ["MANY_BIT", "ManyReads", "ReadMany"]

_INDEX_MASK: Final = (1 << NUMBER_SHIFT) - 1
_KIND_SHIFT: Final = NUMBER_SHIFT + 40
_KIND: Final = MANY_BIT >> _KIND_SHIFT
_U32_MASK: Final = 0xFFFFFFFF
_HEAD: Final = sqe_head(k.IORING_OP_READ)
_FIXED_FILE: Final = sqe_head(0, k.IOSQE_FIXED_FILE)
_SQE_BYTES: Final = k.SIZEOF_SQE
_WORDS: Final = _SQE_BYTES // 8
_CQE_BYTES: Final = k.SIZEOF_CQE
_NOBODY: Final = 0  # the user_data of what nobody awaits
_INTERRUPTED: Final = -errno.EINTR
_TAKEN: Final[Completion] = (0, 0, 0)  # in the place of a completion that counts no more
_BLOCKS_MAX: Final = 64  # that are kept
_SQE_NAME_AT: Final = 32
# Where the lowest byte of the number stands in a user_data, and up to where it counts.
_USE_AT: Final = 2 if sys.byteorder == "little" else 5
_USE_MASK: Final = 0xFF
_USES_MAX: Final = 0xF0


class Lay(Protocol):
    """Copy SQEs of *op* into the queue as far as there is room, and take them off its `todo`."""

    def __call__(self, op: ReadMany[object], block: memoryview, /) -> None: ...


class _Block:
    """
    The SQEs of a batch, and the CQEs that it has when all its reads fill their memory.

    Attributes:
        number: The batch's that used it last.
        is_free: Whether nobody is about to lay it.
    """

    __slots__ = ("expected", "is_free", "number", "raw", "words")

    def __init__(self, op: ReadMany[object], head: int, fd: int, w5: int, number: int) -> None:
        count, size, addr = len(op.offsets), op.len, op.addr
        names = range(name_of(number, 0), name_of(number, count))
        raw = bytearray(_SQE_BYTES)
        SQE_SHORT.pack_into(raw, 0, head, fd, 0, 0, size, op.flags, 0)
        raw *= count
        self.raw = memoryview(raw)
        self.words = words = self.raw.cast("Q")
        words[2::_WORDS] = array("Q", range(addr, addr + max(size, 1) * count, max(size, 1)))
        words[4::_WORDS] = array("Q", names)
        words[5::_WORDS] = array("Q", [w5]) * count
        self.expected = bytearray(b"".join([CQE.pack(name, size, 0) for name in names]))
        self.number = number
        self.is_free = True

    def renew(self, number: int, offsets: "array[int]") -> None:
        """Make it that of another batch."""
        use = bytes((number & _USE_MASK,)) * len(offsets)
        self.words[1::_WORDS] = offsets
        self.raw[_SQE_NAME_AT + _USE_AT :: _SQE_BYTES] = use
        self.expected[_USE_AT::_CQE_BYTES] = use


class ManyReads:
    """
    The batches of one ring.

    Args:
        in_flight: The driver's ops by use.
        lay: See there.
        hand_over: Has the kernel take what is in the queue.
        make_room: The same, and takes completions; False where the kernel takes nothing.
        push: Queues an SQE: head, fd, addr, len, flags, user_data.
        tables: Which memory is registered.
        settle_slowly: Ends an op that was cancelled.

    Attributes:
        active: Those that have not ended, by number.
        begin: Starts an op, new and located, as the driver's use of the number given.
        stray: Completions that belonged to none of them.
    """

    def __init__(
        self,
        ring: Ring,
        in_flight: dict[int, Op[object]],
        lay: Lay,
        hand_over: Callable[[], object],
        make_room: Callable[[], bool],
        push: Push,
        tables: UringTables,
        settle_slowly: Callable[[Op[object], int, bytes | None], None],
    ) -> None:
        self._ring = ring
        self._in_flight = in_flight
        self._lay = lay
        self._hand_over = hand_over
        self._make_room = make_room
        self._push = push
        self._tables = tables
        self._settle_slowly = settle_slowly
        self._number = 0
        self.stray = 0
        self._blocks: dict[tuple[int, ...], _Block] = {}
        self.active: dict[int, ReadMany[object]] = {}
        self.begin: Callable[[Op[object], int, Deliver], object] = self._begin

    @staticmethod
    def locate(op: Op[object]) -> bool:
        """Pin the memory of *op*, before it counts; True.  Raises as `ReadMany.locate`."""
        assert isinstance(op, ReadMany)
        op.locate()
        return True

    def _begin(self, op: Op[object], use: int, deliver: Deliver) -> None:
        assert isinstance(op, ReadMany)
        ring, active = self._ring, self.active
        head = ring.cq_head[0]
        is_empty = head == ring.cq_tail[0]
        block = self._block(op)
        block.is_free = False
        op.off = block.number = block.number + 1
        op.use = use
        op.state = SUBMITTED
        self._in_flight[use] = op
        active[op.off] = op
        block.renew(op.off, op.offsets)
        self._go_on(op, block.raw)
        if is_empty and op.state == SUBMITTED:
            begin = (head & ring.cq_entries - 1) * _CQE_BYTES
            expected = block.expected
            # By `eq`: type checkers take bytes and a bytearray for things that are never equal.
            if eq(ring.cqes[begin : begin + len(expected)].tobytes(), expected):
                count = len(op.results)
                if ring.cq_head[0] == head:  # no signal handler was here: they run behind calls
                    op.results = [op.len] * count
                    op.missing = 0
                    ring.cq_head[0] = head + count & _U32_MASK
        block.is_free = True
        if not op.missing:
            self._settle(op, deliver)

    def sift(self, storage: list[Completion], deliver: Deliver) -> None:
        """Take what belongs here out of *storage*, and go on with what is not through."""
        for at, (user_data, res, _) in enumerate(storage):
            if user_data >> _KIND_SHIFT == _KIND:
                op = self._op_of(user_data)
                # From here on by operators alone: seen once more, it would count as stray.
                if op is None or op.results[user_data & _INDEX_MASK] != UNKNOWN:
                    self.stray += 1
                elif res == _INTERRUPTED and op.state == SUBMITTED:
                    op.todo = [*op.todo, user_data & _INDEX_MASK]
                else:
                    op.results[user_data & _INDEX_MASK] = res
                    op.missing -= 1
                storage[at] = _TAKEN
        storage[:] = [one for one in storage if one is not _TAKEN]
        for op in list(self.active.values()):
            if op.todo:
                self._go_on(op, self._some(op))
            if not op.missing:
                self._settle(op, deliver)

    def take_in(self, completion: Completion, deliver: Deliver) -> None:
        """Take one completion that came too late for `sift`."""
        self.sift([completion], deliver)

    def cancel(self, op: Op[object]) -> None:
        """Have the kernel drop what it has not begun, but for the first read; may be done again."""
        assert isinstance(op, ReadMany)
        for index in range(1, len(op.results)):
            if op.results[index] == UNKNOWN and index not in op.todo:
                self._push(CANCEL_HEAD, -1, name_of(op.off, index), 0, 0, _NOBODY)

    # --- on the way down -------------------------------------------------------------------------

    def _block(self, op: ReadMany[object]) -> _Block:
        """Return a block for *op* that nobody is about to lay, yet to be renewed."""
        size, count = op.len, len(op.offsets)
        head, fd, w5 = self._target(op)
        key = (op.addr, fd, count, size, head, w5, op.flags)
        block = self._blocks.get(key)
        if block is None or not block.is_free or block.number & _USE_MASK >= _USES_MAX:
            self._number += _USE_MASK + 1
            block = _Block(op, head, fd, w5, self._number)
            if len(self._blocks) >= _BLOCKS_MAX:
                self._blocks.clear()
            self._blocks[key] = block
        return block

    def _target(self, op: ReadMany[object]) -> tuple[int, int, int]:
        """Return head, file and word 5 of the SQEs, by what is registered."""
        head, w5 = self._tables.fix(_HEAD, op.addr, op.len * len(op.offsets))
        if op.registered is not None:
            try:
                return head | _FIXED_FILE, op.registered.slot, w5
            except ClosedError:
                pass
        return head, op.fd, w5

    def _some(self, op: ReadMany[object]) -> memoryview:
        """Return the SQEs of the reads that are to do."""
        head, fd, w5 = self._target(op)
        block = _Block(op, head, fd, w5, op.off)
        block.words[1::_WORDS] = op.offsets
        parts = [block.raw[at * _SQE_BYTES : (at + 1) * _SQE_BYTES] for at in op.todo]
        return memoryview(b"".join(parts))

    def _go_on(self, op: ReadMany[object], block: memoryview) -> None:
        """Lay what is to do, whose SQEs *block* are, and hand it over."""
        count = len(op.todo)
        while op.todo and op.state == SUBMITTED:
            self._lay(op, block[(count - len(op.todo)) * _SQE_BYTES :])
            if op.todo:  # from the queue's first slot on
                self._lay(op, block[(count - len(op.todo)) * _SQE_BYTES :])
            if not op.todo:
                self._hand_over()
            elif not self._make_room():
                self._give_up(op, -errno.EAGAIN)
        if op.todo:
            self._give_up(op, -errno.ECANCELED)

    @staticmethod
    def _give_up(op: ReadMany[object], res: int) -> None:
        for index in list(op.todo):
            if op.results[index] == UNKNOWN:
                op.results[index] = res
                op.missing -= 1
        op.todo = ()

    # --- on the way up ---------------------------------------------------------------------------

    def _op_of(self, user_data: int) -> ReadMany[object] | None:
        return self.active.get(user_data >> NUMBER_SHIFT & NUMBER_MASK)

    def _settle(self, op: ReadMany[object], deliver: Deliver) -> None:
        if op.state == CANCELLING:
            self._settle_slowly(op, 0, None)  # which delivers it
            del self.active[op.off]
            return
        if op.state == SUBMITTED:
            settle_many(op)
        if op.use in self._in_flight:
            del self._in_flight[op.use]
            deliver(op)
        del self.active[op.off]
