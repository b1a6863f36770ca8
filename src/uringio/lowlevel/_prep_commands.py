"""
Requests that are commands: of sockets, devices, and epoll descriptors.

Each function fills one request of *ring*, a `Ring` or a single `Request`, and takes beside its own
arguments ``user_data``, which its completions carry, and ``flags`` (`SqeFlags`).  "Lifetime" names
what the kernel still touches later: given as an object it is kept by the ring, given as an address
it is the caller's to keep.  Results are those of ``res``; a negative one is always an errno.
"""

from uringio._sys import constants as k
from uringio._sys.layouts import EPOLL_EVENT

from ._filling import Requests
from ._memory import Source, Target, sockaddr_of, sockaddr_room, source, target, writable
from ._slots import command_number, level_and_option

__all__ = [
    "prep_cmd_discard",
    "prep_cmd_getsockname",
    "prep_cmd_sock",
    "prep_cmd_zone_reset_all",
    "prep_epoll_ctl",
    "prep_epoll_wait",
    "prep_uring_cmd",
    "prep_uring_cmd128",
]


def prep_epoll_ctl(
    ring: Requests,
    epoll_fd: int,
    fd: int,
    op: int,
    event: Source,
    *,
    user_data: int = 0,
    flags: int = 0,
) -> None:
    """
    Change what an epoll descriptor watches.

    Args:
        op: EPOLL_CTL_* number.
        event: As `pack_epoll_event` writes it.

    Fields: fd, addr, len (the operation), off (the descriptor).
    Lifetime: the event, until it was submitted.
    Results: 0.
    Kernel: 5.6.  Fallback: epoll_ctl(2).
    Twin and source: io_uring_prep_epoll_ctl(3).
    """
    addr, _, keep = sockaddr_of(event, EPOLL_EVENT.size)
    ring.fill(k.IORING_OP_EPOLL_CTL, epoll_fd, fd, addr, op, 0, user_data, flags, keep)


def prep_epoll_wait(
    ring: Requests,
    epoll_fd: int,
    events: Target,
    count: int,
    wait_flags: int = 0,
    *,
    user_data: int = 0,
    flags: int = 0,
) -> None:
    """
    Take events from an epoll descriptor.

    Args:
        events: Room for *count* of them; read by `unpack_epoll_events`.

    Fields: fd, addr, len (the most), rw_flags.
    Lifetime: *events*.
    Results: how many events stand in *events*.
    Kernel: 6.15.  Fallback: epoll_wait(2).
    Twin and source: io_uring_prep_epoll_wait(3).
    """
    addr, _, keep = target(events, count * EPOLL_EVENT.size)
    ring.fill(k.IORING_OP_EPOLL_WAIT, epoll_fd, 0, addr, count, wait_flags, user_data, flags, keep)


def prep_uring_cmd(
    ring: Requests,
    command_op: int,
    fd: int,
    command: bytes = b"",
    *,
    cmd_flags: int = 0,
    user_data: int = 0,
    flags: int = 0,
) -> None:
    """
    Give a command to the file's own driver or protocol.

    Args:
        command: Up to 16 bytes, on a ring with SQE128 up to 80.
        cmd_flags: `UringCmdFlags`.

    Fields: fd, cmd_op, cmd.
    Lifetime: what the command points to, which is the caller's.
    Results: the command's.
    Kernel: 5.19.  Fallback: ioctl(2), as far as there is one.
    Twin and source: io_uring_prep_uring_cmd(3).
    """
    ring.fill(
        k.IORING_OP_URING_CMD, fd, command_number(command_op), 0, 0, cmd_flags, user_data, flags,
        None, 0, 0, 0, 0, 0, command,
    )  # fmt: skip


def prep_uring_cmd128(
    ring: Requests,
    command_op: int,
    fd: int,
    command: bytes = b"",
    *,
    cmd_flags: int = 0,
    user_data: int = 0,
    flags: int = 0,
) -> None:
    """
    `prep_uring_cmd` with up to 80 bytes, on any ring of large or mixed requests.

    Fields: as prep_uring_cmd.
    Lifetime: what the command points to, which is the caller's.
    Results: the command's.
    Kernel: 6.19.  Fallback: prep_uring_cmd on a ring with SQE128.
    Twin and source: io_uring_prep_uring_cmd128(3).
    """
    ring.fill(
        k.IORING_OP_URING_CMD128, fd, command_number(command_op), 0, 0, cmd_flags, user_data,
        flags, None, 0, 0, 0, 0, 0, command,
    )  # fmt: skip


