"""Pools of buffers that a task can wait for."""

from collections import deque
from types import TracebackType
from typing import Final

from uringio._driver import current
from uringio._driver.contract import Tables
from uringio._driver.op import NEW, STALE, SUBMITTED, Awaited
from uringio._own.buffer import Buffer
from uringio._own.pool import SIZE_CLASSES, Pool, PoolStatistics

__all__ = ["Buffer", "BufferPool", "PoolStatistics", "Registration"]

_DEFAULT_BYTES: Final = 64 << 20
_WAITING: Final = (NEW, SUBMITTED)


class BufferPool(Pool):
    """
    A bounded store of buffers in size classes, every one aligned for O_DIRECT.

    Allocating never asks the system for memory and never goes beyond the bound; where there is no
    room, `allocate` says None and `acquire` waits.  Buffers may be used by any loop, and released
    in any thread.  One that is dropped without `Buffer.release` comes back too, with a
    `ResourceWarning` that says where it was allocated (under ``python -X dev``).

    What a buffer holds when it is handed out is whatever its last owner left there.

    Args:
        max_bytes: The bound, rounded down to whole slabs (of 1 MiB, or the largest class). Only
            what was used once costs memory. [bytes]
        size_classes: Ascending multiples of 4096. [bytes]
        huge_pages: Ask the system to back the pool with them; `has_huge_pages` says whether it
            agreed.  Source: madvise(2).
        node: The NUMA node to take pages from while it has any, and then others; None: as the
            system likes.  Source: mbind(2).

    Raises:
        ValueError: The classes make no sense, *max_bytes* has no room for one slab, or *node* is
            not from 0 to 1023.
        OpError: The kernel refused *node*: there is none of that number (EINVAL), or a filter
            forbids asking (EPERM).
        UnsupportedError: This kernel knows nothing of nodes.
    """

    def __init__(
        self,
        max_bytes: int = _DEFAULT_BYTES,
        size_classes: tuple[int, ...] = SIZE_CLASSES,
        *,
        huge_pages: bool = False,
        node: int | None = None,
    ) -> None:
        super().__init__(max_bytes, size_classes, huge_pages=huge_pages, node=node)
        self._waiting: deque[Awaited[None]] = deque()

    async def acquire(self, size: int) -> Buffer:
        """
        Take a buffer of *size* bytes, waiting in line where the bound leaves no room.

        Raises:
            ValueError: As `allocate`.
            UsageError: No loop of uringio runs in this thread.

        Cancellation: nothing was taken, and whoever is next in line is told.
        """
        current.driver()
        self._class_for(size)  # refused now, rather than when its turn has come
        if not self._waiting:
            buffer = self.allocate(size)
            if buffer is not None:
                return buffer
        place = self._waiting.append
        while True:
            turn: Awaited[None] = Awaited()
            # In line first and then a try: what comes back in between is not missed.
            place(turn)
            try:
                buffer = self.allocate(size) if self._is_first(turn) else None
                if buffer is None:
                    await turn
            except BaseException:
                self._leave(turn)
                raise
            if buffer is not None:
                self._leave(turn)
                turn.state = STALE  # it was never awaited, and need not be
                self._call_next()  # what came back may be enough for more than one
                return buffer
            place = self._waiting.appendleft  # whoever came first goes first

    def registered(self) -> "Registration":
        """
        Keep the pool's memory registered with the running ring during an ``async with`` block.

        So::

            async with pool.registered():
                n, buf = await file.read_into(buf, 0)

        Meanwhile `File.read_into` and `write_from` of its buffers, and `SocketStream.send_buffer`
        with ``zero_copy``, spare the kernel looking up and pinning their pages, in this loop.  All
        pages of the pool are real and locked meanwhile, so make it no larger than needed.  A forked
        child is not affected: it gets copies of the pages.

        The block's value says whether it is registered: False on other backends, and where the
        kernel registers no memory; there nothing changes.

        Raises:
            RingError: So much memory may not be locked.
            UsageError: It is registered with this loop already, no loop of uringio runs in this
                thread, or the ring has room for no more (64 GiB).

        Cancellation: of the end, which waits until nothing in flight uses the registration: it is
            withdrawn all the same, and ends with what is in flight.

        Kernel: 5.19.  Source: io_uring_register(2).
        """
        return Registration(self)

    def _is_first(self, turn: Awaited[None]) -> bool:
        try:
            return self._waiting[0] is turn
        except IndexError:
            return False  # another thread, or the garbage collector, has called it already

    def _leave(self, turn: Awaited[None]) -> None:
        try:
            self._waiting.remove(turn)
        except ValueError:
            self._call_next()  # it was called, and passes that on

    def returned(self) -> None:
        """Let whoever is first in line try again."""
        self._call_next()

    def _call_next(self) -> None:
        while True:
            try:
                turn = self._waiting.popleft()
            except IndexError:
                return
            # One that is being cancelled may be of a loop that has gone, with nobody to pass it on.
            if turn.state in _WAITING:
                turn.end()
                return


class Registration:
    """See `BufferPool.registered`."""

    __slots__ = ("_pool", "_tables")

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._tables: Tables | None = None

    async def __aenter__(self) -> bool:
        tables = current.driver().tables
        if tables is None or not tables.add_memory(self._pool.memory, self._pool.slab_bytes):
            return False
        self._tables = tables
        return True

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        tables, self._tables = self._tables, None
        if tables is None:
            return
        waits = tables.remove_memory(self._pool.memory)
        try:
            while waits:
                await waits.pop()
        finally:
            for unheard in waits:
                unheard.state = STALE  # cancelled: they need not be awaited
