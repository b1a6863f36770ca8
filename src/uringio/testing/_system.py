"""
`SimSystem`: the seam.  Every call that the rooms make goes to a `SimKernel`.

What is not simulated is refused loudly, by `NotSimulatedError`: nothing of this object ever reaches
the real kernel, but for the memory that the program shares with the simulated one.
"""

import errno
import os
from collections.abc import Callable, Sequence
from ctypes import memmove, string_at
from typing import TYPE_CHECKING, Final, NoReturn, cast

from uringio._sys import constants as k
from uringio._sys.kqueue_emulated import EmulatedKqueue
from uringio._sys.layouts import (
    GETEVENTS_ARG,
    PARAMS,
    TIMESPEC,
)
from uringio._sys.memory import Memory
from uringio._sys.sockaddr import AddressTuple, SocketAddress, pack_sockaddr, unpack_sockaddr
from uringio._sys.system import AddressInfo, Mapping
from uringio.errors import op_error

from ._epoll import SimEpoll
from ._file_system import FileSystem
from ._kqueue import SimSources
from ._messages import Outgoing, deliver, outgoing_at, spans_of
from ._poll import SimPoll
from ._registering import register
from ._ring_memory import CQ_OFFSETS, SQ_OFFSETS
from ._sockets import SimSocket, StreamSocket, Taken
from .errors import NotSimulatedError

if TYPE_CHECKING:
    import select
    from ctypes import c_size_t, c_void_p

    from ._kernel import SimKernel

__all__ = ["SimSystem"]

_MSG_PEEK: Final = 0x02
_MSG_TRUNC: Final = 0x20
_CLOCK_REALTIME: Final = 0
_SOL_SOCKET: Final = 1
_SO_TYPE: Final = 3
_SO_ERROR: Final = 4
_SO_ACCEPTCONN: Final = 30
_SO_PROTOCOL: Final = 38
_SO_DOMAIN: Final = 39
_IPPROTO_TCP: Final = 6
_IPPROTO_UDP: Final = 17
# SO_PASSCRED, SO_PEERCRED, SO_PASSPIDFD.
_UNSIMULATED_OPTIONS: Final = frozenset({16, 17, 76})
_EAI_NONAME: Final = -2
_NS_PER_S: Final = 1_000_000_000
_ENTER_FLAGS: Final = (
    k.IORING_ENTER_GETEVENTS | k.IORING_ENTER_EXT_ARG | k.IORING_ENTER_REGISTERED_RING
    | k.IORING_ENTER_ABS_TIMER | k.IORING_ENTER_NO_IOWAIT
)  # fmt: skip

# What of `System` is about memory and encoding alone, or made of its other methods.
_KEPT: Final = frozenset({
    "allocate", "getsockopt", "memory_at", "pack_sockaddr", "unpack_sockaddr",
})  # fmt: skip


class _NoLibrary:
    """In the place of the C library: nothing may reach it."""

    def __getattr__(self, name: str) -> NoReturn:
        raise NotSimulatedError(f"{name}() went past the simulation")


class _SimMapping(Mapping):
    """A ring's memory, which the simulated kernel made."""

    def __init__(self, memory: Memory) -> None:
        self._memory = memory
        self.addr = memory.addr
        self.len_bytes = memory.len_bytes
        self.view = memory.view

    def unmap(self) -> None:
        """See `Mapping`."""
        self.addr = 0


