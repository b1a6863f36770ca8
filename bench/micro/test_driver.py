"""
A driver without a scheduler: submitting, settling, cancelling.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from bench.micro.conftest import BATCH, ROUNDS, Bench
from uringio._driver.op import NOP, POLL, Op

_POLLIN = 1


def test_submit(benchmark: BenchmarkFixture, bench: Bench) -> None:
    """
    Make and submit a batch of ops; the kernel does not see them yet.
    """
    submit = bench.driver.submit
    rounds_count = 0

    def start() -> None:
        nonlocal rounds_count
        if rounds_count:
            bench.finish(BATCH)
        rounds_count += 1

    def run() -> None:
        for _ in range(BATCH):
            submit(Op(NOP))

    benchmark.pedantic(run, setup=start, rounds=ROUNDS)
    bench.finish(BATCH)


def test_settle(benchmark: BenchmarkFixture, bench: Bench) -> None:
    """
    Turn a batch of submitted ops into delivered ones: enter, reap, settle.
    """
    submit = bench.driver.submit

    def start() -> None:
        for _ in range(BATCH):
            submit(Op(NOP))

    benchmark.pedantic(lambda: bench.finish(BATCH), setup=start, rounds=ROUNDS)


@pytest.fixture
def silent() -> Iterator[socket.socket]:
    """
    A connected socket on which nothing ever arrives.
    """
    near, far = socket.socketpair()
    with near, far:
        yield near


def test_cancel(benchmark: BenchmarkFixture, bench: Bench, silent: socket.socket) -> None:
    """
    Cancel a batch of ops that wait in the kernel, until all have been delivered.
    """
    driver = bench.driver
    driver.register(silent.fileno())
    ops: list[Op[object]] = []

    def start() -> None:
        ops[:] = [Op(POLL, silent.fileno(), flags=_POLLIN) for _ in range(BATCH)]
        for op in ops:
            driver.submit(op)
        driver.turn(0)

    def run() -> None:
        for op in ops:
            driver.cancel(op)
        bench.finish(BATCH)

    benchmark.pedantic(run, setup=start, rounds=ROUNDS // 4)
    driver.unregister(silent.fileno())
