"""Waiting: for completions, for time, for signals, and what ends the wait for good."""

import errno
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

import pytest

from tests.ring.pilot import PATIENCE_NS, Pilot
from tests.ring.stand_ins import Enters
from uringio._ring.queue import make_submit_and_wait
from uringio._ring.register import register_ring_fd
from uringio._ring.setup import DEFAULT_FLAGS, Ring
from uringio._sys import constants as k
from uringio._sys.errnos import Fate, fate_of_enter
from uringio._sys.layouts import GETEVENTS_ARG, TIMESPEC
from uringio._sys.libc import Libc
from uringio._sys.memory import Memory
from uringio.errors import RingError, WrongThreadError

TICK_S = 0.005  # how often a timer strikes until the wait has felt it


class Pipe:
    """A pipe with a read of it in flight."""

    def __init__(self, pilot: Pilot, user_data: int = 1) -> None:
        self.read_fd, self.write_fd = os.pipe()
        self.memory = Memory(4096)
        self._pilot = pilot
        self._user_data = user_data

    def put_read(self) -> None:
        """Fill a slot with a read."""
        self._pilot.put(
            k.IORING_OP_READ,
            self.read_fd,
            addr=self.memory.addr,
            len_=100,
            user_data=self._user_data,
        )

    def close(self) -> None:
        os.close(self.read_fd)
        os.close(self.write_fd)


@pytest.fixture
def noted() -> Enters:
    """A real system that notes every enter."""
    return Enters()


@pytest.fixture
def noted_pilot(noted: Enters, make_pilot: Callable[..., Pilot]) -> Pilot:
    """A ring on the real kernel, whose enters are noted."""
    return make_pilot(system=noted)


@pytest.fixture
def pipe(noted_pilot: Pilot) -> Iterator[Pipe]:
    one = Pipe(noted_pilot)
    yield one
    one.close()


@contextmanager
def timer(handler: "Callable[[int, FrameType | None], object]") -> Iterator[None]:
    """Run *handler* on a timer that strikes again and again, so that no strike comes too early."""
    before = signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, TICK_S, TICK_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


# --- for completions -----------------------------------------------------------------------------


def test_wait_ends_with_the_completion(pipe: Pipe, noted_pilot: Pilot) -> None:
    """Without a timeout it lasts until another thread has written, and not shorter."""
    pipe.put_read()
    writer = threading.Thread(target=os.write, args=(pipe.write_fd, b"now"))
    noted_pilot.enter()
    noted_pilot.reap()
    assert noted_pilot.taken == []
    writer.start()
    assert noted_pilot.enter(1) is Fate.DONE
    noted_pilot.reap()
    writer.join()
    assert noted_pilot.taken == [(1, 3, 0)]
    assert bytes(pipe.memory.view[:3]) == b"now"


def test_wait_is_for_as_many_as_were_asked(noted_pilot: Pilot, noted: Enters) -> None:
    """A wait for two is not content with one."""
    pipes = [Pipe(noted_pilot, number) for number in (1, 2)]
    for one in pipes:
        one.put_read()
    noted_pilot.enter()
    writers = [
        threading.Thread(target=os.write, args=(one.write_fd, b"x" * count))
        for count, one in enumerate(pipes, 1)
    ]
    for one in writers:
        one.start()
    noted_pilot.enter(2, PATIENCE_NS)
    noted_pilot.reap()
    for writer, one in zip(writers, pipes, strict=True):
        writer.join()
        one.close()
    assert sorted(noted_pilot.taken) == [(1, 1, 0), (2, 2, 0)]
    assert noted.log[-1].min_complete == 2


def test_completions_that_stand_already_end_the_wait(noted_pilot: Pilot, noted: Enters) -> None:
    """One that was posted before is waited for no longer, and one call submits and waits."""
    noted_pilot.put_nops(2)
    assert noted_pilot.enter(2) is Fate.DONE
    assert noted_pilot.enter(1) is Fate.DONE
    noted_pilot.reap()
    assert len(noted_pilot.taken) == 2
    assert [one.to_submit for one in noted.log] == [2, 0]


def test_more_than_the_queue_holds_is_not_waited_for(make_pilot: Callable[..., Pilot]) -> None:
    """The kernel bounds the count to the size of the queue."""
    pilot = make_pilot(4, cq_entries=4)
    pilot.put_nops(4)
    assert pilot.enter(1000, PATIENCE_NS) is Fate.DONE
    pilot.reap()
    assert len(pilot.taken) == 4


# --- for time ------------------------------------------------------------------------------------


@pytest.mark.parametrize("timeout_ns", [0, 1, 999, 1_000_000, 1_000_001])
def test_wait_ends_with_its_time(
    timeout_ns: int, pipe: Pipe, noted_pilot: Pilot, noted: Enters
) -> None:
    """The kernel says ETIME, we say DONE, and what is in flight stays so."""
    pipe.put_read()
    noted_pilot.enter()
    assert noted_pilot.enter(1, timeout_ns) is Fate.DONE
    assert noted.log[-1].result == -errno.ETIME
    noted_pilot.reap()
    assert noted_pilot.taken == []
    os.write(pipe.write_fd, b"late")
    assert noted_pilot.result() == 4


