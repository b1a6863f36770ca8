"""A driver without a scheduler, for the contract suite: deliveries are collected and looked at."""

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import pytest

from tests.backends import CHOSEN, RUNG
from tests.older import RUNGS, made_older
from uringio._driver import op as o
from uringio._driver.contract import Driver
from uringio._driver.epoll import make_epoll_driver
from uringio._driver.kqueue import make_kqueue_driver
from uringio._driver.op import DONE, SPENT, Op
from uringio._driver.poll import make_poll_driver
from uringio._driver.uring import make_uring_driver
from uringio._sys.memory import ReadableBuffer
from uringio._sys.system import System

T = TypeVar("T")

READINESS_DRIVERS = {
    "epoll": make_epoll_driver,
    "kqueue": make_kqueue_driver,
    "poll": make_poll_driver,
}
RINGS = (RUNG,) if RUNG else ("uring", "uring-6.1", "uring-6.0", "uring-plain")
_FAMILIES = {"": (*RINGS, *READINESS_DRIVERS), "uring": RINGS}
KINDS = _FAMILIES.get(CHOSEN, (CHOSEN,))

# A test that is still waiting after this long has failed. [seconds]
PATIENCE_S = 50.0

MSG_NOSIGNAL = 0x4000
MSG_WAITALL = 0x100
SEND_ALL_FLAGS = MSG_NOSIGNAL | MSG_WAITALL


class StandInCancelled(BaseException):
    """Stands for a scheduler's cancelled exception."""

    def __init__(self, done_bytes: int) -> None:
        super().__init__()
        self.done = done_bytes


class Rig:
    """One driver, and every op that it has delivered."""

    def __init__(self, kind: str, system: System | None = None, **options: object) -> None:
        self.kind = kind
        self.delivered: list[Op[Any]] = []
        self.deliver = self.note_delivery  # a test may put another in its place
        profile = RUNGS.get(RUNG or kind) if kind not in READINESS_DRIVERS else None
        self.system = made_older(system if system is not None else System(), profile)
        if kind in READINESS_DRIVERS:
            self.driver: Driver = READINESS_DRIVERS[kind](
                self.system, self._deliver, self._make_cancelled
            )
        else:
            self.driver = make_uring_driver(
                self.system, self._deliver, self._make_cancelled, **options
            )

    def _deliver(self, op: Op[Any]) -> None:
        self.deliver(op)

    def note_delivery(self, op: Op[Any]) -> None:
        assert op.state == DONE, f"{op!r} was delivered in state {op.state}"
        assert not any(op is other for other in self.delivered), f"{op!r} was delivered twice"
        self.delivered.append(op)

    @staticmethod
    def _make_cancelled(op: Op[Any]) -> BaseException:
        return StandInCancelled(op.done_bytes)

    @property
    def is_uring(self) -> bool:
        return self.kind not in READINESS_DRIVERS

    def submit(self, op: Op[Any]) -> Op[Any]:
        """Submit *op* and return it."""
        self.driver.submit(op)
        return op

    def turn(self) -> None:
        """Make one turn that does not wait."""
        self.driver.turn(0)

    def until(self, condition: Callable[[], object]) -> None:
        """Turn until *condition* holds, or fail."""
        deadline = time.monotonic() + PATIENCE_S
        while not condition():
            if time.monotonic() > deadline:
                pytest.fail(f"still waiting; delivered: {self.delivered}")
            self.driver.turn(time.monotonic_ns() + 100_000_000)

    def is_delivered(self, op: Op[Any]) -> bool:
        return any(op is other for other in self.delivered)

    def wait(self, *ops: Op[Any]) -> None:
        """Turn until all of *ops* are delivered; they become spent."""
        for op in ops:
            self.until(lambda op=op: self.is_delivered(op))  # type: ignore[misc]
            op.state = SPENT
        self.delivered = [op for op in self.delivered if op.state != SPENT]

    def finish(self, op: Op[T]) -> T:
        """Turn until *op* is delivered; return its value or raise its error."""
        self.wait(op)
        if op.error is not None:
            error, op.error = op.error, None
            raise error
        value, op.value = op.value, None
        return value

    def do(self, op: Op[T]) -> T:
        """Submit *op* and `finish` it."""
        return self.finish(self.submit(op))

    def close(self) -> None:
        """Close the driver, and give it all the time that a busy machine may take for that."""
        self.driver.close(time.monotonic_ns() + int(PATIENCE_S * 1e9))

    def settle_down(self) -> None:
        """Let the kernel have taken what was submitted: after this it is in flight there."""
        self.driver.flush()
        self.driver.turn(0)

    # --- ops -------------------------------------------------------------------------------------

    def recv(self, fd: int, len_bytes: int = 65536, flags: int = 0, **more: object) -> Op[Any]:
        return self.submit(Op(o.RECV, fd, len_=len_bytes, flags=flags, **more))

    def send_all(
        self, fd: int, data: ReadableBuffer, flags: int = SEND_ALL_FLAGS, **more: object
    ) -> Op[Any]:
        len_bytes = memoryview(data).nbytes
        return self.submit(Op(o.SEND_ALL, fd, len_=len_bytes, flags=flags, memory=data, **more))

    def timeout(self, from_now_ns: int) -> Op[Any]:
        return self.submit(Op(o.TIMEOUT, off=time.monotonic_ns() + from_now_ns))

    def in_flight(self) -> int:
        return self.driver.statistics().in_flight


