"""
What the kernel really does where its manual says otherwise, or nothing.

docs/reference/traps.md lists the manual's claims beside these tests.
"""

import errno
import os
import socket
import struct
import threading
import time

import pytest

from tests.kernel import uring_refusal
from tests.lowlevel.rig import PATIENCE_NS, done, result
from uringio._ring.setup import queue_init
from uringio._sys.layouts import GETEVENTS_ARG
from uringio._sys.system import System
from uringio.errors import OpError, RingError, UnsupportedError
from uringio.lowlevel import (
    CqeFlags,
    Features,
    NopFlags,
    Opcode,
    RecvSendFlags,
    RegisterOp,
    Ring,
    SetupFlags,
    SqeFlags,
    SqRingFlags,
    prep_close_direct,
    prep_nop,
    prep_read,
    prep_recv,
    prep_send,
)

S = SetupFlags


def refusal_of(flags: int) -> int:
    """Ask the kernel itself for a ring, and return its errno, 0 for none."""
    if reason := uring_refusal():
        pytest.skip(reason)
    try:
        queue_init(System(), 4, ladder=(int(flags),)).close()
    except RingError as error:
        return error.errno or 0
    return 0


@pytest.mark.parametrize(
    ("flags", "number"),
    [
        # io_uring_setup_flags(7) has mixed sizes need the large ones; they exclude them.
        (S.CQE32 | S.CQE_MIXED, errno.EINVAL),
        (S.SQE128 | S.SQE_MIXED, errno.EINVAL),
        # The same page has NO_SQARRAY needed here; it is NO_MMAP.
        (S.REGISTERED_FD_ONLY | S.NO_SQARRAY, errno.EINVAL),
        # And what is true but easily missed.
        (S.DEFER_TASKRUN, errno.EINVAL),
        (S.TASKRUN_FLAG, errno.EINVAL),
        (S.SQPOLL | S.SINGLE_ISSUER | S.DEFER_TASKRUN, errno.EINVAL),
        (S.SQ_AFF, errno.EINVAL),
        (S.HYBRID_IOPOLL, errno.EINVAL),
    ],
    ids=str,
)
def test_flags_that_the_kernel_refuses(flags: SetupFlags, number: int) -> None:
    """Each combination, and by which errno; a kernel too old for a flag says EINVAL as well."""
    assert refusal_of(flags) in {number, errno.EINVAL}


def test_query_is_there_where_zero_copy_control_may_not_be(ring: Ring) -> None:
    """io_uring_register(2) dates both to 6.15; 6.18 knows 36 registrations, from 0 to QUERY."""
    with pytest.raises(OpError) as caught:
        ring.register(RegisterOp.ZCRX_CTRL, bytes(72), 0)
    assert caught.value.errno in {errno.EINVAL, errno.ENOENT, errno.ENXIO, errno.EOPNOTSUPP}


def test_a_bundles_result_is_bytes(ring: Ring, pair: tuple[socket.socket, socket.socket]) -> None:
    """
    The header's comment says buffers; and the number in the flags is the first one's.

    The length is that of whole buffers: of one that would be filled in part alone, none is taken.
    """
    ring.setup_buf_ring(0, 4, 4)
    pair[0].send(b"0123456789")
    prep_recv(ring, pair[1].fileno(), 0, ioprio=RecvSendFlags.BUNDLE, buf_group=0, len_bytes=12)
    [one] = done(ring)
    assert (one.res, one.buffer_id) == (10, 0)


def test_the_size_of_a_completion_is_the_operations_choice() -> None:
    """There is no flag of requests for it, whatever io_uring_setup_flags(7) says."""
    with Ring(4, flags=S.CQE_MIXED) as ring:
        prep_nop(ring, user_data=1)
        prep_nop(ring, NopFlags.CQE32, user_data=2)
        sizes = {one.user_data: bool(one.flags & CqeFlags.F_32) for one in ring.wait_big(2)}
    assert sizes == {1: False, 2: True}


def test_closing_a_slot_must_not_call_it_a_registered_file(ring: Ring) -> None:
    """The slot stands in a field of its own; with FIXED_FILE the request is refused."""
    ring.register_files_sparse(2)
    prep_close_direct(ring, 0, flags=SqeFlags.FIXED_FILE)
    assert result(ring) in {-errno.EBADF, -errno.EINVAL}


def test_an_eventual_refusal_is_a_completion(ring: Ring) -> None:
    """A request that the kernel cannot even prepare is consumed, and completes with its errno."""
    prep_nop(ring, 1 << 30)
    assert ring.submit() == 1
    assert result(ring) == -errno.EINVAL


