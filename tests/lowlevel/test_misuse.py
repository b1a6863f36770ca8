"""Wrong uses: the exact type of each refusal, and a message that says what to do."""

import errno
import socket
import struct
import threading
from collections.abc import Callable
from typing import Any

import pytest

from tests.lowlevel.rig import result
from uringio.errors import (
    ClosedError,
    QueueFullError,
    RingError,
    UnsupportedError,
    UsageError,
    WrongThreadError,
)
from uringio.lowlevel import (
    FILE_INDEX_ALLOC,
    Batch,
    CloneBuffersFlags,
    Message,
    Opcode,
    Request,
    Ring,
    SetupFlags,
    SocketUringOp,
    SqeFlags,
    Vectors,
    allocate,
    prep_accept,
    prep_accept_direct,
    prep_close,
    prep_close_direct,
    prep_cmd_sock,
    prep_epoll_wait,
    prep_files_update,
    prep_futex_wait,
    prep_nop,
    prep_openat,
    prep_openat_direct,
    prep_pipe,
    prep_poll_add,
    prep_provide_buffers,
    prep_read,
    prep_readv,
    prep_readv_fixed,
    prep_recv,
    prep_recvmsg,
    prep_recvmsg_multishot,
    prep_rw,
    prep_send,
    prep_send_set_addr,
    prep_sendmsg,
    prep_sendto,
    prep_statx,
    prep_timeout,
    prep_uring_cmd,
    prep_waitid,
    prep_write,
    prep_writev,
)
from uringio.lowlevel._flight import Silent, remember

S = SetupFlags
SKIP = SqeFlags.CQE_SKIP_SUCCESS