def prep_cmd_sock(
    ring: Requests,
    command_op: int,
    fd: int,
    level: int,
    option: int,
    value: Target | Source,
    value_bytes: int | None = None,
    *,
    user_data: int = 0,
    flags: int = 0,
) -> None:
    """
    Read or set an option of a socket, or ask for its queues.

    Args:
        command_op: `SocketUringOp`.
        value: The option's value or room for it; b"" for SIOCINQ and SIOCOUTQ.

    Fields: fd, cmd_op, level, optname, optlen, optval.
    Lifetime: *value*.
    Results: 0 or, of a read option, its length; SIOCINQ and SIOCOUTQ: bytes.
    Kernel: 6.7.  Fallback: getsockopt(2), setsockopt(2), ioctl(2).
    Twin and source: io_uring_prep_cmd_sock(3).
    """
    reads = command_op == k.SOCKET_URING_OP_GETSOCKOPT
    addr, size, keep = target(writable(value), value_bytes) if reads else source(value, value_bytes)
    if not size:
        addr, keep = 0, None
    ring.fill(
        k.IORING_OP_URING_CMD, fd, command_number(command_op), level_and_option(level, option),
        0, 0, user_data, flags, keep, 0, 0, size, addr,
    )  # fmt: skip


def prep_cmd_getsockname(
    ring: Requests,
    fd: int,
    room: Target,
    room_size: Target,
    peer: bool = False,
    *,
    len_bytes: int | None = None,
    user_data: int = 0,
    flags: int = 0,
) -> None:
    """
    Ask for a socket's own address or its peer's.

    Args:
        room_size: A C int: how large *room* is, and then how long the address.

    Fields: fd, cmd_op, addr, addr3, optlen.
    Lifetime: *room* and *room_size*.
    Results: 0.
    Kernel: 6.19.  Fallback: getsockname(2), getpeername(2).
    Twin and source: io_uring_prep_cmd_getsockname(3).
    """
    addr, size_addr, held = sockaddr_room(room, room_size, len_bytes)
    ring.fill(
        k.IORING_OP_URING_CMD, fd, command_number(k.SOCKET_URING_OP_GETSOCKNAME), addr, 0, 0,
        user_data, flags, held, 0, 0, int(peer), size_addr,
    )  # fmt: skip


def prep_cmd_discard(
    ring: Requests,
    fd: int,
    offset: int,
    len_bytes: int,
    *,
    user_data: int = 0,
    flags: int = 0,
) -> None:
    """
    Give blocks back to a block device.

    Fields: fd, cmd_op, addr (the offset), addr3 (the length).
    Lifetime: nothing.
    Results: 0.
    Kernel: 6.12.  Fallback: ioctl(2) with BLKDISCARD.
    Twin and source: io_uring_prep_cmd_discard(3).
    """
    ring.fill(
        k.IORING_OP_URING_CMD, fd, command_number(k.BLOCK_URING_CMD_DISCARD), offset, 0, 0,
        user_data, flags, None, 0, 0, 0, len_bytes,
    )  # fmt: skip


def prep_cmd_zone_reset_all(
    ring: Requests,
    fd: int,
    *,
    user_data: int = 0,
    flags: int = 0,
) -> None:
    """
    Rewind every zone of a zoned block device.

    Fields: fd, cmd_op.
    Lifetime: nothing.
    Results: 0.
    Kernel: 7.1.  Fallback: ioctl(2) with BLKRESETZONE.
    Twin and source: io_uring_prep_cmd_zone_reset_all(3).
    """
    ring.fill(
        k.IORING_OP_URING_CMD,
        fd,
        command_number(k.BLOCK_URING_CMD_ZONE_RESET_ALL),
        0,
        0,
        0,
        user_data,
        flags,
    )
