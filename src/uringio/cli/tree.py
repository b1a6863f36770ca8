"""
The served folder: what is inside is found, what is outside is not.

A name is opened in two steps.  First as an ``O_PATH`` handle, which resolves every symbolic link
and has no effect on what it finds: no FIFO is waited for, no device is touched.  The kernel then
says what the handle is and where it lies; if that is a regular file or a folder inside the served
one, it is opened for good by its true path, and only used if it still is the same file.  A link
that is swapped at any moment in between can so make a request fail, but never leave the folder.
"""

import errno
import os
import stat
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Self

import attrs

from uringio.files import File, open_file
from uringio.offloading import offload
from uringio.proto.listing import Entry

__all__ = ["Found", "Tree"]

# What the name itself is to blame for; everything else is trouble of ours.
_NOT_THERE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG})


@attrs.frozen
class Found:
    """
    What a name leads to.

    Attributes:
        file: The regular file, open for reading; None for a folder.
        status: Its kind, size and times.
        where: The absolute path, links resolved.
    """

    file: File | None
    status: os.stat_result
    where: bytes


class Tree:
    """A folder to be served; made by `open`, an async context manager."""

    def __init__(self, root: File, where: bytes) -> None:
        self._root = root
        self._where = where

    @classmethod
    async def open(cls, path: str) -> Self:
        """
        Open the folder at *path*.

        Raises:
            OSError: It is not there, is no folder, or may not be opened; or /proc is not mounted.
        """
        root = await open_file(path, flags=os.O_RDONLY | os.O_DIRECTORY)
        try:
            return cls(root, _where(root))
        except BaseException:
            await root.aclose()
            raise

    @property
    def path(self) -> str:
        """The absolute path of the folder."""
        return os.fsdecode(self._where)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._root.aclose()

    @asynccontextmanager
    async def find(self, path: bytes) -> AsyncGenerator[Found, None]:
        """
        Find what *path*, relative and without ``..``, leads to; its file is open inside the block.

        Raises:
            FileNotFoundError: Nothing that may be served: no such name, a link that leads outside,
                a FIFO, socket or device.
            OSError: It cannot be opened, such as `PermissionError`.
        """
        try:
            handle = await open_file(path, folder=self._root, flags=os.O_PATH)
        except OSError as error:
            if error.errno in _NOT_THERE:
                raise FileNotFoundError(errno.ENOENT, "no such file") from None
            raise
        async with handle:
            status = await handle.stat()
            where = _where(handle)
            inner = self._inner(where)
            if inner is None or not (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)):
                raise FileNotFoundError(errno.ENOENT, "not a file of the served folder")
            if stat.S_ISDIR(status.st_mode):
                yield Found(None, status, where)
                return
            # O_NONBLOCK: should a FIFO have taken the place, opening it does not wait.
            flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_NOCTTY
            try:
                file = await open_file(inner, folder=self._root, flags=flags)
            except OSError as error:
                if error.errno in _NOT_THERE:
                    raise FileNotFoundError(errno.ENOENT, "replaced meanwhile") from None
                raise
            async with file:
                status_now = await file.stat()
                if _identity(status_now) != _identity(status):
                    raise FileNotFoundError(errno.ENOENT, "replaced meanwhile")
                await handle.aclose()
                yield Found(file, status_now, where)

    async def entries(self, folder: Found) -> list[Entry]:
        """List what can be fetched from *folder*."""
        return await offload(_scan, folder.where, _identity(folder.status), self._root_path())

    def _inner(self, where: bytes) -> bytes | None:
        """Return *where* relative to the root, None when it is outside."""
        inner = _below(where, self._where)
        if inner is None:
            # Perhaps the served folder itself was moved since.
            inner = _below(where, self._root_path())
        return inner

    def _root_path(self) -> bytes:
        self._where = _where(self._root)
        return self._where


def _where(file: File) -> bytes:
    """Ask the kernel where an open file lies."""
    return os.readlink(b"/proc/self/fd/%d" % file.fileno())


def _below(where: bytes, root: bytes) -> bytes | None:
    if where == root:
        return b"."
    prefix = root if root.endswith(b"/") else root + b"/"
    return where[len(prefix) :] if where.startswith(prefix) else None


def _identity(status: os.stat_result) -> tuple[int, int, int]:
    return status.st_dev, status.st_ino, stat.S_IFMT(status.st_mode)


def _scan(where: bytes, identity: tuple[int, int, int], root: bytes) -> list[Entry]:
    """
    List a folder, in a worker thread: owns what it opens.

    What would not be served is left out: links that break or lead outside, FIFOs, devices.
    """
    fd = os.open(where, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        if _identity(os.fstat(fd)) != identity:
            raise FileNotFoundError(errno.ENOENT, "replaced meanwhile")
        entries: list[Entry] = []
        with os.scandir(fd) as found:
            for item in found:
                name = os.fsencode(item.name)
                try:
                    if item.is_symlink() and _below(_resolved(where, name), root) is None:
                        continue
                    status = item.stat()
                except OSError:
                    continue
                is_folder = stat.S_ISDIR(status.st_mode)
                if is_folder or stat.S_ISREG(status.st_mode):
                    entries.append(Entry(name, is_folder, status.st_size, int(status.st_mtime)))
        return entries
    finally:
        os.close(fd)


def _resolved(where: bytes, name: bytes) -> bytes:
    return os.path.realpath(os.path.join(where, name), strict=True)
