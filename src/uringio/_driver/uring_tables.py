"""
What is registered with a ring: memory, and descriptors.

**Memory.**  A transfer names its memory by address, and the kernel looks up and pins the pages each
time.  Pages that are registered are pinned once; READ_FIXED and WRITE_FIXED find them by an index.
So every READ and WRITE whose memory lies in a registered span becomes one of these on its way down,
a SEND_ZC gets its flag for the same, and nobody above needs to know.  As long as nothing is
registered, a WRITE takes the short way.

A span is withdrawn for new requests at once, and for the kernel when the last request that uses it
has ended.  The kernel tells by a completion: a registration carries a tag, which is its
``user_data``.

Pinned pages survive a fork in the parent, since 5.12: the child gets copies.  A child has no ring.

**Descriptors** stand in a table that is made with the first of them; see `direct`.

Source: io_uring_register(2).
"""

import errno
import sys
from collections import deque
from collections.abc import Callable, Iterable
from struct import pack
from typing import Final

from uringio._ring.prep import sqe_head
from uringio._ring.probe import probe_ring
from uringio._ring.register import (
    register_buffers_sparse,
    register_buffers_update,
    register_files,
    register_files_update,
)
from uringio._ring.setup import Ring
from uringio._sys import constants as k
from uringio._sys.memory import Memory
from uringio.errors import ClosedError, OpError, RingError, UnsupportedError, UsageError

from . import op as o
from .direct import Direct, FixedFd
from .op import STALE, Awaited, Op

__all__ = ["TAG_BIT", "UringTables"]

TAG_BIT: Final = 1 << 60  # of the user_data that tells that a registered span is free
_SPANS_MAX: Final = 64
_SPAN_BYTES_MAX: Final = 1 << 30  # the kernel's own limit
_FILES_MAX: Final = 256
_FIXED_HEADS: Final = {
    sqe_head(k.IORING_OP_READ): sqe_head(k.IORING_OP_READ_FIXED),
    sqe_head(k.IORING_OP_WRITE): sqe_head(k.IORING_OP_WRITE_FIXED),
    sqe_head(k.IORING_OP_SEND_ZC): sqe_head(k.IORING_OP_SEND_ZC, 0, k.IORING_RECVSEND_FIXED_BUF),
}
# What a table is refused with by a kernel that knows none, and by rules that forbid it.
_NO_TABLE: Final = frozenset({errno.EINVAL, errno.EACCES, errno.EPERM, errno.EOPNOTSUPP})
_REMEDY: Final = (
    "Registered memory counts as locked: raise the limit (ulimit -l, RLIMIT_MEMLOCK), give the "
    "process CAP_IPC_LOCK, or make the pool smaller"
)


