"""What a ring tells: completions, and figures about itself."""

from typing import NamedTuple

from uringio._sys import constants as k

__all__ = ["BigCompletion", "Completion", "Statistics"]


class Completion(NamedTuple):
    """
    How a request went on or ended.

    Attributes:
        user_data: The request's.
        res: Its result, or a negative errno.
        flags: `CqeFlags`.
    """

    user_data: int
    res: int
    flags: int

    @property
    def more(self) -> bool:
        """Whether the request goes on, so that more completions will come."""
        return bool(self.flags & k.IORING_CQE_F_MORE)

    @property
    def buffer_id(self) -> int | None:
        """The number of the provided buffer that was taken, None if none was."""
        if not self.flags & k.IORING_CQE_F_BUFFER:
            return None
        return self.flags >> k.IORING_CQE_BUFFER_SHIFT


class BigCompletion(NamedTuple):
    """
    A completion of 32 bytes; one of 16, in a mixed ring, has zeros at the end.

    Attributes:
        user_data, res, flags: As in `Completion`.
        extra1, extra2: What the operation adds.
    """

    user_data: int
    res: int
    flags: int
    extra1: int
    extra2: int


class Statistics(NamedTuple):
    """
    What a ring has done and holds.

    Attributes:
        submitted: Requests that the kernel has taken; with `SetupFlags.SQE_MIXED`, slots.
        completed: Completions that were handed out.
        queued: Requests that are filled and not yet submitted.
        in_flight: Requests, queued ones included, whose last completion was not handed out yet;
            without those that post none.
        held: How many of these keep memory alive.
        dropped: Requests that the kernel threw away as malformed.
        overflowed: Completions that the kernel had no memory for; they are lost.
    """

    submitted: int
    completed: int
    queued: int
    in_flight: int
    held: int
    dropped: int
    overflowed: int
