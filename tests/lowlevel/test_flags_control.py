"""Flags about time, other requests, workers and rings: what each changes."""

import errno
import mmap
import os
import select
import socket
import struct
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.fresh import FreshPython
from tests.kernel import uring_refusal
from tests.lowlevel.rig import effect, result, results, silent
from uringio._sys import constants as k
from uringio._sys.layouts import CLONE_BUFFERS, PARAMS, RSRC_REGISTER
from uringio._sys.memory import pin
from uringio._sys.system import System
from uringio.lowlevel import (
    CancelFlags,
    CloneBuffersFlags,
    Features,
    Futex2Flags,
    NopFlags,
    Opcode,
    RegisterOp,
    RestrictionOp,
    Ring,
    RsrcFlags,
    SetupFlags,
    SqeFlags,
    TimeoutFlags,
    allocate,
    prep_cancel_fd,
    prep_futex_wait,
    prep_futex_wake,
    prep_link_timeout,
    prep_nop,
    prep_openat,
    prep_openat_direct,
    prep_poll_add,
    prep_read,
    prep_recv,
    prep_rw,
    prep_timeout,
    prep_timeout_update,
)

MakeRing = Callable[..., Ring]
Pair = tuple[socket.socket, socket.socket]
LONG_NS = 600_000_000_000
EPOLLEXCLUSIVE = 1 << 28


# --- how rings are made --------------------------------------------------------------------------


def parameters_of(entries: int, flags: int, cq_entries: int = 0) -> tuple[int, ...]:
    """Have the kernel make a ring, and return what it says of it, or the negative errno."""
    if reason := uring_refusal():
        pytest.skip(reason)
    system = System()
    params = bytearray(PARAMS.size)
    PARAMS.pack_into(params, 0, 0, cq_entries, flags, *(0,) * 22)
    addr, _, _keep = pin(params, writable=True)
    fd = system.io_uring_setup(entries, addr)
    if fd < 0:
        return (fd,)
    os.close(fd)
    found: tuple[int, ...] = PARAMS.unpack(params)
    return found


@effect(SetupFlags.CLAMP)
def test_sizes_that_are_too_large_are_reduced() -> None:
    """With the flag a ring of the most that there is; without it none at all."""
    assert parameters_of(1 << 20, 0) == (-errno.EINVAL,)
    assert parameters_of(1 << 20, SetupFlags.CLAMP)[0] == 32768


@effect(SetupFlags.CQSIZE)
def test_the_completion_queue_has_the_size_that_was_given() -> None:
    """Without the flag it has twice the requests' size, whatever stands in the field."""
    assert parameters_of(4, 0, 32)[:2] == (4, 8)
    assert parameters_of(4, SetupFlags.CQSIZE, 32)[:2] == (4, 32)


@effect(SetupFlags.NO_SQARRAY)
def test_the_index_array_is_left_out() -> None:
    """The kernel names no place for it."""
    found = parameters_of(4, SetupFlags.NO_SQARRAY)
    if found == (-errno.EINVAL,):
        pytest.skip("NO_SQARRAY came with Linux 6.6")
    assert found[13] == 0  # sq_off.array
    assert parameters_of(4, 0)[13] > 0


@effect(Features.SINGLE_MMAP)
def test_one_mapping_shows_both_queues(ring: Ring) -> None:
    """What is mapped as the submission queue holds the completions as well."""
    assert Features.SINGLE_MMAP in ring.features
    offset = parameters_of(16, SetupFlags.CQSIZE)
    assert offset == (-errno.EINVAL,)  # no size was given
    both = parameters_of(16, 0)
    head_of_cq, entries_of_cq = both[16], both[19]
    with mmap.mmap(ring.fd, 4096, mmap.MAP_SHARED, offset=k.IORING_OFF_SQ_RING) as view:
        assert head_of_cq < 4096
        assert struct.unpack_from("I", view, entries_of_cq) == (64,)


# --- timeouts ------------------------------------------------------------------------------------


@effect(TimeoutFlags.REALTIME)
def test_a_moment_by_the_wall_clock(ring: Ring) -> None:
    """What is past by it is far in the future by the clock that counts from the start."""
    now_ns = time.time_ns()
    prep_timeout(ring, now_ns, 0, TimeoutFlags.ABS | TimeoutFlags.REALTIME, user_data=1)
    assert results(ring, 1) == {1: -errno.ETIME}
    prep_timeout(ring, now_ns, 0, TimeoutFlags.ABS, user_data=2)
    assert ring.wait(1, 0) == []


