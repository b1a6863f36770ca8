"""Making listeners and connections: families, addresses, names, options, refusals."""

import errno
import os
import socket
import stat
import threading
from pathlib import Path

import pytest

import uringio
from tests.fresh import FreshPython
from tests.marks import needs_pending_errors
from tests.ports import own_port
from tests.surface.pairs import call, connected, deserted
from tests.surface.schedulers import Scheduler, with_tests
from uringio._sys.system import System
from uringio.net import OwnedFd, adopt_listener

NODELAY = (socket.IPPROTO_TCP, socket.TCP_NODELAY)


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


needs_ipv6 = pytest.mark.skipif(not has_ipv6(), reason="no IPv6 loopback here")


async def talk(near: uringio.SocketStream, far: uringio.SocketStream) -> None:
    """Check that bytes go both ways and that both ends end."""
    async with near, far:
        await near.send_all(b"question")
        assert await far.recv_exactly(8) == b"question"
        await far.send_all(b"answer")
        await far.send_eof()
        assert await near.recv_exactly(6) == b"answer"
        assert await near.recv() == b""


def test_tcp_over_ipv4(scheduler: Scheduler) -> None:
    """A connection over 127.0.0.1 carries bytes, and both ends agree on the addresses."""

    async def main() -> None:
        async with await uringio.listen_tcp("127.0.0.1", 0) as listener:
            host, port = listener.local_address
            assert host == "127.0.0.1"
            assert isinstance(port, int)
            assert port > 0
            near = await uringio.connect_tcp("127.0.0.1", port)
            far = await listener.accept()
            assert near.remote_address == far.local_address == ("127.0.0.1", port)
            assert near.local_address == far.remote_address
            await talk(near, far)

    scheduler.run(main)


@needs_ipv6
def test_tcp_over_ipv6(scheduler: Scheduler) -> None:
    """A connection over ::1 carries bytes; addresses have the four parts of IPv6."""

    async def main() -> None:
        async with await uringio.listen_tcp("::1", 0) as listener:
            address = listener.local_address
            assert address[0] == "::1"
            assert address[2:] == (0, 0)
            near = await uringio.connect_tcp("::1", int(address[1]))
            far = await listener.accept()
            assert near.remote_address == far.local_address == address
            assert near.local_address == far.remote_address
            await talk(near, far)

    scheduler.run(main)


@needs_ipv6
def test_ipv6_listener_leaves_ipv4_alone(scheduler: Scheduler) -> None:
    """The address "::" is all IPv6 interfaces and no IPv4 one: the port stays free for IPv4."""

    async def main() -> None:
        port = own_port()
        async with await uringio.listen_tcp("::", port) as six:
            assert six.local_address[1] == port
            async with await uringio.listen_tcp("127.0.0.1", port) as four:
                assert four.local_address == ("127.0.0.1", port)

    scheduler.run(main)


@pytest.mark.parametrize("kind", [str, os.fsencode, Path], ids=["str", "bytes", "Path"])
def test_unix_by_path(scheduler: Scheduler, tmp_path: Path, kind: type) -> None:
    """A Unix connection carries bytes, however the path is given; closing removes the file."""
    path = tmp_path / "socket"

    async def main() -> None:
        async with await uringio.listen_unix(kind(path)) as listener:
            assert listener.local_address == str(path)
            near = await uringio.connect_unix(kind(path))
            far = await listener.accept()
            assert near.remote_address == far.local_address == str(path)
            assert near.local_address == far.remote_address == ""
            await talk(near, far)
            assert stat.S_ISSOCK(path.stat().st_mode)
        assert not path.exists()

    scheduler.run(main)


@pytest.mark.parametrize(
    "name", ["\0uringio tests {}", b"\0uringio \xff\0 {}"], ids=["str", "bytes"]
)
def test_unix_in_the_abstract_namespace(scheduler: Scheduler, name: str | bytes) -> None:
    """An abstract name is compared byte by byte, NULs included, and leaves no file."""
    unique = f"{os.getpid()}"
    full = (
        name.replace("{}", unique)
        if isinstance(name, str)
        else name.replace(b"{}", unique.encode())
    )

    async def main() -> None:
        async with await uringio.listen_unix(full) as listener:
            assert listener.local_address == (full.encode() if isinstance(full, str) else full)
            near = await uringio.connect_unix(full)
            far = await listener.accept()
            await talk(near, far)
        with pytest.raises(ConnectionRefusedError):
            await uringio.connect_unix(full)

    scheduler.run(main)


