"""Any events, with any of the keys that were ever handed out: the table decides, and no old key."""

import weakref

from fuzz.choices import Choices
from uringio._own.loans import TRANSITIONS, Event, Loan, State
from uringio._sys.memory import Memory
from uringio.errors import UsageError

MEMORY = Memory(4096)
EVENTS = tuple(Event)


class Operation:
    """What a loan looks at when a handle does not fit; it goes on for ever."""

    def __init__(self, loan: Loan) -> None:
        self.finish = loan.take

    def done(self) -> bool:
        return False

    def came_to_nothing(self) -> bool:
        return False


def run(data: bytes) -> None:
    choices = Choices(data)
    loan = Loan(MEMORY, MEMORY.addr, 64)
    operation = Operation(loan)
    mover = weakref.ref(operation)
    keys = [loan.key]
    state, views = State.IDLE, 0
    while choices:
        event = EVENTS[choices.below(len(EVENTS))]
        key = keys[-1 - choices.below(min(len(keys), 4))]
        is_owner = key == keys[-1]
        wanted = TRANSITIONS.get((state, event))
        told_by_us = event in {Event.END_VIEW, Event.COMPLETE, Event.GIVE_BACK, Event.CLAIM}
        allowed = wanted is not None and (is_owner or told_by_us)
        try:
            if event is Event.BORROW:
                loan.borrow(key)
            elif event is Event.END_VIEW:
                loan.end_view()
            elif event is Event.LEND:
                loan.lend(key, mover, "an operation")
            elif event is Event.COMPLETE:
                loan.complete()
            elif event is Event.GIVE_BACK:
                loan.give_back()
            elif event is Event.CLAIM:
                keys.append(loan.claim())
            else:
                loan.release(key)
        except UsageError:
            assert not allowed, f"{event.name} in {state.name} was refused"
        else:
            late = told_by_us and event is not Event.CLAIM  # harmless, and changes nothing
            assert allowed or late, f"{event.name} in {state.name} was not refused"
            if allowed:
                views += (event is Event.BORROW) - (event is Event.END_VIEW)
                assert wanted is not None
                state = State.BORROWED if views else wanted
        assert loan.state == state
        assert loan.views == views
        opening = [one for one in keys if one == loan.key]
        assert opening == ([keys[-1]] if state is State.IDLE else [])
    assert operation is not None  # so long it must live
