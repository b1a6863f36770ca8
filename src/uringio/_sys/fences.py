"""
A store-load barrier for pure Python.

A program that stores one word and then loads another needs a full barrier between the two when
somebody else does the same the other way round: without it both may miss what the other has
stored.  No processor keeps that order unasked, and Python has no atomic operations.

Two ways lead to one.  `libatomic`, which compilers ship, exports C11's ``atomic_thread_fence`` as a
function: 60 ns.  ``membarrier(2)`` is a system call: in 1.5 us it passes a full barrier in the
calling thread and, by interrupt, in every other thread of the process that runs at that moment.
The caller's own barrier is what is needed here: the manual page lists the call as ordered against a
full barrier of the other side, and the kernel's submitting thread has one between telling that it
sleeps and its last look at the queue.  (The kernel leaves all of it out where nobody else shares
the memory, but that thread does: it is one of the process.)

Sources: membarrier(2), kernel/sched/membarrier.c; C11, 7.17.4.1.
"""

import ctypes
import os
from collections.abc import Callable
from functools import partial
from typing import Final, TypeAlias

__all__ = ["Fence", "full_fence"]

# Passes a full barrier; anything but 0 or None says that it could not.
Fence: TypeAlias = Callable[[], int | None]

_NR_MEMBARRIER: Final = {
    "x86_64": 324,
    "aarch64": 283,
    "riscv64": 283,
    "loongarch64": 283,
    "ppc64le": 365,
    "s390x": 356,
}
_QUERY: Final = 0
_PRIVATE_EXPEDITED: Final = 1 << 3
_REGISTER_PRIVATE_EXPEDITED: Final = 1 << 4
_SEQ_CST: Final = 5


def full_fence(syscall: Callable[..., int]) -> Fence | None:
    """Return the cheapest way to pass a full barrier here, None where there is none."""
    return _of_library("libatomic.so.1") or _of_kernel(syscall)


def _of_library(name: str) -> Fence | None:
    try:
        # It never blocks, so the interpreter's lock need not be let go of.
        fence = ctypes.PyDLL(name)["atomic_thread_fence"]
    except (OSError, AttributeError):
        return None
    fence.restype = None
    return partial(fence, _SEQ_CST)


def _of_kernel(syscall: Callable[..., int]) -> Fence | None:
    number = _NR_MEMBARRIER.get(os.uname().machine)
    if number is None:
        return None
    known = syscall(number, _QUERY, 0, 0, 0, 0, 0)
    if known < 0 or not known & _PRIVATE_EXPEDITED:
        return None
    if syscall(number, _REGISTER_PRIVATE_EXPEDITED, 0, 0, 0, 0, 0) < 0:
        return None
    return partial(syscall, number, _PRIVATE_EXPEDITED, 0, 0, 0, 0, 0)
