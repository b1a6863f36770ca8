"""Making streams and listeners from addresses and names."""

import os
from collections.abc import Sequence
from typing import Final, TypeVar

from uringio._driver import current
from uringio._driver.contract import Driver
from uringio._driver.op import CONNECT, Offload, Op
from uringio._driver.sockets import (
    AddressInfo,
    SocketOption,
    numeric_address,
    open_listener,
    open_stream_socket,
    unix_address,
)

from ._listener import Listener
from ._stream import SocketStream

__all__ = ["connect_tcp", "connect_unix", "listen_tcp", "listen_unix"]

T = TypeVar("T")

_BACKLOG: Final = 4096

UnixPath = str | bytes | os.PathLike[str]


async def listen_tcp(
    host: str,
    port: int,
    *,
    backlog: int = _BACKLOG,
    reuse_port: bool = False,
    options: Sequence[SocketOption] = (),
) -> Listener:
    """
    Listen on one TCP address.

    Args:
        host: A numeric address or a name; of a name the first address that can be bound is taken.
            ``"0.0.0.0"`` and ``"::"`` are all IPv4 and all IPv6 interfaces.
        port: 0..65535; 0 lets the kernel choose, and `Listener.local_address` tell.
        backlog: Connections that may wait to be accepted. [count]
        reuse_port: Share the port with other listeners that say so too (SO_REUSEPORT).
        options: Further socket options as (level, option, value), set before binding.

    Raises:
        OpError: The address cannot be bound, such as EADDRINUSE or EACCES.
        OSError: The name cannot be resolved (``socket.gaierror``).

    TCP_NODELAY is on for every accepted connection.
    """
    driver = current.driver()
    failure: OSError | None = None
    for info in await _resolve(driver, host, port):
        try:
            fd = open_listener(
                driver, info, backlog=backlog, reuse_port=reuse_port, options=options
            )
        except OSError as error:
            failure = failure or error
            continue
        return Listener(driver, fd)
    assert failure is not None
    raise failure


async def listen_unix(
    path: UnixPath, *, backlog: int = _BACKLOG, options: Sequence[SocketOption] = ()
) -> Listener:
    """
    Listen on a Unix stream socket.

    Args:
        path: Where; a leading NUL names the abstract namespace.  A socket that an earlier server
            left behind is replaced; one at which somebody listens is not, and no other file is.
            Closing leaves the path in place.
        backlog: Connections that may wait to be accepted. [count]
        options: Further socket options as (level, option, value), set before binding.

    Raises:
        ValueError: The path is empty or too long.
        OpError: The path cannot be bound, such as EADDRINUSE.
    """
    driver = current.driver()
    info = unix_address(driver.system, path)
    return Listener(driver, open_listener(driver, info, backlog=backlog, options=options))


async def connect_tcp(
    host: str, port: int, *, options: Sequence[SocketOption] = ()
) -> SocketStream:
    """
    Connect to a TCP address.

    Args:
        host: A numeric address or a name; the addresses of a name are tried one after another.
        port: 1..65535.
        options: Further socket options as (level, option, value), set before connecting.

    Raises:
        OpError: No address answered; the error is the first one's, such as
            `ConnectionRefusedError`.
        OSError: The name cannot be resolved (``socket.gaierror``).

    Cancellation: at once; the socket is closed.

    TCP_NODELAY is on.
    """
    driver = current.driver()
    failure: OSError | None = None
    for info in await _resolve(driver, host, port):
        try:
            return await _connect(driver, info, options)
        except OSError as error:
            failure = failure or error
    assert failure is not None
    raise failure


async def connect_unix(path: UnixPath, *, options: Sequence[SocketOption] = ()) -> SocketStream:
    """
    Connect to a Unix stream socket.

    Raises:
        ValueError: The path is empty or too long.
        OpError: Nobody listens there (`FileNotFoundError`, `ConnectionRefusedError`).

    Cancellation: at once; the socket is closed.
    """
    driver = current.driver()
    return await _connect(driver, unix_address(driver.system, path), options)


class _Connecting:
    """Keeps a stream's descriptor open for as long as the kernel works on it."""

    def __init__(self, stream: SocketStream) -> None:
        self._stream = stream

    def orphan(self, op: Op[T], value: object, /) -> None:
        """Nothing to keep: whoever cancels the connecting closes the stream; see `Owner`."""


async def _connect(
    driver: Driver, info: AddressInfo, options: Sequence[SocketOption]
) -> SocketStream:
    fd, packed = open_stream_socket(driver, info, options)
    stream = SocketStream(driver, fd)
    op: Op[None] = Op(CONNECT, fd, off=len(packed), memory=packed, owner=_Connecting(stream))
    op.home = driver
    try:
        await op
    except OSError as error:
        error.add_note(f"while connecting to {info[3]!r}")
        await stream.aclose()
        raise
    except BaseException:
        await stream.aclose()
        raise
    return stream


async def _resolve(driver: Driver, host: str, port: int) -> Sequence[AddressInfo]:
    numeric = numeric_address(driver.system, host, port)
    if numeric is not None:
        return (numeric,)
    system = driver.system
    # In a worker that is abandoned on cancellation: a resolver may take minutes to give up.
    return await Offload(lambda: system.getaddrinfo(host, port, system.SOCK_STREAM))
