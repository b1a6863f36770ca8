"""
The memory of sendmsg(2) and recvmsg(2): headers, scatter lists, addresses, ancillary data.

Built here and nowhere else.  An `Outgoing` or `Incoming` stands in the ``hold`` of its op, and so
keeps everything that the kernel may touch where it is until the op's terminal completion.

What is sent is packed into `bytes`, whose address is an addition away.  What is received is written
into one piece of memory, laid out as header, address, scatter list, ancillary data, payload; the
socket keeps it for its next message.

Descriptors that came with a message belong to its `Received`, which closes those that nobody takes:
however a receive ends (cancelled, abandoned with its loop, dropped unread) none is left open.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Final, NamedTuple

from uringio._sys.layouts import CMSG_ALIGN, CMSG_DATA_AT, CMSGHDR, IOVEC, MSGHDR, UCRED
from uringio._sys.memory import Memory, Pinned, ReadableBuffer, pin
from uringio._sys.numbers import (
    MSG_CMSG_CLOEXEC,
    MSG_CTRUNC,
    MSG_TRUNC,
    SCM_RIGHTS,
    SOL_SOCKET,
)
from uringio._sys.system import System

__all__ = [
    "DESCRIPTORS_MAX",
    "MSG_CMSG_CLOEXEC",
    "PIECES_MAX",
    "Ancillary",
    "Copies",
    "Credentials",
    "Incoming",
    "Outgoing",
    "Received",
    "credentials_item",
    "descriptors_item",
    "pack_control",
    "read_credentials",
    "read_segment_bytes",
    "segment_item",
]

PIECES_MAX: Final = 1024  # IOV_MAX
DESCRIPTORS_MAX: Final = 253  # SCM_MAX_FD

_SCM_CREDENTIALS: Final = 2
_SCM_PIDFD: Final = 4
_SOL_UDP: Final = 17
_UDP_SEGMENT: Final = 103
_UDP_GRO: Final = 104

_BYTE_ORDER: Final = "little" if memoryview(b"\1\0").cast("H")[0] == 1 else "big"
_NAME_BYTES: Final = 128
_NAME_AT: Final = 64
_PIECES_AT: Final = _NAME_AT + _NAME_BYTES


class Ancillary(NamedTuple):
    """One item of ancillary data, by its numbers; see cmsg(3)."""

    level: int
    kind: int
    data: bytes


class Credentials(NamedTuple):
    """Who a process is."""

    pid: int
    uid: int
    gid: int


# --- ancillary data ------------------------------------------------------------------------------


def descriptors_item(fds: Sequence[int]) -> Ancillary:
    """Make the item that passes copies of *fds* on; see unix(7)."""
    raw = b"".join(fd.to_bytes(4, _BYTE_ORDER, signed=True) for fd in fds)
    return Ancillary(SOL_SOCKET, SCM_RIGHTS, raw)


def credentials_item(credentials: Credentials) -> Ancillary:
    """Make the item that says who sends; the kernel checks it, see unix(7)."""
    return Ancillary(SOL_SOCKET, _SCM_CREDENTIALS, UCRED.pack(*credentials))


def segment_item(segment_bytes: int) -> Ancillary:
    """Make the item that has the payload cut into datagrams of so many bytes; see udp(7)."""
    return Ancillary(_SOL_UDP, _UDP_SEGMENT, segment_bytes.to_bytes(2, _BYTE_ORDER))


def read_credentials(item: Ancillary) -> Credentials | None:
    """Return who sent the message, if *item* is that."""
    if item[:2] != (SOL_SOCKET, _SCM_CREDENTIALS) or len(item.data) < UCRED.size:
        return None
    return Credentials(*UCRED.unpack_from(item.data))


def read_segment_bytes(item: Ancillary) -> int | None:
    """Return the size of the datagrams that the kernel has joined, if *item* is that."""
    if item[:2] != (_SOL_UDP, _UDP_GRO) or len(item.data) < 2:
        return None
    return int.from_bytes(item.data[:4], _BYTE_ORDER)


def pack_control(items: Sequence[Ancillary]) -> bytes:
    """Encode *items* as the kernel's control buffer."""
    raw = bytearray()
    for level, kind, data in items:
        head = CMSGHDR.pack(CMSG_DATA_AT + len(data), level, kind)
        raw += head.ljust(CMSG_DATA_AT, b"\0")
        raw += data
        raw += bytes(-len(raw) % CMSG_ALIGN)
    return bytes(raw)


