"""Making streams, listeners and datagram sockets from addresses and names."""

import errno
import os
from collections.abc import Sequence
from typing import Final

from uringio._driver import current
from uringio._driver.contract import Driver
from uringio._driver.socket_options import SO_ACCEPTCONN, SO_TYPE
from uringio._driver.sockets import (
    Address,
    AddressInfo,
    RawOption,
    open_datagram_socket,
    open_listener,
    unix_address,
)
from uringio._own.fd import OwnedFd
from uringio.errors import OpError

from ._closing import BoundPath
from ._connecting import ATTEMPT_DELAY_SECONDS, connect, connect_first
from ._datagrams import DatagramSocket
from ._listener import Listener
from ._resolving import resolve_infos
from ._stream import SocketStream

__all__ = [
    "adopt_listener",
    "connect_tcp",
    "connect_unix",
    "listen_tcp",
    "listen_unix",
    "open_udp",
    "open_unix_datagram",
]

_BACKLOG: Final = 4096
_DELAY_SECONDS_MAX: Final = 1e9

UnixPath = str | bytes | os.PathLike[str]


async def listen_tcp(
    host: str,
    port: int,
    *,
    backlog: int = _BACKLOG,
    reuse_port: bool = False,
    options: Sequence[RawOption] = (),
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
    for info in await resolve_infos(driver, host, port, driver.system.SOCK_STREAM):
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
    path: UnixPath, *, backlog: int = _BACKLOG, options: Sequence[RawOption] = ()
) -> Listener:
    """
    Listen on a Unix stream socket.

    Args:
        path: Where; a leading NUL names the abstract namespace.  A socket that an earlier server
            left behind is replaced; one at which somebody listens is not, and no other file is.
            Closing removes it, unless another server has taken it over since.
        backlog: Connections that may wait to be accepted. [count]
        options: Further socket options as (level, option, value), set before binding.

    Raises:
        ValueError: The path is empty or too long.
        OpError: The path cannot be bound, such as EADDRINUSE.
    """
    driver = current.driver()
    info = unix_address(driver.system, path)
    fd = open_listener(driver, info, backlog=backlog, options=options)
    return Listener(driver, fd, _bound_path(driver, info[3]))


def adopt_listener(fd: int | OwnedFd) -> Listener:
    """
    Take over a socket that listens already: inherited, passed by another process, or made by hand.

    The listener owns the descriptor from now on and closes it.  A socket object of the standard
    library lets go of its own by ``detach``; to keep it, pass ``os.dup(sock.fileno())``.

    Args:
        fd: A listening stream socket, of TCP or Unix.  Whether it waits (O_NONBLOCK) is set as the
            backend needs it, for every process that shares the socket.

    Raises:
        ValueError: It is no socket, not of streams, or does not listen; it stays the caller's.
        TypeError: It is neither a number nor an `OwnedFd`; likewise.
        OpError: Such as EBADF, when it is not open.
        ClosedError: The `OwnedFd` was closed or taken.

    Example::

        listener = adopt_listener(3)  # where systemd hands over a service's first socket

    Source: socket(7), SO_TYPE and SO_ACCEPTCONN.
    """
    if not isinstance(fd, (int, OwnedFd)):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise TypeError(f"a descriptor is a number or an OwnedFd, not {fd!r}")
    driver = current.driver()
    number = fd if isinstance(fd, int) else fd.number
    try:
        kind = SO_TYPE.get(number)
        listens = SO_ACCEPTCONN.get(number)
    except OpError as error:
        if error.errno == errno.ENOTSOCK:
            raise ValueError(f"descriptor {number} is not a socket") from None
        raise
    if kind != driver.system.SOCK_STREAM:
        raise ValueError(f"descriptor {number} is a socket, but not of streams")
    if not listens:
        raise ValueError(f"descriptor {number} is a socket that does not listen")
    driver.register(number)
    return Listener(driver, number if isinstance(fd, int) else fd.take())


async def connect_tcp(
    host: str,
    port: int,
    *,
    options: Sequence[RawOption] = (),
    attempt_delay_seconds: float = ATTEMPT_DELAY_SECONDS,
) -> SocketStream:
    """
    Connect to a TCP address.

    Args:
        host: A numeric address or a name.  Several addresses of a name are tried by "happy
            eyeballs" (RFC 8305): families take turns, and an address that does not answer does not
            hold up the others.
        port: 1..65535.
        options: Further socket options as (level, option, value), set before connecting; see
            `uringio.net.options`.
        attempt_delay_seconds: How long an attempt may take before the next one begins beside it.

    Raises:
        OpError: No address answered; the error is that of the first one to fail, such as
            `ConnectionRefusedError`.
        OSError: The name cannot be resolved (``socket.gaierror``).

    Cancellation: at once; every socket is closed.

    TCP_NODELAY is on.
    """
    if not attempt_delay_seconds >= 0:
        raise ValueError(f"a delay is from 0 up, not {attempt_delay_seconds!r} seconds")
    driver = current.driver()
    infos = await resolve_infos(driver, host, port, driver.system.SOCK_STREAM)
    delay_ns = int(min(attempt_delay_seconds, _DELAY_SECONDS_MAX) * 1e9)
    return await connect_first(driver, infos, options, delay_ns)


