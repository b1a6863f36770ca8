"""The heads of responses, as h11 sends them: their fields and reasons."""

import http
from collections.abc import Iterable
from typing import Final

import h11

from uringio.errors import UsageError
from uringio.proto._messages import Field, Request
from uringio.proto._octets import ViolationError

__all__ = ["BODILESS", "GO_ON", "refusal", "response", "switch"]

BODILESS: Final = frozenset({204, 304})

_REASONS = {int(status): status.phrase.encode("ascii") for status in http.HTTPStatus}

GO_ON: Final = h11.InformationalResponse(status_code=100, reason=_REASONS[100], headers=[])


def response(
    request: Request,
    status: int,
    headers: Iterable[Field],
    length: int | None,
    closes: bool,
    standing: Iterable[Field],
) -> h11.Response:
    """
    Make the head of a response.

    Args:
        request: What it answers.
        status: 200 or more.
        headers: What the handler wants sent.
        length: The length of the body if that is known. [bytes]
        closes: Whether the connection ends behind it.
        standing: What is sent with every response.

    Raises:
        UsageError: It would not be valid HTTP.
    """
    fields = list(headers)
    names = {name.lower() for name, _ in fields}
    if (
        length is not None
        and status not in BODILESS
        and names.isdisjoint((b"content-length", b"transfer-encoding"))
    ):
        fields.append((b"Content-Length", b"%d" % length))
    if closes and b"connection" not in names:
        fields.append((b"Connection", b"close"))
    fields.extend(standing)
    if request.method == "CONNECT" and 200 <= status < 300:
        raise UsageError("a tunnel cannot be opened by respond()")
    try:
        return h11.Response(status_code=status, headers=fields, reason=_REASONS.get(status, b""))
    except h11.LocalProtocolError as error:
        raise UsageError(f"invalid response: {error}") from None


def refusal(violation: ViolationError, standing: Iterable[Field]) -> tuple[h11.Response, bytes]:
    """Make the response to a broken request: its head, and its body."""
    reason = _REASONS[violation.status]
    content = b"%d %s: %s\n" % (violation.status, reason, violation.detail.encode("ascii"))
    fields = [
        (b"Content-Type", b"text/plain; charset=utf-8"),
        (b"Content-Length", b"%d" % len(content)),
        (b"Connection", b"close"),
        *standing,
    ]
    return h11.Response(status_code=violation.status, headers=fields, reason=reason), content


def switch(
    protocol: bytes, headers: Iterable[Field], standing: Iterable[Field]
) -> h11.InformationalResponse:
    """
    Make the head that ends HTTP on a connection.

    Raises:
        UsageError: It would not be valid HTTP.
    """
    fields = [(b"Connection", b"Upgrade"), (b"Upgrade", protocol), *headers, *standing]
    try:
        return h11.InformationalResponse(status_code=101, headers=fields, reason=_REASONS[101])
    except h11.LocalProtocolError as error:
        raise UsageError(f"invalid response: {error}") from None
