"""
Requests that make, connect and accept sockets.

Each function fills one request of *ring*, a `Ring` or a single `Request`, and takes beside its own
arguments ``user_data``, which its completions carry, and ``flags`` (`SqeFlags`).  "Lifetime" names
what the kernel still touches later: given as an object it is kept by the ring, given as an address
it is the caller's to keep.  Results are those of ``res``; a negative one is always an errno.
"""

from uringio._sys import constants as k

from ._filling import Requests
from ._memory import Source, Target, sockaddr_of, sockaddr_room
from ._slots import slot_of

__all__ = [
    "prep_accept",
    "prep_accept_direct",
    "prep_bind",
    "prep_connect",
    "prep_listen",
    "prep_multishot_accept",
    "prep_multishot_accept_direct",
    "prep_shutdown",
    "prep_socket",
    "prep_socket_direct",
    "prep_socket_direct_alloc",
]


def prep_socket(
    ring: Requests,
    domain: int,
    kind: int,
    protocol: int = 0,
    socket_flags: int = 0,
    *,
    user_data: int = 0,
    flags: int = 0,
) -> None:
    """
    Make a socket.

    Args:
        kind: SOCK_* type, with SOCK_CLOEXEC and SOCK_NONBLOCK.
        socket_flags: None exist; 0.

    Fields: fd (the domain), off (the type), len (the protocol), rw_flags.
    Lifetime: nothing.
    Results: a descriptor.
    Kernel: 5.19.  Fallback: socket(2).
    Twin and source: io_uring_prep_socket(3).
    """
    ring.fill(k.IORING_OP_SOCKET, domain, kind, 0, protocol, socket_flags, user_data, flags)


def prep_socket_direct(
    ring: Requests,
    domain: int,
    kind: int,
    protocol: int,
    file_index: int,
    socket_flags: int = 0,
    *,
    user_data: int = 0,
    flags: int = 0,
) -> None:
    """
    Make a socket in a slot of the registered files.

    Fields: as prep_socket, file_index.
    Lifetime: nothing.
    Results: 0, or the slot where the kernel chose it.
    Kernel: 5.19.  Fallback: prep_socket.
    Twin and source: io_uring_prep_socket_direct(3).
    """
    ring.fill(
        k.IORING_OP_SOCKET, domain, kind, 0, protocol, socket_flags, user_data, flags, None, 0, 0,
        slot_of(file_index),
    )  # fmt: skip


def prep_socket_direct_alloc(
    ring: Requests,
    domain: int,
    kind: int,
    protocol: int = 0,
    socket_flags: int = 0,
    *,
    user_data: int = 0,
    flags: int = 0,
) -> None:
    """
    `prep_socket_direct` into a slot of the kernel's choice.

    Fields: as prep_socket_direct.
    Lifetime: nothing.
    Results: the slot; ENFILE when all are taken.
    Kernel: 5.19.  Fallback: prep_socket.
    Twin and source: io_uring_prep_socket_direct_alloc(3).
    """
    prep_socket_direct(
        ring, domain, kind, protocol, k.IORING_FILE_INDEX_ALLOC, socket_flags,
        user_data=user_data, flags=flags,
    )  # fmt: skip


def prep_bind(
    ring: Requests,
    fd: int,
    sockaddr: Source,
    *,
    len_bytes: int | None = None,
    user_data: int = 0,
    flags: int = 0,
) -> None:
    """
    Bind a socket to an address.

    Args:
        sockaddr: As `pack_sockaddr` writes it.

    Fields: fd, addr, off (its length).
    Lifetime: the address, until it was submitted.
    Results: 0.
    Kernel: 6.11.  Fallback: bind(2).
    Twin and source: io_uring_prep_bind(3).
    """
    addr, size, keep = sockaddr_of(sockaddr, len_bytes)
    ring.fill(k.IORING_OP_BIND, fd, size, addr, 0, 0, user_data, flags, keep)


def prep_listen(
    ring: Requests,
    fd: int,
    backlog: int,
    *,
    user_data: int = 0,
    flags: int = 0,
) -> None:
    """
    Have a socket listen.

    Fields: fd, len (the backlog).
    Lifetime: nothing.
    Results: 0.
    Kernel: 6.11.  Fallback: listen(2).
    Twin and source: io_uring_prep_listen(3).
    """
    ring.fill(k.IORING_OP_LISTEN, fd, 0, 0, backlog, 0, user_data, flags)


