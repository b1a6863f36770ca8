"""Contexts for TLS in tests: two sides that know each other, and a stranger."""

import ssl
from pathlib import Path

__all__ = ["AUTHORITY", "SERVER", "client_context", "server_context"]

_FOLDER = Path(__file__).parent / "certificates"
AUTHORITY = _FOLDER / "authority.pem"
SERVER = _FOLDER / "server.pem"


def server_context(who: str = "server", *, asks_clients: bool = False) -> ssl.SSLContext:
    """
    Be a server: *who* is "server", whom clients trust as localhost, or "stranger".

    With *asks_clients* a client must show a certificate.
    """
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(_FOLDER / f"{who}.pem")
    if asks_clients:
        context.load_verify_locations(AUTHORITY)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def client_context(who: str | None = None) -> ssl.SSLContext:
    """Be a client, which trusts the tests' authority; "client" has a certificate to show."""
    context = ssl.create_default_context(cafile=str(AUTHORITY))
    if who is not None:
        context.load_cert_chain(_FOLDER / f"{who}.pem")
    return context
