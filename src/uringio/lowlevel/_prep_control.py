"""
Requests about other requests, other rings, and what is registered.

Each function fills one request of *ring*, a `Ring` or a single `Request`, and takes beside its own
arguments ``user_data``, which its completions carry, and ``flags`` (`SqeFlags`).  "Lifetime" names
what the kernel still touches later: given as an object it is kept by the ring, given as an address
it is the caller's to keep.  Results are those of ``res``; a negative one is always an errno.
"""

from uringio._sys import constants as k

from ._filling import Requests
from ._memory import Source, Target, source, target
from ._slots import slot_of

__all__ = [
    "prep_cancel",
    "prep_cancel64",
    "prep_cancel_fd",
    "prep_files_update",
    "prep_fixed_fd_install",
    "prep_msg_ring",
    "prep_msg_ring_cqe_flags",
    "prep_msg_ring_fd",
    "prep_msg_ring_fd_alloc",
    "prep_nop",
    "prep_nop128",
    "prep_provide_buffers",
    "prep_remove_buffers",
    "prep_rw",
]


def prep_nop(
    ring: Requests,
    nop_flags: int = 0,
    *,
    result: int = 0,
    fd: int = -1,
    buf_index: int = 0,
    user_data: int = 0,
    flags: int = 0,
) -> None:
    """
    Do nothing, and complete.

    Args:
        nop_flags: `NopFlags`: what to go through on the way.  Kernel: 6.10.

    Fields: nop_flags, len, fd, buf_index.
    Lifetime: nothing.
    Results: 0, or *result* with NopFlags.INJECT_RESULT.
    Kernel: 5.1.  Fallback: none needed.
    Twin and source: io_uring_prep_nop(3).
    """
    ring.fill(k.IORING_OP_NOP, fd, 0, 0, result, nop_flags, user_data, flags, None, 0, buf_index)


def prep_nop128(
    ring: Requests,
    nop_flags: int = 0,
    *,
    user_data: int = 0,
    flags: int = 0,
) -> None:
    """
    `prep_nop` with a request of 128 bytes.

    Fields: as prep_nop.
    Lifetime: nothing.
    Results: 0.
    Kernel: 6.19.  Fallback: prep_nop.
    Twin and source: io_uring_prep_nop128(3).
    """
    ring.fill(k.IORING_OP_NOP128, -1, 0, 0, 0, nop_flags, user_data, flags)


def prep_rw(
    ring: Requests,
    opcode: int,
    fd: int,
    addr: int,
    len_: int,
    offset: int,
    *,
    op_flags: int = 0,
    user_data: int = 0,
    flags: int = 0,
) -> None:
    """
    Fill a request of any operation by its plainest fields.

    Args:
        op_flags: The operation's own flags.

    Fields: opcode, fd, off, addr, len.
    Lifetime: *addr*, which is the caller's.
    Results: the operation's.
    Kernel: 5.1.  Fallback: none.
    Twin: io_uring_prep_rw.  Source: io_uring_enter(2).
    """
    if not 0 <= opcode < 256:
        raise ValueError(f"an operation is a number from 0 to 255, not {opcode}")
    ring.fill(opcode, fd, offset, addr, len_, op_flags, user_data, flags)


def prep_cancel64(
    ring: Requests,
    target_user_data: int,
    cancel_flags: int = 0,
    *,
    opcode: int = 0,
    user_data: int = 0,
    flags: int = 0,
) -> None:
    """
    Ask for the end of requests with a user_data.

    Args:
        cancel_flags: `CancelFlags`.
        opcode: With CancelFlags.OP.

    What was cancelled completes on its own, with ECANCELED or with what it had done.

    Fields: addr, cancel_flags, len (the opcode).
    Lifetime: nothing.
    Results: 0, or with ALL or ANY how many; ENOENT: none; EALREADY: it runs and may not be stopped.
    Kernel: 5.5.  Fallback: none.
    Twin and source: io_uring_prep_cancel64(3).
    """
    ring.fill(
        k.IORING_OP_ASYNC_CANCEL, -1, 0, target_user_data, opcode, cancel_flags, user_data, flags
    )


