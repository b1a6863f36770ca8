"""The kernel's numbers under their public names: complete, explained, and loaded late."""

import enum
import re
import sys

import pytest

from tests.fresh import FreshPython
from tests.sys.golden_numbers import NUMBERS
from uringio import lowlevel
from uringio.lowlevel import (
    AcceptFlags,
    CqeFlags,
    Features,
    MsgRingFlags,
    Opcode,
    RegisterOp,
    SetupFlags,
    SqeFlags,
)

# Enumeration -> (what its members' C names begin with, how many there are in liburing 2.15).
PREFIXES: dict[str, tuple[tuple[str, ...], int]] = {
    "AcceptFlags": (("IORING_ACCEPT_",), 3),
    "BlockUringOp": (("BLOCK_URING_CMD_",), 2),
    "BpfCommand": (("IO_URING_BPF_CMD_",), 1),
    "BpfFilterFlags": (("IO_URING_BPF_FILTER_",), 2),
    "CancelFlags": (("IORING_ASYNC_CANCEL_",), 6),
    "CloneBuffersFlags": (("IORING_REGISTER_",), 2),
    "CqRingFlags": (("IORING_CQ_",), 1),
    "CqeFlags": (("IORING_CQE_F_", "IORING_CQE_"), 8),
    "EnterFlags": (("IORING_ENTER_",), 8),
    "Features": (("IORING_FEAT_",), 18),
    "FixedFdFlags": (("IORING_FIXED_FD_",), 1),
    "FsyncFlags": (("IORING_FSYNC_",), 1),
    "Futex2Flags": (("FUTEX2_",), 2),
    "MemRegionFlags": (("IORING_MEM_REGION_",), 1),
    "MsgRingCommand": (("IORING_MSG_",), 2),
    "MsgRingFlags": (("IORING_MSG_RING_",), 2),
    "NopFlags": (("IORING_NOP_",), 6),
    "NotifUsage": (("IORING_NOTIF_USAGE_",), 1),
    "Opcode": (("IORING_OP_",), 65),
    "PbufRingFlags": (("IOU_PBUF_RING_",), 2),
    "PollFlags": (("IORING_POLL_",), 4),
    "ProbeFlags": (("IO_URING_OP_",), 1),
    "QueryOp": (("IO_URING_QUERY_",), 3),
    "RecvSendFlags": (("IORING_RECVSEND_", "IORING_"), 6),
    "RegWaitFlags": (("IORING_REG_WAIT_",), 1),
    "RegionFlags": (("IORING_MEM_REGION_TYPE_",), 1),
    "RegisterOp": (("IORING_REGISTER_", "IORING_"), 39),  # one of them a flag
    "RestrictionOp": (("IORING_RESTRICTION_",), 4),
    "RsrcFlags": (("IORING_RSRC_",), 1),
    "RwAttrFlags": (("IORING_RW_ATTR_FLAG_",), 1),
    "SetupFlags": (("IORING_SETUP_",), 21),
    "SocketUringOp": (("SOCKET_URING_OP_",), 6),
    "SpliceFlags": (("SPLICE_F_",), 4),
    "SqRingFlags": (("IORING_SQ_",), 3),
    "SqeFlags": (("IOSQE_",), 7),
    "TimeoutFlags": (("IORING_TIMEOUT_", "IORING_"), 8),
    "UringCmdFlags": (("IORING_URING_CMD_",), 1),
    "WorkerKind": (("IO_WQ_",), 2),
    "ZcrxAreaFlags": (("IORING_ZCRX_AREA_",), 1),
    "ZcrxControl": (("ZCRX_CTRL_",), 2),
    "ZcrxFeatures": (("ZCRX_FEATURE_",), 1),
    "ZcrxRegFlags": (("ZCRX_REG_",), 2),
}

# Numbers that are no member of a kind: shifts, offsets, and values of ordinary fields.
ALONE = {
    "IORING_CQE_BUFFER_SHIFT",
    "IORING_TIMESTAMP_TYPE_SHIFT",
    "IORING_ZCRX_AREA_SHIFT",
    "IORING_FILE_INDEX_ALLOC",
    "IORING_REGISTER_FILES_SKIP",
}


def kinds() -> dict[str, type[enum.Enum]]:
    found = {name: getattr(lowlevel, name) for name in lowlevel.__all__}
    return {
        name: value
        for name, value in found.items()
        if isinstance(value, type) and issubclass(value, enum.Enum)
    }


def golden_name(kind: str, member: enum.Enum) -> str | None:
    """Find the C name that this member must be."""
    names = [prefix + member.name for prefix in PREFIXES[kind][0]]
    return next((name for name in names if name in NUMBERS), None)


