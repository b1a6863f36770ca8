"""Provided buffers: entries of the kernel's, bits of buffers, bundles, and how far it has got."""

import errno
import gc
import socket
import weakref
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.lowlevel.rig import Completion, done, effect, result
from uringio.errors import ClosedError, OpError
from uringio.lowlevel import (
    CqeFlags,
    PbufRingFlags,
    ProvidedBuffers,
    RecvSendFlags,
    RegisterOp,
    Ring,
    prep_recv,
    prep_recv_multishot,
    prep_send_bundle,
)

Pair = tuple[socket.socket, socket.socket]


def content(buffers: ProvidedBuffers, one: Completion, start: int = 0) -> bytes:
    """Return what a receive has put into its buffer."""
    assert one.buffer_id is not None
    return bytes(buffers.view(one.buffer_id, one.res, start))


def mappings(ring: Ring) -> list[str]:
    """List the places of a ring's memory in this process."""
    maps = Path("/proc/self/maps").read_text().splitlines()
    return [line for line in maps if "io_uring" in line]


@effect(PbufRingFlags.MMAP)
def test_entries_of_the_kernels(ring: Ring, pair: Pair) -> None:
    """Mapped rather than pinned, they work the same, around their end, until they are freed."""
    bare = len(mappings(ring))
    buffers = ring.setup_buf_ring(3, 2, 8, mapped=True)
    assert len(mappings(ring)) == bare + 1
    for number in range(5):
        pair[0].send(b"part %d" % number)
        prep_recv(ring, pair[1].fileno(), 0, len_bytes=8, buf_group=3)
        [one] = done(ring)
        assert content(buffers, one) == b"part %d" % number
        assert one.buffer_id is not None
        buffers.put(one.buffer_id)
    buffers.free()
    assert len(mappings(ring)) == bare
    prep_recv(ring, pair[1].fileno(), 0, len_bytes=8, buf_group=3)
    assert result(ring) == -errno.ENOBUFS
    with pytest.raises(ClosedError, match="group 3 was freed"):
        buffers.put(0)


def test_entries_of_the_kernels_go_with_the_ring(make_ring: Callable[..., Ring]) -> None:
    """Closed or forgotten, a ring leaves no mapping behind."""
    before = make_ring()
    count = len(mappings(before))
    ring = Ring(4)
    buffers = ring.setup_buf_ring(0, 4, 8, mapped=True)
    ring.close()
    assert len(mappings(before)) == count
    with pytest.raises(ClosedError, match="this ring is closed"):
        buffers.put(1)
    ring = Ring(4)
    ring.setup_buf_ring(0, 4, 8, mapped=True)
    with pytest.warns(ResourceWarning, match="never closed"):
        del ring
        gc.collect()
    assert len(mappings(before)) == count


@effect(RegisterOp.PBUF_STATUS)
def test_how_far_the_kernel_has_got(ring: Ring, pair: Pair) -> None:
    """The head moves by one with each buffer that is used up, and not with one given back."""
    buffers = ring.setup_buf_ring(1, 4, 8)
    heads = [ring.buf_ring_head(1)]
    for _ in range(6):
        pair[0].send(b"x")
        prep_recv(ring, pair[1].fileno(), 0, len_bytes=8, buf_group=1)
        [one] = done(ring)
        heads.append(ring.buf_ring_head(1))
        assert one.buffer_id is not None
        buffers.put(one.buffer_id)
    assert heads == [0, 1, 2, 3, 4, 5, 6]
    with pytest.raises(OpError, match="PBUF_STATUS") as caught:
        ring.buf_ring_head(2)
    assert caught.value.errno == errno.ENOENT


@effect(PbufRingFlags.INC, CqeFlags.BUF_MORE)
def test_a_buffer_that_is_consumed_bit_by_bit(ring: Ring, pair: Pair) -> None:
    """Receives go on where the last has ended; the head moves when the buffer is full."""
    buffers = ring.setup_buf_ring(1, 2, 6, incremental=True)
    seen = []
    at = 0
    for piece in (b"ab", b"cd", b"ef", b"gh"):
        pair[0].send(piece)
        prep_recv(ring, pair[1].fileno(), 0, len_bytes=0, buf_group=1)
        [one] = done(ring)
        more = bool(one.flags & CqeFlags.BUF_MORE)
        seen.append((one.buffer_id, content(buffers, one, at), more, ring.buf_ring_head(1)))
        at = at + one.res if more else 0
    assert seen == [
        (0, b"ab", True, 0),
        (0, b"cd", True, 0),
        (0, b"ef", False, 1),
        (1, b"gh", True, 1),
    ]


