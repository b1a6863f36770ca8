"""Rings whose queues live in memory of the program's, with and without a descriptor."""

import errno
import gc
import sys
import threading
from collections.abc import Callable

import pytest

from tests.fresh import FreshPython
from tests.kernel import lock_refusal, uring_refusal
from tests.lowlevel.rig import done, effect, result
from tests.ring.stand_ins import RefusesSetups
from uringio._ring.lent import is_lent
from uringio._sys import constants as k
from uringio._sys.layouts import PARAMS
from uringio._sys.memory import pin
from uringio._sys.system import System
from uringio.errors import ClosedError, RingError, UsageError, WrongThreadError
from uringio.lowlevel import (
    Features,
    Opcode,
    RegisterOp,
    Ring,
    SetupFlags,
    SqeFlags,
    allocate,
    prep_nop,
    prep_read,
    prep_write,
)

MakeRing = Callable[..., Ring]
S = SetupFlags
ALONE = S.NO_MMAP | S.REGISTERED_FD_ONLY
DEFERRED = S.SINGLE_ISSUER | S.DEFER_TASKRUN


def skip_where_memory_is_short() -> None:
    """Queues in memory of the program's count against the limit of locked memory."""
    if reason := lock_refusal():
        pytest.skip(reason)


def turn_over(ring: Ring, rounds: int = 5) -> None:
    """Have both queues go round some times, each request answered."""
    for base in range(0, rounds * 8, 8):
        for number in range(base, base + 8):
            prep_nop(ring, user_data=number)
        assert [one.user_data for one in done(ring, 8)] == list(range(base, base + 8))


@effect(SetupFlags.NO_MMAP)
@pytest.mark.parametrize("flags", [0, DEFERRED, S.NO_SQARRAY, S.SQE128 | S.CQE32], ids=str)
def test_queues_live_in_memory_that_was_given(make_ring: MakeRing, flags: int) -> None:
    """Requests and completions stand in that very memory, and the ring works as any other."""
    memory = allocate(Ring.memory_bytes(8, 16, flags))
    ring = make_ring(8, cq_entries=16, flags=flags, memory=memory)
    assert ring.setup_flags & S.NO_MMAP
    prep_nop(ring, user_data=0x1122334455667788)
    raw = (0x1122334455667788).to_bytes(8, sys.byteorder)
    assert raw in bytes(memory.view)
    found = done(ring)
    assert [one.user_data for one in found] == [0x1122334455667788]
    assert bytes(memory.view).count(raw) == 2  # the request's, and the completion's
    turn_over(ring)


@pytest.mark.parametrize("entries", [1, 8, 4096])
def test_memory_is_made_where_none_is_given(make_ring: MakeRing, entries: int) -> None:
    """For queues within a page, and for many pages."""
    skip_where_memory_is_short()
    ring = make_ring(entries, flags=S.NO_MMAP | S.NO_SQARRAY)
    for number in range(2 * entries):
        prep_nop(ring, user_data=number)
        if not ring.space:
            ring.submit()
    done(ring, 2 * entries)


def test_memory_that_is_too_small_is_refused() -> None:
    """Before the kernel would write behind its end; the message says how much it takes."""
    least = Ring.memory_bytes(64, 128)
    with pytest.raises(ValueError, match=f"take {least} bytes, and the memory has {least - 1}"):
        Ring(64, cq_entries=128, flags=0, memory=allocate(least - 1))


def test_memory_is_measured_for_what_is_asked_for_in_the_end() -> None:
    """A kernel that refuses the first choice of flags may need more of it, for an index array."""
    skip_where_memory_is_short()
    flags = S.NO_SQARRAY
    memory = allocate(Ring.memory_bytes(1024, 1024, flags))
    with pytest.raises(ValueError, match="the queues take"):
        Ring(1024, cq_entries=1024, memory=memory, system=RefusesSetups(1))
    refuses = RefusesSetups(1)
    if uring_refusal() is None:
        with Ring(1024, cq_entries=1024, memory=allocate(1 << 20), system=refuses) as ring:
            turn_over(ring)
    assert len(refuses.flags_tried) in {0, 2}


