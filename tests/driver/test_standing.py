"""Receives that stand: what they bring is neither lost, doubled, reordered nor without bound."""

import errno
import socket
import threading
from collections import deque
from typing import Any

import pytest

from tests.driver.conftest import RigMaker
from tests.driver.rig import Orphans, Rig, StandInCancelled, connected
from tests.driver.test_moments import StruckError, raise_struck, striking
from tests.kernel import uring_refusal
from uringio._driver import op as o
from uringio._driver import uring_standing
from uringio._driver.op import NEW, Op
from uringio._driver.uring_standing import LATER_PIECES, STANDING_BYTES
from uringio._ring.prep import sqe_head
from uringio._sys import constants as k

pytestmark = pytest.mark.skipif(uring_refusal() is not None, reason="no io_uring here")


def standing(rig: Rig, fd: int, peer: Any, owner: Any = None) -> Op[Any]:
    """Return an op that stands, spent."""
    op: Op[Any] = Op(o.RECV, fd, len_=STANDING_BYTES, owner=owner)
    op.later = deque()
    for data in (b"first", b"second"):
        peer.sendall(data)
        assert receive(rig, op) == data
    if not op.standing:
        pytest.skip("this kernel has no receives that stand within a bound")
    return op


def receive(rig: Rig, op: Op[Any]) -> object:
    op.state = NEW
    rig.submit(op)
    return rig.finish(op)


def until_there(rig: Rig, op: Op[Any], count: int) -> None:
    assert op.later is not None
    rig.until(lambda: sum(map(len, op.later)) >= count)  # type: ignore[arg-type]


def test_one_request_for_many_receives(make_rig: RigMaker) -> None:
    """From the second receive on nothing is submitted, and the counters still count."""
    rig = make_rig("uring")
    with connected(rig) as (ours, theirs):
        op = standing(rig, ours.fileno(), theirs)
        use = op.use
        for number in range(10):
            theirs.sendall(b"%d" % number)
            assert receive(rig, op) == b"%d" % number
        assert op.use == use
        statistics = rig.driver.statistics()
        assert (statistics.submitted, statistics.delivered, statistics.in_flight) == (12, 12, 0)
        rig.driver.stand_down(op, True)
        assert not op.standing


def test_what_nobody_waits_for_is_bounded_and_in_order(make_rig: RigMaker) -> None:
    """A peer that floods fills what is allowed, once; all of it comes out in its order."""
    rig = make_rig("uring")
    with connected(rig) as (ours, theirs):
        op = standing(rig, ours.fileno(), theirs)
        theirs.settimeout(0)
        sent = bytearray()
        while len(sent) < 4 * STANDING_BYTES:
            try:
                sent += bytes([len(sent) % 251]) * theirs.send(bytes([len(sent) % 251]) * 9999)
            except BlockingIOError:
                break
        rig.until(lambda: not op.standing)
        for _ in range(20):
            rig.turn()
        assert op.later is not None
        # What reaches the bound may fill a buffer, and does where the kernel takes piece by piece.
        assert sum(map(len, op.later)) < 2 * STANDING_BYTES  # type: ignore[arg-type]
        got = bytearray()
        while len(got) < len(sent):
            got += receive(rig, op)  # type: ignore[arg-type]
        assert got == sent
        rig.driver.stand_down(op, True)


def test_many_small_pieces_are_few(make_rig: RigMaker) -> None:
    """A peer that sends a byte at a time fills a number of pieces, not 64 Ki of them."""
    rig = make_rig("uring")
    with connected(rig) as (ours, theirs):
        op = standing(rig, ours.fileno(), theirs)
        theirs.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sent = 0
        while op.standing and sent < 8 * LATER_PIECES:
            theirs.sendall(b"%c" % (sent % 251))
            sent += 1
            rig.turn()
        assert sent < 2 * LATER_PIECES
        got = bytearray()
        while len(got) < sent:
            got += receive(rig, op)  # type: ignore[arg-type]
        assert got == bytes(number % 251 for number in range(sent))
        rig.driver.stand_down(op, True)


def test_short_receives_of_what_is_there(make_rig: RigMaker) -> None:
    """Less than what came first is cut off, and the rest keeps its place."""
    rig = make_rig("uring")
    with connected(rig) as (ours, theirs):
        op = standing(rig, ours.fileno(), theirs)
        theirs.sendall(b"abcdef")
        until_there(rig, op, 6)
        op.len = 4
        assert receive(rig, op) == b"abcd"
        assert receive(rig, op) == b"ef"
        rig.driver.stand_down(op, True)


