"""
Stream sockets: TCP over IPv4 and IPv6, and Unix.

Calls that are one operation (`SocketStream.recv`, `SocketStream.send_all`, `Listener.accept`, ...)
return an op: nothing happens until it is awaited.  All of them work in tasks under `uringio.run`
and in asyncio tasks on the loop of `uringio.aio`.

One reader and one writer at a time: a second concurrent `recv` (or `send_all`) on a stream raises
`BusyError`.  No byte is ever lost to a cancelled `recv`: what had arrived is kept for the next one.

Closing ends what is in flight: whoever waits in `recv`, `send_all` or `accept` gets `ClosedError`,
and so does whoever still holds an operation that was not started.
"""

from uringio._driver.sockets import Address, SocketOption

from ._listener import Listener
from ._opening import connect_tcp, connect_unix, listen_tcp, listen_unix
from ._stream import SocketStream

__all__ = [
    "Address",
    "Listener",
    "SocketOption",
    "SocketStream",
    "connect_tcp",
    "connect_unix",
    "listen_tcp",
    "listen_unix",
]
