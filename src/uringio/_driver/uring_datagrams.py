"""
Unix datagrams, for the io_uring driver: a send that finds the receiver's queue full.

The kernel copies a Unix datagram's payload before it looks whether the receiver has room.  When it
has none, and the request waits to be tried again, the payload counts as copied already: what is
sent in the end is an empty datagram, and the request ends with 0 (seen on Linux 6.18, for SEND and
SENDMSG).  So the kernel is not left to wait.  A SENDMSG_UNIX carries MSG_DONTWAIT, and its EAGAIN
is followed by a POLL for room under the same ``user_data``, and that by the same send, made anew.

For a socket that is connected to the receiver such a poll tells of the receiver's room.  For others
it tells of nothing, as poll(2) does, so after one in vain comes a pause.

Completions take the way of the sends without a copy, off the path of all others.

Source: unix(7), poll(2), net/unix/af_unix.c (unix_dgram_sendmsg).
"""

import errno
from collections.abc import Callable
from typing import Final
from weakref import WeakSet

from uringio._ring.prep import sqe_head
from uringio._sys import constants as k
from uringio._sys.errnos import ETIME
from uringio._sys.layouts import TIMESPEC
from uringio._sys.memory import pin
from uringio._sys.system import System

from .contract import Deliver
from .op import SENDMSG, SENDMSG_UNIX, SUBMITTED, Op
from .poll_bits import POLLOUT
from .zero_copy import ZERO_COPY_BIT, ZeroCopySends

__all__ = ["SeldomSends"]

_POLL_HEAD: Final = sqe_head(k.IORING_OP_POLL_ADD)
_TIMEOUT_HEAD: Final = sqe_head(k.IORING_OP_TIMEOUT)
_PAUSE: Final = TIMESPEC.pack(0, 1_000_000)  # the kernel reads it while the request is submitted

Push = Callable[[int, int, int, int, int, int], bool]


class SeldomSends(ZeroCopySends):
    """
    The sends of one ring that may take more than one completion.

    Args:
        push: Queues an SQE: head, fd, addr, len, flags, user_data; False where the queue is full.
    """

    def __init__(
        self,
        system: System,
        in_flight: dict[int, Op[object]],
        again: dict[int, Op[object]],
        settle_slowly: Callable[[Op[object], int, bytes | None], None],
        push: Push,
    ) -> None:
        super().__init__(system, in_flight, again, settle_slowly)
        self._push = push
        self._waiting: WeakSet[Op[object]] = WeakSet()  # for room
        self._asked: WeakSet[Op[object]] = WeakSet()  # those that a poll promised room

    def take_in(self, user_data: int, res: int, flags: int, deliver: Deliver) -> bool:
        """Take a completion, as there."""
        number = user_data & ~ZERO_COPY_BIT
        op = self._in_flight.get(number)
        if op is None or not (op.code == SENDMSG_UNIX or op in self._waiting):
            return super().take_in(user_data, res, flags, deliver)
        waited = op in self._waiting
        if waited and op.state == SUBMITTED and (res >= 0 or res == -ETIME):
            self._again[number] = op
            del self._in_flight[number]
        elif waited or op.state != SUBMITTED or res < 0:
            if res == -errno.EAGAIN and op.state == SUBMITTED and self._wait(op, user_data):
                self._waiting.add(op)
                return True
            op.code = SENDMSG
            # What a poll answers is no count of bytes.
            self._settle_slowly(op, min(res, -errno.ECANCELED) if waited else res, None)
        else:
            self._succeeded(op, number, res, deliver)
        self._waiting.discard(op)
        return True

    def _wait(self, op: Op[object], user_data: int) -> bool:
        """Have another completion for *op* when it is time to try again."""
        if op in self._asked:
            addr, _, _keep = pin(_PAUSE)
            self._asked.discard(op)
            return self._push(_TIMEOUT_HEAD, -1, addr, 1, 0, user_data)
        self._asked.add(op)
        return self._push(_POLL_HEAD, op.fd, 0, 0, POLLOUT, user_data)

    def abort(self, op: Op[object]) -> None:
        """See there; a Unix datagram's memory is the kernel's during the call alone."""
        if op.code != SENDMSG_UNIX:
            super().abort(op)
