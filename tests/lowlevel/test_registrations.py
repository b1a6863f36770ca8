"""Registrations, each seen to have its effect."""

import errno
import gc
import os
import select
import socket
import time
import weakref
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.lowlevel.rig import done, effect, result
from uringio._sys.memory import pin
from uringio.errors import OpError, QueueFullError, UsageError, WrongThreadError
from uringio.lowlevel import (
    FILE_INDEX_ALLOC,
    FILES_SKIP,
    CancelFlags,
    CloneBuffersFlags,
    CqRingFlags,
    EnterFlags,
    Features,
    NopFlags,
    Opcode,
    ProbeFlags,
    QueryOp,
    RegisterOp,
    RestrictionOp,
    Ring,
    SetupFlags,
    SqeFlags,
    WorkerKind,
    allocate,
    prep_nop,
    prep_openat,
    prep_openat_direct,
    prep_poll_add,
    prep_read,
    prep_read_fixed,
    prep_recv,
    prep_splice,
    prep_timeout,
    query,
)

AT_FDCWD = -100
MakeRing = Callable[..., Ring]
TAG = 2**50


def read_slot(ring: Ring, slot: int) -> bytes | int:
    """Read from a registered file: its content, or the negative errno."""
    room = bytearray(100)
    prep_read(ring, slot, room, 0, flags=SqeFlags.FIXED_FILE)
    res = result(ring)
    return res if res < 0 else bytes(room[:res])


@pytest.fixture
def fds(tmp_path: Path) -> list[int]:
    """Two open files that say which they are; the test closes them."""
    found = []
    for name in ("zero", "one"):
        (tmp_path / name).write_text(name)
        found.append(os.open(tmp_path / name, os.O_RDONLY))
    return found


@effect(RegisterOp.FILES_UPDATE, RegisterOp.FILES_UPDATE2)
@effect(Features.RSRC_TAGS)
def test_files(ring: Ring, fds: list[int]) -> None:
    """Slots stand for files, are replaced, skipped and emptied; tags tell who has gone."""
    ring.register_files([fds[0], -1, fds[1]], [TAG, 0, 0])
    assert [read_slot(ring, slot) for slot in range(4)] == [b"zero", -9, b"one", -9]
    assert ring.register_files_update(0, [FILES_SKIP, fds[1], -1]) == 3
    assert [read_slot(ring, slot) for slot in range(3)] == [b"zero", b"one", -9]
    assert ring.register_files_update(0, [fds[1]], [0]) == 1
    assert [one.user_data for one in done(ring)] == [TAG]
    assert read_slot(ring, 0) == b"one"
    for fd in fds:
        os.close(fd)


@effect(RegisterOp.FILE_ALLOC_RANGE)
def test_range_of_slots_that_the_kernel_chooses_from(ring: Ring, file: Path) -> None:
    """It takes none outside, though others are free."""
    ring.register_files_sparse(8)
    ring.register_file_alloc_range(5, 2)
    found = []
    for _ in range(3):
        prep_openat_direct(ring, AT_FDCWD, file, os.O_RDONLY, 0, FILE_INDEX_ALLOC)
        found.append(result(ring))
    assert found == [5, 6, -errno.ENFILE]


@effect(RegisterOp.BUFFERS2, RegisterOp.BUFFERS_UPDATE)
def test_slots_for_memory(ring: Ring, fds: list[int]) -> None:
    """Empty at first, then filled; memory that was replaced is told by its tag."""
    memory = allocate(4096)
    ring.register_buffers_sparse(2)
    prep_read_fixed(ring, fds[0], memory, 0, 1)
    assert result(ring) == -errno.EFAULT
    assert ring.register_buffers_update(1, [memory], [TAG]) == 1
    prep_read_fixed(ring, fds[0], memory, 0, 1)
    assert (result(ring), bytes(memory.view[:4])) == (4, b"zero")
    ring.register_buffers_update(1, [allocate(4096)])
    assert done(ring)[0].user_data == TAG
    for fd in fds:
        os.close(fd)


@effect(RegisterOp.BUFFERS2)
def test_memory_with_tags(ring: Ring, fds: list[int]) -> None:
    """It is used as memory without, and each piece is told of when the kernel has let go of it."""
    pieces = [allocate(4096), bytearray(4096)]
    ring.register_buffers(pieces, [TAG, TAG + 1])
    prep_read_fixed(ring, fds[1], pieces[1], 0, 1)
    assert result(ring) == 3
    assert pieces[1][:3] == b"one"  # type: ignore[index]
    with pytest.raises(ValueError, match="1 tags for 2 slots"):
        ring.register_buffers(pieces, [TAG])
    ring.unregister_buffers()
    assert sorted(one.user_data for one in done(ring, 2)) == [TAG, TAG + 1]
    for fd in fds:
        os.close(fd)


