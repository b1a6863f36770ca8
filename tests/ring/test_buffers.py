"""Rings of provided buffers: who has which, in whatever order they come back."""

import errno
import gc
import os
import socket
import weakref
from collections.abc import Callable, Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.ring.pilot import Pilot
from uringio._ring.buffers import BufferRing
from uringio._ring.queue import Completion
from uringio._ring.setup import queue_init
from uringio._sys import constants as k
from uringio._sys.layouts import BUF, BUF_SIZE
from uringio._sys.memory import Memory
from uringio._sys.system import System
from uringio.errors import OpError

SIZE = 64


class Receiver:
    """
    A socket that is received from into provided buffers, the way a driver does it.

    Attributes:
        held: Buffers that the kernel gave us and that did not go back yet.
        tail: Buffers given to the kernel so far, a count that never wraps.
    """

    def __init__(self, pilot: Pilot, buffers: BufferRing) -> None:
        self.pilot = pilot
        self.buffers = buffers
        self.sender, self.receiver = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.held: list[int] = []
        self.tail = buffers.count
        self.puts = 0

    def send(self, data: bytes) -> None:
        self.sender.send(data)

    def put_receive(self, len_bytes: int = 0) -> None:
        """Fill a slot with a receive of at most *len_bytes*, 0 for what the buffer holds."""
        self.pilot.put(
            k.IORING_OP_RECV,
            self.receiver.fileno(),
            flags=k.IOSQE_BUFFER_SELECT,
            len_=len_bytes,
            buf_group=self.buffers.group,
            op_flags=socket.MSG_DONTWAIT,
        )

    def received(self, completion: Completion) -> bytes:
        """Note which buffer a completion took, and return what it holds."""
        _, res, flags = completion
        assert res > 0, errno.errorcode.get(-res, res)
        assert flags & k.IORING_CQE_F_BUFFER
        bid = flags >> k.IORING_CQE_BUFFER_SHIFT
        assert bid not in self.held
        self.held.append(bid)
        start = bid * self.buffers.buffer_bytes
        return bytes(self.buffers.memory.view[start : start + res])

    def receive(self) -> bytes:
        """Receive one message."""
        self.put_receive()
        return self.received(self.pilot.collect(1)[0])

    def give_back(self, bid: int) -> None:
        """Return a buffer, writing its entry only where another one stands."""
        slot = self.tail & (self.buffers.count - 1)
        if self.buffers.held_at[slot] != bid:
            self.buffers.put(slot, bid)
            self.puts += 1
        self.held.remove(bid)
        self.tail += 1
        self.buffers.publish(self.tail)

    def close(self) -> None:
        self.sender.close()
        self.receiver.close()


def entries_of(buffers: BufferRing) -> list[tuple[int, int, int]]:
    """Read (address, length, number) of each entry from the shared memory."""
    raw = buffers._entries.view
    return [BUF.unpack_from(raw, slot * BUF_SIZE) for slot in range(buffers.count)]


@pytest.fixture
def make_receiver(pilot: Pilot) -> Iterator[Callable[..., Receiver]]:
    """Make receivers on one ring."""
    made: list[Receiver] = []

    def make(count: int = 4, buffer_bytes: int = SIZE, group: int = 0) -> Receiver:
        made.append(Receiver(pilot, BufferRing(pilot.ring, group, count, buffer_bytes)))
        return made[-1]

    yield make
    for one in made:
        one.close()


def test_new_ring_offers_every_buffer_in_order(make_receiver: Callable[..., Receiver]) -> None:
    """Entries name each buffer, its size and its place in the memory."""
    buffers = make_receiver(8).buffers
    start = buffers.memory.addr
    assert entries_of(buffers) == [(start + bid * SIZE, SIZE, bid) for bid in range(8)]
    assert buffers.held_at == list(range(8))


def test_buffers_that_return_in_order_cost_no_entry(
    make_receiver: Callable[..., Receiver],
) -> None:
    """
    Many times around, only the tail is written, and the right bytes are in the right buffer.

    This rests on the kernel leaving the entries as they are, also when it receives less than a
    buffer holds: compared at the end.
    """
    one = make_receiver(4)
    before = entries_of(one.buffers)
    for number in range(4 * 10):
        one.send(b"message %d" % number)
        assert one.receive() == b"message %d" % number
        assert one.held == [number % 4]
        one.give_back(number % 4)
    assert one.puts == 0
    assert entries_of(one.buffers) == before


