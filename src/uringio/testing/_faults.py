"""What goes wrong in a simulation: planned as shares, drawn by the seed, counted."""

import errno
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from ._clock import SimClock
from ._dice import Dice
from ._trace import Trace

__all__ = ["CALM", "STORM", "ExactFault", "FaultPlan", "Faults", "plan_of", "plan_text"]


@dataclass(frozen=True, slots=True)
class ExactFault:
    """
    One fault at one place.

    Attributes:
        op: The operation's name, such as ``"recv"``; ``"enter"`` is io_uring_enter(2) itself.
        nth: At which call of it, from 1.
        number: The errno to answer.
    """

    op: str
    nth: int
    number: int


@dataclass(frozen=True, slots=True)
class FaultPlan:
    """
    How often each kind of fault strikes, as a share from 0 to 1 of its occasions.

    None of these breaks a promise of the kernel, except *duplicate*: a completion that comes twice.

    Attributes:
        delay: Requests whose first attempt is late.
        delay_ns_max: By how much. [ns]
        reorder: Completions that overtake others.
        short: Transfers cut short.
        interrupt: Waits and requests that end with EINTR.
        starve: Receives that find no provided buffer, ENOBUFS.
        partial_submit: Enters that take a part of what is handed over.
        refuse_submit: Enters that find no memory for a request, EAGAIN.
        overflow: Completions that go by the overflow list.
        duplicate: Completions that come once more.
        cancel_miss: Cancel requests that do not find a request although it is there.
        reset: Sends that find the connection reset.
        exhaust: Accepts, opens and sockets that find no descriptor, EMFILE.
        disk_error: Transfers and syncs of files that fail with EIO.
        until_ns: Faults stop when so much simulated time has passed; None: never. [ns]
        exact: Faults at given places, which `until_ns` does not stop.
    """

    delay: float = 0.0
    delay_ns_max: int = 2_000_000
    reorder: float = 0.0
    short: float = 0.0
    interrupt: float = 0.0
    starve: float = 0.0
    partial_submit: float = 0.0
    refuse_submit: float = 0.0
    overflow: float = 0.0
    duplicate: float = 0.0
    cancel_miss: float = 0.0
    reset: float = 0.0
    exhaust: float = 0.0
    disk_error: float = 0.0
    until_ns: int | None = None
    exact: Sequence[ExactFault] = field(default=())


# Nothing goes wrong.
CALM: Final = FaultPlan()
# Everything that a program need not notice, often.
STORM: Final = FaultPlan(
    delay=0.15, reorder=0.2, short=0.2, interrupt=0.05, starve=0.05, partial_submit=0.05,
    refuse_submit=0.03, overflow=0.05, duplicate=0.02, cancel_miss=0.2,
)  # fmt: skip


def plan_text(plan: FaultPlan) -> str:
    """Write a plan as one word; `plan_of` reads it."""
    fresh = FaultPlan()
    changed = [
        f"{name}={getattr(plan, name)}"
        for name in FaultPlan.__slots__
        if name != "exact" and getattr(plan, name) != getattr(fresh, name)
    ]
    return ",".join([*changed, *(f"{one.op}#{one.nth}={one.number}" for one in plan.exact)])


def plan_of(text: str) -> FaultPlan:
    """Read what `plan_text` wrote; raises ValueError."""
    if text == "storm":
        return STORM
    values: dict[str, float | int] = {}
    exact: list[ExactFault] = []
    for part in filter(None, text.split(",")):
        name, equals, value = part.partition("=")
        op, mark, nth = name.partition("#")
        if mark and equals:
            exact.append(ExactFault(op, int(nth), int(value)))
        elif equals and name in FaultPlan.__slots__ and name != "exact":
            values[name] = int(value) if name.endswith(("_ns", "_max")) else float(value)
        else:
            raise ValueError(f"{part!r} is no fault: a kind and its share, or op#nth=errno")
    return replace(FaultPlan(exact=tuple(exact)), **values)  # type: ignore[arg-type]


class Faults:
    """
    Draws the faults of a plan.

    Attributes:
        counts: How often each kind has struck.
        stopped: Whether none is drawn any more.
    """

    def __init__(self, plan: FaultPlan, seed: int, clock: SimClock, trace: Trace) -> None:
        self.plan = plan
        self.counts: dict[str, int] = {}
        self.stopped = False
        self._clock = clock
        self._trace = trace
        self._dice = {kind: Dice(seed, kind) for kind in _KINDS}
        self._exact = {(one.op, one.nth): one.number for one in plan.exact}
        self._calls: dict[str, int] = {}

    @property
    def total(self) -> int:
        """How many faults have struck."""
        return sum(self.counts.values())

    def strikes(self, kind: str, detail: str = "") -> bool:
        """Whether a fault of this kind happens here."""
        if self.stopped:
            return False
        until_ns = self.plan.until_ns
        if until_ns is not None and self._clock.elapsed_ns >= until_ns:
            self.stopped = True
            return False
        share: float = getattr(self.plan, kind)
        if not self._dice[kind].chance(share):
            return False
        self._note(kind, detail)
        return True

    def below(self, kind: str, count: int) -> int:
        """Return a number from 0 to *count* - 1, of the stream of this kind."""
        return self._dice[kind].below(count)

    def exact(self, op: str) -> int:
        """Count a call of *op*; return the errno that is planned for it, or 0."""
        nth = self._calls[op] = self._calls.get(op, 0) + 1
        number = self._exact.get((op, nth), 0)
        if number:
            self._note("exact", f"{op} {nth} {errno.errorcode.get(number, number)}")
        return number

    def _note(self, kind: str, detail: str) -> None:
        self.counts[kind] = self.counts.get(kind, 0) + 1
        self._trace.add(f"fault {kind} {detail}")


_KINDS: Final = (
    "delay", "reorder", "short", "interrupt", "starve", "partial_submit", "refuse_submit",
    "overflow", "duplicate", "cancel_miss", "reset", "exhaust", "disk_error",
)  # fmt: skip
