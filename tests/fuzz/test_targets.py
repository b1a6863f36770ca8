"""The fuzz targets on their seeds and on what once broke them; a few new inputs each."""

from collections.abc import Callable
from pathlib import Path

import pytest

from fuzz import __main__ as command
from fuzz import engine
from uringio._driver.uring_leases import Leases
from uringio._own import loans
from uringio._own.pool import Pool
from uringio._ring import queue
from uringio.proto._octets import ChunkedDecoder

KEPT = [
    pytest.param(name, path, id=f"{name}-{path.stem}")
    for name in engine.names()
    for kind in ("corpus", "regressions")
    for path in engine.corpus(name, kind)
]


@pytest.mark.parametrize(("name", "path"), KEPT)
def test_kept_inputs_break_nothing(name: str, path: Path) -> None:
    """Every seed, and every input that once broke something."""
    engine.target(name)(path.read_bytes())


@pytest.mark.parametrize("name", engine.names())
def test_each_target_has_seeds_and_takes_anything(name: str) -> None:
    """A batch of new inputs; nothing at all is an input, too."""
    assert len(engine.corpus(name)) >= 3
    engine.target(name)(b"")
    count, broken = engine.fuzz(name, 0.01, batch=15)
    assert broken is None
    assert count


# --- and they can fail ---------------------------------------------------------------------------


def drop_a_lease(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Leases, "_came_back", lambda self, bid, count, _: None)


def wrap_early(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queue, "U32_MASK", 0x7FFFFFFF)


def lose_a_transition(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loans.Loan, "give_back", lambda self: None)


def forget_a_release(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Pool, "take_back", lambda self, loan, *, forgotten: None)


def forget_the_end_of_a_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    inner = ChunkedDecoder.take

    def take(self: ChunkedDecoder, buffer: bytearray) -> bytes:
        return inner(self, buffer)[:3]  # what one look brings is cut

    monkeypatch.setattr(ChunkedDecoder, "take", take)


WRONG: dict[str, Callable[[pytest.MonkeyPatch], None]] = {
    "buffer_ring": drop_a_lease,
    "queue_indexes": wrap_early,
    "loans": lose_a_transition,
    "pool": forget_a_release,
    "chunked": forget_the_end_of_a_chunk,
}


@pytest.mark.parametrize("name", WRONG)
def test_a_planted_bug_breaks_a_seed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The seeds alone see it."""
    WRONG[name](monkeypatch)
    run = engine.target(name)
    with pytest.raises(Exception):  # noqa: B017 - how it shows depends on the target
        for path in engine.corpus(name):
            run(path.read_bytes())


def test_what_breaks_a_target_is_shrunk_kept_and_replayed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The input that broke it is kept, small, and met by the next run before all others."""

    def run(data: bytes) -> None:
        assert len(data) < 4, "more than three bytes"

    (tmp_path / "corpus" / "letters").mkdir(parents=True)
    (tmp_path / "corpus" / "letters" / "seed.bin").write_bytes(b"abc")
    monkeypatch.setattr(engine, "FOLDER", tmp_path)
    monkeypatch.setattr(engine, "target", lambda name: run)
    monkeypatch.setattr(command, "target", lambda name: run)
    count, broken = engine.fuzz("letters", 30.0)
    assert count
    assert broken is not None
    assert len(broken.read_bytes()) == 4
    assert len(engine._shortened(run, b"abcabcabc")) == 4
    assert engine.corpus("letters", "regressions") == [broken]
    monkeypatch.setattr(command, "names", lambda: ["letters"])
    with pytest.raises(AssertionError, match="more than three"):
        command.main(["--seconds", "0.01"])
    broken.unlink()
    monkeypatch.setattr(command, "fuzz", lambda name, seconds: (7, None))
    assert command.main(["--seconds", "0.01"]) == 0
    assert "letters: 7 inputs" in capsys.readouterr().out
