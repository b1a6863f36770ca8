"""Restrictions and filters: what a ring, or all of a task's rings, may do."""

import errno
import struct
from collections.abc import Callable, Iterator

import pytest

from tests.fresh import FreshPython
from tests.kernel import uring_refusal
from tests.lowlevel.rig import effect, refusal, result
from uringio._sys import constants as k
from uringio._sys.layouts import BPF
from uringio._sys.system import System
from uringio.errors import OpError, UsageError
from uringio.lowlevel import (
    BpfCommand,
    BpfFilterFlags,
    Opcode,
    RegisterOp,
    RestrictionOp,
    Ring,
    SetupFlags,
    SqeFlags,
    prep_nop,
    register_task_bpf_filter,
    register_task_restrictions,
)

MakeRing = Callable[..., Ring]
# Classic BPF: return 0, and return 1.
DENY, ALLOW = (0x06, 0, 0, 0), (0x06, 0, 0, 1)


class Recording(System):
    """A system that notes filters, instead of telling the kernel of them."""

    def __init__(self) -> None:
        super().__init__()
        self.filters: list[tuple[tuple[int, ...], bytes, int]] = []

    def io_uring_register(self, fd: int, opcode: int, arg_addr: int, nr_args: int) -> int:
        """Note a filter, and its program."""
        if opcode != k.IORING_REGISTER_BPF_FILTER:
            return super().io_uring_register(fd, opcode, arg_addr, nr_args)
        fields = BPF.unpack(self.memory_at(arg_addr, BPF.size))
        program = bytes(self.memory_at(fields[6], 8 * fields[4]))
        self.filters.append((fields[:6], program, nr_args))
        return 0


@pytest.fixture
def recording() -> Iterator[tuple[Ring, Recording]]:
    """A ring whose filters are noted."""
    if reason := uring_refusal():
        pytest.skip(reason)
    system = Recording()
    with Ring(4, system=system) as ring:
        yield ring, system


@effect(RestrictionOp.REGISTER_OP, RestrictionOp.SQE_FLAGS_ALLOWED)
def test_registrations_and_flags_are_allowed_one_by_one(make_ring: MakeRing) -> None:
    """What is named works, and its like does not."""
    ring = make_ring(flags=SetupFlags.R_DISABLED)
    ring.register_restrictions(
        ops=[Opcode.NOP, Opcode.ASYNC_CANCEL],
        register_ops=[RegisterOp.FILES2],
        flags_allowed=SqeFlags.ASYNC,
    )
    ring.enable()
    ring.register_files_sparse(4)
    with pytest.raises(PermissionError, match="restrictions forbid"):
        ring.register_buffers_sparse(4)
    for flags, answer in ((SqeFlags.ASYNC, 0), (SqeFlags.IO_DRAIN, -errno.EACCES)):
        prep_nop(ring, flags=flags)
        assert result(ring) == answer


def test_what_the_kernel_is_told_of_a_filter(recording: tuple[Ring, Recording]) -> None:
    """The operation, flags, and the program's instructions as they are."""
    ring, system = recording
    ring.register_bpf_filter(
        Opcode.SOCKET,
        [(0x20, 0, 0, 16), (0x15, 0, 1, 2), ALLOW, DENY],
        flags=BpfFilterFlags.DENY_REST,
        pdu_bytes=12,
    )
    [(fields, program, count)] = system.filters
    assert fields == (1, 0, Opcode.SOCKET, BpfFilterFlags.DENY_REST, 4, 12)
    assert program == struct.pack("=" + "HBBI" * 4, 0x20, 0, 0, 16, 0x15, 0, 1, 2, *ALLOW, *DENY)
    assert count == 1


@refusal(RegisterOp.BPF_FILTER, BpfCommand.FILTER)
def test_a_filter_is_taken_or_refused_by_its_release(ring: Ring) -> None:
    """Linux 6.18 has none: EINVAL, explained; one that has them denies by EACCES."""
    refused = ""
    try:
        ring.register_bpf_filter(Opcode.NOP, [DENY])
    except OpError as error:
        refused = str(error)
    prep_nop(ring)
    answer = result(ring)
    assert ("older than Linux 7.0" in refused) == (answer == 0), refused
    assert answer in {0, -errno.EACCES}


@pytest.mark.parametrize(
    ("program", "text"),
    [
        ([], "1 to 4096 instructions, not 0"),
        ([ALLOW] * 4097, "1 to 4096 instructions, not 4097"),
        ([(1 << 16, 0, 0, 0)], "an instruction is"),
        ([(0x06, 256, 0, 0)], "an instruction is"),
        ([(0x06, 0, 0)], "an instruction is"),
    ],
    ids=["none", "too many", "code", "jump", "short"],
)
def test_programs_that_are_none(
    ring: Ring, program: list[tuple[int, int, int, int]], text: str
) -> None:
    """For a ring, and for a task."""
    with pytest.raises(ValueError, match=text):
        ring.register_bpf_filter(Opcode.NOP, program)
    with pytest.raises(ValueError, match=text):
        register_task_bpf_filter(Opcode.NOP, program)


def test_a_task_that_is_allowed_nothing() -> None:
    """Is refused before the kernel could make it so."""
    with pytest.raises(UsageError, match="name operations"):
        register_task_restrictions()


def test_restrictions_of_a_task(fresh_python: FreshPython) -> None:
    """
    Linux 6.18 refuses them by EINVAL; later ones bind every ring that the task makes.

    In a process of its own, since they are for good.
    """
    if reason := uring_refusal():
        pytest.skip(reason)
    fresh_python(
        """
        import ctypes, errno
        from uringio.errors import OpError
        from uringio.lowlevel import (
            Opcode, Ring, prep_nop, prep_openat, register_task_bpf_filter,
            register_task_restrictions,
        )
        ctypes.CDLL(None).prctl(38, 1, 0, 0, 0)  # PR_SET_NO_NEW_PRIVS
        refused = []
        for register in (
            lambda: register_task_bpf_filter(Opcode.OPENAT, [(0x06, 0, 0, 0)]),
            lambda: register_task_restrictions(ops=[Opcode.NOP, Opcode.ASYNC_CANCEL]),
        ):
            try:
                register()
            except OpError as error:
                assert error.errno == errno.EINVAL and "older than Linux" in str(error), error
                refused.append(error)
        with Ring(4) as ring:
            prep_nop(ring)
            assert ring.wait()[0][1] == 0
            prep_openat(ring, -100, "/", 0)
            [(_, found, _)] = ring.wait()
            assert found == -errno.EACCES if len(refused) < 2 else found > 0, (found, refused)
        """
    ).check()
