"""
Sends without a copy, for the io_uring driver.

A SEND_ZC or SENDMSG_ZC hands the pages of its memory to the network itself, and so completes twice.
The first completion, with IORING_CQE_F_MORE, says how many bytes the socket has taken; the second,
with IORING_CQE_F_NOTIF, that nothing refers to the pages any more.  Only then is the op settled:
until the notification the memory is the kernel's, whatever becomes of the op meanwhile.  Where the
first has not F_MORE, nothing follows.

Their completions keep off the path of all others.  ``user_data`` carries a bit more than the op's
`use`, under which nothing is found in flight, so the hot loop passes them on as unawaited.

For TCP the notification comes when the peer has acknowledged every byte, and a peer may take its
time for ever.  Cancelling could then not end, or would have to let go of memory that is still being
sent from.  So it aborts the connection, by connect(2) to nowhere, which drops what was not sent.

Source: io_uring_prep_send_zc(3), tcp(7), connect(2).
"""

import errno
from collections.abc import Callable
from typing import Final

from uringio._sys import constants as k
from uringio._sys.memory import pin
from uringio._sys.system import System

from .contract import Deliver
from .many import name_of
from .op import (
    DONE,
    POLL_ON,
    READ_MANY,
    SEND_ALL,
    SEND_ZC,
    SENDMSG,
    SENDMSG_UNIX,
    SENDMSG_ZC,
    SUBMITTED,
    Op,
)
from .uring_settles import SETTLES

__all__ = ["APART", "COPYING", "ZERO_COPY_BIT", "ZeroCopySends", "number_of"]

ZERO_COPY_BIT: Final = 1 << 61  # of the user_data of such sends, and of all that are `APART`

# It can be sent all the same: by a kernel that knows no such send (EINVAL), a socket that has no
# way without a copy (EOPNOTSUPP), or when the user may not lock so much memory (ENOMEM) or the
# socket's notes of it are too many (ENOBUFS).
_COPY_INSTEAD: Final = frozenset({errno.EINVAL, errno.EOPNOTSUPP, errno.ENOMEM, errno.ENOBUFS})
_NOWHERE: Final = bytes(16)  # a sockaddr of the family AF_UNSPEC
# What each is when it copies, and what it ends as: one way for all kinds.
COPYING: Final = {SEND_ZC: SEND_ALL, SENDMSG_ZC: SENDMSG, SENDMSG_UNIX: SENDMSG}
# Whose completions keep off the path of all others.
APART: Final = frozenset({*COPYING, POLL_ON})


def number_of(op: Op[object]) -> int:
    """Return the ``user_data`` of the SQE for *op*, or of its first."""
    if op.code == READ_MANY:
        return name_of(op.off, 0)
    return op.use | ZERO_COPY_BIT if op.code in APART else op.use


class ZeroCopySends:
    """
    The sends without a copy of one ring; they stand in the driver's own tables.

    Args:
        system: The ring's.
        in_flight: The driver's ops by their `use`.
        again: Those to be asked for once more.
        settle_slowly: Ends an op that failed or was cancelled.
    """

    def __init__(
        self,
        system: System,
        in_flight: dict[int, Op[object]],
        again: dict[int, Op[object]],
        settle_slowly: Callable[[Op[object], int, bytes | None], None],
    ) -> None:
        self._system = system
        self._in_flight = in_flight
        self._again = again
        self._settle_slowly = settle_slowly
        self._answers: dict[int, int] = {}  # use -> first result, while the notification is due

    def take_in(self, user_data: int, res: int, flags: int, deliver: Deliver) -> bool:
        """
        Take a completion of such a send; False if there is none for it.

        May be called again with the same one, when a signal handler has raised meanwhile.
        """
        number = user_data & ~ZERO_COPY_BIT
        op = self._in_flight.get(number)
        if op is None:
            return False
        if flags & k.IORING_CQE_F_NOTIF:
            if number not in self._answers:
                return False
            res = self._answers[number]
        elif flags & k.IORING_CQE_F_MORE:
            self._answers[number] = res
            return True
        if op.state == SUBMITTED and res >= 0:
            self._succeeded(op, number, res, deliver)
        elif op.state == SUBMITTED and -res in _COPY_INSTEAD:
            op.code = COPYING[op.code]
            self._again[number] = op
            del self._in_flight[number]
        else:
            op.code = COPYING.get(op.code, op.code)
            self._settle_slowly(op, res, None)
        self._answers.pop(number, None)
        return True

    def _succeeded(self, op: Op[object], number: int, res: int, deliver: Deliver) -> None:
        plain = COPYING.get(op.code, op.code)
        settle = SETTLES[plain]
        assert settle is not None
        if settle(op, res):
            op.code = plain
            op.state = DONE
            del self._in_flight[number]
            deliver(op)
        else:
            self._again[number] = op
            del self._in_flight[number]

    def abort(self, op: Op[object]) -> None:
        """Have the kernel let go of the memory of *op*, whose descriptor is still open."""
        addr, len_bytes, _keep = pin(_NOWHERE)
        self._system.connect(op.fd, addr, len_bytes)
