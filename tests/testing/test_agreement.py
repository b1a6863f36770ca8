"""Generated programs come to the same on every driver, on the real and on simulated kernels."""

import os
import re
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.backends import CHOSEN, RUNG
from tests.kernel import uring_refusal
from tests.marks import needs_uring
from tests.older import RUNGS
from tests.testing import agreement
from tests.testing.agreement import Step, differences
from tests.testing.comparing import compare_files, compare_messages, compare_rings
from tests.testing.places import REAL, places, told_apart
from tests.testing.ring_agreement import polls_of_a_half_closed_stream
from uringio import testing
from uringio._sys.system import real_system

PROGRAM_COUNT = 6
RING_PROGRAM_COUNT = 10
MESSAGE_PROGRAM_COUNT = 2
FILE_PROGRAM_COUNT = 4
RUNG_PROGRAM_COUNT = 2


@pytest.fixture
def where() -> tuple[str, ...]:
    """Every driver that can be had, and each on every simulated kernel that it runs on."""
    backends: Sequence[str] = [RUNG or CHOSEN] if CHOSEN else REAL
    if uring_refusal():
        backends = [one for one in backends if not one.startswith("uring")]
    return places(backends)


@pytest.mark.parametrize("tcp", [True, False], ids=["tcp", "unix"])
def test_every_driver_and_kernel_does_the_same(
    where: tuple[str, ...], tcp: bool, tmp_path: Path
) -> None:
    """Streams, files, timeouts and cancellation in any order: every outcome agrees."""
    assert differences(range(PROGRAM_COUNT), tcp, where, str(tmp_path)) == {}


def test_a_difference_would_be_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where one of them answers otherwise, the step is named, and who says what."""
    steps = [Step("send", 0, 5), Step("recv", 1, 9)]
    monkeypatch.setattr(agreement, "program", lambda seed: steps)
    monkeypatch.setattr(agreement, "SETTLE_SECONDS", (0.001,))
    inner = agreement.run_at

    def run_at(place: str, *arguments: object) -> object:
        told = inner(place, *arguments)  # type: ignore[arg-type]
        return [*told[:-1], "nothing"] if place == "simulated poll" else told

    monkeypatch.setattr(agreement, "run_at", run_at)
    found = differences([7], True, places(["epoll", "poll"]), str(tmp_path))
    assert list(found) == [7]
    ((step, told),) = found[7]
    assert step == steps[1]
    assert [place for place, outcome in told.items() if outcome == "nothing"] == ["simulated poll"]
    assert len(set(told.values())) == 2
    assert told_apart({"here": 1, "there": 2, "yonder": 1}) == "1 on here, yonder; 2 on there"


def test_simulated_rings_do_what_real_ones_do() -> None:
    """Links, drains, multishot, timeouts, polls, cancels, messages, slots: completions agree."""
    if tuple(map(int, re.findall(r"\d+", os.uname().release)[:2])) < (6, 18):
        pytest.skip("it is Linux 6.18 that is simulated, and this is an older one")
    if refusal := uring_refusal():
        pytest.skip(refusal)
    for seed in range(RING_PROGRAM_COUNT):
        assert not (differing := compare_rings(seed)), f"seed {seed} {differing}"


@needs_uring
def test_half_closed_streams_are_polled_alike() -> None:
    """
    Both tell of RDHUP unasked, which ends a poll for room at once; and a multishot poll tells of it
    and goes on until there is room.
    """
    kernel = testing.SimKernel(0)
    simulated = polls_of_a_half_closed_stream(kernel.system, 1_000_000)
    assert simulated == [["1: 8192 0"], ["2: 8192 2"], ["2: 4 2"], ["2: ECANCELED 0", "3: 0 0"]]
    assert polls_of_a_half_closed_stream(real_system(), 5_000_000) == simulated


@pytest.mark.parametrize("unix", [False, True], ids=["udp", "unix"])
def test_messages_are_the_same_everywhere(
    where: tuple[str, ...], unix: bool, tmp_path: Path
) -> None:
    """Datagrams and passed descriptors: sizes, senders, truncation, refusals, ends agree."""
    for seed in range(MESSAGE_PROGRAM_COUNT):
        differing = compare_messages(seed, where, tmp_path, unix=unix)
        assert not differing, f"seed {seed} {differing}"


def test_files_are_the_same_everywhere(where: tuple[str, ...], tmp_path: Path) -> None:
    """Opening, writing, names, links, folders, copies: outcomes and the resulting tree agree."""
    for seed in range(FILE_PROGRAM_COUNT):
        differing = compare_files(seed, where, tmp_path)
        assert not differing, f"seed {seed} {differing}"


@needs_uring
def test_every_rung_of_the_ladder_does_the_same(tmp_path: Path) -> None:
    """Kernels that lack one optional part of io_uring, or many, on the real one: no difference."""
    where = ("uring", *RUNGS)
    assert differences(range(RUNG_PROGRAM_COUNT), False, where, str(tmp_path)) == {}
    for seed in range(RUNG_PROGRAM_COUNT):
        differing = compare_files(seed, where, tmp_path)
        assert not differing, f"seed {seed} {differing}"
