"""
Sockets: streams over TCP and Unix, datagrams over UDP and Unix, and readiness of any descriptor.

Calls that are one operation (`SocketStream.recv`, `DatagramSocket.send_to`, `Listener.accept`,
`poll`, ...) return an op: nothing happens until it is awaited.  All of them work in tasks under
`uringio.run` and in asyncio tasks on the loop of `uringio.aio`.

One reader and one writer at a time: a second concurrent `recv` (or `send_all`) on a stream raises
`BusyError`.  No byte is ever lost to a cancelled `recv`: what had arrived is kept for the next one.

Closing ends what is in flight: whoever waits in `recv`, `send_all` or `accept` gets `ClosedError`,
and so does whoever still holds an operation that was not started.

Addresses are taken as the standard library writes them, and given back typed: an `Inet4Address` is
also the tuple ``(host, port)``.  Socket options have names and types in `uringio.net.options`.
"""

from uringio._driver.messages import Ancillary, Credentials
from uringio._driver.sockets import (
    AbstractUnixAddress,
    Address,
    HasFileno,
    Inet4Address,
    Inet6Address,
    RawOption,
    SocketAddress,
    UnixAddress,
)
from uringio._own.fd import OwnedFd

from ._datagrams import Datagram, DatagramSocket
from ._listener import Listener
from ._messages import Message
from ._opening import (
    adopt_listener,
    connect_tcp,
    connect_unix,
    listen_tcp,
    listen_unix,
    open_udp,
    open_unix_datagram,
)
from ._polling import PollEvents, poll, wait_readable, wait_writable
from ._resolving import resolve
from ._stream import SocketStream

__all__ = [
    "AbstractUnixAddress",
    "Address",
    "Ancillary",
    "Credentials",
    "Datagram",
    "DatagramSocket",
    "HasFileno",
    "Inet4Address",
    "Inet6Address",
    "Listener",
    "Message",
    "OwnedFd",
    "PollEvents",
    "RawOption",
    "SocketAddress",
    "SocketStream",
    "UnixAddress",
    "adopt_listener",
    "connect_tcp",
    "connect_unix",
    "listen_tcp",
    "listen_unix",
    "open_udp",
    "open_unix_datagram",
    "poll",
    "resolve",
    "wait_readable",
    "wait_writable",
]
