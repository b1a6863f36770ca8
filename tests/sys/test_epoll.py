"""The plain epoll binding."""

import errno
import os
import select
import socket
import time

import pytest

from uringio._sys.epoll import Epoll, EpollEvent, event_layout
from uringio.errors import ClosedError, OpError

FOREVER_NS = 20_000_000_000


def test_layouts() -> None:
    """Packed on x86-64 alone."""
    assert event_layout("x86_64").size == 12
    assert event_layout("aarch64").size == event_layout("riscv64").size == 16
    assert event_layout("aarch64").unpack(event_layout("aarch64").pack(1, 2)) == (1, 2)


def test_events_carry_what_was_given() -> None:
    """64 bits of the user's own, by default the descriptor; changed, and removed."""
    ours, theirs = socket.socketpair()
    with ours, theirs, Epoll() as epoll:
        epoll.add(ours.fileno(), select.EPOLLIN, 2**64 - 1)
        assert epoll.wait(0) == []
        theirs.send(b"x")
        assert epoll.wait(FOREVER_NS) == [EpollEvent(select.EPOLLIN, 2**64 - 1)]
        epoll.modify(ours.fileno(), select.EPOLLIN | select.EPOLLOUT)
        both = select.EPOLLIN | select.EPOLLOUT
        assert epoll.wait(FOREVER_NS) == [EpollEvent(both, ours.fileno())]
        epoll.remove(ours.fileno())
        assert epoll.wait(0) == []


def test_waits_are_of_nanoseconds() -> None:
    """A wait of a fifth of a millisecond neither returns at once nor is rounded to nothing."""
    with Epoll() as epoll:
        began = time.monotonic_ns()
        assert epoll.wait(200_000) == []
        assert time.monotonic_ns() - began >= 200_000


def test_an_older_kernel_rounds_up() -> None:
    """Without epoll_pwait2 a wait is of milliseconds, and never shorter than asked."""
    with Epoll() as epoll:
        epoll._libc.syscall = lambda *_: -errno.ENOSYS
        began = time.monotonic_ns()
        assert epoll.wait(200_000) == []
        assert time.monotonic_ns() - began >= 200_000


def test_what_is_wrong_is_said() -> None:
    """The call, the descriptor and the errno; what does not fit, before the kernel sees it."""
    ours, theirs = socket.socketpair()
    with ours, theirs, Epoll() as epoll:
        with pytest.raises(FileNotFoundError, match=rf"epoll_ctl\(DEL\) on fd {ours.fileno()}"):
            epoll.remove(ours.fileno())
        with pytest.raises(OpError, match="Bad file descriptor"):
            epoll.add(-1, select.EPOLLIN, 0)
        with pytest.raises(PermissionError, match=r"epoll_ctl\(ADD\)"), open(os.devnull) as null:
            epoll.add(null.fileno(), select.EPOLLIN)
        for bad in (-1, 1 << 32):
            with pytest.raises(ValueError, match="32 bits"):
                epoll.add(0, bad)
        with pytest.raises(ValueError, match="64 bits"):
            epoll.add(0, 1, 1 << 64)
        with pytest.raises(ValueError, match="from 1 to 1024"):
            epoll.wait(0, 0)
        with pytest.raises(ValueError, match="from 0 ns"):
            epoll.wait(-1)
    epoll.close()
    with pytest.raises(ClosedError, match="closed"):
        epoll.wait(0)