def test_two_rings_do_not_share_memory(make_ring: MakeRing) -> None:
    """The second is refused before the kernel writes there; it is free when the first is closed."""
    memory = allocate(Ring.memory_bytes(8))
    ring = make_ring(8, flags=DEFERRED, memory=memory)
    prep_nop(ring, user_data=1)
    with pytest.raises(UsageError, match="give each its own"):
        Ring(8, flags=0, memory=memory)
    assert [one.user_data for one in done(ring)] == [1]
    assert is_lent(memory)
    ring.close()
    assert not is_lent(memory)


def test_memory_outlives_the_names_of_it(make_ring: MakeRing) -> None:
    """The ring keeps what it was given, until it is closed."""
    ring = make_ring(8, flags=0, memory=allocate(Ring.memory_bytes(8)))
    gc.collect()
    turn_over(ring)


@effect(RegisterOp.RESIZE_RINGS)
@pytest.mark.parametrize("flags", [0, S.NO_MMAP, S.NO_SQARRAY, ALONE], ids=str)
def test_queues_of_any_kind_are_resized(make_ring: MakeRing, flags: int) -> None:
    """
    Those in memory of ours move to other memory; those with an index array get it anew.

    The kernel does not tell where it has put that array.
    """
    ring = make_ring(8, flags=flags | DEFERRED)
    prep_nop(ring, user_data=1)
    ring.submit()
    prep_nop(ring, user_data=2)
    ring.resize_rings(64, 256)
    assert [one.user_data for one in done(ring, 2)] == [1, 2]
    turn_over(ring)
    for number in range(64):
        prep_nop(ring, user_data=number)
    assert [one.user_data for one in done(ring, 64)] == list(range(64))


# --- no descriptor -------------------------------------------------------------------------------


@effect(SetupFlags.REGISTERED_FD_ONLY, Features.REG_REG_RING, RegisterOp.USE_REGISTERED_RING)
@pytest.mark.parametrize("flags", [0, DEFERRED], ids=str)
def test_a_ring_may_have_no_descriptor(make_ring: MakeRing, flags: int) -> None:
    """It is entered, registered with and closed by its registered index."""
    ring = make_ring(8, flags=ALONE | flags)
    assert ring.fd == -1
    assert "registered index" in repr(ring)
    assert Opcode.NOP in ring.opcodes  # the probe is a registration
    turn_over(ring)
    memory = allocate(8)
    ring.register_buffers([memory])
    ring.register_files([0])
    with open("/proc/self/comm", "rb") as file:
        ring.register_files_update(0, [file.fileno()])
    room = bytearray(4)
    prep_read(ring, 0, room, 0, flags=SqeFlags.FIXED_FILE)
    assert result(ring) == 4
    buffers = ring.setup_buf_ring(1, 4, 64)
    buffers.free()


def test_its_index_is_given_back(make_ring: MakeRing) -> None:
    """A thread has sixteen: more rings than that are made, one after the other."""
    skip_where_memory_is_short()
    for _ in range(20):
        make_ring(4, flags=ALONE).close()


def test_the_seventeenth_at_a_time_is_refused(make_ring: MakeRing) -> None:
    """The message tells the thread's limit; where one is closed another can be made."""
    skip_where_memory_is_short()
    rings: list[Ring] = []
    with pytest.raises(RingError, match="sixteen registered indexes") as caught:
        rings += (make_ring(4, flags=ALONE) for _ in range(17))
    assert caught.value.errno == errno.EBUSY
    rings[0].close()
    turn_over(make_ring(8, flags=ALONE))


