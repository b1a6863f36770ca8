"""
Queues in memory of our own, which the kernel is told of rather than asked to map.

The kernel pins the pages, so that what it may write to stays its own however early the memory is
given back here; but memory that serves something else while a closed ring is being torn down may
still be written to.

Twin: io_uring_queue_init_mem.  Source: io_uring_setup_flags(7), IORING_SETUP_NO_MMAP.
"""

from typing import Final

from uringio._sys import constants as k
from uringio._sys.memory import PAGE_BYTES, Memory
from uringio._sys.system import Mapping

__all__ = ["entry_sizes", "is_lent", "lend", "queue_bytes"]

# What stands before the completions: 48 bytes of words, and then the end of the processor's cache
# line, of which the longest that Linux knows has 256 bytes.
_WORDS_BYTES: Final = 256

# Where the queues of rings that are open are.
_lent: set[int] = set()


class _Part(Mapping):
    """A part of memory that something else owns."""

    __slots__ = ("_memory",)

    def __init__(self, memory: Memory, start: int, len_bytes: int) -> None:
        self._memory: Memory | None = memory
        self.addr = memory.addr + start
        self.len_bytes = len_bytes
        self.view = memory.view[start : start + len_bytes]

    def unmap(self) -> None:
        """Let go of it."""
        if self._memory is not None:
            _lent.discard(self.addr)
            self._memory = None


def entry_sizes(flags: int) -> tuple[int, int]:
    """Return how many bytes one entry of either queue has, by the ring's set-up flags."""
    return (
        k.SIZEOF_SQE128 if flags & k.IORING_SETUP_SQE128 else k.SIZEOF_SQE,
        k.SIZEOF_CQE32 if flags & k.IORING_SETUP_CQE32 else k.SIZEOF_CQE,
    )


def queue_bytes(entries: int, cq_entries: int, flags: int) -> tuple[int, int]:
    """
    Return how much memory both rings, and the requests behind them, take; whole pages.

    Args:
        entries, cq_entries: Powers of two, as `setup.queue_sizes` makes them.

    Twin: io_uring_memory_size_params.
    """
    sqe_bytes, cqe_bytes = entry_sizes(flags)
    rings = _WORDS_BYTES + cq_entries * cqe_bytes
    if not flags & k.IORING_SETUP_NO_SQARRAY:
        rings += 4 * entries
    return _pages(rings), _pages(entries * sqe_bytes)


def is_lent(memory: Memory) -> bool:
    """Tell whether a ring that is open lives there."""
    return memory.addr in _lent


def lend(memory: Memory, rings_bytes: int, sqes_bytes: int) -> tuple[Mapping, Mapping]:
    """Part memory into what `queue_bytes` told; it is the ring's until both parts are unmapped."""
    _lent.add(memory.addr)
    return _Part(memory, 0, rings_bytes), _Part(memory, rings_bytes, sqes_bytes)


def _pages(len_bytes: int) -> int:
    return -(-len_bytes // PAGE_BYTES) * PAGE_BYTES
