"""What only the epoll driver can get wrong: edges, spared attempts, stale numbers."""

import array
import errno
import gc
import os
import select
import signal
import socket
import weakref
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.driver.conftest import RigMaker
from tests.driver.rig import (
    SEND_ALL_FLAGS,
    Rig,
    StandInCancelled,
    connected,
    empty,
    fill,
    in_thread,
    pair,
    pipe,
)
from tests.driver.test_moments import striking
from tests.fresh import FreshPython
from uringio._driver import op as o
from uringio._driver.op import NEW, SUBMITTED, Op
from uringio._sys.sockaddr import pack_sockaddr
from uringio._sys.system import System
from uringio.errors import OpError


class Counting(System):
    """A system that counts the calls of epoll's, of reads, and of sends by either door."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: Counter[str] = Counter()
        read, bare_send = self.read_bytes, self.bare_send

        def counted(fd: int, size: int) -> bytes:
            self.calls["read"] += 1
            return read(fd, size)

        def counted_send(fd: int, data: bytes, size: int, flags: int, /) -> int:
            self.calls["early send"] += 1
            return bare_send(fd, data, size, flags)

        self.read_bytes = counted
        self.bare_send = counted_send

    def sender(self, fd: int) -> Callable[[bytes, int], int] | None:
        send = super().sender(fd)
        assert send is not None
        self.calls["sender"] += 1

        def counted(data: bytes, flags: int) -> int:
            self.calls["send"] += 1
            return send(data, flags)

        return counted

    def epoll(self) -> Any:
        real, calls = super().epoll(), self.calls

        def counted(name: str) -> Callable[..., object]:
            def call(*arguments: int) -> object:
                calls[name] += 1
                return getattr(real, name)(*arguments)

            return call

        class Epoll:
            register, modify, unregister = map(counted, ("register", "modify", "unregister"))
            poll, close = map(counted, ("poll", "close"))
            register, modify, unregister = map(staticmethod, (register, modify, unregister))
            poll, close = staticmethod(poll), staticmethod(close)
            fileno = staticmethod(real.fileno)

        return Epoll()


@pytest.fixture
def system() -> Counting:
    return Counting()


@pytest.fixture
def rig(make_rig: RigMaker, system: Counting) -> Rig:
    """An epoll driver on a `Counting` system, its own set-up not counted."""
    made = make_rig("epoll", system=system)
    system.calls.clear()
    return made


# --- costs ---------------------------------------------------------------------------------------


def test_a_descriptor_costs_one_epoll_ctl(rig: Rig, system: Counting) -> None:
    """Hundreds of waits in both directions register once; closing needs no call."""
    ours, theirs = pair(rig)
    for n in range(200):
        op = rig.recv(ours.fileno())
        rig.turn()
        theirs.sendall(b"x")
        assert rig.finish(op) == b"x"
        if n == 100:
            fill(ours)
            blocked = rig.send_all(ours.fileno(), b"more")
            while blocked.state == SUBMITTED:
                empty(theirs)
                rig.turn()
            rig.wait(blocked)
            empty(theirs)
    rig.driver.unregister(ours.fileno())
    rig.do(Op(o.CLOSE, ours.detach()))
    rig.turn()
    theirs.close()
    assert system.calls["register"] == 1
    assert system.calls["modify"] == system.calls["unregister"] == 0


def test_a_descriptor_that_stays_open_is_watched_no_more(rig: Rig, system: Counting) -> None:
    """After `unregister` its edges reach nobody; taken up again, it is heard as before."""
    with connected(rig) as (ours, theirs):
        fd = ours.fileno()
        for turns_between in (0, 1, 0):
            op = rig.recv(fd)
            rig.turn()
            rig.driver.cancel(op)
            rig.wait(op)
            rig.driver.unregister(fd)
            for _ in range(turns_between):
                rig.turn()
            theirs.sendall(b"x")
            if turns_between:
                rig.turn()
                assert rig.driver.statistics().stray == 0
            rig.driver.register(fd)
            assert rig.do(Op(o.RECV, fd, len_=9)) == b"x"
            op = rig.recv(fd)
            rig.turn()
            theirs.sendall(b"y")
            assert rig.finish(op) == b"y"
    assert system.calls["modify"] == 0


def test_a_descriptor_that_never_waits_is_never_watched(rig: Rig, system: Counting) -> None:
    """Ops that succeed at once cost no epoll_ctl at all."""
    ours, theirs = pair(rig)
    for _ in range(10):
        theirs.sendall(b"x")
        assert rig.do(Op(o.RECV, ours.fileno(), len_=10)) == b"x"
        rig.finish(rig.send_all(ours.fileno(), b"y"))
    rig.driver.unregister(ours.fileno())
    ours.close()
    theirs.close()
    assert not system.calls.keys() & {"register", "modify", "unregister"}


def test_an_echo_costs_a_read_a_send_and_a_share_in_a_wait(rig: Rig, system: Counting) -> None:
    """
    What the kernel is asked for per message: nothing is tried in vain, and nothing armed anew.

    After a short read from a TCP socket the next RECV waits for the edge without trying.  The first
    send of a connection goes by ctypes; from the second one on it has the library's own.
    """
    rounds, count = 20, 5
    with ExitStack() as stack:
        pairs = [stack.enter_context(connected(rig)) for _ in range(count)]
        ops = [rig.recv(ours.fileno()) for ours, _ in pairs]
        rig.turn()
        system.calls.clear()
        arrivals = select.poll()
        for _ in range(rounds):
            for ours, theirs in pairs:
                theirs.sendall(b"ping")
                arrivals.register(ours, select.POLLIN)
            for ours, _ in pairs:
                arrivals.poll(50_000)
                arrivals.unregister(ours)
            rig.driver.turn(None)
            rig.wait(*ops)
            assert [op.value for op in ops] == [b"ping"] * count
            rig.wait(*(rig.send_all(ours.fileno(), b"pong") for ours, _ in pairs))
            assert [theirs.recv(10) for _, theirs in pairs] == [b"pong"] * count
            ops = [rig.recv(ours.fileno()) for ours, _ in pairs]
        assert system.calls == {
            "read": rounds * count,
            "early send": count,
            "sender": count,
            "send": (rounds - 1) * count,
            "poll": rounds,
        }
        for op in ops:
            rig.driver.cancel(op)
        rig.wait(*ops)


@pytest.mark.parametrize("in_turn", [False, True])
def test_a_handler_that_times_out_within_a_read(make_rig: RigMaker, in_turn: bool) -> None:
    """os.read runs handlers when it is interrupted; what they raise is not the descriptor's."""

    class Interrupted(System):
        armed = False

        def __init__(self) -> None:
            super().__init__()
            read = self.read_bytes

            def read_bytes(fd: int, size: int) -> bytes:
                if self.armed:
                    self.armed = False
                    raise TimeoutError("a handler's")
                return read(fd, size)

            self.read_bytes = read_bytes

    system = Interrupted()
    rig = make_rig("epoll", system=system)
    with connected(rig) as (ours, theirs):
        op: Op[Any] = Op(o.RECV, ours.fileno(), len_=9)
        if in_turn:
            rig.submit(op)
        theirs.sendall(b"ping")
        system.armed = True
        with pytest.raises(TimeoutError, match="a handler's"):
            if in_turn:
                rig.driver.turn(None)
            else:
                rig.driver.submit(op)
        if not in_turn:
            rig.driver.cancel(op)
            with pytest.raises(StandInCancelled):
                rig.finish(op)
            op = rig.recv(ours.fileno())
        assert rig.finish(op) == b"ping"


