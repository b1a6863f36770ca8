"""Requests about time, other requests, other rings, processes and memory: their effects."""

import errno
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.lowlevel.rig import done, effect, result, results
from uringio.errors import OpError
from uringio.lowlevel import (
    CancelFlags,
    CqeFlags,
    Features,
    MsgRingCommand,
    MsgRingFlags,
    NopFlags,
    Opcode,
    PollFlags,
    RegisterOp,
    Request,
    Ring,
    SetupFlags,
    SqeFlags,
    TimeoutFlags,
    allocate,
    prep_cancel,
    prep_cancel64,
    prep_cancel_fd,
    prep_files_update,
    prep_futex_wait,
    prep_futex_waitv,
    prep_futex_wake,
    prep_link_timeout,
    prep_msg_ring,
    prep_msg_ring_cqe_flags,
    prep_msg_ring_fd,
    prep_msg_ring_fd_alloc,
    prep_nop,
    prep_poll_add,
    prep_poll_multishot,
    prep_poll_remove,
    prep_poll_update,
    prep_provide_buffers,
    prep_read,
    prep_recv,
    prep_remove_buffers,
    prep_rw,
    prep_timeout,
    prep_timeout_remove,
    prep_timeout_update,
    prep_waitid,
    prep_write,
    register_sync_msg,
    unpack_siginfo,
)

Pair = tuple[socket.socket, socket.socket]
LONG_NS = 600_000_000_000
P_PIDFD = 3


@effect(Opcode.NOP)
@effect(NopFlags.INJECT_RESULT)
def test_nop(ring: Ring) -> None:
    """It completes with its user_data; with a flag, with the result asked for."""
    prep_nop(ring, user_data=2**64 - 2)
    prep_nop(ring, NopFlags.INJECT_RESULT, result=42, user_data=1)
    prep_rw(ring, Opcode.NOP, -1, 0, 0, 0, user_data=3)
    assert results(ring, 3) == {2**64 - 2: 0, 1: 42, 3: 0}


@effect(Opcode.TIMEOUT)
@effect(TimeoutFlags.ABS)
def test_timeout(ring: Ring) -> None:
    """It expires with ETIME; a count of completions ends it with 0 before."""
    prep_timeout(ring, 1, user_data=1)
    assert done(ring)[0].res == -errno.ETIME
    prep_timeout(ring, LONG_NS, 1, user_data=2)
    prep_nop(ring, user_data=3)
    assert results(ring, 2) == {2: 0, 3: 0}
    prep_timeout(ring, time.monotonic_ns() - 1, 0, TimeoutFlags.ABS)
    assert result(ring) == -errno.ETIME


@effect(TimeoutFlags.MULTISHOT)
def test_multishot_timeout(ring: Ring) -> None:
    """It comes as often as asked for, and the last says so."""
    prep_timeout(ring, 1000, 3, TimeoutFlags.MULTISHOT)
    found = done(ring, 3)
    assert [(one.res, one.more) for one in found] == [
        (-errno.ETIME, True),
        (-errno.ETIME, True),
        (-errno.ETIME, False),
    ]


@effect(Opcode.TIMEOUT_REMOVE)
@effect(TimeoutFlags.UPDATE)
def test_timeouts_are_moved_and_removed(ring: Ring) -> None:
    """One moved to now expires; one removed is cancelled; one that is not there is ENOENT."""
    prep_timeout(ring, LONG_NS, user_data=1)
    prep_timeout_update(ring, 1, 1, user_data=2)
    assert results(ring, 2) == {1: -errno.ETIME, 2: 0}
    prep_timeout(ring, LONG_NS, user_data=1)
    prep_timeout_remove(ring, 1, user_data=2)
    assert results(ring, 2) == {1: -errno.ECANCELED, 2: 0}
    prep_timeout_remove(ring, 1)
    assert result(ring) == -errno.ENOENT


@effect(Opcode.LINK_TIMEOUT)
def test_link_timeout(ring: Ring, pair: Pair) -> None:
    """It cuts the request before it short; one that ends in time cancels it."""
    prep_recv(ring, pair[0].fileno(), bytearray(4), user_data=1, flags=SqeFlags.IO_LINK)
    prep_link_timeout(ring, 1000, user_data=2)
    assert results(ring, 2) == {1: -errno.ECANCELED, 2: -errno.ETIME}
    pair[1].send(b"data")
    prep_recv(ring, pair[0].fileno(), bytearray(4), user_data=1, flags=SqeFlags.IO_LINK)
    prep_link_timeout(ring, LONG_NS, user_data=2)
    assert results(ring, 2) == {1: 4, 2: -errno.ECANCELED}


