"""Flags of sends, receives, accepts, splices, descriptors and memory: what each changes."""

import errno
import fcntl
import mmap
import os
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lowlevel.rig import done, effect, refusal, result, results, silent
from uringio._sys import constants as k
from uringio._sys.layouts import BUF, BUF_REG
from uringio.errors import OpError
from uringio.lowlevel import (
    AcceptFlags,
    BlockUringOp,
    CqeFlags,
    Features,
    FixedFdFlags,
    FsyncFlags,
    Opcode,
    PbufRingFlags,
    PollFlags,
    RecvSendFlags,
    RegisterOp,
    Ring,
    RwAttrFlags,
    SetupFlags,
    SocketUringOp,
    SpliceFlags,
    SqeFlags,
    UringCmdFlags,
    Vectors,
    ZcrxAreaFlags,
    allocate,
    prep_accept,
    prep_cmd_discard,
    prep_fixed_fd_install,
    prep_fsync,
    prep_nop,
    prep_poll_add,
    prep_read,
    prep_recv,
    prep_recv_zc,
    prep_send,
    prep_splice,
    prep_uring_cmd,
)

Pair = tuple[socket.socket, socket.socket]
SIOCOUTQNSD = 0x894B  # what TCP has not sent at all
TIMESTAMPS = 1 << 1 | 1 << 4 | 1 << 7 | 1 << 11  # TX_SOFTWARE, SOFTWARE, OPT_ID, OPT_TSONLY
SO_TIMESTAMPING = 37
TIMESTAMP_TYPE_SHIFT = 16
LOOP_SET_FD, LOOP_CLR_FD, LOOP_CTL_GET_FREE = 0x4C00, 0x4C01, 0x4C82


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """A listening socket on the loopback."""
    with socket.create_server(("127.0.0.1", 0)) as made:
        yield made


@pytest.fixture
def tcp(listener: socket.socket) -> Iterator[Pair]:
    """Two ends of a TCP connection."""
    with socket.create_connection(listener.getsockname()) as left:
        right, _ = listener.accept()
        with right:
            yield left, right


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """Both ends of a pipe."""
    ends = os.pipe()
    yield ends
    for one in ends:
        os.close(one)


# --- sockets -------------------------------------------------------------------------------------


@effect(AcceptFlags.DONTWAIT)
def test_an_accept_that_does_not_wait(ring: Ring, listener: socket.socket) -> None:
    """EAGAIN at once, though the socket is a blocking one; without the flag it waits."""
    prep_accept(ring, listener.fileno(), ioprio=AcceptFlags.DONTWAIT, user_data=1)
    assert results(ring, 1) == {1: -errno.EAGAIN}
    prep_accept(ring, listener.fileno(), user_data=2)
    assert ring.wait(1, 0) == []


@effect(AcceptFlags.POLL_FIRST)
@pytest.mark.parametrize("first", [False, True])
def test_an_accept_that_polls_first(ring: Ring, listener: socket.socket, first: bool) -> None:
    """A connection that is there already is taken later: a NOP submitted behind it comes first."""
    flags = AcceptFlags.POLL_FIRST if first else 0
    with socket.create_connection(listener.getsockname()):
        prep_accept(ring, listener.fileno(), ioprio=flags, user_data=1)
        prep_nop(ring, user_data=2)
        found = done(ring, 2)
        assert [one.user_data for one in found] == ([2, 1] if first else [1, 2])
        os.close(next(one.res for one in found if one.user_data == 1))


@effect(RecvSendFlags.POLL_FIRST)
@pytest.mark.parametrize("first", [False, True])
def test_transfers_that_poll_first(ring: Ring, pair: Pair, first: bool) -> None:
    """Though they could be done at once, a NOP submitted behind them comes first."""
    flags = RecvSendFlags.POLL_FIRST if first else 0
    pair[0].send(b"x")
    prep_recv(ring, pair[1].fileno(), bytearray(1), ioprio=flags, user_data=1)
    prep_send(ring, pair[1].fileno(), b"y", ioprio=flags, user_data=2)
    prep_nop(ring, user_data=3)
    order = [one.user_data for one in done(ring, 3)]
    assert order == ([3, 1, 2] if first else [1, 2, 3])


@effect(RecvSendFlags.SEND_VECTORIZED)
def test_a_send_of_several_pieces(ring: Ring, pair: Pair) -> None:
    """The address is that of an array of them, the length their number."""
    pieces = Vectors([b"in ", b"pieces"], writable=False)
    ioprio = RecvSendFlags.SEND_VECTORIZED
    prep_send(ring, pair[0].fileno(), pieces.addr, ioprio=ioprio, len_bytes=pieces.count)
    res = result(ring)
    if res == -errno.EINVAL:
        pytest.skip("SEND_VECTORIZED came with Linux 6.17")
    assert res == 9
    assert pair[1].recv(100) == b"in pieces"


