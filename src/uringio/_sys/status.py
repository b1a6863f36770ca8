"""
What statx(2) tells, by the calls that every system has.

A function of `System` off Linux, apart from it because it is one idea of its own.
"""

import os
from ctypes import string_at

from .constants import STATX_BASIC_STATS
from .layouts import STATX
from .memory import memory_at
from .numbers import AT_FDCWD, AT_SYMLINK_NOFOLLOW

__all__ = ["statx"]

_U32_MASK = 0xFFFFFFFF
_NS_PER_S = 1_000_000_000


def statx(dir_fd: int, path_addr: int, flags: int, _mask: int, addr: int) -> int:
    """
    Attempt fstatat(2), and write the answer as a ``struct statx`` at *addr*; blocks.

    Args:
        dir_fd: Where a relative path begins, or AT_FDCWD.
        flags: AT_SYMLINK_NOFOLLOW or none.
    """
    try:
        found = os.stat(
            string_at(path_addr),
            dir_fd=None if dir_fd == AT_FDCWD else dir_fd,
            follow_symlinks=not flags & AT_SYMLINK_NOFOLLOW,
        )
    except OSError as error:
        return -(error.errno or 0)
    times = [
        part
        for time_ns in (found.st_atime_ns, 0, found.st_ctime_ns, found.st_mtime_ns)
        for part in divmod(time_ns, _NS_PER_S)
    ]
    devices = [
        part & _U32_MASK
        for device in (found.st_rdev, found.st_dev)
        for part in (os.major(device), os.minor(device))
    ]
    STATX.pack_into(
        memory_at(addr, STATX.size), 0,
        STATX_BASIC_STATS, found.st_blksize, 0, found.st_nlink, found.st_uid, found.st_gid,
        found.st_mode, found.st_ino, found.st_size, found.st_blocks, 0, *times, *devices, 0, 0,
    )  # fmt: skip
    return 0
