"""Copying: one file, or a tree."""

import errno
import os
import stat
from collections.abc import Callable
from functools import partial
from typing import Final

from uringio._driver import op as o
from uringio._driver.op import Offload, Op
from uringio._driver.path_ops import AnyPath, encode_path, symlink_op

from ._content import Content, Ledger, Progress
from ._descriptor import in_thread, open_descriptor
from ._replica import Replica

__all__ = ["copy", "copy_tree"]

# Of a source that is not regular, opening must not wait for anybody.
_SOURCE_FLAGS: Final = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY
_NEW_FLAGS: Final = os.O_CREAT | os.O_EXCL | os.O_WRONLY


async def copy(
    source: AnyPath,
    target: AnyPath,
    *,
    progress: Callable[[Progress], object] | None = None,
    follow_symlinks: bool = True,
) -> None:
    """
    Copy a regular file, with its mode, times and, where permitted, extended attributes.

    A *target* that exists is overwritten, and keeps its other names, owner and group.

    Args:
        progress: Called as the copy goes on; what it raises ends the copy.
        follow_symlinks: Copy what a link leads to, rather than make the same link.

    Raises:
        OSError: As `os` raises them; EINVAL when the source is no regular file, or is the target,
            ENXIO when the target is a FIFO that nobody reads.
        ValueError: A path holds a NUL.

    Cancellation, and any failure, removes a *target* that was not there before; one that was is
    left incomplete.
    """
    await _copy_file(Ledger(progress), source, target, follow_symlinks)


async def _copy_file(job: Ledger, path: AnyPath, target_path: AnyPath, follow: bool) -> None:
    flags = _SOURCE_FLAGS if follow else _SOURCE_FLAGS | os.O_NOFOLLOW
    try:
        source = await open_descriptor(path, flags)
    except OSError as error:
        if follow or error.errno != errno.ELOOP:
            raise
        await _copy_link(job, path, target_path)
        return
    with source:
        status = job.system.fstat(source.fd)
        if stat.S_ISDIR(status.st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), os.fsdecode(path))
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "not a regular file", os.fsdecode(path))
        made = True
        try:
            target = await open_descriptor(target_path, _NEW_FLAGS, 0o600)
        except FileExistsError:
            # Cut later: until then it might be the source by another name.
            made = False
            flags = os.O_CREAT | os.O_WRONLY | os.O_NONBLOCK  # nor does a FIFO wait for a reader
            target = await open_descriptor(target_path, flags, 0o600)
        with target:
            if not made:
                job.system.set_blocking(target.fd, True)
            there = job.system.fstat(target.fd)
            if (there.st_dev, there.st_ino) == (status.st_dev, status.st_ino):
                raise OSError(errno.EINVAL, "source and target are one file", os.fsdecode(path))
            try:
                if there.st_size and stat.S_ISREG(there.st_mode):
                    await Op(o.FTRUNCATE, target.fd, off=0)
                file = Content(job, path, source, target, status.st_size)
                await file.run(status)
                keep = partial(_keep_metadata, job.system.copy_metadata, status)
                await in_thread(keep, source, target)
                job.finish(file)
            except BaseException:
                if made:
                    job.system.remove_file(os.fsencode(target_path), there)
                raise


def _keep_metadata(
    copy_metadata: Callable[[int, int, os.stat_result], None],
    status: os.stat_result,
    source: int,
    target: int,
) -> None:
    copy_metadata(source, target, status)


async def _copy_link(job: Ledger, path: AnyPath, target_path: AnyPath) -> None:
    leads_to = await Offload(partial(job.system.read_link, os.fsencode(path)))
    await symlink_op(leads_to, target_path)


async def copy_tree(
    source: AnyPath,
    target: AnyPath,
    *,
    progress: Callable[[Progress], object] | None = None,
    follow_symlinks: bool = False,
    exist_ok: bool = False,
    ownership: bool = False,
    hard_links: bool = False,
    on_error: Callable[[OSError], object] | None = None,
) -> None:
    """
    Copy a folder and all that is in it, several files at once.

    With each go mode, times and, where permitted, extended attributes.  The tree may be deeper than
    a path may be long.

    Args:
        progress: As with `copy`; called from several tasks, one at a time, for small files once
            they are done.
        follow_symlinks: Copy what links lead to, rather than make the same links; ELOOP for what
            leads into itself.
        exist_ok: Copy into folders that exist, replacing files and links that do.
        ownership: Keep owner and group, which as a rule only root may.
        hard_links: Names of one file become names of one copy, rather than copies.
        on_error: Called with each thing that could not be copied, and the copy goes on.  An error's
            ``filename`` is the source, its ``filename2`` the copy, if that was at fault.

    Raises:
        OSError: As `os` raises them, for the first thing that could not be copied; EINVAL for what
            is neither file, folder nor link, and for a target inside of the source.
        ValueError: A path holds a NUL.

    Cancellation: leaves *target* behind with what is copied until then, and every file in it is
    whole: what was being copied is finished if it is small, else removed.
    """
    walk = Replica(
        ownership=ownership,
        links=hard_links,
        exist_ok=exist_ok,
        follow_symlinks=follow_symlinks,
        progress=progress,
        on_error=on_error,
    )
    top, into = encode_path(source)[:-1], encode_path(target)[:-1]
    await walk.run(os.path.join(top, b"."), into)  # the dot: it must be a folder, or lead to one
