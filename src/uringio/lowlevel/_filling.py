"""
One request, written into a slot: the single place that all `prep_*` functions go through.

Theory of operation.  `make_fill` closes over the ring's words, so that a request costs one call and
one ``pack_into``.  Whatever memory a request was given is entered into *flight* under its user_data
before the kernel can know of it, and stays there until the last completion with that user_data:
memory that a program has forgotten is never freed under a running request.  Several requests may
share a user_data; their memory is freed when all of them have ended.
"""

import struct
import sys
from _thread import get_ident
from collections.abc import Collection
from typing import Final, Protocol

from uringio._ring.setup import Ring as Core
from uringio._sys import constants as k
from uringio._sys.layouts import SQE_COMMAND_BYTES, SQE_COMMAND_OFFSET, SQE_FULL
from uringio.errors import QueueFullError, UnsupportedError, UsageError, WrongThreadError

from ._memory import Passing
from ._opcodes import Opcode
from ._slots import addr_len

__all__ = [
    "Fill",
    "Flight",
    "Request",
    "Requests",
    "Several",
    "join",
    "lacking",
    "make_fill",
    "set_address",
]

_U64: Final = (1 << 64) - 1
_U32: Final = (1 << 32) - 1
_SKIP: Final = k.IOSQE_CQE_SKIP_SUCCESS
_WIDE: Final = frozenset((k.IORING_OP_NOP128, k.IORING_OP_URING_CMD128))
# Where the first three fields stand in the word that they are packed as.
_OPCODE_AT, _FLAGS_AT, _IOPRIO_AT = (0, 8, 16) if sys.byteorder == "little" else (24, 16, 0)
_ADDR2: Final = struct.Struct("=Q")
_FILE_INDEX: Final = struct.Struct("=I")
_COMMAND_BYTES: Final = k.SIZEOF_SQE - SQE_COMMAND_OFFSET


class Fill(Protocol):
    """Write one request: the fields of an SQE in its order, and what it keeps alive."""

    def __call__(
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
    ) -> None: ...


class Requests(Protocol):
    """What requests are written into: a `Ring`, or a single `Request`."""

    @property
    def fill(self) -> Fill:
        """Write the next request."""
        ...

    def hold(self, memory: object, /) -> None:
        """Keep something alive for as long as requests can be written here."""

    def rename(self, old: int, new: int, /) -> None:
        """Expect the completions of a request under another user_data."""

    def address(self, addr: int, len_bytes: int, keep: object, /) -> None:
        """Give the request that was written last, a send, an address to go to."""


class Several:
    """How many requests share a user_data, and what they keep."""

    __slots__ = ("count", "keeps")

    def __init__(self, keep: object) -> None:
        self.count = 1
        self.keeps = [keep]

    @property
    def holds(self) -> int:
        """How many pieces of memory they keep."""
        return sum(one is not None for one in self.keeps)

    def add(self, keep: object) -> None:
        """Count one more."""
        self.count += 1
        self.keeps.append(keep)


# What requests in flight keep alive, by user_data; None for a request that keeps nothing.
Flight = dict[int, object]


def join(flight: Flight, user_data: int, keep: object) -> None:
    """Enter a request, whether or not another has its user_data."""
    if user_data not in flight:
        flight[user_data] = keep
        return
    there = flight[user_data]
    if isinstance(there, Several):
        there.add(keep)
    else:
        flight[user_data] = both = Several(there)
        both.add(keep)


class Request:
    """
    A request that stands by itself, for `send_msg_ring`: ``prep_msg_ring(request, ...)``.

    Attributes:
        raw: The SQE. [bytes]
    """

    __slots__ = ("_keep", "raw")

    def __init__(self) -> None:
        self.raw = bytearray(k.SIZEOF_SQE)
        self._keep: list[object] = []

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
        """Replace what it was."""
        if flags >> 8 or ioprio >> 16:
            raise _unfit(opcode, "flags take 8 bits, and ioprio 16")
        try:
            SQE_FULL.pack_into(
                self.raw, 0, opcode << _OPCODE_AT | flags << _FLAGS_AT | ioprio << _IOPRIO_AT, fd,
                off & _U64, addr & _U64, len_ & _U32, op_flags & _U32, user_data, buf_index, 0,
                file_index & _U32, addr3 & _U64, attr_mask,
            )  # fmt: skip
        except struct.error as error:
            raise _unfit(opcode, error) from None
        self._keep = [keep]
        if command:
            self.raw[SQE_COMMAND_OFFSET:] = _command(command, _COMMAND_BYTES)

    def hold(self, memory: object, /) -> None:
        """Keep something alive for as long as this is."""
        self._keep.append(memory)

    def rename(self, old: int, new: int, /) -> None:
        """Do nothing: no completion comes here."""

    def address(self, addr: int, len_bytes: int, keep: object, /) -> None:
        """Give it, a send, an address to go to."""
        set_address(self.raw, 0, addr, len_bytes)
        self._keep.append(keep)


