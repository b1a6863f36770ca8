"""
A simulated `os`, for those modules of `uringio._sys` that call it.

They are loaded once more for each simulated kernel, with this in the place of the real one, so that
what copies trees in a real run is what copies them here.
"""

import errno
import importlib.util
import os
import stat
from collections.abc import Iterator
from types import ModuleType
from typing import TYPE_CHECKING, Final, NoReturn

from uringio._sys import constants as k
from uringio._sys import copying, listing, pairs

from . import _name_requests as names
from ._disk import Found, OpenFile, OpenFolder
from ._inodes import Inode
from ._transfers import read_file, write_file
from .errors import NotSimulatedError

if TYPE_CHECKING:
    from ._kernel import SimKernel

__all__ = ["Ways"]

_PID: Final = 2
_AT_SYMLINK_FOLLOW: Final = 0x400
# What has the same value everywhere, or asks nothing of the kernel.
_SAME: Final = frozenset({"DirEntry", "fsencode", "stat_result", "strerror"})

# What may stand for a file.
Path = int | str | bytes


class Ways:
    """
    The library's own modules on a simulated `os`.

    Attributes:
        os: That.
        copying, listing, pairs: The modules.
    """

    def __init__(self, kernel: "SimKernel") -> None:
        self.os = SimOs(kernel)
        self.copying = self._load(copying)
        self.listing = self._load(listing)
        self.pairs = self._load(pairs)
        self.pairs.__dict__["copying"] = self.copying

    def _load(self, original: ModuleType) -> ModuleType:
        spec = original.__spec__
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        module.__dict__["os"] = self.os
        return module


