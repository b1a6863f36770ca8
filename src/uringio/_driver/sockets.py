"""
Making sockets for a driver: the calls that do not block, on the system's side of the wall.

Surface rooms say what they want in Python's terms; families, levels and option numbers stay here.
"""

import errno
import operator
import os
from collections.abc import Sequence
from typing import Final, Protocol

from uringio._sys.errnos import ENONET
from uringio._sys.memory import pin
from uringio._sys.numbers import (
    IPPROTO_IPV6,
    IPPROTO_TCP,
    IPV6_V6ONLY,
    IS_LINUX,
    MSG_DONTWAIT,
    MSG_NOSIGNAL,
    MSG_WAITALL,
    SO_BROADCAST,
    SO_ERROR,
    SO_KEEPALIVE,
    SO_REUSEADDR,
    SO_REUSEPORT,
    SOL_SOCKET,
    TCP_NODELAY,
)
from uringio._sys.sockaddr import (
    AbstractUnixAddress,
    AddressTuple,
    Inet4Address,
    Inet6Address,
    SocketAddress,
    UnixAddress,
)
from uringio._sys.system import AddressInfo, System
from uringio.errors import op_error

from .contract import Driver

__all__ = [
    "ACCEPT_BROKEN",
    "ACCEPT_EXHAUSTED",
    "MSG_DONTWAIT",
    "SEND_ALL_FLAGS",
    "SEND_FLAGS",
    "SOL_SOCKET",
    "SO_BROADCAST",
    "SO_ERROR",
    "SO_KEEPALIVE",
    "SO_REUSEADDR",
    "SO_REUSEPORT",
    "AbstractUnixAddress",
    "Address",
    "AddressInfo",
    "HasFileno",
    "Inet4Address",
    "Inet6Address",
    "RawOption",
    "SocketAddress",
    "UnixAddress",
    "bind_datagrams",
    "bind_stream_socket",
    "connect_datagrams",
    "number_of",
    "numeric_address",
    "open_datagram_socket",
    "open_listener",
    "open_stream_socket",
    "set_nodelay",
    "unix_address",
]

# What accept(2) reports when there is no descriptor or memory for one more connection.
ACCEPT_EXHAUSTED: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})

# What it reports of a connection that broke while it waited in the backlog.
ACCEPT_BROKEN: Final = frozenset({
    errno.ECONNABORTED, errno.EPERM, errno.EPROTO, errno.ENETDOWN, errno.ENOPROTOOPT,
    errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENETUNREACH, ENONET,
})  # fmt: skip

Address = AddressTuple
RawOption = tuple[int, int, int | bytes]  # level, option, value

_DESCRIPTOR_MAX: Final = (1 << 31) - 1
SEND_FLAGS: Final = MSG_NOSIGNAL
# With WAITALL io_uring itself goes on after a short send; Linux's send(2) ignores it.
SEND_ALL_FLAGS: Final = MSG_NOSIGNAL | (MSG_WAITALL if IS_LINUX else 0)

_INT_MAX: Final = (1 << 31) - 1


class HasFileno(Protocol):
    """Whatever stands for a descriptor: streams, listeners, files, the standard library's."""

    def fileno(self) -> int:
        """The descriptor."""
        ...


def number_of(fd: int | HasFileno) -> int:
    """
    Return the descriptor's number.

    Raises:
        TypeError: *fd* is neither a number nor has it ``fileno()``.
        ValueError: It is negative, or more than 31 bits.
    """
    if not isinstance(fd, int):
        fileno = getattr(fd, "fileno", None)
        if fileno is None:
            raise TypeError(f"a descriptor is an int or has fileno(), which {fd!r} is not")
        number: int = fileno()
    else:
        number = fd
    if not 0 <= number <= _DESCRIPTOR_MAX:
        raise ValueError(f"a descriptor is from 0 up to {_DESCRIPTOR_MAX}, not {number}")
    return number


def numeric_address(
    system: System, host: str, port: int, kind: int = System.SOCK_STREAM
) -> AddressInfo | None:
    """Return *host* as an address if it is numeric, without asking a resolver; else None."""
    if not isinstance(host, str):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise TypeError(f"a host is a str, such as '127.0.0.1' or '::', not {host!r}")
    if not isinstance(port, int):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise TypeError(f"a port is an int from 0 to 65535, not {port!r}")
    if not 0 <= port <= 65535:
        raise ValueError(f"port {port} is outside 0..65535")
    if "%" in host:
        return None  # a scope by name: the resolver knows its number
    candidates: tuple[tuple[int, Address], ...] = (
        (system.AF_INET, (host, port)),
        (system.AF_INET6, (host, port, 0, 0)),
    )
    for family, address in candidates:
        try:
            system.pack_sockaddr(family, address)
        except ValueError:
            continue
        return family, kind, IPPROTO_TCP if kind == system.SOCK_STREAM else 0, address
    return None


def unix_address(system: System, path: str | bytes | os.PathLike[str]) -> AddressInfo:
    """
    Return *path* as an address; a leading NUL names the abstract namespace.

    Raises:
        ValueError: The path is empty or too long.
    """
    address = os.fspath(path)
    if not address:
        raise ValueError("a Unix socket's path is not empty")
    system.pack_sockaddr(system.AF_UNIX, address)
    return system.AF_UNIX, system.SOCK_STREAM, 0, address


