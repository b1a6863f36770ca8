"""
A base for state machines of hypothesis that do I/O, on any driver and kernel.

A rule starts an async function and goes on; other rules cancel it, let time pass, start more.  What
hypothesis finds, it shrinks to the fewest steps.

This module imports hypothesis (the extra ``uringio-ctypes[testing]``); `uringio.testing` does not.

Example::

    from hypothesis.stateful import invariant, rule
    from uringio import testing
    from uringio.testing.machines import Action, DriverMachine

    class Pipes(DriverMachine):
        def __init__(self) -> None:
            super().__init__()
            self.near, self.far = testing.memory_stream_pair()

        @rule()
        def receive(self) -> None:
            self.start(self.far.recv)

        @rule()
        def send(self) -> None:
            self.start(self.near.send_all, b"x")

    class RealPipes(Pipes):
        on = "epoll"

    TestPipes = Pipes.TestCase          # on a simulated kernel
    TestRealPipes = RealPipes.TestCase  # on the real one
"""

import gc
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import ClassVar, Literal, TypeVar, TypeVarTuple, cast

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule

from uringio._run.context import Context
from uringio._run.scope import CancelScope
from uringio.errors import Cancelled, UsageError

from ._faults import CALM, FaultPlan
from ._idle import wait_all_idle
from ._kernel import SimKernel
from ._profiles import Profile
from .errors import LeakError

__all__ = ["Action", "DriverMachine"]

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

_FINISH_SECONDS = 20.0


class Action:
    """
    One async call that a machine has started.

    Attributes:
        name: The function's.
        state: ``"running"``, ``"done"``, ``"failed"`` or ``"cancelled"``.
        value: What it returned.
        error: What it raised, a `uringio.Cancelled` included.
        cancel_asked: Whether it was cancelled while it ran.
        begun: Whether the function was called, which happens in the pass after `start`.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.state: Literal["running", "done", "failed", "cancelled"] = "running"
        self.value: object = None
        self.error: BaseException | None = None
        self.cancel_asked = False
        self.begun = False
        self._scope = CancelScope()

    def __repr__(self) -> str:
        return f"<Action {self.name} {self.state}>"

    def cancel(self) -> None:
        """Ask for it to end; nothing happens if it has ended."""
        if self.state == "running":
            self.cancel_asked = True
            self._scope.cancel()

    async def carry_out(self, async_fn: Callable[[*Ts], Awaitable[T]], *args: *Ts) -> None:
        """Call *async_fn* and note what comes of it."""
        with self._scope:
            self.begun = True
            try:
                self.value = await async_fn(*args)
            except Cancelled as error:
                self.error = error
                self.state = "cancelled"
                raise
            except Exception as error:
                self.error = error
                self.state = "failed"
            else:
                self.state = "done"


class DriverMachine(RuleBasedStateMachine):
    """
    A state machine with a loop of its own, on the kernel that its class names.

    Derive from it, write rules that `start` things, and look at their outcomes in invariants.  At
    each example's end everything is cancelled and closed; what the loop then has not got back fails
    the example.  Override `finish_up` to close what the machine has opened.

    Attributes:
        on: ``"simulated"``, or ``"uring"`` or ``"epoll"`` for the real kernel.
        profile: Which kernel to simulate.
        faults: What goes wrong on it.
        kernel: The simulated kernel; None on the real one.
        context: The loop.
        actions: What runs.
        counts: Of all examples of the class: actions started, done, failed, cancelled.
    """

    on: ClassVar[Literal["simulated", "uring", "epoll"]] = "simulated"
    profile: ClassVar[str | Profile] = "6.18"
    faults: ClassVar[FaultPlan] = CALM
    counts: ClassVar[Counter[str]]

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        cls.counts = Counter()

    def __init__(self) -> None:
        super().__init__()
        self.kernel: SimKernel | None = None
        if self.on == "simulated":
            self.kernel = SimKernel(0, self.profile, self.faults)
            self.context = Context(backend=self.kernel.profile.backend, system=self.kernel.system)
        else:
            self.context = Context(backend=self.on)
        self.actions: list[Action] = []

    # --- what rules call -------------------------------------------------------------------------

    def start(self, async_fn: Callable[[*Ts], Awaitable[object]], *args: *Ts) -> Action:
        """Start ``async_fn(*args)`` as a task; it first runs in the next pass of the loop."""
        action = Action(getattr(async_fn, "__name__", repr(async_fn)))
        self.actions.append(action)
        self.counts["started"] += 1
        self.context.spawn(action.carry_out, async_fn, *args)
        return action

    def finish(self, action: Action) -> Action:
        """Run until *action* has ended, and return it; raises TimeoutError."""
        deadline_ns = self.context.clock() + int(_FINISH_SECONDS * 1e9)
        while action.state == "running":
            if self.context.clock() > deadline_ns:
                raise TimeoutError(f"{action!r} does not end")
            self.pass_time(0.1)
        self._look()
        return action

    def do(self, async_fn: Callable[[*Ts], Awaitable[T]], *args: *Ts) -> T:
        """Run ``async_fn(*args)`` to its end, beside what runs; returns what it returns."""
        value = self.context.run_until_done(async_fn, *args)
        self._look()
        return value

    def pass_time(self, seconds: float) -> None:
        """Make a pass of the loop, which waits for something to happen for at most *seconds*."""
        self.context.tick(seconds)
        self._look()

    def settle(self) -> None:
        """Run until everything waits."""
        self.do(wait_all_idle)

    # --- rules of every machine ------------------------------------------------------------------

    @rule()
    def let_run(self) -> None:
        """Make a pass that does not wait."""
        self.pass_time(0)

    @rule(which=st.integers(0, 7))
    def cancel_one(self, which: int) -> None:
        """Cancel something that runs, if anything does."""
        if self.actions:
            self.actions[which % len(self.actions)].cancel()

    # --- the end ---------------------------------------------------------------------------------

    def finish_up(self) -> None:
        """Close what the machine has opened; everything that ran has ended by now."""

    def teardown(self) -> None:
        """End everything, and see that nothing is left."""
        try:
            while self.actions:
                for action in self.actions:
                    action.cancel()
                self.finish(self.actions[0])
            self.finish_up()
            self._look()
            gc.collect(0)
            left = self.context.driver.statistics()
        finally:
            self.context.close()
        if left.in_flight:
            raise LeakError(f"{left.in_flight} operations are in flight, and nobody waits for them")
        if self.kernel is not None:
            self.kernel.check_no_leaks()

    def _look(self) -> None:
        ended = [action for action in self.actions if action.state != "running"]
        # First: what `ended` raises must not have it asked again.
        self.actions[:] = [action for action in self.actions if action.state == "running"]
        for action in ended:
            self.counts[action.state] += 1
            self.ended(action)

    def ended(self, action: Action) -> None:
        """Hear of an action that has ended; by default one that misused the library fails."""
        if isinstance(action.error, UsageError | AssertionError):
            raise cast("Exception", action.error)
