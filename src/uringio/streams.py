"""
The half-interfaces that protocol adapters see.

An adapter written against `Stream` runs over TCP, Unix sockets, TLS or an in-memory pipe alike: it
never learns which.  Every method returns an awaitable; none of them is assumed to be a coroutine,
because on a socket most are single operations.
"""

from collections.abc import Awaitable
from typing import Protocol, runtime_checkable

__all__ = ["ReceiveStream", "SendStream", "Stream"]


@runtime_checkable
class ReceiveStream(Protocol):
    """Bytes that arrive in order."""

    def recv(self, max_bytes: int = 65536, /) -> Awaitable[bytes]:
        """
        Wait for bytes.

        Args:
            max_bytes: The most to return, at least 1. [bytes]

        Returns:
            Between 1 and *max_bytes* bytes, or ``b""`` once the peer has sent its last.

        Raises:
            ClosedError: The stream was closed here.
            BusyError: Another task is receiving.
            OSError: The connection broke.
        """
        ...


@runtime_checkable
class SendStream(Protocol):
    """Bytes that leave in order."""

    def send_all(self, data: bytes | bytearray | memoryview, /) -> Awaitable[None]:
        """
        Send every byte of *data*, waiting for the peer where it is slow.

        Raises:
            ClosedError: The stream was closed here.
            BusyError: Another task is sending.
            OSError: The connection broke; ``done`` tells how many bytes had left.
        """
        ...

    def send_eof(self) -> Awaitable[None]:
        """Tell the peer that no more bytes follow; receiving goes on."""
        ...


@runtime_checkable
class Stream(ReceiveStream, SendStream, Protocol):
    """Both directions, and an end."""

    def aclose(self) -> Awaitable[None]:
        """Close both directions; safe to call twice."""
        ...
