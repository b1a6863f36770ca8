"""The op: its life held against the table, awaited once, and asyncio's future protocol."""

import contextvars
import gc
import os
import random
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import pytest

from tests.driver.conftest import RigMaker
from tests.driver.rig import (
    MSG_NOSIGNAL,
    SEND_ALL_FLAGS,
    Orphans,
    Rig,
    StandInCancelled,
    connected,
    fill,
    is_open,
    pair,
)
from tests.fresh import FreshPython
from tests.surface.pairs import occupied
from uringio._driver import current
from uringio._driver import op as o
from uringio._driver.op import (
    CANCELLING,
    DONE,
    HERE,
    NEW,
    OPERATION_NAMES,
    SPENT,
    STALE,
    SUBMITTED,
    TRANSITIONS,
    Offload,
    Op,
    renew,
)
from uringio.errors import BusyError, OpError, UsageError, WrongThreadError

# --- the state machine ---------------------------------------------------------------------------


class Observed(Op[Any]):
    """An op that notes every change of its state, and refuses one that is not in the table."""

    seen: set[tuple[int, int]] = set()  # noqa: RUF012 - shared on purpose, emptied by its users

    @property
    def state(self) -> int:  # type: ignore[override]
        return Op.state.__get__(self)  # type: ignore[attr-defined]

    @state.setter
    def state(self, value: int) -> None:
        try:
            before = self.state
        except AttributeError:
            before = value  # the constructor
        if before != value:
            assert value in TRANSITIONS[before], f"{OPERATION_NAMES[self.code]}: {before}->{value}"
            self.seen.add((before, value))
        Op.state.__set__(self, value)  # type: ignore[attr-defined]


class ObservedOffload(Observed, Offload):  # type: ignore[misc]
    def __init__(self) -> None:
        Offload.__init__(self, lambda: 1)


