"""Which set-up flags go together, said before the kernel says no more than EINVAL."""

from typing import Final

from uringio._sys import constants as k
from uringio.errors import UnsupportedError, UsageError

from ._ring_flags import SetupFlags

__all__ = ["refuse_quarrels"]

# Set-up flags that change who owns the queues' memory or who touches it, and so need another ring.
_OTHER_RINGS: Final = (
    k.IORING_SETUP_SQPOLL
    | k.IORING_SETUP_SQ_AFF
    | k.IORING_SETUP_NO_MMAP
    | k.IORING_SETUP_REGISTERED_FD_ONLY
    | k.IORING_SETUP_SQE_MIXED
    | k.IORING_SETUP_SQ_REWIND
)

# What the kernel refuses together, or alone: flags, which of them is at fault, and why.
_QUARRELS: Final = (("CQE32", "CQE_MIXED", "either all completions have 32 bytes, or some"),)
_NEEDS: Final = (
    ("DEFER_TASKRUN", ("SINGLE_ISSUER",)),
    ("TASKRUN_FLAG", ("COOP_TASKRUN", "DEFER_TASKRUN")),
    ("HYBRID_IOPOLL", ("IOPOLL",)),
)


def refuse_quarrels(flags: int) -> None:
    """
    Refuse set-up flags that no ring can have together, or that `Ring` does not serve.

    Raises:
        UnsupportedError: Another kind of ring.
        UsageError: They exclude or need each other.
    """
    names = SetupFlags(flags)
    if flags & _OTHER_RINGS:
        raise UnsupportedError(f"a Ring with {SetupFlags(flags & _OTHER_RINGS)!r}", "another door")
    for name, other, why in _QUARRELS:
        if SetupFlags[name] in names and SetupFlags[other] in names:
            raise UsageError(f"SetupFlags.{name} and {other} exclude each other: {why}")
    for name, needed in _NEEDS:
        if SetupFlags[name] in names and not any(SetupFlags[one] in names for one in needed):
            raise UsageError(f"SetupFlags.{name} needs {' or '.join(needed)} beside it")
