"""Every Python sample of the docs runs as it stands and prints what the page says."""

import re
import shlex
from pathlib import Path

import pytest

from tests.fresh import FreshPython
from tests.package.programs import ROOT, readme_blocks

PAGES = sorted(ROOT.glob("docs/**/*.md"))
# Its samples are files of one project: tests/package/test_fuzzing_guide.py follows it.
FOLLOWED = {"fuzzing.md"}
BLOCK = re.compile(
    r"^```(?P<kind>\w+)\n(?P<text>.*?)^```$(?:\n\n```text\n(?P<printed>.*?)^```$)?",
    re.DOTALL | re.MULTILINE,
)

# README's programs are servers, which tests/package/test_readme.py runs and talks to.
README_PROGRAMS = 2


def blocks(page: Path, kind: str) -> list[re.Match[str]]:
    found = BLOCK.finditer(page.read_text(encoding="utf-8"))
    return [one for one in found if one["kind"] == kind]


SAMPLES = [
    pytest.param(one["text"], one["printed"], id=f"{page.relative_to(ROOT)}-{number}")
    for page in PAGES
    if page.name not in FOLLOWED
    for number, one in enumerate(blocks(page, "python"), 1)
]


@pytest.mark.parametrize(("program", "printed"), SAMPLES)
def test_sample_runs(
    fresh_python: FreshPython, tmp_path: Path, program: str, printed: str | None
) -> None:
    """It ends well, without a warning, and where its output is shown, that is its output."""
    run = fresh_python(program, cwd=tmp_path).check()
    assert run.stderr == ""
    if printed is not None:
        assert run.stdout == printed


def test_samples_are_found() -> None:
    """Samples with and without output; without this, the test above could be empty."""
    assert {parameters.values[1] is None for parameters in SAMPLES} == {True, False}


def test_readme_has_no_other_programs() -> None:
    """Whoever adds a program to the README has it run."""
    assert len(readme_blocks()) == README_PROGRAMS


@pytest.mark.parametrize("page", [*PAGES, ROOT / "README.md"], ids=lambda one: one.name)
def test_commands_are_understood(page: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What the pages tell people to type is what the command takes."""
    from uringio.cli import _parser, main

    for block in blocks(page, "sh"):
        for line in block["text"].splitlines():
            words = shlex.split(line, comments=True)
            if words[:2] == ["uringio", "bench"]:
                assert main([*words[1:], "--list"]) == 0, line  # of any suite; it measures nothing
            elif words[:1] == ["uringio"]:
                assert _parser().parse_args(words[1:]).command == words[1], line
    assert capsys.readouterr().err == ""