class Scenario:
    """Random ops on a few sockets, cancelled at random."""

    def __init__(self, rig: Rig, stack: ExitStack) -> None:
        self.rig = rig
        self.pairs = [stack.enter_context(connected(rig, kind)) for kind in ("tcp", "unix", "tcp")]
        for _, theirs in self.pairs:
            theirs.setblocking(False)  # with a timeout, it would wait for room
        self.full, self.full_peer = stack.enter_context(connected(rig, "unix"))
        fill(self.full)
        self.listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        rig.driver.register(self.listener.fileno())
        self.folder = os.open("/", os.O_PATH | os.O_DIRECTORY)
        stack.callback(os.close, self.folder)
        self.flying: list[Op[Any]] = []

    def random_op(self) -> Op[Any]:
        ours, theirs = random.choice(self.pairs)
        fd = ours.fileno()
        made: list[Op[Any]] = [
            Observed(o.NOP),
            Observed(o.RECV, fd, len_=random.choice([1, 100, 65536])),
            Observed(o.RECV_INTO, fd, len_=3, memory=bytearray(3)),
            Observed(o.SEND_ALL, fd, len_=3, flags=SEND_ALL_FLAGS, memory=b"abc"),
            Observed(o.SEND_ALL, fd, len_=3, flags=MSG_NOSIGNAL, memory=bytearray(3)),
            Observed(o.SEND, fd, len_=3, flags=MSG_NOSIGNAL, memory=b"abc"),
            Observed(o.SEND_ALL, self.full.fileno(), len_=1, flags=SEND_ALL_FLAGS, memory=b"x"),
            Observed(o.ACCEPT, self.listener.fileno()),
            Observed(o.POLL, fd, flags=0x1),
            Observed(o.POLL, fd, flags=0x4),
            Observed(o.TIMEOUT, off=time.monotonic_ns() + random.randrange(10_000_000)),
            Observed(o.READY),
            Observed(o.EVENT),
            Observed(o.SHUTDOWN, 1_000_000, len_=1),
            Observed(o.CLOSE, os.dup(self.folder)),
            Observed(o.OPEN, self.folder, flags=os.O_PATH, memory=b"dev\0"),
            Observed(o.READ, self.folder, len_=1, memory=bytearray(1)),
            Observed(o.FSYNC, 1_000_000),
            ObservedOffload(),
        ]
        chosen = random.choice(made)
        for op in made:
            if op is not chosen and op.code == o.CLOSE:
                os.close(op.fd)
            if op is not chosen:
                self.rig.driver.abandon(op)
        if random.random() < 0.3:
            with suppress(BlockingIOError):  # hundreds may stand there unread
                theirs.send(b"some bytes")
        if chosen.code == o.ACCEPT and random.random() < 0.5:
            socket.create_connection(self.listener.getsockname()).close()
        return chosen

    def take_delivered(self) -> None:
        for op in self.rig.delivered[:]:
            if op.code in {o.ACCEPT, o.OPEN} and op.error is None and op.state == DONE:
                if random.random() < 0.5:
                    self.rig.driver.cancel(op)  # the driver closes it
                else:
                    os.close(op.value)
            self.rig.wait(op)
            self.flying.remove(op)
            op.value = None
            if random.random() < 0.2 and op.code in {o.NOP, o.RECV, o.EVENT}:
                self.flying.append(self.rig.submit(renew(op)))

    def play(self, steps: int) -> None:
        for _ in range(steps):
            if len(self.flying) < 30:
                op = self.random_op()
                self.flying.append(op)
                self.rig.submit(op)
            if random.random() < 0.3:
                self.rig.turn()
            if random.random() < 0.4 and self.flying:
                op = random.choice(self.flying)
                self.rig.driver.cancel(op, random.choice([None, None, OpError(1, "a reason")]))
                if op.error is None and random.random() < 0.2:
                    self.rig.driver.cancel(op)
            if random.random() < 0.1:
                for op in self.flying:
                    if op.code == o.EVENT:
                        self.rig.driver.fire(op)
            if random.random() < 0.3:
                self.take_delivered()

    def end(self) -> None:
        for _ in range(3):
            for op in self.flying:
                if op.state in {SUBMITTED, CANCELLING}:
                    self.rig.driver.cancel(op)
            self.rig.until(lambda: len(self.rig.delivered) == len(self.flying))
            for op in self.rig.delivered:
                self.rig.driver.cancel(op)  # or a renewal would begin again
            self.take_delivered()
        for op in self.flying:
            self.rig.driver.cancel(op)
        self.rig.wait(*self.flying)


def test_every_change_of_state_is_in_the_table(rig: Rig) -> None:
    """Hundreds of random ops, cancelled at random moments, live as TRANSITIONS says; all of it."""
    Observed.seen.clear()
    with ExitStack() as stack:
        scenario = Scenario(rig, stack)
        scenario.play(1500)
        scenario.end()
        rig.driver.unregister(scenario.listener.fileno())
    superseded = Observed(o.NOP)
    superseded.state = STALE
    # Both drivers get to DONE only by way of SUBMITTED.  HERE is the surface's.
    assert Observed.seen == {
        (before, after)
        for before, afters in TRANSITIONS.items()
        for after in afters
        if HERE not in {before, after}
    }


def test_renew_refuses_what_is_in_flight(rig: Rig) -> None:
    """An op is used again only when it is spent; then error and count are as new."""
    op = rig.submit(Op(o.EVENT))
    with pytest.raises(BusyError):
        renew(op)
    rig.driver.cancel(op)
    with pytest.raises(BusyError):
        renew(op)
    rig.wait(op)
    op.done_bytes = 7
    assert renew(op) is op
    assert (op.state, op.error, op.done_bytes) == (NEW, None, 0)
    rig.driver.abandon(op)


def test_a_use_number_is_never_given_twice(rig: Rig) -> None:
    """Every submission, of the same op or another, has a number of its own, rising."""
    op: Op[int] = Op(o.NOP)
    uses = []
    for _ in range(5):
        rig.submit(op)
        uses.append(op.use)
        rig.wait(op)
        renew(op)
        other = rig.submit(Op(o.NOP))
        uses.append(other.use)
        rig.wait(other)
    rig.driver.abandon(op)
    assert uses == sorted(set(uses))


