"""Memory with one owner, and views of it that end."""

import weakref
from types import TracebackType
from typing import Final, NoReturn, final

from uringio._sys.memory import Memory, ReadableBuffer
from uringio.errors import BorrowedError

from .loans import Loan, State

__all__ = ["Borrow", "Buffer", "BufferLoan"]

_PAGE_BYTES: Final = 4096
_IDLE: Final = State.IDLE
_LENT: Final = State.LENT
_RETURNED: Final = State.RETURNED


@final
class Buffer:
    """
    A piece of memory of fixed size, with one owner: whoever has this handle.

    An operation that takes a buffer *moves* it, and its result brings it back under a new handle::

        n, buf = await stream.recv_into(buf)

    Meanwhile, and ever after, the old handle refuses everything with `UseAfterMoveError`, which
    names the operation.  An operation that fails or is cancelled gives the buffer back to the
    handle it came from.

    Bytes go in and out by `read` and `write`, which copy, or through a view, which does not::

        with buf.view() as view:
            parse(view)

    While a view is alive the buffer cannot be moved or released (`BorrowedError`).

    Args:
        size: From 1 up. [bytes]
        align: A power of two; the address is a multiple of it. O_DIRECT wants 4096. [bytes]

    Raises:
        ValueError: *size* or *align* is out of range.

    Lifetime: the memory lives as long as a handle, a view or an operation in flight has it; memory
    of a pool goes back to the pool.
    """

    # `loan` and `key` are for the rooms of this library: see `uringio._own.loans`.
    __slots__ = ("key", "loan")

    def __init__(self, size: int, *, align: int = _PAGE_BYTES) -> None:
        if size < 1:
            raise ValueError(f"a buffer has from 1 byte up, not {size}")
        if align < 1 or align & (align - 1):
            raise ValueError(f"an alignment is a power of two, not {align}")
        spare = align if align > _PAGE_BYTES else 0  # a mapping begins at a page by itself
        memory = Memory(size + spare)
        self.loan: BufferLoan = BufferLoan(memory, -(-memory.addr // align) * align, size)
        self.key: int = self.loan.key

    @classmethod
    def holding(cls, data: ReadableBuffer) -> "Buffer":
        """Make a buffer of the size of *data*, and copy it in; raises `ValueError` if empty."""
        view = memoryview(data)
        buffer = cls(view.nbytes)
        buffer.write(view)
        return buffer

    def __repr__(self) -> str:
        loan = self.loan
        word = "moved" if self.key != abs(loan.key) else loan.state.name.lower()
        return f"<Buffer {loan.size} bytes, {word}>"

    def __reduce__(self) -> NoReturn:
        # Asked by copy and pickle: two handles with one key would both open it.
        raise TypeError("a buffer has one owner, and cannot be copied or pickled")

    @property
    def size(self) -> int:
        """How many bytes it has room for; raises `UseAfterMoveError`."""
        self._open("be measured")
        return self.loan.size

    @property
    def address(self) -> int:
        """Where it begins; raises `UseAfterMoveError`.  Good while this handle has the buffer."""
        self._open("be located")
        return self.loan.addr

    def read(self, start: int = 0, stop: int | None = None, /) -> bytes:
        """
        Return a copy of bytes *start* to *stop*, counted as a slice counts.

        Raises:
            UseAfterMoveError: The buffer is elsewhere.
        """
        self._open("be read")
        loan = self.loan
        start, stop, _ = slice(start, stop).indices(loan.size)
        offset = loan.addr - loan.memory.addr
        # mmap slices copy straight into the new object
        return loan.memory.slices[offset + start : offset + max(start, stop)]

    def write(self, data: ReadableBuffer, /, offset: int = 0) -> int:
        """
        Copy *data* in at *offset*; returns its size in bytes.

        Raises:
            UseAfterMoveError: The buffer is elsewhere.
            ValueError: *data* does not fit; nothing was written.
        """
        self._open("be written")
        loan = self.loan
        view = memoryview(data)
        if not view.c_contiguous:
            view = memoryview(view.tobytes())
        if offset < 0 or offset + view.nbytes > loan.size:
            raise ValueError(
                f"{view.nbytes} bytes do not fit at {offset} into a buffer of {loan.size}"
            )
        start = loan.addr - loan.memory.addr + offset
        if view.nbytes:
            loan.memory.view[start : start + view.nbytes] = view.cast("B")
        return view.nbytes

    def view(self, start: int = 0, stop: int | None = None, /) -> "Borrow":
        """
        Borrow bytes *start* to *stop*, counted as a slice counts, as a writable `memoryview`.

        Use it in a ``with`` block.  The view, and what was sliced from it, is dead after the block;
        what is still alive then raises `BorrowedError` and keeps the buffer borrowed.

        Raises:
            UseAfterMoveError: On entering the block: the buffer is elsewhere.
        """
        return Borrow(self, start, stop)

    def release(self) -> None:
        """
        Give the memory up now, back to its pool if it has one.

        Raises:
            DoubleReleaseError: It was released already.
            UseAfterMoveError: The buffer is elsewhere.
            BorrowedError: A view of it is alive.
        """
        self.loan.release(self.key)

    def renewed(self) -> "Buffer":
        """
        Return a new handle, as an operation would have, and make this one stale.

        Raises:
            UseAfterMoveError, BorrowedError: As every move.
        """
        loan = self.loan
        loan.require(self.key, "be moved")
        loan.key = -self.key
        loan.state = State.RETURNED
        loan.went = "another handle"
        return loan.take(0)[1]

    def __buffer__(self, flags: int, /) -> memoryview:
        """Export the whole as a view; asked by ``memoryview(buffer)`` from Python 3.12 on."""
        return _tracked_view(self, 0, self.loan.size)

    def _open(self, what: str) -> None:
        loan = self.loan
        if self.key != loan.key and (self.key != -loan.key or loan.state != State.BORROWED):
            loan.require(self.key, what)


class BufferLoan(Loan):
    """The loan of a `Buffer`."""

    __slots__ = ()

    def take(self, count: object) -> tuple[int, Buffer]:
        """Return how many bytes were moved, and the handle to go on with."""
        # `claim`, written out: this is called for every operation on a buffer.
        if self.state != _LENT and self.state != _RETURNED:
            self.claim()
        self.state = _IDLE
        buffer = Buffer.__new__(Buffer)
        buffer.loan = self
        buffer.key = self.key = 1 - self.key
        return count, buffer  # type: ignore[return-value]  # a cast is a call

    def copy(self, addr: int, count: int) -> bytes:
        """Return the *count* bytes at *addr*, for whoever has it; the operation is over."""
        offset = addr - self.memory.addr
        return self.memory.slices[offset : offset + count]


class Borrow:
    """A view of a `Buffer` for the length of a ``with`` block."""

    __slots__ = ("_buffer", "_gone", "_start", "_stop", "_view")

    def __init__(self, buffer: Buffer, start: int, stop: int | None) -> None:
        self._buffer = buffer
        self._start = start
        self._stop = stop
        self._view: memoryview | None = None

    def __enter__(self) -> memoryview:
        if self._view is not None:
            raise BorrowedError("this view is in use already; ask the buffer for another")
        start, stop, _ = slice(self._start, self._stop).indices(self._buffer.loan.size)
        self._view = _tracked_view(self._buffer, start, max(start, stop))
        self._gone = weakref.ref(self._view.obj)
        return self._view

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        view, self._view = self._view, None
        assert view is not None
        try:
            view.release()
        except BufferError:
            pass  # something exports it further, and is seen below
        if self._gone() is not None:
            _collect()
        if self._gone() is not None and error is None:
            raise BorrowedError(
                "a slice of this view, or something made from it, outlives its block; the buffer "
                "stays borrowed until it has gone"
            )


def _tracked_view(buffer: Buffer, start: int, stop: int) -> memoryview:
    """View a part of *buffer*, borrowed until the last view made from this one has gone."""
    loan = buffer.loan
    loan.borrow(buffer.key)
    try:
        view = loan.memory.part(loan.addr - loan.memory.addr + start, stop - start)
        # Every view of a view refers to the object at the bottom, which nothing else refers to.
        weakref.finalize(view.obj, loan.end_view).atexit = False
    except BaseException:
        loan.end_view()
        raise
    return view


def _collect() -> None:
    """Let go of what is dropped but not collected yet, where references are not counted."""
    import gc

    gc.collect()
