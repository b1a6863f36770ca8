"""Requests on files, each seen to have its effect."""

import errno
import mmap
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.lowlevel.rig import done, effect, result, results
from uringio.lowlevel import (
    FILE_INDEX_ALLOC,
    CqeFlags,
    Features,
    FsyncFlags,
    Opcode,
    RegisterOp,
    Ring,
    SqeFlags,
    Vectors,
    allocate,
    prep_close,
    prep_fadvise,
    prep_fadvise64,
    prep_fallocate,
    prep_fsync,
    prep_ftruncate,
    prep_madvise,
    prep_madvise64,
    prep_pipe,
    prep_pipe_direct,
    prep_read,
    prep_read_fixed,
    prep_read_multishot,
    prep_readv,
    prep_readv2,
    prep_readv_fixed,
    prep_splice,
    prep_sync_file_range,
    prep_tee,
    prep_write,
    prep_write_fixed,
    prep_writev,
    prep_writev2,
    prep_writev_fixed,
)


@pytest.fixture
def fd(file: Path) -> Iterator[int]:
    """The known file, open for reading and writing."""
    number = os.open(file, os.O_RDWR)
    yield number
    os.close(number)


@effect(Opcode.READ)
@effect(Features.RW_CUR_POS)
def test_read(ring: Ring, fd: int) -> None:
    """Bytes arrive at the address; -1 reads where the file stands, and moves it."""
    room = bytearray(4)
    prep_read(ring, fd, room, 3)
    assert (result(ring), room) == (4, b"3456")
    prep_read(ring, fd, room)
    assert (result(ring), room) == (4, b"0123")
    assert os.lseek(fd, 0, os.SEEK_CUR) == 4
    prep_read(ring, fd, room, 8)
    assert (result(ring), room[:2]) == (2, b"89")


@effect(Opcode.WRITE)
def test_write(ring: Ring, fd: int, file: Path) -> None:
    """Bytes of every kind of memory arrive in the file."""
    memory = allocate(2)
    memory.view[:] = b"cd"
    prep_write(ring, fd, b"ab", 0)
    prep_write(ring, fd, memory, 2)
    prep_write(ring, fd, bytearray(b"ef"), 4)
    prep_write(ring, fd, memory.addr, 6, len_bytes=1)
    assert [one.res for one in done(ring, 4)] == [2, 2, 2, 1]
    assert file.read_bytes() == b"abcdefc789"


@pytest.mark.parametrize("make", [prep_readv, prep_readv2])
@effect(Opcode.READV)
def test_readv(ring: Ring, fd: int, make: Callable[..., None]) -> None:
    """Pieces are filled in their order."""
    first, second = bytearray(3), bytearray(4)
    make(ring, fd, Vectors([first, second], writable=True), 1)
    assert (result(ring), first, second) == (7, b"123", b"4567")


@pytest.mark.parametrize("make", [prep_writev, prep_writev2])
@effect(Opcode.WRITEV)
def test_writev(ring: Ring, fd: int, file: Path, make: Callable[..., None]) -> None:
    """Pieces are written in their order."""
    make(ring, fd, Vectors([b"ab", bytearray(b"cde")], writable=False), 2)
    assert result(ring) == 5
    assert file.read_bytes() == b"01abcde789"


def test_flags_of_vectored_transfers_reach_the_kernel(ring: Ring, fd: int) -> None:
    """RWF_APPEND writes at the end whatever the offset."""
    prep_writev2(ring, fd, Vectors([b"end"], writable=False), 0, os.RWF_APPEND)
    assert result(ring) == 3
    assert os.pread(fd, 100, 0) == b"0123456789end"


@effect(Opcode.READ_FIXED, RegisterOp.BUFFERS, RegisterOp.UNREGISTER_BUFFERS)
def test_read_fixed(ring: Ring, fd: int) -> None:
    """Registered memory is read into by its number; without a registration it is EFAULT."""
    memory, other = allocate(4096), allocate(4096)
    ring.register_buffers([other, memory])
    prep_read_fixed(ring, fd, memory, 2, 1, len_bytes=5)
    assert (result(ring), bytes(memory.view[:6])) == (5, b"23456\0")
    prep_read_fixed(ring, fd, memory, 2, 0, len_bytes=5)
    assert result(ring) == -errno.EFAULT
    ring.unregister_buffers()
    prep_read_fixed(ring, fd, memory, 2, 1, len_bytes=5)
    assert result(ring) == -errno.EFAULT


@effect(Opcode.WRITE_FIXED)
def test_write_fixed(ring: Ring, fd: int, file: Path) -> None:
    """Registered memory is written."""
    memory = allocate(4096)
    memory.view[:4] = b"wxyz"
    ring.register_buffers([memory])
    prep_write_fixed(ring, fd, memory.addr + 1, 0, 0, len_bytes=3)
    assert result(ring) == 3
    assert file.read_bytes() == b"xyz3456789"