@pytest.mark.parametrize("code", range(len(OPERATION_NAMES)))
def test_repr_names_operation_and_state(code: int) -> None:
    """What a log shows tells which operation it was, on what, and how far it got."""
    op: Op[object] = Op(code, 3)
    assert repr(op) == f"<Op {OPERATION_NAMES[code]} fd=3 new>"
    op.fd = -1
    op.state = SPENT
    assert repr(op) == f"<Op {OPERATION_NAMES[code]} spent>"


# --- awaiting ------------------------------------------------------------------------------------


async def awaiting(op: Op[Any]) -> object:
    return await op


def result_of(op: Op[Any]) -> object:
    """Await *op* in a coroutine that is resumed at once."""
    coroutine = awaiting(op)
    assert coroutine.send(None) is op
    op.state = SPENT
    try:
        coroutine.send(None)
    except StopIteration as stop:
        return stop.value
    raise AssertionError("the op was yielded twice")


def test_an_op_is_awaited_once() -> None:
    """The second await is a UsageError, and so is one of an op in flight."""
    op: Op[object] = Op(o.NOP)
    op.value = "value"
    assert result_of(op) == "value"
    for state in (SPENT, SUBMITTED, CANCELLING, DONE):
        op.state = state
        with pytest.raises(UsageError, match="once"):
            awaiting(op).send(None)
    op.state = SPENT


def test_a_superseded_op_is_refused() -> None:
    """An op whose handle was asked again before this one began says so."""
    op: Op[object] = Op(o.NOP)
    op.state = STALE
    with pytest.raises(BusyError, match="superseded"):
        awaiting(op).send(None)
    with pytest.raises(BusyError, match="superseded"):
        op.add_done_callback(print)
    assert not op.cancel()


def test_finish_makes_the_value() -> None:
    """`finish` turns the driver's value into the awaiter's, once, and the payload is let go."""
    made = []

    def finish(value: object) -> object:
        made.append(value)
        return [value]

    op: Op[object] = Op(o.NOP, finish=finish)
    op.value = 5
    assert result_of(op) == [5]
    assert op.value is None
    op = Op(o.NOP, finish=finish)
    op.state, op.value = SPENT, 6
    assert op.result() == op.result() == [6]
    assert made == [5, 6]


def test_an_op_that_is_never_awaited_warns() -> None:
    """Dropping a new op is a mistake that is told of; a READY one has nothing to lose."""
    op: Op[object] = Op(o.RECV, 3)
    with pytest.warns(RuntimeWarning, match="recv fd=3 new> was never awaited"):
        del op
    Op(o.READY)
    gc.collect()


def test_a_close_that_is_never_awaited_closes_all_the_same(rig: Rig) -> None:
    """The descriptor of a forgotten CLOSE is known to nobody else, so it is closed."""
    read_end, write_end = os.pipe()
    op: Op[None] = Op(o.CLOSE, read_end)
    op.home = rig.driver
    with pytest.warns(RuntimeWarning, match="never awaited"):
        del op
    assert not is_open(read_end)
    os.close(write_end)


def test_a_close_that_is_never_awaited_is_told_to_the_driver(rig: Rig) -> None:
    """What gets the number of the closed descriptor next is nothing that the driver has seen."""
    ours, theirs = pair(rig)
    with theirs:
        theirs.sendall(b"old")
        assert rig.finish(rig.recv(ours.fileno())) == b"old"
        waiting = rig.recv(ours.fileno())  # now it knows that nothing more is there
        rig.settle_down()
        rig.driver.cancel(waiting)
        rig.wait(waiting)
        fd = ours.detach()
        op: Op[None] = Op(o.CLOSE, fd)
        op.home = rig.driver
        with pytest.warns(RuntimeWarning, match=f"close fd={fd} new> was never awaited"):
            del op
    with occupied(fd) as witness:
        witness.sendall(b"new")
        assert rig.finish(rig.recv(fd)) == b"new"
        rig.driver.unregister(fd)


