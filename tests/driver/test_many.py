"""READ_MANY: many reads as one op, on every driver, whatever comes in between."""

import errno
import mmap
import os
import random
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.driver.conftest import RigMaker
from tests.driver.rig import Rig, StandInCancelled
from tests.driver.test_moments import StruckError, raise_struck, striking
from uringio._driver import op as o
from uringio._driver.many import READS_MAX, ReadMany
from uringio._driver.op import NEW, Op
from uringio.errors import ClosedError, OpError, UsageError

BLOCK = 4096
BLOCKS = 64
CONTENT = b"".join(number.to_bytes(8, "little") * (BLOCK // 8) for number in range(BLOCKS))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Make a file of blocks that begin with their number."""
    path = tmp_path / "blocks"
    path.write_bytes(CONTENT)
    return path


@pytest.fixture
def file_fd(path: Path) -> Iterator[int]:
    fd = os.open(path, os.O_RDONLY)
    yield fd
    os.close(fd)


@pytest.fixture
def direct_fd(path: Path) -> Iterator[int]:
    """Open it past the page cache: its reads are in flight for a while."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECT)
    except OSError as refusal:
        pytest.skip(f"no O_DIRECT here: {refusal}")
    yield fd
    os.close(fd)


def many(
    fd: int, offsets: list[int], size: int = BLOCK, *, cached: bool = True, flags: int = 0
) -> ReadMany[list[int]]:
    op: ReadMany[list[int]] = ReadMany(fd, array("Q", offsets), size, flags, cached=cached)
    op.memory = memoryview(mmap.mmap(-1, max(size, 1) * len(offsets)))
    return op


def some_offsets(count: int) -> list[int]:
    return [random.randrange(BLOCKS) * BLOCK for _ in range(count)]


def expected(offsets: list[int]) -> bytes:
    return b"".join(CONTENT[offset : offset + BLOCK] for offset in offsets)


@pytest.mark.parametrize("cached", [True, False])
@pytest.mark.parametrize("count", [1, 7, 300, READS_MAX])
def test_every_read_has_its_place(rig: Rig, file_fd: int, count: int, cached: bool) -> None:
    """However many there are, results are in order and each piece of memory is right."""
    offsets = some_offsets(count)
    op = many(file_fd, offsets, cached=cached)
    memory = op.memory
    assert rig.do(op) == [BLOCK] * count
    assert memory == expected(offsets)


def test_batches_larger_than_the_queue(make_rig: RigMaker, direct_fd: int, file_fd: int) -> None:
    """A batch goes on where the queue was full, also round its end, and beside another batch."""
    rig = make_rig("uring", entries=8)
    for fd in (file_fd, direct_fd):
        for count in (5, 8, 11, 60):
            ops = [many(fd, some_offsets(count)) for _ in range(2)]
            read = [(op.memory, expected(list(op.offsets))) for op in ops]
            for op in ops:
                rig.submit(op)
            for op in ops:
                assert rig.finish(op) == [BLOCK] * count
            assert all(memory == wanted for memory, wanted in read)
    statistics = rig.driver.statistics()
    assert (statistics.in_flight, statistics.stray) == (0, 0)


def test_what_is_missing_is_counted(rig: Rig, file_fd: int) -> None:
    """Reads over the end are short, and behind it empty; the others are not touched by that."""
    size = len(CONTENT)
    op = many(file_fd, [0, size - 10, size, 1 << 40, BLOCK])
    memory = op.memory
    assert rig.do(op) == [BLOCK, 10, 0, 0, BLOCK]
    assert memory is not None
    assert memory[BLOCK : BLOCK + 10] == CONTENT[-10:]
    assert memory[4 * BLOCK :] == CONTENT[BLOCK : 2 * BLOCK]


def test_reads_of_nothing(rig: Rig, file_fd: int) -> None:
    """Reads of no bytes are as good as others."""
    assert rig.do(many(file_fd, [0, BLOCK], size=0)) == [0, 0]


def test_first_failure_is_told(rig: Rig, file_fd: int) -> None:
    """The error is of the class of its errno, and says which read it was and where."""
    op = many(file_fd, [0, BLOCK, (1 << 63) - 1, (1 << 63) - 1])
    with pytest.raises(OpError) as caught:
        rig.do(op)
    assert caught.value.errno in {errno.EINVAL, errno.EOVERFLOW}
    assert (caught.value.op, caught.value.fd) == ("read", file_fd)
    assert f"read 3 of 4, at offset {(1 << 63) - 1}" in str(caught.value)
    assert (op.memory, op.hold) == (None, None)


def test_files_that_cannot_be_read(rig: Rig, tmp_path: Path) -> None:
    """A file that is open for writing alone refuses all of them with EBADF."""
    fd = os.open(tmp_path / "new", os.O_WRONLY | os.O_CREAT)
    try:
        with pytest.raises(OpError) as caught:
            rig.do(many(fd, [0, 0]))
        assert caught.value.errno == errno.EBADF
    finally:
        os.close(fd)


def test_memory_that_will_not_do(rig: Rig, file_fd: int) -> None:
    """Memory that cannot be written, or was cut since, is refused before anything is submitted."""
    op = many(file_fd, [0, 0])
    op.memory = bytes(2 * BLOCK)
    with pytest.raises(TypeError):
        rig.driver.submit(op)
    assert op.state == NEW
    rig.driver.abandon(op)
    op = many(file_fd, [0, 0])
    op.memory = bytearray(2 * BLOCK - 1)
    with pytest.raises(UsageError, match="was cut"):
        rig.driver.submit(op)
    assert op.state == NEW
    rig.driver.abandon(op)
    assert rig.do(many(file_fd, [0])) == [BLOCK]


@pytest.mark.parametrize("moment", range(3))
def test_cancelled_batch(rig: Rig, direct_fd: int, moment: int) -> None:
    """Cancelled at once, after a turn or when it has ended: the awaiter hears that alone."""
    op = rig.submit(many(direct_fd, some_offsets(100), cached=False))
    others = rig.submit(many(direct_fd, some_offsets(10), cached=False))
    if moment == 1:
        rig.turn()
    elif moment == 2:
        rig.until(lambda: rig.is_delivered(op))
    assert rig.driver.cancel(op)
    rig.driver.cancel(op)
    with pytest.raises(StandInCancelled):
        rig.finish(op)
    assert (op.memory, op.hold) == (None, None)
    assert rig.finish(others) == [BLOCK] * 10
    # What the kernel was asked to drop answers in later turns.
    assert rig.do(many(direct_fd, some_offsets(10), cached=False)) == [BLOCK] * 10


def test_driver_that_closes_waits_for_it(make_rig: RigMaker, direct_fd: int) -> None:
    """Closing ends a batch in flight, without a warning of leaked memory; then none is taken."""
    for kind in ("uring", "epoll"):
        rig = make_rig(kind)
        rig.submit(many(direct_fd, some_offsets(100), cached=False))
        rig.close()
        late = many(direct_fd, [0], cached=False)
        with pytest.raises(ClosedError):
            rig.driver.submit(late)
        rig.driver.abandon(late)


@pytest.mark.parametrize("direct", [False, True])
def test_exception_at_any_moment(
    make_rig: RigMaker, file_fd: int, direct_fd: int, direct: bool
) -> None:
    """A handler that raises while a batch is laid or taken: it ends all the same, and right."""
    index, struck = 0, True
    rig = make_rig("uring", entries=8)
    while struck:
        offsets = some_offsets(11)
        op = many(direct_fd if direct else file_fd, offsets)
        memory = op.memory
        nop: Op[Any] = rig.submit(Op(o.NOP))
        try:
            with striking(index, raise_struck) as moments:
                rig.driver.submit(op)
                rig.turn()
                rig.turn()
        except StruckError:
            pass
        struck = moments.struck
        if op.state == NEW:
            assert rig.in_flight() <= 1
            rig.submit(op)
        assert rig.finish(op) == [BLOCK] * 11, index
        assert memory == expected(offsets), index
        rig.wait(nop)
        index += 1
    assert index > 20
    statistics = rig.driver.statistics()
    assert statistics.in_flight == 0
    assert statistics.stray == 0


@pytest.mark.parametrize("direct", [False, True])
def test_batches_within_batches(
    make_rig: RigMaker, file_fd: int, direct_fd: int, direct: bool
) -> None:
    """
    A handler that reads into the same memory and takes completions, at any moment.

    Both batches end right: what is laid last is what is in the memory at the end.
    """
    index, struck = 0, True
    rig = make_rig("uring", entries=16)
    fd = direct_fd if direct else file_fd
    while struck:
        offsets, others = some_offsets(5), some_offsets(5)
        outer, inner = many(fd, offsets), many(fd, others)
        memory = inner.memory = outer.memory
        was_laid: list[bool] = []
        nop: Op[Any] = Op(o.NOP)

        def strike(
            rig: Rig = rig,
            inner: Any = inner,
            outer: Any = outer,
            nop: Any = nop,
            at: Any = was_laid,
        ) -> None:
            at.append(len(outer.todo) < len(outer.offsets))  # any of it
            rig.submit(inner)
            rig.submit(nop)
            rig.driver.flush()

        with striking(index, strike) as moments:
            rig.driver.submit(outer)
        struck = moments.struck
        if not struck:
            rig.driver.submit(inner)
            rig.submit(nop)
        assert rig.finish(outer) == [BLOCK] * 5, index
        assert rig.finish(inner) == [BLOCK] * 5, index
        rig.wait(nop)
        if was_laid == [False] and not direct:  # past the page cache they end in any order
            assert memory == expected(offsets), index
        index += 1
    assert index > 10
    statistics = rig.driver.statistics()
    assert (statistics.in_flight, statistics.stray) == (0, 0)
