"""
What every echo server shares: its arguments, its bound in time, its one line of output.

The options are read here once, so that a server script shows nothing but its way of echoing.
"""

from __future__ import annotations

import argparse
import os
import signal

HOST = "127.0.0.1"
RECV_BYTES_MAX = 65536
"""What a contender that names a size asks for per read."""


def arguments(*parents: argparse.ArgumentParser) -> argparse.Namespace:
    """
    Read the options, those of *parents* too, pin the process and bound its life.
    """
    parser = argparse.ArgumentParser(parents=parents)
    parser.add_argument("--backend", default=None)
    parser.add_argument("--cpu", type=int, default=-1)
    parser.add_argument("--seconds-max", type=int, default=120)
    options = parser.parse_args()
    # The default action of SIGALRM ends the process, whatever its loop is doing: a server never
    # outlives a starter that died by much.
    signal.alarm(options.seconds_max)
    if options.cpu >= 0:
        os.sched_setaffinity(0, {options.cpu})
    return options


def announce(port: int) -> None:
    """
    Tell the starter where to connect.
    """
    print(port, flush=True)
