"""Set-up and enter flags about who completes requests, and when: what each changes."""

import errno
import os
import socket
import threading
import time
from collections.abc import Callable

import pytest

from tests.lowlevel.rig import done, effect
from tests.lowlevel.test_flags_control import parameters_of
from uringio._ring.queue import make_submit_and_wait
from uringio._ring.setup import Ring as Core
from uringio._ring.setup import queue_init
from uringio._sys.libc import pointer_argument, size_argument
from uringio._sys.system import System
from uringio.lowlevel import (
    EnterFlags,
    Features,
    NopFlags,
    Ring,
    SetupFlags,
    SqRingFlags,
    prep_nop,
    prep_recv,
)

MakeRing = Callable[..., Ring]
Pair = tuple[socket.socket, socket.socket]
S = SetupFlags
DEFERRED = S.SINGLE_ISSUER | S.DEFER_TASKRUN


def core_of(ring: Ring) -> Core:
    """Return the words beneath a ring."""
    core = ring._core
    assert core is not None
    return core


def enter(core: Core, flags: int) -> int:
    """Enter without anything to submit or to wait for."""
    null, zero = pointer_argument(0), size_argument(0)
    return core.system.bare_syscall(core.system.nr_enter, core.fd, 0, 0, flags, null, zero)


@effect(S.DEFER_TASKRUN, S.TASKRUN_FLAG, SqRingFlags.TASKRUN, EnterFlags.GETEVENTS)
@pytest.mark.parametrize(
    ("flags", "told"), [(DEFERRED | S.TASKRUN_FLAG, True), (DEFERRED, False), (0, False)], ids=str
)
def test_deferred_work_is_run_by_waits_alone(
    make_ring: MakeRing, pair: Pair, flags: int, told: bool
) -> None:
    """
    Bytes that came complete nothing before an enter that asks for events.

    The queue's flags tell of them where that was wanted.  On an ordinary ring any system call runs
    the work.
    """
    ring = make_ring(flags=flags)
    core = core_of(ring)
    prep_recv(ring, pair[0].fileno(), bytearray(1))
    ring.submit()
    pair[1].send(b"x")
    os.getppid()
    deferred = bool(flags & S.DEFER_TASKRUN)
    assert (core.cq_tail[0] == 0) is deferred
    assert bool(core.sq_flags[0] & SqRingFlags.TASKRUN) is told
    assert enter(core, 0) == 0
    assert (core.cq_tail[0] == 0) is deferred
    assert enter(core, EnterFlags.GETEVENTS) == 0
    assert core.cq_tail[0] == 1
    assert core.sq_flags[0] & SqRingFlags.TASKRUN == 0
    assert done(ring) == [(0, 1, 0)]


@effect(S.COOP_TASKRUN)
def test_a_cooperative_ring_may_tell_of_its_work(make_ring: MakeRing, pair: Pair) -> None:
    """
    TASKRUN_FLAG, which an ordinary ring is refused, is for those that are not interrupted.

    That its thread is not shows in no program: any tick of the clock interrupts it as well.
    """
    assert parameters_of(4, S.TASKRUN_FLAG) == (-errno.EINVAL,)
    ring = make_ring(flags=S.COOP_TASKRUN | S.TASKRUN_FLAG)
    prep_recv(ring, pair[0].fileno(), bytearray(1))
    ring.submit()
    pair[1].send(b"x")
    assert done(ring) == [(0, 1, 0)]
    assert core_of(ring).sq_flags[0] == 0


@effect(S.SINGLE_ISSUER)
@pytest.mark.parametrize("single", [False, True])
def test_a_ring_of_one_thread_refuses_others(single: bool) -> None:
    """The kernel does: EEXIST to whoever is not the first that submitted."""
    ring = queue_init(System(), 4, ladder=(S.CQSIZE | (S.SINGLE_ISSUER if single else 0),))
    null, zero = pointer_argument(0), size_argument(0)
    found: list[tuple[int, int]] = []

    def submit_one() -> None:
        ring.sq_tail[0] += 1
        result = ring.system.bare_syscall(ring.system.nr_enter, ring.fd, 1, 0, 0, null, zero)
        found.append((result, ring.system.get_errno() if result < 0 else 0))

    submit_one()
    thread = threading.Thread(target=submit_one)
    thread.start()
    thread.join()
    assert found == [(1, 0), (-1, errno.EEXIST) if single else (1, 0)]
    assert ring.cq_tail[0] == 2 - single
    ring.close()


@effect(NopFlags.TW)
@pytest.mark.parametrize("later", [False, True])
def test_a_nop_of_deferred_work_comes_later(ring: Ring, later: bool) -> None:
    """Behind one that completes at once, though it was submitted before it."""
    prep_nop(ring, NopFlags.TW if later else 0, user_data=1)
    prep_nop(ring, user_data=2)
    assert [one.user_data for one in done(ring, 2)] == ([2, 1] if later else [1, 2])


@effect(S.SUBMIT_ALL)
@pytest.mark.parametrize("everything", [False, True])
def test_a_batch_goes_on_behind_a_refused_request(make_ring: MakeRing, everything: bool) -> None:
    """Without the flag the rest of the batch is left for the next call."""
    ring = make_ring(flags=DEFERRED | (S.SUBMIT_ALL if everything else 0))
    for name, flags in ((1, 0), (2, 1 << 30), (3, 0)):
        prep_nop(ring, flags, user_data=name)
    assert ring.submit() == (3 if everything else 2)
    assert ring.queued == (0 if everything else 1)
    found = {one.user_data: one.res for one in done(ring, 3)}
    assert found == {1: 0, 2: -errno.EINVAL, 3: 0}


@effect(EnterFlags.EXT_ARG, Features.EXT_ARG)
def test_a_wait_for_nothing_ends_with_its_time_and_not_before(ring: Ring) -> None:
    """One call of the kernel's takes as long as it was told."""
    core = core_of(ring)
    duration_ns = 5_000_000
    start_ns = time.monotonic_ns()
    make_submit_and_wait(core)(0, 1, duration_ns)
    assert time.monotonic_ns() - start_ns >= duration_ns
