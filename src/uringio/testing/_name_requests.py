"""What requests on files and names do: opening, looking, moving, removing, syncing."""

import errno
import os
import stat
from ctypes import memmove, string_at
from typing import TYPE_CHECKING, Final

from uringio._sys import constants as k
from uringio._sys.layouts import OPEN_HOW, STATX

from ._disk import OpenFile, OpenFolder
from ._inodes import DEVICE, Inode
from ._objects import SimFile
from ._requests import Request, handles

if TYPE_CHECKING:
    from ._kernel import SimKernel

__all__ = ["folder_at", "link", "make_folder", "make_link", "path_at", "remove", "rename", "statx"]

_PATH_BYTES_MAX: Final = 4096
_AT_SYMLINK_NOFOLLOW: Final = 0x100
_AT_REMOVEDIR: Final = 0x200
_AT_SYMLINK_FOLLOW: Final = 0x400
_WHOLE: Final = 1_000_000_000
_BTIME: Final = 0x800
_RESOLVE_KNOWN: Final = 0x3F


def path_at(addr: int) -> bytes:
    """Return the path at an address, without its NUL."""
    return string_at(addr)


def folder_at(kernel: "SimKernel", dir_fd: int, path: bytes) -> Inode | int:
    """Return from where a path begins, or ``-errno``."""
    if dir_fd == k.AT_FDCWD or path[:1] == b"/":
        return kernel.disk.root
    file = kernel.file_of(dir_fd)
    if file is None:
        return -errno.EBADF
    return file.inode if isinstance(file, OpenFolder) else -errno.ENOTDIR


# --- opening -------------------------------------------------------------------------------------


@handles(k.IORING_OP_OPENAT)
def _openat(kernel: "SimKernel", request: Request) -> int | None:
    file = kernel.open(request.fd, path_at(request.addr), request.op_flags, request.len, 0)
    return kernel.install_for(request, file)


@handles(k.IORING_OP_OPENAT2)
def _openat2(kernel: "SimKernel", request: Request) -> int | None:
    flags, mode, resolve = OPEN_HOW.unpack(string_at(request.off, OPEN_HOW.size))
    if resolve & ~_RESOLVE_KNOWN or (mode and not flags & (os.O_CREAT | 0o20000000)):
        return -errno.EINVAL
    file = kernel.open(request.fd, path_at(request.addr), flags, mode, resolve)
    return kernel.install_for(request, file)


# --- looking -------------------------------------------------------------------------------------


@handles(k.IORING_OP_STATX)
def _statx(kernel: "SimKernel", request: Request) -> int | None:
    return statx(kernel, request.fd, request.addr, request.op_flags, request.off)


def statx(kernel: "SimKernel", dir_fd: int, path_addr: int, flags: int, room: int) -> int:
    """See statx(2)."""
    path = path_at(path_addr) if path_addr else b""
    found: Inode | SimFile | None
    if not path:
        if not flags & k.AT_EMPTY_PATH:
            return -errno.ENOENT
        if dir_fd == k.AT_FDCWD:
            found = kernel.disk.root
        else:
            found = kernel.file_of(dir_fd)
            if found is None:
                return -errno.EBADF
    else:
        base = folder_at(kernel, dir_fd, path)
        if isinstance(base, int):
            return base
        where = kernel.disk.find(base, path, follow=not flags & _AT_SYMLINK_NOFOLLOW)
        if isinstance(where, int):
            return where
        if where.inode is None:
            return -errno.ENOENT
        found = where.inode
    raw = _packed(kernel, found)
    memmove(room, raw, len(raw))
    return 0


