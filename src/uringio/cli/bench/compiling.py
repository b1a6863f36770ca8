"""
C sources of the benchmark, compiled where a compiler is present.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

_HERE = Path(__file__).resolve().parent
_SECONDS_MAX = 60


class CompileError(Exception):
    """
    A source cannot be made into a program here; the message says why.
    """


def compiler() -> list[str]:
    """
    Return the command of the C compiler: `CC`, if it is set, or else cc, gcc or clang.

    Raises:
        CompileError: There is none.
    """
    for candidate in (os.environ.get("CC", ""), "cc", "gcc", "clang"):
        words = shlex.split(candidate)
        if words and shutil.which(words[0]) is not None:
            return words
    raise CompileError("no C compiler on PATH")


def compiler_version() -> str | None:
    """
    Return how the compiler names itself, or None where there is none.
    """
    try:
        told = subprocess.run(
            [*compiler(), "--version"],
            capture_output=True,
            text=True,
            timeout=_SECONDS_MAX,
            check=True,
        )
    except (CompileError, OSError, subprocess.SubprocessError):
        return None
    return next(iter(told.stdout.splitlines()), None)


def compiled(source: Path, folder: Path) -> Path:
    """
    Make a program of one source, unless *folder* has it already.

    Args:
        source: The C file, which needs nothing but the system's headers and those beside it.
        folder: Where the program is put.

    Raises:
        CompileError: There is no compiler, or it refuses.
    """
    program = folder / source.stem
    if program.exists():
        return program
    command = [*compiler(), "-O2", "-o", str(program), str(source)]
    try:
        made = subprocess.run(
            command, capture_output=True, text=True, timeout=_SECONDS_MAX, check=False
        )
    except (OSError, subprocess.SubprocessError) as failure:
        raise CompileError(f"{source.name}: {failure}") from failure
    if made.returncode:
        complaints = [line for line in made.stderr.splitlines() if "error" in line]
        reason = complaints[0].strip() if complaints else made.stderr.strip()[-200:]
        raise CompileError(f"{source.name} does not compile: {reason}")
    return program


def client_command(kind: str, folder: Path) -> tuple[str, list[str]]:
    """
    Return the name of the load client that will be used and how it is started.

    Args:
        kind: "auto" for client.c where it can be compiled and client.py elsewhere, "c" or "python".
        folder: Where the compiled client may be put.

    Raises:
        CompileError: The C client was asked for and cannot be made.
    """
    if kind != "python":
        try:
            return "c", [str(compiled(_HERE / "client.c", folder))]
        except CompileError:
            if kind == "c":
                raise
    return "python", [sys.executable, "-I", str(_HERE / "client.py")]
