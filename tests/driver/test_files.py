"""Files: OPEN, READ, WRITE, FSYNC on every driver, and threads that are slow about it."""

import errno
import os
import random
import stat
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.driver.conftest import RigMaker
from tests.driver.rig import PATIENCE_S, Orphans, Rig, StandInCancelled, is_open
from uringio._driver import op as o
from uringio._driver import workers as workers_module
from uringio._driver.file_calls import FileCalls
from uringio._driver.op import CANCELLING, DONE, SUBMITTED, Offload, Op
from uringio._driver.workers import Workers
from uringio._sys.system import System
from uringio.errors import OpError

AT_FDCWD = -100
CURRENT_POSITION = (1 << 64) - 1
RWF_APPEND = 0x10
FSYNC_DATASYNC = 1
WORKER_COUNT_MAX = 8

CONTENT = bytes(range(251)) * 1000


def open_op(path: Path, flags: int = os.O_RDONLY, mode: int = 0, **more: object) -> Op[int]:
    return Op(o.OPEN, AT_FDCWD, flags=flags, len_=mode, memory=os.fsencode(path) + b"\0", **more)


@pytest.fixture
def file_fd(tmp_path: Path) -> Iterator[int]:
    """Open a file of known content for reading and writing."""
    path = tmp_path / "file"
    path.write_bytes(CONTENT)
    fd = os.open(path, os.O_RDWR)
    yield fd
    if is_open(fd):
        os.close(fd)


# --- on every driver -----------------------------------------------------------------------------


def test_open_creates_with_flags_and_mode(rig: Rig, tmp_path: Path) -> None:
    """OPEN takes openat's flags and mode, and its descriptor works."""
    path = tmp_path / "new"
    fd = rig.do(open_op(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))
    assert rig.do(Op(o.WRITE, fd, len_=2, memory=b"hi")) == 2
    assert rig.do(Op(o.CLOSE, fd)) is None
    assert path.read_bytes() == b"hi"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with pytest.raises(FileExistsError):
        rig.do(open_op(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))


def test_open_is_relative_to_a_folder(rig: Rig, tmp_path: Path) -> None:
    """OPEN looks relative paths up in the folder that its descriptor names."""
    (tmp_path / "here").write_bytes(b"found")
    folder = rig.do(open_op(tmp_path, os.O_PATH | os.O_DIRECTORY))
    fd = rig.do(Op(o.OPEN, folder, flags=os.O_RDONLY, memory=b"here\0"))
    assert os.pread(fd, 10, 0) == b"found"
    with pytest.raises(FileNotFoundError) as caught:
        rig.do(Op(o.OPEN, folder, flags=os.O_RDONLY, memory=bytearray(b"absent\0")))
    assert isinstance(caught.value, OpError)
    assert caught.value.op == "open"
    for one in (fd, folder):
        rig.do(Op(o.CLOSE, one))


@pytest.mark.parametrize(
    ("name", "flags", "expected"),
    [
        ("absent", os.O_RDONLY, FileNotFoundError),
        (".", os.O_WRONLY, IsADirectoryError),
        ("file/below", os.O_RDONLY, NotADirectoryError),
        ("x" * 300, os.O_RDONLY, OpError),
    ],
)
def test_open_fails_as_openat_does(
    rig: Rig, tmp_path: Path, name: str, flags: int, expected: type[OSError]
) -> None:
    """What openat refuses is the builtin class of its errno."""
    (tmp_path / "file").touch()
    with pytest.raises(expected):
        rig.do(open_op(tmp_path / name, flags))


def test_read_reads_at_offsets(rig: Rig, file_fd: int) -> None:
    """READ fills memory from an offset, and less near the end, and nothing behind it."""
    target = bytearray(b"." * 8)
    assert rig.do(Op(o.READ, file_fd, len_=4, off=100, memory=memoryview(target)[2:6])) == 4
    assert target == b".." + CONTENT[100:104] + b".."
    end = len(CONTENT)
    assert rig.do(Op(o.READ, file_fd, len_=8, off=end - 3, memory=target)) == 3
    assert target[:3] == CONTENT[-3:]
    assert rig.do(Op(o.READ, file_fd, len_=8, off=end, memory=target)) == 0
    assert rig.do(Op(o.READ, file_fd, len_=8, off=end + 1000, memory=target)) == 0


def test_read_from_the_current_position(rig: Rig, file_fd: int) -> None:
    """With the offset that means "none" the file's own position is used and moved."""
    target = bytearray(10)
    os.lseek(file_fd, 5, os.SEEK_SET)
    assert rig.do(Op(o.READ, file_fd, len_=10, off=CURRENT_POSITION, memory=target)) == 10
    assert target == CONTENT[5:15]
    assert rig.do(Op(o.WRITE, file_fd, len_=3, off=CURRENT_POSITION, memory=b"abc")) == 3
    assert os.pread(file_fd, 3, 15) == b"abc"