@silent(TimeoutFlags.BOOTTIME)
def test_a_moment_by_the_clock_that_counts_suspended_time(ring: Ring) -> None:
    """It is a clock of its own, and not the wall's; both at once are refused."""
    moment_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    prep_timeout(ring, moment_ns, 0, TimeoutFlags.ABS | TimeoutFlags.BOOTTIME)
    assert result(ring) == -errno.ETIME
    moment_ns += LONG_NS
    prep_timeout(ring, moment_ns, 0, TimeoutFlags.ABS | TimeoutFlags.BOOTTIME, user_data=1)
    assert ring.wait(1, 0) == []
    prep_timeout(ring, 1, 0, TimeoutFlags.REALTIME | TimeoutFlags.BOOTTIME, user_data=2)
    assert results(ring, 1) == {2: -errno.EINVAL}


@effect(TimeoutFlags.ETIME_SUCCESS)
def test_a_timeout_that_is_no_failure_does_not_break_its_chain(ring: Ring) -> None:
    """What is linked behind goes on; without the flag it is cancelled."""
    for flags, expected in ((TimeoutFlags.ETIME_SUCCESS, 0), (0, -errno.ECANCELED)):
        prep_timeout(ring, 1, 0, flags, user_data=1, flags=SqeFlags.IO_LINK)
        prep_nop(ring, user_data=2)
        assert results(ring, 2) == {1: -errno.ETIME, 2: expected}


@effect(TimeoutFlags.LINK_TIMEOUT_UPDATE)
def test_a_linked_timeout_is_moved(ring: Ring, pair: Pair) -> None:
    """Moved to now it cuts its request short; an ordinary update does not find it."""
    prep_recv(ring, pair[0].fileno(), bytearray(4), user_data=1, flags=SqeFlags.IO_LINK)
    prep_link_timeout(ring, LONG_NS, user_data=2)
    ring.submit()
    prep_timeout_update(ring, 1, 2, user_data=3)
    assert results(ring, 1) == {3: -errno.ENOENT}
    prep_timeout_update(ring, 1, 2, TimeoutFlags.LINK_TIMEOUT_UPDATE, user_data=3)
    assert results(ring, 3) == {1: -errno.ECANCELED, 2: -errno.ETIME, 3: 0}


# --- other requests ------------------------------------------------------------------------------


def receives(ring: Ring, fd: int, flags: int = 0) -> None:
    """Have two requests wait, by the names of 1 and 2."""
    for name in (1, 2):
        prep_recv(ring, fd, bytearray(4), user_data=name, flags=flags)
    ring.submit()


@effect(CancelFlags.FD_FIXED)
def test_cancel_by_slot(ring: Ring, pair: Pair) -> None:
    """The number is that of a registered file: what waits on it ends, and nothing else."""
    ring.register_files([pair[0].fileno()])
    receives(ring, 0, SqeFlags.FIXED_FILE)
    prep_recv(ring, pair[1].fileno(), bytearray(4), user_data=3)
    prep_cancel_fd(ring, 0, CancelFlags.ALL, user_data=8)
    assert results(ring, 1) == {8: 0}  # the program's descriptor 0
    both = CancelFlags.FD_FIXED | CancelFlags.ALL
    prep_cancel_fd(ring, 0, both, user_data=9)
    assert results(ring, 3) == {1: -errno.ECANCELED, 2: -errno.ECANCELED, 9: 2}
    assert ring.in_flight == 1


@effect(CancelFlags.USERDATA)
def test_cancel_by_descriptor_and_user_data(ring: Ring, pair: Pair) -> None:
    """Both must match: of two requests on a descriptor the one that was named ends."""
    fd = pair[0].fileno()
    receives(ring, fd)
    both = CancelFlags.FD | CancelFlags.USERDATA
    prep_rw(ring, Opcode.ASYNC_CANCEL, fd, 7, 0, 0, op_flags=both, user_data=8)
    assert results(ring, 1) == {8: -errno.ENOENT}
    prep_rw(ring, Opcode.ASYNC_CANCEL, fd, 2, 0, 0, op_flags=both, user_data=9)
    assert results(ring, 2) == {2: -errno.ECANCELED, 9: 0}
    assert ring.in_flight == 1


