"""
A bounded store of buffers in size classes.

The pool's memory is one mapping as large as the pool may ever get, of which only touched pages
cost anything.  It is cut into slabs; a slab holds pieces of one class, and once all of them are
back it may be cut anew for another, so no class can starve the others for ever.  One mapping also
means one registration with a ring, and one call to place it on a memory node.

A piece that comes back goes to the end that is handed out first: its pages are the likeliest to be
in the processor's cache.
"""

import threading
import warnings
from collections import deque
from dataclasses import dataclass
from operator import index
from typing import Final

from uringio._sys.memory import Memory
from uringio.errors import UsageError

from .buffer import Buffer, BufferLoan
from .loans import Loan
from .sites import site, site_words

__all__ = ["SIZE_CLASSES", "Pool", "PoolStatistics"]

SIZE_CLASSES: Final = (4096, 16384, 65536, 262144, 1048576)
_SLAB_BYTES_MIN: Final = 1 << 20
_PAGE_BYTES: Final = 4096


@dataclass(frozen=True)
class PoolStatistics:
    """
    What a pool has done and holds.

    Attributes:
        max_bytes: Its bound. [bytes]
        reserved_bytes: In slabs that have a class. [bytes]
        out_bytes: In buffers that somebody has, counted by their classes. [bytes]
        out_count: Those buffers.
        free_count: Class size -> buffers ready to be handed out.
        allocated_count: Allocations that were granted, ever.
        refused_count: Allocations that were not.
        forgotten_count: Buffers that came back because nobody had a handle of them any more.
    """

    max_bytes: int
    reserved_bytes: int
    out_bytes: int
    out_count: int
    free_count: dict[int, int]
    allocated_count: int
    refused_count: int
    forgotten_count: int


class _Slab:
    """A part of the mapping that holds pieces of one class."""

    __slots__ = ("out_count", "start")

    def __init__(self, start: int) -> None:
        self.start = start
        self.out_count = 0


