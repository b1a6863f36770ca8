"""
Python code that runs in the middle of the driver: signal handlers and finalizers.

The interpreter runs them behind the calls that the driver makes, and where a function of its
begins.  A profile function is called at these very moments, so each test goes through all of them:
whatever is done there, no operation is lost, doubled or mixed up with another.
"""

import errno
import socket
import sys
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.driver.conftest import RigMaker
from tests.driver.rig import Orphans, Rig, StandInCancelled, connected, fill
from uringio._driver import op as o
from uringio._driver.op import DONE, NEW, Offload, Op
from uringio.errors import OpError

KINDS = ("uring", "epoll")


class StruckError(BaseException):
    """What a signal handler raises."""


class Moments:
    """Does *strike* at the *index*-th moment of the driver's own code."""

    def __init__(self, index: int, strike: Callable[[], object]) -> None:
        self._left = index
        self._strike = strike
        self.struck = False

    def __call__(self, frame: types.FrameType, event: str, _argument: object) -> None:
        if event in {"call", "c_return"} and in_driver(frame):
            if not self._left:
                self.struck = True
                self._left = -1
                sys.setprofile(None)
                self._strike()
            self._left -= 1


def in_driver(frame: types.FrameType | None) -> bool:
    """Whether it is the driver's own, and no finalizer's, out of which no exception comes."""
    assert frame is not None
    module = str(frame.f_globals.get("__name__", ""))
    while frame is not None and frame.f_code.co_name != "__del__":
        frame = frame.f_back
    return frame is None and module.startswith(("uringio._driver", "uringio._ring"))


@contextmanager
def striking(index: int, strike: Callable[[], object]) -> Iterator[Moments]:
    moments = Moments(index, strike)
    before = sys.getprofile()
    sys.setprofile(moments)
    try:
        yield moments
    finally:
        sys.setprofile(before)


def raise_struck() -> None:
    raise StruckError


@pytest.mark.parametrize("queued", [0, 3, 4])
@pytest.mark.parametrize("code", [o.RECV, o.RECV_INTO])
def test_submitting_in_the_middle_of_submitting(make_rig: RigMaker, queued: int, code: int) -> None:
    """Two ops whose submissions overlap both run, whichever slot they wanted."""
    index, struck = 0, True
    while struck:
        rig = make_rig("uring", entries=4)
        with connected(rig) as (ours, theirs), connected(rig) as (more, more_theirs):
            room = bytearray(10)
            outer: Op[Any] = Op(code, ours.fileno(), len_=10)
            if code == o.RECV_INTO:
                outer.memory = room
            inner: list[Op[Any]] = []
            nops = [rig.submit(Op(o.NOP)) for _ in range(queued)]

            def strike(fd: int = more.fileno(), rig: Rig = rig, to: list[Any] = inner) -> None:
                to.extend(rig.submit(Op(o.NOP)) for _ in range(5))
                to.append(rig.recv(fd))

            with striking(index, strike) as moments:
                rig.driver.submit(outer)
            struck = moments.struck
            theirs.sendall(b"outer")
            if struck:
                more_theirs.sendall(b"inner")
            rig.until(lambda: rig.is_delivered(outer))
            assert (outer.value, bytes(room[:5])) in {(b"outer", bytes(5)), (5, b"outer")}
            if struck:
                assert rig.finish(inner[-1]) == b"inner"
                rig.wait(*inner[:-1])
            rig.wait(outer, *nops)
            assert len({op.use for op in [outer, *inner, *nops]}) == 1 + len(inner) + queued
            statistics = rig.driver.statistics()
            assert (statistics.in_flight, statistics.stray) == (0, 0)
            assert statistics.submitted == 1 + len(inner) + queued
        index += 1
    assert index > 2


def test_an_exception_in_the_middle_of_submitting(make_rig: RigMaker) -> None:
    """The op is in flight, or as new as before."""
    index, struck = 0, True
    rig = make_rig("uring", entries=4)
    while struck:
        with connected(rig) as (ours, theirs):
            op: Op[Any] = Op(o.RECV, ours.fileno(), len_=10)
            try:
                with striking(index, raise_struck) as moments:
                    rig.driver.submit(op)
            except StruckError:
                pass
            struck = moments.struck
            if op.state == NEW:
                assert rig.in_flight() == 0
                rig.submit(op)
            theirs.sendall(b"x")
            assert rig.finish(op) == b"x"
        index += 1
    assert index > 2


