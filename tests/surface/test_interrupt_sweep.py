"""The interrupt sweep, a sample of it; ``python tools/interrupt_sweep.py`` runs the whole."""

import json

import pytest

from tests.fresh import FreshPython
from tests.surface import interrupts, schedulers

# A prime, so that the points differ from loop to loop.
EVERY = 293


@pytest.mark.parametrize("kind", interrupts.KINDS)
def test_struck_anywhere(fresh_python: FreshPython, backend: str, kind: str) -> None:
    """Whatever strikes wherever, nothing is lost, doubled or leaked; see `interrupts`."""
    cells = [cell[1:] for cell in interrupts.cells() if cell[0] == kind]
    ended = fresh_python(
        f"""
        import json
        from dataclasses import asdict
        from tests.surface.interrupts import run_cell
        for program, scheduler in {cells!r}:
            books = run_cell({kind!r}, program, scheduler, {backend!r}, every={EVERY})
            print(json.dumps([program, scheduler, asdict(books)]))
        """,
        env=schedulers.with_tests(),
        options=(),
        timeout_s=50.0,
    ).check()
    found = [json.loads(line) for line in ended.stdout.splitlines()]
    assert [(program, scheduler) for program, scheduler, _ in found] == cells
    for program, scheduler, books in found:
        assert books["problems"] == [], (program, scheduler)
    assert sum(books["struck"] for _, _, books in found) >= 5 * len(cells)
