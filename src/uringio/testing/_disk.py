"""
A simulated filesystem in which what was written is one thing and what survives is another.

Every file has its content as programs see it (the page cache) and as it is on the disk, and so has
every folder its names.  A sync of a file makes its content durable, and that it was made; a sync of
a folder its names.  A power cut throws the rest away, but for what had been written back by chance.
"""

import errno
import os
import stat
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final, NamedTuple

from ._dice import Dice
from ._inodes import Inode
from ._open_files import OpenFile, OpenFolder

if TYPE_CHECKING:
    from ._clock import SimClock

__all__ = ["Disk", "Found", "OpenFile", "OpenFolder"]

_PAGE_BYTES: Final = 4096
_SECTOR_BYTES: Final = 512
_NAME_BYTES_MAX: Final = 255
_PATH_BYTES_MAX: Final = 4096
_LINKS_MAX: Final = 40
_RESOLVE_NO_XDEV: Final = 0x01
_RESOLVE_NO_SYMLINKS: Final = 0x04
_RESOLVE_BENEATH: Final = 0x08
_RESOLVE_IN_ROOT: Final = 0x10
_O_PATH: Final = getattr(os, "O_PATH", 0)
_O_TMPFILE: Final = getattr(os, "O_TMPFILE", 0)


class Found(NamedTuple):
    """Where a path leads: a folder, the name in it (b"." for the folder), and what has it."""

    folder: Inode
    name: bytes
    inode: Inode | None
    must_be_folder: bool


class _Change(NamedTuple):
    """Names that changed at once: folder, name, and what has it from then on."""

    entries: list[tuple[Inode, bytes, Inode | None]]


