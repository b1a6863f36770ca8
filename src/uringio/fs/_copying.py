"""
Copying files and trees.

In the order of what it costs: blocks are shared where the filesystem can (FICLONE); else the kernel
copies (copy_file_range); else pieces are read and written through the ring, several in flight.
Where blocks cannot be shared, small files are read and written, which is quicker than a thread.
Holes stay holes.
"""

import errno
import os
import stat
from collections.abc import Callable, Iterator
from functools import partial
from typing import Final, NamedTuple

from uringio._driver import current
from uringio._driver import op as o
from uringio._driver.op import Offload, Op
from uringio._driver.path_ops import AnyPath, mkdir_op, stat_op, symlink_op

from ._descriptor import Descriptor, in_thread, open_descriptor
from ._listing import list_names

__all__ = ["Progress", "copy", "copy_tree"]

_PIECE_BYTES: Final = 256 * 1024
_PIECES_IN_FLIGHT: Final = 8
_RANGE_BYTES: Final = 32 << 20  # in one call of the kernel; between two, progress and cancellation
_SPARSE_BYTES_MIN: Final = 65536
_FILES_IN_FLIGHT: Final = 16
_BATCH_COUNT: Final = 1024
# What says that the kernel, or these filesystems, have no such way of copying.
_NO_WAY: Final = frozenset({
    errno.EOPNOTSUPP, errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.ENOTTY, errno.EPERM,
    errno.EBADF, errno.EIO,
})  # fmt: skip
# Of a source that is not regular, opening must not wait for anybody.
_SOURCE_FLAGS: Final = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY


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


class _Job:
    """What the copies of one call share: the count, and which ways the filesystems refused."""

    def __init__(self, progress: Callable[[Progress], object] | None) -> None:
        self._progress = progress
        self._total_bytes = 0
        self._file_count = 0
        self.system = current.driver().system
        self.may_clone = True
        self.may_range = True

    def advance(self, file: "_Copy", count: int) -> None:
        file.done_bytes += count
        self._total_bytes += count
        self._tell(file)

    def finish(self, file: "_Copy") -> None:
        self._file_count += 1
        self._tell(file)

    def _tell(self, file: "_Copy") -> None:
        if self._progress is not None:
            path = os.fsdecode(file.path)
            done = (path, file.done_bytes, file.size, self._total_bytes, self._file_count)
            self._progress(Progress(*done))


class _Copy:
    """The copying of one file's content."""

    def __init__(
        self, job: _Job, path: AnyPath, source: Descriptor, target: Descriptor, size: int
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
            done += await write
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
        if res is not None and res < 0 and -res not in _NO_WAY:
            raise OSError(-res, os.strerror(-res), os.fsdecode(self.path))


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


async def copy(
    source: AnyPath,
    target: AnyPath,
    *,
    progress: Callable[[Progress], object] | None = None,
    follow_symlinks: bool = True,
) -> None:
    """
    Copy a regular file, with its mode, times and, where permitted, extended attributes.

    A *target* that exists is overwritten.

    Args:
        progress: Called as the copy goes on; what it raises ends the copy.
        follow_symlinks: Copy what a link leads to, rather than make the same link.

    Raises:
        OSError: As `os` raises them; EINVAL when the source is no regular file, or is the target.
        ValueError: A path holds a NUL.

    Cancellation: leaves *target* behind, incomplete.
    """
    await _copy_file(_Job(progress), source, target, follow_symlinks)


async def _copy_file(job: _Job, path: AnyPath, target_path: AnyPath, follow: bool) -> None:
    flags = _SOURCE_FLAGS if follow else _SOURCE_FLAGS | os.O_NOFOLLOW
    try:
        source = await open_descriptor(path, flags)
    except OSError as error:
        if follow or error.errno != errno.ELOOP:
            raise
        await _copy_link(job, path, target_path)
        return
    with source:
        status = job.system.fstat(source.fd)
        if stat.S_ISDIR(status.st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), os.fsdecode(path))
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "not a regular file", os.fsdecode(path))
        # Cut later: until then it might be the source by another name.
        with await open_descriptor(target_path, os.O_CREAT | os.O_WRONLY, 0o600) as target:
            there = job.system.fstat(target.fd)
            if (there.st_dev, there.st_ino) == (status.st_dev, status.st_ino):
                raise OSError(errno.EINVAL, "source and target are one file", os.fsdecode(path))
            if there.st_size and stat.S_ISREG(there.st_mode):
                await Op(o.FTRUNCATE, target.fd, off=0)
            file = _Copy(job, path, source, target, status.st_size)
            await file.run(status)
            keep = partial(_keep_metadata, job.system.copy_metadata, status)
            await in_thread(keep, source, target)
            job.finish(file)


