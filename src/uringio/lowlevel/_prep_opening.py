"""
Requests that open, close and look up.

Each function fills one request of *ring*, a `Ring` or a single `Request`, and takes beside its own
arguments ``user_data``, which its completions carry, and ``flags`` (`SqeFlags`).  "Lifetime" names
what the kernel still touches later: given as an object it is kept by the ring, given as an address
it is the caller's to keep.  Results are those of ``res``; a negative one is always an errno.
"""

from uringio._sys import constants as k
from uringio._sys.layouts import OPEN_HOW

from ._filling import Requests
from ._memory import Passing, Path, Target, open_how_of, path_of, target
from ._slots import slot_of

__all__ = [
    "prep_close",
    "prep_close_direct",
    "prep_open",
    "prep_open_direct",
    "prep_openat",
    "prep_openat2",
    "prep_openat2_direct",
    "prep_openat_direct",
    "prep_statx",
]


def prep_openat(
    ring: Requests,
    dir_fd: int,
    path: Path,
    open_flags: int,
    mode: int = 0,
    *,
    user_data: int = 0,
    flags: int = 0,
) -> None:
    """
    Open a file.

    Args:
        dir_fd: The folder that a relative path starts from, AT_FDCWD for the working folder.
        open_flags: O_* flags; none is added, so name O_CLOEXEC.

    Fields: fd, addr, len (the mode), open_flags.
    Lifetime: the path, until it was submitted.
    Results: a descriptor.
    Kernel: 5.6.  Fallback: openat(2).
    Twin and source: io_uring_prep_openat(3).
    """
    addr, keep = path_of(path)
    ring.fill(k.IORING_OP_OPENAT, dir_fd, 0, addr, mode, open_flags, user_data, flags, keep)


def prep_open(
    ring: Requests,
    path: Path,
    open_flags: int,
    mode: int = 0,
    *,
    user_data: int = 0,
    flags: int = 0,
) -> None:
    """
    `prep_openat` from the working folder.

    Fields: as prep_openat.
    Lifetime: the path, until it was submitted.
    Results: a descriptor.
    Kernel: 5.6.  Fallback: open(2).
    Twin and source: io_uring_prep_open(3).
    """
    prep_openat(ring, k.AT_FDCWD, path, open_flags, mode, user_data=user_data, flags=flags)


def prep_openat_direct(
    ring: Requests,
    dir_fd: int,
    path: Path,
    open_flags: int,
    mode: int,
    file_index: int,
    *,
    user_data: int = 0,
    flags: int = 0,
) -> None:
    """
    Open a file into a slot of the registered files.

    Args:
        dir_fd: The folder that a relative path starts from, AT_FDCWD for the working folder.
        open_flags: O_* flags without O_CLOEXEC, which has no meaning here.
        file_index: The slot, or FILE_INDEX_ALLOC.

    Fields: as prep_openat, file_index.
    Lifetime: the path, until it was submitted.
    Results: 0, or the slot where the kernel chose it; ENFILE when all are taken.
    Kernel: 5.15.  Fallback: prep_openat.
    Twin and source: io_uring_prep_openat_direct(3).
    """
    addr, keep = path_of(path)
    ring.fill(
        k.IORING_OP_OPENAT, dir_fd, 0, addr, mode, open_flags, user_data, flags, keep, 0, 0,
        slot_of(file_index),
    )  # fmt: skip


def prep_open_direct(
    ring: Requests,
    path: Path,
    open_flags: int,
    mode: int,
    file_index: int,
    *,
    user_data: int = 0,
    flags: int = 0,
) -> None:
    """
    `prep_openat_direct` from the working folder.

    Fields: as prep_openat_direct.
    Lifetime: the path, until it was submitted.
    Results: as prep_openat_direct.
    Kernel: 5.15.  Fallback: prep_open.
    Twin and source: io_uring_prep_open_direct(3).
    """
    prep_openat_direct(
        ring, k.AT_FDCWD, path, open_flags, mode, file_index, user_data=user_data, flags=flags
    )


