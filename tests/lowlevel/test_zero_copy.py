"""
Zero-copy receives: what the kernel is told, and what is done with its answer.

No machine of the tests has a network card whose queue can be taken over.  So the kernel's refusals
are pinned, and a stand-in for its answers, at the door where registrations pass, shows the rest.
"""

import errno
import os
import shutil
import socket
from collections.abc import Callable, Iterator

import pytest

from tests.fresh import FreshPython
from tests.kernel import uring_refusal
from tests.lowlevel.rig import refusal
from uringio._sys import constants as k
from uringio._sys.layouts import (
    REGION_DESC,
    ZCRX_AREA_REG,
    ZCRX_CTRL,
    ZCRX_IFQ_REG,
    ZCRX_OFFSETS,
    ZCRX_RQE,
)
from uringio._sys.system import System
from uringio.errors import (
    ClosedError,
    OpError,
    QueueFullError,
    UnsupportedError,
    UsageError,
)
from uringio.lowlevel import (
    BigCompletion,
    DmaBuf,
    QueryOp,
    QueueQuery,
    RegisterOp,
    Ring,
    SetupFlags,
    ZcrxRegFlags,
    ZeroCopyQuery,
    ZeroCopyQueue,
    allocate,
    query_queues,
    query_zero_copy,
)

MakeRing = Callable[..., Ring]
FLAGS = SetupFlags.SINGLE_ISSUER | SetupFlags.DEFER_TASKRUN | SetupFlags.CQE32
TOKEN = 3 << k.IORING_ZCRX_AREA_SHIFT
HEAD, TAIL, ENTRIES = 0, 64, 128


