"""
What an awaited operation costs in Python calls, and a pass of the loop in system calls.

Calls are counted, not timed, so the figures are exact and the same on every machine.  Whoever makes
one larger has to say so here.
"""

import sys
import types
from collections import Counter
from collections.abc import Awaitable, Callable
from functools import partial
from itertools import pairwise

import pytest

import uringio
from tests.backends import BACKENDS
from tests.kernel import uring_refusal
from uringio import TaskGroup
from uringio._driver import current
from uringio._driver.op import NOP, Op
from uringio.lowlevel import nop

TASKS = 50
AWAITS = 100

# What one awaited NOP calls, the coroutine that awaits it included, by the last part of the name.
_COMMON = {"wait_often": 1, "__init__": 1, "__await__": 2, "submit": 1, "__del__": 1}
_READINESS = _COMMON | {"locate": 1, "finish": 1}
CALLS_PER_AWAIT = {
    "uring": _COMMON, "epoll": _READINESS, "kqueue": _READINESS, "poll": _READINESS,
}  # fmt: skip

# What a pass calls beside: itself, the driver's turn, and what these need; a kqueue that is played
# by Python calls more than one that is there.
_CALLS_PER_PASS_MAX = 8
CALLS_PER_PASS_MAX = {
    backend: _CALLS_PER_PASS_MAX + 2 * (backend == "kqueue") for backend in CALLS_PER_AWAIT
}


async def wait_often(awaits: int) -> None:
    for _ in range(awaits):
        await nop()


async def all_wait(awaits: int) -> None:
    async with TaskGroup() as group:
        for _ in range(TASKS):
            group.start_soon(wait_often, awaits)


def calls_of(backend: str, tasks_awaits: Callable[[], Awaitable[None]]) -> Counter[str]:
    """Count the Python functions that are called or resumed, by the last part of their names."""
    calls: Counter[str] = Counter()

    def count(frame: types.FrameType, event: str, _argument: object) -> None:
        if event == "call":
            calls[frame.f_code.co_name] += 1

    async def main() -> None:
        before = sys.getprofile()
        sys.setprofile(count)
        try:
            await tasks_awaits()
        finally:
            sys.setprofile(before)

    uringio.run(main, backend=backend)
    return calls


def calls_per_round(backend: str, awaiting: Callable[[int], Awaitable[None]]) -> dict[str, float]:
    """Return what each further round of awaits calls."""
    rounds = 10
    few = calls_of(backend, partial(awaiting, AWAITS))
    more = calls_of(backend, partial(awaiting, AWAITS + rounds))
    more.subtract(few)
    return {name: count / rounds for name, count in more.items() if count}


def test_python_calls_per_awaited_operation(backend: str) -> None:
    """Each further round of fifty awaits costs the pinned calls fifty times, and one pass."""
    calls = calls_per_round(backend, all_wait)
    pinned = CALLS_PER_AWAIT[backend]
    per_await = {name: count / TASKS for name, count in calls.items() if count >= TASKS}
    assert {name for name, count in per_await.items() if count > pinned.get(name, 0)} == set()
    assert sum(count for count in calls.values() if count < TASKS) <= CALLS_PER_PASS_MAX[backend]


def test_one_task_alone(backend: str) -> None:
    """A single task pays for the whole pass at each await; that is bounded too."""
    calls = calls_per_round(backend, wait_often)
    assert (
        sum(calls.values()) <= sum(CALLS_PER_AWAIT[backend].values()) + CALLS_PER_PASS_MAX[backend]
    )


async def play(rounds: int) -> None:
    """Let a task send bytes to another, which sends them back; over and over."""

    async def serve(stream: uringio.SocketStream) -> None:
        async with stream:
            while data := await stream.recv():
                await stream.send_all(data)

    async with (
        await uringio.listen_tcp("127.0.0.1", 0) as listener,
        TaskGroup() as group,
        await uringio.connect_tcp(*listener.local_address[:2]) as ours,
    ):
        group.start_soon(serve, await listener.accept())
        for _ in range(rounds):
            await ours.send_all(b"ball")
            await ours.recv()


@pytest.mark.skipif("epoll" not in BACKENDS, reason="of the epoll driver")
def test_python_calls_per_echo_on_epoll() -> None:
    """
    A round of two messages, each sent and received, calls nothing but what every operation does.

    No attempt that finds nothing, nothing armed, nothing queued through the long ways.  How many
    passes a round takes is the kernel's affair.
    """
    calls = calls_per_round("epoll", play)
    often = {name: count for name, count in calls.items() if count >= 0.5}
    assert often.pop("turn") == often.pop("one_pass") <= 4
    assert often == {
        "recv": 2, "send_all": 2, "submit": 4, "__await__": 8, "serve": 2, "play": 2,
        "main": 2,
    }  # fmt: skip


@pytest.mark.skipif(uring_refusal() is not None, reason="no io_uring here")
def test_one_enter_per_pass() -> None:
    """Fifty tasks that await NOPs cost one `io_uring_enter` per pass: it submits and waits."""
    waits: list[int] = []
    turns: list[int] = []

    async def watch() -> None:
        for _ in range(AWAITS):
            statistics = current.driver().statistics()
            waits.append(statistics.waits)
            turns.append(statistics.turns)
            await Op(NOP)

    async def main() -> None:
        async with TaskGroup() as group:
            group.start_soon(watch)
            for _ in range(TASKS - 1):
                group.start_soon(wait_often, 2 * AWAITS)

    uringio.run(main, backend="uring")
    steps = [after - before for before, after in pairwise(waits)]
    assert steps == [1] * (AWAITS - 1)
    steps = [after - before for before, after in pairwise(turns)]
    assert steps == [1] * (AWAITS - 1)
