"""
io_uring for Python, with nothing to compile.

A completion-based runtime in pure Python: tasks, cancel scopes and task groups over Linux's
io_uring, the same program over epoll, kqueue or poll where io_uring is missing, and an asyncio
event loop (`uringio.aio`) on the same drivers.
"""

from typing import TYPE_CHECKING

from uringio import fs
from uringio._run.context import Context
from uringio._run.entry import checkpoint, run
from uringio._run.group import TaskGroup
from uringio._run.scope import CancelScope, Timeout, move_on_after, timeout
from uringio._run.task import Task
from uringio.buffers import Buffer, BufferPool
from uringio.clock import sleep
from uringio.errors import (
    BorrowedError,
    BusyError,
    Cancelled,
    ClosedError,
    DoubleReleaseError,
    EndOfStreamError,
    OpError,
    RingError,
    RingForkedError,
    UnsupportedError,
    UringioError,
    UsageError,
    UseAfterMoveError,
    WrongThreadError,
)
from uringio.files import (
    File,
    ReadFile,
    Resolve,
    RWFlags,
    WriteFile,
    aligned_buffer,
    open_file,
)
from uringio.net import (
    DatagramSocket,
    Listener,
    SocketStream,
    connect_tcp,
    connect_unix,
    listen_tcp,
    listen_unix,
    open_udp,
    open_unix_datagram,
    resolve,
    wait_readable,
    wait_writable,
)
from uringio.offloading import MayBlock, offload, offload_blocking
from uringio.outcomes import Done, Ended, Refused, outcome

if TYPE_CHECKING:
    from uringio.probing import probe

__all__ = [
    "BorrowedError",
    "Buffer",
    "BufferPool",
    "BusyError",
    "CancelScope",
    "Cancelled",
    "ClosedError",
    "Context",
    "DatagramSocket",
    "Done",
    "DoubleReleaseError",
    "EndOfStreamError",
    "Ended",
    "File",
    "Listener",
    "MayBlock",
    "OpError",
    "RWFlags",
    "ReadFile",
    "Refused",
    "Resolve",
    "RingError",
    "RingForkedError",
    "SocketStream",
    "Task",
    "TaskGroup",
    "Timeout",
    "UnsupportedError",
    "UringioError",
    "UsageError",
    "UseAfterMoveError",
    "WriteFile",
    "WrongThreadError",
    "aligned_buffer",
    "checkpoint",
    "connect_tcp",
    "connect_unix",
    "fs",
    "listen_tcp",
    "listen_unix",
    "move_on_after",
    "offload",
    "offload_blocking",
    "open_file",
    "open_udp",
    "open_unix_datagram",
    "outcome",
    "probe",
    "resolve",
    "run",
    "sleep",
    "timeout",
    "wait_readable",
    "wait_writable",
]

if not TYPE_CHECKING:  # a checker would take this for leave to ask for anything

    def __getattr__(name: str) -> object:
        """Load what few programs need when it is first asked for."""
        if name != "probe":
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from uringio.probing import probe

        globals()[name] = probe
        return probe

    def __dir__() -> list[str]:
        return sorted(set(globals()) | set(__all__))
