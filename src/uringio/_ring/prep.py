"""
Fill submission slots.

Every operation of this library fits one `struct` shape, `_sys.layouts.SQE`, so a prepared request
is a *head* (opcode, SQE flags and ioprio in one word, fixed per operation) and seven numbers.  The
drivers' hot closures call ``pack_into`` themselves; `prep` is the same for cold callers.

Twin: io_uring_prep_rw (liburing.h), which all of liburing's prep helpers go through.
"""

import struct
from typing import Final

from uringio._sys.layouts import SQE

from .setup import Ring

__all__ = ["prep", "sqe_head"]

_HEAD: Final = struct.Struct("=BBH")
_WORD: Final = struct.Struct("=I")
_U64_MASK: Final = (1 << 64) - 1


def sqe_head(opcode: int, flags: int = 0, ioprio: int = 0) -> int:
    """Return the first four bytes of an SQE as the number that packs to them on this machine."""
    word: int = _WORD.unpack(_HEAD.pack(opcode, flags, ioprio))[0]
    return word


def prep(
    ring: Ring,
    index: int,
    head: int,
    fd: int,
    *,
    offset: int = 0,
    addr: int = 0,
    len_: int = 0,
    op_flags: int = 0,
    user_data: int = 0,
    buf_group: int = 0,
    file_index: int = 0,
) -> None:
    """
    Write one request into the slot of *index*, zeroing what it does not name.

    Args:
        index: The unwrapped SQ index; the slot is its low bits.
        head: From `sqe_head`.
        offset: The ``off``/``addr2`` field; -1 means the file's own position.
        addr: The ``addr`` field. [address]
        len_: The ``len`` field, mostly bytes.
        op_flags: The operation's own flags word at byte 28.
        file_index: The ``splice_fd_in``/``file_index`` field.

    Lifetime: what *addr* and *offset* point to must live until the last completion of *user_data*.
    """
    SQE.pack_into(
        ring.sqes,
        (index & (ring.sq_entries - 1)) * SQE.size,
        head,
        fd,
        offset & _U64_MASK,
        addr,
        len_,
        op_flags,
        user_data,
        buf_group,
        file_index,
    )
