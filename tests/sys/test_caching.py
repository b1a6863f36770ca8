"""What the page cache is said to hold, and sending from it."""

import errno
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from uringio._sys.system import System

PAGE = os.sysconf("SC_PAGE_SIZE")


@pytest.fixture
def file_fd(tmp_path: Path) -> Iterator[int]:
    """Open a file with 10 pages and a half, a hole, and a page."""
    path = tmp_path / "file"
    with path.open("wb") as file:
        file.write(bytes(range(256)) * (PAGE // 256) * 10 + b"half" * (PAGE // 8))
        file.seek(20 * PAGE)
        file.write(b"x" * PAGE)
    fd = os.open(path, os.O_RDONLY)
    yield fd
    os.close(fd)


def test_only_what_is_cached_is_held(file_fd: int) -> None:
    """What was just written is there, in parts of pages too; a hole and what is no file are not."""
    system = System()
    if not system.holds_all(file_fd, 0, 10 * PAGE):
        pytest.skip("cachestat is not here (Linux 6.5)")
    for offset, length in ((0, 1), (PAGE - 1, 2), (5, 10 * PAGE), (20 * PAGE, PAGE)):
        assert system.holds_all(file_fd, offset, length)
    for offset, length in ((9 * PAGE, 3 * PAGE), (12 * PAGE, 1), (20 * PAGE, PAGE + 1)):
        assert not system.holds_all(file_fd, offset, length)
    read_fd, write_fd = os.pipe()
    try:
        assert not system.holds_all(read_fd, 0, 1)
    finally:
        os.close(read_fd)
        os.close(write_fd)
    assert not system.holds_all(-1, 0, 1)


@pytest.mark.parametrize("blocking", [True, False])
def test_sending_never_waits_for_the_peer(file_fd: int, blocking: bool) -> None:
    """A full socket answers EAGAIN in either mode, and keeps its mode."""
    system = System()
    near, far = socket.socketpair()
    with near, far:
        near.setblocking(blocking)
        sent = 0
        while (count := system.send_cached(near.fileno(), file_fd, 0, 10 * PAGE)) > 0:
            sent += count
        assert count == -errno.EAGAIN
        assert sent > 0
        assert os.get_blocking(near.fileno()) == blocking
        assert system.send_cached(near.fileno(), -1, 0, 1) == -errno.EBADF
