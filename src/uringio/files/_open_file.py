"""The open file: what does not depend on what it was opened for."""

import os
import weakref
from collections.abc import Sequence
from types import TracebackType
from typing import Final, Self, TypeVar

from uringio._driver import current
from uringio._driver import op as o
from uringio._driver.closing import closing_op
from uringio._driver.direct import FixedFd
from uringio._driver.op import (
    CANCELLING,
    DONE,
    NEW,
    READY,
    SPENT,
    STALE,
    SUBMITTED,
    Op,
)
from uringio._driver.vectored import Vectored
from uringio.errors import BusyError, UnsupportedError, UsageError, WrongThreadError

from ._flags import RWFlags
from ._hull import Hull
from ._limits import Limits, Readable, check_size

__all__ = ["OpenFile"]

T = TypeVar("T")

_PIECES_MAX: Final = 1024  # IOV_MAX
_DATA_ONLY: Final = 1  # IORING_FSYNC_DATASYNC
_PENDING: Final = frozenset({NEW, SUBMITTED, CANCELLING, DONE})


class OpenFile:
    """
    An open file; close it with `aclose`, or use it as an async context manager.

    Iterating over it gives its lines.  Reads and writes that name no offset go on where the last
    one ended, and one task at a time may make them; the others may be made by any number of tasks.

    Args:
        fd: An open descriptor, which the file owns from now on.
        direct: It was opened with O_DIRECT.
        appends: It was opened with O_APPEND.
    """

    __slots__ = (
        "__weakref__",
        "_appends",
        "_driver",
        "_fd",
        "_hull",
        "_limits",
        "_ops",
        "_ops_max",
        "_positional",
        "_registered",
    )

    def __init__(self, fd: int, *, direct: bool = False, appends: bool = False) -> None:
        driver = current.driver()
        self._appends = appends
        self._driver = driver
        self._hull = Hull(driver, fd)
        self._fd = self._hull.fd
        self._limits = Limits(driver.system.direct_alignment(fd) if direct else None)
        # Handed out and not done: closing must reach them, for their descriptor may be given anew.
        # Weakly, for their memory should go with them; a started op is held by its driver.
        self._ops: list[weakref.ref[Op[object]]] = []
        self._ops_max = 16  # from here on, the list is looked through for what is done
        self._positional: weakref.ref[Op[object]] | None = None
        self._registered: FixedFd | None = None

    def __repr__(self) -> str:
        return f"<File {self._fd!r}>"

    def fileno(self) -> int:
        """The descriptor, which stays the file's; raises `ClosedError`."""
        return self._fd.number

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """
        Move the file's position, and return it; at once.

        Args:
            whence: ``os.SEEK_SET``, ``SEEK_CUR``, ``SEEK_END``, or ``SEEK_DATA`` and ``SEEK_HOLE``,
                which find where a sparse file holds something or nothing.

        Raises:
            BusyError: A task reads or writes at the position.
            ClosedError: The file is closed.
            OpError: The kernel refused, such as for a FIFO, or behind the last data.
            ValueError: *offset* has 64 bits or more.
        """
        check_size("an offset", abs(offset))
        self._require_position()
        self._step_back()
        return self._hull.move(offset, whence)

    def tell(self) -> int:
        """Return the file's position; raises as `seek` does."""
        self._require_position()
        return self._hull.move(0, os.SEEK_CUR) - len(self._hull.ahead)

    def stat(self) -> Op[os.stat_result]:
        """
        Look at the file's kind, size and times.

        Raises:
            ClosedError: The file is closed.
            OpError: The kernel refused.

        Source: fstat(2), which does not wait for a local file.
        """
        op: Op[os.stat_result] = Op(READY)
        op.value = self._driver.system.fstat(self._fd.number)
        return op

    def fsync(self) -> Op[None]:
        """
        Wait until the device has everything that was written, and what describes the file.

        Raises: `ClosedError`, `OpError`.

        Source: fsync(2).
        """
        return self.hand_out(Op(o.FSYNC, self._fd.number))

    def fdatasync(self) -> Op[None]:
        """
        Wait until the device has everything that is needed to read back what was written.

        Raises: `ClosedError`, `OpError`.

        Source: fdatasync(2).
        """
        return self.hand_out(Op(o.FSYNC, self._fd.number, flags=_DATA_ONLY))

    def aclose(self) -> Op[None]:
        """
        Close the file; safe to call twice.

        Tasks that are reading get `ClosedError`.

        Raises:
            WrongThreadError: The file belongs to another loop or thread.

        Cancellation: the file is closed all the same.
        """
        driver = self._driver
        if self._fd.closed:
            return Op(READY)
        if current.driver() is not driver:
            raise WrongThreadError("a file is closed in the loop that it belongs to")
        self.unregister()
        fd = self._fd.take()
        ops = [op for ref in self._ops if (op := ref()) is not None]
        self._ops.clear()
        return closing_op(driver, fd, "file", ops)

    def register(self) -> bool:
        """Have the loop's ring know the file, if it can; raises `ClosedError`, `UsageError`."""
        fd, tables = self._fd.number, self._driver.tables
        if self._registered is not None:
            raise UsageError("this file is registered with its loop already")
        if tables is None:
            return False
        try:
            self._registered = tables.add_file(fd)
        except UnsupportedError:
            return False
        return True

    def unregister(self) -> None:
        """Have the loop's ring know the file no more; for whoever had it registered."""
        if self._registered is not None:
            self._registered.close()
            self._registered = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    def hand_out(self, op: Op[T]) -> Op[T]:
        """Tie *op*, new and on this file's descriptor, to the file's life."""
        op.home = self._driver
        op.owner = self._hull
        ops = self._ops
        if len(ops) >= self._ops_max:
            ops[:] = [ref for ref in ops if (one := ref()) is not None and one.state in _PENDING]
            self._ops_max = max(16, 2 * len(ops))
        ops.append(weakref.ref(op))
        return op

    def _hand_out_pieces(
        self, code: int, offset: int, pieces: Sequence[Readable], flags: RWFlags, legal: RWFlags
    ) -> Op[int]:
        offset = self._limits.place(offset)
        if len(pieces) > _PIECES_MAX:
            raise ValueError(f"at most {_PIECES_MAX} pieces of memory at once, not {len(pieces)}")
        self._limits.check_flags(flags, legal)
        for piece in pieces:
            self._limits.check_memory(piece)
        return self.hand_out(Vectored(code, self._fd.number, list(pieces), offset, flags))

    def _claim(self, op: Op[T]) -> Op[T]:
        self._positional = weakref.ref(op)
        return op

    def _require_position(self) -> None:
        last = self._positional() if self._positional is not None else None
        if last is None or last.state == SPENT or last.state == STALE:
            return
        if last.state == NEW:
            last.state = STALE  # a call that was made and dropped must not run out of its turn
            return
        raise BusyError(
            "another task reads or writes at this file's position; use read_at, write_at"
        )

    def _step_back(self) -> None:
        """Put the descriptor's position where the file's is."""
        ahead = self._hull.ahead
        if ahead:
            self._hull.move(-len(ahead), os.SEEK_CUR)
            ahead.clear()
