"""
Which request waits for which: links, hard links and drains.

A chain is put together while its requests are submitted, and ends with the first one that is not
linked to a next, or with the enter.  Each starts when the one before it has completed; one that
fails has the rest of the chain completed with ECANCELED, unless its link is a hard one.  A drained
request starts when everything that was submitted before it is over, and what is submitted behind
it when it is over itself, as since Linux 6.16.

Source: io_submit_sqe, io_disarm_next, io_fail_links and io_drain_req of Linux 6.18.
"""

import errno
from collections import deque
from typing import TYPE_CHECKING, Final

from uringio._sys import constants as k

from ._requests import Request

if TYPE_CHECKING:
    from ._rings import SimRing

__all__ = ["LINKS", "Order", "has_failed"]

LINKS: Final = k.IOSQE_IO_LINK | k.IOSQE_IO_HARDLINK
_MSG_WAITALL: Final = 0x100
# Fail their link with less than was asked for.
_WHOLE: Final = frozenset({
    k.IORING_OP_READ, k.IORING_OP_WRITE, k.IORING_OP_READ_FIXED, k.IORING_OP_WRITE_FIXED,
    k.IORING_OP_SPLICE, k.IORING_OP_TEE,
})  # fmt: skip
# Of these the kernel only tells the result.
_UNFAILING: Final = frozenset({
    k.IORING_OP_SHUTDOWN, k.IORING_OP_FSYNC, k.IORING_OP_SYNC_FILE_RANGE, k.IORING_OP_FALLOCATE,
    k.IORING_OP_FTRUNCATE, k.IORING_OP_STATX, k.IORING_OP_RENAMEAT, k.IORING_OP_UNLINKAT,
    k.IORING_OP_MKDIRAT, k.IORING_OP_SYMLINKAT, k.IORING_OP_LINKAT, k.IORING_OP_LINK_TIMEOUT,
})  # fmt: skip
# Nor do these fail their link when they find no slot.
_UNFAILING_IN_SLOTS: Final = frozenset({k.IORING_OP_SOCKET, k.IORING_OP_ACCEPT})
_WHOLE_IF_ASKED: Final = frozenset({k.IORING_OP_SEND, k.IORING_OP_RECV, k.IORING_OP_SEND_ZC})


class Order:
    """
    What of one ring's requests must wait for others.

    Attributes:
        busy: Whether a request must go through `add`, even if it is of no chain and no drain.
        counts_no_more: Whether a completion was left out, so that drains are refused.
    """

    def __init__(self, ring: "SimRing") -> None:
        self._ring = ring
        self._head: Request | None = None
        self._last: Request | None = None
        self._drains_next = False
        self._deferred: deque[Request] = deque()
        self._deferred_count = 0  # with what is linked to them
        self._drains = False
        self.counts_no_more = False

    @property
    def busy(self) -> bool:
        """See the class."""
        return self._head is not None or self._drains_next or self._drains

    def add(self, request: Request) -> None:
        """Take a request that was submitted, and start what may start."""
        head, last = self._head, self._last
        drains = request.flags & k.IOSQE_IO_DRAIN
        if drains and self.counts_no_more and not request.failed:
            request.failed = errno.EOPNOTSUPP
            drains = 0
            request.flags &= ~k.IOSQE_IO_DRAIN
        self._drains = self._drains or bool(drains)
        if request.opcode == k.IORING_OP_LINK_TIMEOUT and not request.failed:
            if last is None or last.opcode == k.IORING_OP_LINK_TIMEOUT:
                request.failed = errno.EINVAL  # it limits nothing
            else:
                request.guards = last
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
        if head.failed:
            head.flags &= ~k.IOSQE_IO_HARDLINK
            self._ring.finish(head, -head.failed)
        elif self._drains or head.flags & k.IOSQE_IO_DRAIN:
            drains = bool(head.flags & k.IOSQE_IO_DRAIN)
            self._deferred.append(head)
            self._deferred_count += _length(head)
            self._release()
            # Only when another has passed behind it is a drain over.
            self._drains = drains or bool(self._deferred)
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
            if not has_failed(request, result) or request.flags & k.IOSQE_IO_HARDLINK:
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
        if self._deferred:
            self._release()

    def _release(self) -> None:
        """Start what was held back, as far as nothing else is going on."""
        drain_seen = False
        first = True
        while self._deferred:
            head = self._deferred[0]
            drain_seen = drain_seen or bool(head.flags & k.IOSQE_IO_DRAIN)
            if (drain_seen or first) and len(self._ring.requests) != self._deferred_count:
                return
            self._deferred.popleft()
            self._deferred_count -= _length(head)
            self._ring.start_later(head)
            first = False

    def clear(self) -> None:
        """Forget everything: the ring is gone."""
        self._head = self._last = None
        self._deferred.clear()


def has_failed(request: Request, result: int) -> bool:
    """Whether the kernel takes a result for a failure, which ends a chain, and is told."""
    if request.failed:
        return True
    if result < 0:
        if request.opcode in _UNFAILING:
            return False
        if request.file_index and request.opcode in _UNFAILING_IN_SLOTS:
            return result not in {-errno.EINVAL, -errno.ENXIO, -errno.ENFILE}
        if request.opcode == k.IORING_OP_TIMEOUT and result == -errno.ETIME:
            return not request.op_flags & k.IORING_TIMEOUT_ETIME_SUCCESS
        return True
    if request.opcode in _WHOLE:
        return result != request.len
    if request.opcode in _WHOLE_IF_ASKED and request.op_flags & _MSG_WAITALL:
        return result < request.len
    return False


def _length(head: Request) -> int:
    """How many requests a chain has."""
    count = 0
    one: Request | None = head
    while one is not None:
        count += 1
        one = one.next
    return count
