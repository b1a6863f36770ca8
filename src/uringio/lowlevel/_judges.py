"""What restrictions and filters are made of, for one ring or for all that a task will make."""

from collections.abc import Iterable, Sequence
from struct import Struct
from typing import Final

from uringio._sys import constants as k
from uringio._sys.layouts import BPF, RESTRICTION
from uringio._sys.memory import pin
from uringio._sys.packing import packed
from uringio.errors import UsageError

__all__ = ["filter_argument", "restriction_rows"]

# sock_filter of <linux/filter.h>: code, jt, jf, k.
_INSTRUCTION: Final = Struct("=HBBI")
_INSTRUCTIONS_MAX: Final = 4096


def restriction_rows(
    ops: Iterable[int], register_ops: Iterable[int], flags_allowed: int, flags_required: int
) -> list[bytes]:
    """
    Write what is allowed, and nothing else.

    Raises:
        UsageError: It is nothing.
    """
    rows = [packed(RESTRICTION, kind=k.IORING_RESTRICTION_SQE_OP, op=one) for one in ops]
    rows += [
        packed(RESTRICTION, kind=k.IORING_RESTRICTION_REGISTER_OP, register_op=one)
        for one in register_ops
    ]
    if flags_allowed:
        rows.append(
            packed(
                RESTRICTION,
                kind=k.IORING_RESTRICTION_SQE_FLAGS_ALLOWED,
                flags_allowed=flags_allowed,
            )
        )
    if flags_required:
        rows.append(
            packed(
                RESTRICTION,
                kind=k.IORING_RESTRICTION_SQE_FLAGS_REQUIRED,
                flags_required=flags_required,
            )
        )
    if not rows:
        raise UsageError("a ring that is allowed nothing is of no use: name operations")
    return rows


def filter_argument(
    opcode: int, program: Sequence[tuple[int, int, int, int]], flags: int, pdu_bytes: int
) -> tuple[bytes, object]:
    """
    Write a filter of one operation, and return it with what keeps its program.

    Raises:
        ValueError: The program is empty, too long, or has a field out of range.
    """
    if not 0 < len(program) <= _INSTRUCTIONS_MAX:
        raise ValueError(
            f"a filter has from 1 to {_INSTRUCTIONS_MAX} instructions, not {len(program)}"
        )
    try:
        raw = b"".join(_INSTRUCTION.pack(*one) for one in program)
    except Exception as error:
        raise ValueError(
            f"an instruction is (code, jump if true, jump if false, k): {error}"
        ) from None
    addr, _, keep = pin(raw)
    argument = packed(
        BPF,
        command=k.IO_URING_BPF_CMD_FILTER,
        zero=0,
        opcode=opcode,
        flags=flags,
        count=len(program),
        pdu_bytes=pdu_bytes,
        addr=addr,
    )
    return argument, (raw, keep)