@pytest.mark.parametrize(
    "timeout_ns", [2**62, 2**63 - 1, 2**63, 2**63 + 10**15, 10**27, (2**63 - 1) * 10**9]
)
def test_time_without_end_is_no_time_at_all_for_nobody(
    timeout_ns: int, noted_pilot: Pilot, noted: Enters
) -> None:
    """A timeout past every clock does not wrap into the past: only the signal ends the wait."""
    with timer(lambda *_: None):
        assert noted_pilot.enter(1, timeout_ns) is Fate.DONE
    assert noted.log[-1].result == -errno.EINTR


@pytest.mark.parametrize(
    ("timeout_ns", "seconds", "rest_ns"),
    [(0, 0, 0), (999_999_999, 0, 999_999_999), (10**9, 1, 0), (2_500_000_001, 2, 500_000_001)],
)
def test_timeout_reaches_the_kernel_to_the_nanosecond(
    timeout_ns: int, seconds: int, rest_ns: int, noted_pilot: Pilot, noted: Enters
) -> None:
    """The arguments are the prebuilt objects that the bare door needs, and they say the time."""
    noted.answers = [-errno.ETIME]
    noted_pilot.enter(1, timeout_ns)
    call = noted.log[-1]
    assert call.flags & k.IORING_ENTER_EXT_ARG
    assert call.argsz.value == GETEVENTS_ARG.size
    assert call.argp.value is not None
    sigmask, _, min_wait_usec, ts = GETEVENTS_ARG.unpack(
        noted.memory_at(call.argp.value, GETEVENTS_ARG.size)
    )
    assert (sigmask, min_wait_usec) == (0, 0)
    assert TIMESPEC.unpack(noted.memory_at(ts, TIMESPEC.size)) == (seconds, rest_ns)


def test_untimed_call_passes_nothing(noted_pilot: Pilot, noted: Enters) -> None:
    """NULL and 0, in the same prebuilt form, when there is no timeout or no wait."""
    noted_pilot.put_nops(1)
    noted_pilot.enter(1, None)
    noted_pilot.enter(0, 1000)
    for call in noted.log:
        assert not call.flags & k.IORING_ENTER_EXT_ARG
        assert call.argp.value is None
        assert call.argsz.value == 0


def test_every_enter_runs_deferred_work(noted_pilot: Pilot, noted: Enters) -> None:
    """GETEVENTS is always set; NO_IOWAIT where the kernel has it."""
    noted_pilot.enter()
    noted_pilot.enter(1, 0)
    offered = bool(noted_pilot.ring.features & k.IORING_FEAT_NO_IOWAIT)
    for call in noted.log:
        assert call.flags & k.IORING_ENTER_GETEVENTS
        assert bool(call.flags & k.IORING_ENTER_NO_IOWAIT) == offered


# --- signals -------------------------------------------------------------------------------------


@pytest.mark.parametrize("timeout_ns", [None, PATIENCE_NS])
def test_signal_ends_the_wait_and_nothing_else(
    timeout_ns: int | None, pipe: Pipe, noted_pilot: Pilot, noted: Enters
) -> None:
    """The handler runs, the wait is DONE, and what is in flight completes later."""
    struck: list[int] = []
    pipe.put_read()
    noted_pilot.enter()
    with timer(lambda number, _: struck.append(number)):
        assert noted_pilot.enter(1, timeout_ns) is Fate.DONE
    assert noted.log[-1].result == -errno.EINTR
    assert struck
    os.write(pipe.write_fd, b"after")
    assert noted_pilot.result() == 5


def test_signal_while_submitting_and_waiting(pipe: Pipe, noted_pilot: Pilot, noted: Enters) -> None:
    """When the same call handed requests over, the kernel answers their number, not EINTR."""
    pipe.put_read()
    with timer(lambda *_: None):
        assert noted_pilot.enter(1) is Fate.DONE
    assert noted.log[-1].result == 1
    assert noted_pilot.consumed() == 1
    os.write(pipe.write_fd, b"after")
    assert noted_pilot.result() == 5


def test_handler_that_raises_loses_nothing(pipe: Pipe, noted_pilot: Pilot) -> None:
    """The return value is gone with the exception; the SQ head tells what was consumed."""

    class Struck(Exception):
        pass

    struck: list[int] = []

    def strike(number: int, _: object) -> None:
        if noted_pilot.consumed() and not struck:  # in the wait, and only once
            struck.append(number)
            raise Struck

    pipe.put_read()
    with timer(strike), pytest.raises(Struck):
        noted_pilot.enter(1)
    assert noted_pilot.consumed() == 1
    os.write(pipe.write_fd, b"whole")
    assert noted_pilot.result() == 5


def test_handlers_own_errno_is_not_ours(pipe: Pipe, noted_pilot: Pilot) -> None:
    """A handler that is refused a call of its own, right behind ours, does not end the ring."""
    libc = Libc()
    struck: list[int] = []
    pipe.put_read()
    noted_pilot.enter()
    with timer(lambda *_: struck.append(libc.close(-1))):
        assert noted_pilot.enter(1) is Fate.DONE
    assert struck[0] == -errno.EBADF
    os.write(pipe.write_fd, b"still here")
    assert noted_pilot.result() == 10