def test_a_signal_handlers_timeout_is_no_failure_of_the_descriptor(rig: Rig) -> None:
    """A handler that raises TimeoutError, an OSError without errno, gets it through; ops go on."""
    index, struck = 0, True
    with connected(rig) as (ours, theirs):
        for _ in range(3):
            rig.finish(rig.send_all(ours.fileno(), b"x"))

        def strike() -> None:
            raise TimeoutError("a handler's")

        while struck:
            op = rig.recv(ours.fileno())
            rig.turn()
            theirs.sendall(b"ping")
            try:
                with striking(index, strike) as moments:
                    rig.driver.turn(None)
            except TimeoutError:
                assert moments.struck
            struck = moments.struck
            assert rig.finish(op) == b"ping"
            index += 1
        assert index > 2
        index, struck = 0, True
        while struck:
            op = Op(o.SEND_ALL, ours.fileno(), len_=1, memory=b"y", flags=SEND_ALL_FLAGS)
            try:
                with striking(index, strike) as moments:
                    rig.driver.submit(op)
            except TimeoutError as error:
                assert moments.struck
                if op.state == SUBMITTED:
                    rig.driver.cancel(op, error)
            struck = moments.struck
            if op.state == NEW:
                rig.submit(op)
            try:
                rig.finish(op)
            except TimeoutError:
                pass
            index += 1
        assert index > 2
        assert rig.in_flight() == 0


