"""
What a program in `programs` measured: one line of JSON, or its last words.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import cast

from . import machine
from .rivals import AbsentError
from .sample import HEAPS, SampleError

_PROGRAMS = Path(__file__).resolve().parent / "programs"
_SECONDS_MAX = 120
_UNAVAILABLE = "unavailable: "
"""How the last words begin of a program that says why it cannot take part."""


def told(program: str, arguments: Sequence[object], heap: str = "fresh") -> dict[str, float]:
    """
    Run *program* in a fresh process and return what it printed.

    Args:
        program: Its file in `programs`.
        arguments: What it is to do.
        heap: A key of `HEAPS`.

    Raises:
        AbsentError: It says that it cannot take part here.
        SampleError: It failed, or does not end.
    """
    try:
        ended = subprocess.run(
            [sys.executable, str(_PROGRAMS / program), *map(str, arguments)],
            env=machine.environment(**HEAPS[heap]),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_SECONDS_MAX,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise SampleError("it does not end") from None
    if ended.returncode:
        last = (ended.stderr.strip().splitlines() or [f"status {ended.returncode}"])[-1]
        if last.startswith(_UNAVAILABLE):
            raise AbsentError(last.removeprefix(_UNAVAILABLE))
        raise SampleError(last)
    return cast("dict[str, float]", json.loads(ended.stdout))
