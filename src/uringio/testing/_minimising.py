"""
Fewer faults, and still the same failure.

Every fault that a run has drawn is recorded by its occasion, so any part of the list can be had
again without the rest.  The search is Zeller's delta debugging: leave out halves, then quarters,
and so on, for as long as the program goes wrong in the same way; in the end no single fault can be
left out.

Source: A. Zeller, R. Hildebrandt, "Simplifying and isolating failure-inducing input", 2002.
"""

import warnings
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import cast

from ._faults import CALM, ExactFault, FaultPlan, Strike
from ._kernel import SimKernel
from ._profiles import Profile
from ._running import replay_command, run

__all__ = ["Minimised", "minimise"]

Fault = Strike | ExactFault


@dataclass(frozen=True)
class Minimised:
    """
    What `minimise` found.

    Attributes:
        plan: The faults that are left, as a plan that needs no shares.
        fault_count_before: How many there were.
        fault_count: How many are left; without any one of them the failure is gone, or another.
        runs: How often the program ran.
        error: How it goes wrong with those.
        story: What each of the faults that are left did, and when.
        trace: The last events of that run.
        command: What to type to see it again.
    """

    plan: FaultPlan
    fault_count_before: int
    fault_count: int
    runs: int
    error: BaseException
    story: Sequence[str]
    trace: Sequence[str]
    command: str


def minimise(
    async_fn: Callable[[], Awaitable[object]],
    *,
    seed: int,
    profile: str | Profile = "6.18",
    faults: FaultPlan = CALM,
    prepare: Callable[[SimKernel], object] | None = None,
    runs_max: int = 500,
) -> Minimised | None:
    """
    Find few faults with which a program still goes wrong as it does with *faults*.

    Args:
        async_fn: The program, as for `run`; it runs many times.
        seed: The seed with which it goes wrong.
        profile: Which kernel to be; see `PROFILES`.
        faults: The plan with which it goes wrong.
        prepare: Called with each kernel before the program runs, to put files there, say.
        runs_max: The search ends after so many runs, with what it has by then.

    Returns:
        None if the program does not go wrong.
    """
    search = _Search(async_fn, seed, profile, faults, prepare, runs_max)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # of what failed runs leave behind
        return search.result()


class _Search:
    def __init__(
        self,
        async_fn: Callable[[], Awaitable[object]],
        seed: int,
        profile: str | Profile,
        faults: FaultPlan,
        prepare: Callable[[SimKernel], object] | None,
        runs_max: int,
    ) -> None:
        self._async_fn = async_fn
        self._seed = seed
        self._profile = profile
        self._faults = faults
        self._prepare = prepare
        self._runs_max = runs_max
        self._runs = 0
        self._wanted: frozenset[tuple[str, str, int]] = frozenset()
        self._found: tuple[SimKernel, BaseException]

    def result(self) -> Minimised | None:
        found = self._run(self._faults)
        if found is None:
            return None
        self._found = found
        self._wanted = _likeness(found[1])
        struck = list(found[0].faults.struck)
        left: list[Fault] = struck
        # Recorded, it must go wrong in the same way; if not, the program depends on more than that.
        if self._goes_wrong(struck):
            left = [] if self._goes_wrong([]) else self._shortened(struck)
        kernel, error = self._found
        return Minimised(
            plan=kernel.faults.plan,
            fault_count_before=len(struck),
            fault_count=len(left),
            runs=self._runs,
            error=error,
            story=tuple(kernel.faults.story),
            trace=tuple(kernel.trace.tail),
            command=replay_command(self._async_fn, kernel),
        )

    def _shortened(self, faults: list[Fault]) -> list[Fault]:
        parts = 2
        while len(faults) > 1 and self._runs < self._runs_max:
            size = -(-len(faults) // parts)
            for start in range(0, len(faults), size):
                rest = faults[:start] + faults[start + size :]
                if self._goes_wrong(rest):
                    faults = rest
                    parts = max(parts - 1, 2)
                    break
            else:
                if parts >= len(faults):
                    break
                parts = min(2 * parts, len(faults))
        return faults

    def _goes_wrong(self, faults: list[Fault]) -> bool:
        """Whether it goes wrong in the same way with these faults alone; remembers how."""
        if self._runs >= self._runs_max:
            return False
        found = self._run(
            FaultPlan(
                delay_ns_max=self._faults.delay_ns_max,
                stall_ns_max=self._faults.stall_ns_max,
                until_ns=self._faults.until_ns,
                exact=tuple(one for one in faults if isinstance(one, ExactFault)),
                at=tuple(one for one in faults if isinstance(one, Strike)),
            )
        )
        if found is None or _likeness(found[1]) != self._wanted:
            return False
        self._found = found
        return True

    def _run(self, plan: FaultPlan) -> tuple[SimKernel, BaseException] | None:
        self._runs += 1
        kernel = SimKernel(self._seed, self._profile, plan)
        if self._prepare is not None:
            self._prepare(kernel)
        try:
            run(self._async_fn, kernel=kernel)
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            return kernel, error
        return None


def _likeness(error: BaseException) -> frozenset[tuple[str, str, int]]:
    """Return what two failures have in common if they are the same: kinds, and failed asserts."""
    if isinstance(error, BaseExceptionGroup):
        group = cast("BaseExceptionGroup[BaseException]", error)
        return frozenset(like for one in group.exceptions for like in _likeness(one))
    trace, place = error.__traceback__, ("", 0)
    while trace is not None:
        if type(error) is AssertionError:
            place = trace.tb_frame.f_code.co_name, trace.tb_lineno
        trace = trace.tb_next
    return frozenset({(type(error).__qualname__, *place)})
