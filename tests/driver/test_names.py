"""Operations on names and on parts of files: the same on every driver, by ring or by thread."""

import errno
import os
import stat
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.driver.conftest import RigMaker
from tests.driver.rig import RINGS, Orphans, Rig, StandInCancelled, is_open
from uringio._driver import op as o
from uringio._driver.op import Op
from uringio._driver.vectored import Vectored
from uringio._sys import constants as k
from uringio.errors import OpError

CURRENT_POSITION = (1 << 64) - 1
U32_MASK = 0xFFFFFFFF
AT_REMOVEDIR = 0x200
AT_SYMLINK_NOFOLLOW = 0x100
RENAME_NOREPLACE = 1
FALLOC_FL_KEEP_SIZE = 1
RWF_HIPRI = 1
CONTENT = bytes(range(251)) * 100


@pytest.fixture
def file_fd(tmp_path: Path) -> Iterator[int]:
    path = tmp_path / "file"
    path.write_bytes(CONTENT)
    fd = os.open(path, os.O_RDWR)
    yield fd
    if is_open(fd):
        os.close(fd)


def path_op(code: int, path: Path, **more: object) -> Op[None]:
    return Op(code, k.AT_FDCWD, memory=os.fsencode(path) + b"\0", **more)


def two_paths_op(code: int, first: Path | str, second: Path, **more: object) -> Op[None]:
    head = os.fsencode(first) + b"\0"
    return Op(code, k.AT_FDCWD, off=len(head), memory=head + os.fsencode(second) + b"\0", **more)


def test_pieces_are_read_and_written_in_order(rig: Rig, file_fd: int) -> None:
    """READV fills its pieces one after another; WRITEV takes them so, empty ones included."""
    first, second, rest = bytearray(10), bytearray(0), bytearray(90)
    count = rig.do(Vectored(o.READV, file_fd, [first, second, memoryview(rest)], 5))
    assert count == 100
    assert first + rest == CONTENT[5:105]
    assert (
        rig.do(Vectored(o.WRITEV, file_fd, [b"ab", b"", bytearray(b"cd"), b"e" * 5000], 7)) == 5004
    )
    assert os.pread(file_fd, 5004, 7) == b"abcd" + b"e" * 5000
    first.extend(b"free again")


def test_pieces_go_to_the_current_position(rig: Rig, file_fd: int) -> None:
    """With the offset -1 a transfer goes on where the last one ended."""
    pieces = [bytearray(3), bytearray(4)]
    assert rig.do(Vectored(o.READV, file_fd, pieces, CURRENT_POSITION)) == 7
    assert rig.do(Vectored(o.READV, file_fd, pieces, CURRENT_POSITION)) == 7
    assert pieces[0] + pieces[1] == CONTENT[7:14]
    assert rig.do(Vectored(o.WRITEV, file_fd, [b"xyz"], CURRENT_POSITION)) == 3
    assert os.pread(file_fd, 3, 14) == b"xyz"
    assert rig.do(Vectored(o.READV, file_fd, pieces, len(CONTENT))) == 0


def test_polled_transfers_are_carried_out(rig: Rig, file_fd: int) -> None:
    """RWF_HIPRI is a hint: a ring that is not made for polling does not refuse the transfer."""
    piece = bytearray(8)
    assert rig.do(Vectored(o.READV, file_fd, [piece], 1, RWF_HIPRI)) == 8
    assert piece == CONTENT[1:9]
    assert rig.do(Vectored(o.WRITEV, file_fd, [b"12"], 1, RWF_HIPRI)) == 2
    assert os.pread(file_fd, 2, 1) == b"12"


def test_pieces_that_cannot_be_written_are_refused(rig: Rig, file_fd: int) -> None:
    """READV into immutable memory is a mistake of the caller, told at once."""
    op = Vectored(o.READV, file_fd, [bytearray(1), b"fixed"], 0)
    with pytest.raises(TypeError):
        rig.driver.submit(op)
    rig.driver.abandon(op)


def test_files_are_lengthened_and_cut(rig: Rig, file_fd: int, tmp_path: Path) -> None:
    """FALLOCATE takes mode, offset and length; FTRUNCATE a size."""
    size = 1 << 20
    assert rig.do(Op(o.FALLOCATE, file_fd, addr=size, len_=FALLOC_FL_KEEP_SIZE, off=0)) is None
    found = os.fstat(file_fd)
    assert found.st_size == len(CONTENT)
    assert found.st_blocks * 512 >= size
    assert rig.do(Op(o.FALLOCATE, file_fd, addr=100, off=size)) is None
    assert os.fstat(file_fd).st_size == size + 100
    assert rig.do(Op(o.FTRUNCATE, file_fd, off=77)) is None
    assert (tmp_path / "file").read_bytes() == CONTENT[:77]
    with pytest.raises(OpError) as caught:
        rig.do(Op(o.FTRUNCATE, 1_000_000, off=77))
    assert caught.value.errno == errno.EBADF
    with pytest.raises(OpError) as caught:
        rig.do(Op(o.FALLOCATE, file_fd, addr=0))
    assert caught.value.errno == errno.EINVAL


