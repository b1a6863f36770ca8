"""
Who takes part, and what must hold between them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

SERVERS = Path(__file__).resolve().parent / "servers"


@dataclass(frozen=True)
class Contender:
    """
    One echo server: a script and its options.
    """

    name: str
    script: str
    options: tuple[str, ...] = ()

    @property
    def is_ours(self) -> bool:
        """
        Whether this is a form of uringio, to be compared with each rival.
        """
        return self.name.startswith("uringio")

    def command(self, python: str, cpu: int, seconds_max: int) -> list[str]:
        """
        Return the command line that starts the server.
        """
        return [
            python,
            str(SERVERS / self.script),
            *self.options,
            f"--cpu={cpu}",
            f"--seconds-max={seconds_max}",
        ]


FALLBACKS = ("epoll", "kqueue", "poll")
"""The backends that the native form is measured on beside io_uring, the first by default."""

CONTENDERS = (
    Contender("uringio-native", "uringio_native.py"),
    *(
        Contender(f"uringio-native-{backend}", "uringio_native.py", (f"--backend={backend}",))
        for backend in FALLBACKS
    ),
    Contender("uringio-aio-protocol", "uringio_aio_protocol.py"),
    Contender("uringio-aio-streams", "uringio_aio_streams.py"),
    Contender("uvloop-protocol", "uvloop_protocol.py"),
    Contender("uvloop-streams", "uvloop_streams.py"),
    Contender("asyncio-protocol", "asyncio_protocol.py"),
    Contender("asyncio-streams", "asyncio_streams.py"),
)


@dataclass(frozen=True)
class Budget:
    """
    The most that one contender's CPU per message may be of a rival's, at 64 B x 50 connections.
    """

    contender: str
    rival: str
    heap: str
    ratio_max: float


BUDGET_SIZE_BYTES = 64
BUDGET_CONNECTIONS = 50
BUDGETS = (
    Budget("uringio-native", "uvloop-protocol", "fresh", 1.25),
    Budget("uringio-native", "uvloop-protocol", "steady", 1.25),
    Budget("uringio-native", "uvloop-streams", "fresh", 0.9),
    Budget("uringio-native", "uvloop-streams", "steady", 0.9),
    Budget("uringio-native", "asyncio-protocol", "fresh", 0.35),
    Budget("uringio-native", "asyncio-protocol", "steady", 1.2),
    Budget("uringio-native-epoll", "asyncio-protocol", "fresh", 0.5),
    Budget("uringio-native-epoll", "asyncio-protocol", "steady", 1.3),
)
"""Compared and printed, never asserted: a busy machine must not fail a build."""


def default_names(backend: str) -> str:
    """
    Return who takes part unless somebody is named: of the fallbacks, *backend* alone.
    """
    absent = {f"uringio-native-{other}" for other in FALLBACKS if other != backend}
    return ",".join(one.name for one in CONTENDERS if one.name not in absent)


def by_name(names: str) -> list[Contender]:
    """
    Return the contenders of a comma-separated list, in the list's order.

    Raises:
        ValueError: A name is unknown.
    """
    known = {contender.name: contender for contender in CONTENDERS}
    chosen = [name.strip() for name in names.split(",") if name.strip()]
    unknown = [name for name in chosen if name not in known]
    if unknown:
        raise ValueError(f"unknown: {', '.join(unknown)}; known: {', '.join(known)}")
    return [known[name] for name in dict.fromkeys(chosen)]