@effect(NopFlags.FILE, NopFlags.FIXED_FILE, NopFlags.FIXED_BUFFER)
def test_a_nop_looks_up_what_it_is_told_to(ring: Ring, pair: Pair) -> None:
    """A descriptor, a slot of files, a slot of memory: each must be there."""
    ring.register_files([pair[0].fileno()])
    ring.register_buffers([allocate(4096)])
    slot = NopFlags.FILE | NopFlags.FIXED_FILE
    prep_nop(ring, NopFlags.FILE, fd=pair[0].fileno(), user_data=1)
    prep_nop(ring, NopFlags.FILE, fd=9999, user_data=2)
    prep_nop(ring, slot, fd=0, user_data=3)
    prep_nop(ring, slot, fd=1, user_data=4)
    prep_nop(ring, NopFlags.FIXED_BUFFER, buf_index=0, user_data=5)
    prep_nop(ring, NopFlags.FIXED_BUFFER, buf_index=1, user_data=6)
    bad = {2: -errno.EBADF, 4: -errno.EBADF, 6: -errno.EFAULT}
    assert results(ring, 6) == {1: 0, 3: 0, 5: 0, **bad}


@effect(Futex2Flags.PRIVATE, Futex2Flags.SIZE_U32)
def test_a_private_wake_is_for_private_waits(ring: Ring) -> None:
    """It does not reach who waits on the word as a shared one; words of other sizes are none."""
    word = allocate(4)
    private = Futex2Flags.SIZE_U32 | Futex2Flags.PRIVATE
    prep_futex_wait(ring, word, 0, user_data=1)
    prep_futex_wait(ring, word, 0, futex2_flags=private, user_data=2)
    ring.submit()
    prep_futex_wake(ring, word, 9, futex2_flags=private, user_data=3)
    assert results(ring, 2) == {2: 0, 3: 1}
    prep_futex_wake(ring, word, 9, user_data=3)
    assert results(ring, 2) == {1: 0, 3: 1}
    for size in (0, 1, 3):
        prep_futex_wait(ring, word, 1, futex2_flags=size)
        assert result(ring) == -errno.EINVAL


@effect(Features.POLL_32BITS)
def test_an_exclusive_poll_is_woken_alone(ring: Ring) -> None:
    """Of two that wait for the same byte, one is; without EPOLLEXCLUSIVE both are."""
    for mask, woken in ((select.POLLIN, 2), (select.POLLIN | EPOLLEXCLUSIVE, 1)):
        reading, writing = os.pipe()
        prep_poll_add(ring, reading, mask, user_data=1)
        prep_poll_add(ring, reading, mask, user_data=2)
        ring.submit()
        os.write(writing, b"x")
        assert len(ring.wait(1)) == woken
        assert ring.in_flight == 2 - woken
        os.close(writing)
        ring.wait(2 - woken)
        os.close(reading)


@effect(Features.LINKED_FILE)
def test_a_linked_request_finds_its_file_when_it_runs(ring: Ring, file: Path) -> None:
    """A read of a slot that the request linked before it fills."""
    ring.register_files_sparse(2)
    room = bytearray(4)
    prep_openat_direct(ring, -100, file, os.O_RDONLY, 0, 1, user_data=1, flags=SqeFlags.IO_LINK)
    prep_read(ring, 1, room, 0, user_data=2, flags=SqeFlags.FIXED_FILE)
    assert results(ring, 2) == {1: 0, 2: 4}
    assert room == b"0123"


@effect(Features.FAST_POLL, Features.NATIVE_WORKERS)
def test_only_what_is_told_to_takes_a_worker(fresh_python: FreshPython) -> None:
    """A receive that must wait takes no thread; a read by a worker takes one of this process."""
    if reason := uring_refusal():
        pytest.skip(reason)
    fresh_python(
        """
        import os, socket
        from pathlib import Path
        from uringio.lowlevel import Ring, SqeFlags, prep_read, prep_recv

        def threads():
            return len(list(Path("/proc/self/task").iterdir()))

        reading, writing = os.pipe()
        with Ring(4) as ring, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as waiting:
            waiting.bind(("127.0.0.1", 0))
            prep_recv(ring, waiting.fileno(), bytearray(1))
            ring.submit()
            assert threads() == 1
            prep_read(ring, reading, bytearray(1), flags=SqeFlags.ASYNC)
            ring.submit()
            assert threads() == 2
            waiting.sendto(b"x", waiting.getsockname())
            os.write(writing, b"x")
            assert [one[1] for one in ring.wait(2)] == [1, 1]
        """
    ).check()


# --- rings and what they share -------------------------------------------------------------------


