"""Same seed, same trace: a small share of what `make determinism` does."""

import sys

import pytest

from tools import determinism

SMALL = ["--seeds", "1", "--jobs", "1", "--only", "echo", "file copy"]


def test_hash_seeds_do_not_reach_the_traces(capsys: pytest.CaptureFixture[str]) -> None:
    """Two processes with other hash seeds run two scenarios to the same hashes."""
    assert determinism.main(["--hash-seeds", "1", "77", *SMALL]) == 0
    told = capsys.readouterr().out
    assert "0 of 2 runs of 1 seeds differ from the first" in told
    assert max(map(len, told.splitlines())) <= 100


def test_difference_is_found(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where one trace differs, the run fails and says where."""
    traces = iter([["0 aa bb", "1 cc dd"], ["0 aa bb", "1 cc ee"]])
    monkeypatch.setattr(determinism, "traces_of", lambda *_: next(traces))
    arguments = ["--pythons", sys.executable, "--hash-seeds", "1", "2"]
    assert determinism.main(arguments) == 1
    told = capsys.readouterr().out
    assert "seed 1 differs in scenario 2" in told
    assert "1 of 2 runs" in told
