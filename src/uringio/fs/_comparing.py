"""Comparing trees: a copy with what it was made of, byte by byte."""

import errno
import os
import stat
from collections.abc import Callable
from typing import Final

from uringio._driver import op as o
from uringio._driver.op import Op

from ._content import Progress
from ._descriptor import Descriptor
from ._tree import Folder, Large, Walk, named

__all__ = ["Comparison", "DifferenceError"]

_PIECE_BYTES: Final = 1 << 20
_LARGE_BYTES: Final = 1 << 20


class DifferenceError(OSError):
    """A copy is not what it was made of."""


class Comparison(Walk):
    """
    A walk that compares: kinds, modes, times of change, what links lead to, and bytes.

    What differs is reported as a `DifferenceError`.  Names that only the copy has are not looked
    for.
    """

    def __init__(
        self,
        *,
        progress: Callable[[Progress], object] | None = None,
        on_error: Callable[[OSError], object] | None = None,
    ) -> None:
        super().__init__(
            make=False, exist_ok=True, follow_symlinks=False, progress=progress, on_error=on_error
        )

    def do_file(self, folder: Folder, name: bytes, target_name: bytes) -> Large | int | None:
        """Compare a file; see `Walk`."""
        pair, system = folder.pair, self.system
        source_fd, status = pair.open_source(name, follow=False)
        target_fd = -1
        handed_over = False
        try:
            target_fd, there = pair.open_copy(target_name)
            _require_same(status, there)
            # Files in /proc say that they are empty, and are not.
            if status.st_size and status.st_size != there.st_size:
                raise _difference("size")
            system.forget_cached(target_fd)
            if status.st_size > _LARGE_BYTES:
                handed_over = True
                path = os.path.join(folder.path, name)
                place = os.path.join(folder.place, target_name)
                return _LargeComparison(self, folder, path, place, source_fd, target_fd, status)
            if not system.same_content(source_fd, target_fd):
                raise _difference("bytes")
            return status.st_size
        finally:
            if not handed_over:
                system.close(source_fd)
                if target_fd >= 0:
                    system.close(target_fd)

    def do_link(self, folder: Folder, name: bytes, target_name: bytes) -> None:
        """Compare a link; see `Walk`."""
        if not folder.pair.same_links(name, target_name):
            raise _difference("what the link leads to")

    def do_special(self, folder: Folder, name: bytes, target_name: bytes) -> None:
        """Compare a FIFO, socket or device; see `Walk`."""
        status, there = folder.pair.look(name, follow=False), folder.pair.look_at_copy(target_name)
        _require_same(status, there)
        if status.st_rdev != there.st_rdev:
            raise _difference("device")

    def leave_folder(self, folder: Folder) -> None:
        """Compare the folder itself; see `Walk`."""
        if self.stopped:
            return
        try:
            _require_same(folder.pair.status, folder.pair.target_status())
        except OSError as error:
            self.fail(named(error, folder.path, folder.place))


class _LargeComparison:
    """A large file, read through the ring on both sides; see `Large`."""

    def __init__(
        self,
        job: Comparison,
        folder: Folder,
        path: bytes,
        place: bytes,
        source_fd: int,
        target_fd: int,
        status: os.stat_result,
    ) -> None:
        self.folder = folder
        self._job = job
        self._path = path
        self._place = place
        self._size = status.st_size
        self._source = Descriptor(source_fd, job.system.close)
        self._target = Descriptor(target_fd, job.system.close)
        self._closed = False

    async def run(self) -> None:
        """Compare; raises OSError."""
        first, second = bytearray(_PIECE_BYTES), bytearray(_PIECE_BYTES)
        at = 0
        try:
            while at < self._size:
                size = min(_PIECE_BYTES, self._size - at)
                count = await self._read(self._source.fd, first, at, size)
                if count != await self._read(self._target.fd, second, at, size):
                    raise _difference("bytes")
                if not count or first[:count] != second[:count]:
                    raise _difference("bytes")
                at += count
        except OSError as error:
            raise named(error, self._path, self._place) from None
        self._job.count(self._path, self._size)

    async def _read(self, fd: int, memory: bytearray, offset: int, size: int) -> int:
        """Read all *size* bytes, or up to the end."""
        done = 0
        while done < size:
            view = memoryview(memory)[done:size]
            read: Op[int] = Op(o.READ_CACHED, fd, len_=size - done, off=offset + done, memory=view)
            count = await read
            if not count:
                break
            done += count
        return done

    def close(self) -> None:
        """Close both files."""
        if not self._closed:
            self._closed = True
            self._source.release()
            self._target.release()


def _require_same(status: os.stat_result, there: os.stat_result) -> None:
    if stat.S_IFMT(status.st_mode) != stat.S_IFMT(there.st_mode):
        raise _difference("kind")
    if status.st_mode != there.st_mode:
        raise _difference("mode")
    if status.st_mtime_ns != there.st_mtime_ns:
        raise _difference("time")


def _difference(what: str) -> DifferenceError:
    return DifferenceError(errno.EIO, f"the copy differs: {what}")
