"""
Simulated stream sockets, of TCP and Unix.

What is sent travels for a while and arrives in order: data, the end (FIN), or a reset (RST).  The
sender's buffer and the receiver's are one budget, so a slow reader holds the writer up.
"""

import errno
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from uringio._driver.poll_bits import POLLERR, POLLHUP, POLLIN, POLLOUT, POLLRDHUP
from uringio._sys.system import System
from uringio.errors import op_error

from ._net import BYTE_ORDER, GIVE_UP_NS, Place, SimNet, Wire
from ._objects import SimFile

__all__ = ["SimSocket", "StreamSocket"]

_SYN_RETRY_NS: Final = 1_000_000_000
_SYN_TRIES: Final = 6
# How long a SYN is sent again: tcp_syn_retries is 6. [ns]
_SYN_GIVE_UP_NS: Final = 127_000_000_000
_SHUT_RD: Final = 0
_SHUT_RDWR: Final = 2


class SimSocket(SimFile):
    """
    What all sockets have.

    Attributes:
        family, kind_number: As socket(2) takes them.
        state: What it is at.
        local, remote: Packed addresses.
        place: What it is bound to.
        options: Socket options by level and name.
        error: An errno to be told once.
    """

    kind = "socket"

    def __init__(self, net: SimNet, family: int, kind_number: int) -> None:
        super().__init__()
        self.family = family
        self.kind_number = kind_number
        self.state = "new"
        self.place: Place | None = None
        self.local = unnamed(family)
        self.remote = b""
        self.options: dict[tuple[int, int], int | bytes] = {}
        self.error = 0
        self._net = net

    @property
    def is_unix(self) -> bool:
        """Whether it is of this machine alone."""
        return self.family == System.AF_UNIX

    def take_error(self) -> int:
        """Return the error that is to be told once."""
        number, self.error = self.error, 0
        return number

    def connect(self, raw: bytes) -> int | None:
        """Connect; None while it goes on."""
        raise NotImplementedError

    def listen(self, backlog: int) -> int:
        """Become a listener; 0 or ``-errno``."""
        raise NotImplementedError

    def shutdown(self, how: int) -> int:
        """End one or both directions; 0 or ``-errno``."""
        raise NotImplementedError

    def receive(self, count: int, peek: bool, taken: "Taken | None" = None) -> bytes | int | None:
        """Take what has come, or only look at it; *taken* is told what came with it."""
        raise NotImplementedError

    def send(self, data: bytes, name: bytes = b"", files: Sequence[SimFile] = ()) -> int | None:
        """Send *data*, to an address, with descriptors; how much was taken."""
        raise NotImplementedError

    def require_connected(self, fd: int) -> bytes:
        """Return the peer's address; raises `OpError`."""
        raise NotImplementedError


class Taken:
    """What came with what was received, and who sent it."""

    def __init__(self) -> None:
        self.files: Sequence[SimFile] = ()
        self.name = b""
        self.full_bytes = 0


def unnamed(family: int) -> bytes:
    """Return the address of a socket that has none."""
    size = {System.AF_UNIX: 0, System.AF_INET: 14}.get(family, 26)
    return family.to_bytes(2, BYTE_ORDER) + bytes(size)


class _Mark(NamedTuple):
    """A part of a stream that came with descriptors, and these."""

    start: int
    end: int
    files: list[SimFile]


