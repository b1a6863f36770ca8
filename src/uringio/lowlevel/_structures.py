"""What the kernel leaves in memory, read and written."""

from collections.abc import Iterator
from typing import NamedTuple

from uringio._sys.layouts import EPOLL_EVENT, RECVMSG_OUT, SIGINFO_CHILD
from uringio._sys.packing import packed

from ._memory import Message

__all__ = [
    "ChildEnd",
    "Received",
    "pack_epoll_event",
    "unpack_epoll_events",
    "unpack_recvmsg",
    "unpack_siginfo",
]


class ChildEnd(NamedTuple):
    """
    What a WAITID has found.

    Attributes:
        code: CLD_EXITED, CLD_KILLED and the like.
        pid: The child.
        uid: Its user.
        status: Its exit status, or the signal.
    """

    code: int
    pid: int
    uid: int
    status: int


def unpack_siginfo(raw: bytes | bytearray | memoryview) -> ChildEnd:
    """Read what `prep_waitid` was given room for."""
    _, _, code, pid, uid, status = SIGINFO_CHILD.unpack_from(raw)
    return ChildEnd(code, pid, uid, status)


def pack_epoll_event(events: int, data: int) -> bytes:
    """Write an event for `prep_epoll_ctl`: EPOLL* bits, and 64 bits of the caller's choice."""
    return packed(EPOLL_EVENT, events=events, data=data)


def unpack_epoll_events(raw: bytes | bytearray | memoryview, count: int) -> list[tuple[int, int]]:
    """Read *count* events, as (EPOLL* bits, data), that `prep_epoll_wait` has taken."""
    found: Iterator[tuple[int, int]] = EPOLL_EVENT.iter_unpack(
        memoryview(raw)[: count * EPOLL_EVENT.size]
    )
    return list(found)


class Received(NamedTuple):
    """
    One message of a multishot RECVMSG.

    Attributes:
        name: The sender's address, as much of it as there was room for.
        control: Ancillary data.
        payload: The content.
        flags: MSG_* flags.
    """

    name: memoryview
    control: memoryview
    payload: memoryview
    flags: int


def unpack_recvmsg(buffer: memoryview, message: Message) -> Received:
    """
    Take apart what `prep_recvmsg_multishot` has put into a buffer.

    Args:
        buffer: As long as the completion's ``res``.
        message: What the request was given: it says how much room name and ancillary data have.

    Raises:
        ValueError: The buffer is shorter than what precedes the content.

    Twin: io_uring_recvmsg_validate, _name, _cmsg_firsthdr, _payload.
    """
    names_at = RECVMSG_OUT.size
    control_at = names_at + message.name_bytes
    payload_at = control_at + message.control_bytes
    if len(buffer) < payload_at:
        raise ValueError(f"a message needs {payload_at} bytes before its content: {len(buffer)}")
    name_len, control_len, _, flags = RECVMSG_OUT.unpack_from(buffer)
    return Received(
        buffer[names_at : names_at + min(name_len, message.name_bytes)],
        buffer[control_at : control_at + min(control_len, message.control_bytes)],
        buffer[payload_at:],
        flags,
    )
