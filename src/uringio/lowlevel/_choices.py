"""
What kind of ring is asked for: which set-up flags go together, and what a refusal means.

The kernel says EINVAL to all of it.  What no kernel takes is refused here, by name; what only some
do is asked of the kernel, and its refusal explained.
"""

import errno
from typing import Final, NamedTuple

from uringio._ring.lent import is_lent, queue_bytes
from uringio._ring.setup import FLAG_LADDER, queue_sizes
from uringio._sys import constants as k
from uringio._sys.fences import Fence
from uringio._sys.memory import Memory
from uringio._sys.system import System
from uringio.errors import OpError, RingError, UnsupportedError, UsageError

from ._ring_flags import SetupFlags
from ._ringless import query

__all__ = ["Choice", "choose", "explain", "memory_bytes"]

_BASE: Final = k.IORING_SETUP_CQSIZE | k.IORING_SETUP_CLAMP
_U32: Final = (1 << 32) - 1

# What the kernel refuses together: flags, and why.
_QUARRELS: Final = (
    ("CQE32", "CQE_MIXED", "either all completions have 32 bytes, or some"),
    ("SQE128", "SQE_MIXED", "either all requests have 128 bytes, or some"),
    ("SQPOLL", "COOP_TASKRUN", "the kernel's thread completes, and need not interrupt the program"),
    ("SQPOLL", "TASKRUN_FLAG", "the kernel's thread runs deferred work itself"),
    ("SQPOLL", "DEFER_TASKRUN", "the kernel's thread submits, so the owner cannot complete"),
    ("SQPOLL", "SQ_REWIND", "the kernel's thread needs a queue that goes round"),
)
# What it refuses alone: a flag, and of which it needs one.
_NEEDS: Final = (
    ("DEFER_TASKRUN", ("SINGLE_ISSUER",)),
    ("TASKRUN_FLAG", ("COOP_TASKRUN", "DEFER_TASKRUN")),
    ("HYBRID_IOPOLL", ("IOPOLL",)),
    ("SQ_AFF", ("SQPOLL",)),
    ("REGISTERED_FD_ONLY", ("NO_MMAP",)),
    ("SQ_REWIND", ("NO_SQARRAY",)),
)


class Choice(NamedTuple):
    """
    How a ring is to be made.

    Attributes:
        ladder: Set-up flags to try in turn.
        fence: The barrier that SQPOLL needs, None on other rings.
    """

    ladder: tuple[int, ...]
    fence: Fence | None


def choose(
    system: System,
    flags: int | None,
    *,
    workers_flags: int | None,
    sq_thread_cpu: int | None,
    sq_thread_idle_ms: int | None,
    memory: Memory | None,
) -> Choice:
    """
    Complete the set-up flags by what the other arguments imply, or refuse them.

    Args:
        workers_flags: How the ring was made whose workers are to be shared, None for no such ring.

    Raises:
        UnsupportedError: This machine has no barrier for such a ring.
        UsageError: They exclude or need each other, or the arguments.
        ValueError: A number is out of range.
    """
    if flags is not None and not 0 <= flags <= _U32:
        raise ValueError(f"set-up flags are 32 bits, not {flags:#x}")
    implied = 0 if workers_flags is None else k.IORING_SETUP_ATTACH_WQ
    if sq_thread_cpu is not None:
        implied |= k.IORING_SETUP_SQ_AFF
        if not 0 <= sq_thread_cpu <= _U32:
            raise ValueError(f"there is no processor {sq_thread_cpu}")
    if memory is not None:
        implied |= k.IORING_SETUP_NO_MMAP
        if is_lent(memory):
            raise UsageError("the queues of another ring live in this memory: give each its own")
    ladder: tuple[int, ...] = FLAG_LADDER if flags is None else (flags | _BASE,)
    asked = SetupFlags(ladder[0] | implied)
    _refuse_quarrels(asked)
    if SetupFlags.SQ_AFF in asked and sq_thread_cpu is None:
        raise UsageError("SetupFlags.SQ_AFF binds a thread to a processor: name sq_thread_cpu")
    if SetupFlags.ATTACH_WQ in asked:
        _refuse_partners(asked, workers_flags)
    if sq_thread_idle_ms is not None:
        if SetupFlags.SQPOLL not in asked:
            raise UsageError("sq_thread_idle_ms is about the thread of SetupFlags.SQPOLL: add it")
        if not 0 < sq_thread_idle_ms <= _U32:
            raise ValueError(
                f"a thread is idle for 1 ms or more, not {sq_thread_idle_ms}; None is the kernel's "
                "own choice, a second"
            )
    return Choice(tuple(one | implied for one in ladder), _fence_for(system, asked))


