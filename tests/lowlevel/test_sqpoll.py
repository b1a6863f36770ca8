"""Rings whose submissions a thread of the kernel's takes, and what keeps them from being lost."""

import errno
import gc
import os
import random
import select
import signal
import socket
import threading
import weakref
from collections.abc import Callable
from ctypes import c_size_t, c_void_p
from pathlib import Path

import pytest

from tests.fresh import FreshPython
from tests.lowlevel.rig import PATIENCE_NS, done, effect, result
from tests.ring.stand_ins import Enters, plain_ring
from uringio._ring.polled import make_careful_reap, make_poke, make_polled_submit
from uringio._ring.queue import make_submit_and_wait
from uringio._sys import constants as k
from uringio._sys import fences
from uringio._sys.errnos import Fate
from uringio._sys.layouts import CQE
from uringio._sys.libc import Libc
from uringio._sys.system import System
from uringio.errors import (
    OpError,
    QueueFullError,
    RingError,
    UnsupportedError,
    UsageError,
    WrongThreadError,
)
from uringio.lowlevel import (
    EnterFlags,
    Features,
    Ring,
    SetupFlags,
    SqeFlags,
    SqRingFlags,
    prep_cancel64,
    prep_nop,
    prep_read,
    prep_recv,
    prep_send,
    prep_timeout,
)

MakeRing = Callable[..., Ring]
S = SetupFlags
IDLE_MS = 2


class Watched(System):
    """Notes the flags of every enter."""

    def __init__(self) -> None:
        super().__init__()
        self.log: list[int] = []
        self._real = self.bare_syscall
        self.bare_syscall = self._enter

    def _enter(
        self,
        nr: int,
        fd: int,
        count: int,
        least: int,
        flags: int,
        argp: c_void_p,
        size: c_size_t,
        /,
    ) -> int:
        self.log.append(flags)
        return self._real(nr, fd, count, least, flags, argp, size)


class Fenced(Watched):
    """
    A system whose barrier is one of two.

    Args:
        way: ``"library"`` for libatomic's, ``"kernel"`` for membarrier's.
    """

    def __init__(self, way: str) -> None:
        super().__init__()
        self.way = way

    def full_fence(self) -> fences.Fence | None:
        """Return that one, or skip the test."""
        if self.way == "library":
            found = fences._of_library("libatomic.so.1")
        else:
            found = fences._of_kernel(self._libc.syscall)
        if found is None:
            pytest.skip(f"no barrier of the {self.way}'s here")
        return found


@pytest.fixture
def polled(make_ring: MakeRing) -> Ring:
    """A ring of sixteen slots whose thread sleeps soon."""
    return make_ring(16, flags=S.SQPOLL, sq_thread_idle_ms=IDLE_MS)


def thread_of(ring: Ring) -> dict[str, str]:
    """Read what the kernel tells of a ring in /proc."""
    lines = Path(f"/proc/self/fdinfo/{ring.fd}").read_text(encoding="ascii").splitlines()
    return {name: rest.strip() for name, _, rest in (line.partition(":") for line in lines)}


