"""What the kernel is asked or told without a ring."""

from typing import NamedTuple

from uringio._ring.survey import ask
from uringio._sys.system import real_system

from ._filling import Request
from ._opcodes import RegisterOp
from ._registering import call

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
    return Query(*ask(real_system()))
