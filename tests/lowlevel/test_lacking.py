"""
What Linux 6.18 does not have, and how it says so.

Each is refused by an errno that is pinned here, so that nobody mistakes silence for support.  Where
the running kernel has it, the test is skipped: then an effect can be shown, and should be.
"""

import errno
import os
import re
import socket
from collections.abc import Callable
from enum import Enum
from typing import Any

import pytest

from tests.lowlevel.rig import name_of, refusal, result
from tests.lowlevel.test_flags_control import parameters_of
from uringio._sys.layouts import QUERY_HDR
from uringio._sys.memory import pin
from uringio.errors import OpError, UnsupportedError
from uringio.lowlevel import (
    BlockUringOp,
    BpfCommand,
    BpfFilterFlags,
    Opcode,
    QueryOp,
    RegisterOp,
    Ring,
    SetupFlags,
    SocketUringOp,
    TimeoutFlags,
    ZcrxControl,
    ZcrxFeatures,
    ZcrxRegFlags,
    allocate,
    prep_cmd_getsockname,
    prep_cmd_zone_reset_all,
    prep_nop128,
    prep_timeout,
    prep_uring_cmd128,
)

MakeRing = Callable[..., Ring]


def running() -> tuple[int, int]:
    """Return the running kernel's version."""
    first, second = re.findall(r"\d+", os.uname().release)[:2]
    return int(first), int(second)


def skip_where_it_is(member: Enum) -> None:
    """Skip on a kernel that has it by its version."""
    since: str = member.since  # type: ignore[attr-defined]
    first, second = since.split(".")
    if running() >= (int(first), int(second)):
        pytest.skip(f"this kernel has {name_of(member)}: show its effect")


@refusal(SetupFlags.SQE_MIXED, SetupFlags.SQ_REWIND)
@pytest.mark.parametrize(
    ("flag", "needed"),
    [(SetupFlags.SQE_MIXED, 0), (SetupFlags.SQ_REWIND, SetupFlags.NO_SQARRAY)],
    ids=["SQE_MIXED", "SQ_REWIND"],
)
def test_rings_of_later_kinds(flag: SetupFlags, needed: int) -> None:
    """No ring is made."""
    skip_where_it_is(flag)
    assert parameters_of(4, flag | needed) == (-errno.EINVAL,)


@refusal(Opcode.NOP128, Opcode.URING_CMD128)
@pytest.mark.parametrize("opcode", [Opcode.NOP128, Opcode.URING_CMD128], ids=str)
def test_wide_operations(make_ring: MakeRing, opcode: Opcode) -> None:
    """Ours refuses them by name; the kernel, asked nevertheless, completes them with EINVAL."""
    skip_where_it_is(opcode)
    ring = make_ring(4, flags=SetupFlags.SQE128)
    makers: dict[Opcode, Callable[[], None]] = {
        Opcode.NOP128: lambda: prep_nop128(ring),
        Opcode.URING_CMD128: lambda: prep_uring_cmd128(ring, 0, 0),
    }
    with pytest.raises(UnsupportedError, match=rf"{opcode.name} .*Linux 6\.19"):
        makers[opcode]()
    ring.opcodes = frozenset()
    ring.fill = ring._make_fill()
    makers[opcode]()
    assert result(ring) == -errno.EINVAL


@refusal(RegisterOp.ZCRX_CTRL, ZcrxControl.FLUSH_RQ, ZcrxControl.EXPORT)
@refusal(RegisterOp.BPF_FILTER, BpfCommand.FILTER)
@refusal(BpfFilterFlags.DENY_REST, BpfFilterFlags.SZ_STRICT)
@pytest.mark.parametrize("op", [RegisterOp.ZCRX_CTRL, RegisterOp.BPF_FILTER], ids=str)
def test_later_registrations(ring: Ring, op: RegisterOp) -> None:
    """EINVAL, with the release that brought it; so no flag of theirs means anything."""
    skip_where_it_is(op)
    with pytest.raises(OpError, match=f"older than Linux {op.since}") as caught:
        ring.register(op, bytearray(72), 1)
    assert caught.value.errno == errno.EINVAL


@refusal(QueryOp.ZCRX, QueryOp.SCQ, ZcrxFeatures.RX_PAGE_SIZE)
@refusal(ZcrxRegFlags.IMPORT, ZcrxRegFlags.NODEV)
@pytest.mark.parametrize("question", [QueryOp.ZCRX, QueryOp.SCQ], ids=str)
def test_later_questions(ring: Ring, question: QueryOp) -> None:
    """The kernel answers the registration, and the question with EOPNOTSUPP: no zero-copy flags."""
    skip_where_it_is(question)
    if running() < (6, 18):
        pytest.skip("QUERY came with Linux 6.18")
    room = allocate(64)
    head = bytearray(QUERY_HDR.pack(0, room.addr, question, 16, 0))
    addr, _, _keep = pin(head, writable=True)
    core = ring._core
    assert core is not None
    assert core.system.io_uring_register(-1, RegisterOp.QUERY, addr, 0) == 0
    answer: Any = QUERY_HDR.unpack(head)[4]
    assert answer == -errno.EOPNOTSUPP


@refusal(SocketUringOp.GETSOCKNAME)
def test_the_name_of_a_socket(ring: Ring, pair: tuple[socket.socket, socket.socket]) -> None:
    """EOPNOTSUPP."""
    skip_where_it_is(SocketUringOp.GETSOCKNAME)
    prep_cmd_getsockname(ring, pair[0].fileno(), bytearray(16), bytearray(4))
    assert result(ring) == -errno.EOPNOTSUPP


@refusal(BlockUringOp.ZONE_RESET_ALL)
def test_rewinding_the_zones_of_a_disk(ring: Ring) -> None:
    """Of what is no disk: EOPNOTSUPP, as on a disk where the kernel lacks the command."""
    with open("/dev/zero", "rb") as file:
        prep_cmd_zone_reset_all(ring, file.fileno())
        assert result(ring) in {-errno.EOPNOTSUPP, -errno.EINVAL, -errno.ENOTTY}


@refusal(TimeoutFlags.IMMEDIATE_ARG)
def test_a_time_without_a_structure(ring: Ring) -> None:
    """EINVAL."""
    skip_where_it_is(TimeoutFlags.IMMEDIATE_ARG)
    prep_timeout(ring, 1, 0, TimeoutFlags.IMMEDIATE_ARG)
    assert result(ring) == -errno.EINVAL
