"""
Messages as sendmsg(2) and recvmsg(2) lay them out: pieces, addresses, descriptors.

Of ancillary data descriptors are simulated, on Unix sockets; other kinds are refused by name.
"""

import errno
from collections.abc import Sequence
from ctypes import memmove, string_at
from typing import TYPE_CHECKING, Final, NamedTuple

from uringio._sys.layouts import CMSG_ALIGN, CMSGHDR, IOVEC, MSGHDR

from ._objects import SimFile
from ._requests import BYTE_ORDER
from ._sockets import SimSocket, Taken
from .errors import NotSimulatedError

if TYPE_CHECKING:
    from ._kernel import SimKernel

__all__ = [
    "Outgoing", "deliver", "gathered", "outgoing_at", "put_address", "scatter", "spans_of",
]  # fmt: skip

_SOL_SOCKET: Final = 1
_SCM_RIGHTS: Final = 1
_MSG_CTRUNC: Final = 0x08
_MSG_TRUNC: Final = 0x20
_DESCRIPTORS_MAX: Final = 253


class Outgoing(NamedTuple):
    """What sendmsg(2) was given."""

    data: bytes
    name: bytes
    files: Sequence[SimFile]


def spans_of(msghdr_addr: int) -> list[tuple[int, int]]:
    """Return address and size of each piece that a msghdr names."""
    fields = MSGHDR.unpack(string_at(msghdr_addr, MSGHDR.size))
    raw = string_at(fields[2], fields[3] * IOVEC.size) if fields[3] else b""
    return [(addr, size) for addr, size in IOVEC.iter_unpack(raw) if size]


def gathered(msghdr_addr: int) -> bytes:
    """Return the bytes that a msghdr names."""
    return b"".join(string_at(addr, size) for addr, size in spans_of(msghdr_addr))


def outgoing_at(kernel: "SimKernel", socket: SimSocket, msghdr_addr: int) -> Outgoing | int:
    """Read what is to be sent; ``-errno`` if its descriptors are none."""
    fields = MSGHDR.unpack(string_at(msghdr_addr, MSGHDR.size))
    name = string_at(fields[0], fields[1]) if fields[0] and fields[1] else b""
    files: list[SimFile] = []
    control = string_at(fields[4], fields[5]) if fields[4] and fields[5] else b""
    at = 0
    while at + CMSGHDR.size <= len(control):
        length, level, kind = CMSGHDR.unpack_from(control, at)
        if length < CMSGHDR.size or at + length > len(control):
            return -errno.EINVAL
        if (level, kind) != (_SOL_SOCKET, _SCM_RIGHTS):
            raise NotSimulatedError(f"ancillary data of level {level}, kind {kind} to be sent")
        raw = control[at + CMSGHDR.size : at + length]
        if socket.is_unix:
            for start in range(0, len(raw) & ~3, 4):
                number = int.from_bytes(raw[start : start + 4], BYTE_ORDER, signed=True)
                file = kernel.file_of(number)
                if file is None:
                    return -errno.EBADF
                files.append(file)
        at += length + -length % CMSG_ALIGN
    if len(files) > _DESCRIPTORS_MAX:
        return -errno.EINVAL
    return Outgoing(gathered(msghdr_addr), name, files)


def scatter(spans: list[tuple[int, int]], data: bytes) -> None:
    """Put bytes into pieces of memory."""
    start = 0
    for addr, size in spans:
        memmove(addr, data[start : start + size], min(size, len(data) - start))
        start += size
        if start >= len(data):
            break


def deliver(
    kernel: "SimKernel", msghdr_addr: int, spans: list[tuple[int, int]], data: bytes, taken: Taken
) -> None:
    """Write what was received where recvmsg(2) wants it, and install its descriptors."""
    scatter(spans, data)
    fields = list(MSGHDR.unpack(string_at(msghdr_addr, MSGHDR.size)))
    if fields[0]:
        room = fields[1]
        memmove(fields[0], taken.name, min(room, len(taken.name)))
        fields[1] = len(taken.name)
    control, cut = install(kernel, taken.files, fields[5] if fields[4] else 0)
    if control:
        memmove(fields[4], control, len(control))
    fields[5] = len(control)
    fields[6] = (_MSG_CTRUNC if cut else 0) | (_MSG_TRUNC if taken.full_bytes > len(data) else 0)
    memmove(msghdr_addr, MSGHDR.pack(*fields), MSGHDR.size)


def install(kernel: "SimKernel", files: Sequence[SimFile], room: int) -> tuple[bytes, bool]:
    """Give descriptors their numbers: the ancillary data, and whether some found no room."""
    numbers: list[int] = []
    fit_count = max(0, room - CMSGHDR.size) // 4
    for file in files:
        if len(numbers) < fit_count:
            number = kernel.install(file)
            if number >= 0:
                numbers.append(number)
        file.drop()
    cut = len(numbers) < len(files)
    if not numbers:
        return b"", cut
    raw = b"".join(number.to_bytes(4, BYTE_ORDER) for number in numbers)
    item = CMSGHDR.pack(CMSGHDR.size + len(raw), _SOL_SOCKET, _SCM_RIGHTS) + raw
    return item + bytes(min(-len(item) % CMSG_ALIGN, room - len(item))), cut


def put_address(raw: bytes, addr: int, len_addr: int) -> None:
    """Store an address where accept(2) is told to, cut to the room that there is."""
    if not addr or not len_addr:
        return
    room = int.from_bytes(string_at(len_addr, 4), BYTE_ORDER)
    memmove(addr, raw, min(room, len(raw)))
    memmove(len_addr, len(raw).to_bytes(4, BYTE_ORDER), 4)