def test_what_a_ring_without_descriptor_cannot_do(make_ring: MakeRing) -> None:
    """Be found by a descriptor, or in another thread; the ring goes on as if nothing was."""
    ring = make_ring(4, flags=ALONE | S.R_DISABLED)
    with pytest.raises(UsageError, match="no descriptor to go back to"):
        ring.unregister_ring_fd()
    with pytest.raises(UsageError, match="no descriptor to be found by"):
        Ring(4, workers_of=ring)
    caught: list[BaseException] = []

    def use() -> None:
        for call in (ring.enable, ring.close, ring.submit):
            try:
                call()
            except WrongThreadError as error:
                caught.append(error)

    thread = threading.Thread(target=use)
    thread.start()
    thread.join()
    assert len(caught) == 3
    ring.enable()
    prep_nop(ring)
    assert result(ring) == 0


def test_memory_is_cloned_from_a_ring_without_descriptor(
    make_ring: MakeRing, tmp_path: object
) -> None:
    """The source is named by its index, and the clone is the same memory."""
    source, ring = make_ring(4, flags=ALONE), make_ring(4)
    memory = allocate(4096)
    source.register_buffers([memory])
    ring.clone_buffers(source)
    with open(f"{tmp_path}/file", "wb") as file:
        memory.view[:5] = b"words"
        ring.fill(k.IORING_OP_WRITE_FIXED, file.fileno(), 0, memory.addr, 5, 0, 0, 0)
        assert result(ring) == 5
    with open(f"{tmp_path}/file", "rb") as file:
        assert file.read() == b"words"


def test_the_enabling_thread_uses_the_descriptor(make_ring: MakeRing) -> None:
    """An index that another thread has registered would mean another ring there, or none."""
    ring = make_ring(4, flags=S.R_DISABLED | DEFERRED)
    ring.register_ring_fd()
    found: list[object] = []

    def use() -> None:
        ring.enable()
        prep_nop(ring, user_data=3)
        found.append(ring.wait())
        ring.close()

    thread = threading.Thread(target=use)
    thread.start()
    thread.join()
    assert found == [[(3, 0, 0)]]
    # The index is still this thread's, and goes with it; the number is free for another's use.


def test_the_kernel_itself_needs_addresses() -> None:
    """What is refused where NO_MMAP comes with none: EFAULT (no such thing as a default)."""
    params = bytearray(k.SIZEOF_PARAMS)
    PARAMS.pack_into(params, 0, 0, 0, k.IORING_SETUP_NO_MMAP, *(0,) * 22)
    addr, _, _keep = pin(params, writable=True)
    assert System().io_uring_setup(4, addr) in {-errno.EFAULT, -errno.EINVAL, -errno.EPERM}


def test_a_forked_child_has_memory_of_its_own(fresh_python: FreshPython) -> None:
    """What the child does to the memory does not reach the parent's ring, with requests in it."""
    fresh_python(
        """
        import os
        from uringio.errors import RingForkedError
        from uringio.lowlevel import Ring, SetupFlags, allocate, prep_nop
        memory = allocate(Ring.memory_bytes(4))
        ring = Ring(4, flags=SetupFlags.REGISTERED_FD_ONLY | SetupFlags.NO_MMAP, memory=memory)
        prep_nop(ring, user_data=1)
        child = os.fork()
        if not child:
            memory.view[:] = bytes(len(memory.view))
            try:
                ring.submit()
            except RingForkedError:
                os._exit(7)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == 7, status
        assert ring.wait() == [(1, 0, 0)]
        ring.close()
        """
    ).check()


def test_a_closed_ring_shares_nothing(make_ring: MakeRing) -> None:
    """Its workers can no longer be had."""
    ring = make_ring(4)
    ring.close()
    with pytest.raises(ClosedError):
        Ring(4, workers_of=ring)


def test_writes_from_memory_beside_the_queues(make_ring: MakeRing, tmp_path: object) -> None:
    """What is left of the memory behind the queues is the program's."""
    least = Ring.memory_bytes(4)
    memory = allocate(least + 4096)
    ring = make_ring(4, flags=0, memory=memory)
    memory.view[least : least + 4] = b"rest"
    with open(f"{tmp_path}/file", "wb") as file:
        prep_write(ring, file.fileno(), memory.addr + least, 0, len_bytes=4)
        assert result(ring) == 4
    with open(f"{tmp_path}/file", "rb") as file:
        assert file.read() == b"rest"
