"""Taking completions: all of them, once, in order, whatever comes between."""

import _thread
import os
import signal
from collections.abc import Callable, Iterator
from itertools import chain

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.ring.pilot import PATIENCE_NS, Pilot
from tests.ring.stand_ins import plain_ring
from uringio._ring import queue
from uringio._ring.queue import Completion, make_reap
from uringio._ring.setup import Ring
from uringio._sys import constants as k
from uringio._sys.layouts import CQE
from uringio._sys.memory import Memory
from uringio._sys.system import System


def post(ring: Ring, completions: list[Completion]) -> None:
    """Do the kernel's part: put completions behind the tail, and store it."""
    tail = ring.cq_tail[0]
    assert (tail - ring.cq_head[0]) % 2**32 + len(completions) <= ring.cq_entries
    for one in completions:
        CQE.pack_into(ring.cqes, tail % ring.cq_entries * CQE.size, *one)
        tail = (tail + 1) % 2**32
    ring.cq_tail[0] = tail


class Spans:
    """Stands for the CQE layout and notes how many entries each batch of unpacking had."""

    def __init__(self, last: Callable[[], Iterator[Completion]] = lambda: iter(())) -> None:
        self.lengths: list[int] = []
        self._last = last

    def iter_unpack(self, raw: memoryview) -> Iterator[Completion]:
        self.lengths.append(len(raw) // CQE.size)
        return chain(CQE.iter_unpack(raw), self._last())

    def unpack_from(self, raw: memoryview, offset: int) -> Completion:
        self.lengths.append(1)
        return CQE.unpack_from(raw, offset)


def numbered(first: int, count: int) -> list[Completion]:
    return [(number, -number, number * 7) for number in range(first, first + count)]


# --- on ordinary memory --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("start", "count", "spans"),
    [
        (0, 0, []),
        (0, 1, [1]),
        (0, 8, [8]),
        (3, 5, [5]),  # up to the very end
        (3, 6, [5, 1]),
        (7, 8, [1, 7]),
        (8, 8, [8]),
        (2**32 - 8, 8, [8]),
        (2**32 - 3, 3, [3]),
        (2**32 - 3, 8, [3, 5]),
    ],
)
def test_batch_is_at_most_two_spans(
    start: int, count: int, spans: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before and after the wrap, or one where nothing wraps; none where nothing is there."""
    counting = Spans()
    monkeypatch.setattr(queue, "CQE", counting)
    ring = plain_ring(System(), 8, 8, start)
    taken: list[Completion] = []
    reap = make_reap(ring, taken)
    post(ring, numbered(0, count))
    reap()
    assert taken == numbered(0, count)
    assert counting.lengths == spans
    assert ring.cq_head[0] == ring.cq_tail[0] == (start + count) % 2**32


@given(
    start=st.integers(2**32 - 20, 2**32 - 1) | st.integers(0, 2**32 - 1),
    size_log=st.integers(0, 5),
    batches=st.lists(st.integers(0, 32), max_size=30),
)
def test_any_batches_from_anywhere(start: int, size_log: int, batches: list[int]) -> None:
    """What the kernel posts comes out once and in order, wherever the indexes stand."""
    size = 1 << size_log
    ring = plain_ring(System(), 1, size, start)
    taken: list[Completion] = []
    reap = make_reap(ring, taken)
    number = 0
    for wanted in batches:
        count = min(wanted, size)
        post(ring, numbered(number, count))
        number += count
        reap()
        reap()
    assert taken == numbered(0, number)


@given(
    completions=st.lists(
        st.tuples(
            st.integers(0, 2**64 - 1), st.integers(-(2**31), 2**31 - 1), st.integers(0, 2**32 - 1)
        ),
        max_size=8,
    )
)
def test_every_value_of_every_field_comes_out(completions: list[Completion]) -> None:
    """Numbers of the kernel's widths and signs, none cut."""
    ring = plain_ring(System(), 1, 8, 5)
    taken: list[Completion] = []
    post(ring, completions)
    make_reap(ring, taken)()
    assert taken == completions


def test_storage_is_added_to(pilot: Pilot) -> None:
    """What the caller has not looked at yet stays in front."""
    pilot.taken.append((99, 0, 0))
    pilot.put_nops(2)
    pilot.enter()
    pilot.reap()
    assert [user for user, _, _ in pilot.taken] == [99, 0, 1]


def test_slots_are_the_kernels_again() -> None:
    """What was taken is a copy: the slot may be overwritten at once."""
    ring = plain_ring(System(), 1, 4)
    taken: list[Completion] = []
    reap = make_reap(ring, taken)
    post(ring, numbered(1, 4))
    reap()
    post(ring, numbered(5, 4))
    assert taken == numbered(1, 4)


class Struck(Exception):
    """Raised by a signal handler."""


@pytest.mark.parametrize("start", [0, 5])
def test_signal_handler_cannot_have_completions_taken_twice(
    start: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    A handler that raises while completions move leaves each of them taken once.

    The signal strikes in the very act of moving, so that its handler runs at the first moment at
    which the interpreter lets it; that must not lie before the store of the head. With one span
    and with two.
    """

    def raise_struck(*_: object) -> None:
        raise Struck

    # Strikes from C, when the iterator is drained, and yields nothing.
    def strike() -> Iterator[Completion]:
        return filter(None, map(_thread.interrupt_main, [signal.SIGUSR1]))  # type: ignore[arg-type]

    monkeypatch.setattr(queue, "CQE", Spans(strike))
    ring = plain_ring(System(), 8, 8, start)
    taken: list[Completion] = []
    reap = make_reap(ring, taken)

    def reap_twice() -> None:  # the handler runs inside, or just behind, the first
        reap()
        reap()

    before = signal.signal(signal.SIGUSR1, raise_struck)
    try:
        for first in (0, 6):
            post(ring, numbered(first, 6))
            with pytest.raises(Struck):
                reap_twice()
            reap()
    except Struck:
        pytest.fail("the handler ran a second time")
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert taken == numbered(0, 12)
    assert ring.cq_head[0] == ring.cq_tail[0]


# --- on the real kernel --------------------------------------------------------------------------


def test_overflow_loses_nothing(make_pilot: Callable[..., Pilot]) -> None:
    """
    200 requests complete into a queue of 8 that nobody empties.

    The kernel keeps the rest and raises its flag; entering and reaping in turn brings all of them,
    once and in order.
    """
    pilot = make_pilot(8, cq_entries=8)
    for first in range(0, 200, 8):
        pilot.put_nops(8, first)
        pilot.enter()
    assert pilot.consumed() == 200
    assert pilot.ring.sq_flags[0] & k.IORING_SQ_CQ_OVERFLOW
    assert (pilot.ring.cq_tail[0] - pilot.ring.cq_head[0]) == 8
    rounds = 0
    while len(pilot.taken) < 200:
        pilot.reap()
        pilot.enter()
        rounds += 1
        assert rounds <= 200
    assert [user for user, _, _ in pilot.taken] == list(range(200))
    assert not pilot.ring.sq_flags[0] & k.IORING_SQ_CQ_OVERFLOW
    assert pilot.ring.cq_overflow[0] == 0
    pilot.reap()
    assert len(pilot.taken) == 200


def test_overflow_ends_a_wait(make_pilot: Callable[..., Pilot]) -> None:
    """Completions that the kernel keeps count for a wait once there is room for them."""
    pilot = make_pilot(8, cq_entries=8)
    for first in (0, 8):
        pilot.put_nops(8, first)
        pilot.enter()
    pilot.reap()
    pilot.enter(8, PATIENCE_NS)
    pilot.reap()
    assert [user for user, _, _ in pilot.taken] == list(range(16))


def test_deferred_completions_come_in_portions(make_pilot: Callable[..., Pilot]) -> None:
    """
    100 reads become ready at once, and one enter brings only some of them.

    The flag of outstanding task work stays up until the last has come, so that a loop over it finds
    them all without waiting.
    """
    pilot = make_pilot(128)
    if not pilot.ring.deferred:
        pytest.skip("this kernel does not defer completions")
    pipes = [os.pipe() for _ in range(100)]
    memory = Memory(100)
    try:
        for number, (read_fd, _) in enumerate(pipes):
            pilot.put(
                k.IORING_OP_READ, read_fd, addr=memory.addr + number, len_=1, user_data=number
            )
        pilot.enter()
        pilot.reap()
        assert pilot.taken == []
        for number, (_, write_fd) in enumerate(pipes):
            os.write(write_fd, bytes([number]))
        assert pilot.ring.sq_flags[0] & k.IORING_SQ_TASKRUN
        portions = []
        while pilot.ring.sq_flags[0] & k.IORING_SQ_TASKRUN:
            before = len(pilot.taken)
            pilot.enter()
            pilot.reap()
            portions.append(len(pilot.taken) - before)
    finally:
        for pair in pipes:
            for fd in pair:
                os.close(fd)
    assert sorted(pilot.taken) == [(number, 1, 0) for number in range(100)]
    assert bytes(memory.view) == bytes(range(100))
    assert sum(portions) == 100
    if len(portions) == 1:
        pytest.skip("this kernel delivers any number of completions in one enter")