def _unpack_control(raw: bytes) -> Iterator[Ancillary]:
    at = 0
    while at + CMSGHDR.size <= len(raw):
        length, level, kind = CMSGHDR.unpack_from(raw, at)
        if length < CMSG_DATA_AT:
            return
        yield Ancillary(level, kind, raw[at + CMSG_DATA_AT : at + length])
        at += length + -length % CMSG_ALIGN


class Copies:
    """
    Duplicates of descriptors that wait to be passed on; closed when they are dropped.

    Attributes:
        fds: Their numbers.

    Raises:
        OpError: One of the originals is closed, or no descriptor is left.
    """

    __slots__ = ("_close", "fds")

    def __init__(self, system: System, originals: Sequence[int]) -> None:
        self._close: Callable[[int], int] = system.close
        self.fds: list[int] = []
        try:
            for fd in originals:
                self.fds.append(system.duplicate(fd))
        except BaseException:
            self.close()
            raise

    def __del__(self) -> None:
        self.close()

    def close(self) -> None:
        """Close them now."""
        while self.fds:
            self._close(self.fds.pop())


# --- both directions -----------------------------------------------------------------------------


class Outgoing:
    """
    A message to be sent, where it stays until the kernel has taken it.

    Args:
        pieces: The payload, sent as if it were one piece.
        name: The packed address, or nothing.
        control: See `pack_control`.
        copies: The descriptors that *control* names.

    Attributes:
        addr: Where the msghdr is.
        len_bytes: The payload's size.
    """

    __slots__ = ("_kept", "addr", "len_bytes")

    def __init__(
        self,
        pieces: Sequence[ReadableBuffer],
        name: bytes = b"",
        control: bytes = b"",
        copies: Copies | None = None,
    ) -> None:
        total_bytes = 0
        kept: list[Pinned] = []
        vectors: list[bytes] = []
        for piece in pieces:
            addr, len_bytes, hold = pin(piece)
            kept.append(hold)
            vectors.append(IOVEC.pack(addr, len_bytes))
            total_bytes += len_bytes
        vectors_addr, _, vectors_hold = pin(b"".join(vectors))
        name_addr, name_bytes, name_hold = pin(name)
        control_addr, control_bytes, control_hold = pin(control)
        header = MSGHDR.pack(
            name_addr if name else 0, name_bytes, vectors_addr, len(vectors),
            control_addr if control else 0, control_bytes, 0,
        )  # fmt: skip
        self.addr, _, header_hold = pin(header)
        self.len_bytes = total_bytes
        self._kept: tuple[Pinned | None, ...] = (
            vectors_hold, name_hold, control_hold, header_hold, copies, *kept,
        )  # fmt: skip


