"""
Who takes part, and why somebody cannot.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from .compiling import CompileError, compiled

SERVERS = Path(__file__).resolve().parent / "servers"


class AbsentError(Exception):
    """
    A contender cannot take part here; the message says why.
    """


@dataclass(frozen=True)
class Contender:
    """
    One echo server: a program and its options.
    """

    name: str
    program: str
    """A file in `servers`: Python is run, C compiled first."""
    options: tuple[str, ...] = ()
    needs: str | None = None
    """The package it is about, where that is not ours and not the standard library."""

    @property
    def is_ours(self) -> bool:
        """
        Whether this is a form of uringio, to be compared with each rival.
        """
        return self.name.startswith("uringio")

    def command(self, build: Path, cpu: int, seconds_max: int) -> list[str]:
        """
        Return the command line that starts the server.

        Args:
            build: The folder for what is compiled.
            cpu: The processor to run on.
            seconds_max: When the server ends by itself.

        Raises:
            AbsentError: It cannot be had here.
        """
        if self.needs is not None and find_spec(self.needs) is None:
            raise AbsentError(f"{self.needs} is not installed; the [bench] extra brings it")
        path = SERVERS / self.program
        if path.suffix == ".c":
            try:
                start = [str(compiled(path, build))]
            except CompileError as reason:
                raise AbsentError(str(reason)) from None
        else:
            start = [sys.executable, str(path)]
        return [*start, *self.options, f"--cpu={cpu}", f"--seconds-max={seconds_max}"]


FALLBACKS = ("epoll", "kqueue", "poll")
"""The backends that the native form is measured on beside io_uring, the first by default."""

FORMS = ("protocol", "buffered", "streams", "sock")
"""The ways to write a server on an asyncio loop."""

_LOOPS = {
    "uringio": "uringio-aio",
    "uringio-epoll": "uringio-epoll",
    "uvloop": "uvloop",
    "rloop": "rloop",
    "asyncio": "asyncio",
}


def _of_asyncio(loop: str, form: str) -> Contender:
    name, _, backend = loop.partition("-")
    return Contender(
        f"{_LOOPS[loop]}-{form}",
        "asyncio_loops.py",
        (f"--loop={name}", f"--form={form}", *([f"--backend={backend}"] if backend else ())),
        None if name in {"uringio", "asyncio"} else name,
    )


CONTENDERS = (
    Contender("uringio-native", "uringio_native.py"),
    *(
        Contender(f"uringio-native-{backend}", "uringio_native.py", (f"--backend={backend}",))
        for backend in FALLBACKS
    ),
    *(_of_asyncio(loop, form) for loop in _LOOPS for form in FORMS),
    Contender("trio", "trio_streams.py", needs="trio"),
    Contender("gevent", "gevent_sockets.py", needs="gevent"),
    Contender("liburing", "liburing_binding.py", needs="liburing"),
    Contender("c-epoll", "epoll_echo.c"),
    Contender("c-io-uring", "io_uring_echo.c"),
)
"""In the order of the tables. The last two are no rivals but the physical limit."""


def default_names(backend: str) -> str:
    """
    Return who takes part unless somebody is named.

    Of the fallbacks that is *backend* alone, and of the ways to write an asyncio server the two
    that most programs take: the others are a question of their own.
    """
    absent = {f"uringio-native-{other}" for other in FALLBACKS if other != backend}
    absent |= {f"{loop}-{form}" for loop in _LOOPS.values() for form in ("buffered", "sock")}
    absent.add("uringio-epoll-streams")
    return ",".join(one.name for one in CONTENDERS if one.name not in absent)


def by_name(names: str) -> list[Contender]:
    """
    Return the contenders of a comma-separated list, in the list's order.

    A name may end in `*`, and is then everyone whose name begins so.

    Raises:
        ValueError: A name is unknown.
    """
    known = {contender.name: contender for contender in CONTENDERS}
    chosen: dict[str, Contender] = {}
    for name in (part.strip() for part in names.split(",")):
        if not name:
            continue
        is_start = name.endswith("*")
        found = [one for one in known if one == name or (is_start and one.startswith(name[:-1]))]
        if not found:
            raise ValueError(f"unknown: {name}; known: {', '.join(known)}")
        chosen.update({one: known[one] for one in found})
    return list(chosen.values())
