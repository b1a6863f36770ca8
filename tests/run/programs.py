"""Programs in interpreters of their own, to be interrupted."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from tests.fresh import FreshPython

PATIENCE_S = 50.0

# What every program starts with; the backend is its first argument.
PRELUDE = """
import os, signal, sys
import uringio
from uringio import CancelScope, TaskGroup

BACKEND = sys.argv[1]

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it

def say(word):
    os.write(1, word.encode() + b"\\n")

"""


@dataclass(frozen=True)
class Ended:
    """How a program ended."""

    returncode: int
    said: list[str]
    stderr: str


class Program:
    """A running program."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process
        assert process.stdout is not None
        self._stdout: IO[str] = process.stdout
        self._said: list[str] = []

    @property
    def pid(self) -> int:
        return self._process.pid

    def hears(self, word: str) -> None:
        """Wait until the program says *word*."""
        for line in self._stdout:
            self._said.append(line.rstrip("\n"))
            if self._said[-1] == word:
                return
        stderr = self._process.communicate()[1]
        raise AssertionError(f"ended without saying {word!r}: {self._said}\n{stderr}")

    def signal(self, number: int = signal.SIGINT) -> None:
        """Send a signal, by default what Ctrl-C sends."""
        self._process.send_signal(number)

    def waits_in_the_kernel(self) -> None:
        """Return when the program's main thread sleeps."""
        stat = Path(f"/proc/{self.pid}/task/{self.pid}/stat")
        deadline = time.monotonic() + PATIENCE_S
        while stat.read_text().rpartition(")")[2].split()[0] != "S":
            assert time.monotonic() < deadline, "the program does not wait"
            os.sched_yield()

    def ended(self) -> Ended:
        """Wait for the program's end."""
        try:
            stdout, stderr = self._process.communicate(timeout=PATIENCE_S)
        except subprocess.TimeoutExpired:
            # Where does it hang?  faulthandler writes every thread's stack.
            self._process.send_signal(signal.SIGABRT)
            stdout, stderr = self._process.communicate()
            raise AssertionError(f"still running: {self._said}\n{stdout}\n{stderr}") from None
        return Ended(self._process.returncode, self._said + stdout.splitlines(), stderr)


@contextmanager
def program(code: str, *argv: str) -> Iterator[Program]:
    """Start a program; whatever happens, it is gone when the block ends."""
    process = subprocess.Popen(
        [
            *(sys.executable, "-W", "error", "-X", "dev", "-X", "faulthandler"),
            *("-c", PRELUDE + textwrap.dedent(code), *argv),
        ],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=FreshPython.environment(),
        start_new_session=True,
    )
    try:
        yield Program(process)
    finally:
        process.kill()
        process.communicate()
