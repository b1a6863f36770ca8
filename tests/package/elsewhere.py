"""
FreeBSD, macOS, NetBSD or OpenBSD, played on Linux: the head of a program in a fresh interpreter.

`pretend` hides what the system lacks: names of the standard library's modules, and symbols of the C
library.  In their place `sys.platform`, `os.uname` and the socket module tell what it would.

`translate` makes it run, too.  Between the library and the C library of Linux stands a `Library`
that takes the system's numbers and structures, by tables of its own, and gives Linux's.  A number
that the system does not have, or an address that is not laid out as it would be, is told by
`mistakes`.  Errors keep Linux's numbers, for which the library asks the `errno` module.

Sources: <sys/socket.h>, <netinet6/in6.h>, <sys/fcntl.h>, <sys/un.h> of each system.
"""

import _socket
import ctypes
import errno
import os
import posix
import select
import signal
import socket
import struct
import sys
from typing import Any, NamedTuple


def words(text: str) -> list[str]:
    return text.split()


# What only Linux has, of these modules.
ASKED_OF_OS = words(
    "EFD_CLOEXEC EFD_NONBLOCK GRND_NONBLOCK MFD_CLOEXEC O_NOATIME O_PATH O_RSYNC O_TMPFILE "
    "RWF_APPEND RWF_DSYNC RWF_HIPRI RWF_NOWAIT RWF_SYNC SPLICE_F_MORE eventfd eventfd_read "
    "eventfd_write getrandom getxattr listxattr memfd_create pidfd_open removexattr setns setxattr "
    "splice timerfd_create unshare"
)
ASKED_OF_ERRNO = words(
    "EBADE EBADFD EBADR EBADRQC EBADSLT ECHRNG ECOMM EKEYEXPIRED ELNRNG ENOKEY ENOMEDIUM ENONET "
    "ENOTUNIQ EREMCHG EREMOTEIO ERESTART ERFKILL ESTRPIPE EUNATCH EXFULL"
)
ASKED_OF_SOCKET = words(
    "AF_ALG AF_CAN AF_NETLINK AF_PACKET AF_VSOCK IP_RECVTOS MSG_CONFIRM MSG_ERRQUEUE MSG_FASTOPEN "
    "MSG_MORE SO_BINDTODEVICE SO_DOMAIN SO_INCOMING_CPU SO_MARK SO_PASSCRED SO_PASSSEC SO_PEERCRED "
    "SO_PEERSEC SO_PRIORITY TCP_CORK TCP_DEFER_ACCEPT TCP_LINGER2 TCP_QUICKACK TCP_SYNCNT "
    "TCP_USER_TIMEOUT TCP_WINDOW_CLAMP"
)
LINUX_SYMBOLS = frozenset(words(
    "copy_file_range epoll_create1 epoll_ctl epoll_pwait2 epoll_wait eventfd fallocate fallocate64 "
    "ftruncate64 io_uring_enter io_uring_setup pread64 pwrite64 renameat2 statx"
))  # fmt: skip


class Elsewhere(NamedTuple):
    """
    A system.

    Attributes:
        release, machine: As `os.uname` tells.
        kevent_bytes: The size of its ``struct kevent``.
        numbers: What its socket module has, where it is not Linux's.
        lacking: What its modules lack beside the names above, by module.
        symbols: What its C library lacks beside those above.
        at: AT_FDCWD, AT_SYMLINK_NOFOLLOW, AT_SYMLINK_FOLLOW, AT_REMOVEDIR.
        cmsg_align: What ancillary data begins at multiples of.
    """

    name: str
    release: str
    machine: str
    kevent_bytes: int
    numbers: dict[str, int]
    lacking: dict[str, list[str]]
    symbols: frozenset[str]
    at: tuple[int, int, int, int]
    cmsg_align: int


# What every system has.
MESSAGE_FLAGS = ("MSG_OOB", "MSG_PEEK", "MSG_TRUNC", "MSG_CTRUNC", "MSG_WAITALL", "MSG_DONTWAIT")
SOCKET_KINDS = ("SOCK_STREAM", "SOCK_DGRAM")

