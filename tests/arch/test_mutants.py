"""The list of mutants keeps up with the code."""

import ast
from pathlib import Path

import pytest

from tests.arch import source
from tools.mutant_list import MUTANTS, Mutant

TESTS = Path(source.ROOT) / "tests"
CODE = Path(source.ROOT) / "src" / "uringio"


@pytest.mark.parametrize("mutant", MUTANTS, ids=[f"{n}" for n in range(1, len(MUTANTS) + 1)])
def test_it_still_applies(mutant: Mutant) -> None:
    """What it replaces is there, once; what comes of it is Python; its tests exist."""
    text = (CODE / mutant.file).read_text(encoding="utf-8")
    assert text.count(mutant.old) == 1
    assert mutant.old != mutant.new
    ast.parse(text.replace(mutant.old, mutant.new))
    assert mutant.why
    assert mutant.tests
    assert all((TESTS / name).is_file() for name in mutant.tests)


def test_there_are_enough() -> None:
    """A list that shrinks proves less."""
    assert len(set(MUTANTS)) >= 40
