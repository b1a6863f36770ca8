"""
Socket options by name, each with the type of its value.

The numbers below are those of the generic ABI of Linux's <asm-generic/socket.h> and <netinet/*.h>;
`tests/sys` compares them with the C compiler's.  Other systems have their own (`_sys.numbers`), and
lack some of these options.
"""

import operator
from collections.abc import Callable
from struct import Struct
from typing import Final, Generic, TypeVar

from uringio._sys.layouts import UCRED
from uringio._sys.numbers import SOL_SOCKET
from uringio._sys.numbers import number as number_here
from uringio.errors import UsageError

from . import current
from .messages import Credentials
from .sockets import HasFileno, RawOption, number_of

__all__ = [
    "IPV6_MULTICAST_HOPS",
    "IPV6_MULTICAST_LOOP",
    "IPV6_TCLASS",
    "IPV6_UNICAST_HOPS",
    "IPV6_V6ONLY",
    "IP_MTU_DISCOVER",
    "IP_MULTICAST_LOOP",
    "IP_MULTICAST_TTL",
    "IP_TOS",
    "IP_TTL",
    "SO_ACCEPTCONN",
    "SO_BINDTODEVICE",
    "SO_BROADCAST",
    "SO_BUSY_POLL",
    "SO_DOMAIN",
    "SO_DONTROUTE",
    "SO_ERROR",
    "SO_INCOMING_CPU",
    "SO_KEEPALIVE",
    "SO_LINGER",
    "SO_MARK",
    "SO_PASSCRED",
    "SO_PASSPIDFD",
    "SO_PEERCRED",
    "SO_PRIORITY",
    "SO_PROTOCOL",
    "SO_RCVBUF",
    "SO_RCVLOWAT",
    "SO_REUSEADDR",
    "SO_REUSEPORT",
    "SO_SNDBUF",
    "SO_TYPE",
    "TCP_CONGESTION",
    "TCP_CORK",
    "TCP_DEFER_ACCEPT",
    "TCP_FASTOPEN",
    "TCP_KEEPCNT",
    "TCP_KEEPIDLE",
    "TCP_KEEPINTVL",
    "TCP_MAXSEG",
    "TCP_NODELAY",
    "TCP_NOTSENT_LOWAT",
    "TCP_QUICKACK",
    "TCP_USER_TIMEOUT",
    "UDP_GRO",
    "UDP_SEGMENT",
    "SocketOption",
]

T = TypeVar("T")

_INT: Final = Struct("=i")
_LINGER: Final = Struct("=ii")
_INT_MAX: Final = (1 << 31) - 1
_NAME_BYTES_MAX: Final = 16  # IFNAMSIZ, and TCP_CA_NAME_MAX


class SocketOption(Generic[T]):
    """
    An option of sockets.

    Use it from tasks: it speaks to the kernel through the loop that runs.

    Attributes:
        name: As in C.
        level, number: As setsockopt(2) takes them; -1 for an option that this system lacks.
    """

    __slots__ = ("_decode", "_encode", "_size", "level", "name", "number")

    def __init__(
        self,
        name: str,
        level: int,
        number: int,
        size: int,
        decode: Callable[[bytes], T],
        encode: Callable[[T], int | bytes] | None,
    ) -> None:
        self.name = name
        self.level = level
        self.number = number_here(name, number)
        self._size = size
        self._decode = decode
        self._encode = encode

    def __repr__(self) -> str:
        return self.name

    def get(self, sock: int | HasFileno) -> T:
        """
        Ask for the option's value.

        Raises:
            OpError: The kernel refused, such as ENOPROTOOPT.
        """
        system = current.driver().system
        fd = number_of(sock)
        return self._decode(system.getsockopt_bytes(fd, self.level, self.number, self._size))

    def set(self, sock: int | HasFileno, value: T) -> None:
        """
        Set the option.

        Raises:
            OpError: The kernel refused.
            ValueError: The value is out of range.
            UsageError: The option can only be read.
        """
        level, number, raw = self.to(value)
        current.driver().system.setsockopt(number_of(sock), level, number, raw)

    def to(self, value: T) -> RawOption:
        """Pair the option with a value, for the *options* of functions that make sockets."""
        if self._encode is None:
            raise UsageError(f"{self.name} can only be read")
        return self.level, self.number, self._encode(value)


def _int_of(raw: bytes) -> int:
    number: int = _INT.unpack(raw.ljust(4, b"\0"))[0]
    return number


def _to_int(value: int) -> int:
    value = operator.index(value)
    if not -_INT_MAX - 1 <= value <= _INT_MAX:
        raise ValueError(f"{value} does not fit a C int")
    return value


def _linger_of(raw: bytes) -> int | None:
    on, seconds = _LINGER.unpack(raw)
    return seconds if on else None


def _to_linger(seconds: int | None) -> bytes:
    if seconds is None:
        return _LINGER.pack(0, 0)
    if not 0 <= operator.index(seconds) <= _INT_MAX:
        raise ValueError(f"a time to linger is from 0 up, not {seconds} seconds")
    return _LINGER.pack(1, seconds)


def _to_name(name: str) -> bytes:
    raw = name.encode("ascii") + b"\0"
    if len(raw) > _NAME_BYTES_MAX:
        raise ValueError(f"{name!r} is longer than {_NAME_BYTES_MAX - 1} characters")
    return raw


def _name_of(raw: bytes) -> str:
    return raw.partition(b"\0")[0].decode("ascii", "replace")


def _credentials_of(raw: bytes) -> Credentials:
    return Credentials(*UCRED.unpack(raw))


