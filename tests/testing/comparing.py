"""Running one generated program on the real and on the simulated kernel, and what differs."""

from collections.abc import Callable
from pathlib import Path

import uringio
from tests.testing import file_agreement, message_agreement, ring_agreement
from tests.testing.agreement import SETTLE_SECONDS
from uringio import testing
from uringio._sys.system import real_system

PROFILES = {"uring": "6.18", "epoll": "blocked"}


def compare_rings(seed: int, _backend: str = "uring", _folder: Path | None = None) -> str:
    """Run a program of bare rings; what differs, or nothing."""
    steps = ring_agreement.program(seed)
    told = ""
    for settle_seconds in SETTLE_SECONDS:
        settle_ns = int(settle_seconds * 2e9)
        kernel = testing.SimKernel(seed)
        kernel.net.latency_ns = kernel.wake_ns = (0, 0)  # as within one machine
        real = ring_agreement.outcomes(real_system(), steps, settle_ns)
        simulated = ring_agreement.outcomes(kernel.system, steps, settle_ns)
        told = _told(steps, real, simulated)
        if not told:
            break
    return told


def compare_messages(seed: int, backend: str, folder: Path, *, unix: bool = False) -> str:
    """Run a program of datagrams and passed descriptors; what differs, or nothing."""
    steps = message_agreement.program(seed)
    carry_out = message_agreement.outcomes
    told = ""
    for settle in SETTLE_SECONDS:
        place = folder / f"{seed}-{settle}"
        place.mkdir()
        real = uringio.run(carry_out, steps, unix, str(place), settle, backend=backend)
        simulated = testing.run(
            carry_out, steps, unix, "/tmp", settle, seed=seed, profile=PROFILES[backend]
        )
        told = _told(steps, real, simulated)
        if not told:
            break
    return told


def compare_unix_messages(seed: int, backend: str, folder: Path) -> str:
    """Do the same on Unix sockets."""
    return compare_messages(seed, backend, folder, unix=True)


def compare_files(seed: int, backend: str, folder: Path) -> str:
    """Run a program on files and names; what differs, or nothing."""
    steps = file_agreement.program(seed)
    place = folder / str(seed)
    place.mkdir()
    carry_out = file_agreement.outcomes
    real = uringio.run(carry_out, steps, str(place), backend=backend)
    simulated = testing.run(carry_out, steps, "/tmp", seed=seed, profile=PROFILES[backend])
    return _told(steps, real, simulated)


COMPARISONS: dict[str, Callable[[int, str, Path], str]] = {
    "rings": compare_rings,
    "udp": compare_messages,
    "datagrams": compare_unix_messages,
    "files": compare_files,
}


def _told(steps: object, real: list[object], simulated: list[object]) -> str:
    if real == simulated:
        return ""
    pairs = zip(real, simulated, strict=False)
    at = next((at for at, (one, other) in enumerate(pairs) if one != other), -1)
    return f"at {at}: real {real[at]!r}, simulated {simulated[at]!r}; {steps}"
