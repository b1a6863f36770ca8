"""
A driver as an object: the closures that a maker built, under the names of the contract.

The hot ones, `submit` and `turn`, are attributes, so that a call of them is a call of the closure
itself; schedulers bind them to locals anyway.
"""

from collections.abc import Callable

from uringio._sys.system import System
from uringio.errors import RingError, RingForkedError, WrongThreadError

from .contract import Statistics, Tables
from .op import SPENT, Op

__all__ = ["BoundDriver", "discard", "ring_of_another_thread", "ring_of_the_parent"]


def discard(op: Op[object]) -> None:
    """Deliver to nobody: the scheduler has gone."""


def nothing_stands(_op: Op[object], _wait: bool) -> None:
    """Nothing of this driver goes on while nobody waits."""


def ring_of_another_thread() -> Exception:
    """Build the error for using a ring outside of its thread."""
    return WrongThreadError(
        "this io_uring belongs to the thread that made it; from other threads only wake() and the "
        "loop's thread-safe calls may be used"
    )


def ring_of_the_parent() -> Exception:
    """Build the error for using a ring in a forked child."""
    return RingForkedError(
        "this process was forked while the ring was in use: the ring belongs to the parent. Start "
        "a new loop in the child"
    )


class BoundDriver:
    """See `uringio._driver.contract.Driver`; made by the makers of the drivers."""

    polls_cheaply = False
    recv_bytes_max = 65536

    def __init__(
        self,
        system: System,
        name: str,
        *,
        submit: Callable[[Op[object]], None],
        turn: Callable[[int | None], None],
        cancel: Callable[[Op[object], BaseException | None], bool],
        fire: Callable[[Op[object]], None],
        flush: Callable[[], None],
        wake: Callable[[], None],
        wake_fd: int,
        register: Callable[[int], None],
        unregister: Callable[[int], None],
        statistics: Callable[[], Statistics],
        poison: Callable[[], None],
        leave: Callable[[], None],
        close: Callable[[int | None], None],
    ) -> None:
        self.tables: Tables | None = None
        self.refusal: RingError | None = None
        self.stand_down: Callable[[Op[object], bool], None] = nothing_stands
        self.system = system
        self.name = name
        self.submit = submit
        self.turn = turn
        self.flush = flush
        self.wake = wake
        self.wake_fd = wake_fd
        self.statistics = statistics
        self.poison = poison
        self.leave = leave
        self._cancel = cancel
        self._fire = fire
        self._register = register
        self._unregister = unregister
        self._close = close

    def cancel(self, op: Op[object], reason: BaseException | None = None, /) -> bool:
        """See the contract."""
        return self._cancel(op, reason)

    def fire(self, op: Op[object], /) -> None:
        """See the contract."""
        self._fire(op)

    def abandon(self, op: Op[object], /) -> None:
        """See the contract."""
        op.memory = None
        op.value = None  # of a send too, whose value is there before it starts
        op.state = SPENT

    def register(self, fd: int, /) -> None:
        """See the contract."""
        self._register(fd)

    def unregister(self, fd: int, /) -> None:
        """See the contract."""
        self._unregister(fd)

    def close(self, deadline_ns: int | None = None, /) -> None:
        """See the contract."""
        self._close(deadline_ns)
