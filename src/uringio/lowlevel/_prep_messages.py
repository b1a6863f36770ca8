"""
Requests that send and receive.

Each function fills one request of *ring*, a `Ring` or a single `Request`, and takes beside its own
arguments ``user_data``, which its completions carry, and ``flags`` (`SqeFlags`).  "Lifetime" names
what the kernel still touches later: given as an object it is kept by the ring, given as an address
it is the caller's to keep.  Results are those of ``res``; a negative one is always an errno.
"""

from uringio._sys import constants as k

from ._filling import Requests
from ._memory import Message, Source, Target, header, sockaddr_of, source, target
from ._slots import addr_len, selecting

__all__ = [
    "prep_recv",
    "prep_recv_multishot",
    "prep_recv_zc",
    "prep_recvmsg",
    "prep_recvmsg_multishot",
    "prep_send",
    "prep_send_bundle",
    "prep_send_set_addr",
    "prep_send_zc",
    "prep_send_zc_fixed",
    "prep_sendmsg",
    "prep_sendmsg_zc",
    "prep_sendmsg_zc_fixed",
    "prep_sendto",
]


def prep_send(
    ring: Requests,
    fd: int,
    memory: Source,
    msg_flags: int = 0,
    *,
    len_bytes: int | None = None,
    ioprio: int = 0,
    buf_group: int | None = None,
    user_data: int = 0,
    flags: int = 0,
) -> None:
    """
    Send on a connected socket.

    Args:
        msg_flags: MSG_* flags.
        ioprio: `RecvSendFlags`.
        buf_group: Send a provided buffer instead; *memory* is 0.  Kernel: 6.10.

    Fields: fd, addr, len, msg_flags, ioprio, buf_group.
    Lifetime: *memory*.
    Results: bytes sent, which may be fewer, except with MSG_WAITALL.
    Kernel: 5.6.  Fallback: send(2).
    Twin and source: io_uring_prep_send(3).
    """
    addr, size, keep = source(memory, len_bytes)
    flags, group = selecting(flags, buf_group)
    ring.fill(k.IORING_OP_SEND, fd, 0, addr, size, msg_flags, user_data, flags, keep, ioprio, group)


def prep_sendto(
    ring: Requests,
    fd: int,
    memory: Source,
    msg_flags: int,
    sockaddr: Source,
    *,
    len_bytes: int | None = None,
    sockaddr_bytes: int | None = None,
    ioprio: int = 0,
    user_data: int = 0,
    flags: int = 0,
) -> None:
    """
    Send to an address.

    Fields: as prep_send, addr2, addr_len.
    Lifetime: *memory*; the address until it was submitted.
    Results: bytes sent.
    Kernel: 6.0.  Fallback: sendto(2).
    Twin and source: io_uring_prep_sendto(3).
    """
    addr, size, keep = source(memory, len_bytes)
    to_addr, to_size, keep_too = sockaddr_of(sockaddr, sockaddr_bytes)
    ring.fill(
        k.IORING_OP_SEND, fd, to_addr, addr, size, msg_flags, user_data, flags, (keep, keep_too),
        ioprio, 0, addr_len(to_size),
    )  # fmt: skip


def prep_send_set_addr(ring: Requests, sockaddr: Source, *, len_bytes: int | None = None) -> None:
    """
    Have the request that was filled last, a SEND or SEND_ZC, go to an address.

    Fields: addr2, addr_len.
    Lifetime: the address, until it was submitted.
    Kernel: 6.0.  Fallback: sendto(2).  Twin and source: io_uring_prep_send_set_addr(3).

    Raises:
        UsageError: The last request is another, or was submitted already.
    """
    addr, size, keep = sockaddr_of(sockaddr, len_bytes)
    ring.address(addr, size, keep)


def prep_send_bundle(
    ring: Requests,
    fd: int,
    len_bytes: int,
    msg_flags: int,
    buf_group: int,
    *,
    user_data: int = 0,
    flags: int = 0,
) -> None:
    """
    Send several provided buffers by one request.

    Args:
        len_bytes: The most; 0: all that is provided.

    Fields: fd, len, msg_flags, ioprio, buf_group.
    Lifetime: the buffers of the group.
    Results: bytes sent; the first buffer stands in the flags, the others follow it in the ring.
    Kernel: 6.10.  Fallback: prep_send with buf_group.
    Twin and source: io_uring_prep_send_bundle(3).
    """
    ring.fill(
        k.IORING_OP_SEND, fd, 0, 0, len_bytes, msg_flags, user_data, flags | k.IOSQE_BUFFER_SELECT,
        None, k.IORING_RECVSEND_BUNDLE, buf_group,
    )  # fmt: skip


