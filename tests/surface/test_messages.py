"""Messages with ancillary data: scatter and gather, descriptors between processes, credentials."""

import array
import errno
import gc
import os
import socket
import subprocess
import sys
import warnings
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

import uringio
from tests.leaks import fd_count
from tests.surface.pairs import connected, fill_queue
from tests.surface.schedulers import Scheduler, with_tests
from uringio.errors import BusyError, ClosedError, OpError
from uringio.net import (
    Ancillary,
    Credentials,
    Message,
    SocketStream,
    connect_unix,
    listen_unix,
    open_unix_datagram,
)
from uringio.net.options import SO_PASSCRED, SO_PASSPIDFD, SO_PEERCRED

IP_RECVTTL = 12  # which the socket module of older Pythons lacks

ME = Credentials(os.getpid(), os.getuid(), os.getgid())


@asynccontextmanager
async def unix_pair(tmp_path: Path) -> AsyncIterator[tuple[SocketStream, SocketStream]]:
    """Yield the two ends of a Unix connection."""
    async with await listen_unix(tmp_path / "socket") as listener:
        near = await connect_unix(tmp_path / "socket")
        far = await listener.accept()
    async with near, far:
        yield near, far


# --- scatter and gather --------------------------------------------------------------------------


def test_pieces_are_gathered_and_scattered(scheduler: Scheduler) -> None:
    """Bytes-like objects of every kind leave in one call, and arrive spread over several."""

    async def main() -> None:
        async with connected() as (near, far):
            sent = await near.sendmsg([b"ab", bytearray(b"cde"), memoryview(b"..fg")[2:], b""])
            assert sent == 7
            head, tail = bytearray(3), bytearray(b"......")
            message = await far.recvmsg_into([head, memoryview(tail)])
            assert (message.count, message.data) == (7, b"")
            assert (head, tail) == (b"abc", b"defg..")
            assert await near.sendmsg(b"whole") == 5
            message = await far.recvmsg()
            assert (message.data, message.count, message.address) == (b"whole", 5, None)
            assert (message.fds, message.credentials, message.ancillary) == ([], None, [])
            await near.send_eof()
            assert (await far.recvmsg()).data == b""
            assert (await far.recvmsg_into([head])).count == 0

    scheduler.run(main)


def test_scattered_datagrams(scheduler: Scheduler, tmp_path: Path) -> None:
    """A datagram is gathered and scattered alike, its address told, and its rest lost."""

    async def main() -> None:
        async with (
            await open_unix_datagram(tmp_path / "far") as far,
            await open_unix_datagram(tmp_path / "near", tmp_path / "far") as near,
        ):
            await near.sendmsg([b"ab", b"cd", b"ef"])
            await near.sendmsg([b"gh", b"ij"], str(tmp_path / "far"))
            pieces = [bytearray(1), bytearray(3)]
            message = await far.recvmsg_into(pieces)
            assert (message.count, message.truncated) == (4, True)
            assert pieces == [b"a", b"bcd"]
            assert message.address == str(tmp_path / "near")
            assert (await far.recvmsg()).data == b"ghij"

    scheduler.run(main)


def test_messages_and_plain_calls_share_a_stream(scheduler: Scheduler) -> None:
    """They may follow each other in any order, and no byte is lost between them."""

    async def main() -> None:
        async with connected() as (near, far):
            for _ in range(3):
                await near.send_all(b"one")
                await near.sendmsg(b"two")
                assert await far.recv_exactly(4) == b"onet"
                assert (await far.recvmsg(1)).data == b"w"
                assert await far.recv() == b"o"

    scheduler.run(main)


