"""
``io_uring_register`` by liburing's names: files, buffers, buffer rings, the ring's own descriptor.

Every function raises an `OpError` named for its registration, and none of them is on a hot path.

Twins: io_uring_register_files, _register_buffers, _register_buf_ring, _register_ring_fd and their
counterparts (liburing register.c).  Source: io_uring_register(2).
"""

from _thread import get_ident
from collections.abc import Sequence
from struct import Struct, pack
from typing import Final

from uringio._sys import constants as k
from uringio._sys.layouts import BUF_REG, IOVEC, RSRC_REGISTER, RSRC_UPDATE, RSRC_UPDATE2
from uringio._sys.memory import pin
from uringio._sys.packing import packed, packed_all
from uringio.errors import op_error

from .setup import Ring

__all__ = [
    "register_buf_ring",
    "register_buffers",
    "register_buffers_sparse",
    "register_buffers_update",
    "register_files",
    "register_files_update",
    "register_iowq_max_workers",
    "register_ring_fd",
    "unregister_buf_ring",
    "unregister_buffers",
    "unregister_files",
]

_BOUNDS: Final = Struct("=2I")


def _register(ring: Ring, name: str, opcode: int, argument: bytes | bytearray, count: int) -> int:
    addr = 0
    if argument:
        addr, _, _keep = pin(argument, writable=isinstance(argument, bytearray))
    result = ring.register(opcode, addr, count)
    if result < 0:
        raise op_error(-result, name, ring.fd)
    return result


def register_files(ring: Ring, fds: Sequence[int]) -> None:
    """Register a table of descriptors; -1 leaves a slot empty.  Kernel: 5.1."""
    raw = packed_all("i", fds, "a descriptor")
    _register(ring, "register_files", k.IORING_REGISTER_FILES, raw, len(fds))


def register_files_update(ring: Ring, first_slot: int, fds: Sequence[int]) -> int:
    """
    Replace slots from *first_slot* on, and return how many were set; -1 empties a slot.

    Kernel: 5.5.
    """
    raw = packed_all("i", fds, "a descriptor")
    addr, _, _keep = pin(raw)
    update = packed(RSRC_UPDATE, first_slot=first_slot, addr=addr)
    return _register(
        ring, "register_files_update", k.IORING_REGISTER_FILES_UPDATE, update, len(fds)
    )


def unregister_files(ring: Ring) -> None:
    """Drop the table of descriptors.  Kernel: 5.1."""
    _register(ring, "unregister_files", k.IORING_UNREGISTER_FILES, b"", 0)


def register_buffers(ring: Ring, spans: Sequence[tuple[int, int]]) -> None:
    """
    Pin memory for fixed-buffer operations.

    Args:
        spans: (address, length in bytes) of each; the memory is the caller's and must outlive the
            registration.

    Kernel: 5.1.
    """
    raw = b"".join(IOVEC.pack(addr, len_bytes) for addr, len_bytes in spans)
    _register(ring, "register_buffers", k.IORING_REGISTER_BUFFERS, raw, len(spans))


def register_buffers_sparse(ring: Ring, count: int) -> None:
    """Make a table of *count* fixed buffers, all empty.  Kernel: 5.19."""
    raw = RSRC_REGISTER.pack(count, k.IORING_RSRC_REGISTER_SPARSE, 0, 0)
    _register(ring, "register_buffers", k.IORING_REGISTER_BUFFERS2, raw, len(raw))


def register_buffers_update(
    ring: Ring, index: int, addr: int, len_bytes: int, tag: int = 0
) -> None:
    """
    Put memory into place *index* of the table of fixed buffers; address 0 empties it.

    Args:
        tag: The ``user_data`` of a completion that tells when the kernel has let go of this memory,
            after its place was given to another or emptied; 0: none.

    Kernel: 5.13.
    """
    span = IOVEC.pack(addr, len_bytes)
    tags = pack("=Q", tag)
    span_addr, _, _keep = pin(span)
    tags_addr, _, _keep_too = pin(tags)
    raw = RSRC_UPDATE2.pack(index, span_addr, tags_addr, 1)
    _register(ring, "register_buffers_update", k.IORING_REGISTER_BUFFERS_UPDATE, raw, len(raw))


def unregister_buffers(ring: Ring) -> None:
    """Unpin the fixed buffers.  Kernel: 5.1."""
    _register(ring, "unregister_buffers", k.IORING_UNREGISTER_BUFFERS, b"", 0)


def register_buf_ring(ring: Ring, ring_addr: int, entries: int, group: int) -> None:
    """Register a ring of provided buffers at page-aligned *ring_addr*.  Kernel: 5.19."""
    _register(
        ring,
        "register_buf_ring",
        k.IORING_REGISTER_PBUF_RING,
        BUF_REG.pack(ring_addr, entries, group, 0, 0),
        1,
    )


def unregister_buf_ring(ring: Ring, group: int) -> None:
    """Withdraw a ring of provided buffers.  Kernel: 5.19."""
    _register(
        ring,
        "unregister_buf_ring",
        k.IORING_UNREGISTER_PBUF_RING,
        BUF_REG.pack(0, 0, group, 0, 0),
        1,
    )


def register_ring_fd(ring: Ring) -> None:
    """
    Let enter find the ring by a registered index, which spares it a descriptor look-up.

    Must come before the closures of `_ring.queue` are made.  The index is the calling thread's own:
    from now on no other thread may enter the ring.  Kernel: 5.18.

    Raises:
        OpError: Refused: EBUSY when the thread has sixteen already.
    """
    if ring.registered_by is not None or ring.system.buggify("no registered index"):
        return
    update = bytearray(RSRC_UPDATE.pack(0xFFFFFFFF, ring.fd))
    _register(ring, "register_ring_fd", k.IORING_REGISTER_RING_FDS, update, 1)
    ring.enter_fd = RSRC_UPDATE.unpack(update)[0]
    ring.enter_flags |= k.IORING_ENTER_REGISTERED_RING
    ring.registered_by = get_ident()


def unregister_ring_fd(ring: Ring) -> None:
    """
    Give the registered index back; closures made before enter nothing any more, or another ring.

    `Ring.close` does it too, if it runs in the same thread.  Kernel: 5.18.
    """
    if ring.registered_by is not None:
        result = ring.give_index_back()
        if result < 0:
            raise op_error(-result, "unregister_ring_fd", ring.fd)


def register_iowq_max_workers(ring: Ring, bounded: int, unbounded: int) -> tuple[int, int]:
    """
    Cap the kernel's worker threads and return the old caps; 0 asks without change.

    Args:
        bounded: Workers for regular files and block devices.
        unbounded: Workers for everything else.

    Kernel: 5.15.
    """
    argument = bytearray(packed(_BOUNDS, bounded=bounded, unbounded=unbounded))
    _register(ring, "register_iowq_max_workers", k.IORING_REGISTER_IOWQ_MAX_WORKERS, argument, 2)
    view = memoryview(argument).cast("I")
    return view[0], view[1]
