"""Queues younger than the newest kernel here: by a kernel in miniature, and the real one's word."""

import ctypes
import errno
import gc
import random
import signal
import weakref
from collections.abc import Callable

import pytest

from tests.lowlevel.rig import done
from tests.lowlevel.young_kernel import YoungKernel
from uringio._ring.setup import queue_init
from uringio._sys import constants as k
from uringio._sys.system import System
from uringio.errors import QueueFullError, RingError, UnsupportedError, UsageError
from uringio.lowlevel import (
    Batch,
    NopFlags,
    Opcode,
    Ring,
    SetupFlags,
    SqeFlags,
    prep_nop,
    prep_nop128,
    prep_send_set_addr,
    prep_timeout,
    prep_uring_cmd128,
)

MakeRing = Make = Callable[..., Ring]
S = SetupFlags
REWOUND = S.SQ_REWIND | S.NO_SQARRAY
COMMAND = bytes(range(1, 81))


@pytest.fixture
def kernel() -> YoungKernel:
    """A kernel that has it all."""
    return YoungKernel()


@pytest.fixture
def make(make_ring: MakeRing, kernel: YoungKernel) -> Make:
    """Make rings on it."""
    return lambda flags, entries=8: make_ring(entries, flags=flags, system=kernel)


def knows(flags: int) -> bool:
    """Ask the kernel itself whether it takes such a ring."""
    try:
        queue_init(System(), 4, ladder=(flags,)).close()
    except RingError:
        return False
    return True


# --- what the real kernel says -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flags", "name", "since"), [(S.SQE_MIXED, "SQE_MIXED", "6.19"), (REWOUND, "SQ_REWIND", "7.0")]
)
def test_the_kernel_is_asked(make_ring: MakeRing, flags: int, name: str, since: str) -> None:
    """Where it has such queues they work; else its own EINVAL is told as what it lacks."""
    if knows(flags):
        ring = make_ring(8, flags=flags)
    else:
        # KERNEL 6.18: before it, a kernel does not tell which flags it knows.
        with pytest.raises((UnsupportedError, RingError), match=f"{name}|Linux {since}") as caught:
            make_ring(8, flags=flags)
        error = caught.value.__cause__
        assert isinstance(error, RingError)
        assert error.errno == errno.EINVAL
        if isinstance(caught.value, UnsupportedError):
            assert (caught.value.op, caught.value.since) == (f"SetupFlags.{name}", f"Linux {since}")
        return
    for number in range(50):
        prep_nop(ring, user_data=2 * number)
        (prep_nop128 if flags & S.SQE_MIXED else prep_nop)(ring, user_data=2 * number + 1)
        assert [one[:2] for one in done(ring, 2)] == [(2 * number, 0), (2 * number + 1, 0)]


# --- mixed sizes ---------------------------------------------------------------------------------


def test_large_requests_never_go_round_the_end(make: Make, kernel: YoungKernel) -> None:
    """Whatever stands before them; commands arrive whole, in order, and no padding is seen."""
    ring, dice = make(S.SQE_MIXED), random.Random(19)
    sent: list[int] = []
    commands: list[bytes] = []
    found: list[int] = []
    for number in range(500):
        command = bytes([number % 251]) * dice.randrange(1, 81)
        try:
            if dice.random() < 0.5:
                prep_uring_cmd128(ring, 7, 3, command, user_data=number)
                commands.append(command.ljust(80, b"\0"))
            else:
                prep_nop(ring, user_data=number)
        except QueueFullError:
            ring.submit()
            found += [one[0] for one in ring.take()]
            continue
        sent.append(number)
    found += [one[0] for one in ring.wait(0)]
    found += [one[0] for one in ring.take()]
    assert found == sent
    assert kernel.commands == commands
    assert ring.in_flight == ring.queued == 0
    padding = [one for one in kernel.taken if one[1] not in sent]
    assert len(padding) > 5
    assert set(padding) == {(Opcode.NOP, (1 << 64) - 2)}
    ring.close()


def to_the_end(ring: Ring) -> None:
    """Have the next slot but one be the last."""
    for _ in range(6):
        prep_nop(ring)
    done(ring, 6)


@pytest.mark.parametrize("link", [SqeFlags.IO_LINK, SqeFlags.IO_HARDLINK])
@pytest.mark.parametrize("result", [0, -errno.EIO])
def test_a_chain_goes_on_behind_the_padding(
    make: Make, kernel: YoungKernel, link: int, result: int
) -> None:
    """The large request runs, or is cancelled, as if the one before it stood beside it."""
    ring = make(S.SQE_MIXED)
    to_the_end(ring)
    kernel.taken.clear()
    prep_nop(ring, NopFlags.INJECT_RESULT, result=result, flags=link, user_data=1)
    prep_uring_cmd128(ring, 0, 3, COMMAND, user_data=2)
    assert (ring.queued, ring.in_flight) == (4, 2)
    expected = -errno.ECANCELED if result and link == SqeFlags.IO_LINK else 0
    assert [one[:2] for one in done(ring, 2)] == [(1, result), (2, expected)]
    assert [op for op, _ in kernel.taken] == [Opcode.NOP, Opcode.NOP, Opcode.URING_CMD128]
    ring.close()


