"""
`run_asyncio`: asyncio's programs under simulation, on the event loop of `uringio.aio`.

asyncio itself walks sets of tasks when it cancels several at once (`TaskGroup`, the end of
`asyncio.run`), in the order of their addresses.  A trace is the same each time as far as a program
leaves that to no set.
"""

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Generator
from concurrent.futures import Executor
from typing import TYPE_CHECKING, NoReturn, TypeVar, TypeVarTuple

from uringio._driver.choice import make_driver
from uringio._driver.contract import Driver
from uringio._sys.sockaddr import AddressTuple
from uringio.aio.loop import EventLoop
from uringio.aio.signals import Signals
from uringio.aio.tasks import make_cancelled

from ._faults import CALM, FaultPlan
from ._kernel import SimKernel
from ._profiles import Profile
from ._running import replay_command
from .errors import NotSimulatedError

__all__ = ["SimEventLoop", "run_asyncio"]

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class _NoSignals(Signals):
    """Signals go where they go: no descriptor of the process is one of the simulation's."""

    @contextlib.contextmanager
    def watched(self, wake_fd: int) -> Generator[None, None, None]:
        """See `Signals`."""
        yield


class SimEventLoop(EventLoop):
    """
    The event loop of `uringio.aio` on a simulated kernel: its clock, sockets, names and threads.

    Args:
        kernel: The kernel.
    """

    def __init__(self, kernel: SimKernel) -> None:
        self.kernel = kernel
        super().__init__()
        self._signals = _NoSignals(self)
        self._clock_resolution = 1e-9

    if TYPE_CHECKING:
        _clock_resolution: float

    def make_driver(self) -> Driver:
        """See `uringio.aio`."""
        kernel = self.kernel
        return make_driver(
            self._completed.append,
            make_cancelled,
            backend=kernel.profile.backend,
            system=kernel.system,
        )

    def time(self) -> float:
        """See `asyncio`; simulated."""
        return self.kernel.clock.now_ns / 1e9

    def run_in_executor(
        self, executor: Executor | None, func: Callable[[*Ts], T], *args: *Ts
    ) -> "asyncio.Future[T]":
        """Call a function at a simulated time, in the only thread that there is."""
        if executor is not None:
            raise NotSimulatedError("executors of the program's own have real threads")
        future: asyncio.Future[T] = self.create_future()

        def call() -> None:
            if future.done():
                return
            try:
                result = func(*args)
            except Exception as error:
                future.set_exception(error)
            else:
                future.set_result(result)
            self._write_to_self()

        start_call = self.kernel.system.start_call
        assert start_call is not None
        start_call(call)
        return future

    async def connect_read_pipe(self, protocol_factory: object, pipe: object) -> NoReturn:
        """Refuse: the pipes of the program are the real system's."""
        raise NotSimulatedError("pipes of the real system's")

    async def connect_write_pipe(self, protocol_factory: object, pipe: object) -> NoReturn:
        """Refuse, as `connect_read_pipe`."""
        raise NotSimulatedError("pipes of the real system's")

    async def _make_subprocess_transport(self, *arguments: object, **terms: object) -> NoReturn:
        raise NotSimulatedError("child processes")

    async def getaddrinfo(  # type: ignore[override]
        self,
        host: bytes | str | None,
        port: bytes | str | int | None,
        **arguments: int,
    ) -> list[tuple[int, int, int, str, AddressTuple]]:
        """Look a name up in `SimNet.names`."""
        name = host.decode() if isinstance(host, bytes) else host
        kind = arguments.get("type", 0)
        found = self.kernel.system.getaddrinfo(name, port if isinstance(port, int) else 0, kind)
        await asyncio.sleep(0)
        return [(family, kind, protocol, "", address) for family, kind, protocol, address in found]


def run_asyncio(
    async_fn: Callable[[*Ts], Coroutine[object, object, T]],
    *args: *Ts,
    seed: int = 0,
    profile: str | Profile = "6.18",
    faults: FaultPlan = CALM,
    kernel: SimKernel | None = None,
) -> T:
    """
    Run ``async_fn(*args)`` as `uringio.aio.run` would, on a simulated kernel.

    Args:
        async_fn: The program's main coroutine function.
        seed, profile, faults, kernel: As of `run`.

    Raises:
        DeadlockError: Everything waits, and nothing is going to happen.
        LeakError: The program returned and left a descriptor open.
        NotSimulatedError: It asked for something that is not simulated.

    What comes out of the program carries a note that says how to have it happen again.
    """
    chosen = kernel if kernel is not None else SimKernel(seed, profile, faults)
    try:
        with asyncio.Runner(loop_factory=lambda: SimEventLoop(chosen)) as runner:
            result = runner.run(async_fn(*args))
        chosen.check_no_leaks()
    except BaseException as error:
        error.add_note(f"simulated: {replay_command(async_fn, chosen)} --asyncio")
        raise
    return result
