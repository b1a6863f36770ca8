"""
Receives without a copy: a network card writes into memory of the program's.

Theory of operation.  A receive queue of the card is taken over, and fills an *area* from then on.
Completions of RECV_ZC tell where in it data stands; when the program has done with a piece, it
gives it back through a *refill* queue in shared memory, which the kernel reads when the card needs
room.  That may be on any processor, so the entry must be seen before the tail is: where processors
reorder stores, this is refused.

Sources: Documentation/networking/iou-zcrx.rst, io_uring_register(2).
"""

import errno
from abc import abstractmethod
from collections.abc import Callable
from struct import Struct
from typing import Final, NamedTuple

from uringio._ring.setup import Ring as Core
from uringio._sys import constants as k
from uringio._sys.layouts import (
    REGION_DESC,
    ZCRX_AREA_REG,
    ZCRX_CTRL,
    ZCRX_IFQ_REG,
    ZCRX_RQE,
)
from uringio._sys.memory import Memory, pin
from uringio.errors import OpError, QueueFullError, UnsupportedError, UsageError

from ._completions import BigCompletion
from ._opcodes import RegisterOp
from ._registering import Registering, call

__all__ = ["DmaBuf", "ZeroCopyQueue", "ZeroCopyReceives"]

_PAGE_BYTES: Final = 4096
_ENTRIES_MAX: Final = 32768
_U32: Final = (1 << 32) - 1
# The number of an area stands above this bit of a place.
_PLACE_MASK: Final = (1 << k.IORING_ZCRX_AREA_SHIFT) - 1
_EXPORTED_FD: Final = Struct("=I")
_EXPORTED_FD_AT: Final = 24


class DmaBuf(NamedTuple):
    """
    Memory of a device, as an area that data is to arrive in.

    Attributes:
        fd: The dma-buf.
        len_bytes: How much of it, from its beginning. [bytes]
    """

    fd: int
    len_bytes: int


