"""What io_uring_register(2) does, for the registrations that are simulated."""

import errno
from ctypes import memmove, string_at
from typing import TYPE_CHECKING, Final

from uringio._sys import constants as k
from uringio._sys.layouts import (
    BUF_REG,
    FILE_INDEX_RANGE,
    IOVEC,
    PROBE_HEAD,
    PROBE_OP,
    RSRC_REGISTER,
    RSRC_UPDATE,
    RSRC_UPDATE2,
    SYNC_CANCEL_REG,
)

from ._cancelling import cancel_matching
from ._control_requests import update_files
from ._provided import BufferGroup
from ._rings import SimRing
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
        ring.file_range = (0, count)
        return min(0, update_files(kernel, ring, 0, addr, count))
    if opcode == k.IORING_REGISTER_FILES_UPDATE:
        offset, fds_addr = RSRC_UPDATE.unpack(string_at(addr, RSRC_UPDATE.size))
        return update_files(kernel, ring, offset, fds_addr, count)
    if opcode == k.IORING_UNREGISTER_FILES:
        if not ring.files:
            return -errno.ENXIO
        update_files(kernel, ring, 0, 0, len(ring.files))
        ring.files = []
        return 0
    if opcode == k.IORING_REGISTER_FILES2:
        places, flags, data, tags = RSRC_REGISTER.unpack(string_at(addr, RSRC_REGISTER.size))
        if ring.files:
            return -errno.EBUSY
        if tags:
            raise NotSimulatedError("tags of registered files are not simulated")
        ring.files = [None] * places
        ring.file_range = (0, places)
        if flags & k.IORING_RSRC_REGISTER_SPARSE or not data:
            return 0
        return min(0, update_files(kernel, ring, 0, data, places))
    if opcode == k.IORING_REGISTER_FILE_ALLOC_RANGE:
        first, size = FILE_INDEX_RANGE.unpack(string_at(addr, FILE_INDEX_RANGE.size))
        if first + size > len(ring.files):
            return -errno.EINVAL
        ring.file_range = (first, size)
        return 0
    if opcode == k.IORING_REGISTER_SYNC_CANCEL:
        return _cancel_now(kernel, ring, addr)
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


def _cancel_now(kernel: "SimKernel", ring: SimRing, addr: int) -> int:
    user_data, fd, flags, seconds, rest_ns, number = SYNC_CANCEL_REG.unpack(
        string_at(addr, SYNC_CANCEL_REG.size)
    )
    answer = cancel_matching(ring, flags, user_data, fd, number, None)
    deadline_ns = None
    if seconds != -1 or rest_ns != -1:
        deadline_ns = kernel.clock.now_ns + seconds * 1_000_000_000 + rest_ns
    while answer == -errno.EALREADY:
        if not kernel.pass_time(deadline_ns, ring.requests.values()):
            return -errno.ETIME
        ring.run_work(None)
        answer = cancel_matching(ring, flags, user_data, fd, number, None)
        if answer == -errno.ENOENT:
            return 0
    return answer


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
