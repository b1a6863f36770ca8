"""What a kqueue tells of timers, signals, processes, files and the program itself."""

import contextlib
import errno
import os
import select
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.backends import LIBRARY
from uringio._sys import kqueue_numbers as q
from uringio._sys.kqueue import Kevent, Kqueue
from uringio._sys.kqueue_emulated import EmulatedKqueue
from uringio._sys.system import System
from uringio.errors import OpError, UnsupportedError
from uringio.testing import SimKernel

Kq = Kqueue | EmulatedKqueue
PATIENCE_NS = 20_000_000_000
HOUR_S = 3600
IS_LINUX = sys.platform == "linux"
NUMBER = signal.SIGUSR1


def unlike_kernels(why: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(LIBRARY, reason=f"libkqueue {why}")


@pytest.fixture
def kq() -> Iterator[Kq]:
    with System().kqueue() as made:
        yield made


@pytest.fixture(params=["here", "simulated"])
def any_system(request: pytest.FixtureRequest) -> Iterator[System]:
    """This one, and the simulated one as far as it goes."""
    if request.param == "simulated":
        kernel = SimKernel(3)
        yield kernel.system
        kernel.check_no_leaks()
    else:
        yield System()


@pytest.fixture
def any_kq(any_system: System) -> Iterator[Kq]:
    with any_system.kqueue() as made:
        yield made


def one(kq: Kq, timeout_ns: int = PATIENCE_NS) -> Kevent:
    [event] = kq.control((), 64, timeout_ns)
    return event


def refusal(kq: Kq, change: Kevent) -> int:
    """The errno of a change."""
    [answer] = kq.control([change._replace(flags=change.flags | q.EV_RECEIPT)], 1, 0)
    assert answer.flags & q.EV_ERROR
    return answer.data


# --- timers --------------------------------------------------------------------------------------


def test_a_timer_runs_out_again_and_again(any_kq: Kq) -> None:
    """And is told with how often it has, its udata, and no notes."""
    any_kq.control([Kevent(7, q.EVFILT_TIMER, fflags=q.NOTE_USECONDS, data=500, udata=9)])
    for _ in range(3):
        event = one(any_kq)
        assert (event.ident, event.filter, event.fflags) == (7, q.EVFILT_TIMER, 0)
        assert (event.data >= 1, event.udata) == (True, 9)


def test_a_timer_counts_what_nobody_took(any_kq: Kq, any_system: System) -> None:
    """One event for all the times."""
    any_kq.control([Kevent(7, q.EVFILT_TIMER, fflags=q.NOTE_USECONDS, data=200)])
    with any_system.kqueue() as other:
        other.control([Kevent(8, q.EVFILT_TIMER, q.EV_ADD | q.EV_ONESHOT, data=5)])
        assert one(other).data == 1
    assert one(any_kq).data >= 24


def test_units_mean_what_they_say(any_kq: Kq) -> None:
    """Timers end in the order of their times, whatever these are given in."""
    times = [
        (q.NOTE_NSECONDS, 4_000_000), (q.NOTE_USECONDS, 8_000), (q.NOTE_MSECONDS, 12), (0, 16),
    ]  # fmt: skip
    once = q.EV_ADD | q.EV_ONESHOT
    hour = Kevent(99, q.EVFILT_TIMER, once, q.NOTE_SECONDS, HOUR_S)
    any_kq.control([hour])
    for ident, (unit, count) in enumerate(times):
        any_kq.control([Kevent(ident, q.EVFILT_TIMER, once, unit, count)])
    told: list[int] = []
    while len(told) < len(times):
        told += [event.ident for event in any_kq.control((), 64, PATIENCE_NS)]
    assert told == [0, 1, 2, 3]


def test_a_timer_may_run_out_once(any_kq: Kq) -> None:
    """With EV_ONESHOT it is gone with its event."""
    any_kq.control([Kevent(7, q.EVFILT_TIMER, q.EV_ADD | q.EV_ONESHOT, data=1)])
    assert one(any_kq).data == 1
    assert refusal(any_kq, Kevent(7, q.EVFILT_TIMER, q.EV_DELETE)) == errno.ENOENT


def test_a_timer_may_be_by_the_wall_clock(any_kq: Kq) -> None:
    """A time that has passed is told once, and one that is to come not yet."""
    any_kq.control(
        [
            Kevent(1, q.EVFILT_TIMER, q.EV_ADD, q.NOTE_SECONDS | q.NOTE_ABSTIME, 1),
            Kevent(2, q.EVFILT_TIMER, q.EV_ADD, q.NOTE_SECONDS | q.NOTE_ABSTIME, 1 << 33),
        ]
    )
    assert (one(any_kq).ident, any_kq.control((), 64, 1_000_000)) == (1, [])


def test_a_timer_can_be_set_anew(any_kq: Kq) -> None:
    """Adding it again sets another period, and its udata."""
    any_kq.control([Kevent(7, q.EVFILT_TIMER, fflags=q.NOTE_SECONDS, data=HOUR_S, udata=1)])
    any_kq.control([Kevent(7, q.EVFILT_TIMER, data=1, udata=2)])
    assert one(any_kq).udata == 2


def test_a_timer_that_is_disabled_is_not_told(any_kq: Kq) -> None:
    """But is when it is enabled again; EV_DISPATCH disables it with each event."""
    dispatch = q.EV_ADD | q.EV_DISPATCH
    timer = Kevent(7, q.EVFILT_TIMER, dispatch, q.NOTE_USECONDS, 500)
    other = Kevent(8, q.EVFILT_TIMER, q.EV_ADD | q.EV_ONESHOT, data=3)
    any_kq.control([timer])
    assert one(any_kq).ident == 7
    any_kq.control([other])
    assert one(any_kq).ident == 8
    any_kq.control([timer._replace(flags=q.EV_ENABLE | q.EV_DISPATCH)])
    assert one(any_kq).ident == 7


def test_timers_that_make_no_sense(any_kq: Kq) -> None:
    """A time before now, two units, and one that is not there."""
    assert refusal(any_kq, Kevent(7, q.EVFILT_TIMER, data=-1)) == errno.EINVAL
    assert refusal(any_kq, Kevent(7, q.EVFILT_TIMER, q.EV_DELETE)) == errno.ENOENT
    with pytest.raises(ValueError, match="one unit"):
        any_kq.control([Kevent(7, q.EVFILT_TIMER, fflags=q.NOTE_SECONDS | q.NOTE_USECONDS)])


@unlike_kernels("gives out the write end of a pipe as its descriptor")
def test_a_kqueue_can_be_waited_for(kq: Kq) -> None:
    """Its descriptor is ready to read when there is something to tell: kqueues can be nested."""
    poll = select.poll()
    poll.register(kq.fileno(), select.POLLIN)
    assert poll.poll(0) == []
    kq.control([Kevent(7, q.EVFILT_TIMER, q.EV_ADD | q.EV_ONESHOT, data=1)])
    assert poll.poll(PATIENCE_NS // 1_000_000) == [(kq.fileno(), select.POLLIN)]
    assert one(kq, 0).ident == 7
    assert poll.poll(0) == []


# --- the program's own ---------------------------------------------------------------------------


def test_what_a_program_triggers(any_kq: Kq) -> None:
    """Once with EV_CLEAR; what it says of it is in the low bits of the notes, by FF*."""
    user = Kevent(5, q.EVFILT_USER, q.EV_ADD | q.EV_CLEAR, 0b0011)
    any_kq.control([user])
    assert any_kq.control((), 64, 0) == []
    for notes, told in (
        (q.NOTE_FFNOP, 0b0011), (q.NOTE_FFOR | 0b0100, 0b0111), (q.NOTE_FFAND | 0b0110, 0b0110),
        (q.NOTE_FFCOPY | 0b1000, 0b1000),
    ):  # fmt: skip
        any_kq.control([user._replace(flags=0, fflags=q.NOTE_TRIGGER | notes)])
        event = one(any_kq)
        assert (event.ident, event.fflags & q.NOTE_FFLAGSMASK) == (5, told)
        assert any_kq.control((), 64, 0) == []


def test_a_trigger_holds(any_kq: Kq) -> None:
    """Without EV_CLEAR, until it is deleted."""
    any_kq.control([Kevent(5, q.EVFILT_USER), Kevent(5, q.EVFILT_USER, 0, q.NOTE_TRIGGER)])
    for _ in range(3):
        assert one(any_kq).ident == 5
    any_kq.control([Kevent(5, q.EVFILT_USER, q.EV_DELETE)])
    assert any_kq.control((), 64, 0) == []


def test_a_trigger_wakes_who_waits(kq: Kq) -> None:
    """In another thread, which is how programs wake their loops."""
    kq.control([Kevent(5, q.EVFILT_USER, q.EV_ADD | q.EV_CLEAR)])
    told: list[Kevent] = []
    waiter = threading.Thread(target=lambda: told.extend(kq.control((), 64, PATIENCE_NS)))
    waiter.start()
    kq.control([Kevent(5, q.EVFILT_USER, 0, q.NOTE_TRIGGER)])
    waiter.join()
    assert [event.ident for event in told] == [5]


# --- signals -------------------------------------------------------------------------------------


@pytest.fixture
def handled() -> Iterator[list[int]]:
    """Have the signal do no harm wherever it arrives, and leave its mask as it was."""
    calls: list[int] = []
    before = signal.signal(NUMBER, lambda number, _: calls.append(number))
    try:
        yield calls
    finally:
        signal.signal(NUMBER, signal.SIG_IGN)  # what is still pending goes
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {NUMBER})  # libkqueue leaves it blocked
        signal.signal(NUMBER, before)


def send() -> None:
    os.kill(os.getpid(), NUMBER)


def test_a_signal_is_told(kq: Kq, handled: list[int]) -> None:
    """With how often it came, and its udata; not before it came, nor once it was told."""
    kq.control([Kevent(NUMBER, q.EVFILT_SIGNAL, udata=4)])
    assert kq.control((), 64, 0) == []
    for _ in range(2):
        send()
        event = one(kq)
        assert (event.ident, event.filter, event.data, event.udata) == (
            NUMBER, q.EVFILT_SIGNAL, 1, 4
        )  # fmt: skip
        assert kq.control((), 64, 0) == []


@unlike_kernels("takes the signal away from the program (its BUGS.md)")
def test_a_signal_takes_its_course(kq: Kq, handled: list[int]) -> None:
    """A kqueue looks on: the handler is called too, and is the program's own again afterwards."""
    before = signal.getsignal(NUMBER)
    kq.control([Kevent(NUMBER, q.EVFILT_SIGNAL)])
    send()
    assert one(kq).data == 1
    assert handled == [NUMBER]
    kq.control([Kevent(NUMBER, q.EVFILT_SIGNAL, q.EV_DELETE)])
    assert signal.getsignal(NUMBER) is before


def test_a_signal_that_is_ignored_is_told(kq: Kq, handled: list[int]) -> None:
    """What a program does about a signal does not matter."""
    signal.signal(NUMBER, signal.SIG_IGN)
    kq.control([Kevent(NUMBER, q.EVFILT_SIGNAL)])
    send()
    assert (one(kq).ident, handled) == (NUMBER, [])


def test_two_kqueues_hear_of_a_signal(kq: Kq, handled: list[int]) -> None:
    """Each by itself; and one that no longer watches hears nothing, the other does."""
    with System().kqueue() as other:
        for each in (kq, other):
            each.control([Kevent(NUMBER, q.EVFILT_SIGNAL)])
        send()
        assert (one(kq).data, one(other).data) == (1, 1)
        other.control([Kevent(NUMBER, q.EVFILT_SIGNAL, q.EV_DELETE)])
        send()
        assert one(kq).data == 1
        assert other.control((), 64, 0) == []


def test_a_number_that_is_no_signal(kq: Kq) -> None:
    """It is refused."""
    assert refusal(kq, Kevent(4000, q.EVFILT_SIGNAL)) == errno.EINVAL


@unlike_kernels("blocks the signal in every thread that it can reach instead")
@pytest.mark.skipif(not IS_LINUX, reason="kernels watch signals in any thread")
def test_the_played_kqueue_needs_the_main_thread(kq: Kq, handled: list[int]) -> None:
    """Python lets no other thread set a handler; it is said, and nothing is left behind."""
    found: list[BaseException] = []

    def watch() -> None:
        try:
            kq.control([Kevent(NUMBER, q.EVFILT_SIGNAL)])
        except UnsupportedError as error:
            found.append(error)

    thread = threading.Thread(target=watch)
    thread.start()
    thread.join()
    assert "the main thread" in str(found[0])
    kq.control([Kevent(NUMBER, q.EVFILT_SIGNAL)])
    send()
    assert one(kq).ident == NUMBER


@unlike_kernels("never tells a signal's handler")
@pytest.mark.skipif(not IS_LINUX, reason="kernels watch signals by themselves")
def test_a_played_kqueue_is_closed_in_any_thread(handled: list[int]) -> None:
    """The handler that it cannot take back there goes on to call the program's own."""
    before = signal.getsignal(NUMBER)
    kq = System().kqueue()
    kq.control([Kevent(NUMBER, q.EVFILT_SIGNAL)])
    thread = threading.Thread(target=kq.close)
    thread.start()
    thread.join()
    send()
    assert handled == [NUMBER]
    with System().kqueue() as again:
        again.control([Kevent(NUMBER, q.EVFILT_SIGNAL)])
        send()
        assert one(again).data == 1
    assert (handled, signal.getsignal(NUMBER)) == ([NUMBER] * 2, before)


@unlike_kernels("never tells a signal's handler")
def test_a_signal_without_a_handler_does_what_it_does(kq: Kq) -> None:
    """The end of a child is told by SIGCHLD, of which a program need know nothing."""
    assert signal.getsignal(signal.SIGCHLD) == signal.SIG_DFL
    kq.control([Kevent(signal.SIGCHLD, q.EVFILT_SIGNAL)])
    with child("exit 0") as (pid, writer):
        os.write(writer, b"\n")
        assert one(kq).ident == signal.SIGCHLD
        assert os.waitpid(pid, 0) == (pid, 0)
    kq.control([Kevent(signal.SIGCHLD, q.EVFILT_SIGNAL, q.EV_DELETE)])
    assert signal.getsignal(signal.SIGCHLD) == signal.SIG_DFL


# --- processes -----------------------------------------------------------------------------------


@contextlib.contextmanager
def child(command: str) -> Iterator[tuple[int, int]]:
    """A shell that runs a command when it is told to go on: its pid, and where to tell it."""
    reader, writer = os.pipe()
    actions = [(os.POSIX_SPAWN_DUP2, reader, 0)]
    pid = os.posix_spawn(
        "/bin/sh", ["sh", "-c", f"read x; {command}"], os.environ, file_actions=actions
    )
    os.close(reader)
    try:
        yield pid, writer
    finally:
        os.close(writer)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, 0)