def prep_send_zc(
    ring: Requests,
    fd: int,
    memory: Source,
    msg_flags: int = 0,
    zc_flags: int = 0,
    *,
    len_bytes: int | None = None,
    user_data: int = 0,
    flags: int = 0,
) -> None:
    """
    Send without a copy.

    Args:
        zc_flags: `RecvSendFlags`.

    Fields: fd, addr, len, msg_flags, ioprio.
    Lifetime: *memory*, until the second completion.
    Results: bytes sent; with CqeFlags.MORE a second one follows, with CqeFlags.NOTIF, when the
        memory is free.
    Kernel: 6.0.  Fallback: prep_send.
    Twin and source: io_uring_prep_send_zc(3).
    """
    addr, size, keep = source(memory, len_bytes)
    ring.fill(k.IORING_OP_SEND_ZC, fd, 0, addr, size, msg_flags, user_data, flags, keep, zc_flags)


def prep_send_zc_fixed(
    ring: Requests,
    fd: int,
    memory: Source,
    msg_flags: int,
    zc_flags: int,
    buf_index: int,
    *,
    len_bytes: int | None = None,
    user_data: int = 0,
    flags: int = 0,
) -> None:
    """
    `prep_send_zc` of memory that was registered.

    Fields: as prep_send_zc, buf_index.
    Lifetime: *memory*, until the second completion.
    Results: as prep_send_zc.
    Kernel: 6.0.  Fallback: prep_send_zc.
    Twin and source: io_uring_prep_send_zc_fixed(3).
    """
    addr, size, keep = source(memory, len_bytes)
    ring.fill(
        k.IORING_OP_SEND_ZC, fd, 0, addr, size, msg_flags, user_data, flags, keep,
        zc_flags | k.IORING_RECVSEND_FIXED_BUF, buf_index,
    )  # fmt: skip


def prep_sendmsg(
    ring: Requests,
    fd: int,
    message: Message,
    msg_flags: int = 0,
    *,
    ioprio: int = 0,
    user_data: int = 0,
    flags: int = 0,
) -> None:
    """
    Send a message.

    Fields: fd, addr, len (1), msg_flags, ioprio.
    Lifetime: *message* and all that it points to.
    Results: bytes sent.
    Kernel: 5.3.  Fallback: sendmsg(2).
    Twin and source: io_uring_prep_sendmsg(3).
    """
    addr = header(message)
    ring.fill(k.IORING_OP_SENDMSG, fd, 0, addr, 1, msg_flags, user_data, flags, message, ioprio)


def prep_sendmsg_zc(
    ring: Requests,
    fd: int,
    message: Message,
    msg_flags: int = 0,
    *,
    ioprio: int = 0,
    user_data: int = 0,
    flags: int = 0,
) -> None:
    """
    Send a message without a copy.

    Fields: fd, addr, len (1), msg_flags, ioprio.
    Lifetime: *message* and all that it points to.
    Results: as prep_send_zc.
    Kernel: 6.1.  Fallback: prep_sendmsg.
    Twin and source: io_uring_prep_sendmsg_zc(3).
    """
    addr = header(message)
    ring.fill(k.IORING_OP_SENDMSG_ZC, fd, 0, addr, 1, msg_flags, user_data, flags, message, ioprio)


def prep_sendmsg_zc_fixed(
    ring: Requests,
    fd: int,
    message: Message,
    msg_flags: int = 0,
    buf_index: int = 0,
    *,
    ioprio: int = 0,
    user_data: int = 0,
    flags: int = 0,
) -> None:
    """
    `prep_sendmsg_zc` of memory that was registered.

    Fields: fd, addr, len (1), msg_flags, ioprio.
    Lifetime: *message* and all that it points to.
    Results: as prep_send_zc.
    Kernel: 6.15.  Fallback: prep_sendmsg_zc.
    Twin and source: io_uring_prep_sendmsg_zc_fixed(3).
    """
    addr = header(message)
    ring.fill(
        k.IORING_OP_SENDMSG_ZC,
        fd,
        0,
        addr,
        1,
        msg_flags,
        user_data,
        flags,
        message,
        ioprio | k.IORING_RECVSEND_FIXED_BUF,
        buf_index,
    )


