"""Messages with ancillary data: what goes into sendmsg(2), and what comes out of recvmsg(2)."""

import operator
from collections.abc import Callable, Iterable, Sequence
from typing import Final, TypeAlias, TypeVar, cast

from uringio._driver.contract import Driver
from uringio._driver.messages import (
    DESCRIPTORS_MAX,
    MSG_CMSG_CLOEXEC,
    PIECES_MAX,
    Ancillary,
    Copies,
    Credentials,
    Incoming,
    Outgoing,
    Received,
    credentials_item,
    descriptors_item,
    pack_control,
    read_credentials,
    read_segment_bytes,
    segment_item,
)
from uringio._driver.op import RECVMSG, SENDMSG, SENDMSG_UNIX, SENDMSG_ZC, Op, Owner
from uringio._driver.sockets import (
    MSG_DONTWAIT,
    SEND_FLAGS,
    HasFileno,
    SocketAddress,
    number_of,
)
from uringio._own.fd import OwnedFd

__all__ = [
    "ANCILLARY_BYTES",
    "Ancillary",
    "Credentials",
    "Message",
    "Pieces",
    "WritablePieces",
    "checked_room",
    "incoming_op",
    "make_message",
    "outgoing_op",
    "scatter",
    "writable_pieces",
]

T = TypeVar("T")

Piece: TypeAlias = bytes | bytearray | memoryview
Pieces: TypeAlias = Piece | Iterable[Piece]
WritablePieces: TypeAlias = Iterable[bytearray | memoryview]

# Room for the most descriptors that one message may carry, for credentials, and some more.
ANCILLARY_BYTES: Final = 2048
_ANCILLARY_BYTES_MAX: Final = 1 << 20
_SEGMENT_BYTES_MAX: Final = 65535


class Message:
    """
    A message that was received.

    Its descriptors belong to whoever has the message: take or close each.  One that is dropped is
    closed, with a `ResourceWarning`.

    Attributes:
        data: The payload; empty if it went into the caller's memory.
        count: Its size. [bytes]
        address: The sender's address; None where the socket is connected and tells none.
        fds: Descriptors that came with it.
        credentials: Who sent it, where SO_PASSCRED asks for that.
        pidfd: A descriptor of the sender's process, where SO_PASSPIDFD asks for that (Linux 6.5).
        segment_bytes: The size of the datagrams that the kernel has joined into this one (UDP_GRO),
            of which the last may be shorter; 0 if it has not. [bytes]
        ancillary: Items that are none of the above.
        truncated: The payload was longer than the room for it; the rest is lost.
        ancillary_truncated: The same of ancillary data, also where this process had no number left
            for a descriptor.
    """

    __slots__ = (
        "address",
        "ancillary",
        "ancillary_truncated",
        "count",
        "credentials",
        "data",
        "fds",
        "pidfd",
        "segment_bytes",
        "truncated",
    )

    def __init__(self, data: bytes, count: int, address: SocketAddress | None = None) -> None:
        self.data = data
        self.count = count
        self.address = address
        self.fds: list[OwnedFd] = []
        self.credentials: Credentials | None = None
        self.pidfd: OwnedFd | None = None
        self.segment_bytes = 0
        self.ancillary: list[Ancillary] = []
        self.truncated = False
        self.ancillary_truncated = False

    def __repr__(self) -> str:
        more = f", {len(self.fds)} descriptors" if self.fds else ""
        return f"<Message of {self.count} bytes{more}>"

    def close(self) -> None:
        """Close the descriptors that are still here and open; safe to call twice."""
        for fd in self.fds:
            fd.close()
        if self.pidfd is not None:
            self.pidfd.close()


def make_message(driver: Driver, received: Received) -> Message:
    """Make a message of what the driver has received, descriptors included."""
    address = driver.system.unpack_sockaddr(received.name) if received.name else None
    message = Message(received.data, received.count, address)
    message.truncated = received.truncated
    message.ancillary_truncated = received.control_truncated
    for item in received.items:
        credentials = read_credentials(item)
        segment_bytes = read_segment_bytes(item)
        if credentials is not None:
            message.credentials = credentials
        elif segment_bytes is not None:
            message.segment_bytes = segment_bytes
        else:
            message.ancillary.append(item)
    close = driver.system.close
    message.fds = [OwnedFd(fd, close, "received descriptor") for fd in received.take_fds()]
    pidfd = received.take_pidfd()
    if pidfd >= 0:
        message.pidfd = OwnedFd(pidfd, close, "received process descriptor")
    return message


# --- operations ----------------------------------------------------------------------------------