@effect(Opcode.READV_FIXED)
def test_readv_fixed(ring: Ring, fd: int) -> None:
    """Pieces of one registered buffer are filled in their order."""
    memory = allocate(4096)
    ring.register_buffers([memory])
    pieces = [memory.part(100, 4), memory.part(0, 2)]
    prep_readv_fixed(ring, fd, Vectors(pieces, writable=True), 0, 0, 0)
    assert result(ring) == 6
    assert (bytes(memory.view[100:104]), bytes(memory.view[:2])) == (b"0123", b"45")


@effect(Opcode.WRITEV_FIXED)
def test_writev_fixed(ring: Ring, fd: int, file: Path) -> None:
    """Pieces of one registered buffer are written in their order."""
    memory = allocate(4096)
    memory.view[:4] = b"abcd"
    ring.register_buffers([memory])
    pieces = [memory.part(2, 2), memory.part(0, 2)]
    prep_writev_fixed(ring, fd, Vectors(pieces, writable=False), 0, 0, 0)
    assert result(ring) == 4
    assert file.read_bytes() == b"cdab456789"


@effect(Opcode.READ_MULTISHOT, RegisterOp.PBUF_RING, RegisterOp.UNREGISTER_PBUF_RING)
@effect(CqeFlags.MORE)
def test_read_multishot(ring: Ring) -> None:
    """One request reads each time, into the next buffer; the pipe's end ends it."""
    buffers = ring.setup_buf_ring(7, 4, 64)
    reading, writing = os.pipe()
    prep_read_multishot(ring, reading, 0, 0, 7, user_data=1)
    for text in (b"one", b"three"):
        os.write(writing, text)
        [one] = done(ring)
        assert one.more
        assert one.buffer_id is not None
        assert buffers.view(one.buffer_id, one.res) == text
        buffers.put(one.buffer_id)
    os.close(writing)
    [end] = done(ring)
    assert (end.res, end.more, ring.in_flight) == (0, False, 0)
    buffers.free()
    prep_read_multishot(ring, reading, 0, 0, 7)
    assert result(ring) == -errno.ENOBUFS
    os.close(reading)


@pytest.mark.parametrize("flags", [0, FsyncFlags.DATASYNC])
@effect(Opcode.FSYNC)
def test_fsync(ring: Ring, fd: int, flags: int) -> None:
    """A file is synced; what cannot be is refused by the file itself."""
    prep_fsync(ring, fd, flags)
    assert result(ring) == 0
    reading, writing = os.pipe()
    prep_fsync(ring, reading, flags)
    assert result(ring) == -errno.EINVAL
    os.close(reading)
    os.close(writing)


@effect(Opcode.SYNC_FILE_RANGE)
def test_sync_file_range(ring: Ring, fd: int) -> None:
    """A range is written back; a pipe has none."""
    prep_sync_file_range(ring, fd, 10, 0, 2)  # SYNC_FILE_RANGE_WRITE
    assert result(ring) == 0
    reading, writing = os.pipe()
    prep_sync_file_range(ring, reading, 10, 0, 2)
    assert result(ring) == -errno.ESPIPE
    os.close(reading)
    os.close(writing)


def resident(fd: int, offset: int) -> bool:
    """Whether a byte of a file is in memory; skips where the filesystem does not tell."""
    try:
        return os.preadv(fd, [bytearray(1)], offset, os.RWF_NOWAIT) == 1
    except BlockingIOError:
        return False
    except OSError as error:
        pytest.skip(f"this filesystem does not tell what is in memory: {error}")


@effect(Opcode.FSYNC, Opcode.SYNC_FILE_RANGE, Opcode.FADVISE)
def test_content_that_reached_the_disk_may_leave_memory(ring: Ring, fd: int) -> None:
    """
    What was written back can be dropped at once, and what was not cannot.

    So each is seen by what is in memory then: synced whole, advised away, a range written back.
    """
    drop = os.POSIX_FADV_DONTNEED
    os.pwrite(fd, bytes(8192), 0)
    os.fsync(fd)
    os.posix_fadvise(fd, 0, 0, drop)
    if resident(fd, 0):
        pytest.skip("this filesystem keeps its content in memory")

    os.pwrite(fd, bytes(8192), 0)
    assert resident(fd, 0)
    prep_fsync(ring, fd)
    assert result(ring) == 0
    os.posix_fadvise(fd, 0, 0, drop)
    assert not resident(fd, 0)

    os.pwrite(fd, bytes(8192), 0)
    os.fsync(fd)
    assert resident(fd, 0)
    prep_fadvise(ring, fd, 0, 0, drop)
    assert result(ring) == 0
    assert not resident(fd, 0)

    os.pwrite(fd, bytes(8192), 0)
    prep_sync_file_range(ring, fd, 4096, 0, 1 | 2 | 4)  # wait, write, and wait for that
    assert result(ring) == 0
    os.posix_fadvise(fd, 0, 4096, drop)
    assert (resident(fd, 0), resident(fd, 4096)) == (False, True)


