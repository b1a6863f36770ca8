"""
Readers and writers: callbacks for as long as a descriptor is readable, or writable.

Each is a one-shot POLL, submitted again behind every call, and so looked at anew by the kernel (or
asked anew by a driver that waits for readiness): what is still true is told again, as a level would
be.  That costs one SQE per call, in the enter that the pass makes anyway.

Such a poll holds the file.  Removing a callback therefore has the kernel let go of it before it
returns, so that closing the descriptor then closes the file, with all that the peer sees of that.
Who closes first and removes later, or never, keeps the file open until then; with epoll a closed
descriptor just goes silent.  Remove first, which is right on every loop.
"""

import asyncio
import errno
import os
import stat
import sys
from collections.abc import Callable
from typing import Final, TypeVarTuple

from uringio._driver.contract import Driver
from uringio._driver.op import CANCELLING, NEW, POLL, POLL_AGAIN, SPENT, Op
from uringio._driver.poll_bits import POLLIN, POLLOUT
from uringio._driver.sockets import HasFileno
from uringio.errors import op_error

from .handles import Handle
from .running import RunningLoop

__all__ = ["READABLE", "WRITABLE", "Readiness"]

Ts = TypeVarTuple("Ts")

READABLE: Final = POLLIN  # errors and hang-ups are told unasked
WRITABLE: Final = POLLOUT
# Linux's null, zero and full: devices without a poll of their own.
_MEMORY_DEVICES: Final = frozenset(
    os.makedev(1, minor) for minor in (3, 5, 7) if sys.platform == "linux"
)


class Readiness(RunningLoop):
    """The calls, as methods of the loop."""

    def __init__(self, *, backend: str = "auto") -> None:
        super().__init__(backend=backend)
        self._readers: dict[int, _Watch] = {}
        self._writers: dict[int, _Watch] = {}

    def _prepare_driver(self) -> Driver:
        driver = super()._prepare_driver()
        # Those from before the first run, and any that a KeyboardInterrupt kept from going on.
        for watch in (*self._readers.values(), *self._writers.values()):
            if watch.again not in self._ready:
                try:
                    watch.arm(driver)
                except OSError as error:
                    watch.failed(error)
        return driver

    def _close(self) -> None:
        super()._close()
        self._readers.clear()
        self._writers.clear()

    # --- the public calls ------------------------------------------------------------------------

    def add_reader(
        self, fd: int | HasFileno, callback: Callable[[*Ts], object], *args: *Ts
    ) -> None:
        """
        Call ``callback(*args)`` whenever *fd* can be read: data, the end, or an error is there.

        It is called once per pass for as long as that holds.  A reader that *fd* had already is
        replaced.  Works before the loop runs; the calls begin with the run.

        Args:
            fd: A number, or an object with ``fileno()``.  Whatever poll(2) knows, in blocking mode
                or not; it must stay open until `remove_reader`.

        Raises:
            ValueError: *fd* is no descriptor.
            RuntimeError: A transport of this loop uses *fd*, or the loop is closed.
            PermissionError: *fd* is a file, folder or ``/dev/null``, for which nobody ever waits.
            OpError: *fd* is not open (EBADF).

        Source: poll(2), epoll_ctl(2).
        """
        self._add_reader(self.ensure_fd_of_nobody(fd), callback, *args)

    def remove_reader(self, fd: int | HasFileno) -> bool:
        """
        Call nobody any more when *fd* can be read; False if nobody was called.

        When this returns, neither the loop nor the kernel holds *fd*.

        Raises:
            ValueError: *fd* is no descriptor.
            RuntimeError: A transport of this loop uses *fd*.
        """
        return self._remove_reader(self.ensure_fd_of_nobody(fd))

    def add_writer(
        self, fd: int | HasFileno, callback: Callable[[*Ts], object], *args: *Ts
    ) -> None:
        """
        Call ``callback(*args)`` whenever *fd* can be written: there is room, or an error.

        Args, Raises: As `add_reader`.
        """
        self._add_writer(self.ensure_fd_of_nobody(fd), callback, *args)

    def remove_writer(self, fd: int | HasFileno) -> bool:
        """Call nobody any more when *fd* can be written; as `remove_reader`."""
        return self._remove_writer(self.ensure_fd_of_nobody(fd))

    # --- without asking for transports: the names by which asyncio's own transports call them -----

    def _add_reader(self, fd: int, callback: Callable[[*Ts], object], *args: *Ts) -> asyncio.Handle:
        return self._add(self._readers, fd, READABLE, callback, args)

    def _remove_reader(self, fd: int) -> bool:
        return self._remove(self._readers, fd)

    def _add_writer(self, fd: int, callback: Callable[[*Ts], object], *args: *Ts) -> asyncio.Handle:
        return self._add(self._writers, fd, WRITABLE, callback, args)

    def _remove_writer(self, fd: int) -> bool:
        return self._remove(self._writers, fd)

    def _add(
        self,
        watches: "dict[int, _Watch]",
        fd: int,
        mask: int,
        callback: Callable[..., object],
        args: tuple[object, ...],
    ) -> asyncio.Handle:
        self._check_closed()
        if fd < 0:
            raise ValueError(f"Invalid file descriptor: {fd}")
        handle = asyncio.Handle(callback, args, self, None)
        watch = _Watch(self, self._ready.extend, fd, mask, handle)
        if self._driver is not None:
            watch.arm(self._driver)
        before = watches.get(fd)
        watches[fd] = watch
        if before is not None:
            # Its poll is not kept for the new one: the number may name another file by now.
            before.stop()
        return handle

    def _remove(self, watches: "dict[int, _Watch]", fd: int) -> bool:
        if self._closed:
            return False
        if fd < 0:
            raise ValueError(f"Invalid file descriptor: {fd}")
        watch = watches.pop(fd, None)
        if watch is None:
            return False
        if watch.stop():
            assert self._driver is not None
            self._driver.flush()  # the kernel drops a waiting poll within that call
        return True