# What is done with a ring of sixteen slots -> (exact type, part of the message).
FAULTS: dict[str, tuple[Callable[[Ring], object], type[Exception], str]] = {
    # memory
    "receive into bytes": (
        lambda ring: prep_recv(ring, 0, b"abc"),  # type: ignore[arg-type]
        TypeError, "bytes are immutable .* use a bytearray",
    ),
    "read into a read-only view": (
        lambda ring: prep_read(ring, 0, memoryview(b"abc")), TypeError, "read-only",
    ),
    "read into a view with holes": (
        lambda ring: prep_read(ring, 0, memoryview(bytearray(9))[::2]), TypeError, "contiguous",
    ),
    "read into no memory": (
        lambda ring: prep_read(ring, 0, "room"),  # type: ignore[arg-type]
        TypeError, "bytes-like",
    ),
    "an address without a length": (
        lambda ring: prep_read(ring, 0, 4096), TypeError, "needs len_bytes",
    ),
    "more than the memory has": (
        lambda ring: prep_read(ring, 0, bytearray(4), len_bytes=5), ValueError, "5 bytes .* of 4",
    ),
    "less than nothing": (
        lambda ring: prep_write(ring, 1, b"abc", len_bytes=-1), ValueError, "-1 bytes",
    ),
    "pieces of bytes to read into": (
        lambda ring: Vectors([b"abc"], writable=True), TypeError, "use a bytearray",
    ),
    "too many pieces": (
        lambda ring: Vectors([b""] * 1025, writable=False), ValueError, "1024 pieces .* not 1025",
    ),
    "memory of no bytes": (lambda ring: allocate(0), ValueError, "from 1 byte up"),
    "a small statx": (
        lambda ring: prep_statx(ring, 0, "x", 0, 0, bytearray(255)), ValueError, "256 bytes",
    ),
    "a small siginfo": (
        lambda ring: prep_waitid(ring, 0, 0, bytearray(127), 4), ValueError, "128 bytes",
    ),
    "a small pipe": (lambda ring: prep_pipe(ring, bytearray(7)), ValueError, "8 bytes"),
    "a small word": (lambda ring: prep_futex_wait(ring, bytearray(3), 0), ValueError, "4 bytes"),
    "room for fewer events": (
        lambda ring: prep_epoll_wait(ring, 0, bytearray(12), 2), ValueError, "do not lie",
    ),
    "a small length of an address": (
        lambda ring: prep_accept(ring, 0, bytearray(16), bytearray(3)), ValueError, "4 bytes",
    ),
    "more room promised for an address than there is": (
        lambda ring: prep_accept(ring, 0, bytearray(16), bytearray(struct.pack("i", 17))),
        ValueError, "promises 17 bytes, and the room .* has 16",
    ),
    "more room promised for the address of one into a slot": (
        lambda ring: prep_accept_direct(ring, 0, 1, bytearray(1), bytearray(struct.pack("i", 2))),
        ValueError, "promises 2 bytes, and the room .* has 1",
    ),
    "buffers beyond the memory": (
        lambda ring: prep_provide_buffers(ring, bytearray(10), 4, 3, 0), ValueError, "12 bytes",
    ),
    "an option read into bytes": (
        lambda ring: prep_cmd_sock(ring, SocketUringOp.GETSOCKOPT, 0, 1, 1, b"abcd"),
        TypeError, "use a bytearray",
    ),
    "pieces of bytes to be read into": (
        lambda ring: prep_readv(ring, 0, Vectors([b"constant"], writable=False)),
        TypeError, r"writable=True",
    ),
    "pieces of bytes to be read into, fixed": (
        lambda ring: prep_readv_fixed(ring, 0, Vectors([b"constant"], writable=False)),
        TypeError, r"writable=True",
    ),
    "pieces that are a list": (
        lambda ring: prep_writev(ring, 0, [b"a"]),  # type: ignore[arg-type]
        TypeError, r"given as Vectors\(pieces, writable=False\), not as 'list'",
    ),
    "a message of bytes to be received into": (
        lambda ring: prep_recvmsg(ring, 0, Message(Vectors([b"constant"], writable=False))),
        TypeError, r"writable=True",
    ),
    "a message with a name of bytes to be received into": (
        lambda ring: prep_recvmsg(ring, 0, Message(name=b"constant")), TypeError, "bytearray",
    ),
    "a message with control of bytes to be received into": (
        lambda ring: prep_recvmsg_multishot(ring, 0, Message(control=b"constant"), 1),
        TypeError, "bytearray",
    ),
    "a message that is none": (
        lambda ring: prep_sendmsg(ring, 0, b"hello"),  # type: ignore[arg-type]
        TypeError, r"given as Message\(Vectors\(...\)\), not as 'bytes'",
    ),
    "memory of a request without completion": (
        lambda ring: prep_read(ring, 0, bytearray(4), flags=SKIP),
        UsageError, "leave CQE_SKIP_SUCCESS out",
    ),
    "a provided buffer of a request without completion": (
        lambda ring: prep_recv(ring, 0, 0, len_bytes=0, buf_group=1, flags=SKIP),
        UsageError, "which buffer it took: leave CQE_SKIP_SUCCESS out",
    ),
    # names, times, slots
    "a path with a NUL": (
        lambda ring: prep_openat(ring, -100, "a\0b", 0), ValueError, "cannot hold a NUL",
    ),
    "a path that is none": (
        lambda ring: prep_openat(ring, -100, 1.5, 0),  # type: ignore[arg-type]
        TypeError, "path|str",
    ),
    "a negative time": (lambda ring: prep_timeout(ring, -1), ValueError, "from 0 .* not -1"),
    "a time beyond the clock": (
        lambda ring: prep_timeout(ring, 1 << 63), ValueError, "2\\*\\*63",
    ),
    "a negative slot": (lambda ring: prep_close_direct(ring, -1), ValueError, "no slot -1"),
    "a slot beyond all": (
        lambda ring: prep_openat_direct(ring, 0, "x", 0, 0, FILE_INDEX_ALLOC + 1),
        ValueError, "no slot",
    ),
    "an address of a peer that is too long": (
        lambda ring: prep_sendto(ring, 0, b"", 0, bytes(70_000)), ValueError, "70000 bytes",
    ),
    "an address for what is no send": (
        lambda ring: (prep_nop(ring), prep_send_set_addr(ring, bytes(16))),
        UsageError, "NOP goes to no address",
    ),
    "an address for nothing": (
        lambda ring: prep_send_set_addr(ring, bytes(16)), UsageError, "no request was filled",
    ),
    "a long command": (
        lambda ring: prep_uring_cmd(ring, 1, 0, bytes(17)), ValueError, "17 bytes .* 16",
    ),
    # fields
    "flags of more than a byte": (
        lambda ring: prep_nop(ring, flags=256), ValueError, "NOP .*: flags is .* to 255, not 256",
    ),
    "a negative user_data": (
        lambda ring: prep_nop(ring, user_data=-1), ValueError, "user_data is .* from 0 .*not -1",
    ),
    "a user_data of 65 bits": (
        lambda ring: prep_nop(ring, user_data=1 << 64), ValueError, "user_data is a number",
    ),
    "a descriptor of 33 bits": (
        lambda ring: prep_poll_add(ring, 1 << 32, 1), ValueError, "POLL_ADD .*: fd is a number",
    ),
    "a descriptor that is no number": (
        lambda ring: prep_poll_add(ring, "1", 1),  # type: ignore[arg-type]
        ValueError, "POLL_ADD .*: fd is a number .* not '1'",
    ),
    "an ioprio of 17 bits": (
        lambda ring: prep_send(ring, 0, b"", ioprio=1 << 16), ValueError, "SEND .*: ioprio is",
    ),
    "a group beyond 16 bits": (
        lambda ring: prep_recv(ring, 0, 0, len_bytes=0, buf_group=1 << 16),
        ValueError, "RECV .*: buf_index or buf_group is a number from 0 to 65535, not 65536",
    ),
    "a personality beyond 16 bits": (
        lambda ring: setattr(ring, "personality", 1 << 16), ValueError, "0 to 65535",
    ),
    # operations
    "an operation that no kernel knows": (
        lambda ring: prep_rw(ring, 250, 0, 0, 0, 0), UnsupportedError, "operation 250",
    ),
    # waits
    "a wait for more than fits": (
        lambda ring: ring.wait(1000), ValueError, "1000 completions .* 64",
    ),
    "a negative wait": (lambda ring: ring.wait(1, -1), ValueError, "-1 ns"),
    "a wait until before there was time": (
        lambda ring: ring.wait(1, until_ns=-1), ValueError, "-1 ns",
    ),
    "a wait with two ends": (
        lambda ring: ring.wait(1, 1, until_ns=1), UsageError, "give until_ns or timeout_ns",
    ),
    "a negative least duration": (
        lambda ring: ring.wait(1, min_wait_ns=-1000), ValueError, "microseconds, not -1000",
    ),
    "a least duration beyond its field": (
        lambda ring: ring.wait(1, min_wait_ns=1 << 52), ValueError, "2\\*\\*32 - 1 microseconds",
    ),
    "a signal that does not exist": (
        lambda ring: ring.wait(1, sigmask=[65]), ValueError, "no signal 65: .* 1 to 64",
    ),
    "registered terms that are not": (
        lambda ring: ring.wait_registered(1, 0), UsageError, r"call setup_reg_wait\(\) first",
    ),
    "terms of waits on an enabled ring": (
        lambda ring: ring.setup_reg_wait(), UsageError, r"R_DISABLED, call this, and then enable",
    ),
    "large completions of an ordinary ring": (
        lambda ring: ring.wait_big(), UsageError, "make it with CQE32",
    ),
    # registrations
    "tags that do not match": (
        lambda ring: ring.register_files([-1, -1], [5]), ValueError, "1 tags for 2 slots",
    ),
    "three buffers": (
        lambda ring: ring.setup_buf_ring(0, 3, 8), ValueError, "power of two",
    ),
    "buffers of nothing": (lambda ring: ring.setup_buf_ring(0, 4, 0), ValueError, "0 bytes"),
    "a group that is negative": (
        lambda ring: ring.setup_buf_ring(-1, 4, 8), ValueError, "0 to 65535, not -1",
    ),
    "a buffer that does not exist": (
        lambda ring: ring.setup_buf_ring(0, 4, 8).view(4, 1), ValueError, "no buffer 4 among 4",
    ),
    "more than a buffer holds": (
        lambda ring: ring.setup_buf_ring(0, 4, 8).view(0, 9), ValueError, "9 bytes .* of 8",
    ),
    "giving back what does not exist": (
        lambda ring: ring.setup_buf_ring(0, 4, 8).put(9), ValueError, "no buffer 9",
    ),
    "a negative cancellation": (
        lambda ring: ring.register_sync_cancel(1, timeout_ns=-1), ValueError, "-1 ns",
    ),
    "a negative time to poll": (
        lambda ring: ring.register_napi(-1), ValueError, "up to .* microseconds, not -1",
    ),
    "a least rest of whole buffers": (
        lambda ring: ring.setup_buf_ring(0, 4, 8, min_left_bytes=2),
        ValueError, "needs incremental=True",
    ),
    "a filter of nothing": (
        lambda ring: ring.register_bpf_filter(Opcode.NOP, []),
        ValueError, "1 to 4096 instructions, not 0",
    ),
    "an instruction that is none": (
        lambda ring: ring.register_bpf_filter(Opcode.NOP, [(1, 2, 3)]),  # type: ignore[list-item]
        ValueError, "an instruction is .code, jump if true",
    ),
    "zero-copy receives on small completions": (
        lambda ring: ring.register_ifq(1, 0, allocate(4096)),
        UsageError, "DEFER_TASKRUN, and CQE32 or CQE_MIXED",
    ),
    "an area of half a page": (
        lambda ring: ring.register_ifq(1, 0, allocate(2048)),
        ValueError, "whole pages of 4096 bytes, not of 2048",
    ),
    "a clone by an index that is not": (
        lambda ring: ring.clone_buffers(ring, flags=CloneBuffersFlags.SRC_REGISTERED),
        UsageError, r"call its register_ring_fd\(\)",
    ),
    "a registration without a number": (
        lambda ring: ring.register(99), ValueError, "99 is not a valid RegisterOp",
    ),
    # rings
    "a ring of nothing": (lambda ring: Ring(0), ValueError, "at least one entry"),
    "fewer completions than requests": (
        lambda ring: Ring(16, cq_entries=8), ValueError, "fewer than the 16",
    ),
    "deferred work of many": (
        lambda ring: Ring(4, flags=S.DEFER_TASKRUN),
        UsageError, "DEFER_TASKRUN needs SINGLE_ISSUER",
    ),
    "a flag about work that is not deferred": (
        lambda ring: Ring(4, flags=S.TASKRUN_FLAG),
        UsageError, "TASKRUN_FLAG needs COOP_TASKRUN or DEFER_TASKRUN",
    ),
    "hybrid polling without polling": (
        lambda ring: Ring(4, flags=S.HYBRID_IOPOLL), UsageError, "needs IOPOLL",
    ),
    "completions of 32 bytes, and mixed": (
        lambda ring: Ring(4, flags=S.CQE32 | S.CQE_MIXED), UsageError, "exclude each other",
    ),
    "a submitting thread, and cooperation": (
        lambda ring: Ring(4, flags=S.SQPOLL | S.COOP_TASKRUN),
        UsageError, "SQPOLL and COOP_TASKRUN exclude each other: the kernel's thread completes",
    ),
    "a submitting thread, and work that is told of": (
        lambda ring: Ring(4, flags=S.SQPOLL | S.TASKRUN_FLAG),
        UsageError, "SQPOLL and TASKRUN_FLAG",
    ),
    "a submitting thread, and an owner that completes": (
        lambda ring: Ring(4, flags=S.SQPOLL | S.SINGLE_ISSUER | S.DEFER_TASKRUN),
        UsageError, "SQPOLL and DEFER_TASKRUN exclude",
    ),
    "a submitting thread, and a rewound queue": (
        lambda ring: Ring(4, flags=S.SQPOLL | S.SQ_REWIND | S.NO_SQARRAY),
        UsageError, "needs a queue that goes round",
    ),
    "requests of 128 bytes, and mixed": (
        lambda ring: Ring(4, flags=S.SQE128 | S.SQE_MIXED), UsageError, "exclude each other",
    ),
    "a rewound queue with an index array": (
        lambda ring: Ring(4, flags=S.SQ_REWIND), UsageError, "SQ_REWIND needs NO_SQARRAY",
    ),
    "a processor for no thread": (
        lambda ring: Ring(4, flags=0, sq_thread_cpu=0), UsageError, "SQ_AFF needs SQPOLL",
    ),
    "a processor for the default ring": (
        lambda ring: Ring(4, sq_thread_cpu=0), UsageError, "SQ_AFF needs SQPOLL",
    ),
    "a thread on an unnamed processor": (
        lambda ring: Ring(4, flags=S.SQPOLL | S.SQ_AFF), UsageError, "name sq_thread_cpu",
    ),
    "a negative processor": (
        lambda ring: Ring(4, flags=S.SQPOLL, sq_thread_cpu=-1), ValueError, "no processor -1",
    ),
    "an idle time for no thread": (
        lambda ring: Ring(4, sq_thread_idle_ms=5), UsageError, "the thread of SetupFlags.SQPOLL",
    ),
    "a thread that is never idle": (
        lambda ring: Ring(4, flags=S.SQPOLL, sq_thread_idle_ms=0),
        ValueError, "1 ms or more, not 0; None is the kernel's own choice",
    ),
    "no descriptor, and queues to be mapped": (
        lambda ring: Ring(4, flags=S.REGISTERED_FD_ONLY),
        UsageError, "REGISTERED_FD_ONLY needs NO_MMAP",
    ),
    "workers of nobody": (
        lambda ring: Ring(4, flags=S.ATTACH_WQ), UsageError, "name workers_of",
    ),
    "the thread of a ring without": (
        lambda ring: Ring(4, flags=S.SQPOLL, workers_of=ring), UsageError, "no submitting thread",
    ),
    "too little memory for the queues": (
        lambda ring: Ring(4, memory=allocate(4096)), ValueError, "queues take 8192 bytes.* 4096",
    ),
    "room on a ring that is submitted to": (
        lambda ring: ring.wait_for_room(), UsageError, r"submit\(\) frees",
    ),
    "flags beyond all": (
        lambda ring: Ring(4, flags=1 << 32), ValueError, "set-up flags are 32 bits",
    ),
    "negative flags": (lambda ring: Ring(4, flags=-1), ValueError, "32 bits"),
    "unknown flags": (lambda ring: Ring(4, flags=1 << 30), RingError, "flags"),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
def test_fault(ring: Ring, name: str) -> None:
    """The type is exactly this one, the message helps, and the ring goes on as if nothing was."""
    commit, kind, text = FAULTS[name]
    with pytest.raises(kind, match=text) as caught:
        commit(ring)
    assert caught.type is kind
    ring.wait(0)
    assert ring.in_flight == ring.queued == 0
    prep_nop(ring, user_data=77)
    assert result(ring) == 0


def test_there_are_sixty_faults() -> None:
    """Those here alone, and more with those below that need a ring of their own."""
    assert len(FAULTS) >= 70
    assert len(FAULTS) + len(CLOSED) >= 80


CLOSED: dict[str, Callable[[Ring], Any]] = {
    "fill": prep_nop,
    "submit": Ring.submit,
    "wait": Ring.wait,
    "take": Ring.take,
    "statistics": Ring.statistics,
    "iterate": lambda ring: ring.queued,
    "register": lambda ring: ring.register_files([0]),
    "enable": Ring.enable,
    "buffers": lambda ring: ring.setup_buf_ring(0, 4, 8),
}


@pytest.mark.parametrize("name", CLOSED)
def test_closed_ring(ring: Ring, name: str) -> None:
    """Every use of a ring that was closed is refused."""
    ring.close()
    with pytest.raises(ClosedError, match="this ring is closed"):
        CLOSED[name](ring)


@pytest.mark.parametrize("name", ["fill", "submit", "wait", "take", "register", "buffers"])
def test_foreign_thread(ring: Ring, name: str) -> None:
    """A ring is refused to any thread but its own, before the kernel could."""
    caught: list[BaseException] = []

    def use() -> None:
        try:
            CLOSED[name](ring)
        except BaseException as error:
            caught.append(error)

    thread = threading.Thread(target=use)
    thread.start()
    thread.join()
    assert [type(one) for one in caught] == [WrongThreadError]
    assert ring.queued == 0


def test_buffers_that_were_freed(ring: Ring) -> None:
    """They can no longer be given back; freeing twice is harmless."""
    buffers = ring.setup_buf_ring(0, 4, 8)
    buffers.free()
    buffers.free()
    with pytest.raises(ClosedError, match="group 0 was freed"):
        buffers.put(1)


def test_buffers_are_named_by_whole_numbers(ring: Ring) -> None:
    """Anything else is refused, and the group goes on."""
    group = ring.setup_buf_ring(1, 2, 64)
    with pytest.raises(TypeError, match=r"a whole one, not 1\.0"):
        group.put(1.0)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="no buffer 2 among 2"):
        group.put(2)


