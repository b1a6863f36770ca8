"""
What the scenarios stand on: a storm that ends at a known time, and who is well after it.

A scenario is a program of a few actors.  Each works in rounds, with pauses in between as long as
in life, until it has finished one whole round that it began after the storm.  When that was, for
the last of them, is how long liveness took to return.
"""

from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

import uringio
from uringio import testing
from uringio.testing._dice import Dice

__all__ = ["QUICK_NS", "Stage", "patiently"]

T = TypeVar("T")

# Where the plan does not say when the faults stop.
QUICK_NS: Final = 2_000_000_000
# Half of the networks are near, the others as far as across a town, a country, a sea. [ns]
_LATENCIES: Final = (
    (20_000, 1_000_000), (20_000, 1_000_000), (1_000_000, 8_000_000), (10_000_000, 40_000_000),
)  # fmt: skip
_BACKOFF_SECONDS_MAX: Final = 1.0
_PATIENCE_NS: Final = 60 * 10**9
_TROUBLE: Final = (OSError, uringio.EndOfStreamError)


class Stage:
    """
    One scenario on one kernel.

    Attributes:
        kernel: The simulated kernel that it runs on.
        dice: Its choices, which are no part of the kernel's.
        storm_ns: When it ends. [ns]
        troubles: How often actors had to begin anew.
        recovery_ns: How long after the storm the last actor was well. [ns]
    """

    def __init__(self, name: str) -> None:
        self.kernel = testing.running_kernel()
        self.dice = Dice(self.kernel.seed, name)
        self.kernel.net.latency_ns = self.dice.pick(_LATENCIES)
        until_ns = self.kernel.faults.plan.until_ns
        self.storm_ns = QUICK_NS if until_ns is None else until_ns
        self.troubles = 0
        self.recovery_ns = 0

    def is_calm(self) -> bool:
        """Whether the storm is over."""
        return self.kernel.clock.elapsed_ns >= self.storm_ns

    def chance(self, share: float) -> bool:
        """Whether something happens that does so often."""
        return self.dice.chance(share)

    async def pause(self, seconds_max: float) -> None:
        """Let time pass: mostly a little, sometimes a lot, and never beyond the storm's end."""
        share = self.dice.below(1000) / 1000
        seconds = seconds_max * share * share * share
        left = (self.storm_ns - self.kernel.clock.elapsed_ns) / 1e9
        if left > 0:
            await uringio.sleep(min(seconds, left))

    async def act(self, one_round: Callable[[], Awaitable[object]], pause_seconds: float) -> None:
        """Do *one_round* again and again, until one has succeeded that began after the storm."""
        backoff_seconds = 0.02
        while True:
            is_calm = self.is_calm()
            failed = False
            try:
                await one_round()
            except* _TROUBLE:
                failed = True
            if failed:
                self.troubles += 1
                calm_ns = self.kernel.clock.elapsed_ns - self.storm_ns
                assert calm_ns < _PATIENCE_NS, "not well again a minute after the storm"
                await uringio.sleep(backoff_seconds)
                backoff_seconds = min(2 * backoff_seconds, _BACKOFF_SECONDS_MAX)
                continue
            backoff_seconds = 0.02
            if is_calm:
                took_ns = self.kernel.clock.elapsed_ns - self.storm_ns
                self.recovery_ns = max(self.recovery_ns, took_ns)
                return
            await self.pause(pause_seconds)


async def patiently(make: Callable[[], Awaitable[T]]) -> T:
    """Do what fails now and then until it succeeds."""
    while True:
        try:
            return await make()
        except OSError:
            await uringio.sleep(0.05)