class _Watch:
    """
    One direction of one descriptor.

    Attributes:
        handle: What is called.
        again: Runs behind it, and asks anew.
    """

    __slots__ = ("_enqueue", "_loop", "_op", "_over", "again", "handle")

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        enqueue: Callable[[tuple[asyncio.Handle, asyncio.Handle]], None],
        fd: int,
        mask: int,
        handle: asyncio.Handle,
    ) -> None:
        self._loop = loop
        self._enqueue = enqueue
        self._op: Op[object] = Op(POLL, fd, flags=mask)
        self._op.state = SPENT
        self._op.waiter = self._is_ready
        self._over = False  # whether the descriptor is closed, or some other file's by now
        self.handle = handle
        self.again = Handle.made(self._ask, loop)

    def arm(self, driver: Driver) -> None:
        """
        Begin to ask; nothing happens if that has begun.

        Raises:
            OpError: The descriptor is not open, or is that of a file.
        """
        op = self._op
        if op.state != SPENT or self._over:
            return
        if _is_always_ready(driver.system.fstat(op.fd)):
            # As epoll_ctl(2) does: it would be called in every pass, for ever.
            raise op_error(errno.EPERM, "poll", op.fd, detail="a file is always ready")
        op.home = driver
        self._ask()

    def _ask(self) -> None:
        op = self._op
        if op.state == SPENT and op.home is not None:
            op.state = NEW
            try:
                op.home.submit(op)
            except BaseException:
                if op.state == NEW:  # it has not been taken
                    op.state = SPENT
                raise

    def stop(self) -> bool:
        """Call nobody any more; True if the kernel holds the descriptor still."""
        self.handle.cancel()
        self.again.cancel()
        driver = self._op.home
        return driver is not None and driver.cancel(self._op) and self._op.state == CANCELLING

    def _is_ready(self, op: Op[object]) -> None:
        error, op.error = op.error, None
        if error is None:
            # In one call, behind which a signal handler may raise: never one without the other.
            op.code = POLL_AGAIN
            self._enqueue((self.handle, self.again))
        elif isinstance(error, OSError):
            self.failed(error)

    def failed(self, error: OSError) -> None:
        """
        Call nobody any more, in later runs neither, and tell the loop's exception handler why.

        Of a descriptor that was closed meanwhile nothing is told, as with epoll(7).
        """
        self._over = True
        if error.errno == errno.EBADF and self._op.home is not None:
            return
        self._loop.call_exception_handler(
            {
                "message": "a descriptor cannot be watched",
                "exception": error,
                "handle": self.handle,
            }
        )


def _is_always_ready(found: os.stat_result) -> bool:
    mode = found.st_mode
    return (
        stat.S_ISREG(mode)
        or stat.S_ISDIR(mode)
        or stat.S_ISBLK(mode)
        or (stat.S_ISCHR(mode) and found.st_rdev in _MEMORY_DEVICES)
    )
