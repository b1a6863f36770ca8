"""
The ring alone: packing requests, taking completions.
"""

from __future__ import annotations

from collections import deque

from pytest_benchmark.fixture import BenchmarkFixture

from bench.micro.conftest import BATCH, ROUNDS
from uringio._ring.prep import prep, sqe_head
from uringio._ring.queue import Completion, make_reap, make_submit_and_wait
from uringio._ring.setup import Ring
from uringio._sys.constants import IORING_OP_NOP
from uringio._sys.layouts import SQE_SHORT


def test_pack(benchmark: BenchmarkFixture, ring: Ring) -> None:
    """
    Fill a batch of slots, one `pack_into` each, as a driver's closure does.
    """
    pack, sqes, size = SQE_SHORT.pack_into, ring.sqes, SQE_SHORT.size
    head = sqe_head(IORING_OP_NOP)

    def fill() -> None:
        for index in range(BATCH):
            pack(sqes, index * size, head, -1, 0, 0, 0, 0, index)

    benchmark(fill)


def test_enter(benchmark: BenchmarkFixture, ring: Ring) -> None:
    """
    Hand a batch of NOPs to the kernel and have it complete them.
    """
    taken: deque[Completion] = deque()
    submit_and_wait, reap = make_submit_and_wait(ring), make_reap(ring, taken)
    tail = _nops(ring, 0)

    def start() -> None:
        nonlocal tail
        reap()
        taken.clear()
        tail = _nops(ring, tail)

    benchmark.pedantic(lambda: submit_and_wait(tail, BATCH, None), setup=start, rounds=ROUNDS)
    reap()
    assert len(taken) == BATCH


def test_reap(benchmark: BenchmarkFixture, ring: Ring) -> None:
    """
    Take a batch of completions that stand in the queue.
    """
    taken: deque[Completion] = deque()
    submit_and_wait, reap = make_submit_and_wait(ring), make_reap(ring, taken)
    tail = 0

    def start() -> None:
        nonlocal tail
        taken.clear()
        tail = _nops(ring, tail)
        submit_and_wait(tail, BATCH, None)

    benchmark.pedantic(reap, setup=start, rounds=ROUNDS)
    assert len(taken) == BATCH


def _nops(ring: Ring, tail: int) -> int:
    """
    Write a batch of NOPs from *tail* on and return the new tail.
    """
    head = sqe_head(IORING_OP_NOP)
    for index in range(tail, tail + BATCH):
        prep(ring, index, head, -1, user_data=index)
    return tail + BATCH
