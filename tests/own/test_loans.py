"""Loans against their table, and handles that cannot lie."""

import gc
import weakref
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from uringio._own.buffer import Buffer
from uringio._own.loans import TRANSITIONS, Event, Loan, State, diagram
from uringio._sys.memory import Memory
from uringio.errors import BorrowedError, DoubleReleaseError, UsageError, UseAfterMoveError

WHICH = st.integers(0, 40)
PAGE = Path(__file__).parents[2] / "docs" / "internals" / "loans.md"


def made() -> Loan:
    memory = Memory(4096)
    return Loan(memory, memory.addr, 4096)


class Operation:
    """What a loan looks at when a handle does not fit."""

    def __init__(self, loan: Loan) -> None:
        self.finish: Callable[[object], object] | None = loan.take
        self.is_done = self.is_lost = False

    def done(self) -> bool:
        return self.is_done

    def came_to_nothing(self) -> bool:
        return self.is_lost


OPERATIONS: list[Operation] = []  # nothing else refers to them


def lend(loan: Loan, key: int, went: str = "recv_into on fd 7") -> Operation:
    operation = Operation(loan)
    OPERATIONS.append(operation)
    loan.lend(key, weakref.ref(operation), went)
    return operation


def lent(loan: Loan) -> None:
    lend(loan, loan.key)


def borrowed(loan: Loan) -> None:
    loan.borrow(loan.key)


def completed(loan: Loan) -> None:
    lent(loan)
    loan.complete()


REACH: dict[State, Callable[[Loan], object]] = {
    State.IDLE: lambda loan: None,
    State.BORROWED: borrowed,
    State.LENT: lent,
    State.RETURNED: completed,
    State.RELEASED: lambda loan: loan.release(loan.key),
}
EVENTS: dict[Event, Callable[[Loan, int], object]] = {
    Event.BORROW: lambda loan, key: loan.borrow(key),
    Event.END_VIEW: lambda loan, key: loan.end_view(),
    Event.LEND: lend,
    Event.COMPLETE: lambda loan, key: loan.complete(),
    Event.GIVE_BACK: lambda loan, key: loan.give_back(),
    Event.CLAIM: lambda loan, key: loan.claim(),
    Event.RELEASE: lambda loan, key: loan.release(key),
}


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("event", Event)
def test_every_event_in_every_state(state: State, event: Event) -> None:
    """Each cell of the table: the event leads where it says, or is refused and changes nothing."""
    loan = made()
    key = loan.key
    REACH[state](loan)
    assert loan.state == state
    after = TRANSITIONS.get((state, event))
    if after is not None:
        EVENTS[event](loan, key)
        assert loan.state == after
        return
    before = (loan.state, loan.key, loan.views)
    if event in {Event.END_VIEW, Event.COMPLETE, Event.GIVE_BACK}:
        EVENTS[event](loan, key)  # told by the library's own rooms: harmless when it is late
    else:
        with pytest.raises(UsageError):
            EVENTS[event](loan, key)
    assert (loan.state, loan.key, loan.views) == before


@pytest.mark.parametrize("state", State)
def test_only_an_idle_loan_opens(state: State) -> None:
    """The one comparison that hot code makes says yes in IDLE alone."""
    loan = made()
    key = loan.key
    REACH[state](loan)
    assert (loan.key == key) == (state == State.IDLE)


def test_a_claim_makes_every_older_key_useless() -> None:
    """After many trips no key of the past opens the loan again."""
    loan = made()
    keys = [loan.key]
    for _ in range(100):
        lend(loan, keys[-1])
        loan.complete()
        keys.append(loan.claim())
        for old in keys[:-1]:
            with pytest.raises(UseAfterMoveError, match="use the handle that the operation"):
                lend(loan, old)
    assert len(set(keys)) == 101


def test_a_failed_operation_turns_the_old_key_again() -> None:
    """What was moved into an operation that came to nothing is back where it came from."""
    loan = made()
    key = loan.key
    lent(loan)
    loan.give_back()
    assert loan.key == key
    lent(loan)


def test_the_drawing_is_of_the_table() -> None:
    """The page's diagram is what `diagram` draws; a changed table changes the page."""
    assert f"```mermaid\n{diagram()}```\n" in PAGE.read_text()


