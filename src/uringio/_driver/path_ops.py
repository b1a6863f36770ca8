"""
Ops on names, built from what a user gives: the memory that each needs, laid out.

Paths go to the kernel as bytes; one that holds a NUL would end early there, and so is refused here.
"""

import os
from collections.abc import Callable
from operator import index
from typing import Final, TypeAlias, TypeVar

from uringio._sys.constants import SIZEOF_STATX, STATX_BASIC_STATS
from uringio._sys.layouts import OPEN_HOW, STATX
from uringio._sys.numbers import AT_FDCWD, AT_REMOVEDIR, AT_SYMLINK_FOLLOW, AT_SYMLINK_NOFOLLOW

from . import op as o
from .op import Op

__all__ = [
    "AnyPath",
    "encode_path",
    "link_op",
    "mkdir_op",
    "open_op",
    "rename_op",
    "stat_op",
    "symlink_op",
    "unlink_op",
]

T = TypeVar("T")

AnyPath: TypeAlias = str | bytes | os.PathLike[str] | os.PathLike[bytes]

_PERMISSIONS_MAX: Final = 0o7777
_FLAGS_MAX: Final = (1 << 31) - 1
# What the names in memory cannot settle, and what keeps an open of a FIFO or device from waiting.
_O_CHANGES: Final = os.O_CREAT | os.O_TRUNC | (getattr(os, "O_TMPFILE", 0) & ~os.O_DIRECTORY)
_O_RETURNS: Final = os.O_NONBLOCK | os.O_DIRECTORY | getattr(os, "O_PATH", 0)
_O_CREATES: Final = os.O_CREAT | (getattr(os, "O_TMPFILE", 0) & ~os.O_DIRECTORY)


def encode_path(path: AnyPath) -> bytes:
    """
    Return *path* as the kernel takes it, its NUL included.

    Raises:
        TypeError: It is no path.
        ValueError: It holds a NUL.
    """
    raw = os.fsencode(path)
    if b"\0" in raw:
        raise ValueError("a path holds no NUL")
    return raw + b"\0"


def _check_permissions(permissions: int) -> int:
    permissions = index(permissions)  # what is no whole number is refused here
    if not 0 <= permissions <= _PERMISSIONS_MAX:
        raise ValueError(f"permissions are from 0 to 0o7777, not {permissions:#o}")
    return permissions


def open_op(
    path: AnyPath,
    flags: int,
    permissions: int,
    finish: Callable[[object], T],
    *,
    folder_fd: int = AT_FDCWD,
    resolve: int = 0,
) -> Op[T]:
    """
    Build an OPEN, or with rules of resolution an OPENAT2; closed on exec.

    An OPENAT2 that surely returns (of a folder, or with O_NONBLOCK) may be tried before it is given
    to a thread: see `uringio._driver.op`.
    """
    raw = encode_path(path)
    if not 0 <= flags <= _FLAGS_MAX:
        raise ValueError(f"flags are made of os.O_*, not {flags:#x}")
    permissions = _check_permissions(permissions)
    flags |= os.O_CLOEXEC
    if not resolve:
        return Op(o.OPEN, folder_fd, len_=permissions, flags=flags, memory=raw, finish=finish)
    # openat2 refuses permissions for what it does not create.
    tries = int(not flags & _O_CHANGES and bool(flags & _O_RETURNS))
    how = OPEN_HOW.pack(flags, permissions if flags & _O_CREATES else 0, resolve)
    return Op(o.OPENAT2, folder_fd, len_=tries, memory=how + raw, finish=finish)


def stat_op(path: AnyPath, *, follow: bool = True, folder_fd: int = AT_FDCWD) -> Op[os.stat_result]:
    """Build a STATX that answers like `os.stat`."""
    room = bytearray(SIZEOF_STATX) + encode_path(path)

    def finish(_: object) -> os.stat_result:
        return _status(room)

    flags = 0 if follow else AT_SYMLINK_NOFOLLOW
    return Op(o.STATX, folder_fd, len_=STATX_BASIC_STATS, flags=flags, memory=room, finish=finish)


def rename_op(old: AnyPath, new: AnyPath, flags: int = 0) -> Op[None]:
    """Build a RENAME."""
    first = encode_path(old)
    return Op(
        o.RENAME, AT_FDCWD, len_=AT_FDCWD, off=len(first), flags=flags,
        memory=first + encode_path(new),
    )  # fmt: skip


def link_op(source: AnyPath, path: AnyPath, *, follow: bool) -> Op[None]:
    """Build a LINK."""
    first = encode_path(source)
    return Op(
        o.LINK, AT_FDCWD, len_=AT_FDCWD, off=len(first),
        flags=AT_SYMLINK_FOLLOW if follow else 0, memory=first + encode_path(path),
    )  # fmt: skip


def symlink_op(target: AnyPath, path: AnyPath) -> Op[None]:
    """Build a SYMLINK."""
    first = encode_path(target)
    return Op(o.SYMLINK, AT_FDCWD, off=len(first), memory=first + encode_path(path))


def unlink_op(path: AnyPath, *, folder: bool = False) -> Op[None]:
    """Build an UNLINK of a name, or of an empty folder."""
    return Op(o.UNLINK, AT_FDCWD, flags=AT_REMOVEDIR if folder else 0, memory=encode_path(path))


def mkdir_op(path: AnyPath, permissions: int) -> Op[None]:
    """Build a MKDIR."""
    return Op(o.MKDIR, AT_FDCWD, len_=_check_permissions(permissions), memory=encode_path(path))


def _status(room: bytearray) -> os.stat_result:
    """Turn a ``struct statx`` into what the standard library makes of a ``struct stat``."""
    (
        _mask, block_bytes, _attributes, nlink, uid, gid, mode, ino, size, blocks, _,
        atime, atime_ns, _, _, ctime, ctime_ns, mtime, mtime_ns,
        rdev_major, rdev_minor, dev_major, dev_minor, _, _,
    ) = STATX.unpack_from(room)  # fmt: skip
    dev = os.makedev(dev_major, dev_minor)
    return os.stat_result(
        (mode, ino, dev, nlink, uid, gid, size, atime, mtime, ctime),
        {
            "st_atime": atime + 1e-9 * atime_ns,
            "st_mtime": mtime + 1e-9 * mtime_ns,
            "st_ctime": ctime + 1e-9 * ctime_ns,
            "st_atime_ns": atime * 10**9 + atime_ns,
            "st_mtime_ns": mtime * 10**9 + mtime_ns,
            "st_ctime_ns": ctime * 10**9 + ctime_ns,
            "st_blksize": block_bytes,
            "st_blocks": blocks,
            "st_rdev": os.makedev(rdev_major, rdev_minor),
        },
    )
