"""
Find out by trying what a kernel has, where it cannot be asked.

What the kernel does not know it refuses with EINVAL.  So everything is tried in a form that a
kernel which knows it refuses with another errno, or that does nothing: nothing here has an effect.

- A set-up flag: shares the workers of descriptor -1, which ends in ENXIO; no ring comes of it.
- An enter flag: enters descriptor -1, which ends in EBADF.
- A registration: has its argument at an address where nothing is, which ends in EFAULT.
- An operation: asks for a provided buffer, which nearly all refuse with EOPNOTSUPP; those that take
  one are tried without as well, on descriptor -1.
- A flag of requests: stands on a READ of descriptor -1, which ends in EBADF.

So an operation counts as known whose number is, also where the kernel was built without it.
`tests/ring/test_survey.py` holds all of it against what a kernel that can be asked says.

Sources: io_uring_setup(2), io_uring_enter(2), io_uring_register(2).
"""

import errno
from collections.abc import Callable
from typing import Final

from uringio._sys import constants as k
from uringio._sys.layouts import CQE, PARAMS, RSRC_REGISTER, RSRC_UPDATE2, SQE
from uringio._sys.libc import pointer_argument, size_argument
from uringio._sys.memory import pin
from uringio._sys.system import System

from .prep import sqe_head
from .queue import make_submit_and_wait
from .setup import FLAG_LADDER, Ring, queue_init

__all__ = [
    "make_trial_ring",
    "try_enter_flags",
    "try_opcodes",
    "try_register_ops",
    "try_setup_flags",
    "try_sqe_flags",
]

# Near the beginning of memory, where nothing is ever mapped.
_NOWHERE: Final = 16
# How far behind the last operation that has a name here to look for more.
_BEYOND: Final = 16
# The first ring of a thread decides how many workers it may ever have: at most as many as that has
# slots, so it must not be too small.
_SLOTS: Final = 128
_WAIT_NS: Final = 5_000_000_000

# What a filter answers instead of the kernel.
_BLOCKED: Final = frozenset((-errno.EPERM, -errno.EACCES, -errno.ENOSYS))

# Set-up flags that mean something only beside others.
_BESIDE: Final[dict[int, int]] = {
    k.IORING_SETUP_SQ_AFF: k.IORING_SETUP_SQPOLL,
    k.IORING_SETUP_TASKRUN_FLAG: k.IORING_SETUP_COOP_TASKRUN,
    k.IORING_SETUP_DEFER_TASKRUN: k.IORING_SETUP_SINGLE_ISSUER,
    k.IORING_SETUP_REGISTERED_FD_ONLY: k.IORING_SETUP_NO_MMAP,
    k.IORING_SETUP_HYBRID_IOPOLL: k.IORING_SETUP_IOPOLL,
    k.IORING_SETUP_SQ_REWIND: k.IORING_SETUP_NO_SQARRAY,
}

# (address, count) of registrations that want something else than one element.
_SHAPES: Final[dict[int, tuple[int, int]]] = {
    k.IORING_UNREGISTER_BUFFERS: (0, 0),  # ENXIO
    k.IORING_UNREGISTER_FILES: (0, 0),  # ENXIO
    k.IORING_UNREGISTER_EVENTFD: (0, 0),  # ENXIO
    k.IORING_REGISTER_PERSONALITY: (0, 0),  # one of the trial ring's own, which goes with it
    k.IORING_REGISTER_ENABLE_RINGS: (0, 0),  # EBADFD
    k.IORING_REGISTER_FILES2: (_NOWHERE, RSRC_REGISTER.size),
    k.IORING_REGISTER_BUFFERS2: (_NOWHERE, RSRC_REGISTER.size),
    k.IORING_REGISTER_FILES_UPDATE2: (_NOWHERE, RSRC_UPDATE2.size),
    k.IORING_REGISTER_BUFFERS_UPDATE: (_NOWHERE, RSRC_UPDATE2.size),
    k.IORING_REGISTER_IOWQ_AFF: (_NOWHERE, 8),
    k.IORING_REGISTER_IOWQ_MAX_WORKERS: (_NOWHERE, 2),
    k.IORING_REGISTER_FILE_ALLOC_RANGE: (_NOWHERE, 0),
    k.IORING_REGISTER_CLOCK: (_NOWHERE, 0),
    k.IORING_REGISTER_QUERY: (_NOWHERE, 0),
    k.IORING_REGISTER_ZCRX_CTRL: (_NOWHERE, 0),
}

# Registrations that cannot be tried without effect, and those that came with them.
_TWINS: Final[dict[int, int]] = {
    k.IORING_UNREGISTER_PERSONALITY: k.IORING_REGISTER_PERSONALITY,
    # It would reset the workers of the whole thread.
    k.IORING_UNREGISTER_IOWQ_AFF: k.IORING_REGISTER_IOWQ_AFF,
}