def test_receive_that_asks_for_less_leaves_the_entry_alone(
    make_receiver: Callable[..., Receiver],
) -> None:
    """The length of a request bounds that request, not the next one that gets the buffer."""
    one = make_receiver(2)
    before = entries_of(one.buffers)
    for _ in range(2):
        one.send(b"0123456789")
        one.put_receive(4)
        assert one.received(one.pilot.collect(1)[0]) == b"0123"
        one.give_back(one.held[0])
    assert entries_of(one.buffers) == before
    one.send(b"0123456789")
    assert one.receive() == b"0123456789"


def test_buffers_that_return_out_of_order(make_receiver: Callable[..., Receiver]) -> None:
    """Each entry is rewritten for the buffer that stands there now, and the kernel follows."""
    one = make_receiver(4)
    for number in range(4):
        one.send(b"%d" % number)
        assert one.receive() == b"%d" % number
    assert one.held == [0, 1, 2, 3]
    order = [2, 0, 3, 1]
    for bid in order:
        one.give_back(bid)
    assert one.puts == 4
    assert one.buffers.held_at == order
    for number, bid in enumerate(order):
        one.send(b"again %d" % number)
        assert one.receive() == b"again %d" % number
        assert one.held[-1] == bid


def test_held_buffer_keeps_its_bytes(make_receiver: Callable[..., Receiver]) -> None:
    """While one is not given back, the others go round and nothing is written into it."""
    one = make_receiver(4)
    one.send(b"keep me")
    assert one.receive() == b"keep me"
    kept = one.held[0]
    for number in range(20):
        one.send(b"message %d" % number)
        assert one.receive() == b"message %d" % number
        one.give_back(one.held[-1])
    start = kept * SIZE
    assert bytes(one.buffers.memory.view[start : start + 7]) == b"keep me"


def test_no_buffer_left_is_enobufs(make_receiver: Callable[..., Receiver]) -> None:
    """The receive fails, the message stays, and one buffer given back is enough."""
    one = make_receiver(2)
    for number in range(3):
        one.send(b"%d" % number)
    assert [one.receive() for _ in range(2)] == [b"0", b"1"]
    for _ in range(2):
        one.put_receive()
        [(_, res, flags)] = one.pilot.collect(1)
        assert res == -errno.ENOBUFS
        assert not flags & k.IORING_CQE_F_BUFFER
    one.give_back(one.held[0])
    assert one.receive() == b"2"


def test_more_receives_than_buffers_in_one_enter(make_receiver: Callable[..., Receiver]) -> None:
    """The first ones get the buffers, the rest ENOBUFS; no buffer goes to two."""
    one = make_receiver(4)
    for number in range(8):
        one.send(b"%d" % number)
        one.put_receive()
    done = one.pilot.collect(8)
    assert [one.received(completion) for completion in done[:4]] == [b"0", b"1", b"2", b"3"]
    assert sorted(one.held) == [0, 1, 2, 3]
    assert [res for _, res, _ in done[4:]] == [-errno.ENOBUFS] * 4


def test_nothing_to_read_takes_no_buffer(make_receiver: Callable[..., Receiver]) -> None:
    """A receive that is refused, or that sees the end, leaves all buffers where they are."""
    one = make_receiver(2)
    for _ in range(5):
        one.put_receive()
        [(_, res, flags)] = one.pilot.collect(1)
        assert (res, flags & k.IORING_CQE_F_BUFFER) == (-errno.EAGAIN, 0)
    one.send(b"both")
    one.send(b"there")
    assert [one.receive(), one.receive()] == [b"both", b"there"]


@pytest.mark.slow
def test_tail_wraps_at_16_bits(make_receiver: Callable[..., Receiver]) -> None:
    """70 000 buffers later, past the end of the shared tail's two bytes, all is as before."""
    one = make_receiver(16)
    pilot = one.pilot
    number = 0
    while number < 70_000:
        messages = [b"%d" % each for each in range(number, number + 8)]
        for message in messages:
            one.send(message)
            one.put_receive()
        assert [one.received(completion) for completion in pilot.collect(8)] == messages
        for bid in one.held[:]:
            one.give_back(bid)
        number += 8
    assert one.puts == 0
    assert one.tail == 70_000 + 16


@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    count_log=st.integers(0, 3),
    steps=st.lists(st.none() | st.integers(0, 7), min_size=1, max_size=60),
)
def test_any_order_of_taking_and_returning(
    count_log: int, steps: list[int | None], system: System
) -> None:
    """
    Receives (None) and returns of the n-th held buffer in any mixture, against a model.

    The kernel takes the buffers in the order in which they were given, each message is whole, and
    an empty ring says so.
    """
    ring = queue_init(system, 8)
    one = Receiver(Pilot(ring), BufferRing(ring, 3, 1 << count_log, SIZE))
    offered = list(range(1 << count_log))
    try:
        for number, step in enumerate(steps):
            if step is not None:
                if one.held:
                    bid = one.held[step % len(one.held)]
                    one.give_back(bid)
                    offered.append(bid)
            elif offered:
                one.send(b"message %d" % number)
                assert one.receive() == b"message %d" % number
                assert one.held[-1] == offered.pop(0)
            else:
                one.send(b"x")
                one.put_receive()
                assert one.pilot.result() == -errno.ENOBUFS
                assert one.receiver.recv(10) == b"x"
    finally:
        one.close()
        ring.close()


