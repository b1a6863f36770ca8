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
import sysconfig
import time
from collections.abc import Mapping
from pathlib import Path

PACKAGES = Path(__file__).resolve().parents[3]
"""The folder that holds the package being measured: a tree's `src`, or where wheels go."""

_TREE = PACKAGES.parent if (PACKAGES.parent / "pyproject.toml").is_file() else None
"""The checkout, if it is one."""

RESULTS = _TREE / "bench" / "results" if _TREE is not None else Path("uringio-bench")
"""Where results go unless told otherwise: in a checkout, a folder that git ignores."""

_RIVALS = (
    "uvloop",
    "rloop",
    "trio",
    "gevent",
    "liburing",
    "aiofiles",
    "aiofile",
    "caio",
    "aiohttp",
    "starlette",
    "uvicorn",
    "h11",
    "httptools",
    "matplotlib",
)


def describe() -> dict[str, object]:
    """
    Return kernel, processor, interpreter, rival versions and commit.
    """
    cpus = sorted(os.sched_getaffinity(0))
    return {
        "kernel": platform.release(),
        "machine": platform.machine(),
        "processor": _processor(),
        "cpus_available": cpus,
        "load_average_1m": os.getloadavg()[0],
        "python": sys.version.split()[0],
        "implementation": platform.python_implementation(),
        "libc": " ".join(platform.libc_ver()),
        "uringio": _version("uringio-ctypes"),
        "governor": _first_line(f"/sys/devices/system/cpu/cpu{max(cpus)}/cpufreq/scaling_governor"),
        "io_uring_disabled": _first_line("/proc/sys/kernel/io_uring_disabled"),
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

    The folder that this package is in comes first on the path, so that what is measured is the tree
    that this file is in; an installed package is found without. Variables that change the allocator
    or turn on a debug mode are dropped: they would slow one contender more than another.
    """
    env = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("MALLOC_", "GLIBC_TUNABLES", "PYTHON"))
    }
    if Path(sysconfig.get_path("purelib")) != PACKAGES:
        env["PYTHONPATH"] = str(PACKAGES)
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


def _first_line(path: str) -> str | None:
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except OSError:
        return None


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def _commit() -> str:
    if _TREE is None:  # what git says there would be about somebody else's repository
        return f"none: version {_version('uringio-ctypes')}"
    try:
        found = subprocess.run(
            ["git", "describe", "--always", "--dirty"],
            cwd=_TREE,
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return found.stdout.strip()
