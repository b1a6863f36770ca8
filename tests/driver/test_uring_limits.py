"""The io_uring driver at its limits: queues full, buffers gone, and every errno of enter."""

import errno
import random
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from tests.driver.conftest import RigMaker
from tests.driver.rig import RINGS, Orphans, Rig, StandInCancelled, connected, pair
from tests.older import RUNGS
from uringio._driver import op as o
from uringio._driver.op import DONE, SUBMITTED, Op
from uringio._ring.setup import FLAG_LADDER
from uringio._sys import constants as k
from uringio._sys.system import System
from uringio.errors import ClosedError, OpError, RingError, WrongThreadError

LADDER = pytest.mark.parametrize("kind", RINGS)


class Answering(System):
    """
    A system whose next calls of io_uring_enter are answered by the test.

    Attributes:
        answers: Errnos, oldest first; 0 lets the call through.
        made: Whether the call is made all the same, and only its answer replaced.
        count: How often enter was called.
    """

    def __init__(self) -> None:
        super().__init__()
        self.answers: list[int] = []
        self.made = False
        self.count = 0
        self._errno: int | None = None
        enter, get_errno = self.bare_syscall, self.get_errno

        def answer(*arguments: Any) -> int:
            self.count += 1
            self._errno = None
            number = self.answers.pop(0) if self.answers else 0
            if not number:
                return enter(*arguments)
            if self.made:
                enter(*arguments)
            self._errno = number
            return -1

        self.bare_syscall = answer
        self.get_errno = lambda: get_errno() if self._errno is None else self._errno


@pytest.fixture
def answering(make_rig: RigMaker) -> tuple[Rig, Answering]:
    """An io_uring driver with few entries on an `Answering` system."""
    system = Answering()
    return make_rig("uring", system=system, entries=8), system


@pytest.fixture
def crowd() -> Iterator[Callable[..., list[Any]]]:
    """Make many connected pairs."""
    with ExitStack() as stack:
        yield lambda rig, count: [stack.enter_context(connected(rig, "unix")) for _ in range(count)]


# --- queues --------------------------------------------------------------------------------------


@LADDER
@pytest.mark.parametrize("entries", [1, 4])
def test_more_ops_than_the_queue_holds(make_rig: RigMaker, kind: str, entries: int) -> None:
    """A thousand ops through a queue of a few slots: each ends once, with its own outcome."""
    rig = make_rig(kind, entries=entries)
    with connected(rig) as (ours, theirs):
        ops = [rig.submit(Op(o.NOP)) for _ in range(500)]
        reader = rig.recv(ours.fileno())
        sends = [rig.send_all(ours.fileno(), bytes([n % 256])) for n in range(256)]
        failing = [rig.submit(Op(o.SHUTDOWN, 1_000_000 + n)) for n in range(200)]
        rig.wait(*ops, *sends, *failing)
        assert [op.value for op in ops] == [0] * 500
        assert {op.error.errno for op in failing if isinstance(op.error, OpError)} == {errno.EBADF}
        assert [op.error.fd for op in failing if isinstance(op.error, OpError)] == [
            1_000_000 + n for n in range(200)
        ]
        received = b""
        while len(received) < 256:
            received += theirs.recv(1000)
        assert Counter(received) == Counter(range(256))
        theirs.sendall(b"x")
        assert rig.finish(reader) == b"x"


@LADDER
def test_more_completions_than_the_queue_holds(
    make_rig: RigMaker, crowd: Callable[..., list[Any]], kind: str
) -> None:
    """When hundreds of waiting ops complete at once, far over the CQ's size, all come through."""
    rig = make_rig(kind, entries=1)
    assert rig.driver.ring.cq_entries <= 8
    pairs = crowd(rig, 120)
    ops = [rig.submit(Op(o.POLL, ours.fileno(), flags=0x1)) for ours, _ in pairs]
    rig.settle_down()
    for _, theirs in pairs:
        theirs.sendall(b"x")
    for _ in range(1000):
        rig.driver.turn(0)
        if len(rig.delivered) == len(ops):
            break
    rig.wait(*ops)
    assert {op.value for op in ops} == {0x1}


@LADDER
def test_turns_without_deadline_see_more_than_twenty_completions(
    make_rig: RigMaker, crowd: Callable[..., list[Any]], kind: str
) -> None:
    """An enter runs at most 20 deferred completions; the rest do not wait for new events."""
    rig = make_rig(kind)
    pairs = crowd(rig, 110)
    ops = [rig.recv(ours.fileno()) for ours, _ in pairs]
    rig.settle_down()
    for n, (_, theirs) in enumerate(pairs):
        theirs.sendall(bytes([n]))
    while len(rig.delivered) < len(ops):
        rig.driver.turn(None)
    rig.wait(*ops)
    assert [op.value for op in ops] == [bytes([n]) for n in range(110)]


# --- provided buffers ----------------------------------------------------------------------------


