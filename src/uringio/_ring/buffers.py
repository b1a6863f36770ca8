"""
A ring of provided buffers: the kernel picks one when data is there, not before.

Small and hot on purpose.  The kernel consumes in FIFO order, so a large ring walks through cold
memory; 16 to 64 buffers stay in the processor's cache.

Putting a buffer back usually writes nothing but the tail.  The kernel took the oldest entry, so
when buffers return in the order in which they were taken, the slot at the tail already holds that
very buffer.  `held_at` tells when it does not, and `put` writes the entry then.  (This rests on the
kernel never writing into entries, which holds for rings without IOU_PBUF_RING_INC and for receives
without bundles.)

For sockets and pipes only: their requests pick a buffer inside the owner's own enter.  A kernel
worker (IOSQE_ASYNC, a regular file) would read entries and tail from another processor, and nothing
here orders the two stores for it.

Twins: io_uring_setup_buf_ring, io_uring_buf_ring_add, io_uring_buf_ring_advance.
Source: io_uring_provided_buffers(7).
"""

from typing import Final

from uringio._sys.layouts import BUF, BUF_RING_TAIL_OFFSET, BUF_SIZE

from .register import register_buf_ring, unregister_buf_ring
from .setup import Ring

__all__ = ["BufferRing"]

_U16_MASK: Final = 0xFFFF


class BufferRing:
    """
    Buffers of one size, registered as one group.

    The ring holds it until `unregister`, so that its memory outlives every reference of ours while
    the kernel may still write there.

    Attributes:
        group: The buffer group's number.
        count: Buffers, a power of two.
        buffer_bytes: The size of each. [bytes]
        memory: All of them in a row: buffer *b* starts at ``b * buffer_bytes``.
        held_at: Which buffer each entry holds.
        tail_word: What `publish` stores into, modulo 2 ** 16; for who has no time for a call.
        spare_count: Buffers beyond *count*, which stand in no entry to begin with.
    """

    def __init__(
        self, ring: Ring, group: int, count: int, buffer_bytes: int, spare_count: int = 0
    ) -> None:
        if count < 1 or count & (count - 1) or count > 32768:
            raise ValueError(f"the number of buffers must be a power of two up to 32768: {count}")
        if not 0 < buffer_bytes < 1 << 32:
            raise ValueError(f"buffers cannot have a size of {buffer_bytes} bytes")
        if not 0 <= group < 1 << 16:
            raise ValueError(f"a buffer group's number is 0 to 65535, not {group}")
        self._ring = ring
        self.group = group
        self.count = count
        self.spare_count = spare_count
        self.buffer_bytes = buffer_bytes
        self.memory = ring.system.allocate((count + spare_count) * buffer_bytes)
        self._entries = ring.system.allocate(count * BUF_SIZE)
        register_buf_ring(ring, self._entries.addr, count, group)
        ring.buffer_rings[group] = self
        for bid in range(count):
            BUF.pack_into(
                self._entries.view, bid * BUF_SIZE, self.memory.addr + bid * buffer_bytes,
                buffer_bytes, bid,
            )  # fmt: skip
        self.tail_word = self._entries.view[BUF_RING_TAIL_OFFSET : BUF_RING_TAIL_OFFSET + 2].cast(
            "H"
        )
        self.held_at = list(range(count))
        self.publish(count)

    def put(self, slot: int, bid: int) -> None:
        """Write buffer *bid* into entry *slot*; not needed when `held_at` says it stands there."""
        self.held_at[slot] = bid
        BUF.pack_into(
            self._entries.view,
            slot * BUF_SIZE,
            self.memory.addr + bid * self.buffer_bytes,
            self.buffer_bytes,
            bid,
        )

    def publish(self, tail: int) -> None:
        """Give the kernel every entry below *tail*, a count that never wraps."""
        self.tail_word[0] = tail & _U16_MASK

    def unregister(self) -> None:
        """Withdraw the group; buffers that the kernel already took stay its own until completed."""
        unregister_buf_ring(self._ring, self.group)
        self._ring.buffer_rings.pop(self.group, None)