@effect(CqeFlags.SOCK_NONEMPTY)
def test_a_receive_tells_that_there_is_more(ring: Ring, pair: Pair) -> None:
    """As long as it does not take all."""
    pair[0].send(b"0123456789")
    found = []
    for size in (4, 6):
        prep_recv(ring, pair[1].fileno(), bytearray(size))
        found.append(bool(done(ring)[0].flags & CqeFlags.SOCK_NONEMPTY))
    assert found == [True, False]


@effect(SocketUringOp.TX_TIMESTAMP)
@refusal(CqeFlags.TSTAMP_HW)
@pytest.mark.parametrize("kind", [SetupFlags.CQE32, SetupFlags.CQE_MIXED])
def test_times_at_which_datagrams_were_sent(make_ring: type[Ring], kind: SetupFlags) -> None:
    """Each has a completion with its number and time, which is the machine's, not the card's."""
    ring = make_ring(flags=kind | SetupFlags.SINGLE_ISSUER | SetupFlags.DEFER_TASKRUN)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.bind(("127.0.0.1", 0))
        sender.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPING, TIMESTAMPS)
        prep_uring_cmd(ring, SocketUringOp.TX_TIMESTAMP, sender.fileno(), user_data=5)
        ring.submit()
        found = ring.wait_big(1, 0)
        if found:
            assert found[0].res in {-errno.EINVAL, -errno.EOPNOTSUPP}
            pytest.skip("TX_TIMESTAMP came with Linux 6.17")
        for number in range(2):
            sender.sendto(b"timed", sender.getsockname())
            [one] = ring.wait_big(1)
            assert (one.user_data, one.res, one.flags & CqeFlags.MORE) == (5, number, CqeFlags.MORE)
            assert one.flags & CqeFlags.TSTAMP_HW == 0
            assert one.flags >> TIMESTAMP_TYPE_SHIFT == 0
            assert one.extra1 > 1_500_000_000  # seconds
            assert one.extra2 < 1_000_000_000  # nanoseconds


# --- splices -------------------------------------------------------------------------------------


@effect(SpliceFlags.NONBLOCK)
def test_a_splice_that_does_not_wait_for_its_pipe(ring: Ring, pipe: tuple[int, int]) -> None:
    """EAGAIN from an empty one; without the flag it waits."""
    other, sink = os.pipe()
    prep_splice(ring, pipe[0], -1, sink, -1, 10, SpliceFlags.NONBLOCK, user_data=1)
    assert results(ring, 1) == {1: -errno.EAGAIN}
    prep_splice(ring, pipe[0], -1, sink, -1, 10, user_data=2)
    assert ring.wait(1, 0) == []
    os.write(pipe[1], b"now")
    assert results(ring, 1) == {2: 3}
    os.close(other)
    os.close(sink)


@effect(SpliceFlags.FD_IN_FIXED)
def test_a_splice_from_a_slot(ring: Ring, pipe: tuple[int, int]) -> None:
    """The number to take from is that of a registered file."""
    ring.register_files([-1, pipe[0]])
    other, sink = os.pipe()
    os.write(pipe[1], b"spliced")
    prep_splice(ring, 1, -1, sink, -1, 10, SpliceFlags.FD_IN_FIXED)
    assert result(ring) == 7
    assert os.read(other, 10) == b"spliced"
    os.close(other)
    os.close(sink)


@effect(SpliceFlags.MORE)
def test_a_splice_with_more_to_follow(ring: Ring, pipe: tuple[int, int], tcp: Pair) -> None:
    """TCP holds back what is less than a segment, until something without the flag follows."""
    unsent = []
    for flags in (SpliceFlags.MORE, 0):
        os.write(pipe[1], b"part ")
        prep_splice(ring, pipe[0], -1, tcp[0].fileno(), -1, 5, flags)
        assert result(ring) == 5
        unsent.append(struct.unpack("i", fcntl.ioctl(tcp[0], SIOCOUTQNSD, bytes(4)))[0])
    assert unsent == [5, 0]
    assert tcp[1].recv(10, socket.MSG_WAITALL) == b"part part "


