"""Waits by moments, of a least duration, with masks of signals and with registered terms."""

import errno
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.kernel import uring_refusal
from tests.lowlevel.rig import PATIENCE_NS, done, effect
from uringio._sys import constants as k
from uringio._sys.layouts import CQE
from uringio._sys.system import System
from uringio.errors import OpError, RingError, UnsupportedError, UsageError
from uringio.lowlevel import (
    EnterFlags,
    Features,
    MemRegionFlags,
    RegionFlags,
    RegisterOp,
    RegWaitFlags,
    Ring,
    SetupFlags,
    WaitRegion,
    prep_nop,
    prep_read,
    prep_timeout,
)

MakeRing = Callable[..., Ring]
Handled = list[int]
LONG_NS = 600_000_000_000
SOON_NS = 2_000_000


class ByHandError(Exception):
    """What a handler raises."""


@pytest.fixture
def usr1() -> Iterator[Callable[[bool], Handled]]:
    """Have SIGUSR1 noted, and raise if asked to; the thread blocks it."""
    handled: Handled = []
    shall_raise = [False]

    def handle(number: int, _frame: object) -> None:
        handled.append(number)
        if shall_raise[0]:
            raise ByHandError

    def install(raises: bool) -> Handled:
        shall_raise[0] = raises
        return handled

    before = signal.signal(signal.SIGUSR1, handle)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    yield install
    shall_raise[0] = False
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGUSR1})
    signal.signal(signal.SIGUSR1, before)


@pytest.fixture
def region(make_ring: MakeRing) -> tuple[Ring, WaitRegion]:
    """A ring with room for the terms of ten waits."""
    ring = make_ring(
        flags=SetupFlags.R_DISABLED | SetupFlags.SINGLE_ISSUER | SetupFlags.DEFER_TASKRUN
    )
    try:
        region = ring.setup_reg_wait(10)
    except OpError as error:
        if error.errno == errno.EINVAL:
            pytest.skip(str(error))
        raise
    ring.enable()
    return ring, region


# --- moments -------------------------------------------------------------------------------------


@effect(EnterFlags.ABS_TIMER)
def test_a_wait_ends_at_its_moment(ring: Ring) -> None:
    """Not before; and one that has passed already ends it at once, where a duration would not."""
    prep_timeout(ring, LONG_NS)
    until_ns = time.monotonic_ns() + SOON_NS
    assert ring.wait(1, until_ns=until_ns) == []
    assert time.monotonic_ns() >= until_ns
    # A minute ago: as a duration, it would be as long as the machine is up.
    assert ring.wait(1, until_ns=max(0, until_ns - 60_000_000_000)) == []


def test_a_wait_until_a_moment_ends_when_enough_has_come(ring: Ring) -> None:
    """Completions end it as they end any."""
    prep_nop(ring, user_data=1)
    prep_timeout(ring, 1, user_data=2)
    found = ring.wait(2, until_ns=time.monotonic_ns() + LONG_NS)
    assert {one[0] for one in found} == {1, 2}


@pytest.mark.parametrize("clock", [time.CLOCK_MONOTONIC, time.CLOCK_BOOTTIME])
def test_moments_are_of_the_clock_that_was_registered(ring: Ring, clock: int) -> None:
    """The wait ends when that clock says so, not before."""
    try:
        ring.register_clock(clock)
    except OpError as error:
        pytest.skip(str(error))
    prep_timeout(ring, LONG_NS)
    until_ns = time.clock_gettime_ns(clock) + SOON_NS
    assert ring.wait(1, until_ns=until_ns) == []
    assert time.clock_gettime_ns(clock) >= until_ns
    start_ns = time.clock_gettime_ns(clock)
    assert ring.wait(1, SOON_NS) == []
    assert time.clock_gettime_ns(clock) >= start_ns + SOON_NS


# --- a least duration ----------------------------------------------------------------------------


@effect(Features.MIN_TIMEOUT)
def test_after_the_least_duration_one_completion_is_enough(ring: Ring) -> None:
    """Two are wanted and one is there: the wait, which has no other end, ends."""
    prep_timeout(ring, LONG_NS, user_data=1)
    prep_nop(ring, user_data=2)
    assert ring.wait(2, min_wait_ns=1_000_000) == [(2, 0, 0)]


