"""
Requests recorded once, and put into a ring as often as wanted, all of them by one copy.

Filling a request costs a call and a ``pack_into``; a batch of them that is the same each time (the
same files, places and memory) costs a copy of 64 bytes each instead, and one dictionary step.
"""

from typing import Final

from uringio._sys import constants as k
from uringio.errors import UsageError

from ._filling import Request, set_address
from ._memory import Passing

__all__ = ["Batch"]

_SKIP: Final = k.IOSQE_CQE_SKIP_SUCCESS
_SIZE: Final = k.SIZEOF_SQE


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