@effect(RegisterOp.CLONE_BUFFERS)
def test_memory_is_shared_between_rings(ring: Ring, make_ring: MakeRing, fds: list[int]) -> None:
    """The other ring uses what this one has pinned."""
    memory = allocate(4096)
    other = make_ring()
    other.register_buffers([memory])
    ring.clone_buffers(other)
    prep_read_fixed(ring, fds[1], memory, 0, 0)
    assert (result(ring), bytes(memory.view[:3])) == (3, b"one")
    for fd in fds:
        os.close(fd)


def test_memory_that_is_unpinned_outlives_requests_that_use_it(ring: Ring) -> None:
    """The kernel does not wait for them, so the memory stays, though they know but its address."""

    class Tracked(bytearray):
        """A bytearray whose end can be watched."""

    reading, writing = os.pipe()
    memory = Tracked(64)
    gone = weakref.ref(memory)
    addr = pin(memory, writable=True)[0]
    ring.register_buffers([memory])
    del memory
    prep_read_fixed(ring, reading, addr, 0, 0, len_bytes=5)
    ring.submit()
    ring.unregister_buffers()
    gc.collect()
    assert gone() is not None
    ring.register_buffers([bytearray(64)])
    gc.collect()
    assert gone() is not None
    os.write(writing, b"hello")
    assert result(ring) == 5
    ring.unregister_buffers()
    gc.collect()
    assert gone() is None
    os.close(reading)
    os.close(writing)


@effect(CloneBuffersFlags.SRC_REGISTERED, CloneBuffersFlags.DST_REPLACE)
def test_slots_of_memory_are_shared_one_by_one(
    ring: Ring, make_ring: MakeRing, fds: list[int]
) -> None:
    """Two of the other's take the places named here; those beside them stay as they were."""
    other = make_ring()
    theirs = [allocate(4096) for _ in range(3)]
    other.register_buffers(theirs)
    ours = [allocate(4096) for _ in range(3)]
    ring.register_buffers(ours)
    with pytest.raises(UsageError, match=r"call its register_ring_fd\(\)"):
        ring.clone_buffers(other, flags=CloneBuffersFlags.SRC_REGISTERED)
    with pytest.raises(OpError, match="CLONE_BUFFERS") as caught:
        ring.clone_buffers(other, first=1, other_first=1, count=2)
    assert caught.value.errno == errno.EBUSY
    other.register_ring_fd()
    flags = CloneBuffersFlags.DST_REPLACE | CloneBuffersFlags.SRC_REGISTERED
    ring.clone_buffers(other, first=1, other_first=0, count=2, flags=flags)
    for slot, memory in enumerate((ours[0], theirs[0], theirs[1])):
        prep_read_fixed(ring, fds[slot % 2], memory, 0, slot)
        assert result(ring) == (4, 3)[slot % 2]
        assert bytes(memory.view[:3]) == (b"zer", b"one")[slot % 2]
    prep_read_fixed(ring, fds[0], ours[1], 0, 1)
    assert result(ring) == -errno.EFAULT
    for fd in fds:
        os.close(fd)


@effect(RegisterOp.EVENTFD, RegisterOp.UNREGISTER_EVENTFD)
@effect(CqRingFlags.EVENTFD_DISABLED)
def test_eventfd(ring: Ring) -> None:
    """It counts completions, can be silenced without a call, and be taken away."""
    event = os.eventfd(0, os.EFD_NONBLOCK)
    ring.register_eventfd(event)
    prep_nop(ring)
    done(ring)
    assert os.eventfd_read(event) == 1
    assert ring.eventfd_enabled
    ring.eventfd_enabled = False
    prep_nop(ring)
    done(ring)
    with pytest.raises(BlockingIOError):
        os.eventfd_read(event)
    ring.eventfd_enabled = True
    ring.unregister_eventfd()
    prep_nop(ring)
    done(ring)
    with pytest.raises(BlockingIOError):
        os.eventfd_read(event)
    os.close(event)