def test_every_kind_is_public() -> None:
    """The table above and the public enumerations are the same."""
    assert set(kinds()) == set(PREFIXES)


@pytest.mark.parametrize("kind", sorted(PREFIXES))
def test_members_are_golden(kind: str) -> None:
    """Number, value, kernel and meaning of each member; as many as the header has."""
    members = list(kinds()[kind])
    assert len(members) == PREFIXES[kind][1]
    for member in members:
        assert re.fullmatch(r"\d\.\d+", member.since), member
        assert 5 < len(member.meaning) < 90, member
        assert member.__doc__ == member.meaning
        name = golden_name(kind, member)
        if name is None:  # of another header
            assert member.name in {"MOVE", "NONBLOCK", "MORE"}
            continue
        assert (member.value, member.since) == NUMBERS[name], member


def test_no_number_is_left_out() -> None:
    """Whatever the header defines is a member of something, or known to stand alone."""
    public = {golden_name(kind, one) for kind, members in kinds().items() for one in members}
    rest = {name for name in NUMBERS if not name.startswith("IORING_OFF_")}
    assert rest - public == ALONE


def test_numbers_are_ints_and_look_ups_work() -> None:
    """Members go wherever ints go, and come back from a number."""
    assert Opcode(58) is Opcode.RECV_ZC
    assert Opcode.RECV_ZC + 0 == 58
    assert (Opcode.RECV_ZC.since, Opcode.PIPE.meaning) == ("6.15", "make a pipe")
    assert RegisterOp.PBUF_RING == 22
    assert RegisterOp.UNREGISTER_PBUF_RING == 23
    assert AcceptFlags.MULTISHOT == 1
    assert MsgRingFlags.FLAGS_PASS == 2


def test_combinations_know_their_kernel() -> None:
    """Of a combination, the newest kernel counts; unknown bits are kept and know none."""
    both = SetupFlags.CQSIZE | SetupFlags.DEFER_TASKRUN
    assert both.since == "6.1"
    assert "completion queue" in both.meaning
    assert "owner's enter" in both.meaning
    assert (SetupFlags.CQE_MIXED | SetupFlags.DEFER_TASKRUN).since == "6.18"
    unknown = SqeFlags(0x80)
    assert (unknown.value, unknown.since, unknown.meaning) == (0x80, "", "")
    assert CqeFlags.F_32 in CqeFlags(0x8003)
    assert Features(0).since == ""


def test_numbers_are_loaded_at_first_use(fresh_python: FreshPython) -> None:
    """Neither the package nor this room builds an enumeration before it is asked for one."""
    fresh_python(
        """
        import sys
        import uringio
        assert "uringio.lowlevel" not in sys.modules
        import uringio.lowlevel as lowlevel
        late = [name for name in sys.modules if name.startswith("uringio.lowlevel.")]
        assert late == [], late
        assert "Opcode" in dir(lowlevel)
        assert lowlevel.Opcode.NOP == 0
        assert "uringio.lowlevel._numbers" in sys.modules
        from uringio.lowlevel import SetupFlags
        """
    ).check()


def test_what_does_not_exist_is_an_attribute_error() -> None:
    """Late loading does not invent names."""
    with pytest.raises(AttributeError, match="no attribute 'Opcodes'"):
        lowlevel.Opcodes  # noqa: B018


def test_numbers_are_those_of_the_compiled_binding(capsys: pytest.CaptureFixture[str]) -> None:
    """
    What the package index's `liburing` exports is the same, wherever both know a name.

    How many those are is printed, and which of ours it lacks.
    """
    binding = pytest.importorskip(
        "liburing", reason="the compiled binding is not installed (extra `test`, x86-64 alone)"
    )
    shared = {name for name in NUMBERS if isinstance(getattr(binding, name, None), int)}
    mask = (1 << 64) - 1
    theirs = {name: int(getattr(binding, name)) & mask for name in shared}
    with capsys.disabled():
        sys.stdout.write(
            f"\n{len(shared)} of {len(NUMBERS)} numbers stand in the compiled binding, which lacks "
            f"{', '.join(sorted(set(NUMBERS) - shared))}\n"
        )
    kin = re.compile(r"(IORING|IOSQE|IO_URING|IOU)_(?!VERSION)[A-Z0-9_]+$")
    exported = {name for name in dir(binding) if kin.match(name)}
    assert {name for name in exported - shared if not name.endswith(("_MASK", "_LAST"))} == set()
    assert theirs == {name: NUMBERS[name][0] & mask for name in shared}
    assert len(shared) > 100
