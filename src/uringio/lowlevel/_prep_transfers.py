"""
Requests that read and write.

Each function fills one request of *ring*, a `Ring` or a single `Request`, and takes beside its own
arguments ``user_data``, which its completions carry, and ``flags`` (`SqeFlags`).  "Lifetime" names
what the kernel still touches later: given as an object it is kept by the ring, given as an address
it is the caller's to keep.  Results are those of ``res``; a negative one is always an errno.
"""

from uringio._sys import constants as k

from ._filling import Requests
from ._memory import Source, Target, Vectors, iovecs, source, target
from ._slots import selecting

__all__ = [
    "prep_read",
    "prep_read_fixed",
    "prep_read_multishot",
    "prep_readv",
    "prep_readv2",
    "prep_readv_fixed",
    "prep_write",
    "prep_write_fixed",
    "prep_writev",
    "prep_writev2",
    "prep_writev_fixed",
]


def prep_read(
    ring: Requests,
    fd: int,
    memory: Target,
    offset: int = -1,
    *,
    len_bytes: int | None = None,
    rw_flags: int = 0,
    buf_group: int | None = None,
    user_data: int = 0,
    flags: int = 0,
) -> None:
    """
    Read into one piece of memory.

    Args:
        offset: In the file; -1 is where the file stands, which moves it. [bytes]
        rw_flags: RWF_* flags.
        len_bytes: How much of the memory; all of it by default.
        buf_group: Take a provided buffer of this group instead of *memory*, which is 0.

    Fields: fd, addr, len, off, rw_flags, buf_group.
    Lifetime: *memory*.
    Results: bytes read, fewer than asked for near the end of a file, 0 at it.
    Kernel: 5.6.  Fallback: preadv2(2).
    Twin and source: io_uring_prep_read(3).
    """
    addr, size, keep = target(memory, len_bytes)
    flags, group = selecting(flags, buf_group)
    ring.fill(k.IORING_OP_READ, fd, offset, addr, size, rw_flags, user_data, flags, keep, 0, group)


def prep_write(
    ring: Requests,
    fd: int,
    memory: Source,
    offset: int = -1,
    *,
    len_bytes: int | None = None,
    rw_flags: int = 0,
    user_data: int = 0,
    flags: int = 0,
) -> None:
    """
    Write one piece of memory.

    Args:
        offset: In the file; -1 is where the file stands, which moves it. [bytes]
        rw_flags: RWF_* flags.
        len_bytes: How much of the memory; all of it by default.

    Fields: fd, addr, len, off, rw_flags.
    Lifetime: *memory*.
    Results: bytes written, which may be fewer.
    Kernel: 5.6.  Fallback: pwritev2(2).
    Twin and source: io_uring_prep_write(3).
    """
    addr, size, keep = source(memory, len_bytes)
    ring.fill(k.IORING_OP_WRITE, fd, offset, addr, size, rw_flags, user_data, flags, keep)


def prep_read_fixed(
    ring: Requests,
    fd: int,
    memory: Target,
    offset: int = -1,
    buf_index: int = 0,
    *,
    len_bytes: int | None = None,
    rw_flags: int = 0,
    user_data: int = 0,
    flags: int = 0,
) -> None:
    """
    Read into memory that was registered.

    Args:
        offset: In the file; -1 is where the file stands, which moves it. [bytes]
        rw_flags: RWF_* flags.
        len_bytes: How much of the memory; all of it by default.
        buf_index: Which registered buffer *memory* lies in.

    Fields: fd, addr, len, off, rw_flags, buf_index.
    Lifetime: *memory*.
    Results: bytes read.
    Kernel: 5.1.  Fallback: prep_read.
    Twin and source: io_uring_prep_read_fixed(3).
    """
    addr, size, keep = target(memory, len_bytes)
    ring.fill(
        k.IORING_OP_READ_FIXED,
        fd,
        offset,
        addr,
        size,
        rw_flags,
        user_data,
        flags,
        keep,
        0,
        buf_index,
    )


def prep_write_fixed(
    ring: Requests,
    fd: int,
    memory: Source,
    offset: int = -1,
    buf_index: int = 0,
    *,
    len_bytes: int | None = None,
    rw_flags: int = 0,
    user_data: int = 0,
    flags: int = 0,
) -> None:
    """
    Write memory that was registered.

    Args:
        offset: In the file; -1 is where the file stands, which moves it. [bytes]
        rw_flags: RWF_* flags.
        len_bytes: How much of the memory; all of it by default.
        buf_index: Which registered buffer *memory* lies in.

    Fields: fd, addr, len, off, rw_flags, buf_index.
    Lifetime: *memory*.
    Results: bytes written.
    Kernel: 5.1.  Fallback: prep_write.
    Twin and source: io_uring_prep_write_fixed(3).
    """
    addr, size, keep = source(memory, len_bytes)
    ring.fill(
        k.IORING_OP_WRITE_FIXED,
        fd,
        offset,
        addr,
        size,
        rw_flags,
        user_data,
        flags,
        keep,
        0,
        buf_index,
    )


