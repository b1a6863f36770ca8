"""Direct descriptors: one owner, closed once, and no request meets the next file of a slot."""

import copy
import errno
import gc
import mmap
import os
import pickle
import random
import socket
import threading
from pathlib import Path

import pytest

from tests.backends import RUNG
from tests.older import without
from tests.surface.schedulers import Scheduler
from uringio import Buffer, lowlevel
from uringio._driver import current
from uringio._driver.op import Op
from uringio._own.fd import OwnedFd
from uringio._ring.probe import probe_ring
from uringio._sys import constants as k
from uringio.errors import ClosedError, OpError, UnsupportedError, UsageError, WrongThreadError


@pytest.fixture
def ring(scheduler: Scheduler) -> Scheduler:
    """A scheduler on a ring."""
    if scheduler.backend != "uring":
        pytest.skip("only rings have tables of files")
    if lacking := without(RUNG, "registered files", registration=k.IORING_REGISTER_FILES):
        pytest.skip(lacking)
    return scheduler


def installs() -> bool:
    """Tell whether the kernel of the running ring says that it can install."""
    try:
        known = probe_ring(current.driver().ring).opcodes  # type: ignore[attr-defined]
    except OpError:
        return False
    return k.IORING_OP_FIXED_FD_INSTALL in known


def pair() -> tuple[lowlevel.FixedFd, socket.socket]:
    """Make a direct descriptor, the only one of its file, and its peer."""
    ours, theirs = socket.socketpair()
    with ours:
        file = lowlevel.register_fd(ours)
    theirs.settimeout(50)
    return file, theirs


def test_elsewhere_there_are_none(scheduler: Scheduler) -> None:
    """On other backends the error says what would be needed."""
    if scheduler.backend == "uring":
        pytest.skip("here there are")

    async def main() -> None:
        with pytest.raises(UnsupportedError, match="io_uring backend"):
            lowlevel.register_fd(0)

    scheduler.run(main)


def test_sending_and_receiving(ring: Scheduler) -> None:
    """Bytes go both ways, and the peer sees the end when the only descriptor is closed."""

    async def main() -> None:
        file, peer = pair()
        with peer:
            data = random.randbytes(1000)
            assert await lowlevel.fixed_send(file, data) == 1000
            assert peer.recv(2000) == data
            memory = bytearray(100)
            receive = ring.spawn(_receive, file, memory)
            await ring.checkpoint()
            with pytest.raises(BufferError):
                memory.clear()
            peer.sendall(b"answer")
            assert await receive.result() == 6
            assert memory[:6] == b"answer"
            file.close()
            assert peer.recv(1) == b""
            file.close()

    ring.run(main)


async def _receive(file: lowlevel.FixedFd, memory: bytearray) -> int:
    return await lowlevel.fixed_recv_into(file, memory)


def test_files_at_offsets(ring: Scheduler, tmp_path: Path) -> None:
    """Writes and reads find their place."""

    async def main() -> None:
        fd = os.open(tmp_path / "f", os.O_RDWR | os.O_CREAT, 0o600)
        file = lowlevel.register_fd(owned_fd(fd))
        with pytest.raises(OSError, match="Bad file"):
            os.fstat(fd)  # it has moved
        assert await lowlevel.fixed_write(file, b"0123456789", 5) == 10
        memory = bytearray(4)
        assert await lowlevel.fixed_read_into(file, memory, 7) == 4
        assert memory == b"2345"
        file.close()

    ring.run(main)


def owned_fd(fd: int) -> OwnedFd:
    return OwnedFd(fd, current.driver().system.close, "test's file")


def test_closing_ends_what_is_in_flight(ring: Scheduler) -> None:
    """Whoever waits gets ClosedError, the peer the end, and later uses are refused."""

    async def main() -> None:
        file, peer = pair()
        with peer:
            task = ring.spawn(_receive, file, bytearray(5))
            await ring.checkpoint()
            prepared = lowlevel.fixed_send(file, b"never")
            file.close()
            with pytest.raises(ClosedError, match="by another task"):
                await task.result()
            assert peer.recv(10) == b""
            with pytest.raises(ClosedError):
                await prepared
            with pytest.raises(ClosedError):
                lowlevel.fixed_send(file, b"x")
            assert file.closed

    ring.run(main)


def test_what_is_prepared_never_meets_the_next_file(ring: Scheduler) -> None:
    """Requests packed before the close, and ops made before it, in a storm of reused slots."""

    async def main() -> None:
        driver = current.driver()
        for step in range(300):
            file, peer = pair()
            slot = file.slot
            packed: list[Op[int]] = []
            for _ in range(random.randrange(3)):
                op = lowlevel.fixed_send(file, b"old %d" % step)
                op.add_done_callback(lambda _: None)
                packed.append(op)
            waiting = lowlevel.fixed_send(file, b"stale")
            file.close()
            following, other = pair()
            assert following.slot == slot
            with pytest.raises(ClosedError):
                await waiting
            while not all(op.done() for op in packed):
                await ring.checkpoint()
            other.setblocking(False)
            with pytest.raises(BlockingIOError):
                other.recv(100)
            assert await lowlevel.fixed_send(following, b"new") == 3
            assert other.recv(100) == b"new"
            following.close()
            peer.close()
            other.close()
        assert driver.statistics().stray == 0

    ring.run(main)