def test_closing_leaves_what_another_has_put_at_the_path(
    scheduler: Scheduler, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A successor's socket, a file, or nothing; and a path is the same from another folder."""
    path = tmp_path / "socket"
    monkeypatch.chdir(tmp_path)

    async def main() -> None:
        async with await uringio.listen_unix("socket"):
            path.rename(tmp_path / "elsewhere")
            successor = await uringio.listen_unix(path)
        async with successor:
            near = await uringio.connect_unix(path)
            await talk(near, await successor.accept())
        assert not path.exists()
        async with await uringio.listen_unix(path):
            path.unlink()
            path.write_text("content")
        assert path.read_text() == "content"
        path.unlink()
        async with await uringio.listen_unix(path):
            path.unlink()
        listener = await uringio.listen_unix("socket")
        monkeypatch.chdir("/")
        await listener.aclose()
        assert not path.exists()
        path.write_text("content")
        await listener.aclose()
        assert path.read_text() == "content"

    scheduler.run(main)


def test_unix_socket_that_nobody_serves_is_replaced(scheduler: Scheduler, tmp_path: Path) -> None:
    """A server starts again at the path that its predecessor left behind."""
    path = tmp_path / "socket"

    async def main() -> None:
        for _ in range(2):
            with socket.socket(socket.AF_UNIX) as dead:
                dead.bind(str(path))
            async with await uringio.listen_unix(path) as listener:
                near = await uringio.connect_unix(path)
                await talk(near, await listener.accept())

    scheduler.run(main)


@pytest.mark.parametrize("full", [False, True], ids=["answering", "with a full queue"])
def test_unix_socket_of_a_living_server_is_kept(
    scheduler: Scheduler, tmp_path: Path, full: bool
) -> None:
    """A second server cannot take a path from one that still listens, even a congested one."""
    path = str(tmp_path / "socket")

    async def main() -> None:
        async with await uringio.listen_unix(path, backlog=0) as listener:
            waiting = [call(listener)] if full else []
            with pytest.raises(OSError, match="in use") as caught:
                await uringio.listen_unix(path)
            assert isinstance(caught.value, uringio.OpError)
            assert caught.value.op == "bind"
            for client in waiting:
                client.close()
                (await listener.accept()).close_idle()
            near = await uringio.connect_unix(path)
            await talk(near, await listener.accept())

    scheduler.run(main)


def test_other_files_are_kept(scheduler: Scheduler, tmp_path: Path) -> None:
    """A path where something else than a socket stands is refused, and left as it was."""
    path = tmp_path / "precious"
    path.write_text("data")

    async def main() -> None:
        with pytest.raises(OSError, match="in use"):
            await uringio.listen_unix(path)

    scheduler.run(main)
    assert path.read_text() == "data"


def test_unix_path_that_does_not_fit(scheduler: Scheduler, tmp_path: Path) -> None:
    """A path that is empty, too long for a sockaddr, or holds a NUL is refused with ValueError."""

    async def main() -> None:
        for path in ("", b"", str(tmp_path / ("x" * 108)), "a\0b"):
            with pytest.raises(ValueError, match="Unix socket"):
                await uringio.listen_unix(path)
            with pytest.raises(ValueError, match="Unix socket"):
                await uringio.connect_unix(path)

    scheduler.run(main)


def test_address_in_use(scheduler: Scheduler) -> None:
    """Two listeners on one port: EADDRINUSE, naming the address; with reuse_port both may."""

    async def main() -> None:
        async with await uringio.listen_tcp("127.0.0.1", 0) as first:
            port = int(first.local_address[1])
            with pytest.raises(OSError, match=f"127.0.0.1.*{port}") as caught:
                await uringio.listen_tcp("127.0.0.1", port)
            assert caught.value.errno == 98
        async with await uringio.listen_tcp("127.0.0.1", 0, reuse_port=True) as first:
            port = int(first.local_address[1])
            async with await uringio.listen_tcp("127.0.0.1", port, reuse_port=True) as second:
                assert second.local_address == first.local_address

    scheduler.run(main)


def test_port_is_free_again_at_once(scheduler: Scheduler) -> None:
    """A server may take its port again although connections of its last life linger."""

    async def main() -> None:
        port = own_port()
        for _ in range(3):
            async with await uringio.listen_tcp("127.0.0.1", port) as listener:
                near = await uringio.connect_tcp("127.0.0.1", port)
                far = await listener.accept()
                await far.aclose()  # first, so that it is this side that lingers in TIME_WAIT
                assert await near.recv() == b""
                await near.aclose()

    scheduler.run(main)


@needs_pending_errors
def test_connection_refused(scheduler: Scheduler) -> None:
    """Nobody listens: ConnectionRefusedError with op, fd, errno, and a note naming the address."""

    async def main() -> None:
        with deserted() as address, pytest.raises(ConnectionRefusedError) as caught:
            await uringio.connect_tcp(*address)
        error = caught.value
        assert isinstance(error, uringio.OpError)
        assert (error.op, error.errno, error.done) == ("connect", 111, 0)
        assert error.fd >= 0
        assert error.__notes__ == [f"while connecting to {address!r}"]

    scheduler.run(main)


def test_unix_path_without_a_server(scheduler: Scheduler, tmp_path: Path) -> None:
    """A missing path, a deserted socket and a plain file are told apart, and named."""
    missing, left, plain = tmp_path / "missing", tmp_path / "left", tmp_path / "plain"
    plain.write_text("")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(left))

    async def main() -> None:
        for path, kind in (
            (missing, FileNotFoundError),
            (left, ConnectionRefusedError),
            (plain, ConnectionRefusedError),
        ):
            with pytest.raises(kind) as caught:
                await uringio.connect_unix(path)
            assert isinstance(caught.value, uringio.OpError)
            assert caught.value.op == "connect"
            assert caught.value.__notes__ == [f"while connecting to {str(path)!r}"]

    scheduler.run(main)