# --- what else enter may answer ------------------------------------------------------------------


@pytest.mark.parametrize("number", sorted(errno.errorcode), ids=lambda one: errno.errorcode[one])
def test_every_errno_meets_its_fate(number: int, noted_pilot: Pilot, noted: Enters) -> None:
    """Refused for good, enter returns or raises what the table says, the errno with it."""
    noted.always = -number
    fate = fate_of_enter(number)
    for timeout_ns in (None, 1000):
        if fate in {Fate.DONE, Fate.REAP}:
            assert noted_pilot.enter(1, timeout_ns) is fate
        elif number == errno.EEXIST:
            with pytest.raises(WrongThreadError):
                noted_pilot.enter(1, timeout_ns)
        else:
            words = "please report" if fate is Fate.BUG else r"\. "
            with pytest.raises(RingError, match=words) as refused:
                noted_pilot.enter(1, timeout_ns)
            assert refused.value.errno == number


@pytest.mark.parametrize("number", [errno.EAGAIN, errno.EBUSY])
def test_call_for_room_keeps_the_requests(number: int, noted_pilot: Pilot, noted: Enters) -> None:
    """REAP consumes nothing: after taking completions the same requests are handed over."""
    noted.answers = [-number]
    noted_pilot.put_nops(3)
    assert noted_pilot.enter(1) is Fate.REAP
    assert noted_pilot.consumed() == 0
    assert len(noted_pilot.collect(3)) == 3
    assert [one.to_submit for one in noted.log] == [3, 3]


@pytest.mark.parametrize("number", [errno.EBADF, errno.EFAULT, errno.EPERM, errno.EEXIST])
def test_what_a_second_enter_does_not_say_was_not_ours(
    number: int, noted_pilot: Pilot, noted: Enters
) -> None:
    """An errno that ends the ring is asked for again, without submitting or waiting."""
    noted.answers = [-number]
    noted_pilot.put_nops(3)
    assert noted_pilot.enter(1) is Fate.DONE
    assert (noted.log[-1].to_submit, noted.log[-1].min_complete) == (0, 0)
    assert noted_pilot.consumed() == 0
    assert len(noted_pilot.collect(3)) == 3


@pytest.mark.parametrize("number", [errno.EBADR, errno.EINTR, errno.EFAULT])
def test_dropped_completion_is_the_end(number: int, noted_pilot: Pilot, noted: Enters) -> None:
    """The kernel's count of what it dropped says so, whatever became of its EBADR."""
    noted.answers = [-number]
    noted_pilot.ring.cq_overflow[0] = 1
    with pytest.raises(RingError, match="lost") as refused:
        noted_pilot.enter(1)
    assert refused.value.errno == errno.EBADR


def test_disabled_ring_says_so(make_pilot: Callable[..., Pilot]) -> None:
    """EBADFD from the real kernel names what was forgotten."""
    pilot = make_pilot(ladder=(DEFAULT_FLAGS | k.IORING_SETUP_R_DISABLED,))
    pilot.put_nops(1)
    with pytest.raises(RingError, match="IORING_REGISTER_ENABLE_RINGS") as refused:
        pilot.enter()
    assert refused.value.errno == errno.EBADFD
    assert (
        pilot.ring.system.io_uring_register(pilot.ring.fd, k.IORING_REGISTER_ENABLE_RINGS, 0, 0)
        == 0
    )
    assert len(pilot.collect(1)) == 1


def test_wrong_descriptor_is_our_bug(pilot: Pilot) -> None:
    """EBADF from the real kernel cannot happen, and says so."""
    pilot.ring.enter_fd = 1 << 20
    broken = make_submit_and_wait(pilot.ring)
    with pytest.raises(RingError, match="please report") as refused:
        broken(0, 0, None)
    assert refused.value.errno == errno.EBADF


# --- other threads -------------------------------------------------------------------------------


def enter_elsewhere(ring: Ring, pilot: Pilot) -> list[BaseException | Fate]:
    """Enter the ring in another thread; what came of it."""
    out: list[BaseException | Fate] = []

    def run() -> None:
        try:
            out.append(make_submit_and_wait(ring)(pilot.tail, 0, None))
        except BaseException as error:
            out.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    return out


@pytest.mark.parametrize("registered", [False, True])
def test_other_thread_is_refused(registered: bool, make_pilot: Callable[..., Pilot]) -> None:
    """The kernel keeps the ring for its owner, by descriptor or by index; the owner goes on."""
    first = make_pilot()
    if not first.ring.flags & k.IORING_SETUP_SINGLE_ISSUER:
        pytest.skip("this kernel lets every thread enter")
    if registered:
        register_ring_fd(first.ring)
    pilot = Pilot(first.ring)
    pilot.put_nops(2)
    [outcome] = enter_elsewhere(pilot.ring, pilot)
    assert isinstance(outcome, WrongThreadError)
    assert pilot.consumed() == 0
    assert len(pilot.collect(2)) == 2
