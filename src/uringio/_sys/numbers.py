"""
Numbers that differ from system to system, as this one has them.

Off Linux most come from the interpreter's own C module of sockets, which was compiled with the
system's headers.  What it does not have stands here in a table.  On Linux they are written out, for
an interpreter may be older than an option; `tests/sys` compares them with the C compiler's.

What a system lacks is a flag of no bits, or an option with the number -1, to which a kernel answers
ENOPROTOOPT.

Sources: <sys/socket.h> and <fcntl.h> of Linux, FreeBSD 14, macOS 14, NetBSD 10, OpenBSD 7 and
DragonFly 6.
"""

import _socket
import select
import sys
from typing import Final, NamedTuple

__all__ = [
    "AT_FDCWD",
    "AT_REMOVEDIR",
    "AT_SYMLINK_FOLLOW",
    "AT_SYMLINK_NOFOLLOW",
    "FILE_NUMBERS",
    "IPPROTO_IPV6",
    "IPPROTO_TCP",
    "IPV6_V6ONLY",
    "IS_LINUX",
    "MSG_CMSG_CLOEXEC",
    "MSG_CTRUNC",
    "MSG_DONTWAIT",
    "MSG_NOSIGNAL",
    "MSG_OOB",
    "MSG_TRUNC",
    "MSG_WAITALL",
    "NATIVE_POLLER",
    "SCM_RIGHTS",
    "SOL_SOCKET",
    "SO_BROADCAST",
    "SO_ERROR",
    "SO_KEEPALIVE",
    "SO_NOSIGPIPE",
    "SO_PROTOCOL",
    "SO_REUSEADDR",
    "SO_REUSEPORT",
    "SYSTEM",
    "TCP_NODELAY",
    "FileNumbers",
    "flag",
    "number",
]

SYSTEM: Final = sys.platform.rstrip("0123456789")
IS_LINUX: Final = SYSTEM == "linux"


def number(name: str, linux: int) -> int:
    """Return the number of a level or option, -1 where there is none."""
    return linux if IS_LINUX else int(getattr(_socket, name, -1))


def flag(name: str, linux: int) -> int:
    """Return the bits of a flag, 0 where there is none."""
    return linux if IS_LINUX else int(getattr(_socket, name, 0))


# --- sockets -------------------------------------------------------------------------------------
SOL_SOCKET: Final = number("SOL_SOCKET", 1)
IPPROTO_TCP: Final = 6  # as assigned, on every system; so are the next
IPPROTO_IPV6: Final = 41
SO_REUSEADDR: Final = number("SO_REUSEADDR", 2)
SO_BROADCAST: Final = number("SO_BROADCAST", 6)
SO_ERROR: Final = number("SO_ERROR", 4)
SO_KEEPALIVE: Final = number("SO_KEEPALIVE", 9)
SO_REUSEPORT: Final = number("SO_REUSEPORT", 15)
SO_PROTOCOL: Final = number("SO_PROTOCOL", 38)
SO_NOSIGPIPE: Final = 0x1022 if SYSTEM == "darwin" else -1  # in the place of MSG_NOSIGNAL
TCP_NODELAY: Final = 1
IPV6_V6ONLY: Final = number("IPV6_V6ONLY", 26)
SCM_RIGHTS: Final = number("SCM_RIGHTS", 1)

MSG_OOB: Final = flag("MSG_OOB", 0x01)
MSG_CTRUNC: Final = flag("MSG_CTRUNC", 0x08)
MSG_TRUNC: Final = flag("MSG_TRUNC", 0x20)
MSG_DONTWAIT: Final = flag("MSG_DONTWAIT", 0x40)
MSG_WAITALL: Final = flag("MSG_WAITALL", 0x100)
MSG_NOSIGNAL: Final = flag("MSG_NOSIGNAL", 0x4000)
MSG_CMSG_CLOEXEC: Final = flag("MSG_CMSG_CLOEXEC", 0x40000000)


# --- files ---------------------------------------------------------------------------------------
class FileNumbers(NamedTuple):
    """What the calls on names that begin at a folder (``openat``, ...) are told."""

    at_fdcwd: int
    at_symlink_nofollow: int
    at_symlink_follow: int
    at_removedir: int


_OLD_BSD: Final = FileNumbers(-100, 0x200, 0x400, 0x800)

FILE_NUMBERS: Final = {
    "linux": FileNumbers(-100, 0x100, 0x400, 0x200),
    "freebsd": _OLD_BSD,
    "netbsd": _OLD_BSD,
    "openbsd": FileNumbers(-100, 0x02, 0x04, 0x08),
    "darwin": FileNumbers(-2, 0x20, 0x40, 0x80),
    "dragonfly": FileNumbers(-328243, 0x1, 0x8, 0x2),
}

AT_FDCWD, AT_SYMLINK_NOFOLLOW, AT_SYMLINK_FOLLOW, AT_REMOVEDIR = FILE_NUMBERS.get(
    SYSTEM, FILE_NUMBERS["linux"]
)

# --- readiness -----------------------------------------------------------------------------------
# What readiness is waited for with where nobody asks for another.
NATIVE_POLLER: Final = (
    "epoll" if hasattr(select, "epoll") else "kqueue" if hasattr(select, "kqueue") else "poll"
)
