"""What a peer may ask of one HTTP/1.1 connection, and the names of what it can overstep."""

import enum

import attrs

__all__ = ["Limit", "Limits"]


class Limit(enum.Enum):
    """Which limit a peer overstepped; `End.limit` tells."""

    REQUEST_LINE_BYTES = enum.auto()
    HEAD_BYTES = enum.auto()
    FIELDS_COUNT = enum.auto()
    TRAILER_BYTES = enum.auto()
    BODY_BYTES = enum.auto()
    DISCARD_BYTES = enum.auto()
    REQUESTS_COUNT = enum.auto()
    HEAD_TIME = enum.auto()
    BODY_RATE = enum.auto()
    SEND_RATE = enum.auto()
    IDLE_TIME = enum.auto()


@attrs.frozen
class Limits:
    """
    What one peer may ask of a connection.

    The limits of time are kept by whoever calls `Http1Server.check_time` now and then; they are
    exact to the interval of those calls.

    Attributes:
        request_line_bytes_max: Longer first lines are answered with 414. [bytes]
        head_bytes_max: Larger heads are answered with 431. [bytes]
        fields_count_max: More header (or trailer) fields are answered with 431.
        trailer_bytes_max: Larger trailer sections are answered with 431. [bytes]
        body_bytes_max: Larger request bodies are answered with 413; None for no limit. [bytes]
        requests_count_max: The response to this many closes the connection.
        discard_bytes_max: How much of a body that the handler left unread is read and thrown away
            to keep the connection; beyond, it is closed. [bytes]
        linger_bytes_max: How much is read and thrown away while closing, so that the peer gets to
            see the last response before a reset. [bytes]
        head_seconds: From the first byte of a head to its last; later ones get 408. [s]
        idle_seconds: How long a connection may wait for the first byte of a head. [s]
        drain_seconds: The same, once `Http1Server.drain` was called. [s]
        body_rate_min: A body that is waited for and comes more slowly gets 408. [bytes/s]
        body_grace_seconds: Over what time that rate is measured. [s]
        send_rate_min: A peer that takes a response more slowly is dropped. [bytes/s]
        send_grace_seconds: Over what time that rate is measured. [s]
    """

    request_line_bytes_max: int = 8 * 1024
    head_bytes_max: int = 64 * 1024
    fields_count_max: int = 100
    trailer_bytes_max: int = 8 * 1024
    body_bytes_max: int | None = 1024 * 1024
    requests_count_max: int = 1000
    discard_bytes_max: int = 64 * 1024
    linger_bytes_max: int = 16 * 1024 * 1024
    head_seconds: float = 10.0
    idle_seconds: float = 15.0
    drain_seconds: float = 0.5
    body_rate_min: float = 500.0
    body_grace_seconds: float = 5.0
    send_rate_min: float = 500.0
    send_grace_seconds: float = 10.0
