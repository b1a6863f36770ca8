"""Cancellation: in every state of an op, in every race, and what becomes of what was done."""

import errno
import os
import random
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.driver.rig import (
    MSG_NOSIGNAL,
    SEND_ALL_FLAGS,
    Orphans,
    Rig,
    StandInCancelled,
    connected,
    empty,
    is_open,
    pair,
)
from tests.driver.waiting import WAITING, Waiting, both_ends_open
from uringio._driver import op as o
from uringio._driver.op import CANCELLING, DONE, NEW, SPENT, SUBMITTED, Offload, Op
from uringio.errors import ClosedError, OpError

BIG = bytes(range(251)) * 20_000


@pytest.fixture(params=WAITING)
def waiting_op(
    request: pytest.FixtureRequest, rig: Rig, tmp_path: Path
) -> Iterator[Callable[[], Op[Any]]]:
    """Make an op of each kind that waits; the last of them, a pipe with no other end."""
    with ExitStack() as stack:
        waiting = Waiting(rig, stack, tmp_path)
        yield getattr(waiting, request.param)
        waiting.released.set()


@pytest.mark.parametrize("in_flight", [False, True], ids=["queued", "in-flight"])
def test_a_waiting_op_is_cancelled(
    rig: Rig, waiting_op: Callable[[], Op[Any]], in_flight: bool, tmp_path: Path
) -> None:
    """Before the kernel has seen it and after, the op ends as cancelled, once, holding nothing."""
    op = rig.submit(waiting_op())
    if in_flight:
        rig.settle_down()
        rig.settle_down()
    assert op.state == SUBMITTED
    assert rig.driver.cancel(op)
    assert op.state in {CANCELLING, DONE}
    assert rig.driver.cancel(op), "a second request changes nothing"
    with both_ends_open(tmp_path), pytest.raises(StandInCancelled):
        rig.finish(op)
    assert (op.memory, op.hold, op.value) == (None, None, None)
    assert not rig.driver.cancel(op), "it is spent"
    rig.settle_down()
    assert rig.delivered == []


@pytest.mark.parametrize("in_flight", [False, True], ids=["queued", "in-flight"])
def test_a_reason_takes_the_place_of_the_cancelled_exception(
    rig: Rig, waiting_op: Callable[[], Op[Any]], in_flight: bool, tmp_path: Path
) -> None:
    """With a reason the awaiter gets that very exception."""
    op = rig.submit(waiting_op())
    if in_flight:
        rig.settle_down()
    reason = ClosedError("closed under it")
    assert rig.driver.cancel(op, reason)
    with both_ends_open(tmp_path), pytest.raises(ClosedError) as caught:
        rig.finish(op)
    assert caught.value is reason


@pytest.mark.parametrize("reason_first", [False, True])
@pytest.mark.parametrize("when", ["queued", "in-flight", "done"])
def test_the_schedulers_cancellation_outranks_a_reason(
    rig: Rig, reason_first: bool, when: str
) -> None:
    """Asked for both, in either order and at any time, the awaiter hears that it was cancelled."""
    with connected(rig) as (ours, theirs):
        op = rig.recv(ours.fileno())
        if when != "queued":
            rig.settle_down()
        if when == "done":
            theirs.sendall(b"x")
            rig.until(lambda: rig.delivered)
        reason = ClosedError("closed under it")
        for one in (reason, None) if reason_first else (None, reason):
            assert rig.driver.cancel(op, one)
        with pytest.raises(StandInCancelled):
            rig.finish(op)


# --- the states ----------------------------------------------------------------------------------


def test_a_new_op_is_abandoned(rig: Rig) -> None:
    """An op that was never started cannot be cancelled; `abandon` lets go of its memory."""
    memory = bytearray(10)
    op: Op[int] = Op(o.RECV_INTO, 0, len_=10, memory=memory)
    assert not rig.driver.cancel(op)
    assert op.state == NEW
    rig.driver.abandon(op)
    assert (op.state, op.memory) == (SPENT, None)
    assert rig.driver.statistics().submitted == 0


def test_a_spent_op_is_not_cancelled(rig: Rig) -> None:
    """After delivery there is nothing to cancel, and the outcome stays."""
    op = rig.submit(Op(o.NOP))
    rig.wait(op)
    assert not rig.driver.cancel(op)
    assert (op.error, op.value) == (None, 0)