def test_forgetting_an_op_at_the_interpreters_end_is_quiet(fresh_python: FreshPython) -> None:
    """Where nothing can be imported any more a finalizer says nothing; a CLOSE still closes."""
    run = fresh_python(
        """
        import builtins, os, threading
        from uringio._driver.choice import make_driver
        from uringio._driver.op import CLOSE, NOP, Op

        driver = make_driver(lambda op: None, lambda op: KeyError(), backend="epoll")
        read_end, write_end = os.pipe()
        close = driver.system.close
        driver.system.close = lambda fd, write=os.write: (close(fd), write(1, b"closed %d\\n" % fd))
        builtins.kept = [Op(NOP), Op(CLOSE, read_end)]
        builtins.kept[1].home = driver
        os.write(1, b"opened %d\\n" % read_end)
        """,
        options=("-W", "default"),
    ).check()
    assert run.stderr == ""
    opened, closed = run.stdout.splitlines()
    assert closed == opened.replace("opened", "closed")


# --- the future protocol -------------------------------------------------------------------------


class Loop:
    """Stands for an asyncio loop and its scheduler."""

    def __init__(self, rig: Rig) -> None:
        self.rig = rig
        self.soon: list[tuple[Any, Op[Any], contextvars.Context | None]] = []

    def call_soon(self, callback: Any, op: Op[Any], context: Any) -> None:
        self.soon.append((callback, op, context))

    def asyncio_loop(self) -> object:
        return self

    def serving_group(self) -> Any:
        raise NotImplementedError

    def deliver(self, op: Op[Any]) -> None:
        """Wait for *op* and call who waits for it, as a scheduler would."""
        self.rig.wait(op)
        waiter, context = op.waiter, op.context
        assert callable(waiter)
        if context is None:
            waiter(op)
        else:
            context.run(waiter, op)


@contextmanager
def running(rig: Rig) -> Iterator[Loop]:
    """Make *rig*'s driver current, with a `Loop`."""
    loop = Loop(rig)
    current.set_current(rig.driver, loop)
    try:
        yield loop
    finally:
        current.set_current(None, None)


def test_a_callback_starts_the_op_and_hears_of_its_end(rig: Rig) -> None:
    """The first callback submits; result, exception, done and cancelled tell the outcome."""
    with running(rig) as loop:
        calls: list[Op[Any]] = []
        op: Op[int] = Op(o.NOP)
        op.add_done_callback(calls.append)
        assert op.state == SUBMITTED
        assert op.home is rig.driver
        assert not op.done()
        for early in (op.result, op.exception):
            with pytest.raises(UsageError, match="not finished"):
                early()
        loop.deliver(op)
        assert calls == [op]
        assert op.done()
        assert not op.cancelled()
        assert (op.result(), op.exception()) == (0, None)
        assert op.get_loop() is loop


def test_a_failed_op_raises_its_error(rig: Rig) -> None:
    """`result` raises and `exception` returns what the kernel refused."""
    with running(rig) as loop:
        op: Op[None] = Op(o.SHUTDOWN, 1_000_000)
        op.add_done_callback(lambda _: None)
        loop.deliver(op)
        with pytest.raises(OpError) as caught:
            op.result()
        assert op.exception() is caught.value
        assert not op.cancelled()


def test_a_cancelled_op_raises_the_cancelled_exception(rig: Rig) -> None:
    """`cancel` asks the driver; afterwards result and exception raise the scheduler's own."""
    with running(rig) as loop:
        op: Op[None] = Op(o.EVENT)
        op.add_done_callback(lambda _: None)
        assert op.cancel()
        assert not op.cancelled(), "only when it is delivered"
        loop.deliver(op)
        assert op.cancelled()
        for outcome in (op.result, op.exception):
            with pytest.raises(StandInCancelled):
                outcome()
        assert not op.cancel()