@effect(RegisterOp.EVENTFD_ASYNC)
@effect(SqeFlags.ASYNC)
def test_eventfd_of_what_came_later(
    make_ring: MakeRing, pair: tuple[socket.socket, socket.socket]
) -> None:
    """What completes within its submission is not counted; what completes later is."""
    ring = make_ring(flags=0)
    event = os.eventfd(0, os.EFD_NONBLOCK)
    ring.register_eventfd(event, only_async=True)
    prep_nop(ring)
    done(ring)
    with pytest.raises(BlockingIOError):
        os.eventfd_read(event)
    prep_nop(ring, flags=SqeFlags.ASYNC)
    done(ring)
    assert os.eventfd_read(event) == 1
    os.close(event)


@effect(RegisterOp.PROBE)
@effect(ProbeFlags.SUPPORTED)
def test_probe(ring: Ring) -> None:
    """The ring knows the kernel's operations."""
    assert {Opcode.NOP, Opcode.RECV, Opcode.SEND_ZC} <= ring.opcodes
    assert ring.register_probe() == ring.opcodes


@effect(RegisterOp.QUERY)
@effect(QueryOp.OPCODES)
def test_query(ring: Ring) -> None:
    """Without a ring, the kernel says the same as the ring's probe and parameters."""
    try:
        found = query()
    except OpError as error:
        pytest.skip(str(error))
    assert found.opcodes == max(ring.opcodes) + 1
    assert found.setup_flags & ring.setup_flags == ring.setup_flags
    assert found.features & ring.features == ring.features
    assert found.register_ops > RegisterOp.QUERY


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may take on another user's rights")
@effect(RegisterOp.PERSONALITY, RegisterOp.UNREGISTER_PERSONALITY)
def test_personality(ring: Ring, tmp_path: Path) -> None:
    """Requests act with credentials that were kept, though the program has others by now."""
    secret = tmp_path / "secret"
    secret.write_text("mine")
    secret.chmod(0o600)
    root = ring.register_personality()
    os.seteuid(65534)
    try:
        prep_openat(ring, AT_FDCWD, secret, os.O_RDONLY)
        assert result(ring) == -errno.EACCES
        ring.personality = root
        prep_openat(ring, AT_FDCWD, secret, os.O_RDONLY)
        fd = result(ring)
        assert fd >= 0
        os.close(fd)
    finally:
        os.seteuid(0)
    ring.unregister_personality(root)
    prep_nop(ring)
    assert result(ring) == -errno.EINVAL


@effect(RegisterOp.RESTRICTIONS, RegisterOp.ENABLE_RINGS)
@effect(SetupFlags.R_DISABLED, RestrictionOp.SQE_OP)
def test_restrictions(make_ring: MakeRing, file: Path) -> None:
    """What is not allowed is EACCES, requests and registrations alike; what is works."""
    ring = make_ring(flags=SetupFlags.R_DISABLED)
    prep_nop(ring)
    with pytest.raises(OSError, match="never enabled"):
        ring.submit()
    ring.register_restrictions(ops=[Opcode.NOP, Opcode.ASYNC_CANCEL], register_ops=[])
    ring.enable()
    assert result(ring) == 0
    prep_openat(ring, AT_FDCWD, file, os.O_RDONLY)
    assert result(ring) == -errno.EACCES
    prep_nop(ring, flags=SqeFlags.IO_LINK)
    assert result(ring) == -errno.EACCES
    with pytest.raises(PermissionError, match="restrictions forbid"):
        ring.register_files_sparse(4)


@effect(RestrictionOp.SQE_FLAGS_REQUIRED)
def test_sandbox_of_registered_files(
    make_ring: MakeRing, pair: tuple[socket.socket, socket.socket]
) -> None:
    """A ring that takes registered files alone can touch nothing else."""
    ring = Ring.sandboxed(
        8, ops=[Opcode.RECV, Opcode.ASYNC_CANCEL], files=[pair[0].fileno()], fixed_files_only=True
    )
    with ring:
        pair[1].send(b"in")
        prep_recv(ring, pair[0].fileno(), bytearray(4))
        assert result(ring) == -errno.EACCES
        room = bytearray(2)
        prep_recv(ring, 0, room, flags=SqeFlags.FIXED_FILE)
        assert (result(ring), room) == (2, b"in")


def test_disabled_ring_becomes_the_enabling_threads(make_ring: MakeRing) -> None:
    """It works in the thread that enables it, and in that alone."""
    from concurrent.futures import ThreadPoolExecutor

    ring = make_ring(
        flags=SetupFlags.R_DISABLED | SetupFlags.SINGLE_ISSUER | SetupFlags.DEFER_TASKRUN
    )

    def use() -> int:
        ring.enable()
        prep_nop(ring, NopFlags.INJECT_RESULT, result=5)
        return result(ring)

    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(use).result() == 5
        with pytest.raises(WrongThreadError):
            prep_nop(ring)


