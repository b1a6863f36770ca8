"""
Polls on io_uring, whose peer has ended its sending.

The kernel adds RDHUP to whatever a POLL_ADD asks for.  So a request for room on a socket whose peer
has shut down its own sending ends at once, room or not, and so would the next; where epoll(7) and
poll(2) wait until there is room.

A POLL whose completion holds nothing that counts (what was asked for, and what is always told)
becomes a POLL_ON: one multishot request, which the kernel keeps on the descriptor and which tells
of each change.  Its first completion tells what holds already, so nothing that became true in
between is missed; after that it is silent until something happens to the descriptor.  The first
event that counts is noted, and the request withdrawn: the op ends when the kernel has let go.

Completions take the way of the sends without a copy, off the path of all others.  Multishot polls
are older (5.13) than anything else that this driver runs on.

Source: io_uring_prep_poll_multishot(3), io_uring/poll.c (IO_POLL_UNMASK) of Linux 6.18.
"""

from collections.abc import Callable

from uringio._sys import constants as k
from uringio._sys.system import System

from .contract import Deliver
from .op import DONE, POLL, POLL_ON, SEND_ZC, SENDMSG_ZC, SUBMITTED, Op
from .poll_bits import ALWAYS_TOLD
from .uring_datagrams import Push, SeldomSends
from .zero_copy import ZERO_COPY_BIT

__all__ = ["SeldomOps"]


class SeldomOps(SeldomSends):
    """
    The ops of one ring that may take more than one completion: those sends, and POLL_ON.

    Args:
        ending: The driver's ops whose requests are to be withdrawn, by their `use`.
    """

    def __init__(
        self,
        system: System,
        tables: tuple[dict[int, Op[object]], dict[int, Op[object]], dict[int, Op[object]]],
        settle_slowly: Callable[[Op[object], int, bytes | None], None],
        push: Push,
    ) -> None:
        in_flight, again, self._ending = tables
        super().__init__(system, in_flight, again, settle_slowly, push)

    def take_in(self, user_data: int, res: int, flags: int, deliver: Deliver) -> bool:
        """Take a completion, as there."""
        number = user_data & ~ZERO_COPY_BIT
        op = self._in_flight.get(number)
        # POLL: it was settled half way before, and a signal handler raised.
        if op is None or op.code not in {POLL, POLL_ON}:
            return super().take_in(user_data, res, flags, deliver)
        if op.value is None and res > 0 and op.state == SUBMITTED:
            op.value = res & (op.flags | ALWAYS_TOLD) or None
        if flags & k.IORING_CQE_F_MORE:
            if op.value is not None and op.state == SUBMITTED:
                self._ending[number] = op
        elif op.state == SUBMITTED and op.value is None and res >= 0:
            self._again[number] = op  # the kernel had no room for more completions
            del self._in_flight[number]
        else:
            op.code = POLL
            op.len = 0
            if op.state == SUBMITTED and op.value is not None:
                op.state = DONE
                del self._in_flight[number]
                deliver(op)
            else:
                self._settle_slowly(op, res, None)
        return True

    def is_sought(self, user_data: int) -> bool:
        """Whether a cancel request that did not find the op of *user_data* is to be repeated."""
        op = self._in_flight.get(user_data & ~ZERO_COPY_BIT)
        # Of a send without a copy there may be nothing left but a notification.
        return op is not None and op.code not in {SEND_ZC, SENDMSG_ZC}

    def abort(self, op: Op[object]) -> None:
        """See there; a poll has no memory."""
        if op.code != POLL_ON:
            super().abort(op)
