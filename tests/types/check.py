"""
Programs for the type checkers, and what they say of them.

Run as a program it checks with both and prints where they differ from what is marked:
``python -m tests.types.check``.
"""

import json
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
SOURCES = Path(__file__).resolve().parents[2] / "src"
CHECKERS = ("mypy", "pyright")

PRELUDE = """
import asyncio
from typing import assert_never
from uringio import *
from uringio import Context
from uringio.streams import Stream
"""


@dataclass(frozen=True)
class Program:
    """
    One program.

    Attributes:
        name: Its name, and its module's.
        text: What it says, behind the prelude.
        marks: Line of the text -> the checkers that must find a mistake there.
    """

    name: str
    text: str
    marks: dict[int, frozenset[str]]


def programs(kind: str) -> list[Program]:
    """Read the programs that are to be ``"accepted"`` or ``"rejected"``."""
    found = []
    for part in (HERE / f"{kind}.txt").read_text(encoding="utf-8").split("\n=== ")[1:]:
        name, _, text = part.partition("\n")
        marks = {}
        for number, line in enumerate(text.split("\n")):
            mark = re.search(r"# <-(.*)$", line)
            if mark:
                marks[number] = frozenset(mark[1].split() or CHECKERS)
        found.append(Program(name, text, marks))
    return found


def mistakes(checker: str, checked: list[Program]) -> dict[str, dict[int, str]]:
    """Have *checker* read the programs; program -> line -> what it says."""
    with tempfile.TemporaryDirectory() as folder:
        for program in checked:
            text = PRELUDE + program.text + "\n"
            (Path(folder) / f"{program.name}.py").write_text(text, encoding="utf-8")
        said = (_mypy if checker == "mypy" else _pyright)(Path(folder))
    found: dict[str, dict[int, str]] = {program.name: {} for program in checked}
    offset = PRELUDE.count("\n") + 1
    for name, line, message in said:
        found[name].setdefault(line - offset, message)
    return found


def _mypy(folder: Path) -> list[tuple[str, int, str]]:
    files = sorted(str(path) for path in folder.iterdir())
    ended = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--enable-error-code=unused-awaitable",
         "--config-file=", "--follow-imports=silent", "--no-error-summary",
         f"--cache-dir={folder}/.cache", *files],
        capture_output=True,
        text=True,
        env={"MYPYPATH": str(SOURCES)},
        check=False,
    )  # fmt: skip
    assert ended.returncode < 2, ended.stdout + ended.stderr
    said = re.findall(r"^.*?(\w+)\.py:(\d+): error: (.*)$", ended.stdout, flags=re.MULTILINE)
    return [(name, int(line), message) for name, line, message in said]


def _pyright(folder: Path) -> list[tuple[str, int, str]]:
    settings = {"typeCheckingMode": "strict", "extraPaths": [str(SOURCES)]}
    settings |= dict.fromkeys(
        # Of no interest here: the prelude imports more than is used, and results are dropped.
        ("reportUnusedImport", "reportUnusedVariable", "reportWildcardImportFromLibrary",
         "reportUnusedFunction", "reportUnusedClass"), False
    )  # type: ignore[arg-type]  # fmt: skip
    (folder / "pyrightconfig.json").write_text(json.dumps(settings), encoding="utf-8")
    ended = subprocess.run(
        [sys.executable, "-m", "pyright", "--outputjson", "--pythonpath", sys.executable,
         "--project", str(folder)],
        capture_output=True,
        text=True,
        check=False,
    )  # fmt: skip
    said = json.loads(ended.stdout)["generalDiagnostics"]
    return [
        (Path(one["file"]).stem, one["range"]["start"]["line"] + 1, one["message"])
        for one in said
        if one["severity"] == "error"
    ]


def differences(checker: str) -> list[str]:
    """Tell where *checker* does not say what is marked."""
    lines = []
    for kind in ("accepted", "rejected"):
        checked = programs(kind)
        found = mistakes(checker, checked)
        for program in checked:
            marked = {line for line, checkers in program.marks.items() if checker in checkers}
            said = found[program.name]
            place = f"{kind}/{program.name}: line"
            lines += [f"{place} {line + 1}: nothing found" for line in sorted(marked - said.keys())]
            lines += [f"{place} {line + 1}: {said[line]}" for line in sorted(said.keys() - marked)]
    return lines


def main() -> int:
    """Check with both, and tell."""
    status, tell = 0, sys.stdout.write
    for checker in CHECKERS:
        found = differences(checker)
        counts = ", ".join(f"{len(programs(kind))} {kind}" for kind in ("accepted", "rejected"))
        tell(f"{checker}: {counts}, {len(found)} differences\n")
        for line in found:
            tell(f"  {line}\n")
        status = status or bool(found)
    only = [p.name for p in programs("rejected") for c in p.marks.values() if len(c) == 1]
    tell(f"found by one of them only: {', '.join(only)}\n")
    return int(status)


if __name__ == "__main__":
    sys.exit(main())
