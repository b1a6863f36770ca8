"""
What is kept for requests in flight, by the user_data that their completions carry.

Several may share one; their memory is freed when all of them have ended.

A request may post a completion only if it fails.  Nothing ever tells that it has ended well, so its
user_data stays what a late failure may carry.  Were that the name of a request with memory too, the
failure would be taken for the end of that, and memory be freed while the kernel still writes there.
"""

from typing import Final

from uringio._sys import constants as k
from uringio.errors import UsageError

from ._memory import Passing

__all__ = ["Flight", "Several", "Silent", "join", "refuse_memory", "refuse_shared", "remember"]

# What requests in flight keep alive, by user_data; None for a request that keeps nothing.
Flight = dict[int, object]
# The user_data of requests whose completion is skipped, oldest first.
Silent = dict[int, None]

# How many names are remembered.  A program that numbers all its requests would have them pile up;
# of those so far back, hardly one is still to fail.
_NAMES_MAX: Final = 4096


class Several:
    """How many requests share a user_data, and what they keep."""

    __slots__ = ("count", "keeps")

    def __init__(self, keep: object) -> None:
        self.count = 1
        self.keeps = [keep]

    @property
    def holds(self) -> int:
        """How many pieces of memory they keep."""
        return sum(one is not None for one in self.keeps)

    def add(self, keep: object) -> None:
        """Count one more."""
        self.count += 1
        self.keeps.append(keep)


def join(flight: Flight, user_data: int, keep: object) -> None:
    """Enter a request, whether or not another has its user_data."""
    if user_data not in flight:
        flight[user_data] = keep
        return
    there = flight[user_data]
    if isinstance(there, Several):
        there.add(keep)
    else:
        flight[user_data] = both = Several(there)
        both.add(keep)


def refuse_memory(keep: object, flags: int) -> None:
    """
    See to it that a request whose completion is skipped has no memory that one must hear of.

    Raises:
        UsageError: It has.
    """
    if flags & k.IOSQE_BUFFER_SELECT:
        raise UsageError(
            "a request whose completion is skipped would never tell which buffer it took: leave "
            "CQE_SKIP_SUCCESS out"
        )
    if keep is not None and not isinstance(keep, Passing):
        raise UsageError(
            "a request whose completion is skipped would never tell when its memory is free: "
            "leave CQE_SKIP_SUCCESS out, or give an address and keep the memory"
        )


def remember(silent: Silent, flight: Flight, user_data: int, buffers: bool) -> None:
    """
    Note the name of a request whose completion is skipped.

    Args:
        buffers: Whether the ring has provided buffers, which requests do not keep one by one.

    Raises:
        UsageError: A request in flight has it, and memory.
    """
    there = flight.get(user_data)
    memory = there.holds if isinstance(there, Several) else there is not None
    if memory or (buffers and user_data in flight):
        raise refuse_shared(user_data)
    silent[user_data] = None
    if len(silent) > _NAMES_MAX:
        del silent[next(iter(silent))]


def refuse_shared(user_data: int) -> UsageError:
    """Build what is raised where a failure could be taken for the end of a request with memory."""
    return UsageError(
        f"user_data {user_data} names a request with memory and one whose completion is skipped: "
        "a failure of the second would free the memory of the first; give each a user_data of its "
        "own"
    )
