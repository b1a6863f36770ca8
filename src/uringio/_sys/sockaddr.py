"""
Socket addresses between Python and the kernel's bytes.

Addresses are taken as the standard library writes them: ``(host, port)`` for IPv4, ``(host, port,
flowinfo, scope_id)`` for IPv6, of which the last two may be left out, `str` (or `bytes`, for the
abstract namespace) for Unix sockets.  A host is numeric here; an IPv6 one may end in ``%`` and an
interface.  The empty Unix path is the unnamed address: to bind to it has the kernel choose an
abstract name.

What the kernel gives comes back typed (`SocketAddress`), and still equals, unpacks and prints as
the standard library's would.

Sources: ip(7), ipv6(7), unix(7).
"""

import _socket
import os
import struct
from typing import Final, NamedTuple, TypeAlias

from .memory import ReadableBuffer
from .numbers import IS_LINUX

__all__ = [
    "AbstractUnixAddress",
    "AddressTuple",
    "Inet4Address",
    "Inet6Address",
    "SocketAddress",
    "UnixAddress",
    "family_at",
    "pack_sockaddr",
    "unpack_sockaddr",
]

AddressTuple: TypeAlias = tuple[str, int] | tuple[str, int, int, int] | str | bytes


class Inet4Address(NamedTuple):
    """An IPv4 address and port; equal to the tuple ``(host, port)``."""

    host: str
    port: int

    def __repr__(self) -> str:
        return repr(tuple(self))


class Inet6Address(NamedTuple):
    """
    An IPv6 address and port; equal to the tuple of its four parts.

    Attributes:
        scope_id: The network interface's number, for link-local addresses.
    """

    host: str
    port: int
    flowinfo: int = 0
    scope_id: int = 0

    def __repr__(self) -> str:
        return repr(tuple(self))


class UnixAddress(str):
    """The path of a Unix socket, as a `str`; empty for one that has no name."""

    __slots__ = ()

    @property
    def path(self) -> str:
        """The path, as a plain `str`."""
        return str.__str__(self)

    @property
    def unnamed(self) -> bool:
        """Whether the socket is bound to nothing."""
        return not self


class AbstractUnixAddress(bytes):
    """A Unix socket's name in the abstract namespace, as `bytes` that begin with a NUL."""

    __slots__ = ()

    @property
    def name(self) -> bytes:
        """The name without the NUL that marks it."""
        return self[1:]


SocketAddress: TypeAlias = Inet4Address | Inet6Address | UnixAddress | AbstractUnixAddress

# The family: of 16 bits on Linux, of 8 behind the length of the whole on the BSDs and macOS.
_FAMILY: Final = struct.Struct("=H" if IS_LINUX else "=xB")
_IN: Final = struct.Struct("!H4s8x")
_IN6: Final = struct.Struct("!HI16s")
_SCOPE: Final = struct.Struct("=I")
_SIZEOF_IN: Final = 16
_SIZEOF_IN6: Final = 28
_UN_PATH_BYTES_MAX: Final = 108 if IS_LINUX else 104
_SIZES: Final = {int(_socket.AF_INET): _SIZEOF_IN, int(_socket.AF_INET6): _SIZEOF_IN6}
_FLOWINFO_MAX: Final = 0xFFFFF
_U32_MAX: Final = 0xFFFFFFFF


def pack_sockaddr(family: int, address: AddressTuple) -> bytes:
    """
    Encode *address* as the kernel's sockaddr of *family*.

    Raises:
        ValueError: The address does not fit the family, or the path is too long.
    """
    if family == _socket.AF_UNIX:
        return _headed(family, _pack_path(address))
    if family == _socket.AF_INET:
        if len(address) != 2:
            raise ValueError(f"an IPv4 address is (host, port), not {address!r}")
        host, port, _, _ = _internet_parts(address)
        return _headed(family, _IN.pack(port, _packed_host(family, host)))
    if family == _socket.AF_INET6:
        host, port, flowinfo, scope_id = _internet_parts(address)
        host, _, zone = host.partition("%")
        if zone and not scope_id:
            scope_id = _scope_id(zone)
        if not 0 <= flowinfo <= _FLOWINFO_MAX or not 0 <= scope_id <= _U32_MAX:
            raise ValueError(f"flow information or scope out of range: {address!r}")
        packed = _IN6.pack(port, flowinfo, _packed_host(family, host))
        return _headed(family, packed + _SCOPE.pack(scope_id))
    raise ValueError(f"address family {family} is not supported")


