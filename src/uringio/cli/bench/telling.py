"""
Programs that measure themselves, each in a fresh process, and print what they found.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import cast

from . import machine
from .rivals import AbsentError
from .sample import MISSING, SampleError

_PROGRAMS = Path(__file__).resolve().parent / "programs"
_SECONDS_MAX = 120


def told(program: str, *arguments: str) -> dict[str, float]:
    """
    Run a program of `programs` and return what it measured.

    Raises:
        AbsentError: It says that something is not there.
        SampleError: It failed.
    """
    try:
        ended = subprocess.run(
            [sys.executable, str(_PROGRAMS / program), *arguments],
            env=machine.environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_SECONDS_MAX,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise SampleError("it does not end") from None
    if ended.returncode:
        said = ended.stderr.strip().splitlines() or [f"status {ended.returncode}"]
        if said[-1].startswith(MISSING):
            raise AbsentError(said[-1])
        raise SampleError(said[-1])
    return cast("dict[str, float]", json.loads(ended.stdout))
