"""The reference pages that are written by hand name tests that exist, and leave nothing out."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
AREAS = ROOT / "docs" / "reference" / "liburing_areas.md"
TRAPS = ROOT / "docs" / "reference" / "traps.md"

# What liburing's own notes call most valuable for a binding, by the names of its tests.
MOST_VALUABLE = """
    cq-overflow cq-peek-batch-mixed defer-taskrun single-issuer submit-reuse submit-and-wait
    drop-submit skip-cqe link link_drain link-timeout cancel-race sync-cancel
    poll-mshot-overflow poll-mshot-update poll-mshot-wake recv-multishot read-mshot buf-ring
    buf-ring-mshot buf-ring-nommap buf-ring-put buf-ring-stress buf-ring-upgrade
    recvsend_bundle recvsend_bundle-inc recv-inc-ooo read-inc-buf-more send-zerocopy
    fd-install file-alloc-range-hint msg-ring msg-ring-fd msg-ring-flags msg-ring-overflow
    resize-rings reg-wait min-timeout min-timeout-wait register-restrictions ring-query
    across-fork thread-exit exit-no-cleanup timeout statx xattr splice waitid futex epwait
    socket-getsetsock-cmd bind-listen
"""


@cache
def functions(module: str) -> frozenset[str]:
    """Name the tests of a module below `tests`."""
    tree = ast.parse((ROOT / "tests" / f"{module}.py").read_text(encoding="utf-8"))
    return frozenset(node.name for node in tree.body if isinstance(node, ast.FunctionDef))


def rows(page: Path) -> list[list[str]]:
    """Return the cells of a page's tables, without their heads."""
    lines = [one for one in page.read_text(encoding="utf-8").splitlines() if one.startswith("| ")]
    cells = [[cell.strip() for cell in one.strip("|").split("|")] for one in lines]
    return [one for one in cells if one[0] not in {"liburing", "claimed"}]


@pytest.mark.parametrize(("page", "folder"), [(AREAS, ""), (TRAPS, "lowlevel/")], ids=["a", "t"])
def test_every_test_that_is_named_exists(page: Path, folder: str) -> None:
    """As a function of its module; each row names one, or says why none."""
    named = 0
    for row in rows(page):
        found = re.findall(r"([\w/]*test_\w+)::(test_\w+)", row[-1])
        named += len(found)
        assert found or re.match(r"no: .{10,}", row[-1]), row
        for module, name in found:
            assert name in functions(folder + module), f"{module}::{name}"
    assert named > 15


def test_no_program_of_liburings_is_left_out() -> None:
    """All 261 stand in one row each, and the headings count them rightly."""
    names = [name for row in rows(AREAS) for name in row[0].split(", ")]
    assert len(names) == len(set(names)) == 261
    counts = re.findall(r"^## .* \((\d+)\)$", AREAS.read_text(encoding="utf-8"), re.MULTILINE)
    assert sum(map(int, counts)) == 261


def test_the_most_valuable_behaviours_are_held() -> None:
    """None of them by an excuse."""
    held = {name: row[1] for row in rows(AREAS) for name in row[0].split(", ")}
    assert [name for name in MOST_VALUABLE.split() if held[name].startswith("no:")] == []


def test_every_trap_of_the_tests_is_on_the_page() -> None:
    """What `test_traps.py` pins is listed."""
    listed = set(re.findall(r"test_traps::(test_\w+)", TRAPS.read_text(encoding="utf-8")))
    pinned = {name for name in functions("lowlevel/test_traps") if name.startswith("test_")}
    assert listed == pinned
