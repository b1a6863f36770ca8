"""
Two doors to the C library.

The *typed* door serves cold calls: each function declares its argument types and answers ``-errno``
instead of ``-1``, so that callers need no thread-local look-up.  The *bare* door serves
``io_uring_enter`` alone: ``syscall`` without declared types costs 380 ns where the typed one costs
1000 (CPython 3.11).  Its price is a rule: without ``argtypes`` an `int` travels as a C ``int``, and
the seventh argument of ``syscall`` lies on the stack, where the upper half of the slot is garbage.
The last two arguments must therefore be prebuilt `ctypes.c_void_p` and `ctypes.c_size_t` objects;
`tests/sys/test_libc.py` pins that.

A limit of both doors: ctypes keeps errno in one cell per thread.  A signal handler runs behind the
call and before we look; if it makes a ctypes call of its own that fails, we see its errno.  Where
that would be the end of a ring, `_ring.queue` asks again.
"""

import ctypes
import errno
from collections.abc import Callable
from typing import Final, Protocol

from .numbers import IS_LINUX

__all__ = [
    "BareRecvFrom",
    "BareSend",
    "BareSendTo",
    "BareSyscall",
    "Libc",
    "get_errno",
    "pointer_argument",
    "size_argument",
]

get_errno: Callable[[], int] = ctypes.get_errno

_INT: Final = ctypes.c_int
_LONG: Final = ctypes.c_long
_PTR: Final = ctypes.c_void_p
_SIZE: Final = ctypes.c_size_t
_SSIZE: Final = ctypes.c_ssize_t
_OFF: Final = ctypes.c_int64


class BareSyscall(Protocol):
    """``syscall(nr, fd, to_submit, min_complete, flags, argp, argsz)``; at -1 ask `get_errno`."""

    def __call__(
        self,
        nr: int,
        fd: int,
        to_submit: int,
        min_complete: int,
        flags: int,
        argp: ctypes.c_void_p,
        argsz: ctypes.c_size_t,
        /,
    ) -> int: ...


class BareSend(Protocol):
    """``send(fd, data, len_bytes, flags)``, below 2 GiB; -1 means: ask `get_errno`."""

    def __call__(self, fd: int, data: bytes, len_bytes: int, flags: int, /) -> int: ...


class BareSendTo(Protocol):
    """``sendto``, as `BareSend`; *name* is a packed address, None for the connected peer."""

    def __call__(
        self,
        fd: int,
        data: bytes,
        len_bytes: int,
        flags: int,
        name: bytes | None,
        name_bytes: int,
        /,
    ) -> int: ...


class BareRecvFrom(Protocol):
    """``recvfrom(fd, data, len_bytes, flags, name, name_bytes)``, all but two prebuilt."""

    def __call__(
        self,
        fd: int,
        data: ctypes.c_void_p,
        len_bytes: ctypes.c_size_t,
        flags: int,
        name: ctypes.c_void_p,
        name_bytes: ctypes.c_void_p,
        /,
    ) -> int: ...


def pointer_argument(addr: int) -> ctypes.c_void_p:
    """Prebuild a pointer for the bare door; 0 is NULL."""
    return ctypes.c_void_p(addr)


def size_argument(size: int) -> ctypes.c_size_t:
    """Prebuild a size for the bare door."""
    return ctypes.c_size_t(size)


class _Function(Protocol):
    def __call__(self, *args: int) -> int: ...


