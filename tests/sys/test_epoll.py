"""The plain epoll binding."""

import errno
import os
import select
import signal
import socket
import threading
import time

import pytest

from uringio._sys.epoll import Epoll, EpollEvent, event_layout, waiter
from uringio._sys.libc import Libc
from uringio.errors import ClosedError, OpError

FOREVER_NS = 20_000_000_000


def patiently(epoll: Epoll, timeout_ns: int) -> list[EpollEvent]:
    """Wait, though a process that is stopped and goes on again hears of it by EINTR."""
    while True:
        try:
            return epoll.wait(timeout_ns)
        except InterruptedError:
            pass


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


def test_one_that_is_forgotten_warns() -> None:
    """Dropped without being closed it says so, and closes its descriptor."""
    epoll = Epoll()
    fd = epoll.fileno()
    with pytest.warns(ResourceWarning, match=f"unclosed epoll, fd={fd}"):
        del epoll
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)


def test_waits_are_of_nanoseconds() -> None:
    """A wait of a fifth of a millisecond neither returns at once nor is rounded to nothing."""
    with Epoll() as epoll:
        began = time.monotonic_ns()
        assert patiently(epoll, 200_000) == []
        assert time.monotonic_ns() - began >= 200_000


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.EPERM])
def test_an_older_kernel_rounds_up(number: int) -> None:
    """Without epoll_pwait2, or behind a filter, a wait is of milliseconds, and never shorter."""
    with Epoll() as epoll:
        epoll._wait._libc.syscall = lambda *_: -number
        began = time.monotonic_ns()
        assert patiently(epoll, 200_000) == []
        assert time.monotonic_ns() - began >= 200_000


def test_a_wait_on_the_librarys_epoll_answers_like_it() -> None:
    """The same pairs; and after a signal's handler has run, none."""
    ours, theirs = socket.socketpair()
    with ours, theirs, select.epoll() as epoll:
        wait = waiter(Libc(), epoll.fileno())
        epoll.register(ours, select.EPOLLIN | select.EPOLLOUT)
        assert wait(FOREVER_NS, 9) == epoll.poll(50.0) == [(ours.fileno(), select.EPOLLOUT)]
        epoll.modify(ours, select.EPOLLIN)
        assert wait(0, 9) == []
        theirs.send(b"x")
        assert wait(FOREVER_NS, 9) == [(ours.fileno(), select.EPOLLIN)]
        ours.recv(1)
        handled: list[int] = []
        before = signal.signal(signal.SIGUSR1, lambda number, _: handled.append(number))
        enough, main = threading.Event(), threading.get_ident()

        def interrupt() -> None:
            while not enough.wait(0.001):  # again, since one may come before the wait does
                signal.pthread_kill(main, signal.SIGUSR1)

        thread = threading.Thread(target=interrupt)
        thread.start()
        try:
            while not handled:
                assert wait(FOREVER_NS, 9) == []
        finally:
            enough.set()
            thread.join()
            signal.signal(signal.SIGUSR1, before)


def test_threads_that_wait_at_once_take_each_event_once() -> None:
    """What one is told is not overwritten by what another is told before the first has looked."""
    ours, theirs = socket.socketpair()
    with ours, theirs, Epoll() as epoll:
        real = epoll._wait._libc.syscall
        inner: list[EpollEvent] = []

        def syscall(*arguments: int) -> int:
            found = real(*arguments)
            if not inner:  # it is another's turn before the first has looked
                inner.append(EpollEvent(0, 0))
                epoll.modify(ours.fileno(), select.EPOLLIN | select.EPOLLONESHOT, 2)
                inner[:] = epoll.wait(FOREVER_NS)
            return found

        epoll._wait._libc.syscall = syscall
        theirs.send(b"x")
        epoll.add(ours.fileno(), select.EPOLLIN | select.EPOLLONESHOT, 1)
        assert epoll.wait(FOREVER_NS) == [EpollEvent(select.EPOLLIN, 1)]
        assert inner == [EpollEvent(select.EPOLLIN, 2)]


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
        with pytest.raises(OpError, match="Bad file descriptor"):
            epoll.add(-1, select.EPOLLIN)
        with pytest.raises(ValueError, match="C int"):
            epoll.add(2**32 + ours.fileno(), select.EPOLLIN)  # which is not *ours*
        for bad_ns in (-1, 1 << 63, 1 << 100):
            with pytest.raises(ValueError, match="from 0 to"):
                epoll.wait(bad_ns)
        for what in (0.5, "1"):
            with pytest.raises(TypeError):
                epoll.wait(what)  # type: ignore[arg-type]
    epoll.close()
    with pytest.raises(ClosedError, match="closed"):
        epoll.wait(0)