BSD_NUMBERS = {
    "SOL_SOCKET": 0xFFFF, "SO_ACCEPTCONN": 0x2, "SO_REUSEADDR": 0x4, "SO_KEEPALIVE": 0x8,
    "SO_BROADCAST": 0x20,
    "SO_LINGER": 0x80, "SO_REUSEPORT": 0x200, "SO_SNDBUF": 0x1001, "SO_RCVBUF": 0x1002,
    "SO_ERROR": 0x1007, "SO_TYPE": 0x1008, "IPV6_V6ONLY": 27, "MSG_TRUNC": 0x10,
    "MSG_CTRUNC": 0x20, "MSG_WAITALL": 0x40, "MSG_DONTWAIT": 0x80,
}  # fmt: skip
OLD_BSD_AT = (-100, 0x200, 0x400, 0x800)

SYSTEMS = {
    "darwin": Elsewhere(
        "darwin", "23.1.0", "arm64", 32,
        {**BSD_NUMBERS, "AF_INET6": 30},
        {
            "os": ["O_DIRECT", "copy_file_range", "pipe2", "posix_fadvise", "posix_fallocate",
                   "SEEK_DATA", "SEEK_HOLE", "sched_setaffinity"],
            "errno": ["EHWPOISON", "ENAVAIL"],
            "socket": ["SOCK_CLOEXEC", "SOCK_NONBLOCK", "MSG_CMSG_CLOEXEC", "MSG_NOSIGNAL",
                       "SO_PROTOCOL", "TCP_INFO", "TCP_CONGESTION"],
            "signal": ["sigtimedwait", "sigwaitinfo", "SIGRTMIN", "SIGRTMAX", "SIGPOLL", "SIGPWR"],
        },
        frozenset({"accept4", "syscall"}),
        (-2, 0x20, 0x40, 0x80), 4,
    ),
    "freebsd14": Elsewhere(
        "freebsd14", "14.1-RELEASE", "amd64", 64,
        {**BSD_NUMBERS, "AF_INET6": 28, "MSG_NOSIGNAL": 0x20000, "MSG_CMSG_CLOEXEC": 0x40000,
         "SO_PROTOCOL": 0x1016, "SOCK_CLOEXEC": 0x10000000, "SOCK_NONBLOCK": 0x20000000},
        {"errno": ["ENODATA", "ENOSR", "ENOSTR", "ETIME"], "signal": ["SIGPOLL", "SIGPWR"]},
        frozenset(), OLD_BSD_AT, 8,
    ),
    "freebsd11": Elsewhere(
        "freebsd11", "11.4-RELEASE", "amd64", 32, BSD_NUMBERS, {}, frozenset(), OLD_BSD_AT, 8
    ),
    "netbsd10": Elsewhere(
        "netbsd10", "10.0", "amd64", 40,
        {**BSD_NUMBERS, "AF_INET6": 24, "MSG_NOSIGNAL": 0x400, "MSG_CMSG_CLOEXEC": 0x800,
         "SOCK_CLOEXEC": 0x10000000, "SOCK_NONBLOCK": 0x20000000},
        {"os": ["O_DIRECT", "SEEK_DATA", "SEEK_HOLE", "copy_file_range"],
         "errno": ["EOWNERDEAD"], "socket": ["SO_PROTOCOL", "TCP_CONGESTION"]},
        frozenset({"fallocate"}), OLD_BSD_AT, 8,
    ),
    "openbsd7": Elsewhere(
        "openbsd7", "7.5", "amd64", 32,
        {**BSD_NUMBERS, "AF_INET6": 24, "MSG_NOSIGNAL": 0x400, "MSG_CMSG_CLOEXEC": 0x800,
         "SO_PROTOCOL": 0x1025, "SOCK_CLOEXEC": 0x8000, "SOCK_NONBLOCK": 0x4000},
        {"os": ["O_DIRECT", "SEEK_DATA", "SEEK_HOLE", "copy_file_range", "posix_fadvise",
                "posix_fallocate"],
         "errno": ["ENODATA", "ENOSR", "ENOSTR", "EOWNERDEAD", "ETIME"],
         "signal": ["sigtimedwait", "sigwaitinfo", "SIGRTMIN", "SIGRTMAX", "SIGPOLL", "SIGPWR"],
         "socket": ["TCP_CONGESTION", "TCP_FASTOPEN", "TCP_KEEPIDLE", "TCP_KEEPINTVL"]},
        frozenset({"fallocate", "fdatasync", "syscall"}), (-100, 0x02, 0x04, 0x08), 8,
    ),
}  # fmt: skip

LINUX = {name: getattr(_socket, name) for name in dir(_socket) if name.isupper()}
LINUX_AT = (-100, 0x100, 0x400, 0x200)
HERE = os.uname()
EPOLL = select.epoll
LIBRARY = ctypes.CDLL
mistakes: list[str] = []


