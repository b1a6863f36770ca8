"""What requests that move bytes do: receives, sends, reads, writes, splices."""

import errno
from collections.abc import Sequence
from ctypes import memmove, string_at
from typing import TYPE_CHECKING, Final

from uringio._sys import constants as k
from uringio._sys.layouts import IOVEC, MSGHDR, RECVMSG_OUT

from ._disk import OpenFile
from ._messages import deliver, install, outgoing_at, scatter, spans_of
from ._objects import Pipe, SimFile
from ._requests import FOR_READING, FOR_WRITING, Request, handles
from ._sockets import SimSocket, StreamSocket, Taken
from .errors import NotSimulatedError

if TYPE_CHECKING:
    from ._kernel import SimKernel

__all__ = ["read_file", "write_file"]

_MSG_PEEK: Final = 0x02
_MSG_TRUNC: Final = 0x20
_MSG_DONTWAIT: Final = 0x40
_MSG_WAITALL: Final = 0x100
_AT_CURRENT_POSITION: Final = (1 << 64) - 1
_SOCKADDR_BYTES: Final = 128
_RECV_FLAGS: Final = k.IORING_RECV_MULTISHOT | k.IORING_RECVSEND_POLL_FIRST
_SEND_FLAGS: Final = (
    k.IORING_RECVSEND_POLL_FIRST | k.IORING_RECVSEND_FIXED_BUF | k.IORING_SEND_ZC_REPORT_USAGE
)


def _shortened(kernel: "SimKernel", request: Request, count: int) -> int:
    """Cut a transfer of at most *count* bytes short, now and then."""
    if count > 1 and kernel.faults.strikes("short", request.name):
        return 1 + kernel.faults.below("short", count - 1)
    return count


def _selected(kernel: "SimKernel", request: Request) -> tuple[int, int, int] | None:
    """Return the next provided buffer; None if there is none, or is said to be none."""
    group = request.ring.groups.get(request.buffer_group)
    entry = None if group is None else group.peek()
    if entry is None or kernel.faults.strikes("starve"):
        return None
    return entry


def _refused_flags(request: Request, known: int) -> int:
    if request.ioprio & ~known:
        if request.ioprio & (k.IORING_RECVSEND_BUNDLE | k.IORING_SEND_VECTORIZED):
            raise NotSimulatedError(f"{request!r} with bundles or vectors is not simulated")
        return -errno.EINVAL
    return 0


def _must_not_wait(request: Request, file: SimFile) -> bool:
    return bool(request.op_flags & _MSG_DONTWAIT) or not file.blocking


# --- sockets -------------------------------------------------------------------------------------


@handles(k.IORING_OP_RECV)
def _recv(kernel: "SimKernel", request: Request) -> int | None:
    socket = request.file
    if not isinstance(socket, SimSocket):
        return -errno.ENOTSOCK
    request.wanted = FOR_READING
    if request.ioprio:
        refused = _refused_flags(request, _RECV_FLAGS)
        if refused or (not request.shots and not _begin_shots(request)):
            return refused or -errno.EINVAL
    peek = bool(request.op_flags & _MSG_PEEK)
    addr, count = request.addr, request.len
    entry: tuple[int, int, int] | None = None
    if request.flags & k.IOSQE_BUFFER_SELECT:
        # As the kernel does, before it looks for data.
        entry = _selected(kernel, request)
        if entry is None:
            return -errno.ENOBUFS
        addr, size, _ = entry
        count = min(count, size) if count else size
    if request.shots and request.file_index:  # the most that all of them bring [bytes]
        count = min(count, request.file_index)
    whole = bool(request.op_flags & _MSG_WAITALL) and not entry and not peek
    whole = whole and isinstance(socket, StreamSocket)
    while True:
        wanted = count - request.done_bytes
        if isinstance(socket, StreamSocket):
            wanted = _shortened(kernel, request, wanted)
        taken = Taken() if request.op_flags & _MSG_TRUNC else None
        data = socket.receive(wanted, peek, taken)
        if data is None:
            if _must_not_wait(request, socket):
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
    if request.shots and request.file_index:
        request.file_index -= request.done_bytes
        if not request.file_index:
            request.unwatch()
            request.shots = 0
    if taken is not None:
        for file in taken.files:
            file.drop()
        return max(request.done_bytes, taken.full_bytes)
    return request.done_bytes


def _begin_shots(request: Request) -> bool:
    """Begin a multishot receive, if that is what is asked for; False if it is asked wrongly."""
    if not request.ioprio & k.IORING_RECV_MULTISHOT:
        return True
    if not request.flags & k.IOSQE_BUFFER_SELECT or request.op_flags & _MSG_WAITALL:
        return False
    if request.opcode == k.IORING_OP_RECV and request.len:
        return False
    request.shots = 1
    return True


