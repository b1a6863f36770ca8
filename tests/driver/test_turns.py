"""Turns: how long they wait, what ends the wait, wake-ups, calls in threads, counters."""

import os
import signal
import socket
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest

from tests.driver.conftest import RigMaker
from tests.driver.rig import KINDS, PATIENCE_S, Rig, connected, empty, fill, in_thread
from uringio._driver import op as o
from uringio._driver.op import DONE, SUBMITTED, Offload, Op
from uringio._sys.system import System
from uringio.errors import WrongThreadError


@contextmanager
def handling(handler: object) -> Iterator[None]:
    """Have SIGUSR1 handled by *handler*."""
    before = signal.signal(signal.SIGUSR1, handler)  # type: ignore[arg-type]
    try:
        yield
    finally:
        signal.signal(signal.SIGUSR1, before)


def signal_self() -> None:
    signal.pthread_kill(threading.main_thread().ident, signal.SIGUSR1)


# --- waiting -------------------------------------------------------------------------------------


def test_a_turn_with_deadline_zero_does_not_wait(rig: Rig) -> None:
    """With nothing to do, or something that will not come, turn(0) returns."""
    rig.turn()
    with connected(rig) as (ours, _):
        op = rig.recv(ours.fileno())
        for _ in range(3):
            rig.turn()
        assert op.state == SUBMITTED
        rig.driver.cancel(op)
        rig.wait(op)


def test_a_turn_waits_until_its_deadline(rig: Rig) -> None:
    """With nothing happening, one turn lasts until the deadline and not less."""
    for wait_ns in (1, 300_000, 1_000_000, 5_500_000):
        deadline = time.monotonic_ns() + wait_ns
        rig.driver.turn(deadline)
        assert time.monotonic_ns() >= deadline
    rig.driver.turn(time.monotonic_ns() - 1_000_000_000)


def test_a_far_deadline_is_understood(rig: Rig) -> None:
    """A deadline in a thousand years is a wait like any other."""
    rig.driver.wake()
    rig.driver.turn(time.monotonic_ns() + 10**18 * 30)


def test_a_timer_ends_a_longer_wait(rig: Rig) -> None:
    """The nearest timer bounds the turn, with a later deadline or none."""
    for deadline in (None, time.monotonic_ns() + 10**12):
        op = rig.timeout(2_000_000)
        later = rig.timeout(10**12)
        while op.state != DONE:
            rig.driver.turn(deadline)
        rig.driver.cancel(later)
        rig.wait(op, later)


def test_a_cancelled_timer_ends_no_wait(rig: Rig) -> None:
    """A turn does not return for the sake of a timer that was cancelled."""
    op = rig.timeout(1_000_000)
    rig.driver.cancel(op)
    rig.wait(op)
    rig.turn()
    deadline = time.monotonic_ns() + 5_000_000
    rig.driver.turn(deadline)
    assert time.monotonic_ns() >= deadline


def test_a_completion_ends_the_wait(rig: Rig) -> None:
    """A turn without deadline returns when an op is done."""
    with connected(rig) as (ours, theirs):
        op = rig.recv(ours.fileno())
        sender = in_thread(lambda: theirs.sendall(b"x"))
        while op.state != DONE:
            rig.driver.turn(None)
        sender.join()
        assert rig.finish(op) == b"x"


def test_a_busy_stream_does_not_starve_timers(rig: Rig) -> None:
    """With a receive always ready, a timer still comes in its turn."""
    with connected(rig, "unix") as (ours, theirs):
        theirs.sendall(bytes(150_000))
        timer = rig.timeout(1_000_000)
        op = rig.recv(ours.fileno(), 1)
        while timer.state != DONE:
            rig.driver.turn(None)
            if rig.is_delivered(op):
                assert rig.finish(op) == b"\0"
                rig.submit(o.renew(op))
        rig.driver.cancel(op)
        rig.wait(op, timer)


def test_flush_hands_over_without_waiting(rig: Rig) -> None:
    """After `flush` the kernel has what it can have: the peer sees a send without any turn."""
    with connected(rig) as (ours, theirs):
        op = rig.send_all(ours.fileno(), b"out")
        rig.driver.flush()
        assert theirs.recv(10) == b"out"
        rig.wait(op)


