"""Kinds of operations: which need no file, which are over at once, which a thread does."""

from typing import Final

from uringio._sys import constants as k

from ._disk import OpenFile
from ._requests import Request

__all__ = [
    "BY_NAME",
    "ONE_EACH_TIME",
    "PARTIAL",
    "PROMPT",
    "WITHOUT_FILE",
    "ZERO_COPY",
    "in_worker",
]

BY_NAME: Final = frozenset({
    k.IORING_OP_OPENAT, k.IORING_OP_OPENAT2, k.IORING_OP_STATX, k.IORING_OP_UNLINKAT,
    k.IORING_OP_RENAMEAT, k.IORING_OP_MKDIRAT, k.IORING_OP_SYMLINKAT, k.IORING_OP_LINKAT,
})  # fmt: skip
WITHOUT_FILE: Final = frozenset({
    *BY_NAME, k.IORING_OP_NOP, k.IORING_OP_ASYNC_CANCEL, k.IORING_OP_CLOSE, k.IORING_OP_SOCKET,
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
    if request.opcode in BY_NAME:
        return True
    return isinstance(request.file, OpenFile) and request.buffer < 0
