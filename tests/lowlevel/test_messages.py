"""Completions that belong to no request: messages and tags, with any user_data."""

import errno
import gc
import os
import select
import socket
import weakref
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.lowlevel.rig import done, result
from uringio.errors import UsageError
from uringio.lowlevel import (
    Batch,
    CancelFlags,
    Opcode,
    PollFlags,
    Request,
    Ring,
    SetupFlags,
    SqeFlags,
    prep_cancel,
    prep_cancel64,
    prep_cancel_fd,
    prep_msg_ring,
    prep_nop,
    prep_poll_add,
    prep_poll_multishot,
    prep_poll_remove,
    prep_poll_update,
    prep_read,
    prep_recv,
    prep_timeout,
    prep_timeout_remove,
    prep_timeout_update,
    register_sync_msg,
)

Pair = tuple[socket.socket, socket.socket]
MakeRing = Callable[..., Ring]
LONG_NS = 600_000_000_000


class Tracked(bytearray):
    """A bytearray whose end can be watched."""


@pytest.fixture
def ring(make_ring: MakeRing) -> Ring:
    """A ring that takes messages."""
    return make_ring(messages=True)


@pytest.fixture
def send(make_ring: MakeRing) -> Callable[[Ring, int, int], None]:
    """Send from another ring, or without one where the kernel can."""
    sender = make_ring()

    def send(ring: Ring, res: int, user_data: int) -> None:
        prep_msg_ring(sender, ring.fd, res, user_data)
        assert result(sender) == 0

    return send


Send = Callable[[Ring, int, int], None]


def test_a_message_is_told_from_a_completion(ring: Ring, send: Send, pair: Pair) -> None:
    """With the user_data of a receive in flight, it ends nothing, and frees no memory."""
    memory = Tracked(8)
    gone = weakref.ref(memory)
    prep_recv(ring, pair[0].fileno(), memory, user_data=5)
    del memory
    ring.submit()
    for number in range(3):
        send(ring, number, 5)
        assert ring.wait() == [(5, number, 0)]
        gc.collect()
        assert (ring.in_flight, ring.statistics().held) == (1, 1)
        assert gone() is not None
    pair[1].send(b"data")
    assert ring.wait() == [(5, 4, 0)]
    assert ring.in_flight == 0
    gc.collect()
    assert gone() is None


def test_a_ring_that_was_not_told_takes_a_message_for_a_completion(
    make_ring: MakeRing, send: Send, pair: Pair
) -> None:
    """Of the request in flight that has its user_data: what senders must see to, there."""
    ring = make_ring()
    prep_poll_add(ring, pair[0].fileno(), select.POLLIN, user_data=5)
    ring.submit()
    send(ring, 1, 6)
    assert ring.wait() == [(6, 1, 0)]
    assert ring.in_flight == 1
    send(ring, 1, 5)
    assert ring.wait() == [(5, 1, 0)]
    assert ring.in_flight == 0
    pair[1].send(b"data")
    assert ring.wait() == [(5, select.POLLIN, 0)]
    assert ring.in_flight == 0


def test_a_message_without_a_ring_is_one_too(ring: Ring, pair: Pair) -> None:
    """Sent by a registration, it is told as well."""
    prep_poll_add(ring, pair[0].fileno(), select.POLLIN, user_data=5)
    ring.submit()
    request = Request()
    prep_msg_ring(request, ring.fd, 9, 5)
    try:
        register_sync_msg(request)
    except OSError as error:
        pytest.skip(str(error))
    assert ring.wait() == [(5, 9, 0)]
    assert ring.in_flight == 1


def test_tags_are_told_too(ring: Ring, file: Path, pair: Pair) -> None:
    """The kernel lets go of a file, and says so by a user_data that a request has."""
    fd = os.open(file, os.O_RDONLY)
    ring.register_files([fd], [5])
    prep_poll_add(ring, pair[0].fileno(), select.POLLIN, user_data=5)
    ring.submit()
    ring.register_files_update(0, [-1], [0])
    os.close(fd)
    assert ring.wait() == [(5, 0, 0)]
    assert ring.in_flight == 1