def test_workers_need_a_processor(ring: Ring) -> None:
    """None at all is refused by the kernel."""
    with pytest.raises(OpError, match="IOWQ_AFF"):
        ring.register(RegisterOp.IOWQ_AFF)


@effect(RegisterOp.IOWQ_MAX_WORKERS)
@effect(WorkerKind.BOUND, WorkerKind.UNBOUND)
def test_bounds_of_workers(ring: Ring) -> None:
    """The old bounds come back, and then the new ones."""
    ring.register_iowq_max_workers(3, 4)
    assert ring.register_iowq_max_workers() == (3, 4)


@effect(RegisterOp.RING_FDS, RegisterOp.UNREGISTER_RING_FDS)
@effect(EnterFlags.REGISTERED_RING)
def test_registered_descriptor(ring: Ring) -> None:
    """The ring works by its index, and by its descriptor again."""
    for change in (ring.register_ring_fd, ring.unregister_ring_fd, ring.register_ring_fd):
        change()
        prep_nop(ring, user_data=4)
        assert done(ring) == [(4, 0, 0)]


@effect(RegisterOp.RESIZE_RINGS)
@pytest.mark.parametrize("registered", [False, True])
def test_resized_queues_keep_what_they_hold(
    ring: Ring, pair: tuple[socket.socket, socket.socket], registered: bool
) -> None:
    """Requests filled, in flight and completed survive larger queues, and smaller ones."""
    if registered:
        ring.register_ring_fd()
    room = bytearray(4)
    prep_recv(ring, pair[0].fileno(), room, user_data=1)
    ring.submit()
    for size, others in ((64, (10, 11, 12)), (2, (20, 21))):
        prep_nop(ring, user_data=others[0])
        ring.submit()
        for one in others[1:]:
            prep_nop(ring, user_data=one)
        ring.resize_rings(size, 2 * size)
        assert f"{size} + {2 * size} slots" in repr(ring)
        assert ring.queued == len(others) - 1
        assert [one.user_data for one in done(ring, len(others))] == list(others)
    with pytest.raises(QueueFullError):
        for _ in range(3):
            prep_nop(ring)
    done(ring, 2)
    pair[1].send(b"data")
    assert (result(ring), room) == (4, b"data")


def test_queues_that_would_lose_something_stay(ring: Ring) -> None:
    """Smaller than what stands in them: EOVERFLOW, and everything is as it was."""
    for number in range(10):
        prep_nop(ring, user_data=number)
    ring.submit()
    with pytest.raises(OpError, match="resize_rings") as caught:
        ring.resize_rings(1, 2)
    assert caught.value.errno == errno.EOVERFLOW
    assert [one.user_data for one in done(ring, 10)] == list(range(10))
    with pytest.raises(ValueError, match="4 and 2 slots"):
        ring.resize_rings(4, 2)


@effect(RegisterOp.SYNC_CANCEL)
def test_sync_cancel(ring: Ring, pair: tuple[socket.socket, socket.socket]) -> None:
    """What matches has ended when the call returns; where nothing does, it says so."""
    fd = pair[0].fileno()
    prep_poll_add(ring, fd, select.POLLIN, user_data=1)
    prep_timeout(ring, 600_000_000_000, user_data=2)
    ring.submit()
    ring.register_sync_cancel(2)
    assert [(one.user_data, one.res) for one in done(ring)] == [(2, -errno.ECANCELED)]
    with pytest.raises(FileNotFoundError):
        ring.register_sync_cancel(2)


