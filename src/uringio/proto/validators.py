"""
Has the client this already?  Entity tags, dates, and the fields that ask by them.

Source: RFC 9110 sections 5.6.7, 8.8, 13.1 and 13.2.2.
"""

import calendar
import os
import re
from collections.abc import Mapping
from functools import lru_cache

__all__ = ["entity_tag", "parse_http_date", "range_holds", "verdict"]

_TAG = re.compile(rb'(W/)?("[\x21\x23-\x7e\x80-\xff]*")')
_TAGS = re.compile(rb'[ \t,]*(?:(?:W/)?"[\x21\x23-\x7e\x80-\xff]*"[ \t]*(?:,[ \t,]*|$))+')

_MONTHS = b"Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split()
_MONTH = rb"(?P<month>" + b"|".join(_MONTHS) + rb")"
_TIME = rb"(?P<hour>\d\d):(?P<minute>\d\d):(?P<second>\d\d)"
_DATES = (
    re.compile(
        rb"[A-Z][a-z]{2}, (?P<day>\d\d) " + _MONTH + rb" (?P<year>\d{4}) " + _TIME + rb" GMT"
    ),
    re.compile(
        rb"[A-Z][a-z]{5,8}, (?P<day>\d\d)-" + _MONTH + rb"-(?P<year>\d\d) " + _TIME + rb" GMT"
    ),
    re.compile(
        rb"[A-Z][a-z]{2} " + _MONTH + rb" (?P<day>[ \d]\d) " + _TIME + rb" (?P<year>\d{4})"
    ),
)  # fmt: skip

_DATE_BYTES_MAX = 33  # "Wednesday, 09-Nov-94 08:49:37 GMT"


def entity_tag(status: os.stat_result, coding: str = "") -> bytes:
    """
    Return the strong tag of a file's present content.

    Args:
        status: The file's, or that of the compressed sibling that is sent in its place.
        coding: The content coding it is sent in, empty for none.
    """
    mark = f"-{coding}" if coding else ""
    return f'"{status.st_mtime_ns:x}-{status.st_size:x}{mark}"'.encode("ascii")


def parse_http_date(value: bytes) -> int | None:
    """Return a date, in any of the three forms that HTTP has had, as seconds since the epoch."""
    # What a peer makes long is not kept.
    return _parse_date(value) if len(value) <= _DATE_BYTES_MAX else None


@lru_cache(maxsize=512)
def _parse_date(value: bytes) -> int | None:
    for pattern in _DATES:
        if (match := pattern.fullmatch(value)) is not None:
            break
    else:
        return None
    year = int(match["year"])
    if len(match["year"]) == 2:
        year += 2000 if year < 70 else 1900
    day, hour, minute, second = (int(match[name]) for name in ("day", "hour", "minute", "second"))
    month = _MONTHS.index(match["month"]) + 1
    if not (year >= 1 and 1 <= day <= 31 and hour <= 23 and minute <= 59 and second <= 60):
        return None
    try:
        return calendar.timegm((year, month, day, hour, minute, second))
    except ValueError:
        return None


def verdict(fields: Mapping[bytes, bytes], tag: bytes, modified_seconds: int) -> int:
    """
    Judge a GET or HEAD by its conditions.

    Args:
        fields: The request's fields, names in lower case.
        tag: The strong entity tag of what would be sent.
        modified_seconds: When it was last modified, since the epoch. [s]

    Returns:
        200 to send it, 304 when the client has it, 412 when it is not what the client expects.
    """
    if (value := fields.get(b"if-match")) is not None:
        if not _names(value, tag, weakly=False):
            return 412
    elif (value := fields.get(b"if-unmodified-since")) is not None:
        date = parse_http_date(value)
        if date is not None and modified_seconds > date:
            return 412
    if (value := fields.get(b"if-none-match")) is not None:
        return 304 if _names(value, tag, weakly=True) else 200
    if (value := fields.get(b"if-modified-since")) is not None:
        date = parse_http_date(value)
        if date is not None and modified_seconds <= date:
            return 304
    return 200


def range_holds(value: bytes | None, tag: bytes, modified_seconds: int) -> bool:
    """Tell whether ``Range`` counts, by the value of ``If-Range``: a part only of the same."""
    if value is None:
        return True
    if value.startswith((b'"', b"W/")):
        return value == tag
    return parse_http_date(value) == modified_seconds


def _names(value: bytes, tag: bytes, *, weakly: bool) -> bool:
    if value.strip() == b"*":
        return True
    if _TAGS.fullmatch(value) is None:
        return False
    return any(opaque == tag and (weakly or not weak) for weak, opaque in _TAG.findall(value))
