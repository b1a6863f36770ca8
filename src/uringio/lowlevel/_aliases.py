"""
Requests under names that only their ring knows.

A completion says no more of whose it is than its user_data.  One that another ring has sent, or the
tag of a registered file, can have the same as a request in flight, and would be taken for the end
of that: its memory would be freed while the kernel still writes to it.  So a ring that takes
messages gives the kernel each user_data combined with a number of its own that nobody can guess,
and takes a completion for a request's only if it comes back so.
"""

import os
from typing import Final

from uringio._sys import constants as k
from uringio._sys.layouts import SQE_FULL
from uringio.errors import UsageError

from ._filling import Fill

__all__ = ["alias_all", "alias_target", "make_alias_fill", "make_secret"]

_SKIP: Final = k.IOSQE_CQE_SKIP_SUCCESS
_SIZE: Final = k.SIZEOF_SQE
_NOT_BY_NAME: Final = (
    k.IORING_ASYNC_CANCEL_FD | k.IORING_ASYNC_CANCEL_ANY | k.IORING_ASYNC_CANCEL_OP
)


def make_secret() -> int:
    """Draw a number that is not 0."""
    return int.from_bytes(os.urandom(8), "little") | 1


def _names_a_request(cancel_flags: int) -> bool:
    """Tell whether a cancellation finds its target by user_data."""
    return bool(cancel_flags & k.IORING_ASYNC_CANCEL_USERDATA or not cancel_flags & _NOT_BY_NAME)


def alias_target(cancel_flags: int, user_data: int, secret: int) -> int:
    """Name the target of a cancellation as the kernel knows it."""
    return user_data ^ secret if _names_a_request(cancel_flags) else user_data


def _alias_fields(
    opcode: int, off: int, addr: int, len_: int, op_flags: int, secret: int
) -> tuple[int, int]:
    if opcode == k.IORING_OP_ASYNC_CANCEL:
        return off, alias_target(op_flags, addr, secret)
    if opcode == k.IORING_OP_TIMEOUT_REMOVE:
        return off, addr ^ secret
    if opcode == k.IORING_OP_POLL_REMOVE:
        if len_ & k.IORING_POLL_UPDATE_USER_DATA:
            off ^= secret
        return off, addr ^ secret
    return off, addr


def _refuse_skipping() -> UsageError:
    return UsageError(
        "a ring that takes messages hears of every request's end: leave CQE_SKIP_SUCCESS out"
    )


def make_alias_fill(fill: Fill, secret: int) -> Fill:
    """
    Build what fills requests through *fill*, named as the kernel is to know them.

    Raises (the function):
        UsageError: The request's completion is skipped, so that it could not be told from another.
    """

    def alias_fill(
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
        if flags & _SKIP:
            raise _refuse_skipping()
        off, addr = _alias_fields(opcode, off, addr, len_, op_flags, secret)
        fill(
            opcode, fd, off, addr, len_, op_flags, user_data ^ secret, flags, keep, ioprio,
            buf_index, file_index, addr3, attr_mask, command,
        )  # fmt: skip

    return alias_fill


def alias_all(raw: bytearray, secret: int) -> bytearray:
    """
    Return a batch's requests, named as the kernel is to know them.

    Raises:
        UsageError: The completion of one is skipped.
    """
    aliased = bytearray(raw)
    for at in range(0, len(raw), _SIZE):
        if raw[at + 1] & _SKIP:
            raise _refuse_skipping()
        head, fd, off, addr, len_, op_flags, user_data, *rest = SQE_FULL.unpack_from(raw, at)
        off, addr = _alias_fields(raw[at], off, addr, len_, op_flags, secret)
        SQE_FULL.pack_into(
            aliased, at, head, fd, off, addr, len_, op_flags, user_data ^ secret, *rest
        )
    return aliased
