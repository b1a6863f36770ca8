"""The half of the seam that is about files and names: see `_system`."""

import errno
import os
import stat
from collections.abc import Callable
from ctypes import memmove, string_at
from typing import TYPE_CHECKING, AnyStr, Final, cast

from uringio._driver.poll_bits import POLLERR, POLLHUP
from uringio._sys.layouts import OPEN_HOW
from uringio._sys.listing import Listing
from uringio._sys.memory import ReadableBuffer
from uringio._sys.system import System
from uringio.errors import op_error

from . import _name_requests as names
from ._disk import OpenFile, OpenFolder
from ._objects import SimFile
from ._os import Ways
from ._sockets import SimSocket
from ._transfers import read_file, write_file

if TYPE_CHECKING:
    from uringio._sys.pairs import Draft, FolderPair

    from ._kernel import SimKernel

__all__ = ["FileSystem"]

_AT_CURRENT_POSITION: Final = (1 << 64) - 1
_ERR_OR_HUP: Final = POLLERR | POLLHUP
# Calls, and the operations of a ring whose faults are theirs too.
_ERRING: Final = {
    "open_at": "openat", "openat2": "openat2", "renameat": "renameat", "unlinkat": "unlinkat",
    "statx": "statx", "mkdirat": "mkdirat", "symlinkat": "symlinkat", "linkat": "linkat",
    "read": "read", "pread": "read", "write": "write", "pwrite": "write", "preadv": "readv",
    "pwritev": "writev", "ftruncate": "ftruncate", "fallocate": "fallocate", "fsync": "fsync",
}  # fmt: skip


