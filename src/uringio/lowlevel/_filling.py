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

from ._flight import Flight, Silent, join, refuse_memory, refuse_shared, remember
from ._opcodes import Opcode
from ._slots import addr_len

__all__ = [
    "COMMAND_BYTES",
    "WIDE",
    "Fill",
    "Request",
    "Requests",
    "flags_at",
    "full",
    "lacking",
    "make_fill",
    "pack_command",
    "pack_head",
    "set_address",
    "stranger",
]

_U64: Final = (1 << 64) - 1
_U32: Final = (1 << 32) - 1
_SKIP: Final = k.IOSQE_CQE_SKIP_SUCCESS
_SELECT: Final = k.IOSQE_BUFFER_SELECT
WIDE: Final = frozenset((k.IORING_OP_NOP128, k.IORING_OP_URING_CMD128))
# Where the first three fields stand in the word that they are packed as.
_OPCODE_AT, _FLAGS_AT, _IOPRIO_AT = (0, 8, 16) if sys.byteorder == "little" else (24, 16, 0)
_ADDR2: Final = struct.Struct("=Q")
_FILE_INDEX: Final = struct.Struct("=I")
# What fits a request of 64 bytes.
COMMAND_BYTES: Final = k.SIZEOF_SQE - SQE_COMMAND_OFFSET


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
            raise _unfit(opcode, flags, ioprio)
        head = opcode << _OPCODE_AT | flags << _FLAGS_AT | ioprio << _IOPRIO_AT
        try:
            SQE_FULL.pack_into(
                self.raw, 0, head, fd, off, addr, len_, op_flags, user_data, buf_index, 0,
                file_index, addr3, attr_mask,
            )  # fmt: skip
        except struct.error:
            _pack_negative(
                self.raw, 0, opcode, head, fd, off, addr, len_, op_flags, user_data, buf_index, 0,
                file_index, addr3, attr_mask,
            )  # fmt: skip
        self._keep = [keep]
        if command:
            self.raw[SQE_COMMAND_OFFSET:] = pack_command(command, COMMAND_BYTES)

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
    silent: Silent,
) -> Fill:
    """
    Build the function that writes a ring's next request.

    Args:
        known: The operations that the kernel has.
        owner: The thread that may call it.
        flight: What requests keep, by user_data.
        cells: How many slots were filled, a count that never wraps; which registered credentials
            requests get, 0 for the submitter's own; up to which count there was room; and, for
            others, which count is the second half of a request, and how many were jumped over.
        passing: What must live until a slot's request was taken.
        silent: The user_data of requests whose completion is skipped.

    Raises (the function):
        QueueFullError: All slots are filled.
        UnsupportedError: The kernel lacks the operation.
        UsageError: A request whose completion is skipped has memory, or its user_data one that has.
        ValueError: A number does not fit its field.
        WrongThreadError: Another thread owns the ring.

    Cost: about 350 ns (CPython 3.11).
    """
    sqes, sq_head, buffer_rings = core.sqes, core.sq_head, core.buffer_rings
    entries, stride = core.sq_entries, core.sqe_bytes
    mask = entries - 1
    pack = SQE_FULL.pack_into
    wide = stride == k.SIZEOF_SQE128
    roomy = wide or core.flags & k.IORING_SETUP_SQE_MIXED
    command_bytes = SQE_COMMAND_BYTES if wide else COMMAND_BYTES
    zeros = bytes(k.SIZEOF_SQE128 - k.SIZEOF_SQE)
    # The request's first word by operation, or -1 for those that cannot be.
    heads = [
        one << _OPCODE_AT if one in known and (roomy or one not in WIDE) else -1
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
            raise stranger()
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
                raise full(entries, 1)
        at = (tail & mask) * stride
        if flags or ioprio:
            if flags >> 8 or ioprio >> 16:
                raise _unfit(opcode, flags, ioprio)
            head |= flags << _FLAGS_AT | ioprio << _IOPRIO_AT
        if off == -1:  # where the file stands
            off = _U64
        try:
            pack(
                sqes, at, head, fd, off, addr, len_, op_flags, user_data, buf_index, cells[1],
                file_index, addr3, attr_mask,
            )  # fmt: skip
        except struct.error:
            _pack_negative(
                sqes, at, opcode, head, fd, off, addr, len_, op_flags, user_data, buf_index,
                cells[1], file_index, addr3, attr_mask,
            )  # fmt: skip
        if wide:
            sqes[at + k.SIZEOF_SQE : at + stride] = zeros
        if command:
            start = at + SQE_COMMAND_OFFSET
            sqes[start : start + command_bytes] = pack_command(command, command_bytes)
        if flags & _SKIP:
            refuse_memory(keep, flags)
            remember(silent, flight, user_data, bool(buffer_rings))
            passing.append((tail, keep))
        else:
            if user_data in silent and (keep is not None or flags & _SELECT):
                raise refuse_shared(user_data)
            if user_data in flight:
                join(flight, user_data, keep)
            else:
                flight[user_data] = keep
        cells[0] = tail + 1

    return fill


def stranger() -> WrongThreadError:
    """Build what a thread gets that the ring does not belong to."""
    return WrongThreadError(
        "this ring belongs to the thread that made it: hand requests over by MSG_RING from "
        "a ring of this thread's own, or make the ring disabled and enable it here"
    )


def full(entries: int, needed: int) -> QueueFullError:
    """Build what is raised where there is no room for a request of so many slots."""
    if needed > 1:
        what = f"fewer than {needed} of {entries} slots are free, which this request needs"
    else:
        what = f"all {entries} slots for requests are filled"
    return QueueFullError(
        f"{what}: call submit() first, or wait_for_room() with SQPOLL, or make the ring larger"
    )


def pack_head(opcode: int, flags: int) -> int:
    """Return the first word of a request."""
    return opcode << _OPCODE_AT | flags << _FLAGS_AT


def flags_at(sqes: memoryview, at: int) -> int:
    """Read the flags of the request at *at*."""
    return sqes[at + 1]


def pack_command(command: bytes, size: int) -> bytes:
    """Fill a command up with zeros; raises ValueError where it is too long."""
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
        return UsageError(f"{_name(opcode)} needs a ring made with SetupFlags.SQE128 or SQE_MIXED")
    try:
        since = f"Linux {Opcode(opcode).since}"
    except ValueError:
        since = "a kernel that knows that number"
    return UnsupportedError(_name(opcode), since)


def _pack_negative(
    slots: bytearray | memoryview,
    at: int,
    opcode: int,
    head: int,
    fd: int,
    off: int,
    addr: int,
    len_: int,
    op_flags: int,
    user_data: int,
    buf_index: int,
    personality: int,
    file_index: int,
    addr3: int,
    attr_mask: int,
) -> None:
    """
    Write a request that has negative numbers where the kernel has none, as C would.

    Raises:
        ValueError: That is not what is wrong with it.
    """
    try:
        SQE_FULL.pack_into(
            slots, at, head, fd, _as_c_does(off, 64), _as_c_does(addr, 64), _as_c_does(len_, 32),
            _as_c_does(op_flags, 32), user_data, buf_index, personality,
            _as_c_does(file_index, 32), _as_c_does(addr3, 64), attr_mask,
        )  # fmt: skip
    except (struct.error, TypeError):
        raise _unfit(
            opcode, 0, 0, fd, user_data, buf_index, off, addr, len_, op_flags, file_index, addr3,
            attr_mask,
        ) from None  # fmt: skip


def _as_c_does(value: int, bits: int) -> int:
    return value + (1 << bits) if -(1 << bits - 1) <= value < 0 else value


# What the fields of a request hold.
_ROOM: Final = (
    ("flags", 0, (1 << 8) - 1),
    ("ioprio", 0, (1 << 16) - 1),
    ("fd", -(1 << 31), (1 << 31) - 1),
    ("user_data", 0, _U64),
    ("buf_index or buf_group", 0, (1 << 16) - 1),
    ("off", -(1 << 63), _U64),
    ("addr", -(1 << 63), _U64),
    ("len", -(1 << 31), _U32),
    ("the operation's flags", -(1 << 31), _U32),
    ("file_index", -(1 << 31), _U32),
    ("addr3", -(1 << 63), _U64),
    ("attr_mask", 0, _U64),
)


def _unfit(opcode: int, *given: object) -> ValueError:
    """Build what is raised for a number that does not fit its field, in the order of `_ROOM`."""
    wrong = "one is no number"
    for (name, least, most), value in zip(_ROOM, given, strict=False):
        if not isinstance(value, int) or not least <= value <= most:
            wrong = f"{name} is a number from {least} to {most}, not {value!r}"
            break
    return ValueError(f"a field of this {_name(opcode)} is out of range: {wrong}")
