"""A chunked body comes to the same however it is split, and takes nothing that follows it."""

from fuzz.choices import Choices
from uringio.proto._octets import ChunkedDecoder, ViolationError

BODY_BYTES_MAX = 400


def decode(pieces: list[bytes]) -> tuple[object, ...]:
    """Feed pieces; tell what came, or how it was refused."""
    decoder = ChunkedDecoder(200, 5, BODY_BYTES_MAX)
    buffer, body = bytearray(), bytearray()
    try:
        for piece in pieces:
            buffer += piece
            while taken := decoder.take(buffer):
                body += taken
    except ViolationError as error:
        # Of a body that is refused, more may have come in smaller pieces.
        assert len(body) <= BODY_BYTES_MAX
        return ("refused", error.status)
    assert len(body) <= BODY_BYTES_MAX
    if not decoder.done:
        return ("more", bytes(body))
    return ("done", bytes(body), tuple(decoder.trailers), bytes(buffer))


def run(data: bytes) -> None:
    choices = Choices(data[::-1])
    whole = decode([data])
    assert decode([data[at : at + 1] for at in range(len(data))]) == whole
    pieces: list[bytes] = []
    start = 0
    while start < len(data):
        stop = start + 1 + choices.below(12)
        pieces.append(data[start:stop])
        start = stop
    assert decode(pieces) == whole
