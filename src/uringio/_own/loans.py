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
An operation that fails or is cancelled has nothing to hand out: it turns the old key again, and the
memory is back where it came from.

The key is a generation that never wraps, so a stale handle can never open what came after.

Source: the ownership rules are Rust's, where the compiler keeps them; here they are kept at the
first wrong step at run time, and by the type checker as far as types can see.
"""

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
    (State.RETURNED, Event.CLAIM): State.IDLE,
    (State.IDLE, Event.RELEASE): State.RELEASED,
}


class Home(Protocol):
    """Where memory goes that its owner gives up or forgets."""

    def take_back(self, loan: "Loan", /, *, forgotten: bool) -> None:
        """Take the memory of *loan*, which nothing refers to any more; must not raise."""
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
        went: The operation that has it, or had it last.
        went_fd: That operation's descriptor.
    """

    __slots__ = ("addr", "home", "key", "memory", "site", "size", "state", "views", "went",
                 "went_fd")  # fmt: skip

    def __init__(self, memory: Memory, addr: int, size: int, home: Home | None = None) -> None:
        self.memory = memory
        self.addr = addr
        self.size = size
        self.home = home
        self.site: str | None = None  # where it was asked for, in development mode
        self.state = State.IDLE
        self.key = 1
        self.views = 0
        self.went = ""
        self.went_fd = -1

    # --- events ----------------------------------------------------------------------------------

    def borrow(self, key: int) -> None:
        """Count one more view; raises as `refusal` says."""
        if key != abs(self.key) or self.state > State.BORROWED:
            raise self.refusal(key, "be viewed")
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

    def lend(self, key: int, went: str, fd: int) -> None:
        """
        Move it into the operation *went* on *fd*; raises as `refusal` says.

        Surface calls that are hot write these lines themselves.
        """
        if key != self.key:
            raise self.refusal(key, "be moved into " + went)
        self.key = -key
        self.state = State.LENT
        self.went = went
        self.went_fd = fd

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
        """Take it out of its operation; returns the key for a new handle."""
        if self.state != State.RETURNED:
            raise UsageError("the result of this operation was taken already")
        self.state = State.IDLE
        self.key = 1 - self.key
        return self.key

    def release(self, key: int) -> None:
        """Give it up for good; raises as `refusal` says."""
        if key != self.key:
            raise self.refusal(key, "be released", DoubleReleaseError)
        self.state = State.RELEASED
        self.key = -key
        if self.home is not None:
            home, self.home = self.home, None
            home.take_back(self, forgotten=False)

    # --- saying what is wrong --------------------------------------------------------------------

    def refusal(
        self, key: int, what: str, released_error: type[UsageError] = UseAfterMoveError
    ) -> UsageError:
        """
        Say why a handle with *key* does not open it.

        Args:
            what: What was asked for, as in "it cannot ...".
            released_error: The kind of error where it was released.
        """
        if self.state == State.RELEASED:
            return released_error(f"this buffer was released, so it cannot {what}")
        if key != abs(self.key):
            return UseAfterMoveError(
                f"this handle's buffer was moved into {self._place()}, so it cannot {what}; "
                "use the handle that the operation returned"
            )
        if self.state == State.BORROWED:
            views = "a view of it is" if self.views == 1 else f"{self.views} views of it are"
            return BorrowedError(f"{views} alive, so this buffer cannot {what}")
        came = "which still has it" if self.state == State.LENT else "whose result nobody has taken"
        return UseAfterMoveError(
            f"this buffer was moved into {self._place()}, {came}, so it cannot {what}"
        )

    def _place(self) -> str:
        return f"{self.went} on fd {self.went_fd}" if self.went_fd >= 0 else self.went

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