@pytest.mark.parametrize("memory", [b"immutable", memoryview(b"immutable")])
def test_read_refuses_immutable_memory(rig: Rig, file_fd: int, memory: bytes | memoryview) -> None:
    """READ into bytes is a TypeError before anything is in flight."""
    op: Op[int] = Op(o.READ, file_fd, len_=9, memory=memory)
    with pytest.raises(TypeError):
        rig.submit(op)
    assert rig.in_flight() == 0
    rig.driver.abandon(op)
    assert memory == b"immutable"


@pytest.mark.parametrize("make", [bytes, bytearray, memoryview])
def test_write_writes_at_offsets(rig: Rig, file_fd: int, make: type) -> None:
    """WRITE puts bytes at an offset, also far behind the end, and counts them."""
    assert rig.do(Op(o.WRITE, file_fd, len_=5, off=7, memory=make(b"hello"))) == 5
    assert os.pread(file_fd, 5, 7) == b"hello"
    assert rig.do(Op(o.WRITE, file_fd, len_=5, off=300_000, memory=make(b"hello"))) == 5
    assert os.fstat(file_fd).st_size == 300_005


def test_write_takes_flags(rig: Rig, file_fd: int) -> None:
    """RWF_APPEND appends, whatever the offset says."""
    append: Op[int] = Op(o.WRITE, file_fd, len_=3, flags=RWF_APPEND, memory=b"end")
    assert rig.do(append) == 3
    assert os.pread(file_fd, 10, len(CONTENT)) == b"end"
    assert os.pread(file_fd, 3, 0) == CONTENT[:3]


@pytest.mark.parametrize("flags", [0, FSYNC_DATASYNC])
def test_fsync_syncs(rig: Rig, file_fd: int, flags: int) -> None:
    """FSYNC of a file is None; of what cannot be synced it is the kernel's errno."""
    assert rig.do(Op(o.FSYNC, file_fd, flags=flags)) is None
    read_end, write_end = os.pipe()
    with pytest.raises(OpError) as caught:
        rig.do(Op(o.FSYNC, read_end, flags=flags))
    assert caught.value.errno == errno.EINVAL
    os.close(read_end)
    os.close(write_end)


@pytest.mark.parametrize("operation", [o.READ, o.WRITE, o.FSYNC])
def test_files_that_are_not_open(rig: Rig, operation: int) -> None:
    """A number that is no descriptor is EBADF."""
    op: Op[object] = Op(operation, 1_000_000)
    if operation != o.FSYNC:
        op.memory, op.len = bytearray(4), 4
    with pytest.raises(OpError) as caught:
        rig.do(op)
    assert caught.value.errno == errno.EBADF


def test_files_opened_otherwise_than_asked(rig: Rig, tmp_path: Path) -> None:
    """Reading what was opened for writing is EBADF; reading a folder is EISDIR."""
    fd = os.open(tmp_path / "w", os.O_WRONLY | os.O_CREAT)
    with pytest.raises(OpError) as caught:
        rig.do(Op(o.READ, fd, len_=4, memory=bytearray(4)))
    assert caught.value.errno == errno.EBADF
    os.close(fd)
    fd = os.open(tmp_path, os.O_RDONLY)
    with pytest.raises(IsADirectoryError):
        rig.do(Op(o.READ, fd, len_=4, memory=bytearray(4)))
    os.close(fd)


def test_many_reads_at_once_do_not_mix(rig: Rig, file_fd: int) -> None:
    """Hundreds of reads in flight each get the bytes of their own offset."""
    offsets = [random.randrange(len(CONTENT) - 64) for _ in range(400)]
    targets = [bytearray(64) for _ in offsets]
    ops = [
        rig.submit(Op(o.READ, file_fd, len_=64, off=offset, memory=target))
        for offset, target in zip(offsets, targets, strict=True)
    ]
    rig.wait(*ops)
    assert [op.value for op in ops] == [64] * 400
    for offset, target in zip(offsets, targets, strict=True):
        assert target == CONTENT[offset : offset + 64]


