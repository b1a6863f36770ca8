"""
POLL on a socket whose peer sends no more: it waits for what was asked, and tells nothing else.

io_uring adds RDHUP to whatever is asked of it, so there one request is not enough.
"""

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from tests.driver.conftest import RigMaker
from tests.driver.rig import KINDS, Rig, StandInCancelled, connected, empty, fill
from tests.driver.test_moments import StruckError, raise_struck, striking
from uringio._driver import op as o
from uringio._driver.op import SUBMITTED, Op
from uringio._driver.poll_bits import POLLHUP, POLLIN, POLLOUT, POLLPRI, POLLRDHUP

Pair = tuple[socket.socket, socket.socket]


@contextmanager
def datagrams(_rig: Rig) -> Iterator[Pair]:
    """Two Unix datagram sockets, the first of which has ended its own receiving."""
    ours, theirs = socket.socketpair(type=socket.SOCK_DGRAM)
    with ours, theirs:
        ours.shutdown(socket.SHUT_RD)
        yield ours, theirs
        _rig.driver.unregister(ours.fileno())


@contextmanager
def half_closed(rig: Rig, kind: str = "unix") -> Iterator[Pair]:
    """Yield a pair whose first end has no room, and whose second has ended its sending."""
    if kind == "datagrams":
        with datagrams(rig) as (ours, theirs):
            fill(ours)
            yield ours, theirs
        return
    with connected(rig, kind) as (ours, theirs):
        fill(ours)
        theirs.shutdown(socket.SHUT_WR)
        yield ours, theirs


def waits(rig: Rig, op: Op[int]) -> bool:
    """Whether *op* waits, and the driver meanwhile sleeps."""
    for _ in range(3):
        rig.settle_down()
    deadline = time.monotonic_ns() + 3_000_000
    turns = 0
    while time.monotonic_ns() < deadline:
        rig.driver.turn(deadline)
        turns += 1
    return op.state == SUBMITTED and turns < 20


def waits_for_room(rig: Rig, op: Op[int], ours: socket.socket) -> bool:
    """Whether *op*, submitted now, waits; if not, there has to have been room once more."""
    for _ in range(10):  # TCP finds some as long as segments are on their way
        fill(ours)
        if waits(rig, rig.submit(op)):
            return True
        assert rig.finish(op) == POLLOUT
    return False


@pytest.mark.parametrize("kind", ["tcp", "unix", "datagrams"])
def test_room_is_waited_for(rig: Rig, kind: str) -> None:
    """
    As long as there is none, POLL for room waits; then it tells of that alone, again and again.
    """
    with half_closed(rig, kind) as (ours, theirs):
        op: Op[int] = Op(o.POLL, ours.fileno(), flags=POLLOUT)
        assert waits_for_room(rig, op, ours)
        empty(theirs)
        assert rig.finish(op) == POLLOUT
        # The same op for the same file, as readers and writers use it.
        op.code = o.POLL_AGAIN
        assert rig.do(op) == POLLOUT
        assert waits_for_room(rig, op, ours)
        empty(theirs)
        assert rig.finish(op) == POLLOUT
        assert rig.do(op) == POLLOUT


def test_room_that_comes_meanwhile_is_not_missed(rig: Rig) -> None:
    """Between the kernel's answer and the request that waits on, the socket gets room."""
    with half_closed(rig) as (ours, theirs):
        op: Op[int] = rig.submit(Op(o.POLL, ours.fileno(), flags=POLLOUT))
        rig.driver.flush()
        empty(theirs)
        assert rig.finish(op) == POLLOUT


def test_the_end_of_sending_is_told_if_asked_for(rig: Rig) -> None:
    """RDHUP is asked for with others, and by itself; without it, IN tells of the end."""
    with half_closed(rig) as (ours, theirs):
        fd = ours.fileno()
        assert rig.do(Op(o.POLL, fd, flags=POLLOUT | POLLRDHUP)) == POLLRDHUP
        assert rig.do(Op(o.POLL, fd, flags=POLLRDHUP)) == POLLRDHUP
        assert rig.do(Op(o.POLL, fd, flags=POLLIN | POLLOUT)) == POLLIN
        empty(theirs)
        everything = POLLIN | POLLOUT | POLLRDHUP
        assert rig.do(Op(o.POLL, fd, flags=everything)) == everything