def test_the_refusal_names_where_it_went() -> None:
    """A handle whose buffer is away says which operation has it, and on which descriptor."""
    loan = made()
    key = loan.key
    lend(loan, key)
    assert "recv_into on fd 7, which still has it" in str(loan.refusal(key, "be read"))
    loan.complete()
    assert "whose result nobody has taken" in str(loan.refusal(key, "be read"))


def test_an_operation_that_came_to_nothing_is_seen_when_the_handle_is_used() -> None:
    """Failed, dropped, or put to another use: the old handle opens its memory again."""
    for spoil in (
        lambda one: setattr(one, "is_lost", True),
        lambda one: setattr(one, "finish", None),
        lambda one: OPERATIONS.clear(),
    ):
        loan = made()
        key = loan.key
        spoil(lend(loan, key))
        gc.collect()
        loan.require(key, "be read")
        assert (loan.state, loan.key) == (State.IDLE, key)


def test_an_operation_that_is_under_way_or_done_keeps_it() -> None:
    """While there may be a result, the old handle stays shut."""
    loan = made()
    key = loan.key
    operation = lend(loan, key)
    with pytest.raises(UseAfterMoveError, match="which still has it"):
        loan.require(key, "be read")
    operation.is_done = True
    with pytest.raises(UseAfterMoveError, match="whose result nobody has taken"):
        loan.require(key, "be read")
    loan.claim()
    with pytest.raises(UseAfterMoveError, match="use the handle"):
        loan.require(key, "be read")


class Handles(RuleBasedStateMachine):
    """Any program over handles of one buffer: at most one of them ever opens it."""

    def __init__(self) -> None:
        super().__init__()
        self.first = Buffer(64)
        self.loan = self.first.loan
        self.owner: Buffer | None = self.first
        self.mover: Buffer | None = None
        self.views: list[memoryview] = []
        self.all: list[Buffer] = [self.first]
        self.released = False

    def expected(self, handle: Buffer) -> type[UsageError] | None:
        if self.released:
            return UseAfterMoveError
        if handle is not self.owner:
            return UseAfterMoveError
        return BorrowedError if self.views else None

    @rule(which=WHICH)
    def move(self, which: int) -> None:
        handle = self.all[which % len(self.all)]
        error = self.expected(handle)
        if error is not None:
            with pytest.raises(error):
                lend(self.loan, handle.key)
            return
        lend(self.loan, handle.key)
        self.owner, self.mover = None, handle

    @rule()
    def succeed(self) -> None:
        if self.mover is None:
            return
        fresh = Buffer.__new__(Buffer)
        self.loan.complete()
        fresh.loan, fresh.key = self.loan, self.loan.claim()
        self.all.append(fresh)
        self.owner, self.mover = fresh, None

    @rule()
    def fail(self) -> None:
        self.loan.give_back()
        if self.mover is not None:
            self.owner, self.mover = self.mover, None

    @rule(which=WHICH)
    def borrow(self, which: int) -> None:
        handle = self.all[which % len(self.all)]
        if self.released or handle is not self.owner:
            with pytest.raises(UseAfterMoveError):
                handle.view().__enter__()
            return
        self.views.append(handle.view().__enter__())

    @rule()
    def end_view(self) -> None:
        if self.views:
            self.views.pop().release()
            gc.collect(0)

    @rule(which=WHICH)
    def release(self, which: int) -> None:
        handle = self.all[which % len(self.all)]
        error = self.expected(handle)
        if self.released and handle.key == -self.loan.key:
            error = DoubleReleaseError
        if error is not None:
            with pytest.raises(error):
                handle.release()
            return
        handle.release()
        self.released, self.owner = True, None

    @rule(which=WHICH)
    def write_and_read(self, which: int) -> None:
        handle = self.all[which % len(self.all)]
        if self.released or handle is not self.owner:
            with pytest.raises(UseAfterMoveError):
                handle.write(b"x")
            with pytest.raises(UseAfterMoveError):
                handle.read()
            return
        handle.write(b"12", offset=62)
        assert handle.read(62) == b"12"

    @invariant()
    def at_most_one_opens(self) -> None:
        opening = [one for one in self.all if one.key == self.loan.key]
        assert opening == ([self.owner] if self.owner and not self.views else [])


TestHandles = Handles.TestCase
TestHandles.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
