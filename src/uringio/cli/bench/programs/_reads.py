"""
What every program that reads a file shares: what it is to read, how often, and its one line.

The file consists of blocks that begin with their number, so that a read can be checked.
"""

from __future__ import annotations

import gc
import json
import os
import random
import resource
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import cache

BLOCK = 4096
_SECONDS_MAX = 120
OFFSETS_COUNT = 1 << 16


@dataclass(frozen=True)
class Job:
    """
    What is to be read: DEPTH blocks of PATH at a time, at random places, for SECONDS.
    """

    path: str
    direct: bool
    depth: int
    seconds: float
    warm_seconds: float
    cpu: int
    options: Sequence[str]

    @property
    def flags(self) -> int:
        """
        What the file is opened with.
        """
        return os.O_RDONLY | (os.O_DIRECT if self.direct else 0)

    def rounds(self, size: int | None = None) -> list[list[int]]:
        """
        Return offsets, the same in every program, as lists of *size*, or of the depth.
        """
        size = size or self.depth
        offsets = _offsets(os.stat(self.path).st_size // BLOCK)
        return [offsets[at : at + size] for at in range(0, OFFSETS_COUNT - size + 1, size)]


@cache
def _offsets(blocks: int) -> list[int]:
    place = random.Random(4096)
    return [int(place.random() * blocks) * BLOCK for _ in range(OFFSETS_COUNT)]


def job() -> Job:
    """
    Read PATH KIND DEPTH SECONDS WARM CPU and what follows; pin the process and bound its life.
    """
    path, kind, depth, seconds, warm_seconds, cpu, *options = sys.argv[1:]
    signal.alarm(_SECONDS_MAX)
    os.sched_setaffinity(0, {int(cpu)})
    return Job(
        path, kind == "direct", int(depth), float(seconds), float(warm_seconds), int(cpu), options
    )


def check(offset: int, data: bytes | bytearray | memoryview) -> None:
    """
    End the program if *data* is not the block at *offset*.
    """
    if len(data) != BLOCK or int.from_bytes(data[:8], "little") != offset // BLOCK:
        raise SystemExit(f"what was read at {offset} is not what is there")


class Until:
    """
    A deadline, and what was read until then.
    """

    def __init__(self, seconds: float) -> None:
        self._end = time.perf_counter() + seconds
        self.count = 0

    def more(self) -> bool:
        """
        Whether there is time left, or nothing has been read yet: on a busy machine both are so.
        """
        return not self.count or time.perf_counter() < self._end


class Watch:
    """
    CPU, time and page faults since it was made.
    """

    def __init__(self) -> None:
        gc.collect()
        self._faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        self._cpu_ns, self._ns = time.process_time_ns(), time.perf_counter_ns()

    def answer(self, count: int) -> None:
        """
        Print what each of *count* reads took.
        """
        ns = time.perf_counter_ns() - self._ns
        cpu_ns = time.process_time_ns() - self._cpu_ns
        faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - self._faults
        tell(cpu_ns / count / 1000, ns / count / 1000, faults / count)


def tell(cpu_us: float, us: float, faults: float) -> None:
    """
    Print the figures of one read.
    """
    json.dump({"cpu_us": cpu_us, "us": us, "faults": faults}, sys.stdout)
    print(flush=True)


def measure(the_job: Job, run: Callable[[Until], object]) -> None:
    """
    Have *run* read until its time is up, first to warm up and then to be measured.
    """
    run(Until(the_job.warm_seconds))
    until, watch = Until(the_job.seconds), Watch()
    run(until)
    watch.answer(until.count)


async def measure_async(the_job: Job, run: Callable[[Until], Awaitable[object]]) -> None:
    """
    Do the same with what is awaited.
    """
    await run(Until(the_job.warm_seconds))
    until, watch = Until(the_job.seconds), Watch()
    await run(until)
    watch.answer(until.count)
