"""Slots of direct descriptors when the kernel takes nothing: what is packed keeps its file."""

import errno
import socket
from typing import Any

import pytest

from tests.backends import RUNG
from tests.driver.conftest import RigMaker
from tests.driver.rig import StandInCancelled
from tests.older import without
from uringio._driver import op as o
from uringio._driver.direct import Direct
from uringio._driver.op import SUBMITTED, Op
from uringio._sys import constants as k
from uringio._sys.system import System
from uringio.errors import ClosedError

_LACKING = without(RUNG, "registered files", registration=k.IORING_REGISTER_FILES)
pytestmark = pytest.mark.skipif(bool(_LACKING), reason=_LACKING)


class Busy(System):
    """A system whose io_uring_enter does nothing while `busy`."""

    def __init__(self) -> None:
        super().__init__()
        self.busy = False
        enter, get_errno = self.bare_syscall, self.get_errno
        self.bare_syscall = lambda *arguments: -1 if self.busy else enter(*arguments)
        self.get_errno = lambda: errno.EBUSY if self.busy else get_errno()


def test_a_slot_is_not_emptied_under_what_is_packed(make_rig: RigMaker) -> None:
    """Until the kernel has taken what was packed, the slot has its file and is given to nobody."""
    system = Busy()
    rig = make_rig("uring", system=system)
    tables = rig.driver.tables
    assert tables is not None
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.settimeout(50)
        file = tables.add_file(ours.fileno())
        slot = file.slot
        system.busy = True
        op: Op[Any] = rig.submit(Op(o.NOP))
        file.close()
        following = tables.add_file(ours.fileno())
        assert following.slot != slot
        system.busy = False
        assert rig.finish(op) == 0
        following.close()
        last = [tables.add_file(ours.fileno()) for _ in range(2)]
        assert {one.slot for one in last} >= {slot}
        for one in last:
            one.close()


def test_a_closed_file_is_refused_when_it_is_packed(make_rig: RigMaker) -> None:
    """An op that was made before the close does not go to the file that has the slot now."""
    rig = make_rig("uring")
    tables = rig.driver.tables
    assert tables is not None
    ours, theirs = socket.socketpair()
    with ours, theirs:
        file = tables.add_file(ours.fileno())
        op: Direct[Any] = Direct(o.SEND, file, b"stale")
        slot = file.slot
        file.close()
        following = tables.add_file(ours.fileno())
        assert following.slot == slot
        with pytest.raises(ClosedError):
            rig.submit(op)
        waiting: Direct[Any] = Direct(o.RECV_INTO, following, bytearray(1))
        rig.submit(waiting)
        rig.settle_down()
        rig.driver.cancel(waiting)
        with pytest.raises(StandInCancelled):
            rig.finish(waiting)
        following.close()
    rig.driver.abandon(op)


def test_closed_while_it_is_to_be_asked_for_again(make_rig: RigMaker) -> None:
    """Interrupted, and its file closed before the next try: it ends, and the turn goes on."""
    rig = make_rig("uring")
    tables = rig.driver.tables
    assert tables is not None
    ours, theirs = socket.socketpair()
    with ours, theirs:
        file = tables.add_file(ours.fileno())
        op: Direct[Any] = Direct(o.RECV_INTO, file, bytearray(1))
        # As an interrupted request leaves it, without there being one.
        op.state, op.use = SUBMITTED, 1 << 40
        _, again = tables._ops  # type: ignore[attr-defined]
        again[op.use] = op
        file.close()
        with pytest.raises(ClosedError):
            rig.finish(op)
