"""
Receives that stand: one request that brings a stream's bytes again and again.

A request for each receive is armed and taken apart each time, which is a fifth of what the kernel
spends on a small message.  So from its second receive on, an op that has a place for what nobody
waits for (`Op.later`) becomes a multishot receive.  The op is the request's: it stays in
`in_flight` under one `use` while it is awaited, delivered and awaited again.  What comes while
nobody waits goes into `later`, and whoever receives next takes it from there first.

What is read ahead is bounded: a request ends by itself after `STANDING_BYTES` in all (Linux 6.17;
the piece that reaches them may fill a buffer, so it is less than twice as much), and another is
made only when somebody receives with nothing in `later`.  A peer that sends a byte at a time would
have each become an object of 40, so a request is also asked to end when `later` has `LATER_PIECES`.
A kernel that does not know the bound refuses the first such request with EINVAL, and then none
stands.

Nobody else may read meanwhile.  `stand_down` ends the request, and its caller knows of every byte
that it took when it returns.  That precedes every receive of another kind, handing out the number
of the descriptor, and closing, since the kernel holds the file for the request; and it follows a
stream that is dropped.

Signal handlers may raise behind any call.  So a completion that leaves the op in flight is settled
by operators, and one that ends the request says so last.

Source: io_uring_prep_recv_multishot(3); io_uring/net.c (IORING_RECV_MSHOT_LIM).
"""

import errno
import struct
from _thread import get_ident
from collections import deque
from collections.abc import Callable
from typing import Final, Protocol, TypeAlias

from uringio._ring.prep import sqe_head
from uringio._sys import constants as k
from uringio.errors import BusyError

from .contract import Deliver
from .op import CANCELLING, SUBMITTED, Op
from .outcome import orphan_failure, take_later
from .uring_wake import WakePipe

__all__ = ["LATER_PIECES", "STANDING_BYTES", "Received", "Standing", "is_idle"]

Received: TypeAlias = bytes | memoryview | None

STANDING_BYTES: Final = 65536
LATER_PIECES: Final = 256
STANDING_HEAD: Final = sqe_head(k.IORING_OP_RECV, k.IOSQE_BUFFER_SELECT, k.IORING_RECV_MULTISHOT)
# Bytes 40 to 47 of the SQE: buffer group, personality, and the bound.
STANDING_WORD: Final[int] = struct.unpack("=Q", struct.pack("=HHI", 0, 0, STANDING_BYTES))[0]
# What says that the request ended, and nothing about the connection.
_NO_END: Final = frozenset({-errno.ECANCELED, -errno.EINVAL, -errno.ENOBUFS, -errno.EINTR})
# Turns in which a request that was asked to end does; the kernel needs one.
_TURNS_MAX: Final = 1000


class Enqueue(Protocol):
    """Submits an op, packed as the arguments say."""

    def __call__(
        self, op: Op[object], head: int, fd: int, off: int, addr: int, len_: int, flags: int,
        w5: int = 0, /,
    ) -> None: ...  # fmt: skip


def is_idle(op: Op[object]) -> bool:
    """Whether *op*, which is in flight, is so for nobody."""
    return op.standing and op.state not in {SUBMITTED, CANCELLING}


class Standing:
    """
    The standing receives of one ring, but for what comes while they go on.

    Args:
        pipe: Wakes the driver.
        enqueue: Submits an op, packed as the arguments say.
        settle: Settles an op that failed or was cancelled.
        withdraw: Takes back a request that the kernel has not seen.
        turn: The driver's.
        ask: Asks the kernel to end the request with a number.
        deliver: The driver's.
    """

    def __init__(
        self,
        in_flight: dict[int, Op[object]],
        again: dict[int, Op[object]],
        pipe: WakePipe,
        enqueue: Enqueue,
        settle: Callable[[Op[object], int, Received], None],
        withdraw: Callable[[Op[object], int], bool],
        turn: Callable[[int | None], None],
        ask: Callable[[int], object],
        deliver: Deliver,
    ) -> None:
        self._in_flight = in_flight
        self._again = again
        self._pipe = pipe
        self._enqueue = enqueue
        self._settle = settle
        self._withdraw = withdraw
        self._turn = turn
        self._ask = ask
        self._deliver = deliver
        self._thread = get_ident()
        self._dropped: deque[Op[object]] = deque()  # whose requests are to end soon
        self._may_begin = True  # until the kernel refuses

    def receive(self, op: Op[object], head: int) -> bool:
        """
        Start the receive *op*, which may stand; True if it ends at once, with what is in `later`.

        Args:
            head: Of the request for one receive.
        """
        if op.later:
            take_later(op)
            self._deliver(op)
            return True
        if self._may_begin:
            op.standing = True
            try:
                self._enqueue(op, STANDING_HEAD, op.fd, 0, 0, 0, op.flags, STANDING_WORD)
            finally:
                op.standing = op.use in self._in_flight
        else:
            self._enqueue(op, head, op.fd, 0, 0, op.len, op.flags)
        return False

    def ended(self, op: Op[object], number: int, res: int, data: Received) -> None:
        """Take the last completion of request *number* of *op*, but for data that is awaited."""
        if res == -errno.EINVAL:
            self._may_begin = False
        if op.state == SUBMITTED and res in {-errno.ECANCELED, -errno.EINVAL}:
            # Still awaited, so it goes on as a request for one receive.
            self._again[number] = op
            del self._in_flight[number]
            op.standing = False
        elif op.state in {SUBMITTED, CANCELLING}:
            op.standing = False
            self._settle(op, res, data)
        else:
            if res < 0 and res not in _NO_END:
                orphan_failure(op, -res)
            if isinstance(data, bytes) and op.later is not None:
                op.later += (data,)  # type: ignore[operator]
            op.standing = False
            del self._in_flight[number]

    def stand_down(self, op: Op[object], wait: bool, /) -> None:
        """See `Driver.stand_down`."""
        if self._pipe.closed:
            return
        if get_ident() != self._thread:
            self.crowded(op)
            return
        number = op.use
        if not op.standing or self._in_flight.get(number) is not op:
            return
        if self._withdraw(op, number):
            if op.state == SUBMITTED:
                self._again[number] = op
            return
        self._ask(number)
        if not wait:
            return
        for _ in range(_TURNS_MAX):
            self._turn(0)
            if self._in_flight.get(number) is not op:
                return
        raise BusyError(f"the kernel does not end {op!r}, which reads ahead")

    def crowded(self, op: Op[object]) -> None:
        """Have the request of *op* end soon, not within the turn that calls this."""
        self._dropped.append(op)
        self._pipe.wake()

    def retire(self) -> None:
        """Have every later receive be refused with all else, rather than wait for its request."""
        for op in self._in_flight.values():
            op.standing = False

    def stand_dropped_down(self) -> None:
        """End those of which another thread, or `crowded`, has said that they are to."""
        while self._dropped:
            self.stand_down(self._dropped.popleft(), False)
