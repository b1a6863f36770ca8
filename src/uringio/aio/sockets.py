"""
Sockets as the loop holds them: a descriptor, and one duty to close it.

The duty is ours until somebody asks for the socket object, which then has it; or the object's from
the start, where the program brought one along.
"""

from asyncio import trsock
from contextlib import suppress
from typing import Final, Protocol

from uringio._driver.contract import Driver
from uringio._driver.sockets import set_nodelay
from uringio._own.fd import OwnedFd
from uringio.errors import OpError

__all__ = ["INFO_NAMES", "HeldSocket", "Sock", "as_builtin", "take_over"]

INFO_NAMES: Final = frozenset({"socket", "sockname", "peername"})


class Sock(Protocol):
    """What is asked of a socket object that the program brings along."""

    @property
    def family(self) -> int:
        """The address family."""
        ...

    @property
    def type(self) -> int:
        """SOCK_STREAM."""
        ...

    def fileno(self) -> int:
        """The descriptor."""
        ...

    def setblocking(self, flag: bool, /) -> None:
        """Choose the object's mode, and the descriptor's."""
        ...

    def close(self) -> None:
        """Close the descriptor."""
        ...


def take_over(driver: Driver, sock: Sock) -> int:
    """
    Ready *sock* for the driver's ops; returns its descriptor.

    The object says that it is non-blocking from then on, as under asyncio's own loops; in which
    mode the descriptor is, is the driver's choice.

    TCP_NODELAY is on from then on, and for whatever a listener accepts, as for the sockets that
    the loop makes: what is written in two parts would wait 40 ms for an acknowledgement between.
    """
    sock.setblocking(False)
    fd = sock.fileno()
    system = driver.system
    if sock.type == system.SOCK_STREAM and sock.family in {system.AF_INET, system.AF_INET6}:
        with suppress(OSError):  # SCTP, or a connection that has been reset
            set_nodelay(system, fd)
    driver.register(fd)
    return fd


def as_builtin(error: BaseException) -> BaseException:
    """Return a kernel's refusal as the builtin class itself: some protocols ask for no less."""
    if not isinstance(error, OpError):
        return error
    return OSError(error.errno, error.strerror).with_traceback(error.__traceback__)


class HeldSocket:
    """
    One socket.

    Args:
        driver: The driver that it is registered with.
        fd: The descriptor.
        what: For error messages, such as ``"transport"``.
        sock: The socket object that owns the descriptor, if the program brought one.
        peer: The peer's address as the kernel writes it, if it is known.
    """

    __slots__ = ("_driver", "_fd", "_owned", "_peer", "_sock")

    def __init__(
        self,
        driver: Driver,
        fd: int,
        what: str,
        sock: Sock | None = None,
        peer: bytes | None = None,
    ) -> None:
        self._driver = driver
        self._fd = fd
        self._owned = None if sock is not None else OwnedFd(fd, driver.system.close, what)
        self._sock = sock
        self._peer = peer

    def info(self, name: str) -> object:
        """Return what asyncio calls by one of `INFO_NAMES`; None where it cannot be known."""
        if name == "socket":
            return None if self._sock is None and self._fd < 0 else self.as_object()
        system = self._driver.system
        try:
            if name == "sockname":
                return system.getsockname(self._fd)
            if self._peer is not None:
                return system.unpack_sockaddr(self._peer)
            return system.getpeername(self._fd)
        except (OSError, ValueError):
            return None

    def as_object(self) -> trsock.TransportSocket:
        """Return the socket, to look at and to set options on."""
        if self._sock is None:
            assert self._owned is not None
            self._sock = self._driver.system.socket_object(self._owned.take())
            self._owned = None
        return trsock.TransportSocket(self._sock)  # type: ignore[arg-type]

    def close(self) -> None:
        """Close the descriptor, on which nothing may be in flight."""
        fd, self._fd = self._fd, -1
        if fd < 0:
            return
        if self._sock is not None:
            self._driver.unregister(fd)
            self._sock.close()
        elif self._owned is not None and not self._owned.closed:
            # Otherwise the garbage collector was faster: it finalizes the parts of a transport that
            # nobody holds, even where another finalizer brings the transport back to close it.
            self._driver.unregister(fd)
            self._owned.close()