def test_after_the_least_duration_the_first_completion_ends_the_wait(ring: Ring) -> None:
    """None is there when it has passed: the wait goes on, for one rather than two."""
    prep_timeout(ring, LONG_NS, user_data=1)
    prep_timeout(ring, 4 * SOON_NS, user_data=2)
    assert [one[0] for one in ring.wait(2, min_wait_ns=1)] == [2]


def test_within_the_least_duration_all_that_were_wanted_end_the_wait(ring: Ring) -> None:
    """A least duration is no sleep."""
    for number in range(3):
        prep_nop(ring, user_data=number)
    found = ring.wait(3, LONG_NS, min_wait_ns=LONG_NS)
    assert [one[0] for one in found] == [0, 1, 2]


def test_a_least_duration_has_an_end_too(ring: Ring) -> None:
    """The wait's own, if that is earlier."""
    prep_timeout(ring, LONG_NS)
    assert ring.wait(1, SOON_NS, min_wait_ns=LONG_NS) == []
    assert ring.wait(1, SOON_NS, min_wait_ns=1) == []
    assert ring.wait(1, until_ns=time.monotonic_ns() + SOON_NS, min_wait_ns=1) == []


def test_what_was_taken_before_counts_for_the_least_duration(ring: Ring) -> None:
    """One completion that a signal has kept from being handed out is enough at its end."""
    prep_timeout(ring, LONG_NS, user_data=1)
    prep_nop(ring, user_data=2)
    ring.submit()
    ring._gather(ring._open())
    assert ring.wait(2, min_wait_ns=1_000_000) == [(2, 0, 0)]


def test_what_the_kernel_lacks_is_refused(ring: Ring, monkeypatch: pytest.MonkeyPatch) -> None:
    """By what the kernel says of itself, before anything waits."""
    core = ring._open()
    monkeypatch.setattr(core, "features", core.features & ~k.IORING_FEAT_MIN_TIMEOUT)
    with pytest.raises(UnsupportedError, match=r"least duration.*Linux 6\.12"):
        ring.wait(1, min_wait_ns=1)
    monkeypatch.setattr(core, "features", core.features & ~k.IORING_FEAT_NO_IOWAIT)
    with pytest.raises(UnsupportedError, match=r"iowait.*Linux 6\.15"):
        ring.iowait = False
    ring._knows_moments = False
    with pytest.raises(UnsupportedError, match=r"until a moment.*Linux 6\.12"):
        ring.wait(1, until_ns=1)


# --- signals -------------------------------------------------------------------------------------


def test_signals_are_let_in_for_the_wait_alone(ring: Ring, usr1: Callable[[bool], Handled]) -> None:
    """One that is pending, since the thread blocks it, ends the wait by its handler."""
    handled = usr1(True)
    prep_timeout(ring, LONG_NS, user_data=1)
    signal.raise_signal(signal.SIGUSR1)
    assert ring.wait(1, SOON_NS) == []
    assert handled == []
    with pytest.raises(ByHandError):
        ring.wait(1, sigmask=())
    assert handled == [signal.SIGUSR1]
    assert signal.SIGUSR1 in signal.pthread_sigmask(signal.SIG_BLOCK, ())


def test_a_handler_that_returns_does_not_end_the_wait(
    ring: Ring, usr1: Callable[[bool], Handled]
) -> None:
    """The wait goes on to its end, with the same mask."""
    handled = usr1(False)
    prep_timeout(ring, LONG_NS, user_data=1)
    signal.raise_signal(signal.SIGUSR1)
    until_ns = time.monotonic_ns() + SOON_NS
    assert ring.wait(1, until_ns=until_ns, sigmask=()) == []
    assert handled == [signal.SIGUSR1]
    assert time.monotonic_ns() >= until_ns


def blocked_by(thread: int) -> int:
    """Return the signals that a thread of this process blocks at present."""
    status = Path(f"/proc/self/task/{thread}/status").read_text()
    [line] = [one for one in status.splitlines() if one.startswith("SigBlk:")]
    return int(line.split()[1], 16)


def seen_within_patience(condition: Callable[[], bool]) -> bool:
    """Wait until something is so, with the patience of all tests."""
    deadline_ns = time.monotonic_ns() + PATIENCE_NS
    while not condition():
        if time.monotonic_ns() > deadline_ns:
            return False
        os.sched_yield()
    return True