def test_names_change_as_with_os(rig: Rig, tmp_path: Path) -> None:
    """MKDIR, RENAME, LINK, SYMLINK and UNLINK do what their system calls do."""
    folder, file = tmp_path / "folder", tmp_path / "file"
    file.write_bytes(b"1")
    assert rig.do(path_op(o.MKDIR, folder, len_=0o700)) is None
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    rig.do(two_paths_op(o.RENAME, file, folder / "moved", len_=k.AT_FDCWD))
    assert not file.exists()
    rig.do(two_paths_op(o.LINK, folder / "moved", folder / "twin", len_=k.AT_FDCWD))
    assert (folder / "twin").stat().st_ino == (folder / "moved").stat().st_ino
    rig.do(two_paths_op(o.SYMLINK, "to/nowhere", folder / "link"))
    assert os.readlink(folder / "link") == "to/nowhere"
    rig.do(two_paths_op(o.RENAME, folder / "moved", folder / "twin", len_=k.AT_FDCWD))
    for name in ("twin", "moved", "link"):
        if (folder / name).is_symlink() or (folder / name).exists():
            rig.do(path_op(o.UNLINK, folder / name))
    rig.do(path_op(o.UNLINK, folder, flags=AT_REMOVEDIR))
    assert not folder.exists()


def test_names_are_looked_up_in_folders(rig: Rig, tmp_path: Path) -> None:
    """Each operation takes the descriptors of the folders that its paths are relative to."""
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    there.mkdir()
    (here / "a").write_bytes(b"1")
    fds = [os.open(one, os.O_PATH) for one in (here, there)]
    rig.do(Op(o.RENAME, fds[0], len_=fds[1], off=2, memory=b"a\0b\0"))
    rig.do(Op(o.LINK, fds[1], len_=fds[0], off=2, memory=b"b\0c\0"))
    rig.do(Op(o.SYMLINK, fds[0], off=2, memory=b"x\0d\0"))
    rig.do(Op(o.MKDIR, fds[0], len_=0o755, memory=b"e\0"))
    rig.do(Op(o.UNLINK, fds[1], memory=b"b\0"))
    assert sorted(os.listdir(here)) == ["c", "d", "e"]
    assert os.listdir(there) == []
    for fd in fds:
        rig.do(Op(o.CLOSE, fd))


def test_rename_takes_flags(rig: Rig, tmp_path: Path) -> None:
    """RENAME_NOREPLACE refuses a taken name, and the error names both."""
    (tmp_path / "a").write_bytes(b"a")
    (tmp_path / "b").write_bytes(b"b")
    op = two_paths_op(
        o.RENAME, tmp_path / "a", tmp_path / "b", len_=k.AT_FDCWD, flags=RENAME_NOREPLACE
    )
    with pytest.raises(FileExistsError) as caught:
        rig.do(op)
    assert caught.value.filename == str(tmp_path / "a")
    assert caught.value.filename2 == str(tmp_path / "b")
    assert (tmp_path / "b").read_bytes() == b"b"


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda at: path_op(o.MKDIR, at / "file", len_=0o777), FileExistsError),
        (lambda at: path_op(o.MKDIR, at / "no" / "way", len_=0o777), FileNotFoundError),
        (lambda at: path_op(o.UNLINK, at / "none"), FileNotFoundError),
        (lambda at: path_op(o.UNLINK, at / "file", flags=AT_REMOVEDIR), NotADirectoryError),
        (lambda at: two_paths_op(o.SYMLINK, "x", at / "file"), FileExistsError),
        (lambda at: two_paths_op(o.LINK, at / "no", at / "b", len_=k.AT_FDCWD), FileNotFoundError),
        (lambda at: path_op(o.UNLINK, at / ("n" * 300)), OpError),
    ],
)
def test_refusals_of_names_are_typed(
    rig: Rig, tmp_path: Path, make: Callable[[Path], Op[None]], expected: type[OSError]
) -> None:
    """A refused operation raises the builtin class of the errno, with the name it was about."""
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(expected) as caught:
        rig.do(make(tmp_path))
    assert isinstance(caught.value, OpError)
    assert str(tmp_path) in str(caught.value)


