"""
`System`: the one object through which every kernel call passes.

Rooms above never call the operating system by another way, so that a simulated system can stand in
for all of it.  Drivers bind the methods that they need when they are built; there the real system
costs one ctypes call and nothing else.

Three conventions.  Control calls (make a socket, bind it) raise an `OpError`.  *Attempts*, whose
refusal is an everyday answer (`recv`, `accept`), return the result or ``-errno``.  Memory is passed
by address, and belongs to the caller.
"""

import _socket
import _thread
import contextlib
import errno
import os
import select
import stat
import struct
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, AnyStr, Final, cast

from uringio.errors import UnsupportedError, op_error

from . import borrowing, caching, copying, fences, pairs, status
from .constants import (
    AT_EMPTY_PATH,
    NR_IO_URING_ENTER,
    NR_IO_URING_REGISTER,
    NR_IO_URING_SETUP,
    NR_OPENAT2,
    SIZEOF_SOCKADDR_STORAGE,
    SIZEOF_STATX,
    STATX_DIOALIGN,
)
from .layouts import STATX
from .libc import BareRecvFrom, BareSend, BareSendTo, BareSyscall, Libc, get_errno
from .listing import Listing
from .memory import Memory, ReadableBuffer, memory_at, pin
from .numbers import AT_FDCWD, IS_LINUX, NATIVE_POLLER, SO_NOSIGPIPE, SOL_SOCKET
from .sockaddr import AddressTuple, SocketAddress, pack_sockaddr, unpack_sockaddr

if TYPE_CHECKING:
    from socket import socket as std_socket

    from .kqueue import Kqueue
    from .kqueue_emulated import EmulatedKqueue

__all__ = ["AddressInfo", "Mapping", "System", "real_system"]

_PROT_READ_WRITE: Final = 3
_MAP_SHARED_POPULATE: Final = 0x01 | 0x8000

AddressInfo = tuple[int, int, int, AddressTuple]  # family, type, protocol, address


class Mapping:
    """
    A mapping by address; `unmap` must come after the last touch of `view`.

    By address rather than as a Python ``mmap`` object, which duplicates the descriptor, so that
    closing the ring would no longer close it, and whose end in a forked child is not ours to time.
    """

    __slots__ = ("_libc", "addr", "len_bytes", "view")

    def __init__(self, libc: Libc, addr: int, len_bytes: int) -> None:
        self._libc = libc
        self.addr = addr
        self.len_bytes = len_bytes
        self.view = memory_at(addr, len_bytes)

    def unmap(self) -> None:
        """Give the address range back; safe to call twice."""
        if self.addr:
            addr, self.addr = self.addr, 0
            self._libc.munmap(addr, self.len_bytes)


