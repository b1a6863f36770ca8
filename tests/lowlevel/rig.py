"""What tests of the public ring share: waiting with patience, and telling what they prove."""

from collections.abc import Callable
from enum import Enum
from typing import TypeVar

from uringio.lowlevel import Completion, Ring

# The most that a test waits for what must come. [nanoseconds]
PATIENCE_NS = 50_000_000_000

# What is refused by this kernel or this machine, by an errno that is pinned: by name -> the tests.
REFUSED: dict[str, set[str]] = {}

# What the kernel takes, and no program can tell from the lack of it: by name -> the tests that hold
# it against what the kernel refuses.
SILENT: dict[str, set[str]] = {}

F = TypeVar("F", bound=Callable[..., object])

# What is shown to have its effect on the real kernel: by name -> the tests that do.  By
# name, since equal numbers of different kinds are equal.
PROVEN: dict[str, set[str]] = {}


def name_of(op: Enum) -> str:
    """Name a number or flag with its kind, such as ``"Opcode.NOP"``."""
    return f"{type(op).__name__}.{op.name}"


def effect(*ops: Enum) -> Callable[[F], F]:
    """Note that a test shows the effect of operations or flags, not that none is refused."""
    return _marker(PROVEN, ops)


def refusal(*ops: Enum) -> Callable[[F], F]:
    """Note that a test pins by which errno the kernel or the machine refuses these."""
    return _marker(REFUSED, ops)


def silent(*ops: Enum) -> Callable[[F], F]:
    """Note that a test shows that the kernel knows these, where no program could see the effect."""
    return _marker(SILENT, ops)


def _marker(table: dict[str, set[str]], ops: tuple[Enum, ...]) -> Callable[[F], F]:
    def mark(function: F) -> F:
        for op in ops:
            test = f"{function.__module__.removeprefix('tests.lowlevel.')}::{function.__name__}"
            table.setdefault(name_of(op), set()).add(test)
        return function

    return mark


def done(ring: Ring, count: int = 1) -> list[Completion]:
    """Submit, and wait until *count* completions have come."""
    found = [Completion(*one) for one in ring.wait(count, PATIENCE_NS)]
    assert len(found) >= count, f"only {found} of {count} completions came"
    return found


def result(ring: Ring) -> int:
    """Submit, and return the result of the one request in flight."""
    [one] = done(ring)
    return one.res


def results(ring: Ring, count: int) -> dict[int, int]:
    """Submit, wait, and return results by user_data."""
    return {one.user_data: one.res for one in done(ring, count)}


def until_end(ring: Ring) -> list[Completion]:
    """Submit, wait until the one request in flight has ended, and return all it told."""
    found = done(ring)
    while found[-1].more:
        found += done(ring)
    return found
