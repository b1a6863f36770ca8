"""
What a simulated disk holds: files, folders and links, each as programs see it and as it is durable.
"""

import os
import stat
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from ._clock import SimClock

__all__ = ["DEVICE", "Inode"]

DEVICE: Final = 1
_BLOCK_BYTES: Final = 512
_PAGE_BYTES: Final = 4096


class Inode:
    """
    A file, folder, symbolic link, or something special.

    Attributes:
        number, mode, link_count: As stat(2) tells.
        content: Of a regular file, as programs read it; of a link, where it leads.
        durable: The same as it is on the disk; None if nothing of it has been synced.
        entries: Of a folder: inodes by name.
        durable_entries: The same as they are on the disk.
        parent: Of a folder: where it is.
        holes: Of a regular file: pages that were never written to.
    """

    def __init__(self, number: int, mode: int, clock: "SimClock") -> None:
        self.number = number
        self.mode = mode
        self.content = bytearray()
        self.durable: bytearray | None = None
        self.entries: dict[bytes, Inode] = {}
        self.durable_entries: dict[bytes, Inode] = {}
        self.parent: Inode = self
        self.link_count = 2 if stat.S_ISDIR(mode) else 0
        self.uid = self.gid = 0
        self.rdev = 0
        self.attributes: dict[bytes, bytes] = {}
        self._written: set[int] = set()
        self._clock = clock
        now_ns = clock.real_ns
        self.born_ns = self.accessed_ns = self.modified_ns = self.changed_ns = now_ns

    @property
    def is_folder(self) -> bool:
        """Whether it is one."""
        return stat.S_ISDIR(self.mode)

    @property
    def is_link(self) -> bool:
        """Whether it is a symbolic one."""
        return stat.S_ISLNK(self.mode)

    @property
    def is_file(self) -> bool:
        """Whether it is a regular one."""
        return stat.S_ISREG(self.mode)

    @property
    def size(self) -> int:
        """As stat(2) tells."""
        return _PAGE_BYTES if self.is_folder else len(self.content)

    @property
    def block_count(self) -> int:
        """How many blocks of 512 bytes it takes."""
        return len(self._written) * (_PAGE_BYTES // _BLOCK_BYTES)

    def written(self, offset: int, count: int) -> None:
        """Note that something was written there."""
        self._written.update(range(offset // _PAGE_BYTES, -(-(offset + count) // _PAGE_BYTES)))
        self.modified()

    def cut(self, size: int) -> None:
        """Set the size."""
        del self.content[size:]
        self.content.extend(bytes(size - len(self.content)))
        self._written = {page for page in self._written if page * _PAGE_BYTES < size}
        self.modified()

    def punch(self, start: int, end: int) -> None:
        """Empty what lies there."""
        end = min(end, len(self.content))
        if start < end:
            self.content[start:end] = bytes(end - start)
        whole = range(-(-start // _PAGE_BYTES), end // _PAGE_BYTES)
        self._written.difference_update(whole)
        self.modified()

    def data_at(self, offset: int) -> tuple[int, int] | None:
        """Return where the data at or behind *offset* begins and ends; None if there is none."""
        size = len(self.content)
        page = offset // _PAGE_BYTES
        last = -(-size // _PAGE_BYTES)
        while page < last and page not in self._written:
            page += 1
        if page >= last or offset >= size:
            return None
        start = max(offset, page * _PAGE_BYTES)
        while page < last and page in self._written:
            page += 1
        return start, min(size, page * _PAGE_BYTES)

    def modified(self) -> None:
        """Note that its content has changed."""
        self.modified_ns = self.changed_ns = self._clock.real_ns

    def changed(self) -> None:
        """Note that something about it has changed."""
        self.changed_ns = self._clock.real_ns

    def stat(self) -> os.stat_result:
        """Return what fstat(2) would."""
        whole = 1_000_000_000
        times = (self.accessed_ns, self.modified_ns, self.changed_ns)
        return os.stat_result(
            (
                self.mode, self.number, DEVICE, self.link_count, self.uid, self.gid, self.size,
                *(one // whole for one in times),
            ),
            {
                "st_atime_ns": times[0], "st_mtime_ns": times[1], "st_ctime_ns": times[2],
                "st_atime": times[0] / whole, "st_mtime": times[1] / whole,
                "st_ctime": times[2] / whole, "st_blocks": self.block_count,
                "st_blksize": _PAGE_BYTES, "st_rdev": self.rdev,
            },
        )  # fmt: skip
