"""
A simulated filesystem in which what was written is one thing and what survives is another.

Every file has its content as programs see it (the page cache) and as it is on the disk.  A sync
copies the one to the other; a power cut throws the first away, but for pages that had been written
back by chance.
"""

import errno
import os
import stat
from typing import Final

from ._dice import Dice
from ._objects import SimFile

__all__ = ["Disk", "OpenFile"]

_PAGE_BYTES: Final = 4096


class _Inode:
    def __init__(self, number: int, mode: int) -> None:
        self.number = number
        self.mode = mode
        self.content = bytearray()
        self.durable: bytearray | None = None  # None: not even the name has been synced
        self.link_count = 1


class Disk:
    """The files of one simulated machine, by absolute name; one flat folder."""

    def __init__(self, seed: int) -> None:
        self._files: dict[bytes, _Inode] = {}
        self._dice = Dice(seed, "disk")
        self._next_inode = 2

    def open(self, path: bytes, flags: int, mode: int) -> "OpenFile | int":
        """Open or make a file; ``-errno`` on refusal."""
        inode = self._files.get(path)
        if inode is None:
            if not path or not flags & os.O_CREAT:
                return -errno.ENOENT
            inode = self._files[path] = _Inode(self._next_inode, stat.S_IFREG | mode & 0o7777)
            self._next_inode += 1
        elif flags & os.O_CREAT and flags & os.O_EXCL:
            return -errno.EEXIST
        elif flags & os.O_DIRECTORY:
            return -errno.ENOTDIR
        if flags & os.O_TRUNC:
            inode.content.clear()
        return OpenFile(inode, flags)

    def unlink(self, path: bytes) -> int:
        """Remove a name; 0 or ``-errno``."""
        inode = self._files.pop(path, None)
        if inode is None:
            return -errno.ENOENT
        inode.link_count = 0
        return 0

    def content(self, path: bytes) -> bytes | None:
        """Return what a program would read of a file; None if there is none."""
        inode = self._files.get(path)
        return None if inode is None else bytes(inode.content)

    def write_file(self, path: bytes, data: bytes) -> None:
        """Put a file there, synced."""
        found = self.open(path, os.O_CREAT | os.O_TRUNC | os.O_RDWR, 0o644)
        assert isinstance(found, OpenFile)
        found.write_at(0, data)
        found.sync()

    def power_cut(self) -> None:
        """
        Lose what was not synced: each page is as it was, as it is, or torn in the middle.

        Files that were never synced are gone.
        """
        for path, inode in list(self._files.items()):
            if inode.durable is None:
                del self._files[path]
                continue
            inode.content = self._survivors(inode.durable, inode.content)
            inode.durable = bytearray(inode.content)

    def _survivors(self, durable: bytearray, content: bytearray) -> bytearray:
        result = bytearray(durable)
        for start in range(0, max(len(durable), len(content)), _PAGE_BYTES):
            end = start + _PAGE_BYTES
            if durable[start:end] == content[start:end]:
                continue
            choice = self._dice.below(3)
            if choice and len(content) > start:
                end = start + 512 * self._dice.between(1, 7) if choice == 2 else end
                piece = content[start:end]
                result.extend(bytes(max(0, start - len(result))))
                result[start : start + len(piece)] = piece
        return result


class OpenFile(SimFile):
    """An open regular file; always ready, as regular files are."""

    kind = "regular file"

    def __init__(self, inode: _Inode, flags: int) -> None:
        super().__init__()
        self.position = 0
        self._inode = inode
        self._flags = flags

    @property
    def size(self) -> int:
        """How long it is, in bytes."""
        return len(self._inode.content)

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
        """Read at a place; ``-errno`` on refusal."""
        if self._flags & os.O_ACCMODE == os.O_WRONLY:
            return -errno.EBADF
        return bytes(self._inode.content[offset : offset + count])

    def write_at(self, offset: int, data: bytes) -> int:
        """Write at a place, filling a gap with zeros; how many bytes, or ``-errno``."""
        if self._flags & os.O_ACCMODE == os.O_RDONLY:
            return -errno.EBADF
        if self._flags & os.O_APPEND:
            offset = self.size
        content = self._inode.content
        content.extend(bytes(max(0, offset - len(content))))
        content[offset : offset + len(data)] = data
        return len(data)

    def truncate(self, size: int) -> int:
        """Set the size; 0 or ``-errno``."""
        if self._flags & os.O_ACCMODE == os.O_RDONLY:
            return -errno.EINVAL
        content = self._inode.content
        del content[size:]
        content.extend(bytes(size - len(content)))
        return 0

    def sync(self) -> int:
        """Make what was written survive a power cut."""
        self._inode.durable = bytearray(self._inode.content)
        return 0

    def stat(self) -> os.stat_result:
        """Return what fstat(2) would."""
        inode = self._inode
        return os.stat_result((
            inode.mode, inode.number, 1, inode.link_count, 0, 0, self.size, 0, 0, 0,
        ))  # fmt: skip
