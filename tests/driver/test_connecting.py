"""ACCEPT and CONNECT on every driver: who meets whom, who waits, and what is refused."""

import errno
import fcntl
import socket
import time
from pathlib import Path

import pytest

from tests.driver.rig import Rig
from tests.marks import needs_pending_errors
from uringio._driver import op as o
from uringio._driver.op import SUBMITTED, Op
from uringio._sys.memory import Memory
from uringio._sys.sockaddr import pack_sockaddr, unpack_sockaddr
from uringio.errors import OpError


def test_accept_and_connect_meet(rig: Rig) -> None:
    """ACCEPT gives a connected descriptor and writes the peer's address; CONNECT gives None."""
    room = Memory(4096)
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.socket() as client:
        rig.driver.register(listener.fileno())
        rig.driver.register(client.fileno())
        room.view[128:132].cast("I")[0] = 128
        accept = rig.submit(
            Op(o.ACCEPT, listener.fileno(), addr=room.addr, off=room.addr + 128,
               flags=socket.SOCK_CLOEXEC)
        )  # fmt: skip
        rig.settle_down()
        packed = pack_sockaddr(socket.AF_INET, listener.getsockname())
        connect: Op[None] = Op(o.CONNECT, client.fileno(), off=len(packed), memory=packed)
        assert rig.do(connect) is None
        fd = rig.finish(accept)
        try:
            length = room.view[128:132].cast("I")[0]
            assert unpack_sockaddr(bytes(room.view[:length])) == client.getsockname()
            assert fcntl.fcntl(fd, fcntl.F_GETFD) & fcntl.FD_CLOEXEC
            rig.finish(rig.send_all(fd, b"hello"))
            assert rig.do(Op(o.RECV, client.fileno(), len_=100)) == b"hello"
        finally:
            rig.do(Op(o.CLOSE, fd))
            rig.driver.unregister(listener.fileno())
            rig.driver.unregister(client.fileno())


def test_accept_takes_connections_that_wait_already(rig: Rig) -> None:
    """A listener's backlog is accepted one op after another, and by several ops at once."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        rig.driver.register(listener.fileno())
        clients = [socket.create_connection(listener.getsockname()) for _ in range(4)]
        fds = [rig.do(Op(o.ACCEPT, listener.fileno())) for _ in range(4)]
        waiting = [rig.submit(Op(o.ACCEPT, listener.fileno())) for _ in range(4)]
        rig.settle_down()
        assert rig.delivered == []
        clients += [socket.create_connection(listener.getsockname()) for _ in range(4)]
        fds += [rig.finish(op) for op in waiting]
        assert len(set(fds)) == 8
        for client in clients:
            client.close()
        for fd in fds:
            assert rig.do(Op(o.RECV, fd, len_=1)) == b""
            rig.do(Op(o.CLOSE, fd))
        rig.driver.unregister(listener.fileno())


@needs_pending_errors
def test_connect_is_refused(rig: Rig) -> None:
    """Connecting to a port where nobody listens is ECONNREFUSED."""
    with socket.socket() as client, socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        packed = pack_sockaddr(socket.AF_INET, closed.getsockname())
        rig.driver.register(client.fileno())
        with pytest.raises(ConnectionRefusedError):
            rig.do(Op(o.CONNECT, client.fileno(), off=len(packed), memory=packed))
        rig.driver.unregister(client.fileno())


def test_connect_to_a_unix_socket(rig: Rig, tmp_path: Path) -> None:
    """A Unix path connects, is absent (ENOENT), or has nobody behind it (ECONNREFUSED)."""

    def connect(path: Path) -> None:
        packed = pack_sockaddr(socket.AF_UNIX, str(path))
        with socket.socket(socket.AF_UNIX) as client:
            rig.driver.register(client.fileno())
            try:
                rig.do(Op(o.CONNECT, client.fileno(), off=len(packed), memory=packed))
            finally:
                rig.driver.unregister(client.fileno())

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
        listener.listen()
        connect(tmp_path / "s")
    with pytest.raises(FileNotFoundError):
        connect(tmp_path / "absent")
    with pytest.raises(ConnectionRefusedError):
        connect(tmp_path / "s")


def test_connect_waits_for_room_in_a_unix_listener(rig: Rig, tmp_path: Path) -> None:
    """With the backlog full, CONNECT waits (of which no readiness tells) until one is accepted."""
    path = str(tmp_path / "s")
    packed = pack_sockaddr(socket.AF_UNIX, path)
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as client:
        listener.bind(path)
        listener.listen(0)
        first = socket.socket(socket.AF_UNIX)
        first.connect(path)
        rig.driver.register(client.fileno())
        op = rig.submit(Op(o.CONNECT, client.fileno(), off=len(packed), memory=packed))
        for _ in range(3):
            rig.driver.turn(time.monotonic_ns() + 1_000_000)
        assert op.state == SUBMITTED
        listener.accept()[0].close()
        assert rig.finish(op) is None
        first.close()
        rig.driver.unregister(client.fileno())


def test_connect_twice_is_an_error(rig: Rig) -> None:
    """A connected socket answers EISCONN, as connect(2) does."""
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.socket() as client:
        packed = pack_sockaddr(socket.AF_INET, listener.getsockname())
        rig.driver.register(client.fileno())
        connect = lambda: rig.do(  # noqa: E731
            Op(o.CONNECT, client.fileno(), off=len(packed), memory=packed)
        )
        connect()
        with pytest.raises(OpError) as caught:
            connect()
        assert caught.value.errno == errno.EISCONN
        rig.driver.unregister(client.fileno())
