"""
A folder and its copy, both open: what is done in them by name.  It blocks: for worker threads.

Names are looked up beneath open folders, never by their whole path.  So a tree may be deeper than
PATH_MAX, and nobody who renames a folder meanwhile, or puts a link in its place, can lead the copy
elsewhere.

A file that is new gets its final name at once, and loses it again if the copy fails.  One that is
large, or takes the place of another, is made under a name of ours and renamed when it is complete.
"""

import contextlib
import errno
import itertools
import os
import stat
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple, Protocol

from . import copying

__all__ = ["Draft", "FolderPair", "Found", "Ways", "copy_small", "forget_cached", "same_content"]

_FOLDER_FLAGS: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# Which needs no permission to read; elsewhere than on Linux there is none such.
_PATH_FLAGS: Final = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_CLOEXEC
# Of a source that is not regular, opening must not wait for anybody.
_SOURCE_FLAGS: Final = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_NEW_FLAGS: Final = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_READ_BYTES_MAX: Final = 256 * 1024
_RANGE_BYTES: Final = 64 << 20
_SPARSE_BYTES_MIN: Final = 65536
_PREFIX: Final = b".uringio-"
_numbers = itertools.count()


class Ways(Protocol):
    """The ways of copying, as `System` has them."""

    def clone_file(self, source_fd: int, target_fd: int, /) -> int: ...
    def copy_range(self, source_fd: int, target_fd: int, offset: int, len_bytes: int, /) -> int: ...
    def find_data(self, fd: int, size: int, /) -> list[tuple[int, int]]: ...


class _Entries(Protocol):
    """What `os.scandir` returns."""

    def __iter__(self) -> Iterator["os.DirEntry[str]"]: ...
    def close(self) -> None: ...


class Found(NamedTuple):
    """A name in a folder, and what it is: ``S_IFDIR``, ``S_IFREG`` and so on, 0 if unknown."""

    name: bytes
    kind: int


class Draft:
    """
    A file that is being copied: completed by `finish`, or removed by `undo`.

    Attributes:
        source_fd: The source, open.
        target_fd: The copy, open.
        status: Of the source, when it was opened.
        name: The final name.
        made_as: The name that it has until then.
    """

    __slots__ = ("_folder_fd", "made_as", "name", "source_fd", "status", "target_fd")

    def __init__(
        self,
        folder_fd: int,
        source_fd: int,
        target_fd: int,
        status: os.stat_result,
        name: bytes,
        made_as: bytes,
    ) -> None:
        self._folder_fd = folder_fd
        self.source_fd = source_fd
        self.target_fd = target_fd
        self.status = status
        self.name = name
        self.made_as = made_as

    def finish(self, *, ownership: bool) -> OSError | None:
        """
        Keep metadata, and give the final name.

        Returns:
            What was refused of the metadata; the copy is complete but for that.

        Raises:
            OSError: The copy is incomplete; `undo` it.
        """
        refusal: OSError | None = None
        try:
            copying.copy_metadata(self.source_fd, self.target_fd, self.status, ownership=ownership)
        except OSError as error:
            refusal = error
            refusal.filename2 = self.name
        if self.made_as != self.name:
            # Network filesystems say in close, of any descriptor, that they could not write.
            os.close(os.dup(self.target_fd))
            os.replace(
                self.made_as, self.name, src_dir_fd=self._folder_fd, dst_dir_fd=self._folder_fd
            )
        return refusal

    def undo(self) -> None:
        """Remove what was made; the descriptors stay open."""
        with contextlib.suppress(OSError):
            os.unlink(self.made_as, dir_fd=self._folder_fd)

    def close(self) -> None:
        """
        Close both.

        Raises:
            OSError: What was written is not where it belongs.
        """
        try:
            os.close(self.source_fd)
        finally:
            os.close(self.target_fd)