class Card(System):
    """A system that has a card, as far as registrations go."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[tuple[int, ...]] = []
        self.area: tuple[int, ...] = ()
        self.refill = memoryview(b"")

    def io_uring_register(self, fd: int, opcode: int, arg_addr: int, nr_args: int) -> int:
        """Answer what the real kernel cannot."""
        if opcode == k.IORING_REGISTER_ZCRX_IFQ:
            assert nr_args == 1
            argument = self.memory_at(arg_addr, ZCRX_IFQ_REG.size)
            fields = list(ZCRX_IFQ_REG.unpack(argument))
            if fields[3] & k.ZCRX_REG_IMPORT:
                self.told.append(tuple(fields))
                fields[9] = 8
                ZCRX_IFQ_REG.pack_into(argument, 0, *fields)
                return 0
            area = self.memory_at(fields[4], ZCRX_AREA_REG.size)
            region = self.memory_at(fields[5], REGION_DESC.size)
            addr, len_bytes, _, area_flags, _ = ZCRX_AREA_REG.unpack(area)
            region_addr, region_bytes, region_flags, *_ = REGION_DESC.unpack(region)
            self.told.append((*fields[:4], len_bytes, area_flags, region_bytes, region_flags))
            self.area = ZCRX_AREA_REG.unpack(area)
            ZCRX_AREA_REG.pack_into(area, 0, addr, len_bytes, TOKEN, area_flags, 0)
            self.refill = self.memory_at(region_addr, region_bytes)
            fields[6:10] = [HEAD, TAIL, ENTRIES, 7]
            ZCRX_IFQ_REG.pack_into(argument, 0, *fields)
            return 0
        if opcode == k.IORING_REGISTER_ZCRX_CTRL:
            argument = self.memory_at(arg_addr, ZCRX_CTRL.size)
            zcrx_id, op, _ = ZCRX_CTRL.unpack(argument)
            self.told.append((zcrx_id, op, nr_args))
            if op == k.ZCRX_CTRL_EXPORT:
                ZCRX_CTRL.pack_into(argument, 0, zcrx_id, op, 55)
            return 0
        return super().io_uring_register(fd, opcode, arg_addr, nr_args)


@pytest.fixture
def card() -> Card:
    """A machine with a card."""
    return Card()


@pytest.fixture
def ring(card: Card) -> Iterator[Ring]:
    """A ring on it."""
    if reason := uring_refusal():
        pytest.skip(reason)
    with Ring(8, flags=FLAGS, system=card) as ring:
        yield ring


@pytest.fixture
def queue(ring: Ring) -> ZeroCopyQueue:
    """A queue of the card, with room for four places on their way back."""
    return ring.register_ifq(2, 5, allocate(8192), entries=3)


def test_what_the_kernel_is_told(ring: Ring, card: Card) -> None:
    """The card, its queue, sizes rounded up, and memory for all of it."""
    queue = ring.register_ifq(2, 5, allocate(8192), entries=300, rx_buf_bytes=16384)
    assert card.told == [(2, 5, 512, 0, 8192, 0, 4096 + 512 * 16, k.IORING_MEM_REGION_TYPE_USER)]
    assert (queue.zcrx_id, queue.entries) == (7, 512)
    ring.register_ifq(0, 0, allocate(4096), flags=ZcrxRegFlags.NODEV)
    assert card.told[-1][:4] == (0, 0, 4096, ZcrxRegFlags.NODEV)


def test_places_are_seen_and_given_back(queue: ZeroCopyQueue, card: Card) -> None:
    """Data stands where the completion says; its place goes back with the token of the area."""
    queue.area.view[4096:4104] = b"received"
    first = BigCompletion(1, 8, 0, TOKEN | 4096, 0)
    assert queue.view(first) == b"received"
    queue.give_back(first, BigCompletion(1, 100, 0, TOKEN | 16, 0))
    tail = card.refill[TAIL : TAIL + 4].cast("I")
    assert tail[0] == 2
    given = [ZCRX_RQE.unpack_from(card.refill, ENTRIES + 16 * slot) for slot in range(2)]
    assert given == [(TOKEN | 4096, 8), (TOKEN | 16, 100)]


def test_data_may_arrive_in_a_device(ring: Ring, card: Card) -> None:
    """Its memory is told of by a descriptor, and is nothing that a program could look at."""
    queue = ring.register_ifq(2, 5, DmaBuf(9, 1 << 20))
    assert card.area == (0, 1 << 20, 0, k.IORING_ZCRX_AREA_DMABUF, 9)
    completion = BigCompletion(1, 8, 0, TOKEN | 4096, 0)
    assert queue.place(completion) == 4096
    with pytest.raises(UsageError, match=r"hand the device its place\(\)"):
        queue.view(completion)
    queue.give_back(completion)
    assert ZCRX_RQE.unpack_from(card.refill, ENTRIES) == (TOKEN | 4096, 8)


def test_the_refill_queue_is_never_overrun(queue: ZeroCopyQueue, card: Card) -> None:
    """What finds no room is refused as a whole; when the kernel has taken some, it goes around."""
    places = [BigCompletion(1, 1, 0, at, 0) for at in range(6)]
    queue.give_back(*places[:3])
    with pytest.raises(QueueFullError, match="2 places do not fit the 1 free entries"):
        queue.give_back(*places[3:5])
    card.refill[HEAD : HEAD + 4].cast("I")[0] = 3
    queue.give_back(*places[3:])
    assert card.refill[TAIL : TAIL + 4].cast("I")[0] == 6
    given = [ZCRX_RQE.unpack_from(card.refill, ENTRIES + 16 * slot)[0] for slot in range(4)]
    assert given == [TOKEN | 4, TOKEN | 5, TOKEN | 2, TOKEN | 3]


def test_it_is_controlled_and_shared(ring: Ring, queue: ZeroCopyQueue, card: Card) -> None:
    """A flush, a descriptor for another ring, and that ring's number for the queue."""
    queue.flush()
    assert queue.export() == 55
    assert card.told[-2:] == [(7, k.ZCRX_CTRL_FLUSH_RQ, 0), (7, k.ZCRX_CTRL_EXPORT, 0)]
    assert ring.import_ifq(55) == 8
    assert card.told[-1] == (55, 0, 0, k.ZCRX_REG_IMPORT, 0, 0, 0, 0, 0, 0, 0)


def test_wrong_uses_are_refused(ring: Ring, queue: ZeroCopyQueue, make_ring: MakeRing) -> None:
    """Before the kernel is asked, and with the remedy."""
    area = allocate(4096)
    with pytest.raises(UsageError, match="DEFER_TASKRUN, and CQE32 or CQE_MIXED"):
        make_ring().register_ifq(1, 0, area)
    with pytest.raises(UsageError, match="DEFER_TASKRUN, and CQE32 or CQE_MIXED"):
        make_ring(flags=SetupFlags.CQE32).import_ifq(1)
    with pytest.raises(ValueError, match="1 to 32768 entries, not 0"):
        ring.register_ifq(1, 0, area, entries=0)
    with pytest.raises(ValueError, match="no queue -1"):
        ring.register_ifq(1, -1, area)
    with pytest.raises(ValueError, match="whole pages of 4096 bytes, not of 5000"):
        ring.register_ifq(1, 0, allocate(5000))
    with pytest.raises(ValueError, match="no data in an area of 8192"):
        queue.view(BigCompletion(1, 2, 0, 8191, 0))
    with pytest.raises(ValueError, match="no data in an area of 8192"):
        queue.view(BigCompletion(1, -105, 0, 0, 0))
    ring.close()
    with pytest.raises(ClosedError, match="this ring is closed"):
        queue.give_back()


