"""
``uringio bench memory``: what idle connections, operations in flight and sleeping tasks hold.
"""

from __future__ import annotations

import argparse
import atexit
import functools
import tempfile
from collections.abc import Sequence
from pathlib import Path

from .asking import Entrant, Request, Suite, run
from .findings import Answer, Budget, Question
from .idle import connections_max, hold
from .options import counted_connections
from .rivals import CONTENDERS, AbsentError, Contender
from .sample import MissingError
from .telling import told

_CONNECTIONS = 10_000
_QUICK_CONNECTIONS = 1000
_PROGRAM = "memory_of_ops.py"
_OF_OPS = ("uringio-native", "uringio-native-epoll", "uringio-aio", "asyncio", "uvloop")
_SERVERS = {
    one.name: one
    for one in CONTENDERS
    if not one.name.endswith(("-buffered", "-kqueue", "-poll")) and one.name != "liburing"
}
"""Without those that keep 64 KiB per connection by their nature."""
_BY_NAME = {"uringio-epoll-streams", *(name for name in _SERVERS if name.endswith("-sock"))}
_BUDGETS = tuple(
    Budget("connection", name, None, 8192)
    for name in (
        "uringio-native",
        "uringio-native-epoll",
        "uringio-aio-protocol",
        "uringio-aio-streams",
        "uringio-aio-sock",
        "uringio-epoll-protocol",
        "uringio-epoll-streams",
        "uringio-epoll-sock",
    )
)
_HELP = """\
What a server holds for each of many idle connections, and what an operation in flight
and a sleeping task take. Fresh processes; the limit of descriptors is raised as far as
it may be.
"""
_ABOUT = """
<p>In every round every contender gets a fresh process. The servers are those of the echo suite:
each of the connections sends 64 bytes, gets them back, and is idle from then on. What is counted is
the server's own memory (anonymous pages, from <code>smaps_rollup</code>) before and after, without
the first 64 connections; the kernel's memory for both ends of a connection is the growth of its
small objects (<code>Slab</code>), which is the whole machine's and thus rough. An operation in
flight is a poll of ours, and a future with <code>add_reader</code> elsewhere.</p>
"""


class _MemoryRequest(Request):
    connections: int | None

    @property
    def count(self) -> int:
        """
        How many connections are made.
        """
        wanted = self.connections or (_QUICK_CONNECTIONS if self.quick else _CONNECTIONS)
        return min(wanted, connections_max())


def main(argv: Sequence[str]) -> int:
    """
    Measure, or read, and show; the exit status of the command.

    Raises:
        SystemExit: The arguments are wrong, or help was asked for.
    """
    return run(_SUITE, argv)


def _ask(request: _MemoryRequest, entrant: Entrant, index: int) -> list[Answer]:
    found: list[Answer] = []
    server = _SERVERS.get(entrant.name)
    if server is not None:
        found += _of_server(request, server, index)
    if entrant.name in _OF_OPS:
        answers = told(_PROGRAM, (entrant.name, request.count, request.cpus[0]))
        found += [Answer(name, entrant.name, index, value) for name, value in answers.items()]
    return found


def _of_server(request: _MemoryRequest, server: Contender, index: int) -> list[Answer]:
    try:
        held = hold(server, _build(), request.cpus[0], request.count)
    except MissingError as reason:
        raise AbsentError(str(reason)) from None
    mib = 1 << 20
    return [
        Answer(
            "connection", server.name, index, held.bytes_each, {"kernel B": held.kernel_bytes_each}
        ),
        Answer(
            "rss", server.name, index, held.rss_bytes / mib, {"empty": held.rss_empty_bytes / mib}
        ),
    ]


@functools.cache
def _build() -> Path:
    """Return the folder for what is compiled, which goes when the command ends."""
    folder = tempfile.TemporaryDirectory(prefix="uringio-bench-")
    atexit.register(folder.cleanup)
    return Path(folder.name)


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--connections",
        type=counted_connections,
        help=f"how many, and how many operations and tasks (default: {_CONNECTIONS})",
    )


def _questions(request: _MemoryRequest) -> list[Question]:
    count = request.count
    return [
        Question("connection", "memory of an idle connection", "B", ("kernel B",)),
        Question("rss", f"the server with {count:,} idle connections", "MiB", ("empty",)),
        Question("op", "memory of an operation in flight", "B"),
        Question("task", "memory of a task that sleeps", "B"),
    ]


def _settings(request: _MemoryRequest) -> dict[str, object]:
    wanted = request.connections or request.count
    limit = "" if request.count == wanted else f" ({wanted:,} exceed the limit of descriptors)"
    return {"connections": f"{request.count:,}{limit}", "processor": request.cpus[0]}


_SUITE = Suite(
    name="memory",
    title="uringio beside its rivals: memory",
    about=_ABOUT,
    help=_HELP,
    entrants=[
        *(
            Entrant(one.name, (one.needs,) if one.needs else (), one.name not in _BY_NAME)
            for one in _SERVERS.values()
        ),
        *(Entrant(name, (name,) if name == "uvloop" else ()) for name in _OF_OPS[2:]),
    ],
    rounds=3,
    request=_MemoryRequest,
    arguments=_arguments,
    questions=_questions,
    settings=_settings,
    ask=_ask,
    budgets=_BUDGETS,
)
