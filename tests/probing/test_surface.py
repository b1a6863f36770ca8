"""The record of what a kernel has, by name."""

import dataclasses
import errno

import pytest

import uringio
from tests.marks import needs_uring
from tests.ring.stand_ins import RefusesSetups
from uringio._ring.survey import Survey
from uringio.cli.surface import OPERATIONS, REGISTRATIONS, as_members, sections
from uringio.lowlevel import (
    CqeFlags,
    EnterFlags,
    Features,
    Opcode,
    RegisterOp,
    Ring,
    SetupFlags,
    SqeFlags,
)
from uringio.probing import Surface
from uringio.probing._report import probe_on
from uringio.probing._surface import describe

# Linux 6.1, by the table of releases that the enumerations are.
SINCE_6_1 = Survey(
    source="register_probe",
    opcodes=frozenset(range(Opcode.SENDMSG_ZC + 1)),
    register_ops=frozenset(range(RegisterOp.FILE_ALLOC_RANGE + 1)),
    features=Features.LINKED_FILE * 2 - 1,
    setup_flags=SetupFlags.DEFER_TASKRUN * 2 - 1,
    enter_flags=EnterFlags.REGISTERED_RING * 2 - 1,
    sqe_flags=SqeFlags.CQE_SKIP_SUCCESS * 2 - 1,
    workers=(8, 1000),
)


def release(since: str) -> tuple[int, ...]:
    return tuple(map(int, since.split(".")))


def words(surface: Surface, running: str) -> dict[str, dict[str, str]]:
    return {title: dict(rows) for title, rows in sections(surface, running)}


@needs_uring
def test_it_agrees_with_a_ring() -> None:
    """The names are those of `uringio.lowlevel`, and what a ring says is what the record says."""
    report = uringio.probe()
    surface = report.surface
    assert surface is not None
    with Ring(4) as ring:
        assert surface.opcodes == {one for one in Opcode if one in ring.opcodes}
        assert surface.features == ring.features
        assert surface.setup_flags & ring.setup_flags == ring.setup_flags
        assert report.workers == ring.register_iowq_max_workers()
    assert {type(one) for one in surface.opcodes} == {Opcode}
    assert {type(one) for one in surface.register_ops} == {RegisterOp}
    assert RegisterOp.PBUF_RING in surface.register_ops
    assert SqeFlags.IO_LINK in surface.sqe_flags
    assert EnterFlags.GETEVENTS in surface.enter_flags
    assert CqeFlags.MORE in surface.cqe_flags
    lacking = surface.lacks()
    assert len([one for one in lacking if isinstance(one, Opcode)]) == len(Opcode) - len(
        surface.opcodes
    )


@needs_uring
def test_the_record_cannot_be_changed() -> None:
    """It is a snapshot: no part of it can be assigned to, and its sets are frozen."""
    report = uringio.probe()
    for part in (report, report.machine, report.ring, report.surface, report.workers):
        assert part is not None
        with pytest.raises((AttributeError, dataclasses.FrozenInstanceError)):
            setattr(part, type(part)._fields[0], None)
        hash(part)


def test_what_an_older_kernel_lacks() -> None:
    """Of Linux 6.1 everything younger is lacking and nothing else, whatever its kind."""
    surface = describe(SINCE_6_1)
    lacking = surface.lacks()
    assert {release(one.since) > (6, 1) for one in lacking} == {True}
    everything = [
        *Opcode, *RegisterOp, *SetupFlags, *EnterFlags, *SqeFlags, *CqeFlags, *Features,
    ]  # fmt: skip
    younger = [one for one in everything if release(one.since) > (6, 1)]
    assert len(lacking) == len(younger)
    assert {(type(one), one) for one in lacking} == {(type(one), one) for one in younger}


def test_what_a_newer_kernel_has() -> None:
    """Numbers without a name are kept, and told apart from those that have one."""
    found = SINCE_6_1._replace(
        opcodes=SINCE_6_1.opcodes | {200},
        register_ops=SINCE_6_1.register_ops | {100, 101},
        features=SINCE_6_1.features | 1 << 40,
    )
    surface = describe(found)
    assert (surface.newer_opcodes, surface.newer_register_ops) == ((200,), (100, 101))
    assert surface.features & 1 << 40
    told = words(surface, "8.0.0")["What this kernel lacks"]["uringio"]
    assert "operations 200 and registrations 100, 101" in told


