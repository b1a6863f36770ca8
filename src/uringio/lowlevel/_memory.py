"""
Memory for requests: where it lies, and what keeps it there.

The kernel reads and writes at addresses, some of them long after the request was handed over.  Each
function here turns what Python programs have into an address, and names the object that must live
as long.  A plain `int` is an address of the caller's own, who keeps the memory alive himself.
"""

import operator
import os
import struct
from collections.abc import Sequence
from typing import Final, TypeAlias

from uringio._sys.layouts import FUTEX_WAITV, IOVEC, MSGHDR, OPEN_HOW, TIMESPEC
from uringio._sys.memory import Memory, ReadableBuffer, memory_at, pin
from uringio._sys.packing import packed

__all__ = [
    "Message",
    "Passing",
    "Path",
    "Source",
    "Target",
    "Vectors",
    "allocate",
    "header",
    "iovecs",
    "open_how_of",
    "path_of",
    "sockaddr_of",
    "sockaddr_room",
    "source",
    "target",
    "timespec_of",
    "waiters_of",
    "writable",
]

# What a request may read from: bytes, or an address with a length beside it.
Source: TypeAlias = int | bytes | bytearray | memoryview | Memory
# What it may write to.
Target: TypeAlias = int | bytearray | memoryview | Memory
# A file's name, or the address of one that ends in NUL.
Path: TypeAlias = int | str | bytes | os.PathLike[str] | os.PathLike[bytes]

_NS_PER_S: Final = 1_000_000_000
_C_INT: Final = struct.Struct("=i")


class Passing:
    """
    What the kernel reads while a request is submitted, and never again (Features.SUBMIT_STABLE).

    Only such memory may belong to a request whose completion is skipped.
    """

    __slots__ = ("held",)

    def __init__(self, *held: object) -> None:
        self.held = held


def allocate(len_bytes: int) -> Memory:
    """
    Return zeroed, page-aligned memory, whose address costs nothing to ask for.

    It fits O_DIRECT, registered buffers and buffer rings; ``.view`` is its content, ``.addr`` where
    it lies.
    """
    if len_bytes < 1:
        raise ValueError(f"memory has from 1 byte up, not {len_bytes}")
    return Memory(len_bytes)


def source(data: Source, len_bytes: int | None) -> tuple[int, int, object]:
    """
    Fix memory that is read, and return (address, length, what keeps it there).

    Raises:
        TypeError: It is no memory, or an address came without a length.
        ValueError: There is less of it than *len_bytes*.
    """
    if isinstance(data, int):
        return _bare(data, len_bytes)
    if isinstance(data, Memory):
        return data.addr, _within(data.len_bytes, len_bytes), data
    addr, size, keep = pin(data)
    return addr, _within(size, len_bytes), keep


def target(data: Target, len_bytes: int | None) -> tuple[int, int, object]:
    """
    Fix memory that is written; see `source`.

    Raises:
        TypeError: It may not be written, such as `bytes`.
    """
    if isinstance(data, int):
        return _bare(data, len_bytes)
    if isinstance(data, Memory):
        return data.addr, _within(data.len_bytes, len_bytes), data
    addr, size, keep = pin(data, writable=True)
    return addr, _within(size, len_bytes), keep


def writable(data: Source) -> Target:
    """
    See to it that memory is of a kind that may be written.

    Raises:
        TypeError: It is `bytes`.
    """
    if isinstance(data, bytes):
        raise TypeError("bytes are immutable and cannot receive data; use a bytearray")
    return data


def _bare(addr: int, len_bytes: int | None) -> tuple[int, int, None]:
    if len_bytes is None:
        raise TypeError("memory given by its address needs len_bytes beside it")
    if addr < 0 or len_bytes < 0:
        raise ValueError(f"there is no memory of {len_bytes} bytes at {addr}")
    return addr, len_bytes, None


def _within(size: int, len_bytes: int | None) -> int:
    if len_bytes is None:
        return size
    if not 0 <= len_bytes <= size:
        raise ValueError(
            f"{len_bytes} bytes do not lie in memory of {size}: give more, or ask for less"
        )
    return len_bytes


