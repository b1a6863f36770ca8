"""What kinds of request differ in, beside what they do."""

from ctypes import string_at
from typing import Final

from uringio._sys import constants as k

from ._disk import OpenFile
from ._messages import gathered
from ._requests import Request

__all__ = [
    "ONE_EACH_TIME",
    "PARTIAL",
    "PROMPT",
    "WITHOUT_FILE",
    "ZERO_COPY",
    "buffer_flags",
    "in_worker",
    "sent_from",
]

_BY_NAME: Final = frozenset({
    k.IORING_OP_OPENAT, k.IORING_OP_OPENAT2, k.IORING_OP_STATX, k.IORING_OP_UNLINKAT,
    k.IORING_OP_RENAMEAT, k.IORING_OP_MKDIRAT, k.IORING_OP_SYMLINKAT, k.IORING_OP_LINKAT,
})  # fmt: skip
WITHOUT_FILE: Final = frozenset({
    *_BY_NAME, k.IORING_OP_NOP, k.IORING_OP_ASYNC_CANCEL, k.IORING_OP_CLOSE, k.IORING_OP_SOCKET,
    k.IORING_OP_TIMEOUT, k.IORING_OP_TIMEOUT_REMOVE, k.IORING_OP_POLL_REMOVE,
    k.IORING_OP_FILES_UPDATE, k.IORING_OP_LINK_TIMEOUT, k.IORING_OP_PIPE,
})  # fmt: skip
# What a program must not find interrupted, or late: it is over when it returns.
PROMPT: Final = frozenset({
    k.IORING_OP_ASYNC_CANCEL, k.IORING_OP_CLOSE, k.IORING_OP_TIMEOUT, k.IORING_OP_TIMEOUT_REMOVE,
    k.IORING_OP_POLL_REMOVE, k.IORING_OP_MSG_RING, k.IORING_OP_FILES_UPDATE,
    k.IORING_OP_LINK_TIMEOUT, k.IORING_OP_FIXED_FD_INSTALL,
})  # fmt: skip
# What is told one thing for each time that it is woken.
ONE_EACH_TIME: Final = frozenset({k.IORING_OP_POLL_ADD})
# What tells, when it is cancelled, how much it had moved before.
PARTIAL: Final = frozenset({
    k.IORING_OP_SEND, k.IORING_OP_SENDMSG, k.IORING_OP_SEND_ZC, k.IORING_OP_SENDMSG_ZC,
    k.IORING_OP_RECV, k.IORING_OP_RECVMSG,
})  # fmt: skip
ZERO_COPY: Final = frozenset({k.IORING_OP_SEND_ZC, k.IORING_OP_SENDMSG_ZC})


def in_worker(request: Request) -> bool:
    """Whether a thread of the kernel's does it, which tells of it in a second step."""
    if request.opcode in _BY_NAME:
        return True
    return isinstance(request.file, OpenFile) and request.buffer < 0


def sent_from(request: Request) -> bytes:
    """Return the memory that a send reads."""
    if request.opcode == k.IORING_OP_SENDMSG_ZC:
        return gathered(request.addr)
    return string_at(request.addr, request.len)


def buffer_flags(request: Request) -> int:
    """Return the flags that name the provided buffer of a request, 0 if it has none."""
    if request.buffer < 0:
        return 0
    return k.IORING_CQE_F_BUFFER | request.buffer << k.IORING_CQE_BUFFER_SHIFT
