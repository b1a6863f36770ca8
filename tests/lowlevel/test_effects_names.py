"""Requests on names, each seen to have its effect."""

import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.lowlevel.rig import done, effect, result
from uringio._sys.layouts import STATX
from uringio.lowlevel import (
    FILE_INDEX_ALLOC,
    Opcode,
    RegisterOp,
    Ring,
    SqeFlags,
    prep_close_direct,
    prep_fgetxattr,
    prep_fixed_fd_install,
    prep_fsetxattr,
    prep_getxattr,
    prep_link,
    prep_linkat,
    prep_mkdir,
    prep_mkdirat,
    prep_open,
    prep_open_direct,
    prep_openat,
    prep_openat2,
    prep_openat2_direct,
    prep_openat_direct,
    prep_read,
    prep_rename,
    prep_renameat,
    prep_setxattr,
    prep_statx,
    prep_symlink,
    prep_symlinkat,
    prep_unlink,
    prep_unlinkat,
)

AT_FDCWD = -100
RESOLVE_BENEATH = 0x08
STATX_BASIC_STATS = 0x7FF


@pytest.fixture
def folder(tmp_path: Path) -> int:
    """The test's folder, open."""
    return os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)


def content(fd: int) -> bytes:
    """Read and close."""
    found = os.read(fd, 100)
    os.close(fd)
    return found


@effect(Opcode.OPENAT)
def test_openat(ring: Ring, folder: int, tmp_path: Path) -> None:
    """A descriptor comes, of a file that was made with the mode asked for."""
    prep_openat(ring, folder, "made", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o640)
    fd = result(ring)
    os.close(fd)
    assert (tmp_path / "made").stat().st_mode & 0o777 == 0o640
    prep_open(ring, tmp_path / "missing", os.O_RDONLY)
    assert result(ring) == -errno.ENOENT
    os.close(folder)


def test_open(ring: Ring, file: Path) -> None:
    """By path alone, from str, bytes and Path."""
    for path in (file, str(file), bytes(file)):
        prep_open(ring, path, os.O_RDONLY)
        assert content(result(ring)) == b"0123456789"


@effect(Opcode.OPENAT2)
def test_openat2(ring: Ring, folder: int, file: Path) -> None:
    """Rules of resolution hold: what lies outside is EXDEV."""
    prep_openat2(ring, folder, "file", os.O_RDONLY, 0, RESOLVE_BENEATH)
    assert content(result(ring)) == b"0123456789"
    prep_openat2(ring, folder, "../x", os.O_RDONLY, 0, RESOLVE_BENEATH)
    assert result(ring) == -errno.EXDEV
    os.close(folder)


@pytest.mark.parametrize(
    "fill",
    [
        lambda ring, path, slot: prep_open_direct(ring, path, os.O_RDONLY, 0, slot),
        lambda ring, path, slot: prep_openat_direct(ring, AT_FDCWD, path, os.O_RDONLY, 0, slot),
        lambda ring, path, slot: prep_openat2_direct(ring, AT_FDCWD, path, os.O_RDONLY, 0, 0, slot),
    ],
    ids=["open", "openat", "openat2"],
)
@effect(Opcode.FIXED_FD_INSTALL, RegisterOp.FILES2)
@effect(SqeFlags.FIXED_FILE)
def test_direct_descriptors(
    ring: Ring, file: Path, fill: Callable[[Ring, Path, int], None]
) -> None:
    """
    A file opens into a slot, is read by it, gets a descriptor, and the slot is emptied.

    A slot of the kernel's choice is told by the result, one's own is not; without room: ENFILE.
    """
    ring.register_files_sparse(2)
    fill(ring, file, 1)
    assert result(ring) == 0
    fill(ring, file, FILE_INDEX_ALLOC)
    assert result(ring) == 0  # the one that was left
    fill(ring, file, FILE_INDEX_ALLOC)
    assert result(ring) == -errno.ENFILE
    room = bytearray(3)
    prep_read(ring, 1, room, 5, flags=SqeFlags.FIXED_FILE)
    assert (result(ring), room) == (3, b"567")
    prep_fixed_fd_install(ring, 1)
    fd = result(ring)
    assert not os.get_inheritable(fd)
    prep_close_direct(ring, 1)
    assert result(ring) == 0
    prep_read(ring, 1, room, 5, flags=SqeFlags.FIXED_FILE)
    assert result(ring) == -errno.EBADF
    assert content(fd) == b"0123456789"


@effect(Opcode.STATX)
def test_statx(ring: Ring, file: Path) -> None:
    """What is found is what stat finds."""
    room = bytearray(256)
    prep_statx(ring, AT_FDCWD, file, 0, STATX_BASIC_STATS, room)
    assert result(ring) == 0
    values = STATX.unpack(room)
    real = file.stat()
    assert (values[6], values[7], values[8]) == (real.st_mode, real.st_ino, 10)