@handles(k.IORING_OP_RECVMSG)
def _recvmsg(kernel: "SimKernel", request: Request) -> int | None:
    socket = request.file
    if not isinstance(socket, SimSocket):
        return -errno.ENOTSOCK
    request.wanted = FOR_READING
    if request.ioprio:
        refused = _refused_flags(request, _RECV_FLAGS)
        if refused or (not request.shots and not _begin_shots(request)):
            return refused or -errno.EINVAL
    peek = bool(request.op_flags & _MSG_PEEK)
    if request.flags & k.IOSQE_BUFFER_SELECT:
        return _recvmsg_selected(kernel, request, socket, peek)
    spans = spans_of(request.addr)
    count = sum(size for _, size in spans)
    if isinstance(socket, StreamSocket):
        count = _shortened(kernel, request, count)
    taken = Taken()
    data = socket.receive(count, peek, taken)
    if data is None and _must_not_wait(request, socket):
        return -errno.EAGAIN
    if data is None or isinstance(data, int):
        return data
    deliver(kernel, request.addr, spans, data, taken)
    return max(len(data), taken.full_bytes) if request.op_flags & _MSG_TRUNC else len(data)


def _recvmsg_selected(
    kernel: "SimKernel", request: Request, socket: SimSocket, peek: bool
) -> int | None:
    """Receive into a provided buffer: header, name, control data, payload."""
    if not request.shots:
        raise NotSimulatedError("a single recvmsg into a provided buffer is not simulated")
    entry = _selected(kernel, request)
    if entry is None:
        return -errno.ENOBUFS
    addr, size, number = entry
    fields = MSGHDR.unpack(string_at(request.addr, MSGHDR.size))
    name_room, control_room = fields[1], fields[5]
    room = size - RECVMSG_OUT.size - name_room - control_room
    if room < 0:
        return -errno.EFAULT
    taken = Taken()
    data = socket.receive(room, peek, taken)
    if data is None:
        return -errno.EAGAIN if _must_not_wait(request, socket) else None
    if isinstance(data, int):
        return data
    if not data and isinstance(socket, StreamSocket):
        return 0
    control, cut = install(kernel, taken.files, control_room)
    full_bytes = max(len(data), taken.full_bytes)
    flags = (0x08 if cut else 0) | (_MSG_TRUNC if full_bytes > len(data) else 0)
    name = taken.name[:name_room]
    raw = RECVMSG_OUT.pack(len(taken.name), len(control), full_bytes, flags)
    raw += name + bytes(name_room - len(name))
    raw += control + bytes(control_room - len(control)) + data
    memmove(addr, raw, len(raw))
    request.buffer = number
    request.ring.groups[request.buffer_group].take()
    return len(raw)


@handles(k.IORING_OP_SEND)
def _send(kernel: "SimKernel", request: Request) -> int | None:
    return _send_bytes(kernel, request, *_payload(request))


@handles(k.IORING_OP_SEND_ZC)
def _send_zc(kernel: "SimKernel", request: Request) -> int | None:
    socket = request.file
    if not isinstance(socket, SimSocket) or socket.is_unix:
        return -errno.EOPNOTSUPP
    return _send_bytes(kernel, request, *_payload(request))


def _payload(request: Request) -> tuple[bytes, bytes]:
    """Return the bytes to send, and to where."""
    name = b""
    name_bytes = request.file_index & 0xFFFF  # addr_len
    if request.off and name_bytes:
        name = string_at(request.off, name_bytes)
    return string_at(request.addr, request.len), name


@handles(k.IORING_OP_SENDMSG, k.IORING_OP_SENDMSG_ZC)
def _sendmsg(kernel: "SimKernel", request: Request) -> int | None:
    socket = request.file
    if not isinstance(socket, SimSocket):
        return -errno.ENOTSOCK
    if request.opcode == k.IORING_OP_SENDMSG_ZC and socket.is_unix:
        return -errno.EOPNOTSUPP
    message = outgoing_at(kernel, socket, request.addr)
    if isinstance(message, int):
        return message
    return _send_bytes(kernel, request, *message)


def _send_bytes(
    kernel: "SimKernel",
    request: Request,
    data: bytes,
    name: bytes = b"",
    files: Sequence[SimFile] = (),
) -> int | None:
    socket = request.file
    if not isinstance(socket, SimSocket):
        return -errno.ENOTSOCK
    request.wanted = FOR_WRITING
    refused = _refused_flags(request, _SEND_FLAGS)
    if refused:
        return refused
    streams = isinstance(socket, StreamSocket)
    if (
        isinstance(socket, StreamSocket)
        and not request.done_bytes
        and kernel.faults.strikes("reset")
    ):
        socket.break_off()
    while True:
        rest = data[request.done_bytes :]
        count = len(rest)
        if streams:
            count = _shortened(kernel, request, count)
        sent = socket.send(rest[:count], name, () if request.done_bytes else files)
        if sent is None:
            if _must_not_wait(request, socket):
                return request.done_bytes or -errno.EAGAIN
            return None
        if sent < 0:
            return request.done_bytes or sent
        request.done_bytes += sent
        # The kernel goes on by itself with MSG_WAITALL, but need not come to the end of it.
        if request.done_bytes == len(data) or not request.op_flags & _MSG_WAITALL or not streams:
            return request.done_bytes
        if kernel.faults.strikes("short", "send given up"):
            return request.done_bytes