def test_statx_fills_its_memory(rig: Rig, tmp_path: Path) -> None:
    """STATX writes the kernel's record in front of the path; a link is followed unless told."""
    path = tmp_path / "file"
    path.write_bytes(CONTENT)
    link = tmp_path / "link"
    link.symlink_to(path)
    for flags, looked_at in ((0, path), (AT_SYMLINK_NOFOLLOW, link)):
        room = bytearray(k.SIZEOF_STATX) + os.fsencode(link) + b"\0"
        op = Op(o.STATX, k.AT_FDCWD, len_=k.STATX_BASIC_STATS, flags=flags, memory=room)
        rig.driver.submit(op)
        with pytest.raises(BufferError):
            room.extend(b"the kernel writes here")
        rig.finish(op)
        expected = looked_at.lstat()
        size, mode = struct.unpack_from("=Q", room, 40)[0], struct.unpack_from("=H", room, 28)[0]
        assert (size, mode) == (expected.st_size, expected.st_mode)
        room.extend(b"free again")


@pytest.mark.parametrize("tries", [0, 1])
def test_openat2_resolves_as_told(rig: Rig, tmp_path: Path, tries: int) -> None:
    """OPENAT2 takes flags, mode and rules from the front of its memory, tried at once or not."""
    inside = tmp_path / "in"
    inside.mkdir()
    (tmp_path / "secret").write_bytes(b"s")
    (inside / "file").write_bytes(b"f")
    (inside / "out").symlink_to("../secret")
    folder = os.open(inside, os.O_PATH)

    def opening(path: bytes, flags: int = os.O_RDONLY, mode: int = 0) -> Op[int]:
        how = struct.pack("=QQQ", flags | os.O_CLOEXEC, mode, k.RESOLVE_BENEATH)
        return Op(o.OPENAT2, folder, len_=tries, memory=how + path + b"\0")

    fd = rig.do(opening(b"file"))
    assert os.read(fd, 10) == b"f"
    made = rig.do(opening(b"new", os.O_CREAT | os.O_WRONLY, 0o600))
    assert stat.S_IMODE((inside / "new").stat().st_mode) == 0o600
    for path in (b"out", b"../secret", b"/"):
        with pytest.raises(OpError) as caught:
            rig.do(opening(path))
        assert caught.value.errno == errno.EXDEV
        assert caught.value.filename == path.decode()
    for one in (fd, made, folder):
        rig.do(Op(o.CLOSE, one))


@pytest.mark.parametrize("tries", [0, 1])
@pytest.mark.parametrize("moment", ["at once", "in the kernel", "after"])
def test_cancelled_opens_close_what_they_opened(
    rig: Rig, tmp_path: Path, moment: str, tries: int
) -> None:
    """However far an OPENAT2 had got when it was cancelled, its descriptor is not lost."""
    (tmp_path / "file").write_bytes(b"")
    how = struct.pack("=QQQ", os.O_RDONLY, 0, 0)
    before = os.listdir("/proc/self/fd")
    memory = how + os.fsencode(tmp_path / "file") + b"\0"
    op = rig.submit(Op(o.OPENAT2, k.AT_FDCWD, len_=tries, memory=memory))
    if moment != "at once":
        rig.settle_down()
    if moment == "after":
        rig.until(lambda: rig.is_delivered(op))
    rig.driver.cancel(op)
    with pytest.raises(StandInCancelled):
        rig.finish(op)
    assert os.listdir("/proc/self/fd") == before


def test_cancelled_transfers_are_never_data(rig: Rig, file_fd: int) -> None:
    """A cancelled READV ends cancelled; its owner hears of what was read all the same."""
    given: list[object] = []
    ops = [Vectored(o.READV, file_fd, [bytearray(4096), bytearray(4096)], 0) for _ in range(40)]
    for op in ops:
        op.owner = Orphans(given)
        rig.submit(op)
    rig.settle_down()
    for op in ops:
        rig.driver.cancel(op)
    for op in ops:
        with pytest.raises(StandInCancelled):
            rig.finish(op)
    assert set(given) <= {8192}


def test_driver_closes_over_calls_in_flight(make_rig: RigMaker, tmp_path: Path) -> None:
    """Closing waits for the threads that carry operations out for a ring."""
    rig = make_rig(RINGS[-1])
    paths = [tmp_path / str(number) for number in range(20)]
    for path in paths:
        rig.submit(path_op(o.MKDIR, path, len_=0o755))
    rig.driver.close()
    assert rig.driver.statistics().in_flight == 0