@effect(Opcode.RENAMEAT)
def test_renameat(ring: Ring, folder: int, file: Path, tmp_path: Path) -> None:
    """The file has its new name; RENAME_NOREPLACE spares what is there."""
    prep_renameat(ring, folder, "file", folder, "moved")
    assert result(ring) == 0
    assert (tmp_path / "moved").read_bytes() == b"0123456789"
    prep_rename(ring, tmp_path / "moved", file)
    assert result(ring) == 0
    assert [one.name for one in tmp_path.iterdir()] == ["file"]
    prep_renameat(ring, folder, "file", folder, "file", 1)
    assert result(ring) == -errno.EEXIST
    os.close(folder)


@effect(Opcode.UNLINKAT)
def test_unlinkat(ring: Ring, folder: int, file: Path, tmp_path: Path) -> None:
    """The name is gone; a folder goes with AT_REMOVEDIR alone."""
    (tmp_path / "sub").mkdir()
    prep_unlink(ring, file)
    assert result(ring) == 0
    prep_unlinkat(ring, folder, "sub")
    assert result(ring) == -errno.EISDIR
    prep_unlinkat(ring, folder, "sub", 0x200)
    assert result(ring) == 0
    assert list(tmp_path.iterdir()) == []
    os.close(folder)


@effect(Opcode.MKDIRAT)
def test_mkdirat(ring: Ring, folder: int, tmp_path: Path) -> None:
    """The folders are there, with their modes."""
    prep_mkdirat(ring, folder, "one", 0o700)
    prep_mkdir(ring, tmp_path / "two", 0o750)
    assert [one.res for one in done(ring, 2)] == [0, 0]
    modes = {one.name: stat.S_IMODE(one.stat().st_mode) for one in tmp_path.iterdir()}
    assert modes == {"one": 0o700, "two": 0o750}
    os.close(folder)


@effect(Opcode.SYMLINKAT)
def test_symlinkat(ring: Ring, folder: int, tmp_path: Path) -> None:
    """The links say what they were told to."""
    prep_symlinkat(ring, "there", folder, "one")
    prep_symlink(ring, "elsewhere", tmp_path / "two")
    assert [one.res for one in done(ring, 2)] == [0, 0]
    links = {one.name: os.readlink(one) for one in tmp_path.iterdir()}
    assert links == {"one": "there", "two": "elsewhere"}
    os.close(folder)


@effect(Opcode.LINKAT)
def test_linkat(ring: Ring, folder: int, file: Path, tmp_path: Path) -> None:
    """All names are the one file."""
    prep_linkat(ring, folder, "file", folder, "one")
    prep_link(ring, file, tmp_path / "two")
    assert [one.res for one in done(ring, 2)] == [0, 0]
    assert {one.stat().st_ino for one in tmp_path.iterdir()} == {file.stat().st_ino}
    assert file.stat().st_nlink == 3
    os.close(folder)


@pytest.fixture
def attributed(file: Path) -> Path:
    """A file on a filesystem that has user attributes."""
    try:
        os.setxattr(file, "user.probe", b"")
    except OSError as error:
        pytest.skip(f"the folder of tests has no extended attributes: {error}")
    return file


@effect(Opcode.SETXATTR, Opcode.GETXATTR)
def test_xattr_by_path(ring: Ring, attributed: Path) -> None:
    """What is set is what the system reads, and what is read is what the system has set."""
    prep_setxattr(ring, "user.colour", b"blue", attributed)
    assert result(ring) == 0
    assert os.getxattr(attributed, "user.colour") == b"blue"
    room = bytearray(16)
    prep_getxattr(ring, "user.colour", room, attributed)
    assert (result(ring), room[:5]) == (4, b"blue\0")
    prep_getxattr(ring, "user.none", room, attributed)
    assert result(ring) == -errno.ENODATA


@effect(Opcode.FSETXATTR, Opcode.FGETXATTR)
def test_xattr_of_an_open_file(ring: Ring, attributed: Path) -> None:
    """The same by descriptor; XATTR_CREATE spares what is there, and room may be too small."""
    fd = os.open(attributed, os.O_RDWR)
    prep_fsetxattr(ring, fd, "user.size", b"large", os.XATTR_CREATE)
    assert result(ring) == 0
    prep_fsetxattr(ring, fd, "user.size", b"small", os.XATTR_CREATE)
    assert result(ring) == -errno.EEXIST
    assert os.getxattr(fd, "user.size") == b"large"
    room = bytearray(5)
    prep_fgetxattr(ring, fd, "user.size", room)
    assert (result(ring), room) == (5, b"large")
    prep_fgetxattr(ring, fd, "user.size", bytearray(2))
    assert result(ring) == -errno.ERANGE
    os.close(fd)