class Libc:
    """The functions of the C library that the rooms use, each answering a result or ``-errno``."""

    def __init__(self) -> None:
        self._library = ctypes.CDLL(None, use_errno=True)
        # Linux's numbers are other calls elsewhere.
        bare = self._library["syscall"] if IS_LINUX else _missing_bare
        self.bare_syscall: BareSyscall = bare
        # Bytes travel as the pointer to their storage; about 400 ns below the typed door.
        bare_send = self._library["send"]
        self.bare_send: BareSend = bare_send
        bare_recv_from = self._library["recvfrom"]
        self.bare_recv_from: BareRecvFrom = bare_recv_from
        bare_send_to = self._library["sendto"]
        self.bare_send_to: BareSendTo = bare_send_to
        self.syscall = _missing
        if IS_LINUX:
            self.syscall = self._typed(
                "syscall", _LONG, _LONG, _LONG, _LONG, _LONG, _LONG, _PTR, _SIZE
            )
        self.mmap = self._typed("mmap", _PTR, _PTR, _SIZE, _INT, _INT, _INT, _OFF)
        self.munmap = self._typed("munmap", _INT, _PTR, _SIZE)
        # NetBSD kept the old name for old programs.
        self.socket = self._typed_any(("__socket30", "socket"), _INT, _INT, _INT, _INT)
        self.accept = self._typed("accept", _INT, _INT, _PTR, _PTR)
        self.bind = self._typed("bind", _INT, _INT, _PTR, _INT)
        self.listen = self._typed("listen", _INT, _INT, _INT)
        self.connect = self._typed("connect", _INT, _INT, _PTR, _INT)
        self.shutdown = self._typed("shutdown", _INT, _INT, _INT)
        self.getsockname = self._typed("getsockname", _INT, _INT, _PTR, _PTR)
        self.getpeername = self._typed("getpeername", _INT, _INT, _PTR, _PTR)
        self.setsockopt = self._typed("setsockopt", _INT, _INT, _INT, _INT, _PTR, _INT)
        self.getsockopt = self._typed("getsockopt", _INT, _INT, _INT, _INT, _PTR, _PTR)
        self.recv = self._typed("recv", _SSIZE, _INT, _PTR, _SIZE, _INT)
        self.send = self._typed("send", _SSIZE, _INT, _PTR, _SIZE, _INT)
        self.sendmsg = self._typed("sendmsg", _SSIZE, _INT, _PTR, _INT)
        self.recvmsg = self._typed("recvmsg", _SSIZE, _INT, _PTR, _INT)
        self.read = self._typed("read", _SSIZE, _INT, _PTR, _SIZE)
        self.write = self._typed("write", _SSIZE, _INT, _PTR, _SIZE)
        self.close = self._typed("close", _INT, _INT)
        self.fsync = self._typed("fsync", _INT, _INT)
        self.unlinkat = self._typed("unlinkat", _INT, _INT, _PTR, _INT)
        self.mkdirat = self._typed("mkdirat", _INT, _INT, _PTR, _INT)
        self.symlinkat = self._typed("symlinkat", _INT, _PTR, _INT, _PTR)
        self.linkat = self._typed("linkat", _INT, _INT, _PTR, _INT, _PTR, _INT)
        self.renameat = self._typed("renameat", _INT, _INT, _PTR, _INT, _PTR)
        # What not every C library has, by the names it may have there.
        self.accept4 = self._typed_any(("accept4",), _INT, _INT, _PTR, _PTR, _INT)
        self.fdatasync = self._typed_any(("fdatasync", "fsync"), _INT, _INT)
        self.pread64 = self._typed_any(("pread64", "pread"), _SSIZE, _INT, _PTR, _SIZE, _OFF)
        self.pwrite64 = self._typed_any(("pwrite64", "pwrite"), _SSIZE, _INT, _PTR, _SIZE, _OFF)
        self.fallocate64 = self._typed_any(
            ("fallocate64", "fallocate"), _INT, _INT, _INT, _OFF, _OFF
        )
        self.ftruncate64 = self._typed_any(("ftruncate64", "ftruncate"), _INT, _INT, _OFF)
        self.renameat2 = self._typed_any(("renameat2",), _INT, _INT, _PTR, _INT, _PTR, _INT)
        self.epoll_create1 = self._typed_any(("epoll_create1",), _INT, _INT)
        self.epoll_ctl = self._typed_any(("epoll_ctl",), _INT, _INT, _INT, _INT, _PTR)
        self.epoll_wait = self._typed_any(("epoll_wait",), _INT, _INT, _PTR, _INT, _INT)
        self.timerfd_create = self._typed_any(("timerfd_create",), _INT, _INT, _INT)
        self.timerfd_settime = self._typed_any(("timerfd_settime",), _INT, _INT, _INT, _PTR, _PTR)
        self.inotify_init1 = self._typed_any(("inotify_init1",), _INT, _INT)
        self.inotify_add_watch = self._typed_any(("inotify_add_watch",), _INT, _INT, _PTR, _INT)
        self.statx = self._typed_any(("statx",), _INT, _INT, _PTR, _INT, _INT, _PTR)

    def _typed_any(self, names: tuple[str, ...], restype: type, *argtypes: type) -> _Function:
        for name in names:
            if hasattr(self._library, name):
                return self._typed(name, restype, *argtypes)
        return _missing

    def _typed(self, name: str, restype: type, *argtypes: type) -> _Function:
        # Indexing gives a function object of our own; attribute access would share one with every
        # other user of the same CDLL, and so its argtypes.
        function = self._library[name]
        function.argtypes = argtypes
        function.restype = restype
        failure = -1 if restype is not _PTR else ctypes.c_void_p(-1).value

        def call(*args: int) -> int:
            result: int | None = function(*args)
            if result == failure:
                return -get_errno()
            return result or 0

        return call


def _missing(*_args: int) -> int:
    return -errno.ENOSYS


def _missing_bare(*_args: object) -> int:
    ctypes.set_errno(errno.ENOSYS)
    return -1
