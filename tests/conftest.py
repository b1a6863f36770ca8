"""
Fixtures of every test: leak checks, drivers, seeds, interpreters of their own.

Test order is shuffled, module by module, by a seed that is printed at the top of each run;
`pytest --seed N` repeats it, and repeats the examples that hypothesis draws.
"""

import gc
import random
import signal
from collections.abc import Generator, Iterator

import hypothesis
import pytest

from tests import leaks
from tests.backends import BACKENDS, LIBRARY, RUNG
from tests.fresh import FreshPython
from tests.kernel import uring_refusal
from tests.older import RUNGS, in_place

FAILED = pytest.StashKey[bool]()
SEED = pytest.StashKey[int]()

# How long an example takes, or drawing it, says how busy the machine is and nothing else.
hypothesis.settings.register_profile(
    "untimed", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("untimed")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--seed", type=int, default=None, help="seed of order, random, hypothesis")


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    # A shell ignores Ctrl-C on behalf of what it runs in the background, and so would every child.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if RUNG and RUNG not in RUNGS:
        raise pytest.UsageError(f"no rung {RUNG!r}; there are {', '.join(RUNGS)}")
    seed = config.getoption("--seed")
    if seed is None:
        seed = random.SystemRandom().randrange(2**32)
    config.stash[SEED] = seed
    # Before hypothesis' own hook reads it.
    if getattr(config.option, "hypothesis_seed", None) is None:
        config.option.hypothesis_seed = seed


def pytest_report_header(config: pytest.Config) -> list[str]:
    refusal = uring_refusal()
    return [
        f"seed: {config.stash[SEED]} (repeat with --seed)",
        "io_uring: " + (f"not here: {refusal}" if refusal else RUNG or "available"),
    ]


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    shuffle = random.Random(config.stash[SEED]).shuffle
    modules: dict[object, list[pytest.Item]] = {}
    for item in items:
        modules.setdefault(item.path, []).append(item)
    groups = list(modules.values())
    shuffle(groups)
    for group in groups:
        shuffle(group)
    items[:] = [item for group in groups for item in group]


def spare_the_collector() -> None:
    """
    Spare the collector what lives as long as the run.

    Many tests call `gc.collect()` to prove that nothing is left, and each call would walk through
    every module, test item and report again: a third of the run's time, by its end.
    """
    gc.collect()
    gc.freeze()


def pytest_collection_finish(session: pytest.Session) -> None:
    spare_the_collector()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(
    item: pytest.Item, nextitem: pytest.Item | None
) -> Generator[None, object, object]:
    done = yield
    if nextitem is None or nextitem.path != item.path:
        spare_the_collector()
    return done


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed:
        item.stash[FAILED] = True
    return report


@pytest.fixture(autouse=True)
def no_callbacks_of_the_collector() -> None:
    """
    Have the collector call no Python function, such as the one by which hypothesis times it.

    Whatever a signal handler raises in there is reported and swallowed: Ctrl-C would be lost.
    """
    gc.callbacks.clear()


@pytest.fixture(autouse=True)
def seeded(request: pytest.FixtureRequest) -> None:
    """Give every test the same `random` state for the same seed, whatever ran before it."""
    random.seed(f"{request.config.stash[SEED]} {request.node.nodeid}")


@pytest.fixture(autouse=True, scope="session")
def library_stays() -> Iterator[None]:
    """Keep one kqueue of a library open: what it has for all of them comes and goes once."""
    if not LIBRARY:
        yield
        return
    from uringio._sys.system import System

    with System().kqueue():
        yield


@pytest.fixture(autouse=True)
def nothing_leaks(request: pytest.FixtureRequest) -> Iterator[None]:
    """
    Fail a test that leaves a descriptor or a thread behind, or closes what was not its own.

    Silent after a failure: the traceback then keeps alive what the test held.  Silent too where a
    library plays kqueue, since its own descriptors go when its threads find the time.
    """
    before = leaks.holdings()
    yield
    if LIBRARY:
        gc.collect()  # so that what a test has left is told in it all the same
    elif not request.node.stash.get(FAILED, False):
        left = leaks.difference(before)
        if left:
            pytest.fail("\n".join(left))


@pytest.fixture(autouse=True)
def on_the_rung(request: pytest.FixtureRequest) -> Iterator[None]:
    """
    Leave the loops of a test no more of io_uring than the rung has that was chosen.

    Not where the ring itself is tested, in all its parts, or probed, or simulated kernels are; nor
    where calls are counted, for what is laid over the kernel makes calls of its own.
    """
    whole = {"arch", "lowlevel", "ring", "sys", "testing", "probing"}
    if not RUNG or request.path.parent.name in whole or request.path.name == "test_probe.py":
        yield
        return
    with in_place(RUNG):
        yield


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> str:
    """Name each driver in turn; skip, saying why, where the kernel refuses one."""
    name: str = request.param
    if name == "uring" and (refusal := uring_refusal()):
        pytest.skip(f"no uring driver here: {refusal}")
    return name


@pytest.fixture
def fresh_python() -> FreshPython:
    """Run snippets in interpreters of their own."""
    return FreshPython()