@effect(Opcode.ASYNC_CANCEL)
@effect(CancelFlags.ALL, CancelFlags.FD, CancelFlags.OP, CancelFlags.ANY)
def test_cancel(ring: Ring, pair: Pair) -> None:
    """By user_data, by descriptor, by operation, and whatever there is."""
    fd = pair[0].fileno()

    def receives(*numbers: int) -> None:
        for one in numbers:
            prep_recv(ring, fd, bytearray(4), user_data=one)
        ring.submit()

    receives(1)
    prep_cancel(ring, 1, user_data=9)
    assert results(ring, 2) == {1: -errno.ECANCELED, 9: 0}
    receives(1, 2)
    prep_cancel_fd(ring, fd, CancelFlags.ALL, user_data=9)
    assert results(ring, 3) == {1: -errno.ECANCELED, 2: -errno.ECANCELED, 9: 2}
    receives(1, 2)
    prep_timeout(ring, LONG_NS, user_data=3)
    op = CancelFlags.OP | CancelFlags.ALL
    prep_cancel64(ring, 0, op, opcode=Opcode.RECV, user_data=9)
    assert results(ring, 3) == {1: -errno.ECANCELED, 2: -errno.ECANCELED, 9: 2}
    prep_cancel64(ring, 0, CancelFlags.ANY, user_data=9)
    assert results(ring, 2) == {3: -errno.ECANCELED, 9: 1}
    prep_cancel64(ring, 77)
    assert result(ring) == -errno.ENOENT


@effect(Opcode.POLL_ADD)
def test_poll(ring: Ring, pair: Pair) -> None:
    """Readiness that comes later completes it, with what holds."""
    left, right = pair
    prep_poll_add(ring, right.fileno(), select.POLLIN | select.POLLOUT)
    assert result(ring) == select.POLLOUT
    prep_poll_add(ring, right.fileno(), select.POLLIN)
    assert ring.wait(1, 0) == []
    left.send(b"x")
    assert result(ring) & select.POLLIN


@effect(PollFlags.ADD_MULTI)
def test_multishot_poll(ring: Ring, pair: Pair) -> None:
    """Each time something comes."""
    left, right = pair
    prep_poll_multishot(ring, right.fileno(), select.POLLIN)
    for _ in range(3):
        left.send(b"x")
        [one] = done(ring)
        assert one.more
        right.recv(10)


@effect(Opcode.POLL_REMOVE)
@effect(PollFlags.UPDATE_EVENTS, PollFlags.UPDATE_USER_DATA)
def test_polls_are_changed_and_removed(ring: Ring, pair: Pair) -> None:
    """New events complete it under its new number; one removed is cancelled."""
    fd = pair[0].fileno()
    both = PollFlags.UPDATE_EVENTS | PollFlags.UPDATE_USER_DATA
    prep_poll_add(ring, fd, select.POLLIN, user_data=1)
    prep_poll_update(ring, 1, 5, select.POLLOUT, both, user_data=2)
    assert results(ring, 2) == {5: select.POLLOUT, 2: 0}
    assert ring.in_flight == 0
    prep_poll_add(ring, fd, select.POLLIN, user_data=1)
    prep_poll_remove(ring, 1, user_data=2)
    assert results(ring, 2) == {1: -errno.ECANCELED, 2: 0}


@effect(Opcode.MSG_RING)
@effect(MsgRingCommand.DATA, MsgRingFlags.FLAGS_PASS)
def test_messages_between_rings(ring: Ring, make_ring: Callable[..., Ring]) -> None:
    """The other ring gets a completion with the numbers and flags given."""
    other = make_ring()
    prep_msg_ring(ring, other.fd, 33, 2**40, user_data=1)
    assert result(ring) == 0
    assert done(other) == [(2**40, 33, 0)]
    prep_msg_ring_cqe_flags(ring, other.fd, -5 & 0xFFFFFFFF, 6, 0, 1 << 8)
    assert result(ring) == 0
    assert done(other) == [(6, -5, 1 << 8)]
    prep_msg_ring(ring, 0, 1, 1)
    assert result(ring) == -errno.EBADFD


@effect(MsgRingCommand.SEND_FD, MsgRingFlags.CQE_SKIP)
def test_files_travel_between_rings(ring: Ring, make_ring: Callable[..., Ring], file: Path) -> None:
    """A registered file arrives in the slot asked for, or in one of the kernel's choice."""
    other = make_ring()
    other.register_files_sparse(4)
    fd = os.open(file, os.O_RDONLY)
    ring.register_files([fd])
    os.close(fd)
    prep_msg_ring_fd(ring, other.fd, 0, 3, 7)
    assert result(ring) == 0
    assert done(other) == [(7, 0, 0)]
    prep_msg_ring_fd_alloc(ring, other.fd, 0, 8, MsgRingFlags.CQE_SKIP)
    assert result(ring) == 0  # the slot
    for slot in (3, 0):
        room = bytearray(4)
        prep_read(other, slot, room, 0, flags=SqeFlags.FIXED_FILE)
        assert (result(other), room) == (4, b"0123")


