"""
Requests on names, and on extended attributes.

Each function fills one request of *ring*, a `Ring` or a single `Request`, and takes beside its own
arguments ``user_data``, which its completions carry, and ``flags`` (`SqeFlags`).  "Lifetime" names
what the kernel still touches later: given as an object it is kept by the ring, given as an address
it is the caller's to keep.  Results are those of ``res``; a negative one is always an errno.
"""

from uringio._sys import constants as k

from ._filling import Requests
from ._memory import Passing, Path, Source, Target, path_of, source, target

__all__ = [
    "prep_fgetxattr",
    "prep_fsetxattr",
    "prep_getxattr",
    "prep_link",
    "prep_linkat",
    "prep_mkdir",
    "prep_mkdirat",
    "prep_rename",
    "prep_renameat",
    "prep_setxattr",
    "prep_symlink",
    "prep_symlinkat",
    "prep_unlink",
    "prep_unlinkat",
]


def prep_unlinkat(
    ring: Requests,
    dir_fd: int,
    path: Path,
    at_flags: int = 0,
    *,
    user_data: int = 0,
    flags: int = 0,
) -> None:
    """
    Remove a name, or with AT_REMOVEDIR an empty folder.

    Args:
        dir_fd: The folder that a relative path starts from, AT_FDCWD for the working folder.

    Fields: fd, addr, unlink_flags.
    Lifetime: the path, until it was submitted.
    Results: 0.
    Kernel: 5.11.  Fallback: unlinkat(2).
    Twin and source: io_uring_prep_unlinkat(3).
    """
    addr, keep = path_of(path)
    ring.fill(k.IORING_OP_UNLINKAT, dir_fd, 0, addr, 0, at_flags, user_data, flags, keep)


def prep_unlink(
    ring: Requests,
    path: Path,
    at_flags: int = 0,
    *,
    user_data: int = 0,
    flags: int = 0,
) -> None:
    """
    `prep_unlinkat` from the working folder.

    Fields: as prep_unlinkat.
    Lifetime: the path, until it was submitted.
    Results: 0.
    Kernel: 5.11.  Fallback: unlink(2).
    Twin and source: io_uring_prep_unlink(3).
    """
    prep_unlinkat(ring, k.AT_FDCWD, path, at_flags, user_data=user_data, flags=flags)


def prep_renameat(
    ring: Requests,
    dir_fd: int,
    path: Path,
    new_dir_fd: int,
    new_path: Path,
    rename_flags: int = 0,
    *,
    user_data: int = 0,
    flags: int = 0,
) -> None:
    """
    Rename a file.

    Args:
        dir_fd, new_dir_fd: The folders that relative paths start from, or AT_FDCWD.
        rename_flags: RENAME_* flags.

    Fields: fd, addr, len (the new folder), off, rename_flags.
    Lifetime: both paths, until they were submitted.
    Results: 0.
    Kernel: 5.11.  Fallback: renameat2(2).
    Twin and source: io_uring_prep_renameat(3).
    """
    addr, keep = path_of(path)
    new_addr, keep_too = path_of(new_path)
    ring.fill(
        k.IORING_OP_RENAMEAT, dir_fd, new_addr, addr, new_dir_fd, rename_flags, user_data, flags,
        Passing(keep, keep_too),
    )  # fmt: skip


def prep_rename(
    ring: Requests,
    path: Path,
    new_path: Path,
    *,
    user_data: int = 0,
    flags: int = 0,
) -> None:
    """
    `prep_renameat` from the working folder.

    Fields: as prep_renameat.
    Lifetime: both paths, until they were submitted.
    Results: 0.
    Kernel: 5.11.  Fallback: rename(2).
    Twin and source: io_uring_prep_rename(3).
    """
    prep_renameat(ring, k.AT_FDCWD, path, k.AT_FDCWD, new_path, user_data=user_data, flags=flags)


