"""What the kernel says that it can do, and whether it does it."""

import errno

import pytest

from tests.ring.pilot import Pilot
from uringio._ring.probe import probe_ring
from uringio._sys import constants as k
from uringio._sys.layouts import PROBE_HEAD, PROBE_OP
from uringio._sys.system import System
from uringio.errors import OpError

# Operations of Linux 5.6, which brought the probe.
SINCE_5_6 = {
    k.IORING_OP_NOP,
    k.IORING_OP_FSYNC,
    k.IORING_OP_POLL_ADD,
    k.IORING_OP_TIMEOUT,
    k.IORING_OP_ACCEPT,
    k.IORING_OP_ASYNC_CANCEL,
    k.IORING_OP_CONNECT,
    k.IORING_OP_OPENAT,
    k.IORING_OP_CLOSE,
    k.IORING_OP_STATX,
    k.IORING_OP_READ,
    k.IORING_OP_WRITE,
    k.IORING_OP_SEND,
    k.IORING_OP_RECV,
}


def test_probe_names_what_every_kernel_has(pilot: Pilot) -> None:
    """The operations of old are there, those of no kernel are not, the ring's own facts are its."""
    found = probe_ring(pilot.ring)
    assert found.opcodes >= SINCE_5_6
    assert max(found.opcodes) < 255
    assert (found.flags, found.features) == (pilot.ring.flags, pilot.ring.features)


def test_probe_tells_the_truth(pilot: Pilot) -> None:
    """An operation is refused as unknown exactly where the probe does not name it."""
    opcodes = probe_ring(pilot.ring).opcodes
    first_unknown = next(number for number in range(256) if number not in opcodes)
    for number in (first_unknown, 200, 255):
        pilot.put(number)
        assert pilot.result() == -errno.EINVAL
    pilot.put(k.IORING_OP_CLOSE, 1 << 20)
    assert pilot.result() == -errno.EBADF  # known, and looked at


def test_operations_that_the_kernel_was_built_without_are_not_named(
    pilot: Pilot, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To be listed is not enough: the flag counts, and the list ends where the kernel says."""

    def answer(system: System, fd: int, opcode: int, addr: int, count: int) -> int:
        assert (fd, opcode) == (pilot.ring.fd, k.IORING_REGISTER_PROBE)
        raw = system.memory_at(addr, PROBE_HEAD.size + count * PROBE_OP.size)
        PROBE_HEAD.pack_into(raw, 0, 5, 4)
        for number, flags in enumerate((1, 0, 3, 2, 1, 1)):
            PROBE_OP.pack_into(raw, PROBE_HEAD.size + number * PROBE_OP.size, number, flags)
        return 0

    monkeypatch.setattr(System, "io_uring_register", answer)
    assert probe_ring(pilot.ring).opcodes == {0, 2}


def test_probe_refused_is_told(pilot: Pilot, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel that does not answer is an error, not a kernel without operations."""
    monkeypatch.setattr(System, "io_uring_register", lambda *_: -errno.EINVAL)
    with pytest.raises(OpError, match="register_probe") as refused:
        probe_ring(pilot.ring)
    assert refused.value.errno == errno.EINVAL