def pretend(name: str) -> Elsewhere:
    """Become the system as far as names go."""
    system = SYSTEMS[name]
    lacking = system.lacking
    for module, names in (
        (os, ASKED_OF_OS + lacking.get("os", [])),
        (posix, ASKED_OF_OS + lacking.get("os", [])),
        (errno, ASKED_OF_ERRNO + lacking.get("errno", [])),
        (_socket, ASKED_OF_SOCKET + lacking.get("socket", [])),
        (socket, ASKED_OF_SOCKET + lacking.get("socket", [])),
        (signal, lacking.get("signal", [])),
        (select, [one for one in dir(select) if one.lower().startswith("epoll")]),
    ):
        for one in names:
            if hasattr(module, one):
                delattr(module, one)
    select.kqueue = object  # type: ignore[attr-defined]  # the name is all that is asked of it
    told = type(HERE)((name.rstrip("0123456789"), "host", system.release, "", system.machine))
    posix.uname = os.uname = lambda: told
    sys.platform = name
    for one, number in system.numbers.items():
        setattr(_socket, one, number)
    align = system.cmsg_align
    _socket.CMSG_LEN = lambda length: -(-12 // align) * align + length
    _socket.CMSG_SPACE = lambda length: sum(-(-part // align) * align for part in (12, length))

    def library(file: str | None, *arguments: object, **options: bool) -> "Library":
        assert file is None, f"{file} is loaded"
        return Library(LIBRARY(file, use_errno=True), system)

    ctypes.CDLL = library  # type: ignore[assignment, misc]
    return system


class Library:
    """What `ctypes.CDLL` gives; hidden symbols are none, numbers are the system's."""

    def __init__(self, real: ctypes.CDLL, system: Elsewhere) -> None:
        self._real = real
        self._hidden = LINUX_SYMBOLS | system.symbols
        self._system = system

    def __getitem__(self, name: str) -> Any:
        if name in self._hidden:
            raise AttributeError(f"{self._system.name}: undefined symbol: {name}")
        if name in ("kqueue", "kevent"):
            return None
        function = self._real[name]
        translate = getattr(Translator, name, None)
        return function if translate is None else Translated(translate, function, self._system)

    def __getattr__(self, name: str) -> Any:
        return self[name]


class Translated:
    """A function of the C library that takes the system's numbers."""

    def __init__(self, translate: Any, function: Any, system: Elsewhere) -> None:
        self.__dict__.update(_call=translate, _function=function, _self=Translator(system))

    def __setattr__(self, name: str, value: object) -> None:
        setattr(self._function, name, value)  # argtypes, restype

    def __call__(self, *arguments: Any) -> Any:
        return self._call(self._self, self._function, *arguments)


class Translator:
    """Each function, by its name: the system's arguments to Linux's."""

    def __init__(self, system: Elsewhere) -> None:
        self._system = system
        numbers = {**LINUX, **system.numbers}
        gone = {*system.lacking.get("socket", ()), *ASKED_OF_SOCKET}
        known = {*MESSAGE_FLAGS, *SOCKET_KINDS, *system.numbers} - gone
        self._message = {numbers[one]: LINUX[one] for one in known if one.startswith("MSG_")}
        self._kind = {numbers[one]: LINUX[one] for one in known if one.startswith("SOCK_")}
        self._families = {numbers[one]: LINUX[one] for one in ("AF_INET", "AF_INET6", "AF_UNIX")}
        self._back = {linux: number for number, linux in self._families.items()}
        level = numbers["SOL_SOCKET"]
        self._options = {
            **{(level, numbers[one]): (1, LINUX[one]) for one in known if one.startswith("SO_")},
            (6, 1): (6, 1),  # TCP_NODELAY
            (41, 27): (41, 26),  # IPV6_V6ONLY
        }

    def _flags(self, flags: int, known: dict[int, int]) -> int:
        linux = 0
        for bit in (1 << shift for shift in range(32)):
            if flags & bit:
                if bit not in known:
                    mistakes.append(f"a flag {bit:#x} that there is not, in {flags:#x}")
                linux |= known.get(bit, 0)
        return linux

    def _address(self, raw: bytes) -> bytes:
        if raw[0] != len(raw) or raw[1] not in self._families:
            mistakes.append(f"an address that is none: {raw.hex()}")
        return struct.pack("=H", self._families.get(raw[1], 0)) + raw[2:]

    def _address_back(self, raw: bytes) -> bytes:
        if len(raw) < 2:
            return b""
        return bytes((len(raw), self._back[struct.unpack_from("=H", raw)[0]])) + raw[2:]

    # --- sockets ---------------------------------------------------------------------------------

    def socket(self, real: Any, family: int, kind: int, protocol: int) -> int:
        linux = self._kind.get(kind & 0xF, 0) | self._flags(
            kind & ~0xF, {bit: flag for bit, flag in self._kind.items() if bit > 0xF}
        )
        return real(self._families[family], linux, protocol)

    def bind(self, real: Any, fd: int, addr: int, size: int) -> int:
        raw = self._address(ctypes.string_at(addr, size))
        return real(fd, ctypes.cast(raw, ctypes.c_void_p), len(raw))

    connect = bind

    def accept(self, real: Any, fd: int, addr: int, size_at: int, *flags: int) -> int:
        linux = [self._flags(one, self._kind) for one in flags]
        return self._named(lambda *room: real(fd, *room, *linux), addr, size_at)

    accept4 = accept

    def getsockname(self, real: Any, fd: int, addr: int, size_at: int) -> int:
        return self._named(lambda *room: real(fd, *room), addr, size_at)

    getpeername = getsockname

    def _named(self, call: Any, addr: int, size_at: int) -> int:
        if not addr:
            return call(0, 0)
        room = ctypes.create_string_buffer(128)
        size = ctypes.c_uint32(128)
        res = call(ctypes.addressof(room), ctypes.addressof(size))
        if res >= 0:
            self._write_back(room.raw[: size.value], addr, ctypes.c_uint32.from_address(size_at))
        return res

    def _write_back(self, raw: bytes, addr: int, size: Any) -> None:
        told = self._address_back(raw)
        ctypes.memmove(addr, told[: size.value], min(len(told), size.value))
        size.value = len(told)

    def setsockopt(self, real: Any, fd: int, level: int, option: int, *value: int) -> int:
        if (level, option) == (0xFFFF, 0x1022) and self._system.name == "darwin":
            return 0  # SO_NOSIGPIPE
        linux = self._options.get((level, option))
        if linux is None:
            ctypes.set_errno(errno.ENOPROTOOPT)
            return -1
        return real(fd, *linux, *value)

    getsockopt = setsockopt

    def send(self, real: Any, fd: int, data: Any, size: int, flags: int) -> int:
        return real(fd, data, size, self._flags(flags, self._message))

    recv = send

    def sendto(
        self, real: Any, fd: int, data: Any, size: int, flags: int, name: Any, name_size: int
    ) -> int:
        raw = self._address(name[:name_size]) if name else None
        return real(fd, data, size, self._flags(flags, self._message), raw, name_size)

    def recvfrom(
        self, real: Any, fd: int, addr: Any, size: Any, flags: int, name: Any, size_at: Any
    ) -> int:
        linux = self._flags(flags, self._message)
        call = [one.value if hasattr(one, "value") else one for one in (addr, size, name, size_at)]
        memory, room = ctypes.c_void_p(call[0]), ctypes.c_size_t(call[1])
        return self._named(
            lambda *at: real(fd, memory, room, linux, *map(ctypes.c_void_p, at)), call[2], call[3]
        )

    def sendmsg(self, real: Any, fd: int, addr: int, flags: int) -> int:
        name_at, name_size, pieces, count, control_at, control_size, _ = struct.unpack(
            "=QI4xQI4xQIi", ctypes.string_at(addr, 48)
        )
        name = self._address(ctypes.string_at(name_at, name_size)) if name_at else b""
        control = self._control(ctypes.string_at(control_at, control_size) if control_at else b"")
        kept = ctypes.create_string_buffer(name, 128), ctypes.create_string_buffer(control, 512)
        header = struct.pack(
            "=QI4xQQQQi4x", ctypes.addressof(kept[0]) if name else 0, len(name), pieces, count,
            ctypes.addressof(kept[1]) if control else 0, len(control), 0,
        )  # fmt: skip
        return real(fd, ctypes.cast(header, ctypes.c_void_p), self._flags(flags, self._message))

    def recvmsg(self, real: Any, fd: int, addr: int, flags: int) -> int:
        fields = struct.unpack("=QI4xQI4xQIi", ctypes.string_at(addr, 48))
        name_at, _, pieces, count, control_at, control_size, _ = fields
        name, control = ctypes.create_string_buffer(128), ctypes.create_string_buffer(512)
        header = ctypes.create_string_buffer(struct.pack(
            "=QI4xQQQQi4x", ctypes.addressof(name), 128 if name_at else 0, pieces, count,
            ctypes.addressof(control), 512 if control_at else 0, 0,
        ))  # fmt: skip
        res = real(fd, ctypes.addressof(header), self._flags(flags, self._message))
        if res < 0:
            return res
        _, size, _, _, _, got, told = struct.unpack_from("=QI4xQQQQi4x", header.raw)
        raw = self._address_back(name.raw[:size])
        ctypes.memmove(name_at, raw, len(raw))
        passed = self._control_back(control.raw[:got])
        assert len(passed) <= control_size
        ctypes.memmove(control_at, passed, len(passed))
        back = {linux: number for number, linux in self._message.items()}
        bits = sum(number for linux, number in back.items() if told & linux)
        header_here = struct.pack(
            "=QI4xQI4xQIi", name_at, len(raw), pieces, count, control_at, len(passed), bits
        )
        ctypes.memmove(addr, header_here, 48)
        return res

    def _control(self, raw: bytes) -> bytes:
        linux = b""
        start = -(-12 // self._system.cmsg_align) * self._system.cmsg_align
        while len(raw) >= 12:
            size, level, kind = struct.unpack_from("=Iii", raw)
            if (level, kind, size) != (0xFFFF, 1, start + 4):  # one descriptor
                mistakes.append(f"ancillary data ({level:#x}, {kind}) of {size} bytes")
            data = raw[start:size]
            linux += struct.pack("=Qii", 16 + len(data), 1, kind) + data + bytes(-len(data) % 8)
            raw = raw[size + -size % self._system.cmsg_align :]
        return linux

    def _control_back(self, raw: bytes) -> bytes:
        told, align = b"", self._system.cmsg_align
        start = -(-12 // align) * align
        while len(raw) >= 16:
            size, level, kind = struct.unpack_from("=Qii", raw)
            data = raw[16:size]
            assert (level, kind) == (1, 1)
            head = struct.pack("=Iii", start + len(data), 0xFFFF, 1).ljust(start, b"\0")
            told += head + data + bytes(-len(data) % align)
            raw = raw[size + -size % 8 :]
        return told

    # --- names -----------------------------------------------------------------------------------

    def _at(self, value: int, place: int = 0) -> int:
        return LINUX_AT[place] if value == self._system.at[place] else value

    def unlinkat(self, real: Any, fd: int, path: int, flags: int) -> int:
        if flags not in (0, self._system.at[3]):
            mistakes.append(f"unlinkat({flags:#x})")
        return real(self._at(fd), path, LINUX_AT[3] if flags else 0)

    def mkdirat(self, real: Any, fd: int, path: int, mode: int) -> int:
        return real(self._at(fd), path, mode)

    def symlinkat(self, real: Any, content: int, fd: int, path: int) -> int:
        return real(content, self._at(fd), path)

    def linkat(self, real: Any, fd: int, old: int, new_fd: int, new: int, flags: int) -> int:
        if flags not in (0, self._system.at[2]):
            mistakes.append(f"linkat({flags:#x})")
        return real(self._at(fd), old, self._at(new_fd), new, LINUX_AT[2] if flags else 0)

    def renameat(self, real: Any, fd: int, old: int, new_fd: int, new: int) -> int:
        return real(self._at(fd), old, self._at(new_fd), new)


def translate(system: Elsewhere) -> None:
    """Have what is left of Linux (names of hosts, the wait itself) understand the system too."""
    from uringio._sys.kqueue import EMULATED, VARIABLE
    from uringio._sys.system import System

    make = System.kqueue

    def kqueue(self: System) -> object:
        os.environ[VARIABLE] = EMULATED
        select.epoll = EPOLL
        try:
            return make(self)
        finally:
            del select.epoll, os.environ[VARIABLE]

    System.kqueue = kqueue  # type: ignore[method-assign]
    families = {system.numbers.get("AF_INET6", 10): 10}
    back = {linux: number for number, linux in families.items()}
    pton, ntop, resolve = _socket.inet_pton, _socket.inet_ntop, _socket.getaddrinfo
    _socket.inet_pton = lambda family, host: pton(families.get(family, family), host)
    _socket.inet_ntop = lambda family, raw: ntop(families.get(family, family), raw)
    _socket.getaddrinfo = lambda host, port, family, *rest: [
        (back.get(found[0], found[0]), *found[1:])
        for found in resolve(host, port, families.get(family, family), *rest)
    ]
