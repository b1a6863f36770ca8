"""
Run the await benchmark: `python -m bench.nop --help`.

Contenders take turns in one process. On ours, each task awaits NOP requests: packed into the ring,
seen by the kernel, reaped, and the task resumed. On asyncio's own loop each task awaits a `Future`,
resolved in one of two ways, both without any kernel: each by a `call_soon` of its own, as programs
do it, or all of one pass of the loop by a single callback, as a driver would. The second is the
least that awaiting costs there.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from uringio.cli.bench import machine
from uringio.cli.bench.rounds import Spread, rotated, spread

_RATIO_MAX = 1.3
"""What ours may cost of a stdlib future, resolved either way; printed, not asserted."""


@dataclass(frozen=True)
class Cost:
    """
    What one operation took in one round.
    """

    cpu_ns: float
    wall_ns: float


class Watch:
    """
    Process CPU, kernel included, and wall time since it was made.
    """

    def __init__(self) -> None:
        self._wall_ns = time.perf_counter_ns()
        self._cpu_ns = time.process_time_ns()

    def per(self, operations_count: int) -> Cost:
        """
        Return what each of *operations_count* operations took.
        """
        cpu_ns = time.process_time_ns() - self._cpu_ns
        wall_ns = time.perf_counter_ns() - self._wall_ns
        return Cost(cpu_ns / operations_count, wall_ns / operations_count)


def run_uringio(tasks_count: int, awaits_count: int) -> Cost:
    """
    Await NOPs on our scheduler.
    """
    import uringio
    from uringio.lowlevel import nop

    async def worker() -> None:
        for _ in range(awaits_count):
            await nop()

    async def main() -> Cost:
        watch = Watch()
        async with uringio.TaskGroup() as group:
            for _ in range(tasks_count):
                group.start_soon(worker)
        return watch.per(tasks_count * awaits_count)

    return uringio.run(main)


def run_asyncio(tasks_count: int, awaits_count: int) -> Cost:
    """
    Await futures that `call_soon` resolves, on asyncio's own loop.
    """

    async def worker() -> None:
        loop = asyncio.get_running_loop()
        create_future, call_soon = loop.create_future, loop.call_soon
        for _ in range(awaits_count):
            future = create_future()
            call_soon(future.set_result, None)
            await future

    async def main() -> Cost:
        watch = Watch()
        async with asyncio.TaskGroup() as group:
            for _ in range(tasks_count):
                group.create_task(worker())
        return watch.per(tasks_count * awaits_count)

    with asyncio.Runner() as runner:
        return runner.run(main())


def run_asyncio_batch(tasks_count: int, awaits_count: int) -> Cost:
    """
    Await futures of which one callback per pass resolves all, on asyncio's own loop.
    """
    pending: list[asyncio.Future[None]] = []

    async def worker() -> None:
        create_future, append = asyncio.get_running_loop().create_future, pending.append
        for _ in range(awaits_count):
            future = create_future()
            append(future)
            await future

    async def main() -> Cost:
        loop = asyncio.get_running_loop()

        def settle() -> None:
            batch = pending[:]
            pending.clear()
            for future in batch:
                future.set_result(None)
            loop.call_soon(settle)

        watch = Watch()
        loop.call_soon(settle)
        async with asyncio.TaskGroup() as group:
            for _ in range(tasks_count):
                group.create_task(worker())
        return watch.per(tasks_count * awaits_count)

    with asyncio.Runner() as runner:
        return runner.run(main())


OURS = "uringio-nop"
CONTENDERS: dict[str, Callable[[int, int], Cost]] = {
    OURS: run_uringio,
    "asyncio-future": run_asyncio,
    "asyncio-batch": run_asyncio_batch,
}


def main(argv: list[str] | None = None) -> int:
    """
    Measure, print, write the JSON.
    """
    parser = argparse.ArgumentParser(
        prog="python -m bench.nop",
        description="Tasks awaiting NOPs, kernel included, against stdlib futures.",
    )
    parser.add_argument("--tasks", type=_count, default=50)
    parser.add_argument("--awaits", type=_count, default=2000, help="per task and round")
    parser.add_argument("--rounds", type=_count, default=15, help="at least 10 to be quoted")
    parser.add_argument("--json", type=Path, help="default: a new file in bench/results")
    options = parser.parse_args(argv)
    described = machine.describe()
    print(machine.headline(described))
    able = []
    for name, run in CONTENDERS.items():
        try:
            run(options.tasks, 20)
        except (ImportError, AttributeError) as missing:
            print(f"skipped: {name}: {missing}")
        else:
            able.append(name)
    costs: dict[str, list[Cost]] = {name: [] for name in able}
    for round_index in range(options.rounds):
        for name in rotated(able, round_index):
            gc.collect()  # nobody pays for the garbage of the contender before
            costs[name].append(CONTENDERS[name](options.tasks, options.awaits))
    print(f"{options.tasks} tasks, {options.awaits} awaits each, {options.rounds} rounds\n")
    print(f"{'':<18}{'CPU ns per await':>28}{'wall ns':>12}")
    for name in able:
        cpu = spread([cost.cpu_ns for cost in costs[name]])
        wall = spread([cost.wall_ns for cost in costs[name]])
        print(f"{name:<18}{_shown(cpu, 0):>28}{wall.median:>12.0f}")
    ratios: dict[str, Spread] = {}
    for rival in able:
        if rival != OURS and OURS in able:
            pairs = zip(costs[OURS], costs[rival], strict=True)
            found = ratios[rival] = spread([ours.cpu_ns / theirs.cpu_ns for ours, theirs in pairs])
            verdict = "held" if found.median <= _RATIO_MAX else "EXCEEDED"
            print(f"budget {OURS} / {rival}: {_shown(found, 2)} of at most {_RATIO_MAX}: {verdict}")
    result = {
        "benchmark": "nop",
        "machine": described,
        "tasks": options.tasks,
        "awaits": options.awaits,
        "costs": {name: [vars(cost) for cost in taken] for name, taken in costs.items()},
        "cpu_ratios": {rival: found.as_dict() for rival, found in ratios.items()},
    }
    machine.save("nop", result, options.json)
    return 0


def _shown(found: Spread, digits: int) -> str:
    return f"{found.median:.{digits}f} [{found.low:.{digits}f}-{found.high:.{digits}f}]"


def _count(text: str) -> int:
    value = int(text)
    if not 1 <= value <= 1_000_000:
        raise argparse.ArgumentTypeError(f"{text} is not within 1 and 1000000")
    return value


if __name__ == "__main__":
    raise SystemExit(main())