def outgoing_op(
    driver: Driver,
    fd: int,
    owner: Owner,
    pieces: Pieces,
    *,
    name: bytes = b"",
    fds: Sequence[int | HasFileno] = (),
    credentials: Credentials | None = None,
    segment_bytes: int = 0,
    ancillary: Sequence[Ancillary] = (),
    empty: bool = True,
    zero_copy: bool = False,
    unix_datagram: bool = False,
) -> Op[int]:
    """
    Build the op that sends a message.

    The descriptors to pass are duplicated: what happens to the originals does not matter any more.

    Args:
        empty: Whether there need be no payload.
        zero_copy: Whether the network takes the pieces from where they lie.
        unix_datagram: Whether it is one.

    Raises:
        TypeError: A piece is no bytes-like object, or *fds* names no descriptor.
        ValueError: Too many pieces or descriptors, a size or identity is out of range, or this is
            no Unix socket and cannot pass descriptors or credentials.
        OpError: A descriptor of *fds* is closed, or none is left to duplicate it.
    """
    parts = _pieces_of(pieces)
    if zero_copy and not all(isinstance(part, bytes) for part in parts):
        raise TypeError("without a copy only bytes are sent, which never change")
    if not empty and not any(memoryview(part).nbytes for part in parts):
        raise ValueError("on a stream, ancillary data goes with at least one byte")
    if (fds or credentials is not None) and isinstance(driver.system.getsockname(fd), tuple):
        # An internet socket's; the kernel would send the bytes and drop the rest without a word.
        raise ValueError("descriptors and credentials go over Unix sockets only")
    items = list(ancillary)
    kept: Copies | None = None
    if credentials is not None:
        items.append(credentials_item(_checked_credentials(credentials)))
    if segment_bytes:
        if not 0 < operator.index(segment_bytes) <= _SEGMENT_BYTES_MAX:
            raise ValueError(f"a segment is of 1..{_SEGMENT_BYTES_MAX} bytes, not {segment_bytes}")
        items.append(segment_item(segment_bytes))
    if fds:
        if len(fds) > DESCRIPTORS_MAX:
            raise ValueError(
                f"a message carries {DESCRIPTORS_MAX} descriptors at most, not {len(fds)}"
            )
        kept = Copies(driver.system, [number_of(one) for one in fds])
        items.append(descriptors_item(kept.fds))
    try:
        message = Outgoing(parts, name, pack_control(items) if items else b"", kept)
    except BaseException:
        if kept is not None:
            kept.close()  # the traceback would hold them
        raise
    code, flags = SENDMSG_ZC if zero_copy else SENDMSG, SEND_FLAGS
    if unix_datagram:
        code, flags = SENDMSG_UNIX, SEND_FLAGS | MSG_DONTWAIT
    op: Op[int] = Op(code, fd, addr=message.addr, len_=1, flags=flags, owner=owner)
    op.hold = message
    op.home = driver
    return op


def incoming_op(
    driver: Driver, fd: int, owner: Owner, memory: Incoming, convert: Callable[[Received], T]
) -> Op[T]:
    """Build the op that receives a message into *memory*, which is prepared."""

    def finish(value: object) -> T:
        assert isinstance(value, Received)
        return convert(value)

    op = Op(
        RECVMSG,
        fd,
        addr=memory.addr,
        len_=1,
        flags=MSG_CMSG_CLOEXEC,
        owner=owner,
        finish=finish,
    )
    op.hold = memory
    op.home = driver
    return op


def checked_room(ancillary_bytes: int) -> int:
    """Return *ancillary_bytes*, or raise ValueError."""
    if not 0 <= operator.index(ancillary_bytes) <= _ANCILLARY_BYTES_MAX:
        raise ValueError(
            f"room for ancillary data is of 0..{_ANCILLARY_BYTES_MAX} bytes, not {ancillary_bytes}"
        )
    return ancillary_bytes


def writable_pieces(pieces: WritablePieces) -> list[bytearray | memoryview]:
    """
    Check memory that is to be filled, and return it as a list.

    Raises:
        TypeError: A piece cannot be written, or *pieces* is a single one.
        ValueError: There is none, or there are too many.
    """
    if isinstance(pieces, bytes | bytearray | memoryview | str):
        raise TypeError("pieces is a sequence of writable buffers; put a single one into a list")
    parts = list(pieces)
    if not 1 <= len(parts) <= PIECES_MAX:
        raise ValueError(f"a message is of 1..{PIECES_MAX} pieces, not {len(parts)}")
    if not sum(memoryview(part).nbytes for part in parts):
        raise ValueError("there is no room in the pieces")
    return parts


def scatter(data: bytes, pieces: Sequence[bytearray | memoryview]) -> int:
    """Write as much of *data* as there is room for into *pieces*; returns how much."""
    done = 0
    for piece in pieces:
        with memoryview(piece) as view, view.cast("B") as flat:
            part = data[done : done + flat.nbytes]
            flat[: len(part)] = part
        done += len(part)
    return done


def _pieces_of(pieces: Pieces) -> list[Piece]:
    if isinstance(pieces, bytes | bytearray):
        return [pieces]
    if isinstance(pieces, memoryview):
        return [cast("memoryview", pieces)]
    if isinstance(cast("object", pieces), str):
        raise TypeError("a bytes-like object is required, not 'str'")
    parts = list(pieces)
    if len(parts) > PIECES_MAX:
        raise ValueError(f"a message is of {PIECES_MAX} pieces at most, not {len(parts)}")
    return parts


def _checked_credentials(credentials: Credentials) -> Credentials:
    pid, uid, gid = credentials
    if not 0 <= pid < 1 << 31 or not 0 <= uid < 1 << 32 or not 0 <= gid < 1 << 32:
        raise ValueError(f"credentials out of range: {credentials!r}")
    return credentials
