"""
Echo on an asyncio loop, in each of the forms that asyncio offers; every loop is given the same.
"""

from __future__ import annotations

import argparse
import asyncio
import socket
from collections.abc import Callable
from functools import partial
from typing import cast

from _entry import HOST, RECV_BYTES_MAX, announce, arguments


class EchoProtocol(asyncio.Protocol):
    """
    Write back what was received.
    """

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """
        Keep the transport's `write`.
        """
        self.transport = cast("asyncio.Transport", transport)
        _no_delay(self.transport)

    def data_received(self, data: bytes) -> None:
        """
        Echo one chunk.
        """
        self.transport.write(data)


class EchoBuffered(asyncio.BufferedProtocol):
    """
    Write back what was received into memory of the protocol's own.
    """

    def __init__(self) -> None:
        self.memory = bytearray(RECV_BYTES_MAX)
        self.view = memoryview(self.memory)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """
        Keep the transport's `write`.
        """
        self.transport = cast("asyncio.Transport", transport)
        _no_delay(self.transport)

    def get_buffer(self, sizehint: int) -> bytearray:
        """
        Lend the whole memory; what it held has been copied by then.
        """
        return self.memory

    def buffer_updated(self, nbytes: int) -> None:
        """
        Echo one chunk. The copy is needed: a loop may keep what it cannot send at once.
        """
        self.transport.write(bytes(self.view[:nbytes]))


async def echo_streams(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """
    Echo one connection, with flow control.
    """
    _no_delay(writer.transport)
    while data := await reader.read(RECV_BYTES_MAX):
        writer.write(data)
        await writer.drain()
    writer.close()


async def echo_sock(connection: socket.socket) -> None:
    """
    Echo one connection by the loop's `sock_*` calls.
    """
    loop = asyncio.get_running_loop()
    with connection:
        connection.setblocking(False)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while data := await loop.sock_recv(connection, RECV_BYTES_MAX):
            await loop.sock_sendall(connection, data)


async def serve_sock() -> None:
    """
    Accept for ever.
    """
    loop = asyncio.get_running_loop()
    tasks: set[asyncio.Task[None]] = set()
    with socket.create_server((HOST, 0), backlog=100) as listener:
        listener.setblocking(False)
        announce(listener.getsockname()[1])
        while True:
            connection, _ = await loop.sock_accept(listener)
            task = loop.create_task(echo_sock(connection))
            tasks.add(task)
            task.add_done_callback(tasks.discard)


async def serve(form: str) -> None:
    """
    Serve until the process is ended.
    """
    if form == "sock":
        await serve_sock()
        return
    if form == "streams":
        server = await asyncio.start_server(echo_streams, HOST, 0)
    else:
        protocol = EchoBuffered if form == "buffered" else EchoProtocol
        server = await asyncio.get_running_loop().create_server(protocol, HOST, 0)
    announce(server.sockets[0].getsockname()[1])
    # Not `serve_forever`: rloop 0.5 would start serving a second time, and fail.
    await asyncio.Event().wait()
    server.close()


def _factory(loop: str, backend: str | None) -> Callable[[], asyncio.AbstractEventLoop] | None:
    if loop == "uringio":
        import uringio.aio

        return partial(uringio.aio.new_event_loop, backend=backend or "auto")
    if loop == "uvloop":
        import uvloop

        return uvloop.new_event_loop
    if loop == "rloop":
        import rloop

        return rloop.new_event_loop
    return None  # the standard library's


def _no_delay(transport: asyncio.BaseTransport) -> None:
    sock = transport.get_extra_info("socket")
    if sock is not None:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--loop", required=True)
    parser.add_argument(
        "--form", choices=("protocol", "buffered", "streams", "sock"), required=True
    )
    return parser


options = arguments(_parser())
with asyncio.Runner(loop_factory=_factory(options.loop, options.backend)) as runner:
    runner.run(serve(options.form))
