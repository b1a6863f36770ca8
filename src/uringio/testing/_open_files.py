"""Open files and folders of a simulated disk."""

import errno
import os
from typing import TYPE_CHECKING, Final

from ._inodes import Inode
from ._objects import SimFile

if TYPE_CHECKING:
    from ._disk import Disk

__all__ = ["OpenFile", "OpenFolder"]

_O_PATH: Final = getattr(os, "O_PATH", 0)
_KEEP_SIZE: Final = 1
_PUNCH_HOLE: Final = 2
_ZERO_RANGE: Final = 16
_SIZE_MAX: Final = 1 << 40  # more would not fit into memory


class _Opened(SimFile):
    """What was opened by a name; always ready, as such files are."""

    def __init__(self, disk: "Disk", inode: Inode, flags: int) -> None:
        super().__init__()
        self.inode = inode
        self._disk = disk
        self._flags = flags
        self.is_handle = bool(flags & _O_PATH)

    def sync(self) -> int:
        """Make what was written survive a power cut."""
        if self.is_handle:
            return -errno.EBADF
        self._disk.sync(self.inode)
        return 0

    def stat(self) -> os.stat_result:
        """Return what fstat(2) would."""
        return self.inode.stat()


class OpenFolder(_Opened):
    """An open folder."""

    kind = "folder"

    def read(self, count: int) -> bytes | int | None:
        """See `SimFile`."""
        return -errno.EISDIR

    def write(self, data: bytes) -> int | None:
        """See `SimFile`."""
        return -errno.EBADF


class OpenFile(_Opened):
    """
    An open regular file.

    Attributes:
        position: Where it stands. [bytes]
    """

    kind = "regular file"

    def __init__(self, disk: "Disk", inode: Inode, flags: int) -> None:
        super().__init__(disk, inode, flags)
        self.position = 0

    @property
    def size(self) -> int:
        """How long it is, in bytes."""
        return len(self.inode.content)

    def read(self, count: int) -> bytes | int | None:
        """See `SimFile`."""
        data = self.read_at(self.position, count)
        if isinstance(data, bytes):
            self.position += len(data)
        return data

    def write(self, data: bytes) -> int | None:
        """See `SimFile`."""
        if self._flags & os.O_APPEND:
            self.position = self.size
        count = self.write_at(self.position, data)
        if count > 0:
            self.position += count
        return count

    def read_at(self, offset: int, count: int) -> bytes | int:
        """Read at an offset."""
        if self._flags & os.O_ACCMODE == os.O_WRONLY or self.is_handle:
            return -errno.EBADF
        if offset >= 1 << 63:
            return -errno.EINVAL
        return bytes(self.inode.content[offset : offset + count])

    def write_at(self, offset: int, data: bytes) -> int:
        """Write at an offset; at the end if O_APPEND says so."""
        if self._flags & os.O_ACCMODE == os.O_RDONLY or self.is_handle:
            return -errno.EBADF
        if offset >= 1 << 63:
            return -errno.EINVAL
        if self._flags & os.O_APPEND:
            offset = self.size
        if not data:
            return 0
        if offset + len(data) > _SIZE_MAX:
            return -errno.EFBIG
        content = self.inode.content
        more = offset + len(data) - len(content)
        if more > 0 and self._disk.room_bytes is not None:
            count = len(data) - (min(more, len(data)) - self._disk.take_room(min(more, len(data))))
            if not count:
                return -errno.ENOSPC
            data = data[:count]
        content.extend(bytes(max(0, offset - len(content))))
        content[offset : offset + len(data)] = data
        self.inode.written(offset, len(data))
        return len(data)

    def truncate(self, size: int) -> int:
        """Set the size; 0 or ``-errno``."""
        if self._flags & os.O_ACCMODE == os.O_RDONLY or self.is_handle:
            return -errno.EINVAL
        if size >= 1 << 63:
            return -errno.EINVAL
        if size > _SIZE_MAX:
            return -errno.EFBIG
        self.inode.cut(size)
        return 0

    def allocate(self, mode: int, offset: int, count: int) -> int:
        """See fallocate(2)."""
        if self._flags & os.O_ACCMODE == os.O_RDONLY or self.is_handle:
            return -errno.EBADF
        if offset >= 1 << 63 or not 0 < count < 1 << 63:
            return -errno.EINVAL
        if mode not in {0, _KEEP_SIZE, _PUNCH_HOLE | _KEEP_SIZE, _ZERO_RANGE}:
            return -errno.EOPNOTSUPP
        if offset + count > _SIZE_MAX:
            return -errno.EFBIG
        if mode & (_PUNCH_HOLE | _ZERO_RANGE):
            self.inode.punch(offset, offset + count)
        if not mode & _KEEP_SIZE and offset + count > self.size:
            self.inode.cut(offset + count)
        if not mode & _PUNCH_HOLE:
            self.inode.written(offset, count)
        return 0
