"""
`SimNet`: the network between simulated sockets, and what can be done to it.

What is sent travels for a while and arrives in order.  Where the way is cut, a stream waits and
goes on when it is repaired, as TCP does by sending again, or gives up after as long as TCP would;
datagrams are lost.
"""

import errno
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, Protocol

from uringio._sys.sockaddr import unpack_sockaddr
from uringio._sys.system import System

from ._clock import SimClock
from ._dice import Dice

if TYPE_CHECKING:
    from ._faults import Faults
    from ._sockets import StreamSocket

__all__ = ["BYTE_ORDER", "GIVE_UP_NS", "End", "Place", "SimNet", "Wire", "address_parts"]

_EPHEMERAL_FIRST: Final = 40000
_BUFFER_BYTES: Final = 65536
# How long TCP sends again before it gives up: an established connection, and a SYN. [ns]
GIVE_UP_NS: Final = 924_600_000_000
BYTE_ORDER: Final = "little" if memoryview(b"\1\0").cast("H")[0] == 1 else "big"

# Who: an address, a port, both, or anybody.
End = str | int | tuple[str, int] | None

# What can be bound to: kind of socket, family, port or Unix path.
Place = tuple[int, int, int | bytes]


class _Bound(Protocol):
    """What may have an address of its own."""

    place: Place | None
    local: bytes
    kind_number: int
    options: dict[tuple[int, int], int | bytes]


class _Rule:
    """Something that was done to the network: which way, what, and by how much."""

    __slots__ = ("_source", "_target", "delay_ns", "what")

    def __init__(self, what: str, source: End, target: End, delay_ns: int = 0) -> None:
        self.what = what
        self.delay_ns = delay_ns
        self._source = source
        self._target = target

    def covers(self, wire: "Wire") -> bool:
        """Whether it is about this direction."""
        return _is(self._source, wire.source()) and _is(self._target, wire.target())


def _is(end: End, raw: bytes) -> bool:
    if end is None:
        return True
    host, port = address_parts(raw)
    if isinstance(end, int):
        return end == port
    return end == host if isinstance(end, str) else end == (host, port)


def address_parts(raw: bytes) -> tuple[str, int]:
    """Return host and port of an internet address."""
    address = unpack_sockaddr(raw)
    if not isinstance(address, tuple):
        return "", 0
    return address[0], address[1]


class Wire:
    """
    One direction between two sockets: what is sent arrives in order, if it arrives.

    Args:
        net: Where it is.
        source, target: Ask for the packed addresses of its ends.
        lossy: Whether what is lost is lost: of datagrams.
        give_up: Called when what was sent could not be delivered for a very long time.
    """

    def __init__(
        self,
        net: "SimNet",
        source: Callable[[], bytes],
        target: Callable[[], bytes],
        lossy: bool,
        give_up: Callable[[], None],
    ) -> None:
        self.source = source
        self.target = target
        self._net = net
        self._lossy = lossy
        self.give_up = give_up
        self._queue: deque[Callable[[], None]] = deque()
        self._last_ns = 0
        self._due_count = 0
        self._stall_count = 0

    def send(self, arrive: Callable[[], None]) -> None:
        """Have *arrive* called when it arrives."""
        net = self._net
        when_ns = net.clock.now_ns + net.travel_ns()
        if net.rules:
            when_ns += net.clog_ns(self)
        when_ns = max(when_ns, self._last_ns)
        if when_ns == net.clock.now_ns and not self._queue and not net.rules:
            arrive()
            return
        self._last_ns = when_ns
        self._queue.append(arrive)
        net.clock.call_at(when_ns, self._arrived)

    def send_now(self, arrive: Callable[[], None]) -> bool:
        """Call *arrive* at once, or when the way is open again; whether it was."""
        if not self._due_count and not self._net.fate(self):
            arrive()
            return True
        self._queue.append(arrive)
        self._due_count += 1
        self._net.stalled[self] = None
        return False

    def _arrived(self) -> None:
        if not self._due_count:
            if not self._net.rules:
                self._queue.popleft()()
                return
            fate = self._net.fate(self)
            if fate == "lose" and self._lossy:
                self._queue.popleft()
                return
            if not fate:
                self._queue.popleft()()
                return
            self._stall_count += 1
            self._net.stalled[self] = None
            if fate == "lose":
                nth = self._stall_count
                self._net.clock.call_later(GIVE_UP_NS, lambda: self._gave_up(nth))
        self._due_count += 1

    def go_on(self) -> bool:
        """Deliver what waits, if the way is open; whether it is."""
        if self._net.fate(self):
            return False
        self._stall_count += 1
        count, self._due_count = self._due_count, 0
        now_ns = self._net.clock.now_ns
        for _ in range(count):
            self._net.clock.call_at(now_ns, self._arrived)
        return True

    def _gave_up(self, nth: int) -> None:
        if nth == self._stall_count and self._due_count:
            self.give_up()


