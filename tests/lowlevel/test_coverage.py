"""Every operation that the kernel has is shown to have its effect, by some test of this folder."""

import importlib

import pytest

from tests.lowlevel.rig import PROVEN, name_of
from uringio.lowlevel import Opcode, RegisterOp, Ring

MODULES = (
    "test_effects_control",
    "test_effects_files",
    "test_effects_names",
    "test_effects_sockets",
    "test_registrations",
    "test_ring",
)

# Why there is no test of the effect: what machine it would take.
BOUND_TO_HARDWARE: dict[str, str] = {
    "Opcode.RECV_ZC": "a network card whose receive queue can be taken over",
    "RegisterOp.ZCRX_IFQ": "the same",
}

# Of the kernel's, and not yet reached from here.
NOT_YET: dict[str, str] = {
    "RegisterOp.MEM_REGION": "waits with registered arguments",
}

# What no released kernel that these tests have met knows: members of 6.19 and later.
YOUNG = {"Opcode.NOP128", "Opcode.URING_CMD128", "RegisterOp.ZCRX_CTRL", "RegisterOp.BPF_FILTER"}


@pytest.fixture(scope="module", autouse=True)
def proven() -> None:
    """Import the modules whose tests note what they prove."""
    for name in MODULES:
        importlib.import_module(f"tests.lowlevel.{name}")


def test_every_operation_of_this_kernel_has_its_effect(ring: Ring) -> None:
    """As many as the probe tells, less those that need a machine of their own."""
    here = {name_of(Opcode(one)) for one in ring.opcodes if one in list(Opcode)}
    assert len(here) > 40
    assert here - set(PROVEN) - set(BOUND_TO_HARDWARE) - YOUNG == set()


def test_every_registration_has_its_effect() -> None:
    """Each is proven, or its lack is explained."""
    excused = set(BOUND_TO_HARDWARE) | set(NOT_YET) | YOUNG
    left = {name_of(one) for one in RegisterOp} - set(PROVEN) - excused
    assert left == {"RegisterOp.USE_REGISTERED_RING"}  # a flag beside the others


def test_explanations_are_needed() -> None:
    """What is proven needs no excuse."""
    assert set(PROVEN) & (set(BOUND_TO_HARDWARE) | set(NOT_YET) | YOUNG) == set()
