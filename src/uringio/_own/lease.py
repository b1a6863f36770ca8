"""Received bytes where the kernel put them."""

import weakref
from types import TracebackType
from typing import cast, final

from uringio.errors import BorrowedError, ClosedError

__all__ = ["Lease", "LeaseCount"]


class LeaseCount:
    """How many leases of one handle are out; false while there are none."""

    __slots__ = ("__weakref__", "out_count")

    def __init__(self) -> None:
        self.out_count = 0

    def __bool__(self) -> bool:
        return self.out_count > 0

    def lease(self, data: object) -> "Lease":
        """Make the lease of what was received."""
        return Lease(cast("bytes | memoryview", data), self)


@final
class Lease:
    """
    Bytes that were received, without a copy: a view of the buffer that the kernel filled.

    Use it in a ``with`` block, which gives the view and ends the lease::

        with await stream.recv_lease() as view:
            parse(view)

    Short leases are the ones that pay: while they are out the driver has fewer buffers to spare,
    and a stream with leases out waits when there are none.  A lease that is dropped ends by itself.

    Attributes:
        size: How many bytes there are; 0 once the peer has sent its last. [bytes]
    """

    __slots__ = ("__weakref__", "_count", "_gone", "_view", "size")

    def __init__(self, data: bytes | memoryview, count: LeaseCount) -> None:
        self._view: memoryview | None = memoryview(data)
        self.size = self._view.nbytes
        self._count: LeaseCount | None = None
        if isinstance(data, memoryview):
            self._gone = weakref.ref(data.obj)
            self._count = count
            count.out_count += 1

    def __repr__(self) -> str:
        return f"<Lease {self.size} bytes{', released' if self._view is None else ''}>"

    @property
    def view(self) -> memoryview:
        """The bytes, read-only; raises `ClosedError` once the lease has ended."""
        if self._view is None:
            raise ClosedError("this lease has ended")
        return self._view

    def __bytes__(self) -> bytes:
        return bytes(self.view)

    def release(self) -> None:
        """
        End the lease; safe to call twice.

        Raises:
            BorrowedError: A slice of the view, or something made from it, is alive; the buffer
                stays leased until it has gone.
        """
        view, self._view = self._view, None
        if view is None:
            return
        try:
            view.release()
        except BufferError:
            pass  # something exports it further, and is seen below
        if self._ended():
            return
        del view
        if self._gone() is not None:
            raise BorrowedError(
                "a slice of this lease's view, or something made from it, is alive; the buffer "
                "stays leased until it has gone"
            )

    def __enter__(self) -> memoryview:
        return self.view

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            self.release()
        except BorrowedError:
            if error is None:
                raise

    def _ended(self) -> bool:
        """Take the lease off its handle's count; True if there is nothing to come back."""
        count, self._count = self._count, None
        if count is None:
            return True
        count.out_count -= 1
        return False

    def __del__(self) -> None:
        self._ended()