def _packed(kernel: "SimKernel", found: Inode | SimFile) -> bytes:
    if isinstance(found, OpenFile | OpenFolder):
        found = found.inode
    if not isinstance(found, Inode):
        mode = (stat.S_IFSOCK if found.kind == "socket" else stat.S_IFIFO) | 0o600
        now = kernel.clock.real_ns
        moments = (now // _WHOLE, now % _WHOLE) * 4
        return STATX.pack(
            k.STATX_BASIC_STATS, 4096, 0, 1, 0, 0, mode, 1, 0, 0, 0, *moments, 0, 0, 0, DEVICE, 0, 0
        )
    mask = k.STATX_BASIC_STATS | _BTIME
    if found.is_file:
        mask |= k.STATX_DIOALIGN
    times_ns = (found.accessed_ns, found.born_ns, found.changed_ns, found.modified_ns)
    times = tuple(part for one in times_ns for part in (one // _WHOLE, one % _WHOLE))
    alignment = 512 if found.is_file else 0
    return STATX.pack(
        mask, 4096, 0, found.link_count, found.uid, found.gid, found.mode, found.number,
        found.size, found.block_count, 0, *times, os.major(found.rdev), os.minor(found.rdev),
        os.major(DEVICE), os.minor(DEVICE), alignment, alignment,
    )  # fmt: skip


# --- names ---------------------------------------------------------------------------------------


@handles(k.IORING_OP_UNLINKAT)
def _unlinkat(kernel: "SimKernel", request: Request) -> int | None:
    return remove(kernel, request.fd, path_at(request.addr), request.op_flags)


def remove(kernel: "SimKernel", dir_fd: int, path: bytes, flags: int) -> int:
    """See unlinkat(2)."""
    if flags & ~_AT_REMOVEDIR:
        return -errno.EINVAL
    if not flags and dir_fd == k.AT_FDCWD and path in kernel.net.paths:
        del kernel.net.paths[path]  # a socket's, which are not on the disk
        return 0
    base = folder_at(kernel, dir_fd, path)
    return base if isinstance(base, int) else kernel.disk.remove(base, path, bool(flags))


@handles(k.IORING_OP_RENAMEAT)
def _renameat(kernel: "SimKernel", request: Request) -> int | None:
    # The second folder's descriptor stands in `len`, and may be AT_FDCWD.
    new_fd = request.len if request.len < 1 << 31 else request.len - (1 << 32)
    path, new_path = path_at(request.addr), path_at(request.off)
    return rename(kernel, request.fd, path, new_fd, new_path, request.op_flags)


def rename(
    kernel: "SimKernel", dir_fd: int, path: bytes, new_fd: int, new_path: bytes, flags: int
) -> int:
    """See renameat2(2)."""
    base, new_base = folder_at(kernel, dir_fd, path), folder_at(kernel, new_fd, new_path)
    if isinstance(base, int):
        return base
    if isinstance(new_base, int):
        return new_base
    return kernel.disk.rename(base, path, new_base, new_path, flags)


@handles(k.IORING_OP_MKDIRAT)
def _mkdirat(kernel: "SimKernel", request: Request) -> int | None:
    return make_folder(kernel, request.fd, path_at(request.addr), request.len)


def make_folder(kernel: "SimKernel", dir_fd: int, path: bytes, mode: int) -> int:
    """See mkdirat(2)."""
    base = folder_at(kernel, dir_fd, path)
    if isinstance(base, int):
        return base
    return kernel.disk.make(base, path, kernel.disk.make_inode(stat.S_IFDIR | mode & 0o1777))


@handles(k.IORING_OP_SYMLINKAT)
def _symlinkat(kernel: "SimKernel", request: Request) -> int | None:
    return make_link(kernel, path_at(request.addr), request.fd, path_at(request.off))


def make_link(kernel: "SimKernel", leads_to: bytes, dir_fd: int, path: bytes) -> int:
    """See symlinkat(2)."""
    base = folder_at(kernel, dir_fd, path)
    if isinstance(base, int):
        return base
    if not leads_to:
        return -errno.ENOENT
    if len(leads_to) >= _PATH_BYTES_MAX:
        return -errno.ENAMETOOLONG
    inode = kernel.disk.make_inode(stat.S_IFLNK | 0o777)
    inode.content += leads_to
    return kernel.disk.make(base, path, inode)


@handles(k.IORING_OP_LINKAT)
def _linkat(kernel: "SimKernel", request: Request) -> int | None:
    new_fd = request.len if request.len < 1 << 31 else request.len - (1 << 32)
    path, new_path = path_at(request.addr), path_at(request.off)
    return link(kernel, request.fd, path, new_fd, new_path, request.op_flags)


def link(
    kernel: "SimKernel", dir_fd: int, path: bytes, new_fd: int, new_path: bytes, flags: int
) -> int:
    """See linkat(2)."""
    if flags & ~(_AT_SYMLINK_FOLLOW | k.AT_EMPTY_PATH):
        return -errno.EINVAL
    if not path and flags & k.AT_EMPTY_PATH:
        file = kernel.file_of(dir_fd)
        if not isinstance(file, OpenFile | OpenFolder):
            return -errno.EBADF
        inode: Inode | None = file.inode
    else:
        base = folder_at(kernel, dir_fd, path)
        if isinstance(base, int):
            return base
        found = kernel.disk.find(base, path, follow=bool(flags & _AT_SYMLINK_FOLLOW))
        if isinstance(found, int):
            return found
        inode = found.inode
    if inode is None:
        return -errno.ENOENT
    new_base = folder_at(kernel, new_fd, new_path)
    if isinstance(new_base, int):
        return new_base
    return kernel.disk.make(new_base, new_path, inode)


# --- open files ----------------------------------------------------------------------------------


@handles(k.IORING_OP_FSYNC)
def _fsync(kernel: "SimKernel", request: Request) -> int | None:
    if not isinstance(request.file, OpenFile | OpenFolder):
        return -errno.EINVAL
    if kernel.faults.strikes("disk_error", "fsync"):
        return -errno.EIO
    return request.file.sync()


@handles(k.IORING_OP_FTRUNCATE)
def _ftruncate(_kernel: "SimKernel", request: Request) -> int | None:
    if not isinstance(request.file, OpenFile):
        return -errno.EINVAL
    return request.file.truncate(request.off)


@handles(k.IORING_OP_FALLOCATE)
def _fallocate(_kernel: "SimKernel", request: Request) -> int | None:
    if not isinstance(request.file, OpenFile):
        return (
            -errno.ESPIPE
            if request.file is not None and request.file.kind == "pipe"
            else (-errno.ENODEV)
        )
    return request.file.allocate(request.len, request.off, request.addr)


@handles(k.IORING_OP_FADVISE)
def _fadvise(_kernel: "SimKernel", request: Request) -> int | None:
    if not isinstance(request.file, OpenFile):
        return -errno.ESPIPE
    return 0 if request.op_flags < 6 else -errno.EINVAL


@handles(k.IORING_OP_SYNC_FILE_RANGE)
def _sync_file_range(_kernel: "SimKernel", request: Request) -> int | None:
    # Of no use for durability, as sync_file_range(2) says itself: nothing is synced by it.
    return 0 if isinstance(request.file, OpenFile) else -errno.ESPIPE