def test_a_large_request_needs_all_its_slots(make: Make, kernel: YoungKernel) -> None:
    """Two, and a third where the end of the queue is in the way; a refusal leaves no trace."""
    ring = make(S.SQE_MIXED)
    to_the_end(ring)
    prep_nop(ring)
    prep_nop128(ring, user_data=1)
    assert ring.queued == 4
    for number in range(3):
        prep_nop(ring, user_data=10 + number)
    with pytest.raises(QueueFullError, match="fewer than 2 of 8 slots"):
        prep_nop128(ring)
    assert (ring.queued, ring.space, ring.in_flight) == (7, 1, 5)
    prep_nop(ring, user_data=20)
    with pytest.raises(QueueFullError, match="all 8 slots"):
        prep_nop(ring)
    assert len(done(ring, 6)) == 6
    for _ in range(4):
        prep_nop(ring)
    done(ring, 4)
    ring.close()


def test_three_slots_at_the_end(make: Make, kernel: YoungKernel) -> None:
    """With two free, one of them the last, there is no room."""
    ring = make(S.SQE_MIXED, entries=4)
    prep_nop(ring)
    done(ring)
    prep_nop(ring)
    prep_nop(ring)
    with pytest.raises(QueueFullError, match="fewer than 3 of 4"):
        prep_nop128(ring)
    assert ring.queued == 2
    done(ring, 2)
    prep_nop128(ring, user_data=5)
    assert [one.user_data for one in done(ring)] == [5]
    ring.close()


def test_what_is_refused_leaves_no_padding(make: Make, kernel: YoungKernel) -> None:
    """Neither a long command nor a field out of range does."""
    ring = make(S.SQE_MIXED)
    to_the_end(ring)
    prep_nop(ring)
    with pytest.raises(ValueError, match="81 bytes does not fit the 80"):
        prep_uring_cmd128(ring, 0, 3, bytes(81))
    with pytest.raises(ValueError, match="URING_CMD128 is out of range"):
        prep_uring_cmd128(ring, 0, 1 << 40, COMMAND)
    with pytest.raises(ValueError, match="ring's own"):
        prep_nop(ring, user_data=(1 << 64) - 2)
    assert (ring.queued, ring.in_flight) == (1, 1)
    done(ring)
    ring.close()


def test_batches_have_small_requests(make: Make, kernel: YoungKernel) -> None:
    """A large one is refused where it is recorded; the others go into such a ring."""
    ring = make(S.SQE_MIXED)
    batch = Batch()
    with pytest.raises(UsageError, match="have 64 bytes"):
        prep_nop128(batch)
    prep_nop(batch, user_data=1)
    prep_nop(batch, user_data=2)
    for _ in range(10):
        prep_nop128(ring, user_data=9)
        ring.put(batch)
        assert [one.user_data for one in done(ring, 3)] == [9, 1, 2]
        assert ring.run(batch) == [0, 0]
    prep_nop(batch, user_data=(1 << 64) - 2)
    with pytest.raises(ValueError, match="ring's own"):
        ring.put(batch)
    ring.close()


def test_sizes_change_when_nothing_is_queued(make: Make, kernel: YoungKernel) -> None:
    """A request of two slots could come to lie across the end of another queue."""
    ring = make(S.SQE_MIXED)
    prep_nop128(ring)
    with pytest.raises(UsageError, match=r"submit\(\) what was filled first"):
        ring.resize_rings(16, 32)
    done(ring)


def test_no_address_for_half_a_request(make: Make, kernel: YoungKernel) -> None:
    """What looks like a send in a command's bytes is none."""
    ring = make(S.SQE_MIXED)
    prep_uring_cmd128(ring, 0, 3, bytes(16) + bytes([Opcode.SEND]) * 64)
    with pytest.raises(UsageError, match="URING_CMD128 goes to no address"):
        prep_send_set_addr(ring, bytes(16))
    done(ring)
    ring.close()


class Held:
    """Something whose end can be watched."""


def test_closing_makes_both_halves_nothing(make: Make, kernel: YoungKernel) -> None:
    """A command that was never submitted is not given; its memory is free."""
    ring = make(S.SQE_MIXED)
    held = Held()
    gone = weakref.ref(held)
    ring.fill(Opcode.URING_CMD128, 3, 0, 0, 0, 0, 5, 0, held, 0, 0, 0, 0, 0, b"\xff" * 80)
    del held
    ring.close()
    gc.collect()
    assert gone() is None
    assert kernel.commands == []
    assert [op for op, _ in kernel.taken[:2]] == [Opcode.NOP, Opcode.NOP]


# --- rewound -------------------------------------------------------------------------------------


