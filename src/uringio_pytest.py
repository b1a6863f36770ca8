"""
The pytest plugin: async tests on simulated kernels, one run for each of several seeds.

Outside of the package, and importing nothing of it before a test asks for it: pytest loads plugins
by their entry points in every run of every project, and whoever does not use this one shall not pay
for it.  What it does, when it does anything, is in `uringio.testing`.
"""

from collections.abc import Generator
from typing import TYPE_CHECKING, cast

import pytest

if TYPE_CHECKING:
    from uringio.testing import SimKernel

__all__ = ["sim_kernel", "uringio_seed"]

_SEED_COUNT = 10
_OPTIONS = frozenset({"on", "seeds", "profile", "faults"})
_PLACES = ("simulated", "real", "uring", "epoll")
_MARKER = """\
uringio(*, on="simulated", seeds=10, profile="6.18", faults=STORM): run an async test with uringio.
on: "simulated", or "real", "uring" or "epoll" for the real kernel.
seeds: how many simulated kernels to run on, unless --uringio-seeds says.
profile: which kernel to be, or several, which the seeds take in turn.
faults: what goes wrong, as a FaultPlan or a text such as "short=0.1,recv#3=104"."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options."""
    group = parser.getgroup("uringio", "uringio: tests on simulated kernels")
    group.addoption(
        "--uringio-seeds", type=int, metavar="N", help="run each simulated test on N kernels"
    )
    group.addoption(
        "--uringio-replay", type=int, metavar="SEED", help="run simulated tests on this kernel only"
    )
    group.addoption("--uringio-profile", metavar="NAME", help="which kernel to be, such as 6.1")
    group.addoption("--uringio-faults", metavar="PLAN", help="what goes wrong, such as short=0.1")
    group.addoption(
        "--uringio-minimise",
        action="store_true",
        help="when an async test fails on a simulated kernel, find the few faults that it takes",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Describe the marker."""
    config.addinivalue_line("markers", " ".join(_MARKER.split("\n")))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Give each simulated test its seeds."""
    marker = metafunc.definition.get_closest_marker("uringio")
    if marker is None and "sim_kernel" not in metafunc.fixturenames:
        return
    options = _options(marker)
    if options.get("on", "simulated") != "simulated":
        return
    if "uringio_seed" not in metafunc.fixturenames:
        metafunc.fixturenames.append("uringio_seed")
    seed = metafunc.config.getoption("--uringio-replay")
    count = metafunc.config.getoption("--uringio-seeds")
    if count is None:
        count = options.get("seeds", _SEED_COUNT)
    seeds = range(cast("int", count)) if seed is None else [seed]
    metafunc.parametrize("uringio_seed", seeds, indirect=True, ids=[f"seed{one}" for one in seeds])


def _options(marker: pytest.Mark | None) -> dict[str, object]:
    if marker is None:
        return {}
    wrong = [*map(repr, marker.args), *sorted(set(marker.kwargs) - _OPTIONS)]
    if wrong:
        raise pytest.Collector.CollectError(
            f"the uringio marker takes {', '.join(sorted(_OPTIONS))}, by name; not {wrong[0]}"
        )
    if marker.kwargs.get("on", "simulated") not in _PLACES:
        raise pytest.Collector.CollectError(f"a test runs on one of {', '.join(_PLACES)}")
    return dict(marker.kwargs)


@pytest.fixture
def uringio_seed(request: pytest.FixtureRequest) -> int:
    """The seed of this run."""
    seed: int = request.param
    return seed


@pytest.fixture
def sim_kernel(request: pytest.FixtureRequest, uringio_seed: int) -> "SimKernel":
    """The simulated kernel of this run, made of the seed and what the test's marker says."""
    from uringio.testing import _pytest_runs

    return _pytest_runs.kernel_for(request.node, uringio_seed)


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> object:
    """Run a marked async test; leave every other to whoever runs it."""
    if pyfuncitem.get_closest_marker("uringio") is None:
        return None
    from uringio.testing import _pytest_runs

    return _pytest_runs.run_item(pyfuncitem)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Tell, of a test that failed on a simulated kernel, how to have that again."""
    report = yield
    callspec = getattr(item, "callspec", None)
    if report.failed and callspec is not None and "uringio_seed" in callspec.params:
        from uringio.testing import _pytest_runs

        report.sections.append(("uringio", _pytest_runs.told(item)))
    return report
