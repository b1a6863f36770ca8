"""Kernels with less of io_uring: what they answer, and where there is too little of it."""

import errno
from dataclasses import replace

import pytest

from tests.marks import needs_uring
from tests.older import RUNGS, made_older, without
from uringio._driver.choice import make_driver
from uringio._driver.op import Op
from uringio._ring.survey import Survey, survey
from uringio._ring.trial import make_trial_ring, try_opcodes
from uringio._sys import constants as k
from uringio._sys.system import System
from uringio.errors import RingError
from uringio.testing import PROFILES, Profile

NEWEST = PROFILES["6.18"]
TOO_LITTLE = {
    "Linux 5.10": PROFILES["5.10"],
    "no provided rings": replace(NEWEST, refused=frozenset({k.IORING_REGISTER_PBUF_RING})),
    "no timed waits": replace(NEWEST, features=NEWEST.features & ~k.IORING_FEAT_EXT_ARG),
    "no cooperative work": replace(
        NEWEST,
        setup_flags=NEWEST.setup_flags
        & ~(k.IORING_SETUP_COOP_TASKRUN | k.IORING_SETUP_DEFER_TASKRUN),
    ),
    "no operation to receive": replace(NEWEST, opcodes=NEWEST.opcodes - {k.IORING_OP_RECV}),
}


def surveyed(system: System) -> Survey:
    found = survey(system, None)
    assert found is not None
    return found


def ignore(op: Op[object]) -> None:
    del op


@needs_uring
@pytest.mark.parametrize("rung", RUNGS)
def test_a_rung_is_what_it_says(rung: str) -> None:
    """What a survey finds on it is what its profile has, and this kernel: nothing more or less."""
    profile, here = RUNGS[rung], surveyed(System())
    system = made_older(System(), profile)
    found = surveyed(system)
    assert found.opcodes == here.opcodes & profile.opcodes
    assert found.register_ops == set(filter(profile.registers, here.register_ops))
    assert found.features == here.features & profile.features
    assert found.setup_flags == here.setup_flags & profile.setup_flags
    assert found.enter_flags == here.enter_flags & profile.enter_flags


@needs_uring
@pytest.mark.parametrize("rung", ["uring-6.1", "uring-plain", "uring-no-ftruncate"])
def test_operations_that_a_rung_lacks_fail_as_unknown_ones(rung: str) -> None:
    """Whoever does not ask, but makes the request, is answered by the kernel, with EINVAL."""
    profile = RUNGS[rung]
    ring = make_trial_ring(made_older(System(), profile))
    try:
        assert try_opcodes(ring) == profile.opcodes & surveyed(System()).opcodes
    finally:
        ring.close()


@pytest.mark.parametrize("profile", TOO_LITTLE.values(), ids=TOO_LITTLE)
def test_where_there_is_too_little_another_backend_runs(profile: Profile) -> None:
    """It is told why; who insists on io_uring is told what to do."""
    driver = make_driver(ignore, lambda _: BaseException(), system=made_older(System(), profile))
    driver.close()
    assert driver.name == "epoll"
    with pytest.raises(RingError, match="backend") as caught:
        make_driver(
            ignore,
            lambda _: BaseException(),
            backend="uring",
            system=made_older(System(), profile),
        )
    assert caught.value.errno in {errno.EINVAL, errno.ENOSYS}


def test_what_a_rung_lacks_is_told() -> None:
    """The reason for which a test is skipped there; nothing on the kernel as it is."""
    assert without("uring-5.19", "SEND_ZC", k.IORING_OP_SEND_ZC) == "uring-5.19 is without SEND_ZC"
    assert not without("uring-6.1", "SEND_ZC", k.IORING_OP_SEND_ZC)
    probe = k.IORING_REGISTER_PROBE
    assert without("uring-plain", "a probe", registration=probe) == "uring-plain is without a probe"
    assert not without("", "a probe", k.IORING_OP_SEND_ZC, registration=probe)
