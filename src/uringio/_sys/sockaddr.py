"""
Socket addresses between Python tuples and the kernel's bytes.

Addresses are those of the standard library: ``(host, port)`` for IPv4, ``(host, port, flowinfo,
scope_id)`` for IPv6, `str` (or `bytes`, for the abstract namespace) for Unix sockets.

Sources: ip(7), ipv6(7), unix(7).
"""

import _socket
import os
import struct
from typing import Final, TypeAlias

__all__ = ["AddressTuple", "pack_sockaddr", "unpack_sockaddr"]

AddressTuple: TypeAlias = tuple[str, int] | tuple[str, int, int, int] | str | bytes

_FAMILY: Final = struct.Struct("=H")
_IN: Final = struct.Struct("!H4s8x")
_IN6: Final = struct.Struct("!HI16s")
_SCOPE: Final = struct.Struct("=I")
_UN_PATH_BYTES_MAX: Final = 108


def pack_sockaddr(family: int, address: AddressTuple) -> bytes:
    """
    Encode *address* as the kernel's sockaddr of *family*.

    Raises:
        ValueError: The address does not fit the family, or the path is too long.
    """
    if family == _socket.AF_UNIX:
        if isinstance(address, tuple):
            raise ValueError(f"a Unix socket address is a path, not {address!r}")
        path = os.fsencode(address)
        if not path.startswith(b"\0"):
            if b"\0" in path:
                raise ValueError("a Unix socket path cannot hold a NUL byte")
            path += b"\0"
        if len(path) > _UN_PATH_BYTES_MAX:
            raise ValueError(
                f"Unix socket path is {len(path)} bytes with its end, the limit is "
                f"{_UN_PATH_BYTES_MAX}: {address!r}"
            )
        return _FAMILY.pack(family) + path
    if not isinstance(address, tuple) or len(address) < 2:
        raise ValueError(f"an internet address is (host, port), not {address!r}")
    host, port = address[0], address[1]
    if not 0 <= port <= 65535:
        raise ValueError(f"port {port} is outside 0..65535")
    try:
        if family == _socket.AF_INET:
            return _FAMILY.pack(family) + _IN.pack(port, _socket.inet_pton(family, host))
        if family == _socket.AF_INET6:
            flowinfo, scope_id = (address[2], address[3]) if len(address) == 4 else (0, 0)
            host = host.partition("%")[0]
            return (
                _FAMILY.pack(family)
                + _IN6.pack(port, flowinfo, _socket.inet_pton(family, host))
                + _SCOPE.pack(scope_id)
            )
    except OSError:
        raise ValueError(f"{host!r} is not a numeric address of family {family}") from None
    raise ValueError(f"address family {family} is not supported")


def unpack_sockaddr(raw: bytes) -> AddressTuple:
    """Decode the kernel's sockaddr; an empty or unnamed one gives ``""``."""
    if len(raw) < 2:
        return ""
    family: int = _FAMILY.unpack_from(raw)[0]
    if family == _socket.AF_INET:
        port, packed = _IN.unpack_from(raw, 2)
        return _socket.inet_ntop(family, packed), port
    if family == _socket.AF_INET6:
        port, flowinfo, packed = _IN6.unpack_from(raw, 2)
        scope_id: int = _SCOPE.unpack_from(raw, 24)[0]
        return _socket.inet_ntop(family, packed), port, flowinfo, scope_id
    if family == _socket.AF_UNIX:
        path = raw[2:]
        if path.startswith(b"\0"):
            return path  # abstract namespace: every byte counts, the closing ones too
        return os.fsdecode(path.partition(b"\0")[0])
    raise ValueError(f"address family {family} is not supported")