class FolderPair:
    """
    A folder of the source, and the folder that takes the copies.

    Attributes:
        status: Of the source, when it was opened.
    """

    __slots__ = ("_entries", "source_fd", "status", "target_fd")

    def __init__(self, source_fd: int, target_fd: int) -> None:
        self._entries: _Entries | None = None
        self.source_fd = source_fd
        self.target_fd = target_fd
        self.status = os.fstat(source_fd)

    @classmethod
    def top(cls, source: bytes, target: bytes) -> "FolderPair":
        """Open two folders by path, links followed; raises OSError."""
        flags = _FOLDER_FLAGS & ~os.O_NOFOLLOW
        source_fd = os.open(source, flags)
        try:
            try:
                return cls(source_fd, os.open(target, flags))
            except OSError as error:
                error.filename2 = target
                raise
        except BaseException:
            os.close(source_fd)
            raise

    def descend(
        self, name: bytes, target_name: bytes, *, make: bool, exist_ok: bool, follow: bool
    ) -> "FolderPair":
        """
        Open a folder in the source, and its copy.

        Args:
            make: Make the copy, unless it is there and *exist_ok*.
            follow: *name* may be a link.  The copy's never is.

        Raises:
            OSError: One of them could not be opened; its ``filename2`` is set if it was the copy.
        """
        flags = _FOLDER_FLAGS & ~os.O_NOFOLLOW if follow else _FOLDER_FLAGS
        source_fd = os.open(name, flags, dir_fd=self.source_fd)
        try:
            try:
                if make:
                    try:
                        os.mkdir(target_name, 0o700, dir_fd=self.target_fd)
                    except FileExistsError:
                        if not exist_ok:
                            raise
                target_fd = os.open(target_name, _FOLDER_FLAGS, dir_fd=self.target_fd)
            except OSError as error:
                error.filename2 = target_name
                raise
            return FolderPair(source_fd, target_fd)
        except BaseException:
            os.close(source_fd)
            raise

    def target_identity(self) -> tuple[int, int]:
        """Return device and inode of the copy."""
        status = os.fstat(self.target_fd)
        return status.st_dev, status.st_ino

    def names(self, count_max: int) -> list[Found]:
        """
        Return more of what the source holds, nothing once that was all; raises OSError.

        A few at a time: a folder may hold millions.
        """
        if self._entries is None:
            self._entries = os.scandir(self.source_fd)
        found: list[Found] = []
        for entry in itertools.islice(self._entries, count_max):
            if entry.is_dir(follow_symlinks=False):
                kind = stat.S_IFDIR
            elif entry.is_file(follow_symlinks=False):
                kind = stat.S_IFREG
            elif entry.is_symlink():
                kind = stat.S_IFLNK
            else:
                kind = 0
            found.append(Found(os.fsencode(entry.name), kind))
        return found

    def require_apart(self, status: os.stat_result, target_name: bytes) -> None:
        """Raise OSError if the name in the copy is, or is beneath, the folder of *status*."""
        source = status.st_dev, status.st_ino
        with contextlib.suppress(FileNotFoundError):
            there = self.look_at_copy(target_name)
            if (there.st_dev, there.st_ino) == source:
                raise _overlap("source and target are one folder", target_name)
        fd, identity = os.dup(self.target_fd), self.target_identity()
        try:
            while identity != source:
                above = os.open(b"..", _PATH_FLAGS, dir_fd=fd)
                os.close(fd)
                fd, here = above, os.fstat(above)
                if (here.st_dev, here.st_ino) == identity:
                    return  # the root
                identity = here.st_dev, here.st_ino
        except PermissionError:
            return  # nor could the source be found on this way; its folders are looked at as well
        finally:
            os.close(fd)
        raise _overlap("the target is inside of the source", target_name)

    def look(self, name: bytes, *, follow: bool) -> os.stat_result:
        """Look at a name in the source; raises OSError."""
        return os.stat(name, dir_fd=self.source_fd, follow_symlinks=follow)

    def look_at_copy(self, name: bytes) -> os.stat_result:
        """Look at a name in the copy, itself; raises OSError."""
        return os.stat(name, dir_fd=self.target_fd, follow_symlinks=False)

    def target_status(self) -> os.stat_result:
        """Look at the copy itself."""
        return os.fstat(self.target_fd)

    def same_links(self, name: bytes, target_name: bytes) -> bool:
        """Whether two links lead to the same path; raises OSError."""
        ours = os.readlink(name, dir_fd=self.source_fd)
        return ours == os.readlink(target_name, dir_fd=self.target_fd)

    # --- files -----------------------------------------------------------------------------------

    def open_source(self, name: bytes, *, follow: bool) -> tuple[int, os.stat_result]:
        """
        Open a regular file of the source.

        Raises:
            OSError: EINVAL if it is something else, or as the kernel says.
        """
        flags = _SOURCE_FLAGS if follow else _SOURCE_FLAGS | os.O_NOFOLLOW
        fd = os.open(name, flags, dir_fd=self.source_fd)
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            os.close(fd)
            raise OSError(errno.EINVAL, "not a regular file", name)
        return fd, status

    def open_copy(self, name: bytes) -> tuple[int, os.stat_result]:
        """Open a regular file of the copy, for comparing; raises OSError."""
        fd = os.open(name, _SOURCE_FLAGS | os.O_NOFOLLOW, dir_fd=self.target_fd)
        return fd, os.fstat(fd)

    def draft(
        self, source_fd: int, status: os.stat_result, name: bytes, *, exist_ok: bool, aside: bool
    ) -> Draft:
        """
        Make the file that becomes the copy.

        Args:
            source_fd: Stays the caller's if this raises.
            exist_ok: Take the place of a file or link that has the name.
            aside: Make it under another name in any case.

        Raises:
            OSError: With ``filename2`` set.  EINVAL if the name is the source's own.
        """
        made_as = name
        target_fd = -1
        try:
            if not aside:
                try:
                    target_fd = os.open(name, _NEW_FLAGS, 0o600, dir_fd=self.target_fd)
                except FileExistsError:
                    aside = True
            if aside:
                self._require_room(name, status, exist_ok)
            while target_fd < 0:
                made_as = b"%s%d-%d" % (_PREFIX, os.getpid(), next(_numbers))
                with contextlib.suppress(FileExistsError):
                    target_fd = os.open(made_as, _NEW_FLAGS, 0o600, dir_fd=self.target_fd)
        except OSError as error:
            error.filename2 = name
            raise
        return Draft(self.target_fd, source_fd, target_fd, status, name, made_as)

    def _require_room(self, name: bytes, source: os.stat_result, exist_ok: bool) -> None:
        """Raise OSError unless *name* is free, or has what may be replaced."""
        try:
            there = self.look_at_copy(name)
        except FileNotFoundError:
            return
        if (there.st_dev, there.st_ino) == (source.st_dev, source.st_ino):
            raise OSError(errno.EINVAL, "source and target are one file", name)
        if stat.S_ISDIR(there.st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), name)
        if not exist_ok:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), name)
        # A device or FIFO gives its name to its like only: whoever copies a file to it by mistake
        # would lose it.
        kind = stat.S_IFMT(there.st_mode)
        if kind not in {stat.S_IFREG, stat.S_IFLNK, stat.S_IFMT(source.st_mode)}:
            raise OSError(errno.EEXIST, "the target is neither file, folder nor link", name)

    def make_link(
        self, name: bytes, target_name: bytes, *, exist_ok: bool, ownership: bool
    ) -> None:
        """Make the link that the source has there; raises OSError."""
        status = self.look(name, follow=False)
        leads_to = os.readlink(name, dir_fd=self.source_fd)

        def make(made_as: bytes) -> None:
            os.symlink(leads_to, made_as, dir_fd=self.target_fd)

        self._make(make, status, target_name, exist_ok, ownership)

    def make_special(
        self, name: bytes, target_name: bytes, *, exist_ok: bool, ownership: bool
    ) -> None:
        """Make the FIFO, socket or device that the source has there; raises OSError."""
        status = self.look(name, follow=False)

        def make(made_as: bytes) -> None:
            mode = stat.S_IFMT(status.st_mode) | 0o600
            os.mknod(made_as, mode, status.st_rdev, dir_fd=self.target_fd)

        self._make(make, status, target_name, exist_ok, ownership)

    def make_twin(
        self, first: bytes, status: os.stat_result, name: bytes, *, exist_ok: bool
    ) -> None:
        """Make *name* another name of what was copied to the path *first*; raises OSError."""

        def make(made_as: bytes) -> None:
            os.link(first, made_as, dst_dir_fd=self.target_fd, follow_symlinks=False)

        self._make(make, status, name, exist_ok, None)

    def _make(
        self,
        make: Callable[[bytes], None],
        status: os.stat_result,
        name: bytes,
        exist_ok: bool,
        ownership: bool | None,
    ) -> None:
        made_as = name
        try:
            try:
                make(name)
            except FileExistsError:
                self._require_room(name, status, exist_ok)
                made_as = b"%s%d-%d" % (_PREFIX, os.getpid(), next(_numbers))
                make(made_as)
            try:
                if ownership is not None:  # else it is another name of what has it all
                    copying.copy_status(made_as, self.target_fd, status, ownership=ownership)
                if made_as != name:
                    os.replace(made_as, name, src_dir_fd=self.target_fd, dst_dir_fd=self.target_fd)
                    with contextlib.suppress(OSError):
                        # Of two names of one file, rename removes neither.
                        os.unlink(made_as, dir_fd=self.target_fd)
            except BaseException:
                with contextlib.suppress(OSError):
                    os.unlink(made_as, dir_fd=self.target_fd)
                raise
        except OSError as error:
            error.filename2 = name
            raise

    # --- the end ---------------------------------------------------------------------------------

    def keep_metadata(self, *, ownership: bool) -> None:
        """Give the copy the source's metadata; raises OSError."""
        copying.copy_metadata(self.source_fd, self.target_fd, self.status, ownership=ownership)

    def close(self) -> None:
        """Close both; safe to call twice."""
        if self._entries is not None:
            self._entries.close()
        source_fd, target_fd = self.source_fd, self.target_fd
        self.source_fd = self.target_fd = -1
        for fd in (source_fd, target_fd):
            if fd >= 0:
                os.close(fd)