EXIT = q.NOTE_EXIT | q.NOTE_EXITSTATUS


@pytest.mark.parametrize("command", ["exit 3", "exit 0", "kill -TERM $$"])
def test_the_end_of_a_process_is_told(kq: Kq, command: str) -> None:
    """Once, with what wait(2) says then, for it is left to be waited for."""
    with child(command) as (pid, writer):
        kq.control([Kevent(pid, q.EVFILT_PROC, q.EV_ADD, EXIT, udata=6)])
        assert kq.control((), 64, 0) == []
        os.write(writer, b"\n")
        event = one(kq)
        assert event.flags & q.EV_EOF
        assert event.fflags & q.NOTE_EXIT
        assert (event.ident, event.filter, event.udata) == (pid, q.EVFILT_PROC, 6)
        assert os.waitpid(pid, 0) == (pid, event.data)
        assert refusal(kq, Kevent(pid, q.EVFILT_PROC, q.EV_DELETE)) == errno.ENOENT


def test_a_process_that_has_ended_is_told(kq: Kq) -> None:
    """Whoever is too late need not look whether that is so."""
    with child("exit 5") as (pid, writer):
        os.write(writer, b"\n")
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        kq.control([Kevent(pid, q.EVFILT_PROC, q.EV_ADD, EXIT)])
        assert os.waitstatus_to_exitcode(one(kq).data) == 5


