"""
Simulated datagram sockets, of UDP and Unix.

Datagrams between two sockets arrive in their order, as they do within one machine; one that finds
no room is lost over UDP, and waits on a Unix socket.
"""

import errno
from collections import deque
from collections.abc import Sequence
from typing import Final, NamedTuple

from uringio._driver.poll_bits import POLLERR, POLLHUP, POLLIN, POLLOUT, POLLRDHUP
from uringio._sys.system import System
from uringio.errors import op_error

from ._net import BYTE_ORDER, SimNet, Wire
from ._objects import SimFile
from ._sockets import SimSocket, Taken, unnamed

__all__ = ["DatagramSocket"]

_UDP_BYTES_MAX: Final = 65507
_UNIX_QUEUE_MAX: Final = 10  # net.unix.max_dgram_qlen, and one
_UNIX_BYTES_MAX: Final = 212_960
_SHUT_RD: Final = 0
_SHUT_WR: Final = 1
_SHUT_RDWR: Final = 2


class _Datagram(NamedTuple):
    """One that has arrived."""

    data: bytes
    source: bytes
    files: list[SimFile]


class DatagramSocket(SimSocket):
    """A datagram socket."""

    def __init__(self, net: SimNet, family: int) -> None:
        super().__init__(net, family, System.SOCK_DGRAM)
        self._queue: deque[_Datagram] = deque()
        self._queue_bytes = 0
        self._wires: dict[bytes, Wire] = {}
        self._reads = self._writes = True
        self._peer: DatagramSocket | None = None  # of a Unix socket
        self._waiting: dict[DatagramSocket, None] = {}  # who has found no room here

    # --- names -----------------------------------------------------------------------------------

    def listen(self, backlog: int) -> int:
        """See `SimSocket`."""
        return -errno.EOPNOTSUPP

    def connect(self, raw: bytes) -> int | None:
        """See `SimSocket`."""
        if int.from_bytes(raw[:2], BYTE_ORDER) == 0:
            self.remote = b""
            self._peer = None
            self.state = "new"
            return 0
        if self.is_unix:
            found = self._found(raw)
            if isinstance(found, int):
                return found
            if found._peer not in {None, self}:
                return -errno.EPERM
            self._peer = found
        else:
            self._bind_self(raw)
        self.remote = raw
        self.state = "connected"
        return 0

    def _bind_self(self, target: bytes) -> None:
        if self.is_unix:
            return
        if self.place is None:
            wanted = target[:2] + bytes(2) + target[4:]
            self._net.bind(self, wanted)

    def _found(self, raw: bytes) -> "DatagramSocket | int":
        """Return who takes what is sent to an address."""
        bound = self._net.bound_at(raw, self.kind_number)
        if isinstance(bound, int):
            return bound
        exact: DatagramSocket | None = None
        for one in bound:
            if not isinstance(one, DatagramSocket):
                continue
            if one.state == "connected" and not one.is_unix:
                if one._same_end(one.remote, self.local):
                    return one  # a connected socket is the better match
            elif exact is None:
                exact = one
        return exact or -errno.ECONNREFUSED

    @staticmethod
    def _same_end(one: bytes, other: bytes) -> bool:
        return (
            one[2:8] == other[2:8]
            if len(one) <= 16
            else one[2:4] + one[8:24] == (other[2:4] + other[8:24])
        )

    # --- transfers -------------------------------------------------------------------------------

    def send(self, data: bytes, name: bytes = b"", files: Sequence[SimFile] = ()) -> int | None:
        """See `SimSocket`."""
        if self.error and not self.is_unix:
            return -self.take_error()
        if not self._writes:
            return -errno.EPIPE
        target = name or self.remote
        if not target:
            return -errno.ENOTCONN if self.is_unix else -errno.EDESTADDRREQ
        if self.is_unix:
            return self._send_unix(data, name, files)
        if int.from_bytes(target[:2], BYTE_ORDER) != self.family:
            return -errno.EAFNOSUPPORT if self.family == System.AF_INET else -errno.EINVAL
        if len(data) > _UDP_BYTES_MAX + (20 if self.family == System.AF_INET6 else 0):
            return -errno.EMSGSIZE
        if not int.from_bytes(target[2:4], "big"):
            return -errno.EINVAL
        self._bind_self(target)
        if self._net.faults.strikes("lose"):
            return len(data)
        wire = self._wires.get(target)
        if wire is None:
            wire = Wire(self._net, lambda: self.local, lambda: target, True, _nothing)
            self._wires[target] = wire
        source = self.local
        if not any(source[4:8] if len(source) <= 16 else source[8:24]):
            source = target[:2] + source[2:4] + target[4:]  # of all our addresses, the near one
        wire.send(lambda: self._arrive(target, _Datagram(data, source, [])))
        return len(data)

    def _arrive(self, target: bytes, datagram: _Datagram) -> None:
        found = self._found(target)
        if isinstance(found, int):
            if self.state == "connected" and self.refs and self._same_end(self.remote, target):
                self.error = errno.ECONNREFUSED  # the other kernel has said so
                self.changed()
            return
        if found._queue_bytes + len(datagram.data) > 3 * self._net.buffer_bytes:
            return
        found._take(datagram)

    def _send_unix(self, data: bytes, name: bytes, files: Sequence[SimFile]) -> int | None:
        if name:
            found = self._found(name)
        else:
            found = self._peer if self._peer is not None else -errno.ENOTCONN
            if isinstance(found, DatagramSocket) and not found.refs:
                self._peer = None
                self.remote = b""
                self.state = "new"
                return -errno.ECONNREFUSED
        if isinstance(found, int):
            return found
        if found._peer not in {None, self}:
            return -errno.EPERM
        if len(data) > _UNIX_BYTES_MAX:
            return -errno.EMSGSIZE
        if not found._reads:
            return -errno.EPIPE
        if len(found._queue) > _UNIX_QUEUE_MAX:
            found._waiting[self] = None
            return None
        for file in files:
            file.hold()
        found._take(_Datagram(data, self.local, list(files)))
        return len(data)

    def _take(self, datagram: _Datagram) -> None:
        self._queue.append(datagram)
        self._queue_bytes += len(datagram.data)
        self.changed(POLLIN)

    def receive(self, count: int, peek: bool, taken: Taken | None = None) -> bytes | int | None:
        """See `SimSocket`."""
        if self._queue:
            datagram = self._queue[0]
            if not peek:
                self._queue.popleft()
                self._queue_bytes -= len(datagram.data)
            for file in datagram.files:
                if taken is not None and peek:
                    file.hold()
                elif taken is None and not peek:
                    file.drop()
            if taken is not None:
                taken.name = b"" if datagram.source == unnamed(self.family) else datagram.source
                taken.full_bytes = len(datagram.data)
                taken.files = datagram.files
            waiting, self._waiting = self._waiting, {}
            for one in waiting:
                one.changed(POLLOUT)
            return datagram.data[:count]
        if self.error:
            return -self.take_error()
        return None if self._reads else b""

    def read(self, count: int) -> bytes | int | None:
        """See `SimFile`."""
        return self.receive(count, False)

    def write(self, data: bytes) -> int | None:
        """See `SimFile`."""
        return self.send(data)

    def shutdown(self, how: int) -> int:
        """See `SimSocket`."""
        if how not in {_SHUT_RD, _SHUT_WR, _SHUT_RDWR}:
            return -errno.EINVAL
        if self.state != "connected" and not self.is_unix:
            return -errno.ENOTCONN
        self._reads = self._reads and how == _SHUT_WR
        self._writes = self._writes and how == _SHUT_RD
        self.changed()
        return 0

    def poll(self) -> int:
        """See `SimFile`."""
        mask = POLLERR if self.error else 0
        if self._queue or self.error or not self._reads:
            mask |= POLLIN
        if not self._reads:
            mask |= POLLRDHUP
            if not self._writes:
                mask |= POLLHUP
        peer = self._peer
        if peer is None or not peer.refs or len(peer._queue) <= _UNIX_QUEUE_MAX:
            mask |= POLLOUT
        return mask

    def released(self) -> None:
        """See `SimFile`."""
        self._net.unbind(self)
        for datagram in self._queue:
            for file in datagram.files:
                file.drop()
        self._queue.clear()
        for one in self._waiting:
            one.changed()
        self._waiting.clear()

    def require_connected(self, fd: int) -> bytes:
        """See `SimSocket`."""
        if self.state != "connected":
            raise op_error(errno.ENOTCONN, "getpeername", fd)
        return self.remote


def _nothing() -> None:
    """Do nothing: who sends datagrams does not wait for them to arrive."""