@pytest.mark.parametrize("owned", [False, True])
def test_a_descriptor_that_was_opened_too_late(rig: Rig, tmp_path: Path, owned: bool) -> None:
    """Cancelled with the descriptor there already: it goes to the owner, else it is closed."""
    orphans = Orphans([])
    (tmp_path / "file").touch()
    op = rig.submit(open_op(tmp_path / "file", owner=orphans if owned else None))
    rig.until(lambda: rig.delivered)
    fd = op.value
    assert isinstance(fd, int)
    assert rig.driver.cancel(op)
    with pytest.raises(StandInCancelled):
        rig.finish(op)
    assert is_open(fd) == owned
    assert orphans.given == ([fd] if owned else [])
    if owned:
        os.close(fd)


# --- where threads do it -------------------------------------------------------------------------


@pytest.fixture
def epoll(make_rig: RigMaker) -> Rig:
    """The driver that gives files to threads."""
    return make_rig("epoll")


class Blockade:
    """FIFOs whose opening keeps every worker busy until `end`."""

    def __init__(self, rig: Rig, tmp_path: Path) -> None:
        self._rig = rig
        self._path = tmp_path / "fifo"
        os.mkfifo(self._path)
        self.ops = [rig.submit(open_op(self._path)) for _ in range(WORKER_COUNT_MAX)]

    def end(self) -> None:
        """Let them all through, and close what they opened."""
        both = os.open(self._path, os.O_RDWR | os.O_NONBLOCK)
        for op in self.ops:
            try:
                fd = self._rig.finish(op)
            except StandInCancelled:
                continue
            self._rig.do(Op(o.CLOSE, fd))
        os.close(both)

    def wait_closed(self) -> None:
        """Turn until nobody has the FIFO open."""
        while True:
            try:
                fd = os.open(self._path, os.O_WRONLY | os.O_NONBLOCK)
            except OSError:  # ENXIO: nobody reads
                return
            os.close(fd)
            self._rig.turn()


@pytest.fixture
def blockade(epoll: Rig, tmp_path: Path) -> Blockade:
    return Blockade(epoll, tmp_path)


def test_the_loop_goes_on_while_files_are_slow(epoll: Rig, blockade: Blockade) -> None:
    """With every worker stuck, ops that need none come through."""
    assert epoll.do(Op(o.NOP)) == 0
    epoll.wait(epoll.timeout(1_000_000))
    assert all(op.state == SUBMITTED for op in blockade.ops)
    blockade.end()


def test_memory_of_a_slow_read_is_held(epoll: Rig, blockade: Blockade, file_fd: int) -> None:
    """Memory cannot move while its READ is in flight, cancelled or not, and can afterwards."""
    target = bytearray(10)
    op = epoll.submit(Op(o.READ, file_fd, len_=10, memory=target))
    epoll.turn()
    with pytest.raises(BufferError):
        target.clear()
    epoll.driver.cancel(op)
    assert op.state == CANCELLING
    with pytest.raises(BufferError):
        target.clear()
    blockade.end()
    with pytest.raises(StandInCancelled):
        epoll.finish(op)
    target.clear()


def test_a_cancelled_call_that_has_not_begun_is_not_made(
    epoll: Rig, blockade: Blockade, file_fd: int
) -> None:
    """A WRITE that was cancelled while it waited for a thread has written nothing."""
    op = epoll.submit(Op(o.WRITE, file_fd, len_=5, memory=b"never"))
    epoll.driver.cancel(op)
    blockade.end()
    with pytest.raises(StandInCancelled):
        epoll.finish(op)
    assert os.pread(file_fd, 5, 0) == CONTENT[:5]


def test_a_failure_that_comes_too_late_is_the_owners(make_rig: RigMaker) -> None:
    """What the kernel refused after the cancellation is told to the owner, who may know better."""
    entered, released = threading.Event(), threading.Event()

    class Slow(System):
        def fsync(self, fd: int, data_only: bool) -> int:
            entered.set()
            released.wait(PATIENCE_S)
            return super().fsync(fd, data_only)

    orphans = Orphans([])
    rig = make_rig("epoll", system=Slow())
    op = rig.submit(Op(o.FSYNC, 1_000_000, owner=orphans))
    assert entered.wait(PATIENCE_S)
    rig.driver.cancel(op)
    released.set()
    with pytest.raises(StandInCancelled):
        rig.finish(op)
    assert [error.errno for error in orphans.given] == [errno.EBADF]


def test_a_call_that_raises_in_its_thread_ends(
    make_rig: RigMaker, capfd: pytest.CaptureFixture[str]
) -> None:
    """What nobody foresaw fails the op, and is told; nobody waits for ever."""

    class Broken(System):
        def fsync(self, fd: int, data_only: bool) -> int:
            raise LookupError("not foreseen")

    rig = make_rig("epoll", system=Broken())
    with pytest.raises(OSError, match="fsync") as caught:
        rig.do(Op(o.FSYNC, 1_000_000))
    assert caught.value.errno == errno.EIO
    assert "not foreseen" in capfd.readouterr().err