class SimOs:
    """As much of `os` as those modules call."""

    def __init__(self, kernel: "SimKernel") -> None:
        self.kernel = kernel

    def __getattr__(self, name: str) -> object:
        if name in _SAME or name.startswith(("O_", "SEEK_", "POSIX_")):
            return getattr(os, name)
        raise NotSimulatedError(f"os.{name} is not simulated")

    # --- descriptors -----------------------------------------------------------------------------

    def getpid(self) -> int:
        """See `os`."""
        return _PID

    def open(self, path: Path, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        """See `os`."""
        kernel = self.kernel
        raw = self._raw(path)
        file = kernel.open(_folder(dir_fd), raw, flags, mode & ~0o022, 0)
        return _checked(kernel.install_or_drop(file), raw)

    def close(self, fd: int) -> None:
        """See `os`."""
        _checked(self.kernel.close_fd(fd))

    def dup(self, fd: int) -> int:
        """See `os`."""
        file = self.kernel.file_of(fd)
        return _checked(-errno.EBADF if file is None else self.kernel.install(file))

    def pread(self, fd: int, count: int, offset: int) -> bytes:
        """See `os`."""
        data = read_file(self._open_file(fd), offset, count)
        if not isinstance(data, bytes):
            _refuse(errno.EAGAIN if data is None else -data)
        return data

    def pwrite(self, fd: int, data: bytes, offset: int) -> int:
        """See `os`."""
        count = write_file(self._open_file(fd), offset, bytes(data))
        return _checked(-errno.EAGAIN if count is None else count)

    def copy_file_range(self, source: int, target: int, count: int, at: int, target_at: int) -> int:
        """See `os`; half of what was asked, now and then."""
        faults = self.kernel.faults
        if count > 1 and faults.strikes("short", "copy_file_range"):
            count = 1 + faults.below("short", count - 1)
        return self.pwrite(target, self.pread(source, count, at), target_at)

    def ftruncate(self, fd: int, size: int) -> None:
        """See `os`."""
        _checked(self._open_file(fd).truncate(size))

    def lseek(self, fd: int, offset: int, whence: int) -> int:
        """See `os`."""
        return self.kernel.system.lseek(fd, offset, whence)

    def posix_fadvise(self, fd: int, _offset: int, _count: int, _advice: int) -> None:
        """See `os`."""
        self._open_file(fd)

    def _open_file(self, fd: int) -> OpenFile:
        file = self.kernel.file_of(fd)
        if not isinstance(file, OpenFile):
            _refuse(errno.EBADF if file is None else errno.EINVAL)
        return file

    # --- looking ---------------------------------------------------------------------------------

    def fstat(self, fd: int) -> os.stat_result:
        """See `os`."""
        return self.kernel.system.fstat(fd)

    def stat(
        self, path: Path, *, dir_fd: int | None = None, follow_symlinks: bool = True
    ) -> os.stat_result:
        """See `os`."""
        return self._inode(path, dir_fd, follow_symlinks).stat()

    def lstat(self, path: Path) -> os.stat_result:
        """See `os`."""
        return self.stat(path, follow_symlinks=False)

    def readlink(self, path: Path, *, dir_fd: int | None = None) -> bytes:
        """See `os`."""
        inode = self._inode(path, dir_fd, False)
        if not inode.is_link:
            _refuse(errno.EINVAL, self._raw(path))
        return bytes(inode.content)

    def scandir(self, path: Path) -> "_Scan":
        """See `os`."""
        if isinstance(path, int):
            file = self.kernel.file_of(path)
            if not isinstance(file, OpenFolder):
                _refuse(errno.EBADF if file is None else errno.ENOTDIR)
            inode = file.inode
        else:
            inode = self._inode(path, None, True)
            if not inode.is_folder:
                _refuse(errno.ENOTDIR, self._raw(path))
        return _Scan(self, inode, path)

    def find(self, path: bytes, dir_fd: int | None, follow: bool) -> Found:
        """Follow a path; raises OSError."""
        base = names.folder_at(self.kernel, _folder(dir_fd), path)
        if isinstance(base, int):
            _refuse(-base, path)
        found = self.kernel.disk.find(base, path, follow=follow)
        if isinstance(found, int):
            _refuse(-found, path)
        return found

    def _inode(self, path: Path, dir_fd: int | None, follow: bool) -> Inode:
        if isinstance(path, int):
            file = self.kernel.file_of(path)
            if not isinstance(file, OpenFile | OpenFolder):
                _refuse(errno.EBADF)
            return file.inode
        raw = self._raw(path)
        inode = self.find(raw, dir_fd, follow).inode
        if inode is None:
            _refuse(errno.ENOENT, raw)
        return inode

    @staticmethod
    def _raw(path: Path) -> bytes:
        assert not isinstance(path, int)
        return os.fsencode(path)

    # --- changing --------------------------------------------------------------------------------

    def mkdir(self, path: Path, mode: int = 0o777, *, dir_fd: int | None = None) -> None:
        """See `os`."""
        raw = self._raw(path)
        _checked(names.make_folder(self.kernel, _folder(dir_fd), raw, mode), raw)

    def mknod(self, path: Path, mode: int, device: int = 0, *, dir_fd: int | None = None) -> None:
        """See `os`."""
        raw = self._raw(path)
        base = names.folder_at(self.kernel, _folder(dir_fd), raw)
        if isinstance(base, int):
            _refuse(-base, raw)
        inode = self.kernel.disk.make_inode(mode)
        inode.rdev = device
        _checked(self.kernel.disk.make(base, raw, inode), raw)

    def symlink(self, leads_to: Path, path: Path, *, dir_fd: int | None = None) -> None:
        """See `os`."""
        raw = self._raw(path)
        _checked(names.make_link(self.kernel, self._raw(leads_to), _folder(dir_fd), raw), raw)

    def link(
        self,
        source: Path,
        path: Path,
        *,
        dst_dir_fd: int | None = None,
        follow_symlinks: bool = True,
    ) -> None:
        """See `os`."""
        raw = self._raw(path)
        flags = _AT_SYMLINK_FOLLOW if follow_symlinks else 0
        folder = _folder(dst_dir_fd)
        _checked(
            names.link(self.kernel, k.AT_FDCWD, self._raw(source), folder, raw, flags), raw
        )  # fmt: skip

    def unlink(self, path: Path, *, dir_fd: int | None = None) -> None:
        """See `os`."""
        raw = self._raw(path)
        _checked(names.remove(self.kernel, _folder(dir_fd), raw, 0), raw)

    def replace(
        self,
        path: Path,
        new: Path,
        *,
        src_dir_fd: int | None = None,
        dst_dir_fd: int | None = None,
    ) -> None:
        """See `os`."""
        one, other = self._raw(path), self._raw(new)
        folder, there = _folder(src_dir_fd), _folder(dst_dir_fd)
        _checked(names.rename(self.kernel, folder, one, there, other, 0), one)

    def chmod(self, path: Path, mode: int, *, dir_fd: int | None = None) -> None:
        """See `os`."""
        inode = self._inode(path, dir_fd, True)
        inode.mode = stat.S_IFMT(inode.mode) | mode & 0o7777
        inode.changed()

    def chown(
        self,
        path: Path,
        uid: int,
        gid: int,
        *,
        dir_fd: int | None = None,
        follow_symlinks: bool = True,
    ) -> None:
        """See `os`."""
        inode = self._inode(path, dir_fd, follow_symlinks)
        inode.uid = uid if uid != -1 else inode.uid
        inode.gid = gid if gid != -1 else inode.gid
        if not inode.is_folder:
            inode.mode &= ~(stat.S_ISUID | stat.S_ISGID)
        inode.changed()

    def utime(
        self,
        path: Path,
        *,
        ns: tuple[int, int],
        dir_fd: int | None = None,
        follow_symlinks: bool = True,
    ) -> None:
        """See `os`."""
        inode = self._inode(path, dir_fd, follow_symlinks)
        inode.accessed_ns, inode.modified_ns = ns
        inode.changed()

    def listxattr(self, path: Path) -> list[str]:
        """See `os`."""
        return [os.fsdecode(name) for name in self._inode(path, None, True).attributes]

    def getxattr(self, path: Path, name: str) -> bytes:
        """See `os`."""
        found = self._inode(path, None, True).attributes.get(os.fsencode(name))
        if found is None:
            _refuse(errno.ENODATA)
        return found

    def setxattr(self, path: Path, name: str, value: bytes) -> None:
        """See `os`."""
        self._inode(path, None, True).attributes[os.fsencode(name)] = value


class _Scan:
    """What `os.scandir` returns; names come in the order in which they were made."""

    def __init__(self, sim: SimOs, folder: Inode, path: Path) -> None:
        self._sim = sim
        self._folder = folder
        self._path = path
        self._names = iter(list(folder.entries))

    def __iter__(self) -> Iterator["_Entry"]:
        for name in self._names:
            inode = self._folder.entries.get(name)
            if inode is not None:
                yield _Entry(self._sim, self._folder, self._path, name, inode)

    def close(self) -> None:
        """See `os.scandir`."""
        self._names = iter(())


class _Entry:
    """As `os.DirEntry`."""

    def __init__(self, sim: SimOs, folder: Inode, path: Path, name: bytes, inode: Inode) -> None:
        is_bytes = isinstance(path, bytes)
        self.name: str | bytes = name if is_bytes else os.fsdecode(name)
        self.path: str | bytes = self.name
        if isinstance(path, bytes):
            self.path = os.path.join(path, name)
        elif isinstance(path, str):
            self.path = os.path.join(path, os.fsdecode(name))
        self._sim = sim
        self._inode = inode
        self._folder = folder

    def inode(self) -> int:
        """See `os.DirEntry`."""
        return self._inode.number

    def is_symlink(self) -> bool:
        """See `os.DirEntry`."""
        return self._inode.is_link

    def is_dir(self, *, follow_symlinks: bool = True) -> bool:
        """See `os.DirEntry`."""
        inode = self._followed() if follow_symlinks else self._inode
        return inode is not None and inode.is_folder

    def is_file(self, *, follow_symlinks: bool = True) -> bool:
        """See `os.DirEntry`."""
        inode = self._followed() if follow_symlinks else self._inode
        return inode is not None and inode.is_file

    def _followed(self) -> Inode | None:
        if not self._inode.is_link:
            return self._inode
        found = self._sim.kernel.disk.find(self._folder, os.fsencode(self.name))
        if isinstance(found, int):
            if found == -errno.ENOENT:
                return None
            _refuse(-found)
        return found.inode


def _folder(dir_fd: int | None) -> int:
    return k.AT_FDCWD if dir_fd is None else dir_fd


def _checked(result: int, path: bytes | None = None) -> int:
    if result < 0:
        _refuse(-result, path)
    return result


def _refuse(number: int, path: bytes | None = None) -> NoReturn:
    if path is None:
        raise OSError(number, os.strerror(number))
    raise OSError(number, os.strerror(number), path)
