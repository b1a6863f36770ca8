"""Ops that wait for something which does not come: what cancelling and closing are tried on."""

import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.driver.rig import MSG_NOSIGNAL, SEND_ALL_FLAGS, Rig, connected, fill, pipe
from uringio._driver import op as o
from uringio._driver.op import Offload, Op
from uringio._sys.sockaddr import pack_sockaddr


class Waiting:
    """Makers of ops that wait for something which does not come."""

    def __init__(self, rig: Rig, stack: ExitStack, tmp_path: Path) -> None:
        self._rig = rig
        self._enter = stack.enter_context
        self._tmp_path = tmp_path
        self.released = threading.Event()

    def recv(self) -> Op[Any]:
        ours, _ = self._enter(connected(self._rig))
        return Op(o.RECV, ours.fileno(), len_=100)

    def recv_into(self) -> Op[Any]:
        ours, _ = self._enter(connected(self._rig, "unix"))
        return Op(o.RECV_INTO, ours.fileno(), len_=100, memory=bytearray(100))

    def send_all(self) -> Op[Any]:
        ours, _ = self._enter(connected(self._rig, "unix"))
        fill(ours)
        return Op(o.SEND_ALL, ours.fileno(), len_=4, flags=SEND_ALL_FLAGS, memory=b"more")

    def send(self) -> Op[Any]:
        ours, _ = self._enter(connected(self._rig))
        fill(ours)
        return Op(o.SEND, ours.fileno(), len_=9, flags=MSG_NOSIGNAL, memory=bytearray(b"even more"))

    def accept(self) -> Op[Any]:
        listener = self._enter(socket.create_server(("127.0.0.1", 0)))
        self._rig.driver.register(listener.fileno())
        return Op(o.ACCEPT, listener.fileno())

    def connect(self) -> Op[Any]:
        listener = self._enter(socket.create_server(("127.0.0.1", 0), backlog=0))
        # Clients fill the listener's queue until it drops what comes.
        for _ in range(3):
            client = self._enter(socket.socket())
            client.setblocking(False)
            client.connect_ex(listener.getsockname())
        ours = self._enter(socket.socket())
        self._rig.driver.register(ours.fileno())
        packed = pack_sockaddr(socket.AF_INET, listener.getsockname())
        return Op(o.CONNECT, ours.fileno(), off=len(packed), memory=packed)

    def connect_unix(self) -> Op[Any]:
        path = str(self._tmp_path / "s")
        listener = self._enter(socket.socket(socket.AF_UNIX))
        listener.bind(path)
        listener.listen(0)
        self._enter(socket.socket(socket.AF_UNIX)).connect(path)
        ours = self._enter(socket.socket(socket.AF_UNIX))
        self._rig.driver.register(ours.fileno())
        packed = pack_sockaddr(socket.AF_UNIX, path)
        return Op(o.CONNECT, ours.fileno(), off=len(packed), memory=packed)

    def read_pipe(self) -> Op[Any]:
        read_end, _ = self._enter(pipe(self._rig))
        return Op(o.READ, read_end, len_=10, memory=bytearray(10))

    def poll(self) -> Op[Any]:
        ours, _ = self._enter(connected(self._rig))
        return Op(o.POLL, ours.fileno(), flags=0x1)

    def timeout(self) -> Op[Any]:
        return Op(o.TIMEOUT, off=time.monotonic_ns() + 3_600_000_000_000)

    def event(self) -> Op[Any]:
        return Op(o.EVENT)

    def offload(self) -> Op[Any]:
        return Offload(self.released.wait)

    def open_fifo(self) -> Op[Any]:
        if self._rig.is_uring:
            pytest.skip("io_uring opens a FIFO without waiting for its other end")
        path = self._tmp_path / "fifo"
        os.mkfifo(path)
        return Op(o.OPEN, -100, flags=os.O_RDONLY, memory=os.fsencode(path) + b"\0")


WAITING = [name for name in vars(Waiting) if not name.startswith("_")]


@contextmanager
def both_ends_open(tmp_path: Path) -> Iterator[None]:
    """Hold the FIFO open: a thread that waits in open(2), or comes there, goes on."""
    if not (tmp_path / "fifo").exists():
        yield
        return
    fd = os.open(tmp_path / "fifo", os.O_RDWR | os.O_NONBLOCK)
    try:
        yield
    finally:
        os.close(fd)
