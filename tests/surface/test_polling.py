"""Readiness of any descriptor, socket options on live sockets, and resolving."""

import errno
import os
import pty
import socket
from pathlib import Path

import pytest

import uringio
from tests.surface.pairs import connected
from tests.surface.schedulers import Scheduler
from uringio._sys.system import System
from uringio.errors import ClosedError, OpError, UsageError
from uringio.net import (
    DatagramSocket,
    Inet4Address,
    Inet6Address,
    PollEvents,
    SocketStream,
    open_udp,
    poll,
    resolve,
    wait_readable,
    wait_writable,
)
from uringio.net.options import (
    IP_TTL,
    SO_BROADCAST,
    SO_DOMAIN,
    SO_ERROR,
    SO_KEEPALIVE,
    SO_LINGER,
    SO_REUSEPORT,
    SO_SNDBUF,
    SO_TYPE,
    TCP_CONGESTION,
    TCP_NODELAY,
)

# --- polling -------------------------------------------------------------------------------------


def test_pipes_become_readable_and_writable(scheduler: Scheduler) -> None:
    """A waiter is resumed by what others write and read, and nothing is taken."""

    async def main() -> None:
        read_end, write_end = os.pipe()
        os.set_blocking(write_end, False)
        try:
            assert await poll(write_end, PollEvents.OUT) == PollEvents.OUT
            waiting = scheduler.spawn(readable, read_end)
            await scheduler.checkpoint()
            assert not waiting.ended
            os.write(write_end, b"x")
            await waiting.result()
            assert os.read(read_end, 10) == b"x"
            try:
                while True:
                    os.write(write_end, bytes(4096))
            except BlockingIOError:
                pass
            writing = scheduler.spawn(writable, write_end)
            await scheduler.checkpoint()
            assert not writing.ended
            os.read(read_end, 65536)
            await writing.result()
        finally:
            os.close(read_end)
            os.close(write_end)

    scheduler.run(main)


async def readable(fd: int) -> None:
    await wait_readable(fd)


async def writable(fd: int) -> None:
    await wait_writable(fd)


def test_poll_tells_which(scheduler: Scheduler) -> None:
    """Of several events it tells those that hold, an end or error unasked."""

    async def main() -> None:
        near, far = socket.socketpair()
        with near, far:
            both = PollEvents.IN | PollEvents.OUT
            assert await poll(near, both) == PollEvents.OUT
            far.send(b"x")
            assert await poll(near, both) == both
            far.shutdown(socket.SHUT_WR)
            assert await poll(near, PollEvents.RDHUP) == PollEvents.RDHUP
            far.close()
            assert PollEvents.HUP in await poll(near, PollEvents.IN)
            read_end, write_end = os.pipe()
            os.close(read_end)
            assert PollEvents.ERR in await poll(write_end, PollEvents.OUT)
            os.close(write_end)

    scheduler.run(main)


def test_poll_leaves_the_mode_alone(scheduler: Scheduler) -> None:
    """A descriptor of others stays blocking, or not, as it was."""

    async def main() -> None:
        near, far = socket.socketpair()
        with near, far:
            far.setblocking(False)
            await wait_writable(near)
            await wait_writable(far)
            assert (near.getblocking(), far.getblocking()) == (True, False)
            assert os.get_blocking(near.fileno())

    scheduler.run(main)


def test_any_kind_of_descriptor(scheduler: Scheduler, tmp_path: Path) -> None:
    """Files are always ready; terminals, and our own streams and listeners, can be polled too."""

    async def main() -> None:
        with (tmp_path / "file").open("w+b") as file:
            assert await poll(file, PollEvents.IN | PollEvents.OUT) == 5
        parent, child = pty.openpty()
        os.write(child, b"x")
        await wait_readable(parent)
        os.close(parent)
        os.close(child)
        async with await uringio.listen_tcp("127.0.0.1", 0) as listener:
            address = listener.local_address
            near = await uringio.connect_tcp(str(address[0]), int(address[1]))
            await wait_readable(listener)
            far = await listener.accept()
            async with near, far:
                await wait_writable(near)
                waiting = scheduler.spawn(stream_readable, far)
                await scheduler.checkpoint()
                await near.send_all(b"x")
                await waiting.result()
                assert await far.recv() == b"x"

    scheduler.run(main)


async def stream_readable(stream: uringio.SocketStream) -> None:
    await wait_readable(stream)


