"""
One way to write a test for both schedulers.

A test gets a `Scheduler`, hands it an async function, and inside uses its `spawn`, `until` and
`checkpoint` where native code would use a task group and asyncio code a task.
"""

import asyncio
import os
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Generic, Protocol, TypeVar, TypeVarTuple

import uringio
from tests.fresh import package_path
from uringio import aio
from uringio._driver import current
from uringio._driver.op import EVENT, Op
from uringio._run import running
from uringio.errors import Cancelled

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

NAMES = ("native", "asyncio")


class Gate:
    """Something that tasks wait for, and that opens once; works under both schedulers."""

    def __init__(self) -> None:
        self.is_open = False
        self._waiting: list[Op[None]] = []

    def open(self) -> None:
        """Let everybody through, now and later."""
        self.is_open = True
        waiting, self._waiting = self._waiting, []
        for op in waiting:
            current.driver().fire(op)

    async def wait(self) -> None:
        """Return when it is open."""
        if not self.is_open:
            op: Op[None] = Op(EVENT)
            self._waiting.append(op)
            await op


class Spawned(Generic[T]):
    """
    A task that the test started.

    Attributes:
        error: What its function raised, also the scheduler's cancelled exception; None before.
    """

    def __init__(self, coroutine: Coroutine[object, None, T]) -> None:
        self._coroutine = coroutine
        self._ended = Gate()
        self._value: list[T] = []
        self.error: BaseException | None = None
        self.cancel: Callable[[], object] = lambda: None

    @property
    def ended(self) -> bool:
        """Whether the function has returned or raised."""
        return self._ended.is_open

    async def run(self) -> None:
        """Await the function and keep what comes of it."""
        try:
            self._value.append(await self._coroutine)
        except BaseException as error:
            self.error = error
            if isinstance(error, KeyboardInterrupt | SystemExit):
                raise
        finally:
            self._ended.open()

    def never_ran(self) -> None:
        """End a task that was cancelled before its first step, as asyncio does."""
        self._coroutine.close()
        self.error = asyncio.CancelledError()
        self._ended.open()

    async def wait(self) -> "Spawned[T]":
        """Wait for the function's end, however it ends."""
        await self._ended.wait()
        return self

    async def result(self) -> T:
        """Wait for the function's end and return what it returned, or raise what it raised."""
        await self.wait()
        if self.error is not None:
            raise self.error
        return self._value[0]

    @property
    def cancelled(self) -> bool:
        """Whether the function ended by the scheduler's cancelled exception."""
        return isinstance(self.error, Cancelled | asyncio.CancelledError)


class Scheduler(Protocol):
    """A scheduler on a driver."""

    name: str
    backend: str

    def run(self, async_fn: Callable[[*Ts], Coroutine[object, None, T]], *args: *Ts) -> T:
        """Run ``async_fn(*args)`` on a loop of its own; afterwards nothing may be in flight."""
        ...

    def run_and_leave(self, async_fn: Callable[[*Ts], Coroutine[object, None, T]], *args: *Ts) -> T:
        """Like `run`, but the tasks that it leaves behind are the loop's to end."""
        ...

    def spawn(
        self, async_fn: Callable[[*Ts], Coroutine[object, None, T]], *args: *Ts
    ) -> Spawned[T]:
        """Start ``async_fn(*args)`` as a task, from inside of `run`."""
        ...

    async def checkpoint(self) -> None:
        """Let every other ready task run once, and the driver turn."""
        ...

    async def until(self, condition: Callable[[], bool]) -> None:
        """Let others run until the condition holds."""
        ...


class _Common:
    name: str

    def __init__(self, backend: str) -> None:
        self.backend = backend

    def __repr__(self) -> str:
        return f"{self.name}-{self.backend}"

    def run(self, async_fn: Callable[[*Ts], Coroutine[object, None, T]], *args: *Ts) -> T:
        return self.run_and_leave(_nothing_in_flight_after, async_fn, args)

    def run_and_leave(self, async_fn: Callable[[*Ts], Coroutine[object, None, T]], *args: *Ts) -> T:
        raise NotImplementedError

    async def checkpoint(self) -> None:
        raise NotImplementedError

    async def until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            await self.checkpoint()


async def _nothing_in_flight_after(
    async_fn: Callable[[*Ts], Coroutine[object, None, T]], args: tuple[*Ts]
) -> T:
    driver = current.driver()
    before = driver.statistics().in_flight
    value = await async_fn(*args)
    assert driver.statistics().in_flight == before, "operations are still in flight"
    return value


class Native(_Common):
    """`uringio.run`."""

    name = "native"

    def run_and_leave(self, async_fn: Callable[[*Ts], Coroutine[object, None, T]], *args: *Ts) -> T:
        return uringio.run(async_fn, *args, backend=self.backend)

    def spawn(
        self, async_fn: Callable[[*Ts], Coroutine[object, None, T]], *args: *Ts
    ) -> Spawned[T]:
        spawned = Spawned(async_fn(*args))
        scope = uringio.CancelScope()
        spawned.cancel = scope.cancel

        async def scoped() -> None:
            with scope:
                await spawned.run()

        running.context().spawn(scoped)
        return spawned

    async def checkpoint(self) -> None:
        await uringio.checkpoint()


class Asyncio(_Common):
    """Tasks on the loop of `uringio.aio`."""

    name = "asyncio"

    def run_and_leave(self, async_fn: Callable[[*Ts], Coroutine[object, None, T]], *args: *Ts) -> T:
        backend = self.backend
        with asyncio.Runner(loop_factory=lambda: aio.new_event_loop(backend=backend)) as runner:
            return runner.run(async_fn(*args))

    def spawn(
        self, async_fn: Callable[[*Ts], Coroutine[object, None, T]], *args: *Ts
    ) -> Spawned[T]:
        spawned = Spawned(async_fn(*args))
        task = asyncio.get_running_loop().create_task(spawned.run())
        task.add_done_callback(lambda _: spawned.never_ran() if not spawned.ended else None)
        spawned.cancel = task.cancel  # and so hold the task, which the loop does weakly
        return spawned

    async def checkpoint(self) -> None:
        await asyncio.sleep(0)


def make(name: str, backend: str) -> Scheduler:
    """Build a scheduler by its name."""
    return Native(backend) if name == "native" else Asyncio(backend)


def with_tests() -> dict[str, str]:
    """Return the environment in which a fresh interpreter finds this module too."""
    root = str(Path(__file__).resolve().parents[2])
    return {"PYTHONPATH": os.pathsep.join([package_path(), root])}