def test_installing(ring: Scheduler) -> None:
    """An ordinary descriptor of the same file, closed on exec, with an owner of its own."""

    async def main() -> None:
        file, peer = pair()
        with peer:
            if not installs():
                with pytest.raises(UnsupportedError, match=r"6\.8"):
                    lowlevel.install_fd(file)
                file.close()
                return
            owned = await lowlevel.install_fd(file)
            assert not os.get_inheritable(owned.number)
            file.close()
            os.write(owned.number, b"still open")
            assert peer.recv(100) == b"still open"
            again = lowlevel.register_fd(owned)
            assert owned.closed
            assert await lowlevel.fixed_send(again, b"moved back") == 10
            assert peer.recv(100) == b"moved back"
            again.close()
            assert peer.recv(1) == b""

    ring.run(main)


def test_a_cancelled_install_leaks_nothing(ring: Scheduler) -> None:
    """Whether or not it was made, the number is closed (by the leak check)."""

    async def main() -> None:
        file, peer = pair()
        with peer:
            try:
                lowlevel.install_fd(file).cancel()
            except UnsupportedError:
                pass
            for _ in range(3):
                await ring.checkpoint()
        file.close()

    ring.run(main)


def test_a_full_table_and_what_is_no_descriptor(ring: Scheduler) -> None:
    """Each is refused, nothing is lost, and closed slots are given again."""

    async def main() -> None:
        read_end, write_end = os.pipe()
        with pytest.raises(OpError) as caught:
            lowlevel.register_fd(1_000_000)
        assert caught.value.errno == errno.EBADF
        taken = []
        with pytest.raises(UsageError, match="room for 256"):
            while True:
                taken.append(lowlevel.register_fd(write_end))
        assert len({file.slot for file in taken}) == 256
        taken.pop(100).close()
        taken.append(lowlevel.register_fd(write_end))
        for file in taken:
            file.close()
        os.close(read_end)
        os.close(write_end)

    ring.run(main)


def test_a_forgotten_one_warns_and_is_taken_out(ring: Scheduler) -> None:
    """Not at once, for that may be in any thread, but with the next one."""

    async def main() -> None:
        file, peer = pair()
        with peer:
            with pytest.warns(ResourceWarning, match="direct descriptor in slot"):
                del file
                gc.collect()
            following, other = pair()
            assert peer.recv(1) == b""
            following.close()
            other.close()

    ring.run(main)


def test_it_belongs_to_its_loop(ring: Scheduler) -> None:
    """Another thread cannot close it, and it is closed when its loop has ended."""
    kept = []

    async def main() -> None:
        file, peer = pair()
        kept.append(file)
        caught: list[BaseException] = []

        def close() -> None:
            try:
                file.close()
            except BaseException as error:
                caught.append(error)

        thread = threading.Thread(target=close)
        thread.start()
        thread.join()
        assert [type(error) for error in caught] == [WrongThreadError]
        assert not file.closed
        peer.close()

    ring.run(main)
    assert kept[0].closed
    kept[0].close()


def test_offsets_and_flags_that_no_request_has_room_for(ring: Scheduler, tmp_path: Path) -> None:
    """They are refused: cut to size, a write would land at the start of the file."""

    async def main() -> None:
        (tmp_path / "file").write_bytes(b"01234567")
        fd = os.open(tmp_path / "file", os.O_RDWR)
        file = lowlevel.register_fd(OwnedFd(fd, os_close, "file"))
        for offset in (-1, -5, 1 << 63, 1 << 64):
            with pytest.raises(ValueError, match="an offset is from 0"):
                lowlevel.fixed_write(file, b"wrong", offset)
            with pytest.raises(ValueError, match="an offset is from 0"):
                lowlevel.fixed_read_into(file, bytearray(4), offset)
        for flags in (-1, 1 << 32):
            with pytest.raises(ValueError, match="flags are 32 bits"):
                lowlevel.fixed_send(file, b"wrong", flags)
        file.close()
        assert (tmp_path / "file").read_bytes() == b"01234567"

    ring.run(main)


def test_owners_have_no_copies(ring: Scheduler) -> None:
    """A second owner would empty the slot, or close the number, that is another's by then."""

    async def main() -> None:
        file, theirs = pair()
        fd = OwnedFd(os.dup(theirs.fileno()), os_close, "socket")
        for owner in (file, fd, Buffer(1)):
            for make in (copy.copy, copy.deepcopy, pickle.dumps):
                with pytest.raises(TypeError, match="has one owner"):
                    make(owner)
        fd.close()
        file.close()
        theirs.close()

    ring.run(main)


def os_close(fd: int) -> int:
    """Close *fd* as a system does."""
    os.close(fd)
    return 0


def test_memory_larger_than_one_request_takes(ring: Scheduler, tmp_path: Path) -> None:
    """A size whose lower 32 bits are zero is not taken for no bytes at all."""

    async def main() -> None:
        (tmp_path / "file").write_bytes(b"01234567")
        try:
            memory = mmap.mmap(-1, 1 << 32)  # of which pages that are touched cost memory
        except OSError:
            pytest.skip("so much address space is not to be had")
        fd = os.open(tmp_path / "file", os.O_RDONLY)
        file = lowlevel.register_fd(OwnedFd(fd, os_close, "file"))
        assert await lowlevel.fixed_read_into(file, memoryview(memory), 0) == 8
        assert memory[:8] == b"01234567"
        file.close()

    ring.run(main)
