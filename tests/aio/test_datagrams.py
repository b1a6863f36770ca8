"""Datagram endpoints: UDP and Unix, what is sent, refused, paused, and how they end."""

import asyncio
import contextlib
import errno
import gc
import socket
import threading
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, cast

import pytest

from tests.aio.conftest import Run
from tests.aio.waiting import passes, until
from tests.leaks import holdings

Main = Callable[[Coroutine[object, object, Any]], Any]


class Mailbox(asyncio.DatagramProtocol):
    """Writes down what comes."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.mail: list[tuple[bytes, Any]] = []
        self.errors: list[Exception] = []
        self.end: Exception | None = None
        self.lost = asyncio.get_running_loop().create_future()
        self.transport: asyncio.DatagramTransport
        self._changed = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.calls.append("made")
        self.transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self.calls.append("datagram")
        self.mail.append((data, addr))
        self._changed.set()

    def error_received(self, exc: Exception) -> None:
        self.calls.append("error")
        self.errors.append(exc)
        self._changed.set()

    def pause_writing(self) -> None:
        self.calls.append("pause")

    def resume_writing(self) -> None:
        self.calls.append("resume")
        self._changed.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self.calls.append("lost")
        self.end = exc
        self.lost.set_result(None)

    async def until(self, condition: Callable[[], object]) -> None:
        while not condition():
            self._changed.clear()
            await self._changed.wait()


class Returner(Mailbox):
    """Sends back what it gets."""

    def datagram_received(self, data: bytes, addr: Any) -> None:
        super().datagram_received(data, addr)
        self.transport.sendto(data, addr)


async def opened(
    factory: type[Mailbox] = Mailbox, *addresses: Any, **terms: Any
) -> tuple[Any, Mailbox]:
    loop = asyncio.get_running_loop()
    return await loop.create_datagram_endpoint(factory, *addresses, **terms)


async def closed(*boxes: Mailbox) -> None:
    for box in boxes:
        box.transport.close()
    for box in boxes:
        await box.lost


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_udp_there_and_back(run: Run[None], host: str) -> None:
    """
    Datagrams, also an empty one, come whole and one by one, with their sender's address; the answer
    reaches a connected socket.
    """

    async def main() -> None:
        transport, server = await opened(Returner, (host, 0))
        where = transport.get_extra_info("sockname")
        assert where[0] == host
        assert transport.get_extra_info("peername") is None
        to_server, client = await opened(Mailbox, None, where[:2])
        assert to_server.get_extra_info("peername") == where
        own = to_server.get_extra_info("sockname")
        for data in (b"one", b"", bytearray(b"three"), memoryview(b"four")):
            to_server.sendto(data)
        to_server.sendto(b"x" * 60_000, where)  # the address that it has anyway
        await client.until(lambda: len(client.mail) == 5)
        expected = [b"one", b"", b"three", b"four", b"x" * 60_000]
        assert [data for data, _ in client.mail] == expected
        assert server.mail == [(data, own) for data in expected]
        assert {addr for _, addr in client.mail} == {where}
        await closed(client, server)
        assert client.calls == ["made", *["datagram"] * 5, "lost"]
        assert client.end is None

    run(main())


def test_unix_datagrams_and_names(run: Run[None], tmp_path: Path) -> None:
    """
    Unix datagrams find their path; a sender without a name is None, one with a name can be
    answered; the file of a socket that has gone is replaced, a bound one is not.
    """

    async def main() -> None:
        path, other = str(tmp_path / "a"), str(tmp_path / "b")
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as gone:
            gone.bind(path)
        transport, server = await opened(Returner, path, family=socket.AF_UNIX)
        assert transport.get_extra_info("sockname") == path
        with pytest.raises(OSError, match="in use"):
            await opened(Mailbox, path, family=socket.AF_UNIX)
        to_server, client = await opened(Mailbox, other, path, family=socket.AF_UNIX)
        to_server.sendto(b"named" * 20_000)  # longer than any of UDP
        await client.until(lambda: client.mail)
        assert client.mail == [(b"named" * 20_000, path)]
        assert server.mail == [(b"named" * 20_000, other)]

        class Deaf(Mailbox):
            def error_received(self, exc: Exception) -> None:
                raise AssertionError(exc)

        nameless, quiet = await opened(Deaf, None, None, family=socket.AF_UNIX)
        server.__class__ = Mailbox  # nobody to answer
        nameless.sendto(b"who", path)
        await server.until(lambda: len(server.mail) == 2)
        assert server.mail[1] == (b"who", None)
        await closed(client, server, quiet)

    run(main())


def test_wrong_arguments_are_refused(run: Run[None], tmp_path: Path) -> None:
    """What contradicts itself is a ValueError or TypeError, and leaves no descriptor behind."""

    async def main() -> None:
        transport, box = await opened(Mailbox, ("127.0.0.1", 0))
        where = transport.get_extra_info("sockname")
        _, client = await opened(Mailbox, None, where)
        before = holdings().fds
        with pytest.raises(ValueError, match="family"):
            await opened()
        with pytest.raises(TypeError, match="2-tuple"):
            await opened(Mailbox, "127.0.0.1")
        with pytest.raises(TypeError, match="string"):
            await opened(Mailbox, ("127.0.0.1", 1), family=socket.AF_UNIX)
        with pytest.raises(ValueError, match="address information"):
            await opened(Mailbox, ("127.0.0.1", 0), ("::1", 1))
        with pytest.raises(ValueError, match="reuse_address"):
            await opened(Mailbox, ("127.0.0.1", 0), reuse_address=True)
        with pytest.raises(OSError, match="in use"):
            await opened(Mailbox, where)
        with socket.socket() as stream, pytest.raises(ValueError, match=r"datagram|UDP"):
            await opened(Mailbox, sock=stream)
        with (
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as good,
            pytest.raises(ValueError, match="sock"),
        ):
            await opened(Mailbox, where, sock=good)

        def fail() -> Mailbox:
            raise LookupError("no protocol")

        with pytest.raises(LookupError):
            await opened(cast("Any", fail), ("127.0.0.1", 0))
        with pytest.raises(TypeError, match="str"):
            transport.sendto("text", where)
        with pytest.raises(ValueError, match="Invalid address"):
            client.transport.sendto(b"x", ("127.0.0.1", 1))
        with pytest.raises(ValueError, match="port"):
            transport.sendto(b"x", ("127.0.0.1", 70_000))
        assert holdings().fds == before
        await closed(box, client)

    run(main())


def test_errors_are_told_and_end_nothing(run: Run[None]) -> None:
    """
    A refused connection, a datagram too long and one without an address are told by error_received;
    afterwards the socket goes on as before.
    """

    async def main() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as place:
            place.bind(("127.0.0.1", 0))
            transport, box = await opened(Mailbox, ("127.0.0.1", 0), place.getsockname())
            transport.sendto(b"heard")
            assert place.recv(10) == b"heard"
            transport.sendto(b"x" * 70_000)
            assert cast("OSError", box.errors[0]).errno == errno.EMSGSIZE
            place_address = place.getsockname()
        transport.sendto(b"nobody")
        await box.until(lambda: len(box.errors) == 2)
        assert isinstance(box.errors[1], ConnectionRefusedError)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as place:
            place.bind(place_address)
            place.sendto(b"again", transport.get_extra_info("sockname"))
            await box.until(lambda: box.mail)
        assert box.mail == [(b"again", place_address)]
        loose, other = await opened(Mailbox, ("127.0.0.1", 0))
        loose.sendto(b"where to?")
        assert cast("OSError", other.errors[0]).errno == errno.EDESTADDRREQ
        await closed(box, other)
        assert box.end is other.end is None

    run(main())


def test_bursts_and_errors_among_them(run: Run[None]) -> None:
    """
    Of a burst every datagram comes, in order, from both of two senders; a refusal among them is
    told once, and nothing behind it is lost.
    """

    async def main() -> None:
        transport, box = await opened(Mailbox, ("127.0.0.1", 0))
        where = transport.get_extra_info("sockname")
        with (
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one,
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other,
        ):
            one.bind(("127.0.0.1", 0))
            other.bind(("127.0.0.1", 0))
            for number in range(100):
                (one, other)[number % 3 == 0].sendto(b"%d" % number, where)
            await box.until(lambda: len(box.mail) == 100)
            names = one.getsockname(), other.getsockname()
        assert box.mail == [(b"%d" % n, names[n % 3 == 0]) for n in range(100)]
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
            peer.bind(("127.0.0.1", 0))
            place = peer.getsockname()
            to_peer, second = await opened(Mailbox, None, place)
            own = to_peer.get_extra_info("sockname")
            peer.sendto(b"1", own)
            peer.sendto(b"2", own)
        to_peer.sendto(b"into the void")
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
            peer.bind(place)
            peer.sendto(b"3", own)
            await second.until(lambda: len(second.mail) == 3 and second.errors)
        assert [data for data, _ in second.mail] == [b"1", b"2", b"3"]
        assert [type(error) for error in second.errors] == [ConnectionRefusedError]
        await closed(box, second)

    run(main())


def test_names_and_broadcast(run: Run[None]) -> None:
    """A name is looked up by sendto; a socket that may broadcast is not connected to its peer."""

    async def main() -> None:
        transport, box = await opened(Mailbox, ("127.0.0.1", 0))
        port = transport.get_extra_info("sockname")[1]
        transport.sendto(b"by name", ("localhost", port))
        await box.until(lambda: box.mail)
        assert box.mail == [(b"by name", ("127.0.0.1", port))]
        transport.sendto(b"x", ("name.invalid", port))
        assert isinstance(box.errors[0], OSError)
        caller, voice = await opened(Mailbox, None, ("127.0.0.1", port), allow_broadcast=True)
        sock = caller.get_extra_info("socket")
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST)
        assert caller.get_extra_info("peername") is None
        caller.sendto(b"called")
        await box.until(lambda: len(box.mail) == 2)
        with pytest.raises(ValueError, match="Invalid address"):
            caller.sendto(b"x", ("127.0.0.1", 1))
        await closed(box, voice)

    run(main())


def test_reuse_port_shares_the_port(run: Run[None]) -> None:
    """Two endpoints with reuse_port may be bound to one port."""

    async def main() -> None:
        transport, first = await opened(Mailbox, ("127.0.0.1", 0), reuse_port=True)
        where = transport.get_extra_info("sockname")
        _, second = await opened(Mailbox, where, reuse_port=True)
        await closed(first, second)

    run(main())


def test_sockets_of_the_program(run: Run[None]) -> None:
    """A pair of connected socket objects is taken over, and closed by their transports."""

    async def main() -> None:
        left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        to_right, first = await opened(Mailbox, sock=left)
        _, second = await opened(Returner, sock=right)
        to_right.sendto(b"over")
        await first.until(lambda: first.mail)
        assert first.mail == [(b"over", None)]
        assert to_right.get_extra_info("socket").fileno() == left.fileno()
        second.transport.abort()
        await second.lost
        assert right.fileno() == -1
        to_right.sendto(b"gone")
        assert isinstance(first.errors[0], ConnectionRefusedError | ConnectionResetError | OSError)
        await closed(first)
        assert left.fileno() == -1

    run(main())


@pytest.mark.parametrize("connected", [True, False])
def test_a_full_receiver_pauses_and_loses_nothing(
    run: Run[None], tmp_path: Path, connected: bool
) -> None:
    """
    A Unix receiver that does not read makes the protocol pause above the limit; once it reads, all
    of it comes in order, and the protocol may go on.  Closing waits for what was sent.
    """

    async def main() -> None:
        path = str(tmp_path / "slow")
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as slow:
            slow.bind(path)
            remote = path if connected else None
            transport, box = await opened(Mailbox, None, remote, family=socket.AF_UNIX)
            transport.set_write_buffer_limits(high=2000, low=200)
            count = 0
            while "pause" not in box.calls:
                transport.sendto(count.to_bytes(100, "big"), None if connected else path)
                count += 1
            assert transport.get_write_buffer_size() > 2000
            assert box.calls == ["made", "pause"]
            found: list[int] = []

            def read(flags: int = 0) -> None:
                found.append(int.from_bytes(slow.recv(200, flags), "big"))

            while "resume" not in box.calls:
                with contextlib.suppress(BlockingIOError):
                    read(socket.MSG_DONTWAIT)
                await passes(1)
            transport.sendto(count.to_bytes(100, "big"), None if connected else path)
            transport.close()
            reader = threading.Thread(
                target=lambda: [read() for _ in range(count + 1 - len(found))]
            )
            reader.start()
            await box.lost
            reader.join()
            assert found == list(range(count + 1))

    run(main())


def test_abort_drops_what_waits(run: Run[None], tmp_path: Path) -> None:
    """Abort ends at once, without an error, though datagrams wait; sending afterwards is quiet."""

    async def main() -> None:
        path = str(tmp_path / "slow")
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as slow:
            slow.bind(path)
            transport, box = await opened(Mailbox, None, path, family=socket.AF_UNIX)
            while not transport.get_write_buffer_size():
                transport.sendto(b"x" * 100)
            transport.abort()
            assert transport.is_closing()
            assert transport.get_write_buffer_size() == 0
            await box.lost
            transport.sendto(b"late")
            transport.abort()
            transport.close()
            assert box.end is None
            assert box.calls == ["made", "lost"]

    run(main())


def test_exceptions_of_the_protocol_are_reported(
    make_loop: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    """What a protocol raises goes to the exception handler, and the next datagram comes."""

    class Clumsy(Mailbox):
        def datagram_received(self, data: bytes, addr: Any) -> None:
            super().datagram_received(data, addr)
            if data == b"first":
                raise LookupError("clumsy")

    async def main() -> list[dict[str, Any]]:
        wrong: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: wrong.append(context))
        transport, box = await opened(Clumsy, ("127.0.0.1", 0))
        transport.sendto(b"first", transport.get_extra_info("sockname"))
        transport.sendto(b"second", transport.get_extra_info("sockname"))
        await box.until(lambda: len(box.mail) == 2)
        await closed(box)
        return wrong

    with asyncio.Runner(loop_factory=make_loop) as runner:
        (context,) = runner.run(main())
    assert isinstance(context["exception"], LookupError)
    assert "datagram_received" in context["message"]


def test_closing_from_within_and_a_cancelled_opening(run: Run[None]) -> None:
    """A protocol may close in datagram_received; an opening that is cancelled leaves nothing."""

    class Once(Mailbox):
        def datagram_received(self, data: bytes, addr: Any) -> None:
            super().datagram_received(data, addr)
            self.transport.close()

    async def main() -> None:
        transport, box = await opened(Once, ("127.0.0.1", 0))
        where = transport.get_extra_info("sockname")
        for _ in range(3):
            transport.sendto(b"x", where)
        await box.lost
        assert box.calls == ["made", "datagram", "lost"]
        before = holdings().fds
        opening = asyncio.create_task(opened(Mailbox, where))
        await asyncio.sleep(0)
        await until(lambda: opening.done() or holdings().fds != before)
        opening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await opening
        await until(lambda: holdings().fds == before)

    run(main())


def test_a_forgotten_endpoint_is_warned_of(
    make_loop: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    """A transport that is not closed before its loop warns, and its descriptor is closed."""
    loop = make_loop()
    loop.run_until_complete(opened(Mailbox, ("127.0.0.1", 0)))
    with pytest.warns(ResourceWarning, match="datagram transport"):
        loop.close()
        del loop
        gc.collect()