def prep_readv(
    ring: Requests,
    fd: int,
    vectors: Vectors,
    offset: int = -1,
    *,
    user_data: int = 0,
    flags: int = 0,
) -> None:
    """
    Read into several pieces of memory, in order.

    Fields: fd, addr, len, off.
    Lifetime: *vectors* and what they hold.
    Results: bytes read.
    Kernel: 5.1.  Fallback: preadv(2).
    Twin and source: io_uring_prep_readv(3).
    """
    addr, count = iovecs(vectors, writable=True)
    ring.fill(k.IORING_OP_READV, fd, offset, addr, count, 0, user_data, flags, vectors)


def prep_readv2(
    ring: Requests,
    fd: int,
    vectors: Vectors,
    offset: int = -1,
    rw_flags: int = 0,
    *,
    user_data: int = 0,
    flags: int = 0,
) -> None:
    """
    `prep_readv` with RWF_* flags.

    Fields: fd, addr, len, off, rw_flags.
    Lifetime: *vectors* and what they hold.
    Results: bytes read.
    Kernel: 5.1.  Fallback: preadv2(2).
    Twin and source: io_uring_prep_readv2(3).
    """
    addr, count = iovecs(vectors, writable=True)
    ring.fill(
        k.IORING_OP_READV,
        fd,
        offset,
        addr,
        count,
        rw_flags,
        user_data,
        flags,
        vectors,
    )


def prep_writev(
    ring: Requests,
    fd: int,
    vectors: Vectors,
    offset: int = -1,
    *,
    user_data: int = 0,
    flags: int = 0,
) -> None:
    """
    Write several pieces of memory, in order.

    Fields: fd, addr, len, off.
    Lifetime: *vectors* and what they hold.
    Results: bytes written.
    Kernel: 5.1.  Fallback: pwritev(2).
    Twin and source: io_uring_prep_writev(3).
    """
    addr, count = iovecs(vectors)
    ring.fill(k.IORING_OP_WRITEV, fd, offset, addr, count, 0, user_data, flags, vectors)


def prep_writev2(
    ring: Requests,
    fd: int,
    vectors: Vectors,
    offset: int = -1,
    rw_flags: int = 0,
    *,
    user_data: int = 0,
    flags: int = 0,
) -> None:
    """
    `prep_writev` with RWF_* flags.

    Fields: fd, addr, len, off, rw_flags.
    Lifetime: *vectors* and what they hold.
    Results: bytes written.
    Kernel: 5.1.  Fallback: pwritev2(2).
    Twin and source: io_uring_prep_writev2(3).
    """
    addr, count = iovecs(vectors)
    ring.fill(
        k.IORING_OP_WRITEV,
        fd,
        offset,
        addr,
        count,
        rw_flags,
        user_data,
        flags,
        vectors,
    )


def prep_readv_fixed(
    ring: Requests,
    fd: int,
    vectors: Vectors,
    offset: int = -1,
    rw_flags: int = 0,
    buf_index: int = 0,
    *,
    user_data: int = 0,
    flags: int = 0,
) -> None:
    """
    Read into several pieces of one registered buffer.

    Fields: fd, addr, len, off, rw_flags, buf_index.
    Lifetime: *vectors* and what they hold.
    Results: bytes read.
    Kernel: 6.15.  Fallback: prep_readv2.
    Twin and source: io_uring_prep_readv_fixed(3).
    """
    addr, count = iovecs(vectors, writable=True)
    ring.fill(
        k.IORING_OP_READV_FIXED,
        fd,
        offset,
        addr,
        count,
        rw_flags,
        user_data,
        flags,
        vectors,
        0,
        buf_index,
    )


def prep_writev_fixed(
    ring: Requests,
    fd: int,
    vectors: Vectors,
    offset: int = -1,
    rw_flags: int = 0,
    buf_index: int = 0,
    *,
    user_data: int = 0,
    flags: int = 0,
) -> None:
    """
    Write several pieces of one registered buffer.

    Fields: fd, addr, len, off, rw_flags, buf_index.
    Lifetime: *vectors* and what they hold.
    Results: bytes written.
    Kernel: 6.15.  Fallback: prep_writev2.
    Twin and source: io_uring_prep_writev_fixed(3).
    """
    addr, count = iovecs(vectors)
    ring.fill(
        k.IORING_OP_WRITEV_FIXED,
        fd,
        offset,
        addr,
        count,
        rw_flags,
        user_data,
        flags,
        vectors,
        0,
        buf_index,
    )


def prep_read_multishot(
    ring: Requests,
    fd: int,
    len_bytes: int,
    offset: int,
    buf_group: int,
    *,
    user_data: int = 0,
    flags: int = 0,
) -> None:
    """
    Read each time there is something, into provided buffers.

    Args:
        len_bytes: The most for each; 0: as much as a buffer holds.

    For what can be polled, such as pipes, eventfds, inotify; not for regular files.

    Fields: fd, len, off, buf_group.
    Lifetime: the buffers of the group.
    Results: bytes in the buffer that the completion names; ends without CqeFlags.MORE, at the
        end of a file or with ENOBUFS.
    Kernel: 6.7.  Fallback: prep_read with buf_group, again and again.
    Twin and source: io_uring_prep_read_multishot(3).
    """
    ring.fill(
        k.IORING_OP_READ_MULTISHOT, fd, offset, 0, len_bytes, 0, user_data,
        flags | k.IOSQE_BUFFER_SELECT, None, 0, buf_group,
    )  # fmt: skip
