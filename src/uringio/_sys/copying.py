"""
What copying asks of the kernel beside reads and writes; it blocks, so it is for worker threads.

Functions of `System`, which binds them; apart from it because they are one idea of their own.
"""

import errno
import os
from typing import Final

__all__ = ["clone_file", "copy_metadata", "copy_range", "find_data"]

_FICLONE: Final = 0x40049409  # _IOW(0x94, 9, int)
# What says "not here" of extended attributes, rather than "this went wrong".
_NO_XATTR: Final = frozenset({
    errno.ENOTSUP, errno.EPERM, errno.EACCES, errno.EINVAL, errno.ENODATA, errno.ENOSYS,
})  # fmt: skip


def clone_file(source_fd: int, target_fd: int) -> int:
    """Attempt FICLONE: have the target share the source's blocks; 0 or ``-errno``."""
    import fcntl

    try:
        fcntl.ioctl(target_fd, _FICLONE, source_fd)
    except OSError as error:
        return -(error.errno or errno.EIO)
    return 0


def copy_range(source_fd: int, target_fd: int, offset: int, len_bytes: int) -> int:
    """Attempt copy_file_range(2) at the same *offset* in both: bytes copied, or ``-errno``."""
    try:
        return os.copy_file_range(source_fd, target_fd, len_bytes, offset, offset)
    except OSError as error:
        return -(error.errno or errno.EIO)


def find_data(fd: int, size: int) -> list[tuple[int, int]]:
    """Return where the file's data begins and ends, in order; what lies between is holes."""
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


def copy_metadata(source: int | bytes, target: int | bytes, status: os.stat_result) -> None:
    """
    Give *target* the mode, times and, where permitted, extended attributes of *source*.

    Raises:
        OSError: Mode or times were refused.
    """
    try:
        names = os.listxattr(source)
    except OSError as error:
        if error.errno not in _NO_XATTR:
            raise
        names = []
    for name in names:
        try:
            os.setxattr(target, name, os.getxattr(source, name))
        except OSError as error:
            if error.errno not in _NO_XATTR:
                raise
    os.chmod(target, status.st_mode & 0o7777)
    os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))