def test_a_request_with_many_completions_goes_on(ring: Ring, send: Send, pair: Pair) -> None:
    """Until its own last one, whatever comes between; and iteration ends behind that."""
    prep_poll_multishot(ring, pair[0].fileno(), select.POLLIN, user_data=5)
    pair[1].send(b"x")
    [first] = done(ring)
    assert first.more
    send(ring, 1, 5)
    prep_cancel64(ring, 5, user_data=6)
    found = [one[:2] for one in ring]
    assert sorted(found) == [(5, -errno.ECANCELED), (5, 1), (6, 0)]


def test_requests_are_found_by_their_names(ring: Ring, pair: Pair) -> None:
    """Cancelled, moved and renamed by the user_data that the program gave them."""
    fd = pair[0].fileno()

    def fill() -> None:
        prep_timeout(ring, LONG_NS, user_data=1)
        prep_poll_add(ring, fd, select.POLLIN, user_data=2)
        ring.submit()

    def ended(count: int) -> dict[int, int]:
        return {one.user_data: one.res for one in done(ring, count)}

    fill()
    prep_timeout_remove(ring, 1, user_data=10)
    prep_poll_remove(ring, 2, user_data=11)
    cancelled = -errno.ECANCELED
    assert ended(4) == {1: cancelled, 2: cancelled, 10: 0, 11: 0}
    fill()
    prep_timeout_update(ring, 1, 1, user_data=12)
    prep_poll_update(ring, 2, 3, 0, PollFlags.UPDATE_USER_DATA, user_data=13)
    assert ended(3) == {1: -errno.ETIME, 12: 0, 13: 0}
    prep_poll_update(ring, 3, 4, 0, PollFlags.UPDATE_USER_DATA, user_data=14)
    assert ended(1) == {14: 0}
    assert ring.register_sync_cancel(4) == 0
    assert ended(1) == {4: cancelled}
    assert ring.in_flight == 0
    fill()
    prep_cancel_fd(ring, fd, user_data=15)
    prep_cancel(ring, 1, CancelFlags.USERDATA | CancelFlags.ALL, user_data=16)
    assert ended(4) == {1: cancelled, 2: cancelled, 15: 0, 16: 1}
    fill()
    prep_cancel(ring, 0, CancelFlags.ANY | CancelFlags.ALL, user_data=17)
    assert ended(3) == {1: cancelled, 2: cancelled, 17: 2}
    fill()
    assert ring.register_sync_cancel(flags=CancelFlags.ANY | CancelFlags.ALL) == 2
    assert ended(2) == {1: cancelled, 2: cancelled}


def test_batches_have_their_names_too(ring: Ring, send: Send, pair: Pair) -> None:
    """Put twice, a batch ends twice; a message with its name ends none of it."""
    batch = Batch()
    memory = Tracked(4)
    gone = weakref.ref(memory)
    prep_recv(batch, pair[0].fileno(), memory, user_data=1)
    prep_timeout(batch, LONG_NS, user_data=2)
    del memory
    ring.put(batch)
    ring.put(batch)
    ring.submit()
    send(ring, 7, 1)
    assert ring.wait() == [(1, 7, 0)]
    assert ring.in_flight == 4
    pair[1].send(b"data")
    assert ring.wait() == [(1, 4, 0)]
    cancel = Batch()
    prep_cancel(cancel, 2, CancelFlags.ALL, user_data=3)
    prep_cancel_fd(cancel, pair[0].fileno(), user_data=4)
    ring.put(cancel)
    found = sorted(ring.wait(5))
    cancelled = -errno.ECANCELED
    assert found == [(1, cancelled, 0), (2, cancelled, 0), (2, cancelled, 0), (3, 2, 0), (4, 0, 0)]
    assert ring.in_flight == 0
    del batch
    gc.collect()
    assert gone() is None