def prep_openat2(
    ring: Requests,
    dir_fd: int,
    path: Path,
    open_flags: int,
    mode: int = 0,
    resolve: int = 0,
    *,
    user_data: int = 0,
    flags: int = 0,
) -> None:
    """
    Open a file by rules of path resolution.

    Args:
        dir_fd: The folder that a relative path starts from, AT_FDCWD for the working folder.
        resolve: RESOLVE_* flags.

    Fields: fd, addr, len, off (struct open_how).
    Lifetime: the path, until it was submitted, and the rules.
    Results: a descriptor.
    Kernel: 5.6.  Fallback: openat2(2).
    Twin and source: io_uring_prep_openat2(3).
    """
    addr, keep = path_of(path)
    how, keep_too = open_how_of(open_flags, mode, resolve)
    ring.fill(
        k.IORING_OP_OPENAT2, dir_fd, how, addr, OPEN_HOW.size, 0, user_data, flags,
        Passing(keep, keep_too),
    )  # fmt: skip


def prep_openat2_direct(
    ring: Requests,
    dir_fd: int,
    path: Path,
    open_flags: int,
    mode: int,
    resolve: int,
    file_index: int,
    *,
    user_data: int = 0,
    flags: int = 0,
) -> None:
    """
    `prep_openat2` into a slot of the registered files.

    Fields: as prep_openat2, file_index.
    Lifetime: the path, until it was submitted, and the rules.
    Results: as prep_openat_direct.
    Kernel: 5.15.  Fallback: prep_openat2.
    Twin and source: io_uring_prep_openat2_direct(3).
    """
    addr, keep = path_of(path)
    how, keep_too = open_how_of(open_flags, mode, resolve)
    ring.fill(
        k.IORING_OP_OPENAT2, dir_fd, how, addr, OPEN_HOW.size, 0, user_data, flags,
        Passing(keep, keep_too), 0, 0, slot_of(file_index),
    )  # fmt: skip


def prep_close(
    ring: Requests,
    fd: int,
    *,
    user_data: int = 0,
    flags: int = 0,
) -> None:
    """
    Close a descriptor.

    Requests in flight on it go on, and keep its file open.

    Fields: fd.
    Lifetime: nothing.
    Results: 0.
    Kernel: 5.6.  Fallback: close(2).
    Twin and source: io_uring_prep_close(3).
    """
    ring.fill(k.IORING_OP_CLOSE, fd, 0, 0, 0, 0, user_data, flags)


def prep_close_direct(
    ring: Requests,
    file_index: int,
    *,
    user_data: int = 0,
    flags: int = 0,
) -> None:
    """
    Empty a slot of the registered files.

    Fields: file_index; `SqeFlags.FIXED_FILE` must not be set.
    Lifetime: nothing.
    Results: 0.
    Kernel: 5.15.  Fallback: register_files_update with -1.
    Twin and source: io_uring_prep_close_direct(3).
    """
    ring.fill(k.IORING_OP_CLOSE, 0, 0, 0, 0, 0, user_data, flags, None, 0, 0, slot_of(file_index))


def prep_statx(
    ring: Requests,
    dir_fd: int,
    path: Path,
    at_flags: int,
    mask: int,
    result: Target,
    *,
    user_data: int = 0,
    flags: int = 0,
) -> None:
    """
    Look up a file's metadata.

    Args:
        dir_fd: The folder that a relative path starts from, AT_FDCWD for the working folder.
        at_flags: AT_* flags.
        mask: STATX_* bits that are wanted.
        result: 256 bytes.

    Fields: fd, addr, len (the mask), off, statx_flags.
    Lifetime: *result*; the path until it was submitted.
    Results: 0; *result* holds a struct statx.
    Kernel: 5.6.  Fallback: statx(2).
    Twin and source: io_uring_prep_statx(3).
    """
    addr, keep = path_of(path)
    room, _, keep_too = target(result, k.SIZEOF_STATX)
    ring.fill(
        k.IORING_OP_STATX, dir_fd, room, addr, mask, at_flags, user_data, flags, (keep, keep_too)
    )