def test_a_cancelled_open_that_succeeds_late_is_closed(epoll: Rig, blockade: Blockade) -> None:
    """Cancelling waits for no thread that opens; what comes late is closed."""
    for op in blockade.ops:
        assert epoll.driver.cancel(op)
        with pytest.raises(StandInCancelled):
            epoll.finish(op)
    blockade.ops.clear()
    assert epoll.in_flight() == 0
    blockade.end()
    blockade.wait_closed()


def test_a_left_open_keeps_its_folder_open(epoll: Rig, blockade: Blockade, tmp_path: Path) -> None:
    """The thread of a cancelled open may not have looked its folder up yet: CLOSE waits for it."""
    folder_fd = os.open(tmp_path, os.O_RDONLY)
    op = epoll.submit(Op(o.OPEN, folder_fd, flags=os.O_WRONLY | os.O_CREAT, memory=b"new\0"))
    epoll.driver.cancel(op)
    with pytest.raises(StandInCancelled):
        epoll.finish(op)
    close = epoll.submit(Op(o.CLOSE, folder_fd))
    epoll.turn()
    assert is_open(folder_fd)
    blockade.end()
    assert epoll.finish(close) is None
    assert not is_open(folder_fd)
    assert not (tmp_path / "new").exists()  # the thread had not begun


def test_a_descriptor_is_not_closed_under_a_thread(
    epoll: Rig, blockade: Blockade, file_fd: int
) -> None:
    """CLOSE waits for the calls in flight on its descriptor, and is then made, cancelled or not."""
    target = bytearray(4)
    read = epoll.submit(Op(o.READ, file_fd, len_=4, memory=target))
    close = epoll.submit(Op(o.CLOSE, file_fd))
    epoll.turn()
    assert close.state == SUBMITTED
    assert is_open(file_fd)
    epoll.driver.cancel(close)
    assert is_open(file_fd)
    assert epoll.in_flight() == WORKER_COUNT_MAX + 2
    blockade.end()
    assert epoll.finish(read) == 4
    assert target == CONTENT[:4]
    with pytest.raises(StandInCancelled):
        epoll.finish(close)
    assert not is_open(file_fd)


def test_other_descriptors_are_closed_meanwhile(epoll: Rig, blockade: Blockade) -> None:
    """Only the descriptor in use is kept open."""
    read_end, write_end = os.pipe()
    for fd in (read_end, write_end):
        assert epoll.do(Op(o.CLOSE, fd)) is None
    assert not is_open(read_end)
    blockade.end()


def test_an_opened_number_starts_anew(epoll: Rig, tmp_path: Path) -> None:
    """A number that was a registered pipe's, closed behind the driver's back, is a file now."""
    (tmp_path / "file").write_bytes(CONTENT)
    read_end, write_end = os.pipe()
    epoll.driver.register(read_end)
    os.close(read_end)
    fd = epoll.do(open_op(tmp_path / "file"))
    assert fd == read_end
    target = bytearray(4)
    assert epoll.do(Op(o.READ, fd, len_=4, off=100, memory=target)) == 4
    assert target == CONTENT[100:104]
    epoll.do(Op(o.CLOSE, fd))
    os.close(write_end)


def test_workers_run_every_call_with_few_threads() -> None:
    """Calls are run once each, by at most as many threads as allowed, which end when idle."""
    started_count = 0
    lock, done = threading.Lock(), threading.Event()
    remaining = set(range(200))

    class Counting(System):
        def start_thread(self, function: Callable[[], None]) -> None:
            nonlocal started_count
            started_count += 1
            super().start_thread(function)

    workers = Workers(Counting(), 3)

    def call(n: int) -> None:
        with lock:
            remaining.remove(n)
            if not remaining:
                done.set()

    for n in range(200):
        workers.start(lambda n=n: call(n))  # type: ignore[misc]
    assert done.wait(50)
    assert 1 <= started_count <= 3


def test_a_worker_that_is_idle_for_long_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """After its patience a worker returns, and a later call gets a new one."""
    monkeypatch.setattr(workers_module, "_IDLE_SECONDS_MAX", 0.001)
    ended = threading.Semaphore(0)

    class Watching(System):
        def start_thread(self, function: Callable[[], None]) -> None:
            def watched() -> None:
                function()
                ended.release()

            super().start_thread(watched)

    workers = Workers(Watching())
    for _ in range(2):
        called = threading.Event()
        workers.start(called.set)
        assert called.wait(50)
        assert ended.acquire(timeout=50)