def test_where_stores_are_reordered_there_is_none(ring: Ring, card: Card) -> None:
    """An entry could be seen after the tail that tells of it."""
    card.total_store_order = False
    with pytest.raises(UnsupportedError, match="keeps stores in order"):
        ring.register_ifq(1, 0, allocate(4096))


# --- the real kernel -----------------------------------------------------------------------------


@refusal(RegisterOp.ZCRX_IFQ)
def test_cards_that_cannot_are_refused_by_the_kernel(make_ring: MakeRing) -> None:
    """
    The loopback device has no queue to give, and one that does not exist is none.

    Linux before 6.15 knows neither; one built without says so; who is not root may not.
    """
    ring = make_ring(flags=FLAGS)
    numbers = []
    for if_index in (socket.if_nametoindex("lo"), (1 << 31) - 1):
        with pytest.raises(OpError, match="ZCRX_IFQ") as caught:
            ring.register_ifq(if_index, 0, allocate(1 << 16), entries=64)
        numbers.append(caught.value.errno)
    if os.geteuid() != 0:
        assert set(numbers) <= {errno.EPERM, errno.EINVAL, errno.EOPNOTSUPP}
    else:
        assert numbers in (
            [errno.EOPNOTSUPP, errno.ENODEV],
            [errno.EINVAL] * 2,
            [errno.EOPNOTSUPP] * 2,
            [errno.EPERM] * 2,
        )


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may make network cards")
@pytest.mark.skipif(shutil.which("ip") is None, reason="iproute2 makes them")
def test_virtual_cards_are_refused_by_the_kernel(fresh_python: FreshPython) -> None:
    """A pair of them, in a network of their own: their driver restarts no queues."""
    if reason := uring_refusal():
        pytest.skip(reason)
    found = fresh_python(
        """
        import ctypes, errno, os, socket, subprocess, sys
        from uringio.errors import OpError
        from uringio.lowlevel import Ring, SetupFlags, allocate
        if ctypes.CDLL(None, use_errno=True).unshare(0x40000000):  # CLONE_NEWNET
            print(f"no network of its own: {os.strerror(ctypes.get_errno())}")
            sys.exit()
        make = "ip link add left type veth peer name right"
        if subprocess.run(make.split(), capture_output=True).returncode:
            print("this kernel makes no virtual cards")
            sys.exit()
        flags = SetupFlags.SINGLE_ISSUER | SetupFlags.DEFER_TASKRUN | SetupFlags.CQE32
        with Ring(4, flags=flags) as ring:
            for name in ("left", "right"):
                try:
                    ring.register_ifq(socket.if_nametoindex(name), 0, allocate(1 << 16))
                except OpError as error:
                    assert error.errno in {errno.EOPNOTSUPP, errno.EINVAL}, error
                else:
                    raise AssertionError(name)
        """
    ).check()
    if found.stdout:
        pytest.skip(found.stdout.strip())


@refusal(ZcrxRegFlags.IMPORT)
def test_a_queue_of_another_ring_that_is_none(make_ring: MakeRing) -> None:
    """Linux 6.18 does not know the flag; later ones look at the descriptor, or ask for rights."""
    with pytest.raises((OpError, UnsupportedError)) as caught:
        make_ring(flags=FLAGS).import_ifq(0)
    if isinstance(caught.value, UnsupportedError):
        assert caught.value.since == "Linux 6.19"
    else:
        assert caught.value.errno in {errno.EINVAL, errno.EBADF, errno.EPERM, errno.EOPNOTSUPP}


@refusal(QueryOp.ZCRX, QueryOp.SCQ)
def test_questions_that_an_older_kernel_does_not_know(ring: Ring) -> None:
    """Each is answered, or refused by EOPNOTSUPP; before Linux 6.18 there are no questions."""
    refused = {errno.EOPNOTSUPP, errno.EINVAL, errno.EBADF}
    for ask in (query_zero_copy, query_queues):
        try:
            answer: ZeroCopyQuery | QueueQuery | int = ask()
        except OpError as error:
            answer = error.errno or 0
        assert answer in refused or (not isinstance(answer, int) and answer.head_bytes > 0)


def test_offsets_have_a_layout_of_their_own() -> None:
    """As they stand in the registration, so they stand alone."""
    raw = ZCRX_IFQ_REG.pack(*(0,) * 6, 1, 2, 3, 0, 0)
    assert ZCRX_OFFSETS.unpack(raw[32:64]) == (1, 2, 3)