def test_closing_a_stream_ends_polls_on_it(scheduler: Scheduler) -> None:
    """Whoever polls a stream that another task closes gets `ClosedError`."""

    async def main() -> None:
        async with connected() as (near, far):
            waiting = [scheduler.spawn(stream_readable, far) for _ in range(2)]
            await scheduler.checkpoint()
            unstarted = wait_readable(far)
            await far.aclose()
            for one in waiting:
                await one.wait()
                assert isinstance(one.error, ClosedError)
            with pytest.raises(ClosedError):
                await unstarted
            with pytest.raises(ClosedError):
                wait_readable(far)
            await wait_readable(near)

    scheduler.run(main)


@pytest.mark.parametrize("kind", ["stream", "datagrams"])
def test_what_a_cancelled_receive_has_left_is_readable(scheduler: Scheduler, kind: str) -> None:
    """The kernel has it no more, but a receive would not wait, and that is what is asked."""

    async def receive(sock: SocketStream | DatagramSocket) -> object:
        return await sock.recv()

    async def main() -> None:
        async with (
            connected() as (bell, ringer),
            connected() as (stream, other),
            await open_udp(("127.0.0.1", 0)) as datagrams,
            await open_udp(remote=datagrams.local_address) as sender,
        ):
            near = stream if kind == "stream" else datagrams
            far = other if kind == "stream" else sender
            kept = 0
            for _ in range(10):

                async def cancel() -> None:
                    await bell.recv()
                    receiving.cancel()

                # Both are ended in one turn, and the first to run cancels the other.
                cancelling = scheduler.spawn(cancel)
                receiving = scheduler.spawn(receive, near)
                await scheduler.checkpoint()
                for fd in (ringer.fileno(), far.fileno()):
                    os.write(fd, b"!")
                await cancelling.result()
                await receiving.wait()
                if receiving.cancelled:
                    kept += 1
                    await wait_readable(near)
                    assert await poll(near, PollEvents.IN | PollEvents.OUT) & PollEvents.IN
                    assert await near.recv() == b"!"
            assert kept, "no cancellation came when there was something to keep"

    scheduler.run(main)


def test_many_poll_one_descriptor_and_one_gives_up(scheduler: Scheduler) -> None:
    """Cancelling one waiter leaves the others waiting, and takes nothing along."""

    async def main() -> None:
        read_end, write_end = os.pipe()
        waiting = [scheduler.spawn(readable, read_end) for _ in range(3)]
        await scheduler.checkpoint()
        waiting[1].cancel()
        await waiting[1].wait()
        assert waiting[1].cancelled
        assert not waiting[0].ended
        os.write(write_end, b"x")
        await waiting[0].result()
        await waiting[2].result()
        os.close(read_end)
        os.close(write_end)

    scheduler.run(main)


def test_a_number_that_is_given_anew(scheduler: Scheduler) -> None:
    """Descriptors closed and opened by others under one number are polled as what they are."""

    async def main() -> None:
        numbers = set()
        for _ in range(5):
            read_end, write_end = os.pipe()
            numbers.add(read_end)
            waiting = scheduler.spawn(readable, read_end)
            await scheduler.checkpoint()
            os.write(write_end, b"x")
            await waiting.result()
            os.close(read_end)
            os.close(write_end)
        assert len(numbers) == 1

    scheduler.run(main)


def test_bad_polls_are_refused(scheduler: Scheduler) -> None:
    """No event, an unknown one, no descriptor, a closed one."""

    async def main() -> None:
        for events in (0, PollEvents.HUP, PollEvents.IN | 0x10000):
            with pytest.raises(ValueError, match="waits for"):
                poll(0, events)
        with pytest.raises(TypeError):
            poll("0", PollEvents.IN)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="from 0 up"):
            wait_readable(-1)
        with pytest.raises(OpError) as caught:
            await wait_readable(1_000_000)
        assert (caught.value.op, caught.value.fd) == ("poll", 1_000_000)
        with Path(__file__).open("rb") as file:
            assert await poll(file, PollEvents.IN | PollEvents.PRI) == PollEvents.IN
            with pytest.raises(OpError) as caught:  # a file is never exceptional: nothing to await
                await poll(file, PollEvents.PRI)
            assert caught.value.errno == errno.EINVAL

    scheduler.run(main)


# --- options -------------------------------------------------------------------------------------


