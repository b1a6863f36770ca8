"""Datagrams: UDP over both families and Unix, on both drivers under both schedulers."""

import errno
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

import uringio
from tests.marks import needs_pending_errors
from tests.surface.pairs import fill_queue
from tests.surface.schedulers import Scheduler
from uringio.errors import BusyError, ClosedError, OpError
from uringio.net import (
    AbstractUnixAddress,
    DatagramSocket,
    Inet4Address,
    Inet6Address,
    UnixAddress,
    open_udp,
    open_unix_datagram,
)
from uringio.net.options import SO_REUSEPORT, UDP_GRO

LOOPBACK = ("127.0.0.1", 0)
SEGMENT_BYTES = 100


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


needs_ipv6 = pytest.mark.skipif(not has_ipv6(), reason="no IPv6 loopback here")


@asynccontextmanager
async def pair() -> AsyncIterator[tuple[DatagramSocket, DatagramSocket]]:
    """Yield two UDP sockets, the first of them connected to the second."""
    async with await open_udp(LOOPBACK) as far:
        near = await open_udp(LOOPBACK, far.local_address)  # type: ignore[arg-type]
        async with near:
            yield near, far


# --- to and fro ----------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["127.0.0.1", pytest.param("::1", marks=needs_ipv6)])
def test_udp_echo(scheduler: Scheduler, host: str) -> None:
    """Datagrams keep their borders, and each can be answered where it came from."""

    async def echo(server: DatagramSocket) -> None:
        async for data, address in server:
            await server.send_to(data.upper(), address)

    async def main() -> None:
        async with (
            await open_udp((host, 0)) as server,
            await open_udp((host, 0)) as client,
        ):
            echoing = scheduler.spawn(echo, server)
            where = server.local_address
            for n in range(50):
                assert await client.send_to(b"message %d" % n, where) == len(b"message %d" % n)
            for n in range(50):
                datagram = await client.recv_from()
                assert datagram == (b"MESSAGE %d" % n, where)
                assert not datagram.truncated
            echoing.cancel()
            await echoing.wait()
            assert echoing.cancelled

    scheduler.run(main)


def test_connected_udp(scheduler: Scheduler) -> None:
    """A connected socket sends without an address and hears its peer only."""

    async def main() -> None:
        async with pair() as (near, far), await open_udp(LOOPBACK) as stranger:
            assert near.remote_address == far.local_address
            await stranger.send_to(b"not for you", near.local_address)
            await near.send(b"question")
            data, address = await far.recv_from()
            assert (data, address) == (b"question", near.local_address)
            await far.send_to(bytearray(b"answer"), address)
            await far.send_to(memoryview(b""), address)
            assert await near.recv() == b"answer"
            assert await near.recv() == b""
            with pytest.raises(OpError) as caught:
                assert far.remote_address
            assert caught.value.errno == errno.ENOTCONN

    scheduler.run(main)


@needs_ipv6
def test_addresses_are_typed_and_equal_the_standard_librarys(scheduler: Scheduler) -> None:
    """Fields have names, and equality, unpacking and `repr` are those of plain tuples."""

    async def main() -> None:
        async with await open_udp(LOOPBACK) as four, await open_udp(("::1", 0)) as six:
            address = four.local_address
            assert isinstance(address, Inet4Address)
            host, port = address
            assert (host, port) == address == (address.host, address.port)
            assert repr(address) == f"('127.0.0.1', {port})"
            longer = six.local_address
            assert isinstance(longer, Inet6Address)
            assert longer == ("::1", longer.port, 0, 0)
            assert repr(longer) == f"('::1', {longer.port}, 0, 0)"
            assert (longer.flowinfo, longer.scope_id) == (0, 0)

    scheduler.run(main)


