"""
Simulated stream sockets, and the network between them.

What is sent travels for a while and arrives in order: data, the end (FIN), or a reset (RST).  The
sender's buffer and the receiver's are one budget, so a slow reader holds the writer up.
"""

import errno
from collections import deque
from collections.abc import Callable
from typing import Final

from uringio._sys.system import System
from uringio.errors import op_error

from ._clock import SimClock
from ._dice import Dice
from ._objects import POLLERR, POLLHUP, POLLIN, POLLOUT, POLLRDHUP, SimFile

__all__ = ["SimNet", "StreamSocket"]

_EPHEMERAL_FIRST: Final = 40000
_BUFFER_BYTES: Final = 65536
_SYN_RETRY_NS: Final = 1_000_000_000
_SYN_TRIES: Final = 6
_SHUT_RD: Final = 0
_SHUT_RDWR: Final = 2

# A port's owner: family and port, or a Unix path.
Place = tuple[int, int | bytes]


class SimNet:
    """
    Where sockets find each other.

    Attributes:
        latency_ns: The least and the most time that anything travels. [ns]
        buffer_bytes: What one direction of a connection holds. [bytes]
        names: Hosts, and the address of each.
    """

    def __init__(self, clock: SimClock, seed: int) -> None:
        self.clock = clock
        self.latency_ns = (20_000, 1_000_000)
        self.buffer_bytes = _BUFFER_BYTES
        self.names = {"localhost": "127.0.0.1"}
        self.paths: dict[bytes, int] = {}  # names of Unix sockets, and their inode numbers
        self._dice = Dice(seed, "network")
        self._bound: dict[Place, StreamSocket] = {}
        self._next_port = _EPHEMERAL_FIRST
        self._next_inode = 1

    def travel_ns(self) -> int:
        """Return how long the next thing travels."""
        return self._dice.between(*self.latency_ns)

    def bind(self, socket: "StreamSocket", raw: bytes) -> int:
        """Give *socket* an address; 0 or ``-errno``."""
        place = self.place(raw)
        if place is None or socket.place is not None:
            return -errno.EINVAL
        family, where = place
        if isinstance(where, bytes):
            if where in self.paths:
                return -errno.EADDRINUSE
            self.paths[where] = self._next_inode
            self._next_inode += 1
        elif where == 0:
            raw = self._with_port(raw, family)
            place = self.place(raw)
            assert place is not None
        elif place in self._bound:
            return -errno.EADDRINUSE
        self._bound[place] = socket
        socket.place, socket.local = place, raw
        return 0

    def unbind(self, socket: "StreamSocket") -> None:
        """Free the port of *socket*; a Unix path stays."""
        if socket.place is not None and self._bound.get(socket.place) is socket:
            del self._bound[socket.place]

    def listener_at(self, raw: bytes) -> "StreamSocket | int":
        """Return who listens at an address, or ``-errno``."""
        place = self.place(raw)
        if place is None:
            return -errno.EINVAL
        found = self._bound.get(place)
        if found is not None and found.state == "listening":
            return found
        if isinstance(place[1], bytes) and place[1] not in self.paths:
            return -errno.ENOENT
        return -errno.ECONNREFUSED

    def ephemeral(self, peer: bytes) -> bytes:
        """Return an address of one's own for a socket that connects to *peer*."""
        family = int.from_bytes(peer[:2], _BYTE_ORDER)
        if family == System.AF_UNIX:
            return peer[:2]
        return self._with_port(peer, family)

    def place(self, raw: bytes) -> Place | None:
        """Return what an address names; all addresses of a family are one machine's."""
        family = int.from_bytes(raw[:2], _BYTE_ORDER)
        if family == System.AF_UNIX:
            return family, raw[2:].rstrip(b"\0") if raw[2:3] != b"\0" else raw[2:]
        if family in {System.AF_INET, System.AF_INET6} and len(raw) >= 8:
            return family, int.from_bytes(raw[2:4], "big")
        return None

    def _with_port(self, raw: bytes, family: int) -> bytes:
        while (family, self._next_port) in self._bound:
            self._next_port += 1
        port, self._next_port = self._next_port, self._next_port + 1
        return raw[:2] + port.to_bytes(2, "big") + raw[4:]