def path_of(path: Path) -> tuple[int, Passing | None]:
    """
    Fix a name, ended by NUL; the kernel copies it while the request is submitted.

    Raises:
        ValueError: It holds a NUL.
    """
    if isinstance(path, int):
        return path, None
    raw = os.fsencode(path)
    if b"\0" in raw:
        raise ValueError(f"a path cannot hold a NUL: {path!r}")
    raw += b"\0"
    addr, _, keep = pin(raw)
    return addr, Passing(raw, keep)


def sockaddr_of(sockaddr: Source, len_bytes: int | None) -> tuple[int, int, Passing | None]:
    """Fix an address of a socket that is read while the request is submitted."""
    addr, size, keep = source(sockaddr, len_bytes)
    return addr, size, None if keep is None else Passing(keep)


def sockaddr_room(
    room: Target | None, room_size: Target | None, len_bytes: int | None
) -> tuple[int, int, object]:
    """
    Fix room for a peer's address, and the C int that says how much there is.

    Returns:
        The address of each, and what keeps them there.

    Raises:
        ValueError: The int promises the kernel more room than there is.
    """
    addr, size, keep = (0, 0, None) if room is None else target(room, len_bytes)
    size_addr, _, keep_too = (0, 0, None) if room_size is None else target(room_size, 4)
    if keep is not None and keep_too is not None:
        promised = _C_INT.unpack_from(memory_at(size_addr, 4))[0]
        if promised > size:
            raise ValueError(
                f"room_size promises {promised} bytes, and the room for the address has {size}: "
                "the kernel would write behind it"
            )
    held = None if keep is None and keep_too is None else (keep, keep_too)
    return addr, size_addr, held