@LADDER
@pytest.mark.parametrize("buffer_count_max", [2, 64])
def test_receives_queue_when_buffers_run_out(
    make_rig: RigMaker, crowd: Callable[..., list[Any]], kind: str, buffer_count_max: int
) -> None:
    """With two buffers and a hundred receives at once, every one gets its bytes, unmixed."""
    rig = make_rig(kind, buffer_count=2, buffer_count_max=buffer_count_max)
    pairs = crowd(rig, 100)
    for round_index in range(5):
        ops = [rig.recv(ours.fileno()) for ours, _ in pairs]
        rig.settle_down()
        messages = [bytes([n, round_index]) * random.randint(1, 5000) for n in range(100)]
        for (_, theirs), message in zip(pairs, messages, strict=True):
            theirs.sendall(message)
        rig.wait(*ops)
        assert [op.value for op in ops] == messages
    assert rig.driver.statistics().starved > 0


@LADDER
def test_a_starved_receive_is_cancelled(make_rig: RigMaker, kind: str) -> None:
    """Cancelled while it waits for a buffer, a receive ends as cancelled and no byte is lost."""
    rig = make_rig(kind, buffer_count=1, buffer_count_max=1)
    orphans = Orphans([])
    with connected(rig) as (first, first_theirs), connected(rig) as (second, second_theirs):
        for _ in range(50):
            ops = [rig.recv(end.fileno(), owner=orphans) for end in (first, second)]
            rig.settle_down()
            first_theirs.sendall(b"1")
            second_theirs.sendall(b"2")
            if random.random() < 0.5:
                rig.turn()
            rig.driver.cancel(ops[1])
            assert rig.finish(ops[0]) == b"1"
            with pytest.raises(StandInCancelled):
                rig.finish(ops[1])
            if not orphans.given:
                orphans.given.append(rig.do(Op(o.RECV, second.fileno(), len_=10)))
            assert orphans.given == [b"2"]
            orphans.given.clear()


@LADDER
def test_small_buffers_bound_a_receive(make_rig: RigMaker, kind: str) -> None:
    """One RECV returns at most one buffer's bytes; the rest comes with the next."""
    rig = make_rig(kind, buffer_count=4, buffer_count_max=4, buffer_bytes=100)
    with connected(rig) as (ours, theirs):
        data = random.randbytes(5000)
        theirs.sendall(data)
        received = b""
        while len(received) < len(data):
            chunk = rig.do(Op(o.RECV, ours.fileno(), len_=65536))
            assert 0 < len(chunk) <= 100
            received += chunk
        assert received == data


# --- what enter may answer -----------------------------------------------------------------------


@pytest.mark.parametrize("number", [errno.EINTR, errno.ETIME, errno.EAGAIN, errno.EBUSY])
@pytest.mark.parametrize("made", [False, True], ids=["refused", "made-all-the-same"])
def test_passing_answers_lose_nothing(
    answering: tuple[Rig, Answering], number: int, made: bool
) -> None:
    """Whatever enter answers, and whether or not it did its work, each op is made exactly once."""
    rig, system = answering
    system.made = made
    with connected(rig) as (ours, theirs):
        for round_index in range(50):
            system.answers = [number if random.random() < 0.5 else 0 for _ in range(30)]
            ops = [rig.submit(Op(o.NOP)) for _ in range(20)]
            reader = rig.recv(ours.fileno())
            sender = rig.send_all(ours.fileno(), bytes([round_index]))
            theirs.sendall(bytes([round_index]))
            rig.wait(*ops, sender)
            assert rig.finish(reader) == bytes([round_index])
            assert theirs.recv(100) == bytes([round_index])
        system.answers = []


@pytest.mark.parametrize("number", [errno.EAGAIN, errno.EBUSY])
@pytest.mark.parametrize("made", [False, True], ids=["refused", "made-all-the-same"])
def test_slots_that_were_not_taken_are_kept(
    answering: tuple[Rig, Answering], number: int, made: bool
) -> None:
    """Ops that are submitted while older ones wait for the kernel overwrite none of them."""
    rig, system = answering
    system.made = made
    ops: list[Op[Any]] = []
    for _ in range(100):
        system.answers = [number] * random.randrange(4)
        ops += [rig.submit(Op(o.SHUTDOWN, 1_000_000 + len(ops) + n)) for n in range(5)]
        rig.turn()
    system.answers = []
    rig.until(lambda: len(rig.delivered) == len(ops))
    rig.wait(*ops)
    assert {type(op.error) for op in ops} == {OpError}


def test_a_signal_ends_a_turn(answering: tuple[Rig, Answering]) -> None:
    """EINTR goes back to Python, whose handlers may have something for us: the turn returns."""
    rig, system = answering
    rig.turn()
    system.answers = [errno.EINTR]
    rig.driver.turn(None)
    assert system.answers == []


