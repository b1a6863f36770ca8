"""Operations on names that the kernel has as such; each is one `Op`."""

import os
from typing import Final

from uringio._driver import current
from uringio._driver.op import Op
from uringio._driver.path_ops import (
    AnyPath,
    link_op,
    mkdir_op,
    rename_op,
    stat_op,
    symlink_op,
    unlink_op,
)

__all__ = ["link", "mkdir", "rename", "rmdir", "stat", "symlink", "unlink"]

_RENAME_NOREPLACE: Final = 1


def stat(path: AnyPath, *, follow_symlinks: bool = True) -> Op[os.stat_result]:
    """
    Look at what *path* names, as `os.stat` does.

    Raises:
        OpError: The kernel refused, such as `FileNotFoundError`.
        ValueError: The path holds a NUL.

    Cancellation: nothing has changed.

    Source: statx(2).
    """
    current.driver()
    return stat_op(path, follow=follow_symlinks)


def rename(old: AnyPath, new: AnyPath, *, replace: bool = True) -> Op[None]:
    """
    Give what *old* names the name *new*, in one step that nobody sees half done.

    Args:
        replace: Take the name from a file, or an empty folder, that has it; otherwise that is
            `FileExistsError`.

    Raises: as `stat`.

    Cancellation: may have been carried out all the same.

    Source: renameat2(2).
    """
    current.driver()
    return rename_op(old, new, 0 if replace else _RENAME_NOREPLACE)


def unlink(path: AnyPath) -> Op[None]:
    """
    Remove a name that is no folder's; raises as `stat`.

    Cancellation: may have been carried out all the same.

    Source: unlinkat(2).
    """
    current.driver()
    return unlink_op(path)


def rmdir(path: AnyPath) -> Op[None]:
    """
    Remove an empty folder; raises as `stat`.

    Cancellation: may have been carried out all the same.

    Source: unlinkat(2) with AT_REMOVEDIR.
    """
    current.driver()
    return unlink_op(path, folder=True)


def mkdir(path: AnyPath, *, permissions: int = 0o777) -> Op[None]:
    """
    Make a folder, with *permissions* less the umask; raises as `stat`.

    Cancellation: may have been carried out all the same.

    Source: mkdirat(2).
    """
    current.driver()
    return mkdir_op(path, permissions)


def symlink(target: AnyPath, path: AnyPath) -> Op[None]:
    """
    Make *path* a symbolic link to *target*, which need not exist; raises as `stat`.

    Cancellation: may have been carried out all the same.

    Source: symlinkat(2).
    """
    current.driver()
    return symlink_op(target, path)


def link(source: AnyPath, path: AnyPath, *, follow_symlinks: bool = False) -> Op[None]:
    """
    Make *path* another name of the file *source*; raises as `stat`.

    Args:
        follow_symlinks: Of what the link *source* leads to, rather than of the link.

    Cancellation: may have been carried out all the same.

    Source: linkat(2).
    """
    current.driver()
    return link_op(source, path, follow=follow_symlinks)