def set_address(slots: bytearray | memoryview, at: int, addr: int, len_bytes: int) -> None:
    """
    Write where the send in the slot at *at* is to go.

    Raises:
        UsageError: There is another request.
        ValueError: The address is too long.
    """
    opcode = slots[at]
    if opcode not in {k.IORING_OP_SEND, k.IORING_OP_SEND_ZC}:
        raise UsageError(f"{_name(opcode)} goes to no address: fill a SEND or a SEND_ZC first")
    _ADDR2.pack_into(slots, at + 8, addr)
    _FILE_INDEX.pack_into(slots, at + 44, addr_len(len_bytes))


def make_fill(
    core: Core,
    known: Collection[int],
    owner: int,
    flight: Flight,
    cells: list[int],
    passing: list[tuple[int, object]],
) -> Fill:
    """
    Build the function that writes a ring's next request.

    Args:
        known: The operations that the kernel has.
        owner: The thread that may call it.
        flight: What requests keep, by user_data.
        cells: How many slots were filled, a count that never wraps; which registered credentials
            requests get, 0 for the submitter's own; and up to which count there was room.
        passing: What must live until a slot's request was taken.

    Raises (the function):
        QueueFullError: All slots are filled.
        UnsupportedError: The kernel lacks the operation.
        UsageError: Memory was given to a request whose completion is skipped.
        ValueError: A number does not fit its field.
        WrongThreadError: Another thread owns the ring.

    Cost: about 350 ns (CPython 3.11).
    """
    sqes, sq_head = core.sqes, core.sq_head
    entries, stride = core.sq_entries, core.sqe_bytes
    mask = entries - 1
    pack = SQE_FULL.pack_into
    wide = stride == k.SIZEOF_SQE128
    command_bytes = SQE_COMMAND_BYTES if wide else _COMMAND_BYTES
    zeros = bytes(k.SIZEOF_SQE128 - k.SIZEOF_SQE)
    # The request's first word by operation, or -1 for those that cannot be.
    heads = [
        one << _OPCODE_AT if one in known and (wide or one not in _WIDE) else -1
        for one in range(256)
    ]

    def fill(
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
        if get_ident() != owner:
            raise WrongThreadError(
                "this ring belongs to the thread that made it: hand requests over by MSG_RING from "
                "a ring of this thread's own, or make the ring disabled and enable it here"
            )
        try:
            head = heads[opcode]
        except IndexError:
            head = -1
        if head < 0:
            raise lacking(opcode, opcode in known)
        tail = cells[0]
        if tail == cells[2]:  # as far as there was room when somebody last looked
            cells[2] = tail + entries - ((tail - sq_head[0]) & _U32)
            if tail == cells[2]:
                raise QueueFullError(
                    f"all {entries} slots for requests are filled: call submit() first, or "
                    "wait_for_room() with SQPOLL, or make the ring larger"
                )
        at = (tail & mask) * stride
        if flags or ioprio:
            if flags >> 8 or ioprio >> 16:
                raise _unfit(opcode, "flags take 8 bits, and ioprio 16")
            head |= flags << _FLAGS_AT | ioprio << _IOPRIO_AT
        if off < 0:
            off &= _U64
        try:
            pack(
                sqes, at, head, fd, off, addr, len_, op_flags, user_data, buf_index, cells[1],
                file_index, addr3, attr_mask,
            )  # fmt: skip
        except struct.error:  # seldom: negative numbers where the kernel has unsigned ones
            try:
                pack(
                    sqes, at, head, fd, off, addr & _U64, len_ & _U32, op_flags & _U32,
                    user_data, buf_index, cells[1], file_index & _U32, addr3 & _U64, attr_mask,
                )  # fmt: skip
            except (struct.error, TypeError) as error:
                raise _unfit(opcode, error) from None
        if wide:
            sqes[at + k.SIZEOF_SQE : at + stride] = zeros
        if command:
            start = at + SQE_COMMAND_OFFSET
            sqes[start : start + command_bytes] = _command(command, command_bytes)
        if flags & _SKIP:
            if keep is not None and not isinstance(keep, Passing):
                raise UsageError(
                    "a request whose completion is skipped would never tell when its memory is "
                    "free: leave CQE_SKIP_SUCCESS out, or give an address and keep the memory"
                )
            passing.append((tail, keep))
        elif user_data in flight:
            join(flight, user_data, keep)
        else:
            flight[user_data] = keep
        cells[0] = tail + 1

    return fill


def _command(command: bytes, size: int) -> bytes:
    if len(command) > size:
        raise ValueError(
            f"a command of {len(command)} bytes does not fit the {size} of the request"
        )
    return command.ljust(size, b"\0")


def _name(opcode: int) -> str:
    try:
        return Opcode(opcode).name
    except ValueError:
        return f"operation {opcode}"


def lacking(opcode: int, needs_room: bool) -> UnsupportedError | UsageError:
    """Build what is raised for an operation that the slot has no room for, or the kernel lacks."""
    if needs_room:
        return UsageError(f"{_name(opcode)} needs a ring made with SetupFlags.SQE128")
    try:
        since = f"Linux {Opcode(opcode).since}"
    except ValueError:
        since = "a kernel that knows that number"
    return UnsupportedError(_name(opcode), since)


def _unfit(opcode: int, error: object) -> ValueError:
    return ValueError(f"a field of this {_name(opcode)} is out of range: {error}")
