"""How a driver ends: closed with work in flight, left by its thread, and in a forked child."""

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.driver.conftest import RigMaker
from tests.driver.rig import (
    KINDS,
    PATIENCE_S,
    Orphans,
    Rig,
    connected,
    empty,
    in_thread,
    is_open,
    pair,
)
from tests.driver.waiting import WAITING, Waiting, both_ends_open
from tests.fresh import FreshPython
from tests.leaks import holdings
from uringio._driver import op as o
from uringio._driver.contract import BACKENDS, make_driver
from uringio._driver.op import Offload, Op
from uringio._sys.system import System
from uringio.errors import ClosedError, UsageError

ALL_KINDS = pytest.mark.parametrize("kind", KINDS)


@pytest.fixture
def waiting(make_rig: RigMaker, kind: str, tmp_path: Path) -> Iterator[tuple[Rig, Waiting]]:
    """A driver that the test closes, and makers of ops that wait."""
    rig = make_rig(kind)
    with ExitStack() as stack:
        makers = Waiting(rig, stack, tmp_path)
        yield rig, makers
        makers.released.set()


# --- close ---------------------------------------------------------------------------------------


@ALL_KINDS
@pytest.mark.parametrize("name", WAITING)
def test_closing_ends_what_waits(waiting: tuple[Rig, Waiting], name: str, tmp_path: Path) -> None:
    """Close cancels an op of any kind and lets go of its memory, delivering to nobody."""
    rig, makers = waiting
    op = rig.submit(getattr(makers, name)())
    rig.settle_down()
    with both_ends_open(tmp_path):
        rig.close()
    assert (op.memory, op.hold, op.value) == (None, None, None)
    assert rig.delivered == []


@ALL_KINDS
def test_closing_ends_everything_at_once(waiting: tuple[Rig, Waiting], tmp_path: Path) -> None:
    """One of each kind, some not handed over yet, and memory that may be resized afterwards."""
    rig, makers = waiting
    ops = []
    names = [name for name in WAITING if name != "open_fifo" or not rig.is_uring]
    for n, name in enumerate(names):
        ops.append(rig.submit(getattr(makers, name)()))
        if n == len(WAITING) // 2:
            rig.settle_down()
    memory = bytearray(100)
    ours, theirs = pair(rig)
    ops.append(rig.submit(Op(o.RECV_INTO, ours.fileno(), len_=100, memory=memory)))
    with both_ends_open(tmp_path):
        rig.close()
    memory.clear()
    assert [op for op in ops if op.memory is not None or op.hold is not None] == []
    assert rig.delivered == []
    ours.close()
    theirs.close()


@ALL_KINDS
def test_closing_keeps_no_late_bytes_from_their_owner(make_rig: RigMaker, kind: str) -> None:
    """Bytes that a receive had got when the driver closed go to the owner or stay in the socket."""
    rig = make_rig(kind)
    orphans = Orphans([])
    ours, theirs = pair(rig)
    with ours, theirs:
        rig.recv(ours.fileno(), owner=orphans)
        rig.settle_down()
        theirs.sendall(b"kept")
        rig.driver.close()
        ours.settimeout(0)
        assert b"".join(orphans.given) or ours.recv(10) == b"kept"


@ALL_KINDS
def test_closing_twice_is_harmless_and_using_it_is_refused(make_rig: RigMaker, kind: str) -> None:
    """A closed driver closes again quietly, is not woken, and refuses everything else."""
    rig = make_rig(kind)
    driver = rig.driver
    event = rig.submit(Op(o.EVENT))
    driver.close()
    driver.close()
    driver.leave()
    driver.wake()
    driver.fire(event)
    with socket.socket() as unused:
        driver.unregister(unused.fileno())
        ops = [Op(o.RECV, unused.fileno(), len_=1), Op(o.NOP), Op(o.POLL, 0, flags=1)]
        for use in (
            lambda: driver.turn(0),
            driver.flush,
            lambda: driver.cancel(event),
            lambda: driver.submit(ops[0]),
            lambda: driver.submit(ops[1]),
            lambda: driver.submit(ops[2]),
        ):
            with pytest.raises(ClosedError, match="closed"):
                use()
        for op in ops:
            driver.abandon(op)
    assert rig.delivered == []
    assert driver.statistics().backend == driver.name


