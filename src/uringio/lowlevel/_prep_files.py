"""
Requests on open files and pipes beside reading and writing.

Each function fills one request of *ring*, a `Ring` or a single `Request`, and takes beside its own
arguments ``user_data``, which its completions carry, and ``flags`` (`SqeFlags`).  "Lifetime" names
what the kernel still touches later: given as an object it is kept by the ring, given as an address
it is the caller's to keep.  Results are those of ``res``; a negative one is always an errno.
"""

from uringio._sys import constants as k

from ._filling import Requests
from ._memory import Target, target
from ._slots import slot_of

__all__ = [
    "prep_fadvise",
    "prep_fadvise64",
    "prep_fallocate",
    "prep_fsync",
    "prep_ftruncate",
    "prep_madvise",
    "prep_madvise64",
    "prep_pipe",
    "prep_pipe_direct",
    "prep_splice",
    "prep_sync_file_range",
    "prep_tee",
]


def prep_fsync(
    ring: Requests,
    fd: int,
    fsync_flags: int = 0,
    *,
    user_data: int = 0,
    flags: int = 0,
) -> None:
    """
    Have a file's content and metadata reach the disk.

    Args:
        fsync_flags: `FsyncFlags`.

    Fields: fd, fsync_flags.
    Lifetime: nothing.
    Results: 0.
    Kernel: 5.1.  Fallback: fsync(2), fdatasync(2).
    Twin and source: io_uring_prep_fsync(3).
    """
    ring.fill(k.IORING_OP_FSYNC, fd, 0, 0, 0, fsync_flags, user_data, flags)


def prep_sync_file_range(
    ring: Requests,
    fd: int,
    len_bytes: int,
    offset: int,
    sync_flags: int,
    *,
    user_data: int = 0,
    flags: int = 0,
) -> None:
    """
    Write back a range of a file, without its metadata.

    Args:
        sync_flags: SYNC_FILE_RANGE_* flags.

    Fields: fd, len, off, sync_range_flags.
    Lifetime: nothing.
    Results: 0.
    Kernel: 5.2.  Fallback: sync_file_range(2).
    Twin and source: io_uring_prep_sync_file_range(3).
    """
    ring.fill(k.IORING_OP_SYNC_FILE_RANGE, fd, offset, 0, len_bytes, sync_flags, user_data, flags)


def prep_fallocate(
    ring: Requests,
    fd: int,
    mode: int,
    offset: int,
    len_bytes: int,
    *,
    user_data: int = 0,
    flags: int = 0,
) -> None:
    """
    Reserve, free or zero the blocks of a range of a file.

    Args:
        mode: FALLOC_FL_* flags, 0 to reserve.

    Fields: fd, len (the mode), off, addr (the length).
    Lifetime: nothing.
    Results: 0.
    Kernel: 5.6.  Fallback: fallocate(2).
    Twin and source: io_uring_prep_fallocate(3).
    """
    ring.fill(k.IORING_OP_FALLOCATE, fd, offset, len_bytes, mode, 0, user_data, flags)


def prep_ftruncate(
    ring: Requests,
    fd: int,
    len_bytes: int,
    *,
    user_data: int = 0,
    flags: int = 0,
) -> None:
    """
    Set a file's length.

    Fields: fd, off.
    Lifetime: nothing.
    Results: 0.
    Kernel: 6.9.  Fallback: ftruncate(2).
    Twin and source: io_uring_prep_ftruncate(3).
    """
    ring.fill(k.IORING_OP_FTRUNCATE, fd, len_bytes, 0, 0, 0, user_data, flags)


def prep_fadvise(
    ring: Requests,
    fd: int,
    offset: int,
    len_bytes: int,
    advice: int,
    *,
    user_data: int = 0,
    flags: int = 0,
) -> None:
    """
    Say how a range of a file will be used.

    Args:
        advice: POSIX_FADV_* number.
        len_bytes: Below 4 GiB; 0: to the end.

    Fields: fd, off, len, fadvise_advice.
    Lifetime: nothing.
    Results: 0.
    Kernel: 5.6.  Fallback: posix_fadvise(2).
    Twin and source: io_uring_prep_fadvise(3).
    """
    ring.fill(k.IORING_OP_FADVISE, fd, offset, 0, len_bytes, advice, user_data, flags)


def prep_fadvise64(
    ring: Requests,
    fd: int,
    offset: int,
    len_bytes: int,
    advice: int,
    *,
    user_data: int = 0,
    flags: int = 0,
) -> None:
    """
    `prep_fadvise` of a range of any length.

    Fields: fd, off, addr (the length), fadvise_advice.
    Lifetime: nothing.
    Results: 0.
    Kernel: 6.10.  Fallback: prep_fadvise.
    Twin and source: io_uring_prep_fadvise64(3).
    """
    ring.fill(k.IORING_OP_FADVISE, fd, offset, len_bytes, 0, advice, user_data, flags)