def test_kernels_buffers_outlive_our_references(pilot: Pilot) -> None:
    """Whoever lost the object (a handler may raise on its way) has not freed what it stands for."""
    BufferRing(pilot.ring, 0, 2, SIZE)
    gc.collect()
    others = [Memory(2 * SIZE) for _ in range(8)]  # which would get its place
    sender, receiver = socket.socketpair()
    sender.send(b"into the buffer")
    pilot.put(
        k.IORING_OP_RECV,
        receiver.fileno(),
        flags=k.IOSQE_BUFFER_SELECT,
        op_flags=socket.MSG_DONTWAIT,
    )
    assert pilot.result() == 15
    assert not any(any(one.view) for one in others)
    kept = pilot.ring.buffer_rings[0]
    assert isinstance(kept, BufferRing)
    assert bytes(kept.memory.view[:15]) == b"into the buffer"
    sender.close()
    receiver.close()


@pytest.mark.parametrize("end", ["unregister", "close"])
def test_buffers_are_freed_with_the_group(end: str, make_pilot: Callable[..., Pilot]) -> None:
    """Once withdrawn, or with the ring gone, nothing holds them any more."""
    ring = make_pilot(1).ring
    buffers = BufferRing(ring, 0, 2, SIZE)
    memory = weakref.ref(buffers.memory.slices)
    if end == "unregister":
        buffers.unregister()
    else:
        ring.close()
    del buffers
    gc.collect()
    assert memory() is None


def test_groups_do_not_mix(make_receiver: Callable[..., Receiver]) -> None:
    """Each receive takes from the group that it names."""
    first, second = make_receiver(2, group=0), make_receiver(2, group=7)
    for _ in range(3):
        first.send(b"first")
        second.send(b"second")
        assert second.receive() == b"second"
        assert first.receive() == b"first"
        first.give_back(first.held[0])
        second.give_back(second.held[0])


def test_group_is_registered_once(pilot: Pilot) -> None:
    """A number that is taken is refused, and free again after unregister."""
    one = BufferRing(pilot.ring, 5, 2, SIZE)
    with pytest.raises(OpError, match="register_buf_ring") as refused:
        BufferRing(pilot.ring, 5, 2, SIZE)
    assert refused.value.errno == errno.EEXIST
    one.unregister()
    with pytest.raises(OpError, match="unregister_buf_ring"):
        one.unregister()
    BufferRing(pilot.ring, 5, 4, SIZE).unregister()


def test_withdrawn_group_gives_no_more(make_receiver: Callable[..., Receiver]) -> None:
    """After unregister a receive is refused, the message is not lost."""
    one = make_receiver(2)
    one.buffers.unregister()
    one.send(b"still there")
    one.put_receive()
    assert one.pilot.result() == -errno.ENOBUFS
    assert one.receiver.recv(100) == b"still there"


def test_pipes_read_into_provided_buffers(pilot: Pilot) -> None:
    """What holds for sockets holds for other things that are polled."""
    buffers = BufferRing(pilot.ring, 0, 2, SIZE)
    read_fd, write_fd = os.pipe()
    pilot.put(k.IORING_OP_READ, read_fd, flags=k.IOSQE_BUFFER_SELECT, offset=-1)
    pilot.enter()
    os.write(write_fd, b"through a pipe")
    [(_, res, flags)] = pilot.collect(1)
    os.close(read_fd)
    os.close(write_fd)
    assert (res, flags) == (14, k.IORING_CQE_F_BUFFER)
    assert bytes(buffers.memory.view[:14]) == b"through a pipe"


@pytest.mark.parametrize(
    ("group", "count", "buffer_bytes"),
    [
        (0, 0, 64),
        (0, 3, 64),
        (0, -4, 64),
        (0, 65536, 64),
        (0, 4, 0),
        (0, 4, -1),
        (0, 4, 1 << 32),
        (-1, 4, 64),
        (65536, 4, 64),
    ],
)
def test_impossible_rings_are_refused(
    group: int, count: int, buffer_bytes: int, pilot: Pilot
) -> None:
    """Numbers that the kernel's fields do not hold are a ValueError before anything is done."""
    with pytest.raises(ValueError, match=r"\d"):
        BufferRing(pilot.ring, group, count, buffer_bytes)
