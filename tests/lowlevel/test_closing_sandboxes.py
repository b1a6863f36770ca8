"""A ring with restrictions can be closed while requests are in flight."""

import os

import pytest

from tests.kernel import uring_refusal
from uringio.lowlevel import Opcode, Ring, SqeFlags, prep_read


@pytest.mark.skipif(uring_refusal() is not None, reason=str(uring_refusal()))
def test_a_ring_of_registered_files_only_is_closed() -> None:
    """
    What waits for ever is cancelled, in the form that the restrictions demand.

    Refused, `close` would wait for it in vain and keep its memory, with a warning, which fails.
    """
    reading, writing = os.pipe()
    ops = [Opcode.READ, Opcode.ASYNC_CANCEL]
    ring = Ring.sandboxed(4, ops=ops, files=[reading], fixed_files_only=True)
    prep_read(ring, 0, bytearray(8), flags=SqeFlags.FIXED_FILE)
    ring.submit()
    assert ring.in_flight == 1
    ring.close()
    os.close(reading)
    os.close(writing)
