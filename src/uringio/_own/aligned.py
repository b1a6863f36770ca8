"""Memory at addresses that O_DIRECT accepts, and where other memory lies."""

from uringio._sys.memory import Memory, ReadableBuffer, pin

__all__ = ["address_of", "aligned_buffer"]


def aligned_buffer(size: int) -> memoryview:
    """
    Return zeroed writable memory that begins at a page, as ``direct=True`` files need it.

    Args:
        size: From 1 up. [bytes]

    Lifetime: while the view, or any slice of it, is referenced.

    Raises:
        ValueError: *size* is less than 1.
    """
    if size < 1:
        raise ValueError(f"a buffer has from 1 byte up, not {size}")
    return Memory(size).view


def address_of(data: ReadableBuffer) -> int:
    """Return where *data* lies now; good only while it is referenced and not resized."""
    return pin(data)[0]
