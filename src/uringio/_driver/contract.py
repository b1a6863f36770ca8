"""
The completion contract that every driver fulfils, and the choice between them.

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
from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeAlias

from uringio._sys.errnos import SETUP_REMEDIES
from uringio._sys.memory import Memory
from uringio._sys.system import System, real_system
from uringio.errors import OpError, RingError, UsageError

from .direct import FixedFd
from .op import Awaited, Op

if TYPE_CHECKING:
    from .uring import UringDriver

__all__ = [
    "BACKENDS",
    "Deliver",
    "Driver",
    "MakeCancelled",
    "Statistics",
    "System",
    "make_driver",
]

Deliver: TypeAlias = Callable[[Op[object]], object]
MakeCancelled: TypeAlias = Callable[[Op[object]], BaseException]

BACKENDS = ("uring", "epoll")


class Statistics(NamedTuple):
    """
    Counters of a driver since it was made.

    Attributes:
        backend: ``"uring"`` or ``"epoll"``.
        submitted: Ops taken.
        delivered: Ops delivered.
        in_flight: Ops taken and not yet delivered or waiting for delivery.
        turns: Calls of `Driver.turn`.
        waits: System calls that waited or polled for completions (enter, epoll_wait).
        stray: Completions that belonged to no op: late, duplicate or unknown.
        starved: Receives that found every provided buffer taken, and were queued.
        provided: Buffers that the kernel may receive into; this and the next are 0 on epoll.
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

    def add_memory(self, memory: Memory, piece_bytes: int, /) -> None:
        """Have transfers in *memory* spare looking up its pages; raises `RingError`, OpError."""
        ...

    def remove_memory(self, memory: Memory, /) -> list[Awaited[None]]:
        """Undo that; what is returned ends when nothing uses it any more."""
        ...

    def add_file(self, fd: int, /) -> FixedFd:
        """Give *fd*'s file a slot of the driver's own; raises `OpError`."""
        ...

    def require_install(self) -> None:
        """Raise `UnsupportedError` where an INSTALL cannot be had."""
        ...


class Driver(Protocol):
    """See the module's head; attributes are bound closures, so calls cost one frame."""

    name: str
    system: System
    tables: Tables | None  # None: it has none

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

    def fire(self, op: Op[object], /) -> None:
        """End an EVENT op; nothing happens if it is not in flight any more."""
        ...

    def flush(self) -> None:
        """Hand over what was submitted, without waiting."""
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


def make_driver(
    deliver: Deliver,
    make_cancelled: MakeCancelled,
    *,
    backend: str | None = None,
    system: System | None = None,
) -> Driver:
    """
    Build a driver for the calling thread.

    Args:
        deliver: Called with each finished op; must only queue it.
        make_cancelled: Makes the scheduler's cancelled exception for an op.
        backend: ``"uring"``, ``"epoll"``, or None to take io_uring where it works.
        system: The system to run on; by default the real one.

    Raises:
        RingError: ``backend="uring"`` was asked for and cannot be had, or the ring failed for want
            of memory or descriptors, which is never papered over by falling back.
        UsageError: No such backend.
    """
    driver = _choose(backend, system, deliver, make_cancelled)
    from .forks import watch

    watch(driver)
    return driver


def _choose(
    backend: str | None, system: System | None, deliver: Deliver, make_cancelled: MakeCancelled
) -> Driver:
    chosen = system if system is not None else real_system()
    if backend not in (None, *BACKENDS):
        raise UsageError(f"no backend {backend!r}; there are {', '.join(BACKENDS)}")
    if backend != "epoll":
        try:
            return _working_uring_driver(chosen, deliver, make_cancelled)
        except RingError as error:
            if backend == "uring" or error.errno not in BLOCKED_ERRNOS:
                raise
    from .epoll import make_epoll_driver

    return make_epoll_driver(chosen, deliver, make_cancelled)


def _working_uring_driver(
    system: System, deliver: Deliver, make_cancelled: MakeCancelled
) -> "UringDriver":
    """Make a driver over a ring that can be entered as well: a filter may know any of the calls."""
    from .uring import make_uring_driver

    try:
        driver = make_uring_driver(system, deliver, make_cancelled)
    except RingError:
        raise
    except OSError as error:
        number = error.errno or 0
        remedy = SETUP_REMEDIES.get(number, "See io_uring_register(2)")
        refused = error.op if isinstance(error, OpError) else "making a pipe for the ring"
        raise RingError(number, f"{refused} failed", remedy) from error
    try:
        driver.flush()  # the read of the wake pipe, which every driver begins with
    except BaseException:
        if driver.ring.registered_by is not None:
            driver.ring.give_index_back()
        driver.leave()
        raise
    return driver


# EPERM and EACCES: forbidden here.  ENOSYS: absent, or hidden by a filter.  EINVAL: too old.
BLOCKED_ERRNOS = frozenset({1, 13, 22, 38})
