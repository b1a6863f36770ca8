"""
Where a generated program can run: on the drivers over the real kernel, and on simulated kernels.

io_uring comes twice over the real kernel: as it is, and with nothing that is optional
(`tests.older`).
What is compared is what came of it in all of these places: it has to be the same in each.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TypeVar, TypeVarTuple

import uringio
from tests.older import RUNGS, in_place
from uringio import testing

__all__ = ["REAL", "is_simulated", "places", "run_at", "told_apart", "unlike"]

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

REAL = ("uring", "uring-plain", "epoll", "kqueue", "poll")
_SIMULATED = "simulated "
# The profiles that run each driver.
_TWINS = {
    "uring": ("6.18", "6.1", "6.0", "5.19"),
    "uring-plain": ("plain",),
    "epoll": ("blocked",),
    "kqueue": ("kqueue",),
    "poll": ("poll",),
}


def places(backends: Sequence[str] = REAL) -> tuple[str, ...]:
    """Name the drivers on the real kernel, and each of them on every simulated one it runs on."""
    simulated = [_SIMULATED + name for backend in backends for name in _TWINS.get(backend, ())]
    return (*backends, *simulated)


def is_simulated(place: str) -> bool:
    """Whether a place is a simulated kernel, where one program runs at a time."""
    return place.startswith(_SIMULATED)


def run_at(place: str, seed: int, async_fn: Callable[[*Ts], Awaitable[T]], *args: *Ts) -> T:
    """Run ``async_fn(*args)`` at a place."""
    if is_simulated(place):
        profile = place.removeprefix(_SIMULATED)
        return testing.run(async_fn, *args, seed=seed, profile=profile)
    with in_place(place if place in RUNGS else ""):
        return uringio.run(async_fn, *args, backend=place.partition("-")[0])


def unlike(traces: Mapping[str, Sequence[object]]) -> list[tuple[int, dict[str, object]]]:
    """Return each step of which not the same came everywhere: its number, and what came where."""
    found: list[tuple[int, dict[str, object]]] = []
    for at in range(max(map(len, traces.values()))):
        told = {place: trace[at] if at < len(trace) else None for place, trace in traces.items()}
        if any(one != next(iter(told.values())) for one in told.values()):
            found.append((at, told))
    return found


def told_apart(told: Mapping[str, object]) -> str:
    """Say what came where, the places of one outcome together."""
    by_outcome: dict[str, list[str]] = {}
    for place, outcome in told.items():
        by_outcome.setdefault(repr(outcome), []).append(place)
    return "; ".join(f"{outcome} on {', '.join(at)}" for outcome, at in by_outcome.items())