class Incoming:
    """
    Memory for messages to be received, one after the other.

    Args:
        system: Where memory comes from, and what closes descriptors.
        data_bytes: Room for payload; 0 if it goes into *pieces*.
        control_bytes: Room for ancillary data.
        pieces: The caller's writable memory, filled in this order instead of ours; for one message.

    Attributes:
        addr: Where the msghdr is.
        data_bytes, control_bytes: As given.

    Raises:
        TypeError: A piece cannot be written.
    """

    __slots__ = (
        "_asked_bytes",
        "_close",
        "_control_at",
        "_data_at",
        "_kept",
        "_memory",
        "_pieces",
        "_pieces_count",
        "_seal",
        "addr",
        "control_bytes",
        "data_bytes",
    )

    def __init__(
        self,
        system: System,
        data_bytes: int,
        control_bytes: int,
        pieces: Sequence[bytearray | memoryview] = (),
    ) -> None:
        pins = [pin(piece, writable=True) for piece in pieces]
        self._kept = [hold for _, _, hold in pins]
        self._pieces = pieces
        self._pieces_count = max(1, len(pins))
        self._control_at = _PIECES_AT + IOVEC.size * self._pieces_count
        self._data_at = self._control_at + control_bytes + -control_bytes % CMSG_ALIGN
        self._memory: Memory = system.allocate(self._data_at + data_bytes)
        self._close: Callable[[int], int] = system.close
        self._seal = None if MSG_CMSG_CLOEXEC else system.close_on_exec
        self._asked_bytes = 0
        self.addr = self._memory.addr
        self.data_bytes = data_bytes
        self.control_bytes = control_bytes
        for index, (addr, len_bytes, _) in enumerate(pins):
            IOVEC.pack_into(self._memory.view, _PIECES_AT + IOVEC.size * index, addr, len_bytes)
        self.prepare(data_bytes, control_bytes)

    def prepare(self, data_bytes: int, control_bytes: int) -> None:
        """Tell the kernel how much of the room the next message may take."""
        addr, view = self.addr, self._memory.view
        self._asked_bytes = data_bytes
        if not self._pieces:
            IOVEC.pack_into(view, _PIECES_AT, addr + self._data_at, data_bytes)
        MSGHDR.pack_into(
            view, 0, addr + _NAME_AT, _NAME_BYTES, addr + _PIECES_AT, self._pieces_count,
            addr + self._control_at if control_bytes else 0, control_bytes, 0,
        )  # fmt: skip

    def received(self, count: int) -> "Received":
        """Take out what the kernel has written; *count* is the operation's result."""
        slices = self._memory.slices
        _, name_bytes, _, _, _, control_bytes, flags = MSGHDR.unpack_from(self._memory.view)
        data = b""
        if self._pieces:
            self._kept = []  # the caller's memory is the caller's again
        else:
            data = slices[self._data_at : self._data_at + min(count, self._asked_bytes)]
        name = slices[_NAME_AT : _NAME_AT + min(name_bytes, _NAME_BYTES)]
        control = b""
        if control_bytes:
            control = slices[self._control_at : self._control_at + control_bytes]
        message = Received(count, data, name, control, flags, self._pieces, self._close)
        if self._seal is not None:  # a system where a descriptor cannot come closed on exec
            message.seal_fds(self._seal)
        return message


class Received:
    """
    A message as the kernel delivered it, and the owner of the descriptors that came with it.

    Attributes:
        count: Bytes of payload.
        data: The payload, unless it went into the caller's memory.
        name: The sender's packed address; empty where there is none.
        items: Ancillary data other than descriptors.
        truncated: The payload was longer than the room for it; the rest is lost.
        control_truncated: The same of ancillary data; descriptors without room were closed.
    """

    __slots__ = (
        "_close",
        "_fds",
        "_pidfd",
        "_pieces",
        "control_truncated",
        "count",
        "data",
        "items",
        "name",
        "truncated",
    )

    def __init__(
        self,
        count: int,
        data: bytes,
        name: bytes,
        control: bytes,
        flags: int,
        pieces: Sequence[bytearray | memoryview],
        close: Callable[[int], int],
    ) -> None:
        self._fds: list[int] = []
        self._pidfd = -1
        self._close = close
        self._pieces = pieces
        self.count = count
        self.data = data
        self.name = name
        self.items: list[Ancillary] = []
        self.truncated = bool(flags & MSG_TRUNC)
        self.control_truncated = bool(flags & MSG_CTRUNC)
        if control:
            for item in _unpack_control(control):
                if item.level == SOL_SOCKET and item.kind == SCM_RIGHTS:
                    fds = memoryview(item.data[: len(item.data) & ~3]).cast("i")
                    self._fds.extend(fds)
                elif item.level == SOL_SOCKET and item.kind == _SCM_PIDFD:
                    # KERNEL 6.5: a descriptor as well; negative where the sender has gone.
                    self._pidfd = memoryview(item.data[:4]).cast("i")[0]
                else:
                    self.items.append(item)

    def __del__(self) -> None:
        self.close_fds()

    def seal_fds(self, seal: Callable[[int], object]) -> None:
        """Give each descriptor that came to *seal*."""
        for fd in self._fds:
            seal(fd)

    def take_fds(self) -> list[int]:
        """Hand the descriptors over, with the duty to close them."""
        fds, self._fds = self._fds, []
        return fds

    def take_pidfd(self) -> int:
        """Hand over the descriptor of the sender's process, -1 if there is none."""
        pidfd, self._pidfd = self._pidfd, -1
        return pidfd

    def close_fds(self) -> None:
        """Close the descriptors that nobody has taken."""
        if self._pidfd >= 0:
            self._close(self.take_pidfd())
        while self._fds:
            self._close(self._fds.pop())

    def payload(self) -> bytes:
        """Return the payload, also where it went into the caller's memory."""
        if not self._pieces:
            return self.data
        flat = b"".join(bytes(piece) for piece in self._pieces)
        return flat[: self.count]