def test_cancelling_a_new_op_tells_its_owner(rig: Rig) -> None:
    """An op that was never started ends as cancelled, in the one way in which ops end."""
    orphans = Orphans([])
    with running(rig):
        op: Op[None] = Op(o.EVENT, owner=orphans)
        assert op.cancel()
        rig.wait(op)
        assert op.cancelled()
        assert orphans.given == []


def test_callbacks_are_called_in_order_and_in_their_contexts(rig: Rig) -> None:
    """Many callbacks on one op each run once, each in its own context, unless removed before."""
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="none")
    calls: list[tuple[str, str]] = []

    def note(name: str) -> Any:
        return lambda _: calls.append((name, variable.get()))

    def context(value: str) -> contextvars.Context:
        made = contextvars.copy_context()
        made.run(variable.set, value)
        return made

    with running(rig) as loop:
        op: Op[int] = Op(o.NOP)
        first, second, third, twice = (note(name) for name in ("1", "2", "3", "4"))
        op.add_done_callback(first, context=context("a"))
        op.add_done_callback(second, context=context("b"))
        op.add_done_callback(twice)
        op.add_done_callback(third)
        op.add_done_callback(twice)
        assert op.remove_done_callback(twice) == 2
        assert op.remove_done_callback(twice) == 0
        loop.deliver(op)
        assert calls == [("1", "a"), ("2", "b"), ("3", "none")]


def test_the_only_callback_can_be_removed(rig: Rig) -> None:
    """Without anybody waiting the op goes on to its end, and another may wait for it."""
    with running(rig) as loop:
        calls: list[object] = []
        op: Op[int] = Op(o.NOP)
        op.add_done_callback(print)
        assert op.remove_done_callback(print) == 1
        assert op.remove_done_callback(print) == 0
        op.add_done_callback(calls.append)
        loop.deliver(op)
        assert calls == [op]


def test_a_failing_callback_does_not_hold_up_the_others(rig: Rig) -> None:
    """The first failure is raised when all have been called."""

    def fail(_: object) -> None:
        raise KeyError("first")

    with running(rig) as loop:
        calls: list[object] = []
        op: Op[int] = Op(o.NOP)
        for callback in (fail, calls.append, fail):
            op.add_done_callback(callback)
        with pytest.raises(KeyError):
            loop.deliver(op)
        assert calls == [op]


def test_a_callback_that_comes_late_is_called_soon(rig: Rig) -> None:
    """On a finished op the scheduler calls it in its next pass."""
    with running(rig) as loop:
        op: Op[int] = Op(o.NOP)
        op.add_done_callback(lambda _: None)
        loop.deliver(op)
        op.add_done_callback(print)
        assert [(callback, one) for callback, one, _ in loop.soon] == [(print, op)]


def test_an_op_that_its_driver_refuses_is_done_with_the_reason(rig: Rig) -> None:
    """Asyncio's task would not survive an exception here, so the op ends with the error."""
    with running(rig) as loop:
        op: Op[int] = Op(o.RECV_INTO, 0, len_=1, memory=b"immutable")
        op.add_done_callback(print)
        assert op.done()
        assert isinstance(op.exception(), TypeError)
        assert op.memory is None
        assert [one for _, one, _ in loop.soon] == [op]


def test_an_op_of_another_loop_is_refused(make_rig: RigMaker) -> None:
    """A handle's op runs on the driver that the handle was made on, and on no other."""
    for kind in ("uring", "epoll"):
        home, elsewhere = make_rig(kind), make_rig("epoll")
        op: Op[int] = Op(o.NOP)
        op.home = home.driver
        with running(elsewhere):
            op.add_done_callback(print)
            assert isinstance(op.exception(), WrongThreadError)
        assert home.in_flight() == elsewhere.in_flight() == 0


def test_without_a_running_loop_nothing_starts() -> None:
    """Outside of any loop the current driver is a UsageError that says what to do."""
    for ask in (current.driver, current.scheduler, current.loop):
        with pytest.raises(UsageError, match="no uringio loop runs"):
            ask()
    assert not current.running()
    assert Op(o.READY).get_loop() is None