@needs_ipv6
def test_addresses_of_sockets_are_taken_as_they_are(scheduler: Scheduler) -> None:
    """`local_address` says where to connect and to bind, of IPv6 with all four parts."""

    async def main() -> None:
        async with await open_udp(("::1", 0)) as far:
            async with await open_udp(remote=far.local_address) as near:
                assert near.remote_address == far.local_address
                await near.send(b"x")
                assert await far.recv_from() == (b"x", near.local_address)
                where = near.local_address
            async with await open_udp(where) as again:
                assert again.local_address == where
            for unfit in ("path", b"\0path", UnixAddress()):
                with pytest.raises(ValueError, match="UDP address"):
                    await open_udp(remote=unfit)
            with pytest.raises(ValueError, match="out of range"):
                await open_udp(remote=("::1", 1, 0, 1 << 32))
            with pytest.raises(OpError) as caught:  # no interface has that number
                await open_udp(remote=Inet6Address("fe80::1", 1, 0, 999_999))
            assert caught.value.errno in {errno.ENODEV, errno.EINVAL, errno.ENETUNREACH}

    scheduler.run(main)


def test_names_are_resolved(scheduler: Scheduler) -> None:
    """Both hosts may be names, and the two ends get addresses of one family."""

    async def main() -> None:
        async with await open_udp(("localhost", 0)) as far:
            port = int(far.local_address[1])
            host = str(far.local_address[0])
            async with await open_udp(("localhost", 0), (host, port)) as near:
                await near.send(b"x")
                assert await far.recv() == b"x"

    scheduler.run(main)


@needs_pending_errors
def test_refused_datagrams_are_told(scheduler: Scheduler) -> None:
    """Nobody listens: a connected socket hears of it in its next receive, or the next send."""

    async def main() -> None:
        async with await open_udp(LOOPBACK) as gone:
            address = gone.local_address
        async with await open_udp(None, address) as near:  # type: ignore[arg-type]
            await near.send(b"to nobody")
            with pytest.raises(ConnectionRefusedError) as caught:
                await near.recv()
            assert isinstance(caught.value, OpError)
            assert caught.value.op == "recvmsg"
            receiving = scheduler.spawn(receive, near)
            await scheduler.checkpoint()
            await near.send(b"again")
            with pytest.raises(ConnectionRefusedError):
                await receiving.result()

    scheduler.run(main)


async def receive(sock: DatagramSocket) -> bytes:
    return await sock.recv()


def test_many_senders(scheduler: Scheduler) -> None:
    """Any number of tasks may send at once, and every datagram arrives."""

    async def main() -> None:
        async with pair() as (near, far):

            async def send(n: int) -> None:
                await near.send(bytes([n]))

            senders = [scheduler.spawn(send, n) for n in range(20)]
            received = {await far.recv() for _ in senders}
            assert received == {bytes([n]) for n in range(20)}
            for sender in senders:
                await sender.result()

    scheduler.run(main)


def test_a_port_can_be_shared(scheduler: Scheduler) -> None:
    """With SO_REUSEPORT two sockets have one port; without, the second is refused."""

    async def main() -> None:
        async with await open_udp(LOOPBACK, reuse_port=True) as one:
            where = ("127.0.0.1", int(one.local_address[1]))
            assert SO_REUSEPORT.get(one)
            async with await open_udp(where, options=[SO_REUSEPORT.to(True)]) as two:
                assert two.local_address == where
            with pytest.raises(OpError) as caught:
                await open_udp(where)
            assert caught.value.errno == errno.EADDRINUSE

    scheduler.run(main)


# --- sizes ---------------------------------------------------------------------------------------


def test_truncation_is_reported(scheduler: Scheduler) -> None:
    """Of a datagram that is longer than asked for the rest is lost; the next one is whole."""

    async def main() -> None:
        async with pair() as (near, far):
            for data in (b"0123456789", b"0123456789", b"0123"):
                await near.send(data)
            datagram = await far.recv_from(4)
            assert (datagram.data, datagram.truncated) == (b"0123", True)
            message = await far.recvmsg(4)
            assert (message.data, message.count, message.truncated) == (b"0123", 4, True)
            datagram = await far.recv_from(4)
            assert (datagram.data, datagram.truncated) == (b"0123", False)

    scheduler.run(main)