def _overlap(what: str, target_name: bytes) -> OSError:
    error = OSError(errno.EINVAL, what)
    error.filename2 = target_name
    return error


def copy_small(draft: Draft, ways: Ways, refused: set[int]) -> int:
    """
    Copy the content of *draft*, and return how much.

    Args:
        refused: Devices whose filesystem does not share blocks; found out here.

    Raises:
        OSError: The copy is incomplete.
    """
    source, target, size = draft.source_fd, draft.target_fd, draft.status.st_size
    device = draft.status.st_dev
    if size and device not in refused:
        res = ways.clone_file(source, target)
        if res == 0:
            return size
        copying.judge(res)
        refused.add(device)
    if size >= _SPARSE_BYTES_MIN and draft.status.st_blocks * 512 < size:
        for start, stop in ways.find_data(source, size):
            _copy_span(source, target, start, stop, ways)
        os.ftruncate(target, size)
        return size
    if size:
        return _copy_span(source, target, 0, size, ways)
    done = 0  # it is empty, or does not say how large it is, as files in /proc
    while count := _copy_piece(source, target, done, 65536):
        done += count
    return done


def same_content(one_fd: int, other_fd: int) -> bool:
    """Whether two files hold the same bytes; raises OSError."""
    at = 0
    while True:
        data = os.pread(one_fd, _READ_BYTES_MAX, at)
        there = os.pread(other_fd, len(data) or 1, at)
        if data != there:
            # A short read may end anywhere, but neither file may end before the other.
            if not data or not there or not data.startswith(there):
                return False
        elif not data:
            return True
        at += len(there)


def forget_cached(fd: int) -> None:
    """Have what was written be read from the device again, as far as it is there already."""
    if hasattr(os, "posix_fadvise"):
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)


def _copy_span(source: int, target: int, start: int, stop: int, ways: Ways) -> int:
    """Copy what lies there, or less where the file has become shorter meanwhile."""
    at = start
    while stop - at > _READ_BYTES_MAX:  # below, two calls that copy are quicker than one
        res = ways.copy_range(source, target, at, min(stop - at, _RANGE_BYTES))
        if res <= 0:
            copying.judge(res)
            break
        at += res
    while at < stop and (count := _copy_piece(source, target, at, min(stop - at, _READ_BYTES_MAX))):
        at += count
    return at - start


def _copy_piece(source: int, target: int, offset: int, size: int) -> int:
    data = os.pread(source, size, offset)
    done = os.pwrite(target, data, offset) if data else 0
    while done < len(data):
        count = os.pwrite(target, data[done:], offset + done)
        if not count:  # a device that takes nothing: asking for ever would not help
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        done += count
    return done
