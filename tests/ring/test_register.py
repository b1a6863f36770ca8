"""Registration: files, buffers, the ring's own descriptor, workers."""

import errno
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.ring.pilot import Pilot
from tests.ring.stand_ins import Enters
from uringio._ring.register import (
    register_buffers,
    register_files,
    register_files_update,
    register_iowq_max_workers,
    register_ring_fd,
    unregister_buffers,
    unregister_files,
    unregister_ring_fd,
)
from uringio._ring.setup import Ring, queue_init
from uringio._sys import constants as k
from uringio._sys.memory import Memory
from uringio._sys.system import System
from uringio.errors import OpError

READ_FIXED = 4  # operations that the library itself does not use yet
WRITE_FIXED = 5

REGISTERED_RINGS_MAX = 16  # per thread


@pytest.fixture
def files(tmp_path: Path) -> Iterator[list[int]]:
    """Three open files that say which they are."""
    fds = []
    for name in (b"zero", b"one", b"two"):
        fd = os.open(tmp_path / name.decode(), os.O_RDWR | os.O_CREAT, 0o600)
        os.write(fd, name)
        fds.append(fd)
    yield fds
    for fd in fds:
        os.close(fd)


def read_slot(pilot: Pilot, slot: int, memory: Memory) -> bytes | int:
    """Read from a registered file; its content or the negative errno."""
    pilot.put(
        k.IORING_OP_READ, slot, flags=k.IOSQE_FIXED_FILE, addr=memory.addr, len_=100, offset=0
    )
    res = pilot.result()
    return res if res < 0 else bytes(memory.view[:res])


# --- files ---------------------------------------------------------------------------------------


def test_registered_files_are_read_by_slot(pilot: Pilot, files: list[int]) -> None:
    """The slot stands for the descriptor, also after that was closed; an empty one for none."""
    memory = Memory(4096)
    second = os.dup(files[2])
    register_files(pilot.ring, [files[1], -1, second, files[0]])
    assert read_slot(pilot, 0, memory) == b"one"
    assert read_slot(pilot, 1, memory) == -errno.EBADF
    assert read_slot(pilot, 2, memory) == b"two"
    assert read_slot(pilot, 3, memory) == b"zero"
    assert read_slot(pilot, 4, memory) == -errno.EBADF
    os.close(second)
    assert read_slot(pilot, 2, memory) == b"two"


def test_slots_are_replaced_and_emptied(pilot: Pilot, files: list[int]) -> None:
    """From any slot on, as many as are given; the others stay."""
    memory = Memory(4096)
    register_files(pilot.ring, [files[0]] * 4)
    assert register_files_update(pilot.ring, 1, [files[2], -1]) == 2
    assert [read_slot(pilot, slot, memory) for slot in range(4)] == [
        b"zero",
        b"two",
        -errno.EBADF,
        b"zero",
    ]
    assert register_files_update(pilot.ring, 2, [files[1]]) == 1
    assert read_slot(pilot, 2, memory) == b"one"


def test_files_refused(pilot: Pilot, files: list[int]) -> None:
    """Twice, none, beyond the end, or a descriptor that is none: each is told with its name."""
    with pytest.raises(OpError, match="register_files_update") as refused:
        register_files_update(pilot.ring, 0, [files[0]])
    assert refused.value.errno == errno.ENXIO
    with pytest.raises(OpError, match="unregister_files") as refused:
        unregister_files(pilot.ring)
    assert refused.value.errno == errno.ENXIO
    with pytest.raises(OpError, match="register_files"):
        register_files(pilot.ring, [])
    with pytest.raises(OpError) as refused:
        register_files(pilot.ring, [1 << 20])
    assert (refused.value.errno, refused.value.fd) == (errno.EBADF, pilot.ring.fd)
    register_files(pilot.ring, [files[0]])
    with pytest.raises(OpError) as refused:
        register_files(pilot.ring, [files[0]])
    assert refused.value.errno == errno.EBUSY
    with pytest.raises(OpError):
        register_files_update(pilot.ring, 1, [files[0]])


def test_unregistered_files_are_gone(pilot: Pilot, files: list[int]) -> None:
    """Slots mean nothing any more, and another table can be registered."""
    memory = Memory(4096)
    register_files(pilot.ring, files)
    unregister_files(pilot.ring)
    assert read_slot(pilot, 0, memory) == -errno.EBADF
    register_files(pilot.ring, files[:1])
    assert read_slot(pilot, 0, memory) == b"zero"


# --- buffers -------------------------------------------------------------------------------------


def fixed(
    pilot: Pilot, opcode: int, fd: int, index: int, addr: int, len_bytes: int, offset: int = 0
) -> int:
    """Read or write with registered memory; the result."""
    pilot.put(opcode, fd, addr=addr, len_=len_bytes, offset=offset, buf_group=index)
    return pilot.result()


def test_registered_memory_is_read_into_and_written_from(pilot: Pilot, files: list[int]) -> None:
    """By its index and an address inside it; outside it is refused."""
    first, second = Memory(4096), Memory(8192)
    register_buffers(pilot.ring, [(first.addr, 4096), (second.addr, 8192)])
    assert fixed(pilot, READ_FIXED, files[1], 0, first.addr, 100) == 3
    assert bytes(first.view[:3]) == b"one"
    assert fixed(pilot, READ_FIXED, files[2], 1, second.addr + 5000, 2) == 2
    assert bytes(second.view[5000:5003]) == b"tw\0"
    second.view[8000:8005] = b"three"
    assert fixed(pilot, WRITE_FIXED, files[0], 1, second.addr + 8000, 5, offset=1) == 5
    assert os.pread(files[0], 100, 0) == b"zthree"
    for index, addr, len_bytes in (
        (0, second.addr, 1),
        (0, first.addr + 4000, 97),
        (0, first.addr - 1, 1),
        (2, first.addr, 1),
    ):
        assert fixed(pilot, READ_FIXED, files[0], index, addr, len_bytes) == -errno.EFAULT


