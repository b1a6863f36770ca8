"""Numbers written as the kernel has them, or refused by the name of the one that does not fit."""

from collections.abc import Sequence
from struct import Struct, error, pack
from typing import Final

__all__ = ["packed", "packed_all"]

_BITS: Final = {"i": (-(1 << 31), (1 << 31) - 1), "Q": (0, (1 << 64) - 1)}


def packed(layout: Struct, **fields: int) -> bytes:
    """
    Write *fields*, in the order of *layout*.

    Raises:
        TypeError: One is no number.
        ValueError: One does not fit.
    """
    try:
        return layout.pack(*fields.values())
    except error:
        pass
    for name, value in fields.items():
        try:
            layout.pack(*(value if one == name else 0 for one in fields))
        except error:
            if not hasattr(value, "__index__"):
                raise TypeError(f"{name} is a number, not {value!r}") from None
            raise ValueError(f"{name} cannot be {value}: the kernel has no room for it") from None
    raise AssertionError("each of the fields fits, and not all of them")


def packed_all(kind: str, values: Sequence[int], what: str) -> bytes:
    """
    Write *values* one behind the other.

    Args:
        kind: "i" for C ints, "Q" for unsigned ones of 64 bits.
        what: One of them, for people.

    Raises:
        TypeError: One is no number.
        ValueError: One does not fit.
    """
    try:
        return pack(f"={len(values)}{kind}", *values)
    except error:
        pass
    least, most = _BITS[kind]
    for one in values:
        if not hasattr(one, "__index__"):
            raise TypeError(f"{what} is a number, not {one!r}")
        if not least <= one <= most:
            raise ValueError(f"{what} is a number from {least} to {most}, not {one}")
    raise AssertionError("each of the numbers fits, and not all of them")
