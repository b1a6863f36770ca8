"""What the kernel is asked or told without a ring."""

from typing import NamedTuple

from uringio._sys import constants as k
from uringio._sys.layouts import QUERY_HDR, QUERY_OPCODE
from uringio._sys.memory import pin
from uringio._sys.system import real_system

from ._filling import Request
from ._opcodes import RegisterOp
from ._registering import call, refusal

__all__ = ["Query", "query", "register_sync_msg"]


def register_sync_msg(request: Request) -> None:
    """
    Post a completion to a ring from a thread that has none, as MSG_RING would.

    Args:
        request: Filled by `prep_msg_ring`.

    Raises:
        OpError: It was refused; EINVAL also where the kernel is too old.

    Kernel: 6.13.  Twin: io_uring_register_sync_msg.
    """
    call(real_system(), RegisterOp.SEND_MSG_RING, request.raw, 1)


class Query(NamedTuple):
    """
    What a kernel has, asked without a ring.

    Attributes:
        opcodes: How many operations, from 0 up.
        register_ops: How many registrations.
        features, setup_flags, enter_flags, sqe_flags: The bits that it knows.
        query_ops: How many questions it answers.
    """

    opcodes: int
    register_ops: int
    features: int
    setup_flags: int
    enter_flags: int
    sqe_flags: int
    query_ops: int


def query() -> Query:
    """
    Ask the kernel what it has.

    Raises:
        OpError: EINVAL or EBADF, the kernel is older than the question.

    Kernel: 6.18.  Twin: io_uring_register_query.
    """
    answer = bytearray(QUERY_OPCODE.size)
    answer_addr, _, _keep = pin(answer, writable=True)
    head = bytearray(QUERY_HDR.pack(0, answer_addr, k.IO_URING_QUERY_OPCODES, QUERY_OPCODE.size, 0))
    call(real_system(), RegisterOp.QUERY, head, 0)
    result: int = QUERY_HDR.unpack(head)[4]
    if result < 0:
        raise refusal(-result, RegisterOp.QUERY, -1)
    return Query(*QUERY_OPCODE.unpack(answer))