async def connect_unix(path: UnixPath, *, options: Sequence[RawOption] = ()) -> SocketStream:
    """
    Connect to a Unix stream socket.

    Raises:
        ValueError: The path is empty or too long.
        OpError: Nobody listens there (`FileNotFoundError`, `ConnectionRefusedError`).

    Cancellation: at once; the socket is closed.
    """
    driver = current.driver()
    return await connect(driver, unix_address(driver.system, path), options)


async def open_udp(
    local: Address | None = None,
    remote: Address | None = None,
    *,
    reuse_port: bool = False,
    options: Sequence[RawOption] = (),
) -> DatagramSocket:
    """
    Make a UDP socket.

    Args:
        local: The host and port to receive on; port 0 lets the kernel choose.  None: the kernel
            chooses both, at the latest when something is sent.
        remote: The host and port to connect to: `DatagramSocket.send` sends there, only what comes
            from there is received, and refusals by the peer are told.
        reuse_port: Share the port with other sockets that say so too (SO_REUSEPORT).
        options: Further socket options as (level, option, value), set before binding; see
            `uringio.net.options`.

    A host is a numeric address or a name.  Of a name's addresses the first is taken that is of the
    same family as the other host's.  Without either, the socket is of IPv4.  Addresses of other
    sockets (`local_address`) are taken as they are, flow information and scope included.

    Raises:
        OpError: The kernel refused, such as EADDRINUSE.
        OSError: A name cannot be resolved (``socket.gaierror``).
        ValueError: A port is out of range, the hosts have no family in common, or an address is
            that of a Unix socket.
    """
    driver = current.driver()
    system = driver.system
    here = None if local is None else await _datagram_infos(driver, local)
    there = None if remote is None else await _datagram_infos(driver, remote)
    family, here_address, there_address = _same_family(here, there, system.AF_INET)
    fd = open_datagram_socket(
        driver, family, here_address, there_address, reuse_port=reuse_port, options=options
    )
    return DatagramSocket(driver, fd, family)


async def open_unix_datagram(
    local: UnixPath | None = None,
    remote: UnixPath | None = None,
    *,
    options: Sequence[RawOption] = (),
) -> DatagramSocket:
    """
    Make a Unix datagram socket.

    Args:
        local: The path to receive on; a leading NUL names the abstract namespace.  A socket that an
            earlier process left behind is replaced, no other file is; closing removes it, unless
            another socket has been bound there since.  None: it has no name, and nobody can answer.
        remote: The path to connect to.
        options: Further socket options as (level, option, value), set before binding.

    Raises:
        ValueError: A path is empty or too long.
        OpError: The kernel refused, such as EADDRINUSE, `FileNotFoundError`,
            `ConnectionRefusedError`.
    """
    driver = current.driver()
    here = None if local is None else unix_address(driver.system, local)[3]
    there = None if remote is None else unix_address(driver.system, remote)[3]
    family = driver.system.AF_UNIX
    fd = open_datagram_socket(driver, family, here, there, options=options)
    return DatagramSocket(driver, fd, family, _bound_path(driver, here))


def _bound_path(driver: Driver, address: Address | None) -> BoundPath | None:
    """Return what removes the path of a Unix socket, None where there is none to be removed."""
    if isinstance(address, str | bytes) and os.fsencode(address)[:1] != b"\0":
        return BoundPath(driver.system, address)
    return None


async def _datagram_infos(driver: Driver, where: Address) -> Sequence[AddressInfo]:
    kind = driver.system.SOCK_DGRAM
    if isinstance(where, str | bytes):
        raise ValueError(f"a UDP address is (host, port), not {where!r}")  # noqa: TRY004  as pack
    if len(where) == 2:
        return await resolve_infos(driver, where[0], where[1], kind)
    driver.system.pack_sockaddr(driver.system.AF_INET6, where)
    return ((driver.system.AF_INET6, kind, 0, where),)


def _same_family(
    here: Sequence[AddressInfo] | None, there: Sequence[AddressInfo] | None, default: int
) -> tuple[int, Address | None, Address | None]:
    """Choose addresses of one family, the earlier ones first."""
    if here is None or there is None:
        for infos in (here, there):
            if infos is not None:
                family, _, _, address = infos[0]
                return family, address if here else None, address if there else None
        return default, None, None
    for family, _, _, remote in there:
        for other, _, _, local in here:
            if other == family:
                return family, local, remote
    raise ValueError(f"{here[0][3]!r} and {there[0][3]!r} are of different address families")
