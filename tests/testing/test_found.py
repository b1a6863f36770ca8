"""What the sweep has found in the library, each in small."""

import pytest

import uringio
from uringio import testing
from uringio._driver import op as o
from uringio._driver import uring_leases
from uringio._driver.contract import make_driver
from uringio._driver.op import Op
from uringio._driver.uring_leases import grown
from uringio._ring.buffers import BufferRing
from uringio._ring.setup import queue_init


class StruckError(BaseException):
    """What a signal handler raises."""


@pytest.mark.parametrize("when", ["before", "after"])
def test_growing_is_not_left_half_way(when: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A handler raises as the new ring of buffers is made: there is one, and it is told after."""
    kernel = testing.SimKernel()
    ring = queue_init(kernel.system, 8)
    buffers = BufferRing(ring, 0, 4, 4096, 2)
    struck = StruckError()

    def make(*arguments: int) -> BufferRing:
        monkeypatch.setattr(uring_leases, "BufferRing", BufferRing)
        if when == "after":
            BufferRing(ring, *arguments[1:])
        raise struck

    monkeypatch.setattr(uring_leases, "BufferRing", make)
    leases, error = grown(ring, buffers, 7, 64, lambda: None)
    assert leases is not None and error is struck
    assert leases.buffers.count == 8
    assert ring.buffer_rings == {0: leases.buffers}
    assert leases.counts() == (8, 2, 0)
    ring.close()


def test_cancelled_behind_its_call_is_delivered_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """On epoll, a handler that cancels an accept as it returns: one end, and no descriptor left."""
    kernel = testing.SimKernel(profile="blocked")
    system = kernel.system
    delivered: list[Op[object]] = []
    listener = system.socket(system.AF_INET, system.SOCK_STREAM)
    system.bind(listener, system.AF_INET, ("127.0.0.1", 80))
    system.listen(listener, 5)
    op: Op[object] = Op(o.ACCEPT, listener)
    accept = system.accept
    taken: list[int] = []

    def struck(fd: int, addr: int, addrlen: int, flags: int) -> int:
        result = accept(fd, addr, addrlen, flags)
        if result >= 0:
            taken.append(result)
            driver.cancel(op)
        return result

    monkeypatch.setattr(system, "accept", struck)
    driver = make_driver(delivered.append, lambda _: uringio.Cancelled(), system=system)
    driver.register(listener)
    driver.submit(op)
    caller = system.socket(system.AF_INET, system.SOCK_STREAM)
    sim = kernel.socket_of(listener), kernel.socket_of(caller)
    assert not isinstance(sim[0], int) and not isinstance(sim[1], int)
    sim[1].connect(sim[0].local)
    while not delivered:
        driver.turn(None)
    driver.turn(0)
    assert delivered == [op] and isinstance(op.error, uringio.Cancelled)
    (fd,) = taken
    assert kernel.file_of(fd) is None, "the connection is left open"
    assert driver.statistics().in_flight == 0
    driver.close()


async def looks_around() -> int:
    return testing.running_kernel().seed


def test_program_finds_its_kernel() -> None:
    """A program under simulation can look at its clock; one that is not is told so."""
    assert testing.run(looks_around, seed=7) == 7
    with pytest.raises(uringio.UsageError, match=r"uringio\.testing\.run"):
        uringio.run(looks_around)


async def raises_in_its_loop() -> str:
    def fail() -> None:
        raise StruckError

    kernel = testing.running_kernel()
    kernel.clock.call_later(1_000_000, fail)
    await uringio.sleep(1)
    return "slept"


def test_run_goes_on_after_what_it_survives() -> None:
    """What comes out of the driver, as from a signal handler, ends the run, unless it survives."""
    with pytest.raises(StruckError):
        testing.run(raises_in_its_loop)
    kernel = testing.SimKernel()
    kernel.survives = (StruckError,)
    survived: list[str] = []
    kernel.survived = lambda: survived.append("once")
    assert testing.run(raises_in_its_loop, kernel=kernel) == "slept"
    assert survived == ["once"]


async def spins() -> None:
    kernel = testing.running_kernel()
    while True:
        kernel.system.monotonic_ns()


def test_program_that_spins_is_stopped() -> None:
    """Looking at the clock for ever, and doing nothing, is no waiting."""
    with pytest.raises(testing.SimulationError, match="spins"):
        testing.run(spins)