def make_trial_ring(system: System) -> Ring:
    """
    Make a small ring of the kind that takes most; raises `RingError`.

    Requests and completions of double size, for those that come in no other.
    """
    big = k.IORING_SETUP_SQE128 | k.IORING_SETUP_CQE32
    return queue_init(system, _SLOTS, ladder=tuple(one | big for one in FLAG_LADDER))


def try_setup_flags(system: System) -> int:
    """Return which set-up flags the kernel knows, 0 where set-up is blocked.  Kernel: 5.6."""

    def attempt(flag: int) -> int:
        asked = flag | _BESIDE.get(flag, 0) | k.IORING_SETUP_ATTACH_WQ
        params = bytearray(PARAMS.pack(0, 8, asked, 0, 0, 0, (1 << 32) - 1, *(0,) * 18))
        addr, _, _keep = pin(params, writable=True)
        result = system.io_uring_setup(4, addr)
        if result >= 0:  # no kernel does; but what it made must not stay
            system.close(result)
        return result

    return 0 if attempt(0) in _BLOCKED else _known("IORING_SETUP_", attempt)


def try_enter_flags(system: System) -> int:
    """
    Return which flags of entering the kernel knows, 0 where that is blocked.

    The calling thread must have made a ring before: REGISTERED_RING is refused without.
    """
    null, zero = pointer_argument(0), size_argument(0)

    def attempt(flag: int) -> int:
        # As an index, -1 is out of range, and answered with EINVAL.
        fd = 15 if flag == k.IORING_ENTER_REGISTERED_RING else -1
        result = system.bare_syscall(system.nr_enter, fd, 0, 0, flag, null, zero)
        return result if result >= 0 else -system.get_errno()

    return 0 if attempt(0) in _BLOCKED else _known("IORING_ENTER_", attempt)


def _known(prefix: str, attempt: Callable[[int], int]) -> int:
    """Gather the bits, of those that have a name here, that are not refused as unknown."""
    bits = {value for name, value in vars(k).items() if name.startswith(prefix)}
    return sum(bit for bit in bits if attempt(bit) != -errno.EINVAL)


def try_register_ops(ring: Ring) -> frozenset[int]:
    """
    Return which registrations the kernel knows; none where a filter keeps them from it.

    *ring* is one that `make_trial_ring` made, and of no other use afterwards.
    """
    register = ring.system.io_uring_register

    def attempt(op: int) -> int:
        addr, count = _SHAPES.get(op, (_NOWHERE, 1))
        fd = -1 if op == k.IORING_REGISTER_SEND_MSG_RING else ring.fd
        return register(fd, op, addr, count)

    unknown = k.IORING_REGISTER_USE_REGISTERED_RING - 1
    if attempt(unknown) != -errno.EINVAL:
        return frozenset()
    known = set[int]()
    for op in range(k.IORING_REGISTER_BPF_FILTER + 1):
        answer = attempt(_TWINS.get(op, op))
        # For ZCRX_IFQ the kernel wants to see CAP_NET_ADMIN before it looks at the argument.
        if answer != -errno.EINVAL and (answer not in _BLOCKED or op == k.IORING_REGISTER_ZCRX_IFQ):
            known.add(op)
    return frozenset(known)


def try_opcodes(ring: Ring) -> frozenset[int]:
    """
    Return the operations that the kernel knows; raises `RingError` where it cannot be entered.

    *ring* is one that `make_trial_ring` made.
    """
    attempt = _make_attempt(ring)
    return frozenset(
        opcode
        for opcode in range(k.IORING_OP_URING_CMD128 + _BEYOND)
        if attempt(opcode, k.IOSQE_BUFFER_SELECT) != -errno.EINVAL
        or attempt(opcode, 0) != -errno.EINVAL
    )


def try_sqe_flags(ring: Ring) -> int:
    """
    Return which flags of requests the kernel knows; raises `RingError` where it is not entered.

    *ring* is one that `make_trial_ring` made, and of no other use afterwards: having seen
    CQE_SKIP_SUCCESS, it refuses to drain.
    """
    attempt = _make_attempt(ring)
    return _known("IOSQE_", lambda flag: attempt(k.IORING_OP_READ, flag))


def _make_attempt(ring: Ring) -> Callable[[int, int], int]:
    """Build the function that carries out one request, of this opcode and these flags."""
    submit_and_wait = make_submit_and_wait(ring)

    def attempt(opcode: int, flags: int) -> int:
        tail, head = ring.sq_tail[0], ring.cq_head[0]
        slot = (tail & ring.sq_entries - 1) * ring.sqe_bytes
        SQE.pack_into(ring.sqes, slot, sqe_head(opcode, flags), -1, 0, 0, 0, 0, 0, 0, 0)
        submit_and_wait(tail + 1, 1, _WAIT_NS)
        if ring.cq_tail[0] == head:
            return -errno.EINVAL  # refused without so much as a completion
        at = (head & ring.cq_entries - 1) * ring.cqe_bytes
        result: int = CQE.unpack_from(ring.cqes, at)[1]
        ring.cq_head[0] = (head + 1) & 0xFFFFFFFF
        return result

    return attempt
