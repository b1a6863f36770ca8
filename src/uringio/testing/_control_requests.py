"""What requests on descriptors themselves do: making, connecting, passing on and closing them."""

import errno
from ctypes import memmove, string_at
from typing import TYPE_CHECKING, Final

from uringio._driver.poll_bits import POLLERR, POLLHUP, POLLIN
from uringio._sys import constants as k

from ._requests import BYTE_ORDER, FOR_WRITING, Request, handles
from ._sockets import SimSocket, StreamSocket
from .errors import NotSimulatedError

if TYPE_CHECKING:
    from ._kernel import SimKernel
    from ._rings import SimRing

__all__ = ["update_files"]

_SOCKADDR_BYTES: Final = 128
_ACCEPT_FLAGS: Final = (
    k.IORING_ACCEPT_MULTISHOT | k.IORING_ACCEPT_DONTWAIT | k.IORING_ACCEPT_POLL_FIRST
)
_MSG_RING_FLAGS: Final = k.IORING_MSG_RING_CQE_SKIP | k.IORING_MSG_RING_FLAGS_PASS


@handles(k.IORING_OP_NOP)
def _nop(_kernel: "SimKernel", request: Request) -> int | None:
    if request.op_flags & ~k.IORING_NOP_INJECT_RESULT:
        raise NotSimulatedError(f"{request!r} with flags {request.op_flags:#x} is not simulated")
    if request.op_flags:
        return request.len if request.len < 1 << 31 else request.len - (1 << 32)
    return 0


# --- sockets -------------------------------------------------------------------------------------


@handles(k.IORING_OP_ACCEPT)
def _accept(kernel: "SimKernel", request: Request) -> int | None:
    listener = request.file
    if not isinstance(listener, SimSocket):
        return -errno.ENOTSOCK
    if not isinstance(listener, StreamSocket):
        return -errno.EOPNOTSUPP
    request.wanted = POLLIN | POLLERR | POLLHUP
    if request.ioprio & ~_ACCEPT_FLAGS:
        return -errno.EINVAL
    if request.ioprio & k.IORING_ACCEPT_MULTISHOT and not request.shots:
        if request.addr and request.off:
            pass  # as the kernel has it: each overwrites the one before
        request.shots = 1
    answer = kernel.accept(
        listener, request.addr, request.off, request.op_flags, request
    )  # fmt: skip
    if answer == -errno.EAGAIN and listener.blocking:
        return -errno.EAGAIN if request.ioprio & k.IORING_ACCEPT_DONTWAIT else None
    return answer


@handles(k.IORING_OP_CONNECT)
def _connect(_kernel: "SimKernel", request: Request) -> int | None:
    socket = request.file
    if not isinstance(socket, SimSocket):
        return -errno.ENOTSOCK
    request.wanted = FOR_WRITING
    if request.done_bytes:  # it has been tried: what came of it
        if socket.state == "connecting":
            return None
        return 0 if socket.state == "connected" else socket.connect(socket.remote)
    result = socket.connect(string_at(request.addr, min(request.off, _SOCKADDR_BYTES)))
    if result is None:
        request.done_bytes = 1
    return result


@handles(k.IORING_OP_SHUTDOWN)
def _shutdown(_kernel: "SimKernel", request: Request) -> int | None:
    if not isinstance(request.file, SimSocket):
        return -errno.ENOTSOCK
    return request.file.shutdown(request.len)


@handles(k.IORING_OP_SOCKET)
def _socket(kernel: "SimKernel", request: Request) -> int | None:
    return kernel.install_for(
        request, kernel.make_socket(request.fd, request.off, request.len)
    )  # fmt: skip


@handles(k.IORING_OP_BIND)
def _bind(kernel: "SimKernel", request: Request) -> int | None:
    if not isinstance(request.file, SimSocket):
        return -errno.ENOTSOCK
    raw = string_at(request.addr, min(request.off, _SOCKADDR_BYTES))
    return kernel.net.bind(request.file, raw)


@handles(k.IORING_OP_LISTEN)
def _listen(_kernel: "SimKernel", request: Request) -> int | None:
    if not isinstance(request.file, SimSocket):
        return -errno.ENOTSOCK
    return request.file.listen(request.len)


# --- descriptors ---------------------------------------------------------------------------------


