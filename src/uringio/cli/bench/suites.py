"""
What `uringio bench` can measure, by name: ``uringio bench NAME``, and echo where none is given.

A suite is a module of its name with a function ``main(argv) -> status``, which reads its own
arguments. None is imported unless it runs.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

__all__ = ["DEFAULT", "SUITES", "Suite", "summary"]


@dataclass(frozen=True)
class Suite:
    """
    What a suite compares, in at most 60 characters, and how to run it.
    """

    what: str
    main: Callable[[Sequence[str]], int]


def _echo(argv: Sequence[str]) -> int:
    from .echo import main

    return main(argv)


def _files(argv: Sequence[str]) -> int:
    from .files import main

    return main(argv)


def _ops(argv: Sequence[str]) -> int:
    from .ops import main

    return main(argv)


def _memory(argv: Sequence[str]) -> int:
    from .memory import main

    return main(argv)


def _uvicorn(argv: Sequence[str]) -> int:
    from .uvicorn import main

    return main(argv)


DEFAULT: Final = "echo"
SUITES: Final = {
    "echo": Suite("TCP echo: server CPU per message, latency, system calls", _echo),
    "files": Suite("random reads of 4 KiB, cached and O_DIRECT", _files),
    "ops": Suite("await, set up, cancel, an empty turn, import; by the ns", _ops),
    "memory": Suite("idle connections, 10,000 of them, and operations in flight", _memory),
    "uvicorn": Suite("uvicorn under wrk: server CPU per request", _uvicorn),
}


def summary() -> str:
    """
    Return the lines that tell of the suites, for the end of a help text.
    """
    lines = [f"  {name:<10}{suite.what}" for name, suite in SUITES.items()]
    return "\n".join(["suites, each with its own --help:", *lines])
