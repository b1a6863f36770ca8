"""What goes wrong in a simulation: planned as shares, drawn by the seed, counted and recorded."""

import errno
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from ._clock import SimClock
from ._dice import Dice
from ._trace import Trace

__all__ = [
    "CALM",
    "STORM",
    "ExactFault",
    "FaultPlan",
    "Faults",
    "OpFault",
    "Strike",
    "plan_of",
    "plan_text",
]


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

    def __str__(self) -> str:
        return f"{self.op}#{self.nth}={self.number}"


@dataclass(frozen=True, slots=True)
class OpFault:
    """
    One errno of one operation, now and then.

    Attributes:
        op: The operation's name, as of `ExactFault`; ``"*"`` is any, but not ``"enter"``.
        number: The errno to answer.
        share: At which share of its calls, from 0 to 1.
    """

    op: str
    number: int
    share: float

    @property
    def kind(self) -> str:
        """Under which name it is counted."""
        return f"{self.op}~{self.number}"

    def __str__(self) -> str:
        return f"{self.kind}={self.share}"


@dataclass(frozen=True, slots=True)
class Strike:
    """
    One fault that was drawn: what `Faults.struck` records, and `FaultPlan.at` has happen again.

    Attributes:
        kind: A share's name, such as ``"short"``.
        nth: At which of the occasions of this kind, from 1.
    """

    kind: str
    nth: int

    def __str__(self) -> str:
        return f"{self.kind}@{self.nth}"


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
        late: Results of the kernel's threads that are told late, when they cannot be withdrawn.
        end_shots: Multishot requests that end although nothing is wrong.
        lose: Datagrams that do not arrive.
        stall: System calls for which the program is stopped, so that the clock jumps.
        stall_ns_max: By how much. [ns]
        buggify: Places in this library, made for it, that take the seldom way; see `buggify`.
        until_ns: Faults stop when so much simulated time has passed; None: never. [ns]
        exact: Faults at given places, which `until_ns` does not stop.
        errors: Errnos of operations, now and then.
        at: Faults at given occasions, beside those that are drawn.
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
    late: float = 0.0
    end_shots: float = 0.0
    lose: float = 0.0
    stall: float = 0.0
    stall_ns_max: int = 2_000_000
    buggify: float = 0.0
    until_ns: int | None = None
    exact: Sequence[ExactFault] = field(default=())
    errors: Sequence[OpFault] = field(default=())
    at: Sequence[Strike] = field(default=())


# Nothing goes wrong.
CALM: Final = FaultPlan()
# Everything that a program need not notice, often.
STORM: Final = FaultPlan(
    delay=0.15, reorder=0.2, short=0.2, interrupt=0.05, starve=0.05, partial_submit=0.05,
    refuse_submit=0.03, overflow=0.05, duplicate=0.02, cancel_miss=0.2,
    late=0.05, end_shots=0.05, stall=0.01, buggify=0.1,
    errors=(OpFault("enter", errno.EBUSY, 0.02),),
)  # fmt: skip


def plan_text(plan: FaultPlan) -> str:
    """Write a plan as one word; `plan_of` reads it."""
    fresh = FaultPlan()
    changed = [
        f"{name}={getattr(plan, name)}"
        for name in FaultPlan.__slots__
        if name not in _LISTS and getattr(plan, name) != getattr(fresh, name)
    ]
    return ",".join([*changed, *map(str, (*plan.exact, *plan.errors, *plan.at))])


def plan_of(text: str) -> FaultPlan:
    """Read what `plan_text` wrote; raises ValueError."""
    if text == "storm":
        return STORM
    values: dict[str, float | int] = {}
    exact: list[ExactFault] = []
    strikes: list[Strike] = []
    errors: list[OpFault] = []
    for part in filter(None, text.split(",")):
        name, equals, value = part.partition("=")
        op, mark, nth = name.partition("#")
        kind, at, occasion = name.partition("@")
        erring, tilde, number = name.partition("~")
        if mark and equals:
            exact.append(ExactFault(op, int(nth), int(value)))
        elif tilde and equals and not at:
            errors.append(OpFault(erring, int(number), float(value)))
        elif at and not equals and (kind in _KINDS or "~" in kind):
            strikes.append(Strike(kind, int(occasion)))
        elif equals and name in FaultPlan.__slots__ and name not in _LISTS:
            values[name] = int(value) if name.endswith(("_ns", "_max")) else float(value)
        else:
            raise ValueError(
                f"{part!r} is no fault: a kind and its share, kind@nth, op#nth=errno, or "
                "op~errno=share"
            )
    plan = FaultPlan(exact=tuple(exact), errors=tuple(errors), at=tuple(strikes))
    return replace(plan, **values)  # type: ignore[arg-type]