@handles(k.IORING_OP_CLOSE)
def _close(kernel: "SimKernel", request: Request) -> int | None:
    if not request.file_index:
        result = kernel.close_fd(request.fd)
        # The number is free all the same, which is why nobody may close it again.
        return result or (-errno.EINTR if kernel.faults.strikes("interrupt", "close") else 0)
    slots, slot = request.ring.files, request.file_index - 1
    if request.fd or request.flags & k.IOSQE_FIXED_FILE:
        return -errno.EINVAL
    if not slots:
        return -errno.ENXIO
    if slot >= len(slots):
        return -errno.EINVAL
    file, slots[slot] = slots[slot], None
    if file is None:
        return -errno.EBADF
    file.drop()
    return 0


@handles(k.IORING_OP_FIXED_FD_INSTALL)
def _install(kernel: "SimKernel", request: Request) -> int | None:
    if not request.flags & k.IOSQE_FIXED_FILE:
        return -errno.EBADF
    assert request.file is not None
    return kernel.install(request.file)


@handles(k.IORING_OP_PIPE)
def _pipe(kernel: "SimKernel", request: Request) -> int | None:
    if request.file_index:
        raise NotSimulatedError("pipes of direct descriptors are not simulated")
    reader, writer = kernel.make_pipe(not request.op_flags & 0o4000)
    if reader < 0:
        return reader
    memmove(request.addr, b"".join(fd.to_bytes(4, BYTE_ORDER) for fd in (reader, writer)), 8)
    return 0


@handles(k.IORING_OP_FILES_UPDATE)
def _files_update(kernel: "SimKernel", request: Request) -> int | None:
    if request.off == k.IORING_FILE_INDEX_ALLOC or request.off >= 1 << 32:
        raise NotSimulatedError("having slots allocated by FILES_UPDATE is not simulated")
    if not request.len:
        return -errno.EINVAL
    return update_files(kernel, request.ring, request.off, request.addr, request.len)


def update_files(
    kernel: "SimKernel", ring: "SimRing", first: int, fds_addr: int, count: int
) -> int:
    """Replace slots of registered files; address 0 empties them."""
    if not ring.files:
        return -errno.ENXIO
    if first + count > len(ring.files):
        return -errno.EINVAL
    for index in range(count):
        raw = string_at(fds_addr + 4 * index, 4) if fds_addr else b"\xff\xff\xff\xff"
        fd = int.from_bytes(raw, BYTE_ORDER, signed=True)
        if fd == k.IORING_REGISTER_FILES_SKIP:
            continue
        file = kernel.file_of(fd)
        if fd != -1 and file is None:
            return index or -errno.EBADF
        before, ring.files[first + index] = ring.files[first + index], file
        if file is not None:
            file.hold()
        if before is not None:
            before.drop()
    return count


# --- messages between rings ----------------------------------------------------------------------


@handles(k.IORING_OP_MSG_RING)
def _msg_ring(kernel: "SimKernel", request: Request) -> int | None:
    from ._rings import SimRing

    target = request.file
    if request.buffer_group or request.op_flags & ~_MSG_RING_FLAGS:
        return -errno.EINVAL
    if not isinstance(target, SimRing):
        return -errno.EBADFD
    if request.addr == k.IORING_MSG_SEND_FD:
        return _send_fd(kernel, request, target)
    if request.addr != k.IORING_MSG_DATA:
        return -errno.EINVAL
    passes = request.op_flags & k.IORING_MSG_RING_FLAGS_PASS
    if request.op_flags & k.IORING_MSG_RING_CQE_SKIP or (request.file_index and not passes):
        return -errno.EINVAL
    result = request.len if request.len < 1 << 31 else request.len - (1 << 32)
    target.receive_message(request.off, result, request.file_index if passes else 0)
    return 0


def _send_fd(kernel: "SimKernel", request: Request, target: "SimRing") -> int:
    ring = request.ring
    if target is ring:
        return -errno.EINVAL
    source = ring.files[request.addr3] if request.addr3 < len(ring.files) else None
    if source is None:
        return -errno.EBADF
    answer = kernel.install_slot(target, source, request.file_index)
    if answer >= 0 and not request.op_flags & k.IORING_MSG_RING_CQE_SKIP:
        target.receive_message(request.off, request.len, 0)
    return answer