def test_buffers_refused(pilot: Pilot) -> None:
    """Twice, none, or memory that is not there."""
    memory = Memory(4096)
    with pytest.raises(OpError, match="unregister_buffers") as refused:
        unregister_buffers(pilot.ring)
    assert refused.value.errno == errno.ENXIO
    with pytest.raises(OpError, match="register_buffers"):
        register_buffers(pilot.ring, [])
    with pytest.raises(OpError) as refused:
        register_buffers(pilot.ring, [(4096, 4096)])
    assert refused.value.errno == errno.EFAULT
    register_buffers(pilot.ring, [(memory.addr, 4096)])
    with pytest.raises(OpError) as refused:
        register_buffers(pilot.ring, [(memory.addr, 4096)])
    assert refused.value.errno == errno.EBUSY


def test_unregistered_buffers_are_gone(pilot: Pilot, files: list[int]) -> None:
    """The index means nothing any more."""
    memory = Memory(4096)
    register_buffers(pilot.ring, [(memory.addr, 4096)])
    unregister_buffers(pilot.ring)
    assert fixed(pilot, READ_FIXED, files[0], 0, memory.addr, 4) == -errno.EFAULT
    register_buffers(pilot.ring, [(memory.addr, 4096)])
    assert fixed(pilot, READ_FIXED, files[0], 0, memory.addr, 4) == 4


# --- the ring's own descriptor -------------------------------------------------------------------


def test_registered_ring_is_entered_by_index(make_pilot: Callable[..., Pilot]) -> None:
    """Enter gets the index and the flag; requests go through as before; then the descriptor."""
    noted = Enters()
    ring = make_pilot(system=noted).ring
    register_ring_fd(ring)
    assert ring.registered_by == threading.get_ident()
    pilot = Pilot(ring)
    pilot.put_nops(3)
    assert len(pilot.collect(3)) == 3
    assert {one.fd for one in noted.log} == {ring.enter_fd}
    assert ring.enter_fd < REGISTERED_RINGS_MAX
    assert all(one.flags & k.IORING_ENTER_REGISTERED_RING for one in noted.log)
    noted.log.clear()
    unregister_ring_fd(ring)
    assert (ring.enter_fd, ring.registered_by) == (ring.fd, None)
    again = Pilot(ring)
    again.put_nops(3)
    assert len(again.collect(3)) == 3
    assert {one.fd for one in noted.log} == {ring.fd}
    assert not any(one.flags & k.IORING_ENTER_REGISTERED_RING for one in noted.log)


def test_ring_is_registered_once(pilot: Pilot) -> None:
    """A second registration takes no second index; a second return gives none back."""
    for _ in range(REGISTERED_RINGS_MAX + 1):
        register_ring_fd(pilot.ring)
    index = pilot.ring.enter_fd
    unregister_ring_fd(pilot.ring)
    unregister_ring_fd(pilot.ring)
    register_ring_fd(pilot.ring)
    assert pilot.ring.enter_fd == index


def test_indexes_are_given_back(system: System) -> None:
    """More rings than a thread has indexes, one after another, with and without unregister."""
    for number in range(2 * REGISTERED_RINGS_MAX + 2):
        ring = queue_init(system, 1)
        register_ring_fd(ring)
        if number % 2:
            unregister_ring_fd(ring)
        ring.close()
        assert ring.registered_by is None


def test_thread_without_an_index_left(make_pilot: Callable[..., Pilot]) -> None:
    """The seventeenth ring is refused its index, and works by its descriptor."""
    last = make_pilot(1).ring
    with pytest.raises(OpError, match="register_ring_fd") as refused:
        # A ring closed from another thread keeps its index, so some may be taken by earlier tests.
        for _ in range(REGISTERED_RINGS_MAX + 1):
            register_ring_fd(last)
            last = make_pilot(1).ring
    assert refused.value.errno == errno.EBUSY
    pilot = Pilot(last)
    pilot.put_nops(1)
    assert len(pilot.collect(1)) == 1


def test_closing_in_another_thread_is_no_error(system: System) -> None:
    """
    There the index cannot be given back, which is nobody's fault; the descriptor is closed.

    The thread that has the index is one of its own, since it keeps it until it ends.
    """
    made: list[Ring] = []
    ready, over = threading.Event(), threading.Event()

    def own() -> None:
        try:
            made.append(queue_init(system, 1))
            register_ring_fd(made[0])
        finally:
            ready.set()
        over.wait()

    owner = threading.Thread(target=own)
    owner.start()
    ready.wait()
    made[0].close()
    over.set()
    owner.join()
    assert made[0].fd == -1
    assert made[0].registered_by is None


# --- workers -------------------------------------------------------------------------------------


def test_worker_caps_are_set_and_asked(pilot: Pilot) -> None:
    """Each call answers the caps before it; zeros change nothing."""
    bounded, unbounded = register_iowq_max_workers(pilot.ring, 3, 5)
    assert bounded > 0
    assert unbounded > 0
    assert register_iowq_max_workers(pilot.ring, 0, 0) == (3, 5)
    assert register_iowq_max_workers(pilot.ring, 0, 7) == (3, 5)
    assert register_iowq_max_workers(pilot.ring, bounded, unbounded) == (3, 7)
    assert register_iowq_max_workers(pilot.ring, 0, 0) == (bounded, unbounded)
