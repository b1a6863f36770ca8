"""
Who may touch a piece of memory now: one table.

Memory that the kernel may write into cannot belong to two: a program that reads it early sees
half a message, one that frees it lets the kernel write into whatever comes after.  So a piece of
memory has a `Loan`, which is in one of five states:

- IDLE.  Its handle may do anything with it.
- BORROWED.  Views of it are alive.  It may be read and written through them, and lent to nobody.
- LENT.  An operation has it; nobody else may touch it, and no handle opens it.
- RETURNED.  The operation is over, and nobody has taken its result yet.
- RELEASED.  It belongs to the pool or to the allocator again; no handle will ever open it.

The events that lead from one to another are the rows of `TRANSITIONS`, and no other code decides
anything: `tests/own` holds every method against the table.

**Moves, and handles that cannot lie.**  A handle holds a key, and opens its loan while the loan has
the same one.  A loan's key is positive only while it is IDLE, and is renewed with every completed
operation, whose result is a new handle.  So one comparison of two numbers tells a handle that may
be used from one that is stale, borrowed, lent or released; what is wrong is worked out only then.

**Operations that come to nothing.**  One that failed, was cancelled, or was never begun has nothing
to hand out: the old handle opens the memory again.  Nobody needs to tell the loan.  It refers to
the operation, weakly, and looks at it when a handle does not fit: by then the operation is under
way, or done with a result to be claimed, or it has come to nothing (`Mover.came_to_nothing`).
Being right about that is safe because an operation ends only when the kernel has let go.

The key is a generation that never wraps, so a stale handle can never open what came after.

Source: the ownership rules are Rust's, where the compiler keeps them; here they are kept at the
first wrong step at run time, and by the type checker as far as types can see.
"""

import weakref
from collections.abc import Callable
from enum import IntEnum
from typing import Final, Protocol

from uringio._sys.memory import Memory
from uringio.errors import BorrowedError, DoubleReleaseError, UsageError, UseAfterMoveError

__all__ = ["TRANSITIONS", "Event", "Home", "Loan", "State", "diagram"]


class State(IntEnum):
    """Where a piece of memory is; see the top of this module."""

    IDLE = 0
    BORROWED = 1
    LENT = 2
    RETURNED = 3
    RELEASED = 4


class Event(IntEnum):
    """What can happen to a piece of memory."""

    BORROW = 0  # a view is handed out
    END_VIEW = 1  # the last view has gone
    LEND = 2  # an operation takes it
    COMPLETE = 3  # the operation is over and has succeeded
    GIVE_BACK = 4  # the operation was refused, has failed or was cancelled
    CLAIM = 5  # the awaiter takes the result, with a new handle
    RELEASE = 6  # its handle gives it up


TRANSITIONS: Final[dict[tuple[State, Event], State]] = {
    (State.IDLE, Event.BORROW): State.BORROWED,
    (State.BORROWED, Event.BORROW): State.BORROWED,
    (State.BORROWED, Event.END_VIEW): State.IDLE,
    (State.IDLE, Event.LEND): State.LENT,
    (State.LENT, Event.COMPLETE): State.RETURNED,
    (State.LENT, Event.GIVE_BACK): State.IDLE,
    (State.LENT, Event.CLAIM): State.IDLE,  # by an awaiter that is there when it completes
    (State.RETURNED, Event.CLAIM): State.IDLE,
    (State.IDLE, Event.RELEASE): State.RELEASED,
}


class Home(Protocol):
    """Where memory goes that its owner gives up or forgets."""

    def take_back(self, loan: "Loan", /, *, forgotten: bool) -> None:
        """Take the memory of *loan*, which nothing refers to any more; must not raise."""
        ...


class Mover(Protocol):
    """What a loan knows of the operation that has its memory."""

    @property
    def finish(self) -> Callable[[object], object] | None:
        """What makes its result: this loan's `take`, or it has been put to another use."""
        ...

    def done(self) -> bool:
        """Whether its outcome has been delivered."""
        ...

    def came_to_nothing(self) -> bool:
        """Whether it has ended without a result, or can never begin."""
        ...


