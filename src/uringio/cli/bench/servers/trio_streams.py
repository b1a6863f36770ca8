"""
Echo with one coroutine per connection on trio.
"""

from __future__ import annotations

import trio
from _entry import HOST, RECV_BYTES_MAX, announce, arguments


async def echo(stream: trio.SocketStream) -> None:
    """
    Echo one connection; trio turns TCP_NODELAY on by itself.
    """
    while data := await stream.receive_some(RECV_BYTES_MAX):
        await stream.send_all(data)


async def main() -> None:
    """
    Serve until the process is ended.
    """
    listeners = await trio.open_tcp_listeners(0, host=HOST)
    announce(listeners[0].socket.getsockname()[1])
    await trio.serve_listeners(echo, listeners)


arguments()
trio.run(main)