@ALL_KINDS
def test_closing_closes_every_descriptor_of_the_driver(kind: str, make_rig: RigMaker) -> None:
    """The ring or epoll descriptor and both ends of the wake pipe are gone at once."""
    before = holdings().fds
    rig = make_rig(kind)
    opened = holdings().fds - before
    assert sorted(target.split(":")[0] for _, target in opened) == ["anon_inode", "pipe", "pipe"]
    assert any(("io_uring" if rig.is_uring else "eventpoll") in target for _, target in opened)
    rig.driver.close()
    assert holdings().fds == before


def test_a_call_that_is_slow_does_not_hold_up_closing(make_rig: RigMaker) -> None:
    """Close abandons offloaded calls: a resolver may take minutes."""
    for kind in KINDS:
        released = threading.Event()
        rig = make_rig(kind)
        rig.submit(Offload(lambda released=released: released.wait(50)))  # type: ignore[misc]
        rig.turn()
        rig.driver.close()
        released.set()


def test_a_file_operation_that_does_not_come_back_is_left(
    make_rig: RigMaker, tmp_path: Path
) -> None:
    """When a thread is stuck at the deadline, close warns; what the thread opens is closed."""
    entered, released, closed = threading.Event(), threading.Event(), threading.Event()
    opened = []

    class Slow(System):
        def open_at(self, dir_fd: int, path: bytes, flags: int, mode: int) -> int:
            entered.set()
            released.wait(PATIENCE_S)
            opened.append(super().open_at(dir_fd, path, flags, mode))
            return opened[0]

    system = Slow()
    close = system.close

    def watched_close(fd: int) -> int:
        result = close(fd)
        if fd in opened:
            closed.set()
        return result

    system.close = watched_close
    rig = make_rig("epoll", system=system)
    rig.submit(Op(o.OPEN, -100, flags=os.O_RDONLY, memory=os.fsencode(tmp_path) + b"\0"))
    assert entered.wait(PATIENCE_S)
    with pytest.warns(ResourceWarning, match="1 file operations"):
        rig.driver.close(0)
    released.set()
    assert closed.wait(PATIENCE_S)


def test_file_operations_are_waited_for(make_rig: RigMaker, tmp_path: Path) -> None:
    """Close waits for the threads: what was begun is done, descriptors are closed."""
    rig = make_rig("epoll")
    fds = [os.open(tmp_path / str(n), os.O_RDWR | os.O_CREAT) for n in range(20)]
    for fd in fds:
        rig.submit(Op(o.WRITE, fd, len_=4, memory=b"data"))
        rig.submit(Op(o.CLOSE, fd))
    rig.close()
    assert not any(is_open(fd) for fd in fds)
    assert {(tmp_path / str(n)).read_bytes() for n in range(20)} <= {b"", b"data"}


# --- leave ---------------------------------------------------------------------------------------


@ALL_KINDS
def test_leaving_from_another_thread(make_rig: RigMaker, kind: str) -> None:
    """`leave` closes a driver whose thread is not here; nothing is delivered, all is refused."""
    rig = make_rig(kind)
    rig.submit(Op(o.TIMEOUT, off=1 << 62))
    rig.submit(Op(o.EVENT))
    rig.turn()
    in_thread(rig.driver.leave).join()
    assert rig.delivered == []
    with pytest.raises(ClosedError):
        rig.driver.turn(0)


# --- choosing ------------------------------------------------------------------------------------


class Blocked(System):
    """A system where io_uring_setup answers an errno."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self._number = number

    def io_uring_setup(self, entries: int, params_addr: int) -> int:
        del entries, params_addr
        return -self._number


@pytest.mark.parametrize("number", [1, 13, 22, 38])
def test_where_io_uring_is_blocked_epoll_is_chosen(number: int) -> None:
    """EPERM, EACCES, EINVAL and ENOSYS mean that another backend is wanted."""
    driver = make_driver(print, lambda _: BaseException(), system=Blocked(number))
    assert driver.name == driver.statistics().backend == "epoll"
    driver.close()
    with pytest.raises(OSError, match="io_uring"):
        make_driver(print, lambda _: BaseException(), backend="uring", system=Blocked(number))


@pytest.mark.parametrize("number", [12, 24, 23])
def test_scarcity_is_never_papered_over(number: int) -> None:
    """ENOMEM, EMFILE and ENFILE are the program's to know, with a remedy."""
    with pytest.raises(OSError, match=r"ulimit|sysctl") as caught:
        make_driver(print, lambda _: BaseException(), system=Blocked(number))
    assert caught.value.errno == number


def test_an_unknown_backend_is_misuse() -> None:
    """A name that is no backend's says which there are."""
    with pytest.raises(UsageError, match=r"uring.*epoll"):
        make_driver(print, lambda _: BaseException(), backend="kqueue?")