def prep_mkdirat(
    ring: Requests,
    dir_fd: int,
    path: Path,
    mode: int = 0o777,
    *,
    user_data: int = 0,
    flags: int = 0,
) -> None:
    """
    Make a folder.

    Args:
        dir_fd: The folder that a relative path starts from, AT_FDCWD for the working folder.

    Fields: fd, addr, len (the mode).
    Lifetime: the path, until it was submitted.
    Results: 0.
    Kernel: 5.15.  Fallback: mkdirat(2).
    Twin and source: io_uring_prep_mkdirat(3).
    """
    addr, keep = path_of(path)
    ring.fill(k.IORING_OP_MKDIRAT, dir_fd, 0, addr, mode, 0, user_data, flags, keep)


def prep_mkdir(
    ring: Requests,
    path: Path,
    mode: int = 0o777,
    *,
    user_data: int = 0,
    flags: int = 0,
) -> None:
    """
    `prep_mkdirat` from the working folder.

    Fields: as prep_mkdirat.
    Lifetime: the path, until it was submitted.
    Results: 0.
    Kernel: 5.15.  Fallback: mkdir(2).
    Twin and source: io_uring_prep_mkdir(3).
    """
    prep_mkdirat(ring, k.AT_FDCWD, path, mode, user_data=user_data, flags=flags)


def prep_symlinkat(
    ring: Requests,
    content: Path,
    dir_fd: int,
    path: Path,
    *,
    user_data: int = 0,
    flags: int = 0,
) -> None:
    """
    Make a symbolic link.

    Args:
        content: What the link says.
        dir_fd: The folder that *path* starts from, or AT_FDCWD.

    Fields: fd, addr, off.
    Lifetime: both, until they were submitted.
    Results: 0.
    Kernel: 5.15.  Fallback: symlinkat(2).
    Twin and source: io_uring_prep_symlinkat(3).
    """
    addr, keep = path_of(content)
    new_addr, keep_too = path_of(path)
    ring.fill(
        k.IORING_OP_SYMLINKAT, dir_fd, new_addr, addr, 0, 0, user_data, flags,
        Passing(keep, keep_too),
    )  # fmt: skip


def prep_symlink(
    ring: Requests,
    content: Path,
    path: Path,
    *,
    user_data: int = 0,
    flags: int = 0,
) -> None:
    """
    `prep_symlinkat` from the working folder.

    Fields: as prep_symlinkat.
    Lifetime: both, until they were submitted.
    Results: 0.
    Kernel: 5.15.  Fallback: symlink(2).
    Twin and source: io_uring_prep_symlink(3).
    """
    prep_symlinkat(ring, content, k.AT_FDCWD, path, user_data=user_data, flags=flags)


def prep_linkat(
    ring: Requests,
    dir_fd: int,
    path: Path,
    new_dir_fd: int,
    new_path: Path,
    at_flags: int = 0,
    *,
    user_data: int = 0,
    flags: int = 0,
) -> None:
    """
    Give a file another name.

    Args:
        dir_fd, new_dir_fd: The folders that relative paths start from, or AT_FDCWD.
        at_flags: AT_SYMLINK_FOLLOW, AT_EMPTY_PATH.

    Fields: fd, addr, len (the new folder), off, hardlink_flags.
    Lifetime: both paths, until they were submitted.
    Results: 0.
    Kernel: 5.15.  Fallback: linkat(2).
    Twin and source: io_uring_prep_linkat(3).
    """
    addr, keep = path_of(path)
    new_addr, keep_too = path_of(new_path)
    ring.fill(
        k.IORING_OP_LINKAT, dir_fd, new_addr, addr, new_dir_fd, at_flags, user_data, flags,
        Passing(keep, keep_too),
    )  # fmt: skip


