"""
One file's content, by whichever way costs least.

In the order of what it costs: blocks are shared where the filesystem can (FICLONE); else the kernel
copies (copy_file_range); else pieces are read and written through the ring, several in flight.
Holes stay holes.
"""

import errno
import os
from collections.abc import Callable, Iterator
from functools import partial
from typing import Final, NamedTuple

from uringio._driver import current
from uringio._driver import op as o
from uringio._driver.op import Op
from uringio._driver.path_ops import AnyPath

from ._descriptor import Descriptor, in_thread

__all__ = ["Content", "Ledger", "Progress"]

_PIECE_BYTES: Final = 256 * 1024
_PIECES_IN_FLIGHT: Final = 8
_RANGE_BYTES: Final = 32 << 20  # in one call of the kernel; between two, progress and cancellation
_SPARSE_BYTES_MIN: Final = 65536


class Progress(NamedTuple):
    """
    How far a copy has come.

    Attributes:
        path: The source that is being copied.
        path_bytes: How much of it is done, holes included. [bytes]
        path_size: How much there is of it. [bytes]
        total_bytes: How much is done of all that was begun. [bytes]
        file_count: How many files are done, this one included once all of it is.
    """

    path: str
    path_bytes: int
    path_size: int
    total_bytes: int
    file_count: int


class Ledger:
    """What the copies of one call share: the count, and which ways the filesystems refused."""

    def __init__(self, progress: Callable[[Progress], object] | None) -> None:
        self._progress = progress
        self._total_bytes = 0
        self._file_count = 0
        self.system = current.driver().system
        self.may_clone = True
        self.may_range = True

    def advance(self, file: "Content", count: int) -> None:
        """Count a part of *file*."""
        file.done_bytes += count
        self._total_bytes += count
        self._tell(file.path, file.done_bytes, file.size)

    def finish(self, file: "Content") -> None:
        """Count *file* as done."""
        self._file_count += 1
        self._tell(file.path, file.done_bytes, file.size)

    def count(self, path: bytes, size: int) -> None:
        """Count a whole file at once."""
        self._total_bytes += size
        self._file_count += 1
        self._tell(path, size, size)

    def _tell(self, path: AnyPath, done_bytes: int, size: int) -> None:
        if self._progress is not None:
            counts = self._total_bytes, self._file_count
            self._progress(Progress(os.fsdecode(path), done_bytes, size, *counts))


class Content:
    """
    The copying of one file's content.

    Args:
        job: What it is a part of.
        path: Of the source, for the progress.
        source: Open for reading.
        target: Open for writing, empty.
        size: Of the source. [bytes]
    """

    def __init__(
        self, job: Ledger, path: AnyPath, source: Descriptor, target: Descriptor, size: int
    ) -> None:
        self.job = job
        self.path = path
        self.source = source
        self.target = target
        self.size = size
        self.done_bytes = 0

    async def run(self, status: os.stat_result) -> None:
        """Copy everything."""
        job = self.job
        if not self.size:
            await self.copy_stream()  # or it does not say how large it is, as files in /proc
            return
        if job.may_clone:
            res = await in_thread(job.system.clone_file, self.source, self.target)
            if res == 0:
                job.advance(self, self.size)
                return
            self.judge(res)
            job.may_clone = False
        data = [(0, self.size)]
        if self.size >= _SPARSE_BYTES_MIN and status.st_blocks * 512 < self.size:
            find = partial(_find_data, job.system.find_data, self.size)
            data = await in_thread(find, self.source, self.target) or []
        at = 0
        for start, stop in data:
            if start > at:
                job.advance(self, start - at)  # a hole
            await self.copy_range(start, stop)
            at = stop
        if at < self.size:
            await Op(o.FTRUNCATE, self.target.fd, off=self.size)
            job.advance(self, self.size - at)

    async def copy_range(self, start: int, stop: int) -> None:
        """Copy data by the kernel, or as far as that does not go, through the ring."""
        job = self.job
        while job.may_range and stop - start > _PIECE_BYTES:
            size = min(stop - start, _RANGE_BYTES)
            copy_some = partial(_copy_some, job.system.copy_range, start, size)
            count = await in_thread(copy_some, self.source, self.target)
            if count is None or count <= 0:
                # 0: the file has become shorter, or its filesystem only says that it cannot.
                self.judge(count)
                job.may_range = count == 0
                break
            start += count
            job.advance(self, count)
        if stop - start <= _PIECE_BYTES:
            await self.copy_span(start, stop)
            return
        spans = iter(range(start, stop, _PIECE_BYTES))
        failures: list[Exception] = []
        async with current.scheduler().serving_group() as group:
            for _ in range(_PIECES_IN_FLIGHT):
                group.spawn(self.copy_spans(spans, stop, failures))
        if failures:
            raise failures[0]

    async def copy_spans(self, starts: Iterator[int], stop: int, failures: list[Exception]) -> None:
        """Copy the spans that begin at *starts*, which several tasks share."""
        try:
            for start in starts:
                if failures:
                    return
                await self.copy_span(start, min(start + _PIECE_BYTES, stop))
        except Exception as error:  # it is the whole copy's
            failures.append(error)

    async def copy_span(self, start: int, stop: int) -> None:
        """Copy what lies there, or less where the file has become shorter meanwhile."""
        while start < stop and (count := await self.copy_piece(start, stop - start)):
            start += count
            self.job.advance(self, count)

    async def copy_piece(self, offset: int, size: int) -> int:
        """Copy with one read, and return how much."""
        buffer = bytearray(size)
        read: Op[int] = Op(o.READ_CACHED, self.source.fd, len_=size, off=offset, memory=buffer)
        count = await read
        done = 0
        while done < count:
            rest = memoryview(buffer)[done:count]
            write: Op[int] = Op(
                o.WRITE, self.target.fd, len_=len(rest), off=offset + done, memory=rest
            )
            written = await write
            if not written:  # a device that takes nothing: asking for ever would not help
                raise OSError(errno.EIO, os.strerror(errno.EIO), os.fsdecode(self.path))
            done += written
        return count

    async def copy_stream(self) -> None:
        """Copy from the beginning to wherever the end is."""
        at = 0
        while count := await self.copy_piece(at, _PIECE_BYTES):
            at += count
            self.size = at
            self.job.advance(self, count)

    def judge(self, res: int | None) -> None:
        """Raise what a way of copying answered, unless it means that there is no such way here."""
        try:
            self.job.system.judge_copying(res or 0)
        except OSError as error:
            error.filename = os.fsdecode(self.path)
            raise


def _find_data(
    find: Callable[[int, int], list[tuple[int, int]]], size: int, source: int, _target: int
) -> list[tuple[int, int]]:
    return find(source, size)


def _copy_some(
    copy_range: Callable[[int, int, int, int], int],
    offset: int,
    size: int,
    source: int,
    target: int,
) -> int:
    return copy_range(source, target, offset, size)