def test_flush_alone_brings_what_is_done_at_once(rig: Rig) -> None:
    """What ended while `flush` handed it over is delivered by the next turn, waiting or not."""
    for deadline in (0, None):
        op = rig.submit(Op(o.NOP))
        rig.driver.flush()
        rig.driver.turn(deadline)
        assert op.state == DONE
        rig.wait(op)


# --- wake-ups ------------------------------------------------------------------------------------


def test_wake_ends_the_next_turn(rig: Rig) -> None:
    """A wake before the turn is not lost, and serves one turn."""
    rig.driver.wake()
    rig.driver.turn(None)
    deadline = time.monotonic_ns() + 2_000_000
    while time.monotonic_ns() < deadline:
        rig.driver.turn(deadline)


def test_no_wake_from_a_thread_is_lost(rig: Rig) -> None:
    """A thousand rounds of work left by a thread and one wake: all of it is found."""
    inbox: deque[int] = deque()
    answered = threading.Semaphore(0)

    def produce() -> None:
        for n in range(1000):
            inbox.append(n)
            rig.driver.wake()
            if n % 10 == 0:
                assert answered.acquire(timeout=PATIENCE_S)

    producer = in_thread(produce)
    taken: list[int] = []
    while len(taken) < 1000:
        rig.driver.turn(None)
        while inbox:
            n = inbox.popleft()
            taken.append(n)
            if n % 10 == 0:
                answered.release()
    producer.join()
    assert taken == list(range(1000))


@pytest.mark.parametrize("kind", KINDS)
def test_wakes_are_coalesced(make_rig: RigMaker, kind: str) -> None:
    """Until a turn has answered, a thousand wakes cost one write; after it the next costs one."""
    pokes: list[int] = []

    class Counting(System):
        def poke(self, fd: int) -> None:
            pokes.append(fd)
            super().poke(fd)

    rig = make_rig(kind, system=Counting())
    for _ in range(3):
        for _ in range(1000):
            rig.driver.wake()
        assert len(pokes) == 1
        pokes.clear()
        rig.driver.turn(None)
        rig.turn()


def test_a_signal_handler_wakes(rig: Rig) -> None:
    """`wake` in a Python signal handler ends the wait that the signal interrupted."""
    with handling(lambda *_: rig.driver.wake()):
        for _ in range(20):
            returned = threading.Event()

            def signal_until_returned(returned: threading.Event = returned) -> None:
                # One that comes just before the system call does not interrupt it.
                signal_self()
                while not returned.wait(0.1):
                    signal_self()

            sender = in_thread(signal_until_returned)
            rig.driver.turn(None)
            returned.set()
            sender.join()


def test_a_signal_wakes_by_the_wakeup_fd(rig: Rig) -> None:
    """What `signal.set_wakeup_fd` writes ends the wait, any number of times."""
    handled = []
    before = signal.set_wakeup_fd(rig.driver.wake_fd)
    try:
        with handling(lambda *_: handled.append(1)):
            for n in range(20):
                sender = in_thread(signal_self)
                while len(handled) <= n:
                    rig.driver.turn(None)
                sender.join()
    finally:
        signal.set_wakeup_fd(before)
    rig.turn()


def test_an_exception_from_a_signal_handler_loses_no_op(rig: Rig) -> None:
    """A handler's exception comes out of the turn; what was in flight goes on afterwards."""

    class InterruptionError(Exception):
        pass

    def interrupt(*_: object) -> None:
        raise InterruptionError

    waiting = threading.Semaphore(0)

    def signal_when_waiting() -> None:
        assert waiting.acquire(timeout=PATIENCE_S)
        signal_self()

    def wait() -> None:
        waiting.release()
        while True:
            rig.driver.turn(None)

    # Without the wake-up descriptor a signal just before the system call would not end it.
    before = signal.set_wakeup_fd(rig.driver.wake_fd)
    try:
        with connected(rig) as (ours, theirs), handling(interrupt):
            op = rig.recv(ours.fileno())
            for _ in range(5):
                rig.settle_down()
                rig.settle_down()
                sender = in_thread(signal_when_waiting)
                with pytest.raises(InterruptionError):
                    wait()
                sender.join()
            assert op.state == SUBMITTED
            theirs.sendall(b"x")
            assert rig.finish(op) == b"x"
    finally:
        signal.set_wakeup_fd(before)