def test_without_memory_for_requests_ops_wait(answering: tuple[Rig, Answering]) -> None:
    """EAGAIN for a while: turns go on, ops stay in flight, and are made when it is over."""
    rig, system = answering
    op = rig.submit(Op(o.NOP))
    system.answers = [errno.EAGAIN, 0] * 5
    for _ in range(5):
        rig.turn()
    assert rig.finish(op) == 0


def test_an_op_that_finds_no_slot_fails(answering: tuple[Rig, Answering]) -> None:
    """When the kernel takes nothing for long and the queue is full, the next op is EAGAIN."""
    rig, system = answering
    entries = rig.driver.ring.sq_entries
    rig.turn()
    ops = [rig.submit(Op(o.NOP)) for _ in range(entries)]
    system.answers = [errno.EBUSY] * 16
    buffer = bytearray(4)
    refused: list[Op[Any]] = [
        rig.submit(Op(o.NOP)),
    ]
    system.answers = [errno.EBUSY] * 16
    refused.append(rig.submit(Op(o.RECV_INTO, 0, len_=4, memory=buffer)))
    assert [op.state for op in refused] == [DONE, DONE]
    for op in refused:
        with pytest.raises(BlockingIOError):
            rig.finish(op)
    buffer.clear()
    rig.wait(*ops)
    assert rig.in_flight() == 0


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (errno.EEXIST, WrongThreadError),
        (errno.EBADR, RingError),
        (errno.EPERM, RingError),
        (errno.ENOSYS, RingError),
        (errno.EINVAL, RingError),
        (errno.EFAULT, RingError),
        (errno.EBADF, RingError),
    ],
)
def test_final_answers_are_raised(
    answering: tuple[Rig, Answering], number: int, expected: type[Exception]
) -> None:
    """What no retry mends comes out of the turn as a typed error that says what to do."""
    rig, system = answering
    op = rig.submit(Op(o.NOP))
    # The ring asks a second time where a signal handler may have spoilt the answer.
    system.answers = [number] * 4
    with pytest.raises(expected) as caught:
        rig.turn()
    if isinstance(caught.value, RingError):
        assert caught.value.errno == number
        assert caught.value.remedy
    system.answers = []
    assert op.state == SUBMITTED
    assert rig.finish(op) == 0


def test_a_request_that_the_kernel_keeps_is_leaked_on_purpose(make_rig: RigMaker) -> None:
    """Closing with a request that does not come back warns, and its memory stays alive."""
    system = Answering()
    rig = make_rig("uring", system=system)
    with connected(rig) as (ours, theirs):
        memory = bytearray(10)
        op = rig.submit(Op(o.RECV_INTO, ours.fileno(), len_=10, memory=memory))
        rig.settle_down()
        system.answers = [errno.EINTR] * 1_000_000
        with pytest.warns(ResourceWarning, match="1 operations were still in the kernel"):
            rig.driver.close(0)
        with pytest.raises(BufferError):
            memory.clear()
        assert rig.delivered == []
        assert op.state != DONE
        with pytest.raises(ClosedError):
            rig.driver.turn(0)
        theirs.sendall(b"x")


# --- the ladder ----------------------------------------------------------------------------------


@LADDER
def test_each_rung_is_what_it_says(make_rig: RigMaker, kind: str) -> None:
    """The rigs of this suite do run on the flags that they are named for."""
    rig = make_rig(kind)
    accepted = RUNGS[kind].setup_flags if kind in RUNGS else -1
    assert rig.driver.ring.flags == next(one for one in FLAG_LADDER if not one & ~accepted)


def test_registering_the_ring_is_an_optimisation_only(make_rig: RigMaker) -> None:
    """A kernel that cannot register ring descriptors gets the plain one with every enter."""

    class Unable(System):
        def io_uring_register(self, fd: int, opcode: int, arg_addr: int, nr_args: int) -> int:
            if opcode == k.IORING_REGISTER_RING_FDS:
                return -errno.EINVAL
            return super().io_uring_register(fd, opcode, arg_addr, nr_args)

    rig = make_rig("uring", system=Unable())
    assert rig.driver.ring.enter_fd == rig.driver.ring.fd
    ours, theirs = pair(rig)
    theirs.sendall(b"x")
    assert rig.do(Op(o.RECV, ours.fileno(), len_=1)) == b"x"
    rig.do(Op(o.CLOSE, ours.detach()))
    theirs.close()


def test_buffers_that_are_refused_leave_no_ring_behind(make_rig: RigMaker) -> None:
    """When the buffer ring cannot be had, making the driver fails and leaks nothing."""

    class Unable(System):
        def io_uring_register(self, fd: int, opcode: int, arg_addr: int, nr_args: int) -> int:
            if opcode == k.IORING_REGISTER_PBUF_RING:
                return -errno.ENOMEM
            return super().io_uring_register(fd, opcode, arg_addr, nr_args)

    with pytest.raises(OSError, match="memory") as caught:
        make_rig("uring", system=Unable())
    assert caught.value.errno == errno.ENOMEM