def _headed(family: int, rest: bytes) -> bytes:
    if IS_LINUX:
        return _FAMILY.pack(family) + rest
    return bytes((_FAMILY.size + len(rest), family)) + rest


def family_at(raw: ReadableBuffer) -> int:
    """Return the family of an address of two bytes or more."""
    family: int = _FAMILY.unpack_from(raw)[0]
    return family


def _pack_path(address: AddressTuple) -> bytes:
    if isinstance(address, tuple):
        # Whatever does not fit is a ValueError, of whichever type it is.
        raise ValueError(f"a Unix socket address is a path, not {address!r}")  # noqa: TRY004
    path = os.fsencode(address)
    if not IS_LINUX and path.startswith(b"\0"):
        raise ValueError(f"only Linux has an abstract namespace for Unix sockets: {address!r}")
    if path and not path.startswith(b"\0"):
        if b"\0" in path:
            raise ValueError("a Unix socket path cannot hold a NUL byte")
        path += b"\0"
    if len(path) > _UN_PATH_BYTES_MAX:
        raise ValueError(
            f"Unix socket path is {len(path)} bytes with its end, the limit is "
            f"{_UN_PATH_BYTES_MAX}: {address!r}"
        )
    return path


def _internet_parts(address: AddressTuple) -> tuple[str, int, int, int]:
    if not isinstance(address, tuple) or not 2 <= len(address) <= 4:
        raise ValueError(f"an internet address is (host, port), not {address!r}")
    host, port, *rest = address
    if not isinstance(port, int):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise TypeError(f"a port is an int from 0 to 65535, not {port!r}")
    if not 0 <= port <= 65535:
        raise ValueError(f"port {port} is outside 0..65535")
    flowinfo = rest[0] if rest else 0
    scope_id = rest[1] if len(rest) > 1 else 0
    return host, port, flowinfo, scope_id


def _packed_host(family: int, host: str) -> bytes:
    try:
        return _socket.inet_pton(family, host)
    except OSError:
        kind = "IPv6" if family == _socket.AF_INET6 else "IPv4"
        raise ValueError(
            f"{host!r} is no numeric {kind} address; resolve() finds those of a name"
        ) from None


def _scope_id(zone: str) -> int:
    if zone.isdecimal():
        return int(zone)
    try:
        return _socket.if_nametoindex(zone)
    except OSError:
        raise ValueError(f"there is no network interface {zone!r}") from None


def unpack_sockaddr(raw: bytes) -> SocketAddress:
    """
    Decode the kernel's sockaddr; an empty or unnamed one gives ``""``.

    Raises:
        ValueError: It is of a family that is not supported, or cut short.
    """
    if len(raw) < 2:
        return UnixAddress()
    family = family_at(raw)
    if len(raw) < _SIZES.get(family, 0):
        raise ValueError(f"{len(raw)} bytes are no address of family {family}")
    if family == _socket.AF_INET:
        port, packed = _IN.unpack_from(raw, 2)
        return Inet4Address(_socket.inet_ntop(family, packed), port)
    if family == _socket.AF_INET6:
        port, flowinfo, packed = _IN6.unpack_from(raw, 2)
        scope_id: int = _SCOPE.unpack_from(raw, 24)[0]
        return Inet6Address(_socket.inet_ntop(family, packed), port, flowinfo, scope_id)
    if family == _socket.AF_UNIX:
        path = raw[2:]
        if IS_LINUX and path.startswith(b"\0"):
            return AbstractUnixAddress(
                path
            )  # abstract namespace: every byte counts, the closing ones too
        return UnixAddress(os.fsdecode(path.partition(b"\0")[0]))
    raise ValueError(f"address family {family} is not supported")