def until(ready: Callable[[], bool]) -> None:
    """Look again and again until something is so, and give up at last."""
    poller = select.poll()
    for _ in range(PATIENCE_NS // 1_000_000):
        if ready():
            return
        poller.poll(1)
    raise AssertionError("it never was")


def asleep(ring: Ring) -> bool:
    """Tell whether the thread has said that it sleeps."""
    core = ring._core
    assert core is not None
    return bool(core.sq_flags[0] & SqRingFlags.NEED_WAKEUP)


def take_without_entering(ring: Ring, count: int) -> list[tuple[int, int, int]]:
    """Look at the completion queue until so many have come."""
    found: list[tuple[int, int, int]] = []
    poller = select.poll()
    for turn in range(1000 + PATIENCE_NS // 1_000_000):
        found += ring.take()
        if len(found) >= count:
            return found
        if turn > 1000:
            poller.poll(1)
    raise AssertionError(f"only {found} of {count} came")


# --- the barrier, without a kernel ---------------------------------------------------------------


def test_the_flag_is_read_behind_the_barrier_and_the_tail_stored_before_it() -> None:
    """A thread that falls asleep at the last moment is woken; without a barrier it would not be."""
    system = Enters()
    system.always = -errno.EINTR  # not a ring of the kernel's
    ring = plain_ring(system, 8, 16)
    tails: list[int] = []

    def fence() -> None:
        tails.append(ring.sq_tail[0])
        ring.sq_flags[0] = k.IORING_SQ_NEED_WAKEUP

    submit = make_polled_submit(ring, make_submit_and_wait(ring), make_poke(ring), fence)
    assert submit(3, 0, None) is Fate.DONE
    assert tails == [3]
    assert [one.flags for one in system.log] == [k.IORING_ENTER_SQ_WAKEUP]


def test_a_thread_that_is_awake_is_left_alone() -> None:
    """Then a submission makes no system call; nor does one of nothing."""
    system = Enters()
    ring = plain_ring(system, 8, 16)
    fenced: list[None] = []
    submit = make_polled_submit(
        ring, make_submit_and_wait(ring), make_poke(ring), lambda: fenced.append(None)
    )
    submit(1, 0, None)
    assert len(fenced) == 1
    ring.sq_head[0] = 1
    ring.sq_flags[0] = k.IORING_SQ_NEED_WAKEUP
    submit(1, 0, None)
    assert len(fenced) == 1
    assert system.log == []


def test_a_barrier_that_fails_wakes_the_thread_anyway() -> None:
    """What a filter forbids after the ring was made loses no submission."""
    system = Enters()
    system.always = -errno.EINTR
    ring = plain_ring(system, 8, 16)
    submit = make_polled_submit(
        ring, make_submit_and_wait(ring), make_poke(ring), lambda: -errno.EPERM
    )
    submit(1, 0, None)
    assert [one.flags for one in system.log] == [k.IORING_ENTER_SQ_WAKEUP]


def test_the_tail_never_goes_back() -> None:
    """Fetching completions that found no room must not take back what the thread may have."""
    system = Enters()
    system.always = -errno.EINTR
    ring = plain_ring(system, 8, 16, start=(1 << 32) - 2)
    submit = make_polled_submit(ring, make_submit_and_wait(ring), make_poke(ring), lambda: None)
    submit((1 << 32) + 3, 0, None)
    assert ring.sq_tail[0] == 3
    ring.sq_flags[0] = k.IORING_SQ_CQ_OVERFLOW
    submit(ring.sq_head[0], 0, None)
    assert ring.sq_tail[0] == 3
    assert len(system.log) == 1
    assert system.log[0].flags & k.IORING_ENTER_GETEVENTS


@pytest.mark.parametrize("ordered", [True, False])
def test_what_a_signal_handler_publishes_stays_published(ordered: bool) -> None:
    """A handler runs behind any call, and may submit more than the call that it stopped."""
    system = Enters()
    system.always = -errno.EINTR
    system.total_store_order = ordered
    ring = plain_ring(system, 8, 16)
    handled: list[int] = []

    def fence() -> None:
        if not handled:
            handled.append(1)
            submit(5, 0, None)

    submit = make_polled_submit(ring, make_submit_and_wait(ring), make_poke(ring), fence)
    submit(3, 0, None)
    assert ring.sq_tail[0] == 5
    submit(3, 1, None)
    assert ring.sq_tail[0] == 5


class Reordering(System):
    """A system on a processor that reorders what it may."""

    def __init__(self) -> None:
        super().__init__()
        self.total_store_order = False


def test_processors_that_reorder_more_get_barriers_around_both_queues() -> None:
    """One before the tail of requests; one before completions are read, one before their return."""
    ring = plain_ring(Reordering(), 8, 16)
    seen: list[tuple[int, int]] = []
    storage: list[tuple[int, int, int]] = []

    def fence() -> None:
        seen.append((ring.sq_tail[0], ring.cq_head[0]))

    submit = make_polled_submit(ring, make_submit_and_wait(ring), make_poke(ring), fence)
    submit(2, 0, None)
    assert seen == [(0, 0), (2, 0)]
    for slot, name in enumerate((7, 8)):
        CQE.pack_into(ring.cqes, slot * CQE.size, name, 1, 0)
    ring.cq_tail[0] = 2
    reap = make_careful_reap(ring, storage, fence)
    reap()
    assert seen[2:] == [(2, 0), (2, 0)]
    assert storage == [(7, 1, 0), (8, 1, 0)]
    assert ring.cq_head[0] == 2
    reap()
    assert len(seen) == 4


def test_completions_behind_a_barrier_that_fails_stay() -> None:
    """They are not read in an order that nobody vouches for."""
    ring = plain_ring(Reordering(), 8, 16)
    ring.cq_tail[0] = 1
    storage: list[tuple[int, int, int]] = []
    with pytest.raises(OpError, match="membarrier") as caught:
        make_careful_reap(ring, storage, lambda: -errno.EPERM)()
    assert caught.value.errno == errno.EPERM
    assert storage == []
    assert ring.cq_head[0] == 0


def test_a_ring_without_a_barrier_is_refused() -> None:
    """By what would help, before one is made."""

    class Bare(System):
        def full_fence(self) -> None:
            return None

    with pytest.raises(UnsupportedError, match=r"membarrier\(2\).*libatomic1"):
        Ring(4, flags=S.SQPOLL, system=Bare())


def test_barriers_are_where_they_are_said_to_be() -> None:
    """A library that is not there and a kernel that refuses give none; what is there passes."""
    assert fences._of_library("libdoesnotexist.so.1") is None
    assert fences._of_library("libc.so.6") is None
    for answers in ([-errno.ENOSYS], [0], [8, -errno.EPERM]):
        left = iter(answers)
        assert fences._of_kernel(lambda *_, left=left: next(left)) is None  # type: ignore[misc]
    found = fences.full_fence(Libc().syscall)
    assert found is None or not found()


def test_a_processor_that_reorders_is_refused_what_has_no_barrier() -> None:
    """Rings that complete at any time, and large completions of a thread's."""
    with pytest.raises(UnsupportedError, match="add DEFER_TASKRUN"):
        Ring(4, flags=0, system=Reordering())
    with pytest.raises(UnsupportedError, match="keeps loads in order"):
        Ring(4, flags=S.SQPOLL | S.CQE32, system=Reordering())


def test_a_ring_with_barriers_everywhere_works(make_ring: MakeRing) -> None:
    """The way of processors that reorder is sound on any."""
    ring = make_ring(8, flags=S.SQPOLL, sq_thread_idle_ms=IDLE_MS, system=Reordering())
    for base in range(0, 80, 4):
        for number in range(base, base + 4):
            prep_nop(ring, user_data=number)
        assert [one.user_data for one in done(ring, 4)] == list(range(base, base + 4))


# --- the real thread -----------------------------------------------------------------------------


@effect(SetupFlags.SQPOLL, Features.SQPOLL_NONFIXED, Features.NATIVE_WORKERS)
def test_requests_are_taken_without_a_system_call(make_ring: MakeRing, file: Path) -> None:
    """While the thread, one of this process, is awake; files need no registration."""
    watched = Watched()
    ring = make_ring(16, flags=S.SQPOLL, sq_thread_idle_ms=60_000, system=watched)
    prep_nop(ring)
    result(ring)  # the thread may have to be told of the first
    watched.log.clear()
    for number in range(100):
        prep_nop(ring, user_data=number)
        assert ring.submit() == 1
        assert take_without_entering(ring, 1) == [(number, 0, 0)]
    room = bytearray(10)
    descriptor = os.open(file, os.O_RDONLY)
    prep_read(ring, descriptor, room, 0)
    ring.submit()
    assert take_without_entering(ring, 1) == [(0, 10, 0)]
    assert room == b"0123456789"
    assert watched.log == []
    os.close(descriptor)
    assert thread_of(ring)["SqThread"] in os.listdir("/proc/self/task")


@effect(SqRingFlags.NEED_WAKEUP, EnterFlags.SQ_WAKEUP)
@pytest.mark.parametrize("way", ["library", "kernel"])
def test_a_sleeping_thread_is_woken(make_ring: MakeRing, way: str) -> None:
    """By the submission that finds it asleep, and by that alone."""
    system = Fenced(way)
    ring = make_ring(16, flags=S.SQPOLL, sq_thread_idle_ms=1, system=system)
    until(lambda: asleep(ring))
    prep_nop(ring, user_data=5)
    ring.submit()
    assert take_without_entering(ring, 1) == [(5, 0, 0)]
    assert system.log == [EnterFlags.SQ_WAKEUP]


@pytest.mark.parametrize("way", ["library", "kernel"])
def test_no_wakeup_is_ever_lost(make_ring: MakeRing, way: str) -> None:
    """
    H31: however close to the thread's falling asleep a request is submitted, it completes.

    Half of the submissions come at the moment when the thread has just said that it sleeps, half
    at a place that a die chooses around it.  Nothing enters the ring for their completions, so a
    wakeup that is lost once would never be made good.
    """
    ring = make_ring(4, flags=S.SQPOLL, sq_thread_idle_ms=1, system=Fenced(way))
    core = ring._core
    assert core is not None
    flags, dice = core.sq_flags, random.Random(31)
    for number in range(80):
        # At most: where the machine is loaded the thread may not come to its sleep for long.
        turns = 400_000 if number % 2 else dice.randrange(60_000)
        while turns and not (number % 2 and flags[0] & k.IORING_SQ_NEED_WAKEUP):
            turns -= 1
        prep_nop(ring, user_data=number)
        ring.submit()
        assert take_without_entering(ring, 1) == [(number, 0, 0)]


def test_waiting_wakes_it_too(polled: Ring) -> None:
    """A request that is filled and waited for needs no `submit`."""
    for number in range(5):
        until(lambda: asleep(polled))
        prep_nop(polled, user_data=number)
        assert done(polled) == [(number, 0, 0)]


@effect(EnterFlags.SQ_WAIT)
def test_a_full_queue_is_waited_for(make_ring: MakeRing) -> None:
    """The kernel says when there is room again; nothing is lost or done twice on the way."""
    watched = Watched()
    ring = make_ring(2, cq_entries=64, flags=S.SQPOLL, sq_thread_idle_ms=1, system=watched)
    found: list[int] = []
    number = 0
    for number in range(200_000):
        if not ring.space:
            assert ring.wait_for_room() > 0
        prep_nop(ring, user_data=number)
        found += [one[0] for one in ring.take()]
        if number > 200 and any(one & EnterFlags.SQ_WAIT for one in watched.log):
            break
    assert any(one & EnterFlags.SQ_WAIT for one in watched.log)
    found += [one.user_data for one in ring]
    assert found == list(range(number + 1))
    figures = ring.statistics()
    assert (figures.submitted, figures.completed, figures.in_flight) == (number + 1, number + 1, 0)


def test_a_disabled_ring_is_told_what_to_call(make_ring: MakeRing) -> None:
    """As any other; its requests are taken once it is enabled."""
    ring = make_ring(2, flags=S.SQPOLL | S.R_DISABLED, sq_thread_idle_ms=IDLE_MS)
    prep_nop(ring, user_data=1)
    prep_nop(ring, user_data=2)
    for call in (ring.submit, ring.wait, ring.wait_for_room):
        with pytest.raises(RingError, match="never enabled") as caught:
            call()
        assert caught.value.errno == errno.EBADFD
    assert (ring.queued, ring.space, ring.in_flight) == (2, 0, 2)
    with pytest.raises(QueueFullError, match=r"wait_for_room\(\)"):
        prep_nop(ring)
    ring.enable()
    assert ring.wait_for_room() > 0
    assert [one.user_data for one in done(ring, 2)] == [1, 2]


def test_arguments_live_until_the_thread_has_taken_them(make_ring: MakeRing) -> None:
    """Memory of a request that posts nothing is freed with its slot, not when it is published."""

    class Held:
        pass

    ring = make_ring(4, flags=S.SQPOLL | S.R_DISABLED, sq_thread_idle_ms=IDLE_MS)
    held = Held()
    gone = weakref.ref(held)
    prep_timeout(ring, 1, flags=SqeFlags.CQE_SKIP_SUCCESS)
    ring._passing.append((ring._cells[0] - 1, held))
    del held
    with pytest.raises(RingError):
        ring.submit()
    assert ring._holds_memory()
    gc.collect()
    assert gone() is not None
    ring.enable()
    done(ring)  # the timeout's end is no success
    ring.submit()
    gc.collect()
    assert gone() is None
    assert not ring._holds_memory()


@effect(SetupFlags.SQ_AFF)
def test_the_thread_is_bound_to_a_processor(make_ring: MakeRing) -> None:
    """To the one that was named."""
    processor = max(os.sched_getaffinity(0))
    ring = make_ring(4, flags=S.SQPOLL, sq_thread_cpu=processor, sq_thread_idle_ms=IDLE_MS)
    assert S.SQ_AFF in ring.setup_flags
    prep_nop(ring)
    assert result(ring) == 0
    assert os.sched_getaffinity(int(thread_of(ring)["SqThread"])) == {processor}


def test_a_processor_that_is_not_there(make_ring: MakeRing) -> None:
    """The kernel's EINVAL gets a cause."""
    with pytest.raises(RingError, match=r"on processor 65000.*on line") as caught:
        make_ring(4, flags=S.SQPOLL, sq_thread_cpu=65000)
    assert caught.value.errno == errno.EINVAL


@effect(SetupFlags.ATTACH_WQ)
def test_rings_share_a_thread(make_ring: MakeRing, polled: Ring) -> None:
    """It takes the requests of both, and of the second when the first has gone."""
    other = make_ring(16, flags=S.SQPOLL, workers_of=polled, sq_thread_idle_ms=IDLE_MS)
    assert thread_of(polled)["SqThread"] == thread_of(other)["SqThread"]
    for number in range(20):
        prep_nop(polled, user_data=number)
        prep_nop(other, user_data=100 + number)
        assert done(other) == [(100 + number, 0, 0)]
        assert done(polled) == [(number, 0, 0)]
    polled.close()
    prep_nop(other, user_data=1)
    assert done(other) == [(1, 0, 0)]


def test_a_thread_is_shared_only_where_there_is_one(make_ring: MakeRing) -> None:
    """Attaching to a ring without is refused by name; the kernel says EINVAL."""
    with pytest.raises(UsageError, match="no submitting thread to share"):
        Ring(4, flags=S.SQPOLL, workers_of=make_ring(4))


def test_nothing_is_lost_when_completions_overflow(make_ring: MakeRing) -> None:
    """What found no room in the completion queue is fetched, each once."""
    ring = make_ring(8, cq_entries=8, flags=S.SQPOLL, sq_thread_idle_ms=IDLE_MS)
    for number in range(80):
        if not ring.space:
            ring.wait_for_room()
        prep_nop(ring, user_data=number)
    ring.submit()
    found: list[int] = []
    while len(found) < 80:
        found += [one.user_data for one in done(ring)]
    assert sorted(found) == list(range(80))
    assert ring.in_flight == 0


def test_data_goes_both_ways(polled: Ring, pair: tuple[socket.socket, socket.socket]) -> None:
    """Linked sends and receives of the thread's, with memory that the program has forgotten."""
    for number in range(50):
        room = bytearray(8)
        prep_send(polled, pair[0].fileno(), f"{number:8}".encode(), flags=SqeFlags.IO_LINK)
        prep_recv(polled, pair[1].fileno(), room, user_data=1)
        done(polled, 2)
        assert room == f"{number:8}".encode()


def test_waits_end_in_time_and_by_signals(polled: Ring) -> None:
    """Its waits are those of any ring."""
    prep_timeout(polled, 600_000_000_000, user_data=1)
    assert polled.wait(1, 1_000_000) == []

    struck: list[bool] = []

    def handle(_number: int, _frame: object) -> None:
        if not struck:
            struck.append(True)
            raise InterruptedError("by hand")

    before = signal.signal(signal.SIGALRM, handle)
    try:
        with pytest.raises(InterruptedError, match="by hand"):
            # Again and again: one that comes just before the wait would not end it.
            signal.setitimer(signal.ITIMER_REAL, 0.005, 0.005)
            while True:
                polled.wait(1)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    prep_cancel64(polled, 1, user_data=2)
    assert {one.user_data for one in done(polled, 2)} == {1, 2}


class Tracked(bytearray):
    """A bytearray whose end can be watched."""


def test_closing_ends_what_the_thread_has_and_what_it_has_not(
    make_ring: MakeRing, pair: tuple[socket.socket, socket.socket]
) -> None:
    """A request in flight, one published to a full queue, one never submitted: all let go."""
    ring = make_ring(2, flags=S.SQPOLL, sq_thread_idle_ms=1)
    memory = [Tracked(4) for _ in range(4)]
    gone = [weakref.ref(one) for one in memory]
    for one in memory:
        if not ring.space:
            ring.wait_for_room()
        prep_recv(ring, pair[0].fileno(), one)
    del memory, one
    ring.close()
    gc.collect()
    assert [one() for one in gone] == [None] * 4
    pair[1].send(b"all")
    assert pair[0].recv(4) == b"all"


def test_a_dead_thread_is_told(make_ring: MakeRing) -> None:
    """The ring is lost, and says so instead of waiting for ever."""
    system = Enters()
    ring = make_ring(4, flags=S.SQPOLL, sq_thread_idle_ms=60_000, system=system)
    prep_timeout(ring, 600_000_000_000)
    ring.submit()
    system.answers = [-errno.EOWNERDEAD] * 3
    with pytest.raises(RingError, match="The ring is lost") as caught:
        ring.wait(1)
    assert caught.value.errno == errno.EOWNERDEAD
    prep_nop(ring)
    core = ring._core
    assert core is not None
    core.sq_flags[0] |= k.IORING_SQ_NEED_WAKEUP
    system.answers = [-errno.EOWNERDEAD]
    with pytest.raises(RingError, match="The ring is lost"):
        while True:  # until the thread is behind for a moment
            ring.submit()
            core.sq_flags[0] |= k.IORING_SQ_NEED_WAKEUP
            prep_nop(ring)


def test_who_may_not_touch_it(polled: Ring, fresh_python: FreshPython) -> None:
    """Another thread, and a forked child: the parent's ring goes on."""
    caught: list[BaseException] = []

    def use() -> None:
        for call in (polled.wait_for_room, polled.submit, lambda: prep_nop(polled)):
            try:
                call()
            except WrongThreadError as error:
                caught.append(error)

    thread = threading.Thread(target=use)
    thread.start()
    thread.join()
    assert len(caught) == 3
    fresh_python(
        """
        import os
        from uringio.errors import RingForkedError
        from uringio.lowlevel import Ring, SetupFlags, prep_nop
        ring = Ring(4, flags=SetupFlags.SQPOLL, sq_thread_idle_ms=1)
        prep_nop(ring, user_data=1)
        child = os.fork()
        if not child:
            refused = 0
            for use in (lambda: prep_nop(ring), ring.submit, ring.wait, ring.wait_for_room):
                try:
                    use()
                except RingForkedError:
                    refused += 1
            with Ring(4, flags=SetupFlags.SQPOLL, sq_thread_idle_ms=1) as own:
                prep_nop(own, user_data=9)
                assert own.wait() == [(9, 0, 0)]
            os._exit(refused)
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == 4, status
        assert ring.wait() == [(1, 0, 0)]
        ring.close()
        """
    ).check()


def test_only_such_a_ring_waits_for_room(ring: Ring) -> None:
    """On others the slots are free after a submit, and waiting would be for ever."""
    with pytest.raises(UsageError, match=r"submit\(\) frees"):
        ring.wait_for_room()
