"""
What each operation does, once: the simulated kernel's table of opcodes.

A handler answers a result, ``-errno``, or None where it would have to wait; then it is tried again
when the request's file is ready.  Memory is the program's own, at the addresses of the SQE.
"""

import errno
from collections.abc import Callable
from ctypes import memmove, string_at
from typing import TYPE_CHECKING, Final

from uringio._sys import constants as k
from uringio._sys.layouts import IOVEC, MSGHDR, OPEN_HOW

from ._disk import OpenFile
from ._objects import POLLERR, POLLHUP, POLLIN, POLLOUT, SimFile
from ._sockets import StreamSocket

if TYPE_CHECKING:
    from ._kernel import SimKernel
    from ._rings import SimRing

__all__ = ["HANDLERS", "OPCODE_NAMES", "Request"]

_MSG_PEEK: Final = 0x02
_MSG_DONTWAIT: Final = 0x40
_MSG_WAITALL: Final = 0x100
_AT_CURRENT_POSITION: Final = (1 << 64) - 1
_PATH_BYTES_MAX: Final = 4096
_SOCKADDR_BYTES: Final = 128

# What makes a parked request worth trying again.
_FOR_READING: Final = POLLIN | POLLERR | POLLHUP
_FOR_WRITING: Final = POLLOUT | POLLERR | POLLHUP

OPCODE_NAMES: Final[dict[int, str]] = {
    value: name.removeprefix("IORING_OP_").lower()
    for name, value in vars(k).items()
    if name.startswith("IORING_OP_")
}


class Request:
    """
    One SQE, from its submission to its last completion.

    Attributes:
        serial: Which of the ring's requests it is.
        state: ``"parked"`` on its file, ``"woken"``, ``"working"`` in a thread of the kernel's, or
            ``"done"``.
        result: What it is going to complete with, None while it is to be tried.
        file: What its descriptor named when it was submitted.
        done_bytes: What a transfer that goes on has moved.
        buffer: The provided buffer that it has taken, -1 for none.
        timer: The pending call that will wake it, 0 for none.
        lent: The bytes of a zero-copy send whose notification is due, None before that.
    """

    __slots__ = (
        "addr", "buffer", "buffer_group", "done_bytes", "fd", "file", "file_index", "flags", "len",
        "lent", "off", "op_flags", "opcode", "result", "ring", "serial", "state", "timer",
        "user_data", "wanted",
    )  # fmt: skip

    def __init__(self, ring: "SimRing", serial: int, fields: tuple[int, ...]) -> None:
        head, self.fd, self.off, self.addr, self.len, self.op_flags, self.user_data = fields[:7]
        self.buffer_group, self.file_index = fields[7:9]
        raw = head.to_bytes(4, _BYTE_ORDER)
        self.opcode, self.flags = raw[0], raw[1]
        self.ring = ring
        self.serial = serial
        self.state = "new"
        self.result: int | None = None
        self.file: SimFile | None = None
        self.done_bytes = 0
        self.buffer = -1
        self.timer = 0
        self.wanted = 0
        self.lent: bytes | None = None

    @property
    def name(self) -> str:
        """The operation's name."""
        return OPCODE_NAMES.get(self.opcode, f"opcode {self.opcode}")

    def on_ready(self, file: SimFile, mask: int, /) -> None:
        """See `Watcher`."""
        if mask & self.wanted:
            file.unwatch(self)
            self.ring.wake(self)

    def __repr__(self) -> str:
        return f"<{self.name} on fd {self.fd}, user_data {self.user_data:#x}, {self.state}>"


Handler = Callable[["SimKernel", Request], int | None]
HANDLERS: Final[dict[int, Handler]] = {}


def _handles(*opcodes: int) -> Callable[[Handler], Handler]:
    def note(handler: Handler) -> Handler:
        for opcode in opcodes:
            HANDLERS[opcode] = handler
        return handler

    return note


def path_at(addr: int) -> bytes:
    """Return the path at an address, without its NUL."""
    raw = string_at(addr)
    return raw[:_PATH_BYTES_MAX]


