"""
What the crash lab's programs stand on: a seed, a scheduler, memory that must not change.

A program misuses the library through its public API, in an order that its seed draws.  It may be
refused, warned, or ended by its own exceptions; what it must not be is killed by a signal, hung, or
given wrong bytes.  It checks what it receives and the memory that is nobody's business, and says
what status it is going to end with: `Lab.verdict`.
"""

import contextlib
import random
import sys
from collections.abc import Awaitable, Callable, Coroutine
from typing import TypeVar, TypeVarTuple

from tests.kernel import uring_refusal
from tests.surface import schedulers
from tests.surface.schedulers import Scheduler, Spawned
from uringio.errors import UringioError

__all__ = [
    "POISON",
    "PROGRAMS",
    "Lab",
    "Planted",
    "Wrong",
    "endured",
    "numbered",
    "program",
    "refusals",
    "same",
]

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

# What peers send where nobody may be reading any more.
POISON = 0xAA
_HEALTHY = 0x5A
_CANARY_BYTES = (33, 48, 64, 100, 160, 512, 1000, 4096)


class Planted(Exception):
    """What programs raise in handlers, finalizers and hooks."""


class Wrong(BaseException):
    """A byte is not what it has to be."""


class Lab:
    """
    What one run of a program draws from.

    Attributes:
        rng: Of every choice.
        scheduler: A scheduler on a driver, chosen by the seed; mostly on io_uring.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.rng = random.Random(seed)
        backend = "epoll" if uring_refusal() or self.rng.random() < 0.15 else "uring"
        self.scheduler: Scheduler = schedulers.make(self.rng.choice(schedulers.NAMES), backend)
        self._canaries: list[bytes | bytearray] = []

    @property
    def backend(self) -> str:
        return self.scheduler.backend

    def run(self, async_fn: Callable[[*Ts], Coroutine[object, None, T]], *args: *Ts) -> T:
        """Run on a loop of its own, which has to end whatever is left."""
        return self.scheduler.run_and_leave(async_fn, *args)

    def spawn(
        self, async_fn: Callable[[*Ts], Coroutine[object, None, T]], *args: *Ts
    ) -> Spawned[T]:
        return self.scheduler.spawn(async_fn, *args)

    def chance(self, probability: float) -> bool:
        return self.rng.random() < probability

    async def passes(self, least: int, most: int) -> None:
        """Let the loop make a few passes."""
        for _ in range(self.rng.randint(least, most)):
            await self.scheduler.checkpoint()

    def numbered(self, count: int) -> bytes:
        return numbered(self.rng.randrange(1 << 20), count)

    # --- memory that is nobody's business --------------------------------------------------------

    def plant(self, count: int = 100) -> None:
        """Allocate small objects, which would be the ones to lie where memory was freed."""
        for _ in range(count):
            size = self.rng.choice(_CANARY_BYTES)
            canary: bytes | bytearray = bytes([_HEALTHY]) * size
            self._canaries.append(bytearray(canary) if self.chance(0.5) else canary)

    def inspect(self) -> None:
        """Raise `Wrong` if one of them has changed."""
        for canary in self._canaries:
            if canary.count(_HEALTHY) != len(canary):
                raise Wrong(f"memory of somebody else was written: {bytes(canary[:64])!r}")

    # --- the end ---------------------------------------------------------------------------------

    def verdict(self, status: int = 0) -> None:
        """Say that all was well, and with which exit status the program is about to end."""
        self.inspect()
        sys.stdout.write(f"verdict ok, status {status}\n")
        sys.stdout.flush()


PROGRAMS: dict[str, Callable[[Lab], None]] = {}


def program(function: Callable[[Lab], None]) -> Callable[[Lab], None]:
    """Enter a program into the list; its name is what it does wrong."""
    PROGRAMS[function.__name__] = function
    return function


def numbered(start: int, count: int) -> bytes:
    """Return *count* bytes of the stream of all numbers, four bytes each, from *start* on."""
    first = start // 4
    words = range(first, (start + count + 3) // 4)
    return b"".join(word.to_bytes(4, "big") for word in words)[start - first * 4 :][:count]


def same(got: bytes, expected: bytes, what: str) -> None:
    """Raise `Wrong` unless the bytes are those expected."""
    if got != expected:
        raise Wrong(f"{what}: {len(got)} bytes, {got[:40]!r} in place of {expected[:40]!r}")


async def endured(call: Callable[[*Ts], Awaitable[T]], *args: *Ts) -> T | None:
    """Call and await, and return None where the library or the kernel refused: misuse may be."""
    try:
        return await call(*args)
    except (UringioError, OSError, ValueError, BufferError):
        return None


def refusals() -> contextlib.AbstractContextManager[None]:
    """Suppress what misuse is answered with."""
    return contextlib.suppress(UringioError, OSError, ValueError, TypeError, BufferError)