def test_the_longest_datagram(scheduler: Scheduler) -> None:
    """65,507 bytes pass without being asked for; one more is refused by the kernel."""

    async def main() -> None:
        async with pair() as (near, far):
            data = os.urandom(65507)
            await near.send(data)
            assert await far.recv() == data
            with pytest.raises(OpError) as caught:
                await near.send(data + b"x")
            assert caught.value.errno == errno.EMSGSIZE

    scheduler.run(main)


def test_the_kernel_cuts_segments(scheduler: Scheduler) -> None:
    """With `segment_bytes` one send becomes many datagrams, the last one shorter."""

    async def main() -> None:
        async with pair() as (near, far):
            await skip_without_segments(near, far)
            data = os.urandom(SEGMENT_BYTES * 5 + 7)
            assert await near.send(data, segment_bytes=SEGMENT_BYTES) == len(data)
            received = [await far.recv() for _ in range(6)]
            assert [len(one) for one in received] == [SEGMENT_BYTES] * 5 + [7]
            assert b"".join(received) == data

    scheduler.run(main)


def test_unix_sockets_cut_nothing(scheduler: Scheduler, tmp_path: Path) -> None:
    """There the kernel would ignore the size and send one datagram: refused, nothing is sent."""

    async def main() -> None:
        path = tmp_path / "socket"
        async with (
            await open_unix_datagram(path) as far,
            await open_unix_datagram(remote=path) as near,
        ):
            with pytest.raises(ValueError, match="UDP"):
                near.send(b"x" * 100, segment_bytes=10)
            await near.send(b"whole")
            assert await far.recv() == b"whole"

    scheduler.run(main)


def test_segments_that_cannot_be(scheduler: Scheduler) -> None:
    """Too many, too much: the kernel's refusal, typed, and the socket goes on."""

    async def main() -> None:
        async with pair() as (near, far):
            await skip_without_segments(near, far)
            with pytest.raises(OpError) as caught:
                await near.send(b"x" * 2000, segment_bytes=1)
            assert caught.value.errno == errno.EINVAL
            with pytest.raises(OpError) as caught:
                await near.send(b"x" * 70_000, segment_bytes=1400)
            assert caught.value.errno == errno.EMSGSIZE
            await near.send(b"x" * 200, segment_bytes=200)
            assert await far.recv() == b"x" * 200

    scheduler.run(main)


def test_the_kernel_joins_segments(scheduler: Scheduler) -> None:
    """With UDP_GRO they arrive as one, and the datagram tells their size."""

    async def main() -> None:
        async with pair() as (near, far):
            await skip_without_segments(near, far)
            UDP_GRO.set(far, True)
            data = os.urandom(SEGMENT_BYTES * 5 + 7)
            await near.send(data, segment_bytes=SEGMENT_BYTES)
            datagram = await far.recv_from()
            assert (datagram.data, datagram.segment_bytes) == (data, SEGMENT_BYTES)
            await near.send(data, segment_bytes=SEGMENT_BYTES)
            message = await far.recvmsg()
            assert (message.data, message.segment_bytes) == (data, SEGMENT_BYTES)
            await near.send(b"alone")
            datagram = await far.recv_from()
            assert (datagram.data, datagram.segment_bytes) == (b"alone", 0)

    scheduler.run(main)


async def skip_without_segments(near: DatagramSocket, far: DatagramSocket) -> None:
    try:
        await near.send(b"12", segment_bytes=1)
    except OpError as error:
        pytest.skip(f"no UDP_SEGMENT here: {error}")
    assert [await far.recv(), await far.recv()] == [b"1", b"2"]


# --- Unix ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("abstract", [False, True])
def test_uring_datagrams(scheduler: Scheduler, tmp_path: Path, abstract: bool) -> None:
    """They carry addresses of both kinds, keep order and borders, and tell those without a name."""
    paths: list[str | bytes]
    if abstract:
        paths = [b"\0uringio datagrams %d %d" % (os.getpid(), n) for n in range(2)]
    else:
        paths = [str(tmp_path / name) for name in ("one", "two")]

    async def main() -> None:
        async with (
            await open_unix_datagram(paths[0]) as one,
            await open_unix_datagram(paths[1], paths[0]) as two,
            await open_unix_datagram() as nameless,
        ):
            assert one.local_address == paths[0]
            kind = AbstractUnixAddress if abstract else UnixAddress
            assert isinstance(one.local_address, kind)
            await two.send(b"connected")
            data, address = await one.recv_from()
            assert (data, address) == (b"connected", paths[1])
            await one.send_to(b"answer", address)
            assert await two.recv() == b"answer"
            await nameless.send_to(b"who?", paths[0])
            data, address = await one.recv_from()
            assert (data, address) == (b"who?", "")
            assert isinstance(address, UnixAddress)
            assert address.unnamed

    scheduler.run(main)