@_handles(k.IORING_OP_NOP)
def _nop(_kernel: "SimKernel", request: Request) -> int | None:
    if request.op_flags & k.IORING_NOP_INJECT_RESULT:
        return request.len if request.len < 1 << 31 else request.len - (1 << 32)
    return 0


# --- transfers -----------------------------------------------------------------------------------


def _shortened(kernel: "SimKernel", request: Request, count: int) -> int:
    """Cut a transfer of at most *count* bytes short, now and then."""
    if count > 1 and kernel.faults.strikes("short", request.name):
        return 1 + kernel.faults.below("short", count - 1)
    return count


@_handles(k.IORING_OP_RECV)
def _recv(kernel: "SimKernel", request: Request) -> int | None:
    socket = request.file
    if not isinstance(socket, StreamSocket):
        return -errno.ENOTSOCK
    request.wanted = _FOR_READING
    peek = bool(request.op_flags & _MSG_PEEK)
    addr, count = request.addr, request.len
    entry: tuple[int, int, int] | None = None
    if request.flags & k.IOSQE_BUFFER_SELECT:
        group = request.ring.groups.get(request.buffer_group)
        entry = None if group is None else group.peek()
        # As the kernel does, before it looks for data.
        if entry is None or kernel.faults.strikes("starve"):
            return -errno.ENOBUFS
        addr, size, _ = entry
        count = min(count, size) if count else size
    whole = bool(request.op_flags & _MSG_WAITALL) and not entry and not peek
    while True:
        wanted = _shortened(kernel, request, count - request.done_bytes)
        data = socket.receive(wanted, peek)
        if data is None:
            if request.op_flags & _MSG_DONTWAIT or not socket.blocking:
                return request.done_bytes or -errno.EAGAIN
            return None
        if isinstance(data, int):
            return request.done_bytes or data
        memmove(addr + request.done_bytes, data, len(data))
        request.done_bytes += len(data)
        if not whole or not data or request.done_bytes == count:
            break
    if entry is not None and request.done_bytes:
        request.buffer = entry[2]
        request.ring.groups[request.buffer_group].take()
    return request.done_bytes


@_handles(k.IORING_OP_SEND)
def _send(kernel: "SimKernel", request: Request) -> int | None:
    return _send_bytes(kernel, request, string_at(request.addr, request.len))


@_handles(k.IORING_OP_SEND_ZC)
def _send_zc(kernel: "SimKernel", request: Request) -> int | None:
    socket = request.file
    if not isinstance(socket, StreamSocket) or not socket.is_tcp:
        return -errno.EOPNOTSUPP
    return _send_bytes(kernel, request, string_at(request.addr, request.len))


@_handles(k.IORING_OP_SENDMSG)
def _sendmsg(kernel: "SimKernel", request: Request) -> int | None:
    return _send_bytes(kernel, request, gathered(request.addr))


@_handles(k.IORING_OP_RECVMSG)
def _recvmsg(kernel: "SimKernel", request: Request) -> int | None:
    socket = request.file
    if not isinstance(socket, StreamSocket):
        return -errno.ENOTSOCK
    request.wanted = _FOR_READING
    spans = spans_of(request.addr)
    count = _shortened(kernel, request, sum(size for _, size in spans))
    data = socket.receive(count, bool(request.op_flags & _MSG_PEEK))
    if data is None and (request.op_flags & _MSG_DONTWAIT or not socket.blocking):
        return -errno.EAGAIN
    if data is None or isinstance(data, int):
        return data
    scatter(spans, data)
    no_more(request.addr)
    return len(data)


def spans_of(msghdr_addr: int) -> list[tuple[int, int]]:
    """Return address and size of each piece that a msghdr names."""
    fields = MSGHDR.unpack(string_at(msghdr_addr, MSGHDR.size))
    raw = string_at(fields[2], fields[3] * IOVEC.size)
    return [(addr, size) for addr, size in IOVEC.iter_unpack(raw) if size]


def gathered(msghdr_addr: int) -> bytes:
    """Return the bytes that a msghdr names."""
    return b"".join(string_at(addr, size) for addr, size in spans_of(msghdr_addr))