@effect(CancelFlags.ALL, CancelFlags.ANY, CancelFlags.FD, CancelFlags.OP)
def test_sync_cancel_of_many(ring: Ring, pair: tuple[socket.socket, socket.socket]) -> None:
    """By file, by operation, and whatever there is: as many as match, and no others."""
    fd, other = pair[0].fileno(), pair[1].fileno()

    def fill() -> None:
        for number, one in enumerate((fd, fd, other)):
            prep_poll_add(ring, one, select.POLLIN, user_data=number)
        prep_timeout(ring, 600_000_000_000, user_data=3)
        ring.submit()

    def ended(count: int) -> list[int]:
        return sorted(one.user_data for one in done(ring, count) if one.res == -errno.ECANCELED)

    fill()
    assert ring.register_sync_cancel(fd=fd, flags=CancelFlags.ALL | CancelFlags.FD) == 2
    assert ended(2) == [0, 1]
    assert ring.register_sync_cancel(flags=CancelFlags.ALL | CancelFlags.ANY) == 2
    assert ended(2) == [2, 3]
    fill()
    by_operation = CancelFlags.ALL | CancelFlags.OP
    assert ring.register_sync_cancel(flags=by_operation, opcode=Opcode.POLL_ADD) == 3
    assert ended(3) == [0, 1, 2]
    ring.register_sync_cancel(3)
    assert ended(1) == [3]


@effect(CancelFlags.FD_FIXED, CancelFlags.USERDATA)
def test_sync_cancel_by_slot_and_user_data(
    ring: Ring, pair: tuple[socket.socket, socket.socket]
) -> None:
    """Of two requests on one registered file, the one with that user_data."""
    ring.register_files([-1, pair[0].fileno()])
    for number in (1, 2):
        prep_poll_add(ring, 1, select.POLLIN, user_data=number, flags=SqeFlags.FIXED_FILE)
    ring.submit()
    flags = CancelFlags.FD | CancelFlags.FD_FIXED
    ring.register_sync_cancel(2, fd=1, flags=flags | CancelFlags.USERDATA)
    assert [(one.user_data, one.res) for one in done(ring)] == [(2, -errno.ECANCELED)]
    with pytest.raises(OpError, match="SYNC_CANCEL") as caught:
        ring.register_sync_cancel(fd=0, flags=flags)
    assert caught.value.errno == errno.EBADF
    ring.register_sync_cancel(fd=1, flags=flags)
    assert done(ring)[0].user_data == 1


def test_sync_cancel_gives_up_when_its_time_is_over(ring: Ring) -> None:
    """A worker in the middle of a request takes a while to end; without time, ETIME says so."""
    ends = [*os.pipe(), *os.pipe()]
    for _ in range(1000):
        prep_splice(ring, ends[0], -1, ends[3], -1, 1, 0, user_data=1)
        ring.submit()
        try:
            ring.register_sync_cancel(1, timeout_ns=0)
        except OpError as error:
            found = error.errno
            assert done(ring)[0].user_data == 1
            if found == errno.ETIME:  # else it had not begun, or has ended
                break
        else:
            assert done(ring)[0].user_data == 1
    else:
        pytest.fail("no cancellation ever took its time")
    for fd in ends:
        os.close(fd)
    with pytest.raises(ValueError, match="-1 ns"):
        ring.register_sync_cancel(1, timeout_ns=-1)


@effect(RegisterOp.CLOCK)
def test_clock(ring: Ring) -> None:
    """Waits by the clock that counts suspended time end too; wall clocks are refused."""
    ring.register_clock(time.CLOCK_BOOTTIME)
    assert ring.wait(1, 1) == []
    with pytest.raises(OpError, match="CLOCK"):
        ring.register_clock(time.CLOCK_REALTIME)


@effect(RegisterOp.NAPI, RegisterOp.UNREGISTER_NAPI)
def test_napi(ring: Ring) -> None:
    """What was set comes back when it is replaced, and when it is taken away."""
    try:
        assert ring.register_napi(10, prefer_busy_poll=True) == (0, False)
    except OpError as error:
        if error.errno in {errno.EINVAL, errno.EOPNOTSUPP}:
            pytest.skip(f"this kernel polls no network cards: {error}")
        raise
    assert ring.register_napi(20) == (10, True)
    assert ring.unregister_napi() == (20, False)
    assert ring.unregister_napi() == (0, False)
    with pytest.raises(ValueError, match="microseconds, not -1"):
        ring.register_napi(-1)


def test_error_of_a_registration_tells_what_may_lack(ring: Ring) -> None:
    """The kernel's EINVAL is explained by the release that brought the registration."""
    with pytest.raises(OpError, match=r"register FILE_ALLOC_RANGE.*older than Linux 6\.0"):
        ring.register(RegisterOp.FILE_ALLOC_RANGE, bytes(16), 5)


def test_restrictions_need_something(make_ring: MakeRing) -> None:
    """A ring that may do nothing at all is refused before the kernel makes it useless."""
    ring = make_ring(flags=SetupFlags.R_DISABLED)
    with pytest.raises(UsageError, match="name operations"):
        ring.register_restrictions()
