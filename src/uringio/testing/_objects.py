"""What a simulated descriptor may name: the base of all kinds, and pipes."""

import errno
from typing import Final, Protocol

from uringio._driver.poll_bits import POLLERR, POLLHUP, POLLIN, POLLOUT

__all__ = ["Pipe", "SimFile", "Watcher"]

_PIPE_BYTES: Final = 65536


class Watcher(Protocol):
    """Who waits for a file to become ready."""

    def on_ready(self, file: "SimFile", mask: int, /) -> None:
        """Hear that *file* has changed, and of what it is ready for now."""
        ...


class SimFile:
    """
    An open file description: what descriptors and requests refer to.

    Attributes:
        kind: For messages.
        refs: Descriptors and requests that refer to it; it is released with the last one.
        blocking: Whether O_NONBLOCK is clear.
    """

    kind = "file"

    def __init__(self) -> None:
        self.refs = 0
        self.blocking = True
        self._watchers: dict[Watcher, None] = {}

    def watch(self, watcher: Watcher) -> None:
        """Have *watcher* hear of every change."""
        self._watchers[watcher] = None

    def unwatch(self, watcher: Watcher) -> None:
        """Undo that; safe to call twice."""
        self._watchers.pop(watcher, None)

    def changed(self, events: int = 0xFFFF) -> None:
        """Tell whoever watches what it is ready for, as far as it is one of *events*."""
        if self._watchers:
            mask = self.poll() & events
            for watcher in reversed(list(self._watchers)):  # as in a queue of the kernel's
                watcher.on_ready(self, mask)

    def hold(self) -> None:
        """Count a reference."""
        self.refs += 1

    def drop(self) -> None:
        """Count a reference less; the last one closes the file."""
        self.refs -= 1
        if not self.refs:
            self.released()

    def poll(self) -> int:
        """What it is ready for, in the bits of poll(2)."""
        return POLLIN | POLLOUT

    def released(self) -> None:
        """Nothing refers to it any more."""

    def readable_now(self) -> bool:
        """Whether a read would not have to wait."""
        return bool(self.poll() & (POLLIN | POLLHUP | POLLERR))

    # Each transfer answers None where it would have to wait.

    def read(self, count: int) -> bytes | int | None:
        """Take bytes; ``-errno`` on refusal."""
        return -errno.EINVAL

    def write(self, data: bytes) -> int | None:
        """Give bytes; how many were taken, or ``-errno``."""
        return -errno.EINVAL


class _Stuffing:
    """What is in a pipe, and who still has its ends."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.lacks_room = False  # somebody was told to wait
        self.reader: Pipe | None = None
        self.writer: Pipe | None = None


class Pipe(SimFile):
    """One end of a pipe."""

    kind = "pipe"

    def __init__(self, stuffing: _Stuffing, reads: bool) -> None:
        super().__init__()
        self._stuffing = stuffing
        self._reads = reads

    @staticmethod
    def pair() -> tuple["Pipe", "Pipe"]:
        """Make both ends, the reading one first."""
        stuffing = _Stuffing()
        stuffing.reader = reader = Pipe(stuffing, True)
        stuffing.writer = writer = Pipe(stuffing, False)
        return reader, writer

    def poll(self) -> int:
        """See `SimFile`."""
        stuffing = self._stuffing
        if self._reads:
            mask = POLLIN if stuffing.data else 0
            return mask if stuffing.writer else mask | POLLHUP
        mask = POLLOUT if len(stuffing.data) < _PIPE_BYTES else 0
        stuffing.lacks_room = stuffing.lacks_room or not mask
        return mask if stuffing.reader else mask | POLLERR

    def room(self) -> int:
        """How many bytes a write would find room for."""
        return _PIPE_BYTES - len(self._stuffing.data)

    def tell_writer(self) -> None:
        """Wake who would write, whether or not it lacked room: as splicing does."""
        if self._stuffing.writer is not None:
            self._stuffing.writer.changed(POLLOUT)

    def has_reader(self) -> bool:
        """Whether a write would find somebody who reads."""
        return self._stuffing.reader is not None

    def peek(self, count: int) -> bytes | int | None:
        """Look at what a read would take."""
        stuffing = self._stuffing
        if not self._reads:
            return -errno.EBADF
        if not stuffing.data:
            return None if stuffing.writer else b""
        return bytes(stuffing.data[:count])

    def read(self, count: int) -> bytes | int | None:
        """See `SimFile`."""
        stuffing = self._stuffing
        if not self._reads:
            return -errno.EBADF
        if not stuffing.data:
            return None if stuffing.writer else b""
        data = bytes(stuffing.data[:count])
        del stuffing.data[:count]
        if stuffing.writer is not None and stuffing.lacks_room:
            stuffing.lacks_room = False
            stuffing.writer.changed(POLLOUT)
        return data

    def write(self, data: bytes) -> int | None:
        """See `SimFile`."""
        stuffing = self._stuffing
        if self._reads:
            return -errno.EBADF
        if stuffing.reader is None:
            return -errno.EPIPE
        count = min(len(data), _PIPE_BYTES - len(stuffing.data))
        if count < len(data):
            stuffing.lacks_room = True
            if not count:
                return None
        stuffing.data += data[:count]
        stuffing.reader.changed(POLLIN)
        return count

    def released(self) -> None:
        """See `SimFile`."""
        stuffing = self._stuffing
        if self._reads:
            stuffing.reader = None
            other = stuffing.writer
        else:
            stuffing.writer = None
            other = stuffing.reader
        if other is not None:
            other.changed()