@effect(RecvSendFlags.BUNDLE)
def test_bundles_go_by_the_order_of_the_ring(ring: Ring, pair: Pair) -> None:
    """One completion for several buffers, from the first's on in the order they were put."""
    buffers = ring.setup_buf_ring(1, 4, 3)
    # The kernel takes 0 and 1, which come back the other way round.
    for _ in range(2):
        pair[0].send(b"x")
        prep_recv(ring, pair[1].fileno(), 0, len_bytes=3, buf_group=1)
        done(ring)
    buffers.put(1, 0)
    pair[0].send(b"abcdefghijkl")
    prep_recv_multishot(ring, pair[1].fileno(), buf_group=1, ioprio=RecvSendFlags.BUNDLE)
    [one] = done(ring)
    assert (one.res, one.buffer_id) == (12, 2)
    order = [2, 3, 1, 0]
    assert b"".join(bytes(buffers.view(bid, 3)) for bid in order) == b"abcdefghijkl"


def test_a_bundle_is_sent(ring: Ring, pair: Pair) -> None:
    """All buffers of the group go out by one request, in the order of the ring."""
    buffers = ring.setup_buf_ring(1, 4, 3)
    for bid in range(4):
        buffers.view(bid, 3)[:] = b"<%d>" % bid
    prep_send_bundle(ring, pair[0].fileno(), 0, 0, buf_group=1)
    [one] = done(ring)
    assert (one.res, one.buffer_id) == (12, 0)
    assert pair[1].recv(100) == b"<0><1><2><3>"
    assert ring.buf_ring_head(1) == 4


def test_a_group_with_a_number_used_before_keeps_the_other(ring: Ring, pair: Pair) -> None:
    """While requests are in flight, which may still fill a buffer that they have taken."""
    buffers = ring.setup_buf_ring(1, 4, 8)
    with pytest.raises(OpError) as caught:
        ring.setup_buf_ring(1, 4, 8)
    assert caught.value.errno == errno.EEXIST
    gone = weakref.ref(buffers)
    prep_recv(ring, pair[1].fileno(), bytearray(1))
    buffers.free()
    ring.setup_buf_ring(1, 4, 8)
    del buffers, caught
    gc.collect()
    assert gone() is not None
    pair[0].send(b"x")
    done(ring)


def test_the_least_rest_of_a_buffer(ring: Ring) -> None:
    """Linux 7.1 brings it; one before says no rather than forget it."""
    try:
        ring.setup_buf_ring(1, 4, 64, incremental=True, min_left_bytes=16)
    except OpError as error:
        refused = error.errno
    else:
        refused = errno.EINVAL
    assert refused == errno.EINVAL
    with pytest.raises(ValueError, match="needs incremental"):
        ring.setup_buf_ring(2, 4, 64, min_left_bytes=16)


def test_a_buffer_comes_back_as_often_as_it_is_put(ring: Ring, pair: Pair) -> None:
    """The count of buffers put goes on beyond what a byte holds, as the kernel's own does."""
    left, right = pair
    group = ring.setup_buf_ring(1, 1, 8)
    for number in range(300):
        right.send(number.to_bytes(2, "little"))
        prep_recv(ring, left.fileno(), 0, len_bytes=0, buf_group=1)
        [(_, res, _)] = ring.wait()
        assert res == 2
        assert int.from_bytes(group.view(0, res), "little") == number
        if number < 299:
            group.put(0)
    assert ring.buf_ring_head(1) == 300
    right.send(b"x")
    prep_recv(ring, left.fileno(), 0, len_bytes=0, buf_group=1)
    assert result(ring) == -errno.ENOBUFS  # the kernel sees that it has taken all that was put