def scatter(spans: list[tuple[int, int]], data: bytes) -> None:
    """Put bytes into pieces of memory."""
    start = 0
    for addr, size in spans:
        memmove(addr, data[start : start + size], min(size, len(data) - start))
        start += size
        if start >= len(data):
            break


def no_more(msghdr_addr: int) -> None:
    """Tell that a stream's message has no address, no control data and no flags."""
    fields = list(MSGHDR.unpack(string_at(msghdr_addr, MSGHDR.size)))
    fields[1] = fields[5] = fields[6] = 0
    memmove(msghdr_addr, MSGHDR.pack(*fields), MSGHDR.size)


def _send_bytes(kernel: "SimKernel", request: Request, data: bytes) -> int | None:
    socket = request.file
    if not isinstance(socket, StreamSocket):
        return -errno.ENOTSOCK
    request.wanted = _FOR_WRITING
    if not request.done_bytes and kernel.faults.strikes("reset"):
        socket.break_off()
    while True:
        rest = data[request.done_bytes :]
        count = socket.write(rest[: _shortened(kernel, request, len(rest))])
        if count is None:
            if request.op_flags & _MSG_DONTWAIT or not socket.blocking:
                return request.done_bytes or -errno.EAGAIN
            return None
        if count < 0:
            return request.done_bytes or count
        request.done_bytes += count
        # The kernel goes on by itself with MSG_WAITALL, but need not come to the end of it.
        if request.done_bytes == len(data) or not request.op_flags & _MSG_WAITALL:
            return request.done_bytes
        if kernel.faults.strikes("short", "send given up"):
            return request.done_bytes


@_handles(k.IORING_OP_READ, k.IORING_OP_READ_FIXED)
def _read(kernel: "SimKernel", request: Request) -> int | None:
    assert request.file is not None
    request.wanted = _FOR_READING
    count = request.len
    if isinstance(request.file, OpenFile) and kernel.faults.strikes("disk_error", "read"):
        return -errno.EIO
    count = _shortened(kernel, request, count)
    data = read_file(request.file, request.off, count)
    if data is None and not request.file.blocking:
        return -errno.EAGAIN
    if data is None or isinstance(data, int):
        return data
    memmove(request.addr, data, len(data))
    return len(data)


def read_file(file: SimFile, offset: int, count: int) -> bytes | int | None:
    """Read at an offset, or where the file stands; only files have offsets."""
    if isinstance(file, OpenFile) and offset != _AT_CURRENT_POSITION:
        return file.read_at(offset, count)
    return file.read(count)


def write_file(file: SimFile, offset: int, data: bytes) -> int | None:
    """Write at an offset, or where the file stands; only files have offsets."""
    if isinstance(file, OpenFile) and offset != _AT_CURRENT_POSITION:
        return file.write_at(offset, data)
    return file.write(data)


@_handles(k.IORING_OP_WRITE, k.IORING_OP_WRITE_FIXED)
def _write(kernel: "SimKernel", request: Request) -> int | None:
    assert request.file is not None
    request.wanted = _FOR_WRITING
    if isinstance(request.file, OpenFile) and kernel.faults.strikes("disk_error", "write"):
        return -errno.EIO
    data = string_at(request.addr, _shortened(kernel, request, request.len))
    count = write_file(request.file, request.off, data)
    return -errno.EAGAIN if count is None and not request.file.blocking else count


@_handles(k.IORING_OP_READV)
def _readv(kernel: "SimKernel", request: Request) -> int | None:
    assert request.file is not None
    request.wanted = _FOR_READING
    spans = list(IOVEC.iter_unpack(string_at(request.addr, request.len * IOVEC.size)))
    count = _shortened(kernel, request, sum(size for _, size in spans))
    data = read_file(request.file, request.off, count)
    if data is None or isinstance(data, int):
        return data
    scatter(spans, data)
    return len(data)


@_handles(k.IORING_OP_WRITEV)
def _writev(kernel: "SimKernel", request: Request) -> int | None:
    assert request.file is not None
    request.wanted = _FOR_WRITING
    spans = IOVEC.iter_unpack(string_at(request.addr, request.len * IOVEC.size))
    data = b"".join(string_at(addr, size) for addr, size in spans if size)
    return write_file(request.file, request.off, data[: _shortened(kernel, request, len(data))])