class StreamSocket(SimFile):
    """
    A stream socket, of TCP or Unix.

    Attributes:
        state: ``"new"``, ``"listening"``, ``"connecting"``, ``"connected"`` or ``"dead"``.
        local, remote: Packed addresses.
        place: What it is bound to.
        options: Socket options by level and name.
    """

    kind = "socket"

    def __init__(self, net: SimNet, family: int) -> None:
        super().__init__()
        self.family = family
        self.state = "new"
        self.place: Place | None = None
        self.local = family.to_bytes(2, _BYTE_ORDER) + (
            bytes(14 if family == System.AF_INET else 26) if family != System.AF_UNIX else b""
        )
        self.remote = b""
        self.options: dict[tuple[int, int], int | bytes] = {}
        self.error = 0  # to be told once
        self.backlog: deque[StreamSocket] = deque()
        self._net = net
        self._backlog_max = 0
        self._peer: StreamSocket | None = None
        self._received = bytearray()
        self._received_end = False
        self._has_fin = False  # the orderly end of TCP, which hides an error that comes after it
        self._ended = False  # our own direction
        self._travelling_bytes = 0
        self._last_arrival_ns = 0
        self._is_open = True

    @property
    def is_tcp(self) -> bool:
        """Whether it is no Unix socket."""
        return self.family != System.AF_UNIX

    # --- making connections ----------------------------------------------------------------------

    def listen(self, backlog: int) -> int:
        """Become a listener; 0 or ``-errno``."""
        if self.state not in {"new", "listening"}:
            return -errno.EINVAL
        if self.place is None:
            return -errno.EDESTADDRREQ if self.family == System.AF_UNIX else -errno.EINVAL
        self.state = "listening"
        self._backlog_max = max(backlog, 1)
        return 0

    def connect(self, raw: bytes) -> int | None:
        """Begin to connect, or ask how it goes; None while it goes on."""
        if int.from_bytes(raw[:2], _BYTE_ORDER) == 0:  # AF_UNSPEC: break the connection off
            self._reset_peer()
            self._die(0)
            return 0
        if self.state == "connecting":
            return None
        if self.error:
            return -self._take_error()
        if self.state == "connected":
            return -errno.EISCONN
        if self.state != "new":
            return -errno.EINVAL if self.state == "listening" else -errno.ECONNABORTED
        self.remote = raw
        if self.family == System.AF_UNIX:
            found = self._net.listener_at(raw)
            if isinstance(found, int):
                return found
            if len(found.backlog) >= found._backlog_max:
                return None if self.blocking else -errno.EAGAIN
            self.local = self.local if self.place is not None else self._net.ephemeral(raw)
            found._welcome(self)
            self.state = "connected"
            return 0
        self.state = "connecting"
        if self.place is None:
            self.local = self._net.ephemeral(raw)
        self._send_syn(1)
        return None

    def _send_syn(self, nth: int) -> None:
        def arrive() -> None:
            if self.state != "connecting":
                return
            found = self._net.listener_at(self.remote)
            if isinstance(found, int):
                self._after_travel(lambda: self._refused(-found))
            elif len(found.backlog) < found._backlog_max:
                found._welcome(self)
                self._after_travel(self._established)
            elif nth < _SYN_TRIES:
                self._net.clock.call_later(
                    _SYN_RETRY_NS << nth - 1, lambda: self._send_syn(nth + 1)
                )
            else:
                self._refused(errno.ETIMEDOUT)

        self._after_travel(arrive)

    def _after_travel(self, function: Callable[[], None]) -> None:
        """Call *function* on arrival of the next thing that we send, or get, in order."""
        if self.family == System.AF_UNIX:
            function()
            return
        when_ns = max(self._net.clock.now_ns + self._net.travel_ns(), self._last_arrival_ns)
        self._last_arrival_ns = when_ns
        self._net.clock.call_at(when_ns, function)

    def _welcome(self, caller: "StreamSocket") -> None:
        server = StreamSocket(self._net, self.family)
        server.state = "connected"
        server.local, server.remote = caller.remote, caller.local
        server._peer, caller._peer = caller, server
        self.backlog.append(server)
        self.changed()

    def _established(self) -> None:
        if self.state == "connecting":
            self.state = "connected"
            self.changed()

    def _refused(self, number: int) -> None:
        if self.state == "connecting":
            self.state = "new"
            self.error = number
            self.changed()

    def accept(self) -> "StreamSocket | int | None":
        """Take a connection; ``-errno``, or None while there is none."""
        if self.state != "listening":
            return -errno.EINVAL
        if not self.backlog:
            return None
        found = self.backlog.popleft()
        self.changed()
        return found

    # --- transfers -------------------------------------------------------------------------------

    def read(self, count: int) -> bytes | int | None:
        """See `SimFile`."""
        return self.receive(count, False)

    def receive(self, count: int, peek: bool) -> bytes | int | None:
        """Take bytes, or only look at them."""
        if self._received:
            data = bytes(self._received[:count])
            if not peek:
                del self._received[:count]
                if self._peer is not None:
                    self._peer.changed(POLLOUT)
            return data
        if self.error and not self._has_fin:
            return -self._take_error()
        if self._received_end or self.state == "dead":
            return b""
        if self.state != "connected":
            return -errno.ENOTCONN
        return None

    def write(self, data: bytes) -> int | None:
        """See `SimFile`."""
        if self._ended and self.family == System.AF_UNIX:
            return -errno.EPIPE  # which leaves the error to the next receive
        if self.error:
            return -self._take_error()
        if self._ended or self.state == "dead":
            return -errno.EPIPE
        peer = self._peer
        if self.state != "connected" or peer is None:
            return -errno.ENOTCONN if self.state != "connecting" else None
        count = min(len(data), self._room())
        if not count and data:
            return None
        piece = data[:count]
        self._travelling_bytes += count
        self._after_travel(lambda: self._arrived(piece))
        return count

    def _room(self) -> int:
        peer = self._peer
        held = len(peer._received) if peer is not None else 0
        return max(0, self._net.buffer_bytes - self._travelling_bytes - held)

    def _arrived(self, piece: bytes) -> None:
        self._travelling_bytes -= len(piece)
        peer = self._peer
        if peer is None or self.state == "dead":
            return
        if not peer._is_open:
            self.reset(errno.ECONNRESET)  # the peer's kernel says that nobody is there
            return
        peer._received += piece
        peer.changed(POLLIN)

    def shutdown(self, how: int) -> int:
        """End one or both directions; 0 or ``-errno``."""
        if self.state == "listening" and how != 1:
            self._stop_listening()
            self.state = "new"
            self.changed()
            return 0
        if self.family == System.AF_UNIX and self.state == "dead":
            return 0
        if self.state != "connected" or self._is_over():
            return -errno.ENOTCONN
        if how in {_SHUT_RD, _SHUT_RDWR}:
            self._received_end = True
        if how != _SHUT_RD:
            self._send_end()
        self.changed()
        return 0

    def _is_over(self) -> bool:
        """Whether both directions of a TCP connection have ended, and so it is closed."""
        return self._ended and self._received_end and self.is_tcp

    def _send_end(self) -> None:
        if self._ended:
            return
        self._ended = True

        def arrive() -> None:
            peer = self._peer
            if peer is not None and peer._is_open and peer.state != "dead":
                peer._received_end = True
                peer._has_fin = self.is_tcp
                peer.changed(POLLIN | POLLRDHUP | POLLHUP)

        self._after_travel(arrive)

    def reset(self, number: int) -> None:
        """Break the connection off, for this end, as a reset from the peer would."""
        if self.state == "dead" or self._is_over():
            return
        self._die(errno.EPIPE if self._received_end and not self._ended else number)

    def break_off(self) -> None:
        """Lose the connection: both ends find it reset, the peer a little later."""
        if self.state == "connected":
            self._reset_peer()
            self.reset(errno.ECONNRESET)

    def _reset_peer(self) -> None:
        peer = self._peer
        if peer is not None and self.state == "connected":
            self._after_travel(lambda: peer.reset(errno.ECONNRESET))

    def _die(self, number: int) -> None:
        self.error = number
        self.state = "dead"
        self._received_end = True
        self._ended = True
        self._travelling_bytes = 0
        self.changed()

    def _take_error(self) -> int:
        number, self.error = self.error, 0
        return number

    def poll(self) -> int:
        """See `SimFile`."""
        if self.state == "listening":
            return POLLIN if self.backlog else 0
        mask = POLLERR if self.error else 0
        if self.state == "new":
            return mask | POLLOUT | POLLHUP
        if self.state == "connecting":
            return mask
        if self._received or self._received_end or self.error:
            mask |= POLLIN
        if self._received_end:
            mask |= POLLRDHUP
            if self._ended:
                mask |= POLLHUP
        # As sk_stream_is_writeable has it: not before a third of the room is there.
        if self._ended or self._room() * 3 >= self._net.buffer_bytes:
            mask |= POLLOUT
        return mask

    def released(self) -> None:
        """See `SimFile`."""
        self._is_open = False
        self._net.unbind(self)
        if self.state == "listening":
            self._stop_listening()
        elif self.state == "connected":
            peer = self._peer
            if self.family == System.AF_UNIX and peer is not None:
                if peer.state == "connected":
                    peer.error = errno.ECONNRESET if self._received else 0
                    peer._received_end = peer._ended = True
                    peer.changed()
            elif self._received or self._lingers_not():
                self._reset_peer()
            else:
                self._send_end()
        elif self.state == "connecting":
            self.state = "dead"
            if (peer := self._peer) is not None:
                self._after_travel(lambda: peer.reset(errno.ECONNRESET))

    def _stop_listening(self) -> None:
        while self.backlog:
            waiting = self.backlog.popleft()
            waiting._reset_peer()
            waiting._is_open = False

    def _lingers_not(self) -> bool:
        value = self.options.get(_SO_LINGER)
        return (
            isinstance(value, bytes)
            and len(value) >= 8
            and value[:1] != b"\0"
            and (value[4:8] == bytes(4))
        )

    def require_connected(self, fd: int) -> bytes:
        """Return the peer's address; raises `OpError`."""
        if self.state != "connected" or self._is_over():
            raise op_error(errno.ENOTCONN, "getpeername", fd)
        return self.remote


_SO_LINGER: Final = (1, 13)
_BYTE_ORDER: Final = "little" if memoryview(b"\1\0").cast("H")[0] == 1 else "big"
