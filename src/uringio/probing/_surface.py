"""
What this kernel's io_uring has, in the names of `uringio.lowlevel`.

Whether the kernel said so or it was tried makes no difference to the names: see `_ring.survey` for
how it is learned, and `Surface.source` for how it was.
"""

from typing import Final, NamedTuple, TypeAlias, TypeVar

from uringio._ring.survey import Survey
from uringio.lowlevel import (
    CqeFlags,
    EnterFlags,
    Features,
    Opcode,
    RegisterOp,
    SetupFlags,
    SqeFlags,
)

__all__ = ["Member", "Surface", "describe"]

# What a kernel may have or lack; each knows the Linux that brought it, and what it means.
Member: TypeAlias = Opcode | RegisterOp | SetupFlags | EnterFlags | SqeFlags | CqeFlags | Features

F = TypeVar("F", SetupFlags, EnterFlags, SqeFlags, CqeFlags, Features)

# No kernel tells which flags its completions may carry.  These came with each, or next after it.
_WITNESSES: Final[dict[CqeFlags, Features | SetupFlags]] = {
    CqeFlags.BUFFER: Features.FAST_POLL,
    CqeFlags.MORE: Features.RSRC_TAGS,
    CqeFlags.SOCK_NONEMPTY: SetupFlags.CQE32,
    CqeFlags.NOTIF: SetupFlags.SINGLE_ISSUER,
    CqeFlags.BUF_MORE: Features.MIN_TIMEOUT,
    CqeFlags.TSTAMP_HW: SetupFlags.CQE_MIXED,
    CqeFlags.SKIP: SetupFlags.CQE_MIXED,
    CqeFlags.F_32: SetupFlags.CQE_MIXED,
}


class Surface(NamedTuple):
    """
    What the kernel's io_uring has; empty is what a filter kept from being learned.

    Attributes:
        source: How it was learned: ``"query"``, the kernel said so; ``"register_probe"``, it named
            its operations, and the rest was tried; ``"trial"``, all was tried.
        opcodes: Operations that it carries out.
        register_ops: What ``io_uring_register`` takes.
        setup_flags, enter_flags, sqe_flags: Flags that it takes.
        cqe_flags: Flags that its completions may carry, by what came with them.
        features: What its rings can do.
        newer_opcodes, newer_register_ops: Numbers that this version of uringio has no name for.
    """

    source: str
    opcodes: frozenset[Opcode]
    register_ops: frozenset[RegisterOp]
    setup_flags: SetupFlags
    enter_flags: EnterFlags
    sqe_flags: SqeFlags
    cqe_flags: CqeFlags
    features: Features
    newer_opcodes: tuple[int, ...]
    newer_register_ops: tuple[int, ...]

    def lacks(self) -> tuple[Member, ...]:
        """
        List what uringio has a name for and this kernel lacks.

        Each tells the Linux that brought it by ``since``.  Where that is no newer than the kernel,
        this one was built without, or a filter is in force.
        """
        lacking: list[Member] = []
        if self.opcodes:
            lacking += [one for one in Opcode if one not in self.opcodes]
        if self.register_ops:
            lacking += [one for one in RegisterOp if one not in self.register_ops]
        lacking += _missing(self.setup_flags)
        lacking += _missing(self.enter_flags)
        lacking += _missing(self.sqe_flags)
        lacking += _missing(self.cqe_flags)
        lacking += _missing(self.features)
        return tuple(lacking)


def _missing(flags: F) -> list[F]:
    return [one for one in type(flags) if one not in flags] if flags else []


def describe(found: Survey) -> Surface:
    """Give names to what was found."""
    features = Features(found.features)
    setup_flags = SetupFlags(found.setup_flags)
    register_ops = {one for one in RegisterOp if one in found.register_ops}
    if register_ops and Features.REG_REG_RING in features:
        register_ops.add(RegisterOp.USE_REGISTERED_RING)
    cqe_flags = CqeFlags(0)
    for flag, witness in _WITNESSES.items():
        if witness & (found.setup_flags if isinstance(witness, SetupFlags) else found.features):
            cqe_flags |= flag
    return Surface(
        source=found.source,
        opcodes=frozenset(one for one in Opcode if one in found.opcodes),
        register_ops=frozenset(register_ops),
        setup_flags=setup_flags,
        enter_flags=EnterFlags(found.enter_flags),
        sqe_flags=SqeFlags(found.sqe_flags),
        cqe_flags=cqe_flags,
        features=features,
        newer_opcodes=tuple(sorted(found.opcodes - set(Opcode))),
        newer_register_ops=tuple(sorted(found.register_ops - set(RegisterOp))),
    )
