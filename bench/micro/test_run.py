"""
The native scheduler: awaiting, with the kernel.
"""

from __future__ import annotations

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

import uringio
from uringio.lowlevel import nop

_AWAITS = 200


@pytest.mark.parametrize("tasks_count", [1, 50])
def test_await(benchmark: BenchmarkFixture, tasks_count: int) -> None:
    """
    Await NOPs in one task, and in 50 that share each enter; the loop's own making included.
    """

    async def worker() -> None:
        for _ in range(_AWAITS):
            await nop()

    async def main() -> None:
        async with uringio.TaskGroup() as group:
            for _ in range(tasks_count):
                group.start_soon(worker)

    benchmark.pedantic(uringio.run, args=(main,), rounds=50, warmup_rounds=2)
