"""
What every program shares: its processor, its bound in time, its clock, its one line of output.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import sys
import time
from collections.abc import Callable

SECONDS_MAX = 120


def begin(cpu: str) -> None:
    """
    Pin the process and bound its life: it never outlives a starter that died by much.
    """
    signal.alarm(SECONDS_MAX)
    os.sched_setaffinity(0, {int(cpu)})


def each_ns(count: int, run: Callable[[], object]) -> float:
    """
    Return the CPU time, kernel included, of each of the *count* operations that *run* does.
    """
    gc.collect()
    began = time.process_time_ns()
    run()
    return (time.process_time_ns() - began) / count


class Watch:
    """
    CPU time since it was made, for what is awaited.
    """

    def __init__(self) -> None:
        gc.collect()
        self._began = time.process_time_ns()

    def each_ns(self, count: int) -> float:
        """
        Return what each of *count* operations took.
        """
        return (time.process_time_ns() - self._began) / count


def answer(answers: dict[str, float]) -> None:
    """
    Print what was measured.
    """
    json.dump(answers, sys.stdout)
    print(flush=True)
