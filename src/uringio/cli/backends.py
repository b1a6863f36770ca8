"""
Which backend a command runs on, and why: the words of `serve` and `cp`.

`uringio probe` says more; these fit a line.
"""

import errno
import os
from typing import Final

from uringio._driver.choice import BLOCKED_ERRNOS, VARIABLE
from uringio._driver.contract import Driver
from uringio._sys.numbers import IS_LINUX
from uringio._sys.system import real_system
from uringio.errors import RingError, UnsupportedError

__all__ = ["described", "in_one_line"]

_AUTO: Final = "auto"

_NO_DESCRIPTORS: Final[dict[int | None, str]] = {
    errno.EMFILE: "there are too few descriptors to begin with (ulimit -n): EMFILE",
    errno.ENFILE: "the system has no descriptor left: ENFILE",
}

# The causes of `uringio.probing.Refusal`.
_CAUSES: Final = {
    "sysctl": "the sysctl kernel.io_uring_disabled forbids io_uring",
    "seccomp": "a seccomp filter forbids io_uring",
    "policy": "a security policy forbids io_uring",
    "absent": "this kernel has no io_uring",
    "too_old": "this kernel's io_uring is too old",
    "locked_memory": "the limit of locked memory (ulimit -l) leaves no room for a ring",
    "memory": "the kernel has no memory for a ring",
    "descriptors": "there is no descriptor left for a ring (ulimit -n)",
}


def described(driver: Driver, asked: str) -> str:
    """
    Name the backend of *driver*, and say why it is not io_uring, unless the user said so.

    Args:
        asked: The option ``--backend``.
    """
    if driver.refusal is not None and IS_LINUX:  # elsewhere there is nothing to be said
        cause = _cause(driver.refusal) or f"io_uring cannot be used: {driver.refusal}"
        return f"{driver.name}, since {cause}"
    if asked == _AUTO and os.environ.get(VARIABLE) == driver.name:
        return f"{driver.name}, by {VARIABLE}"
    return driver.name


def in_one_line(error: OSError | UnsupportedError, asked: str) -> str:
    """
    Say why a command cannot begin: of a ring, who asked for one, and what to do.

    Raises:
        OSError: *error*, which is none of those that a user should expect.
    """
    if not isinstance(error, RingError):
        if isinstance(error, OSError) and error.errno not in _NO_DESCRIPTORS:
            raise error
        return _NO_DESCRIPTORS[error.errno] if isinstance(error, OSError) else str(error)
    cause = _cause(error)
    if cause is None:
        return str(error)
    who = "--backend" if asked == "uring" else VARIABLE
    instead = ""
    if error.errno in BLOCKED_ERRNOS:  # else it was not asked for, or would not help
        instead = f". {who} asks for it; auto would take another backend"
    return f"{cause}{instead}. 'uringio probe' says what would help"


def _cause(error: RingError) -> str | None:
    """Say why in a few words, None if they are too few."""
    # At need: where io_uring works, nobody asks.
    from uringio.probing._refusals import explain, look_around

    name = errno.errorcode.get(error.errno or 0, str(error.errno))
    words = _CAUSES.get(explain(error, look_around(real_system())).cause)
    return None if words is None else f"{words}: {name}"