def timespec_of(duration_ns: int) -> tuple[int, Passing]:
    """
    Write a duration or a moment as the kernel's timespec.

    Raises:
        ValueError: It is negative, or more than the kernel can count.
    """
    if not 0 <= operator.index(duration_ns) < 1 << 63:
        raise ValueError(f"a time is from 0 to 2**63 - 1 nanoseconds, not {duration_ns}")
    raw = TIMESPEC.pack(duration_ns // _NS_PER_S, duration_ns % _NS_PER_S)
    addr, _, keep = pin(raw)
    return addr, Passing(raw, keep)


def open_how_of(open_flags: int, mode: int, resolve: int) -> tuple[int, Passing]:
    """Write the argument of openat2(2)."""
    raw = packed(OPEN_HOW, open_flags=open_flags, mode=mode, resolve=resolve)
    addr, _, keep = pin(raw)
    return addr, Passing(raw, keep)


def waiters_of(words: Sequence[tuple[int, int, int]]) -> tuple[int, Passing]:
    """Write the list of futex words (address, expected value, FUTEX2 flags) to be waited on."""
    raw = b"".join(
        packed(FUTEX_WAITV, value=value, addr=addr, flags=flags) for addr, value, flags in words
    )
    addr, _, keep = pin(raw)
    return addr, Passing(raw, keep)


class Vectors:
    """
    Several pieces of memory for one read or write, in order, as an array of iovecs.

    Args:
        pieces: bytearrays and writable memoryviews to read into; to be written, anything with
            bytes.
        writable: Whether they are to be read into; `bytes` are then refused.

    Attributes:
        addr: Of the array. [address]
        count: How many there are.
        len_bytes: What they hold together.
        writable: Whether they may be read into.

    Lifetime: it keeps the pieces where they are; a request that was given it keeps it.

    Raises:
        TypeError: A piece is no memory, or may not be written.
        ValueError: There are more than 1024, which no kernel takes.
    """

    __slots__ = ("_keep", "_raw", "addr", "count", "len_bytes", "writable")

    def __init__(self, pieces: Sequence[ReadableBuffer | Memory], *, writable: bool) -> None:
        if len(pieces) > 1024:
            raise ValueError(f"the kernel takes 1024 pieces of memory at most, not {len(pieces)}")
        self.writable = writable
        keep: list[object] = []
        raw = bytearray()
        self.len_bytes = 0
        for piece in pieces:
            addr, size, held = _piece(piece, writable)
            raw += IOVEC.pack(addr, size)
            keep.append(held)
            self.len_bytes += size
        self.count = len(pieces)
        self._keep = keep
        self._raw = bytes(raw)
        self.addr, _, array = pin(self._raw)
        keep.append(array)


def iovecs(vectors: Vectors, *, writable: bool = False) -> tuple[int, int]:
    """
    Return where an array of iovecs lies, and how many they are.

    Raises:
        TypeError: It is no `Vectors`, or is to be *writable* and was not made so.
    """
    try:
        addr, count, may_be_written = vectors.addr, vectors.count, vectors.writable
    except AttributeError:
        raise TypeError(
            f"pieces of memory are given as Vectors(pieces, writable={writable}), not as "
            f"{type(vectors).__name__!r}"
        ) from None
    if writable and not may_be_written:
        raise TypeError("to be read into, pieces are given as Vectors(pieces, writable=True)")
    return addr, count


def _piece(piece: ReadableBuffer | Memory, writable: bool) -> tuple[int, int, object]:
    if isinstance(piece, Memory):
        return piece.addr, piece.len_bytes, piece
    return pin(piece, writable=writable)


class Message:
    """
    A message with its address and ancillary data, for SENDMSG and RECVMSG.

    Args:
        vectors: The content; none for multishot receives, which take provided buffers.
        name: The address to send to, or room for the sender's: a `bytearray`, filled by a receive.
        control: Ancillary data to send, or room for some.
        name_bytes, control_bytes: For multishot receives, how much room each buffer gives to the
            sender's address and to ancillary data, instead of *name* and *control*.

    Attributes:
        writable: Whether it may be received into, so far as its memory is concerned.

    Lifetime: the kernel reads and, in a receive, writes it until the completion; a request that was
    given it keeps it.
    """

    __slots__ = ("_header", "_keep", "addr", "control", "name", "vectors", "writable")

    def __init__(
        self,
        vectors: Vectors | None = None,
        *,
        name: ReadableBuffer = b"",
        control: ReadableBuffer = b"",
        name_bytes: int = 0,
        control_bytes: int = 0,
    ) -> None:
        self.vectors = vectors
        self.name = name
        self.control = control
        name_addr, name_size, name_keep = pin(name) if len(name) else (0, name_bytes, None)
        control_addr, control_size, control_keep = (
            pin(control) if len(control) else (0, control_bytes, None)
        )
        self._header = bytearray(
            packed(
                MSGHDR,
                name=name_addr,
                name_bytes=name_size,
                vectors=vectors.addr if vectors else 0,
                count=vectors.count if vectors else 0,
                control=control_addr,
                control_bytes=control_size,
                flags=0,
            )
        )
        self.addr, _, header_keep = pin(self._header, writable=True)
        self._keep = (name_keep, control_keep, header_keep)
        self.writable = not (
            (vectors and not vectors.writable) or _is_constant(name) or _is_constant(control)
        )

    @property
    def name_bytes(self) -> int:
        """How long the name is; after a receive, the sender's."""
        size: int = MSGHDR.unpack(self._header)[1]
        return size

    @property
    def control_bytes(self) -> int:
        """How much ancillary data there is; after a receive, how much came."""
        size: int = MSGHDR.unpack(self._header)[5]
        return size

    @property
    def flags(self) -> int:
        """MSG_* flags of what was received, such as MSG_TRUNC."""
        found: int = MSGHDR.unpack(self._header)[6]
        return found


def header(message: Message, *, writable: bool = False) -> int:
    """
    Return where a message's header lies.

    Raises:
        TypeError: It is no `Message`, or is to be *writable* and has memory that is not.
    """
    try:
        addr, may_be_written = message.addr, message.writable
    except AttributeError:
        raise TypeError(
            f"a message is given as Message(Vectors(...)), not as {type(message).__name__!r}"
        ) from None
    if writable and not may_be_written:
        raise TypeError(
            "to be received into, a message has Vectors(pieces, writable=True), and a bytearray "
            "for its name and for its control"
        )
    return addr


def _is_constant(memory: ReadableBuffer) -> bool:
    return len(memory) > 0 and memoryview(memory).readonly
