#!/usr/bin/env python3
"""
Run commands side by side, and tell how each of them ends.

Shows: waiting for child processes by requests, many at a time; a linked timeout, which gives up on
a wait that takes too long.

    python examples/lowlevel/wait.py [--seconds 5] COMMAND...     (each one for the shell)
"""

import argparse
import contextlib
import errno
import os
import signal
import sys
import time

from uringio.errors import UringioError
from uringio.lowlevel import Ring, SqeFlags, prep_link_timeout, prep_waitid, unpack_siginfo

SIGINFO_BYTES = 128
TIMEOUT = 0  # the user_data of timeouts; that of waits is the process's number


def main() -> int:
    parser = argparse.ArgumentParser(description="Run commands, and tell how each of them ends.")
    parser.add_argument("command", nargs="+")
    parser.add_argument("--seconds", type=float, help="kill what has not ended by then")
    options = parser.parse_args()
    if options.seconds is not None and not 0 < options.seconds < 1e9:
        parser.error(f"--seconds is more than 0, not {options.seconds}")
    running: dict[int, str] = {}
    try:
        with Ring(2 * len(options.command)) as ring:
            for command in options.command:
                start(command, running)
            return wait_for(ring, running, options.seconds)
    finally:
        for child in running:  # none, unless we were interrupted
            kill(child)


def start(command: str, running: dict[int, str]) -> None:
    """Start a command; Ctrl-C has to wait until it is in the table."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        argv = ["sh", "-c", command]
        running[os.posix_spawn("/bin/sh", argv, os.environ, setsigmask=())] = command
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


def wait_for(ring: Ring, running: dict[int, str], seconds: float | None) -> int:
    """Take the processes out of *running* as they end, and return how many have failed."""
    rooms = {child: bytearray(SIGINFO_BYTES) for child in running}
    began = time.monotonic()
    for child, room in rooms.items():
        flags = SqeFlags(0) if seconds is None else SqeFlags.IO_LINK
        prep_waitid(ring, os.P_PID, child, room, os.WEXITED, user_data=child, flags=flags)
        if seconds is not None:
            prep_link_timeout(ring, int(seconds * 1e9), user_data=TIMEOUT)
    failed = 0
    for child, result, _ in ring:
        if child == TIMEOUT:
            continue
        if result == -errno.ECANCELED:  # by the timeout: kill it, and wait for that
            os.kill(child, signal.SIGKILL)
            prep_waitid(ring, os.P_PID, child, rooms[child], os.WEXITED, user_data=child)
            continue
        if result < 0:
            raise OSError(-result, os.strerror(-result), f"waiting for {running[child]}")
        end = unpack_siginfo(rooms[child])
        how = f"exit {end.status}" if end.code == os.CLD_EXITED else f"signal {end.status}"
        print(f"{how} after {time.monotonic() - began:.2f} s: {running.pop(child)}", flush=True)
        failed += how != "exit 0"
    return min(failed, 100)


def kill(child: int) -> None:
    """End a process, unless the ring has seen its end: its number may be another's by now."""
    with contextlib.suppress(ChildProcessError):
        if os.waitpid(child, os.WNOHANG) == (0, 0):
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
    except (OSError, UringioError) as error:
        sys.exit(f"wait: {error}")