# --- deadlines -----------------------------------------------------------------------------------


class Waiting(System):
    """A system that notes how long its epoll is asked to wait, by either door."""

    def __init__(self) -> None:
        super().__init__()
        self.rounded_s: list[float] = []
        self.exact_ns: list[int] = []
        self.interruptions = 0

    def epoll(self) -> Any:
        real, noted = super().epoll(), self.rounded_s

        class Epoll:
            def __getattr__(self, name: str) -> Any:
                return getattr(real, name)

            def poll(self, seconds: float, count: int) -> object:
                noted.append(seconds)
                return real.poll(seconds, count)

        return Epoll()

    def epoll_waiter(self, fd: int) -> Callable[[int, int], list[tuple[int, int]]] | None:
        wait = super().epoll_waiter(fd)
        assert wait is not None

        def noting(timeout_ns: int, count: int) -> list[tuple[int, int]]:
            if self.interruptions:
                self.interruptions -= 1
                return []
            self.exact_ns.append(timeout_ns)
            return wait(timeout_ns, count)

        return noting


def test_a_deadline_is_waited_for_in_nanoseconds(make_rig: RigMaker) -> None:
    """The first part by the quick door, never to the end; what is left by the exact one."""
    system = Waiting()
    rig = make_rig("epoll", system=system)
    lengths_ns = (400_000, 4_700_000, 20_300_000)
    for length_ns in lengths_ns:
        system.rounded_s.clear()
        system.exact_ns.clear()
        timer = rig.timeout(length_ns)
        rig.driver.turn(None)
        assert rig.is_delivered(timer)  # so the one turn lasted until then
        rig.wait(timer)
        # None if it was over before the wait began; more if something interrupted it.
        assert len(system.exact_ns) <= 5
        assert all(0 <= left <= length_ns for left in system.exact_ns)
        assert len(system.rounded_s) <= 1
        # Rounded up to its millisecond it ends before the deadline does.
        assert all(-(-one // 0.001) / 1000 < length_ns / 1e9 for one in system.rounded_s)


def test_an_interrupted_wait_is_gone_on_with(make_rig: RigMaker) -> None:
    """
    What the kernel breaks off for its own sake, such as to close a ring of this thread, is no
    reason to return before the deadline.
    """
    system = Waiting()
    rig = make_rig("epoll", system=system)
    timer = rig.timeout(400_000)
    system.interruptions = 3
    rig.driver.turn(None)
    assert rig.is_delivered(timer)
    rig.wait(timer)


def test_what_comes_before_the_deadline_costs_one_wait(make_rig: RigMaker) -> None:
    """A deadline that is not reached costs no second call."""
    system = Waiting()
    rig = make_rig("epoll", system=system)
    timer = rig.timeout(40_000_000_000)
    with connected(rig) as (ours, theirs):
        op = rig.recv(ours.fileno())
        theirs.sendall(b"x")
        rig.driver.turn(None)
        assert rig.finish(op) == b"x"
    assert system.exact_ns == []
    assert 0 < system.rounded_s[0] < 40
    rig.driver.cancel(timer)
    rig.wait(timer)


def test_the_last_timer_that_is_cancelled_is_let_go_of(rig: Rig) -> None:
    """With no timer left nobody looks at the heap, so it must not keep cancelled ones."""
    timers = [rig.timeout(40_000_000_000) for _ in range(3)]
    for timer in timers:
        rig.driver.cancel(timer)
    rig.wait(*timers)
    kept = [weakref.ref(timer) for timer in timers]
    timers.clear()
    del timer
    gc.collect()
    assert [one() for one in kept] == [None] * 3


def test_a_system_without_an_exact_wait_rounds_up(make_rig: RigMaker) -> None:
    """Nothing is early all the same."""

    class Plain(Waiting):
        def epoll_waiter(self, fd: int) -> None:
            return None

    rig = make_rig("epoll", system=Plain())
    timer = rig.timeout(300_000)
    rig.driver.turn(None)
    assert rig.is_delivered(timer)
    rig.wait(timer)


# --- where a short read proves nothing -----------------------------------------------------------


def test_data_behind_urgent_data_is_read(rig: Rig) -> None:
    """A read that ends at the urgent mark leaves data for which no edge comes: it is read."""
    with connected(rig) as (ours, theirs):
        op = rig.recv(ours.fileno())
        rig.turn()
        theirs.sendall(b"before")
        theirs.send(b"!", socket.MSG_OOB)
        theirs.sendall(b"behind")
        received = rig.finish(op)
        while len(received) < 12:
            received += rig.do(Op(o.RECV, ours.fileno(), len_=100))
        assert received == b"beforebehind"


def test_a_receive_of_urgent_data_does_not_hold_up_the_stream(rig: Rig) -> None:
    """A RECV with MSG_OOB that finds none, or waits, does not make the stream look dry."""
    with connected(rig) as (ours, theirs):
        theirs.sendall(b"x")
        with pytest.raises(OpError) as caught:
            rig.do(Op(o.RECV, ours.fileno(), len_=1, flags=socket.MSG_OOB))
        assert caught.value.errno == errno.EINVAL
        assert rig.do(Op(o.RECV, ours.fileno(), len_=9)) == b"x"


def test_data_behind_passed_descriptors_is_read(rig: Rig) -> None:
    """A Unix read ends at a message with descriptors; what lies behind it is read all the same."""
    with connected(rig, "unix") as (ours, theirs):
        op = rig.recv(ours.fileno())
        rig.turn()
        carried = array.array("i", [0]).tobytes()
        theirs.sendmsg([b"first"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, carried)])
        theirs.sendall(b"second")
        received = rig.finish(op)
        while len(received) < 11:
            received += rig.do(Op(o.RECV, ours.fileno(), len_=100))
        assert received == b"firstsecond"


def test_the_end_that_came_with_the_last_bytes_is_seen(rig: Rig) -> None:
    """Data and end in one edge: the short read does not hide the end behind it."""
    for _ in range(20):
        with connected(rig) as (ours, theirs):
            op = rig.recv(ours.fileno())
            rig.turn()
            theirs.sendall(b"last")
            theirs.close()
            assert rig.finish(op) == b"last"
            assert rig.do(Op(o.RECV, ours.fileno(), len_=100)) == b""


def test_peeked_bytes_are_still_there(rig: Rig) -> None:
    """A peek is short but takes nothing: the next RECV does not wait."""
    with connected(rig) as (ours, theirs):
        waiting = rig.recv(ours.fileno(), 100, socket.MSG_PEEK)
        rig.turn()
        theirs.sendall(b"x")
        assert rig.finish(waiting) == b"x"
        assert rig.do(Op(o.RECV_INTO, ours.fileno(), len_=9, memory=bytearray(9))) == 1


def test_an_edge_without_a_reader_is_remembered(rig: Rig) -> None:
    """Bytes that arrive while nobody reads are had by a later RECV, which sees no edge."""
    with connected(rig) as (ours, theirs):
        op = rig.recv(ours.fileno())
        rig.turn()
        theirs.sendall(b"1")
        assert rig.finish(op) == b"1"
        theirs.sendall(b"2")
        rig.turn()
        rig.turn()
        assert rig.do(Op(o.RECV, ours.fileno(), len_=9)) == b"2"


def test_after_a_long_read_the_poller_is_asked(rig: Rig, system: Counting) -> None:
    """A read of 64 KiB may have left more: that costs an epoll_ctl, and no read made in vain."""
    with connected(rig, "unix") as (ours, theirs):
        op = rig.recv(ours.fileno())
        rig.turn()
        for left in (0, 9):
            system.calls.clear()
            theirs.sendall(bytes(65536 + left))
            assert len(rig.finish(op)) == 65536
            op = rig.recv(ours.fileno())
            if left:
                assert len(rig.finish(op)) == left
                op = rig.recv(ours.fileno())
            rig.turn()
            reads = 2 if left else 1
            assert (system.calls["modify"], system.calls["read"]) == (reads, reads)
        # It is not told of room then, which somebody may come to wait for.
        fill(ours)
        blocked = rig.send_all(ours.fileno(), b"more")
        rig.turn()
        assert blocked.state == SUBMITTED
        empty(theirs)
        rig.wait(blocked)
        # Nor is it kept from being told, while somebody does.
        fill(ours)
        blocked = rig.send_all(ours.fileno(), b"more")
        theirs.sendall(bytes(65536))
        rig.wait(op)
        empty(theirs)
        rig.wait(blocked)


def test_a_turn_that_has_read_much_leaves_other_edges_to_the_next(
    rig: Rig, system: Counting
) -> None:
    """Each turn reads two long payloads; those that came with them are had without a wait."""
    with ExitStack() as stack:
        pairs = [stack.enter_context(connected(rig, "unix")) for _ in range(5)]
        ops = [rig.recv(ours.fileno()) for ours, _ in pairs]
        rig.turn()
        system.calls.clear()
        for _, theirs in pairs:
            theirs.sendall(bytes(65536))
        for count in (2, 4, 5):
            rig.driver.turn(None)
            assert len(rig.delivered) == count
            assert (system.calls["poll"], system.calls["read"]) == (1, count)
        assert {len(op.value) for op in ops} == {65536}
        rig.driver.turn(0)
        assert system.calls["poll"] == 2


# --- queues --------------------------------------------------------------------------------------


def test_readers_take_their_turns(rig: Rig) -> None:
    """Several receives on one stream are served in the order in which they were submitted."""
    with connected(rig) as (ours, theirs):
        ops = [rig.recv(ours.fileno(), 3) for _ in range(4)]
        into = bytearray(3)
        ops.append(rig.submit(Op(o.RECV_INTO, ours.fileno(), len_=3, memory=into)))
        rig.turn()
        theirs.sendall(b"abcdefgh")
        rig.until(lambda: len(rig.delivered) == 3)
        assert [op.value for op in ops[:3]] == [b"abc", b"def", b"gh"]
        theirs.sendall(b"ijkxyz")
        rig.wait(*ops)
        assert ops[3].value == b"ijk"
        assert into == b"xyz"


def test_a_listener_does_not_wake_acceptors_for_nothing(rig: Rig) -> None:
    """One connection serves one of many acceptors, in order; the others wait on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        rig.driver.register(listener.fileno())
        ops = [rig.submit(Op(o.ACCEPT, listener.fileno())) for _ in range(5)]
        for op in ops:
            with socket.create_connection(listener.getsockname()):
                rig.do(Op(o.CLOSE, rig.finish(op)))
        assert rig.delivered == []
        rig.driver.unregister(listener.fileno())


def test_a_connect_is_not_done_before_it_is(rig: Rig) -> None:
    """Other edges of a connecting socket (its registration's) do not end CONNECT early."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener:
        held = []
        for _ in range(3):
            client = socket.socket()
            client.setblocking(False)
            client.connect_ex(listener.getsockname())
            held.append(client)
        packed = pack_sockaddr(socket.AF_INET, listener.getsockname())
        with socket.socket() as ours:
            rig.driver.register(ours.fileno())
            op = rig.submit(Op(o.CONNECT, ours.fileno(), off=len(packed), memory=packed))
            for _ in range(3):
                rig.turn()
            assert op.state == SUBMITTED
            rig.driver.cancel(op)
            with pytest.raises(StandInCancelled):
                rig.finish(op)
            rig.driver.unregister(ours.fileno())
        for client in held:
            client.close()


# --- numbers that change hands -------------------------------------------------------------------


def test_what_waits_on_a_descriptor_ends_when_it_is_closed(rig: Rig) -> None:
    """CLOSE and `unregister` end what is queued with ECANCELED, since no edge will come."""
    for close in (True, False):
        ours, theirs = pair(rig, "unix")
        fd = ours.detach()
        ops = [rig.recv(fd, 4), rig.recv(fd, 4), rig.submit(Op(o.POLL, fd, flags=0x2))]
        rig.turn()
        if close:
            rig.do(Op(o.CLOSE, fd))
        else:
            rig.driver.unregister(fd)
            os.close(fd)
        for op in ops:
            with pytest.raises(OpError) as caught:
                rig.finish(op)
            assert caught.value.errno == errno.ECANCELED
        theirs.close()


def test_a_duplicate_does_not_haunt_its_successor(rig: Rig) -> None:
    """A closed number whose file lives on in a duplicate can be watched anew for another file."""
    ours, theirs = pair(rig)
    fd = ours.detach()
    op = rig.recv(fd)
    rig.turn()
    ghost = os.dup(fd)
    rig.driver.cancel(op)
    rig.wait(op)
    rig.do(Op(o.CLOSE, fd))
    second, second_theirs = pair(rig)
    os.dup2(second.fileno(), fd)
    rig.driver.register(fd)
    op = rig.recv(fd)
    rig.turn()
    theirs.sendall(b"for the ghost")
    for _ in range(3):
        rig.turn()
    assert op.state == SUBMITTED
    second_theirs.sendall(b"for the living")
    assert rig.finish(op) == b"for the living"
    rig.do(Op(o.CLOSE, fd))
    second.close()
    os.close(ghost)
    theirs.close()
    second_theirs.close()


def test_the_same_file_is_watched_again(rig: Rig) -> None:
    """Registering a watched descriptor again starts it anew without losing its readiness."""
    with connected(rig) as (ours, theirs):
        fd = ours.fileno()
        op = rig.recv(fd)
        rig.turn()
        rig.driver.cancel(op)
        rig.wait(op)
        rig.driver.register(fd)
        op = rig.recv(fd)
        rig.turn()
        theirs.sendall(b"x")
        assert rig.finish(op) == b"x"


def test_a_number_watched_behind_our_back_is_taken_over(rig: Rig, system: Counting) -> None:
    """EEXIST from epoll_ctl is answered by modifying, which reports the present state anew."""
    with connected(rig) as (ours, theirs):
        fd = ours.fileno()
        op = rig.recv(fd)
        rig.turn()
        rig.driver.cancel(op)
        rig.wait(op)
        moved = os.dup(fd)
        ours.detach()
        rig.do(Op(o.CLOSE, fd))
        os.dup2(moved, fd)
        os.close(moved)
        rig.driver.register(fd)
        op = rig.recv(fd)
        rig.turn()
        theirs.sendall(b"x")
        assert rig.finish(op) == b"x"
        assert system.calls["modify"] == 1
        rig.do(Op(o.CLOSE, fd))


def test_what_cannot_be_watched_fails(rig: Rig, tmp_path: Path) -> None:
    """Waiting for what epoll refuses to watch (EPERM) fails as it does on io_uring, with EINVAL."""
    with (tmp_path / "f").open("w+") as file, pytest.raises(OpError) as caught:
        rig.do(Op(o.POLL, file.fileno(), flags=0x2))
    assert caught.value.errno == errno.EINVAL
    assert rig.in_flight() == 0


# --- signals and wake-ups ------------------------------------------------------------------------


def test_a_broken_pipe_raises_no_signal(fresh_python: FreshPython) -> None:
    """With SIGPIPE at its default, which kills, sending to a closed peer is an error like any."""
    run = fresh_python(
        """
        import signal, socket
        from uringio._driver.choice import make_driver
        from uringio._driver.op import SEND, SEND_ALL, Op
        from uringio._driver.sockets import SEND_ALL_FLAGS, SEND_FLAGS

        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        delivered = []
        driver = make_driver(delivered.append, lambda op: BaseException(), backend="epoll")
        for memory in (b"bytes", bytearray(b"others")):
            for code, flags in ((SEND, SEND_FLAGS), (SEND_ALL, SEND_ALL_FLAGS)):
                ours, theirs = socket.socketpair()
                theirs.close()
                driver.register(ours.fileno())
                driver.submit(Op(code, ours.fileno(), len_=5, flags=flags, memory=memory))
                ours.close()
        ours, theirs = socket.socketpair()
        driver.register(ours.fileno())
        for n in range(4):
            if n == 3:
                theirs.close()
            driver.submit(Op(SEND_ALL, ours.fileno(), len_=1, flags=SEND_ALL_FLAGS, memory=b"."))
        driver.close()
        print([type(op.error).__mro__[2].__name__ for op in delivered if op.error])
        print(len(delivered))
        """
    ).check()
    assert run.stdout.split("\n")[:2] == [str(["BrokenPipeError"] * 5), "8"]
    assert run.returncode != -signal.SIGPIPE


def test_the_wake_pipe_is_emptied(rig: Rig) -> None:
    """Bytes that signals wrote do not make later turns return at once."""
    os.write(rig.driver.wake_fd, bytes(10_000))
    rig.turn()
    reads = rig.driver.statistics().turns
    op = rig.timeout(3_000_000)
    rig.wait(op)
    assert rig.driver.statistics().turns - reads < 20


def test_a_wake_while_the_wake_pipe_is_emptied_is_not_the_last(make_rig: RigMaker) -> None:
    """A thread that wakes at that very moment is heard, and so is the next."""

    class Raced(System):
        between: list[Callable[[], None]] = []  # noqa: RUF012 - of the one instance

        def drain(self, fd: int) -> None:
            for call in self.between:
                call()
            super().drain(fd)

    system = Raced()
    rig = make_rig("epoll", system=system)
    system.between.append(rig.driver.wake)
    rig.driver.wake()
    rig.turn()
    system.between.clear()
    rig.driver.wake()
    rig.driver.turn(None)


def test_unknown_events_are_counted(rig: Rig) -> None:
    """An event on a descriptor of which the driver knows nothing is stray, and does no harm."""
    with pipe(rig) as (read_end, write_end):
        op = rig.submit(Op(o.READ, read_end, len_=1, memory=bytearray(1)))
        rig.turn()
        rig.turn()
        ghost = os.dup(read_end)
        rig.driver.cancel(op)
        rig.wait(op)
        rig.do(Op(o.CLOSE, read_end))
        os.write(write_end, b"x")
        rig.turn()
        assert rig.driver.statistics().stray == 1
        os.close(ghost)


# --- fairness ------------------------------------------------------------------------------------


def test_a_send_to_a_fast_reader_is_interrupted(make_rig: RigMaker) -> None:
    """One submit of a large SEND_ALL makes few sends, however willing the peer; turns go on."""

    class Eager(System):
        sends = 0

        def __init__(self) -> None:
            super().__init__()
            self.bare_send = lambda *_: self.take(1000)  # type: ignore[assignment]
            self.send = lambda *_: self.take(1000)  # type: ignore[assignment]
            self.sender = lambda _: None  # type: ignore[method-assign]

        def take(self, count: int) -> int:
            self.sends += 1
            return count

    system = Eager()
    rig = make_rig("epoll", system=system)
    with connected(rig) as (ours, _):
        op = rig.send_all(ours.fileno(), bytes(100_000), SEND_ALL_FLAGS)
        assert op.state == SUBMITTED
        assert system.sends < 20
        timer = rig.timeout(0)
        rig.turn()
        assert rig.is_delivered(timer)
        assert op.state == SUBMITTED
        while op.state == SUBMITTED:
            rig.driver.turn(None)  # needs no event to go on
        rig.wait(op, timer)
        assert system.sends == 100
        assert op.done_bytes + op.len == 100_000
        cancelled = rig.send_all(ours.fileno(), bytes(100_000), SEND_ALL_FLAGS)
        rig.turn()
        rig.driver.cancel(cancelled)
        with pytest.raises(StandInCancelled) as caught:
            rig.finish(cancelled)
        assert 0 < caught.value.done < 100_000
        assert rig.in_flight() == 0


def test_senders_and_receivers_on_one_descriptor(rig: Rig) -> None:
    """Both directions of one stream wait at the same time and are served independently."""
    with connected(rig, "unix") as (ours, theirs):
        fill(ours)
        writer = rig.send_all(ours.fileno(), b"end")
        reader = rig.recv(ours.fileno())
        rig.turn()
        theirs.sendall(b"x")
        assert rig.finish(reader) == b"x"
        assert writer.state == SUBMITTED
        reader = rig.recv(ours.fileno())
        emptier = in_thread(lambda: empty(theirs))
        rig.wait(writer)
        emptier.join()
        assert reader.state == SUBMITTED
        theirs.sendall(b"y")
        assert rig.finish(reader) == b"y"