@pytest.mark.parametrize("kind", ["uring", "epoll"])
@pytest.mark.parametrize("how", ["close", "leave"])
def test_workers_end_with_their_driver(
    make_rig: RigMaker, kind: str, how: str, file_fd: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Idle ones at once, and one that is at work when its call has ended."""
    monkeypatch.setattr(workers_module, "_IDLE_SECONDS_MAX", 3600.0)
    started_count = 0
    ended, begun, released = threading.Semaphore(0), threading.Event(), threading.Event()

    class Watching(System):
        def start_thread(self, function: Callable[[], None]) -> None:
            nonlocal started_count
            started_count += 1

            def watched() -> None:
                function()
                ended.release()

            super().start_thread(watched)

    def call() -> bool:
        begun.set()
        return released.wait(PATIENCE_S)

    rig = make_rig(kind, system=Watching())
    rig.do(Op(o.FSYNC, file_fd))
    rig.submit(Offload(call))
    rig.do(Offload(int))
    assert begun.wait(PATIENCE_S)
    assert started_count == (2 if rig.is_uring else 3)
    getattr(rig.driver, how)()
    for _ in range(started_count - 1):
        assert ended.acquire(timeout=PATIENCE_S)
    released.set()
    assert ended.acquire(timeout=PATIENCE_S)


def test_the_wake_of_a_worker_ends_the_wait(epoll: Rig, file_fd: int) -> None:
    """A turn without a deadline returns when the thread is done."""
    for _ in range(50):
        op = epoll.submit(Op(o.FSYNC, file_fd))
        while op.state != DONE:
            epoll.driver.turn(None)
        epoll.wait(op)


# --- no thread to be had -------------------------------------------------------------------------


class Threadless(System):
    """Starts a thread only where the test allows one, as under a container's pids limit."""

    allowed = False

    def start_thread(self, function: Callable[[], None]) -> None:
        if not self.allowed:
            raise RuntimeError("can't start new thread")
        super().start_thread(function)


@pytest.mark.parametrize("kind", ["epoll", "kqueue", "poll"])
def test_without_a_thread_file_operations_fail_and_leave_nothing(
    make_rig: RigMaker, file_fd: int, kind: str
) -> None:
    """However often they fail: no later thread writes to their memory, and CLOSE waits for none."""
    system = Threadless()
    rig = make_rig(kind, system=system)
    memory = bytearray(8)
    for _ in range(WORKER_COUNT_MAX + 1):
        with pytest.raises(BlockingIOError):
            rig.do(Op(o.READ, file_fd, off=0, len_=8, memory=memory))
    system.allowed = True
    assert rig.do(Op(o.READ, file_fd, off=8, len_=4, memory=bytearray(4))) == 4
    assert memory == bytes(8)
    rig.do(Op(o.CLOSE, file_fd))
    assert not is_open(file_fd)


def test_without_a_thread_an_offloaded_call_fails(make_rig: RigMaker) -> None:
    """And is not made later, when there are threads again."""
    system = Threadless()
    rig = make_rig("epoll", system=system)
    made: list[int] = []
    for _ in range(WORKER_COUNT_MAX + 1):
        with pytest.raises(BlockingIOError, match="no thread"):
            rig.do(Offload(lambda: made.append(0)))
    system.allowed = True
    rig.do(Offload(lambda: made.append(1)))
    assert made == [1]


def test_without_a_thread_a_call_on_a_duplicate_leaves_no_descriptor(file_fd: int) -> None:
    """What was duplicated for the thread is closed again."""
    duplicates: list[int] = []

    class Noting(Threadless):
        def duplicate(self, fd: int) -> int:
            duplicates.append(super().duplicate(fd))
            return duplicates[-1]

    calls = FileCalls(Noting(), lambda: None)
    op: Op[object] = Op(o.FSYNC, file_fd)
    op.use = 1
    calls.start_on_duplicate(op)
    op.state = DONE
    assert list(calls.finished) == [(1, -errno.EAGAIN)]
    assert [is_open(fd) for fd in duplicates] == [False]


def test_a_call_that_gets_no_thread_waits_for_a_worker_that_there_is() -> None:
    """Only where there is none at all is it refused."""
    system = Threadless()
    system.allowed = True
    workers = Workers(system)
    entered, left, called = threading.Event(), threading.Event(), threading.Event()

    def first() -> None:
        entered.set()
        left.wait(PATIENCE_S)

    workers.start(first)
    assert entered.wait(PATIENCE_S)
    system.allowed = False
    workers.start(called.set)
    left.set()
    assert called.wait(PATIENCE_S)
    workers.dismiss()