class Pool:
    """
    The store behind `uringio.BufferPool`, without its waiting.

    Args:
        max_bytes: The bound; rounded down to whole slabs. [bytes]
        size_classes: Ascending multiples of 4096. [bytes]
        huge_pages: Ask the system to use them.
        node: The memory node to take pages from; None: as the system likes.

    Raises:
        ValueError: A class is no multiple of 4096, *max_bytes* has no room for one slab, or *node*
            is no number of a node.
        OpError, UnsupportedError: As `Memory.prefer_node`.
    """

    def __init__(
        self,
        max_bytes: int,
        size_classes: tuple[int, ...] = SIZE_CLASSES,
        *,
        huge_pages: bool = False,
        node: int | None = None,
    ) -> None:
        if not size_classes or list(size_classes) != sorted(set(size_classes)):
            raise ValueError(f"size classes ascend, without repeats: {size_classes}")
        for size in size_classes:
            if size < _PAGE_BYTES or size % _PAGE_BYTES:
                raise ValueError(f"a size class is a multiple of {_PAGE_BYTES}, not {size}")
        self.size_classes = size_classes
        self.slab_bytes = max(_SLAB_BYTES_MIN, size_classes[-1])
        count = max_bytes // self.slab_bytes
        if count < 1:
            raise ValueError(f"a pool of these classes has at least {self.slab_bytes} bytes")
        self.max_bytes = count * self.slab_bytes
        self.memory = Memory(self.max_bytes)
        if node is not None:
            self.memory.prefer_node(node)
        self.has_huge_pages = huge_pages and self.memory.advise_huge()
        # Reentrant: a signal handler or a finalizer may call in the middle of any line below, in
        # the thread that has the lock.  It finds `_inside` set, and changes nothing.
        self._lock = threading.RLock()
        self._inside = False
        # A buffer that is dropped comes back wherever the garbage collector happens to run: in any
        # thread, and in the middle of any line below.  So it only queues here.
        self._back: deque[Loan] = deque()
        last = self.max_bytes - self.slab_bytes
        self._uncut = [_Slab(start) for start in range(last, -1, -self.slab_bytes)]
        self._free: dict[int, list[tuple[int, _Slab]]] = {size: [] for size in size_classes}
        self._out: dict[int, tuple[int, _Slab]] = {}  # offset -> class, slab
        self._out_bytes = 0
        self._allocated_count = self._refused_count = self._forgotten_count = 0

    def allocate(self, size: int) -> Buffer | None:
        """
        Take a buffer of *size* bytes, or None where the bound leaves no room; never blocks.

        None, too, for a signal handler or a finalizer that has broken in on another call.

        Raises:
            ValueError: *size* is less than 1, or more than the largest class.
        """
        wanted = self._class_for(size)
        with self._lock:
            if self._inside:
                self._refused_count += 1
                return None
            try:
                self._inside = True
                self._take_in()
                free = self._free[wanted]
                if not free and not self._cut(wanted):
                    self._refused_count += 1
                    return None
                offset, slab = free.pop()
                slab.out_count += 1
                self._out[offset] = wanted, slab
                self._out_bytes += wanted
                self._allocated_count += 1
            finally:
                self._inside = False
        loan = BufferLoan(self.memory, self.memory.addr + offset, size, self)
        loan.site = site()
        buffer = Buffer.__new__(Buffer)
        buffer.loan = loan
        buffer.key = loan.key
        return buffer

    def release(self, buffer: Buffer) -> None:
        """
        Take *buffer* back.

        Raises:
            TypeError: It is no buffer.
            UsageError: It is not of this pool.
            DoubleReleaseError, UseAfterMoveError, BorrowedError: As `Buffer.release`.
        """
        if type(buffer) is not Buffer:
            raise TypeError(f"a pool takes back a Buffer, not {type(buffer).__name__!r}")
        loan = buffer.loan
        if loan.memory is not self.memory:
            raise UsageError(f"{buffer!r} is not of this pool")
        loan.release(buffer.key)

    def preallocate(self, size: int, count: int) -> None:
        """
        Touch the pages of *count* buffers for *size* bytes, so that they are real from now on.

        Raises:
            ValueError: As `allocate`, or the bound has no room for so many.
        """
        taken: list[Buffer] = []
        try:
            for _ in range(count):
                buffer = self.allocate(size)
                if buffer is None:
                    raise ValueError(f"there is room for {len(taken)} of {count} such buffers")
                taken.append(buffer)
                wanted = self._class_for(size)
                offset = buffer.loan.addr - self.memory.addr
                for page in range(offset, offset + wanted, _PAGE_BYTES):
                    self.memory.view[page] = 0
        finally:
            for buffer in reversed(taken):
                buffer.release()

    def stats(self) -> PoolStatistics:
        """Return what it has done and holds."""
        with self._lock:
            if not self._inside:
                try:
                    self._inside = True
                    self._take_in()
                finally:
                    self._inside = False
            uncut_bytes = len(self._uncut) * self.slab_bytes
            return PoolStatistics(
                self.max_bytes, self.max_bytes - uncut_bytes, self._out_bytes, len(self._out),
                {size: len(free) for size, free in self._free.items()}, self._allocated_count,
                self._refused_count, self._forgotten_count,
            )  # fmt: skip

    def take_back(self, loan: Loan, /, *, forgotten: bool) -> None:
        """Take the memory of *loan*, which no handle opens any more; from any thread."""
        loan.home = None
        self._back.append(loan)
        self._forgotten_count += forgotten
        self.returned()
        if forgotten:
            _warn_forgotten(loan)

    def returned(self) -> None:
        """Hear that a buffer came back, in the thread where it did; for whoever waits for one."""

    def _take_in(self) -> None:
        while self._back:
            offset = self._back.popleft().addr - self.memory.addr
            wanted, slab = self._out.pop(offset)
            self._out_bytes -= wanted
            slab.out_count -= 1
            self._free[wanted].append((offset, slab))

    # --- slabs -----------------------------------------------------------------------------------

    def _class_for(self, size: int) -> int:
        if index(size) >= 1:
            for one in self.size_classes:
                if size <= one:
                    return one
        raise ValueError(f"this pool has buffers of 1..{self.size_classes[-1]} bytes, not {size}")

    def _cut(self, wanted: int) -> bool:
        """Cut a slab into pieces of *wanted* bytes; False if none is to be had."""
        if not self._uncut and not self._reclaim():
            return False
        slab = self._uncut.pop()
        end = slab.start + self.slab_bytes - wanted
        self._free[wanted] += [(offset, slab) for offset in range(end, slab.start - 1, -wanted)]
        return True

    def _reclaim(self) -> bool:
        """Make slabs whole again of which every piece is here."""
        for size, free in self._free.items():
            whole = {id(slab): slab for _, slab in free if not slab.out_count}
            if whole:
                self._free[size] = [piece for piece in free if id(piece[1]) not in whole]
                self._uncut += whole.values()
        return bool(self._uncut)


def _warn_forgotten(loan: Loan) -> None:
    where = site_words("allocated", loan.site)
    warnings.warn(
        f"a pool's buffer of {loan.size} bytes was dropped without release{where}",
        ResourceWarning,
        stacklevel=3,
        source=loan,
    )
