"""
Child processes.

asyncio's own `BaseSubprocessTransport` stays, of which the streams of `asyncio.subprocess` are
made, as it is in the running version: what of its privacies this module relies on is that it calls
``_start``, which sets ``_proc``, makes its pipes by the loop's ``connect_*_pipe``, takes the exit
status by ``_process_exited``; and that `BaseEventLoop` makes it by
``_make_subprocess_transport`` (all alike from Python 3.11 to 3.14).

The end of a child is told by a pidfd, for which a POLL waits on every driver: in any thread, and
whatever becomes of SIGCHLD.  Where there are none (before Linux 5.3, or forbidden) a thread waits.

Source: pidfd_open(2).
"""

# asyncio's subprocess transports are made for subclasses that use what its stubs call private.
# pyright: reportPrivateUsage=false

import asyncio
import errno
import logging
import os
import signal
import subprocess
from asyncio import base_subprocess, unix_events
from collections.abc import Callable, Sequence
from typing import IO, TYPE_CHECKING, Final, TypeAlias, TypeVarTuple, cast

from uringio._driver.contract import Driver
from uringio._driver.op import POLL, Op
from uringio._own.fd import OwnedFd

from .readiness import READABLE
from .running import RunningLoop

__all__ = ["ProcessCalls"]

Ts = TypeVarTuple("Ts")

File: TypeAlias = int | IO[bytes] | None
Command: TypeAlias = str | bytes | Sequence[str | bytes]

logger = logging.getLogger("asyncio")

# What is reported of a child whose status somebody else has taken, as in asyncio.
_UNKNOWN_STATUS: Final = 255


class _ChildTransport(base_subprocess.BaseSubprocessTransport):
    """A child process under a protocol."""

    ended: "asyncio.Future[None] | None" = None

    if TYPE_CHECKING:
        _proc: subprocess.Popen[bytes] | None

    def _start(
        self,
        args: Command,
        shell: bool,
        stdin: File,
        stdout: File,
        stderr: File,
        bufsize: int,
        **kwargs: object,
    ) -> None:
        start = cast("Callable[..., subprocess.Popen[bytes]]", subprocess.Popen)
        self._proc = start(
            args,
            shell=shell,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            universal_newlines=False,
            bufsize=bufsize,
            **kwargs,
        )

    @property
    def process(self) -> "subprocess.Popen[bytes]":
        """The process, which has started."""
        assert self._proc is not None
        return self._proc

    def exited(self, returncode: int) -> None:
        """Take note of the process's end."""
        self._process_exited(returncode)
        if self.ended is not None and not self.ended.done():
            self.ended.set_result(None)

    async def end(self) -> None:
        """Kill the process and wait for its end, but not for its pipes, which may be missing."""
        self.close()
        if self._returncode is None:
            self.ended = self._loop.create_future()
            await self.ended

    def close_unconnected(self) -> None:
        """Close the pipes that no transport has taken."""
        process = self.process
        for number, stream in enumerate((process.stdin, process.stdout, process.stderr)):
            if stream is not None and self._pipes.get(number) is None:
                stream.close()

    # Not by way of `Popen.send_signal`, as asyncio did before Python 3.13: that takes the status.

    def send_signal(self, signal: int) -> None:
        """
        Send a signal, unless the process has ended.

        Raises:
            ProcessLookupError: It has, and all has been said about it.
        """
        self._check_proc()
        process = self.process
        if process.returncode is None:
            try:
                os.kill(process.pid, signal)
            except ProcessLookupError:
                pass  # somebody else has taken its status

    def terminate(self) -> None:
        """Send SIGTERM, as `send_signal`."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL, as `send_signal`."""
        self.send_signal(signal.SIGKILL)


