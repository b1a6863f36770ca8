"""Running one generated program at each of several places, and what differs."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from tests.testing import file_agreement, message_agreement, ring_agreement
from tests.testing.agreement import SETTLE_SECONDS
from tests.testing.places import is_simulated, run_at, told_apart, unlike
from uringio import testing
from uringio._sys.system import real_system


def compare_rings(seed: int, _where: Sequence[str] = (), _folder: Path | None = None) -> str:
    """Run a program of bare rings, real and simulated; what differs, or nothing."""
    steps = ring_agreement.program(seed)
    told = ""
    for settle_seconds in SETTLE_SECONDS:
        settle_ns = int(settle_seconds * 2e9)
        kernel = testing.SimKernel(seed)
        kernel.net.latency_ns = kernel.wake_ns = (0, 0)  # as within one machine
        real = ring_agreement.outcomes(real_system(), steps, settle_ns)
        simulated = ring_agreement.outcomes(kernel.system, steps, settle_ns)
        told = _told(steps, {"real": real, "simulated": simulated})
        if not told:
            break
    return told


def compare_messages(seed: int, where: Sequence[str], folder: Path, *, unix: bool = False) -> str:
    """Run a program of datagrams and passed descriptors; what differs, or nothing."""
    steps = message_agreement.program(seed)
    told = ""
    for settle in SETTLE_SECONDS:
        traces = {
            place: run_at(
                place, seed, message_agreement.outcomes, steps, unix,
                _folder_at(place, folder, f"{seed}-{settle}"), settle,
            )
            for place in where
        }  # fmt: skip
        told = _told(steps, traces)
        if not told:
            break
    return told


def compare_unix_messages(seed: int, where: Sequence[str], folder: Path) -> str:
    """Do the same on Unix sockets."""
    return compare_messages(seed, where, folder, unix=True)


def compare_files(seed: int, where: Sequence[str], folder: Path) -> str:
    """Run a program on files and names; what differs, or nothing."""
    steps = file_agreement.program(seed)
    traces = {
        place: run_at(
            place, seed, file_agreement.outcomes, steps, _folder_at(place, folder, str(seed))
        )
        for place in where
    }
    return _told(steps, traces)


COMPARISONS: dict[str, Callable[[int, Sequence[str], Path], str]] = {
    "rings": compare_rings,
    "udp": compare_messages,
    "datagrams": compare_unix_messages,
    "files": compare_files,
}


def _folder_at(place: str, folder: Path, name: str) -> str:
    if is_simulated(place):
        return "/tmp"
    mine = folder / f"{place}-{name}"
    mine.mkdir()
    return str(mine)


def _told(steps: object, traces: Mapping[str, Sequence[object]]) -> str:
    found = unlike(traces)
    return f"at {found[0][0]}: {told_apart(found[0][1])}; {steps}" if found else ""
