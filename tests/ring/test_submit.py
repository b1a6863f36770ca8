"""Handing slots over: what is published, consumed and completed."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.ring.pilot import Pilot
from tests.ring.stand_ins import TinyKernel, plain_ring
from uringio._ring.prep import prep, sqe_head
from uringio._ring.setup import DEFAULT_FLAGS, FLAG_LADDER
from uringio._sys import constants as k
from uringio._sys.errnos import Fate
from uringio._sys.layouts import SQE, SQE_SHORT
from uringio._sys.system import System
from uringio.errors import RingError

# --- filling a slot ------------------------------------------------------------------------------


def test_head_packs_opcode_flags_and_priority() -> None:
    """The first word of an SQE, on this machine's byte order."""
    raw = SQE_SHORT.pack(sqe_head(22, 0x31, 0x0102), 0, 0, 0, 0, 0, 0)
    assert raw[0] == 22
    assert raw[1] == 0x31
    assert memoryview(raw)[2:4].cast("H")[0] == 0x0102


def test_every_field_lands_in_its_place_and_nowhere_else() -> None:
    """A slot holds what was named, zeros elsewhere, and its neighbours stay as they were."""
    ring = plain_ring(System(), 4, 4)
    ring.sqes[:] = b"\xee" * len(ring.sqes)
    prep(
        ring,
        4 + 2,
        sqe_head(1, 2, 3),
        -4,
        offset=5,
        addr=6,
        len_=7,
        op_flags=8,
        user_data=9,
        buf_group=10,
        file_index=11,
    )
    slot = bytes(ring.sqes[128:192])
    assert SQE.unpack(slot) == (sqe_head(1, 2, 3), -4, 5, 6, 7, 8, 9, 10, 11)
    assert slot[42:44] == bytes(2)
    assert slot[48:] == bytes(16)
    assert ring.sqes[:128] == b"\xee" * 128
    assert ring.sqes[192:] == b"\xee" * 64


def test_file_position_is_offset_minus_one() -> None:
    """As in C, where the field is unsigned and -1 is written to it all the same."""
    ring = plain_ring(System(), 1, 1)
    prep(ring, 0, 0, 0, offset=-1)
    assert SQE.unpack(ring.sqes)[2] == 2**64 - 1


# --- what the kernel takes -----------------------------------------------------------------------


def test_requests_below_the_tail_are_taken_and_no_others(pilot: Pilot) -> None:
    """Slots that are filled but not published yet stay ours."""
    pilot.put_nops(5)
    assert pilot.submit_and_wait(3, 0, None) is Fate.DONE
    assert pilot.consumed() == 3
    pilot.reap()
    assert [user for user, _, _ in pilot.taken] == [0, 1, 2]
    assert pilot.submit_and_wait(5, 0, None) is Fate.DONE
    assert pilot.consumed() == 5
    pilot.reap()
    assert [user for user, _, _ in pilot.taken] == [0, 1, 2, 3, 4]


def test_nothing_to_hand_over_is_no_wait(pilot: Pilot) -> None:
    """With a wait count of 0 the call comes back from an empty ring, timeout or not."""
    assert pilot.enter() is Fate.DONE
    assert pilot.enter(0, 10**18) is Fate.DONE
    pilot.reap()
    assert pilot.taken == []
    assert pilot.consumed() == 0


def test_full_queue_is_taken_whole_again_and_again(pilot: Pilot) -> None:
    """All slots at once, many times around, in order and each once."""
    for first in range(0, 8 * 50, 8):
        pilot.put_nops(8, first)
        assert [user for user, _, _ in pilot.collect(8)] == list(range(first, first + 8))
        assert pilot.consumed() == first + 8


def test_slot_can_be_filled_again_once_taken(pilot: Pilot) -> None:
    """The kernel has read the slot when enter returns; what it says then is the next request's."""
    pilot.put_nops(1, first=1)
    pilot.enter()
    pilot.tail -= 1
    pilot.put_nops(1, first=2)  # the same slot, overwritten
    pilot.reap()
    assert [user for user, _, _ in pilot.taken] == [1]