def prep_recvmsg(
    ring: Requests,
    fd: int,
    message: Message,
    msg_flags: int = 0,
    *,
    ioprio: int = 0,
    buf_group: int | None = None,
    user_data: int = 0,
    flags: int = 0,
) -> None:
    """
    Receive a message.

    Fields: fd, addr, len (1), msg_flags, ioprio, buf_group.
    Lifetime: *message* and all that it points to.
    Results: bytes received; *message* tells the rest.
    Kernel: 5.3.  Fallback: recvmsg(2).
    Twin and source: io_uring_prep_recvmsg(3).
    """
    flags, group = selecting(flags, buf_group)
    addr = header(message, writable=True)
    ring.fill(
        k.IORING_OP_RECVMSG, fd, 0, addr, 1, msg_flags, user_data, flags, message, ioprio,
        group,
    )  # fmt: skip


def prep_recvmsg_multishot(
    ring: Requests,
    fd: int,
    message: Message,
    buf_group: int,
    msg_flags: int = 0,
    *,
    ioprio: int = 0,
    user_data: int = 0,
    flags: int = 0,
) -> None:
    """
    Receive each message that comes, into provided buffers.

    Fields: as prep_recvmsg.
    Lifetime: *message*, and the buffers of the group.
    Results: bytes in the buffer, which starts with a struct io_uring_recvmsg_out; see
        `unpack_recvmsg`.
    Kernel: 6.0.  Fallback: prep_recvmsg, again and again.
    Twin and source: io_uring_prep_recvmsg_multishot(3).
    """
    addr = header(message, writable=True)
    ring.fill(
        k.IORING_OP_RECVMSG, fd, 0, addr, 1, msg_flags, user_data,
        flags | k.IOSQE_BUFFER_SELECT, message, ioprio | k.IORING_RECV_MULTISHOT, buf_group,
    )  # fmt: skip


def prep_recv(
    ring: Requests,
    fd: int,
    memory: Target,
    msg_flags: int = 0,
    *,
    len_bytes: int | None = None,
    ioprio: int = 0,
    buf_group: int | None = None,
    user_data: int = 0,
    flags: int = 0,
) -> None:
    """
    Receive from a socket.

    Args:
        buf_group: Take a provided buffer of this group; *memory* is 0.
        ioprio: `RecvSendFlags`.

    Fields: fd, addr, len, msg_flags, ioprio, buf_group.
    Lifetime: *memory*.
    Results: bytes received, 0 at the end of a stream.
    Kernel: 5.6.  Fallback: recv(2).
    Twin and source: io_uring_prep_recv(3).
    """
    addr, size, keep = target(memory, len_bytes)
    flags, group = selecting(flags, buf_group)
    ring.fill(k.IORING_OP_RECV, fd, 0, addr, size, msg_flags, user_data, flags, keep, ioprio, group)


def prep_recv_multishot(
    ring: Requests,
    fd: int,
    buf_group: int,
    msg_flags: int = 0,
    *,
    ioprio: int = 0,
    user_data: int = 0,
    flags: int = 0,
) -> None:
    """
    Receive each time something comes, into provided buffers.

    Fields: fd, msg_flags, ioprio, buf_group.
    Lifetime: the buffers of the group.
    Results: bytes in the buffer that the completion names; ends without CqeFlags.MORE, as with
        ENOBUFS.
    Kernel: 6.0.  Fallback: prep_recv with buf_group, again and again.
    Twin and source: io_uring_prep_recv_multishot(3).
    """
    ring.fill(
        k.IORING_OP_RECV, fd, 0, 0, 0, msg_flags, user_data, flags | k.IOSQE_BUFFER_SELECT, None,
        ioprio | k.IORING_RECV_MULTISHOT, buf_group,
    )  # fmt: skip


def prep_recv_zc(
    ring: Requests,
    fd: int,
    zcrx_id: int,
    len_bytes: int = 0,
    *,
    user_data: int = 0,
    flags: int = 0,
) -> None:
    """
    Receive into the memory of a network card's queue that was taken over.

    liburing has no such function.  Needs CQE32 or CQE_MIXED, and DEFER_TASKRUN.

    Fields: fd, len, zcrx_ifq_idx, ioprio.
    Lifetime: the registered area.
    Results: bytes, whose place the completion's other 16 bytes tell.
    Kernel: 6.15.  Fallback: prep_recv.
    Source: io_uring_enter(2).
    """
    ring.fill(
        k.IORING_OP_RECV_ZC, fd, 0, 0, len_bytes, 0, user_data, flags, None,
        k.IORING_RECV_MULTISHOT, 0, zcrx_id,
    )  # fmt: skip
