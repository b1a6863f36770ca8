"""
A stream without a kernel, and a scheduler of one line.

`MemoryStream` answers every await at once, so a coroutine that uses nothing else runs to its end in
a single `send`.  That a coroutine does so also proves that the adapter awaits only its stream.
"""

from collections.abc import Coroutine, Iterable
from typing import TypeVar

T = TypeVar("T")


def step(coroutine: Coroutine[object, object, T]) -> T:
    """Run a coroutine that never has to wait."""
    try:
        coroutine.send(None)
    except StopIteration as done:
        return done.value
    coroutine.close()
    raise AssertionError("the adapter awaited something other than its stream")


class MemoryStream:
    """
    Play back what a peer sends, and record what it is sent.

    Args:
        arrivals: What each `recv` finds; after the last, the peer's end of stream.  An exception
            is raised instead of returned.
        send_limit: How many sends succeed before the connection is found reset.
    """

    def __init__(
        self, arrivals: Iterable[bytes | Exception], send_limit: int | None = None
    ) -> None:
        self.arrivals = [arrival for arrival in arrivals if arrival != b""]
        self.sent: list[bytes] = []
        self.send_limit = send_limit
        self.sent_eof = False
        self.closed_count = 0

    @property
    def output(self) -> bytes:
        return b"".join(self.sent)

    async def recv(self, max_bytes: int = 65536, /) -> bytes:
        assert not self.closed_count
        if not self.arrivals:
            return b""
        arrival = self.arrivals[0]
        if isinstance(arrival, Exception):
            raise arrival
        self.arrivals[0] = arrival[max_bytes:]
        if not self.arrivals[0]:
            del self.arrivals[0]
        return arrival[:max_bytes]

    async def send_all(self, data: bytes | bytearray | memoryview, /) -> None:
        assert not self.closed_count
        assert not self.sent_eof
        if self.send_limit is not None and len(self.sent) >= self.send_limit:
            raise ConnectionResetError(104, "Connection reset by peer")
        self.sent.append(bytes(data))

    async def send_eof(self) -> None:
        self.sent_eof = True

    async def aclose(self) -> None:
        self.closed_count += 1
