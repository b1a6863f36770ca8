"""
Requests recorded once, and put into a ring as often as wanted, all of them by one copy.

Filling a request costs a call and a ``pack_into``; a batch of them that is the same each time (the
same files, places and memory) costs a copy of 64 bytes each instead, and one dictionary step.
"""

import sys
from typing import Final

from uringio._ring.setup import Ring as Core
from uringio._sys import constants as k
from uringio.errors import QueueFullError, UsageError

from ._filling import Request, set_address
from ._memory import Passing

__all__ = ["Batch", "copy_into"]

_SKIP: Final = k.IOSQE_CQE_SKIP_SUCCESS
_SIZE: Final = k.SIZEOF_SQE
_PERSONALITY_AT: Final = 42


class Batch:
    """
    A list of requests for `Ring.put`, filled by the `prep_*` functions as a ring is.

    Attributes:
        raw: The SQEs. [bytes]
        opcodes: The operations among them.
        entries: Of each that posts a completion, its user_data and what it keeps.
        unique: The same by user_data, while no two share one; else None.
        held: What lives as long as the batch, and as any ring that it was put into needs it.

    Lifetime: what was given to its requests lives as long as the batch, and in a ring that it was
    put into until the last completion.
    """

    __slots__ = ("_request", "entries", "held", "opcodes", "raw", "renames", "unique")

    def __init__(self) -> None:
        self.raw = bytearray()
        self.opcodes: set[int] = set()
        self.entries: list[tuple[int, object]] = []
        self.unique: dict[int, object] | None = {}
        self.held: list[object] = []
        self.renames: list[tuple[int, int]] = []
        self._request = Request()

    def __len__(self) -> int:
        return len(self.raw) // _SIZE

    def fill(
        self,
        opcode: int,
        fd: int,
        off: int,
        addr: int,
        len_: int,
        op_flags: int,
        user_data: int,
        flags: int,
        keep: object = None,
        ioprio: int = 0,
        buf_index: int = 0,
        file_index: int = 0,
        addr3: int = 0,
        attr_mask: int = 0,
        command: bytes = b"",
        /,
    ) -> None:
        """Add a request."""
        self._request.fill(
            opcode, fd, off, addr, len_, op_flags, user_data, flags, keep, ioprio, buf_index,
            file_index, addr3, attr_mask, command,
        )  # fmt: skip
        if flags & _SKIP:
            if keep is not None and not isinstance(keep, Passing):
                raise UsageError(
                    "a request whose completion is skipped would never tell when its memory is "
                    "free: leave CQE_SKIP_SUCCESS out, or give an address and keep the memory"
                )
            self.held.append(keep)
        else:
            self.entries.append((user_data, keep))
            if self.unique is not None:
                if user_data in self.unique:
                    self.unique = None
                else:
                    self.unique[user_data] = keep
        self.raw += self._request.raw
        self.opcodes.add(opcode)

    def hold(self, memory: object, /) -> None:
        """Keep something alive for as long as this, and as a ring that it was put into."""
        self.held.append(memory)

    def rename(self, old: int, new: int, /) -> None:
        """Expect the completions of a request under another user_data."""
        self.renames.append((old, new))

    def address(self, addr: int, len_bytes: int, keep: object, /) -> None:
        """Give the request that was added last, a send, an address to go to."""
        if not self.raw:
            raise UsageError("no request was filled yet")
        set_address(self.raw, len(self.raw) - _SIZE, addr, len_bytes)
        self.held.append(keep)


def copy_into(batch: Batch, core: Core, cells: list[int]) -> None:
    """
    Write the requests into the next slots; the count of filled ones is the caller's to move.

    Args:
        cells: As in `make_fill`.

    Raises:
        QueueFullError: There is less room; nothing was written.
        UsageError: The ring has slots of 128 bytes.
    """
    if core.sqe_bytes != _SIZE:
        raise UsageError("a batch fits slots of 64 bytes, and this ring's have 128")
    entries, raw, sqes = core.sq_entries, batch.raw, core.sqes
    tail, count = cells[0], len(raw) // _SIZE
    cells[2] = tail + entries - ((tail - core.sq_head[0]) & 0xFFFFFFFF)
    if tail + count > cells[2]:
        raise QueueFullError(
            f"{count} requests do not fit {cells[2] - tail} slots: submit() first, or make the "
            "ring larger"
        )
    start = tail & entries - 1
    if start + count <= entries:
        sqes[start * _SIZE : (start + count) * _SIZE] = raw
    else:
        first = (entries - start) * _SIZE
        sqes[start * _SIZE :] = raw[:first]
        sqes[: len(raw) - first] = raw[first:]
    if cells[1]:
        personality = cells[1].to_bytes(2, sys.byteorder)
        for index in range(tail, tail + count):
            at = (index & entries - 1) * _SIZE + _PERSONALITY_AT
            sqes[at : at + 2] = personality
