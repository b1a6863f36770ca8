"""
What each errno means for us: a fate for every one.

The fates of ``io_uring_enter`` decide what the ring does next; they are the whole of its error
handling.  The fates of operations are coarser: nearly all of them are the user's to see, and the
few that are ours to handle are named here.

Sources: io_uring_enter(2), io_uring_setup(2), and what Linux 6.18 was seen to answer.
"""

import enum
import errno
from typing import Final

__all__ = ["ENTER_FATES", "OP_FATES", "SETUP_REMEDIES", "Fate", "op_fate"]


class Fate(enum.Enum):
    """What to do about an errno."""

    DONE = "done"  # not a failure for us: the wait ended
    RETRY = "retry"  # call again; nothing was lost
    REAP = "reap"  # make room by taking completions, then call again
    RAISE = "raise"  # the user's to know, as a typed error
    BUG = "bug"  # cannot happen unless this library is wrong


# How many SQEs an enter consumed is never read from its return value but from the shared SQ head,
# so every row may be reached with some of them consumed.
ENTER_FATES: Final[dict[int, Fate]] = {
    errno.ETIME: Fate.DONE,  # the deadline of the wait passed
    errno.EINTR: Fate.DONE,  # a signal: go back to Python, which runs its handlers, then wait anew
    errno.EAGAIN: Fate.REAP,  # no memory for a request just now
    errno.EBUSY: Fate.REAP,  # overflowed completions must be taken first
    errno.EEXIST: Fate.RAISE,  # another thread owns the ring
    errno.EBADR: Fate.RAISE,  # the kernel dropped a completion for want of memory: the ring is dead
    errno.EBADFD: Fate.RAISE,  # the ring is disabled
    errno.EBADF: Fate.BUG,
    errno.EFAULT: Fate.BUG,
    errno.EINVAL: Fate.BUG,
    errno.ENXIO: Fate.RAISE,  # the ring is being torn down
    errno.EOPNOTSUPP: Fate.BUG,
    errno.EOWNERDEAD: Fate.RAISE,  # the SQPOLL thread died
    errno.EPERM: Fate.RAISE,  # a filter installed after set-up forbids it
    errno.ENOSYS: Fate.RAISE,
}

# What an operation's own errno means when it is not simply the user's to see.
OP_FATES: Final[dict[int, Fate]] = {
    errno.EINTR: Fate.RETRY,
    errno.ENOBUFS: Fate.REAP,  # receive with a provided buffer: queue until one returns
    errno.EFAULT: Fate.BUG,
}

SETUP_REMEDIES: Final[dict[int, str]] = {
    errno.EPERM: (
        "io_uring is blocked here: a seccomp profile (the default of container engines) or the "
        "sysctl kernel.io_uring_disabled. Allow the io_uring syscalls, or use another backend"
    ),
    errno.ENOSYS: (
        "io_uring is not in this kernel, or a seccomp profile hides it. It needs Linux 5.19; "
        "another backend works without"
    ),
    errno.EACCES: (
        "a security policy forbids io_uring (sysctl kernel.io_uring_disabled, SELinux). "
        "Another backend works without"
    ),
    errno.ENOMEM: (
        "the locked-memory limit (ulimit -l, RLIMIT_MEMLOCK) is too low for the ring, or memory is "
        "short. Raise the limit, or ask for fewer entries"
    ),
    errno.EMFILE: "the process has no descriptor left (ulimit -n)",
    errno.ENFILE: "the system has no descriptor left (sysctl fs.file-max)",
    errno.EINVAL: "this kernel refuses every combination of set-up flags known to the library",
}


def op_fate(number: int) -> Fate:
    """Return what to do about a positive errno of an operation."""
    return OP_FATES.get(number, Fate.RAISE)