# --- reads and writes ----------------------------------------------------------------------------


@handles(k.IORING_OP_READ, k.IORING_OP_READ_FIXED, k.IORING_OP_READ_MULTISHOT)
def _read(kernel: "SimKernel", request: Request) -> int | None:
    file = request.file
    assert file is not None
    request.wanted = FOR_READING
    addr, count = request.addr, request.len
    entry: tuple[int, int, int] | None = None
    if request.opcode == k.IORING_OP_READ_MULTISHOT:
        if not request.flags & k.IOSQE_BUFFER_SELECT or request.len:
            return -errno.EINVAL
        if isinstance(file, OpenFile):
            return -errno.EBADFD
        request.shots = request.shots or 1
    if request.flags & k.IOSQE_BUFFER_SELECT:
        if request.shots and not file.readable_now():
            return None if file.blocking else -errno.EAGAIN
        entry = _selected(kernel, request)
        if entry is None:
            return -errno.ENOBUFS
        addr, size, _ = entry
        count = min(count, size) if count else size
    if isinstance(file, OpenFile) and kernel.faults.strikes("disk_error", "read"):
        return -errno.EIO
    count = _shortened(kernel, request, count)
    data = read_file(file, request.off, count)
    if data is None and not file.blocking:
        return -errno.EAGAIN
    if data is None or isinstance(data, int):
        return data
    memmove(addr, data, len(data))
    if entry is not None:
        request.buffer = entry[2]
        request.ring.groups[request.buffer_group].take()
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


@handles(k.IORING_OP_WRITE, k.IORING_OP_WRITE_FIXED)
def _write(kernel: "SimKernel", request: Request) -> int | None:
    assert request.file is not None
    request.wanted = FOR_WRITING
    if isinstance(request.file, OpenFile) and kernel.faults.strikes("disk_error", "write"):
        return -errno.EIO
    data = string_at(request.addr, _shortened(kernel, request, request.len))
    count = write_file(request.file, request.off, data)
    return -errno.EAGAIN if count is None and not request.file.blocking else count


@handles(k.IORING_OP_READV)
def _readv(kernel: "SimKernel", request: Request) -> int | None:
    assert request.file is not None
    request.wanted = FOR_READING
    spans = list(IOVEC.iter_unpack(string_at(request.addr, request.len * IOVEC.size)))
    count = _shortened(kernel, request, sum(size for _, size in spans))
    data = read_file(request.file, request.off, count)
    if data is None or isinstance(data, int):
        return data
    scatter(spans, data)
    return len(data)


@handles(k.IORING_OP_WRITEV)
def _writev(kernel: "SimKernel", request: Request) -> int | None:
    assert request.file is not None
    request.wanted = FOR_WRITING
    spans = IOVEC.iter_unpack(string_at(request.addr, request.len * IOVEC.size))
    data = b"".join(string_at(addr, size) for addr, size in spans if size)
    return write_file(request.file, request.off, data[: _shortened(kernel, request, len(data))])


# --- splicing ------------------------------------------------------------------------------------


@handles(k.IORING_OP_SPLICE, k.IORING_OP_TEE)
def _splice(kernel: "SimKernel", request: Request) -> int | None:
    """Move bytes between two files, one of which is a pipe; a tee leaves them where they were."""
    target = request.file
    assert target is not None
    fixed = bool(request.op_flags & k.SPLICE_F_FD_IN_FIXED)
    source = request.ring.file_of(request.file_index, fixed)
    if source is None:
        return -errno.EBADF
    tees = request.opcode == k.IORING_OP_TEE
    if not request.len:
        return 0
    if not isinstance(source, Pipe) and not isinstance(target, Pipe):
        return -errno.EINVAL
    if tees and not (isinstance(source, Pipe) and isinstance(target, Pipe)):
        return -errno.EINVAL
    request.waits_on = None
    waits = source.blocking and not request.op_flags & k.SPLICE_F_NONBLOCK
    count = _shortened(kernel, request, request.len)
    if isinstance(target, Pipe):
        count = min(count, target.room())
        if not count and target.has_reader():
            return _splice_waits(request, target, FOR_WRITING, waits and target.blocking)
    if isinstance(source, Pipe):
        data: bytes | int | None = source.peek(count)
    elif isinstance(source, OpenFile):
        data = read_file(source, request.addr, count)
    else:
        data = source.read(count)
    if data is None:
        return _splice_waits(request, source, FOR_READING, waits)
    if isinstance(data, int) or not data:
        return data if isinstance(data, int) else 0
    sent = write_file(target, request.off, data)
    if sent is None:
        return _splice_waits(request, target, FOR_WRITING, waits and target.blocking)
    if sent > 0 and isinstance(source, Pipe) and not tees:
        source.read(sent)
        source.tell_writer()
    return sent


def _splice_waits(request: Request, file: SimFile, wanted: int, waits: bool) -> int | None:
    if not waits:
        return -errno.EAGAIN
    request.waits_on = file
    request.wanted = wanted
    return None
