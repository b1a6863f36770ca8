"""Folders, listed by worker threads: the kernel's ring has no operation for that."""

import os
from collections.abc import AsyncGenerator, Callable, Sequence
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, AnyStr, Final, Generic, Protocol, Self, TypeVar

from uringio._driver import current
from uringio._driver.op import Offload, Op
from uringio._driver.path_ops import stat_op

if TYPE_CHECKING:
    from uringio._driver.contract import Driver

__all__ = ["Entry", "Scan", "list_names", "scandir", "walk"]

N_co = TypeVar("N_co", covariant=True)

_BATCH_COUNT: Final = 512


class Entry(Generic[AnyStr]):
    """
    One name in a folder, as it was when it was listed.

    Attributes:
        name: As it stands in the folder.
        path: The folder's path, as it was given, and the name.
        inode: Its inode number.
    """

    __slots__ = ("_file", "_folder", "_link", "_to_file", "_to_folder", "inode", "name", "path")

    def __init__(
        self,
        name: AnyStr,
        path: AnyStr,
        inode: int,
        folder: bool,
        file: bool,
        link: bool,
        to_folder: bool,
        to_file: bool,
    ) -> None:
        self.name: AnyStr = name
        self.path: AnyStr = path
        self.inode = inode
        self._folder, self._file, self._link = folder, file, link
        self._to_folder, self._to_file = to_folder, to_file

    def __repr__(self) -> str:
        return f"<Entry {self.name!r}>"

    def is_dir(self, *, follow_symlinks: bool = True) -> bool:
        """Whether it is a folder, or a link to one."""
        return self._to_folder if follow_symlinks else self._folder

    def is_file(self, *, follow_symlinks: bool = True) -> bool:
        """Whether it is a regular file, or a link to one."""
        return self._to_file if follow_symlinks else self._file

    def is_symlink(self) -> bool:
        """Whether it is a symbolic link."""
        return self._link

    def stat(self, *, follow_symlinks: bool = True) -> Op[os.stat_result]:
        """Look at it as it is now; see `uringio.fs.stat`."""
        return stat_op(self.path, follow=follow_symlinks)


class _Listing(Protocol[N_co]):
    """What `System.list_folder` returns."""

    def batch(
        self, count_max: int, /
    ) -> Sequence[tuple[N_co, N_co, int, bool, bool, bool, bool, bool]]: ...
    def close(self) -> None: ...


class Scan(Generic[AnyStr]):
    """
    The names in one folder, in no order; made by `scandir`.

    To be iterated over once.  Left early, it should be closed, by ``async with`` or `aclose`.
    """

    __slots__ = ("_batch", "_driver", "_listing")

    def __init__(self, driver: "Driver", path: AnyStr) -> None:
        self._driver = driver
        self._listing: _Listing[AnyStr] = driver.system.list_folder(path)
        self._batch: list[Entry[AnyStr]] = []

    def __del__(self) -> None:
        self._listing.close()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Entry[AnyStr]:
        if not self._batch:
            found = await Offload(partial(self._listing.batch, _BATCH_COUNT))
            for one in reversed(found):
                self._batch.append(Entry(*one))
            if not found:
                raise StopAsyncIteration
        return self._batch.pop()

    async def aclose(self) -> None:
        """Close the folder; safe to call twice."""
        self._listing.close()
        self._batch.clear()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()


def scandir(path: AnyStr | os.PathLike[AnyStr]) -> Scan[AnyStr]:
    """
    Iterate over the names in a folder, without ``.`` and ``..``; names are `bytes` if *path* is.

    Raises:
        OSError: By the first step: there is no such folder, or it may not be read.

    Cancellation: names that were read for the cancelled step may be skipped.

    Source: getdents64(2), in worker threads.
    """
    return Scan(current.driver(), os.fspath(path))


async def list_names(path: AnyStr) -> list[Entry[AnyStr]]:
    """Return all that `scandir` gives."""
    async with scandir(path) as entries:
        return [entry async for entry in entries]


async def walk(
    top: AnyStr | os.PathLike[AnyStr],
    *,
    top_down: bool = True,
    on_error: Callable[[OSError], object] | None = None,
    follow_symlinks: bool = False,
) -> AsyncGenerator[tuple[AnyStr, list[AnyStr], list[AnyStr]], None]:
    """
    Walk through a tree as `os.walk` does: for each folder its path, folders, and other names.

    Args:
        top_down: Folders before what is in them, so that taking names out of the list of folders
            keeps the walk out of them; otherwise behind.
        on_error: Called with what kept a folder from being listed, which is skipped otherwise.
        follow_symlinks: Into folders that links lead to; beware of circles.

    Cancellation: leaves nothing open.
    """
    # A path is listed; one with its names has been, and waits for the folders in it.
    pending: list[tuple[AnyStr, tuple[list[AnyStr], list[AnyStr]] | None]] = [
        (os.fspath(top), None)
    ]
    while pending:
        path, listed = pending.pop()
        if listed is not None:
            yield path, listed[0], listed[1]
            continue
        try:
            entries = await list_names(path)
        except OSError as error:
            if on_error is not None:
                on_error(error)
            continue
        folders = {entry.name: entry for entry in entries if entry.is_dir()}
        names, others = list(folders), [entry.name for entry in entries if not entry.is_dir()]
        if top_down:
            yield path, names, others
        else:
            pending.append((path, (names, others)))
        for name in reversed(names):
            entry = folders[name]
            if follow_symlinks or not entry.is_symlink():
                pending.append((entry.path, None))
