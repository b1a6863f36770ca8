"""
Direct descriptors: files that stand in a ring's table instead of the process's.

A request on one finds its file by a slot of the ring, which costs less than a descriptor's number
and can be neither inherited nor closed by somebody else.  A `FixedFd` is the one owner of a slot.
What must never happen is that a request meets the next file in its slot, so:

- a slot has a generation, and a handle opens it while it has the same one;
- an op refers to its handle, and asks it when it is packed, not when it is made;
- what is packed is handed to the kernel before a slot is emptied, and the kernel looks the file up
  as it takes a request.
"""

import warnings
from typing import NoReturn, Protocol, TypeVar

from uringio._sys.memory import ReadableBuffer
from uringio.errors import ClosedError

from .op import DIRECT, INSTALL, MAX_RW_COUNT, OPERATION_NAMES, Op

__all__ = ["Direct", "FileTable", "FixedFd"]

T_co = TypeVar("T_co", covariant=True)


class FileTable(Protocol):
    """What a `FixedFd` knows of the ring that it is registered with."""

    def drop(self, file: "FixedFd") -> None:
        """Empty the slot of *file*, which is still open; raises `WrongThreadError`."""
        ...

    def forget(self, slot: int) -> None:
        """Empty *slot* at the next occasion; from any thread."""
        ...

    def generation(self, slot: int) -> int:
        """How often *slot* was given; -1 once the ring has gone."""
        ...


class FixedFd:
    """
    A descriptor in the table of a ring, and the duty to take it out.

    Made by `uringio.lowlevel.register_fd`.  It belongs to the loop it was made in, and ends with
    it.  One that is forgotten warns, and is taken out when the next one is registered.
    """

    __slots__ = ("_generation", "_slot", "_table")

    def __init__(self, table: FileTable, slot: int) -> None:
        self._table = table
        self._slot = slot
        self._generation = table.generation(slot)

    def __repr__(self) -> str:
        return f"<FixedFd {'closed' if self.closed else f'slot {self._slot}'}>"

    def __reduce__(self) -> NoReturn:
        # Asked by copy and pickle: two of them would both empty the slot, which may be another's.
        raise TypeError("a direct descriptor has one owner, and cannot be copied or pickled")

    @property
    def closed(self) -> bool:
        """Whether it was closed, or its ring has gone."""
        return self._table.generation(self._slot) != self._generation

    @property
    def slot(self) -> int:
        """Where it stands; raises `ClosedError` once it is closed."""
        if self.closed:
            raise ClosedError("this direct descriptor is closed")
        return self._slot

    def close(self) -> None:
        """
        Take it out of the table, and end what is in flight on it with `ClosedError`; repeatable.

        The file itself is closed when the last request on it has ended, unless the process has
        descriptors of it as well.

        Raises:
            WrongThreadError: It belongs to the loop of another thread.
        """
        if not self.closed:
            self._table.drop(self)

    def __del__(self) -> None:
        if not self.closed:
            self._table.forget(self._slot)
            warnings.warn(
                f"a direct descriptor in slot {self._slot} was never closed",
                ResourceWarning,
                stacklevel=2,
                source=self,
            )


class Direct(Op[T_co]):
    """
    An operation on a direct descriptor.

    Args:
        row: The operation: SEND, RECV_INTO, READ, WRITE, or INSTALL, which needs no memory.
        file: The descriptor.
        memory: What to send or write, or where to.
        off: Where in the file. [bytes]
        flags: MSG_* or RWF_*.
    """

    __slots__ = ("file", "row")

    def __init__(
        self, row: int, file: FixedFd, memory: ReadableBuffer = b"", off: int = 0, flags: int = 0
    ) -> None:
        code = INSTALL if row == INSTALL else DIRECT
        size = min(memoryview(memory).nbytes, MAX_RW_COUNT)
        super().__init__(code, -1, 0, size, off, flags, memory)
        self.row = row
        self.file = file

    def __repr__(self) -> str:
        return f"{super().__repr__()[:-1]}: {OPERATION_NAMES[self.row]} on {self.file!r}>"
