"""The fake is verified: generated programs come to the same on the real kernel and on it."""

import os
import re
from pathlib import Path

import pytest

import uringio
from tests.kernel import uring_refusal
from tests.testing import agreement, file_agreement, message_agreement, ring_agreement
from tests.testing.agreement import SETTLE_SECONDS, Step, differences
from uringio import testing
from uringio._sys.system import real_system

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
        steps = ring_agreement.program(seed)
        for settle_seconds in SETTLE_SECONDS:
            settle_ns = int(settle_seconds * 2e9)
            real = ring_agreement.outcomes(real_system(), steps, settle_ns)
            kernel = testing.SimKernel(seed)
            kernel.net.latency_ns = (0, 0)  # as within one machine
            simulated = ring_agreement.outcomes(kernel.system, steps, settle_ns)
            if real == simulated:
                break
        assert real == simulated, f"seed {seed}: {steps}"


@pytest.mark.parametrize("unix", [False, True], ids=["udp", "unix"])
def test_simulated_messages_are_what_real_ones_are(
    backend: str, unix: bool, tmp_path: Path
) -> None:
    """Datagrams and passed descriptors: sizes, senders, truncation, refusals, ends agree."""
    profile = "6.18" if backend == "uring" else "blocked"
    carry_out = message_agreement.outcomes
    for seed in range(MESSAGE_PROGRAM_COUNT):
        steps = message_agreement.program(seed)
        for settle in SETTLE_SECONDS:
            folder = tmp_path / f"{seed}-{settle}"
            folder.mkdir()
            real = uringio.run(carry_out, steps, unix, str(folder), settle, backend=backend)
            simulated = testing.run(
                carry_out,
                steps,
                unix,
                "/tmp",
                settle,
                seed=seed,
                profile=profile,
            )
            if real == simulated:
                break
        assert real == simulated, f"seed {seed}: {list(zip(steps, real, simulated, strict=True))}"


def test_simulated_files_do_what_real_ones_do(backend: str, tmp_path: Path) -> None:
    """Opening, writing, names, links, folders, copies: outcomes and the resulting tree agree."""
    profile = "6.18" if backend == "uring" else "blocked"
    for seed in range(FILE_PROGRAM_COUNT):
        steps = file_agreement.program(seed)
        folder = tmp_path / str(seed)
        folder.mkdir()
        real = uringio.run(file_agreement.outcomes, steps, str(folder), backend=backend)
        simulated = testing.run(
            file_agreement.outcomes,
            steps,
            "/tmp",
            seed=seed,
            profile=profile,
        )
        assert real == simulated, f"seed {seed}: {list(zip(steps, real, simulated, strict=False))}"
