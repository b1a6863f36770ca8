"""The guide to fuzzing, followed: its files are written, its commands typed, its outputs met."""

import re
import shlex
from pathlib import Path

import pytest

from tests.fresh import FreshPython, FreshRun
from tests.package.programs import ROOT

GUIDE = ROOT / "docs" / "guides" / "fuzzing.md"
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
PYTEST = "import sys, pytest; sys.exit(pytest.main(sys.argv[1:]))"
# As installed: the plugin, and none of this project's own.
ALONE = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTEST_ADDOPTS": "-p uringio_pytest"}

# A busy machine may be slow to draw an example.
PATIENT = """
from hypothesis import HealthCheck, settings

settings.register_profile("patient", suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")
"""


def shape(line: str) -> str:
    """Leave out of a line what is not the same each time: numbers, hashes, how bytes were split."""
    # Where hypothesis cannot do without a split, it leaves one, or says how it is computed.
    line = re.sub(r"^( *E?)( *pieces=).*,$", r"\2[],", line)
    return re.sub(r"[0-9a-f]{32}|\d+(\.\d+)?", "#", line.removeprefix("E").strip())


def typed(fresh_python: FreshPython, folder: Path, command: str) -> FreshRun:
    words = shlex.split(command, comments=True)
    assert words[:3] == ["python", "-m", "pytest"], command
    return fresh_python(PYTEST, *words[3:], cwd=folder, env=ALONE, options=(), timeout_s=120.0)


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_the_guide_finds_replays_shrinks_and_mends(
    fresh_python: FreshPython, tmp_path: Path
) -> None:
    """Each command does what the page says that it does, and prints what the page shows."""
    text = GUIDE.read_text(encoding="utf-8")
    ran: FreshRun | None = None
    seed = ""
    commands = shown = 0
    (tmp_path / "conftest.py").write_text(PATIENT)
    for block in BLOCK.finditer(text):
        kind, content = block[1], block[2]
        before = text[: block.start()].rstrip().rpartition("\n\n")[2]
        name = re.search(r"`(\w+\.py)`", before)
        if kind == "python" and name is not None:
            (tmp_path / name[1]).write_text(content)
        elif kind == "python":
            ran = fresh_python(content, cwd=tmp_path).check()
        elif kind == "diff":
            old, new = (line[1:] + "\n" for line in content.splitlines())
            source = (tmp_path / "lines.py").read_text()
            assert source.count(old) == 1
            (tmp_path / "lines.py").write_text(source.replace(old, new))
        elif kind == "sh" and "pip install" not in content:
            # Which seeds fail depends on the simulation; the page shows one that did.
            ran = typed(fresh_python, tmp_path, content.replace("--uringio-replay 0", seed))
            found = re.search(r"--uringio-replay \d+", ran.stdout)
            seed = found[0] if found is not None else seed
            commands += 1
        elif kind == "text":
            assert ran is not None
            printed = {shape(line) for line in ran.stdout.splitlines()}
            whole = shape(ran.stdout)
            for line in content.splitlines():
                assert shape(line) in printed or shape(line) in whole, (line, ran.stdout)
                shown += 1
    assert (commands, shown) == (4, 11)


@pytest.mark.timeout(240)
def test_what_a_report_prints_replays(fresh_python: FreshPython, tmp_path: Path) -> None:
    """The printed command shows the same trace; with the one fault that is left it fails alone."""
    files = dict(_files())
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    first = typed(fresh_python, tmp_path, "python -m pytest -q test_lines.py --uringio-seeds 12")
    replays = re.findall(r"^replay: (.*)$", first.stdout, re.MULTILINE)
    traces = re.findall(r"^trace: (\w+)$", first.stdout, re.MULTILINE)
    assert replays, first.stdout
    again = typed(fresh_python, tmp_path, replays[0] + " --uringio-minimise")
    assert f"trace: {traces[0]}" in again.stdout
    assert "1 left after" in again.stdout
    (fewer,) = re.findall(r"^replay: (.*)$", again.stdout, re.MULTILINE)
    assert "1 failed" in typed(fresh_python, tmp_path, fewer).stdout


def _files() -> list[tuple[str, str]]:
    text = GUIDE.read_text(encoding="utf-8")
    found: list[tuple[str, str]] = []
    for block in BLOCK.finditer(text):
        before = text[: block.start()].rstrip().rpartition("\n\n")[2]
        name = re.search(r"`(\w+\.py)`", before)
        if block[1] == "python" and name is not None:
            found.append((name[1], block[2]))
    assert [name for name, _ in found] == ["lines.py", "test_lines.py", "test_splits.py"]
    return found
