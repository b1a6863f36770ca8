"""
Memory of the caller's own, through a stream.

Receiving into it saves a copy, and moving a `Buffer` makes that safe: nobody reads what is half
received.  One op object serves all such receives of a stream, and one all such sends, as with
`recv` and `send_all`.
"""

import weakref
from abc import abstractmethod
from collections import deque
from collections.abc import Awaitable, Callable, Generator
from typing import Final, TypeAlias, TypeVar, cast, overload

from uringio._driver.contract import Driver
from uringio._driver.lease_count import LeaseCount
from uringio._driver.op import (
    MAX_RW_COUNT,
    NEW,
    READY,
    RECV_INTO,
    RECV_LEASE,
    SEND_ALL,
    SEND_ZC,
    SPENT,
    Op,
    Owner,
)
from uringio._driver.sockets import SEND_ALL_FLAGS
from uringio._own.buffer import Buffer, BufferLoan
from uringio._own.loans import Mover, State

__all__ = ["Moves", "arrived"]

T = TypeVar("T")

Moved: TypeAlias = tuple[int, Buffer]
Writable: TypeAlias = bytearray | memoryview

_LENT: Final = State.LENT
_LEASE_BYTES: Final = 65536  # drivers have buffers of this size


class Moves:
    """The part of a stream that takes buffers."""

    __slots__ = (
        "_driver",
        "_foreign",
        "_into_op",
        "_into_ref",
        "_last_recv",
        "_last_send",
        "_lease_op",
        "_leases",
        "_out_op",
        "_out_ref",
        "_unread",
    )

    _driver: Driver
    _unread: deque[bytes | OSError]
    # The last receive and the last send that were not plain.
    _last_recv: Op[object] | None
    _last_send: Op[object] | None
    _into_op: Op[Moved] | None
    _out_op: Op[Moved] | None
    _into_ref: weakref.ref[Mover]
    _foreign: weakref.ref[Op[int]] | None
    _lease_op: Op[memoryview] | None
    _leases: LeaseCount
    _out_ref: weakref.ref[Mover]

    @overload
    def recv_into(
        self, buffer: Buffer, /, start: int = 0, stop: int | None = None
    ) -> Awaitable[Moved]: ...
    @overload
    def recv_into(
        self, buffer: Writable, /, start: int = 0, stop: int | None = None
    ) -> Awaitable[int]: ...
    def recv_into(
        self, buffer: Buffer | Writable, /, start: int = 0, stop: int | None = None
    ) -> Awaitable[Moved] | Awaitable[int]:
        """
        Wait for bytes, and put them where the caller says.

        Args:
            buffer: A `Buffer`, which moves into the operation, or other writable memory in one
                piece, such as a `bytearray` or a ``memoryview`` of an array.
            start: Where in *buffer* to begin, counted as a slice counts.
            stop: Where to end at the latest.

        Returns:
            For a `Buffer`, how many bytes came, and the handle to go on with; for other memory,
            only how many.  0 once the peer has sent its last.

        Raises:
            UseAfterMoveError, BorrowedError: The buffer is elsewhere, or viewed.
            TypeError: The memory cannot be written.
            ValueError: There is no room between *start* and *stop*.
            ClosedError, BusyError, OpError: As `recv`.

        Cancellation: bytes that had arrived are kept for the next call; a `Buffer` is back under
            the handle that it came from.  What is in it is undefined.

        Lifetime: other memory than a `Buffer` is held until the op is done, and cannot be resized
            meanwhile; reading it is up to the caller.

        Source: recv(2).
        """
        op = self._into_op
        if (
            op is None
            or op is not self._last_recv
            or op.state != SPENT
            or op.value is not None  # whose result is still to be taken
            or self._unread
            or start
            or stop is not None
            or type(buffer) is not Buffer
        ):
            return self._recv_into_otherwise(buffer, start, stop)
        loan = buffer.loan
        key = buffer.key
        if key != loan.key:
            loan.require(key, "be moved into recv_into")
        loan.key = -key
        loan.state = _LENT
        loan.mover = self._into_ref
        loan.went = "recv_into"
        op.state = NEW
        op.error = None
        op.addr = loan.addr
        size = loan.size
        op.len = (
            size if size <= MAX_RW_COUNT else MAX_RW_COUNT  # noqa: FURB136 - a call
        )
        op.hold = loan
        op.finish = loan.take
        return op

    def _recv_into_otherwise(
        self, buffer: Buffer | Writable, start: int, stop: int | None
    ) -> Awaitable[Moved] | Awaitable[int]:
        if not isinstance(buffer, Buffer):
            return self._recv_into_foreign(buffer, start, stop)
        loan = buffer.loan
        loan.require(buffer.key, "be moved into recv_into")
        start, stop = _part(loan.size, start, stop)
        fd = self._claim_reader()
        if self._unread:
            return self._take_unread_into(buffer, start, stop)
        op: Op[Moved] = Op(RECV_INTO, fd, owner=self._owner())
        op.home = self._driver
        ref = _ref(op)
        loan.lend(buffer.key, ref, "recv_into")
        self._into_op, self._into_ref = op, ref
        op.addr = loan.addr + start
        op.len = min(stop - start, MAX_RW_COUNT)
        op.hold = loan
        op.finish = loan.take
        self._last_recv = op
        return op

    def _recv_into_foreign(self, memory: Writable, start: int, stop: int | None) -> Awaitable[int]:
        view = memoryview(memory)
        if view.readonly:
            raise TypeError(f"{type(memory).__name__!r} is read-only and cannot receive data")
        if not view.c_contiguous:
            raise TypeError("memory that receives data must be contiguous")
        start, stop = _part(view.nbytes, start, stop)
        part = view.cast("B")[start : min(stop, start + MAX_RW_COUNT)]
        fd = self._claim_reader()
        if self._unread:
            return self._copy_unread(part)
        op = _Lending(RECV_INTO, fd, len_=part.nbytes, memory=part, owner=self._owner())
        op.finish = _Lent(part).take
        op.home = self._driver
        self._last_recv = None
        # Weakly, for the op refers to the memory, which is the caller's again when it has ended.
        self._foreign = weakref.ref(op)
        return op

    def _foreign_op(self) -> Op[int] | None:
        """Return the last receive into foreign memory, if anybody still has it."""
        return self._foreign() if self._foreign is not None else None

    async def _take_unread_into(self, buffer: Buffer, start: int, stop: int) -> Moved:
        loan = buffer.loan
        loan.require(buffer.key, "be moved into recv_into")
        data = self._take_unread(stop - start)
        buffer.write(data, offset=start)
        return len(data), buffer.renewed()

    async def _copy_unread(self, part: memoryview) -> int:
        data = self._take_unread(part.nbytes)
        part[: len(data)] = data
        return len(data)

    def recv_lease(self) -> Op[memoryview]:
        """
        Wait for bytes, and get them where the kernel put them, without a copy.

        In a block, mostly::

            with await stream.recv_lease() as view:
                parse(view)

        The lease is the view: it ends when that is released, by the block or by `release`, and so
        has every slice of it; or when nobody has them any more.  Short leases are the ones that
        pay: while this stream has some out and the driver has no buffer to spare, its next one
        waits.

        Returns:
            A read-only view of at most 64 KiB, empty once the peer has sent its last.  It is of an
            ordinary copy where there is nothing to lease: on other backends than io_uring, for
            bytes that a cancelled receive had got, and when the driver's spare buffers are out.

        Raises:
            ClosedError, BusyError, OpError: As `recv`.

        Cancellation: bytes that had arrived are kept for the next call, as a copy.

        Lifetime: the bytes stay, whatever becomes of the stream and the loop, until the lease ends.
        """
        op = self._lease_op
        if (
            op is None
            or op is not self._last_recv
            or op.state != SPENT
            or op.value is not None  # whose result is still to be taken
            or self._unread
        ):
            fd = self._claim_reader()
            if self._unread:
                kept: Op[memoryview] = Op(READY, finish=self._lease_unread)
                kept.home = self._driver
                return kept
            fresh: Op[memoryview] = Op(RECV_LEASE, fd, len_=_LEASE_BYTES, owner=self._owner())
            op = fresh
            op.home = self._driver
            op.finish = _view
            self._lease_op = self._last_recv = op
        op.code = RECV_LEASE
        op.state = NEW
        op.error = None
        op.hold = self._leases
        return op

    def _lease_unread(self, _: object) -> memoryview:
        return memoryview(self._take_unread(_LEASE_BYTES))

    @overload
    def send_buffer(
        self,
        buffer: Buffer,
        /,
        start: int = 0,
        stop: int | None = None,
        *,
        zero_copy: bool = False,
    ) -> Awaitable[Moved]: ...
    @overload
    def send_buffer(
        self,
        buffer: bytes,
        /,
        start: int = 0,
        stop: int | None = None,
        *,
        zero_copy: bool = False,
    ) -> Awaitable[int]: ...
    def send_buffer(
        self,
        buffer: Buffer | bytes,
        /,
        start: int = 0,
        stop: int | None = None,
        *,
        zero_copy: bool = False,
    ) -> Awaitable[Moved] | Awaitable[int]:
        """
        Send bytes *start* to *stop* of *buffer*, counted as a slice counts, all of them.

        Args:
            buffer: A `Buffer`, which moves into the operation, or `bytes`, which never change.
            start: Where to begin.
            stop: Where to end.
            zero_copy: Let the network take the bytes from where they lie.  The operation lasts
                until the peer has acknowledged all of them, which is when the kernel lets go of the
                memory; so it pays for large pieces, to peers that are not on this machine (for
                these the kernel copies all the same).

        Returns:
            For a `Buffer`, how many bytes were sent, and the handle to go on with; for `bytes`,
            only how many.

        Raises:
            UseAfterMoveError, BorrowedError: The buffer is elsewhere, or viewed.
            TypeError: *buffer* is neither, so that somebody could change it meanwhile.
            ValueError: There is nothing between *start* and *stop*, or 2 GiB and more.
            ClosedError, BusyError, OpError: As `send_all`; the buffer is back under the handle that
                it came from.

        Cancellation: As `send_all`; the buffer is back under the handle that it came from.  With
            *zero_copy*, the connection is aborted (the peer gets a reset) unless the kernel has not
            begun: it would keep the memory for as long as the peer pleases.  Closing the stream
            meanwhile does the same.

        Kernel: *zero_copy* 6.0. Without it, on Unix sockets, where the memory may not be locked,
            and on the epoll driver the bytes are copied, as without the flag.

        Source: send(2), io_uring_prep_send_zc(3).
        """
        if not isinstance(buffer, Buffer):
            return self._send_bytes(buffer, start, stop, zero_copy)
        loan = buffer.loan
        key = buffer.key
        op = self._out_op
        if (
            op is None
            or op is not self._last_send
            or op.state != SPENT
            or op.value is not None  # whose result is still to be taken
        ):
            loan.require(key, "be moved into send_buffer")
            start, stop = _part(loan.size, start, stop)
            fd = self._claim_writer()
            fresh: Op[Moved] = Op(SEND_ALL, fd, flags=SEND_ALL_FLAGS, owner=self._owner())
            op = fresh
            op.home = self._driver
            self._out_op = self._last_send = op
            self._out_ref = _ref(op)
        else:
            if key != loan.key:
                loan.require(key, "be moved into send_buffer")
            if start or stop is not None:
                start, stop = _part(loan.size, start, stop)
            else:
                stop = loan.size
        size = stop - start
        if size > MAX_RW_COUNT:
            raise _too_large(size)
        loan.key = -key
        loan.state = _LENT
        loan.mover = self._out_ref
        loan.went = "send_buffer"
        op.code = SEND_ZC if zero_copy else SEND_ALL
        op.state = NEW
        op.error = None
        op.done_bytes = 0
        op.addr = loan.addr + start
        op.len = size
        op.hold = loan
        op.value = size  # a send has no value of its own; failing clears it
        op.finish = loan.take
        return op

    def _send_bytes(
        self, data: object, start: int, stop: int | None, zero_copy: bool
    ) -> Awaitable[int]:
        if not isinstance(data, bytes):
            raise TypeError(f"send_buffer takes a Buffer or bytes, not {type(data).__name__!r}")
        start, stop = _part(len(data), start, stop)
        size = stop - start
        if size > MAX_RW_COUNT:
            raise _too_large(size)
        fd = self._claim_writer()
        code = SEND_ZC if zero_copy else SEND_ALL
        part = data[start:stop]
        op: Op[int] = Op(code, fd, 0, size, 0, SEND_ALL_FLAGS, part, self._owner())
        op.home = self._driver
        op.value = size  # as above
        self._last_send = op
        return op

    @abstractmethod
    def _claim_reader(self) -> int:
        """Return the descriptor for a receive that is not plain; raises as `recv` does."""

    @abstractmethod
    def _claim_writer(self) -> int:
        """Return the descriptor for a send that is not plain; raises as `send_all` does."""

    @abstractmethod
    def _take_unread(self, max_bytes: int) -> bytes:
        """Take what a cancelled receive had got, or raise what it had met."""

    @abstractmethod
    def _owner(self) -> Owner:
        """Return what hears of operations that were cancelled."""