# --- sockets -------------------------------------------------------------------------------------


@_handles(k.IORING_OP_ACCEPT)
def _accept(kernel: "SimKernel", request: Request) -> int | None:
    listener = request.file
    if not isinstance(listener, StreamSocket):
        return -errno.ENOTSOCK
    request.wanted = POLLIN | POLLERR | POLLHUP
    answer = kernel.accept(listener, request.addr, request.off, request.op_flags)
    if answer == -errno.EAGAIN and listener.blocking:
        return None
    return answer


def put_address(raw: bytes, addr: int, len_addr: int) -> None:
    """Store an address where accept(2) is told to, cut to the room that there is."""
    if not addr or not len_addr:
        return
    room = int.from_bytes(string_at(len_addr, 4), _BYTE_ORDER)
    memmove(addr, raw, min(room, len(raw)))
    memmove(len_addr, len(raw).to_bytes(4, _BYTE_ORDER), 4)


@_handles(k.IORING_OP_CONNECT)
def _connect(_kernel: "SimKernel", request: Request) -> int | None:
    socket = request.file
    if not isinstance(socket, StreamSocket):
        return -errno.ENOTSOCK
    request.wanted = _FOR_WRITING
    if request.done_bytes:  # it has been tried: what came of it
        if socket.state == "connecting":
            return None
        return 0 if socket.state == "connected" else socket.connect(socket.remote)
    result = socket.connect(string_at(request.addr, min(request.off, _SOCKADDR_BYTES)))
    if result is None:
        request.done_bytes = 1
    return result


@_handles(k.IORING_OP_SHUTDOWN)
def _shutdown(_kernel: "SimKernel", request: Request) -> int | None:
    if not isinstance(request.file, StreamSocket):
        return -errno.ENOTSOCK
    return request.file.shutdown(request.len)


@_handles(k.IORING_OP_SOCKET)
def _socket(kernel: "SimKernel", request: Request) -> int | None:
    return kernel.make_socket(request.fd, request.off, request.len)


@_handles(k.IORING_OP_POLL_ADD)
def _poll(_kernel: "SimKernel", request: Request) -> int | None:
    assert request.file is not None
    request.wanted = request.op_flags & 0xFFFF | POLLERR | POLLHUP
    return request.file.poll() & request.wanted or None


# --- files ---------------------------------------------------------------------------------------


@_handles(k.IORING_OP_OPENAT)
def _openat(kernel: "SimKernel", request: Request) -> int | None:
    return kernel.open(path_at(request.addr), request.op_flags, request.len)


@_handles(k.IORING_OP_OPENAT2)
def _openat2(kernel: "SimKernel", request: Request) -> int | None:
    flags, mode, _ = OPEN_HOW.unpack(string_at(request.off, OPEN_HOW.size))
    return kernel.open(path_at(request.addr), flags, mode)


@_handles(k.IORING_OP_FSYNC)
def _fsync(kernel: "SimKernel", request: Request) -> int | None:
    if not isinstance(request.file, OpenFile):
        return -errno.EINVAL
    if kernel.faults.strikes("disk_error", "fsync"):
        return -errno.EIO
    return request.file.sync()


@_handles(k.IORING_OP_FTRUNCATE)
def _ftruncate(_kernel: "SimKernel", request: Request) -> int | None:
    if not isinstance(request.file, OpenFile):
        return -errno.EINVAL
    return request.file.truncate(request.off)


@_handles(k.IORING_OP_UNLINKAT)
def _unlinkat(kernel: "SimKernel", request: Request) -> int | None:
    return kernel.disk.unlink(path_at(request.addr))


@_handles(k.IORING_OP_CLOSE)
def _close(kernel: "SimKernel", request: Request) -> int | None:
    return kernel.close_fd(request.fd)


@_handles(k.IORING_OP_ASYNC_CANCEL)
def _cancel(_kernel: "SimKernel", request: Request) -> int | None:
    return request.ring.cancel_by(request)


_BYTE_ORDER: Final = "little" if memoryview(b"\1\0").cast("H")[0] == 1 else "big"
