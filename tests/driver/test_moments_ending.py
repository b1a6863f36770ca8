"""
Signal handlers that raise while something ends: cancelling, calls of threads, reads of epoll's.

As in `test_moments`: each test goes through every moment at which the interpreter may run one.
"""

import os
import signal
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

import uringio
from tests.driver.conftest import RigMaker
from tests.driver.rig import Orphans, Rig, StandInCancelled, connected
from tests.driver.test_moments import StruckError, raise_struck, striking
from tests.run.native import forever
from uringio._driver import op as o
from uringio._driver.op import NEW, Offload, Op

KINDS = ("uring", "epoll")

Begin = Callable[[Rig, int, threading.Event], Op[Any]]

BEGINNINGS: dict[str, Begin] = {
    "receive": lambda rig, fd, _stop: rig.recv(fd),
    "timer": lambda rig, _fd, _stop: rig.timeout(60_000_000_000),
    "event": lambda rig, _fd, _stop: rig.submit(Op(o.EVENT)),
    "call": lambda rig, _fd, stop: rig.submit(Offload(stop.wait)),
    "nop": lambda rig, _fd, _stop: rig.submit(Op(o.NOP)),
}


@pytest.mark.parametrize("handed_over", [False, True], ids=["queued", "in the kernel"])
@pytest.mark.parametrize("what", BEGINNINGS)
@pytest.mark.parametrize("kind", KINDS)
def test_cancelling_is_gone_on_with(
    make_rig: RigMaker, kind: str, what: str, handed_over: bool
) -> None:
    """An op whose cancelling was broken off ends as cancelled in the next turn, once."""
    if handed_over and what == "nop":
        pytest.skip("a NOP that was handed over is over")
    rig = make_rig(kind)
    index, struck = 0, True
    while struck:
        stop = threading.Event()
        with connected(rig) as (ours, _):
            op = BEGINNINGS[what](rig, ours.fileno(), stop)
            if handed_over:
                rig.settle_down()
            try:
                with striking(index, raise_struck) as moments:
                    rig.driver.cancel(op)
            except StruckError:
                pass
            struck = moments.struck
            if op.state == o.SUBMITTED:  # it struck before anything was done
                rig.driver.cancel(op)
            # A turn that may wait for ever: nothing else would end it.
            while not rig.is_delivered(op):
                rig.driver.turn(None)
            rig.wait(op)
            assert isinstance(op.error, StandInCancelled), (index, op.error)
            stop.set()
            rig.until(lambda: rig.in_flight() == 0)
            assert rig.delivered == []
        index += 1
    assert index > 2
    assert rig.driver.statistics().stray == 0


