"""
Which driver and scheduler run in this thread.

Both schedulers set these when they start to run and clear them when they stop.  Surface rooms read
them, and so need to know neither scheduler.
"""

import threading
from collections.abc import Callable, Coroutine
from contextvars import Context
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self, TypeVar

from uringio.errors import UsageError, WrongThreadError

if TYPE_CHECKING:
    from .contract import Driver
    from .op import Op

__all__ = [
    "Scheduler",
    "ServingGroup",
    "call_soon",
    "driver",
    "driver_for_start",
    "driver_of",
    "here",
    "loop",
    "running",
    "scheduler",
    "set_current",
]

T = TypeVar("T")


class ServingGroup(Protocol):
    """Tasks that end together: the part of a task group that surface code needs."""

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
        /,
    ) -> bool | None: ...

    def spawn(self, coroutine: Coroutine[object, None, None], /) -> None:
        """Start a task; an exception out of it cancels the group."""
        ...


class RunningTask(Protocol):
    """A native task: the part of it that an op looks at."""

    attention: bool


class Scheduler(Protocol):
    """
    What surface code may ask of whoever runs it.

    Attributes:
        driver: Of a native one, its own.
        task: The native task that runs now, if any.
    """

    @property
    def driver(self) -> object: ...

    @property
    def task(self) -> RunningTask | None: ...

    def serving_group(self) -> ServingGroup:
        """Return a group to be entered with ``async with``."""
        ...

    def call_soon(
        self, callback: "Callable[[Op[T]], object]", op: "Op[T]", context: Context | None, /
    ) -> None:
        """Call *callback* with *op* in the next pass."""
        ...

    def asyncio_loop(self) -> object:
        """Return asyncio's loop, or raise `UsageError` under the native scheduler."""
        ...


class _Current(threading.local):
    driver: "Driver | None" = None
    scheduler: Scheduler | None = None


here = _Current()


def set_current(driver: "Driver | None", scheduler: Scheduler | None) -> None:
    """Make *driver* and *scheduler* this thread's, or clear them with None."""
    here.driver = driver
    here.scheduler = scheduler


def running() -> bool:
    """Whether a driver runs in this thread."""
    return here.driver is not None


def driver() -> "Driver":
    """
    Return this thread's running driver.

    Raises:
        UsageError: Nothing of uringio runs in this thread.
    """
    found = here.driver
    if found is None:
        raise UsageError(
            "no uringio loop runs in this thread; call this from a task under uringio.run() or "
            "from a task on the loop of uringio.aio.new_event_loop()"
        )
    return found


def scheduler() -> Scheduler:
    """Return this thread's running scheduler; raises `UsageError` like `driver`."""
    found = here.scheduler
    if found is None:
        driver()
        raise UsageError("this driver runs without a scheduler")
    return found


def driver_for_start(op: "Op[T]") -> "Driver":
    """Return the driver that may start *op*; raises `WrongThreadError` when it is not this one."""
    found = driver()
    if op.home is not None and op.home is not found:
        raise WrongThreadError(f"{op!r} belongs to a handle of another loop or thread")
    return found


def driver_of(op: "Op[T]") -> "Driver":
    """Return the driver that has *op* in flight, seen from this thread."""
    return driver_for_start(op)


def call_soon(callback: "Callable[[Op[T]], object]", op: "Op[T]", context: Context | None) -> None:
    """Have the running scheduler call *callback* with *op* in its next pass."""
    scheduler().call_soon(callback, op, context)


def loop() -> object:
    """Return the running asyncio loop; raises `UsageError` elsewhere."""
    return scheduler().asyncio_loop()
