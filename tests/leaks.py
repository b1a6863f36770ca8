"""What a test may not leave behind: file descriptors and threads."""

import gc
import os
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from tests.backends import LIBRARY

FD_DIR = Path("/proc/self/fd") if Path("/proc/self/fd").exists() else Path("/dev/fd")

# Targets of descriptors that a library opens once and keeps on purpose.
KEPT_ON_PURPOSE = (
    "/dev/urandom",  # the random source of systems without getrandom
)

# A thread that was told to stop gets this long to be gone, on a machine that may be very busy; only
# a leak takes it. [seconds]
THREAD_END_S = 30.0


def fd_count() -> int:
    """Count what is open; a library that plays kqueue closes its own a little later."""
    count = len(os.listdir(FD_DIR))
    while LIBRARY:
        time.sleep(0.02)
        before, count = count, len(os.listdir(FD_DIR))
        if before == count:
            break
    return count


@dataclass(frozen=True)
class Holdings:
    """What the process holds at one moment."""

    fds: frozenset[tuple[int, str]]
    threads: frozenset[threading.Thread]


def holdings() -> Holdings:
    """Take stock of descriptors and threads."""
    return Holdings(_fds(), frozenset(threading.enumerate()))


def difference(before: Holdings) -> list[str]:
    """
    Describe what the process holds now and did not, and what it has lost, since *before*.

    A descriptor that vanished is as bad as one that stayed: somebody closed what was not theirs.
    """
    for thread in set(threading.enumerate()) - before.threads:
        thread.join(THREAD_END_S)
    gc.collect()
    lines = _difference(before)
    # A call that was abandoned runs on in its worker thread, and what it holds is closed when it
    # ends.  So what seems to have leaked gets a while to go; what has leaked never does.
    deadline = time.monotonic() + THREAD_END_S
    while lines and time.monotonic() < deadline:
        time.sleep(0.02)
        lines = _difference(before)
    return lines


def _difference(before: Holdings) -> list[str]:
    now = holdings()
    lines = [f"fd {fd} -> {target} leaked" for fd, target in sorted(now.fds - before.fds)]
    lines += [f"fd {fd} -> {target} was closed" for fd, target in sorted(before.fds - now.fds)]
    lines += [f"thread {one.name!r} still runs" for one in now.threads - before.threads]
    return lines


def _fds() -> frozenset[tuple[int, str]]:
    found = set()
    for name in os.listdir(FD_DIR):
        try:
            target = os.readlink(FD_DIR / name)
        except FileNotFoundError:
            continue  # the descriptor of this very listing
        except OSError:
            target = "?"
        if not target.startswith(KEPT_ON_PURPOSE):
            found.add((int(name), target))
    return frozenset(found)