class Disk:
    """
    The files of one simulated machine.

    It begins with ``/`` and ``/tmp``.  Whoever runs here may do everything: permissions are kept,
    and not asked for.

    Args:
        seed: Decides what survives.
        clock: Where times come from.

    Attributes:
        room_bytes: How many more bytes fit, None for any number.
    """

    def __init__(self, seed: int, clock: "SimClock") -> None:
        self.room_bytes: int | None = None
        self._clock = clock
        self._dice = Dice(seed, "disk")
        self._next_inode = 2
        self.root = self.make_inode(stat.S_IFDIR | 0o755)
        self._journal: list[_Change] = []
        self._change([(self.root, b"tmp", self.make_inode(stat.S_IFDIR | 0o1777))])
        self._commit(list(self._journal))

    # --- for tests -------------------------------------------------------------------------------

    def content(self, path: bytes) -> bytes | None:
        """Return what a program would read of a file; None if there is none."""
        found = self.find(self.root, path)
        if isinstance(found, int) or found.inode is None or not found.inode.is_file:
            return None
        return bytes(found.inode.content)

    def names(self, path: bytes = b"/") -> list[bytes]:
        """Return the names in a folder, sorted; none if there is no such folder."""
        found = self.find(self.root, path)
        if isinstance(found, int) or found.inode is None:
            return []
        return sorted(found.inode.entries)

    def write_file(self, path: bytes, data: bytes) -> None:
        """Put a file there, synced; raises OSError."""
        found = self.open(self.root, path, os.O_CREAT | os.O_TRUNC | os.O_RDWR, 0o644)
        if isinstance(found, int) or not isinstance(found, OpenFile):
            number = -found if isinstance(found, int) else errno.EISDIR
            raise OSError(number, os.strerror(number), path)
        found.write_at(0, data)
        self.sync(found.inode)

    def power_cut(self) -> None:
        """
        Lose what was not synced.

        Of each page of a file: it is as it was, as it is, or torn in the middle, whichever page was
        written first.  Of the names, the changes that were not synced are lost from some point on.
        A file whose name is durable and whose content never was may be empty.
        """
        kept = self._dice.below(len(self._journal) + 1)
        self._commit(self._journal[:kept])
        self._journal.clear()
        self._fall_back(self.root)

    def _fall_back(self, inode: Inode) -> None:
        """Make what survives be what there is."""
        if inode.is_folder:
            inode.entries = dict(inode.durable_entries)
            for name in sorted(inode.entries):
                below = inode.entries[name]
                if below.is_folder:
                    below.parent = inode
                self._fall_back(below)
        elif inode.is_file:
            durable = inode.durable if inode.durable is not None else bytearray()
            inode.content = self._survivors(durable, inode.content)
            inode.durable = bytearray(inode.content)

    def _survivors(self, durable: bytearray, content: bytearray) -> bytearray:
        result = bytearray(durable)
        for start in range(0, max(len(durable), len(content)), _PAGE_BYTES):
            end = start + _PAGE_BYTES
            if durable[start:end] == content[start:end]:
                continue
            choice = self._dice.below(3)
            if choice and len(content) > start:
                end = start + _SECTOR_BYTES * self._dice.between(1, 7) if choice == 2 else end
                piece = content[start:end]
                result.extend(bytes(max(0, start - len(result))))
                result[start : start + len(piece)] = piece
        return result

    # --- durability ------------------------------------------------------------------------------

    def sync(self, inode: Inode) -> None:
        """Make a file's content, or a folder's names, survive a power cut."""
        if inode.is_folder:
            self._commit(
                [
                    one
                    for one in self._journal
                    if any(folder is inode for folder, _, _ in one.entries)
                ]
            )
        else:
            inode.durable = bytearray(inode.content)
        self._sync_name(inode)

    def _sync_name(self, inode: Inode) -> None:
        """Make it survive that a file, and the folders above, were made."""
        wanted = [
            one for one in self._journal if any(there is inode for _, _, there in one.entries)
        ]
        for one in wanted:
            for folder, _, _ in one.entries:
                self._sync_name(folder)
        self._commit(wanted)

    def _commit(self, changes: Iterable[_Change]) -> None:
        """Make changes of names durable, and those before them that are about the same names."""
        wanted = {id(one) for one in changes}
        names: set[tuple[int, bytes]] = set()
        chosen: list[_Change] = []
        for one in reversed(self._journal):
            keys = {(folder.number, name) for folder, name, _ in one.entries}
            if id(one) in wanted or keys & names:
                names |= keys
                chosen.append(one)
        for one in reversed(chosen):
            for folder, name, inode in one.entries:
                if inode is None:
                    folder.durable_entries.pop(name, None)
                else:
                    folder.durable_entries[name] = inode
                    if inode.is_link and inode.durable is None:
                        inode.durable = bytearray(inode.content)
        taken = {id(one) for one in chosen}
        self._journal = [one for one in self._journal if id(one) not in taken]

    def _change(self, entries: list[tuple[Inode, bytes, Inode | None]]) -> None:
        """Change names, all at once."""
        for folder, name, _ in entries:
            before = folder.entries.pop(name, None)
            if before is not None:
                before.link_count -= 2 if before.is_folder else 1
                folder.link_count -= before.is_folder
                before.changed()
        for folder, name, inode in entries:
            if inode is not None:
                folder.entries[name] = inode
                if inode.is_folder:
                    inode.parent = folder
                    inode.link_count = 2 + sum(one.is_folder for one in inode.entries.values())
                    folder.link_count += 1
                else:
                    inode.link_count += 1
                inode.changed()
            folder.modified()
        self._journal.append(_Change(entries))

    # --- finding ---------------------------------------------------------------------------------

    def find(
        self, base: Inode, path: bytes, *, follow: bool = True, resolve: int = 0
    ) -> Found | int:
        """Follow a path from a folder; ``-errno`` where it leads nowhere but at its last name."""
        if not path:
            return -errno.ENOENT
        if len(path) >= _PATH_BYTES_MAX:
            return -errno.ENAMETOOLONG
        root = base if resolve & _RESOLVE_IN_ROOT else self.root
        if path[:1] == b"/":
            if resolve & _RESOLVE_BENEATH:
                return -errno.EXDEV
            base = root
        top = base
        left = [name for name in reversed(path.split(b"/")) if name]
        slash = path[-1:] == b"/"
        folder = base
        links = 0
        found = Found(folder, b".", folder, True)
        while left:
            name = left.pop()
            last = not left
            if not folder.is_folder:
                return -errno.ENOTDIR
            if len(name) > _NAME_BYTES_MAX:
                return -errno.ENAMETOOLONG
            if name == b".":
                found = Found(folder, b".", folder, True)
                continue
            if name == b"..":
                if folder is top and resolve & _RESOLVE_BENEATH:
                    return -errno.EXDEV
                if folder is not root:
                    folder = folder.parent
                found = Found(folder, b"..", folder, True)
                continue
            inode = folder.entries.get(name)
            if inode is not None and inode.is_link and (not last or follow or slash):
                links += 1
                if links > _LINKS_MAX or resolve & _RESOLVE_NO_SYMLINKS:
                    return -errno.ELOOP
                leads_to = bytes(inode.content)
                if leads_to[:1] == b"/":
                    if resolve & _RESOLVE_BENEATH:
                        return -errno.EXDEV
                    folder = root
                if last:
                    slash = slash or leads_to[-1:] == b"/"
                left += [part for part in reversed(leads_to.split(b"/")) if part]
                found = Found(folder, b".", folder, True)
                continue
            found = Found(folder, name, inode, last and slash)
            if last:
                break
            if inode is None:
                return -errno.ENOENT
            folder = inode
            if not folder.is_folder:
                return -errno.ENOTDIR
        if found.must_be_folder and found.inode is not None and not found.inode.is_folder:
            return -errno.ENOTDIR
        return found

    def _last(self, base: Inode, path: bytes) -> Found | int:
        """Find where a name is, or would be, without looking at what it is."""
        return self.find(base, path.rstrip(b"/") or path, follow=False)

    def make_inode(self, mode: int) -> Inode:
        """Make something that has no name yet."""
        inode = Inode(self._next_inode, mode, self._clock)
        self._next_inode += 1
        return inode

    # --- opening ---------------------------------------------------------------------------------

    def open(
        self, base: Inode, path: bytes, flags: int, mode: int, resolve: int = 0
    ) -> "OpenFile | OpenFolder | int":
        """Open or make a file; ``-errno`` on refusal."""
        exclusive = flags & os.O_CREAT and flags & os.O_EXCL
        follow = not flags & os.O_NOFOLLOW and not exclusive
        if flags & os.O_CREAT and path[-1:] == b"/":  # whatever it is, no file is made by that
            found = self.find(base, path.rstrip(b"/") or path, follow=False, resolve=resolve)
            return found if isinstance(found, int) else -errno.EISDIR
        found = self.find(base, path, follow=follow, resolve=resolve)
        if isinstance(found, int):
            return found
        inode = found.inode
        if flags & _O_PATH:
            return -errno.ENOENT if inode is None else self._opened(inode, flags)
        if _O_TMPFILE and flags & _O_TMPFILE == _O_TMPFILE:
            if inode is None or not inode.is_folder:
                return -errno.ENOENT if inode is None else -errno.ENOTDIR
            return OpenFile(self, self.make_inode(stat.S_IFREG | mode & 0o7777), flags)
        if inode is None:
            if not flags & os.O_CREAT:
                return -errno.ENOENT
            if found.must_be_folder:
                return -errno.EISDIR
            if flags & os.O_DIRECTORY:
                return -errno.EINVAL
            inode = self.make_inode(stat.S_IFREG | mode & 0o7777)
            self._change([(found.folder, found.name, inode)])
        elif exclusive:
            return -errno.EEXIST
        elif inode.is_link:
            return -errno.ENOTDIR if flags & os.O_DIRECTORY else -errno.ELOOP
        elif flags & os.O_DIRECTORY and not inode.is_folder:
            return -errno.ENOTDIR
        elif inode.is_folder and (
            flags & os.O_ACCMODE != os.O_RDONLY or flags & (os.O_CREAT | os.O_TRUNC)
        ):
            return -errno.EISDIR
        if flags & os.O_TRUNC and inode.is_file and inode.content:
            inode.cut(0)
        return self._opened(inode, flags)

    def _opened(self, inode: Inode, flags: int) -> "OpenFile | OpenFolder":
        if inode.is_folder:
            return OpenFolder(self, inode, flags)
        return OpenFile(self, inode, flags)

    # --- names -----------------------------------------------------------------------------------

    def make(self, base: Inode, path: bytes, inode: Inode) -> int:
        """Give something new, or one more name of something, a name; 0 or ``-errno``."""
        found = self._last(base, path)
        if isinstance(found, int):
            return found
        if found.inode is not None:
            return -errno.EEXIST
        if path[-1:] == b"/" and not inode.is_folder:
            return -errno.ENOENT
        if inode.is_folder and inode.parent is not inode:
            return -errno.EPERM  # a second name for a folder
        self._change([(found.folder, found.name, inode)])
        return 0

    def remove(self, base: Inode, path: bytes, folder: bool) -> int:
        """Remove a name; 0 or ``-errno``."""
        found = self._last(base, path)
        if isinstance(found, int):
            return found
        if found.name in {b".", b".."}:
            if not folder:
                return -errno.EISDIR
            if found.inode is self.root:
                return -errno.EBUSY
            return -errno.EINVAL if path.rstrip(b"/")[-2:] != b".." else -errno.ENOTEMPTY
        if found.inode is None:
            return -errno.ENOENT
        if not folder and path[-1:] == b"/":
            return -errno.EISDIR if found.inode.is_folder else -errno.ENOTDIR
        if found.inode.is_folder != folder:
            return -errno.ENOTDIR if folder else -errno.EISDIR
        if found.inode.entries:
            return -errno.ENOTEMPTY
        self._change([(found.folder, found.name, None)])
        return 0

    def rename(self, base: Inode, path: bytes, new_base: Inode, new_path: bytes, flags: int) -> int:
        """Move a name, as renameat2(2): 0 or ``-errno``."""
        no_replace, exchange = flags & 1, flags & 2
        if flags & ~3 or flags == 3:
            return -errno.EINVAL
        source, target = self._last(base, path), self._last(new_base, new_path)
        for found in (source, target):
            if isinstance(found, int):
                return found
        assert isinstance(source, Found) and isinstance(target, Found)
        if source.name in {b".", b".."}:
            return -errno.EBUSY
        if target.name in {b".", b".."}:
            return -errno.EEXIST if no_replace else -errno.EBUSY
        inode, there = source.inode, target.inode
        if inode is None or (exchange and there is None):
            return -errno.ENOENT
        if no_replace and there is not None:
            return -errno.EEXIST
        slash = path[-1:] == b"/" or (not exchange and new_path[-1:] == b"/")
        if slash and not inode.is_folder:
            return -errno.ENOTDIR
        if inode.is_folder and self._is_beneath(target.folder, inode):
            return -errno.EINVAL
        if there is inode:
            return 0
        if exchange:
            assert there is not None
            if there.is_folder and self._is_beneath(source.folder, there):
                return -errno.EINVAL
            self._change([
                (source.folder, source.name, there), (target.folder, target.name, inode),
            ])  # fmt: skip
            return 0
        if there is not None:
            if there.is_folder and self._is_beneath(source.folder, there):
                return -errno.ENOTEMPTY
            if there.is_folder != inode.is_folder:
                return -errno.EISDIR if there.is_folder else -errno.ENOTDIR
            if there.entries:
                return -errno.ENOTEMPTY
        self._change([
            (source.folder, source.name, None), (target.folder, target.name, inode),
        ])  # fmt: skip
        return 0

    @staticmethod
    def _is_beneath(folder: Inode, above: Inode) -> bool:
        while folder is not above:
            if folder.parent is folder:
                return False
            folder = folder.parent
        return True

    def take_room(self, count: int) -> int:
        """Take room for so many bytes more; how many of them fit."""
        if self.room_bytes is None:
            return count
        count = min(count, self.room_bytes)
        self.room_bytes -= count
        return count