class ZeroCopyQueue:
    """
    A receive queue of a network card; made by `Ring.register_ifq`.

    Attributes:
        zcrx_id: What `prep_recv_zc` is told.
        area: Where data arrives.
        entries: How many pieces may be on their way back at once.

    Lifetime: the ring keeps the area and the refill queue until it is closed.

    Kernel: 6.15.  Twin: struct io_uring_zcrx_rq.
    """

    def __init__(
        self,
        usable: Callable[[], Core],
        if_index: int,
        if_queue: int,
        area: Memory | DmaBuf,
        entries: int,
        flags: int,
        rx_buf_bytes: int,
    ) -> None:
        if not 0 < entries <= _ENTRIES_MAX:
            raise ValueError(f"a refill queue has from 1 to {_ENTRIES_MAX} entries, not {entries}")
        if not 0 <= if_index < 1 << 31 or not 0 <= if_queue < 1 << 32:
            raise ValueError(f"there is no queue {if_queue} of a network card {if_index}")
        if area.len_bytes % _PAGE_BYTES:
            raise ValueError(
                f"an area is made of whole pages of {_PAGE_BYTES} bytes, not of {area.len_bytes}"
            )
        core = usable()
        _refuse_unfit(core)
        entries = 1 << (entries - 1).bit_length()
        # The kernel puts the queue's head and tail before the entries.
        size = -(-entries * ZCRX_RQE.size // _PAGE_BYTES) * _PAGE_BYTES + _PAGE_BYTES
        region = core.system.allocate(size)
        described = (
            (0, area.len_bytes, 0, k.IORING_ZCRX_AREA_DMABUF, area.fd)
            if isinstance(area, DmaBuf)
            else (area.addr, area.len_bytes, 0, 0, 0)
        )
        area_raw = bytearray(ZCRX_AREA_REG.pack(*described))
        area_addr, _, _keep = pin(area_raw, writable=True)
        region_raw = bytearray(
            REGION_DESC.pack(region.addr, size, k.IORING_MEM_REGION_TYPE_USER, 0, 0)
        )
        region_addr, _, _keep_too = pin(region_raw, writable=True)
        argument = bytearray(
            ZCRX_IFQ_REG.pack(
                if_index, if_queue, entries, flags, area_addr, region_addr, 0, 0, 0, 0,
                rx_buf_bytes,
            )
        )  # fmt: skip
        call(core, RegisterOp.ZCRX_IFQ, argument, 1)
        _, _, self.entries, _, _, _, head, tail, rqes, self.zcrx_id, _ = ZCRX_IFQ_REG.unpack(
            argument
        )
        self.area = area
        self._token: int = ZCRX_AREA_REG.unpack(area_raw)[2]
        self._usable = usable
        self._region = region
        self._head_word = region.view[head : head + 4].cast("I")
        self._tail_word = region.view[tail : tail + 4].cast("I")
        self._tail: int = self._tail_word[0]
        self._entries = region.view[rqes : rqes + self.entries * ZCRX_RQE.size]

    def place(self, completion: BigCompletion) -> int:
        """
        Tell where in the area data stands that a RECV_ZC has brought, ``res`` bytes of it.

        Raises:
            ValueError: The completion tells of no data in this area.
        """
        place = completion.extra1 & _PLACE_MASK
        if not 0 <= completion.res <= self.area.len_bytes - place:
            raise ValueError(f"{completion} tells of no data in an area of {self.area.len_bytes}")
        return place

    def view(self, completion: BigCompletion) -> memoryview:
        """
        Look at what a RECV_ZC has brought.

        Lifetime: the content is good until `give_back`; copy it to keep it.

        Raises:
            UsageError: It stands in a device's memory.
            ValueError: The completion tells of no data in this area.
        """
        if isinstance(self.area, DmaBuf):
            raise UsageError("this area is a device's memory: hand the device its place()")
        place = self.place(completion)
        return self.area.view[place : place + completion.res]

    def give_back(self, *completions: BigCompletion) -> None:
        """
        Let the card have the places again that completions have told of, each once.

        Raises:
            ClosedError: The ring is closed.
            QueueFullError: The kernel has not taken so many of those before yet; none was given
                back.  Keep them, and try again later, or after `flush`.
            WrongThreadError: The ring belongs to another thread.
        """
        self._usable()
        room = self.entries - ((self._tail - self._head_word[0]) & _U32)
        if len(completions) > room:
            raise QueueFullError(
                f"{len(completions)} places do not fit the {room} free entries of the refill "
                "queue: try again later, flush(), or register a larger one"
            )
        for offset, one in enumerate(completions):
            slot = (self._tail + offset) & (self.entries - 1)
            place = one.extra1 & _PLACE_MASK | self._token
            ZCRX_RQE.pack_into(self._entries, slot * ZCRX_RQE.size, place, one.res)
        self._tail += len(completions)
        self._tail_word[0] = self._tail & _U32

    def flush(self) -> None:
        """Have the kernel take at once what was given back.  Kernel: 6.19."""
        self._control(k.ZCRX_CTRL_FLUSH_RQ)

    def export(self) -> int:
        """
        Make a descriptor by which another ring can share the queue: see `Ring.import_ifq`.

        Returns:
            It; the caller's to close.

        Kernel: 6.19.
        """
        found: int = _EXPORTED_FD.unpack_from(self._control(k.ZCRX_CTRL_EXPORT), _EXPORTED_FD_AT)[0]
        return found

    def _control(self, op: int) -> bytearray:
        core = self._usable()
        argument = bytearray(ZCRX_CTRL.pack(self.zcrx_id, op, 0))
        call(core, RegisterOp.ZCRX_CTRL, argument, 0)
        return argument


class ZeroCopyReceives(Registering):
    """The zero-copy receives of a `Ring`."""

    @abstractmethod
    def hold(self, memory: object, /) -> None:
        """Keep something alive for as long as the ring lives."""

    def register_ifq(
        self,
        if_index: int,
        if_queue: int,
        area: Memory | DmaBuf,
        *,
        entries: int = 4096,
        flags: int = 0,
        rx_buf_bytes: int = 0,
    ) -> ZeroCopyQueue:
        """
        Take over a receive queue of a network card, until the ring is closed.

        The ring must be made with `SetupFlags.DEFER_TASKRUN`, and CQE32 or CQE_MIXED.  The card
        must split headers from data and be able to restart a queue, and flows must have been
        steered to it: see ethtool(8).

        Args:
            if_index: The network card, as `socket.if_nametoindex` has it.
            if_queue: Which of its receive queues.
            area: Where data is to arrive; whole pages, of `allocate` or of a device
                (Kernel: 6.16).
            entries: How many pieces may be on their way back at once. [count]
            flags: `ZcrxRegFlags`.
            rx_buf_bytes: The size of the card's buffers, 0 for its choice.  Kernel: 7.0. [bytes]

        Raises:
            OpError: EOPNOTSUPP, this card cannot; ENODEV, there is none; EPERM, it needs
                CAP_NET_ADMIN; EINVAL, the kernel is too old.
            UnsupportedError: The processor reorders stores.
            UsageError: The ring is of another kind.
            ValueError: No kernel could take the sizes.

        Kernel: 6.15.  Twin: io_uring_register_ifq.
        """
        queue = ZeroCopyQueue(self._usable, if_index, if_queue, area, entries, flags, rx_buf_bytes)
        self.hold(queue)
        return queue

    def import_ifq(self, fd: int) -> int:
        """
        Share a receive queue that another ring has taken over, and return its number here.

        Only for `prep_recv_zc`: places are given back through the `ZeroCopyQueue` of the other.

        Args:
            fd: From `ZeroCopyQueue.export`.

        Raises:
            OpError: EBADF or EINVAL, it is no such descriptor.
            UnsupportedError: The kernel is too old.
            UsageError: The ring is of another kind.

        Kernel: 6.19.
        """
        core = self._usable()
        _refuse_unfit(core)
        argument = bytearray(ZCRX_IFQ_REG.pack(fd, 0, 0, k.ZCRX_REG_IMPORT, *(0,) * 7))
        try:
            call(core, RegisterOp.ZCRX_IFQ, argument, 1)
        except OpError as error:
            if error.errno != errno.EFAULT:
                raise
            # It looked for the area and the rest, which only who does not know the flag does.
            raise UnsupportedError("sharing a receive queue", "Linux 6.19") from None
        found: int = ZCRX_IFQ_REG.unpack(argument)[9]
        return found


def _refuse_unfit(core: Core) -> None:
    big = k.IORING_SETUP_CQE32 | k.IORING_SETUP_CQE_MIXED
    if not core.deferred or not core.flags & big:
        raise UsageError(
            "zero-copy receives need a ring made with SetupFlags.SINGLE_ISSUER | DEFER_TASKRUN, "
            "and CQE32 or CQE_MIXED"
        )
    if not core.system.total_store_order:
        raise UnsupportedError("a refill queue", "a processor that keeps stores in order")
