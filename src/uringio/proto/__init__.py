"""
Protocol adapters over a `uringio.streams.Stream`.

An adapter turns the bytes of one stream into the events of one protocol and back.  It never learns
what carries the bytes (TCP, Unix, TLS, memory), which scheduler runs it or which driver moves the
data, so it is tested against recorded bytes alone.  Foreign sans-I/O libraries are imported by the
adapter that needs them, never by ``import uringio``.
"""

__all__: list[str] = []