def test_what_could_not_be_learned_is_not_lacking() -> None:
    """Where a filter kept registrations and flags from being tried, none is said to be missing."""
    surface = describe(SINCE_6_1._replace(register_ops=frozenset(), enter_flags=0))
    assert not [one for one in surface.lacks() if isinstance(one, RegisterOp | EnterFlags)]
    assert [one for one in surface.lacks() if isinstance(one, Opcode)]
    told = words(surface, "6.1.0")
    assert not [title for title in told if title.startswith("Registrations")]
    assert "entering" not in told["Flags of this kernel"]


def test_people_are_told_which_release_brings_what() -> None:
    """By release, oldest first; what an older one had was left out of this kernel, or filtered."""
    surface = describe(SINCE_6_1._replace(opcodes=SINCE_6_1.opcodes - {Opcode.EPOLL_CTL}))
    told = words(surface, "6.1.55-generic")["What this kernel lacks"]
    assert told["Linux 5.6"].startswith("operation EPOLL_CTL (older than this kernel")
    assert told["Linux 6.9"] == "operation FTRUNCATE; registrations NAPI, UNREGISTER_NAPI"
    assert told["Linux 6.15"].startswith("operations RECV_ZC, EPOLL_WAIT")
    releases = [release(label.split()[1]) for label in told if label.startswith("Linux")]
    assert releases == sorted(releases)
    assert "tried" in told["known"]


def test_everything_here() -> None:
    """A kernel that has all is told so."""
    surface = Surface(
        "query", frozenset(Opcode), frozenset(RegisterOp), ~SetupFlags(0), ~EnterFlags(0),
        ~SqeFlags(0), ~CqeFlags(0), ~Features(0), (), (),
    )  # fmt: skip
    assert surface.lacks() == ()
    assert "nothing" in words(surface, "7.0")["What this kernel lacks"]


@pytest.mark.parametrize(("groups", "kind"), [(OPERATIONS, Opcode), (REGISTRATIONS, RegisterOp)])
def test_groups_name_what_there_is_once(
    groups: dict[str, str], kind: type[Opcode] | type[RegisterOp]
) -> None:
    """A name that is misspelt or in two groups would vanish, or be told twice."""
    grouped = [name for names in groups.values() for name in names.split()]
    assert len(grouped) == len(set(grouped))
    assert set(grouped) <= {one.name for one in kind}
    full = describe(
        SINCE_6_1._replace(opcodes=frozenset(Opcode), register_ops=frozenset(RegisterOp))
    )
    for title, rows in sections(full, "7.0"):
        if title.startswith(("Operations", "Registrations")):
            told = [name for _, names in rows for name in names.split(", ")]
            if set(told) <= {one.name for one in kind}:
                assert len(told) == len(set(told)) >= len(grouped)


def test_programs_get_names() -> None:
    """The JSON holds plain strings and numbers, with the release of everything that is lacking."""
    members = as_members(describe(SINCE_6_1))
    assert members["source"] == "register_probe"
    assert members["sqe_flags"] == [one.name for one in SqeFlags]
    lacks = members["lacks"]
    assert isinstance(lacks, list)
    assert {"kind": "operation", "name": "READ_MULTISHOT", "since": "6.7"} in lacks
    assert {"kind": "cqe_flag", "name": "BUF_MORE", "since": "6.12"} in lacks


@needs_uring
def test_no_ring_and_yet_a_surface() -> None:
    """Where set-up alone is forbidden, the kernel still says what it would have."""
    report = probe_on(RefusesSetups(1000, errno.EPERM))
    assert (report.works, report.workers) == (False, None)
    if report.surface is None:
        pytest.skip("this kernel cannot be asked without a ring")
    assert report.surface.source == "query"
    assert Opcode.READ in report.surface.opcodes
