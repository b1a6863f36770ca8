"""Protocols that write down what they are told."""

import asyncio
from typing import cast


class Diary(asyncio.Protocol):
    """
    Writes down every call, and lets the test wait for the connection's end.

    Attributes:
        calls: The names of the calls in order.
        received: All data so far.
    """

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.received = bytearray()
        self.error: Exception | None = None
        self.transport: asyncio.Transport
        self.made = asyncio.get_running_loop().create_future()
        self.lost = asyncio.get_running_loop().create_future()
        self._changed = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.calls.append("made")
        self.transport = cast("asyncio.Transport", transport)
        self.made.set_result(None)

    def data_received(self, data: bytes) -> None:
        assert type(data) is bytes
        self.calls.append("data")
        self.received += data
        self._changed.set()

    def eof_received(self) -> bool | None:
        self.calls.append("eof")
        self._changed.set()
        return None

    def pause_writing(self) -> None:
        self.calls.append("pause")

    def resume_writing(self) -> None:
        self.calls.append("resume")
        self._changed.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self.calls.append("lost")
        self.error = exc
        self.lost.set_result(None)
        self._changed.set()

    async def change(self) -> None:
        """Wait for the next call."""
        self._changed.clear()
        await self._changed.wait()

    async def until_received(self, count: int) -> bytes:
        """Wait until *count* bytes have come, and return all that came."""
        while len(self.received) < count:
            await self.change()
        return bytes(self.received)


class Echo(Diary):
    """Writes back what it gets."""

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self.transport.write(data)


class HalfOpen(Diary):
    """Keeps the connection open when the peer has ended its half."""

    def eof_received(self) -> bool:
        super().eof_received()
        return True


class Buffered(asyncio.BufferedProtocol):
    """Offers a buffer of *size* bytes for each piece, and writes down the pieces."""

    def __init__(self, size: int) -> None:
        self.buffer = bytearray(size)
        self.pieces: list[bytes] = []
        self.lost = asyncio.get_running_loop().create_future()

    def get_buffer(self, sizehint: int) -> bytearray:
        return self.buffer

    def buffer_updated(self, nbytes: int) -> None:
        self.pieces.append(bytes(self.buffer[:nbytes]))

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.set_result(None)