@pytest.mark.parametrize("port", [-1, 65536, 1 << 40])
def test_ports_out_of_range(scheduler: Scheduler, port: int) -> None:
    """A port that is none is refused before anything is made."""

    async def main() -> None:
        for host in ("127.0.0.1", "::1", "localhost"):
            with pytest.raises(ValueError, match="port"):
                await uringio.listen_tcp(host, port)
            with pytest.raises(ValueError, match="port"):
                await uringio.connect_tcp(host, port)

    scheduler.run(main)


@pytest.mark.parametrize("host", [None, 17, b"127.0.0.1"])
def test_hosts_of_another_type(scheduler: Scheduler, host: str) -> None:
    """A host that is no str is refused with TypeError."""

    async def main() -> None:
        with pytest.raises(TypeError):
            await uringio.listen_tcp(host, 0)
        with pytest.raises(TypeError):
            await uringio.connect_tcp(host, 80)

    scheduler.run(main)


def test_names_are_resolved(scheduler: Scheduler) -> None:
    """A name, here localhost, does for listening and for connecting."""

    async def main() -> None:
        async with await uringio.listen_tcp("localhost", 0) as listener:
            near = await uringio.connect_tcp("localhost", int(listener.local_address[1]))
            await talk(near, await listener.accept())

    scheduler.run(main)