@pytest.mark.parametrize("cancelled", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_calls_of_threads_that_ended(
    make_rig: RigMaker, kind: str, cancelled: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a thread has done is delivered, or closed, once, whatever strikes as it is settled."""
    from uringio._driver.uring_files import ThreadCalls

    monkeypatch.setattr(ThreadCalls, "_ring_takes", lambda *_: False)
    path = bytes(tmp_path / "file")
    Path(os.fsdecode(path)).write_bytes(b"content")
    rig = make_rig(kind)
    index, struck = 0, True
    while struck:
        how = os.O_RDONLY.to_bytes(8, "little") + bytes(16)
        opens = [Op(o.OPENAT2, -100, memory=how + path + b"\0", len_=24) for _ in range(2)]
        missing: Op[Any] = Op(o.UNLINK, -100, memory=bytes(tmp_path / "none") + b"\0")
        ops: list[Op[Any]] = [rig.submit(op) for op in (*opens, missing)]
        if cancelled:
            rig.driver.cancel(ops[0])
        try:
            with striking(index, raise_struck) as moments:
                for _ in range(200):
                    rig.driver.turn(0)
                    if len(rig.delivered) == len(ops):
                        break
                    os.sched_yield()
        except StruckError:
            pass
        struck = moments.struck
        rig.until(lambda: rig.in_flight() == 0)
        rig.wait(*ops)
        first = ops[0]
        assert isinstance(first.error, StandInCancelled) == cancelled, (index, first.error)
        assert isinstance(missing.error, FileNotFoundError), index
        for op in opens:
            if op.error is None:
                assert isinstance(op.value, int)
                os.close(op.value)
                op.value = None
        if len(rig.delivered) > 0 or index > 400:
            break
        index += 1
    assert rig.delivered == []
    assert index > 10


def test_what_epoll_has_read_is_kept(make_rig: RigMaker) -> None:
    """Behind the read, a handler that raises finds the bytes with the op, or with its owner."""
    rig = make_rig("epoll")
    index, struck = 0, True
    while struck:
        with connected(rig) as (ours, theirs):
            orphans = Orphans([])
            waiting = rig.recv(ours.fileno(), 100, owner=orphans)
            theirs.sendall(b"1")
            try:
                with striking(index, raise_struck) as moments:
                    rig.driver.turn(None)
                    rig.turn()
            except StruckError:
                pass
            struck = moments.struck
            rig.until(lambda: rig.in_flight() == 0)
            rig.wait(waiting)
            assert waiting.value == b"1", index
            # In the attempt that a submission makes: who submits sees the exception and cancels.
            theirs.sendall(b"2")
            assert rig.do(Op(o.POLL, ours.fileno(), flags=1))
            op: Op[Any] = Op(o.RECV, ours.fileno(), len_=100, owner=orphans)
            try:
                with striking(index, raise_struck) as again:
                    rig.driver.submit(op)
            except StruckError:
                if op.state != NEW:
                    rig.driver.cancel(op)
            struck |= again.struck
            if op.state == NEW:
                rig.submit(op)
            rig.wait(op)
            found = b"".join(orphans.given) + (op.value or b"")
            if not found:  # it struck before the read: the socket has it still
                found = ours.recv(100)
            assert found == b"2", index
        index += 1
    assert index > 5


def test_an_op_that_is_over_is_not_tried_again(make_rig: RigMaker) -> None:
    """Epoll: one that was delivered before its queue was left is only taken out of it."""
    rig = make_rig("epoll")

    def deliver(op: Op[Any]) -> None:
        rig.note_delivery(op)
        rig.deliver = rig.note_delivery
        raise_struck()

    with connected(rig) as (ours, theirs):
        first, second = rig.recv(ours.fileno(), 1), rig.recv(ours.fileno(), 1)
        rig.deliver = deliver
        theirs.sendall(b"a")
        with pytest.raises(StruckError):
            rig.driver.turn(None)
        assert (rig.delivered, first.value) == ([first], b"a")
        theirs.sendall(b"b")
        rig.wait(second)
        assert second.value == b"b"
        assert rig.delivered == [first]
        rig.wait(first)


def test_a_close_is_made_once(make_rig: RigMaker) -> None:
    """Epoll: a close that is broken off is not made twice, and its op ends."""
    rig = make_rig("epoll")
    index, struck = 0, True
    while struck:
        ends = os.pipe()
        rig.driver.register(ends[0])
        op: Op[Any] = Op(o.CLOSE, ends[0])
        try:
            with striking(index, raise_struck) as moments:
                rig.driver.submit(op)
        except StruckError:
            if op.state != NEW:
                rig.driver.cancel(op)
        struck = moments.struck
        if op.state == NEW:
            rig.submit(op)
        other = os.open("/dev/null", os.O_RDONLY)  # it may get the number
        rig.wait(op)
        os.fstat(other)
        os.close(other)
        if struck:
            with suppress(OSError):
                os.close(ends[0])  # it struck between the call and the closing
        os.close(ends[1])
        index += 1
    assert index > 2


def test_a_handler_that_raises_before_a_callback(backend: str) -> None:
    """Where the next item of the loop is an op with a callback, the exception comes out as well."""

    class Callback:
        """What is called when the loop would resume it as a task."""

        @property
        def run(self) -> object:
            os.kill(os.getpid(), signal.SIGUSR1)
            raise AttributeError

        def __call__(self, _op: object) -> None:
            called.append(True)

    def handler(*_: object) -> None:
        raise StruckError

    async def main() -> None:
        uringio.sleep(0).add_done_callback(Callback())
        await forever()

    called: list[bool] = []
    before = signal.signal(signal.SIGUSR1, handler)
    try:
        with pytest.raises(StruckError):
            uringio.run(main, backend=backend)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert called == [True]