def _refuse_quarrels(asked: SetupFlags) -> None:
    for name, other, why in _QUARRELS:
        if SetupFlags[name] in asked and SetupFlags[other] in asked:
            raise UsageError(f"SetupFlags.{name} and {other} exclude each other: {why}")
    for name, needed in _NEEDS:
        if SetupFlags[name] in asked and not any(SetupFlags[one] in asked for one in needed):
            raise UsageError(f"SetupFlags.{name} needs {' or '.join(needed)} beside it")


def _refuse_partners(asked: SetupFlags, workers_flags: int | None) -> None:
    if workers_flags is None:
        raise UsageError("SetupFlags.ATTACH_WQ shares what another ring has: name workers_of")
    if workers_flags & k.IORING_SETUP_REGISTERED_FD_ONLY:
        raise UsageError("the ring in workers_of has no descriptor to be found by: share another's")
    if SetupFlags.SQPOLL in asked and not workers_flags & k.IORING_SETUP_SQPOLL:
        raise UsageError(
            "the ring in workers_of has no submitting thread to share: make it with "
            "SetupFlags.SQPOLL too"
        )


def _fence_for(system: System, asked: SetupFlags) -> Fence | None:
    if SetupFlags.SQPOLL in asked:
        fence = system.full_fence()
        if fence is None:
            raise UnsupportedError(
                "a ring with SetupFlags.SQPOLL",
                "a memory barrier: membarrier(2), which a seccomp filter may forbid, or libatomic "
                "(install the package libatomic1, or libatomic)",
            )
        if not system.total_store_order and asked & (SetupFlags.CQE32 | SetupFlags.CQE_MIXED):
            raise UnsupportedError(
                "a ring with SetupFlags.SQPOLL and completions of 32 bytes",
                "a processor that keeps loads in order, such as x86-64",
            )
        return fence
    if not system.total_store_order and SetupFlags.DEFER_TASKRUN not in asked:
        raise UnsupportedError(
            "a ring without SetupFlags.DEFER_TASKRUN",
            "a processor that keeps loads in order, such as x86-64: add DEFER_TASKRUN and "
            "SINGLE_ISSUER",
        )
    return None


def memory_bytes(entries: int, cq_entries: int | None, flags: int) -> int:
    """Return how much memory the queues of such a ring take, in bytes."""
    return sum(queue_bytes(*queue_sizes(entries, cq_entries), flags))


def explain(error: RingError, flags: int, sq_thread_cpu: int | None) -> Exception:
    """
    Tell why the kernel refused a ring whose flags do go together.

    Args:
        flags: What was asked for, and refused.

    Returns:
        What to raise from *error*: an `UnsupportedError` naming flags that are too new, where the
        kernel tells which it knows, else a `RingError` with the remedy, or *error* itself.
    """
    asked, number = SetupFlags(flags), error.errno or 0
    if number in {errno.EPERM, errno.EACCES} and SetupFlags.SQPOLL in asked:
        return RingError(
            number,
            "io_uring_setup failed",
            "io_uring may be blocked here (a seccomp profile, the sysctl "
            "kernel.io_uring_disabled), or a security policy (SELinux) forbids SetupFlags.SQPOLL: "
            "try without",
        )
    if number == errno.EBUSY and SetupFlags.REGISTERED_FD_ONLY in asked:
        return RingError(
            number,
            "no ring with REGISTERED_FD_ONLY",
            "A thread has sixteen registered indexes, and all of this one's are taken: close a "
            "ring that has one",
        )
    if number != errno.EINVAL:
        return error
    try:
        known = query().setup_flags
    except OpError:  # KERNEL 6.18: QUERY
        return _by_age(asked)
    if unknown := flags & ~known & ~sum(SetupFlags):
        return RingError(errno.EINVAL, f"no kernel knows set-up flags {unknown:#x}", "Leave it out")
    if young := SetupFlags(flags & ~known):
        names = " and ".join(f"SetupFlags.{one.name}" for one in young)
        return UnsupportedError(names, f"Linux {young.since}")
    if sq_thread_cpu is not None:
        return RingError(
            errno.EINVAL,
            f"no ring with its thread on processor {sq_thread_cpu}",
            "That processor must exist, be on line, and be one of the control group's (cpuset)",
        )
    return RingError(
        errno.EINVAL,
        f"the kernel refuses a ring with {asked!r}",
        "It knows each of these flags, but takes them not together; see io_uring_setup_flags(7)",
    )


def _by_age(asked: SetupFlags) -> RingError:
    return RingError(
        errno.EINVAL,
        f"the kernel refuses a ring with {asked!r}",
        f"The newest of these flags needs Linux {asked.since}; sq_thread_cpu, if given, must be a "
        "processor on line; and NO_MMAP before Linux 6.10 takes no queue larger than a page",
    )