def prep_connect(
    ring: Requests,
    fd: int,
    sockaddr: Source,
    *,
    len_bytes: int | None = None,
    user_data: int = 0,
    flags: int = 0,
) -> None:
    """
    Connect a socket.

    Args:
        sockaddr: As `pack_sockaddr` writes it.

    Fields: fd, addr, off (its length).
    Lifetime: the address, until it was submitted.
    Results: 0.
    Kernel: 5.5.  Fallback: connect(2).
    Twin and source: io_uring_prep_connect(3).
    """
    addr, size, keep = sockaddr_of(sockaddr, len_bytes)
    ring.fill(k.IORING_OP_CONNECT, fd, size, addr, 0, 0, user_data, flags, keep)


def prep_accept(
    ring: Requests,
    fd: int,
    room: Target | None = None,
    room_size: Target | None = None,
    accept_flags: int = 0,
    *,
    len_bytes: int | None = None,
    ioprio: int = 0,
    user_data: int = 0,
    flags: int = 0,
) -> None:
    """
    Take a connection from a listening socket.

    Args:
        room: For the peer's address.
        room_size: A C int: how large *room* is, and then how long the address.
        accept_flags: SOCK_CLOEXEC, SOCK_NONBLOCK.
        ioprio: `AcceptFlags`.

    Fields: fd, addr, addr2, accept_flags, ioprio.
    Lifetime: *room* and *room_size*.
    Results: a descriptor.
    Kernel: 5.5.  Fallback: accept4(2).
    Twin and source: io_uring_prep_accept(3).
    """
    addr, size_addr, held = sockaddr_room(room, room_size, len_bytes)
    ring.fill(
        k.IORING_OP_ACCEPT, fd, size_addr, addr, 0, accept_flags, user_data, flags, held, ioprio
    )


def prep_accept_direct(
    ring: Requests,
    fd: int,
    file_index: int,
    room: Target | None = None,
    room_size: Target | None = None,
    accept_flags: int = 0,
    *,
    len_bytes: int | None = None,
    ioprio: int = 0,
    user_data: int = 0,
    flags: int = 0,
) -> None:
    """
    `prep_accept` into a slot of the registered files.

    Args:
        file_index: The slot, or FILE_INDEX_ALLOC.

    Fields: as prep_accept, file_index.
    Lifetime: *room* and *room_size*.
    Results: 0, or the slot where the kernel chose it.
    Kernel: 5.15.  Fallback: prep_accept.
    Twin and source: io_uring_prep_accept_direct(3).
    """
    addr, size_addr, held = sockaddr_room(room, room_size, len_bytes)
    ring.fill(
        k.IORING_OP_ACCEPT,
        fd,
        size_addr,
        addr,
        0,
        accept_flags,
        user_data,
        flags,
        held,
        ioprio,
        0,
        slot_of(file_index),
    )


def prep_multishot_accept(
    ring: Requests,
    fd: int,
    accept_flags: int = 0,
    *,
    ioprio: int = 0,
    user_data: int = 0,
    flags: int = 0,
) -> None:
    """
    Accept each time; addresses are asked for by getpeername(2).

    Fields: as prep_accept.
    Lifetime: nothing.
    Results: a descriptor each time; ends without CqeFlags.MORE, as with EMFILE.
    Kernel: 5.19.  Fallback: prep_accept, again and again.
    Twin and source: io_uring_prep_multishot_accept(3).
    """
    ring.fill(
        k.IORING_OP_ACCEPT, fd, 0, 0, 0, accept_flags, user_data, flags, None,
        ioprio | k.IORING_ACCEPT_MULTISHOT,
    )  # fmt: skip


def prep_multishot_accept_direct(
    ring: Requests,
    fd: int,
    accept_flags: int = 0,
    *,
    ioprio: int = 0,
    user_data: int = 0,
    flags: int = 0,
) -> None:
    """
    `prep_multishot_accept` into slots of the kernel's choice.

    Fields: as prep_accept, file_index.
    Lifetime: nothing.
    Results: a slot each time.
    Kernel: 5.19.  Fallback: prep_multishot_accept.
    Twin and source: io_uring_prep_multishot_accept_direct(3).
    """
    ring.fill(
        k.IORING_OP_ACCEPT, fd, 0, 0, 0, accept_flags, user_data, flags, None,
        ioprio | k.IORING_ACCEPT_MULTISHOT, 0, slot_of(k.IORING_FILE_INDEX_ALLOC),
    )  # fmt: skip


def prep_shutdown(
    ring: Requests,
    fd: int,
    how: int,
    *,
    user_data: int = 0,
    flags: int = 0,
) -> None:
    """
    End one or both directions of a connection.

    Fields: fd, len (how).
    Lifetime: nothing.
    Results: 0.
    Kernel: 5.11.  Fallback: shutdown(2).
    Twin and source: io_uring_prep_shutdown(3).
    """
    ring.fill(k.IORING_OP_SHUTDOWN, fd, 0, 0, how, 0, user_data, flags)
