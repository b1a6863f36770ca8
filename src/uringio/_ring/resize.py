"""
Give a ring queues of other sizes, entries and all.

The kernel copies what stands in the queues into new ones, and the counts go on where they were;
the old mapping is of no use to anybody then.  So a ring that was resized is another object over the
same descriptor, and whoever holds words or closures of the old one must take them anew.

Twin: io_uring_resize_rings.  Source: io_uring_resize_rings(3).
"""

from uringio._sys import constants as k
from uringio._sys.layouts import PARAMS
from uringio._sys.memory import Memory, pin
from uringio.errors import op_error

from .lent import queue_bytes
from .setup import Ring, map_rings, queue_sizes

__all__ = ["resize_rings"]


def resize_rings(ring: Ring, tail: int, entries: int, cq_entries: int) -> Ring:
    """
    Change the queues' sizes, and return the ring that takes the place of *ring*.

    Args:
        tail: Slots filled; published first, since the kernel copies no others.
        entries: Submission slots, rounded up to a power of two, clamped. [count]
        cq_entries: Completion slots, likewise. [count]

    Raises:
        OpError: EINVAL: the ring does not defer completions, or the kernel is older than 6.13;
            EOVERFLOW: what stands in the queues would not fit.  The ring is as it was.  Any errno
            of mmap(2): it can only be closed any more.
        BufferError: Somebody holds an export of the ring's memory.

    Kernel: 6.13.
    """
    params = bytearray(PARAMS.size)
    flags = k.IORING_SETUP_CQSIZE | k.IORING_SETUP_CLAMP
    memory: Memory | None = None
    rings_addr = sqes_addr = 0
    if ring.flags & k.IORING_SETUP_NO_MMAP:
        rings_bytes, sqes_bytes = queue_bytes(*queue_sizes(entries, cq_entries), ring.flags)
        memory = ring.system.allocate(rings_bytes + sqes_bytes)
        rings_addr, sqes_addr = memory.addr, memory.addr + rings_bytes
    PARAMS.pack_into(
        params, 0, entries, cq_entries, flags, *(0,) * 12, sqes_addr, *(0,) * 8, rings_addr
    )
    addr, _, _keep = pin(params, writable=True)
    ring.sq_tail[0] = tail & 0xFFFFFFFF
    result = ring.register(k.IORING_REGISTER_RESIZE_RINGS, addr, 1)
    if result < 0:
        raise op_error(-result, "resize_rings", ring.fd)
    values: tuple[int, ...] = PARAMS.unpack(params)
    offsets = list(values[7:])
    if not ring.flags & k.IORING_SETUP_NO_SQARRAY and not offsets[6]:
        offsets[6] = _array_offset(offsets[14], values[1] * ring.cqe_bytes)
    described = (values[0], values[1], ring.flags, 0, 0, ring.features, 0, *offsets)
    ring.unmap()
    made = map_rings(ring.system, ring.fd, described, memory)
    made.enter_fd, made.enter_flags = ring.enter_fd, ring.enter_flags
    made.registered_by = ring.registered_by
    made.buffer_rings = ring.buffer_rings
    return made


def _array_offset(cqes_offset: int, cqes_bytes: int) -> int:
    """
    Tell where the kernel has put the index array, which after a resize (seen on 6.18) it does not.

    Behind the completions, at the next line of the processor's cache; they begin at one as well.
    """
    line_bytes = cqes_offset & -cqes_offset
    return -(-(cqes_offset + cqes_bytes) // line_bytes) * line_bytes
