"""
Opening what lies inside a folder, and nothing else.

openat2(2) decides, so there is no moment between looking at a name and using it.  Where it is
missing (before Linux 5.6, and under some sandboxes) every component is opened by itself, as no link
can be: that is as safe, and follows no links at all.
"""

import errno
import os
import stat
from typing import Final

from uringio._driver.path_ops import AnyPath
from uringio.errors import OpError, op_error

from ._file import File
from ._flags import Resolve
from ._open_file import OpenFile
from ._opening import open_file

__all__ = ["open_beneath"]

_RULES: Final = Resolve.BENEATH | Resolve.NO_MAGICLINKS
# With a ".." to resolve, openat2 refuses whenever something was renamed or mounted meanwhile,
# anywhere on the machine.  A storm of renames lets most tries through.
_TRIES_COUNT: Final = 64
# What a kernel without openat2 answers, and what a filter of system calls does.
_MISSING: Final = frozenset({errno.ENOSYS, errno.EPERM, errno.EOPNOTSUPP})
_O_HANDLE: Final = getattr(os, "O_PATH", os.O_RDONLY)


async def open_beneath(
    folder: OpenFile,
    path: AnyPath,
    mode: str = "rb",
    *,
    flags: int = 0,
    permissions: int = 0o666,
) -> File:
    """
    Open a file that lies inside of *folder*, however *path* is written.

    Symbolic links are followed as long as every one of them, and every ``..``, stays inside; an
    absolute link counts as leaving, wherever it leads.  Links of ``/proc`` that lead to open files
    are never followed.  Where openat2(2) is missing, no link and no ``..`` is.

    Args:
        folder: An open folder; its own name may change.
        path: Relative to *folder*.
        mode: As with `open_file`.
        flags: More ``os.O_*``.  With ``O_NONBLOCK`` a FIFO or a device does not hold up the call;
            it is opened all the same, so look at `File.stat` before use.
        permissions: Of a file that is created, before the umask.

    Raises:
        OpError: With EXDEV the path leads outside; with ELOOP it has a link of ``/proc``, too many
            links, or any link where openat2(2) is missing; `BlockingIOError` if names were changed
            without a pause; else as with `open_file`.
        ValueError: No such mode, or the path holds a NUL.
        ClosedError: *folder* was closed, before the call or during it.

    Cancellation: a descriptor that was opened all the same is closed.

    Kernel: 5.6 (openat2), else as described above.  Source: openat2(2).
    """
    for _ in range(_TRIES_COUNT - 1):
        try:
            return await open_file(
                path, mode, folder=folder, flags=flags, permissions=permissions, resolve=_RULES
            )
        except OpError as error:
            if error.errno == errno.EAGAIN:
                continue
            if error.errno in _MISSING and await _is_missing(folder):
                return await _walk(folder, os.fsencode(path), mode, flags, permissions)
            raise
    return await open_file(
        path, mode, folder=folder, flags=flags, permissions=permissions, resolve=_RULES
    )


async def _is_missing(folder: OpenFile) -> bool:
    """Tell a refusal of the call as such from one of this path: the folder itself is no secret."""
    try:
        probe = await open_file(".", folder=folder, flags=_O_HANDLE, resolve=_RULES)
    except OpError as error:
        return error.errno in _MISSING
    await probe.aclose()
    return False


async def _walk(folder: OpenFile, path: bytes, mode: str, flags: int, permissions: int) -> File:
    """Open one component after another, none of which may be a link."""
    names = [name for name in path.split(b"/") if name not in {b"", b"."}]
    if not path:
        raise op_error(errno.ENOENT, "openat2", folder.fileno())
    if path.startswith(b"/") or b".." in names:
        raise op_error(errno.EXDEV, "openat2", folder.fileno())
    if path.endswith((b"/", b"/.")):
        flags |= os.O_DIRECTORY
    last = names.pop() if names else b"."
    here = folder
    found: File | None = None
    try:
        for name in names:
            # O_DIRECTORY: a handle of a link would not be refused as such.
            further = await open_file(
                name, folder=here, flags=_O_HANDLE | os.O_DIRECTORY | os.O_NOFOLLOW
            )
            left, here = here, further
            if left is not folder:
                await left.aclose()
        found = await open_file(
            last, mode, folder=here, flags=flags | os.O_NOFOLLOW, permissions=permissions
        )
        if stat.S_ISLNK(os.fstat(found.fileno()).st_mode) and not flags & os.O_NOFOLLOW:
            # A handle (O_PATH) is the one thing that can be had of a link itself.
            raise op_error(errno.ELOOP, "openat2", folder.fileno())
        if here is not folder:
            await here.aclose()
    except BaseException:
        if here is not folder:
            await here.aclose()
        if found is not None:
            await found.aclose()
        raise
    return found