# --- fork ----------------------------------------------------------------------------------------

FORK = """
    import os, socket, sys
    from uringio._driver import current
    from uringio._driver.contract import make_driver
    from uringio._driver.op import EVENT, NOP, POLL, READY, RECV, SPENT, TIMEOUT, Op
    from uringio.errors import RingForkedError

    delivered = []
    driver = make_driver(delivered.append, lambda op: BaseException(), backend=sys.argv[1])
    ours, theirs = socket.socketpair()
    driver.register(ours.fileno())
    receiving = Op(RECV, ours.fileno(), len_=10)
    queued = Op(NOP)
    driver.submit(receiving)
    driver.turn(0)
    driver.submit(queued)
    child = os.fork()
    if child == 0:
        def refused(use):
            try:
                use()
            except RingForkedError:
                return True
            return False

        ops = [Op(NOP), Op(RECV, ours.fileno(), len_=1), Op(POLL, 0, flags=1)]
        uses = [
            lambda: driver.turn(0),
            lambda: driver.turn(None),
            lambda: driver.flush(),
            lambda: driver.cancel(receiving),
            *(lambda op=op: driver.submit(op) for op in ops),
        ]
        good = all([refused(use) for use in uses]) and not delivered
        for op in ops:
            driver.abandon(op)
        driver.wake()
        driver.unregister(ours.fileno())
        driver.close()

        # The child may have a loop of its own, over the sockets that it inherited.
        mine = []
        again = make_driver(mine.append, lambda op: BaseException(), backend=sys.argv[1])
        again.submit(op := Op(NOP))
        while not mine:
            again.turn(None)
        again.close()
        good = good and op.value == 0
        if sys.argv[2] == "hard":
            os._exit(0 if good else 9)
        sys.exit(0 if good else 9)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status == 0, status
    theirs.sendall(b"parent")
    while len(delivered) < 2:
        driver.turn(None)
    assert receiving.value == b"parent" and queued.value == 0
    driver.close()
    ours.close(); theirs.close()
    print("good")
"""


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("exit_kind", ["hard", "usual"])
def test_a_forked_child_is_refused_and_the_parent_goes_on(
    fresh_python: FreshPython, backend: str, exit_kind: str
) -> None:
    """In the child every use raises RingForkedError, own loops work; the parent is untouched."""
    run = fresh_python(FORK, backend, exit_kind, options=("-W", "error::RuntimeWarning"))
    assert run.check().stdout.strip().endswith("good")
    assert run.stderr == ""


# --- what stays ----------------------------------------------------------------------------------


@ALL_KINDS
def test_sockets_survive_their_driver(make_rig: RigMaker, kind: str) -> None:
    """Descriptors are the caller's: after close they are open, and a new driver takes them over."""
    first = make_rig(kind)
    with connected(first) as (ours, theirs):
        op = first.recv(ours.fileno())
        first.settle_down()
        first.driver.close()
        assert op.value is None
        second = make_rig(kind)
        second.driver.register(ours.fileno())
        op = second.recv(ours.fileno())
        second.settle_down()
        theirs.sendall(b"x")
        assert second.finish(op) == b"x"
        second.finish(second.send_all(ours.fileno(), b"y"))
        assert theirs.recv(1) == b"y"
        assert empty(theirs) == 0


@pytest.mark.parametrize("kind", ["uring", "epoll"])
def test_closing_waits_for_whoever_wakes(make_rig: RigMaker, kind: str) -> None:
    """A wake from another thread that has begun ends before the pipe's number can be given away."""
    poking, closed = threading.Event(), threading.Event()
    closed_too_early: list[bool] = []

    class Slow(System):
        def poke(self, fd: int) -> None:
            if threading.current_thread() is not threading.main_thread():
                poking.set()
                closed_too_early.append(closed.wait(0.1))  # it must not be; what comes is the wait
            super().poke(fd)

    system = Slow()
    close = system.close

    def note_closing(fd: int) -> None:
        close(fd)
        if fd == rig.driver.wake_fd:
            closed.set()

    system.close = note_closing  # type: ignore[method-assign]
    rig = make_rig(kind, system=system)
    waker = in_thread(rig.driver.wake)
    assert poking.wait(PATIENCE_S)
    rig.driver.close()
    waker.join()
    assert closed_too_early == [False]
    assert closed.is_set()
    rig.driver.wake()  # touches nothing any more
