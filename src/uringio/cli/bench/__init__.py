"""
``uringio bench``: uringio beside its rivals, measured so that a stranger can repeat it.

It is part of the package, not of the checkout, so that one command does it wherever the package is
installed. Nothing here is imported unless the command runs, and no rival ever is: each server is a
program of its own, started by its path, in a process that holds nothing else.
"""

import os
import sys
from collections.abc import Sequence

from .suites import DEFAULT, SUITES

__all__ = ["main"]


def main(argv: Sequence[str]) -> int:
    """
    Run the command.

    Args:
        argv: The arguments after ``bench``: the name of a suite, or none for echo, and its own.

    Returns:
        The exit status; argparse's own for bad usage and ``--help``.
    """
    if sys.platform != "linux":
        # Processors are chosen and CPU time is read by what Linux has.
        print("uringio bench: it needs Linux to measure with", file=sys.stderr)
        return 2
    name, rest = DEFAULT, list(argv)
    if rest and not rest[0].startswith("-"):
        name = rest.pop(0)
    if name not in SUITES:
        print(f"uringio bench: {name}: the suites are {', '.join(SUITES)}", file=sys.stderr)
        return 2
    try:
        return SUITES[name].main(rest)
    except SystemExit as request:  # argparse's
        return request.code if isinstance(request.code, int) else 2
    except BrokenPipeError:  # whoever read the tables has seen enough
        # What is left unwritten must not be tried again when the interpreter ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