def prep_cancel(
    ring: Requests,
    target_user_data: int,
    cancel_flags: int = 0,
    *,
    user_data: int = 0,
    flags: int = 0,
) -> None:
    """
    `prep_cancel64`; a user_data is a number here, never a pointer.

    Fields: as prep_cancel64.
    Lifetime: nothing.
    Results: as prep_cancel64.
    Kernel: 5.5.  Fallback: none.
    Twin and source: io_uring_prep_cancel(3).
    """
    prep_cancel64(ring, target_user_data, cancel_flags, user_data=user_data, flags=flags)


def prep_cancel_fd(
    ring: Requests,
    fd: int,
    cancel_flags: int = 0,
    *,
    user_data: int = 0,
    flags: int = 0,
) -> None:
    """
    Ask for the end of requests on a descriptor.

    Fields: fd, cancel_flags.
    Lifetime: nothing.
    Results: as prep_cancel64.
    Kernel: 5.19.  Fallback: none.
    Twin and source: io_uring_prep_cancel_fd(3).
    """
    ring.fill(
        k.IORING_OP_ASYNC_CANCEL, fd, 0, 0, 0, cancel_flags | k.IORING_ASYNC_CANCEL_FD, user_data,
        flags,
    )  # fmt: skip


def prep_files_update(
    ring: Requests,
    fds: Target | Source,
    offset: int,
    *,
    len_bytes: int | None = None,
    user_data: int = 0,
    flags: int = 0,
) -> None:
    """
    Change slots of the table of registered files.

    Args:
        fds: C ints; -1 empties a slot.
        offset: The first slot.

    Fields: addr, len, off.
    Lifetime: *fds*.
    Results: how many slots were set.
    Kernel: 5.6.  Fallback: register_files_update.
    Twin and source: io_uring_prep_files_update(3).
    """
    addr, size, keep = source(fds, len_bytes)
    ring.fill(k.IORING_OP_FILES_UPDATE, -1, offset, addr, size // 4, 0, user_data, flags, keep)


def prep_fixed_fd_install(
    ring: Requests,
    slot: int,
    install_flags: int = 0,
    *,
    user_data: int = 0,
    flags: int = 0,
) -> None:
    """
    Make a descriptor of a registered file.

    Args:
        install_flags: `FixedFdFlags`.

    Fields: fd (the slot), install_fd_flags.
    Lifetime: nothing.
    Results: the descriptor, closed on exec.
    Kernel: 6.8.  Fallback: none.
    Twin and source: io_uring_prep_fixed_fd_install(3).
    """
    ring.fill(
        k.IORING_OP_FIXED_FD_INSTALL, slot, 0, 0, 0, install_flags, user_data,
        flags | k.IOSQE_FIXED_FILE,
    )  # fmt: skip


def prep_provide_buffers(
    ring: Requests,
    memory: Target,
    buffer_bytes: int,
    count: int,
    group: int,
    first_id: int = 0,
    *,
    user_data: int = 0,
    flags: int = 0,
) -> None:
    """
    Add buffers to a group, the older way; `Ring.setup_buf_ring` is the newer.

    Fields: addr, len, fd (the count), off (the first number), buf_group.
    Lifetime: *memory*, for as long as the ring.
    Results: 0 or more.
    Kernel: 5.7.  Fallback: Ring.setup_buf_ring.
    Twin and source: io_uring_prep_provide_buffers(3).
    """
    addr, _, keep = target(memory, count * buffer_bytes)
    ring.hold(keep)
    ring.fill(
        k.IORING_OP_PROVIDE_BUFFERS, count, first_id, addr, buffer_bytes, 0, user_data, flags, None,
        0, group,
    )  # fmt: skip


def prep_remove_buffers(
    ring: Requests,
    count: int,
    group: int,
    *,
    user_data: int = 0,
    flags: int = 0,
) -> None:
    """
    Take buffers out of a group that was made by `prep_provide_buffers`.

    Fields: fd (the count), buf_group.
    Lifetime: nothing.
    Results: how many.
    Kernel: 5.7.  Fallback: none.
    Twin and source: io_uring_prep_remove_buffers(3).
    """
    ring.fill(k.IORING_OP_REMOVE_BUFFERS, count, 0, 0, 0, 0, user_data, flags, None, 0, group)


def prep_msg_ring(
    ring: Requests,
    ring_fd: int,
    res: int,
    data: int,
    msg_flags: int = 0,
    *,
    user_data: int = 0,
    flags: int = 0,
) -> None:
    """
    Post a completion to another ring.

    Args:
        res, data: The result and the user_data of that completion.
        msg_flags: `MsgRingFlags`.

    Fields: fd, len (its res), off (its user_data), msg_ring_flags.
    Lifetime: nothing.
    Results: 0; EOVERFLOW: it has no room.
    Kernel: 5.18.  Fallback: an eventfd.
    Twin and source: io_uring_prep_msg_ring(3).
    """
    ring.fill(k.IORING_OP_MSG_RING, ring_fd, data, 0, res, msg_flags, user_data, flags)


def prep_msg_ring_cqe_flags(
    ring: Requests,
    ring_fd: int,
    res: int,
    data: int,
    msg_flags: int,
    cqe_flags: int,
    *,
    user_data: int = 0,
    flags: int = 0,
) -> None:
    """
    `prep_msg_ring` of a completion with flags.

    Fields: as prep_msg_ring, file_index.
    Lifetime: nothing.
    Results: as prep_msg_ring.
    Kernel: 6.3.  Fallback: prep_msg_ring.
    Twin and source: io_uring_prep_msg_ring_cqe_flags(3).
    """
    ring.fill(
        k.IORING_OP_MSG_RING, ring_fd, data, 0, res, msg_flags | k.IORING_MSG_RING_FLAGS_PASS,
        user_data, flags, None, 0, 0, cqe_flags,
    )  # fmt: skip


def prep_msg_ring_fd(
    ring: Requests,
    ring_fd: int,
    source_slot: int,
    target_slot: int,
    data: int,
    msg_flags: int = 0,
    *,
    user_data: int = 0,
    flags: int = 0,
) -> None:
    """
    Put a registered file into another ring's table.

    Fields: fd, addr (SEND_FD), off, addr3, file_index, msg_ring_flags.
    Lifetime: nothing.
    Results: 0, or the slot where the kernel chose it; the other ring gets a completion too.
    Kernel: 6.0.  Fallback: SCM_RIGHTS.
    Twin and source: io_uring_prep_msg_ring_fd(3).
    """
    ring.fill(
        k.IORING_OP_MSG_RING, ring_fd, data, k.IORING_MSG_SEND_FD, 0, msg_flags, user_data, flags,
        None, 0, 0, slot_of(target_slot), source_slot,
    )  # fmt: skip


def prep_msg_ring_fd_alloc(
    ring: Requests,
    ring_fd: int,
    source_slot: int,
    data: int,
    msg_flags: int = 0,
    *,
    user_data: int = 0,
    flags: int = 0,
) -> None:
    """
    `prep_msg_ring_fd` into a slot of the kernel's choice.

    Fields: as prep_msg_ring_fd.
    Lifetime: nothing.
    Results: the slot.
    Kernel: 6.0.  Fallback: prep_msg_ring_fd.
    Twin and source: io_uring_prep_msg_ring_fd_alloc(3).
    """
    prep_msg_ring_fd(
        ring, ring_fd, source_slot, k.IORING_FILE_INDEX_ALLOC, data, msg_flags,
        user_data=user_data, flags=flags,
    )  # fmt: skip