def test_a_process_that_is_not_there(kq: Kq) -> None:
    """It is refused, and so is not to be watched any longer where nobody did."""
    with child("exit 0") as (pid, writer):
        os.write(writer, b"\n")
        os.waitpid(pid, 0)
        assert refusal(kq, Kevent(pid, q.EVFILT_PROC, q.EV_ADD, EXIT)) == errno.ESRCH
        assert refusal(kq, Kevent(pid, q.EVFILT_PROC, q.EV_DELETE)) == errno.ENOENT


def test_a_process_is_watched_no_more(kq: Kq) -> None:
    """After EV_DELETE its end is not told."""
    with child("exit 0") as (pid, writer), child("exit 0") as (other, other_writer):
        kq.control([Kevent(one, q.EVFILT_PROC, q.EV_ADD, EXIT) for one in (pid, other)])
        kq.control([Kevent(pid, q.EVFILT_PROC, q.EV_DELETE)])
        os.write(writer, b"\n")
        os.waitpid(pid, 0)
        os.write(other_writer, b"\n")
        assert one(kq).ident == other


class _NoPidfd(System):
    """A system whose processes only a kqueue can watch."""

    def __init__(self) -> None:
        super().__init__()
        self.pidfd_open = None
        self.made: list[Kq] = []

    def kqueue(self) -> Kq:
        self.made.append(super().kqueue())
        return self.made[-1]