def test_unix_socket_that_nobody_has_is_replaced(scheduler: Scheduler, tmp_path: Path) -> None:
    """A path left behind is taken over; one that is in use, and another file, are not."""
    path = tmp_path / "socket"
    other = tmp_path / "file"
    other.write_text("content")

    async def main() -> None:
        for _ in range(2):
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as dead:
                dead.bind(str(path))
            async with await open_unix_datagram(path):
                for taken in (path, other):
                    with pytest.raises(OpError) as caught:
                        await open_unix_datagram(taken)
                    assert caught.value.errno == errno.EADDRINUSE
            assert not path.exists()
        assert other.read_text() == "content"
        async with await open_unix_datagram(path):
            path.unlink()
            path.write_text("content")
        assert path.read_text() == "content"

    scheduler.run(main)


def test_a_full_unix_socket_makes_senders_wait(scheduler: Scheduler, tmp_path: Path) -> None:
    """A send waits for the receiver, and none of the datagrams is lost."""
    path = tmp_path / "socket"

    async def main() -> None:
        async with (
            await open_unix_datagram(path) as far,
            await open_unix_datagram(None, path) as near,
        ):

            async def send_all() -> None:
                for n in range(500):
                    await near.send(b"%d" % n)

            sender = scheduler.spawn(send_all)
            await scheduler.checkpoint()
            assert not sender.ended
            assert [await far.recv() for _ in range(500)] == [b"%d" % n for n in range(500)]
            await sender.result()

    scheduler.run(main)


@pytest.mark.parametrize("connected", [True, False])
def test_what_waits_for_room_at_a_unix_socket_is_whole(
    scheduler: Scheduler, tmp_path: Path, connected: bool
) -> None:
    """
    A datagram that finds its receiver's queue full arrives with its payload when there is room; one
    that is cancelled meanwhile does not arrive, nor one whose socket is closed.

    Left to wait by itself, io_uring would send an empty one: see `uringio._driver.uring_datagrams`.
    """
    path = tmp_path / "socket"

    async def main() -> None:
        peer = path if connected else None
        async with (
            await open_unix_datagram(path) as far,
            await open_unix_datagram(None, peer) as near,
            await open_unix_datagram(None, peer) as closed,
        ):

            async def send(by: DatagramSocket, data: bytes) -> int:
                if connected:
                    return await by.send(data)
                return await by.send_to(data, path)

            for _ in range(3):
                expected = fill_queue(path)
                waiting = scheduler.spawn(send, near, b"waits")
                cancelled = scheduler.spawn(send, near, b"cancelled")
                early = scheduler.spawn(send, near, b"cancelled before it was submitted")
                await scheduler.checkpoint()
                early.cancel()
                for _ in range(20):
                    await scheduler.checkpoint()
                cancelled.cancel()
                await cancelled.wait()
                assert cancelled.cancelled
                assert (await early.wait()).cancelled
                assert not waiting.ended
                assert await far.recv() == expected.pop(0)
                assert await waiting.result() == 5
                assert [await far.recv() for _ in expected] == expected
                assert await far.recv() == b"waits"
            expected = fill_queue(path)
            ending = scheduler.spawn(send, closed, b"closed")
            for _ in range(5):
                await scheduler.checkpoint()
            await closed.aclose()
            assert isinstance((await ending.wait()).error, ClosedError)
            assert [await far.recv() for _ in expected] == expected
            await near.send_to(b"last", path)
            assert await far.recv() == b"last"

    scheduler.run(main)


