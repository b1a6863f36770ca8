"""
The served folder: what is inside is found, what is outside is not.

Names are opened beneath the folder's descriptor, and the kernel decides: links that stay inside are
followed; those that leave, be it for a moment, and absolute ones are as good as broken.  What was
opened is then looked at, and only a regular file or a folder is used.  Nothing is looked up twice,
so nothing can be swapped in between.

Opening waits neither for a FIFO nor for a device (O_NONBLOCK), but it does open them.
"""

import errno
import os
import stat
from typing import Self

import attrs

import uringio
from uringio.files import File, OpenFile, open_beneath, open_file
from uringio.offloading import offload
from uringio.proto.listing import Entry

__all__ = ["Found", "Tree"]

# What the name itself is to blame for; everything else is trouble of ours.  A socket answers ENXIO,
# and so does a device without a driver, or ENODEV.
_NOT_THERE = frozenset({
    errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.EXDEV, errno.ENXIO,
    errno.ENODEV,
})  # fmt: skip
_LOOKING = os.O_NONBLOCK | os.O_NOCTTY
_HANDLE = getattr(os, "O_PATH", _LOOKING)


@attrs.frozen
class Found:
    """
    What a name leads to; open until the end of an ``async with``.

    Attributes:
        file: The regular file, open for reading; or the folder, open for nothing.
        is_folder: Which of both.
        status: Its kind, size and times.
        path: Where it was found, relative to the root.
    """

    file: File
    is_folder: bool
    status: os.stat_result
    path: bytes

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.file.aclose()


class Tree:
    """A folder to be served; made by `open`, an async context manager."""

    def __init__(self, root: OpenFile, path: str) -> None:
        self._root = root
        self.path = path
        """The absolute path that the folder had when it was opened."""

    @classmethod
    async def open(cls, path: str) -> Self:
        """
        Open the folder at *path*.

        Raises:
            OSError: It is not there, is no folder, or may not be opened.
        """
        root = await open_file(path, flags=os.O_RDONLY | os.O_DIRECTORY)
        return cls(root, _absolute(path))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._root.aclose()

    async def find(self, path: bytes) -> Found:
        """
        Open what *path*, relative and without ``..``, leads to.

        Raises:
            FileNotFoundError: Nothing that may be served: no such name, a link that leads outside,
                a FIFO, socket or device.
            OSError: It cannot be opened, such as `PermissionError`.
        """
        try:
            file = await self._open(path, _LOOKING)
        except PermissionError:
            file = await self._open_to_pass(path)
        status = os.fstat(file.fileno())
        is_folder = stat.S_ISDIR(status.st_mode)
        if is_folder or stat.S_ISREG(status.st_mode):
            return Found(file, is_folder, status, path)
        await file.aclose()
        raise FileNotFoundError(errno.ENOENT, "neither a file nor a folder")

    async def _open_to_pass(self, path: bytes) -> File:
        """Open a folder that may not be read: an index in it may still be."""
        try:
            return await self._open(path, _HANDLE | os.O_DIRECTORY)
        except FileNotFoundError:
            raise PermissionError(errno.EACCES, "not to be read") from None

    async def _open(self, path: bytes, flags: int) -> File:
        try:
            return await open_beneath(self._root, path, flags=flags)
        except OSError as error:
            if error.errno in _NOT_THERE:
                raise FileNotFoundError(errno.ENOENT, "no such file") from None
            raise

    async def entries(self, folder: Found) -> list[Entry]:
        """
        List what can be fetched from *folder*: no broken links, no FIFOs, no devices.

        Raises:
            OSError: It may not be read, such as `PermissionError`.
        """
        entries: list[Entry] = []
        links: list[bytes] = []
        async with await self._open(folder.path, os.O_DIRECTORY) as file:
            # The thread uses this descriptor, so it is waited for whatever happens.
            with uringio.CancelScope(shield=True):
                entries, links = await offload(_scan, file.fileno())
        for name in links:
            try:
                async with await self._open(folder.path + b"/" + name, _HANDLE) as file:
                    status = await file.stat()
            except OSError:
                continue
            _add(entries, name, status)
        return entries


def _absolute(path: str) -> str:
    return os.path.realpath(path)


def _scan(fd: int) -> tuple[list[Entry], list[bytes]]:
    """Read a folder, in a worker thread; return what can be fetched, and the names of links."""
    entries: list[Entry] = []
    links: list[bytes] = []
    with os.scandir(fd) as found:
        for item in found:
            name = os.fsencode(item.name)
            if item.is_symlink():
                links.append(name)
                continue
            try:
                status = item.stat(follow_symlinks=False)
            except OSError:
                continue
            _add(entries, name, status)
    return entries, links


def _add(entries: list[Entry], name: bytes, status: os.stat_result) -> None:
    is_folder = stat.S_ISDIR(status.st_mode)
    if is_folder or stat.S_ISREG(status.st_mode):
        entries.append(Entry(name, is_folder, status.st_size, int(status.st_mtime)))
