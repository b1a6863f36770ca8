"""
What each errno of the ring's own calls means for us: a fate for every one.

The fates of ``io_uring_enter`` decide what the ring does next; they are the whole of its error
handling.  An operation's errno is another matter: it is the user's to see, and the few exceptions
stand with the driver that handles them.

Sources: io_uring_enter(2), io_uring_setup(2), and what Linux 6.18 was seen to answer.
"""

import enum
import errno
from typing import Final

__all__ = [
    "EBADFD",
    "EBADR",
    "ENODATA",
    "ENONET",
    "ENTER_FATES",
    "ENTER_REMEDIES",
    "EOWNERDEAD",
    "ETIME",
    "SETUP_REMEDIES",
    "Fate",
    "fate_of_enter",
]

# What not every system has.  Elsewhere their numbers mean other things, so there they are numbers
# that no kernel answers.
_NOWHERE: Final = 1 << 20
ETIME: Final = int(getattr(errno, "ETIME", _NOWHERE + 62))
EBADR: Final = int(getattr(errno, "EBADR", _NOWHERE + 53))
EBADFD: Final = int(getattr(errno, "EBADFD", _NOWHERE + 77))
EOWNERDEAD: Final = int(getattr(errno, "EOWNERDEAD", _NOWHERE + 130))
ENODATA: Final = int(getattr(errno, "ENODATA", _NOWHERE + 61))
ENONET: Final = int(getattr(errno, "ENONET", _NOWHERE + 64))


class Fate(enum.Enum):
    """What to do about an errno."""

    DONE = "done"  # not a failure for us: the wait ended
    REAP = "reap"  # make room by taking completions, then call again
    RAISE = "raise"  # the user's to know, as a typed error
    BUG = "bug"  # cannot happen unless this library is wrong


# How many SQEs an enter consumed is never read from its return value but from the shared SQ head,
# so every row may be reached with some of them consumed.  What has no row cannot happen: BUG.
ENTER_FATES: Final[dict[int, Fate]] = {
    ETIME: Fate.DONE,  # the deadline of the wait passed
    errno.EINTR: Fate.DONE,  # a signal: go back to Python, which runs its handlers, then wait anew
    errno.EAGAIN: Fate.REAP,  # no memory for a request just now
    errno.EBUSY: Fate.REAP,  # overflowed completions must be taken first
    errno.EEXIST: Fate.RAISE,  # another thread owns the ring
    EBADR: Fate.RAISE,  # the kernel dropped a completion for want of memory: the ring is dead
    EBADFD: Fate.RAISE,  # the ring is disabled
    errno.ENXIO: Fate.RAISE,  # the ring is being torn down
    EOWNERDEAD: Fate.RAISE,  # the SQPOLL thread died
    errno.ENOMEM: Fate.RAISE,  # none for what a thread's first enter sets up
    errno.EPERM: Fate.RAISE,  # a filter installed after set-up forbids it,
    errno.EACCES: Fate.RAISE,  # and may choose its own words for that
    errno.ENOSYS: Fate.RAISE,
}

_FORBIDDEN: Final = (
    "A seccomp filter that was installed after the ring was made forbids it; another backend works "
    "without"
)

# For what a new ring would not cure.
ENTER_REMEDIES: Final[dict[int, str]] = {
    EBADFD: "The ring was made disabled and never enabled (IORING_REGISTER_ENABLE_RINGS)",
    errno.EPERM: _FORBIDDEN,
    errno.EACCES: _FORBIDDEN,
    errno.ENOSYS: _FORBIDDEN,
    errno.ENOMEM: "Memory is short: free some, or raise the limit of the control group",
    EBADR: (
        "The kernel had no memory left to keep a completion, so that some are lost. Close the ring "
        "and make a new one"
    ),
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
        "A security policy forbids io_uring (sysctl kernel.io_uring_disabled, SELinux). "
        "Another backend works without"
    ),
    errno.ENOMEM: (
        "The locked-memory limit (ulimit -l, RLIMIT_MEMLOCK) is too low for the ring, or memory is "
        "short. Raise the limit, or ask for fewer entries"
    ),
    errno.EMFILE: "The process has no descriptor left (ulimit -n)",
    errno.ENFILE: "The system has no descriptor left (sysctl fs.file-max)",
    errno.EINVAL: (
        "This kernel refuses every combination of set-up flags that the library knows. It needs "
        "Linux 5.19; another backend works without"
    ),
}


def fate_of_enter(number: int) -> Fate:
    """Return what to do about a positive errno of io_uring_enter."""
    return ENTER_FATES.get(number, Fate.BUG)