class UringTables:
    """
    The tables of one ring.

    Args:
        ring: The ring.
        heads: The driver's own table of SQE heads.
        ops: Its ops: those in flight, and those to be asked for once more.
        flush: Hands over what is packed; raises `WrongThreadError`.
        cancel: Cancels an op.

    Attributes:
        spans: Registered memory: first address, end, and word 5 of the SQE that names it.
    """

    def __init__(
        self,
        ring: Ring,
        heads: list[int],
        ops: tuple[dict[int, Op[object]], ...],
        flush: Callable[[], None],
        cancel: Callable[[Op[object], BaseException | None], bool],
    ) -> None:
        self._ring = ring
        self._heads = heads
        self._ops = ops
        self._flush = flush
        self._cancel = cancel
        self._retired = False
        self.spans: list[tuple[int, int, int]] = []
        self._indexes: list[int] = []  # free ones
        self._has_memory_table = False
        self._tag = TAG_BIT
        # Tag -> memory, the index, and what waits for it to be free.
        self._registered: dict[int, tuple[Memory, int, Awaited[None] | None]] = {}
        self._generations: list[int] = []  # of the slots of files
        self._slots: list[int] = []  # free ones
        self._forgotten: deque[int] = deque()
        self._opcodes: frozenset[int] | None = None

    # --- memory ----------------------------------------------------------------------------------

    def fix(self, head: int, addr: int, len_bytes: int) -> tuple[int, int]:
        """Return the head for an operation on memory, and word 5 of its SQE."""
        if head in _FIXED_HEADS:
            for first, end, word in self.spans:
                if first <= addr and addr + len_bytes <= end:
                    return _FIXED_HEADS[head], word
        return head, 0

    def add_memory(self, memory: Memory, piece_bytes: int) -> bool:
        """
        Register *memory*, all of it; False where this kernel has no table for it.

        Args:
            piece_bytes: What it is divided into; pieces that lie in two spans are not used fixed.

        Raises:
            UsageError: It is registered already, or too much is.
            RingError: So much may not be locked (ENOMEM).
            OpError: The kernel refused otherwise.
        """
        self._require_ring()
        if any(one is memory for one, _, waiting in self._registered.values() if waiting is None):
            raise UsageError("this memory is registered with this loop already")
        if not self._has_memory_table:
            try:
                register_buffers_sparse(self._ring, _SPANS_MAX)
            except OpError as error:
                if error.errno in _NO_TABLE:
                    return False
                raise
            self._has_memory_table = True
            self._indexes = list(range(_SPANS_MAX))
        step = max(_SPAN_BYTES_MAX // piece_bytes, 1) * piece_bytes
        starts = range(0, memory.len_bytes, step)
        if len(starts) > len(self._indexes):
            raise UsageError(f"a ring has room for {_SPANS_MAX} registered spans of 1 GiB at most")
        tags: list[int] = []
        try:
            for start in starts:
                index = self._indexes[-1]
                self._tag = tag = self._tag + 1
                addr, size = memory.addr + start, min(step, memory.len_bytes - start)
                register_buffers_update(self._ring, index, addr, size, tag)
                self._indexes.pop()
                self._registered[tag] = memory, index, None
                tags.append(tag)
                self.spans.append((addr, addr + size, _word(index)))
        except OpError as error:
            for unheard in self._withdraw(tags):
                unheard.state = STALE
            if error.errno == errno.ENOMEM:
                what = f"{memory.len_bytes} bytes of memory could not be registered"
                raise RingError(errno.ENOMEM, what, _REMEDY) from None
            raise
        self._heads[o.WRITE] = -1  # by the way that looks here
        return True

    def remove_memory(self, memory: Memory) -> list[Awaited[None]]:
        """
        Register *memory* no longer; what is returned ends when the kernel uses it no more.

        Raises:
            WrongThreadError: The ring is another thread's.
        """
        if self._retired:
            return []
        self._flush()
        return self._withdraw(
            [
                tag
                for tag, (one, _, waiting) in self._registered.items()
                if one is memory and waiting is None
            ]
        )

    def _withdraw(self, tags: Iterable[int]) -> list[Awaited[None]]:
        ended: list[Awaited[None]] = []
        for tag in tags:
            memory, index, _ = self._registered[tag]
            free: Awaited[None] = Awaited()
            ended.append(free)
            self._registered[tag] = memory, index, free
            self.spans[:] = [span for span in self.spans if span[2] != _word(index)]
            register_buffers_update(self._ring, index, 0, 0, 0)
        return ended

    def released(self, tag: int) -> bool:
        """Hear that the kernel has let go of the registration *tag*; False if there is none."""
        if tag not in self._registered:
            return False
        _, index, free = self._registered[tag]
        if free is not None:
            free.end()
        del self._registered[tag]
        self._indexes.append(index)
        return True

    # --- descriptors -----------------------------------------------------------------------------

    def add_file(self, fd: int) -> FixedFd:
        """
        Register a file; *fd* stays the caller's.

        Raises:
            UsageError: The table is full.
            UnsupportedError: This kernel has no such table.
            OpError: The kernel refused, such as EBADF.
        """
        self._require_ring()
        if not self._generations:
            try:
                register_files(self._ring, [-1] * _FILES_MAX)
            except OpError as error:
                if error.errno in _NO_TABLE:
                    needs = "a kernel that lets rings register files"
                    raise UnsupportedError("a direct descriptor", needs) from None
                raise
            self._generations = [0] * _FILES_MAX
            self._slots = list(range(_FILES_MAX - 1, -1, -1))
        self._empty_forgotten()
        if not self._slots:
            raise UsageError(f"a ring has room for {_FILES_MAX} direct descriptors")
        register_files_update(self._ring, self._slots[-1], [fd])
        return FixedFd(self, self._slots.pop())

    def drop(self, file: FixedFd) -> None:
        """See `FileTable`."""
        slot = file.slot
        self._flush()  # first of all: it says if this is the wrong thread
        for op in [op for table in self._ops for op in table.values()]:
            if isinstance(op, Direct) and op.file is file:
                self._cancel(op, ClosedError(f"{file!r} was closed by another task meanwhile"))
        self._generations[slot] += 1
        self._forgotten.append(slot)
        self._empty_forgotten()

    def _empty_forgotten(self) -> None:
        """Empty the slots that nobody has, once the kernel has all that was packed for them."""
        self._flush()
        if self._ring.sq_head[0] != self._ring.sq_tail[0]:
            return  # it is short of memory; what it has not taken must find these slots as they are
        while self._forgotten:
            slot = self._forgotten[0]
            register_files_update(self._ring, slot, [-1])
            self._forgotten.popleft()
            self._slots.append(slot)

    def forget(self, slot: int) -> None:
        """See `FileTable`."""
        self._forgotten.append(slot)

    def generation(self, slot: int) -> int:
        """See `FileTable`."""
        return -1 if self._retired else self._generations[slot]

    def require_install(self) -> None:
        """Raise `UnsupportedError` where a direct descriptor cannot become an ordinary one."""
        if self._opcodes is None:
            try:
                self._opcodes = probe_ring(self._ring).opcodes
            except OpError:
                self._opcodes = frozenset()  # it does not tell, and nothing could stand in
        if k.IORING_OP_FIXED_FD_INSTALL not in self._opcodes:
            raise UnsupportedError("installing a direct descriptor", "Linux 6.8")

    # --- the end ---------------------------------------------------------------------------------

    def retire(self) -> None:
        """Touch the ring no more: it has gone, or belongs to the parent process."""
        self._retired = True
        self.spans.clear()
        for _, _, free in self._registered.values():
            if free is not None:
                free.outcome = None, None
        self._registered.clear()

    def _require_ring(self) -> None:
        if self._retired:
            raise ClosedError("this driver is closed")


def _word(index: int) -> int:
    """Return the eight bytes of an SQE that begin with its ``buf_index``, as they lie."""
    return int.from_bytes(pack("=H6x", index), sys.byteorder)