def prep_madvise(
    ring: Requests,
    memory: Target,
    advice: int,
    *,
    len_bytes: int | None = None,
    user_data: int = 0,
    flags: int = 0,
) -> None:
    """
    Say how a range of memory will be used.

    Args:
        memory: Starting at a page, such as `allocate` gives.
        advice: MADV_* number.

    Fields: addr, len, fadvise_advice.
    Lifetime: *memory*.
    Results: 0.
    Kernel: 5.6.  Fallback: madvise(2).
    Twin and source: io_uring_prep_madvise(3).
    """
    addr, size, keep = target(memory, len_bytes)
    ring.fill(k.IORING_OP_MADVISE, -1, 0, addr, size, advice, user_data, flags, keep)


def prep_madvise64(
    ring: Requests,
    memory: Target,
    advice: int,
    *,
    len_bytes: int | None = None,
    user_data: int = 0,
    flags: int = 0,
) -> None:
    """
    `prep_madvise` of a range of any length.

    Fields: addr, off (the length), fadvise_advice.
    Lifetime: *memory*.
    Results: 0.
    Kernel: 6.10.  Fallback: prep_madvise.
    Twin and source: io_uring_prep_madvise64(3).
    """
    addr, size, keep = target(memory, len_bytes)
    ring.fill(k.IORING_OP_MADVISE, -1, size, addr, 0, advice, user_data, flags, keep)


def prep_splice(
    ring: Requests,
    fd_in: int,
    offset_in: int,
    fd_out: int,
    offset_out: int,
    len_bytes: int,
    splice_flags: int = 0,
    *,
    user_data: int = 0,
    flags: int = 0,
) -> None:
    """
    Move bytes within the kernel, from or to a pipe.

    Args:
        offset_in, offset_out: In the file; -1 for a pipe, and for where a file stands. [bytes]
        splice_flags: `SpliceFlags`.

    Always runs in a worker thread of the kernel's.

    Fields: fd, off, splice_off_in, len, splice_fd_in, splice_flags.
    Lifetime: nothing.
    Results: bytes moved, 0 at the end.
    Kernel: 5.7.  Fallback: splice(2).
    Twin and source: io_uring_prep_splice(3).
    """
    ring.fill(
        k.IORING_OP_SPLICE, fd_out, offset_out, offset_in, len_bytes, splice_flags, user_data,
        flags, None, 0, 0, fd_in,
    )  # fmt: skip


def prep_tee(
    ring: Requests,
    fd_in: int,
    fd_out: int,
    len_bytes: int,
    splice_flags: int = 0,
    *,
    user_data: int = 0,
    flags: int = 0,
) -> None:
    """
    Copy bytes from one pipe into another, and leave them in the first.

    Fields: fd, len, splice_fd_in, splice_flags.
    Lifetime: nothing.
    Results: bytes copied.
    Kernel: 5.8.  Fallback: tee(2).
    Twin and source: io_uring_prep_tee(3).
    """
    ring.fill(
        k.IORING_OP_TEE, fd_out, 0, 0, len_bytes, splice_flags, user_data, flags, None, 0, 0, fd_in
    )


def prep_pipe(
    ring: Requests,
    ends: Target,
    pipe_flags: int = 0,
    *,
    user_data: int = 0,
    flags: int = 0,
) -> None:
    """
    Make a pipe.

    Args:
        ends: 8 bytes, for two C ints.
        pipe_flags: O_CLOEXEC, O_NONBLOCK, O_DIRECT.

    Fields: addr, pipe_flags.
    Lifetime: *ends*.
    Results: 0; the two descriptors stand in *ends*, to read from and to write to.
    Kernel: 6.16.  Fallback: pipe2(2).
    Twin and source: io_uring_prep_pipe(3).
    """
    addr, _, keep = target(ends, 8)
    ring.fill(k.IORING_OP_PIPE, 0, 0, addr, 0, pipe_flags, user_data, flags, keep)


def prep_pipe_direct(
    ring: Requests,
    ends: Target,
    pipe_flags: int,
    file_index: int,
    *,
    user_data: int = 0,
    flags: int = 0,
) -> None:
    """
    Make a pipe among the registered files.

    Args:
        file_index: The first of two slots, or FILE_INDEX_ALLOC.

    Fields: addr, pipe_flags, file_index.
    Lifetime: *ends*.
    Results: 0; the slots stand in *ends* where the kernel chose them.
    Kernel: 6.16.  Fallback: prep_pipe.
    Twin and source: io_uring_prep_pipe_direct(3).
    """
    addr, _, keep = target(ends, 8)
    ring.fill(
        k.IORING_OP_PIPE,
        0,
        0,
        addr,
        0,
        pipe_flags,
        user_data,
        flags,
        keep,
        0,
        0,
        slot_of(file_index),
    )