def test_signals_are_kept_out_for_the_wait_alone(ring: Ring) -> None:
    """While it waits, the thread blocks what it was told to, and what it blocked before after."""
    thread = threading.get_native_id()
    bit = 1 << (signal.SIGUSR2 - 1)
    before = blocked_by(thread)
    assert not before & bit
    reading, writing = os.pipe()
    seen: list[bool] = []

    def watch() -> None:
        seen.append(seen_within_patience(lambda: blocked_by(thread) == bit))
        os.write(writing, b"x")

    watcher = threading.Thread(target=watch)
    watcher.start()
    prep_read(ring, reading, bytearray(1), user_data=1)
    assert ring.wait(1, sigmask={signal.SIGUSR2}) == [(1, 1, 0)]
    watcher.join()
    assert seen == [True]
    assert blocked_by(thread) == before
    os.close(reading)
    os.close(writing)


# --- what the machine's figures say --------------------------------------------------------------


def processors_wait_for_disks() -> bool:
    """Whether any thread of the machine is counted as waiting for one."""
    for line in Path("/proc/stat").read_text().splitlines():
        if line.startswith("procs_blocked"):
            return line.split()[1] != "0"
    pytest.skip("this /proc/stat does not tell who waits")


def often_enough(condition: Callable[[], bool]) -> bool:
    """Whether something is so fifty times in a row, which others' traffic does not bring about."""
    return seen_within_patience(lambda: all(condition() for _ in range(50)))


@effect(EnterFlags.NO_IOWAIT, Features.NO_IOWAIT)
def test_waits_do_not_count_as_waits_for_a_disk_unless_wanted(make_ring: MakeRing) -> None:
    """The machine's figure stands while one waits who wants it, and falls to nought else."""
    processors_wait_for_disks()
    for wanted in (True, False):
        reading, writing = os.pipe()
        found: list[object] = []

        def use(reading: int = reading, wanted: bool = wanted, found: list[object] = found) -> None:
            with Ring(4) as ring:
                try:
                    ring.iowait = wanted
                    prep_read(ring, reading, bytearray(1), user_data=1)
                    found.append(ring.iowait)
                    found.append(ring.wait(1))
                except UnsupportedError as error:
                    found.append(error)

        make_ring(4)
        thread = threading.Thread(target=use)
        thread.start()
        if wanted:
            seen = often_enough(processors_wait_for_disks)
        else:
            seen = seen_within_patience(lambda: not processors_wait_for_disks())
        os.write(writing, b"x")
        thread.join()
        os.close(reading)
        os.close(writing)
        if isinstance(found[0], UnsupportedError):
            raise found[0]
        assert (seen, found) == (True, [wanted, [(1, 1, 0)]])


# --- registered terms ----------------------------------------------------------------------------


@effect(
    RegisterOp.MEM_REGION,
    MemRegionFlags.REG_WAIT_ARG,
    RegionFlags.USER,
    EnterFlags.EXT_ARG_REG,
    RegWaitFlags.TS,
)
def test_waits_by_registered_terms(region: tuple[Ring, WaitRegion]) -> None:
    """Each ends as the terms say that stand at its place, also when they were written anew."""
    ring, terms = region
    prep_timeout(ring, LONG_NS, user_data=1)
    terms.set(0, timeout_ns=SOON_NS)
    start_ns = time.monotonic_ns()
    assert ring.wait_registered(1, 0) == []
    assert time.monotonic_ns() >= start_ns + SOON_NS
    until_ns = time.monotonic_ns() + SOON_NS
    terms.set(9, until_ns=until_ns)
    assert ring.wait_registered(1, 9) == []
    assert time.monotonic_ns() >= until_ns
    terms.set(9, min_wait_ns=1_000)
    prep_nop(ring, user_data=2)
    assert ring.wait_registered(2, 9) == [(2, 0, 0)]
    # Nothing was set: no end but the completion.
    prep_nop(ring, user_data=3)
    assert ring.wait_registered(1, 5) == [(3, 0, 0)]
    assert ring.in_flight == 1


def test_registered_terms_have_masks_of_signals(
    region: tuple[Ring, WaitRegion], usr1: Callable[[bool], Handled]
) -> None:
    """A handler that returns does not end the wait, which goes on; one that raises does."""
    ring, terms = region
    handled = usr1(False)
    prep_timeout(ring, LONG_NS, user_data=1)
    terms.set(3, timeout_ns=SOON_NS, sigmask=())
    signal.raise_signal(signal.SIGUSR1)
    start_ns = time.monotonic_ns()
    assert ring.wait_registered(1, 3) == []
    assert time.monotonic_ns() >= start_ns + SOON_NS
    assert handled == [signal.SIGUSR1]
    usr1(True)
    signal.raise_signal(signal.SIGUSR1)
    terms.set(3, sigmask={signal.SIGUSR2})
    with pytest.raises(ByHandError):
        ring.wait_registered(1, 3)


