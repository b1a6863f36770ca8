"""At every moment each buffer is in the ring, spare, or leased: in one place, once."""

import functools
from collections import deque

from fuzz.choices import Choices
from uringio import testing
from uringio._driver.lease_count import LeaseCount
from uringio._driver.op import RECV_LEASE, Op
from uringio._driver.uring_leases import Leases
from uringio._ring.buffers import BufferRing
from uringio._ring.setup import Ring, queue_init
from uringio._sys.layouts import BUF, BUF_SIZE

COUNT, SPARES, SIZE = 4, 3, 64


@functools.cache
def simulated_ring() -> Ring:
    """Make one for all inputs: it only knows that the buffers are registered."""
    return queue_init(testing.SimKernel().system, 4)


def run(data: bytes) -> None:
    buffers = BufferRing(simulated_ring(), 0, COUNT, SIZE, SPARES)
    try:
        receive_and_lease(Choices(data), buffers)
    finally:
        buffers.unregister()


def receive_and_lease(choices: Choices, buffers: BufferRing) -> None:
    leases = Leases(buffers, lambda: None)
    handle = LeaseCount()
    op: Op[object] = Op(RECV_LEASE)
    op.hold = handle
    op.state = 4  # spent: it is never going to be awaited
    consumed, tail = 0, COUNT  # by the kernel; and what was put behind
    kept: deque[tuple[memoryview, bytes]] = deque()
    number = 0
    while choices:
        act = choices.below(4)
        if act == 3:
            if kept:
                view, content = kept[0]
                assert bytes(view) == content, "a leased buffer was written to"
                del view
                kept.rotate(-choices.below(len(kept)))
                kept.popleft()
            continue
        # The kernel takes the oldest entry and writes where it says.
        slot = consumed % COUNT
        addr, size, bid = BUF.unpack_from(buffers._entries.view, slot * BUF_SIZE)[:3]
        assert bid == buffers.held_at[slot]
        assert (addr, size) == (buffers.memory.addr + bid * SIZE, SIZE)
        consumed += 1
        number += 1
        length = 1 + choices.below(SIZE)
        content = number.to_bytes(4, "little") * (SIZE // 4)
        buffers.memory.view[bid * SIZE : bid * SIZE + length] = content[:length]
        back = bid
        if act:
            back, got = leases.take(op, bid, length)
            assert bytes(got) == content[:length]
            if isinstance(got, memoryview):
                assert back != bid
                kept.append((got, content[:length]))
            else:
                assert back == bid
            del got
        at = tail % COUNT
        if buffers.held_at[at] != back:
            buffers.put(at, back)
        tail += 1
        buffers.publish(tail)
        in_ring, spare, leased = leases.counts()
        assert in_ring + spare + leased == COUNT + SPARES
        assert leased == len(kept) == handle.out_count
        inside = sorted(buffers.held_at)
        assert len(set(inside)) == COUNT, "one buffer stands in two entries"
        assert not set(inside) & set(leases._spares)
        changed = [bytes(each) for each, expected in kept if each != expected]
        assert not changed, "a leased buffer was written to"
        must = leases.must_wait(op)
        assert must == (not spare and bool(kept))
    kept.clear()
    assert leases.counts() == (COUNT, SPARES, 0)