def _flag(name: str, level: int, number: int, *, writable: bool = True) -> SocketOption[bool]:
    def encode(value: bool) -> int:
        return 1 if value else 0

    def decode(raw: bytes) -> bool:
        return _int_of(raw) != 0

    return SocketOption(name, level, number, 4, decode, encode if writable else None)


def _integer(name: str, level: int, number: int, *, writable: bool = True) -> SocketOption[int]:
    return SocketOption(name, level, number, 4, _int_of, _to_int if writable else None)


def _text(name: str, level: int, number: int) -> SocketOption[str]:
    return SocketOption(name, level, number, _NAME_BYTES_MAX, _name_of, _to_name)


_SOCKET: Final = SOL_SOCKET
_IP: Final = 0
_TCP: Final = 6
_UDP: Final = 17
_IPV6: Final = 41


SO_REUSEADDR: Final = _flag("SO_REUSEADDR", _SOCKET, 2)
SO_TYPE: Final = _integer("SO_TYPE", _SOCKET, 3, writable=False)
SO_ERROR: Final = _integer("SO_ERROR", _SOCKET, 4, writable=False)
SO_DONTROUTE: Final = _flag("SO_DONTROUTE", _SOCKET, 5)
SO_BROADCAST: Final = _flag("SO_BROADCAST", _SOCKET, 6)
SO_SNDBUF: Final = _integer("SO_SNDBUF", _SOCKET, 7)
SO_RCVBUF: Final = _integer("SO_RCVBUF", _SOCKET, 8)
SO_KEEPALIVE: Final = _flag("SO_KEEPALIVE", _SOCKET, 9)
SO_PRIORITY: Final = _integer("SO_PRIORITY", _SOCKET, 12)
SO_LINGER: Final = SocketOption("SO_LINGER", _SOCKET, 13, 8, _linger_of, _to_linger)
SO_REUSEPORT: Final = _flag("SO_REUSEPORT", _SOCKET, 15)
SO_PASSCRED: Final = _flag("SO_PASSCRED", _SOCKET, 16)
SO_PEERCRED: Final = SocketOption("SO_PEERCRED", _SOCKET, 17, UCRED.size, _credentials_of, None)
SO_RCVLOWAT: Final = _integer("SO_RCVLOWAT", _SOCKET, 18)
SO_BINDTODEVICE: Final = _text("SO_BINDTODEVICE", _SOCKET, 25)
SO_ACCEPTCONN: Final = _flag("SO_ACCEPTCONN", _SOCKET, 30, writable=False)
SO_MARK: Final = _integer("SO_MARK", _SOCKET, 36)
SO_PROTOCOL: Final = _integer("SO_PROTOCOL", _SOCKET, 38, writable=False)
SO_DOMAIN: Final = _integer("SO_DOMAIN", _SOCKET, 39, writable=False)
SO_BUSY_POLL: Final = _integer("SO_BUSY_POLL", _SOCKET, 46)
SO_PASSPIDFD: Final = _flag("SO_PASSPIDFD", _SOCKET, 76)
SO_INCOMING_CPU: Final = _integer("SO_INCOMING_CPU", _SOCKET, 49)
IP_TOS: Final = _integer("IP_TOS", _IP, 1)
IP_TTL: Final = _integer("IP_TTL", _IP, 2)
IP_MTU_DISCOVER: Final = _integer("IP_MTU_DISCOVER", _IP, 10)
IP_MULTICAST_TTL: Final = _integer("IP_MULTICAST_TTL", _IP, 33)
IP_MULTICAST_LOOP: Final = _flag("IP_MULTICAST_LOOP", _IP, 34)
IPV6_UNICAST_HOPS: Final = _integer("IPV6_UNICAST_HOPS", _IPV6, 16)
IPV6_MULTICAST_HOPS: Final = _integer("IPV6_MULTICAST_HOPS", _IPV6, 18)
IPV6_MULTICAST_LOOP: Final = _flag("IPV6_MULTICAST_LOOP", _IPV6, 19)
IPV6_V6ONLY: Final = _flag("IPV6_V6ONLY", _IPV6, 26)
IPV6_TCLASS: Final = _integer("IPV6_TCLASS", _IPV6, 67)
TCP_NODELAY: Final = _flag("TCP_NODELAY", _TCP, 1)
TCP_MAXSEG: Final = _integer("TCP_MAXSEG", _TCP, 2)
TCP_CORK: Final = _flag("TCP_CORK", _TCP, 3)
TCP_KEEPIDLE: Final = _integer("TCP_KEEPIDLE", _TCP, 4)
TCP_KEEPINTVL: Final = _integer("TCP_KEEPINTVL", _TCP, 5)
TCP_KEEPCNT: Final = _integer("TCP_KEEPCNT", _TCP, 6)
TCP_DEFER_ACCEPT: Final = _integer("TCP_DEFER_ACCEPT", _TCP, 9)
TCP_QUICKACK: Final = _flag("TCP_QUICKACK", _TCP, 12)
TCP_CONGESTION: Final = _text("TCP_CONGESTION", _TCP, 13)
TCP_USER_TIMEOUT: Final = _integer("TCP_USER_TIMEOUT", _TCP, 18)
TCP_FASTOPEN: Final = _integer("TCP_FASTOPEN", _TCP, 23)
TCP_NOTSENT_LOWAT: Final = _integer("TCP_NOTSENT_LOWAT", _TCP, 25)
UDP_SEGMENT: Final = _integer("UDP_SEGMENT", _UDP, 103)
UDP_GRO: Final = _flag("UDP_GRO", _UDP, 104)