@pytest.mark.parametrize("delivered", [False, True])
def test_cancelling(make_rig: RigMaker, delivered: bool) -> None:
    """The awaiter is cancelled, the request ends, and what had come keeps its order."""
    rig = make_rig("uring")
    got: list[object] = []
    with connected(rig) as (ours, theirs):
        op = standing(rig, ours.fileno(), theirs, Orphans(got))
        op.state = NEW
        rig.submit(op)
        if delivered:
            theirs.sendall(b"value")
            rig.until(lambda: rig.is_delivered(op))
        assert rig.driver.cancel(op)
        rig.wait(op)
        assert isinstance(op.error, StandInCancelled)
        assert got == ([b"value"] if delivered else [])
        op.error = None
        rig.driver.stand_down(op, True)
        theirs.sendall(b"next")
        assert receive(rig, op) == b"next"
        rig.driver.stand_down(op, True)


def test_standing_down_while_it_is_awaited(make_rig: RigMaker) -> None:
    """The awaiter goes on waiting, by a request of its own."""
    rig = make_rig("uring")
    with connected(rig) as (ours, theirs):
        op = standing(rig, ours.fileno(), theirs)
        op.state = NEW
        rig.submit(op)
        rig.driver.stand_down(op, True)
        assert not op.standing
        theirs.sendall(b"on")
        assert rig.finish(op) == b"on"


def test_standing_down_before_the_kernel_knows(make_rig: RigMaker) -> None:
    """A request that was not handed over yet is withdrawn; its receive goes on."""
    rig = make_rig("uring")
    with connected(rig) as (ours, theirs):
        op = standing(rig, ours.fileno(), theirs)
        rig.driver.stand_down(op, True)
        op.state = NEW
        rig.submit(op)
        assert op.standing
        rig.driver.stand_down(op, True)
        assert not op.standing
        theirs.sendall(b"on")
        assert rig.finish(op) == b"on"


def test_standing_down_from_another_thread(make_rig: RigMaker) -> None:
    """Whoever drops a stream elsewhere only says so; the ring's thread ends the request."""
    rig = make_rig("uring")
    with connected(rig) as (ours, theirs):
        op = standing(rig, ours.fileno(), theirs)
        thread = threading.Thread(target=rig.driver.stand_down, args=(op, False))
        thread.start()
        thread.join()
        rig.until(lambda: not op.standing)


def test_the_end_and_a_reset(make_rig: RigMaker) -> None:
    """An end that nobody waited for is there for the next receive, and so is an error, once."""
    rig = make_rig("uring")
    got: list[object] = []
    with connected(rig) as (ours, theirs):
        op = standing(rig, ours.fileno(), theirs, Orphans(got))
        theirs.shutdown(1)
        rig.until(lambda: not op.standing)
        assert receive(rig, op) == b""
    with connected(rig) as (ours, theirs):
        op = standing(rig, ours.fileno(), theirs, Orphans(got))
        theirs.setsockopt(1, 13, b"\1\0\0\0\0\0\0\0")  # SO_LINGER: a reset
        theirs.close()
        rig.until(lambda: not op.standing)
        assert [getattr(error, "errno", None) for error in got] == [errno.ECONNRESET]


def test_a_kernel_that_refuses(make_rig: RigMaker, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the first request is refused, it and all later receives are single ones."""
    refused = sqe_head(k.IORING_OP_RECV, k.IOSQE_BUFFER_SELECT, 1 << 14)
    monkeypatch.setattr(uring_standing, "STANDING_HEAD", refused)
    rig = make_rig("uring")
    with connected(rig) as (ours, theirs):
        op: Op[Any] = Op(o.RECV, ours.fileno(), len_=STANDING_BYTES)
        op.later = deque()
        for number in range(4):
            theirs.sendall(b"%d" % number)
            assert receive(rig, op) == b"%d" % number
            assert not op.standing


def test_an_exception_anywhere(make_rig: RigMaker) -> None:
    """Wherever a signal handler raises, each byte comes once, and in its order."""
    index, struck = 0, True
    rig = make_rig("uring")
    while struck:
        with connected(rig) as (ours, theirs):
            op = standing(rig, ours.fileno(), theirs)
            op.state = NEW
            rig.submit(op)
            theirs.sendall(b"a")
            got = b""
            sent = b"a"
            try:
                with striking(index, raise_struck) as moments:
                    rig.until(lambda op=op: rig.is_delivered(op))
                    theirs.sendall(b"b")
                    sent += b"b"
                    until_there(rig, op, 1)
                    rig.driver.stand_down(op, True)
            except StruckError:
                pass
            struck = moments.struck
            theirs.sendall(b"c")
            while b"c" not in got:
                if op.state == NEW:
                    rig.submit(op)
                got += rig.finish(op)
                op.state = NEW
            assert got == sent + b"c"
            assert rig.driver.statistics().in_flight == 0
            rig.driver.stand_down(op, True)
            op.state = o.SPENT
        index += 1
    assert index > 5