class _Watch:
    """
    Waits for the end of one child, and takes its status.

    Args:
        process: The child, which nobody else should wait for.
        ended: Called by the loop with the return code.
    """

    def __init__(
        self,
        loop: "ProcessCalls",
        driver: Driver,
        process: "subprocess.Popen[bytes]",
        ended: Callable[[int], None],
    ) -> None:
        self._loop = loop
        self._driver = driver
        self._process = process
        self._ended = ended
        self._pidfd: OwnedFd | None = None
        system = driver.system
        fd = system.open_pidfd(process.pid)
        if fd >= 0:
            self._pidfd = OwnedFd(fd, system.close, "child process")
            op: Op[object] = Op(POLL, fd, flags=READABLE)
            op.add_done_callback(self._told)
        elif fd == -errno.ESRCH:  # gone, with its status
            loop.call_soon(self._end, _status_of(process))
        else:
            system.start_thread(self._wait_in_thread)

    def _told(self, op: Op[object]) -> None:
        if self._pidfd is None:
            return  # the loop was closed
        error = op.exception()
        self.let_go()
        if error is not None:
            self._driver.system.start_thread(self._wait_in_thread)
        else:
            self._end(_status_of(self._process))

    def _wait_in_thread(self) -> None:
        returncode = _status_of(self._process)
        try:
            self._loop.call_soon_threadsafe(self._end, returncode)
        except RuntimeError:
            logger.warning("the loop that started child process %d is closed", self._process.pid)

    def _end(self, returncode: int) -> None:
        self._loop.watches.discard(self)
        self._ended(returncode)

    def let_go(self) -> None:
        """Wait no more."""
        pidfd, self._pidfd = self._pidfd, None
        if pidfd is not None and not pidfd.closed:
            self._driver.unregister(pidfd.number)
            pidfd.close()


def _status_of(process: "subprocess.Popen[bytes]") -> int:
    """Wait for the end of *process*, and return its return code."""
    if process.returncode is None:
        try:
            _, status = os.waitpid(process.pid, 0)
        except ChildProcessError:
            pass
        else:
            return os.waitstatus_to_exitcode(status)
    known: int | None = process.returncode
    if known is not None:
        return known  # `Popen.poll` was quicker
    logger.warning(
        "child process pid %d exit status already read: will report returncode 255", process.pid
    )
    return _UNKNOWN_STATUS


class ProcessCalls(RunningLoop):
    """The part of the event loop that runs child processes."""

    def __init__(self, *, backend: str = "auto") -> None:
        super().__init__(backend=backend)
        self.watches: set[_Watch] = set()

    def add_signal_handler(self, sig: int, callback: Callable[[*Ts], object], *args: *Ts) -> None:
        """
        See `RunningLoop`.

        asyncio's child watchers (up to Python 3.13) are not let in: they are not needed, and one
        kind takes the status of every child.
        """
        watcher: type | None = getattr(unix_events, "AbstractChildWatcher", None)
        owner = getattr(callback, "__self__", None)
        if sig != signal.SIGCHLD or watcher is None or not isinstance(owner, watcher):
            super().add_signal_handler(sig, callback, *args)

    async def _make_subprocess_transport(
        self,
        protocol: asyncio.SubprocessProtocol,
        args: Command,
        shell: bool,
        stdin: File,
        stdout: File,
        stderr: File,
        bufsize: int,
        extra: object = None,
        **kwargs: object,
    ) -> asyncio.SubprocessTransport:
        driver = self.require_driver()
        begun: asyncio.Future[None] = self.create_future()
        transport = _ChildTransport(
            self, protocol, args, shell, stdin, stdout, stderr, bufsize,
            waiter=begun, extra=extra, **kwargs,
        )  # fmt: skip
        self.watches.add(_Watch(self, driver, transport.process, transport.exited))
        try:
            await begun
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException:
            await transport.end()
            if not begun.cancelled() and begun.exception() is not None:
                # One of its pipes failed, and no others will be taken.
                transport.close_unconnected()
            raise
        return transport

    def close(self) -> None:
        """See `RunningLoop`; nobody waits any more for children that still run."""
        super().close()
        while self.watches:
            self.watches.pop().let_go()