class _Lending(Op[int]):
    """A receive into foreign memory."""

    __slots__ = ()

    finish: Callable[[object], int] | None

    def __await__(self) -> Generator[Op[int], None, int]:
        try:
            return (yield from super().__await__())
        except BaseException:
            # The traceback refers to this op, which must not keep its caller's memory pinned.
            self.finish = None
            raise


class _Lent:
    """Foreign memory that a receive fills."""

    __slots__ = ("_part",)

    def __init__(self, part: memoryview) -> None:
        self._part = part

    def take(self, count: object) -> int:
        """Return how many bytes came, and let go of the memory."""
        self._part.release()
        return cast("int", count)

    def copy(self, _: int, count: int) -> bytes:
        """Return what came."""
        return bytes(self._part[:count])


def arrived(op: Op[T], count: int) -> bytes:
    """Return what a receive into memory, which was cancelled, has put there."""
    lender: object = getattr(op.finish, "__self__", None)
    assert isinstance(lender, BufferLoan | _Lent)
    return lender.copy(op.addr, count)


_view: Final = cast("Callable[[object], memoryview]", memoryview)


def _ref(mover: Mover) -> weakref.ref[Mover]:
    return weakref.ref(mover)


def _too_large(size: int) -> ValueError:
    return ValueError(f"at most {MAX_RW_COUNT} bytes go into one send, not {size}")


def _part(size: int, start: int, stop: int | None) -> tuple[int, int]:
    start, stop, _ = slice(start, stop).indices(size)
    if start >= stop:
        raise ValueError(f"there are no bytes from {start} to {stop} of {size}")
    return start, stop
