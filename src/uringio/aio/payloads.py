"""What is carried: data as programs hand it over, and as their protocols take it."""

__all__ = ["as_bytes", "deliver_to_nobody", "fill"]


def as_bytes(data: object) -> bytes:
    """
    Return *data* as `bytes` itself, copied if it is anything else.

    Raises:
        TypeError: It is not bytes-like.
    """
    if type(data) is bytes:
        return data
    if not isinstance(data, bytes | bytearray | memoryview):
        kind = type(data).__name__
        raise TypeError(f"data argument must be a bytes-like object, not {kind!r}")
    return bytes(data)  # pyright: ignore[reportUnknownArgumentType]


def fill(buffer: object, data: bytes | memoryview) -> int:
    """
    Copy what fits into the *buffer* that a `BufferedProtocol` offers; returns how much that was.

    Raises:
        RuntimeError: The buffer is empty.
        TypeError: It is no buffer, or cannot be written to.
    """
    # No view of it outlives this: the protocol may resize what it owns.
    with memoryview(buffer) as view, view.cast("B") as room:  # type: ignore[arg-type]
        count = min(len(room), len(data))
        if not count:
            raise RuntimeError("get_buffer() returned an empty buffer")
        room[:count] = data[:count]
    return count


def deliver_to_nobody(data: object) -> None:
    """Stand in for a protocol that takes no data."""