def test_buffers_belong_to_the_rings_thread(ring: Ring) -> None:
    """Another thread cannot give them back; when the ring has gone, they have too."""
    buffers = ring.setup_buf_ring(0, 4, 8)
    caught: list[BaseException] = []

    def use() -> None:
        for call in (buffers.put, buffers.free):
            try:
                call()
            except WrongThreadError as error:
                caught.append(error)

    thread = threading.Thread(target=use)
    thread.start()
    thread.join()
    assert len(caught) == 2
    ring.close()
    with pytest.raises(ClosedError, match="this ring is closed"):
        buffers.put(1)
    buffers.free()


def test_a_request_by_itself_is_checked_too() -> None:
    """Fields out of range are refused before anything is sent."""
    with pytest.raises(ValueError, match="NOP is out of range"):
        prep_nop(Request(), user_data=-1)
    with pytest.raises(UsageError, match="NOP goes to no address"):
        request = Request()
        prep_nop(request)
        prep_send_set_addr(request, bytes(16))


def test_messages_refuse_what_is_no_memory() -> None:
    """A name must be bytes."""
    with pytest.raises(TypeError, match="bytes-like"):
        Message(name="here")  # type: ignore[arg-type]


def test_a_wide_request_needs_a_wide_slot(ring: Ring) -> None:
    """Where the kernel has it, the ring must be made for it; else the kernel is too old."""
    known = Opcode.URING_CMD128 in ring.opcodes
    kind, text = (UsageError, "SQE128") if known else (UnsupportedError, r"Linux 6\.19")
    with pytest.raises(kind, match=f"URING_CMD128 .*{text}"):
        prep_rw(ring, Opcode.URING_CMD128, 0, 0, 0, 0)