@unlike_kernels("gives out the write end of a pipe as its descriptor")
def test_the_end_of_a_process_as_a_descriptor() -> None:
    """Without pidfds it is a kqueue's own; ESRCH where there is no such process any more."""
    system = _NoPidfd()
    poll = select.poll()
    with child("exit 3") as (pid, writer):
        fd = system.open_pidfd(pid)
        assert system.made[0].fileno() == -1  # which is nobody's but the caller's
        poll.register(fd, select.POLLIN)
        assert poll.poll(0) == []
        os.write(writer, b"\n")
        assert poll.poll(PATIENCE_NS // 1_000_000) == [(fd, select.POLLIN)]
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 3
        os.close(fd)
        assert system.open_pidfd(pid) == -errno.ESRCH
        assert system.made[1].fileno() == -1


@pytest.mark.skipif(not IS_LINUX, reason="the systems that have a kqueue tell of this")
@pytest.mark.parametrize("note", [q.NOTE_FORK, q.NOTE_EXEC, q.NOTE_TRACK])
def test_what_linux_does_not_tell_of_processes(kq: Kq, note: int) -> None:
    """It is refused, rather than never told."""
    with pytest.raises(UnsupportedError, match="EVFILT_PROC"):
        kq.control([Kevent(os.getpid(), q.EVFILT_PROC, q.EV_ADD, note)])


# --- files ---------------------------------------------------------------------------------------

ALL = (
    q.NOTE_DELETE | q.NOTE_WRITE | q.NOTE_EXTEND | q.NOTE_ATTRIB | q.NOTE_LINK | q.NOTE_RENAME
)  # fmt: skip


@contextlib.contextmanager
def watched(kq: Kq, path: Path, notes: int = ALL, flags: int = q.EV_CLEAR) -> Iterator[int]:
    fd = os.open(path, os.O_RDONLY)
    try:
        kq.control([Kevent(fd, q.EVFILT_VNODE, q.EV_ADD | flags, notes, udata=8)])
        assert kq.control((), 64, 0) == []
        yield fd
    finally:
        with contextlib.suppress(OpError):  # before it is closed, for libkqueue's sake
            kq.control([Kevent(fd, q.EVFILT_VNODE, q.EV_DELETE)])
        os.close(fd)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    made = tmp_path / "file"
    made.write_bytes(b"0123456789")
    return made


def notes_of(kq: Kq, fd: int) -> int:
    event = one(kq)
    assert (event.ident, event.filter, event.udata) == (fd, q.EVFILT_VNODE, 8)
    return event.fflags


def test_a_write_is_told(kq: Kq, path: Path) -> None:
    """One that makes the file longer says so; and each once, with EV_CLEAR."""
    with watched(kq, path) as fd:
        for mode, at_least, at_most in (
            ("r+b", q.NOTE_WRITE, q.NOTE_WRITE | q.NOTE_ATTRIB),
            ("ab", q.NOTE_WRITE | q.NOTE_EXTEND, q.NOTE_WRITE | q.NOTE_EXTEND | q.NOTE_ATTRIB),
        ):
            with path.open(mode) as file:
                file.write(b"x")
            notes = notes_of(kq, fd)
            assert notes & at_least == at_least
            assert not notes & ~at_most
            assert kq.control((), 64, 0) == []


def test_other_changes_of_a_file_are_told(kq: Kq, path: Path) -> None:
    """Its mode, another name, its own name, and its end."""
    with watched(kq, path) as fd:
        path.chmod(0o600)
        assert notes_of(kq, fd) & ALL == q.NOTE_ATTRIB
        os.link(path, path.with_name("other"))
        assert notes_of(kq, fd) & q.NOTE_LINK
        path.rename(path.with_name("moved"))
        assert notes_of(kq, fd) & q.NOTE_RENAME
        path.with_name("other").unlink()
        assert notes_of(kq, fd) & (q.NOTE_LINK | q.NOTE_DELETE)
        path.with_name("moved").unlink()
        assert notes_of(kq, fd) & q.NOTE_DELETE


def test_only_what_was_asked_for_is_told(kq: Kq, path: Path) -> None:
    """And changes between two looks are one event."""
    with watched(kq, path, q.NOTE_RENAME | q.NOTE_EXTEND) as fd:
        path.chmod(0o600)
        assert kq.control((), 64, 0) == []
        with path.open("ab") as file:
            file.write(b"x")
        path.rename(path.with_name("moved"))
        assert notes_of(kq, fd) == q.NOTE_RENAME | q.NOTE_EXTEND
        assert kq.control((), 64, 0) == []


def test_a_folder_is_written_by_its_entries(kq: Kq, path: Path) -> None:
    """A file that comes or goes is a write; a folder is a link as well, where it has one."""
    with watched(kq, path.parent) as fd:
        path.with_name("new").touch()
        assert notes_of(kq, fd) & q.NOTE_WRITE
        path.unlink()
        assert notes_of(kq, fd) & q.NOTE_WRITE
        path.with_name("folder").mkdir()
        assert notes_of(kq, fd) & q.NOTE_WRITE


@unlike_kernels("tells each change once, whatever is asked for")
def test_a_change_holds(kq: Kq, path: Path) -> None:
    """Without EV_CLEAR it is told until the file is watched no more, and others join it."""
    with watched(kq, path, flags=0) as fd:
        path.chmod(0o600)
        assert notes_of(kq, fd) == q.NOTE_ATTRIB
        assert notes_of(kq, fd) == q.NOTE_ATTRIB
        path.rename(path.with_name("moved"))
        assert notes_of(kq, fd) == q.NOTE_ATTRIB | q.NOTE_RENAME


@unlike_kernels("does not learn that a descriptor was closed (its BUGS.md)")
def test_a_file_is_watched_as_long_as_it_is_open(kq: Kq, path: Path) -> None:
    """The watch goes with its descriptor, and does not pass on to the next of that number."""
    fd = os.open(path, os.O_RDONLY)
    kq.control([Kevent(fd, q.EVFILT_VNODE, q.EV_ADD | q.EV_CLEAR, ALL)])
    os.close(fd)
    path.chmod(0o600)
    assert kq.control((), 64, 0) == []
    again = os.open(path.parent, os.O_RDONLY)
    try:
        assert again == fd
        path.chmod(0o644)
        path.unlink()
        assert kq.control((), 64, 0) == []
        assert refusal(kq, Kevent(fd, q.EVFILT_VNODE, q.EV_DELETE)) == errno.ENOENT
    finally:
        os.close(again)


def test_oneshot_watches(kq: Kq, path: Path) -> None:
    """They go with their event."""
    with watched(kq, path, flags=q.EV_CLEAR | q.EV_ONESHOT) as fd:
        path.chmod(0o600)
        assert notes_of(kq, fd) == q.NOTE_ATTRIB
        assert refusal(kq, Kevent(fd, q.EVFILT_VNODE, q.EV_DELETE)) == errno.ENOENT


def test_what_is_watched_can_be_changed(kq: Kq, path: Path) -> None:
    """Adding it again asks for other notes."""
    with watched(kq, path, q.NOTE_DELETE) as fd:
        kq.control([
            Kevent(fd, q.EVFILT_VNODE, q.EV_ADD | q.EV_CLEAR, q.NOTE_ATTRIB, udata=8)
        ])  # fmt: skip
        path.chmod(0o600)
        assert notes_of(kq, fd) == q.NOTE_ATTRIB


def unless_unsupported(kq: Kq, path: Path, note: int) -> None:
    """Skip where the system has no such note: that it is refused is shown elsewhere."""
    with path.open() as file:
        try:
            kq.control([Kevent(file.fileno(), q.EVFILT_VNODE, q.EV_ADD, note)])
        except UnsupportedError as error:
            pytest.skip(str(error))
        kq.control([Kevent(file.fileno(), q.EVFILT_VNODE, q.EV_DELETE)])


def test_a_shorter_file_is_told(kq: Kq, path: Path) -> None:
    """With NOTE_TRUNCATE, where there is one."""
    unless_unsupported(kq, path, q.NOTE_TRUNCATE)
    with watched(kq, path, q.NOTE_TRUNCATE) as fd:
        os.truncate(path, 3)
        assert notes_of(kq, fd) == q.NOTE_TRUNCATE


def test_the_use_of_a_file_is_told(kq: Kq, path: Path) -> None:
    """Who opens, reads and closes it, where the system tells that."""
    uses = q.NOTE_OPEN | q.NOTE_READ | q.NOTE_CLOSE | q.NOTE_CLOSE_WRITE
    unless_unsupported(kq, path, uses)
    with watched(kq, path, uses) as fd:
        with path.open("rb") as file:
            assert notes_of(kq, fd) == q.NOTE_OPEN
            assert file.read() == b"0123456789"
            assert notes_of(kq, fd) == q.NOTE_READ
        assert notes_of(kq, fd) == q.NOTE_CLOSE
        with path.open("ab"):
            assert notes_of(kq, fd) == q.NOTE_OPEN
        assert notes_of(kq, fd) == q.NOTE_CLOSE_WRITE


def test_what_cannot_be_watched(kq: Kq, path: Path) -> None:
    """A number that names nothing."""
    with path.open() as file:
        fd = file.fileno()
    assert refusal(kq, Kevent(fd, q.EVFILT_VNODE, q.EV_ADD, ALL)) == errno.EBADF


def test_nothing_is_left_open(path: Path) -> None:
    """Whatever is watched, closing the kqueue gives back every descriptor it has made."""
    before = set(os.listdir("/proc/self/fd")) if IS_LINUX else set()
    with System().kqueue() as kq, path.open() as file, child("exit 0") as (pid, _):
        kq.control(
            [
                Kevent(1, q.EVFILT_TIMER, data=1000),
                Kevent(2, q.EVFILT_USER),
                Kevent(pid, q.EVFILT_PROC, q.EV_ADD, EXIT),
                Kevent(file.fileno(), q.EVFILT_VNODE, q.EV_ADD, ALL),
            ]
        )
    if IS_LINUX and not LIBRARY:  # which closes its own later, in a thread
        assert set(os.listdir("/proc/self/fd")) == before
