"""
What this kernel's io_uring has, by the best way to learn it that is open here.

QUERY tells nearly everything, without a ring, on kernels that have it; REGISTER_PROBE tells which
operations were built in, on a ring; the rest is tried (`_ring.trial`).

Sources: io_uring_query(3), io_uring_register(2).
"""

import errno
from typing import NamedTuple

from uringio._sys import constants as k
from uringio._sys.layouts import QUERY_HDR, QUERY_OPCODE
from uringio._sys.memory import pin
from uringio._sys.system import System
from uringio.errors import OpError, RingError, op_error

from .probe import probe_ring
from .register import register_iowq_max_workers
from .setup import Ring
from .trial import (
    make_trial_ring,
    try_enter_flags,
    try_opcodes,
    try_register_ops,
    try_setup_flags,
    try_sqe_flags,
)

__all__ = ["Answer", "Survey", "ask", "ask_surface", "survey"]


class Answer(NamedTuple):
    """
    What QUERY tells.

    Attributes:
        opcodes, register_ops: How many there are, from 0 up.
        features, setup_flags, enter_flags, sqe_flags: All that are known.
        query_ops: How many questions there are, from 0 up.
    """

    opcodes: int
    register_ops: int
    features: int
    setup_flags: int
    enter_flags: int
    sqe_flags: int
    query_ops: int


class Survey(NamedTuple):
    """
    What a kernel has; a set that is empty, or flags that are 0, could not be learned.

    Attributes:
        source: How it was learned: ``"query"``; ``"register_probe"``, for the operations, and by
            trial for the rest; or ``"trial"``.
        opcodes, register_ops: Their numbers.
        features, setup_flags, enter_flags, sqe_flags: Their bits.
        workers: Most worker threads for files, and for all else, of the calling thread's rings.
    """

    source: str
    opcodes: frozenset[int]
    register_ops: frozenset[int]
    features: int
    setup_flags: int
    enter_flags: int
    sqe_flags: int
    workers: tuple[int, int] | None


def ask(system: System, question: int, size: int) -> bytearray:
    """
    Ask the kernel a question, without a ring, and return its answer.

    Args:
        question: IO_URING_QUERY_*.
        size: Of the answer. [bytes]

    Raises:
        OpError: EINVAL or EBADF, it is older than QUERY; EOPNOTSUPP, older than the question; or
            a filter forbids asking.

    Twin: io_uring_register_query.  Kernel: 6.18.
    """
    answer = bytearray(size)
    answer_addr, _, _keep = pin(answer, writable=True)
    head = bytearray(QUERY_HDR.pack(0, answer_addr, question, size, 0))
    addr, _, _keep_too = pin(head, writable=True)
    result = system.io_uring_register(-1, k.IORING_REGISTER_QUERY, addr, 0)
    if result >= 0:
        # The call has succeeded; whether the question has, stands in its header.
        result = QUERY_HDR.unpack(head)[4]
    if result < 0:
        older = -result in {errno.EINVAL, errno.EBADF}
        detail = "this kernel is older than Linux 6.18" if older else ""
        raise op_error(-result, "register QUERY", detail=detail)
    return answer


def ask_surface(system: System) -> Answer:
    """Ask the kernel what it has; raises `OpError` as `ask` does."""
    return Answer(*QUERY_OPCODE.unpack(ask(system, k.IO_URING_QUERY_OPCODES, QUERY_OPCODE.size)))


def survey(system: System, ring: Ring | None) -> Survey | None:
    """
    Find out what the kernel has; None where it neither tells nor lets itself be tried.

    Args:
        ring: A ring of the calling thread's, if there is one; without, one is made for the while.
    """
    made: Ring | None = None
    if ring is None:
        try:
            ring = made = make_trial_ring(system)
        except (OpError, RingError):
            pass
    try:
        try:
            return _answered(ask_surface(system), ring)
        except OpError:
            return None if ring is None else _tried(system, ring)
    finally:
        if made is not None:
            made.close()


def _answered(answer: Answer, ring: Ring | None) -> Survey:
    opcodes = None if ring is None else _built_in(ring)
    return Survey(
        "query",
        frozenset(range(answer.opcodes)) if opcodes is None else opcodes,
        frozenset(range(answer.register_ops)),
        answer.features,
        answer.setup_flags,
        answer.enter_flags,
        answer.sqe_flags,
        None if ring is None else _workers(ring),
    )


def _tried(system: System, ring: Ring) -> Survey:
    opcodes = _built_in(ring)
    source = "trial" if opcodes is None else "register_probe"
    register_ops: frozenset[int] = frozenset()
    enter_flags = sqe_flags = 0
    try:
        trial = make_trial_ring(system)
        try:
            register_ops = try_register_ops(trial)
            enter_flags = try_enter_flags(system)
            if opcodes is None:
                opcodes = try_opcodes(trial)
            sqe_flags = try_sqe_flags(trial)
        finally:
            trial.close()
    except (OpError, RingError):
        pass  # no second ring, or a filter forbids to enter any: the rest is not known
    return Survey(
        source,
        opcodes or frozenset(),
        register_ops,
        ring.features,
        try_setup_flags(system),
        enter_flags,
        sqe_flags,
        _workers(ring),
    )


def _built_in(ring: Ring) -> frozenset[int] | None:
    try:
        return probe_ring(ring).opcodes
    except OpError:
        return None


def _workers(ring: Ring) -> tuple[int, int] | None:
    try:
        return register_iowq_max_workers(ring, 0, 0)
    except OpError:
        return None