@pytest.mark.parametrize("kind", KINDS)
def test_an_exception_right_behind_the_wait_loses_no_op(make_rig: RigMaker, kind: str) -> None:
    """What the wait had told when a handler raised is not forgotten, and wakes go on working."""

    class InterruptionError(Exception):
        pass

    class Interrupted(System):
        armed = False

        def __init__(self) -> None:
            super().__init__()
            enter = self.bare_syscall
            self.bare_syscall = lambda *arguments: self.behind(enter(*arguments))

        def behind(self, result: Any) -> Any:
            if self.armed:
                self.armed = False
                raise InterruptionError
            return result

        def epoll(self) -> Any:
            real = super().epoll()
            system = self

            class Epoll:
                register, unregister, close = real.register, real.unregister, real.close

                def poll(self, *arguments: object) -> object:
                    return system.behind(real.poll(*arguments))

            return Epoll()

    system = Interrupted()
    rig = make_rig(kind, system=system)
    with connected(rig) as (ours, theirs), connected(rig, "unix") as (more, more_theirs):
        fill(more)
        reader = rig.recv(ours.fileno())
        writer = rig.send_all(more.fileno(), b"more")
        poller = rig.submit(Op(o.POLL, ours.fileno(), flags=0x1))
        rig.settle_down()
        theirs.sendall(b"x")
        empty(more_theirs)
        rig.driver.wake()
        system.armed = True
        with pytest.raises(InterruptionError):
            rig.driver.turn(None)
        rig.until(lambda: len(rig.delivered) == 3)
        assert rig.finish(reader) == b"x"
        rig.wait(writer, poller)
        rig.settle_down()
        rig.driver.wake()
        rig.driver.turn(None)


def test_an_exception_between_two_deliveries_loses_neither(rig: Rig) -> None:
    """When a handler raises behind one delivery, the next turns deliver the others."""

    class InterruptionError(Exception):
        pass

    deliver, interruptions = rig.deliver, 0

    def deliver_and_raise(op: Op[Any]) -> None:
        nonlocal interruptions
        deliver(op)
        if len(rig.delivered) in {2, 5}:
            interruptions += 1
            raise InterruptionError

    with ExitStack() as stack:
        pairs = [stack.enter_context(connected(rig)) for _ in range(8)]
        ops = [rig.recv(ours.fileno()) for ours, _ in pairs]
        rig.settle_down()
        rig.settle_down()
        for n, (_, theirs) in enumerate(pairs):
            theirs.sendall(bytes([n]))
        rig.deliver = deliver_and_raise
        while len(rig.delivered) < len(ops):
            try:
                rig.driver.turn(None)
            except InterruptionError:
                continue
        rig.deliver = deliver
        assert interruptions == 2
        rig.wait(*ops)
        assert [op.value for op in ops] == [bytes([n]) for n in range(8)]


# --- threads -------------------------------------------------------------------------------------


def test_other_threads_are_refused(rig: Rig) -> None:
    """From a foreign thread turn, cancel, flush and close raise, and nothing changes."""
    refused: list[str] = []
    op = rig.submit(Op(o.EVENT))

    def call() -> None:
        driver = rig.driver
        for name, function in {
            "turn": lambda: driver.turn(0),
            "cancel": lambda: driver.cancel(op),
            "flush": driver.flush,
            "close": driver.close,
        }.items():
            try:
                function()
            except WrongThreadError:
                refused.append(name)

    in_thread(call).join()
    assert refused == ["turn", "cancel", "flush", "close"]
    assert op.state == SUBMITTED
    rig.driver.fire(op)
    rig.wait(op)
    assert rig.do(Op(o.NOP)) == 0


