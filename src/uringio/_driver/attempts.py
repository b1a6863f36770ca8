"""
The attempt table: operation -> the call that tries it once, without waiting.

An attempt answers like a completion: a result from 0 up, or ``-errno``, where ``-EAGAIN`` means
that the descriptor is not ready.  Memory stands at ``op.addr`` (`locate` has seen to that); the
value of a RECV is put into the op.
"""

import errno
from collections.abc import Callable
from typing import Final

from uringio._sys.memory import pin
from uringio._sys.numbers import SO_ERROR, SOL_SOCKET
from uringio._sys.sockaddr import family_at
from uringio._sys.system import System

from . import op as o
from .op import Op
from .poll_bits import POLLNVAL
from .vectored import Vectored

__all__ = [
    "RECV_BYTES_MAX",
    "SEND_BYTES_MAX",
    "VALUED",
    "Attempt",
    "locate",
    "make_attempts",
    "start_connecting",
]

Attempt = Callable[[Op[object]], int]

# What one RECV returns at most.  More than 64 KiB, so that a read of such a message is a short one,
# and below what glibc maps for each piece anew.
RECV_BYTES_MAX: Final = 98304
SEND_BYTES_MAX: Final = 1 << 30  # what is offered in one call; the bare door takes a C int

# Operations whose value is the result itself.
VALUED: Final = frozenset({
    o.NOP, o.RECV_INTO, o.SEND, o.SENDMSG, o.ACCEPT, o.OPEN, o.READ, o.WRITE, o.POLL, o.READV,
    o.WRITEV, o.OPENAT2, o.READ_CACHED, o.DIRECT, o.INSTALL, o.POLL_AGAIN,
})  # fmt: skip

_WRITES_MEMORY: Final = frozenset({o.RECV_INTO, o.READ, o.STATX})
_POLL_MASK: Final = 0x7FFF


def locate(op: Op[object]) -> None:
    """
    Put the address of the op's memory into ``op.addr``, and what keeps it there into ``op.hold``.

    Raises:
        TypeError: The memory cannot be written, and would have to be.
        UsageError: The memory was cut since the call was made.
    """
    if op.hold is not None:
        return
    if isinstance(op, Vectored):
        op.pin_pieces()
    elif op.memory is not None:
        size = op.len if op.code != o.STATX else 0  # whose length is what is asked for
        op.addr, _, op.hold = pin(op.memory, writable=op.code in _WRITES_MEMORY, at_least=size)


def make_attempts(system: System, adopt: Callable[[int], None]) -> list[Attempt]:
    """
    Build the table for *system*.

    Args:
        adopt: Called with each accepted descriptor, which is non-blocking already.
    """
    read_bytes, recv, send, accept = system.read_bytes, system.recv, system.send, system.accept
    sendmsg, recvmsg = system.sendmsg, system.recvmsg
    read, write, poll_fd = system.read, system.write, system.poll_fd
    accept_flags = system.SOCK_NONBLOCK | system.SOCK_CLOEXEC
    scratch = system.allocate(RECV_BYTES_MAX)  # for receives with flags, which read(2) has not

    def attempt_recv(op: Op[object]) -> int:
        if isinstance(op.value, bytes):  # a signal handler raised behind the attempt before
            return len(op.value)
        size = op.len if 0 < op.len < RECV_BYTES_MAX else RECV_BYTES_MAX
        if op.flags:
            res = recv(op.fd, scratch.addr, size, op.flags)
            if res >= 0:
                op.value = scratch.slices[: min(res, size)]  # MSG_TRUNC tells more than it wrote
            return res
        try:
            # `map`, so that no call of ours stands between reading and storing: see `readiness`.
            (op.value,) = map(read_bytes, (op.fd,), (size,))
        except OSError as error:
            if error.errno is None:
                raise  # a signal handler's, such as a TimeoutError
            return -error.errno
        return len(op.value)

    def attempt_recv_into(op: Op[object]) -> int:
        return recv(op.fd, op.addr, op.len, op.flags)

    def attempt_send(op: Op[object]) -> int:
        locate(op)  # what was `bytes` at the first attempt went without
        return send(op.fd, op.addr, min(op.len, SEND_BYTES_MAX), op.flags)

    def attempt_sendmsg(op: Op[object]) -> int:
        return sendmsg(op.fd, op.addr, op.flags)

    def attempt_recvmsg(op: Op[object]) -> int:
        return recvmsg(op.fd, op.addr, op.flags)

    def attempt_accept(op: Op[object]) -> int:
        res = accept(op.fd, op.addr, op.off, accept_flags)
        if res >= 0:
            adopt(res)
        return res

    def attempt_connect(op: Op[object]) -> int:
        """Ask how the connecting that `start_connecting` began has gone."""
        try:
            number = system.getsockopt(op.fd, SOL_SOCKET, SO_ERROR)
        except OSError as error:
            return -(error.errno or errno.EIO)
        if number:
            return -number
        # Asking again also tells the socket that it is connected: otherwise the next connect(2)
        # would still answer 0 instead of EISCONN.
        res = system.connect(op.fd, op.addr, op.off)
        if res == -errno.EALREADY:
            return -errno.EAGAIN
        return 0 if res == -errno.EISCONN else res

    def attempt_shutdown(op: Op[object]) -> int:
        return system.shutdown(op.fd, op.len)

    def attempt_close(op: Op[object]) -> int:
        res = system.close(op.fd)
        return 0 if res == -errno.EINTR else res  # the descriptor is gone all the same

    def attempt_read(op: Op[object]) -> int:
        return read(op.fd, op.addr, op.len)

    def attempt_write(op: Op[object]) -> int:
        return write(op.fd, op.addr, op.len)

    def attempt_poll(op: Op[object]) -> int:
        found = poll_fd(op.fd, op.flags & _POLL_MASK)
        if found & POLLNVAL:
            return -errno.EBADF
        return found or -errno.EAGAIN

    def attempt_nothing(_op: Op[object]) -> int:
        return 0

    table: list[Attempt] = [attempt_nothing] * len(o.OPERATION_NAMES)
    table[o.RECV] = attempt_recv
    table[o.RECV_INTO] = attempt_recv_into
    table[o.SEND] = table[o.SEND_ALL] = attempt_send
    table[o.SENDMSG] = attempt_sendmsg
    table[o.RECVMSG] = attempt_recvmsg
    table[o.ACCEPT] = attempt_accept
    table[o.CONNECT] = attempt_connect
    table[o.SHUTDOWN] = attempt_shutdown
    table[o.CLOSE] = attempt_close
    table[o.READ] = attempt_read
    table[o.WRITE] = attempt_write
    table[o.POLL] = table[o.POLL_AGAIN] = attempt_poll
    return table


def start_connecting(system: System, op: Op[object]) -> int:
    """
    Begin to connect; ``-EINPROGRESS`` when the descriptor will tell.

    ``-EAGAIN`` means that a Unix listener's queue is full, of which no readiness tells.
    """
    res = system.connect(op.fd, op.addr, op.off)
    if res == -errno.EINTR:
        return -errno.EINPROGRESS  # connect(2): it goes on by itself
    if res == -errno.EAGAIN and family_at(system.memory_at(op.addr, 2)) != system.AF_UNIX:
        return -errno.EADDRNOTAVAIL  # what Linux means by it: no local port is free
    return res