def test_terms_are_registered_once_and_before_the_ring_is_enabled(
    region: tuple[Ring, WaitRegion], make_ring: MakeRing
) -> None:
    """Else the ring says what to do, or the kernel that there is a region already."""
    with pytest.raises(UsageError, match=r"R_DISABLED, call this, and then enable\(\)"):
        region[0].setup_reg_wait()
    ring = make_ring(flags=SetupFlags.R_DISABLED)
    ring.setup_reg_wait()
    with pytest.raises(OpError, match="MEM_REGION") as caught:
        ring.setup_reg_wait()
    assert caught.value.errno == errno.EBUSY


def test_a_wait_of_large_completions_has_the_same_terms(make_ring: MakeRing) -> None:
    """A ring of 32-byte completions waits until a moment, too."""
    ring = make_ring(flags=SetupFlags.CQE32)
    prep_timeout(ring, LONG_NS, user_data=1)
    assert ring.wait_big(1, until_ns=time.monotonic_ns()) == []
    prep_nop(ring, user_data=2)
    assert [one[:2] for one in ring.wait_big(2, min_wait_ns=1)] == [(2, 0)]


def test_requests_are_submitted_by_any_wait(ring: Ring) -> None:
    """Arguments of theirs are let go of as by a plain one."""
    prep_timeout(ring, 1, user_data=1)
    assert [one[:2] for one in ring.wait(1, min_wait_ns=1)] == [(1, -errno.ETIME)]
    assert ring._passing == []
    prep_nop(ring, user_data=2)
    assert done(ring) == [(2, 0, 0)]
    prep_nop(ring, user_data=3)
    assert ring.wait(0, until_ns=0) == [(3, 0, 0)]


def test_places_of_terms(region: tuple[Ring, WaitRegion]) -> None:
    """What does not exist is refused, and what was wrong leaves a place as it was."""
    ring, terms = region
    with pytest.raises(ValueError, match="no wait 10 among 10"):
        ring.wait_registered(1, 10)
    with pytest.raises(ValueError, match="no wait -1 among 10"):
        terms.set(-1)
    terms.set(2, timeout_ns=1)
    with pytest.raises(UsageError, match="give until_ns or timeout_ns"):
        terms.set(2, timeout_ns=1, until_ns=1)
    prep_timeout(ring, LONG_NS)
    assert ring.wait_registered(1, 2) == []
    with pytest.raises(ValueError, match="1000 completions"):
        ring.wait_registered(1000, 2)


@pytest.mark.parametrize("count", [0, 65537])
def test_a_region_has_a_size(make_ring: MakeRing, count: int) -> None:
    """None at all and more than it can have are refused."""
    with pytest.raises(ValueError, match="1 to 65536 waits"):
        make_ring(flags=SetupFlags.R_DISABLED).setup_reg_wait(count)


# --- refusals that no kernel gives on demand -----------------------------------------------------


class Refusing(System):
    """A system whose enters fail as they are told to, each failure once."""

    def __init__(self) -> None:
        super().__init__()
        self.errnos: list[int] = []
        self.enters = 0
        self._real = self.bare_syscall
        self._real_errno = self.get_errno
        self._last = 0
        self.bare_syscall = self._enter
        self.get_errno = lambda: self._last or self._real_errno()

    def _enter(self, *arguments: Any) -> int:
        self._last = 0
        self.enters += 1
        if self.errnos:
            self._last = self.errnos.pop(0)
            return -1
        return self._real(*arguments)


@pytest.fixture
def refusing() -> Iterator[tuple[Ring, Refusing]]:
    """A ring on it."""
    if reason := uring_refusal():
        pytest.skip(reason)
    system = Refusing()
    with Ring(4, system=system) as ring:
        yield ring, system


@pytest.mark.parametrize("number", [errno.EINTR, errno.EAGAIN, errno.EBUSY, errno.EBADF])
def test_a_wait_goes_on_behind_what_is_no_end(refusing: tuple[Ring, Refusing], number: int) -> None:
    """Signals, want of memory and of room, and an errno that is not said again."""
    ring, system = refusing
    assert ring.wait(1, until_ns=1) == []  # the kernel knows moments
    prep_nop(ring, user_data=1)
    system.errnos = [number]
    assert ring.wait(1, until_ns=time.monotonic_ns() + LONG_NS) == [(1, 0, 0)]
    assert system.errnos == []