def open_listener(
    driver: Driver,
    info: AddressInfo,
    *,
    backlog: int,
    reuse_port: bool = False,
    options: Sequence[RawOption] = (),
) -> int:
    """
    Make a listening stream socket and return its descriptor; see `bind_stream_socket`.

    Raises:
        OpError: The kernel refused, such as EADDRINUSE.
        ValueError: *backlog* is out of range.
    """
    if not 0 <= operator.index(backlog) <= _INT_MAX:
        raise ValueError(f"a backlog is from 0 to {_INT_MAX}, not {backlog}")
    fd = bind_stream_socket(driver, info, reuse_port=reuse_port, options=options)
    try:
        driver.system.listen(fd, backlog)
    except BaseException:
        driver.unregister(fd)
        driver.system.close(fd)
        raise
    return fd


def bind_stream_socket(
    driver: Driver,
    info: AddressInfo,
    *,
    reuse_port: bool = False,
    options: Sequence[RawOption] = (),
) -> int:
    """
    Make a stream socket that is bound, to listen later, and return its descriptor.

    TCP listeners get SO_REUSEADDR, so that a server restarts at once, and TCP_NODELAY, which Linux
    hands on to every accepted socket.  A Unix socket file at which nobody listens any more is
    replaced; another server's is not.

    Raises:
        OpError: The kernel refused, such as EADDRINUSE.
    """
    system = driver.system
    family, kind, protocol, address = info
    fd = system.socket(family, kind, protocol)
    try:
        if family != system.AF_UNIX:
            system.setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, 1)
            if reuse_port:
                system.setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, 1)
            if family == system.AF_INET6:
                system.setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, 1)
            set_nodelay(system, fd)
        for level, option, value in options:
            system.setsockopt(fd, level, option, value)
        try:
            system.bind(fd, family, address)
        except OSError as error:
            if error.errno != errno.EADDRINUSE or not _is_abandoned(system, info):
                raise
            assert isinstance(address, str | bytes)
            system.remove_stale_socket(address)
            system.bind(fd, family, address)
        driver.register(fd)
    except BaseException:
        system.close(fd)
        raise
    return fd


def _is_abandoned(system: System, info: AddressInfo) -> bool:
    """Whether no socket is bound to a Unix path any more; true of other kinds of file as well."""
    family, kind, protocol, address = info
    if family != system.AF_UNIX:
        return False
    # A socket of another kind than the one bound is answered EPROTOTYPE, and so leaves no
    # connection behind for a listener to accept.
    other = system.SOCK_DGRAM if kind == system.SOCK_STREAM else system.SOCK_STREAM
    fd = system.socket(family, other, protocol)
    try:
        addr, len_bytes, _keep = pin(system.pack_sockaddr(family, address))
        return system.connect(fd, addr, len_bytes) == -errno.ECONNREFUSED
    finally:
        system.close(fd)


def open_stream_socket(
    driver: Driver, info: AddressInfo, options: Sequence[RawOption] = ()
) -> tuple[int, bytes]:
    """Make a socket that is to be connected; returns it and the packed address."""
    system = driver.system
    family, kind, protocol, address = info
    packed = system.pack_sockaddr(family, address)
    fd = system.socket(family, kind, protocol)
    try:
        if family != system.AF_UNIX:
            set_nodelay(system, fd)
        for level, option, value in options:
            system.setsockopt(fd, level, option, value)
        driver.register(fd)
    except BaseException:
        system.close(fd)
        raise
    return fd, packed


def open_datagram_socket(
    driver: Driver,
    family: int,
    local: Address | None,
    remote: Address | None,
    *,
    reuse_port: bool = False,
    options: Sequence[RawOption] = (),
) -> int:
    """
    Make a datagram socket, bound and connected where asked to, and return its descriptor.

    Raises:
        OpError: The kernel refused, such as EADDRINUSE.
        ValueError: An address does not fit the family.
    """
    system = driver.system
    packed = None if remote is None else system.pack_sockaddr(family, remote)
    if local is not None:
        system.pack_sockaddr(family, local)
    fd = system.socket(family, system.SOCK_DGRAM)
    try:
        if family == system.AF_INET6:
            system.setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, 1)
        if reuse_port:
            system.setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, 1)
        for level, option, value in options:
            system.setsockopt(fd, level, option, value)
        if local is not None:
            bind_datagrams(system, fd, family, local)
        if packed is not None:
            connect_datagrams(system, fd, packed, remote)
        driver.register(fd)
    except BaseException:
        system.close(fd)
        raise
    return fd


def connect_datagrams(system: System, fd: int, packed: bytes, remote: Address | None) -> None:
    """Give a datagram socket the peer *remote*, *packed*, without waiting; raises `OpError`."""
    addr, len_bytes, _keep = pin(packed)
    res = system.connect(fd, addr, len_bytes)
    if res < 0:
        raise op_error(-res, "connect", fd, detail=repr(remote))


def bind_datagrams(system: System, fd: int, family: int, local: Address) -> None:
    """
    Bind a datagram socket; a Unix socket file to which nobody is bound any more is replaced.

    Raises:
        OpError: The kernel refused, such as EADDRINUSE.
    """
    try:
        system.bind(fd, family, local)
    except OSError as error:
        info = (family, system.SOCK_DGRAM, 0, local)
        if error.errno != errno.EADDRINUSE or not _is_abandoned(system, info):
            raise
        assert isinstance(local, str | bytes)
        system.remove_stale_socket(local)
        system.bind(fd, family, local)


def set_nodelay(system: System, fd: int) -> None:
    """Send small messages at once instead of waiting for more."""
    system.setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, 1)
