"""What the pytest plugin does for a test that uses it."""

import functools
import inspect
import shlex
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, cast

import pytest

import uringio
from uringio.errors import RingError

from ._faults import STORM, FaultPlan, plan_of, plan_text
from ._kernel import SimKernel
from ._minimising import Minimised, minimise
from ._profiles import Profile
from ._running import run

__all__ = ["kernel_for", "run_item", "told"]

_KERNEL: Final = pytest.StashKey[SimKernel]()
_MINIMISED: Final = pytest.StashKey[Minimised]()


def _marked(item: pytest.Item) -> dict[str, object]:
    """Return what the test's marker says; the plugin has looked whether it makes sense."""
    marker = item.get_closest_marker("uringio")
    return dict(marker.kwargs) if marker is not None else {}


def _plan(item: pytest.Item) -> FaultPlan:
    chosen = item.config.getoption("--uringio-faults")
    if chosen is None:
        chosen = _marked(item).get("faults", STORM)
    return chosen if isinstance(chosen, FaultPlan) else plan_of(cast("str", chosen))


def _profile(item: pytest.Item, seed: int) -> str | Profile:
    chosen = item.config.getoption("--uringio-profile")
    if chosen is None:
        chosen = _marked(item).get("profile", "6.18")
    if isinstance(chosen, str | Profile):
        return chosen
    several = cast("Sequence[str | Profile]", chosen)
    return several[seed % len(several)]


def kernel_for(item: pytest.Item, seed: int) -> SimKernel:
    """Make the kernel that a test runs on."""
    kernel = item.stash[_KERNEL] = SimKernel(seed, _profile(item, seed), _plan(item))
    return kernel


def run_item(item: pytest.Function) -> object:
    """Run a marked async test; None for a plain one, which pytest runs."""
    options = _marked(item)
    if not inspect.iscoroutinefunction(item.obj):
        if "sim_kernel" in inspect.signature(item.obj).parameters:
            return None  # it runs what it likes on the kernel itself
        raise pytest.UsageError(f"{item.nodeid}: the uringio marker is for async tests")
    names = [name for name in inspect.signature(item.obj).parameters if name in item.funcargs]
    arguments: dict[str, object] = {name: item.funcargs[name] for name in names}
    place = options.get("on", "simulated")
    if place != "simulated":
        _run_really(functools.partial(item.obj, **arguments), cast("str", place))
        return True
    kernel = item.stash.get(_KERNEL, None)  # there already, if the test asks for it
    if kernel is None:
        kernel = kernel_for(item, cast("int", item.callspec.params["uringio_seed"]))
    test = _Test(item.obj, arguments)
    try:
        test.run(kernel)
    except Exception as error:
        # Its note names a command that knows nothing of fixtures; the report has a better one.
        notes: list[str] = getattr(error, "__notes__", [])
        notes[:] = [note for note in notes if not note.startswith("simulated: ")]
        if item.config.getoption("--uringio-minimise"):
            found = test.minimised(kernel)
            if found is not None:
                item.stash[_MINIMISED] = found
        raise
    return True


class _Test:
    """An async test function and its fixtures, to be run on one kernel or on many."""

    def __init__(
        self, function: Callable[..., Awaitable[object]], arguments: dict[str, object]
    ) -> None:
        self._function = function
        self._arguments = arguments

    async def _call(self) -> object:
        return await self._function(**self._arguments)

    def _prepare(self, kernel: SimKernel) -> None:
        if "sim_kernel" in self._arguments:
            self._arguments["sim_kernel"] = kernel

    def run(self, kernel: SimKernel) -> None:
        self._prepare(kernel)
        run(self._call, kernel=kernel)

    def minimised(self, kernel: SimKernel) -> Minimised | None:
        return minimise(
            self._call,
            seed=kernel.seed,
            profile=kernel.profile,
            faults=kernel.faults.plan,
            prepare=self._prepare,
        )


def _run_really(async_fn: Callable[[], Awaitable[object]], place: str) -> None:
    try:
        uringio.run(async_fn, backend=None if place == "real" else place)
    except RingError as error:
        if place != "uring":
            raise
        pytest.skip(f"no io_uring here: {error}")


def told(item: pytest.Item) -> str:
    """Say on which kernel a test failed, and how to have that again."""
    kernel = item.stash.get(_KERNEL, None)
    if kernel is None:
        return "it failed before it had a kernel"
    summary = (
        f"seed {kernel.seed} on a simulated {kernel.profile.name}: {kernel.op_count} operations, "
        f"{kernel.faults.total} faults, {kernel.clock.elapsed_ns / 1e9:.6f} s simulated"
    )
    lines = [summary, f"trace: {kernel.trace_hash()}"]
    found = item.stash.get(_MINIMISED, None)
    if found is not None:
        lines.append(
            f"{found.fault_count_before} faults before, {found.fault_count} left after "
            f"{found.runs} runs:"
        )
        lines += [f"  {one}" for one in found.story]
        plan = plan_text(found.plan)
        lines.append(f"replay: {_command(item, kernel, plan)}")
        return "\n".join(lines)
    command = _command(item, kernel, item.config.getoption("--uringio-faults"))
    lines.append(f"replay: {command}")
    if not item.config.getoption("--uringio-minimise") and kernel.faults.total > 1:
        lines.append("fewer faults: the same, and --uringio-minimise")
    return "\n".join(lines)


def _command(item: pytest.Item, kernel: SimKernel, plan: str | None) -> str:
    words = ["python", "-m", "pytest", item.nodeid, "--uringio-replay", str(kernel.seed)]
    profile = item.config.getoption("--uringio-profile")
    if profile is not None:
        words += ["--uringio-profile", profile]
    if plan is not None:
        words += ["--uringio-faults", plan]
    return shlex.join(words)