def test_a_full_ring_is_refused_by_its_own_type(ring: Ring) -> None:
    """So that a program can submit and go on."""
    with pytest.raises(QueueFullError):
        for _ in range(17):
            prep_files_update(ring, bytes(4), 0)
    ring.wait(16)


def test_a_failure_is_not_taken_for_the_end_of_a_request_with_memory(
    ring: Ring, pair: tuple[socket.socket, socket.socket]
) -> None:
    """
    A request whose completion is skipped posts one if it fails: memory must not go with it.

    Whichever of the two comes first, and by whichever way, they are refused the same user_data.
    """
    left, right = pair
    group = ring.setup_buf_ring(1, 1, 64)
    room = bytearray(8)
    prep_recv(ring, left.fileno(), room, user_data=7)
    with pytest.raises(UsageError, match=r"user_data 7 names .* give each .* of its own"):
        prep_close(ring, -1, user_data=7, flags=SKIP)
    batch = Batch()
    prep_close(batch, -1, user_data=7, flags=SKIP)
    with pytest.raises(UsageError, match="user_data 7"):
        ring.put(batch)
    assert ring.queued == 1
    prep_close(ring, -1, user_data=8, flags=SKIP)
    assert ring.wait() == [(8, -errno.EBADF, 0)]
    with pytest.raises(BufferError):
        room.append(0)  # still the kernel's
    reading = Batch()
    prep_recv(reading, left.fileno(), bytearray(8), user_data=8)
    fills: tuple[Callable[[], None], ...] = (
        lambda: prep_recv(ring, left.fileno(), bytearray(8), user_data=8),
        lambda: prep_recv(ring, left.fileno(), 0, len_bytes=0, buf_group=1, user_data=8),
        lambda: ring.put(reading),
    )
    for fill in fills:
        with pytest.raises(UsageError, match="user_data 8"):
            fill()
    assert (ring.queued, ring.in_flight) == (0, 1)
    prep_nop(ring, user_data=8)  # has nothing to lose
    right.send(b"received")
    assert {one.user_data: one.res for one in ring} == {7: 8, 8: 0}
    assert bytes(room) == b"received"
    group.free()


