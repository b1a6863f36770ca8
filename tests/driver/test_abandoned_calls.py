"""Offloaded calls that nobody waits for any more: they end without waking anybody."""

from collections.abc import Callable

import pytest

from uringio._driver import offloads
from uringio._driver.offloads import Offloads
from uringio._driver.op import DONE, Offload, Op
from uringio._sys.system import System


class Workers:
    """Workers that do nothing until the test makes them."""

    def __init__(self, _system: System) -> None:
        self.calls: list[Callable[[], None]] = calls

    def start(self, call: Callable[[], None]) -> None:
        self.calls.append(call)

    def dismiss(self) -> None:
        """Nobody is idle here."""


calls: list[Callable[[], None]] = []


@pytest.mark.parametrize("how", ["abandon", "take_all", "neither"])
def test_an_abandoned_call_wakes_nobody(monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    """After its driver may have ended, and its wake pipe's number be another file's."""
    monkeypatch.setattr(offloads, "Workers", Workers)
    calls.clear()
    delivered: list[Op[object]] = []
    woken: list[bool] = []
    these = Offloads(System(), lambda: woken.append(True))
    op: Offload[object] = Offload(lambda: "value")
    op.use = 1
    these.start(op)
    if how == "abandon":
        these.abandon(op)
    elif how == "take_all":
        assert these.take_all() == [op]
    [call] = calls
    call()
    these.settle_finished(delivered.append)
    op.state = DONE
    if how == "neither":
        assert (woken, delivered, op.value) == ([True], [op], "value")
    else:
        assert (woken, delivered, list(these.finished)) == ([], [], [])