@effect(RegisterOp.USE_REGISTERED_RING, Features.REG_REG_RING)
def test_registrations_take_a_registered_index(ring: Ring) -> None:
    """With the flag the number is an index; without it, a descriptor, which is no ring here."""
    if Features.REG_REG_RING not in ring.features:
        pytest.skip("USE_REGISTERED_RING came with Linux 6.3")
    ring.register_files_sparse(2)
    ring.register_ring_fd()
    core = ring._core
    assert core is not None
    register, index = core.system.io_uring_register, core.enter_fd
    assert register(index, RegisterOp.UNREGISTER_FILES, 0, 0) in {-errno.EOPNOTSUPP, -errno.EBADF}
    by_index = RegisterOp.UNREGISTER_FILES | RegisterOp.USE_REGISTERED_RING
    assert register(index, by_index, 0, 0) == 0
    assert register(index, by_index, 0, 0) == -errno.ENXIO


@effect(RsrcFlags.REGISTER_SPARSE)
def test_a_table_of_empty_slots_takes_no_files(ring: Ring, pair: Pair) -> None:
    """With the flag, files beside it are refused; without, they stand in the slots."""
    fds = struct.pack("=i", pair[0].fileno())
    addr, _, _keep = pin(fds)
    flag = RsrcFlags.REGISTER_SPARSE
    with pytest.raises(OSError, match="FILES2") as caught:
        ring.register(RegisterOp.FILES2, RSRC_REGISTER.pack(1, flag, addr, 0), RSRC_REGISTER.size)
    assert caught.value.errno == errno.EINVAL
    ring.register(RegisterOp.FILES2, RSRC_REGISTER.pack(1, flag, 0, 0), RSRC_REGISTER.size)
    prep_recv(ring, 0, bytearray(1), flags=SqeFlags.FIXED_FILE)
    assert result(ring) == -errno.EBADF
    ring.unregister_files()
    ring.register(RegisterOp.FILES2, RSRC_REGISTER.pack(1, 0, addr, 0), RSRC_REGISTER.size)
    pair[1].send(b"x")
    prep_recv(ring, 0, bytearray(1), flags=SqeFlags.FIXED_FILE)
    assert result(ring) == 1


@effect(CloneBuffersFlags.SRC_REGISTERED, CloneBuffersFlags.DST_REPLACE)
def test_memory_is_taken_from_a_registered_ring_and_replaced(
    ring: Ring, make_ring: MakeRing
) -> None:
    """The source may be an index; what stands in the slots is replaced only where that is said."""
    source = make_ring()
    source.register_buffers([allocate(4096)])
    source.register_ring_fd()
    core = source._core
    assert core is not None
    flags = CloneBuffersFlags.SRC_REGISTERED
    argument = CLONE_BUFFERS.pack(core.enter_fd, flags, 0, 0, 0)
    ring.register(RegisterOp.CLONE_BUFFERS, argument, 1)
    prep_nop(ring, NopFlags.FIXED_BUFFER, buf_index=0)
    assert result(ring) == 0
    with pytest.raises(OSError, match="CLONE_BUFFERS") as caught:
        ring.clone_buffers(source)
    assert caught.value.errno == errno.EBUSY
    ring.clone_buffers(source, flags=CloneBuffersFlags.DST_REPLACE)


@effect(RestrictionOp.REGISTER_OP, RestrictionOp.SQE_FLAGS_ALLOWED)
def test_what_is_allowed_is_that_and_no_more(make_ring: MakeRing) -> None:
    """One registration and one flag are; their neighbours are EACCES."""
    ring = make_ring(flags=SetupFlags.R_DISABLED)
    ring.register_restrictions(
        ops=[Opcode.NOP],
        register_ops=[RegisterOp.FILES2, RegisterOp.ENABLE_RINGS],
        flags_allowed=SqeFlags.IO_LINK,
    )
    ring.enable()
    ring.register_files_sparse(2)
    with pytest.raises(PermissionError, match="restrictions forbid"):
        ring.register_buffers_sparse(2)
    for flags, first in ((SqeFlags.IO_LINK, 0), (SqeFlags.IO_HARDLINK, -errno.EACCES)):
        prep_nop(ring, user_data=1, flags=flags)
        prep_nop(ring, user_data=2)
        assert results(ring, 2)[1] == first


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may take on another user's rights")
@effect(Features.CUR_PERSONALITY)
def test_requests_act_with_the_rights_of_who_submits_them(ring: Ring, tmp_path: Path) -> None:
    """Not of who made the ring."""
    secret = tmp_path / "secret"
    secret.write_text("mine")
    secret.chmod(0o600)
    assert Features.CUR_PERSONALITY in ring.features
    os.seteuid(65534)
    try:
        prep_openat(ring, -100, secret, os.O_RDONLY)
        assert result(ring) == -errno.EACCES
    finally:
        os.seteuid(0)
