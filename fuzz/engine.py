"""Run targets: over their corpus, and over what hypothesis makes of it."""

import hashlib
import importlib
import time
from collections.abc import Callable
from pathlib import Path

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

__all__ = ["FOLDER", "corpus", "fuzz", "names", "target"]

FOLDER = Path(__file__).parent
_BATCH = 100
_INPUT_BYTES_MAX = 2_000

Target = Callable[[bytes], None]


def names() -> list[str]:
    """List every target."""
    found = sorted(path.stem for path in (FOLDER / "targets").glob("*.py"))
    return [name for name in found if not name.startswith("_")]


def target(name: str) -> Target:
    """Return what a target does with an input."""
    found: Target = importlib.import_module(f"fuzz.targets.{name}").run
    return found


def corpus(name: str, kind: str = "corpus") -> list[Path]:
    """List a target's seeds, or with ``"regressions"`` what once broke something."""
    return sorted((FOLDER / kind / name).glob("*.bin"))


def inputs(name: str) -> st.SearchStrategy[bytes]:
    """Any bytes, and seeds with parts of them replaced, repeated, cut out or put in."""
    anything = st.binary(max_size=_INPUT_BYTES_MAX)
    seeds = [path.read_bytes() for path in (*corpus(name), *corpus(name, "regressions"))]
    if not seeds:
        return anything
    place, piece = st.integers(0, max(map(len, seeds))), st.binary(max_size=12)
    edit = st.tuples(place, st.integers(0, 12), st.one_of(piece, st.sampled_from(seeds)))
    edited = st.builds(_edited, st.sampled_from(seeds), st.lists(edit, max_size=6))
    return st.one_of(edited, edited, anything)


def _edited(seed: bytes, edits: list[tuple[int, int, bytes]]) -> bytes:
    for place, length, piece in edits:
        seed = seed[:place] + piece + seed[place + length :]
    return seed[:_INPUT_BYTES_MAX]


def _failure(run: Target, data: bytes) -> type[Exception] | None:
    try:
        run(data)
    except Exception as error:
        return type(error)
    return None


def _shortened(run: Target, data: bytes) -> bytes:
    """Leave out what need not be there: hypothesis may have stayed with the seed it began with."""
    kind, size = _failure(run, data), len(data)
    while kind is not None and (size := size // 2):
        start = 0
        while start < len(data):
            shorter = data[:start] + data[start + size :]
            if _failure(run, shorter) is kind:
                data = shorter
            else:
                start += size
    return data


def fuzz(name: str, seconds: float, batch: int = _BATCH) -> tuple[int, Path | None]:
    """
    Run a target for some time, or until it fails.

    Args:
        name: The target.
        seconds: After so long no other batch is begun. [seconds]
        batch: How many inputs are drawn at a time. [count]

    Returns:
        How many inputs it had; and where the one was written, shrunk, that broke it.
    """
    run = target(name)
    count = 0
    broken = b""

    def one(data: bytes) -> None:
        nonlocal count, broken
        count += 1
        try:
            run(data)
        except BaseException:
            broken = data
            raise

    deadline = time.monotonic() + seconds
    check = settings(
        max_examples=batch,
        deadline=None,
        database=None,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )(given(inputs(name))(one))
    try:
        check()  # at least one, however busy the machine is
        while time.monotonic() < deadline:
            check()
    except Exception:
        broken = _shortened(run, broken)
        folder = FOLDER / "regressions" / name
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{hashlib.blake2b(broken, digest_size=6).hexdigest()}.bin"
        path.write_bytes(broken)
        return count, path
    return count, None
