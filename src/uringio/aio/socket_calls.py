"""
Operations on socket objects that the program made: asyncio's ``sock_*``.

These sockets are non-blocking and stay so, for the program may use them by other ways as well; and
of a non-blocking socket io_uring waits for nothing.  So each call is tried at once, and where it
would have to wait, a POLL waits in its place and the call is tried again.  A socket that can answer
at once costs no operation at all.

What follows for memory and cancellation: the kernel has the caller's buffer only within a call that
returns at once, never during a wait.  A call that is cancelled has therefore taken nothing that
could be lost: no bytes, no datagram, no connection.
"""

import asyncio
import errno
from typing import TYPE_CHECKING, Final

from uringio._driver.op import POLL, Op
from uringio._driver.sockets import SO_ERROR, SOL_SOCKET
from uringio.errors import op_error

from .readiness import READABLE, WRITABLE, Readiness
from .tls import refuse_wrapped

if TYPE_CHECKING:
    from socket import socket

    from _typeshed import ReadableBuffer, WriteableBuffer

    Address = tuple[object, ...] | str | ReadableBuffer

__all__ = ["SocketCalls"]

# How often connecting is tried while a Unix listener's queue is full; nothing announces its room.
_CONGESTED_SECONDS: Final = 0.005


class SocketCalls(Readiness):
    """
    The calls, as methods of the loop.

    Each raises TypeError for an ``SSLSocket``, ValueError in debug mode for a socket that is not
    non-blocking, RuntimeError for a socket that a transport of this loop uses, and whatever OSError
    the socket's own method raises.  Closing a socket does not end a call that waits on it; cancel
    the call first.
    """

    async def sock_recv(self, sock: "socket", nbytes: int) -> bytes:
        """
        Receive at most *nbytes* bytes; none is the end of the stream.

        Cancellation: nothing was received.
        """
        fd = self.check_socket(sock)
        while True:
            try:
                return sock.recv(nbytes)
            except (BlockingIOError, InterruptedError):
                pass
            await self.until(fd, READABLE)

    async def sock_recv_into(self, sock: "socket", buf: "WriteableBuffer") -> int:
        """
        Receive into *buf*, at most as much as it holds; returns how many bytes, 0 at the end.

        *buf* is written within the call that receives; while this waits, it is the caller's.

        Cancellation: nothing was received, and *buf* not touched.
        """
        fd = self.check_socket(sock)
        while True:
            try:
                return sock.recv_into(buf)
            except (BlockingIOError, InterruptedError):
                pass
            await self.until(fd, READABLE)

    async def sock_recvfrom(self, sock: "socket", bufsize: int) -> tuple[bytes, object]:
        """
        Receive one datagram, cut off behind *bufsize* bytes, and the sender's address.

        Cancellation: nothing was received.
        """
        fd = self.check_socket(sock)
        while True:
            try:
                return sock.recvfrom(bufsize)
            except (BlockingIOError, InterruptedError):
                pass
            await self.until(fd, READABLE)

    async def sock_recvfrom_into(
        self, sock: "socket", buf: "WriteableBuffer", nbytes: int = 0
    ) -> tuple[int, object]:
        """
        Receive one datagram into *buf*: at most *nbytes* bytes of it, by default what *buf* holds.

        Returns the count and the sender's address.

        Raises:
            ValueError: *nbytes* is more than *buf* holds.

        Cancellation: nothing was received, and *buf* not touched.
        """
        fd = self.check_socket(sock)
        with memoryview(buf) as view:
            nbytes = nbytes or view.nbytes
        while True:
            try:
                return sock.recvfrom_into(buf, nbytes)
            except (BlockingIOError, InterruptedError):
                pass
            await self.until(fd, READABLE)

    async def sock_sendall(self, sock: "socket", data: "ReadableBuffer") -> None:
        """
        Send all of *data*.

        *data* is read bit by bit as there is room, and must not change before this ends.

        Cancellation: some of it may have been sent; the exception's ``done`` counts the bytes.
        The same holds for an OSError.
        """
        fd = self.check_socket(sock)
        done = 0
        with memoryview(data) as whole, whole.cast("B") as view:
            try:
                while True:
                    try:
                        done += sock.send(view[done:] if done else view)
                    except (BlockingIOError, InterruptedError):
                        pass
                    if done >= len(view):
                        return
                    await self.until(fd, WRITABLE)
            except (OSError, asyncio.CancelledError) as error:
                error.done = done  # type: ignore[union-attr]
                raise

    async def sock_sendto(self, sock: "socket", data: "ReadableBuffer", address: "Address") -> int:
        """
        Send one datagram to *address*; returns how many bytes it had.

        Cancellation: it was not sent.
        """
        fd = self.check_socket(sock)
        while True:
            try:
                return sock.sendto(data, address)
            except (BlockingIOError, InterruptedError):
                pass
            await self.until(fd, WRITABLE)

    async def sock_connect(self, sock: "socket", address: "Address") -> None:
        """
        Connect to *address*, whose host is resolved if it is a name.

        Raises:
            OpError: Nobody answers there.

        Cancellation: the kernel may go on connecting; close the socket.
        """
        fd = self.check_socket(sock)
        system = self.require_driver().system
        if sock.family in {system.AF_INET, system.AF_INET6}:
            found = await self._ensure_resolved(
                address, family=sock.family, type=sock.type, proto=sock.proto, loop=self
            )
            address = found[0][4]
        while True:
            try:
                sock.connect(address)
            except BlockingIOError as error:
                if error.errno != errno.EAGAIN:
                    break
            except InterruptedError:
                break  # connect(2): it goes on by itself
            else:
                return
            # The queue of a Unix listener is full, and this has not begun to connect.
            await asyncio.sleep(_CONGESTED_SECONDS)
        await self.until(fd, WRITABLE)
        number = sock.getsockopt(SOL_SOCKET, SO_ERROR)
        if number:
            raise op_error(number, "connect", fd, detail=f"Connect call failed {address!r}")

    async def sock_accept(self, sock: "socket") -> "tuple[socket, object]":
        """
        Accept a connection; returns its socket, non-blocking, and the peer's address.

        Raises:
            RuntimeError: A server of this loop accepts on *sock*.

        Cancellation: none was accepted.
        """
        fd = self.check_socket(sock)
        if fd in self.listening:
            raise RuntimeError(f"File descriptor {fd} is used by a server")
        while True:
            try:
                connection, address = sock.accept()
            except (BlockingIOError, InterruptedError):
                pass
            else:
                connection.setblocking(False)
                return connection, address
            await self.until(fd, READABLE)

    def until(self, fd: int, event: int) -> Op[int]:
        """Return what waits until *event*, READABLE or WRITABLE, or an error holds on *fd*."""
        return Op(POLL, fd, flags=event)

    def check_socket(self, sock: "socket") -> int:
        """Return the descriptor of *sock*, which must be fit for these calls."""
        refuse_wrapped(sock)
        if self._debug and sock.gettimeout() != 0:
            raise ValueError("the socket must be non-blocking")
        # Before it is used at all: the descriptors of transports may be in blocking mode.
        return self.ensure_fd_of_nobody(sock.fileno())
