"""
What the kernel says a process has used.

The CPU figure is the process's CPU clock, read from outside by clock id (clock_getcpuclockid(3):
the id is the complemented pid, shifted by three, with 2 for the scheduler's clock). It counts
nanoseconds over all threads of the process, io_uring's worker threads included, where utime and
stime in /proc count ticks.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

_CLOCK_OF_SCHEDULER = 2
_TICK_NS = 1_000_000_000 // os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Usage:
    """
    Counters of one process at one moment.
    """

    cpu_ns: int
    user_ns: int
    system_ns: int
    waiting_ns: int
    """Time the main thread was ready to run and something else had its processor."""
    faults_minor: int
    sleeps: int
    """Times a thread gave up its processor to wait."""

    def since(self, earlier: Usage) -> Usage:
        """
        Return the differences.
        """
        return Usage(
            cpu_ns=self.cpu_ns - earlier.cpu_ns,
            user_ns=self.user_ns - earlier.user_ns,
            system_ns=self.system_ns - earlier.system_ns,
            waiting_ns=self.waiting_ns - earlier.waiting_ns,
            faults_minor=self.faults_minor - earlier.faults_minor,
            sleeps=self.sleeps - earlier.sleeps,
        )


def usage(pid: int) -> Usage:
    """
    Read the counters of a living process.

    Raises:
        OSError: There is no such process.
    """
    cpu_ns = time.clock_gettime_ns((~pid << 3) | _CLOCK_OF_SCHEDULER)
    proc = Path("/proc") / str(pid)
    # The command name, in brackets, may hold blanks: count fields from behind it.
    fields = (proc / "stat").read_text().rpartition(")")[2].split()
    sleeps = 0
    for task in (proc / "task").iterdir():
        try:
            status = (task / "status").read_text()
        except OSError:
            continue  # a worker thread that has just ended
        for line in status.splitlines():
            if line.startswith("voluntary_ctxt_switches"):
                sleeps += int(line.split()[1])
    return Usage(
        cpu_ns=cpu_ns,
        user_ns=int(fields[11]) * _TICK_NS,
        system_ns=int(fields[12]) * _TICK_NS,
        waiting_ns=_waiting_ns(proc),
        faults_minor=int(fields[7]),
        sleeps=sleeps,
    )


def has_ring(pid: int) -> bool:
    """
    Return whether the process holds an io_uring descriptor.
    """
    for entry in (Path("/proc") / str(pid) / "fd").iterdir():
        try:
            if "[io_uring]" in str(entry.readlink()):
                return True
        except OSError:
            continue
    return False


def _waiting_ns(proc: Path) -> int:
    try:
        return int((proc / "schedstat").read_text().split()[1])
    except (OSError, IndexError):
        return 0  # a kernel built without scheduler statistics
