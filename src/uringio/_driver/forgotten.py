"""
What becomes of ops that nobody cares for any more, told by their finalizers.

A finalizer may run in the middle of anything, and as late as the interpreter's end, when nothing
can be imported any more: there it does its duty and says nothing.
"""

import sys
import warnings
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from .op import Op

__all__ = ["close_unclaimed", "warn_never_awaited"]

T = TypeVar("T")

# The interpreter's end takes the modules' names away before the last objects go.
_is_finalizing = sys.is_finalizing


def warn_never_awaited(op: "Op[T]", closes: bool) -> None:
    """
    Warn of a new op that is dropped.

    Args:
        closes: It was to close its descriptor, of which nobody else knows any more: it is closed
            here, and its driver told before, who may watch it.
    """
    description = repr(op)
    if closes and op.home is not None:
        fd, op.fd = op.fd, -1
        op.home.unregister(fd)
        try:
            op.home.system.close(fd)
        except OSError:
            pass  # it is not open, so there is nothing to do
    if not _is_finalizing():
        warnings.warn(f"{description} was never awaited", RuntimeWarning, stacklevel=3, source=op)


def close_unclaimed(op: "Op[T]") -> None:
    """Close a descriptor that nobody took, its awaiter having left before `finish` was called."""
    if isinstance(op.value, int) and op.home is not None:
        op.home.system.close(op.value)
