"""What io_uring_register(2) does, for the registrations that are simulated."""

import errno
from ctypes import memmove, string_at
from typing import TYPE_CHECKING, Final

from uringio._sys import constants as k
from uringio._sys.layouts import (
    BUF_REG,
    IOVEC,
    PROBE_HEAD,
    PROBE_OP,
    RSRC_REGISTER,
    RSRC_UPDATE,
    RSRC_UPDATE2,
)

from ._rings import BufferGroup, SimRing
from .errors import NotSimulatedError

if TYPE_CHECKING:
    from ._kernel import SimKernel

__all__ = ["register"]

_BYTE_ORDER: Final = "little" if memoryview(b"\1\0").cast("H")[0] == 1 else "big"


def register(kernel: "SimKernel", ring: SimRing, opcode: int, addr: int, count: int) -> int:
    """Carry one registration out: its result, or ``-errno``."""
    if opcode == k.IORING_REGISTER_RING_FDS:
        offset, _ = RSRC_UPDATE.unpack(string_at(addr, RSRC_UPDATE.size))
        if offset != 0xFFFFFFFF:
            raise NotSimulatedError("registering a ring at a chosen index is not simulated")
        index = kernel.add_ring_index(ring)
        if index < 0:
            return index
        memmove(addr, index.to_bytes(4, _BYTE_ORDER), 4)
        return 1
    if opcode == k.IORING_UNREGISTER_RING_FDS:
        index, _ = RSRC_UPDATE.unpack(string_at(addr, RSRC_UPDATE.size))
        return kernel.remove_ring_index(index) or 1
    if opcode == k.IORING_REGISTER_PROBE:
        last = min(max(kernel.profile.opcodes) + 1, count)
        raw = PROBE_HEAD.pack(last - 1, last) + b"".join(
            PROBE_OP.pack(op, k.IO_URING_OP_SUPPORTED * (op in kernel.profile.opcodes))
            for op in range(last)
        )
        memmove(addr, raw, len(raw))
        return 0
    if opcode in {k.IORING_REGISTER_PBUF_RING, k.IORING_UNREGISTER_PBUF_RING}:
        ring_addr, entries, group, _, _ = BUF_REG.unpack(string_at(addr, BUF_REG.size))
        if opcode == k.IORING_REGISTER_PBUF_RING:
            if group in ring.groups:
                return -errno.EEXIST
            ring.groups[group] = BufferGroup(ring_addr, entries, kernel.invariants)
        elif (left := ring.groups.pop(group, None)) is None:
            return -errno.ENOENT
        else:
            kernel.invariants.buffers_left(left.missing_count())
        return 0
    if opcode == k.IORING_REGISTER_FILES:
        if ring.files:
            return -errno.EBUSY
        ring.files = [None] * count
        return min(0, _update_files(kernel, ring, 0, addr, count))
    if opcode == k.IORING_REGISTER_FILES_UPDATE:
        offset, fds_addr = RSRC_UPDATE.unpack(string_at(addr, RSRC_UPDATE.size))
        return _update_files(kernel, ring, offset, fds_addr, count)
    if opcode == k.IORING_UNREGISTER_FILES:
        if not ring.files:
            return -errno.ENXIO
        _update_files(kernel, ring, 0, 0, len(ring.files))
        ring.files = []
        return 0
    if opcode == k.IORING_REGISTER_BUFFERS2:
        places, flags, data, _ = RSRC_REGISTER.unpack(string_at(addr, RSRC_REGISTER.size))
        if data or not flags & k.IORING_RSRC_REGISTER_SPARSE:
            raise NotSimulatedError("registered memory is only simulated in sparse tables")
        if ring.memory:
            return -errno.EBUSY
        ring.memory = [None] * places
        return 0
    if opcode == k.IORING_REGISTER_BUFFERS_UPDATE:
        return _update_memory(ring, addr)
    if opcode == k.IORING_UNREGISTER_BUFFERS:
        if not ring.memory:
            return -errno.ENXIO
        ring.memory = []
        return 0
    raise NotSimulatedError(f"io_uring_register opcode {opcode} is not simulated")


def _update_files(kernel: "SimKernel", ring: SimRing, first: int, fds_addr: int, count: int) -> int:
    """Replace slots; address 0 empties them."""
    if first + count > len(ring.files):
        return -errno.EINVAL
    for index in range(count):
        raw = string_at(fds_addr + 4 * index, 4) if fds_addr else b"\xff\xff\xff\xff"
        fd = int.from_bytes(raw, _BYTE_ORDER, signed=True)
        file = kernel.file_of(fd)
        if fd != -1 and file is None:
            return index or -errno.EBADF
        before, ring.files[first + index] = ring.files[first + index], file
        if file is not None:
            file.hold()
        if before is not None:
            before.drop()
    return count


def _update_memory(ring: SimRing, update_addr: int) -> int:
    first: int
    first, data, tags, count = RSRC_UPDATE2.unpack(string_at(update_addr, RSRC_UPDATE2.size))
    if first + count > len(ring.memory):
        return -errno.EINVAL
    for index in range(count):
        span_addr, size = IOVEC.unpack(string_at(data + index * IOVEC.size, IOVEC.size))
        tag = int.from_bytes(string_at(tags + 8 * index, 8), _BYTE_ORDER) if tags else 0
        before: tuple[int, int, int] | None = ring.memory[first + index]
        ring.memory[first + index] = (span_addr, size, tag) if span_addr else None
        if before is not None and before[2]:
            ring.let_go(before)
    return int(count)
