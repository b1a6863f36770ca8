"""Every limit of size and count ends a connection by its name."""

import pytest

from tests.proto.corpus import AFTER, CHUNKED, POST
from tests.proto.memory import MemoryStream, step
from tests.proto.test_http1 import record
from uringio.proto.http1 import EndReason, Http1Server, Limit, Limits

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
SMALL = Limits(
    request_line_bytes_max=100,
    head_bytes_max=300,
    fields_count_max=5,
    trailer_bytes_max=50,
    body_bytes_max=10,
    requests_count_max=2,
)

# What oversteps a limit: the bytes, the limit, the status.
OVER: list[tuple[bytes, Limit, int]] = [
    (b"GET /" + b"a" * 100, Limit.REQUEST_LINE_BYTES, 414),
    (b"GET / HTTP/1.1\r\nX: " + b"a" * 300, Limit.HEAD_BYTES, 431),
    (b"GET / HTTP/1.1\r\n" + b"X: a\r\n" * 6, Limit.FIELDS_COUNT, 431),
    (CHUNKED + b"0\r\nX: " + b"a" * 50, Limit.TRAILER_BYTES, 431),
    (CHUNKED + b"0\r\n" + b"X: a\r\n" * 6, Limit.FIELDS_COUNT, 431),
    (POST + b"Content-Length: 11\r\n\r\n", Limit.BODY_BYTES, 413),
    (POST + b"Content-Length: 11\r\nExpect: 100-continue\r\n\r\n", Limit.BODY_BYTES, 413),
    (CHUNKED + b"b\r\n", Limit.BODY_BYTES, 413),
    (CHUNKED + b"5\r\nhello\r\n6\r\n", Limit.BODY_BYTES, 413),
    (CHUNKED + b"FFFFFFFFFFFFFFFF\r\n", Limit.BODY_BYTES, 413),
]


@pytest.mark.parametrize(("wire", "limit", "status"), OVER)
def test_limits_are_named(wire: bytes, limit: Limit, status: int) -> None:
    """What oversteps a limit is answered with its status, and the end carries its name."""
    for arrivals in ([wire], [wire[i : i + 1] for i in range(len(wire))]):
        stream = MemoryStream(arrivals)
        server = Http1Server(stream, limits=SMALL)
        step(record(server))
        assert server.end is not None
        assert (server.end.reason, server.end.status) == (EndReason.REFUSED, status)
        assert server.end.limit is limit
        assert stream.output.startswith(b"HTTP/1.1 %d " % status)
        assert b"100 Continue" not in stream.output


def test_bodies_up_to_the_limit_pass() -> None:
    """The limit itself is allowed, in one piece and in chunks; None allows everything."""
    for wire in (
        POST + b"Content-Length: 10\r\n\r\n0123456789",
        CHUNKED + b"5\r\n01234\r\n5\r\n56789\r\n0\r\n\r\n",
    ):
        stream = MemoryStream([wire])
        step(record(Http1Server(stream, limits=SMALL)))
        assert stream.output.endswith(b"\r\n\r\n0123456789")
    size = 3 * 1024 * 1024
    wire = POST + b"Content-Length: %d\r\n\r\n" % size + bytes(size)
    stream = MemoryStream([wire])
    step(record(Http1Server(stream, limits=Limits(body_bytes_max=None))))
    assert len(stream.output) > size
    stream = MemoryStream([wire])
    step(record(Http1Server(stream)))
    assert stream.output.startswith(b"HTTP/1.1 413 ")


def test_the_last_request_is_named() -> None:
    """The end after the last permitted request says so; one that the peer asked for does not."""
    server = Http1Server(MemoryStream([GET * 5]), limits=SMALL)
    step(record(server))
    assert server.end is not None
    assert (server.end.reason, server.end.limit) == (EndReason.ANNOUNCED, Limit.REQUESTS_COUNT)
    closing = GET[:-2] + b"Connection: close\r\n\r\n"
    server = Http1Server(MemoryStream([closing + AFTER]), limits=SMALL)
    step(record(server))
    assert server.end is not None
    assert (server.end.reason, server.end.limit) == (EndReason.ANNOUNCED, None)
