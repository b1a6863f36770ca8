"""
Echo with one coroutine per connection on uringio's own scheduler.
"""

from __future__ import annotations

from _entry import HOST, announce, arguments

import uringio


async def echo(stream: uringio.SocketStream) -> None:
    """
    Echo one connection.
    """
    async with stream:
        while data := await stream.recv():
            await stream.send_all(data)


async def main() -> None:
    """
    Serve until the process is ended.
    """
    async with await uringio.listen_tcp(HOST, 0) as listener:
        announce(listener.local_address[1])
        await listener.serve(echo)


options = arguments()
uringio.run(main, backend=options.backend)