@silent(SpliceFlags.MOVE)
def test_a_splice_that_may_move_pages(ring: Ring, pipe: tuple[int, int]) -> None:
    """It is a hint that the kernel takes and has ignored for long; unknown ones are refused."""
    other, sink = os.pipe()
    os.write(pipe[1], b"moved")
    prep_splice(ring, pipe[0], -1, sink, -1, 10, SpliceFlags.MOVE)
    assert (result(ring), os.read(other, 10)) == (5, b"moved")
    prep_splice(ring, pipe[0], -1, sink, -1, 10, 1 << 4)
    assert result(ring) == -errno.EINVAL
    os.close(other)
    os.close(sink)


# --- files and memory ----------------------------------------------------------------------------


@effect(FixedFdFlags.NO_CLOEXEC)
def test_descriptors_that_executed_programs_inherit(ring: Ring, pipe: tuple[int, int]) -> None:
    """Only where that was asked for."""
    ring.register_files([pipe[0]])
    found = []
    for flags in (0, FixedFdFlags.NO_CLOEXEC):
        prep_fixed_fd_install(ring, 0, flags)
        fd = result(ring)
        found.append(os.get_inheritable(fd))
        os.close(fd)
    assert found == [False, True]


@silent(FsyncFlags.DATASYNC)
def test_a_sync_of_the_data_alone(ring: Ring, file: Path) -> None:
    """What it leaves out shows when the power fails; unknown flags are refused."""
    fd = os.open(file, os.O_RDWR)
    prep_fsync(ring, fd, FsyncFlags.DATASYNC, user_data=1)
    prep_fsync(ring, fd, FsyncFlags.DATASYNC << 1, user_data=2)
    assert results(ring, 2) == {1: 0, 2: -errno.EINVAL}
    os.close(fd)


@effect(PbufRingFlags.MMAP)
def test_a_buffer_ring_in_memory_of_the_kernels(ring: Ring, pair: Pair) -> None:
    """It is mapped from the ring's descriptor, and serves as any other."""
    group, buffer_id = 3, 7
    ring.register(RegisterOp.PBUF_RING, BUF_REG.pack(0, 4, group, PbufRingFlags.MMAP, 0), 1)
    offset = k.IORING_OFF_PBUF_RING | group << k.IORING_OFF_PBUF_SHIFT
    memory = allocate(16)
    with mmap.mmap(ring.fd, 4096, mmap.MAP_SHARED, offset=offset) as entries:
        BUF.pack_into(entries, 0, memory.addr, 16, buffer_id)
        entries[14:16] = struct.pack("=H", 1)  # the tail: one buffer is there
        pair[0].send(b"mapped")
        prep_recv(ring, pair[1].fileno(), 0, buf_group=group, len_bytes=16)
        [one] = done(ring)
    assert (one.res, one.buffer_id, bytes(memory.view[:6])) == (6, buffer_id, b"mapped")
    with pytest.raises(OSError, match="Errno"):  # of the next group, which there is not
        mmap.mmap(ring.fd, 4096, mmap.MAP_SHARED, offset=offset + (1 << k.IORING_OFF_PBUF_SHIFT))


@effect(RwAttrFlags.PI, Features.RW_ATTR)
def test_attributes_of_a_read_are_looked_at(ring: Ring, file: Path) -> None:
    """
    Where the address of protection information is none, the read fails for that; unknown ones fail.

    A file without such information refuses it as well.
    """
    if Features.RW_ATTR not in ring.features:
        pytest.skip("attributes came with Linux 6.14")
    fd = os.open(file, os.O_RDONLY)
    attribute, room = allocate(32), allocate(512)

    def read(addr: int, mask: int) -> int:
        arguments = (Opcode.READ, fd, 0, room.addr, 512, 0, 1, 0, None, 0, 0, 0)
        ring.fill(*arguments, addr, mask)
        return result(ring)

    assert read(0, 0) == 10
    assert read(1, RwAttrFlags.PI) == -errno.EFAULT
    assert read(1, RwAttrFlags.PI << 1) == -errno.EINVAL
    assert read(attribute.addr, RwAttrFlags.PI) in {-errno.EINVAL, -errno.EOPNOTSUPP}
    os.close(fd)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may make a block device of a file")
