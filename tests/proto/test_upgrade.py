"""Leaving HTTP: after 101 the stream has one new owner, who misses no byte."""

import pytest

from tests.proto.memory import MemoryStream, step
from uringio.errors import UsageError
from uringio.proto.http1 import EndReason, Http1Server, UpgradedStream
from uringio.streams import Stream

ASK = (
    b"GET /chat HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\n"
    b"Upgrade: h2c, WebSocket\r\n\r\n"
)
AFTER = b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"


async def switch(server: Http1Server, protocol: bytes = b"websocket") -> UpgradedStream | None:
    assert await server.next_request() is not None
    return await server.upgrade(protocol, [(b"X", b"y")])


@pytest.mark.parametrize("cut", range(len(AFTER) + 1))
def test_bytes_behind_the_head_go_to_the_new_owner(cut: int) -> None:
    """However the bytes behind the head arrive, the new owner gets them, and the server none."""
    stream = MemoryStream([ASK + AFTER[:cut], AFTER[cut:]])
    server = Http1Server(stream)

    async def run() -> bytes:
        upgraded = await switch(server)
        assert isinstance(upgraded, Stream)
        assert await server.next_request() is None
        await server.aclose()
        assert stream.closed_count == 0
        received = bytearray()
        while data := await upgraded.recv(7):
            assert len(data) <= 7
            received += data
        await upgraded.send_all(b"other words")
        await upgraded.send_eof()
        await upgraded.aclose()
        return bytes(received)

    assert step(run()) == AFTER
    assert stream.output == (
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"X: y\r\n\r\nother words"
    )
    assert server.end is not None
    assert server.end.reason is EndReason.UPGRADED
    assert stream.closed_count == 1


def test_there_is_one_owner() -> None:
    """A stream is handed over once, and time is the new owner's business."""
    server = Http1Server(MemoryStream([ASK]))

    async def run() -> None:
        assert await switch(server) is not None
        with pytest.raises(UsageError):
            await server.upgrade(b"websocket")
        with pytest.raises(UsageError):
            await server.respond(200)
        assert server.check_time(0.0) is None
        assert server.check_time(1e9) is None

    step(run())


@pytest.mark.parametrize(
    ("wire", "protocol"),
    [
        (ASK, b"other"),
        (ASK.replace(b", Upgrade", b""), b"websocket"),
        (ASK.replace(b"1.1", b"1.0"), b"websocket"),
        (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", b"websocket"),
        (ASK.replace(b"GET", b"POST")[:-2] + b"Content-Length: 3\r\n\r\n", b"websocket"),
    ],
)
def test_what_was_not_offered_is_not_done(wire: bytes, protocol: bytes) -> None:
    """Without the offer, or with a body unread, nothing is sent, and a response still can be."""
    stream = MemoryStream([wire])
    server = Http1Server(stream)

    async def run() -> None:
        with pytest.raises(UsageError):
            await switch(server, protocol)
        assert stream.sent == []
        await server.respond(400)
        await server.aclose()

    step(run())
    assert stream.output.startswith(b"HTTP/1.1 400 ")
    assert stream.closed_count == 1


def test_invalid_fields_are_refused_before_a_byte_is_sent() -> None:
    """A 101 cannot be split by a field."""
    stream = MemoryStream([ASK])
    server = Http1Server(stream)

    async def run() -> None:
        await server.next_request()
        with pytest.raises(UsageError):
            await server.upgrade(b"websocket", [(b"X", b"a\r\nY: b")])
        assert stream.sent == []
        await server.respond(400)

    step(run())


def test_a_peer_that_left_gets_no_stream() -> None:
    """When the 101 cannot be sent there is nothing to own, and the server closes."""
    stream = MemoryStream([ASK], send_limit=0)
    server = Http1Server(stream)

    async def run() -> None:
        assert await switch(server) is None
        await server.aclose()

    step(run())
    assert server.end is not None
    assert server.end.reason is EndReason.LOST
    assert stream.closed_count == 1