def test_an_outcome_that_waits_for_delivery_becomes_the_cancellation(rig: Rig) -> None:
    """DONE and cancelled: no value, and received bytes go to the owner."""
    orphans = Orphans([])
    with connected(rig) as (ours, theirs):
        theirs.sendall(b"kept")
        op = rig.recv(ours.fileno(), owner=orphans)
        rig.until(lambda: rig.delivered)
        assert (op.state, op.value) == (DONE, b"kept")
        assert rig.driver.cancel(op)
        with pytest.raises(StandInCancelled):
            rig.finish(op)
        assert op.value is None
        assert orphans.given == [b"kept"]


def test_a_failure_that_waits_for_delivery_becomes_the_cancellation(rig: Rig) -> None:
    """DONE with an error and cancelled: the cancellation is told; the owner hears of the error."""
    orphans = Orphans([])
    op = rig.submit(Op(o.SHUTDOWN, 1_000_000, len_=1, owner=orphans))
    rig.until(lambda: rig.delivered)
    assert rig.driver.cancel(op)
    with pytest.raises(StandInCancelled):
        rig.finish(op)
    (failure,) = orphans.given
    assert isinstance(failure, OpError)
    assert (failure.errno, failure.op) == (errno.EBADF, "shutdown")


def test_a_nop_is_cancelled_before_its_turn(rig: Rig) -> None:
    """Even what needs nothing ends as cancelled if it was asked to."""
    op = rig.submit(Op(o.NOP))
    assert rig.driver.cancel(op)
    with pytest.raises(StandInCancelled):
        rig.finish(op)


def test_an_op_can_be_used_again_after_its_cancellation(rig: Rig) -> None:
    """The next use of a cancelled op is not touched by the completions of the last one."""
    with connected(rig) as (ours, theirs):
        op = rig.recv(ours.fileno())
        for _ in range(5):
            rig.settle_down()
            rig.driver.cancel(op)
            with pytest.raises(StandInCancelled):
                rig.finish(op)
            o.renew(op)
            rig.submit(op)
        theirs.sendall(b"x")
        assert rig.finish(op) == b"x"


def test_cancelling_one_reader_leaves_the_others(rig: Rig) -> None:
    """Of three ops on one descriptor only the one that was meant ends."""
    with connected(rig, "unix") as (ours, theirs):
        fd = ours.fileno()
        poll = rig.submit(Op(o.POLL, fd, flags=0x1))
        cancelled, reader = rig.recv(fd), rig.recv(fd)
        rig.settle_down()
        rig.driver.cancel(cancelled)
        rig.wait(cancelled)
        assert poll.state == reader.state == SUBMITTED
        theirs.sendall(b"x")
        assert rig.finish(reader) == b"x"
        rig.driver.cancel(poll)
        rig.wait(poll)


# --- races, and what was done anyway -------------------------------------------------------------


def test_no_byte_is_lost_to_a_receive_that_is_cancelled_while_bytes_arrive(rig: Rig) -> None:
    """Orphaned bytes and later ones make up the stream, wherever the cancellation strikes."""
    orphans = Orphans([])
    with connected(rig) as (ours, theirs):
        received = bytearray()
        for n in range(300):
            op = rig.recv(ours.fileno(), owner=orphans)
            if random.random() < 0.5:
                rig.settle_down()
            theirs.sendall(bytes([n % 256]))
            if random.random() < 0.3:
                rig.settle_down()
            assert rig.driver.cancel(op)
            with pytest.raises(StandInCancelled):
                rig.finish(op)
            received += b"".join(orphans.given)
            orphans.given.clear()
            if random.random() < 0.2:
                received += (
                    rig.do(Op(o.RECV, ours.fileno(), len_=1000, flags=0))
                    if len(received) <= n
                    else b""
                )
        theirs.shutdown(socket.SHUT_WR)
        while data := rig.do(Op(o.RECV, ours.fileno(), len_=1000)):
            received += data
        assert received == bytes(n % 256 for n in range(300))


@pytest.mark.parametrize("owned", [False, True])
def test_no_descriptor_is_lost_to_an_accept_that_is_cancelled(rig: Rig, owned: bool) -> None:
    """A connection accepted too late goes to the owner, or is closed where there is none."""
    orphans = Orphans([])
    with socket.create_server(("127.0.0.1", 0)) as listener:
        rig.driver.register(listener.fileno())
        for n in range(60):
            op = rig.submit(Op(o.ACCEPT, listener.fileno(), owner=orphans if owned else None))
            if n % 3:
                rig.settle_down()
            with socket.create_connection(listener.getsockname()) as client:
                if n % 3 == 2:
                    rig.until(lambda: rig.delivered)
                assert rig.driver.cancel(op)
                with pytest.raises(StandInCancelled):
                    rig.finish(op)
                if rig.system.poll_fd(listener.fileno(), 0x1):
                    # Withdrawn in time: the connection waits for the next accept.
                    assert orphans.given == []
                    rig.do(Op(o.CLOSE, rig.do(Op(o.ACCEPT, listener.fileno()))))
                for fd in orphans.given:
                    os.close(fd)
                orphans.given.clear()
                client.settimeout(50)
                assert client.recv(1) == b""  # closed by us, by the owner or by the driver
        rig.driver.unregister(listener.fileno())