class System:
    """
    The real system.

    What only Linux has answers ENOSYS elsewhere.  What other systems lack and Linux has (sockets
    that are made non-blocking and closed on exec, statx) is done in several calls there.
    """

    AF_INET: Final = int(_socket.AF_INET)
    AF_INET6: Final = int(_socket.AF_INET6)
    AF_UNIX: Final = int(_socket.AF_UNIX)
    SOCK_STREAM: Final = int(_socket.SOCK_STREAM)
    SOCK_DGRAM: Final = int(_socket.SOCK_DGRAM)
    # Where sockets are not made so, these only say what is wanted.
    SOCK_CLOEXEC: Final = int(getattr(_socket, "SOCK_CLOEXEC", 0x10000000))
    SOCK_NONBLOCK: Final = int(getattr(_socket, "SOCK_NONBLOCK", 0x20000000))

    def __init__(self) -> None:
        libc = Libc()
        self._libc = libc
        # The bare door and its errno, for `_ring.queue`.
        self.bare_syscall: BareSyscall = libc.bare_syscall
        self.get_errno: Callable[[], int] = get_errno
        self.nr_enter = NR_IO_URING_ENTER
        self.pointer_bytes = struct.calcsize("P")
        # Whether loads and stores of ours and of other processors keep their order unasked.
        self.total_store_order = os.uname().machine in _TOTAL_STORE_ORDER
        # For a hot path: bytes as they are, -1 and `get_errno` on refusal; `os.read` raises, but
        # of all ways to have some bytes it is the quickest where there are any.
        self.bare_send: BareSend = libc.bare_send
        self.bare_send_to: BareSendTo = libc.bare_send_to
        # None: what stands in for it need not have it.
        self.bare_recv_from: BareRecvFrom | None = libc.bare_recv_from
        self.read_bytes: Callable[[int, int], bytes] = os.read
        self.receiver = borrowing.receiver  # the counterpart of `sender`
        # Clock and wake-ups: the standard library's own C functions.
        self.monotonic_ns: Callable[[], int] = time.monotonic_ns
        self.clock_ns: Callable[[int], int] = time.clock_gettime_ns
        # What only Linux has.
        self.pidfd_open: Callable[[int], int] | None = getattr(os, "pidfd_open", None)
        # What makes blocking calls where there are no threads to make them; None: there are.
        self.start_call: Callable[[Callable[[], None]], None] | None = None
        # What waits where there is no io_uring and nobody asks for another.
        self.native_poller = NATIVE_POLLER
        # Whether to take the seldom way at a place that is named: only simulated systems do, now
        # and then.  Such places are where nothing is hurried.
        self.buggify: Callable[[str], bool] = _never
        # Attempts on sockets and files by address.
        self.recv = libc.recv
        self.send = libc.send
        self.sendmsg = libc.sendmsg
        self.recvmsg = libc.recvmsg
        self.read = libc.read
        self.write = libc.write
        self.connect = libc.connect
        self.shutdown = libc.shutdown
        self.close = libc.close
        self.pread = libc.pread64
        self.pwrite = libc.pwrite64
        # Attempts on files and names, for worker threads; paths by address.
        self.fallocate = libc.fallocate64
        self.ftruncate = libc.ftruncate64
        self.statx = libc.statx if IS_LINUX else status.statx
        self.unlinkat = libc.unlinkat
        self.mkdirat = libc.mkdirat
        self.symlinkat = libc.symlinkat
        self.linkat = libc.linkat

    # --- io_uring --------------------------------------------------------------------------------

    def io_uring_setup(self, entries: int, params_addr: int) -> int:
        """io_uring_setup(2): the ring's descriptor or ``-errno``."""
        return self._libc.syscall(NR_IO_URING_SETUP, entries, params_addr, 0, 0, 0, 0)

    def io_uring_register(self, fd: int, opcode: int, arg_addr: int, nr_args: int) -> int:
        """io_uring_register(2): its result or ``-errno``."""
        return self._libc.syscall(NR_IO_URING_REGISTER, fd, opcode, arg_addr, nr_args, 0, 0)

    def full_fence(self) -> fences.Fence | None:
        """Return what passes a full memory barrier, None where there is none; see `fences`."""
        return fences.full_fence(self._libc.syscall)

    def map_ring(self, fd: int, offset: int, len_bytes: int) -> Mapping:
        """
        Map a part of the ring.

        Raises:
            OpError: mmap(2) refused.
        """
        addr = self._libc.mmap(0, len_bytes, _PROT_READ_WRITE, _MAP_SHARED_POPULATE, fd, offset)
        if -4096 < addr < 0:
            raise op_error(-addr, "mmap", fd)
        return Mapping(self._libc, addr, len_bytes)

    def allocate(self, len_bytes: int) -> Memory:
        """Return zeroed page-aligned memory that the kernel may be told to use."""
        return Memory(len_bytes)

    def memory_at(self, addr: int, len_bytes: int) -> memoryview:
        """Peek and poke at an address that the caller keeps alive."""
        return memory_at(addr, len_bytes)

    # --- sockets, control ------------------------------------------------------------------------

    def socket(self, family: int, kind: int, protocol: int = 0) -> int:
        """
        Make a socket, closed on exec; *kind* may carry SOCK_NONBLOCK.

        Raises:
            OpError: The kernel refused.
        """
        if _SOCKETS_AS_WANTED:
            kind |= self.SOCK_CLOEXEC
            return _checked(self._libc.socket(family, kind, protocol), "socket", -1)
        plain = kind & ~(self.SOCK_CLOEXEC | self.SOCK_NONBLOCK)
        fd = _checked(self._libc.socket(family, plain, protocol), "socket", -1)
        return self._as_wanted(fd, kind | self.SOCK_CLOEXEC)

    def _as_wanted(self, fd: int, flags: int) -> int:
        """Make of a new socket what SOCK_* *flags* say, where the kernel does not."""
        if flags & self.SOCK_CLOEXEC:
            os.set_inheritable(fd, False)
        os.set_blocking(fd, not flags & self.SOCK_NONBLOCK)
        if SO_NOSIGPIPE >= 0:
            with contextlib.suppress(OSError):  # its peer has gone already
                self.setsockopt(fd, SOL_SOCKET, SO_NOSIGPIPE, 1)
        return fd

    def bind(self, fd: int, family: int, address: AddressTuple) -> None:
        """Bind *fd*; raises `OpError` naming the address, or ValueError for an unfit one."""
        addr, len_bytes, _keep = pin(pack_sockaddr(family, address))
        _checked(self._libc.bind(fd, addr, len_bytes), "bind", fd, repr(address))

    def listen(self, fd: int, backlog: int) -> None:
        """Make *fd* a listener; raises `OpError`."""
        _checked(self._libc.listen(fd, backlog), "listen", fd)

    def getsockname(self, fd: int) -> SocketAddress:
        """Return the local address; raises `OpError`."""
        return self._name(self._libc.getsockname, "getsockname", fd)

    def getpeername(self, fd: int) -> SocketAddress:
        """Return the peer's address; raises `OpError`, ENOTCONN once the peer has gone."""
        return self._name(self._libc.getpeername, "getpeername", fd)

    def setsockopt(self, fd: int, level: int, option: int, value: int | bytes) -> None:
        """Set a socket option; an `int` travels as a C int.  Raises `OpError`, ValueError."""
        if isinstance(value, bytes):
            raw = value
        elif -(1 << 31) <= value < 1 << 31:
            raw = value.to_bytes(4, _BYTE_ORDER, signed=True)
        else:
            raise ValueError(f"{value} does not fit the C int of level {level}, option {option}")
        addr, len_bytes, _keep = pin(raw)
        _checked(
            self._libc.setsockopt(fd, level, option, addr, len_bytes),
            "setsockopt",
            fd,
            f"level {level}, option {option}",
        )

    def getsockopt(self, fd: int, level: int, option: int) -> int:
        """Return an integer socket option; raises `OpError`."""
        raw = self.getsockopt_bytes(fd, level, option, 4)
        return int.from_bytes(raw, _BYTE_ORDER, signed=True)

    def getsockopt_bytes(self, fd: int, level: int, option: int, len_bytes: int) -> bytes:
        """Return a socket option of at most so many bytes; raises `OpError`."""
        value = bytearray(len_bytes)
        length = bytearray(len_bytes.to_bytes(4, _BYTE_ORDER))
        value_addr, _, _keep = pin(value, writable=True)
        length_addr, _, _keep_too = pin(length, writable=True)
        _checked(
            self._libc.getsockopt(fd, level, option, value_addr, length_addr),
            "getsockopt",
            fd,
            f"level {level}, option {option}",
        )
        return bytes(value[: int.from_bytes(length, _BYTE_ORDER)])

    def accept(self, fd: int, addr: int, addrlen: int, flags: int) -> int:
        """Attempt accept4(2): a descriptor or ``-errno``; *addr*, *addrlen* are addresses or 0."""
        if _SOCKETS_AS_WANTED:
            return self._libc.accept4(fd, addr, addrlen, flags)
        new = self._libc.accept(fd, addr, addrlen)
        return new if new < 0 else self._as_wanted(new, flags)

    def pack_sockaddr(self, family: int, address: AddressTuple) -> bytes:
        """Encode an address; raises ValueError."""
        return pack_sockaddr(family, address)

    def unpack_sockaddr(self, raw: bytes) -> SocketAddress:
        """Decode an address."""
        return unpack_sockaddr(raw)

    def getaddrinfo(self, host: str | None, port: int | str, kind: int) -> Sequence[AddressInfo]:
        """
        Resolve by the C library; blocks, so it is for worker threads.

        Raises:
            OSError: ``socket.gaierror`` when the name has no address.
        """
        flags = getattr(_socket, "AI_ADDRCONFIG", 0) if host else 0
        found = _socket.getaddrinfo(host, port, 0, kind, 0, flags)
        return [
            (int(family), int(type_), protocol, cast("AddressTuple", address))
            for family, type_, protocol, _canonical, address in found
        ]

    def _name(self, function: Callable[..., int], op: str, fd: int) -> SocketAddress:
        raw = bytearray(SIZEOF_SOCKADDR_STORAGE)
        length = bytearray(SIZEOF_SOCKADDR_STORAGE.to_bytes(4, _BYTE_ORDER))
        raw_addr, _, _keep = pin(raw, writable=True)
        length_addr, _, _keep_too = pin(length, writable=True)
        _checked(function(fd, raw_addr, length_addr), op, fd)
        return unpack_sockaddr(bytes(raw[: int.from_bytes(length, _BYTE_ORDER)]))

    def remove_stale_socket(self, path: str | bytes) -> None:
        """Remove the socket file that an earlier listener left at *path*, if that is what it is."""
        raw = os.fsencode(path)
        try:
            if not raw.startswith(b"\0") and stat.S_ISSOCK(os.stat(raw).st_mode):
                os.unlink(raw)
        except OSError:
            pass  # bind will say what is wrong

    def socket_inode(self, path: str | bytes) -> int:
        """Return the inode number of the socket file at *path*, 0 if there is none."""
        try:
            found = os.stat(path)
        except (OSError, ValueError):
            return 0
        return found.st_ino if stat.S_ISSOCK(found.st_mode) else 0

    def sender(self, fd: int) -> Callable[[bytes, int], int] | None:
        """Return what sends bytes, with MSG_* flags, on the non-blocking socket *fd*, or None."""
        return borrowing.sender(fd)

    def socket_object(self, fd: int) -> "std_socket":
        """Make a standard socket object of *fd*, which has the duty to close it from now on."""
        import socket  # at first need: most programs never ask

        return socket.socket(fileno=fd)

    # --- descriptors -----------------------------------------------------------------------------

    def set_blocking(self, fd: int, blocking: bool) -> None:
        """Set or clear O_NONBLOCK; raises `OpError`."""
        try:
            os.set_blocking(fd, blocking)
        except OSError as error:
            raise op_error(error.errno or 0, "fcntl", fd) from None

    def duplicate(self, fd: int) -> int:
        """Return another number for *fd*'s file, closed on exec; raises `OpError`."""
        try:
            return os.dup(fd)
        except OSError as error:
            raise op_error(error.errno or 0, "dup", fd) from None

    def pipe(self) -> tuple[int, int]:
        """Return the (read, write) ends of a new pipe, non-blocking and closed on exec."""
        if hasattr(os, "pipe2"):
            return os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        both = os.pipe()
        for fd in both:
            os.set_blocking(fd, False)
        return both

    def close_on_exec(self, fd: int) -> None:
        """Keep *fd* from programs that this process starts."""
        os.set_inheritable(fd, False)

    def drain(self, fd: int) -> None:
        """Read and drop what a non-blocking pipe holds."""
        try:
            while len(os.read(fd, 4096)) == 4096:
                pass
        except BlockingIOError:
            pass

    def poke(self, fd: int) -> None:
        """Write one byte to a non-blocking pipe; a full one is as good as a written one."""
        try:
            os.write(fd, b"\0")
        except BlockingIOError:
            pass

    def open_at(self, dir_fd: int, path: bytes, flags: int, mode: int) -> int:
        """Attempt openat(2); blocks, so it is for worker threads."""
        try:
            return os.open(path, flags, mode, dir_fd=None if dir_fd == AT_FDCWD else dir_fd)
        except OSError as error:
            return -(error.errno or 0)

    def openat2(self, dir_fd: int, path_addr: int, how_addr: int, how_bytes: int) -> int:
        """Attempt openat2(2), for which C libraries have no function; blocks."""
        return self._libc.syscall(NR_OPENAT2, dir_fd, path_addr, how_addr, how_bytes, 0, 0)

    def renameat(self, dir_fd: int, addr: int, new_dir_fd: int, new_addr: int, flags: int) -> int:
        """Attempt renameat2(2), or with no flags renameat(2), which every system has; blocks."""
        if flags:
            return self._libc.renameat2(dir_fd, addr, new_dir_fd, new_addr, flags)
        return self._libc.renameat(dir_fd, addr, new_dir_fd, new_addr)

    def preadv(self, fd: int, pieces: list[memoryview], offset: int, flags: int) -> int:
        """Attempt preadv2(2) with RWF_* *flags*; at offset -1, where the file stands; blocks."""
        try:
            if offset < 0 and not flags:
                return os.readv(fd, pieces)
            return os.preadv(fd, pieces, offset, flags)
        except OSError as error:
            return -(error.errno or 0)
        except NotImplementedError:  # flags are Linux's
            return -errno.EOPNOTSUPP

    def pwritev(self, fd: int, pieces: list[memoryview], offset: int, flags: int) -> int:
        """Attempt pwritev2(2) with RWF_* *flags*; at offset -1, where the file stands; blocks."""
        try:
            if offset < 0 and not flags:
                return os.writev(fd, pieces)
            return os.pwritev(fd, pieces, offset, flags)
        except OSError as error:
            return -(error.errno or 0)
        except NotImplementedError:
            return -errno.EOPNOTSUPP

    def fsync(self, fd: int, data_only: bool) -> int:
        """Attempt fsync(2) or fdatasync(2); blocks."""
        return (self._libc.fdatasync if data_only else self._libc.fsync)(fd)

    def read_cached(self, fd: int, memory: ReadableBuffer, len_bytes: int, offset: int) -> int:
        """
        Read into all *len_bytes* of *memory* if that needs no waiting, else answer some ``-errno``.

        Fewer bytes are only an answer at the end of the file, or at offset -1,
        where the file's own position moves by as many.
        """
        try:
            count = os.preadv(fd, [memory], offset, os.RWF_NOWAIT)
            if count < len_bytes and offset >= 0 and count + offset < os.fstat(fd).st_size:
                return -errno.EAGAIN
        except (OSError, TypeError, BufferError, OverflowError, AttributeError) as error:
            # Whatever it is, the operation itself will say it better.
            return -(getattr(error, "errno", 0) or errno.EINVAL)
        return count

    def holds_all(self, fd: int, offset: int, len_bytes: int) -> bool:
        """Tell whether the page cache surely holds all of these bytes of a file."""
        return caching.holds_all(self._libc.syscall, fd, offset, len_bytes)

    send_cached = staticmethod(caching.send_cached)

    def direct_alignment(self, fd: int) -> tuple[int, int]:
        """
        Return what with O_DIRECT addresses, and offsets and sizes, must be multiples of.

        Kernel: 6.1 tells; before, and for filesystems that do not say, the size of a sector.
        """
        if not IS_LINUX:
            return 512, 512
        room = bytearray(SIZEOF_STATX)
        addr, _, _keep = pin(room, writable=True)
        empty, _, _keep_too = pin(b"\0")
        if self.statx(fd, empty, AT_EMPTY_PATH, STATX_DIOALIGN, addr) == 0:
            mask, *_, memory_bytes, offset_bytes = STATX.unpack(room)
            if mask & STATX_DIOALIGN and offset_bytes:
                return memory_bytes, offset_bytes
        return 512, 512

    def lseek(self, fd: int, offset: int, whence: int) -> int:
        """Move the position of *fd*, and return it; raises `OpError`."""
        try:
            return os.lseek(fd, offset, whence)
        except OSError as error:
            raise op_error(error.errno or 0, "lseek", fd) from None

    def fstat(self, fd: int) -> os.stat_result:
        """Attempt fstat(2), which does not block on a local file; raises `OpError`."""
        try:
            return os.fstat(fd)
        except OSError as error:
            raise op_error(error.errno or 0, "fstat", fd) from None

    # --- copying and listing, for worker threads -------------------------------------------------

    clone_file = staticmethod(copying.clone_file)
    copy_range = staticmethod(copying.copy_range)
    judge_copying = staticmethod(copying.judge)
    find_data = staticmethod(copying.find_data)
    copy_metadata = staticmethod(copying.copy_metadata)
    remove_file = staticmethod(copying.remove_file)
    folder_pair = staticmethod(pairs.FolderPair.top)
    copy_small = staticmethod(pairs.copy_small)
    same_content = staticmethod(pairs.same_content)
    forget_cached = staticmethod(pairs.forget_cached)

    def list_folder(self, path: AnyStr) -> Listing[AnyStr]:
        """Return what reads the folder at *path* in batches."""
        return Listing(path)

    def text_of(self, path: str) -> str | None:
        """Return what a small file of /proc says, None where it cannot be read."""
        try:
            with open(path, encoding="utf-8", errors="replace") as file:
                return file.read()
        except OSError:
            return None

    def read_link(self, path: bytes) -> bytes:
        """Return where the symbolic link at *path* leads; blocks; raises OSError."""
        return os.readlink(path)

    # --- readiness -------------------------------------------------------------------------------

    def epoll(self) -> "select.epoll":
        """Return a new epoll object, closed on exec; raises `UnsupportedError`, OSError."""
        if not hasattr(select, "epoll"):
            raise UnsupportedError("epoll", "Linux")
        return select.epoll()

    def epoll_waiter(self, fd: int) -> "Callable[[int, int], list[tuple[int, int]]] | None":
        """Return a wait(timeout_ns, count_max) on the epoll object of descriptor *fd*, or None."""
        from .epoll import waiter  # not with a ring

        return waiter(self._libc, fd)

    def poll(self) -> "select.poll":
        """Return a new poll object."""
        return select.poll()

    def kqueue(self) -> "Kqueue | EmulatedKqueue":
        """Return a new kqueue; raises `UnsupportedError`, OpError."""
        from .kqueue import EMULATED, VARIABLE, Kqueue

        if os.environ.get(VARIABLE) == EMULATED:
            from .kqueue_emulated import EmulatedKqueue
            from .kqueue_sources import LinuxSources

            sources = LinuxSources(self._libc)
            return EmulatedKqueue(select.epoll(), _file_of, time.monotonic_ns, sources)
        return Kqueue()

    def always_ready(self, fd: int) -> bool:
        """Whether *fd* names a file, folder or disk, which never keeps anyone waiting."""
        try:
            mode = os.fstat(fd).st_mode
        except OSError:
            return False
        return stat.S_ISREG(mode) or stat.S_ISDIR(mode) or stat.S_ISBLK(mode)

    def poll_fd(self, fd: int, mask: int, timeout_ms: int = 0) -> int:
        """Ask poll(2) which of *mask*, POLLERR, POLLHUP, POLLNVAL holds; 0 if none does in time."""
        if fd < 0:
            return select.POLLNVAL
        poller = select.poll()
        poller.register(fd, mask)
        found = poller.poll(timeout_ms)
        return found[0][1] if found else 0

    # --- processes -------------------------------------------------------------------------------

    def open_pidfd(self, pid: int) -> int:
        """
        Return a descriptor that can be read once *pid* has ended, or ``-errno``.

        By pidfd_open(2), and where there is none by a kqueue of its own, whose descriptor can be
        waited for like others.  ESRCH: it has ended, and perhaps been waited for.
        """
        try:
            if self.pidfd_open is not None:
                return self.pidfd_open(pid)
            from .kqueue import process_end

            return process_end(self.kqueue(), pid)
        except UnsupportedError:
            return -errno.ENOSYS
        except OSError as error:
            return -(error.errno or errno.ENOSYS)

    # --- threads ---------------------------------------------------------------------------------

    def start_thread(self, function: Callable[[], None]) -> None:
        """Run *function* in a thread that interpreter exit does not wait for."""
        _thread.start_new_thread(function, ())


# Linux and the BSDs; macOS has no such flags.
_SOCKETS_AS_WANTED: Final = hasattr(_socket, "SOCK_CLOEXEC")

_TOTAL_STORE_ORDER: Final = {"x86_64", "amd64", "i386", "i486", "i586", "i686", "s390x"}

_BYTE_ORDER: Final = "little" if memoryview(b"\1\0").cast("H")[0] == 1 else "big"


def _file_of(fd: int) -> tuple[int, int]:
    found = os.fstat(fd)
    return found.st_dev, found.st_ino


def _never(_place: str) -> bool:
    return False


def _checked(result: int, op: str, fd: int, detail: str = "") -> int:
    if result < 0:
        raise op_error(-result, op, fd, detail=detail)
    return result


_real: System | None = None


def real_system() -> System:
    """Return the process's one real `System`, made at first use."""
    global _real
    if _real is None:
        _real = System()
    return _real