class SimNet:
    """
    Where sockets find each other, and what lies between them.

    Who is meant by *source*, *target*, *one* and *other* is told by an address (``"10.0.0.1"``), a
    port (``8000``), both (``("10.0.0.1", 8000)``), or None for anybody.  A socket that is not bound
    has the address that it connects to, as on one machine.  Unix sockets are not of the network.

    Attributes:
        latency_ns: The least and the most time that anything travels. [ns]
        buffer_bytes: What one direction of a connection holds. [bytes]
        names: Hosts, and the address of each.
    """

    def __init__(self, clock: SimClock, seed: int, faults: "Faults") -> None:
        self.clock = clock
        self.faults = faults
        self.latency_ns = (20_000, 1_000_000)
        self.buffer_bytes = _BUFFER_BYTES
        self.names = {"localhost": "127.0.0.1"}
        self.paths: dict[bytes, int] = {}  # names of Unix sockets, and their inode numbers
        self.rules: list[_Rule] = []
        self.stalled: dict[Wire, None] = {}
        self.streams: dict[StreamSocket, None] = {}
        self._dice = Dice(seed, "network")
        self._bound: dict[Place, list[_Bound]] = {}
        self._next_port = _EPHEMERAL_FIRST
        self._next_inode = 1

    # --- what can be done to it ------------------------------------------------------------------

    def partition(self, one: End, other: End = None) -> None:
        """
        Let nothing pass between two ends, in either direction.

        Connections wait, and go on after `repair`; or they end with ETIMEDOUT after the 15 minutes
        that TCP tries.  Datagrams are lost.
        """
        self.lose(one, other)
        self.lose(other, one)

    def lose(self, source: End, target: End = None) -> None:
        """
        Lose what *source* sends to *target*; the other direction still works.

        Also acknowledgements get lost: what *target* sends arrives, but it does not learn so.
        """
        self.rules.append(_Rule("lose", source, target))

    def hold(self, source: End = None, target: End = None) -> None:
        """Keep what *source* sends to *target* back, datagrams too, until `release`."""
        self.rules.append(_Rule("hold", source, target))

    def release(self) -> None:
        """Let everything that is held arrive, in its order."""
        self.rules = [rule for rule in self.rules if rule.what != "hold"]
        self._go_on()

    def clog(self, source: End = None, target: End = None, *, delay_ns: int) -> None:
        """Have what *source* sends to *target* travel so much longer."""
        self.rules.append(_Rule("clog", source, target, delay_ns))

    def reset(self, one: End = None, other: End = None) -> int:
        """Break the connections between two ends; returns how many ends found them reset."""
        found = [
            stream
            for stream in self.streams
            if (_is(one, stream.local) and _is(other, stream.remote))
            or (_is(other, stream.local) and _is(one, stream.remote))
        ]
        for stream in found:
            stream.reset(errno.ECONNRESET)
        return len(found)

    def repair(self) -> None:
        """Undo every `partition`, `lose`, `hold` and `clog`."""
        self.rules.clear()
        self._go_on()

    def _go_on(self) -> None:
        for wire in list(self.stalled):
            if wire.go_on():
                del self.stalled[wire]

    # --- how it works ----------------------------------------------------------------------------

    def travel_ns(self) -> int:
        """Return how long the next thing travels."""
        return self._dice.between(*self.latency_ns)

    def fate(self, wire: Wire) -> str:
        """What becomes of what arrives by a wire: ``"lose"``, ``"hold"``, or nothing."""
        for rule in self.rules:
            if rule.what != "clog" and rule.covers(wire):
                return rule.what
        return ""

    def clog_ns(self, wire: Wire) -> int:
        """How much longer it takes by a wire."""
        return sum(rule.delay_ns for rule in self.rules if rule.delay_ns and rule.covers(wire))

    def bind(self, socket: _Bound, raw: bytes) -> int:
        """Give *socket* an address; 0 or ``-errno``."""
        place = self.place(raw, socket.kind_number)
        if place is None or socket.place is not None:
            return -errno.EINVAL
        kind, _, where = place
        if isinstance(where, bytes):
            if where in self.paths:
                return -errno.EADDRINUSE
            if where[:1] != b"\0":
                self._bound.pop(place, None)  # whose name is gone, if anybody still has it open
                self.paths[where] = self._next_inode
                self._next_inode += 1
            elif self._bound.get(place):
                return -errno.EADDRINUSE
        elif where == 0:
            raw = self.with_port(raw, kind)
            place = self.place(raw, kind)
            assert place is not None
        elif not self._may_share(place, socket, raw):
            return -errno.EADDRINUSE
        self._bound.setdefault(place, []).append(socket)
        socket.place, socket.local = place, raw
        return 0

    def _may_share(self, place: Place, socket: _Bound, raw: bytes) -> bool:
        """Whether a port is free, on this address."""
        shares = bool(socket.options.get(_SO_REUSEPORT))
        host = _host_bytes(raw)
        for other in self._bound.get(place, ()):
            there = _host_bytes(other.local)
            if shares and other.options.get(_SO_REUSEPORT):
                continue
            if there == host or not any(there) or not any(host):
                return False
        return True

    def unbind(self, socket: _Bound) -> None:
        """Free the port of *socket*; a Unix path stays."""
        if socket.place is not None and socket in (found := self._bound.get(socket.place, [])):
            found.remove(socket)

    def bound_at(self, raw: bytes, kind: int) -> list[_Bound] | int:
        """Return who is bound to an address, the most exact one first; or ``-errno``."""
        place = self.place(raw, kind)
        if place is None:
            return -errno.EINVAL
        found = self._bound.get(place, [])
        if isinstance(place[2], bytes):
            if not place[2]:
                return -errno.EINVAL
            if place[2][:1] != b"\0" and place[2] not in self.paths:
                return -errno.ENOENT
            return found or -errno.ECONNREFUSED
        host = _host_bytes(raw)
        if not any(host):
            host = _LOOPBACK[len(host)]
        exact = [one for one in found if _host_bytes(one.local) == host]
        anywhere = [one for one in found if not any(_host_bytes(one.local))]
        return [*exact, *anywhere] or -errno.ECONNREFUSED

    def ephemeral(self, peer: bytes, kind: int) -> bytes:
        """Return an address of one's own for a socket that connects to *peer*."""
        family = int.from_bytes(peer[:2], BYTE_ORDER)
        if family == System.AF_UNIX:
            return peer[:2]
        return self.with_port(peer, kind)

    def place(self, raw: bytes, kind: int) -> Place | None:
        """Return what an address names."""
        family = int.from_bytes(raw[:2], BYTE_ORDER)
        if family == System.AF_UNIX:
            path = raw[2:] if raw[2:3] == b"\0" else raw[2:].split(b"\0")[0]
            return kind, family, path
        if family in {System.AF_INET, System.AF_INET6} and len(raw) >= 8:
            return kind, family, int.from_bytes(raw[2:4], "big")
        return None

    def with_port(self, raw: bytes, kind: int) -> bytes:
        """Put a port that is free into an address."""
        family = int.from_bytes(raw[:2], BYTE_ORDER)
        while self._bound.get((kind, family, self._next_port)):
            self._next_port += 1
        port, self._next_port = self._next_port, self._next_port + 1
        return raw[:2] + port.to_bytes(2, "big") + raw[4:]


def _host_bytes(raw: bytes) -> bytes:
    return raw[4:8] if len(raw) <= 16 else raw[8:24]


_LOOPBACK: Final = {4: b"\x7f\0\0\1", 16: bytes(15) + b"\1"}
_SO_REUSEPORT: Final = (1, 15)