@pytest.mark.parametrize("flags", [SEND_ALL_FLAGS, MSG_NOSIGNAL], ids=["waitall", "short"])
@pytest.mark.parametrize("kind", ["tcp", "unix"])
def test_a_cancelled_send_tells_how_much_the_peer_gets(rig: Rig, flags: int, kind: str) -> None:
    """The exception's ``done`` is exactly what arrives, whether none, some or all was sent."""
    for taken_first, data in ((0, BIG), (100_000, BIG), (0, b"short")):
        ours, theirs = pair(rig, kind)
        op = rig.send_all(ours.fileno(), data, flags)
        rig.settle_down()
        got = bytearray()
        while len(got) < taken_first:
            got += theirs.recv(100_000)
            rig.settle_down()
        assert rig.driver.cancel(op)
        with pytest.raises(StandInCancelled) as caught:
            rig.finish(op)
        rig.do(Op(o.CLOSE, ours.detach()))
        while chunk := theirs.recv(1 << 20):
            got += chunk
        theirs.close()
        assert caught.value.done == len(got)
        assert bytes(got) == data[: len(got)]


def test_a_close_is_never_withdrawn(rig: Rig) -> None:
    """A cancelled CLOSE, at any moment, has closed the descriptor when it is delivered."""
    for moment in ("queued", "in flight", "done"):
        ours, theirs = pair(rig)
        fd = ours.detach()
        op = rig.submit(Op(o.CLOSE, fd))
        if moment == "in flight":
            rig.driver.flush()
        elif moment == "done":
            rig.until(lambda: rig.delivered)
        assert rig.driver.cancel(op)
        with pytest.raises(StandInCancelled):
            rig.finish(op)
        assert not is_open(fd)
        theirs.close()


def test_a_cancelled_poll_leaves_the_bytes(rig: Rig) -> None:
    """A POLL that is cancelled while it becomes ready has taken nothing."""
    with connected(rig) as (ours, theirs):
        op = rig.submit(Op(o.POLL, ours.fileno(), flags=0x1))
        rig.settle_down()
        theirs.sendall(b"x")
        rig.driver.cancel(op)
        with pytest.raises(StandInCancelled):
            rig.finish(op)
        assert rig.do(Op(o.RECV, ours.fileno(), len_=10)) == b"x"


def test_an_abandoned_call_is_not_waited_for(rig: Rig) -> None:
    """Cancelling an OFFLOAD ends it at once; the result that comes later goes nowhere."""
    released, ended = threading.Event(), threading.Event()

    def call() -> str:
        released.wait(50)
        ended.set()
        return "late"

    op = rig.submit(Offload(call))
    rig.settle_down()
    rig.driver.cancel(op)
    with pytest.raises(StandInCancelled):
        rig.finish(op)
    assert not ended.is_set()
    released.set()
    ended.wait(50)
    rig.settle_down()
    assert rig.delivered == []


def test_cancelling_many_ops_at_once(rig: Rig) -> None:
    """A thousand ops, more than any queue holds, end in the order of no one's choosing but once."""
    with connected(rig) as (ours, theirs):
        ops = [rig.recv(ours.fileno()) for _ in range(1000)]
        rig.settle_down()
        for op in random.sample(ops, len(ops)):
            assert rig.driver.cancel(op)
        rig.until(lambda: len(rig.delivered) == 1000)
        assert all(isinstance(op.error, StandInCancelled) for op in ops)
        rig.wait(*ops)
        theirs.sendall(b"x")
        assert rig.do(Op(o.RECV, ours.fileno(), len_=10)) == b"x"
        assert empty(theirs) == 0


def test_cancelled_right_behind_its_delivery(rig: Rig) -> None:
    """A handler may do so before the turn goes on: what was received goes to nobody, once."""

    def deliver(op: Op[Any]) -> None:
        rig.note_delivery(op)
        assert rig.driver.cancel(op)

    with connected(rig) as (ours, theirs):
        op = rig.recv(ours.fileno())
        rig.settle_down()
        rig.deliver = deliver
        theirs.sendall(b"data")
        with pytest.raises(StandInCancelled):
            rig.finish(op)
        rig.deliver = rig.note_delivery
        theirs.sendall(b"more")
        assert rig.finish(rig.recv(ours.fileno())) == b"more"