def test_the_whole_end_is_told_unasked(rig: Rig) -> None:
    """A poll for urgent data, of which there is none, is ended by the peer's going."""
    with half_closed(rig) as (ours, theirs):
        op: Op[int] = rig.submit(Op(o.POLL, ours.fileno(), flags=POLLPRI))
        assert waits(rig, op)
        empty(theirs)
        assert waits(rig, op)
        theirs.close()
        assert rig.finish(op) & ~0x8 == POLLHUP  # and, of data that was lost, an error


def test_several_wait_for_their_own(rig: Rig) -> None:
    """Of several polls of one socket each is ended by its own event."""
    with half_closed(rig) as (ours, theirs):
        fd = ours.fileno()
        ops: list[Op[int]] = [
            rig.submit(Op(o.POLL, fd, flags=mask)) for mask in (POLLPRI, POLLOUT, POLLOUT)
        ]
        assert [waits(rig, op) for op in ops] == [True] * 3
        empty(theirs)
        assert [rig.finish(op) for op in ops[1:]] == [POLLOUT, POLLOUT]
        assert waits(rig, ops[0])
        rig.driver.cancel(ops[0])
        with pytest.raises(StandInCancelled):
            rig.finish(ops[0])


def _queued(_rig: Rig, _end: socket.socket) -> None:
    """Before the kernel has seen it."""


def _answered(rig: Rig, _end: socket.socket) -> None:
    rig.driver.flush()


def _asked_again(rig: Rig, _end: socket.socket) -> None:
    rig.settle_down()


def _waiting(rig: Rig, _end: socket.socket) -> None:
    for _ in range(3):
        rig.settle_down()


def _just_ready(rig: Rig, end: socket.socket) -> None:
    _waiting(rig, end)
    empty(end)


def _told(rig: Rig, end: socket.socket) -> None:
    _just_ready(rig, end)
    rig.turn()


def _told_and_asked(rig: Rig, end: socket.socket) -> None:
    _told(rig, end)
    rig.driver.flush()


MOMENTS = [_queued, _answered, _asked_again, _waiting, _just_ready, _told, _told_and_asked]


@pytest.mark.parametrize("moment", MOMENTS, ids=lambda moment: moment.__name__.strip("_"))
def test_cancelling(rig: Rig, moment: Callable[[Rig, socket.socket], None]) -> None:
    """
    It ends at whatever moment, and then nobody holds the file: the peer sees it closed.
    """
    with half_closed(rig) as (ours, theirs):
        op: Op[int] = rig.submit(Op(o.POLL, ours.fileno(), flags=POLLOUT))
        moment(rig, theirs)
        assert rig.driver.cancel(op)
        rig.driver.flush()
        rig.driver.unregister(ours.fileno())
        ours.close()
        empty(theirs)
        assert theirs.recv(1) == b""
        with pytest.raises(StandInCancelled):
            rig.finish(op)
        assert (op.code, op.len) == (o.POLL, 0)


@pytest.mark.parametrize("kind", KINDS)
def test_closing_the_driver_ends_it(make_rig: RigMaker, kind: str) -> None:
    """Closing the driver waits for it no longer than for others: nothing is left behind."""
    rig = make_rig(kind)
    with half_closed(rig) as (ours, _):
        op: Op[int] = rig.submit(Op(o.POLL, ours.fileno(), flags=POLLOUT))
        assert waits(rig, op)
        rig.close()


@pytest.mark.parametrize("strike", ["raise", "cancel"])
def test_a_signal_handler_anywhere(make_rig: RigMaker, strike: str) -> None:
    """
    A handler that raises, or cancels it, at any moment from the first answer to the last: the poll
    ends once, and with what was asked for.
    """
    index, struck = 0, True
    rig = make_rig("uring")
    while struck:
        with half_closed(rig) as (ours, theirs):
            op: Op[int] = rig.submit(Op(o.POLL, ours.fileno(), flags=POLLOUT))

            def do(op: Op[int] = op) -> None:
                if strike == "raise":
                    raise_struck()
                rig.driver.cancel(op)

            try:
                with striking(index, do) as moments:
                    for _ in range(3):
                        rig.turn()
                    empty(theirs)
                    for _ in range(3):
                        rig.turn()
            except StruckError:
                empty(theirs)
            struck = moments.struck
            rig.until(lambda op=op: rig.is_delivered(op))  # type: ignore[misc]
            assert op.value == POLLOUT or (
                strike == "cancel" and isinstance(op.error, StandInCancelled)
            ), (index, op)
            rig.wait(op)
            assert (op.code, op.len) == (o.POLL, 0), index
        index += 1
    assert index > 30
    assert rig.driver.statistics().stray == 0
    assert rig.in_flight() == 0