def _keep_metadata(
    copy_metadata: Callable[[int, int, os.stat_result], None],
    status: os.stat_result,
    source: int,
    target: int,
) -> None:
    copy_metadata(source, target, status)


async def _copy_link(job: _Job, path: AnyPath, target_path: AnyPath) -> None:
    leads_to = await Offload(partial(job.system.read_link, os.fsencode(path)))
    await symlink_op(leads_to, target_path)


async def copy_tree(
    source: AnyPath,
    target: AnyPath,
    *,
    progress: Callable[[Progress], object] | None = None,
    follow_symlinks: bool = False,
    exist_ok: bool = False,
) -> None:
    """
    Copy a folder and all that is in it, several files at once; each as `copy` does.

    Args:
        progress: As with `copy`; called from several tasks, one at a time.
        follow_symlinks: Copy what links lead to, rather than make the same links.
        exist_ok: Copy into folders that exist, overwriting files that do.

    Raises:
        OSError: As `os` raises them, for the first thing that could not be copied; EINVAL for what
            is neither file, folder nor link, and for a target inside of the source.
        ValueError: A path holds a NUL.

    Cancellation: leaves *target* behind, incomplete.
    """
    job = _Job(progress)
    root, top = os.fsencode(source), os.fsencode(target)
    made: list[tuple[bytes, bytes, os.stat_result]] = []
    files: list[tuple[bytes, bytes]] = []
    pending = [(root, top)]
    target_identity: tuple[int, int] | None = None
    while pending:
        path, target_path = pending.pop()
        status = await stat_op(path)
        if (status.st_dev, status.st_ino) == target_identity:
            raise OSError(errno.EINVAL, "the target is inside of the source", os.fsdecode(path))
        entries = await list_names(path)
        try:
            await mkdir_op(target_path, 0o700)
        except FileExistsError:
            if not exist_ok:
                raise
        if target_identity is None:
            there = await stat_op(target_path)
            target_identity = there.st_dev, there.st_ino
        made.append((path, target_path, status))
        for entry in entries:
            inner = os.path.join(target_path, entry.name)
            if entry.is_dir(follow_symlinks=follow_symlinks):
                pending.append((entry.path, inner))
            else:
                files.append((entry.path, inner))
        if len(files) >= _BATCH_COUNT:
            await _copy_files(job, files, follow_symlinks)
            files.clear()
    await _copy_files(job, files, follow_symlinks)
    # At last, and from the inside out: each copy changed the times of its folder, and a folder that
    # may not be written could not have been filled.
    for path, target_path, status in reversed(made):
        await Offload(partial(job.system.copy_metadata, path, target_path, status))


async def _copy_files(job: _Job, files: list[tuple[bytes, bytes]], follow: bool) -> None:
    failures: list[Exception] = []
    shared = iter(files)

    async def work() -> None:
        try:
            for path, target_path in shared:
                if failures:
                    return
                await _copy_file(job, path, target_path, follow)
        except Exception as error:  # it is the whole copy's
            failures.append(error)

    async with current.scheduler().serving_group() as group:
        for _ in range(min(_FILES_IN_FLIGHT, len(files))):
            group.spawn(work())
    if failures:
        raise failures[0]