@effect(Opcode.FALLOCATE)
def test_fallocate(ring: Ring, fd: int, file: Path) -> None:
    """The file grows by the range."""
    prep_fallocate(ring, fd, 0, 4096, 8192)
    assert result(ring) == 0
    assert file.stat().st_size == 4096 + 8192


@effect(Opcode.FTRUNCATE)
def test_ftruncate(ring: Ring, fd: int, file: Path) -> None:
    """The file has the length asked for."""
    prep_ftruncate(ring, fd, 3)
    assert result(ring) == 0
    assert file.read_bytes() == b"012"


@pytest.mark.parametrize("make", [prep_fadvise, prep_fadvise64])
@effect(Opcode.FADVISE)
def test_fadvise(ring: Ring, fd: int, make: Callable[..., None]) -> None:
    """Advice is taken; one that does not exist, and a pipe, are refused."""
    make(ring, fd, 0, 10, os.POSIX_FADV_WILLNEED, user_data=1)
    make(ring, fd, 0, 10, 99, user_data=2)
    assert results(ring, 2) == {1: 0, 2: -errno.EINVAL}


@pytest.mark.parametrize("make", [prep_madvise, prep_madvise64])
@effect(Opcode.MADVISE)
def test_madvise(ring: Ring, make: Callable[..., None]) -> None:
    """MADV_DONTNEED takes the content of private memory away."""
    memory = allocate(8192)
    memory.view[0] = memory.view[4096] = 1
    make(ring, memory, mmap.MADV_DONTNEED, len_bytes=4096)
    assert result(ring) == 0
    assert (memory.view[0], memory.view[4096]) == (0, 1)


@effect(Opcode.SPLICE)
def test_splice(ring: Ring, fd: int) -> None:
    """Bytes move from the file into the pipe, from the offset asked for."""
    reading, writing = os.pipe()
    prep_splice(ring, fd, 4, writing, -1, 3)
    assert result(ring) == 3
    assert os.read(reading, 100) == b"456"
    os.close(reading)
    os.close(writing)


@effect(Opcode.TEE)
def test_tee(ring: Ring) -> None:
    """Bytes are in both pipes."""
    ends = [*os.pipe(), *os.pipe()]
    os.write(ends[1], b"both")
    prep_tee(ring, ends[0], ends[3], 100)
    assert result(ring) == 4
    assert os.read(ends[0], 100) == os.read(ends[2], 100) == b"both"
    for end in ends:
        os.close(end)


@effect(Opcode.PIPE)
def test_pipe(ring: Ring) -> None:
    """Two descriptors come that are one pipe, with the flags asked for."""
    ends = bytearray(8)
    prep_pipe(ring, ends, os.O_CLOEXEC)
    assert result(ring) == 0
    reading, writing = memoryview(ends).cast("i")
    os.write(writing, b"through")
    assert os.read(reading, 100) == b"through"
    assert not os.get_inheritable(reading)
    os.close(reading)
    os.close(writing)


def test_pipe_direct(ring: Ring) -> None:
    """The ends are registered files, where the kernel chose."""
    ring.register_files_sparse(4)
    ends = bytearray(8)
    prep_pipe_direct(ring, ends, 0, FILE_INDEX_ALLOC)
    assert result(ring) == 0
    reading, writing = memoryview(ends).cast("i")
    room = bytearray(4)
    prep_write(ring, writing, b"slot", flags=SqeFlags.FIXED_FILE | SqeFlags.IO_LINK)
    prep_read(ring, reading, room, flags=SqeFlags.FIXED_FILE)
    assert [one.res for one in done(ring, 2)] == [4, 4]
    assert room == b"slot"


@effect(Opcode.CLOSE)
def test_close(ring: Ring) -> None:
    """The descriptor is gone, and its peer sees the end."""
    reading, writing = os.pipe()
    prep_close(ring, writing)
    assert result(ring) == 0
    assert os.read(reading, 1) == b""
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(writing)
    os.close(reading)


@effect(SqeFlags.BUFFER_SELECT, CqeFlags.BUFFER)
def test_provided_buffer_is_named_by_the_completion(ring: Ring) -> None:
    """A plain read of a group says which buffer it took, in its flags."""
    buffers = ring.setup_buf_ring(1, 2, 16)
    reading, writing = os.pipe()
    os.write(writing, b"x")
    prep_read(ring, reading, 0, buf_group=1, len_bytes=0)
    [one] = done(ring)
    assert one.flags & CqeFlags.BUFFER
    assert one.buffer_id == 0
    assert buffers.view(0, one.res) == b"x"
    os.close(reading)
    os.close(writing)
