"""Everything that the kernel has is shown to have its effect, by some test of this folder."""

import ast
import os
import re
from collections.abc import Iterable
from enum import Enum
from functools import reduce
from operator import or_

import pytest

from tests.lowlevel.rig import PROVEN, REFUSED, SILENT, name_of
from tests.lowlevel.surface import (
    BOUND_TO_HARDWARE,
    CARRIERS,
    FOLDER,
    NEVER,
    PAGE,
    SEEN_ON,
    collect,
    function_of,
    is_later,
    makers,
    members,
    page,
    shown_by,
    status,
)
from uringio import lowlevel
from uringio.errors import OpError
from uringio.lowlevel import (
    BigCompletion,
    Completion,
    EnterFlags,
    Features,
    Opcode,
    ProvidedBuffers,
    RegisterOp,
    Ring,
    SetupFlags,
    SqeFlags,
    WaitRegion,
    ZeroCopyQueue,
    query,
)


@pytest.fixture(scope="module", autouse=True)
def proven() -> None:
    """Import the modules whose tests note what they show."""
    collect()


def names(found: Iterable[Enum]) -> set[str]:
    """Name them all."""
    return {name_of(one) for one in found}


def test_every_operation_of_this_kernel_has_its_effect(ring: Ring) -> None:
    """As many as the probe tells, less those that need a machine of their own; 62 on Linux 6.18."""
    here = names(Opcode(one) for one in ring.opcodes if one in list(Opcode))
    assert len(here) > 40
    assert here - set(PROVEN) - set(BOUND_TO_HARDWARE) - names(filter(is_later, Opcode)) == set()
    known = [one for one in Opcode if not is_later(one)]
    assert len(known) == 63
    assert len(names(known) & set(PROVEN)) == 62
    assert names(known) - set(PROVEN) == {"Opcode.RECV_ZC"}


def test_every_registration_has_its_effect() -> None:
    """36 on Linux 6.18, and the flag beside them, less the one that needs a network card."""
    known = [one for one in RegisterOp if not is_later(one)]
    assert len(known) == 37
    assert names(known) - set(PROVEN) == {"RegisterOp.ZCRX_IFQ"}


def test_every_flag_has_its_effect() -> None:
    """Each that the kernel of the page has; what is excused has a test all the same."""
    known = names(one for one in members() if not is_later(one))
    excused = set(BOUND_TO_HARDWARE) | set(NEVER) | set(SILENT)
    assert known - set(PROVEN) - excused == set()
    assert set(SILENT) == {"FsyncFlags.DATASYNC", "SpliceFlags.MOVE", "TimeoutFlags.BOOTTIME"}


def test_no_row_is_empty() -> None:
    """Each says what a program calls, which test shows it, and what was seen."""
    by_opcode = makers()
    for one in members():
        assert status(one), one
        assert shown_by(one), one
        assert function_of(one, by_opcode), one
        assert re.fullmatch(r"\d\.\d+", getattr(one, "since", "")), one


def test_explanations_are_needed() -> None:
    """What is proven needs no excuse, and nobody needs two."""
    excuses = [set(BOUND_TO_HARDWARE), set(NEVER), set(SILENT), names(filter(is_later, members()))]
    for index, one in enumerate(excuses):
        assert set(PROVEN) & one == set()
        for other in excuses[index + 1 :]:
            assert one & other <= {"BlockUringOp.ZONE_RESET_ALL"}
    assert set(REFUSED) <= set.union(*excuses)


def test_every_test_that_is_named_exists() -> None:
    """As a function of that module, so that a test that was renamed is not shown any more."""
    functions = {
        f"{path.stem}::{node.name}"
        for path in FOLDER.glob("test_*.py")
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    }
    named = {
        one for table in (PROVEN, REFUSED, SILENT) for tests in table.values() for one in tests
    }
    assert len(named) > 100
    assert named <= functions
    on_the_page = set(re.findall(r"test_\w+::test_\w+", PAGE.read_text(encoding="utf-8")))
    assert on_the_page <= functions


def test_every_function_that_is_named_exists() -> None:
    """What a program is told to call is there, with the argument that carries the flag."""
    by_opcode = makers()
    classes: tuple[type, ...] = (
        Ring,
        ProvidedBuffers,
        Completion,
        BigCompletion,
        WaitRegion,
        ZeroCopyQueue,
    )
    known = set(dir(lowlevel))
    for one in classes:
        for base in one.__mro__:
            attributes = {*vars(base), *vars(base).get("__annotations__", ())}
            known |= {f"{one.__name__}.{attribute}" for attribute in attributes}
    for call in {*CARRIERS.values(), *(function_of(one, by_opcode) for one in members())}:
        for name in re.findall(
            r"\b(?:[A-Z]\w+\.\w+|prep_\w+\w|Ring\b|query\w*|register_\w+)", call
        ):
            assert name in known, call
    assert {one.partition(".")[0] for one in CARRIERS} <= {type(one).__name__ for one in members()}


def test_first_kernels_agree_with_the_kernel_of_the_page(ring: Ring) -> None:
    """What it says it knows is what had come by then, to the bit; newer kernels know no less."""
    version = tuple(map(int, re.findall(r"\d+", os.uname().release)[:2]))
    if version < SEEN_ON:
        pytest.skip("QUERY came with Linux 6.18")
    try:
        found = query()
    except OpError as error:
        pytest.skip(str(error))

    def mask(kind: Iterable[Enum]) -> int:
        return reduce(or_, (one.value for one in kind if not is_later(one)), 0)

    told = {
        "setup": (found.setup_flags, mask(SetupFlags)),
        "enter": (found.enter_flags, mask(EnterFlags)),
        "features": (found.features, mask(Features)),
        "sqe": (found.sqe_flags, mask(SqeFlags)),
        "opcodes": ((1 << found.opcodes) - 1, (1 << 63) - 1),
        "registrations": ((1 << found.register_ops) - 1, (1 << 36) - 1),
    }
    for name, (theirs, ours) in told.items():
        if version == SEEN_ON:
            assert theirs == ours, name
        else:
            assert theirs & ours == ours, name
    assert ring.features & mask(Features) == mask(Features)


def test_the_page_is_up_to_date() -> None:
    """docs/reference/surface.md is what `python tools/surface.py` writes now."""
    assert PAGE.read_text(encoding="utf-8") == page()
