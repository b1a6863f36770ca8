"""
The completion contract that every driver fulfils.

A driver takes ops and delivers their outcomes.  It is built once per running loop and is used by
one thread, `wake` excepted.  ``deliver`` is injected: the native scheduler and the asyncio loop
each pass the function that queues a finished op for its waiter, so no driver ever asks who is
waiting.

What every driver promises:

- Every submitted op is delivered exactly once, after its terminal completion.  Nothing the kernel
  may touch is let go of before.
- `cancel` is a request; a cancelled op is delivered with the scheduler's cancelled exception or the
  *reason* given, never with a value.  What happened anyway goes to the op's owner.  A CLOSE is
  never withdrawn, only reported as cancelled.  Cancelling an op whose outcome waits for delivery
  turns the outcome into the cancellation.
- Failures are `OpError`s in ``op.error``; `submit` raises only for misuse.
- `turn` runs no user code.
"""

from collections.abc import Callable
from typing import NamedTuple, Protocol, TypeAlias

from uringio._sys.memory import Memory
from uringio._sys.system import System
from uringio.errors import RingError

from .direct import FixedFd
from .op import Awaited, Op

__all__ = ["Deliver", "Driver", "MakeCancelled", "Statistics", "System"]

Deliver: TypeAlias = Callable[[Op[object]], object]
MakeCancelled: TypeAlias = Callable[[Op[object]], BaseException]


class Statistics(NamedTuple):
    """
    Counters of a driver since it was made.

    Attributes:
        backend: Which driver: ``"uring"``, ``"epoll"``, ``"kqueue"`` or ``"poll"``.
        submitted: Ops taken.
        delivered: Ops delivered.
        in_flight: Ops taken and not yet delivered or waiting for delivery.
        turns: Calls of `Driver.turn`.
        waits: System calls that waited or polled for completions (enter, epoll_wait, kevent, poll).
        stray: Completions that belonged to no op: late, duplicate or unknown.
        starved: Receives that found every provided buffer taken, and were queued.
        provided: Buffers that the kernel may receive into; these are 0 but on uring.
        spare: Buffers that can take the places of leased ones.
        leased: Buffers that receivers keep.
    """

    backend: str
    submitted: int
    delivered: int
    in_flight: int
    turns: int
    waits: int
    stray: int
    starved: int
    provided: int = 0
    spare: int = 0
    leased: int = 0


class Tables(Protocol):
    """What is registered with a driver that has tables for it."""

    def add_memory(self, memory: Memory, piece_bytes: int, /) -> bool:
        """
        Have transfers in *memory* spare looking up its pages; raises `RingError`, OpError.

        False where the kernel cannot, and nothing changes.
        """
        ...

    def remove_memory(self, memory: Memory, /) -> list[Awaited[None]]:
        """Undo that; what is returned ends when nothing uses it any more."""
        ...

    def add_file(self, fd: int, /) -> FixedFd:
        """Give *fd*'s file a slot of the driver's own; raises `UnsupportedError`, OpError."""
        ...

    def require_install(self) -> None:
        """Raise `UnsupportedError` where an INSTALL cannot be had."""
        ...


class Driver(Protocol):
    """See the module's head; attributes are bound closures, so calls cost one frame."""

    name: str
    system: System
    tables: Tables | None  # None: it has none
    refusal: RingError | None  # why it took the place of io_uring, where nobody asked for it

    @property
    def submit(self) -> Callable[[Op[object]], None]:
        """Take *op*, in state NEW; it is in flight when this returns."""
        ...

    @property
    def turn(self) -> Callable[[int | None], None]:
        """
        Hand over what was submitted, wait for outcomes, deliver them.

        The argument is the time on the system's monotonic clock until which to wait: 0 not at all,
        None for ever.  Returns early on any outcome and on `wake`.  A signal may end the wait too;
        a handler that wants that wakes.
        """
        ...

    def cancel(self, op: Op[object], reason: BaseException | None = None, /) -> bool:
        """
        Ask for *op* to end; False if it is not in flight.

        The awaiter gets *reason*, by default the scheduler's cancelled exception, which also
        overrides an earlier *reason*.
        """
        ...

    def abandon(self, op: Op[object], /) -> None:
        """Let go of an op in state NEW that will not be started."""
        ...

    @property
    def stand_down(self) -> Callable[[Op[object], bool], None]:
        """
        Have the receive that stands behind an op end; from any thread, where it need not wait.

        An op that is awaited goes on as a single receive.  With True, when this returns, everything
        that was received is in the op's value or its ``later``; raises `BusyError` should the
        kernel not end it.
        """
        ...

    @property
    def recv_bytes_max(self) -> int:
        """The most that one RECV returns, in bytes."""
        ...

    @property
    def polls_cheaply(self) -> bool:
        """Whether large pieces had better be waited for by a POLL, and read on the spot."""
        ...

    def fire(self, op: Op[object], /) -> None:
        """End an EVENT op; nothing happens if it is not in flight any more."""
        ...

    def flush(self) -> None:
        """Hand over what was submitted, without waiting; cancelled POLLs let go of their files."""
        ...

    def wake(self) -> None:
        """Make the current or next `turn` return; from any thread or signal handler."""
        ...

    @property
    def wake_fd(self) -> int:
        """Where single bytes wake the driver, for `signal.set_wakeup_fd`."""
        ...

    def register(self, fd: int, /) -> None:
        """Ready a stream socket or pipe for this driver's ops (blocking mode, poll set)."""
        ...

    def unregister(self, fd: int, /) -> None:
        """Forget *fd*; call before it is closed by anything but a CLOSE op."""
        ...

    def statistics(self) -> Statistics:
        """Return the counters."""
        ...

    def poison(self) -> None:
        """In a forked child: make every later use raise `RingForkedError`, touching nothing."""
        ...

    def leave(self) -> None:
        """
        Let go from outside of the driver's thread, which may have ended.

        Nothing may use the driver afterwards.  Nobody can wait for the kernel here: what is in
        flight is never delivered, and its memory leaked on purpose, with a `ResourceWarning`.
        """
        ...

    def close(self, deadline_ns: int | None = None, /) -> None:
        """
        Cancel what is in flight, wait for it until *deadline_ns* (default: a second), let go.

        What the kernel still holds by then is leaked on purpose, with a `ResourceWarning`: freed
        memory under a running request is worse.
        """
        ...
