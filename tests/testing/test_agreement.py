"""The fake is verified: generated programs come to the same on the real kernel and on it."""

from pathlib import Path

import pytest

from tests.testing import agreement
from tests.testing.agreement import Step, differences

PROGRAM_COUNT = 10


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
