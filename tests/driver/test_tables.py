"""Registered memory at the ring's limits: several spans, refused halfway, and when it is free."""

import errno
import gc
import os
import warnings
from typing import Any

import pytest

from tests.backends import RUNG
from tests.driver.conftest import RigMaker
from tests.driver.rig import StandInCancelled, pipe
from tests.older import without
from uringio._driver import op as o
from uringio._driver import uring_tables
from uringio._driver.op import Op
from uringio._sys import constants as k
from uringio._sys.memory import Memory
from uringio._sys.system import System
from uringio.errors import OpError, RingError

PAGE = 4096

_LACKING = without(RUNG, "registered memory", registration=k.IORING_REGISTER_BUFFERS2)
pytestmark = pytest.mark.skipif(bool(_LACKING), reason=_LACKING)


class Refusing(System):
    """A system that refuses some registrations of memory.

    Attributes:
        answers: Errnos for those to come, oldest first; 0 lets one through.
    """

    def __init__(self) -> None:
        super().__init__()
        self.answers: list[int] = []

    def io_uring_register(self, fd: int, opcode: int, arg_addr: int, nr_args: int) -> int:
        if opcode == k.IORING_REGISTER_BUFFERS_UPDATE and self.answers:
            number = self.answers.pop(0)
            if number:
                return -number
        return super().io_uring_register(fd, opcode, arg_addr, nr_args)


@pytest.mark.parametrize("number", [errno.ENOMEM, errno.EOPNOTSUPP])
def test_refused_halfway(make_rig: RigMaker, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """What was registered before the refusal is withdrawn, and another try finds all as before."""
    monkeypatch.setattr(uring_tables, "_SPAN_BYTES_MAX", PAGE)
    system = Refusing()
    rig = make_rig("uring", system=system)
    tables = rig.driver.tables
    assert isinstance(tables, uring_tables.UringTables)
    memory = Memory(3 * PAGE)
    expected = RingError if number == errno.ENOMEM else OpError
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(40):  # more often than there are places
            system.answers = [0, 0, number]
            with pytest.raises(expected):
                tables.add_memory(memory, PAGE)
            assert tables.spans == []
            rig.turn()
            gc.collect()
    tables.add_memory(memory, PAGE)
    assert len(tables.spans) == 3
    ended = tables.remove_memory(memory)
    for wait in ended:
        rig.do(wait)
    assert len(ended) == 3
    assert rig.driver.statistics().stray == 0


def test_spans_are_found_by_address(make_rig: RigMaker, monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory in one span is named by it; what lies in two, or outside, goes as ever."""
    monkeypatch.setattr(uring_tables, "_SPAN_BYTES_MAX", PAGE)
    rig = make_rig("uring")
    rig.settle_down()  # or the read of the wake pipe would be wiped out below
    tables = rig.driver.tables
    assert isinstance(tables, uring_tables.UringTables)
    memory, foreign = Memory(3 * PAGE), Memory(PAGE)
    tables.add_memory(memory, PAGE)
    fd = os.memfd_create("test")
    try:
        cases = [
            (memory.addr, PAGE, True),
            (memory.addr + 2 * PAGE + 100, PAGE - 100, True),
            (memory.addr + PAGE, PAGE + 1, False),
            (memory.addr + PAGE - 1, 2, False),
            (foreign.addr, PAGE, False),
        ]
        for round_, (addr, size, fixed) in enumerate(cases):
            text = b"%d" % round_ * size
            rig.system.memory_at(addr, size)[:] = text
            for code, opcode in ((o.WRITE, 5), (o.READ, 4)):
                rig.driver.ring.sqes[:] = bytes(len(rig.driver.ring.sqes))
                op: Op[Any] = Op(code, fd, addr, size, 0)
                assert rig.do(op) == size
                assert (opcode in rig.driver.ring.sqes[::64]) is fixed
                rig.system.memory_at(addr, size)[:] = bytes(size)
            assert os.pread(fd, size, 0) == text
    finally:
        os.close(fd)
    for wait in tables.remove_memory(memory):
        rig.do(wait)


def test_free_when_the_last_request_has_ended(make_rig: RigMaker) -> None:
    """Not before a read that uses the memory is over, be it by its cancellation."""
    rig = make_rig("uring")
    tables = rig.driver.tables
    assert tables is not None
    memory = Memory(PAGE)
    for cancelled in (False, True):
        with pipe(rig) as (read_end, write_end):
            tables.add_memory(memory, PAGE)
            op: Op[Any] = rig.submit(Op(o.READ, read_end, memory.addr, PAGE, (1 << 64) - 1))
            rig.settle_down()
            (wait,) = tables.remove_memory(memory)
            rig.submit(wait)
            for _ in range(5):
                rig.turn()
                assert not rig.is_delivered(wait)
            tables.add_memory(memory, PAGE)  # anew, beside the old
            if cancelled:
                rig.driver.cancel(op)
                with pytest.raises(StandInCancelled):
                    rig.finish(op)
            else:
                os.write(write_end, b"late")
                assert rig.finish(op) == 4
            rig.finish(wait)
            (wait,) = tables.remove_memory(memory)
            rig.do(wait)
