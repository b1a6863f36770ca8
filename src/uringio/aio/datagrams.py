"""
Datagram transports, over UDP and Unix sockets.

What is received comes by one RECVMSG that is always in flight, into memory that belongs to the
transport.  What is sent is sent on the spot, without waiting: one call of the kernel costs less
than the message header and the request that would describe it, and tells at once what is wrong.
Only datagrams that find no room wait, for the socket to be writable.  Of a Unix socket that is not
connected no readiness tells whether a certain receiver has room; there it is tried after a pause.
"""

# The order of callbacks is asyncio's, whose queue is private.
# pyright: reportPrivateUsage=false

import asyncio
import errno
import os
import sys
from collections import deque
from collections.abc import Callable
from typing import Final, Protocol, TypeVar, cast

from uringio._driver.contract import Driver
from uringio._driver.draining import Drain
from uringio._driver.messages import MSG_CMSG_CLOEXEC, Incoming, Received
from uringio._driver.op import POLL, RECVMSG, SPENT, TIMEOUT, Op
from uringio._driver.sockets import (
    MSG_DONTWAIT,
    SEND_FLAGS,
    SO_BROADCAST,
    SO_REUSEPORT,
    SOL_SOCKET,
    Address,
    RawOption,
    SocketAddress,
    bind_datagrams,
    connect_datagrams,
)
from uringio.errors import op_error

from .endpoint import WritingEndpoint
from .payloads import as_bytes
from .readiness import WRITABLE
from .running import RunningLoop
from .sockets import INFO_NAMES, HeldSocket, Sock, as_builtin

__all__ = ["DatagramCalls", "DatagramSock", "DatagramTransport"]

P = TypeVar("P", bound=asyncio.BaseProtocol)

# More than UDP and what a Unix socket's send buffer usually hold; touched as far as it is used.
_RECEIVE_BYTES: Final = 256 * 1024
# After so many receives that found one datagram alone, only every so many-th looks for more.
_LONE_MAX: Final = 4
_NOTHING: Final = frozenset({-errno.EAGAIN, -errno.EINTR})
_MORE_MAX: Final = 31  # what one receive may be followed by, while everybody else waits
_SEND_FLAGS: Final = SEND_FLAGS | MSG_DONTWAIT
_HEADER_BYTES: Final = 8  # what a waiting datagram counts beside its payload
_PAUSE_NS: Final = 1_000_000
# A socket of which these are said is none any more.
_NO_SOCKET: Final = frozenset({errno.EBADF, errno.ENOTSOCK})
# As the running asyncio says it.
_WANTED: Final = "A datagram socket" if sys.version_info >= (3, 13) else "A UDP Socket"


class DatagramSock(Sock, Protocol):
    """A datagram socket object that the program brings along."""

    @property
    def family(self) -> int:
        """AF_INET, AF_INET6 or AF_UNIX."""
        ...