def test_options_there_and_back(scheduler: Scheduler) -> None:
    """What is set is read again, in its own type, from streams, listeners and numbers."""

    async def main() -> None:
        async with connected() as (near, far):
            assert TCP_NODELAY.get(near) is True
            TCP_NODELAY.set(near, False)
            assert TCP_NODELAY.get(near) is False
            assert SO_LINGER.get(near) is None
            SO_LINGER.set(near, 7)
            assert SO_LINGER.get(near.fileno()) == 7
            SO_LINGER.set(near, None)
            assert SO_LINGER.get(near) is None
            SO_SNDBUF.set(far, 100_000)
            assert SO_SNDBUF.get(far) == 200_000  # the kernel doubles it, for its own needs
            assert SO_ERROR.get(near) == 0
            assert (SO_TYPE.get(near), SO_DOMAIN.get(near)) == (
                socket.SOCK_STREAM,
                socket.AF_INET,
            )
            name = TCP_CONGESTION.get(near)
            assert name.isidentifier()
            TCP_CONGESTION.set(near, name)
            IP_TTL.set(near, 9)
            assert IP_TTL.get(near) == 9
            with pytest.raises(UsageError):
                SO_TYPE.set(near, 1)
            with pytest.raises(OpError):
                IP_TTL.set(near, 1000)
        async with await uringio.open_udp() as sock:
            assert SO_BROADCAST.get(sock) is False
            with pytest.raises(OpError):
                TCP_NODELAY.get(sock)

    scheduler.run(main)


def test_options_of_new_sockets(scheduler: Scheduler) -> None:
    """Options given to the functions that make sockets are set before binding and connecting."""

    async def main() -> None:
        options = [SO_REUSEPORT.to(True), SO_KEEPALIVE.to(True)]
        async with await uringio.listen_tcp("127.0.0.1", 0, options=options) as one:
            port = int(one.local_address[1])
            async with await uringio.listen_tcp("127.0.0.1", port, reuse_port=True) as two:
                assert SO_REUSEPORT.get(two)
                assert SO_KEEPALIVE.get(one)
            option = SO_KEEPALIVE.to(True)
            async with await uringio.connect_tcp("127.0.0.1", port, options=[option]) as near:
                assert SO_KEEPALIVE.get(near)

    scheduler.run(main)


# --- resolving -----------------------------------------------------------------------------------


def test_numeric_hosts_need_no_resolver(
    scheduler: Scheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They come back typed, without a question to anybody."""
    monkeypatch.setattr(System, "getaddrinfo", None)

    async def main() -> None:
        assert await resolve("127.0.0.1", 80) == [Inet4Address("127.0.0.1", 80)]
        assert await resolve("::1", 80) == [Inet6Address("::1", 80)]
        with pytest.raises(ValueError, match="port"):
            await resolve("127.0.0.1", 65536)

    scheduler.run(main)


def test_names_that_cannot_be(scheduler: Scheduler, monkeypatch: pytest.MonkeyPatch) -> None:
    """A NUL would end the name for the C library: no resolver is asked for another one."""
    monkeypatch.setattr(System, "getaddrinfo", None)

    async def main() -> None:
        for host in ("localhost\0.example.org", "127.0.0.1\0", "\0"):
            with pytest.raises(ValueError, match="NUL"):
                await resolve(host, 80)
            with pytest.raises(ValueError, match="NUL"):
                await uringio.connect_tcp(host, 80)

    scheduler.run(main)


def test_a_failure_to_resolve_names_the_host(
    scheduler: Scheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It stays the standard library's exception, and says which name it was."""

    def fail(*_: object) -> object:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(System, "getaddrinfo", fail)

    async def main() -> None:
        with pytest.raises(socket.gaierror) as caught:
            await resolve("some.invalid", 80)
        assert caught.value.errno == socket.EAI_NONAME
        assert caught.value.__notes__ == ["while resolving 'some.invalid'"]

    scheduler.run(main)


def test_names_are_resolved_typed(scheduler: Scheduler, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the resolver's order, each address once."""

    def found(_self: object, host: str, port: int, kind: int) -> list[object]:
        assert host == "some.invalid"
        return [
            (socket.AF_INET6, kind, 6, ("::2", port, 0, 3)),
            (socket.AF_INET, kind, 6, ("127.0.0.2", port)),
            (socket.AF_INET, kind, 17, ("127.0.0.2", port)),
        ]

    monkeypatch.setattr(System, "getaddrinfo", found)

    async def main() -> None:
        addresses = await resolve("some.invalid", 80)
        assert addresses == [Inet6Address("::2", 80, 0, 3), Inet4Address("127.0.0.2", 80)]
        assert [type(one) for one in addresses] == [Inet6Address, Inet4Address]

    scheduler.run(main)


def test_localhost_resolves(scheduler: Scheduler) -> None:
    """The machine's own resolver is asked, in earnest."""

    async def main() -> None:
        addresses = await resolve("localhost", 80)
        assert {one.host for one in addresses} & {"127.0.0.1", "::1"}

    scheduler.run(main)
