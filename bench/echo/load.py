"""
The load client: client.c when this machine can compile it, client.py when it cannot.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

_HERE = Path(__file__).resolve().parent


def client_command(kind: str, build_dir: Path) -> tuple[str, list[str]]:
    """
    Return the name of the client that will be used and how it is started.

    Args:
        kind: "auto", "c" or "python".
        build_dir: Where the compiled client may be put.

    Raises:
        RuntimeError: The C client was asked for and cannot be built.
    """
    python = ("python", [sys.executable, "-I", str(_HERE / "client.py")])
    if kind == "python":
        return python
    names = (os.environ.get("CC", "cc"), "gcc", "clang")
    compiler = next(filter(None, map(shutil.which, names)), None)
    if compiler is None:
        if kind == "c":
            raise RuntimeError("no C compiler on PATH")
        return python
    target = build_dir / "client"
    built = subprocess.run(
        [compiler, "-O2", "-o", str(target), str(_HERE / "client.c")],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    if built.returncode:
        if kind == "c":
            raise RuntimeError(f"client.c does not compile: {built.stderr.strip()[-300:]}")
        return python
    return "c", [str(target)]
