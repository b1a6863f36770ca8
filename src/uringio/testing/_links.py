"""
Which request waits for which: links, hard links and drains.

A chain is put together while its requests are submitted, and ends with the first one that is not
linked to a next, or with the enter.  Each starts when the one before it has completed; one that
fails has the rest of the chain completed with ECANCELED, unless its link is a hard one.  A drained
request starts when everything that was submitted before it is over, and what is submitted behind
it waits until it has started.

Source: io_submit_sqe, io_disarm_next, io_fail_links and io_drain_req of Linux 6.18.
"""

import errno
from collections import deque
from typing import TYPE_CHECKING, Final

from uringio._sys import constants as k

from ._requests import Request

if TYPE_CHECKING:
    from ._rings import SimRing

__all__ = ["LINKS", "Order"]

LINKS: Final = k.IOSQE_IO_LINK | k.IOSQE_IO_HARDLINK
_MSG_WAITALL: Final = 0x100
# Fail their link with less than was asked for.
_WHOLE: Final = frozenset({
    k.IORING_OP_READ, k.IORING_OP_WRITE, k.IORING_OP_READ_FIXED, k.IORING_OP_WRITE_FIXED,
    k.IORING_OP_SPLICE, k.IORING_OP_TEE,
})  # fmt: skip
_WHOLE_IF_ASKED: Final = frozenset({k.IORING_OP_SEND, k.IORING_OP_RECV, k.IORING_OP_SEND_ZC})


class Order:
    """
    What of one ring's requests must wait for others.

    Attributes:
        busy: Whether a request must go through `add`, even if it is of no chain and no drain.
    """

    def __init__(self, ring: "SimRing") -> None:
        self._ring = ring
        self._head: Request | None = None
        self._last: Request | None = None
        self._drains_next = False
        self._deferred: deque[Request] = deque()

    @property
    def busy(self) -> bool:
        """See the class."""
        return self._head is not None or self._drains_next or bool(self._deferred)

    def add(self, request: Request) -> None:
        """Take a request that was submitted, and start what may start."""
        head, last = self._head, self._last
        if request.opcode == k.IORING_OP_LINK_TIMEOUT and not request.failed:
            if last is None or last.opcode == k.IORING_OP_LINK_TIMEOUT:
                request.failed = errno.EINVAL  # it limits nothing
            else:
                request.guards = last
        drains = request.flags & k.IOSQE_IO_DRAIN
        if head is None or last is None:
            if self._drains_next:
                request.flags |= k.IOSQE_IO_DRAIN
                self._drains_next = False
            self._head = head = request
        else:
            last.next = request
            if request.failed:
                head.failed = head.failed or errno.ECANCELED
            if drains:
                head.flags |= k.IOSQE_IO_DRAIN
                self._drains_next = True
        self._last = request
        if not request.flags & LINKS:
            self.end_chain()

    def end_chain(self) -> None:
        """Start the chain that has been put together."""
        head, self._head, self._last = self._head, None, None
        if head is None:
            return
        if self._deferred or (head.flags & k.IOSQE_IO_DRAIN and not self._is_oldest(head)):
            self._deferred.append(head)
        elif head.failed:
            head.flags &= ~k.IOSQE_IO_HARDLINK
            self._ring.finish(head, -head.failed)
        else:
            self._ring.start(head)

    def ended(self, request: Request, result: int) -> None:
        """Have what is linked to *request* started, or completed as well."""
        behind = request.next
        if behind is not None:
            request.next = None
            if behind.opcode == k.IORING_OP_LINK_TIMEOUT and behind.guards is request:
                rest, behind.next = behind.next, None
                self._ring.expire(behind, -errno.ECANCELED)
                behind = rest
        if behind is not None:
            if not self._failed(request, result) or request.flags & k.IOSQE_IO_HARDLINK:
                self._ring.start_later(behind)
            else:
                silent = bool(request.flags & k.IOSQE_CQE_SKIP_SUCCESS)
                while behind is not None:
                    rest, behind.next = behind.next, None
                    if silent:
                        self._ring.forget(behind)
                    else:
                        self._ring.expire(behind, -(behind.failed or errno.ECANCELED))
                    behind = rest
        while self._deferred:
            first = self._deferred[0]
            if first.flags & k.IOSQE_IO_DRAIN and not self._is_oldest(first):
                break
            self._deferred.popleft()
            self._ring.start_later(first)

    def clear(self) -> None:
        """Forget everything: the ring is gone."""
        self._head = self._last = None
        self._deferred.clear()

    def _is_oldest(self, request: Request) -> bool:
        return next(iter(self._ring.requests)) == request.serial

    def _failed(self, request: Request, result: int) -> bool:
        if result < 0:
            if request.opcode == k.IORING_OP_TIMEOUT and result == -errno.ETIME:
                return not request.op_flags & k.IORING_TIMEOUT_ETIME_SUCCESS
            return True
        if request.opcode in _WHOLE:
            return result != request.len
        if request.opcode in _WHOLE_IF_ASKED and request.op_flags & _MSG_WAITALL:
            return result < request.len
        return False