class DatagramTransport(WritingEndpoint, asyncio.DatagramTransport, asyncio.Transport):
    """
    A datagram socket's transport; as in asyncio a `Transport`, too, whose streams it has not.

    Args:
        loop, driver, protocol: See `Endpoint`.
        fd: The socket, which is registered with the driver.
        family: Its address family.
        sock: The socket object that owns it, if the program brought one.
        address: Where everything is sent to; None: where `sendto` is told.
        connected: The kernel knows the peer.
    """

    def __init__(
        self,
        loop: RunningLoop,
        driver: Driver,
        protocol: asyncio.BaseProtocol,
        fd: int,
        family: int,
        *,
        sock: Sock | None = None,
        address: Address | None = None,
        connected: bool = False,
    ) -> None:
        super().__init__(loop, driver, protocol)
        self._socket = HeldSocket(driver, fd, "datagram transport", sock)
        self._fd = fd
        self._family = family
        self._address = address
        self._connected = connected
        self._backlog: deque[tuple[bytes, bytes | None]] = deque()
        # The last address that was unpacked, and the last that was packed, with their bytes.
        self._peer: tuple[bytes, SocketAddress | None] = (b"", None)
        self._packed: tuple[object, bytes] | None = None
        self._lone = 0  # receives since one that was followed at once by another
        self._drain = Drain(driver.system, _RECEIVE_BYTES)
        self._memory = Incoming(driver.system, _RECEIVE_BYTES, 0)
        op: Op[object] = Op(RECVMSG, fd, addr=self._memory.addr, len_=1, flags=MSG_CMSG_CLOEXEC)
        self._recv_op = self._make_op(op, self._received)
        self._room_op = self._make_op(Op(POLL, fd, flags=WRITABLE), self._try_again)
        self._pause_op = self._make_op(Op(TIMEOUT), self._try_again)
        loop._transports[fd] = self  # pyright: ignore[reportPrivateUsage]

    def __repr__(self) -> str:
        if self._recv_op.fd < 0:
            return "<DatagramTransport closed>"
        state = "closing" if self._closing else "open"
        return f"<DatagramTransport {state} fd={self._fd} buffered={self._unsent_bytes}>"

    @property
    def _sock(self) -> object:
        # asyncio's transports have it, and programs set options of UDP sockets by it.
        return self.get_extra_info("socket")

    # --- receiving -------------------------------------------------------------------------------

    def _go_on(self) -> None:
        if not self._closing and self._recv_op.state == SPENT:
            self._memory.prepare(_RECEIVE_BYTES, 0)
            self._recv_op.hold = self._memory
            self._start(self._recv_op)

    def _received(self, op: Op[object]) -> None:
        if self._has_ended(op):
            return
        error, received = op.error, op.value
        op.error = op.value = None
        if self._loop._ready:
            # Behind what was ready before, as in asyncio.
            self._loop.call_soon(self._deliver, error, received, context=self._context)
        else:
            self._deliver(error, received)

    def _deliver(self, error: BaseException | None, received: object) -> None:
        if self._closing:
            return  # what was written is still being sent
        if error is not None:
            if isinstance(error, OSError) and error.errno not in _NO_SOCKET:
                self._refused(error)
            else:
                message = "Fatal read error on datagram transport"
                self._fatal_error(error, message, expected=isinstance(error, OSError))
        else:
            assert isinstance(received, Received)
            self._hand_over(received.data, received.name)
            self._take_more()
        self._go_on()

    def _take_more(self) -> None:
        """Deliver what has come already, if lately there was more than one at a time."""
        self._lone += 1
        if self._lone > _LONE_MAX and self._lone % _LONE_MAX:
            return
        for _ in range(_MORE_MAX):
            if self._closing:
                break
            found = self._drain.take(self._fd)
            if isinstance(found, tuple):
                self._lone = 0
                self._hand_over(*found)
            elif found in _NOTHING:
                break
            else:  # of an earlier datagram, and told only once
                self._refused(op_error(-found, "recvfrom", self._fd))

    def _hand_over(self, data: bytes, name: bytes) -> None:
        if name != self._peer[0]:
            unpack = self._driver.system.unpack_sockaddr
            # Of a Unix socket without a name the kernel tells none.
            self._peer = name, unpack(name) if name else None
        try:
            self._protocol.datagram_received(data, self._peer[1])  # type: ignore[attr-defined]
        except (KeyboardInterrupt, SystemExit):
            self._go_on()
            raise
        except BaseException as error:
            self._report("protocol.datagram_received() failed", error)

    def _refused(self, error: OSError) -> None:
        """Tell the protocol what the kernel says of a datagram, maybe of an earlier one."""
        protocol = cast("asyncio.DatagramProtocol", self._protocol)
        self._tell_protocol("error_received", protocol.error_received, as_builtin(error))

    # --- sending ---------------------------------------------------------------------------------

    def sendto(
        self, data: bytes | bytearray | memoryview, addr: Address | object | None = None
    ) -> None:
        """
        Send one datagram, which may be empty, without waiting.

        Args:
            data: The payload.
            addr: Where to.  A host's name is looked up on the spot, which may take long.

        What the kernel refuses is told to the protocol, by ``error_received``.

        Raises:
            TypeError: *data* is not bytes-like, or *addr* no address.
            ValueError: *addr* is not the transport's fixed address, or does not fit the socket.
        """
        if type(data) is not bytes:
            data = as_bytes(data)
        if self._address is not None:
            if addr is not None and addr != self._address:
                raise ValueError(f"Invalid address: must be None or {self._address!r}")
            addr = self._address
        if self._closing:
            self._lose_write("sending on a datagram transport that is closed")
            return
        try:
            name = None if self._connected or addr is None else self._pack(addr)
        except OSError as error:  # there is no such host
            self._refused(error)
            return
        if not self._backlog:
            res = self._send(data, name)
            if res >= 0:
                return
            if res != -errno.EAGAIN:
                self._refused(op_error(-res, "sendto", self._fd))
                return
            self._wait_for_room()
        self._backlog.append((data, name))
        self._unsent_bytes += len(data) + _HEADER_BYTES
        self._maybe_pause_writing()

    def _send(self, data: bytes, name: bytes | None) -> int:
        system = self._driver.system
        name_bytes = 0 if name is None else len(name)
        while system.bare_send_to(self._fd, data, len(data), _SEND_FLAGS, name, name_bytes) < 0:
            number = system.get_errno()
            if number != errno.EINTR:
                return -number
        return 0

    def _pack(self, addr: object) -> bytes:
        name, peer = self._peer
        if addr is peer and name:
            return name
        packed = self._packed
        # Of the same type: `bytes` (abstract) and `str` are never to be compared under ``-bb``.
        if packed is not None and type(packed[0]) is type(addr) and packed[0] == addr:
            return packed[1]
        address = cast("Address", addr)
        try:
            name = self._driver.system.pack_sockaddr(self._family, address)
        except ValueError:
            resolved = self._resolve(address)
            if resolved is None:
                raise
            return resolved  # which may change, and so is not kept
        self._packed = addr, name
        return name

    def _resolve(self, address: Address) -> bytes | None:
        """Look a name up as the standard library's sockets do: blocking."""
        system = self._driver.system
        if self._family == system.AF_UNIX or not isinstance(address, tuple):
            return None
        host, port = address[0], address[1]
        if not 0 <= port <= 65535:
            return None
        if host in {"", "<broadcast>"}:
            if self._family != system.AF_INET:
                return None
            host = "255.255.255.255" if host else "0.0.0.0"  # noqa: S104 - nothing is bound
            return system.pack_sockaddr(self._family, (host, port))
        for family, _, _, found in system.getaddrinfo(host, port, system.SOCK_DGRAM):
            if family == self._family:
                return system.pack_sockaddr(family, found)
        raise OSError(errno.EADDRNOTAVAIL, f"{host!r} has no address of family {self._family}")

    def _wait_for_room(self) -> None:
        if self._family == self._driver.system.AF_UNIX and not self._connected:
            self._pause_op.off = self._driver.system.monotonic_ns() + _PAUSE_NS
            self._start(self._pause_op)
        else:
            self._start(self._room_op)

    def _try_again(self, op: Op[object]) -> None:
        if self._has_ended(op):
            return
        op.error = None  # of the poll; sending will tell what it is
        backlog = self._backlog
        while backlog and not self._ending:
            data, name = backlog[0]
            res = self._send(data, name)
            if res == -errno.EAGAIN:
                self._wait_for_room()
                break
            backlog.popleft()
            self._unsent_bytes -= len(data) + _HEADER_BYTES
            if res < 0:
                self._refused(op_error(-res, "sendto", self._fd))
        self._maybe_resume_writing()  # which may send more, or close
        if self._closing and not backlog:
            self._end()

    # --- the ends --------------------------------------------------------------------------------

    def close(self) -> None:
        """Receive no more, send what waits, then end; safe to call twice."""
        if self._closing:
            return
        self._closing = True
        if self._backlog and not self._loop.gone:
            self._driver.cancel(self._recv_op)
        else:
            self._end()

    def abort(self) -> None:
        """End at once; what waits is lost."""
        self._force_close(None)

    def _drop_unsent(self) -> None:
        self._backlog.clear()
        self._unsent_bytes = 0

    def _release(self) -> None:
        self._socket.close()
        del self._memory, self._drain

    # --- about it --------------------------------------------------------------------------------

    def get_extra_info(self, name: str, default: object = None) -> object:
        """
        Return what is known about the socket, or *default*.

        Args:
            name: ``"socket"`` (a socket object to look at and set options on), ``"sockname"`` or
                ``"peername"``, which is None where it is not connected.
        """
        known = self._extra
        if name not in known and name in INFO_NAMES and self._recv_op.fd >= 0:
            known[name] = self._socket.info(name)
        return known.get(name, default)