def test_names_without_address(scheduler: Scheduler, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the resolver says against a name reaches the caller as it is."""

    def refuse(*_: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(System, "getaddrinfo", refuse)

    async def main() -> None:
        with pytest.raises(socket.gaierror, match="not known"):
            await uringio.connect_tcp("nowhere.invalid", 80)
        with pytest.raises(socket.gaierror, match="not known"):
            await uringio.listen_tcp("nowhere.invalid", 80)

    scheduler.run(main)


@needs_pending_errors
def test_addresses_of_a_name_are_tried_in_turn(
    scheduler: Scheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first address that answers is taken; if none does, the first one's error is raised."""

    async def main() -> None:
        async with await uringio.listen_tcp("127.0.0.1", 0) as listener:
            found = [one, two, listener.local_address]

            def resolve(_self: object, _host: str, _port: int, kind: int) -> list[object]:
                return [(socket.AF_INET, kind, 6, address) for address in found]

            monkeypatch.setattr(System, "getaddrinfo", resolve)
            near = await uringio.connect_tcp("three.invalid", 80)
            await talk(near, await listener.accept())
            found.pop()
            with pytest.raises(ConnectionRefusedError) as caught:
                await uringio.connect_tcp("three.invalid", 80)
            assert caught.value.__notes__ == [
                f"while connecting to {one!r}",
                f"and to {two!r}: {os.strerror(errno.ECONNREFUSED)}",
            ]

    with deserted() as one, deserted() as two:
        scheduler.run(main)


def test_resolver_runs_beside_the_loop(
    scheduler: Scheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While a name is being resolved, other tasks run; here the resolver even waits for one."""
    released = threading.Event()

    def resolve(_self: object, _host: str, port: int, kind: int) -> list[object]:
        assert released.wait(50)
        return [(socket.AF_INET, kind, 6, ("127.0.0.1", port))]

    monkeypatch.setattr(System, "getaddrinfo", resolve)

    async def main() -> None:
        async with await uringio.listen_tcp("127.0.0.1", 0) as listener:
            connecting = scheduler.spawn(
                uringio.connect_tcp, "slow.invalid", int(listener.local_address[1])
            )
            await scheduler.checkpoint()
            assert not connecting.ended
            released.set()
            await talk(await connecting.result(), await listener.accept())

    scheduler.run(main)


@pytest.mark.parametrize("calls", [1, 20])
def test_hanging_resolver_holds_up_neither_cancelling_nor_exit(
    scheduler: Scheduler, fresh_python: FreshPython, calls: int
) -> None:
    """
    Resolvers that never answer: their callers are cancelled at once, and the process ends.

    Also when there are more of them than worker threads.
    """
    code = """
        import sys, threading
        import uringio
        from tests.surface import schedulers
        from uringio._sys.system import System

        scheduler = schedulers.make(*sys.argv[1:3])
        entered = threading.Event()

        def resolve(*_):
            entered.set()
            threading.Event().wait()

        System.getaddrinfo = resolve

        async def main():
            waiting = [
                scheduler.spawn(uringio.connect_tcp, "slow.invalid", 80)
                for _ in range(int(sys.argv[3]))
            ]
            await scheduler.until(entered.is_set)
            for one in waiting:
                one.cancel()
            assert all([(await one.wait()).cancelled for one in waiting])

        scheduler.run(main)
        print("ended")
    """
    ended = fresh_python(code, scheduler.name, scheduler.backend, str(calls), env=with_tests())
    assert ended.check().stdout == "ended\n"


def test_nodelay_is_on(scheduler: Scheduler) -> None:
    """TCP_NODELAY is on for connected and for accepted sockets."""

    async def main() -> None:
        async with connected() as (near, far):
            assert near.getsockopt(*NODELAY) == 1
            assert far.getsockopt(*NODELAY) == 1

    scheduler.run(main)


def test_options_are_set(scheduler: Scheduler, tmp_path: Path) -> None:
    """Options given when opening are on the socket, also to overrule ours; others can follow."""
    keepalive = (socket.SOL_SOCKET, socket.SO_KEEPALIVE)
    linger = (socket.SOL_SOCKET, socket.SO_LINGER, b"\0" * 8)

    async def main() -> None:
        options = [(*keepalive, 1), (*NODELAY, 0), linger]
        async with await uringio.listen_tcp("127.0.0.1", 0, options=options) as listener:
            near = await uringio.connect_tcp(*listener.local_address[:2], options=options)
            far = await listener.accept()
            for stream in (near, far):
                assert stream.getsockopt(*keepalive) == 1
                assert stream.getsockopt(*NODELAY) == 0
                stream.setsockopt(*NODELAY, 1)
                assert stream.getsockopt(*NODELAY) == 1
                await stream.aclose()
        path = tmp_path / "socket"
        async with await uringio.listen_unix(path, options=[(*keepalive, 1)]) as listener:
            near = await uringio.connect_unix(path, options=[(*keepalive, 1)])
            far = await listener.accept()
            assert near.getsockopt(*keepalive) == 1
            await talk(near, far)

    scheduler.run(main)


def test_sizes_that_do_not_fit(scheduler: Scheduler, tmp_path: Path) -> None:
    """Cut to a C int, a backlog of 2**32 would be none, and an option any value: both refused."""

    async def main() -> None:
        for backlog in (-1, 1 << 31, 1 << 32):
            with pytest.raises(ValueError, match="backlog"):
                await uringio.listen_tcp("127.0.0.1", 0, backlog=backlog)
            with pytest.raises(ValueError, match="backlog"):
                await uringio.listen_unix(tmp_path / "socket", backlog=backlog)
        assert not (tmp_path / "socket").exists()
        for value in (-(1 << 31) - 1, 1 << 31):
            with pytest.raises(ValueError, match="C int"):
                await uringio.listen_tcp(
                    "127.0.0.1", 0, options=[(socket.SOL_SOCKET, socket.SO_RCVBUF, value)]
                )

    scheduler.run(main)


def test_refused_options_leave_nothing_open(scheduler: Scheduler) -> None:
    """An option that the kernel refuses raises, and the socket is closed (by the leak check)."""
    wrong = [(9999, 9999, 1)]

    async def main() -> None:
        with pytest.raises(OSError, match="level 9999"):
            await uringio.listen_tcp("127.0.0.1", 0, options=wrong)
        async with await uringio.listen_tcp("127.0.0.1", 0) as listener:
            with pytest.raises(OSError, match="level 9999"):
                await uringio.connect_tcp(*listener.local_address[:2], options=wrong)

    scheduler.run(main)


def test_accept_and_iteration(scheduler: Scheduler) -> None:
    """`async for` over a listener yields connections in the order in which they came."""

    async def main() -> None:
        async with await uringio.listen_tcp("127.0.0.1", 0) as listener:
            clients = [call(listener) for _ in range(3)]
            seen = []
            async for stream in listener:
                seen.append(stream.remote_address)
                await stream.aclose()
                if len(seen) == 3:
                    break
            assert seen == [client.getsockname() for client in clients]
            for client in clients:
                client.close()

    scheduler.run(main)


def test_several_tasks_accept(scheduler: Scheduler) -> None:
    """Tasks that accept at once each get a connection of their own, with the right address."""

    async def main() -> None:
        async with await uringio.listen_tcp("127.0.0.1", 0) as listener:

            async def accept() -> uringio.SocketStream:
                return await listener.accept()

            accepting = [scheduler.spawn(accept) for _ in range(3)]
            await scheduler.checkpoint()
            clients = [call(listener) for _ in range(3)]
            streams = [await one.result() for one in accepting]
            assert {stream.remote_address for stream in streams} == {
                client.getsockname() for client in clients
            }
            for stream in streams:
                await stream.aclose()
            for client in clients:
                client.close()

    scheduler.run(main)


def test_sockets_that_listen_are_adopted(scheduler: Scheduler, tmp_path: Path) -> None:
    """A listener over an inherited descriptor serves, knows its address, and closes it."""

    async def main() -> None:
        for family, address in (
            (socket.AF_INET, ("127.0.0.1", 0)),
            (socket.AF_UNIX, str(tmp_path / "here")),
        ):
            made = socket.socket(family)
            made.bind(address)
            made.listen()
            where = made.getsockname()
            number = made.detach()
            async with adopt_listener(number) as listener:
                assert listener.local_address == where
                assert listener.fileno() == number
                with socket.socket(family) as client:
                    client.connect(where)
                    async with await listener.accept() as stream:
                        client.sendall(b"hello")
                        assert await stream.recv_exactly(5) == b"hello"
            with pytest.raises(OSError, match="Bad file descriptor"):
                os.fstat(number)

    scheduler.run(main)


def test_owned_descriptors_are_adopted(scheduler: Scheduler) -> None:
    """An `OwnedFd` gives its number up to the listener."""

    async def main() -> None:
        made = socket.create_server(("127.0.0.1", 0))
        owned = OwnedFd(made.detach(), os.close, "socket")
        async with adopt_listener(owned):
            assert owned.closed
            with pytest.raises(uringio.ClosedError):
                adopt_listener(owned)

    scheduler.run(main)


def test_only_listening_streams_are_adopted(scheduler: Scheduler) -> None:
    """Files, datagram sockets, sockets that do not listen: each refused in words, none closed."""

    async def main() -> None:
        read_fd, write_fd = os.pipe()
        with socket.socket(type=socket.SOCK_DGRAM) as datagrams, socket.socket() as idle:
            for fd, words in (
                (read_fd, "is not a socket"),
                (datagrams.fileno(), "not of streams"),
                (idle.fileno(), "does not listen"),
            ):
                with pytest.raises(ValueError, match=words):
                    adopt_listener(fd)
                owned = OwnedFd(fd, os.close, "thing")
                with pytest.raises(ValueError, match=words):
                    adopt_listener(owned)
                assert owned.take() == fd
                os.fstat(fd)
            with pytest.raises(TypeError, match="OwnedFd"):
                adopt_listener(idle)  # type: ignore[arg-type]
            with pytest.raises(ValueError, match="from 0 up"):
                adopt_listener(-1)
        os.close(read_fd)
        os.close(write_fd)
        with pytest.raises(uringio.OpError) as caught:
            adopt_listener(write_fd)
        assert caught.value.errno == errno.EBADF

    scheduler.run(main)


def test_opening_needs_a_loop() -> None:
    """Without a running loop the calls say what is missing."""
    for coroutine in (
        uringio.listen_tcp("127.0.0.1", 0),
        uringio.connect_tcp("127.0.0.1", 1),
        uringio.listen_unix("x"),
        uringio.connect_unix("x"),
    ):
        with pytest.raises(uringio.UsageError, match="no uringio loop runs"):
            coroutine.send(None)