@pytest.mark.parametrize("flags", [REWOUND, REWOUND | S.SQE_MIXED], ids=str)
def test_each_batch_starts_at_the_first_slot(make: Make, kernel: YoungKernel, flags: int) -> None:
    """However many requests the last one had; the kernel's own words stay zero."""
    ring, dice = make(flags), random.Random(7)
    total = 0
    for _ in range(100):
        count = dice.randrange(1, 9)
        for number in range(total, total + count):
            prep_nop(ring, user_data=number)
        assert (ring.queued, ring.space) == (count, 8 - count)
        assert ring.submit() == count
        assert (ring.queued, ring.space) == (0, 8)
        assert [one[0] for one in ring.take()] == list(range(total, total + count))
        total += count
    assert [user_data for _, user_data in kernel.taken] == list(range(total))
    assert ring.statistics()[:4] == (total, total, 0, 0)
    ring.close()


def test_what_was_not_taken_moves_to_the_front(make: Make, kernel: YoungKernel) -> None:
    """Nothing is lost or done twice where the kernel takes less than it was given."""
    ring, dice = make(REWOUND), random.Random(70)
    sent = 0
    found: list[int] = []
    for _ in range(300):
        kernel.take_max = dice.randrange(0, 6)
        for _ in range(dice.randrange(0, ring.space + 1)):
            prep_nop(ring, user_data=sent)
            sent += 1
        before = ring.queued
        assert ring.submit() == min(before, kernel.take_max)
        found += [one[0] for one in ring.take()]
        assert ring.statistics().submitted == len(found)
    kernel.take_max = 100
    found += [one.user_data for one in ring]
    assert sent > 300
    assert found == list(range(sent))
    ring.close()


def test_arguments_stay_while_anything_is_left(make: Make, kernel: YoungKernel) -> None:
    """Memory of what moved to the front lives on."""
    ring = make(REWOUND)
    prep_nop(ring)
    prep_timeout(ring, 1, flags=SqeFlags.CQE_SKIP_SUCCESS)
    held = Held()
    gone = weakref.ref(held)
    ring._passing.append((ring._cells[0] - 1, held))
    del held
    kernel.take_max = 1
    ring.submit()
    gc.collect()
    assert gone() is not None
    ring.submit()
    gc.collect()
    assert gone() is None
    ring.close()


def test_a_batch_and_a_wait_with_terms(make: Make, kernel: YoungKernel) -> None:
    """Other ways to hand over start at the first slot too."""
    ring = make(REWOUND)
    batch = Batch()
    for number in range(5):
        prep_nop(batch, user_data=number)
    for _ in range(3):
        assert ring.run(batch) == [0] * 5
        ring.put(batch)
        assert len(ring.wait(5, min_wait_ns=1000)) == 5
    ring.close()


def test_such_a_queue_keeps_its_size(make: Make, kernel: YoungKernel) -> None:
    """Its counts are nothing that the kernel could copy."""
    ring = make(REWOUND)
    with pytest.raises(UsageError, match="keeps its size"):
        ring.resize_rings(16, 32)
    ring.close()


def test_a_handler_that_raises_behind_the_call_loses_no_count(
    make: Make, kernel: YoungKernel
) -> None:
    """
    What only the result tells is known all the same.

    The call is made by C from end to end here, as it is on a real ring: it raises the signal, and
    says that two were taken; the handler runs behind it.
    """
    raising = ctypes.CDLL(None)["raise"]
    raising.restype = (2).__add__
    kernel.bare_syscall = raising
    kernel.nr_enter = int(signal.SIGUSR1)

    def handle(_number: int, _frame: object) -> None:
        raise InterruptedError("by hand")

    ring = make(REWOUND)
    before = signal.signal(signal.SIGUSR1, handle)
    try:
        for number in range(3):
            prep_nop(ring, user_data=number)
        with pytest.raises(InterruptedError, match="by hand"):
            ring.submit()
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert ring.queued == 1
    assert kernel.sqes[32:40].cast("Q")[0] == 2  # the third request, at the front
    kernel.bare_syscall = kernel._enter
    ring._rewire()
    assert ring.submit() == 1
    assert kernel.taken == [(k.IORING_OP_NOP, 2)]
    ring._flight.clear()
    ring.close()


def test_a_refusal_takes_nothing(make: Make, kernel: YoungKernel) -> None:
    """The requests are still there, and go with the next call."""
    ring = make(REWOUND)
    prep_nop(ring, user_data=1)
    kernel.bare_syscall = lambda *_: -1
    kernel.get_errno = lambda: errno.EAGAIN
    ring._rewire()
    assert ring.submit() == 0
    assert ring.queued == 1
    kernel.get_errno = lambda: errno.ENXIO
    ring._rewire()
    with pytest.raises(RingError, match="The ring is lost"):
        ring.submit()
    kernel.bare_syscall = kernel._enter
    ring._rewire()
    assert ring.submit() == 1
    assert [one[0] for one in ring.take()] == [1]
    ring.close()