@pytest.mark.parametrize("kind", ["uring", "uring-5.19"])
def test_an_exception_anywhere_in_a_turn(make_rig: RigMaker, kind: str) -> None:
    """Whatever a turn was settling, the next turns settle it, once; and wakes go on working."""
    index, struck = 0, True
    rig = make_rig(kind, buffer_count=4, buffer_count_max=4)
    while struck:
        with (
            connected(rig) as (ours, theirs),
            connected(rig) as (other, other_theirs),
            connected(rig, "unix") as (full, _),
            connected(rig) as (ending, ending_theirs),
        ):
            fill(full)
            refused = socket.socket()
            rig.driver.register(refused.fileno())
            orphans = Orphans([])
            with refused:
                receiving = rig.recv(ours.fileno())
                cancelled = rig.recv(other.fileno(), owner=orphans)
                waiting = rig.send_all(full.fileno(), b"x" * 100)
                ended = rig.recv(ending.fileno())
                rig.settle_down()
                failing = rig.recv(refused.fileno())
                sending = rig.send_all(ours.fileno(), b"abc")
                timer = rig.timeout(0)
                call = rig.submit(Offload(lambda: "called"))
                theirs.sendall(b"1")
                other_theirs.sendall(b"2")
                ending_theirs.shutdown(socket.SHUT_WR)
                rig.driver.cancel(cancelled)
                rig.driver.cancel(waiting)
                rig.driver.wake()
                try:
                    with striking(index, raise_struck) as moments:
                        for _ in range(3):
                            rig.driver.turn(0)
                except StruckError:
                    pass
                struck = moments.struck
                rig.until(lambda: rig.in_flight() == 0)
                assert receiving.value == b"1", index
                assert isinstance(cancelled.error, StandInCancelled), index
                assert orphans.given in ([], [b"2"]), index
                assert isinstance(waiting.error, StandInCancelled)
                assert ended.value == b""
                assert isinstance(failing.error, OpError)
                assert failing.error.errno == errno.ENOTCONN
                assert (sending.state, timer.state, call.value) == (DONE, DONE, "called")
                assert len(rig.delivered) == 8
                rig.wait(receiving, cancelled, waiting, ended, failing, sending, timer, call)
                # The buffers are all there, and it can be woken.
                starved = rig.driver.statistics().starved
                readers = [rig.recv(ours.fileno(), 1) for _ in range(4)]
                theirs.sendall(b"abcd")
                rig.wait(*readers)
                assert rig.driver.statistics().starved == starved, index
                assert rig.driver.statistics().stray == 0
                rig.driver.wake()
                rig.driver.turn(None)
                rig.driver.unregister(refused.fileno())
        index += 1
    assert index > 25


@pytest.mark.parametrize("kind", ["uring", "uring-5.19"])
@pytest.mark.parametrize("strike", ["raise", "cancel", "submit"])
def test_what_is_asked_for_again(make_rig: RigMaker, kind: str, strike: str) -> None:
    """A receive that found no buffer, and a send cut short, are struck as they are resubmitted."""
    index, struck = 0, True
    while struck:
        rig = make_rig(kind, buffer_count=1, buffer_count_max=1)
        with (
            connected(rig) as (ours, theirs),
            connected(rig) as (more, more_theirs),
            connected(rig, "unix") as (full, full_theirs),
        ):
            orphans = Orphans([])
            first = rig.recv(ours.fileno(), owner=orphans)
            second = rig.recv(more.fileno(), owner=orphans)
            sending = rig.send_all(full.fileno(), bytes(1_000_000), flags=0x4000)
            theirs.sendall(b"a")
            more_theirs.sendall(b"b")
            ops = [first, second, sending]

            def do(rig: Rig = rig, ops: list[Op[Any]] = ops) -> None:
                if strike == "raise":
                    raise_struck()
                elif strike == "submit":
                    ops.append(rig.submit(Op(o.NOP)))
                else:
                    for op in ops:
                        rig.driver.cancel(op)

            try:
                with striking(index, do) as moments:
                    for _ in range(2):
                        rig.driver.turn(0)
            except StruckError:
                pass
            struck = moments.struck
            got = 0
            full_theirs.setblocking(False)
            while rig.in_flight():
                rig.driver.turn(0)
                try:
                    got += len(full_theirs.recv(1 << 20))
                except BlockingIOError:
                    pass
            assert len(rig.delivered) == len(ops), index
            for op, byte in ((first, b"a"), (second, b"b")):
                assert op.value == byte or (
                    strike == "cancel" and isinstance(op.error, StandInCancelled)
                ), (index, op)
            if strike != "cancel":
                assert sending.error is None
                while got < 1_000_000:
                    got += len(full_theirs.recv(1 << 20))
                assert got == 1_000_000
            rig.wait(*ops)
            assert rig.driver.statistics().stray == 0
        index += 1
    assert index > 25