def test_one_reader_and_one_writer_at_a_time(scheduler: Scheduler, tmp_path: Path) -> None:
    """Messages and plain calls count as the same reader, and the same writer."""

    async def main() -> None:
        async with unix_pair(tmp_path) as (near, far):

            async def fill() -> None:
                while True:
                    await near.sendmsg(bytes(100_000))

            async def read() -> bytes:
                return (await near.recvmsg()).data

            filling, reading = scheduler.spawn(fill), scheduler.spawn(read)
            await scheduler.checkpoint()
            await scheduler.checkpoint()
            for call in (near.recv, near.recvmsg):
                with pytest.raises(BusyError):
                    call()
            with pytest.raises(BusyError):
                near.recvmsg_into([bytearray(1)])
            for send in (near.send_all, near.sendmsg):
                with pytest.raises(BusyError):
                    send(b"x")  # type: ignore[operator]
            with pytest.raises(BusyError):
                near.send_eof()
            filling.cancel()
            await filling.wait()
            assert filling.cancelled
            await far.send_all(b"answer")
            assert await reading.result() == b"answer"
            assert near.recv().__class__.__name__ == "Op"

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # the last op is dropped unawaited
        scheduler.run(main)


def test_bytes_of_a_cancelled_message_are_the_next_readers(
    scheduler: Scheduler, tmp_path: Path
) -> None:
    """Wherever the cancellation strikes, whatever call it was, the stream's bytes stay complete."""

    async def main() -> None:
        async with unix_pair(tmp_path) as (near, far):
            received = bytearray()

            async def read(n: int) -> None:
                if n % 3 == 0:
                    received.extend((await far.recvmsg()).data)
                elif n % 3 == 1:
                    piece = bytearray(10)
                    count = (await far.recvmsg_into([piece])).count
                    received.extend(piece[:count])
                else:
                    received.extend(await far.recv())

            for n in range(120):
                reading = scheduler.spawn(read, n)
                for _ in range(n % 2):
                    await scheduler.checkpoint()
                await near.sendmsg(bytes([n]), fds=[0])
                for _ in range(n // 2 % 2):
                    await scheduler.checkpoint()
                reading.cancel()
                await reading.wait()
            while len(received) < 120:
                piece = bytearray(3)
                received.extend(piece[: (await far.recvmsg_into([piece])).count])
            assert received == bytes(range(120))

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # messages are dropped with descriptors
        before = fd_count()
        scheduler.run(main)
        gc.collect()
        assert fd_count() == before


# --- descriptors ---------------------------------------------------------------------------------

RECEIVER = """
import os, sys
import uringio
from tests.surface import schedulers

name, backend, path = sys.argv[1:]

async def main():
    async with await uringio.connect_unix(path) as stream:
        message = await stream.recvmsg()
        assert message.data == b"here", message.data
        given, = message.fds
        with os.fdopen(given.take(), "rb") as file:
            content = file.read()
        read_end, write_end = os.pipe()
        os.write(write_end, content.upper())
        os.close(write_end)
        await stream.sendmsg(b"back", fds=[read_end])
        os.close(read_end)

schedulers.make(name, backend).run(main)
"""


def test_descriptors_pass_between_processes(scheduler: Scheduler, tmp_path: Path) -> None:
    """A file goes to another process, which reads it and passes a pipe back."""
    path = tmp_path / "socket"
    file = tmp_path / "file"
    file.write_bytes(b"content")

    async def main() -> None:
        async with await listen_unix(path) as listener:
            command = [sys.executable, "-W", "error", "-c", RECEIVER]
            with subprocess.Popen(
                [*command, scheduler.name, scheduler.backend, str(path)],
                env={**os.environ, **with_tests()},
            ) as child:
                try:
                    async with await listener.accept() as stream:
                        with file.open("rb") as opened:
                            assert await stream.sendmsg(b"here", fds=[opened]) == 4
                        message = await stream.recvmsg()
                        assert message.data == b"back"
                        [given] = message.fds
                        assert not os.get_inheritable(given.fileno())
                        assert os.read(given.number, 100) == b"CONTENT"
                        given.close()
                        assert (await stream.recvmsg()).data == b""
                    assert child.wait(50) == 0
                finally:
                    child.kill()

    scheduler.run(main)


def test_descriptors_pass_with_datagrams(scheduler: Scheduler, tmp_path: Path) -> None:
    """Several at once; a plain receive leaves them to the kernel, which closes them."""

    async def main() -> None:
        async with (
            await open_unix_datagram(tmp_path / "far") as far,
            await open_unix_datagram(None, tmp_path / "far") as near,
        ):
            read_end, write_end = os.pipe()
            before = fd_count()
            await near.sendmsg(b"", fds=[read_end, write_end])
            os.close(read_end)
            os.close(write_end)
            message = await far.recvmsg()
            assert message.data == b""
            reader, writer = message.fds
            os.write(writer.fileno(), b"through")
            assert os.read(reader.fileno(), 100) == b"through"
            message.close()
            message.close()
            assert reader.closed
            with pytest.raises(ClosedError):
                reader.fileno()
            await near.sendmsg(b"x", fds=[0, 1])
            datagram = await far.recv_from()
            assert datagram.data == b"x"
            assert fd_count() == before - 2

    scheduler.run(main)


def test_originals_may_be_closed_while_the_message_waits(
    scheduler: Scheduler, tmp_path: Path
) -> None:
    """What is passed is what the number named at the call, not when there was room to send."""
    (tmp_path / "right").write_bytes(b"right")
    (tmp_path / "wrong").write_bytes(b"wrong")

    async def main() -> None:
        async with (
            await open_unix_datagram(tmp_path / "far") as far,
            await open_unix_datagram(None, tmp_path / "far") as near,
        ):

            async def pass_on() -> None:
                fd = os.open(tmp_path / "right", os.O_RDONLY)
                op = near.sendmsg(b"here", fds=[fd])
                os.close(fd)
                again = os.open(tmp_path / "wrong", os.O_RDONLY)
                assert again == fd
                opened.append(again)
                await op

            opened: list[int] = []
            fillers = fill_queue(tmp_path / "far")
            passing = scheduler.spawn(pass_on)
            for _ in range(5):
                await scheduler.checkpoint()
            assert not passing.ended
            assert [await far.recv() for _ in fillers] == fillers
            message = await far.recvmsg()
            assert message.data == b"here"
            await passing.result()
            [given] = message.fds
            assert os.read(given.fileno(), 100) == b"right"
            given.close()
            os.close(opened[0])

    scheduler.run(main)


def test_descriptors_that_are_dropped_are_closed(scheduler: Scheduler, tmp_path: Path) -> None:
    """A message that nobody looks at closes what came with it, and warns."""

    async def main() -> None:
        async with unix_pair(tmp_path) as (near, far):
            before = fd_count()
            await near.sendmsg(b"x", fds=[0, 1, 2])
            message: Message | None = await far.recvmsg()
            assert message is not None
            assert len(message.fds) == 3
            assert fd_count() == before + 3
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                message = None
                gc.collect()
            assert [one.category for one in caught] == [ResourceWarning] * 3
            assert fd_count() == before

    scheduler.run(main)


def test_too_little_room_for_descriptors_is_told(scheduler: Scheduler, tmp_path: Path) -> None:
    """Those without room are closed by the kernel."""

    async def main() -> None:
        async with unix_pair(tmp_path) as (near, far):
            before = fd_count()
            await near.sendmsg(b"x", fds=[0, 1, 2])
            message = await far.recvmsg(ancillary_bytes=0)
            assert (message.data, message.fds, message.ancillary_truncated) == (b"x", [], True)
            assert fd_count() == before

    scheduler.run(main)


def test_the_most_descriptors(scheduler: Scheduler, tmp_path: Path) -> None:
    """253 pass at once, with the room there is by itself; more are refused before the kernel."""

    async def main() -> None:
        async with unix_pair(tmp_path) as (near, far):
            await near.sendmsg(b"x", fds=[0] * 253)
            message = await far.recvmsg()
            assert len(message.fds) == 253
            assert not message.ancillary_truncated
            message.close()
            with pytest.raises(ValueError, match="253"):
                near.sendmsg(b"x", fds=[0] * 254)

    scheduler.run(main)


def test_no_descriptor_leaks_to_cancelled_senders(scheduler: Scheduler, tmp_path: Path) -> None:
    """A message that never left, or was never awaited, closes its copies."""

    async def main() -> None:
        async with unix_pair(tmp_path) as (near, _far):
            before = fd_count()

            async def fill() -> None:
                while True:
                    await near.sendmsg(bytes(100_000))

            async def pass_on() -> None:
                await near.sendmsg(bytes(100), fds=[0, 1])

            filling = scheduler.spawn(fill)
            await scheduler.checkpoint()
            await scheduler.checkpoint()
            filling.cancel()
            await filling.wait()
            passing = scheduler.spawn(pass_on)
            await scheduler.checkpoint()
            assert not passing.ended
            passing.cancel()
            await passing.wait()
            assert passing.cancelled
            del passing, filling
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", RuntimeWarning)
                near.sendmsg(b"x", fds=[0])
                near.sendmsg(b"never")
            gc.collect()
            assert fd_count() == before

    scheduler.run(main)


# --- credentials and other items -----------------------------------------------------------------


def test_credentials(scheduler: Scheduler, tmp_path: Path) -> None:
    """With SO_PASSCRED each message says who sent it; without, none does."""

    async def main() -> None:
        async with unix_pair(tmp_path) as (near, far):
            assert SO_PEERCRED.get(far) == ME
            await near.sendmsg(b"unasked")
            assert (await far.recvmsg()).credentials is None
            SO_PASSCRED.set(far, True)
            await near.sendmsg(b"plain")
            assert (await far.recvmsg()).credentials == ME
            await near.sendmsg(b"explicit", credentials=ME, fds=[0])
            message = await far.recvmsg()
            assert (message.data, message.credentials) == (b"explicit", ME)
            assert len(message.fds) == 1
            message.close()

    scheduler.run(main)


def test_the_senders_process(scheduler: Scheduler, tmp_path: Path) -> None:
    """With SO_PASSPIDFD each message brings a descriptor, owned, closed on exec, never leaked."""

    async def main() -> None:
        async with unix_pair(tmp_path) as (near, far):
            try:
                SO_PASSPIDFD.set(far, True)
            except OpError as error:
                pytest.skip(f"SO_PASSPIDFD needs Linux 6.5: {error}")
            await near.sendmsg(b"x")
            message = await far.recvmsg()
            assert message.pidfd is not None
            assert (message.fds, message.ancillary) == ([], [])
            assert not os.get_inheritable(message.pidfd.number)
            link = Path(f"/proc/self/fdinfo/{message.pidfd.number}").read_text()
            assert f"Pid:\t{os.getpid()}" in link
            message.close()
            before = fd_count()
            for n in range(20):
                receiving = scheduler.spawn(received, far)
                for _ in range(n % 3):
                    await scheduler.checkpoint()
                await near.sendmsg(b"y")
                receiving.cancel()
                await receiving.wait()
                if receiving.cancelled:
                    assert await far.recv() == b"y"
                else:
                    (await receiving.result()).close()
            assert fd_count() == before

    scheduler.run(main)


async def received(stream: SocketStream) -> Message:
    return await stream.recvmsg()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may pretend to be somebody else")
def test_chosen_credentials(scheduler: Scheduler, tmp_path: Path) -> None:
    """What root says it is reaches the receiver."""
    somebody = ME._replace(uid=12345, gid=54321)

    async def main() -> None:
        async with unix_pair(tmp_path) as (near, far):
            SO_PASSCRED.set(far, True)
            await near.sendmsg(b"x", credentials=somebody)
            assert (await far.recvmsg()).credentials == somebody

    scheduler.run(main)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may pretend to be anybody")
def test_forged_credentials_are_refused(scheduler: Scheduler, tmp_path: Path) -> None:
    """The kernel does not pass on what is not true."""

    async def main() -> None:
        async with unix_pair(tmp_path) as (near, _far):
            with pytest.raises(PermissionError):
                await near.sendmsg(b"x", credentials=ME._replace(uid=0))

    scheduler.run(main)


def test_items_by_number(scheduler: Scheduler) -> None:
    """What has no name here goes and comes as numbers and bytes."""
    ttl = (7).to_bytes(4, sys.byteorder)

    async def main() -> None:
        async with (
            await uringio.open_udp(("127.0.0.1", 0)) as far,
            await uringio.open_udp(("127.0.0.1", 0)) as near,
        ):
            with socket.socket(fileno=os.dup(far.fileno())) as view:
                view.setsockopt(socket.IPPROTO_IP, IP_RECVTTL, 1)
            item = Ancillary(socket.IPPROTO_IP, socket.IP_TTL, ttl)
            await near.sendmsg(b"x", far.local_address, ancillary=[item])
            assert (await far.recvmsg()).ancillary == [item]

    scheduler.run(main)


# --- misuse --------------------------------------------------------------------------------------


def test_bad_input_is_refused_before_anything_happens(scheduler: Scheduler, tmp_path: Path) -> None:
    """Nothing is sent, and no copy of a descriptor is left."""

    async def main() -> None:
        async with unix_pair(tmp_path) as (near, far):
            before = fd_count()
            with pytest.raises(TypeError):
                near.sendmsg("text")  # type: ignore[arg-type]
            with pytest.raises(TypeError):
                near.sendmsg([b"x", 1])  # type: ignore[list-item]
            with pytest.raises(ValueError, match="1024"):
                near.sendmsg([b"x"] * 1025)
            with pytest.raises(ValueError, match="at least one byte"):
                near.sendmsg([b"", b""], fds=[0])
            with pytest.raises(TypeError):
                near.sendmsg(b"x", fds=["0"])  # type: ignore[list-item]
            with pytest.raises(ValueError, match="from 0 up"):
                near.sendmsg(b"x", fds=[0, -1])
            with pytest.raises(OpError) as caught:
                near.sendmsg(b"x", fds=[0, 1_000_000])
            assert caught.value.errno == errno.EBADF
            with pytest.raises(ValueError, match="credentials"):
                near.sendmsg(b"x", credentials=Credentials(-1, 0, 0))
            with pytest.raises(ValueError, match="max_bytes"):
                near.recvmsg(0)
            with pytest.raises(ValueError, match="ancillary"):
                near.recvmsg(ancillary_bytes=-1)
            with pytest.raises(TypeError):
                near.recvmsg_into([b"x"])  # type: ignore[list-item]
            with pytest.raises(TypeError, match="list"):
                near.recvmsg_into(bytearray(1))  # type: ignore[arg-type]
            with pytest.raises(ValueError, match="pieces"):
                near.recvmsg_into([])
            with pytest.raises(ValueError, match="room"):
                near.recvmsg_into([bytearray()])
            gc.collect()
            assert fd_count() == before
            await near.sendmsg(b"fine")
            assert await far.recv() == b"fine"

    scheduler.run(main)


def test_closed_streams_refuse_messages(scheduler: Scheduler, tmp_path: Path) -> None:
    """Before the call and during it."""

    async def main() -> None:
        async with unix_pair(tmp_path) as (near, far):

            async def read() -> None:
                await near.recvmsg()

            reading = scheduler.spawn(read)
            await scheduler.checkpoint()
            await near.aclose()
            await reading.wait()
            assert isinstance(reading.error, ClosedError)
            for call in (near.recvmsg, near.recv):
                with pytest.raises(ClosedError):
                    call()
            with pytest.raises(ClosedError):
                near.sendmsg(b"x")
            with pytest.raises(BrokenPipeError):
                await far.sendmsg(b"x")

    scheduler.run(main)


def test_a_descriptor_of_the_standard_library_arrives_whole(
    scheduler: Scheduler, tmp_path: Path
) -> None:
    """What another implementation sends is understood, two items in one message too."""

    async def main() -> None:
        async with await listen_unix(tmp_path / "socket") as listener:
            with socket.socket(socket.AF_UNIX) as plain:
                plain.connect(str(tmp_path / "socket"))
                async with await listener.accept() as stream:
                    rights = array.array("i", [0, 1])
                    plain.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
                    message = await stream.recvmsg()
                    assert len(message.fds) == 2
                    for ours, original in zip(message.fds, (0, 1), strict=True):
                        assert os.fstat(ours.fileno()) == os.fstat(original)
                    message.close()

    scheduler.run(main)


def test_what_only_unix_sockets_pass_is_refused_elsewhere(scheduler: Scheduler) -> None:
    """The kernel would send the byte and drop the descriptor, or the identity, without a word."""

    async def main() -> None:
        async with connected() as (near, far):
            for more in ({"fds": [0]}, {"credentials": ME}):
                with pytest.raises(ValueError, match="over Unix sockets only"):
                    near.sendmsg(b"x", **more)  # type: ignore[arg-type]
            await near.sendmsg(b"y")
            assert await far.recv() == b"y"

    scheduler.run(main)