class StreamSocket(SimSocket):
    """
    A stream socket, of TCP or Unix.

    Its state is ``"new"``, ``"listening"``, ``"connecting"``, ``"connected"`` or ``"dead"``.
    """

    def __init__(self, net: SimNet, family: int) -> None:
        super().__init__(net, family, System.SOCK_STREAM)
        self.backlog: deque[StreamSocket] = deque()
        self._backlog_max = 0
        self._peer: StreamSocket | None = None
        self._received = bytearray()
        self._read_total = 0
        self._marks: deque[_Mark] = deque()
        self._received_end = False
        self._has_fin = False  # the orderly end of TCP, which hides an error that comes after it
        self._ended = False  # our own direction
        self._sent_total = 0
        self._acknowledged_total = 0
        self._when_acknowledged: deque[tuple[int, Callable[[], None]]] = deque()
        self._is_open = True
        self._lacks_room = False  # somebody was told to wait: SOCK_NOSPACE
        # To the peer, and for what the network says to us before there is one.
        self._wire = Wire(net, lambda: self.local, lambda: self.remote, False, self._give_up)
        self._wire_back = Wire(net, lambda: self.remote, lambda: self.local, False, self._give_up)

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
        if int.from_bytes(raw[:2], BYTE_ORDER) == 0:  # AF_UNSPEC: break the connection off
            self._reset_peer()
            self._die(0)
            return 0
        if self.state == "connecting":
            return None
        if self.error:
            return -self.take_error()
        if self.state == "connected":
            return -errno.EISCONN
        if self.state != "new":
            return -errno.EINVAL if self.state == "listening" else -errno.ECONNABORTED
        self.remote = raw
        if self.family == System.AF_UNIX:
            found = self._listener_at(raw)
            if isinstance(found, int):
                return found
            if len(found.backlog) >= found._backlog_max:
                return None if self.blocking else -errno.EAGAIN
            self.local = (
                self.local if self.place is not None else self._net.ephemeral(raw, self.kind_number)
            )
            found._welcome(self)
            self.state = "connected"
            return 0
        self.state = "connecting"
        if self.place is None:
            self.local = self._net.ephemeral(raw, self.kind_number)
        self._send_syn(1)
        return None

    def _send_syn(self, nth: int) -> None:
        def arrive() -> None:
            if self.state != "connecting":
                return
            found = self._listener_at(self.remote)
            if isinstance(found, int):
                self._wire_back.send(lambda: self._refused(-found))
            elif len(found.backlog) < found._backlog_max:
                found._welcome(self)
                self._wire_back.send(self._established)
            elif nth < _SYN_TRIES:
                self._net.clock.call_later(
                    _SYN_RETRY_NS << nth - 1, lambda: self._send_syn(nth + 1)
                )
            else:
                self._refused(errno.ETIMEDOUT)

        if nth == 1 and self._net.rules:
            self._net.clock.call_later(_SYN_GIVE_UP_NS, lambda: self._refused(errno.ETIMEDOUT))
        self._wire.send(arrive)

    def _listener_at(self, raw: bytes) -> "StreamSocket | int":
        found = self._net.bound_at(raw, self.kind_number)
        if isinstance(found, int):
            return found
        for one in found:
            if isinstance(one, StreamSocket) and one.state == "listening":
                return one
        return -errno.ECONNREFUSED

    def _after_travel(self, function: Callable[[], None]) -> None:
        """Call *function* on arrival of the next thing that we send, in order."""
        if self.family == System.AF_UNIX:
            function()
        else:
            self._wire.send(function)

    def _give_up(self) -> None:
        """What we sent could not be delivered, nor could the peer be heard, for very long."""
        if self.state == "connecting":
            self._refused(errno.ETIMEDOUT)
        elif self.state == "connected":
            self._die(errno.ETIMEDOUT)

    def _welcome(self, caller: "StreamSocket") -> None:
        server = StreamSocket(self._net, self.family)
        server.state = "connected"
        server.local, server.remote = caller.remote, caller.local
        server._peer, caller._peer = caller, server
        server._wire, server._wire_back = caller._wire_back, caller._wire
        server._wire.give_up = server._give_up
        self._net.streams[caller] = self._net.streams[server] = None
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

    def receive(self, count: int, peek: bool, taken: Taken | None = None) -> bytes | int | None:
        """See `SimSocket`."""
        if self._received:
            if self._marks:
                count = self._reach_mark(count, peek, taken)
            data = bytes(self._received[:count])
            if not peek:
                self._read_total += len(data)
                del self._received[:count]
                if self._peer is not None:
                    self._peer._has_room()
            return data
        if self.error and not self._has_fin:
            return -self.take_error()
        if self._received_end or self.state == "dead":
            return b""
        if self.state in {"connected", "connecting"}:
            return None
        return -errno.ENOTCONN if self.is_tcp else -errno.EINVAL

    def _reach_mark(self, count: int, peek: bool, taken: Taken | None) -> int:
        """Take the descriptors of the first part that has some; a receive ends behind it."""
        mark = self._marks[0]
        at = self._read_total
        if at + count <= mark.start:
            return count
        files = list(mark.files)
        if taken is not None:
            taken.files = files
            for file in files:
                file.hold()
        if not peek:
            self._marks.popleft()
            for file in files:
                file.drop()
        return min(count, mark.end - at)

    def write(self, data: bytes) -> int | None:
        """See `SimFile`."""
        return self.send(data)

    def send(self, data: bytes, name: bytes = b"", files: Sequence[SimFile] = ()) -> int | None:
        """See `SimSocket`; a name is only wrong for a Unix socket."""
        if name and self.family == System.AF_UNIX:
            return -errno.EISCONN if self.state == "connected" else -errno.EOPNOTSUPP
        if self._ended and self.family == System.AF_UNIX:
            return -errno.EPIPE  # which leaves the error to the next receive
        if self.error:
            return -self.take_error()
        if self._ended or self.state == "dead":
            return -errno.EPIPE
        peer = self._peer
        if self.state != "connected" or peer is None:
            if self.state == "connecting":
                return None
            return -errno.EPIPE if self.is_tcp else -errno.ENOTCONN
        count = min(len(data), self._room())
        if count < len(data):
            self._lacks_room = True
            if not count:
                return None
        piece = data[:count]
        if files and count:
            for file in files:
                file.hold()
            first = peer._read_total + len(peer._received)
            peer._marks.append(_Mark(first, first + count, list(files)))
        self._sent_total += count
        self._after_travel(lambda: self._arrived(piece))
        return count

    def _room(self) -> int:
        peer = self._peer
        held = len(peer._received) if peer is not None else 0
        return max(0, self._net.buffer_bytes - self._travelling_bytes() - held)

    def _travelling_bytes(self) -> int:
        return self._sent_total - self._acknowledged_total

    def _arrived(self, piece: bytes) -> None:
        peer = self._peer
        if peer is None or self.state == "dead":
            return
        if self.is_tcp and self._net.rules:
            self._acknowledge_if_open(len(piece))
        else:
            self._acknowledged(len(piece))
        if not peer._is_open:
            self.reset(errno.ECONNRESET)  # the peer's kernel says that nobody is there
            return
        peer._received += piece
        peer.changed(POLLIN)

    def _acknowledge_if_open(self, count: int) -> None:
        if not self._wire_back.send_now(lambda: self._acknowledged(count)):
            wanted = self._acknowledged_total + count

            def give_up() -> None:
                if self._acknowledged_total < wanted:
                    self._give_up()

            self._net.clock.call_later(GIVE_UP_NS, give_up)

    def _acknowledged(self, count: int) -> None:
        if self.state == "dead":
            return
        self._acknowledged_total += count
        waiting = self._when_acknowledged
        while waiting and waiting[0][0] <= self._acknowledged_total:
            waiting.popleft()[1]()
        if self._net.rules:
            self._has_room()

    def _has_room(self) -> None:
        """Tell who waits for room that there may be some; TCP tells nobody else."""
        if self._lacks_room or not self.is_tcp:
            if self.poll() & POLLOUT:
                self._lacks_room = False
            self.changed(POLLOUT)

    def when_acknowledged(self, function: Callable[[], None]) -> None:
        """Call *function* when nothing refers to what was sent so far any more."""
        if self.state == "dead" or not self._travelling_bytes():
            function()
        else:
            self._when_acknowledged.append((self._sent_total, function))

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
            if self.is_tcp:
                self.changed()  # the kernel wakes whoever polls all the same
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
                peer.changed()

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
        self._acknowledged_total = self._sent_total
        while self._when_acknowledged:
            self._when_acknowledged.popleft()[1]()
        self._net.streams.pop(self, None)
        self.changed()

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
        else:
            self._lacks_room = True
        return mask

    def released(self) -> None:
        """See `SimFile`."""
        self._is_open = False
        self._net.unbind(self)
        self._net.streams.pop(self, None)
        for mark in self._marks:
            for file in mark.files:
                file.drop()
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