def test_a_wait_sleeps_until_its_end(refusing: tuple[Ring, Refusing]) -> None:
    """By one call, or few where the kernel has work pending; it is not looked again and again."""
    ring, system = refusing
    prep_timeout(ring, LONG_NS)
    ring.submit()
    for terms in ({"sigmask": ()}, {"min_wait_ns": SOON_NS}, {"min_wait_ns": 1}):
        system.enters = 0
        assert ring.wait(1, SOON_NS, **terms) == []  # type: ignore[arg-type]
        assert 1 <= system.enters <= 3
    assert ring.wait(1, until_ns=1) == []  # the kernel knows moments
    system.enters = 0
    assert ring.wait(1, until_ns=time.monotonic_ns() + SOON_NS) == []
    assert 1 <= system.enters <= 3


def test_a_wait_ends_with_what_is_said_twice(refusing: tuple[Ring, Refusing]) -> None:
    """An errno that cannot be is a bug of the library's, and says so."""
    ring, system = refusing
    prep_nop(ring, user_data=1)
    ring.wait(1, min_wait_ns=1)
    system.errnos = [errno.EBADF, errno.EBADF]
    with pytest.raises(RingError, match="please report"):
        ring.wait(1, min_wait_ns=1)
    system.errnos = [errno.ENXIO, errno.ENXIO]
    with pytest.raises(RingError, match="make a new one") as caught:
        ring.wait(1, sigmask=())
    assert caught.value.errno == errno.ENXIO


def test_moments_are_tried_before_they_are_relied_on(refusing: tuple[Ring, Refusing]) -> None:
    """A kernel that says EINVAL to the flag lacks it, and is asked once."""
    ring, system = refusing
    system.errnos = [errno.EINVAL]
    for _ in range(2):
        with pytest.raises(UnsupportedError, match=r"until a moment.*Linux 6\.12"):
            ring.wait(1, until_ns=1)
    assert system.errnos == []


@pytest.mark.parametrize("kind", [SetupFlags.SQPOLL, SetupFlags.COOP_TASKRUN], ids=str)
def test_rings_of_other_kinds_wait_by_terms_too(make_ring: MakeRing, kind: SetupFlags) -> None:
    """Requests that their threads take, or whose completions come by themselves, count as any."""
    try:
        ring = make_ring(flags=SetupFlags.R_DISABLED | kind)
        terms = ring.setup_reg_wait(2)
    except (OpError, RingError) as error:
        pytest.skip(str(error))
    ring.enable()
    terms.set(1, min_wait_ns=1)
    prep_timeout(ring, LONG_NS, user_data=1)
    for number in (2, 3, 4):
        prep_nop(ring, user_data=number)
        found = {
            2: lambda: ring.wait(2, min_wait_ns=1),
            3: lambda: ring.wait(1, until_ns=time.monotonic_ns() + LONG_NS, sigmask=()),
            4: lambda: ring.wait_registered(2, 1),
        }[number]()
        assert found == [(number, 0, 0)]
    until_ns = time.monotonic_ns() + SOON_NS
    assert ring.wait(1, until_ns=until_ns) == []
    assert time.monotonic_ns() >= until_ns
    assert ring.in_flight == 1


def test_large_completions_are_taken_once(
    make_ring: MakeRing, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A signal handler that raises while they are moved leaves them all for the next call."""
    ring = make_ring(flags=SetupFlags.CQE32)
    for number in range(4):
        prep_nop(ring, user_data=number)
    ring.submit()
    calls = iter(range(4))

    class Interrupted:
        @staticmethod
        def unpack_from(cqes: memoryview, at: int) -> tuple[int, int, int]:
            if next(calls) == 2:
                raise KeyboardInterrupt
            user_data, res, flags = CQE.unpack_from(cqes, at)
            return user_data, res, flags

    with monkeypatch.context() as patch:
        patch.setattr("uringio.lowlevel._waits.CQE", Interrupted)
        with pytest.raises(KeyboardInterrupt):
            ring.take()
    assert [user_data for user_data, _, _ in ring.wait(4)] == [0, 1, 2, 3]
    assert ring.take() == []
