"""Buffers that the kernel picks from when data is there: a ring of them in shared memory."""

import struct
from collections.abc import Callable
from typing import Final

from uringio._ring.setup import Ring as Core
from uringio._sys import constants as k
from uringio._sys.layouts import BUF, BUF_REG, BUF_RING_TAIL_OFFSET, BUF_SIZE
from uringio._sys.memory import pin
from uringio._sys.packing import packed
from uringio._sys.system import Mapping
from uringio.errors import ClosedError, UsageError, op_error

__all__ = ["ProvidedBuffers"]

_COUNT_MAX: Final = 32768
_U16: Final = (1 << 16) - 1


class ProvidedBuffers:
    """
    A group of buffers for requests with a ``buf_group``; made by `Ring.setup_buf_ring`.

    The kernel takes buffers in the order in which they were put.  For sockets and pipes: a worker
    of the kernel's (`SqeFlags.ASYNC`, regular files) would look at the ring from another processor,
    whose order of stores nothing here can bind on every architecture.

    Attributes:
        group: The group's number.
        count: How many places the ring has, and how many buffers there are.
        buffer_bytes: The size of each. [bytes]
        memory: All of them in a row.

    Lifetime: the ring keeps it until `free`, and then until the ring is closed: the kernel may
    still fill buffers that requests have taken.

    Kernel: 5.19.  Twin: struct io_uring_buf_ring.  Source: io_uring_provided_buffers(7).
    """

    def __init__(
        self,
        usable: Callable[[], Core],
        group: int,
        count: int,
        buffer_bytes: int,
        flags: int = 0,
        min_left_bytes: int = 0,
        before: object = None,
    ) -> None:
        if count < 1 or count & (count - 1) or count > _COUNT_MAX:
            raise ValueError(f"the number of buffers must be a power of two up to 32768: {count}")
        if not 0 < buffer_bytes < 1 << 32:
            raise ValueError(f"buffers cannot have a size of {buffer_bytes} bytes")
        if not 0 <= group < 1 << 16:
            raise ValueError(f"a buffer group's number is 0 to 65535, not {group}")
        core = usable()
        self._usable = usable
        self._freed = False
        self.group = group
        self.count = count
        self.buffer_bytes = buffer_bytes
        self.memory = core.system.allocate(count * buffer_bytes)
        self._before = before
        self._tail = 0
        mapped = flags & k.IOU_PBUF_RING_MMAP
        if mapped and core.fd < 0:
            raise UsageError("nothing can be mapped of a ring that has no descriptor")
        self._ours = None if mapped else core.system.allocate(count * BUF_SIZE)
        ours_addr = 0 if self._ours is None else self._ours.addr
        argument = packed(
            BUF_REG,
            addr=ours_addr,
            count=count,
            group=group,
            flags=flags,
            min_left_bytes=min_left_bytes,
        )
        self._register(core, k.IORING_REGISTER_PBUF_RING, argument)
        core.buffer_rings[group] = self
        self._theirs: Mapping | None = None
        if mapped:
            place = k.IORING_OFF_PBUF_RING | group << k.IORING_OFF_PBUF_SHIFT
            try:
                self._theirs = core.system.map_ring(core.fd, place, count * BUF_SIZE)
            except BaseException:
                self._withdraw(core)
                raise
        self._entries = self._theirs.view if self._theirs else self._ours_view()
        tail_at = BUF_RING_TAIL_OFFSET
        self._tail_word = self._entries[tail_at : tail_at + 2].cast("H")
        for bid in range(count):
            self._write(bid, bid)
        self._publish(count)

    def view(self, buffer_id: int, len_bytes: int, start: int = 0) -> memoryview:
        """
        Look at what the kernel has put into a buffer.

        Args:
            len_bytes: The completion's ``res``.
            start: Where in the buffer; other than 0 only where it is consumed bit by bit. [bytes]

        Lifetime: the content is good until `put`; copy it to keep it.

        Raises:
            ValueError: There is no such buffer, or it is not so long.
        """
        if not 0 <= buffer_id < self.count:
            raise ValueError(f"there is no buffer {buffer_id} among {self.count}")
        if not 0 <= start <= start + len_bytes <= self.buffer_bytes:
            raise ValueError(
                f"{len_bytes} bytes at {start} do not lie in a buffer of {self.buffer_bytes}"
            )
        begin = buffer_id * self.buffer_bytes + start
        return self.memory.view[begin : begin + len_bytes]

    def put(self, *buffer_ids: int) -> None:
        """
        Give buffers back to the kernel, each once.

        Raises:
            ValueError: There is no such buffer.
            ClosedError: The group was freed, or the ring is closed.
            WrongThreadError: The ring belongs to another thread.

        Twin: io_uring_buf_ring_add with io_uring_buf_ring_advance.
        """
        self._usable()
        if self._freed:
            raise ClosedError(f"buffer group {self.group} was freed")
        for offset, one in enumerate(buffer_ids):
            if not 0 <= one < self.count:
                raise ValueError(f"there is no buffer {one} among {self.count}")
            try:
                self._write(self._tail + offset, one)
            except struct.error:
                raise TypeError(f"a buffer's number is a whole one, not {one!r}") from None
        self._publish(len(buffer_ids))

    def free(self) -> None:
        """Withdraw the group; safe to call twice.  Twin: io_uring_free_buf_ring."""
        if not self._freed:
            try:
                core = self._usable()
            except ClosedError:
                return  # it went with the ring
            self._withdraw(core)
            self._freed = True
            self.let_go()

    def let_go(self) -> None:
        """Give a mapping of the kernel's entries back; the ring calls it when it is closed."""
        if self._theirs is not None:
            theirs, self._theirs = self._theirs, None
            self._freed = True
            self._tail_word.release()
            self._entries.release()
            theirs.unmap()

    def _ours_view(self) -> memoryview:
        assert self._ours is not None
        return self._ours.view

    def _withdraw(self, core: Core) -> None:
        argument = BUF_REG.pack(0, 0, self.group, 0, 0)
        self._register(core, k.IORING_UNREGISTER_PBUF_RING, argument)

    def _write(self, slot: int, bid: int) -> None:
        at = (slot & (self.count - 1)) * BUF_SIZE
        addr = self.memory.addr + bid * self.buffer_bytes
        BUF.pack_into(self._entries, at, addr, self.buffer_bytes, bid)

    def _publish(self, count: int) -> None:
        self._tail += count
        self._tail_word[0] = self._tail & _U16

    def _register(self, core: Core, op: int, argument: bytes) -> None:
        addr, _, _keep = pin(argument)
        result = core.register(op, addr, 1)
        if result < 0:
            raise op_error(-result, "register PBUF_RING", core.fd, detail=f"group {self.group}")
