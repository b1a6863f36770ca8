"""Every operation that the kernel has is shown to have its effect, by some test of this folder."""

import pytest

from tests.lowlevel.rig import PROVEN, name_of
from tests.lowlevel.surface import BOUND_TO_HARDWARE, NOT_YET, PAGE, YOUNG, collect, page
from uringio.lowlevel import Opcode, RegisterOp, Ring


@pytest.fixture(scope="module", autouse=True)
def proven() -> None:
    """Import the modules whose tests note what they show."""
    collect()


def test_every_operation_of_this_kernel_has_its_effect(ring: Ring) -> None:
    """As many as the probe tells, less those that need a machine of their own."""
    here = {name_of(Opcode(one)) for one in ring.opcodes if one in list(Opcode)}
    assert len(here) > 40
    assert here - set(PROVEN) - set(BOUND_TO_HARDWARE) - YOUNG == set()


def test_every_registration_has_its_effect() -> None:
    """Each is proven, or its lack is explained."""
    excused = set(BOUND_TO_HARDWARE) | set(NOT_YET) | YOUNG
    left = {name_of(one) for one in RegisterOp} - set(PROVEN) - excused
    assert left == set()


def test_explanations_are_needed() -> None:
    """What is proven needs no excuse."""
    assert set(PROVEN) & (set(BOUND_TO_HARDWARE) | set(NOT_YET) | YOUNG) == set()


def test_the_page_is_up_to_date() -> None:
    """docs/reference/surface.md is what `python tools/surface.py` writes now."""
    assert PAGE.read_text(encoding="utf-8") == page()