@effect(RegisterOp.SEND_MSG_RING)
def test_message_without_a_ring(ring: Ring) -> None:
    """A request that stands by itself posts to a ring."""
    request = Request()
    prep_msg_ring(request, ring.fd, 5, 6)
    register_sync_msg(request)
    assert done(ring) == [(6, 5, 0)]
    prep_nop(request)
    with pytest.raises(OpError):
        register_sync_msg(request)


@effect(Opcode.FILES_UPDATE, RegisterOp.FILES, RegisterOp.UNREGISTER_FILES)
def test_files_update(ring: Ring, file: Path) -> None:
    """Slots get other files, and lose them."""
    fd = os.open(file, os.O_RDONLY)
    ring.register_files([-1, -1])
    room = bytearray(2)
    prep_read(ring, 1, room, 0, flags=SqeFlags.FIXED_FILE)
    assert result(ring) == -errno.EBADF
    prep_files_update(ring, struct.pack("i", fd), 1)
    assert result(ring) == 1
    os.close(fd)
    prep_read(ring, 1, room, 0, flags=SqeFlags.FIXED_FILE)
    assert (result(ring), room) == (2, b"01")
    ring.unregister_files()
    prep_read(ring, 1, room, 0, flags=SqeFlags.FIXED_FILE)
    assert result(ring) == -errno.EBADF


@effect(Opcode.PROVIDE_BUFFERS, Opcode.REMOVE_BUFFERS)
def test_buffers_the_older_way(ring: Ring, pair: Pair) -> None:
    """A receive takes the buffer that was provided last; what is removed is gone."""
    memory = allocate(3 * 8)
    prep_provide_buffers(ring, memory, 8, 3, 4, 10)
    assert result(ring) >= 0
    pair[0].send(b"data")
    prep_recv(ring, pair[1].fileno(), 0, buf_group=4, len_bytes=8)
    [one] = done(ring)
    assert one.buffer_id in {10, 11, 12}
    at = (one.buffer_id - 10) * 8
    assert memory.view[at : at + 4] == b"data"
    prep_remove_buffers(ring, 5, 4)
    assert result(ring) == 2
    prep_recv(ring, pair[1].fileno(), 0, buf_group=4, len_bytes=8)
    pair[0].send(b"more")
    assert result(ring) == -errno.ENOBUFS


@effect(Opcode.WAITID)
def test_waitid(ring: Ring) -> None:
    """A child's end completes it, with how it ended, and the child is gone."""
    child = subprocess.Popen([sys.executable, "-c", "import os; os.read(0, 1); os._exit(7)"],
                             stdin=subprocess.PIPE)  # fmt: skip
    info = bytearray(128)
    prep_waitid(ring, os.P_PID, child.pid, info, os.WEXITED)
    assert ring.wait(1, 0) == []
    assert child.stdin is not None
    child.stdin.close()
    assert result(ring) == 0
    assert unpack_siginfo(info) == (os.CLD_EXITED, child.pid, os.getuid(), 7)
    with pytest.raises(ChildProcessError):
        os.waitpid(child.pid, os.WNOHANG)
    child.wait()


@effect(Opcode.FUTEX_WAIT, Opcode.FUTEX_WAKE)
def test_futex(ring: Ring) -> None:
    """Who waits is woken, as many as asked; another value does not wait at all."""
    word = allocate(4)
    prep_futex_wait(ring, word, 1, user_data=1)
    assert result(ring) == -errno.EAGAIN
    prep_futex_wait(ring, word, 0, user_data=1)
    prep_futex_wait(ring, word, 0, user_data=2)
    assert ring.wait(1, 0) == []
    prep_futex_wake(ring, word, 1, user_data=3)
    found = done(ring, 2)
    assert sorted(one.res for one in found) == [0, 1]
    assert {one.user_data for one in found} in ({1, 3}, {2, 3})
    prep_futex_wake(ring, word, 10, user_data=3)
    assert 1 in [one.res for one in done(ring, 2)]


@effect(Opcode.FUTEX_WAITV)
def test_futex_waitv(ring: Ring) -> None:
    """Which of the words was woken is told."""
    words = allocate(8)
    prep_futex_waitv(ring, [(words.addr, 0, 2), (words.addr + 4, 0, 2)], user_data=1)
    assert ring.wait(1, 0) == []
    prep_futex_wake(ring, words.addr + 4, 1, user_data=2)
    assert results(ring, 2) == {1: 1, 2: 1}


# --- links, drain, skipped completions -----------------------------------------------------------


