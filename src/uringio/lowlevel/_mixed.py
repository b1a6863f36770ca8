"""
Requests of 64 and of 128 bytes in one queue (`SetupFlags.SQE_MIXED`).

Theory of operation.  The operation decides: those of 128 bytes take two neighbouring slots, and the
kernel does not go round the queue's end within one.  Where only the last slot is left before the
end, a NOP of ours goes there.  It does complete, under a user_data that is sifted out of what is
handed out, because a request that skips its completion would forbid `SqeFlags.IO_DRAIN` to the ring
for good; and it carries on the chain that it may stand in.

Twin: io_uring_get_sqe128.  Source: io_uring_prep_nop128(3).  Kernel: 6.19.
"""

from _thread import get_ident
from typing import Final

from uringio._ring.setup import Ring as Core
from uringio._sys import constants as k
from uringio._sys.layouts import SQE_COMMAND_BYTES, SQE_FULL

from ._filling import COMMAND_BYTES, WIDE, Fill, flags_at, full, pack_command, pack_head, stranger

__all__ = ["PADDING", "cancel_slot", "last_slot", "make_mixed_fill"]

# The user_data of what fills up the queue's end, which no request of the program's may have.
PADDING: Final = (1 << 64) - 2
_U32: Final = (1 << 32) - 1
_LINKS: Final = k.IOSQE_IO_LINK | k.IOSQE_IO_HARDLINK
_HEAD: Final = k.SIZEOF_SQE
_NOTHING: Final = bytes(k.SIZEOF_SQE - (SQE_COMMAND_BYTES - COMMAND_BYTES))


def make_mixed_fill(core: Core, owner: int, cells: list[int], plain: Fill) -> Fill:
    """
    Build what stands in for `make_fill`'s function, which still writes what it can.

    Args:
        cells: As in `make_fill`, and a fourth: which slot is the second half of a request.
        plain: From `make_fill`, for the same ring.

    Raises (the function): as *plain*.
    """
    sqes, sq_head = core.sqes, core.sq_head
    entries = core.sq_entries
    mask = entries - 1

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
        if user_data == PADDING:
            raise ValueError(f"user_data {PADDING:#x} is the ring's own where sizes are mixed")
        if opcode not in WIDE:
            plain(
                opcode, fd, off, addr, len_, op_flags, user_data, flags, keep, ioprio, buf_index,
                file_index, addr3, attr_mask, command,
            )  # fmt: skip
            return
        if get_ident() != owner:
            raise stranger()
        raw = pack_command(command, SQE_COMMAND_BYTES)
        before = tail = cells[0]
        queued = (tail - sq_head[0]) & _U32
        at_the_end = tail & mask == mask
        if entries - queued < 2 + at_the_end:
            raise full(entries, 2 + at_the_end)
        cells[2] = tail + entries - queued
        if at_the_end:
            linked = flags_at(sqes, (last_slot(cells) & mask) * _HEAD) & _LINKS if queued else 0
            _write_nop(core, tail, PADDING, linked)
            cells[0] = tail = tail + 1
        try:
            plain(
                opcode, fd, off, addr, len_, op_flags, user_data, flags, keep, ioprio, buf_index,
                file_index, addr3, attr_mask, raw[:COMMAND_BYTES] if command else b"",
            )  # fmt: skip
        except BaseException:
            cells[0] = before  # the padding has not been handed over yet
            raise
        second = ((tail + 1) & mask) * _HEAD
        sqes[second : second + _HEAD] = raw[COMMAND_BYTES:] + _NOTHING
        cells[3] = tail + 1
        cells[0] = tail + 2

    return fill


def last_slot(cells: list[int]) -> int:
    """Tell where the request begins that was filled last."""
    last = cells[0] - 1
    return last - 1 if last == cells[3] else last


def cancel_slot(core: Core, index: int, wide: bool) -> int:
    """Make a request nothing before the kernel has seen it, and return where the next begins."""
    at = (index & (core.sq_entries - 1)) * core.sqe_bytes
    user_data = SQE_FULL.unpack_from(core.sqes, at)[6]
    opcode = core.sqes[at]
    _write_nop(core, index, user_data, 0)
    if not wide or opcode not in WIDE:
        return index + 1
    _write_nop(core, index + 1, PADDING, 0)
    return index + 2


def _write_nop(core: Core, index: int, user_data: int, flags: int) -> None:
    at = (index & (core.sq_entries - 1)) * core.sqe_bytes
    head = pack_head(k.IORING_OP_NOP, flags)
    SQE_FULL.pack_into(core.sqes, at, head, -1, 0, 0, 0, 0, user_data, 0, 0, 0, 0, 0)
