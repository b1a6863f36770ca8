"""
Enumerations whose members know the kernel that brought them, and what they mean.

The numbers themselves live in `_sys.constants` and nowhere else; here they get names without the
kernel's prefixes, types, and explanations.
"""

from enum import IntEnum, IntFlag
from typing import Self

__all__ = ["Bits", "Number"]


class Number(IntEnum):
    """
    One of several numbers of the kernel's.

    Attributes:
        since: The first Linux that has it, such as ``"6.1"``.  A record, not a promise: filters and
            backports exist, so ask `Ring.opcodes` what a kernel really has.
        meaning: What it is, in one line; also its docstring.
    """

    since: str
    meaning: str

    # The defaults are for type checkers, which hold the look-up `Number(3)` against this too.
    def __new__(cls, value: int, since: str = "", meaning: str = "") -> Self:
        member = int.__new__(cls, value)
        member._value_ = value
        member.since = since
        member.meaning = member.__doc__ = meaning
        return member


class Bits(IntFlag):
    """
    Flags of the kernel's, to be combined with ``|``; bits that nobody knows are kept.

    Each operator makes an object, at a microsecond or so: combine once, outside the loop.
    """

    _since: str
    _meaning: str

    def __new__(cls, value: int, since: str = "", meaning: str = "") -> Self:
        member = int.__new__(cls, value)
        member._value_ = value
        member._since = since
        member._meaning = member.__doc__ = meaning
        return member

    @property
    def since(self) -> str:
        """The first Linux that has it, of a combination the one that has all; empty if unknown."""
        own = vars(self).get("_since")
        if own is not None:
            return str(own)
        return max((one._since for one in self), key=_release, default="")

    @property
    def meaning(self) -> str:
        """What it is, in one line; of a combination, each part's."""
        own = vars(self).get("_meaning")
        return str(own) if own is not None else "; ".join(one._meaning for one in self)


def _release(since: str) -> tuple[int, ...]:
    return tuple(int(part) for part in since.split(".")) if since else ()