class SimSystem(FileSystem):
    """See the module's head."""

    def __init__(self, kernel: "SimKernel") -> None:
        super().__init__()
        self.kernel = kernel
        self._kernel = kernel
        self._errno = 0
        object.__setattr__(self, "_libc", _NoLibrary())
        # Whatever is not simulated, by another line here, is refused; new methods too.
        for name in dir(self):
            known = name.startswith("_") or name in _KEPT or name in _SIMULATED
            if not known and callable(getattr(self, name)):
                setattr(self, name, _refusal(name))
        self.bare_syscall = self._enter
        self.get_errno = self._get_errno
        self.total_store_order = True  # nothing else runs
        self.native_poller = "epoll"
        self.monotonic_ns = self._monotonic_ns
        self.clock_ns = self._clock_ns
        self.buggify = self._buggify
        self.bare_send = self._bare_send
        self.bare_send_to = self._bare_send_to
        self.bare_recv_from = None
        self.read_bytes = self._read_bytes
        self.receiver = self.sender
        self._data = b""
        self.start_call = self._start_call
        for name, function in {
            "recv": self._recv, "send": self._send, "sendmsg": self._sendmsg,
            "recvmsg": self._recvmsg, "connect": self._connect, "shutdown": self._shutdown,
            "close": self._close,
        }.items():  # fmt: skip
            setattr(self, name, function)
        self._init_files()

    def _get_errno(self) -> int:
        return self._errno

    def _monotonic_ns(self) -> int:
        self._kernel.look_at_clock()
        return self._kernel.clock.now_ns

    def _buggify(self, place: str) -> bool:
        strikes = self._kernel.faults.strikes("buggify", place)
        if strikes:
            self._kernel.note(f"buggified: {place}")
        return strikes

    def _clock_ns(self, clock: int) -> int:
        return self._kernel.clock.real_ns if clock == _CLOCK_REALTIME else self._monotonic_ns()

    # --- io_uring --------------------------------------------------------------------------------

    def io_uring_setup(self, entries: int, params_addr: int) -> int:
        """See `System`."""
        kernel = self._kernel
        if kernel.profile.blocked:
            return -kernel.profile.blocked
        kernel.enter_call()
        _, cq_entries, flags, *_ = PARAMS.unpack(string_at(params_addr, PARAMS.size))
        if not flags & k.IORING_SETUP_CQSIZE:
            cq_entries = 2 * entries
        entries, cq_entries = (1 << (count - 1).bit_length() for count in (entries, cq_entries))
        ring = kernel.setup(entries, cq_entries, flags)
        if isinstance(ring, int):
            return ring
        fd = kernel.install(ring)
        if fd < 0:
            ring.released()
            return fd
        array = 0 if flags & k.IORING_SETUP_NO_SQARRAY else ring.array_offset
        raw = PARAMS.pack(
            entries, cq_entries, flags, 0, 0, kernel.profile.features, 0, *SQ_OFFSETS, array, 0, 0,
            *CQ_OFFSETS, 0, 0,
        )  # fmt: skip
        memmove(params_addr, raw, len(raw))
        kernel.trace.add(f"setup {entries} {cq_entries} {flags:x}")
        return fd

    def _enter(
        self,
        nr: int,
        fd: int,
        to_submit: int,
        min_complete: int,
        flags: int,
        argp: "c_void_p",
        argsz: "c_size_t",
        /,
    ) -> int:
        if nr != k.NR_IO_URING_ENTER:
            raise NotSimulatedError(f"system call {nr} went past the simulation")
        if flags & ~_ENTER_FLAGS:
            raise NotSimulatedError(f"enters with flags {flags:#x} are not simulated")
        timeout_ns: int | None = None
        if flags & k.IORING_ENTER_EXT_ARG and argp.value:
            argument: tuple[int, ...] = GETEVENTS_ARG.unpack(
                string_at(argp.value, GETEVENTS_ARG.size)
            )
            if argument[0] or argument[2]:
                raise NotSimulatedError("waits with masks or a least duration are not simulated")
            if argument[3]:
                timespec: tuple[int, int] = TIMESPEC.unpack(string_at(argument[3], TIMESPEC.size))
                timeout_ns = timespec[0] * _NS_PER_S + timespec[1]
                if flags & k.IORING_ENTER_ABS_TIMER:
                    timeout_ns = max(0, timeout_ns - self._monotonic_ns())
        result = self._kernel.enter(fd, to_submit, min_complete, flags, timeout_ns)
        self._kernel.trace.add(f"enter {to_submit} {min_complete} {timeout_ns} = {result}")
        if result < 0:
            self._errno = -result
            return -1
        return result

    def io_uring_register(self, fd: int, opcode: int, arg_addr: int, nr_args: int) -> int:
        """See `System`."""
        kernel = self._kernel
        if kernel.profile.blocked:
            return -kernel.profile.blocked
        kernel.enter_call()
        ring = kernel.ring_of(fd, 0)
        if isinstance(ring, int):
            return ring
        if not kernel.profile.registers(opcode):
            return -errno.EINVAL
        answer = register(kernel, ring, opcode, arg_addr, nr_args)
        kernel.trace.add(f"register {opcode} {nr_args} = {answer}")
        return answer

    def map_ring(self, fd: int, offset: int, len_bytes: int) -> Mapping:
        """See `System`."""
        ring = self._kernel.ring_of(fd, 0)
        if isinstance(ring, int):
            raise op_error(-ring, "mmap", fd)
        memory = ring.sqe_memory if offset == k.IORING_OFF_SQES else ring.ring_memory
        if len_bytes > memory.len_bytes:
            raise op_error(errno.EINVAL, "mmap", fd)
        return _SimMapping(memory)

    # --- sockets ---------------------------------------------------------------------------------

    def socket(self, family: int, kind: int, protocol: int = 0) -> int:
        """See `System`."""
        made = self._kernel.make_socket(family, kind, protocol)
        return self._checked(self._kernel.install_or_drop(made), "socket", -1)

    def bind(self, fd: int, family: int, address: AddressTuple) -> None:
        """See `System`."""
        raw = pack_sockaddr(family, address)
        self._checked(self._kernel.net.bind(self._socket(fd, "bind"), raw), "bind", fd)

    def listen(self, fd: int, backlog: int) -> None:
        """See `System`."""
        self._checked(self._socket(fd, "listen").listen(backlog), "listen", fd)

    def getsockname(self, fd: int) -> SocketAddress:
        """See `System`."""
        return unpack_sockaddr(self._socket(fd, "getsockname").local)

    def getpeername(self, fd: int) -> SocketAddress:
        """See `System`."""
        return unpack_sockaddr(self._socket(fd, "getpeername").require_connected(fd))

    def setsockopt(self, fd: int, level: int, option: int, value: int | bytes) -> None:
        """See `System`."""
        if level == _SOL_SOCKET and option in _UNSIMULATED_OPTIONS:
            raise NotSimulatedError(f"socket option {option} is not simulated")
        self._socket(fd, "setsockopt").options[level, option] = value

    def getsockopt_bytes(self, fd: int, level: int, option: int, len_bytes: int) -> bytes:
        """See `System`."""
        socket = self._socket(fd, "getsockopt")
        value = socket.options.get((level, option), 0)
        if level == _SOL_SOCKET and option == _SO_ERROR:
            value = socket.take_error()
        elif level == _SOL_SOCKET and option == _SO_TYPE:
            value = socket.kind_number
        elif level == _SOL_SOCKET and option == _SO_ACCEPTCONN:
            value = int(socket.state == "listening")
        elif level == _SOL_SOCKET and option == _SO_PROTOCOL:
            value = _protocol_of(socket)
        elif level == _SOL_SOCKET and option == _SO_DOMAIN:
            value = socket.family
        raw = value if isinstance(value, bytes) else value.to_bytes(4, _BYTE_ORDER, signed=True)
        return raw[:len_bytes]

    def accept(self, fd: int, addr: int, addrlen: int, flags: int) -> int:
        """See `System`."""

        def accept(socket: SimSocket) -> int:
            if not isinstance(socket, StreamSocket):
                return -errno.EOPNOTSUPP
            return self._kernel.accept(socket, addr, addrlen, flags)

        return self._attempt("accept", fd, accept)

    def getaddrinfo(self, host: str | None, port: int | str, kind: int) -> Sequence[AddressInfo]:
        """See `System`; names are in `SimNet.names`."""
        if not isinstance(port, int):
            raise NotSimulatedError(f"services have no names here, not even {port!r}")
        address = self._kernel.net.names.get(host or "localhost")
        if address is None:
            raise OSError(_EAI_NONAME, f"{host!r} is not in SimNet.names")
        protocol = _IPPROTO_UDP if kind == self.SOCK_DGRAM else _IPPROTO_TCP
        return [(self.AF_INET, kind, protocol, (address, port))]

    def _start_call(self, call: Callable[[], None]) -> None:
        """Make a blocking call a little later, in the only thread that there is."""
        kernel = self._kernel
        delay_ns = kernel.wake_delay_ns()
        if kernel.faults.strikes("delay", "thread"):
            delay_ns += kernel.faults.below("delay", kernel.faults.plan.delay_ns_max)
        kernel.clock.call_later(delay_ns, call)

    def remove_stale_socket(self, path: str | bytes) -> None:
        """See `System`."""
        self._kernel.net.paths.pop(os.fsencode(path), None)

    def socket_inode(self, path: str | bytes) -> int:
        """See `System`."""
        return self._kernel.net.paths.get(os.fsencode(path), 0)

    def _attempt(
        self, call: str, fd: int, attempt: Callable[[SimSocket], bytes | int | None]
    ) -> int:
        """Try a call on a socket; what it read is in `_data` then."""
        kernel = self._kernel
        kernel.enter_call()
        kernel.op_count += 1
        socket = kernel.socket_of(fd)
        result: bytes | int | None
        if isinstance(socket, int):
            result = socket
            if result == -errno.EBADF:
                kernel.invariants.used(fd, call)
        elif number := kernel.faults.exact(call):
            result = -number
        else:
            result = attempt(socket)
        if isinstance(result, bytes):
            self._data = result
            result = len(result)
        if result is None:
            result = -errno.EAGAIN
        kernel.trace.add(f"{call} {fd} = {result}")
        return result

    def _connect(self, fd: int, addr: int, len_bytes: int) -> int:
        def connect(socket: SimSocket) -> int:
            was_connecting = socket.state == "connecting"
            result = socket.connect(string_at(addr, len_bytes))
            if result is None:
                return -errno.EALREADY if was_connecting else -errno.EINPROGRESS
            return result

        return self._attempt("connect", fd, connect)

    def _shutdown(self, fd: int, how: int) -> int:
        return self._attempt("shutdown", fd, lambda socket: socket.shutdown(how))

    def _receive(self, call: str, fd: int, len_bytes: int, flags: int) -> int:
        def receive(socket: SimSocket) -> bytes | int | None:
            # Never cut short: for an edge-triggered poller that says that there is no more.
            return socket.receive(len_bytes, bool(flags & _MSG_PEEK))

        return self._attempt(call, fd, receive)

    def _recv(self, fd: int, addr: int, len_bytes: int, flags: int) -> int:
        count = self._receive("recv", fd, len_bytes, flags)
        if count > 0:
            memmove(addr, self._data, count)
        return count

    def _read_bytes(self, fd: int, len_bytes: int, /) -> bytes:
        file = self._kernel.file_of(fd)
        if isinstance(file, SimSocket):
            count = self._receive("read", fd, len_bytes, 0)
            if count >= 0:
                return self._data
        else:
            data = -errno.EBADF if file is None else file.read(len_bytes)
            if isinstance(data, bytes):
                return data
            count = -errno.EAGAIN if data is None else data
        raise OSError(-count, os.strerror(-count))

    def _send(self, fd: int, addr: int, len_bytes: int, _flags: int) -> int:
        return self._send_bytes(fd, string_at(addr, len_bytes))

    def _bare_send(self, fd: int, data: bytes, len_bytes: int, _flags: int, /) -> int:
        count = self._send_bytes(fd, data[:len_bytes])
        if count < 0:
            self._errno = -count
            return -1
        return count

    def epoll_waiter(self, fd: int) -> None:
        """The simulated epoll does not round."""
        del fd

    def sender(self, fd: int) -> None:
        """There is nothing quicker than the bare door."""
        del fd

    def _bare_send_to(
        self,
        fd: int,
        data: bytes,
        len_bytes: int,
        _flags: int,
        name: bytes | None,
        _name_bytes: int,
        /,
    ) -> int:
        message = Outgoing(data[:len_bytes], name or b"", ())
        count = self._attempt("sendto", fd, lambda socket: self._sent(socket, message))
        if count < 0:
            self._errno = -count
            return -1
        return count

    def _send_bytes(self, fd: int, data: bytes) -> int:
        return self._attempt("send", fd, lambda socket: self._sent(socket, Outgoing(data, b"", ())))

    def _sent(self, socket: SimSocket, message: Outgoing) -> int | None:
        data = message.data
        if isinstance(socket, StreamSocket):
            if self._kernel.faults.strikes("reset"):
                socket.break_off()
            data = data[: self._shortened("send", len(data))]
        return socket.send(data, message.name, message.files)

    def _sendmsg(self, fd: int, addr: int, _flags: int) -> int:
        def send(socket: SimSocket) -> int | None:
            message = outgoing_at(self._kernel, socket, addr)
            return message if isinstance(message, int) else self._sent(socket, message)

        return self._attempt("sendmsg", fd, send)

    def _recvmsg(self, fd: int, addr: int, flags: int) -> int:
        spans = spans_of(addr)
        size = sum(size for _, size in spans)
        taken = Taken()

        def receive(socket: SimSocket) -> bytes | int | None:
            return socket.receive(size, bool(flags & _MSG_PEEK), taken)

        count = self._attempt("recvmsg", fd, receive)
        if count >= 0:
            deliver(self._kernel, addr, spans, self._data, taken)
            if flags & _MSG_TRUNC:
                return max(count, taken.full_bytes)
        return count

    def _socket(self, fd: int, call: str) -> SimSocket:
        found = self._kernel.socket_of(fd)
        if isinstance(found, int):
            raise op_error(-found, call, fd)
        return found

    # --- descriptors -----------------------------------------------------------------------------

    def _close(self, fd: int) -> int:
        return self._kernel.close_fd(fd)

    def set_blocking(self, fd: int, blocking: bool) -> None:
        """See `System`."""
        self._file(fd, "fcntl").blocking = blocking

    def duplicate(self, fd: int) -> int:
        """See `System`."""
        return self._checked(self._kernel.install(self._file(fd, "dup")), "dup", fd)

    def pipe(self) -> tuple[int, int]:
        """See `System`."""
        reader, writer = self._kernel.make_pipe()
        self._checked(reader, "pipe", -1)
        return reader, writer

    def drain(self, fd: int) -> None:
        """See `System`."""
        file = self._file(fd, "read")
        while isinstance(data := file.read(4096), bytes) and data:
            pass

    def poke(self, fd: int) -> None:
        """See `System`."""
        self._file(fd, "write").write(b"\0")

    def epoll(self) -> "select.epoll":
        """See `System`."""
        poller = SimEpoll(self._kernel)
        poller.fd = self._checked(self._kernel.install(poller.file), "epoll_create", -1)
        return cast("select.epoll", poller)

    def poll(self) -> "select.poll":
        """See `System`."""
        return cast("select.poll", SimPoll(self._kernel))

    def kqueue(self) -> EmulatedKqueue:
        """See `System`."""
        sources = SimSources(self._kernel)
        return EmulatedKqueue(self.epoll(), self._file_at, self.monotonic_ns, sources)

    def always_ready(self, fd: int) -> bool:
        """See `System`."""
        file = self._kernel.file_of(fd)
        return file is not None and file.kind in {"regular file", "folder"}

    def _file_at(self, fd: int) -> object:
        file = self._kernel.file_of(fd)
        if file is None:
            raise op_error(errno.EBADF, "fstat", fd)
        return file

    def poll_fd(self, fd: int, mask: int, timeout_ms: int = 0) -> int:
        """See `System`; it never waits, since whoever could end the waiting would wait as well."""
        file = self._kernel.file_of(fd)
        return 0x020 if file is None else file.poll() & (mask | 0x018)

    def _checked(self, result: int, call: str, fd: int) -> int:
        self._kernel.trace.add(f"{call} {fd} = {result}")
        if result < 0:
            raise op_error(-result, call, fd)
        return result


def _protocol_of(socket: SimSocket) -> int:
    if socket.is_unix:
        return 0
    return _IPPROTO_TCP if isinstance(socket, StreamSocket) else _IPPROTO_UDP


def _refusal(name: str) -> Callable[..., NoReturn]:
    def refuse(*_arguments: object, **_more: object) -> NoReturn:
        raise NotSimulatedError(f"System.{name} is not simulated")

    return refuse


_BYTE_ORDER: Final = "little" if memoryview(b"\1\0").cast("H")[0] == 1 else "big"

_SIMULATED: Final = frozenset({*vars(SimSystem), *vars(FileSystem)})
