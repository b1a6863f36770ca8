"""
Doors for those who build on the ring or the drivers themselves.

`Opcode`, `SetupFlags` and their like are the kernel's numbers by the kernel's names, each with the
kernel that brought it (``Opcode.RECV_ZC.since``) and what it means (``.meaning``).

All of it is loaded at first use, so that importing this package costs nothing to speak of.
"""

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from uringio._driver.op import NOP, Op

if TYPE_CHECKING:
    from ._numbers import (
        AcceptFlags,
        BlockUringOp,
        BpfCommand,
        BpfFilterFlags,
        CancelFlags,
        CloneBuffersFlags,
        CqeFlags,
        CqRingFlags,
        EnterFlags,
        Features,
        FixedFdFlags,
        FsyncFlags,
        Futex2Flags,
        MemRegionFlags,
        MsgRingCommand,
        MsgRingFlags,
        NopFlags,
        NotifUsage,
        Opcode,
        PbufRingFlags,
        PollFlags,
        ProbeFlags,
        QueryOp,
        RecvSendFlags,
        RegionFlags,
        RegisterOp,
        RegWaitFlags,
        RestrictionOp,
        RsrcFlags,
        RwAttrFlags,
        SetupFlags,
        SocketUringOp,
        SpliceFlags,
        SqeFlags,
        SqRingFlags,
        TimeoutFlags,
        UringCmdFlags,
        WorkerKind,
        ZcrxAreaFlags,
        ZcrxControl,
        ZcrxFeatures,
        ZcrxRegFlags,
    )

__all__ = [
    "AcceptFlags",
    "BlockUringOp",
    "BpfCommand",
    "BpfFilterFlags",
    "CancelFlags",
    "CloneBuffersFlags",
    "CqRingFlags",
    "CqeFlags",
    "EnterFlags",
    "Features",
    "FixedFdFlags",
    "FsyncFlags",
    "Futex2Flags",
    "MemRegionFlags",
    "MsgRingCommand",
    "MsgRingFlags",
    "NopFlags",
    "NotifUsage",
    "Op",
    "Opcode",
    "PbufRingFlags",
    "PollFlags",
    "ProbeFlags",
    "QueryOp",
    "RecvSendFlags",
    "RegWaitFlags",
    "RegionFlags",
    "RegisterOp",
    "RestrictionOp",
    "RsrcFlags",
    "RwAttrFlags",
    "SetupFlags",
    "SocketUringOp",
    "SpliceFlags",
    "SqRingFlags",
    "SqeFlags",
    "TimeoutFlags",
    "UringCmdFlags",
    "WorkerKind",
    "ZcrxAreaFlags",
    "ZcrxControl",
    "ZcrxFeatures",
    "ZcrxRegFlags",
    "nop",
]

# `partial` rather than a function: one Python call less per op.
nop: Callable[[], Op[int]] = partial(Op, NOP)

if not TYPE_CHECKING:  # a checker would take this for leave to ask for anything

    def __getattr__(name: str) -> object:
        """Load what was asked for, and its kind with it."""
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from . import _numbers

        found = getattr(_numbers, name)
        globals()[name] = found
        return found

    def __dir__() -> list[str]:
        return sorted(set(globals()) | set(__all__))