class DatagramCalls(RunningLoop):
    """The part of the event loop that makes datagram endpoints."""

    async def create_datagram_endpoint(
        self,
        protocol_factory: Callable[[], P],
        local_addr: tuple[str, int] | str | None = None,
        remote_addr: tuple[str, int] | str | None = None,
        *,
        family: int = 0,
        proto: int = 0,
        flags: int = 0,
        reuse_address: bool | None = None,
        reuse_port: bool | None = None,
        allow_broadcast: bool | None = None,
        sock: DatagramSock | None = None,
    ) -> tuple[asyncio.DatagramTransport, P]:
        """
        Make a datagram socket and its transport; see `asyncio.loop.create_datagram_endpoint`.

        A Unix socket file to which nobody is bound any more is replaced.

        Raises:
            ValueError: The arguments contradict each other, or *reuse_address* is asked for.
            TypeError: An address is not of the form that its family has.
            RuntimeError: A transport of this loop uses *sock*.
            OSError: No address could be bound or connected.
        """
        driver = self.require_driver()
        if reuse_address:
            raise ValueError(
                "reuse_address=True is not supported: with UDP it would let other processes take "
                "over the port"
            )
        if sock is not None:
            if sock.type == driver.system.SOCK_STREAM:
                raise ValueError(f"{_WANTED} was expected, got {sock!r}")
            if any((local_addr, remote_addr, family, proto, flags, reuse_port, allow_broadcast)):
                raise ValueError("socket modifier keyword arguments can not be used with sock")
            fd = self.ensure_fd_of_nobody(sock)
            chosen_family, remote = int(sock.family), None
            connected = _is_connected(driver, fd)
            driver.register(fd)
        else:
            options: list[RawOption] = []
            if reuse_port:
                options.append((SOL_SOCKET, SO_REUSEPORT, 1))
            if allow_broadcast:
                options.append((SOL_SOCKET, SO_BROADCAST, 1))
            fd, chosen_family, remote = await self._open_datagrams(
                driver, local_addr, remote_addr, (family, proto, flags), options,
                connect=not allow_broadcast,
            )  # fmt: skip
            connected = remote is not None and not allow_broadcast
        try:
            protocol = protocol_factory()
            transport = DatagramTransport(
                self, driver, protocol, fd, chosen_family,
                sock=sock, address=remote, connected=connected,
            )  # fmt: skip
        except BaseException:
            driver.unregister(fd)
            if sock is None:
                driver.system.close(fd)
            raise
        await transport.begin()
        return transport, protocol

    async def _open_datagrams(
        self,
        driver: Driver,
        local_addr: object,
        remote_addr: object,
        terms: tuple[int, int, int],
        options: list[RawOption],
        *,
        connect: bool,
    ) -> tuple[int, int, Address | None]:
        """Return the first socket that can be had, its family, and where it is to send to."""
        family, proto, flags = terms
        candidates: dict[tuple[int, int], list[Address | None]] = {}
        if not local_addr and not remote_addr:
            if family == 0:
                raise ValueError("unexpected address family: neither it nor an address was given")
            candidates[family, proto] = [None, None]
        elif family == driver.system.AF_UNIX:
            for one in (local_addr, remote_addr):
                if one is not None and not isinstance(one, str):
                    raise TypeError(f"a Unix socket's address is a string, not {one!r}")
            candidates[family, proto] = [_path(local_addr), _path(remote_addr)]
        else:
            for index, one in enumerate((local_addr, remote_addr)):
                if one is None:
                    continue
                if not isinstance(one, tuple) or len(cast("tuple[object, ...]", one)) != 2:
                    raise TypeError(f"an address is a 2-tuple of host and port, not {one!r}")
                found = await self._ensure_resolved(
                    cast("tuple[str, int]", one), family=family, type=driver.system.SOCK_DGRAM,
                    proto=proto, flags=flags, loop=self,
                )  # fmt: skip
                if not found:
                    raise OSError("getaddrinfo() returned empty list")
                for found_family, _, found_proto, _, address in found:
                    pair = candidates.setdefault((int(found_family), found_proto), [None, None])
                    pair[index] = pair[index] or address
        failure: OSError | None = None
        for (its_family, its_proto), (local, remote) in candidates.items():
            if (local_addr and local is None) or (remote_addr and remote is None):
                continue  # one has no address of the other's family
            where = remote if connect else None
            try:
                fd = _open_one(driver, its_family, its_proto, local, where, options)
            except OSError as error:
                failure = failure or error
            else:
                return fd, its_family, remote
        if failure is None:
            raise ValueError("can not get address information")
        raise failure


def _open_one(
    driver: Driver,
    family: int,
    proto: int,
    local: Address | None,
    remote: Address | None,
    options: list[RawOption],
) -> int:
    """Make a socket, bind and connect it; of datagrams neither waits."""
    system = driver.system
    packed = None if remote is None else system.pack_sockaddr(family, remote)
    fd = system.socket(family, system.SOCK_DGRAM, proto)
    try:
        for level, option, value in options:
            system.setsockopt(fd, level, option, value)
        if local is not None:
            bind_datagrams(system, fd, family, local)
        if packed is not None:
            connect_datagrams(system, fd, packed, remote)
        driver.register(fd)
    except BaseException:
        system.close(fd)
        raise
    return fd


def _path(address: object) -> Address | None:
    return os.fspath(cast("str", address)) if address else None


def _is_connected(driver: Driver, fd: int) -> bool:
    try:
        driver.system.getpeername(fd)
    except OSError:
        return False
    return True