@effect(BlockUringOp.DISCARD)
def test_blocks_are_given_back(ring: Ring, tmp_path: Path) -> None:
    """Of a file that stands behind a block device, half a megabyte goes."""
    with open(tmp_path / "disk", "wb+") as file:
        file.write(b"x" * (1 << 20))
        file.flush()
        os.fsync(file.fileno())
        before = os.fstat(file.fileno()).st_blocks
        device = block_device_of(file.fileno())
        prep_cmd_discard(ring, device, 0, 1 << 19)
        res = result(ring)
        after = os.fstat(file.fileno()).st_blocks
        fcntl.ioctl(device, LOOP_CLR_FD)
        os.close(device)
    if res == -errno.EOPNOTSUPP:
        pytest.skip("this kernel or this filesystem gives no blocks back")
    assert (res, before - after) == (0, (1 << 19) // 512)


def block_device_of(fd: int) -> int:
    """Make a block device of a file; other tests may do so at the same time."""
    try:
        control = os.open("/dev/loop-control", os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        pytest.skip(f"no loop devices: {error}")
    try:
        for _ in range(20):
            number = fcntl.ioctl(control, LOOP_CTL_GET_FREE)
            device = os.open(f"/dev/loop{number}", os.O_RDWR | os.O_CLOEXEC)
            try:
                fcntl.ioctl(device, LOOP_SET_FD, fd)
            except OSError:
                os.close(device)
            else:
                return device
    except OSError as error:
        pytest.skip(f"no loop device could be opened: {error}")
    finally:
        os.close(control)
    pytest.skip("no loop device is free")


# --- what is refused -----------------------------------------------------------------------------


@refusal(UringCmdFlags.FIXED)
def test_commands_with_registered_memory(ring: Ring, tcp: Pair) -> None:
    """
    A socket's command takes the flag and has no use for the memory; beside a group it is refused.

    What uses it is the driver of a disk, an NVMe's or one in user space.
    """
    ring.register_buffers([allocate(4096)])
    tcp[1].send(b"four")
    tcp[0].recv(1, socket.MSG_PEEK)
    fixed = UringCmdFlags.FIXED
    prep_uring_cmd(ring, SocketUringOp.SIOCINQ, tcp[0].fileno(), cmd_flags=fixed)
    assert result(ring) == 4
    select = SqeFlags.BUFFER_SELECT
    prep_uring_cmd(ring, SocketUringOp.SIOCINQ, tcp[0].fileno(), cmd_flags=fixed, flags=select)
    assert result(ring) == -errno.EINVAL


@refusal(PollFlags.ADD_LEVEL)
def test_level_triggered_polls_are_refused(ring: Ring, pair: Pair) -> None:
    """The header has the flag; POLL_ADD takes none but ADD_MULTI."""
    for flags in (PollFlags.ADD_LEVEL, PollFlags.ADD_LEVEL | PollFlags.ADD_MULTI):
        prep_poll_add(ring, pair[0].fileno(), 1, flags)
        assert result(ring) == -errno.EINVAL


@effect(SetupFlags.IOPOLL)
@refusal(SetupFlags.HYBRID_IOPOLL)
@pytest.mark.parametrize("hybrid", [False, True])
def test_a_ring_that_polls_devices(
    make_ring: type[Ring], file: Path, pair: Pair, hybrid: bool
) -> None:
    """
    It reads only what can be polled for, and sends nothing.

    A disk whose driver polls would be read; EOPNOTSUPP is what the others say.
    """
    ring = make_ring(flags=SetupFlags.IOPOLL | (SetupFlags.HYBRID_IOPOLL if hybrid else 0))
    fd = os.open(file, os.O_RDONLY)
    prep_read(ring, fd, bytearray(4), 0, user_data=1)
    prep_send(ring, pair[0].fileno(), b"x", user_data=2)
    assert results(ring, 2) == {1: -errno.EOPNOTSUPP, 2: -errno.EINVAL}
    os.close(fd)


@refusal(Opcode.RECV_ZC)
@pytest.mark.parametrize("flags", [None, SetupFlags.CQE32])
def test_a_receive_without_a_copy_needs_a_queue(
    make_ring: type[Ring], tcp: Pair, flags: SetupFlags | None
) -> None:
    """Without a receive queue that was taken over it is EINVAL, whatever the completions' size."""
    base = SetupFlags.SINGLE_ISSUER | SetupFlags.DEFER_TASKRUN
    ring = make_ring(flags=None if flags is None else flags | base)
    if Opcode.RECV_ZC not in ring.opcodes:
        pytest.skip("RECV_ZC came with Linux 6.15")
    prep_recv_zc(ring, tcp[0].fileno(), 0)
    assert result(ring) == -errno.EINVAL


@refusal(RegisterOp.ZCRX_IFQ, ZcrxAreaFlags.DMABUF)
def test_a_receive_queue_needs_a_network_card(make_ring: type[Ring]) -> None:
    """
    An ordinary ring is EINVAL; one with large completions has its arguments looked at.

    EPERM without the right to administer networks.
    """
    ring = make_ring()
    with pytest.raises(OpError, match="register ZCRX_IFQ") as caught:
        ring.register(RegisterOp.ZCRX_IFQ, bytes(96), 1)
    assert caught.value.errno in {errno.EINVAL, errno.EPERM}
