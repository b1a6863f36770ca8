"""`run`: a program's way into a simulation."""

from collections.abc import Awaitable, Callable
from typing import TypeVar, TypeVarTuple

from uringio._driver import current
from uringio._run import running
from uringio._run.context import Context
from uringio.errors import UsageError

from ._faults import CALM, FaultPlan, plan_text
from ._invariants import WatchedQueue
from ._kernel import SimKernel
from ._profiles import Profile
from ._system import SimSystem
from .errors import InvariantError

__all__ = ["replay_command", "run", "running_kernel"]

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


def run(
    async_fn: Callable[[*Ts], Awaitable[T]],
    *args: *Ts,
    seed: int = 0,
    profile: str | Profile = "6.18",
    faults: FaultPlan = CALM,
    kernel: SimKernel | None = None,
) -> T:
    """
    Run ``async_fn(*args)`` as `uringio.run` would, on a simulated kernel.

    Args:
        async_fn: The program's main async function; not a coroutine.
        seed: Decides everything that a real kernel would decide by its mood.
        profile: Which kernel to be; see `PROFILES`.
        faults: What goes wrong, and how often.
        kernel: A kernel made before, instead of these three; to look into it afterwards.

    Raises:
        UsageError: A loop already runs in this thread.
        InvariantError: Something that must always hold did not; see `Invariants`.
        DeadlockError: Every task waits, and nothing is going to happen.
        LeakError: The program returned and left a descriptor open.
        NotSimulatedError: It asked for something that is not simulated.

    Ctrl-C is raised wherever the program is; what comes out of the program carries a note that says
    how to have it happen again.
    """
    running.require_idle()
    chosen = kernel if kernel is not None else SimKernel(seed, profile, faults)
    try:
        result = _run(chosen, async_fn, args)
        chosen.check_no_leaks()
    except BaseException as error:
        failure = error
        violations = chosen.invariants.violations
        if violations and not isinstance(error, InvariantError):
            # Raised where it was found, it was taken for something else.
            failure = InvariantError(violations[0])
        failure.add_note(f"simulated: {replay_command(async_fn, chosen)}")
        if failure is error:
            raise
        raise failure from error
    return result


def _run(kernel: SimKernel, async_fn: Callable[[*Ts], Awaitable[T]], args: tuple[*Ts]) -> T:
    invariants = kernel.invariants
    invariants.is_active = True
    context = Context(system=kernel.system, ready=WatchedQueue(invariants))
    invariants.watch(context.driver)
    try:
        try:
            result = _to_its_end(kernel, context, async_fn, args)
        finally:
            context.run_down()
        invariants.tasks_ended(context)
    finally:
        invariants.driver = None
        context.close_driver()
    kernel.settle()
    invariants.driver_closed(context.driver, kernel.stray_count)
    if invariants.violations:
        raise InvariantError(invariants.violations[0])
    return result


def _to_its_end(
    kernel: SimKernel,
    context: Context,
    async_fn: Callable[[*Ts], Awaitable[T]],
    args: tuple[*Ts],
) -> T:
    """Run the program, and go on after what `SimKernel.survives` names."""
    results: list[T] = []
    failures: list[BaseException] = []

    async def program() -> None:
        try:
            results.append(await async_fn(*args))
        except BaseException as error:
            failures.append(error)
        context.driver.wake()  # the turn that may follow does not wait

    try:
        context.run_main(program, ())
    except BaseException as error:
        _survive(kernel, error)
        while not results and not failures:
            try:
                context.tick(None)
            except BaseException as another:
                _survive(kernel, another)
    if failures:
        raise failures[0]
    return results[0]


def _survive(kernel: SimKernel, error: BaseException) -> None:
    if not isinstance(error, kernel.survives):
        raise error
    if kernel.survived is not None:
        kernel.survived()


def running_kernel() -> SimKernel:
    """
    Return the simulated kernel that the calling program runs on, to look at its clock, say.

    Raises:
        UsageError: It runs on a real one, or no loop runs in this thread.
    """
    system = current.driver().system
    if not isinstance(system, SimSystem):
        raise UsageError("this program does not run under uringio.testing.run()")
    return system.kernel


def replay_command(async_fn: Callable[..., object], kernel: SimKernel) -> str:
    """Return what to type to have the same run again; the faults are the kernel's own plan."""
    module = getattr(async_fn, "__module__", "?")
    name = getattr(async_fn, "__qualname__", repr(async_fn))
    plan = plan_text(kernel.faults.plan)
    return (
        f"python -m uringio.testing {module}:{name} --seed {kernel.seed} "
        f"--profile {kernel.profile.name} --faults '{plan}'"
    )