def test_a_failure_is_not_taken_for_the_end_of_a_request_with_a_provided_buffer(
    ring: Ring, pair: tuple[socket.socket, socket.socket]
) -> None:
    """Such a request keeps nothing of its own, but the ring has buffers that it may fill."""
    ring.setup_buf_ring(1, 1, 64)
    prep_recv(ring, pair[0].fileno(), 0, len_bytes=0, buf_group=1)
    with pytest.raises(UsageError, match="user_data 0"):
        prep_close(ring, -1, flags=SKIP)
    assert ring.in_flight == 1


def test_what_has_no_memory_may_share_a_name_with_a_skipped_completion(ring: Ring) -> None:
    """However many requests have it, there is nothing of theirs that could be freed too early."""
    for flags in (0, 0, SKIP, 0):
        prep_nop(ring, user_data=1, flags=flags)
    assert [one.user_data for one in ring] == [1, 1, 1]


def test_a_batch_does_not_fail_its_own_memory(ring: Ring) -> None:
    """Names are kept apart within a batch too, before anything of it is filled."""
    batch = Batch()
    prep_read(batch, -1, bytearray(1), user_data=3)
    prep_nop(batch, user_data=3, flags=SKIP)
    with pytest.raises(UsageError, match="user_data 3"):
        ring.put(batch)
    assert ring.queued == ring.in_flight == 0


def test_few_names_are_remembered() -> None:
    """A program that numbers all its requests does not pile names up; the last ones stay."""
    silent: Silent = {}
    for number in range(5000):
        remember(silent, {}, number, False)
    assert len(silent) < 5000
    assert 4999 in silent