def test_waiting_for_room_at_a_unix_socket_that_goes_away(
    scheduler: Scheduler, tmp_path: Path
) -> None:
    """Who waits for room at a receiver that is closed gets ECONNREFUSED."""
    path = tmp_path / "socket"

    async def main() -> None:
        far = await open_unix_datagram(path)
        async with await open_unix_datagram(None, path) as near:

            async def send() -> int:
                return await near.send(b"late")

            fill_queue(path)
            waiting = scheduler.spawn(send)
            for _ in range(5):
                await scheduler.checkpoint()
            assert not waiting.ended
            await far.aclose()
            error = (await waiting.wait()).error
            assert isinstance(error, ConnectionRefusedError)

    scheduler.run(main)


# --- cancelling, closing, misuse -----------------------------------------------------------------


def test_no_datagram_is_lost_to_cancelled_receives(scheduler: Scheduler) -> None:
    """Wherever the cancellation strikes, what had arrived is the next call's, with its address."""

    async def main() -> None:
        async with pair() as (near, far):
            received: list[tuple[bytes, object]] = []
            for n in range(60):
                receiving = scheduler.spawn(receive_from, far)
                for _ in range(n % 3):
                    await scheduler.checkpoint()
                await near.send(b"%d" % n)
                for _ in range(n % 2):
                    await scheduler.checkpoint()
                receiving.cancel()
                await receiving.wait()
                if not receiving.cancelled:
                    received.append(await receiving.result())
            while len(received) < 60:
                received.append(await far.recv_from())
            assert received == [(b"%d" % n, near.local_address) for n in range(60)]

    scheduler.run(main)


async def receive_from(sock: DatagramSocket) -> tuple[bytes, object]:
    return await sock.recv_from()


def test_empty_datagrams_count(scheduler: Scheduler) -> None:
    """They are no end, and cancelled receives lose none of them."""

    async def main() -> None:
        async with pair() as (near, far):
            count = 0
            for n in range(40):
                receiving = scheduler.spawn(receive_from, far)
                for _ in range(n % 3):
                    await scheduler.checkpoint()
                assert await near.send(b"") == 0
                for _ in range(n % 2):
                    await scheduler.checkpoint()
                receiving.cancel()
                await receiving.wait()
                count += not receiving.cancelled
            while count < 40:
                assert await far.recv() == b""
                count += 1
            await near.send(b"last")
            assert await far.recv() == b"last"

    scheduler.run(main)


@needs_pending_errors
def test_a_refusal_that_came_with_the_cancellation_is_kept(scheduler: Scheduler) -> None:
    """The kernel tells of it once; whoever receives next hears of it, and the socket goes on."""

    async def main() -> None:
        async with await open_udp(LOOPBACK) as gone:
            nowhere = gone.local_address
        async with (
            await open_udp(LOOPBACK, nowhere) as near,
            await open_udp(LOOPBACK) as bell,
            await open_udp(LOOPBACK, bell.local_address) as ringer,
        ):
            for _ in range(10):

                async def cancel() -> None:
                    await bell.recv()
                    receiving.cancel()

                cancelling = scheduler.spawn(cancel)
                receiving = scheduler.spawn(receive_from, near)
                await scheduler.checkpoint()
                plain = socket.socket(fileno=os.dup(ringer.fileno()))
                with plain, socket.socket(fileno=os.dup(near.fileno())) as dead:
                    plain.send(b"!")
                    dead.send(b"?")
                await cancelling.result()
                await receiving.wait()
                if receiving.cancelled:
                    with pytest.raises(ConnectionRefusedError):
                        await near.recv()
                else:
                    assert isinstance(receiving.error, ConnectionRefusedError)
            async with await open_udp(nowhere) as far:
                await near.send(b"now")
                assert await far.recv() == b"now"

    scheduler.run(main)


