"""What mypy says to programs that are right, and to programs with a mistake in a known line."""

import importlib.util

import pytest

from tests.types import check


def test_there_are_enough() -> None:
    """Names are unique, rejected programs have their mistake marked once, accepted ones never."""
    accepted, rejected = check.programs("accepted"), check.programs("rejected")
    assert min(len(accepted), len(rejected)) >= 60
    names = [program.name for program in accepted + rejected]
    assert len(set(names)) == len(names)
    assert not any(program.marks for program in accepted)
    assert all(len(program.marks) == 1 for program in rejected)


@pytest.mark.skipif(importlib.util.find_spec("mypy") is None, reason="mypy is not installed")
def test_mypy_says_what_is_marked() -> None:
    """Every accepted program passes, and every rejected one fails in its marked line alone."""
    assert check.differences("mypy") == []
