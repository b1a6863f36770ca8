"""What type checkers say to programs that use the library."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fresh import package_path

PROGRAM = Path(__file__).with_name("typed_program.py")


@pytest.mark.skipif(importlib.util.find_spec("mypy") is None, reason="mypy is not installed")
def test_mypy_tells_right_from_wrong(tmp_path: Path) -> None:
    """In strict mode the marked lines are refused, and no other."""
    marked = {
        number
        for number, line in enumerate(PROGRAM.read_text(encoding="utf-8").splitlines(), 1)
        if line.endswith("# error")
    }
    assert marked
    checked = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--config-file=", "--no-error-summary",
         f"--cache-dir={tmp_path}", str(PROGRAM)],
        capture_output=True,
        text=True,
        env={"MYPYPATH": package_path()},
        check=False,
    )  # fmt: skip
    assert checked.stderr == ""
    found = re.findall(r"typed_program\.py:(\d+): error", checked.stdout)
    assert {int(number) for number in found} == marked, checked.stdout
