"""Completions that the kernel gives seldom, put where the io_uring driver takes them from."""

import errno
import os
from typing import Any

import pytest

from tests.driver.conftest import RigMaker
from tests.driver.rig import Rig, connected
from tests.kernel import uring_refusal
from uringio._driver import leaks
from uringio._driver import op as o
from uringio._driver.op import Op
from uringio._ring.queue import make_submit_and_wait
from uringio._ring.setup import queue_init
from uringio._sys.system import System

pytestmark = pytest.mark.skipif(uring_refusal() is not None, reason=str(uring_refusal()))

CANCEL_BIT = 1 << 62


def cell(rig: Rig, name: str) -> Any:
    """Return a variable of the driver's turn."""
    turn: Any = rig.driver.turn
    return dict(zip(turn.__code__.co_freevars, turn.__closure__, strict=True))[name].cell_contents


def test_an_unknown_completion_is_counted(make_rig: RigMaker) -> None:
    """One that belongs to no op is dropped, and `stray` says so; others go on."""
    rig = make_rig("uring")
    op = rig.submit(Op(o.NOP))
    rig.driver.flush()
    cell(rig, "storage").insert(0, (1 << 40, 0, 0))
    rig.wait(op)
    assert rig.driver.statistics().stray == 1


def test_an_interrupted_close_has_closed(make_rig: RigMaker) -> None:
    """close(2) frees the number before it can be interrupted: EINTR is no failure, nor retried."""
    rig = make_rig("uring")
    fd = os.open("/dev/null", os.O_RDONLY)
    op = rig.submit(Op(o.CLOSE, fd))
    rig.driver.flush()
    rig.until(lambda: cell(rig, "storage") or rig.is_delivered(op))
    storage = cell(rig, "storage")
    assert [entry[:2] for entry in storage] == [(op.use, 0)]
    storage[0] = (op.use, -errno.EINTR, 0)
    rig.turn()
    assert rig.delivered == [op]
    assert op.error is None
    rig.wait(op)


def test_a_request_that_has_ended_is_not_asked_again(make_rig: RigMaker) -> None:
    """What a cancel request did not find is asked for anew only while it is in flight."""
    rig = make_rig("uring")
    rig.settle_down()
    before = cell(rig, "tail")
    cell(rig, "storage").append(((1 << 40) | CANCEL_BIT, -errno.ENOENT, 0))
    rig.turn()
    assert cell(rig, "tail") == before
    assert rig.driver.statistics().stray == 0


def test_what_the_kernel_has_at_the_end_is_kept(make_rig: RigMaker) -> None:
    """Closing without time leaks on purpose, and says so: freed, it would be written into."""
    rig = make_rig("uring")
    with connected(rig) as (ours, _):
        op = rig.submit(Op(o.RECV_INTO, ours.fileno(), len_=10, memory=bytearray(10)))
        rig.settle_down()
        with pytest.warns(ResourceWarning, match="leaked on purpose"):
            rig.driver.close(0)
        assert any(op in one.values() for entry in leaks._leaked for one in dicts(entry))


def dicts(entry: object) -> list[dict[object, object]]:
    """Return the dictionaries of a leak."""
    assert isinstance(entry, tuple)
    return [one for one in entry if isinstance(one, dict)]


def test_a_tail_that_was_overtaken_is_not_stored() -> None:
    """A caller that a handler has overtaken brings an old tail, which must not go backwards."""
    ring = queue_init(System(), 4)
    try:
        submit_and_wait = make_submit_and_wait(ring)
        submit_and_wait(2, 0, None)  # two NOPs: zeroed slots
        assert ring.sq_head[0] == 2
        submit_and_wait(1, 0, None)
        assert (ring.sq_tail[0], ring.sq_head[0]) == (2, 2)
    finally:
        ring.close()
