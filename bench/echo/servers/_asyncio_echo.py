"""
The asyncio form of the echo server, which every asyncio loop is given alike.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Literal, cast

from _entry import HOST, RECV_BYTES_MAX, announce, arguments

Form = Literal["protocol", "streams"]


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


async def echo_streams(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """
    Echo one connection, with flow control.
    """
    _no_delay(writer.transport)
    while data := await reader.read(RECV_BYTES_MAX):
        writer.write(data)
        await writer.drain()
    writer.close()


async def serve(form: Form) -> None:
    """
    Serve until the process is ended.
    """
    if form == "protocol":
        server = await asyncio.get_running_loop().create_server(EchoProtocol, HOST, 0)
    else:
        server = await asyncio.start_server(echo_streams, HOST, 0)
    announce(server.sockets[0].getsockname()[1])
    await server.serve_forever()


def run(form: Form, loop_factory: Callable[[], asyncio.AbstractEventLoop] | None) -> None:
    """
    Run one form on the loop of one contender.
    """
    arguments()
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(serve(form))


def _no_delay(transport: asyncio.BaseTransport) -> None:
    sock = transport.get_extra_info("socket")
    if sock is not None:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
