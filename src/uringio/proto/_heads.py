"""From the octets of one request head to the request and the framing of its body."""

import h11

from uringio.proto._limits import Limit, Limits
from uringio.proto._octets import (
    BodyDecoder,
    ChunkedDecoder,
    LengthDecoder,
    ViolationError,
    declared_length,
    is_host,
    transfer_status,
)

__all__ = ["parse_head"]


def parse_head(head: bytes, limits: Limits) -> tuple[h11.Request, BodyDecoder, bool]:
    """
    Parse *head*, whose octets were approved, and judge what only its meaning shows.

    Returns:
        The request, what takes its body apart, and whether the peer may hold that back until it
        gets 100.

    Raises:
        ViolationError: It is no sound request, or declares a body over the limit.
    """
    # One h11 connection per request: it sees the head and nothing else, and making one costs less
    # than bringing it round to the next cycle.
    connection = h11.Connection(h11.SERVER, limits.head_bytes_max)
    try:
        connection.receive_data(head)
        event = connection.next_event()
    except h11.RemoteProtocolError as error:
        if error.error_status_hint == 501:
            raise ViolationError(transfer_status(head) or 400, "unfit Transfer-Encoding") from None
        raise ViolationError(400, "malformed request head") from None
    if not isinstance(event, h11.Request):
        raise ViolationError(400, "malformed request head")  # what h11 holds back is no request
    version = event.http_version
    if version[:1] != b"1":
        raise ViolationError(505 if version[:1] > b"1" else 400, "this server speaks HTTP/1.1")
    hosts_count = 0
    has_length = is_chunked = False
    for name, value in event.headers:
        if name == b"host":
            hosts_count += 1
            if not is_host(value):
                raise ViolationError(400, "malformed Host")
        elif name == b"content-length":
            has_length = True
        elif name == b"transfer-encoding":
            is_chunked = True
        elif name == b"expect" and value.lower() != b"100-continue":
            raise ViolationError(417, "unknown expectation")
    if hosts_count != 1 and version != b"1.0":
        raise ViolationError(400, "a request names exactly one Host")
    if is_chunked:
        if has_length:
            raise ViolationError(400, "Content-Length beside Transfer-Encoding")
        if version == b"1.0":
            raise ViolationError(400, "Transfer-Encoding in HTTP/1.0")
        chunked = ChunkedDecoder(
            limits.trailer_bytes_max, limits.fields_count_max, limits.body_bytes_max
        )
        return event, chunked, connection.they_are_waiting_for_100_continue
    length = declared_length(head) if has_length else 0
    if limits.body_bytes_max is not None and length > limits.body_bytes_max:
        raise ViolationError(413, "the request body is too large", Limit.BODY_BYTES)
    return event, LengthDecoder(length), connection.they_are_waiting_for_100_continue