def test_a_call_is_made_in_another_thread(rig: Rig) -> None:
    """OFFLOAD gives the result of a call that another thread made."""
    ident = rig.do(Offload(threading.get_ident))
    assert ident != threading.get_ident()


def test_the_exception_of_a_call_is_the_ops(rig: Rig) -> None:
    """What an offloaded call raises, of whatever class, is raised by the op."""

    def fail(error: BaseException) -> None:
        raise error

    for error in (KeyError("x"), SystemExit(3)):
        with pytest.raises(type(error)) as caught:
            rig.do(Offload(lambda error=error: fail(error)))  # type: ignore[misc]
        assert caught.value is error


def test_calls_run_side_by_side(rig: Rig) -> None:
    """Calls that wait for each other end, since each has a thread."""
    barrier = threading.Barrier(4)
    ops = [rig.submit(Offload(lambda: barrier.wait(PATIENCE_S) >= 0)) for _ in range(4)]
    assert all(rig.finish(op) for op in ops)


def test_more_calls_than_threads(rig: Rig) -> None:
    """A hundred calls are made by few threads, and each op gets its own result."""
    ops = [rig.submit(Offload(lambda n=n: n * n)) for n in range(100)]  # type: ignore[misc]
    assert [rig.finish(op) for op in ops] == [n * n for n in range(100)]


# --- counters ------------------------------------------------------------------------------------


def test_statistics_count(rig: Rig) -> None:
    """Taken, delivered and in flight add up at every moment, whatever the ops are."""

    def counts() -> tuple[int, int, int]:
        statistics = rig.driver.statistics()
        return statistics.submitted, statistics.delivered, statistics.in_flight

    assert rig.driver.statistics().backend == ("uring" if rig.is_uring else "epoll")
    assert rig.driver.statistics().backend == rig.driver.name
    with connected(rig, "unix") as (ours, theirs):
        ops: list[Op[Any]] = [
            rig.recv(ours.fileno()),
            rig.submit(Op(o.POLL, ours.fileno(), flags=0x1)),
            rig.timeout(10**12),
            rig.submit(Op(o.EVENT)),
            rig.submit(Op(o.NOP)),
        ]
        assert counts() == (5, 0, 5)
        rig.until(lambda: rig.delivered)
        assert counts() == (5, 1, 4)
        theirs.sendall(b"x")
        rig.until(lambda: len(rig.delivered) == 3)
        assert counts() == (5, 3, 2)
        for op in ops[2:4]:
            rig.driver.cancel(op)
        assert counts() == (5, 5, 0)
        rig.wait(*ops)
        rig.do(Op(o.READY))
        rig.do(Offload(int))
        assert counts() == (7, 7, 0)
    statistics = rig.driver.statistics()
    assert statistics.turns >= statistics.waits > 0 or rig.is_uring
    assert statistics.stray == 0


def test_a_send_in_pieces_counts_once(rig: Rig) -> None:
    """However often the driver goes on with an op, it was taken and delivered once."""
    with connected(rig) as (ours, theirs):
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 150_000)
        received_count = 0

        def read() -> None:
            nonlocal received_count
            while received_count < 5_000_000:
                received_count += len(theirs.recv(1 << 20))

        op = rig.send_all(ours.fileno(), bytes(5_000_000), 0x4000)
        rig.settle_down()
        assert rig.in_flight() == 1
        reader = in_thread(read)
        rig.wait(op)
        reader.join()
        assert rig.driver.statistics().submitted == rig.driver.statistics().delivered == 1


def test_registering_sets_the_mode_that_the_driver_needs(rig: Rig) -> None:
    """`register` makes a descriptor blocking for io_uring and non-blocking for readiness."""
    ends = os.pipe()
    for before in (True, False):
        os.set_blocking(ends[0], before)
        rig.driver.register(ends[0])
        assert os.get_blocking(ends[0]) == rig.is_uring
        rig.driver.unregister(ends[0])
    rig.driver.unregister(ends[0])
    for fd in ends:
        os.close(fd)
    with pytest.raises(OSError, match="fcntl"):
        rig.driver.register(ends[0])
