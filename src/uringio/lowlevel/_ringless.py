"""What the kernel is asked or told without a ring."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from uringio._ring.survey import ask
from uringio._sys import constants as k
from uringio._sys.layouts import QUERY_OPCODE, QUERY_SCQ, QUERY_ZCRX, TASK_RESTRICTION
from uringio._sys.system import real_system

from ._filling import Request
from ._judges import filter_argument, restriction_rows
from ._opcodes import RegisterOp
from ._registering import call

__all__ = [
    "Query",
    "QueueQuery",
    "ZeroCopyQuery",
    "query",
    "query_queues",
    "query_zero_copy",
    "register_sync_msg",
    "register_task_bpf_filter",
    "register_task_restrictions",
]


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


def register_task_restrictions(
    *,
    ops: Iterable[int] = (),
    register_ops: Iterable[int] = (),
    flags_allowed: int = 0,
    flags_required: int = 0,
) -> None:
    """
    Restrict every ring that the calling thread and its children will make; for good, and once.

    Args:
        ops, register_ops, flags_allowed, flags_required: As in `Ring.register_restrictions`.

    Raises:
        OpError: EPERM, there are some; EACCES, the thread may still gain privileges (prctl(2),
            PR_SET_NO_NEW_PRIVS); EINVAL, the kernel is too old.
        UsageError: Nothing is allowed.

    Kernel: 7.0.  Twin: io_uring_register_task_restrictions.
    """
    rows = restriction_rows(ops, register_ops, flags_allowed, flags_required)
    argument = TASK_RESTRICTION.pack(0, len(rows)) + b"".join(rows)
    call(real_system(), RegisterOp.RESTRICTIONS, argument, 1)


def register_task_bpf_filter(
    opcode: int,
    program: Sequence[tuple[int, int, int, int]],
    *,
    flags: int = 0,
    pdu_bytes: int = 0,
) -> None:
    """
    Have a program judge requests of every ring that the thread and its children will make.

    Args:
        opcode, program, flags, pdu_bytes: As in `Ring.register_bpf_filter`.

    Raises:
        OpError: EACCES, the thread may still gain privileges (prctl(2), PR_SET_NO_NEW_PRIVS);
            EINVAL, the program is not sound, or the kernel is too old.
        ValueError: No kernel could take the program.

    Kernel: 7.0.  Twin: io_uring_register_bpf_filter_task.
    """
    argument, _keep = filter_argument(opcode, program, flags, pdu_bytes)
    call(real_system(), RegisterOp.BPF_FILTER, argument, 1)


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
    return Query(*QUERY_OPCODE.unpack(_ask(k.IO_URING_QUERY_OPCODES, QUERY_OPCODE.size)))


class ZeroCopyQuery(NamedTuple):
    """
    What zero-copy receives can do here, asked without a ring.

    Attributes:
        register_flags, area_flags: `ZcrxRegFlags` and `ZcrxAreaFlags` that the kernel knows.
        controls: How many `ZcrxControl`s it knows.
        features: `ZcrxFeatures`.
        head_bytes, head_alignment: Of what stands before the entries of a refill queue.
    """

    register_flags: int
    area_flags: int
    controls: int
    features: int
    head_bytes: int
    head_alignment: int


def query_zero_copy() -> ZeroCopyQuery:
    """
    Ask the kernel what zero-copy receives can do.

    Raises:
        OpError: EOPNOTSUPP, or EINVAL or EBADF: the kernel is older than the question.

    Kernel: 6.19.
    """
    return ZeroCopyQuery(*QUERY_ZCRX.unpack(_ask(k.IO_URING_QUERY_ZCRX, QUERY_ZCRX.size)))


class QueueQuery(NamedTuple):
    """
    How the queues' shared words lie, asked without a ring.

    Attributes:
        head_bytes: What stands before the completions. [bytes]
        head_alignment: Where it may begin. [bytes]
    """

    head_bytes: int
    head_alignment: int


def query_queues() -> QueueQuery:
    """
    Ask the kernel how large the queues' heads are, for rings in memory of one's own.

    Raises:
        OpError: EOPNOTSUPP, or EINVAL or EBADF: the kernel is older than the question.

    Kernel: 6.19.
    """
    return QueueQuery(*QUERY_SCQ.unpack(_ask(k.IO_URING_QUERY_SCQ, QUERY_SCQ.size)))


def _ask(question: int, size: int) -> bytearray:
    return ask(real_system(), question, size)