def test_republished_tail_is_not_taken_twice(pilot: Pilot) -> None:
    """Entering again with the same tail hands over nothing."""
    pilot.put_nops(3)
    for _ in range(3):
        pilot.enter()
    assert len(pilot.collect(3)) == 3
    pilot.enter()
    pilot.reap()
    assert pilot.taken == []


def put_three_of_which_the_second_is_bad(pilot: Pilot) -> None:
    pilot.put_nops(1, first=1)
    pilot.put(255, user_data=2)
    pilot.put_nops(1, first=3)


def test_bad_request_does_not_stop_the_batch(make_pilot: Callable[..., Pilot]) -> None:
    """With SUBMIT_ALL the one that is wrong fails alone, in one enter."""
    pilot = make_pilot()
    if not pilot.ring.flags & k.IORING_SETUP_SUBMIT_ALL:
        pytest.skip("this kernel has no SUBMIT_ALL")
    put_three_of_which_the_second_is_bad(pilot)
    pilot.enter()
    assert pilot.consumed() == 3
    assert [(user, res) for user, res, _ in pilot.collect(3)] == [(1, 0), (2, -22), (3, 0)]


def test_bad_request_that_stops_the_batch_loses_nothing(make_pilot: Callable[..., Pilot]) -> None:
    """Without SUBMIT_ALL the rest waits in the queue, as the SQ head tells, for the next enter."""
    try:
        pilot = make_pilot(ladder=(DEFAULT_FLAGS & ~k.IORING_SETUP_SUBMIT_ALL,))
    except RingError:
        pilot = make_pilot(ladder=(FLAG_LADDER[-1] & ~k.IORING_SETUP_SUBMIT_ALL,))
    put_three_of_which_the_second_is_bad(pilot)
    pilot.enter(3, None)  # a batch that breaks off does not wait
    assert pilot.consumed() == 2
    assert [(user, res) for user, res, _ in pilot.collect(3)] == [(1, 0), (2, -22), (3, 0)]
    assert pilot.consumed() == 3


# --- indexes that wrap ---------------------------------------------------------------------------


@given(
    start=st.integers(2**32 - 40, 2**32 - 1) | st.integers(0, 2**32 - 1),
    batches=st.lists(
        st.tuples(st.integers(0, 8), st.integers(0, 8), st.sampled_from([None, 10**9])),
        max_size=20,
    ),
)
def test_indexes_wrap_at_32_bits(start: int, batches: list[tuple[int, int, int | None]]) -> None:
    """
    Wherever the indexes stand, every request is taken once and in order.

    The kernel in miniature takes as many as it is told, or fewer; ours counts without wrapping.
    """
    kernel = TinyKernel()
    kernel.ring = plain_ring(kernel, 8, 8, start)
    pilot = Pilot(kernel.ring)
    number = 0
    for count, kernel.take_max, timeout_ns in batches:
        room = 8 - (pilot.tail - pilot.consumed()) % 2**32
        for _ in range(min(count, room)):
            number += 1
            pilot.put(k.IORING_OP_NOP, user_data=number, len_=number * 2)
        assert pilot.enter(1, timeout_ns) is Fate.DONE
        pilot.reap()
        assert pilot.ring.sq_tail[0] == pilot.tail % 2**32
    kernel.take_max = 8
    while pilot.consumed() != pilot.tail % 2**32 or kernel.overflow:
        pilot.enter()
        pilot.reap()
    pilot.reap()
    assert [(user, res) for user, res, _ in pilot.taken] == [
        (one, one * 2) for one in range(1, number + 1)
    ]
    assert pilot.ring.cq_head[0] == pilot.ring.cq_tail[0] == (start + number) % 2**32


def test_indexes_wrap_one_by_one() -> None:
    """Three steps before the end of 32 bits to three beyond, with each index seen on its way."""
    kernel = TinyKernel()
    kernel.ring = plain_ring(kernel, 4, 4, 2**32 - 3)
    pilot = Pilot(kernel.ring)
    seen = []
    for number in range(6):
        pilot.put_nops(1, number)
        pilot.enter()
        pilot.reap()
        seen.append((pilot.consumed(), pilot.ring.sq_tail[0], pilot.ring.cq_head[0]))
    assert [user for user, _, _ in pilot.taken] == list(range(6))
    assert seen == [(one % 2**32,) * 3 for one in range(2**32 - 2, 2**32 + 4)]