class Loan:
    """
    One piece of memory, and who has it.

    Args:
        memory: The memory that *addr* lies in, which the loan keeps alive.
        addr: Its first byte. [address]
        size: [bytes]
        home: Whom to give it back to; None: the allocator.

    Attributes:
        state: See the top of this module.
        key: What a handle must have to open it; the negative of it while it cannot be opened.
        mover: The operation that has it, or had it last.
        went: That operation's name, and its descriptor if it has one.
    """

    __slots__ = ("addr", "home", "key", "memory", "mover", "site", "size", "state", "views", "went")

    def __init__(self, memory: Memory, addr: int, size: int, home: Home | None = None) -> None:
        self.memory = memory
        self.addr = addr
        self.size = size
        self.home = home
        self.site: str | None = None  # where it was asked for, in development mode
        self.state = State.IDLE
        self.key = 1
        self.views = 0
        self.mover: weakref.ref[Mover] | None = None
        self.went = ""

    # --- events ----------------------------------------------------------------------------------

    def require(self, key: int, what: str) -> None:
        """
        Raise as `refusal` says, unless a handle with *key* opens it after all.

        Args:
            what: What was asked for, as in "it cannot ...".
        """
        if self.key == key:
            return
        self._look()
        if self.key != key:
            raise self.refusal(key, what)

    def borrow(self, key: int) -> None:
        """Count one more view; raises as `refusal` says."""
        if self.key != -key or self.state != State.BORROWED:
            self.require(key, "be viewed")
        self.views += 1
        self.state = State.BORROWED
        self.key = -key

    def end_view(self) -> None:
        """Count one view less."""
        if self.state != State.BORROWED:
            return
        self.views -= 1
        if not self.views:
            self.state = State.IDLE
            self.key = -self.key

    def lend(self, key: int, mover: "weakref.ref[Mover]", went: str) -> None:
        """
        Move it into an operation; raises as `refusal` says.

        Surface calls that are hot write these lines themselves.

        Args:
            mover: The operation, whose ``hold`` is this loan from now on, and `take` its finish.
            went: Its name, for messages.
        """
        if key != self.key:
            self.require(key, "be moved into " + went)
        self.key = -key
        self.state = State.LENT
        self.mover = mover
        self.went = went

    def complete(self) -> None:
        """Note that the operation has succeeded, and that nobody has its result yet."""
        if self.state == State.LENT:
            self.state = State.RETURNED

    def give_back(self) -> None:
        """Undo a move whose operation came to nothing: the handle it came from opens it again."""
        if self.state == State.LENT:
            self.state = State.IDLE
            self.key = -self.key

    def claim(self) -> int:
        """Take it out of its operation, which has succeeded; returns the key for a new handle."""
        if self.state != State.LENT and self.state != State.RETURNED:
            raise UsageError("the result of this operation was taken already")
        self.state = State.IDLE
        self.key = 1 - self.key
        return self.key

    def take(self, count: object) -> object:
        """Make the result of the operation that has it, out of what the kernel answered."""
        return count, self.claim()

    def release(self, key: int) -> None:
        """Give it up for good; raises as `refusal` says."""
        if self.state == State.RELEASED and key == -self.key:
            raise DoubleReleaseError("this buffer was released already")
        if key != self.key:
            self.require(key, "be released")
        self.state = State.RELEASED
        self.key = -key
        if self.home is not None:
            home, self.home = self.home, None
            home.take_back(self, forgotten=False)

    # --- saying what is wrong --------------------------------------------------------------------

    def refusal(self, key: int, what: str) -> UsageError:
        """Say why a handle with *key* does not open it."""
        if self.state == State.RELEASED:
            return UseAfterMoveError(f"this buffer was released, so it cannot {what}")
        if key != abs(self.key):
            return UseAfterMoveError(
                f"this handle's buffer was moved into {self.went}, so it cannot {what}; use the "
                "handle that the operation returned"
            )
        if self.state == State.BORROWED:
            views = "a view of it is" if self.views == 1 else f"{self.views} views of it are"
            return BorrowedError(f"{views} alive, so this buffer cannot {what}")
        came = "which still has it" if self.state == State.LENT else "whose result nobody has taken"
        return UseAfterMoveError(
            f"this buffer was moved into {self.went}, {came}, so it cannot {what}"
        )

    def _look(self) -> None:
        """See what has become of the operation that has it."""
        if self.state != State.LENT:
            return
        mover = self.mover() if self.mover is not None else None
        if mover is None or mover.finish != self.take or mover.came_to_nothing():
            self.give_back()
        elif mover.done():
            self.complete()

    def __del__(self) -> None:
        # Nothing refers to it: no handle, no view, and no operation in flight.
        if self.home is not None:
            self.home.take_back(self, forgotten=True)


def diagram(transitions: dict[tuple[State, Event], State] | None = None) -> str:
    """Draw the table, as the Mermaid text in ``docs/internals/loans.md``."""
    lines = ["stateDiagram-v2", "    [*] --> IDLE: allocate"]
    for (state, event), after in (TRANSITIONS if transitions is None else transitions).items():
        words = event.name.lower().replace("_", " ")
        lines.append(f"    {state.name} --> {after.name}: {words}")
    lines.append("    RELEASED --> [*]")
    return "\n".join(lines) + "\n"