def test_options_by_number(scheduler: Scheduler) -> None:
    """A multicast group is joined after the socket was made; its datagrams arrive."""
    group, everywhere = "239.255.77.7", "127.0.0.1"
    membership = socket.inet_aton(group) + socket.inet_aton(everywhere)

    async def main() -> None:
        async with await open_udp((group, 0)) as far, await open_udp(LOOPBACK) as near:
            far.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, membership)
            near.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(everywhere))
            near.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, 0)
            assert near.getsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL) == 0
            await near.send_to(b"to all", far.local_address)
            assert await far.recv_from() == (b"to all", near.local_address)
            with pytest.raises(OpError) as caught:
                far.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, membership)
            assert caught.value.errno == errno.EADDRINUSE

    scheduler.run(main)


def test_one_reader_at_a_time(scheduler: Scheduler) -> None:
    """A second concurrent receive is refused, of whichever kind, and the first goes on."""

    async def main() -> None:
        async with pair() as (near, far):
            receiving = scheduler.spawn(receive, far)
            await scheduler.checkpoint()
            for call in (far.recv, far.recv_from, far.recvmsg):
                with pytest.raises(BusyError):
                    call()
            with pytest.raises(BusyError):
                far.recvmsg_into([bytearray(3)])
            await near.send(b"x")
            assert await receiving.result() == b"x"

    scheduler.run(main)


def test_a_receive_that_was_not_started_is_superseded(scheduler: Scheduler) -> None:
    """Of two calls without an await between, the second one counts, and the first says so."""

    async def main() -> None:
        async with pair() as (near, far):
            await near.send(b"x")
            first = far.recv()
            second = far.recv_from()
            assert (await second).data == b"x"
            with pytest.raises(BusyError):
                await first

    scheduler.run(main)


def test_closing_ends_what_is_under_way(scheduler: Scheduler, tmp_path: Path) -> None:
    """A receiver and a sender that wait get `ClosedError`, and so does every later call."""
    path = tmp_path / "socket"

    async def main() -> None:
        async with await open_unix_datagram(path) as far:
            near = await open_unix_datagram(None, path)

            async def send_for_ever() -> None:
                while True:
                    await near.send(b"x")

            sender = scheduler.spawn(send_for_ever)
            receiver = scheduler.spawn(receive, near)
            await scheduler.checkpoint()
            await scheduler.checkpoint()
            await near.aclose()
            for task in (sender, receiver):
                await task.wait()
                assert isinstance(task.error, ClosedError)
            for call in (near.recv, near.recv_from, near.recvmsg):
                with pytest.raises(ClosedError):
                    call()
            with pytest.raises(ClosedError):
                near.send(b"x")
            await near.aclose()
            assert await far.recv() == b"x"

    scheduler.run(main)


def test_bad_input_is_refused_before_anything_happens(scheduler: Scheduler) -> None:
    """Types, sizes and addresses that cannot be meant never reach the kernel."""

    async def main() -> None:
        async with pair() as (near, far):
            for size in (0, -1, 1 << 40):
                with pytest.raises(ValueError, match="max_bytes"):
                    near.recv(size)
            with pytest.raises(TypeError):
                near.recv(1.5)  # type: ignore[arg-type]
            with pytest.raises(TypeError):
                near.send("text")  # type: ignore[arg-type]
            with pytest.raises(ValueError, match="numeric"):
                near.send_to(b"x", ("localhost", 1))
            with pytest.raises(ValueError, match="IPv4"):
                near.send_to(b"x", ("::1", 1, 0, 0))
            with pytest.raises(ValueError, match="port"):
                near.send_to(b"x", ("127.0.0.1", 65536))
            with pytest.raises(ValueError, match="segment"):
                near.send(b"x", segment_bytes=65536)
            with pytest.raises(ValueError, match="families"):
                await open_udp(("127.0.0.1", 0), ("::1", 1))
            with pytest.raises(ValueError, match="port"):
                await open_udp(("127.0.0.1", -1))
            with pytest.raises(ValueError, match="empty"):
                await open_unix_datagram("")
            await near.send(b"still fine")
            assert await far.recv() == b"still fine"

    scheduler.run(main)


def test_needs_a_loop() -> None:
    """Outside of a loop there is a clear error."""
    coroutine = open_udp(LOOPBACK)
    with pytest.raises(uringio.UsageError, match=r"uringio\.run"):
        coroutine.send(None)