@dataclass
class Orphans:
    """An op's owner that keeps what it is given."""

    given: list[Any]

    def orphan(self, _op: Op[Any], value: object, /) -> None:
        self.given.append(value)


def pair(rig: Rig, kind: str = "tcp") -> "tuple[socket.socket, socket.socket]":
    """Make a connected pair; the first end is the driver's, the second blocks as usual."""
    if kind == "unix":
        ours, theirs = socket.socketpair()
    else:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            theirs = socket.create_connection(listener.getsockname())
            ours, _ = listener.accept()
        for end in (ours, theirs):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    theirs.settimeout(PATIENCE_S)
    rig.driver.register(ours.fileno())
    return ours, theirs


@contextmanager
def connected(rig: Rig, kind: str = "tcp") -> Iterator[tuple[socket.socket, socket.socket]]:
    """Yield a `pair`, and close both ends behind the driver's back, as the contract allows."""
    ours, theirs = pair(rig, kind)
    try:
        with theirs:
            yield ours, theirs
    finally:
        if ours.fileno() >= 0:
            rig.driver.unregister(ours.fileno())
            ours.close()


@contextmanager
def pipe(rig: Rig) -> Iterator[tuple[int, int]]:
    """Yield the ends of a pipe, both registered."""
    ends = os.pipe()
    for fd in ends:
        rig.driver.register(fd)
    try:
        yield ends
    finally:
        for fd in ends:
            rig.driver.unregister(fd)
            try:
                os.close(fd)
            except OSError:
                pass  # the test closed it by an op


def in_thread(function: Callable[[], object]) -> threading.Thread:
    """Run the peer's side in a thread, which the test joins."""
    thread = threading.Thread(target=function)
    thread.start()
    return thread


def fill(end: socket.socket) -> int:
    """Send until the socket takes no more; return how much it took."""
    sent_count = 0
    try:
        while True:
            sent_count += end.send(bytes(10_000), socket.MSG_DONTWAIT)
    except BlockingIOError:
        return sent_count


def empty(end: socket.socket) -> int:
    """Receive until nothing is there; return how much was."""
    received_count = 0
    patience_s = end.gettimeout()
    end.settimeout(0)
    try:
        while data := end.recv(1 << 20):
            received_count += len(data)
    except BlockingIOError:
        pass
    end.settimeout(patience_s)
    return received_count


def is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True
