"""
Parts of a file: the ``Range`` field, and bodies of several parts.

Source: RFC 9110 sections 14.1.2, 14.2, 14.6 and 15.5.17.
"""

import re

__all__ = ["closing_line", "content_range", "parse_ranges", "part_head"]

# More parts than anybody needs; each costs a head and a read.
_RANGES_COUNT_MAX = 64
_DIGITS_MAX = 18  # 18 digits stay below 2**63, and above every file's size

_SPEC = re.compile(rb"([0-9]*)-([0-9]*)")


def parse_ranges(value: bytes, size_bytes: int) -> list[tuple[int, int]] | None:
    """
    Read a ``Range`` field for a file of this size.

    Returns:
        Where each part begins and where it stops (exclusive), in the order asked for, those that
        lie behind the end left out; empty when all do (416).  None when the field is to be ignored:
        malformed, of another unit, or asking for more bytes than the file has.
    """
    unit, equals, text = value.partition(b"=")
    specs = [spec for part in text.split(b",") if (spec := part.strip(b" \t"))]
    if unit.strip().lower() != b"bytes" or not equals or not 0 < len(specs) <= _RANGES_COUNT_MAX:
        return None
    ranges: list[tuple[int, int]] = []
    for spec in specs:
        match = _SPEC.fullmatch(spec)
        if match is None:
            return None
        first, last = match[1], match[2]
        if first:
            start = _number(first)
            stop = _number(last) + 1 if last else size_bytes
            if last and stop <= start:
                return None
        elif last:
            start = max(size_bytes - _number(last), 0)
            stop = size_bytes
        else:
            return None
        stop = min(stop, size_bytes)
        if start < stop:
            ranges.append((start, stop))
    if sum(stop - start for start, stop in ranges) > size_bytes:
        return None  # overlapping parts only make more of the same bytes
    return ranges


def _number(digits: bytes) -> int:
    digits = digits.lstrip(b"0") or b"0"
    return int(digits) if len(digits) <= _DIGITS_MAX else 10**_DIGITS_MAX


def content_range(start: int, stop: int, size_bytes: int) -> bytes:
    """Return the value of ``Content-Range`` for one part."""
    return b"bytes %d-%d/%d" % (start, stop - 1, size_bytes)


def part_head(boundary: bytes, kind: bytes, start: int, stop: int, size_bytes: int) -> bytes:
    """Return what stands before one part of a ``multipart/byteranges`` body."""
    return b"\r\n--%s\r\nContent-Type: %s\r\nContent-Range: %s\r\n\r\n" % (
        boundary,
        kind,
        content_range(start, stop, size_bytes),
    )


def closing_line(boundary: bytes) -> bytes:
    """Return what stands behind the last part."""
    return b"\r\n--%s--\r\n" % boundary