def test_names_survive_other_queues_and_another_thread(
    make_ring: MakeRing, send: Send, pair: Pair
) -> None:
    """Neither resizing nor enabling the ring gives names away."""
    ring = make_ring(
        messages=True,
        flags=SetupFlags.R_DISABLED | SetupFlags.SINGLE_ISSUER | SetupFlags.DEFER_TASKRUN,
    )
    ring.enable()
    prep_poll_add(ring, pair[0].fileno(), select.POLLIN, user_data=5)
    ring.submit()
    try:
        ring.resize_rings(32, 64)
    except OSError as error:
        pytest.skip(str(error))
    prep_poll_add(ring, pair[0].fileno(), select.POLLIN, user_data=6)
    ring.submit()
    for name in (5, 6):
        send(ring, 1, name)
        assert ring.wait() == [(name, 1, 0)]
    assert ring.in_flight == 2
    pair[1].send(b"x")
    assert sorted(ring.wait(2)) == [(5, 1, 0), (6, 1, 0)]
    assert ring.in_flight == 0


def test_a_sandbox_takes_messages(send: Send, pair: Pair) -> None:
    """What it may not do does not keep it from telling whose completions are whose."""
    allowed = [Opcode.POLL_ADD, Opcode.ASYNC_CANCEL]
    with Ring.sandboxed(4, ops=allowed, messages=True) as ring:
        prep_poll_add(ring, pair[0].fileno(), select.POLLIN, user_data=5)
        ring.submit()
        send(ring, 1, 5)
        assert ring.wait() == [(5, 1, 0)]
        assert ring.in_flight == 1
        prep_nop(ring, user_data=6)
        assert ring.wait() == [(6, -errno.EACCES, 0)]


def test_large_completions_are_told_as_well(make_ring: MakeRing, send: Send, pair: Pair) -> None:
    """A ring with 32 bytes each hands them out under their names."""
    ring = make_ring(messages=True, flags=SetupFlags.CQE32)
    prep_poll_add(ring, pair[0].fileno(), select.POLLIN, user_data=5)
    ring.submit()
    send(ring, 3, 5)
    assert [one[:2] for one in ring.wait_big()] == [(5, 3)]
    assert ring.in_flight == 1
    pair[1].send(b"x")
    assert [one[:2] for one in ring.wait_big()] == [(5, select.POLLIN)]
    assert ring.in_flight == 0


def test_it_is_closed_with_requests_in_flight(make_ring: MakeRing) -> None:
    """What was filled and what was submitted ends, and memory is free."""
    ring = make_ring(messages=True)
    reading, writing = os.pipe()
    memory, other = Tracked(4), Tracked(4)
    gone = [weakref.ref(memory), weakref.ref(other)]
    prep_read(ring, reading, memory, user_data=1)
    ring.submit()
    prep_read(ring, reading, other, user_data=2)
    del memory, other
    ring.close()
    gc.collect()
    assert [one() for one in gone] == [None, None]
    os.close(reading)
    os.close(writing)


def test_what_could_not_be_told_is_refused(ring: Ring) -> None:
    """A completion that is skipped, and results of a batch that has no names but its own."""
    with pytest.raises(UsageError, match="leave CQE_SKIP_SUCCESS out"):
        prep_nop(ring, flags=SqeFlags.CQE_SKIP_SUCCESS)
    batch = Batch()
    prep_nop(batch, flags=SqeFlags.CQE_SKIP_SUCCESS)
    with pytest.raises(UsageError, match="leave CQE_SKIP_SUCCESS out"):
        ring.put(batch)
    with pytest.raises(UsageError, match=r"use put\(\) and wait\(\)"):
        ring.run(batch)
    for wrong in (-1, 1 << 64):
        with pytest.raises(ValueError, match="NOP is out of range"):
            prep_nop(ring, user_data=wrong)
    assert ring.queued == ring.in_flight == 0


def test_a_poll_that_is_renamed_twice_is_accounted_for(make_ring: MakeRing, pair: Pair) -> None:
    """Its last completion, under the third name, frees what it has under the first."""
    ring = make_ring()
    prep_poll_add(ring, pair[0].fileno(), select.POLLIN, user_data=1)
    for old, new in ((1, 2), (2, 3)):
        prep_poll_update(ring, old, new, 0, PollFlags.UPDATE_USER_DATA, user_data=9)
        assert done(ring) == [(9, 0, 0)]
    assert ring.in_flight == 1
    pair[1].send(b"x")
    assert done(ring) == [(3, select.POLLIN, 0)]
    assert ring.in_flight == 0
