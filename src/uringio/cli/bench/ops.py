"""
``uringio bench ops``: what an operation costs where nothing is sent and nothing is stored.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Final

from .asking import Entrant, Request, Suite, run
from .findings import Answer, Budget, Question
from .telling import told

_ARGUMENTS: Final = {
    "uringio-native": ("ops_native.py", "uring"),
    "uringio-native-epoll": ("ops_native.py", "epoll"),
    "uringio-aio": ("ops_asyncio.py", "uringio"),
    "asyncio": ("ops_asyncio.py", "asyncio"),
    "uvloop": ("ops_asyncio.py", "uvloop"),
}
_QUESTIONS = (
    Question("await", "an awaited operation, 50 tasks at a time", "ns"),
    Question("await-alone", "an awaited operation, by one task", "ns"),
    Question("await-batch", "futures of which one callback resolves all, 50 tasks", "ns"),
    Question("setup", "making an operation and handing it over, without a system call", "ns"),
    Question("cancel", "cancelling a task that waits for bytes, until it has ended", "ns"),
    Question("pass", "a pass of the scheduler with one task that yields", "ns"),
    Question("turn", "a turn of the driver with nothing to do", "ns"),
    Question("import", "importing it, in a fresh process, bytecode present", "ms"),
)
_BUDGETS = (
    Budget("await", "uringio-native", "asyncio", 0.8),
    Budget("setup", "uringio-native", None, 1000),
    Budget("import", "uringio-native", None, 60),
)
_HELP = """\
What an operation costs where nothing is sent: awaiting it, making it, cancelling it,
and the import. Ours is a NOP that goes through the kernel and back; theirs is a future
that a callback resolves, without a kernel. CPU time, the kernel's part included.
"""
_ABOUT = """
<p>In every round every contender gets a fresh process on one processor, in an order that rotates;
each answers all the questions. An operation of ours is a NOP that goes through the ring, the kernel
and back (on epoll, where there is no NOP to ask for, through the driver alone); one of asyncio's
and of uvloop's is a future that a callback of its own resolves, which goes nowhere. The figures are
CPU time, the kernel's part included.</p>
"""


def main(argv: Sequence[str]) -> int:
    """
    Measure, or read, and show; the exit status of the command.

    Raises:
        SystemExit: The arguments are wrong, or help was asked for.
    """
    return run(_SUITE, argv)


def _ask(request: Request, entrant: Entrant, index: int) -> list[Answer]:
    program, form = _ARGUMENTS[entrant.name]
    cpu = request.cpus[0]
    if index == 0:
        told(program, (form, cpu))  # writes the bytecode
    answers = told(program, (form, cpu))
    return [Answer(question, entrant.name, index, value) for question, value in answers.items()]


def _no_arguments(_parser: argparse.ArgumentParser) -> None:
    """Have none but those of every suite."""


_SUITE = Suite(
    name="ops",
    title="uringio beside asyncio: operations",
    about=_ABOUT,
    help=_HELP,
    entrants=[Entrant(name, ("uvloop",) if name == "uvloop" else ()) for name in _ARGUMENTS],
    rounds=10,
    request=Request,
    arguments=_no_arguments,
    questions=lambda _request: list(_QUESTIONS),
    settings=lambda request: {"processor": request.cpus[0]},
    ask=_ask,
    budgets=_BUDGETS,
)
