"""
Raw addresses: the only place where they are made.

An address is only good while something owns the bytes behind it, so every function here either
returns the owner beside the address or says whose it is.
"""

import ctypes
import errno
import mmap
import os
import sys
from typing import Final, Protocol, TypeAlias

from uringio.errors import UnsupportedError, UsageError, op_error

__all__ = [
    "BYTES_DATA_OFFSET",
    "PAGE_BYTES",
    "Memory",
    "NoClass",
    "Pinned",
    "ReadableBuffer",
    "memory_at",
    "pin",
]

# The number of mbind(2) by `os.uname`; machines that are not here are told that it is missing.
_NR_MBIND: Final = {
    "x86_64": 237,
    "aarch64": 235,
    "riscv64": 235,
    "loongarch64": 235,
    "ppc64le": 259,
    "s390x": 268,
}
_MPOL_PREFERRED: Final = 1
_NODES_MAX: Final = 1024  # of which a kernel can be built with at most as many

PAGE_BYTES: Final = mmap.PAGESIZE

ReadableBuffer: TypeAlias = bytes | bytearray | memoryview

# CPython stores the characters of a bytes object inside the object itself, directly behind its
# header and before the closing NUL that `__basicsize__` counts.  Objects never move, so as long as
# the object is referenced this address is good, at the price of an addition.  Elsewhere None: `pin`
# finds another way.
BYTES_DATA_OFFSET: Final[int | None] = (
    bytes.__basicsize__ - 1 if sys.implementation.name == "cpython" else None
)


class NoClass:
    """No memory has this class: the switch that sends all of it through `pin`."""


class Pinned(Protocol):
    """Something that keeps bytes at one address for as long as it is referenced."""


class Memory:
    """
    Zeroed, page-aligned anonymous memory at a fixed address.

    Private: a forked child has a copy of its own, which neither the parent's kernel requests nor
    the child's stores carry over.

    Attributes:
        addr: First byte. [address]
        len_bytes: Its size. [bytes]
        view: Writable bytes of the whole.
        slices: The mapping itself: ``slices[a:b]`` is the quickest way to a `bytes` copy.
    """

    __slots__ = ("_pin", "addr", "len_bytes", "slices", "view")

    def __init__(self, len_bytes: int) -> None:
        self.slices = mmap.mmap(-1, len_bytes, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self.len_bytes = len_bytes
        self._pin = (ctypes.c_char * len_bytes).from_buffer(self.slices)
        self.addr = ctypes.addressof(self._pin)
        self.view = memoryview(self.slices)

    def part(self, start: int, len_bytes: int) -> memoryview:
        """
        View a part of it, writable.

        Lifetime: the view, what is sliced from it, and the fresh object at its bottom
        (``view.obj``, which may be referred to weakly) keep the whole mapped.
        """
        return memoryview((ctypes.c_ubyte * len_bytes).from_buffer(self.slices, start)).cast("B")

    def advise_huge(self) -> bool:
        """Ask for huge pages; False where the system has none.  Source: madvise(2)."""
        advice = getattr(mmap, "MADV_HUGEPAGE", None)
        if advice is None:
            return False
        try:
            self.slices.madvise(advice)
        except OSError:
            return False
        return True

    def prefer_node(self, node: int) -> None:
        """
        Have its pages, none of which was touched yet, come from NUMA node *node* while it has any.

        Preferred rather than bound: a bound mapping whose node is full gets its process killed.

        Raises:
            ValueError: *node* is not from 0 to 1023.
            OpError: There is no such node (EINVAL), or a filter forbids asking (EPERM).
            UnsupportedError: The kernel knows nothing of nodes.

        Source: mbind(2), for which C libraries have no function.
        """
        if not 0 <= node < _NODES_MAX:
            raise ValueError(f"a memory node is from 0 to {_NODES_MAX - 1}, not {node}")
        from .libc import Libc  # which few programs need here

        mask = (1 << node).to_bytes(_NODES_MAX // 8, sys.byteorder)
        if sys.byteorder == "big":  # it is an array of longs, the lowest first
            mask = b"".join(mask[at : at + 8] for at in range(len(mask) - 8, -1, -8))
        number = _NR_MBIND.get(os.uname().machine)
        result = -errno.ENOSYS
        if number is not None:
            mask_addr, _, _keep = pin(mask)
            result = Libc().syscall(
                number, self.addr, self.len_bytes, _MPOL_PREFERRED, mask_addr, _NODES_MAX + 1, 0
            )
        if result == -errno.ENOSYS:
            raise UnsupportedError("memory of a NUMA node", "a kernel with CONFIG_NUMA")
        if result < 0:
            raise op_error(-result, "mbind", detail=f"node {node}")


def memory_at(addr: int, len_bytes: int) -> memoryview:
    """
    View *len_bytes* bytes at *addr* as a flat, writable memoryview.

    Lifetime: the caller's; nothing here keeps the memory alive, and a view of unmapped memory
    crashes the process when touched.
    """
    return memoryview((ctypes.c_ubyte * len_bytes).from_address(addr)).cast("B")


def pin(
    data: ReadableBuffer, *, writable: bool = False, at_least: int = 0
) -> tuple[int, int, Pinned]:
    """
    Fix the bytes of *data* and return (address, length, what keeps them there).

    A writable exporter is held by its export, so that it can be neither resized nor moved
    meanwhile.  A read-only exporter other than `bytes` is copied, since Python offers no portable
    address for it; so is memory that does not lie in one piece, in the order of its items.

    Args:
        at_least: How much of it the kernel will be told of.  Until it is pinned memory may be
            resized, and its size was asked before. [bytes]

    Raises:
        TypeError: *writable* was asked of memory that may not be written, or of no buffer at all.
        UsageError: *data* is not `bytes` and has become smaller than *at_least*.
    """
    if isinstance(data, bytes):
        if writable:
            raise TypeError("bytes are immutable and cannot receive data; use a bytearray")
        if BYTES_DATA_OFFSET is not None:
            return id(data) + BYTES_DATA_OFFSET, len(data), data
        copy = (ctypes.c_char * max(1, len(data))).from_buffer_copy(data or b"\0")
        return ctypes.addressof(copy), len(data), copy
    try:
        view = memoryview(data)
    except TypeError:
        raise TypeError(f"a bytes-like object is required, not {type(data).__name__!r}") from None
    if view.nbytes < at_least:
        raise UsageError(
            f"this memory had {at_least} bytes when the call was made, and was cut to "
            f"{view.nbytes} before it was awaited"
        )
    if not view.c_contiguous:
        if writable:
            raise TypeError("memory that receives data must be contiguous")
        return pin(view.tobytes())
    if view.readonly:
        if writable:
            raise TypeError("this memory is read-only and cannot receive data")
        return pin(view.tobytes())
    if view.nbytes == 0:
        return 0, 0, view
    export = (ctypes.c_char * view.nbytes).from_buffer(view)
    return ctypes.addressof(export), view.nbytes, export
