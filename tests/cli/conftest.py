"""What the tests of the commands share."""

import sys

import pytest


@pytest.fixture(autouse=True)
def without_matplotlib(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw nothing in this process: matplotlib keeps its fonts open, which counts as a leak."""
    monkeypatch.setitem(sys.modules, "matplotlib", None)