@effect(SqeFlags.IO_LINK)
def test_links_run_in_order_and_break_on_failure(ring: Ring, file: Path) -> None:
    """A chain goes on after success; behind a failure, and a short read, all is cancelled."""
    fd = os.open(file, os.O_RDWR)
    room = bytearray(4)
    prep_write(ring, fd, b"abcd", 0, user_data=1, flags=SqeFlags.IO_LINK)
    prep_read(ring, fd, room, 0, user_data=2)
    assert results(ring, 2) == {1: 4, 2: 4}
    assert room == b"abcd"
    prep_read(ring, fd, bytearray(100), 0, user_data=1, flags=SqeFlags.IO_LINK)
    prep_nop(ring, user_data=2, flags=SqeFlags.IO_LINK)
    prep_nop(ring, user_data=3)
    prep_nop(ring, user_data=4)
    assert results(ring, 4) == {1: 10, 2: -errno.ECANCELED, 3: -errno.ECANCELED, 4: 0}
    os.close(fd)


@effect(SqeFlags.IO_HARDLINK)
def test_hard_links_go_on(ring: Ring) -> None:
    """A failure does not break them; what is linked waits for it all the same."""
    prep_timeout(ring, 1_000_000, user_data=1, flags=SqeFlags.IO_HARDLINK)
    prep_nop(ring, user_data=2)
    assert [(one.user_data, one.res) for one in done(ring, 2)] == [(1, -errno.ETIME), (2, 0)]


def test_a_chain_ends_with_its_submission(ring: Ring) -> None:
    """A link on the last request of a batch does not reach into the next."""
    prep_read(ring, -1, bytearray(1), 0, user_data=1, flags=SqeFlags.IO_LINK)
    assert result(ring) == -errno.EBADF
    prep_nop(ring, user_data=2)
    assert result(ring) == 0


@effect(SqeFlags.IO_DRAIN)
def test_drained_request_waits_for_those_before(ring: Ring) -> None:
    """It completes last, though it could have been first."""
    prep_timeout(ring, 1_000_000, user_data=1)
    prep_nop(ring, user_data=2, flags=SqeFlags.IO_DRAIN)
    assert [one.user_data for one in done(ring, 2)] == [1, 2]


@effect(SqeFlags.CQE_SKIP_SUCCESS, Features.CQE_SKIP)
def test_skipped_completions(ring: Ring) -> None:
    """Success posts nothing, and is no request in flight; failure posts."""
    skip = SqeFlags.CQE_SKIP_SUCCESS
    prep_nop(ring, user_data=1, flags=skip)
    prep_read(ring, -1, 0, 0, len_bytes=0, user_data=2, flags=skip)
    assert ring.in_flight == 0
    assert done(ring) == [(2, -errno.EBADF, 0)]
    assert ring.take() == []


@effect(SetupFlags.CQE32, SetupFlags.CQE_MIXED, CqeFlags.F_32, NopFlags.CQE32, CqeFlags.SKIP)
def test_large_completions(make_ring: Callable[..., Ring]) -> None:
    """Rings of 32 bytes, and mixed ones, tell all their words and wrap as others do."""
    for flag in (SetupFlags.CQE32, SetupFlags.CQE_MIXED):
        base = SetupFlags.SINGLE_ISSUER | SetupFlags.DEFER_TASKRUN
        ring = make_ring(2, cq_entries=4, flags=base | flag)
        for number in range(20):
            prep_nop(ring, NopFlags.CQE32 if number % 3 else 0, user_data=number)
            [one] = ring.wait_big()
            assert one[:2] == (number, 0)
            is_big = flag is SetupFlags.CQE_MIXED and bool(number % 3)
            assert bool(one.flags & CqeFlags.F_32) is is_big
        assert ring.in_flight == 0


@effect(SetupFlags.SQE128)
def test_large_requests(make_ring: Callable[..., Ring]) -> None:
    """A ring of 128-byte requests takes ordinary ones, one per slot."""
    ring = make_ring(4, flags=SetupFlags.SQE128)
    for number in range(10):
        prep_nop(ring, NopFlags.INJECT_RESULT, result=number, user_data=number)
        assert done(ring) == [(number, number, 0)]


def test_killed_child_is_told_by_its_signal(ring: Ring) -> None:
    """The status of a child that was killed is the signal; waited for by a pidfd."""
    child = subprocess.Popen([sys.executable, "-c", "import os; os.read(0, 1)"],
                             stdin=subprocess.PIPE)  # fmt: skip
    pidfd = os.pidfd_open(child.pid)
    info = bytearray(128)
    prep_waitid(ring, P_PIDFD, pidfd, info, os.WEXITED)
    ring.submit()
    child.kill()
    assert result(ring) == 0
    found = unpack_siginfo(info)
    assert (found.code, found.status) == (os.CLD_KILLED, signal.SIGKILL)
    os.close(pidfd)
    assert child.stdin is not None
    child.stdin.close()
    child.wait()
