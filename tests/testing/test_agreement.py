"""The fake is verified: generated programs come to the same on the real kernel and on it."""

import os
import re
from pathlib import Path

import pytest

from tests.kernel import uring_refusal
from tests.testing import agreement
from tests.testing.agreement import Step, differences
from tests.testing.comparing import compare_files, compare_messages, compare_rings

PROGRAM_COUNT = 10
RING_PROGRAM_COUNT = 12
MESSAGE_PROGRAM_COUNT = 5
FILE_PROGRAM_COUNT = 12


@pytest.mark.parametrize("tcp", [True, False], ids=["tcp", "unix"])
def test_the_simulated_kernel_does_what_the_real_one_does(
    backend: str, tcp: bool, tmp_path: Path
) -> None:
    """Streams, files, timeouts and cancellation in any order: every outcome agrees."""
    assert differences(range(PROGRAM_COUNT), tcp, backend, str(tmp_path)) == {}


def test_a_difference_would_be_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the simulation answers otherwise, the step is named."""
    steps = [Step("send", 0, 5), Step("recv", 1, 9)]
    monkeypatch.setattr(agreement, "program", lambda seed: steps)
    monkeypatch.setattr(agreement, "SETTLE_SECONDS", (0.001,))
    monkeypatch.setitem(agreement.PROFILES, "epoll", "6.18")
    inner = agreement.testing.run

    def run(*arguments: object, **options: object) -> list[str]:
        told = list(inner(*arguments, **options))  # type: ignore[arg-type]
        return [*told[:-1], "nothing"]

    monkeypatch.setattr(agreement.testing, "run", run)
    found = differences([7], True, "epoll", str(tmp_path))
    assert list(found) == [7]
    assert [(step, simulated) for step, _, simulated in found[7]] == [(steps[1], "nothing")]


def test_simulated_rings_do_what_real_ones_do() -> None:
    """Links, drains, multishot, timeouts, polls, cancels, messages, slots: completions agree."""
    if tuple(map(int, re.findall(r"\d+", os.uname().release)[:2])) < (6, 18):
        pytest.skip("it is Linux 6.18 that is simulated, and this is an older one")
    if refusal := uring_refusal():
        pytest.skip(refusal)
    for seed in range(RING_PROGRAM_COUNT):
        assert not (differing := compare_rings(seed)), f"seed {seed} {differing}"


@pytest.mark.parametrize("unix", [False, True], ids=["udp", "unix"])
def test_simulated_messages_are_what_real_ones_are(
    backend: str, unix: bool, tmp_path: Path
) -> None:
    """Datagrams and passed descriptors: sizes, senders, truncation, refusals, ends agree."""
    for seed in range(MESSAGE_PROGRAM_COUNT):
        differing = compare_messages(seed, backend, tmp_path, unix=unix)
        assert not differing, f"seed {seed} {differing}"


def test_simulated_files_do_what_real_ones_do(backend: str, tmp_path: Path) -> None:
    """Opening, writing, names, links, folders, copies: outcomes and the resulting tree agree."""
    for seed in range(FILE_PROGRAM_COUNT):
        differing = compare_files(seed, backend, tmp_path)
        assert not differing, f"seed {seed} {differing}"
