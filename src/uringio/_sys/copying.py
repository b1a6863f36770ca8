"""
What copying asks of the kernel beside reads and writes; it blocks, so it is for worker threads.

Functions of `System`, which binds them; apart from it because they are one idea of their own.
"""

import errno
import os
import stat
from typing import Final

from .errnos import ENODATA
from .numbers import IS_LINUX

__all__ = [
    "clone_file",
    "copy_metadata",
    "copy_range",
    "copy_status",
    "find_data",
    "judge",
    "remove_file",
]

_PRIVILEGED: Final = stat.S_ISUID | stat.S_ISGID
_FICLONE: Final = 0x40049409  # _IOW(0x94, 9, int)
# What says "not here" of extended attributes, rather than "this went wrong".
_NO_XATTR: Final = frozenset({
    errno.ENOTSUP, errno.EPERM, errno.EACCES, errno.EINVAL, ENODATA, errno.ENOSYS,
})  # fmt: skip

# What says that the kernel, or these filesystems, have no such way of copying.
_NO_WAY: Final = frozenset({
    errno.EOPNOTSUPP, errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.ENOTTY, errno.EPERM,
    errno.EBADF, errno.EIO, errno.ETXTBSY,
})  # fmt: skip


def clone_file(source_fd: int, target_fd: int) -> int:
    """Attempt FICLONE: have the target share the source's blocks; 0 or ``-errno``."""
    if not IS_LINUX:
        return -errno.ENOTTY
    import fcntl

    try:
        fcntl.ioctl(target_fd, _FICLONE, source_fd)
    except OSError as error:
        return -(error.errno or errno.EIO)
    return 0


def copy_range(source_fd: int, target_fd: int, offset: int, len_bytes: int) -> int:
    """Attempt copy_file_range(2) at the same *offset* in both: bytes copied, or ``-errno``."""
    if not hasattr(os, "copy_file_range"):
        return -errno.ENOSYS
    try:
        return os.copy_file_range(source_fd, target_fd, len_bytes, offset, offset)
    except OSError as error:
        return -(error.errno or errno.EIO)


def find_data(fd: int, size: int) -> list[tuple[int, int]]:
    """Return where the file's data begins and ends, in order; what lies between is holes."""
    if not hasattr(os, "SEEK_DATA"):
        return [(0, size)]
    found: list[tuple[int, int]] = []
    stop = 0
    try:
        while stop < size:
            start = os.lseek(fd, stop, os.SEEK_DATA)
            stop = min(os.lseek(fd, start, os.SEEK_HOLE), size)
            if start >= size:
                break
            found.append((start, stop))
    except OSError as error:
        if error.errno != errno.ENXIO:  # ENXIO: no data behind here
            return [(0, size)]
    return found


def copy_metadata(
    source: int | bytes,
    target: int | bytes,
    status: os.stat_result,
    *,
    ownership: bool = False,
) -> None:
    """
    Give *target* the mode, times and, where permitted, extended attributes of *source*.

    Args:
        status: Of the source, from before it was read.
        ownership: Owner and group too.

    Raises:
        OSError: Something of it was refused; the rest was done.
    """
    failure: OSError | None = None
    mode = status.st_mode & 0o7777
    if ownership:
        try:
            os.chown(target, status.st_uid, status.st_gid)  # first: it clears what chmod sets
        except OSError as error:
            failure = error
    if mode & _PRIVILEGED:
        mode &= ~_lost_privileges(target, status)
    try:
        _copy_attributes(source, target)
    except OSError as error:
        failure = failure or error
    try:
        os.chmod(target, mode)
    except OSError as error:
        failure = failure or error
    try:
        os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))
    except OSError as error:
        failure = failure or error
    if failure is not None:
        raise failure


def _lost_privileges(target: int | bytes, status: os.stat_result) -> int:
    """Return which of set-user-ID and set-group-ID would be of somebody else than they were."""
    there = os.stat(target)
    lost = stat.S_ISUID if there.st_uid != status.st_uid else 0
    # Of a folder, set-group-ID is no privilege.
    if there.st_gid != status.st_gid and not stat.S_ISDIR(there.st_mode):
        lost |= stat.S_ISGID
    return lost


def _copy_attributes(source: int | bytes, target: int | bytes) -> None:
    if not hasattr(os, "listxattr"):  # the standard library has them on Linux alone
        return
    try:
        names = os.listxattr(source)
    except OSError as error:
        if error.errno not in _NO_XATTR:
            raise
        return
    for name in names:
        try:
            os.setxattr(target, name, os.getxattr(source, name))
        except OSError as error:
            if error.errno not in _NO_XATTR:
                raise


def copy_status(name: bytes, folder_fd: int, status: os.stat_result, *, ownership: bool) -> None:
    """Give what *name* in a folder is itself, link or not, mode, times and ownership."""
    if ownership:
        os.chown(name, status.st_uid, status.st_gid, dir_fd=folder_fd, follow_symlinks=False)
    if not stat.S_ISLNK(status.st_mode):  # links have none
        os.chmod(name, status.st_mode & 0o7777, dir_fd=folder_fd)
    times = status.st_atime_ns, status.st_mtime_ns
    os.utime(name, ns=times, dir_fd=folder_fd, follow_symlinks=False)


def remove_file(path: bytes, status: os.stat_result) -> None:
    """Remove the file of *status* by the name *path*, if it has that name still."""
    try:
        there = os.lstat(path)
        if (there.st_dev, there.st_ino) == (status.st_dev, status.st_ino):
            os.unlink(path)
    except OSError:
        pass


def judge(res: int) -> None:
    """Raise what a way of copying answered, unless it means that there is no such way here."""
    if res < 0 and -res not in _NO_WAY:
        raise OSError(-res, os.strerror(-res))
