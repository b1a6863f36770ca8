"""
A folder, read in batches by whichever worker thread comes next.

One thread reads at a time; closing never waits for it, but has it close when it is done.
"""

import _thread
import os
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import AnyStr, Generic, NamedTuple, Protocol

__all__ = ["Found", "Listing"]


class _Scandir(Protocol[AnyStr]):
    """What `os.scandir` returns."""

    def __iter__(self) -> Iterator["os.DirEntry[AnyStr]"]: ...
    def close(self) -> None: ...


class Found(NamedTuple, Generic[AnyStr]):
    """One name: whether it is a folder, file or link itself, and if a link, leads to one."""

    name: AnyStr
    path: AnyStr
    inode: int
    is_folder: bool
    is_file: bool
    is_link: bool
    leads_to_folder: bool
    leads_to_file: bool


class Listing(Generic[AnyStr]):
    """The names in the folder at *path*; nothing is opened before the first `batch`."""

    def __init__(self, path: AnyStr) -> None:
        self._path: AnyStr = path
        self._found: _Scandir[AnyStr] | None = None
        self._lock = _thread.allocate_lock()
        self._closed = False

    def batch(self, count_max: int) -> list[Found[AnyStr]]:
        """Return the next names; none, once there are none.  Blocks; raises OSError."""
        with self._lock:
            if self._closed:
                return []
            if self._found is None:
                self._found = os.scandir(self._path)
            batch = _describe(islice(self._found, count_max))
            if not batch:
                self._closed = True
        if self._closed:
            self.close()
        return batch

    def close(self) -> None:
        """Close the folder, now or when the thread that reads it is done."""
        self._closed = True
        if self._lock.acquire(False):
            try:
                if self._found is not None:
                    self._found.close()
            finally:
                self._lock.release()


def _describe(entries: Iterable["os.DirEntry[AnyStr]"]) -> list[Found[AnyStr]]:
    found: list[Found[AnyStr]] = []
    for entry in entries:
        folder, file = entry.is_dir(follow_symlinks=False), entry.is_file(follow_symlinks=False)
        link = entry.is_symlink()
        to_folder, to_file = folder, file
        if link:
            try:
                to_folder, to_file = entry.is_dir(), entry.is_file()
            except OSError:
                pass  # a loop of links, say: it leads to neither
        found.append(
            Found(entry.name, entry.path, entry.inode(), folder, file, link, to_folder, to_file)
        )
    return found
