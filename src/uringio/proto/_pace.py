"""
How fast a peer is, judged by whoever asks now and then.

A deadline per wait would be made and thrown away with every request.  Instead the connection only
notes what it waits for, two stores per wait, and one sweeper for all connections asks `overdue`
about once a second.  A wait begins, for this purpose, when it is first seen; so the hot path reads
no clock, and a limit is kept to within one sweep.

Rates are measured over windows: a peer that has moved enough bytes by the end of one gets another.
"""

from collections.abc import Callable
from typing import Final

from uringio.proto._limits import Limit, Limits
from uringio.proto._messages import End, EndReason
from uringio.proto._octets import ViolationError

__all__ = ["BODY", "HEAD", "IDLE", "OURS", "SEND", "Pace", "end_of"]

# What a connection waits for.
OURS: Final = 0  # nothing of the peer's
IDLE: Final = 1  # the first byte of a head
HEAD: Final = 2  # the rest of a head
BODY: Final = 3  # a piece of a body
SEND: Final = 4  # room for what we send


class Pace:
    """
    What one connection waits for, and since when.

    Args:
        limits: How long it may.
        acknowledged: Returns how many bytes the peer has taken since the connection began; None
            where the stream cannot tell, or 0 where the kernel cannot, which looks the same as
            nothing yet.  Then a send counts when it is done, and gets the time that its size needs
            at the lowest rate.

    Attributes:
        phase: What is waited for.
        serial: Which request it is; the connection counts.
        received_bytes: How much has come of request bodies. [bytes]
        sending_bytes: The size of the send under way, or of the last one. [bytes]
        sent_bytes: How much was sent before it. [bytes]
        is_draining: The connection is to end soon.
    """

    __slots__ = (
        "_acknowledged",
        "_limits",
        "_seen_at",
        "_seen_bytes",
        "_seen_phase",
        "_seen_serial",
        "is_draining",
        "phase",
        "received_bytes",
        "sending_bytes",
        "sent_bytes",
        "serial",
    )

    def __init__(self, limits: Limits, acknowledged: Callable[[], int] | None) -> None:
        self._limits = limits
        self._acknowledged = acknowledged
        self.phase = OURS
        self.serial = 0
        self.received_bytes = 0
        self.sending_bytes = 0
        self.sent_bytes = 0
        self.is_draining = False
        self._seen_phase = OURS
        self._seen_serial = 0
        self._seen_at = 0.0
        self._seen_bytes = 0

    def drain(self) -> None:
        """From now on, wait for another head for a short while only, counted from now."""
        self.is_draining = True
        self._seen_phase = OURS

    def overdue(self, now: float) -> Limit | None:
        """Return the limit that the peer has overstepped at time *now*, any clock's seconds."""
        phase = self.phase
        if phase == OURS:
            self._seen_phase = OURS
            return None
        if phase != self._seen_phase or self.serial != self._seen_serial:
            self._see(now)
            return None
        limits = self._limits
        elapsed = now - self._seen_at
        if phase == IDLE:
            longest = limits.drain_seconds if self.is_draining else limits.idle_seconds
            return Limit.IDLE_TIME if elapsed >= longest else None
        if phase == HEAD:
            return Limit.HEAD_TIME if elapsed >= limits.head_seconds else None
        if phase == BODY:
            grace, rate, limit = limits.body_grace_seconds, limits.body_rate_min, Limit.BODY_RATE
        else:
            grace, rate, limit = limits.send_grace_seconds, limits.send_rate_min, Limit.SEND_RATE
        if elapsed < grace:
            return None
        if self._bytes_moved() - self._seen_bytes >= rate * elapsed:
            self._see(now)
            return None
        if (
            phase == SEND
            and not self._taken()
            and elapsed * rate < grace * rate + self.sending_bytes
        ):
            return None
        return limit

    def _see(self, now: float) -> None:
        self._seen_phase = self.phase
        self._seen_serial = self.serial
        self._seen_at = now
        self._seen_bytes = self._bytes_moved()

    def _bytes_moved(self) -> int:
        if self.phase == BODY:
            return self.received_bytes
        if self.phase != SEND:
            return 0
        return self._taken() or self.sent_bytes

    def _taken(self) -> int:
        return 0 if self._acknowledged is None else self._acknowledged()


def end_of(limit: Limit, *, is_draining: bool) -> tuple[End, ViolationError | None]:
    """Say how a connection ends whose peer overstepped *limit*, and what it is to be told."""
    if limit is Limit.IDLE_TIME:
        return End(EndReason.DRAINED if is_draining else EndReason.IDLE, limit=limit), None
    if limit is Limit.SEND_RATE:
        return End(EndReason.CUT, detail="the peer took the response too slowly", limit=limit), None
    part = "head" if limit is Limit.HEAD_TIME else "body"
    violation = ViolationError(408, f"the request {part} came too slowly", limit)
    return End(EndReason.REFUSED, 408, violation.detail, limit), violation