class Faults:
    """
    Draws the faults of a plan.

    What a fault does, beside happening, depends on its occasion alone: one that is left out changes
    no other.

    Attributes:
        counts: How often each kind has struck.
        struck: Every fault that has struck, in order; as ``FaultPlan.at`` it happens again.
        story: What each of them did, and when.
        stopped: Whether none is drawn any more.
        last_ns: When the last one struck, in simulated time since the start. [ns]
    """

    def __init__(self, plan: FaultPlan, seed: int, clock: SimClock, trace: Trace) -> None:
        self.plan = plan
        self.counts: dict[str, int] = {}
        self.struck: list[Strike | ExactFault] = []
        self.story: list[str] = []
        self.stopped = False
        self.last_ns = 0
        self._clock = clock
        self._trace = trace
        self._shares: dict[str, float] = {kind: getattr(plan, kind) for kind in _KINDS}
        self._shares.update((one.kind, one.share) for one in plan.errors)
        self._shares.update((one.kind, 0.0) for one in plan.at if one.kind not in self._shares)
        self._dice = {kind: Dice(seed, kind) for kind in self._shares}
        self._occasions = dict.fromkeys(self._shares, 0)
        self._errors: dict[str, list[tuple[str, int]]] = {}
        for kind in self._shares:
            op, tilde, wanted = kind.partition("~")
            if tilde:
                self._errors.setdefault(op, []).append((kind, int(wanted)))
        self._at = {(one.kind, one.nth) for one in plan.at}
        self._seed = seed
        self._until_ns = plan.until_ns if plan.until_ns is not None else 1 << 64
        self._exact = {(one.op, one.nth): one.number for one in plan.exact}
        self._calls: dict[str, int] = {}

    @property
    def total(self) -> int:
        """How many faults have struck."""
        return len(self.struck)

    def strikes(self, kind: str, detail: str = "") -> bool:
        """Whether a fault of this kind happens here."""
        if self.stopped:
            return False
        if self._clock.elapsed_ns >= self._until_ns:
            self.stopped = True
            return False
        nth = self._occasions[kind] = self._occasions[kind] + 1
        drawn = self._dice[kind].chance(self._shares[kind])
        if not drawn and (kind, nth) not in self._at:
            return False
        self._note(kind, detail, Strike(kind, nth))
        return True

    def below(self, kind: str, count: int) -> int:
        """Return a number from 0 to *count* - 1, for the fault that has just struck."""
        nth = self._occasions[kind]
        digest = hashlib.blake2b(f"{self._seed}/{kind}/{nth}".encode(), digest_size=8).digest()
        return int.from_bytes(digest, "big") * count >> 64

    def exact(self, op: str) -> int:
        """Count a call of *op*; return the errno that is planned for it, or 0."""
        nth = self._calls[op] = self._calls.get(op, 0) + 1
        number = self._exact.get((op, nth), 0)
        if number:
            name = errno.errorcode.get(number, str(number))
            self._note("exact", f"{op} {nth} {name}", ExactFault(op, nth, number))
            return number
        if self._errors:
            for kind, wanted in self._errors.get(op, ()):
                if self.strikes(kind, op):
                    return wanted
            if op != "enter":
                for kind, wanted in self._errors.get("*", ()):
                    if self.strikes(kind, op):
                        return wanted
        return 0

    def _note(self, kind: str, detail: str, fault: Strike | ExactFault) -> None:
        self.counts[kind] = self.counts.get(kind, 0) + 1
        self.struck.append(fault)
        self.last_ns = self._clock.elapsed_ns
        self.story.append(f"{fault} ({detail or kind}, {self.last_ns / 1e9:.6f} s)")
        self._trace.add(f"fault {kind} {detail}")


_LISTS: Final = frozenset({"exact", "errors", "at"})
_KINDS: Final[tuple[str, ...]] = (
    "delay", "reorder", "short", "interrupt", "starve", "partial_submit", "refuse_submit",
    "overflow", "duplicate", "cancel_miss", "reset", "exhaust", "disk_error", "late", "end_shots",
    "lose", "stall", "buggify",
)  # fmt: skip
