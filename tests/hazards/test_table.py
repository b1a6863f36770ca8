"""The page of hazards: every one that this layer answers for has a row, and every row its tests."""

import ast
import re
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "internals" / "hazards.md"
REQUIRED = {f"H{number:02}" for number in (*range(1, 38), 44, 45, 51)}
_ID = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")


def rows() -> list[list[str]]:
    """Return the cells of each row."""
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    return [
        [cell.strip() for cell in line.strip("|").split("|")] for line in lines if "| H" in line
    ]


@cache
def names_in(path: str) -> frozenset[str]:
    """Name the tests of a module, without running it."""
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    return frozenset(
        node.name
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    )


def test_every_hazard_has_one_row() -> None:
    """None is missing, none there twice, and each says what happens here."""
    named = [row[0] for row in rows()]
    assert sorted(named) == sorted(REQUIRED)
    assert all(len(row) == 4 and row[1] and row[2] for row in rows())


def test_every_test_that_is_named_exists() -> None:
    """A test that was renamed or removed takes its hazard's proof along."""
    missing = [
        f"{row[0]}: {path}::{name}"
        for row in rows()
        for path, name in _ID.findall(row[3])
        if not (ROOT / path).is_file() or name not in names_in(path)
    ]
    assert not missing


def test_every_row_names_a_test() -> None:
    """All that stands in the last column is tests, at least one."""
    for row in rows():
        assert _ID.findall(row[3]), row[0]
        assert not _ID.sub("", row[3]).replace("<br>", ""), row[0]


def test_every_test_of_this_folder_proves_a_hazard() -> None:
    """A test here that the page does not name is either elsewhere's, or missing on the page."""
    named = {name for row in rows() for _, name in _ID.findall(row[3])}
    here = {
        name
        for path in Path(__file__).parent.glob("test_*.py")
        if path != Path(__file__)
        for name in names_in(path.relative_to(ROOT).as_posix())
    }
    assert here - named <= {"test_the_numbers_are_the_lowest_there_are", "test_the_collector_is_on"}