def prep_link(
    ring: Requests,
    path: Path,
    new_path: Path,
    at_flags: int = 0,
    *,
    user_data: int = 0,
    flags: int = 0,
) -> None:
    """
    `prep_linkat` from the working folder.

    Fields: as prep_linkat.
    Lifetime: both paths, until they were submitted.
    Results: 0.
    Kernel: 5.15.  Fallback: link(2).
    Twin and source: io_uring_prep_link(3).
    """
    prep_linkat(
        ring, k.AT_FDCWD, path, k.AT_FDCWD, new_path, at_flags, user_data=user_data, flags=flags
    )


def prep_fsetxattr(
    ring: Requests,
    fd: int,
    name: Path,
    value: Source,
    xattr_flags: int = 0,
    *,
    len_bytes: int | None = None,
    user_data: int = 0,
    flags: int = 0,
) -> None:
    """
    Set an extended attribute of an open file.

    Args:
        xattr_flags: XATTR_CREATE, XATTR_REPLACE.

    Fields: fd, addr, off, len, xattr_flags.
    Lifetime: name and value, until they were submitted.
    Results: 0.
    Kernel: 5.19.  Fallback: fsetxattr(2).
    Twin and source: io_uring_prep_fsetxattr(3).
    """
    name_addr, keep = path_of(name)
    addr, size, keep_too = source(value, len_bytes)
    ring.fill(
        k.IORING_OP_FSETXATTR, fd, addr, name_addr, size, xattr_flags, user_data, flags,
        (keep, keep_too),
    )  # fmt: skip


def prep_setxattr(
    ring: Requests,
    name: Path,
    value: Source,
    path: Path,
    xattr_flags: int = 0,
    *,
    len_bytes: int | None = None,
    user_data: int = 0,
    flags: int = 0,
) -> None:
    """
    Set an extended attribute by path.

    Fields: addr, off, addr3, len, xattr_flags.
    Lifetime: name, value and path, until they were submitted.
    Results: 0.
    Kernel: 5.19.  Fallback: setxattr(2).
    Twin and source: io_uring_prep_setxattr(3).
    """
    name_addr, keep = path_of(name)
    addr, size, keep_too = source(value, len_bytes)
    path_addr, keep_path = path_of(path)
    ring.fill(
        k.IORING_OP_SETXATTR, 0, addr, name_addr, size, xattr_flags, user_data, flags,
        (keep, keep_too, keep_path), 0, 0, 0, path_addr,
    )  # fmt: skip


def prep_fgetxattr(
    ring: Requests,
    fd: int,
    name: Path,
    value: Target,
    *,
    len_bytes: int | None = None,
    user_data: int = 0,
    flags: int = 0,
) -> None:
    """
    Read an extended attribute of an open file.

    Fields: fd, addr, off, len.
    Lifetime: *value*; the name until it was submitted.
    Results: the value's length in bytes; ERANGE where there is less room.
    Kernel: 5.19.  Fallback: fgetxattr(2).
    Twin and source: io_uring_prep_fgetxattr(3).
    """
    name_addr, keep = path_of(name)
    addr, size, keep_too = target(value, len_bytes)
    ring.fill(
        k.IORING_OP_FGETXATTR, fd, addr, name_addr, size, 0, user_data, flags, (keep, keep_too)
    )


def prep_getxattr(
    ring: Requests,
    name: Path,
    value: Target,
    path: Path,
    *,
    len_bytes: int | None = None,
    user_data: int = 0,
    flags: int = 0,
) -> None:
    """
    Read an extended attribute by path.

    Fields: addr, off, addr3, len.
    Lifetime: *value*; name and path until they were submitted.
    Results: the value's length in bytes; ERANGE where there is less room.
    Kernel: 5.19.  Fallback: getxattr(2).
    Twin and source: io_uring_prep_getxattr(3).
    """
    name_addr, keep = path_of(name)
    addr, size, keep_too = target(value, len_bytes)
    path_addr, keep_path = path_of(path)
    ring.fill(
        k.IORING_OP_GETXATTR, 0, addr, name_addr, size, 0, user_data, flags,
        (keep, keep_too, keep_path), 0, 0, 0, path_addr,
    )  # fmt: skip