class FileSystem(System):
    """What of `System` is about files."""

    _kernel: "SimKernel"

    def _init_files(self) -> None:
        self._ways = Ways(self._kernel)
        for name, function in {
            "read": self._read, "write": self._write, "pread": self._pread,
            "pwrite": self._pwrite, "ftruncate": self._ftruncate, "fallocate": self._fallocate,
            "unlinkat": self._unlinkat, "statx": self._statx, "mkdirat": self._mkdirat,
            "symlinkat": self._symlinkat, "linkat": self._linkat,
            # The library's own code, on a simulated `os`.
            "clone_file": self._clone_file,
            "copy_range": self._ways.copying.copy_range,
            "judge_copying": self._ways.copying.judge,
            "find_data": self._ways.copying.find_data,
            "copy_metadata": self._ways.copying.copy_metadata,
            "remove_file": self._ways.copying.remove_file,
            "folder_pair": self._folder_pair,
            "copy_small": self._copy_small,
            "same_content": self._ways.pairs.same_content,
            "forget_cached": self._ways.pairs.forget_cached,
            "send_cached": self._send_cached,
        }.items():  # fmt: skip
            setattr(self, name, function)
        for name, op in _ERRING.items():
            setattr(self, name, self._erring(op, getattr(self, name)))

    def _erring(self, op: str, call: Callable[..., int]) -> Callable[..., int]:
        """Have a call fail where the plan of faults says so."""

        def attempt(*arguments: object) -> int:
            number = self._kernel.faults.exact(op)
            return -number if number else call(*arguments)

        return attempt

    @staticmethod
    def _clone_file(_source_fd: int, _target_fd: int) -> int:
        return -errno.EOPNOTSUPP  # no blocks are shared here

    def _folder_pair(self, source: bytes, target: bytes) -> "FolderPair":
        found: FolderPair = self._ways.pairs.FolderPair.top(source, target)
        return found

    def _copy_small(self, draft: "Draft", ways: System, refused: set[int]) -> int:
        count: int = self._ways.pairs.copy_small(draft, ways, refused)
        return count

    def list_folder(self, path: AnyStr) -> Listing[AnyStr]:
        """See `System`."""
        return cast("Listing[AnyStr]", self._ways.listing.Listing(path))

    def read_link(self, path: bytes) -> bytes:
        """See `System`."""
        return self._ways.os.readlink(path)

    # --- opening and names -----------------------------------------------------------------------

    def open_at(self, dir_fd: int, path: bytes, flags: int, mode: int) -> int:
        """See `System`."""
        kernel = self._kernel
        return kernel.install_or_drop(kernel.open(dir_fd, path, flags, mode, 0))

    def openat2(self, dir_fd: int, path_addr: int, how_addr: int, how_bytes: int) -> int:
        """See `System`; everything is cached."""
        kernel = self._kernel
        flags, mode, resolve = OPEN_HOW.unpack(string_at(how_addr, OPEN_HOW.size))
        return kernel.install_or_drop(
            kernel.open(dir_fd, string_at(path_addr), flags, mode, resolve)
        )

    def renameat(self, dir_fd: int, addr: int, new_dir_fd: int, new_addr: int, flags: int) -> int:
        """See `System`."""
        old, new = string_at(addr), string_at(new_addr)
        return names.rename(self._kernel, dir_fd, old, new_dir_fd, new, flags)

    def _unlinkat(self, dir_fd: int, path_addr: int, flags: int) -> int:
        return names.remove(self._kernel, dir_fd, string_at(path_addr), flags)

    def _statx(self, dir_fd: int, path_addr: int, flags: int, _mask: int, room: int) -> int:
        return names.statx(self._kernel, dir_fd, path_addr, flags, room)

    def _mkdirat(self, dir_fd: int, path_addr: int, mode: int) -> int:
        return names.make_folder(self._kernel, dir_fd, string_at(path_addr), mode)

    def _symlinkat(self, target_addr: int, dir_fd: int, path_addr: int) -> int:
        leads_to, path = string_at(target_addr), string_at(path_addr)
        return names.make_link(self._kernel, leads_to, dir_fd, path)

    def _linkat(self, dir_fd: int, addr: int, new_fd: int, new_addr: int, flags: int) -> int:
        old, new = string_at(addr), string_at(new_addr)
        return names.link(self._kernel, dir_fd, old, new_fd, new, flags)

    # --- transfers -------------------------------------------------------------------------------

    def _read(self, fd: int, addr: int, len_bytes: int) -> int:
        return self._pread(fd, addr, len_bytes, _AT_CURRENT_POSITION)

    def _named(self, fd: int, call: str) -> SimFile | None:
        """Return what a descriptor names; that it names nothing is worth telling."""
        file = self._kernel.file_of(fd)
        if file is None:
            self._kernel.invariants.used(fd, call)
        return file

    def _pread(self, fd: int, addr: int, len_bytes: int, offset: int) -> int:
        file = self._named(fd, "pread")
        if file is None:
            return -errno.EBADF
        if self._fails("read", file):
            return -errno.EIO
        data = read_file(file, offset, self._shortened("read", len_bytes))
        if data is None or isinstance(data, int):
            return -errno.EAGAIN if data is None else data
        memmove(addr, data, len(data))
        return len(data)

    def _write(self, fd: int, addr: int, len_bytes: int) -> int:
        return self._pwrite(fd, addr, len_bytes, _AT_CURRENT_POSITION)

    def _pwrite(self, fd: int, addr: int, len_bytes: int, offset: int) -> int:
        file = self._named(fd, "pwrite")
        if file is None:
            return -errno.EBADF
        if self._fails("write", file):
            return -errno.EIO
        data = string_at(addr, self._shortened("write", len_bytes))
        count = write_file(file, offset, data)
        return -errno.EAGAIN if count is None else count

    def preadv(self, fd: int, pieces: list[memoryview], offset: int, flags: int) -> int:
        """See `System`; hints in *flags* change nothing."""
        file = self._named(fd, "preadv")
        if file is None:
            return -errno.EBADF
        place = _AT_CURRENT_POSITION if offset < 0 else offset
        data = read_file(file, place, self._shortened("readv", sum(map(len, pieces))))
        if data is None or isinstance(data, int):
            return -errno.EAGAIN if data is None else data
        start = 0
        for piece in pieces:
            part = data[start : start + len(piece)]
            piece[: len(part)] = part
            start += len(part)
        return len(data)

    def pwritev(self, fd: int, pieces: list[memoryview], offset: int, flags: int) -> int:
        """See `System`; hints in *flags* change nothing."""
        file = self._named(fd, "pwritev")
        if file is None:
            return -errno.EBADF
        place = _AT_CURRENT_POSITION if offset < 0 else offset
        data = b"".join(pieces)
        count = write_file(file, place, data[: self._shortened("writev", len(data))])
        return -errno.EAGAIN if count is None else count

    def _fails(self, name: str, file: SimFile) -> bool:
        return isinstance(file, OpenFile) and self._kernel.faults.strikes("disk_error", name)

    def _shortened(self, name: str, count: int) -> int:
        faults = self._kernel.faults
        if count > 1 and faults.strikes("short", name):
            return 1 + faults.below("short", count - 1)
        return count

    def _ftruncate(self, fd: int, size: int) -> int:
        file = self._kernel.file_of(fd)
        return file.truncate(size) if isinstance(file, OpenFile) else -errno.EINVAL

    def _fallocate(self, fd: int, mode: int, offset: int, len_bytes: int) -> int:
        file = self._kernel.file_of(fd)
        if not isinstance(file, OpenFile):
            return -errno.EBADF if file is None else -errno.ENODEV
        return file.allocate(mode, offset, len_bytes)

    def fsync(self, fd: int, data_only: bool) -> int:
        """See `System`."""
        file = self._named(fd, "fsync")
        if not isinstance(file, OpenFile | OpenFolder):
            return -errno.EINVAL
        if self._kernel.faults.strikes("disk_error", "fsync"):
            return -errno.EIO
        return file.sync()

    def read_cached(self, fd: int, memory: ReadableBuffer, len_bytes: int, offset: int) -> int:
        """See `System`; now and then nothing is cached."""
        file = self._kernel.file_of(fd)
        if not isinstance(file, OpenFile) or self._kernel.faults.strikes("delay", "not cached"):
            return -errno.EAGAIN
        place = _AT_CURRENT_POSITION if offset < 0 else offset
        data = read_file(file, place, len_bytes)
        if not isinstance(data, bytes):
            return -errno.EAGAIN
        memoryview(memory).cast("B")[: len(data)] = data
        return len(data)

    def holds_all(self, fd: int, offset: int, len_bytes: int) -> bool:
        """See `System`; now and then something of it is not cached."""
        file = self._kernel.file_of(fd)
        if not isinstance(file, OpenFile) or offset + len_bytes > file.size:
            return False
        return not self._kernel.faults.strikes("delay", "not cached")

    def _send_cached(self, to_fd: int, from_fd: int, offset: int, len_bytes: int) -> int:
        """See `System`."""
        kernel = self._kernel
        source, target = kernel.file_of(from_fd), kernel.file_of(to_fd)
        if source is None or target is None:
            return -errno.EBADF
        if not isinstance(source, OpenFile) or not isinstance(target, SimSocket):
            return -errno.EINVAL
        data = source.read_at(offset, self._shortened("sendfile", len_bytes))
        if isinstance(data, int):
            return data
        count = target.send(data)
        answer = -errno.EAGAIN if count is None else count
        kernel.trace.add(f"sendfile {to_fd} {from_fd} {offset} {len_bytes} = {answer}")
        return answer

    # --- the rest --------------------------------------------------------------------------------

    def direct_alignment(self, fd: int) -> tuple[int, int]:
        """See `System`."""
        return 512, 512

    def lseek(self, fd: int, offset: int, whence: int) -> int:
        """See `System`."""
        file = self._file(fd, "lseek")
        if not isinstance(file, OpenFile):
            raise op_error(errno.ESPIPE, "lseek", fd)
        if whence in {os.SEEK_DATA, os.SEEK_HOLE}:
            found = file.inode.data_at(offset)
            if offset >= file.size or (whence == os.SEEK_DATA and found is None):
                raise op_error(errno.ENXIO, "lseek", fd)
            if whence == os.SEEK_DATA:
                assert found is not None
                target = found[0]
            else:
                target = offset if found is None or found[0] > offset else found[1]
        else:
            target = (0, file.position, file.size)[whence] + offset
        if target < 0:
            raise op_error(errno.EINVAL, "lseek", fd)
        file.position = target
        return target

    def fstat(self, fd: int) -> os.stat_result:
        """See `System`."""
        file = self._file(fd, "fstat")
        if isinstance(file, OpenFile | OpenFolder):
            return file.stat()
        kind = stat.S_IFSOCK if isinstance(file, SimSocket) else stat.S_IFIFO
        return os.stat_result((kind | 0o600, 1, 1, 1, 0, 0, 0, 0, 0, 0))

    def _file(self, fd: int, call: str) -> SimFile:
        file = self._kernel.file_of(fd)
        if file is None:
            raise op_error(errno.EBADF, call, fd)
        return file
