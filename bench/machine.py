"""
What a result must say about the machine and the tree it was taken on.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
"""The repository."""

_RIVALS = ("uvloop", "aiohttp", "starlette", "uvicorn", "h11")

RESULTS = ROOT / "bench" / "results"
"""Where JSON goes; ignored by git."""


def describe() -> dict[str, object]:
    """
    Return kernel, processor, interpreter, rival versions and commit.
    """
    return {
        "kernel": platform.release(),
        "machine": platform.machine(),
        "processor": _processor(),
        "cpus_available": sorted(os.sched_getaffinity(0)),
        "load_average_1m": os.getloadavg()[0],
        "python": sys.version.split()[0],
        "implementation": platform.python_implementation(),
        "libc": " ".join(platform.libc_ver()),
        "versions": {name: _version(name) for name in _RIVALS},
        "commit": _commit(),
        "taken_at": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }


def headline(described: Mapping[str, object]) -> str:
    """
    Return the one line that heads a table.
    """
    return (
        f"{described['implementation']} {described['python']}, Linux {described['kernel']}, "
        f"{described['processor']}, commit {described['commit']}"
    )


def environment(**changes: str) -> dict[str, str]:
    """
    Return the environment for a measured process.

    The tree's own `src` comes first on the path, so that what is measured is the tree this file is
    in. Variables that change the allocator or turn on a debug mode are dropped: they would slow
    one contender more than another.
    """
    env = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("MALLOC_", "GLIBC_TUNABLES", "PYTHON"))
    }
    env["PYTHONPATH"] = str(ROOT / "src")
    env.update(changes)
    return env


def save(name: str, result: Mapping[str, object], path: Path | None = None) -> Path:
    """
    Write *result* as JSON and return where.

    Args:
        name: Stem of the file when *path* is not given.
        result: What to write.
        path: The file asked for, if one was.
    """
    if path is None:
        RESULTS.mkdir(parents=True, exist_ok=True)
        path = RESULTS / f"{name}-{time.strftime('%Y%m%d-%H%M%S')}.json"
    path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return path


def _processor() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return platform.processor() or "unknown processor"
    for line in text.splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or "unknown processor"


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def _commit() -> str:
    try:
        found = subprocess.run(
            ["git", "describe", "--always", "--dirty"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return found.stdout.strip()