def test_drain_and_skip_exclude_each_other(ring: Ring) -> None:
    """A drained request of a ring needs the completions that skipping leaves out."""
    prep_nop(ring, user_data=1, flags=SqeFlags.IO_DRAIN | SqeFlags.CQE_SKIP_SUCCESS)
    prep_nop(ring, user_data=2)
    found = {one.user_data: one.res for one in done(ring)}
    assert found[2] == 0
    assert found.get(1, 0) in {0, -errno.EOPNOTSUPP}


def test_waitid_is_as_old_as_its_neighbours() -> None:
    """io_uring_enter(2) dates it to 6.5; but operations were numbered in the order of releases."""
    dated = [tuple(map(int, one.since.split("."))) for one in Opcode]
    assert dated == sorted(dated)
    assert {Opcode.READ_MULTISHOT.since, Opcode.WAITID.since, Opcode.FUTEX_WAIT.since} == {"6.7"}
    assert {Opcode.CLOSE.since, Opcode.FILES_UPDATE.since, Opcode.STATX.since} == {"5.6"}
    registered = [
        tuple(map(int, one.since.split(".")))
        for one in RegisterOp
        if one not in {RegisterOp.ZCRX_IFQ, RegisterOp.USE_REGISTERED_RING}
    ]
    assert registered == sorted(registered)  # but for one whose number waited for its release
    assert RegisterOp.ZCRX_IFQ.since == "6.15"


def test_sends_of_provided_buffers_come_with_bundles(
    ring: Ring, pair: tuple[socket.socket, socket.socket]
) -> None:
    """
    No feature is called SEND_BUF_SELECT, whatever io_uring_prep_send(3) says.

    The one for bundles tells; a group serves a send that is none as well.
    """
    assert "SEND_BUF_SELECT" not in Features.__members__
    buffers = ring.setup_buf_ring(0, 2, 4)
    buffers.memory.view[:] = b"aaaabbbb"
    prep_send(ring, pair[0].fileno(), 0, buf_group=0, len_bytes=3)
    [one] = done(ring)
    if Features.RECVSEND_BUNDLE not in ring.features:
        assert one.res < 0
    else:
        assert (one.res, one.buffer_id) == (3, 0)
        assert pair[1].recv(10) == b"aaa"


def test_the_least_duration_lies_where_the_manual_has_padding() -> None:
    """io_uring_enter(2) calls the fourth word of the argument of waits `pad`."""
    assert GETEVENTS_ARG.pack(1, 2, 3, 4) == struct.pack("=QIIQ", 1, 2, 3, 4)
    with Ring(4) as ring:
        if Features.MIN_TIMEOUT not in ring.features:
            pytest.skip("least durations came with Linux 6.12")
        prep_nop(ring, user_data=1)
        assert ring.wait(2, 600_000_000_000, min_wait_ns=1_000) == [(1, 0, 0)]


@pytest.mark.slow
def test_a_thread_that_may_idle_for_no_time_sleeps_all_the_same() -> None:
    """io_uring_sqpoll(7) has it never sleep; the kernel takes 0 for a second."""
    try:
        ring = Ring(4, flags=S.SQPOLL)  # sq_thread_idle is 0 then
    except (UnsupportedError, RingError) as error:
        pytest.skip(str(error))
    with ring:
        core = ring._core
        assert core is not None
        never = threading.Event()
        deadline_ns = time.monotonic_ns() + PATIENCE_NS
        while not core.sq_flags[0] & SqRingFlags.NEED_WAKEUP:
            assert time.monotonic_ns() < deadline_ns
            never.wait(0.05)
        prep_nop(ring, user_data=1)
        assert done(ring) == [(1, 0, 0)]


def test_the_end_of_a_file_leaves_its_buffer_in_use(ring: Ring) -> None:
    """
    A read of nothing takes nothing of an incremental buffer; what comes later stands in it.

    Kernels have left BUF_MORE out there, so a program looks at the group's head, or at which
    buffer comes next.
    """
    buffers = ring.setup_buf_ring(1, 2, 16, incremental=True)
    at = 0
    for text in (b"abc", b"de"):
        reading, writing = os.pipe()
        os.write(writing, text)
        os.close(writing)
        for expected in (text, b""):
            prep_read(ring, reading, 0, len_bytes=8, buf_group=1)
            [one] = done(ring)
            assert (one.res, one.buffer_id) == (len(expected), 0)
            assert buffers.view(0, one.res, at) == expected
            at += one.res
        os.close(reading)
    assert ring.buf_ring_head(1) == 0
